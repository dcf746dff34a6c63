"""What the rooms around serving hand in and get back.

The registry makes a `ServedVersion` of a stored version and asks the pool to deploy it; the router asks a
`VersionDirectory` (the registry again) which version a request means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from enginehouse.core.errors import FailedPrecondition
from enginehouse.core.names import VersionName
from enginehouse.serving.scaling import Scaling

if TYPE_CHECKING:
    from enginehouse.serving.traffic import Traffic


class Sample(NamedTuple):
    """The share of a version's predictions that is kept, and the table for it: `project.dataset.table`."""

    table: str
    share: float


@dataclass(frozen=True)
class ServedContainer:
    """A custom container that answers for a version.

    Args:
        engine: finds podman or docker; raises FailedPrecondition where neither is.
        command: in place of the image's ENTRYPOINT and CMD; empty to keep them.
        args: in place of its CMD; both may refer to variables, `$(NAME)`.
        environment: its variables.
        port: that it listens on.
        predict_route, health_route: paths there.
        has_files: the version's files are to be there, at `container.MODEL_DIR`.
    """

    engine: Callable[[], str] = field(compare=False)
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    predict_route: str
    health_route: str
    has_files: bool


@dataclass(frozen=True)
class ServedVersion:
    """All that is needed to serve one version; only `sample` and the logs may change while the version lives.

    Args:
        name: the version's resource name.
        uid: unique for ever, also when a version is deleted and another of the same name made; safe in file names.
        directory: the model's files, `saved_model.pb` or `model.*` at the top. Only read.
        framework: "TENSORFLOW", "SCIKIT_LEARN" or "XGBOOST".
        python: the interpreter of the version's runtime.
        site_dirs: directories with the user's own packages, put on the model server's path in this order.
        sample: which of its requests are kept, and where.
        logs_access: whether each request is told of in its access log.
        logs_console: whether what its code prints goes to its console log.
        explanation: its explanationConfig as JSON; "" where it is not to be explained.
        in_worker: `python` is too old for the model server, which runs on the engine's and has a worker there.
        scaling: how many nodes it has.
        container: what answers in place of a model server on `python`.
    """

    name: VersionName
    uid: str
    directory: Path
    framework: str
    python: Path
    site_dirs: tuple[Path, ...] = ()
    explanation: str = ""
    sample: Sample | None = None
    logs_access: bool = False
    logs_console: bool = False
    in_worker: bool = False
    scaling: Scaling = field(default_factory=Scaling)
    container: ServedContainer | None = None


@dataclass(frozen=True)
class DeployReport:
    """How loading a version and calling it for a test went, when it went well.

    Args:
        load_s: seconds from the start of the process to the end of the test call.
        self_test: "passed", or "inconclusive: …" where no instance that the model must accept can be derived from it
            (a text vectoriser, `parse_example`) and the made-up one was refused as data, not as a fault of the model.
        warnings: the framework's own warnings while it loaded (such as another scikit-learn version), each once.
        signatures: per signature the inputs and outputs that the model tells of itself:
            `{"serving_default": {"inputs": {"x": {"dtype": "float32", "shape": [None, 4]}}, "outputs": {…}}}`.
    """

    load_s: float
    self_test: str
    warnings: tuple[str, ...] = ()
    signatures: dict[str, Any] = field(default_factory=dict)


class ModelLoadError(FailedPrecondition):
    """A model that cannot be served.

    `message` is the original's inner text, `Failed to load model: <the framework's words> (Error code: 0)`;
    `creation_message` is what a failed CREATE_VERSION operation says.
    """

    @property
    def creation_message(self) -> str:
        """The text of the original's operation error; the two spaces are its own."""
        return f'Create Version failed. Bad model detected with error:  "{self.message}"'


class Answer(NamedTuple):
    """A model server's answer to one request: HTTP status and a JSON body."""

    status: int
    body: bytes


class VersionDirectory(Protocol):
    """Knows which version a request means. Called on the event loop: must answer at once, without I/O that waits.

    Answers are cached by the router until `PredictApp.forget` is called for the model.
    """

    def resolve(self, project: str, model_id: str, version_id: str | None) -> ServedVersion:
        """The version of that id, or the model's default version for None.

        Raises:
            NotFound: no such model or version.
            FailedPrecondition: the model has no default version, or the version is not ready.
        """
        ...

    def traffic(self, project: str, model_id: str) -> Traffic | None:
        """How requests without a version are shared out to the model's versions; None where all go to the default.

        Raises:
            NotFound: no such model.
        """
        ...
