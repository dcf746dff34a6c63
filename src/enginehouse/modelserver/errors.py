"""What can be wrong with a model or a request, in the original's words.

    ModelServerError              (never raised itself)
    ├── ModelLoadError            the model cannot be served; ends the process
    ├── PredictionError           these instances got no predictions: {"error": "Prediction failed: …"}
    └── MalformedRequest          the body is no prediction request: google.rpc.Status, HTTP 400

**The HTTP status of a failed prediction is 200**, with `{"error": "<text>"}` as the whole body. That is what the
clients of the original were written against: its documented Python sample reads `if 'error' in response: raise
RuntimeError(response['error'])`, TFX does the same, and gcloud prints the reply of an HTTP 200 as it is. With HTTP
400 google-api-python-client would raise an HttpError that says only "Bad Request", since it looks for the text in
`error.message`. Bodies that are no prediction request at all, which no such client sends, get Google's usual error
shape with HTTP 400, and the engine's own failures (no such version, too busy, too slow) their usual codes.
"""

from __future__ import annotations

from typing import Any, ClassVar

PREDICTION_ERROR_STATUS = 200

# The codes of the original's prediction library; 0 is a failure to load.
INPUTS_CODE = 1
MODEL_CODE = 2
OUTPUTS_CODE = 3
USER_CODE = 4


class ModelServerError(Exception):
    """Base of all errors here; `detail` is the framework's or our own sentence."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ModelLoadError(ModelServerError):
    """The model cannot be served. `str` gives the original's text, error code included."""

    def __str__(self) -> str:
        return f"Failed to load model: {self.detail} (Error code: 0)"


class PredictionError(ModelServerError):
    """The instances of one request got no predictions. `detail` begins with the original's words where it had any.

    Attributes:
        code: one of the `*_CODE`s; set by the batcher where the one who raised it left it open.
    """

    http_status: ClassVar[int] = PREDICTION_ERROR_STATUS

    def __init__(self, detail: str, code: int | None = None) -> None:
        super().__init__(detail)
        self.code = code

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        code = "" if self.code is None else f" (Error code: {self.code})"
        return {"error": f"Prediction failed: {self.detail}{code}"}


class MalformedRequest(PredictionError):
    """The body is not a JSON object with a list of instances."""

    http_status = 400

    def body(self) -> dict[str, Any]:
        return {"error": {"code": 400, "message": self.detail, "status": "INVALID_ARGUMENT"}}


def describe(error: BaseException) -> str:
    """The framework's own words; the class name where it has none."""
    return str(error).strip() or type(error).__name__
