"""A tuning job as a study: HyperparameterSpec in, StudyConfig out; a trial's parameters as text for its trainer.

The studies of jobs lie in a location of their own, where the optimizer API shows them under the job's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from enginehouse.core.names import JobName, StudyName
from enginehouse.jobs.hyperparameters import metric_tag
from enginehouse.metadata.records import JobRecord
from enginehouse.schemas import optimizer as messages
from enginehouse.schemas.ml_v1 import HyperparameterSpec, ParameterSpec
from enginehouse.schemas.wire import Int64, from_builtins

LOCATION = "jobs"
OWN = "job"
"""`client_id` of the trials that a job has made."""
PREVIOUS = "previous"
"""`client_id` of those that it took over from the job that it resumes."""


def study_name(job: JobName) -> StudyName:
    """Where the study of a tuning job lies."""
    return StudyName(job.project, LOCATION, job.job_id)


def spec_of(job: JobRecord) -> HyperparameterSpec:
    """What a tuning job asks for, as it is now."""
    return from_builtins(HyperparameterSpec, job.request["trainingInput"]["hyperparameters"])


def maximizes(spec: HyperparameterSpec) -> bool:
    """Whether more is better; also where no goal was named, as in the original."""
    return spec.goal != "MINIMIZE"


def config_of(spec: HyperparameterSpec) -> messages.StudyConfig:
    """The study of a job that `jobs.validate` has let through."""
    # Of the rules it is the one that loses no trial that would have become the best: bench/early_stopping.py.
    rule = messages.DecayCurveAutomatedStoppingConfig()
    stopping = messages.AutomatedStoppingConfig(decay_curve_stopping_config=rule)
    return messages.StudyConfig(
        metrics=[
            messages.StudyMetricSpec(metric=metric_tag(spec), goal="MAXIMIZE" if maximizes(spec) else "MINIMIZE")
        ],
        parameters=[_parameter(param) for param in spec.params],
        algorithm=spec.algorithm,
        automated_stopping_config=stopping if spec.enable_trial_early_stopping else None,
    )


def _parameter(param: ParameterSpec) -> messages.StudyParameterSpec:
    scale = "SCALE_TYPE_UNSPECIFIED" if param.scale_type == "NONE" else param.scale_type
    spec = messages.StudyParameterSpec(parameter=param.parameter_name, type=param.type, scale_type=scale)
    match param.type:
        case "DOUBLE":
            spec.double_value_spec = messages.DoubleValueSpec(
                min_value=param.min_value or 0.0, max_value=param.max_value or 0.0
            )
        case "INTEGER":
            spec.integer_value_spec = messages.IntegerValueSpec(
                min_value=Int64(param.min_value or 0), max_value=Int64(param.max_value or 0)
            )
        case "CATEGORICAL":
            spec.categorical_value_spec = messages.CategoricalValueSpec(values=param.categorical_values)
        case _:
            spec.discrete_value_spec = messages.DiscreteValueSpec(values=param.discrete_values)
    return spec


def texts_of(parameters: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A trial's parameters, messages Trial_Parameter, as name → text.

    Whole numbers are written without a point, those of DISCRETE parameters too: a trainer that parses them as int can
    read them, and one that parses floats can anyway.
    """
    texts = {}
    for each in parameters:
        parameter = from_builtins(messages.TrialParameter, each)
        if parameter.int_value is not None:
            text = str(int(parameter.int_value))
        elif parameter.float_value is not None:
            value = parameter.float_value
            text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        else:
            text = parameter.string_value or ""
        texts[parameter.parameter] = text
    return texts
