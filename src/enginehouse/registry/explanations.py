"""Is an explanationConfig one that the version's framework can carry out?"""

from __future__ import annotations

from enginehouse.core.errors import InvalidArgument
from enginehouse.schemas.ml_v1 import (
    ExplanationConfig,
    IntegratedGradientsAttribution,
    SampledShapleyAttribution,
    XraiAttribution,
)

MAX_STEPS = 1000
MAX_PATHS = 1000
MAX_NOISY_SAMPLES = 50
_FIELD = "version.explanation_config"
_FRAMEWORKS = {
    "integrated_gradients_attribution": ("TENSORFLOW", "PYTORCH"),
    "xrai_attribution": ("TENSORFLOW",),
}


def check_explanation(config: ExplanationConfig | None, framework: str) -> None:
    """Judge the config of a version whose framework is known; "" for a prediction class.

    Raises:
        InvalidArgument: naming the field.
    """
    if config is None:
        return
    methods = {name: method for name in config.__struct_fields__ if (method := getattr(config, name)) is not None}
    if len(methods) != 1:
        known = ", ".join(config.__struct_fields__)
        raise InvalidArgument(f"Give exactly one of {known}.", field=_FIELD)
    [(name, method)] = methods.items()
    field = f"{_FIELD}.{name}"
    fitting = _FRAMEWORKS.get(name)
    if fitting is not None and framework not in fitting:
        raise InvalidArgument(
            f"The method needs gradients, which {' and '.join(fitting)} have; this version is "
            f"{framework or 'a prediction class'}. Use sampled_shapley_attribution.",
            field=field,
        )
    if isinstance(method, SampledShapleyAttribution):
        _check_range(method.num_paths, MAX_PATHS, f"{field}.num_paths")
    else:
        _check_gradients(method, field)


def _check_gradients(method: IntegratedGradientsAttribution | XraiAttribution, field: str) -> None:
    _check_range(method.num_integral_steps, MAX_STEPS, f"{field}.num_integral_steps")
    smooth, blur = method.smooth_grad_config, method.blur_baseline_config
    if smooth is not None:
        at = f"{field}.smooth_grad_config"
        _check_range(smooth.noisy_sample_count, MAX_NOISY_SAMPLES, f"{at}.noisy_sample_count")
        if (smooth.noise_sigma != 0) == (smooth.feature_noise_sigma is not None):
            raise InvalidArgument("Give exactly one of noise_sigma, feature_noise_sigma.", field=at)
        by_feature = smooth.feature_noise_sigma.noise_sigma if smooth.feature_noise_sigma else []
        if smooth.noise_sigma < 0 or any(each.sigma <= 0 for each in by_feature):
            raise InvalidArgument("A standard deviation must be greater than 0.", field=at)
    if blur is not None and blur.max_blur_sigma < 0:
        raise InvalidArgument("It must not be negative.", field=f"{field}.blur_baseline_config.max_blur_sigma")


def _check_range(value: int, most: int, field: str) -> None:
    if not 0 <= value <= most:
        raise InvalidArgument(f"It must be between 1 and {most}, or left out for the default.", field=field)
