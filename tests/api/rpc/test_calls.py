"""Who may call, what is meant and how errors are told, on a real server; and the compiled messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from enginehouse.api.rpc.calls import Callers, Method, target
from enginehouse.api.rpc.messages import message
from enginehouse.api.rpc.metrics import CallMetrics
from enginehouse.api.rpc.server import RpcServer
from enginehouse.core.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from enginehouse.serving.inference import Target

SERVICE = "inference.GRPCInferenceService"
Request, Answer = message("inference.ServerMetadataRequest"), message("inference.ServerMetadataResponse")
Ask = Callable[..., tuple[grpc.StatusCode, str]]


def ask(
    tmp_path: Path,
    method: Method,
    *,
    token: str = "",
    metadata: tuple[tuple[str, str], ...] = (),
    metrics: CallMetrics | None = None,
) -> Any:
    """The answer's name, or the code and the words; by a socket whose peer is not known to be this machine."""

    metrics = metrics or CallMetrics()

    async def run() -> Any:
        server = grpc.aio.server()
        callers = Callers(token, "enginehouse", metrics.observe)
        server.add_generic_rpc_handlers([callers.handlers(SERVICE, {"ServerMetadata": method})])
        server.add_insecure_port(f"unix:{tmp_path}/socket")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/socket") as channel:
            call = channel.unary_unary(f"/{SERVICE}/ServerMetadata", Request.SerializeToString, Answer.FromString)
            try:
                return (await call(Request(), metadata=metadata)).name
            except grpc.aio.AioRpcError as error:
                return error.code(), error.details()
            finally:
                await server.stop(None)

    return asyncio.run(run())


async def tell_project(_request: Any, project: str) -> Any:
    return Answer(name=project)


def test_the_token_is_asked_for(tmp_path: Path) -> None:
    code, words = ask(tmp_path, tell_project, token="secret")
    assert (code, "setting token" in words) == (grpc.StatusCode.UNAUTHENTICATED, True)
    wrong = (("authorization", "Bearer sekret"),)
    assert ask(tmp_path, tell_project, token="secret", metadata=wrong)[0] == grpc.StatusCode.UNAUTHENTICATED
    assert (
        ask(tmp_path, tell_project, token="secret", metadata=(("authorization", "Bearer secret"),)) == "enginehouse"
    )


def test_the_project_comes_with_the_metadata(tmp_path: Path) -> None:
    assert ask(tmp_path, tell_project) == "enginehouse"
    assert ask(tmp_path, tell_project, metadata=(("x-goog-user-project", "other"),)) == "other"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (NotFound("Not there."), grpc.StatusCode.NOT_FOUND, "Not there."),
        (ResourceExhausted("Too many."), grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many."),
        (InvalidArgument("Wrong.", field="x"), grpc.StatusCode.INVALID_ARGUMENT, "Field: x Error: Wrong."),
        (KeyError("secret"), grpc.StatusCode.INTERNAL, "Internal error encountered."),
    ],
)
def test_errors_keep_code_and_words(tmp_path: Path, error: Exception, code: grpc.StatusCode, words: str) -> None:
    async def fail(_request: Any, _project: str) -> Any:
        raise error

    metrics = CallMetrics()
    assert ask(tmp_path, fail, metrics=metrics) == (code, words)
    assert f'{{method="{SERVICE}/ServerMetadata",code="{code.name}"}} 1\n' in metrics.render()


def test_names_of_versions() -> None:
    def named(name: str, version: str = "") -> Target:
        return target("mine", name, version, field="name")

    assert named("iris") == Target("mine", "iris", None)
    assert named("iris", "2") == Target("mine", "iris", "v2")
    assert named("iris", "canary") == Target("mine", "iris", "canary")
    assert named("projects/p/models/iris", "v3") == Target("p", "iris", "v3")
    assert named("projects/p/models/iris/versions/v3") == Target("p", "iris", "v3")
    for wrong in ("", "a/b", "projects/p/models"):
        with pytest.raises(InvalidArgument, match="names no model"):
            named(wrong)


def test_a_port_that_is_taken_is_told() -> None:
    async def run() -> None:
        def server() -> RpcServer:
            return RpcServer(None, token="", project="p", max_request_bytes=1 << 20)  # type: ignore[arg-type]

        first, second = server(), server()
        port = await first.start("127.0.0.1", 0)
        with pytest.raises(FailedPrecondition, match="--grpc-port"):
            await second.start("127.0.0.1", port)
        await first.close()
        await second.close()

    asyncio.run(run())


def test_descriptors_are_those_of_the_protos(tmp_path: Path) -> None:
    folder = Path(protoc.__file__).with_name("_proto")
    protos = Path(__file__).parents[3] / "src/enginehouse/api/rpc/protos"
    names = ["tensorflow.proto", "serving.proto", "inference.proto"]
    out = tmp_path / "out"
    flags = [f"-I{protos}", f"-I{folder}", "--include_imports", f"--descriptor_set_out={out}"]
    assert protoc.main(["protoc", *flags, *names]) == 0
    kept = (protos / "descriptors.binpb").read_bytes()
    parse = descriptor_pb2.FileDescriptorSet.FromString
    assert parse(kept) == parse(out.read_bytes()), "run `make protos`"
