"""The gRPC server, on the engine's event loop."""

from __future__ import annotations

import socket

import grpc

from enginehouse.api.rpc.calls import Callers
from enginehouse.api.rpc.metrics import CallMetrics
from enginehouse.api.rpc.open_inference import OpenInferenceService
from enginehouse.api.rpc.tf_serving import TfServingServices
from enginehouse.core.errors import FailedPrecondition
from enginehouse.serving.inference import Inference

_GRACE_S = 5.0


class RpcServer:
    """Answers on a port of its own, in plain text.

    Args:
        inference: asks the versions.
        token, project: as for HTTP.
        max_request_bytes: longer requests are refused with RESOURCE_EXHAUSTED.
    """

    def __init__(self, inference: Inference, *, token: str, project: str, max_request_bytes: int) -> None:
        self._metrics = CallMetrics()
        callers = Callers(token, project, self._metrics.observe)
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a port that is taken is refused rather than shared
            ]
        )
        self._server.add_generic_rpc_handlers(
            [*TfServingServices(inference).handlers(callers), OpenInferenceService(inference).handlers(callers)]
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which is a free one for 0.

        Raises:
            FailedPrecondition: the port is taken.
        """
        try:  # gRPC would print its own words, and tell no reason
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            raise FailedPrecondition(
                f"Can't listen on {host}:{port} for gRPC: {error.strerror}. Choose another port with --grpc-port, or "
                "0 for a free one."
            ) from None
        bound: int = self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        await self._server.start()
        return bound

    def metrics(self) -> str:
        """Calls by method and code, in Prometheus' text format."""
        return self._metrics.render()

    async def close(self) -> None:
        """Stop; calls under way have some seconds."""
        await self._server.stop(_GRACE_S)
