"""Messages of ml v1's optimizer: studies and their trials.

Source: the `ml` v1 discovery document, revision 20251213.
"""

from __future__ import annotations

from typing import Annotated, Literal

from enginehouse.schemas.wire import Duration, Int64, Message, OutputOnly, Timestamp

Goal = Literal["GOAL_TYPE_UNSPECIFIED", "MAXIMIZE", "MINIMIZE"]
ParameterType = Literal["PARAMETER_TYPE_UNSPECIFIED", "DOUBLE", "INTEGER", "CATEGORICAL", "DISCRETE"]
ScaleType = Literal["SCALE_TYPE_UNSPECIFIED", "UNIT_LINEAR_SCALE", "UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE"]
Algorithm = Literal[
    "ALGORITHM_UNSPECIFIED",
    "GAUSSIAN_PROCESS_BANDIT",
    "GRID_SEARCH",
    "RANDOM_SEARCH",
    # Of ours:
    "AUTO",
    "QUASI_RANDOM_SEARCH",
    "TPE",
    "CMA_ES",
]
StudyState = Literal["STATE_UNSPECIFIED", "ACTIVE", "INACTIVE", "COMPLETED"]
TrialState = Literal["STATE_UNSPECIFIED", "REQUESTED", "ACTIVE", "COMPLETED", "STOPPING"]


# --- what a study searches --------------------------------------------------------------------------------------


class CategoricalValueSpec(Message):
    values: list[str] = []


class DiscreteValueSpec(Message):
    values: list[float] = []


class DoubleValueSpec(Message):
    min_value: float = 0.0
    max_value: float = 0.0


class IntegerValueSpec(Message):
    min_value: Int64 = Int64(0)
    max_value: Int64 = Int64(0)


class MatchingParentCategoricalValueSpec(Message):
    values: list[str] = []


class MatchingParentDiscreteValueSpec(Message):
    values: list[float] = []


class MatchingParentIntValueSpec(Message):
    values: list[Int64] = []


class StudyParameterSpec(Message):
    """One parameter; a child exists only where its parent has one of the values that the child names."""

    parameter: str = ""
    type: ParameterType = "PARAMETER_TYPE_UNSPECIFIED"
    double_value_spec: DoubleValueSpec | None = None
    integer_value_spec: IntegerValueSpec | None = None
    categorical_value_spec: CategoricalValueSpec | None = None
    discrete_value_spec: DiscreteValueSpec | None = None
    scale_type: ScaleType = "SCALE_TYPE_UNSPECIFIED"
    child_parameter_specs: list[StudyParameterSpec] = []
    parent_categorical_values: MatchingParentCategoricalValueSpec | None = None
    parent_discrete_values: MatchingParentDiscreteValueSpec | None = None
    parent_int_values: MatchingParentIntValueSpec | None = None


class StudyMetricSpec(Message):
    metric: str = ""
    goal: Goal = "GOAL_TYPE_UNSPECIFIED"


class DecayCurveAutomatedStoppingConfig(Message):
    use_elapsed_time: bool = False


class MedianAutomatedStoppingConfig(Message):
    use_elapsed_time: bool = False


class SuccessiveHalvingStoppingConfig(Message):
    """Of ours. `reduction_factor`: one of so many trials goes on; 0 leaves it to the service."""

    use_elapsed_time: bool = False
    reduction_factor: int = 0


class AutomatedStoppingConfig(Message):
    decay_curve_stopping_config: DecayCurveAutomatedStoppingConfig | None = None
    median_automated_stopping_config: MedianAutomatedStoppingConfig | None = None
    successive_halving_stopping_config: SuccessiveHalvingStoppingConfig | None = None


class StudyConfig(Message):
    metrics: list[StudyMetricSpec] = []
    parameters: list[StudyParameterSpec] = []
    algorithm: Algorithm = "ALGORITHM_UNSPECIFIED"
    automated_stopping_config: AutomatedStoppingConfig | None = None


class Study(Message):
    name: Annotated[str, OutputOnly] = ""
    study_config: StudyConfig | None = None
    state: Annotated[StudyState, OutputOnly] = "STATE_UNSPECIFIED"
    create_time: Annotated[Timestamp, OutputOnly] = ""
    inactive_reason: Annotated[str, OutputOnly] = ""


class ListStudiesResponse(Message):
    studies: list[Study] = []


# --- trials -----------------------------------------------------------------------------------------------------


class MeasurementMetric(Message):
    metric: str = ""
    value: float = 0.0


class Measurement(Message):
    elapsed_time: Duration = ""
    step_count: Int64 = Int64(0)
    metrics: list[MeasurementMetric] = []


class TrialParameter(Message):
    parameter: str = ""
    float_value: float | None = None
    int_value: Int64 | None = None
    string_value: str | None = None


class Trial(Message):
    name: Annotated[str, OutputOnly] = ""
    state: TrialState = "STATE_UNSPECIFIED"
    parameters: list[TrialParameter] = []
    final_measurement: Measurement | None = None
    measurements: list[Measurement] = []
    start_time: Annotated[Timestamp, OutputOnly] = ""
    end_time: Annotated[Timestamp, OutputOnly] = ""
    client_id: Annotated[str, OutputOnly] = ""
    trial_infeasible: Annotated[bool, OutputOnly] = False
    infeasible_reason: Annotated[str, OutputOnly] = ""


class ListTrialsResponse(Message):
    trials: list[Trial] = []


class SuggestTrialsRequest(Message):
    suggestion_count: int = 0
    client_id: str = ""


class SuggestTrialsMetadata(Message):
    study: str = ""
    create_time: Timestamp = ""
    suggestion_count: int = 0
    client_id: str = ""


class SuggestTrialsResponse(Message):
    trials: list[Trial] = []
    study_state: StudyState = "STATE_UNSPECIFIED"
    start_time: Timestamp = ""
    end_time: Timestamp = ""


class AddTrialMeasurementRequest(Message):
    measurement: Measurement | None = None


class CompleteTrialRequest(Message):
    final_measurement: Measurement | None = None
    trial_infeasible: bool = False
    infeasible_reason: str = ""


class StopTrialRequest(Message):
    pass


class CheckTrialEarlyStoppingStateRequest(Message):
    pass


class CheckTrialEarlyStoppingStateMetatdata(Message):
    """Spelt as the API spells it."""

    study: str = ""
    trial: str = ""
    create_time: Timestamp = ""


class CheckTrialEarlyStoppingStateResponse(Message):
    should_stop: bool = False
    start_time: Timestamp = ""
    end_time: Timestamp = ""


class ListOptimalTrialsRequest(Message):
    pass


class ListOptimalTrialsResponse(Message):
    trials: list[Trial] = []
