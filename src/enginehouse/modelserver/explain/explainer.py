"""Explains the instances of a call: what the batcher asks instead of an adapter when a request says `:explain`.

    {"explanations": [{"attributions_by_label": [{"label_index": 1, "output_name": "probabilities",
        "baseline_score": 0.2, "example_score": 0.9, "approx_error": 0.003, "attributions": {"x": [0.4, 0.3]}}]}]}

One entry of `attributions_by_label` for the label with the highest score. `approx_error`: for integrated gradients
and XRAI, how far the attributions' sum is from the difference of the scores, as a share of that; for sampled Shapley,
whose sum is always right, the standard error of the sample as a share of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.base import Adapter, Call
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import ModelLoadError, PredictionError
from enginehouse.modelserver.explain import gradients, shapley
from enginehouse.modelserver.explain.answers import answer_of, pixels, value_range
from enginehouse.modelserver.explain.baselines import Feature, baselines_of, features_of
from enginehouse.modelserver.explain.metadata import Metadata
from enginehouse.modelserver.explain.method import IntegratedGradients, Method, SampledShapley, Xrai, parse
from enginehouse.modelserver.explain.target import DifferentiableTarget, Explainable, Target, scores_in_parts
from enginehouse.modelserver.explain.xrai import regions, segment_masks

_SEED = 0


class Explainer:
    """Explains what `adapter` predicts. Same rules as an adapter: one thread, `merge` and `run` go together."""

    takes_arrays = False

    def __init__(self, adapter: Adapter, method: Method, metadata: Metadata) -> None:
        if not isinstance(adapter, Explainable):
            raise ModelLoadError("Explanations are not possible for this framework.")
        self._adapter = adapter
        self._explainable: Explainable = adapter
        self._method = method
        self._metadata = metadata
        self._targets: dict[str, Target] = {}

    @classmethod
    def load(cls, adapter: Adapter, directory: Path, config: str) -> Explainer:
        """The explainer of a loaded model, tried as far as that is possible without an instance.

        Raises:
            ModelLoadError: the model cannot be explained in this way.
        """
        explainer = cls(adapter, parse(config), Metadata.load(directory))
        try:
            target = explainer._target(explainer._explainable.signature_name(None))
            features_of(target.parts, explainer._metadata, floats=explainer._needs_gradients)
        except PredictionError as error:
            raise ModelLoadError(error.detail) from error
        return explainer

    @property
    def _needs_gradients(self) -> bool:
        return not isinstance(self._method, SampledShapley)

    def prepare(self, request: Mapping[str, Any]) -> Call:
        """As in `Adapter.prepare`."""
        return self._target(self._explainable.signature_name(request.get("signature_name"))).prepare(request)

    def merge(self, calls: Sequence[Call]) -> Call:
        """As in `Adapter.merge`."""
        return self._adapter.merge(calls)

    def run(self, call: Call) -> list[Any]:
        """One explanation per row.

        Raises:
            PredictionError: the model failed, or cannot be explained in this way.
        """
        target = self._target(call.signature)
        arrays = target.arrays(call)
        features = features_of(target.parts, self._metadata, floats=self._needs_gradients)
        example = scores_in_parts(target, arrays)
        labels = np.argmax(np.where(np.isnan(example), -np.inf, example), axis=1)
        example_scores = np.take_along_axis(example, labels[:, None], axis=1)[:, 0]
        baselines = self._baselines(features, arrays)
        baseline_scores = np.mean([self._scores(target, features, arrays, b, labels) for b in baselines], axis=0)
        attributions, errors = self._attribute(target, features, arrays, labels, baselines)
        difference = example_scores - baseline_scores
        if errors is None:
            sums = sum(each.reshape(len(labels), -1).sum(axis=1) for each in attributions)
            errors = np.abs(sums - difference)
        shares = errors / np.where(np.abs(difference) > 1e-12, np.abs(difference), 1.0)
        if isinstance(self._method, Xrai):
            attributions = [self._regions(f, arrays, a) for f, a in zip(features, attributions, strict=True)]
        return [
            answer_of(
                target,
                features,
                [each[row] for each in attributions],
                [arrays[feature.position][row] for feature in features],
                label=int(labels[row]),
                baseline_score=float(baseline_scores[row]),
                example_score=float(example_scores[row]),
                approx_error=float(shares[row]),
                regional=isinstance(self._method, Xrai),
            )
            for row in range(len(labels))
        ]

    def _target(self, signature: str) -> Target:
        if signature not in self._targets:
            gradients_needed = self._needs_gradients
            target = self._explainable.target(signature, self._metadata, gradients=gradients_needed)
            self._targets[signature] = target
        return self._targets[signature]

    def _baselines(self, features: Sequence[Feature], arrays: Sequence[Array]) -> list[list[Array]]:
        if isinstance(self._method, IntegratedGradients) and self._method.max_blur_sigma:
            for feature in features:
                if arrays[feature.position].ndim < 3:
                    raise PredictionError(
                        f"Explanation failed: the input {feature.metadata.name} is no image, so that it can't be "
                        "blurred; leave blurBaselineConfig out."
                    )
            sigma = self._method.max_blur_sigma
            return [[gradients.blur(arrays[f.position], sigma).astype(arrays[f.position].dtype) for f in features]]
        if isinstance(self._method, Xrai) and not any(feature.metadata.baselines for feature in features):
            return [[_blank(f, arrays[f.position], end) for f in features] for end in (0, 1)]  # black and white
        return baselines_of(features, arrays)

    @staticmethod
    def _scores(
        target: Target, features: Sequence[Feature], arrays: Sequence[Array], values: Sequence[Array], labels: Array
    ) -> Array:
        """(n_rows,) the score of each row's label with other values for the features."""
        replaced = list(arrays)
        for feature, value in zip(features, values, strict=True):
            replaced[feature.position] = value
        scores = scores_in_parts(target, replaced)
        return np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]

    def _attribute(
        self,
        target: Target,
        features: Sequence[Feature],
        arrays: Sequence[Array],
        labels: Array,
        baselines: Sequence[Sequence[Array]],
    ) -> tuple[list[Array], Array | None]:
        """Attributions by feature, averaged over the baselines; and the error where it is not told by their sum."""
        positions = [feature.position for feature in features]
        if isinstance(self._method, SampledShapley):
            found = [
                shapley.sample(target, arrays, positions, labels, baseline, paths=self._method.paths)
                for baseline in baselines
            ]
            return _mean([values for values, _ in found]), np.mean([error for _, error in found], axis=0)
        assert isinstance(target, DifferentiableTarget)
        method = self._method.gradients if isinstance(self._method, Xrai) else self._method
        return _mean([self._integrated(target, method, features, arrays, labels, b) for b in baselines]), None

    def _integrated(
        self,
        target: DifferentiableTarget,
        method: IntegratedGradients,
        features: Sequence[Feature],
        arrays: Sequence[Array],
        labels: Array,
        baseline: Sequence[Array],
    ) -> list[Array]:
        positions = [feature.position for feature in features]
        random = np.random.default_rng(_SEED)
        found = []
        for _ in range(method.noisy_samples):
            example = [arrays[position].astype(np.float64) for position in positions]
            for index, feature in enumerate(features):
                sigma = method.feature_noise_sigma.get(feature.metadata.name, method.noise_sigma)
                if sigma:
                    # The same noise for every row: a row's explanation must not depend on its company.
                    example[index] = example[index] + random.normal(0, sigma, example[index].shape[1:])
            if method.max_blur_sigma:
                path = gradients.blur_path(example, method.max_blur_sigma)
            else:
                path = gradients.straight_path([b.astype(np.float64) for b in baseline], example)
            found.append(gradients.integrate(target, arrays, positions, labels, path, steps=method.steps))
        return _mean(found)

    @staticmethod
    def _regions(feature: Feature, arrays: Sequence[Array], attributions: Array) -> Array:
        """XRAI's heat map of each image: (n_rows, height, width)."""
        images = arrays[feature.position]
        if images.ndim != 4:
            raise PredictionError(
                f"Explanation failed: XRAI explains images (height, width, channels), but an instance of "
                f"{feature.metadata.name} has the shape {images.shape[1:]}."
            )
        shown = [pixels(image, *value_range(feature.metadata, image)) for image in images]
        return np.stack([regions(a.sum(axis=-1), segment_masks(i)) for a, i in zip(attributions, shown, strict=True)])


def _blank(feature: Feature, images: Array, end: int) -> Array:
    """Images in the color of one end of their range."""
    return np.stack([np.full_like(image, value_range(feature.metadata, image)[end]) for image in images])


def _mean(found: Sequence[Sequence[Array]]) -> list[Array]:
    """The mean of several lists of arrays, place by place."""
    return [np.mean(np.stack(each), axis=0) for each in zip(*found, strict=True)]
