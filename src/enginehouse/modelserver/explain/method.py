"""How a version is explained: its `explanationConfig`, as the engine hands it over."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

DEFAULT_STEPS = 50
DEFAULT_PATHS = 10


@dataclass(frozen=True)
class IntegratedGradients:
    """Integrated gradients (Sundararajan et al. 2017).

    Attributes:
        steps: of the trapezoid rule.
        noise_sigma: standard deviation of SmoothGrad's noise, for all inputs.
        feature_noise_sigma: the same by input, where inputs differ.
        noisy_samples: SmoothGrad averages over so many; 1 without noise.
        max_blur_sigma: where not 0, the path begins at the image blurred so much (blur integrated gradients, Xu et
            al. 2020) rather than at a baseline.
    """

    steps: int = DEFAULT_STEPS
    noise_sigma: float = 0.0
    feature_noise_sigma: dict[str, float] = field(default_factory=dict)
    noisy_samples: int = 1
    max_blur_sigma: float = 0.0


@dataclass(frozen=True)
class SampledShapley:
    """Shapley values, sampled over permutations of the features."""

    paths: int = DEFAULT_PATHS


@dataclass(frozen=True)
class Xrai:
    """XRAI (Kapishnikov et al. 2019): regions of an image, by the integrated gradients of their pixels."""

    gradients: IntegratedGradients = field(default_factory=IntegratedGradients)


Method = IntegratedGradients | SampledShapley | Xrai


def parse(text: str) -> Method:
    """The method in the JSON of an explanationConfig that the registry has judged."""
    config: dict[str, Any] = json.loads(text)
    if (shapley := config.get("sampledShapleyAttribution")) is not None:
        return SampledShapley(shapley.get("numPaths") or DEFAULT_PATHS)
    if (xrai := config.get("xraiAttribution")) is not None:
        return Xrai(_gradients(xrai))
    return _gradients(config["integratedGradientsAttribution"])


def _gradients(told: dict[str, Any]) -> IntegratedGradients:
    smooth = told.get("smoothGradConfig") or {}
    by_feature = (smooth.get("featureNoiseSigma") or {}).get("noiseSigma", [])
    return IntegratedGradients(
        steps=told.get("numIntegralSteps") or DEFAULT_STEPS,
        noise_sigma=smooth.get("noiseSigma") or 0.0,
        feature_noise_sigma={each["name"]: each["sigma"] for each in by_feature},
        noisy_samples=(smooth.get("noisySampleCount") or 3) if smooth else 1,
        max_blur_sigma=(told.get("blurBaselineConfig") or {}).get("maxBlurSigma") or 0.0,
    )
