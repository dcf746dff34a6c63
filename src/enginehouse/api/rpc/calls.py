"""What all methods have in common: who may call, which version is meant, and how errors are told.

Errors have the texts that they have over HTTP, and their gRPC codes.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from enginehouse.api.rpc.messages import Message, methods
from enginehouse.core.errors import EngineError, Internal, InvalidArgument, Unauthenticated
from enginehouse.core.loopback import LOOPBACK_PEERS
from enginehouse.serving.inference import Target

_log = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}

Method = Callable[[Message, str], Awaitable[Message]]
"""A method: from a request and the caller's project to the answer."""


@dataclass(frozen=True)
class Callers:
    """Wraps methods for the server.

    Args:
        token: what callers from other machines must bring; "" where there are none.
        project: the default one.
        observe: told the method, the status' name and the seconds of each call; see `metrics.CallMetrics`.
    """

    token: str
    project: str
    observe: Callable[[str, str, float], None]

    def handlers(self, service: str, served: Mapping[str, Method]) -> grpc.GenericRpcHandler:
        """A service; methods that are not in `served` are answered UNIMPLEMENTED."""
        types = methods(service)
        return grpc.method_handlers_generic_handler(
            service,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._guarded(f"{service}/{name}", method),
                    types[name][0].FromString,
                    types[name][1].SerializeToString,
                )
                for name, method in served.items()
            },
        )

    def _guarded(self, name: str, method: Method) -> Callable[[Message, Any], Awaitable[Message]]:
        async def answer(request: Message, context: Any) -> Message:
            began_s = time.perf_counter()
            answered = await self._answer(method, request, context)
            code = _CODES[answered.code] if isinstance(answered, EngineError) else grpc.StatusCode.OK
            self.observe(name, code.name, time.perf_counter() - began_s)
            if isinstance(answered, EngineError):
                await context.abort(code, answered.message)
            return answered

        return answer

    async def _answer(self, method: Method, request: Message, context: Any) -> Message | EngineError:
        try:
            metadata = dict(context.invocation_metadata())
            self._check(context.peer(), metadata)
            return await method(request, metadata.get("x-goog-user-project") or self.project)
        except EngineError as error:
            return error
        except Exception:
            _log.exception("an answer failed")
            return Internal("Internal error encountered.")

    def _check(self, peer: str, metadata: Mapping[str, Any]) -> None:
        """The engine's token, as over HTTP: only callers from this machine need none."""
        host = re.sub(r"^ipv[46]:\[?(.*?)\]?:\d+$", r"\1", peer.replace("%5B", "[").replace("%5D", "]"))
        if not self.token or host in LOOPBACK_PEERS:
            return
        sent = str(metadata.get("authorization", ""))
        if not hmac.compare_digest(sent.encode(), f"Bearer {self.token}".encode()):
            raise Unauthenticated(
                "Send the engine's token in the metadata: 'authorization: Bearer TOKEN' (setting token)."
            )


def target(project: str, name: str, version: str, *, field: str) -> Target:
    """The version that a request means.

    Args:
        name: a model's id, or `projects/P/models/M[/versions/V]`.
        version: its id; a bare number N means `vN`, since no id begins with a digit; "" for the default.
        field: that holds the name, for errors.
    """
    match name.split("/"):
        case ["projects", project, "models", model_id]:
            pass
        case ["projects", project, "models", model_id, "versions", named]:
            version = version or named
        case [model_id] if model_id:
            pass
        case _:
            raise InvalidArgument(
                f"{name!r} names no model: give its id, or projects/PROJECT/models/MODEL.", field=field
            )
    return Target(project, model_id, f"v{version}" if version.isdecimal() else version or None)
