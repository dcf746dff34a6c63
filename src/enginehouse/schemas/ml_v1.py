"""Messages of ml v1 (jobs, models, versions, operations).

Source: the `ml` v1 discovery document, revision 20251213. Field comments tell only what the name does not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import field

from enginehouse.schemas.wire import Base64, Duration, Hidden, Int64, Message, OutputOnly, Timestamp

JobState = Literal[
    "STATE_UNSPECIFIED", "QUEUED", "PREPARING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLING", "CANCELLED"
]
ScaleTier = Literal["BASIC", "STANDARD_1", "PREMIUM_1", "BASIC_GPU", "BASIC_TPU", "CUSTOM"]
VersionState = Literal["UNKNOWN", "READY", "CREATING", "FAILED", "DELETING", "UPDATING"]
# PYTORCH and ONNX are ours.
Framework = Literal["FRAMEWORK_UNSPECIFIED", "TENSORFLOW", "SCIKIT_LEARN", "XGBOOST", "PYTORCH", "ONNX"]
AcceleratorType = Literal[
    "ACCELERATOR_TYPE_UNSPECIFIED",
    "NVIDIA_TESLA_K80",
    "NVIDIA_TESLA_P100",
    "NVIDIA_TESLA_V100",
    "NVIDIA_TESLA_P4",
    "NVIDIA_TESLA_T4",
    "NVIDIA_TESLA_A100",
    "TPU_V2",
    "TPU_V3",
    "TPU_V2_POD",
    "TPU_V3_POD",
    "TPU_V4_POD",
]
DataFormat = Literal["DATA_FORMAT_UNSPECIFIED", "JSON", "TEXT", "TF_RECORD", "TF_RECORD_GZIP", "CSV"]
OperationType = Literal[
    "OPERATION_TYPE_UNSPECIFIED",
    "CREATE_VERSION",
    "DELETE_VERSION",
    "DELETE_MODEL",
    "UPDATE_MODEL",
    "UPDATE_VERSION",
    "UPDATE_CONFIG",
]


class Empty(Message):
    """google.protobuf.Empty."""


# --- jobs -------------------------------------------------------------------------------------------------------


class AcceleratorConfig(Message):
    count: Int64 = Int64(0)
    type: AcceleratorType = "ACCELERATOR_TYPE_UNSPECIFIED"


class DiskConfig(Message):
    boot_disk_type: str = ""
    boot_disk_size_gb: int = 0


class ReplicaConfig(Message):
    accelerator_config: AcceleratorConfig | None = None
    image_uri: str = ""
    tpu_tf_version: str = ""
    disk_config: DiskConfig | None = None
    container_command: list[str] = []
    container_args: list[str] = []


class EncryptionConfig(Message):
    kms_key_name: str = ""


class Scheduling(Message):
    max_running_time: Duration = ""
    max_wait_time: Duration = ""
    priority: int = 0
    strategy: str = ""


class ParameterSpec(Message):
    parameter_name: str = ""
    type: Literal["PARAMETER_TYPE_UNSPECIFIED", "DOUBLE", "INTEGER", "CATEGORICAL", "DISCRETE"] = (
        "PARAMETER_TYPE_UNSPECIFIED"
    )
    min_value: float | None = None
    max_value: float | None = None
    categorical_values: list[str] = []
    discrete_values: list[float] = []
    scale_type: Literal["NONE", "UNIT_LINEAR_SCALE", "UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE"] = "NONE"


class HyperparameterSpec(Message):
    goal: Literal["GOAL_TYPE_UNSPECIFIED", "MAXIMIZE", "MINIMIZE"] = "GOAL_TYPE_UNSPECIFIED"
    params: list[ParameterSpec] = []
    max_trials: int = 0
    max_parallel_trials: int = 0
    max_failed_trials: int = 0
    hyperparameter_metric_tag: str = ""
    resume_previous_job_id: str = ""
    enable_trial_early_stopping: bool = False
    algorithm: Literal[
        "ALGORITHM_UNSPECIFIED",
        "GRID_SEARCH",
        "RANDOM_SEARCH",
        # Of ours:
        "AUTO",
        "GAUSSIAN_PROCESS_BANDIT",
        "QUASI_RANDOM_SEARCH",
        "TPE",
        "CMA_ES",
    ] = "ALGORITHM_UNSPECIFIED"


class TrainingInput(Message):
    scale_tier: ScaleTier | None = None
    master_type: str = ""
    worker_type: str = ""
    parameter_server_type: str = ""
    evaluator_type: str = ""
    master_config: ReplicaConfig | None = None
    worker_config: ReplicaConfig | None = None
    parameter_server_config: ReplicaConfig | None = None
    evaluator_config: ReplicaConfig | None = None
    worker_count: Int64 = Int64(0)
    parameter_server_count: Int64 = Int64(0)
    evaluator_count: Int64 = Int64(0)
    package_uris: list[str] = []
    python_module: str = ""
    args: list[str] = []
    hyperparameters: HyperparameterSpec | None = None
    region: str = ""
    job_dir: str = ""
    runtime_version: str = ""
    python_version: str = ""
    encryption_config: EncryptionConfig | None = None
    scheduling: Scheduling | None = None
    network: str = ""
    service_account: str = ""
    use_chief_in_tf_config: bool = False
    enable_web_access: bool = False


class BuiltInAlgorithmOutput(Message):
    framework: str = ""
    runtime_version: str = ""
    python_version: str = ""
    model_path: str = ""


class HyperparameterMetric(Message):
    training_step: Int64 | None = None  # 0 is shown
    objective_value: float | None = None


class HyperparameterOutput(Message):
    trial_id: str = ""
    hyperparameters: dict[str, str] = {}
    final_metric: HyperparameterMetric | None = None
    all_metrics: list[HyperparameterMetric] = []
    is_trial_stopped_early: bool = False
    start_time: Timestamp = ""
    end_time: Timestamp = ""
    state: JobState = "STATE_UNSPECIFIED"
    built_in_algorithm_output: BuiltInAlgorithmOutput | None = None
    web_access_uris: dict[str, str] = {}


class TrainingOutput(Message):
    completed_trial_count: Int64 = Int64(0)
    trials: list[HyperparameterOutput] = []
    consumed_ml_units: float = field(default=0.0, name="consumedMLUnits")
    is_hyperparameter_tuning_job: bool = False
    is_built_in_algorithm_job: bool = False
    built_in_algorithm_output: BuiltInAlgorithmOutput | None = None
    hyperparameter_metric_tag: str = ""
    web_access_uris: Annotated[dict[str, str], OutputOnly] = {}


class PredictionInput(Message):
    model_name: str = ""
    version_name: str = ""
    uri: str = ""
    data_format: DataFormat = "DATA_FORMAT_UNSPECIFIED"
    output_data_format: DataFormat = "DATA_FORMAT_UNSPECIFIED"
    input_paths: list[str] = []
    output_path: str = ""
    max_worker_count: Int64 = Int64(0)
    region: str = ""
    runtime_version: str = ""
    batch_size: Int64 = Int64(0)
    signature_name: str = ""


class PredictionOutput(Message):
    output_path: str = ""
    prediction_count: Int64 = Int64(0)
    error_count: Int64 = Int64(0)
    node_hours: float = 0.0


class Job(Message):
    job_id: str = ""
    training_input: TrainingInput | None = None
    prediction_input: PredictionInput | None = None
    create_time: Timestamp = ""
    start_time: Timestamp = ""
    end_time: Timestamp = ""
    state: JobState = "STATE_UNSPECIFIED"
    error_message: str = ""
    training_output: TrainingOutput | None = None
    prediction_output: PredictionOutput | None = None
    labels: dict[str, str] = {}
    etag: Base64 = ""
    job_position: Annotated[Int64, OutputOnly] = Int64(0)


class CancelJobRequest(Message):
    pass


class ListJobsResponse(Message):
    jobs: list[Job] = []
    next_page_token: str = ""


# --- models and versions ----------------------------------------------------------------------------------------


class MetricSpec(Message):
    name: Literal["METRIC_NAME_UNSPECIFIED", "CPU_USAGE", "GPU_DUTY_CYCLE"] = "METRIC_NAME_UNSPECIFIED"
    target: int = 0


class AutoScaling(Message):
    min_nodes: int = 0
    max_nodes: int = 0
    metrics: list[MetricSpec] = []


class ManualScaling(Message):
    nodes: int = 0


class RequestLoggingConfig(Message):
    bigquery_table_name: str = ""
    sampling_percentage: float = 0.0


class NoiseSigmaForFeature(Message):
    name: str = ""
    sigma: float = 0.0


class FeatureNoiseSigma(Message):
    noise_sigma: list[NoiseSigmaForFeature] = []


class SmoothGradConfig(Message):
    noise_sigma: float = 0.0
    feature_noise_sigma: FeatureNoiseSigma | None = None
    noisy_sample_count: int = 0


class BlurBaselineConfig(Message):
    max_blur_sigma: float = 0.0


class IntegratedGradientsAttribution(Message):
    num_integral_steps: int = 0
    smooth_grad_config: Annotated[SmoothGradConfig | None, Hidden] = None
    blur_baseline_config: Annotated[BlurBaselineConfig | None, Hidden] = None


class SampledShapleyAttribution(Message):
    num_paths: int = 0


class XraiAttribution(Message):
    num_integral_steps: int = 0
    smooth_grad_config: Annotated[SmoothGradConfig | None, Hidden] = None
    blur_baseline_config: Annotated[BlurBaselineConfig | None, Hidden] = None


class ExplanationConfig(Message):
    integrated_gradients_attribution: IntegratedGradientsAttribution | None = None
    sampled_shapley_attribution: SampledShapleyAttribution | None = None
    xrai_attribution: XraiAttribution | None = None


class EnvVar(Message):
    name: str = ""
    value: str = ""


class ContainerPort(Message):
    container_port: int = 0


class ContainerSpec(Message):
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    ports: list[ContainerPort] = []
    env: list[EnvVar] = []


class RouteMap(Message):
    predict: str = ""
    health: str = ""


class Version(Message):
    name: str = ""  # the bare id in a create request, the full name in answers
    description: str = ""
    is_default: bool = False
    deployment_uri: str = ""
    create_time: Timestamp = ""
    last_use_time: Timestamp = ""
    runtime_version: str = ""
    python_version: str = ""
    machine_type: str = ""
    auto_scaling: AutoScaling | None = None
    manual_scaling: ManualScaling | None = None
    state: VersionState = "UNKNOWN"
    error_message: str = ""
    framework: Framework = "FRAMEWORK_UNSPECIFIED"
    prediction_class: str = ""
    package_uris: list[str] = []
    service_account: str = ""
    accelerator_config: AcceleratorConfig | None = None
    request_logging_config: RequestLoggingConfig | None = None
    explanation_config: ExplanationConfig | None = None
    container: ContainerSpec | None = None
    routes: RouteMap | None = None
    labels: dict[str, str] = {}
    etag: Base64 = ""
    last_migration_time: Annotated[Timestamp, OutputOnly] = ""
    last_migration_model_id: Annotated[str, OutputOnly] = ""


class SetDefaultVersionRequest(Message):
    pass


class ListVersionsResponse(Message):
    versions: list[Version] = []
    next_page_token: str = ""


class Model(Message):
    name: str = ""
    description: str = ""
    regions: list[str] = []
    default_version: Version | None = None
    online_prediction_logging: bool = False
    online_prediction_console_logging: bool = False
    labels: dict[str, str] = {}
    etag: Base64 = ""


class ListModelsResponse(Message):
    models: list[Model] = []
    next_page_token: str = ""


# --- operations -------------------------------------------------------------------------------------------------


class OperationMetadata(Message):
    create_time: Timestamp = ""
    start_time: Timestamp = ""
    end_time: Timestamp = ""
    is_cancellation_requested: bool = False
    operation_type: OperationType = "OPERATION_TYPE_UNSPECIFIED"
    model_name: str = ""
    version: Version | None = None
    labels: dict[str, str] = {}
    project_number: Int64 = Int64(0)


class Status(Message):
    """google.rpc.Status."""

    code: int = 0
    message: str = ""
    details: list[dict[str, Any]] = []


class Operation(Message):
    """google.longrunning.Operation; `metadata` and `response` carry their `@type`."""

    name: str = ""
    metadata: dict[str, Any] = {}
    done: bool = False
    error: Status | None = None
    response: dict[str, Any] | None = None


class ListOperationsResponse(Message):
    operations: list[Operation] = []
    next_page_token: str = ""
    unreachable: list[str] = []


# --- prediction ---------------------------------------------------------------------------------------------------


class HttpBody(Message):
    """google.api.HttpBody: bytes that are no message."""

    content_type: str = ""
    data: Base64 = ""
    extensions: list[dict[str, Any]] = []


class PredictRequest(Message):
    http_body: HttpBody | None = None


class ExplainRequest(Message):
    http_body: HttpBody | None = None


# --- the service --------------------------------------------------------------------------------------------------


class Capability(Message):
    type: Literal["TYPE_UNSPECIFIED", "TRAINING", "BATCH_PREDICTION", "ONLINE_PREDICTION"] = "TYPE_UNSPECIFIED"
    available_accelerators: list[AcceleratorType] = []


class Location(Message):
    name: str = ""
    capabilities: list[Capability] = []


class ListLocationsResponse(Message):
    locations: list[Location] = []
    next_page_token: str = ""


class Config(Message):
    tpu_service_account: str = ""


class GetConfigResponse(Message):
    service_account: str = ""
    service_account_project: Int64 = Int64(0)
    config: Config | None = None
