"""The normaliser over sockets: what real clients send, byte by byte, and what they get."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable

import pytest

from enginehouse.gateway.limits import Limits
from enginehouse.testing.gateway import GatewayThread, read_all, read_response, read_until

Serve = Callable[..., GatewayThread]
HOST = "www.googleapis.com"


def exchange(gateway: GatewayThread, request: bytes, host: str = HOST) -> tuple[int, dict[str, str], bytes]:
    with gateway.connect_through(host) as connection:
        connection.sendall(request)
        return read_response(connection)


def told(gateway: GatewayThread, request: bytes, host: str = HOST) -> dict:
    """What the echo application says of a request."""
    status, _, body = exchange(gateway, request, host)
    assert status == 200, body
    return json.loads(body)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class TestRequests:
    def test_the_scope(self, gateway: GatewayThread):
        got = told(
            gateway,
            b"GET /storage/v1/b/x/o/a%2Fb%20c?fields=size&alt=json HTTP/1.1\r\nHost: WWW.googleapis.com:443\r\n"
            b"X-Goog-Thing:  A b \r\nConnection: keep-alive\r\nTE: trailers\r\n\r\n",
        )
        assert got["method"] == "GET"
        assert got["scheme"] == "https"
        assert got["server"] == [HOST, 443]
        assert got["path"] == "/storage/v1/b/x/o/a/b c"
        assert got["raw_path"] == "/storage/v1/b/x/o/a%2Fb%20c"
        assert got["query"] == "fields=size&alt=json"
        assert got["headers"] == [["host", HOST], ["x-goog-thing", "A b"]]

    def test_tensorflows_upload(self, gateway: GatewayThread):
        """Chunked and Content-Length together, with Expect: the body is chunked, and the length is not believed."""
        data = bytes(range(256)) * 64
        with gateway.connect_through(HOST) as connection:
            connection.sendall(
                b"PUT /upload/storage/v1/b/bkt/o?uploadType=resumable&upload_id=x HTTP/1.1\r\n"
                b"User-Agent: TensorFlow\r\nHost: www.googleapis.com\r\nAccept: */*\r\n"
                b"Authorization: Bearer any\r\nTransfer-Encoding: chunked\r\n"
                b"Content-Range: bytes 0-%d/%d\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
                % (len(data) - 1, len(data), len(data))
            )
            began_s = time.monotonic()
            assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert time.monotonic() - began_s < 0.5  # curl waits a second, then goes on without it
            for at in range(0, len(data), 5000):
                piece = data[at : at + 5000]
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")
            status, _, body = read_response(connection)
        got = json.loads(body)
        assert (status, got["size"], got["sha256"]) == (200, len(data), sha256(data))
        names = [name for name, _ in got["headers"]]
        assert "content-range" in names
        assert not {"content-length", "transfer-encoding", "expect"} & set(names)

    def test_a_false_content_length_beside_chunks_does_no_harm(self, gateway: GatewayThread):
        request = (
            b"POST /upload/storage/v1/b/x/o HTTP/1.1\r\nHost: www.googleapis.com\r\nContent-Length: 4\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n0\r\n\r\n"
        )
        with gateway.connect_through(HOST) as connection:
            connection.sendall(request * 2)
            assert json.loads(read_response(connection)[2])["sha256"] == sha256(b"content")

    def test_tensorflows_empty_post(self, gateway: GatewayThread):
        request = (
            b"POST /upload/storage/v1/b/bkt/o?uploadType=resumable&name=d%2Ff HTTP/1.1\r\nUser-Agent: TensorFlow\r\n"
            b"Host: www.googleapis.com\r\nAccept: */*\r\nAuthorization: Bearer any\r\nTransfer-Encoding: identity\r\n"
            b"X-Upload-Content-Length: 3\r\nContent-Length: 0\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\r\n"
        )
        with gateway.connect_through(HOST) as connection:
            connection.sendall(request)
            assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            status, _, body = read_response(connection)
            assert (status, json.loads(body)["size"]) == (200, 0)
            connection.sendall(request)  # and the connection is still in step
            assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")

    def test_lf_only_multipart_passes_untouched(self, gateway: GatewayThread):
        body = b"--==1==\nContent-Type: application/json\n\n{}\n--==1==\nA: b\n\nbytes\n--==1==--"
        got = told(
            gateway,
            b"POST /upload/storage/v1/b/x/o?uploadType=multipart HTTP/1.1\r\nHost: www.googleapis.com\r\n"
            b"content-type: multipart/related; boundary='==1=='\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body),
        )
        assert got["sha256"] == sha256(body)
        assert ["content-type", "multipart/related; boundary='==1=='"] in got["headers"]

    def test_heads_with_bare_lf(self, gateway: GatewayThread):
        got = told(gateway, b"\r\n\nGET /storage/v1/b HTTP/1.1\nHost: www.googleapis.com\nA: b\n\n")
        assert ["a", "b"] in got["headers"]

    def test_pipelined_requests_are_answered_in_turn(self, gateway: GatewayThread):
        paths = [f"/storage/v1/b/{n}" for n in range(20)]
        request = (
            "".join(
                f"POST {path} HTTP/1.1\r\nHost: www.googleapis.com\r\nContent-Length: {n}\r\n\r\n{'x' * n}"
                for n, path in enumerate(paths)
            )
            + "GET /storage/v1/last HTTP/1.1\r\nHost: www.googleapis.com\r\nConnection: close\r\n\r\n"
        )
        with gateway.connect_through(HOST) as connection:
            connection.sendall(request.encode())
            answers = read_all(connection)
        bodies = [json.loads(part.split(b"HTTP/1.1")[0]) for part in answers.split(b"\r\n\r\n")[1:]]
        assert [body["path"] for body in bodies] == [*paths, "/storage/v1/last"]
        assert [body["size"] for body in bodies] == [*range(20), 0]

    def test_http_1_0_without_host(self, gateway: GatewayThread):
        with gateway.connect_through(HOST) as connection:
            connection.sendall(b"GET /storage/v1/b HTTP/1.0\r\n\r\n")
            answer = read_all(connection)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Connection: close" in head
        assert json.loads(body)["server"] == [HOST, 443]

    def test_a_half_closed_client_gets_its_answer(self, gateway: GatewayThread):
        with gateway.connect() as connection:
            connection.sendall(b"GET http://storage.googleapis.com/b/o HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")

    def test_an_idle_connection_is_closed(self, quick_gateway: GatewayThread):
        with quick_gateway.connect_through(HOST) as connection:
            connection.sendall(b"GET /storage/v1/b HTTP/1.1\r\nHost: www.googleapis.com\r\n\r\n")
            read_response(connection)
            assert connection.recv(1) == b""


def answering(*messages: dict) -> Callable:
    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, **headers: str) -> dict:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def body(data: bytes = b"", *, more: bool = False) -> dict:
    return {"type": "http.response.body", "body": data, "more_body": more}


GET = b"GET /storage/v1/b HTTP/1.1\r\nHost: www.googleapis.com\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD", 1)


class TestAnswers:
    def test_the_head_and_the_body_arrive_in_one_piece(self, serve: Serve):
        gateway = serve(answering(start(content_type="a/b"), body(b"hello")))
        with gateway.connect_through("storage.googleapis.com", 80) as connection:
            connection.sendall(GET.replace(b"www", b"storage"))
            first = connection.recv(65536)
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert first.endswith(b"\r\n\r\nhello")
        assert b"Content-Length: 5\r\n" in first
        assert b"Date: " in first

    def test_the_names_of_headers_are_written_as_tensorflow_looks_for_them(self, serve: Serve):
        gateway = serve(answering(start(location="https://x", x_goog_hash="md5=x"), body()))
        with gateway.connect_through(HOST) as connection:
            connection.sendall(GET)
            head = read_until(connection, b"\r\n\r\n")
        assert b"\r\nLocation: https://x\r\nX-Goog-Hash: md5=x\r\nContent-Length: 0\r\n" in head

    def test_a_body_of_unknown_length_is_chunked(self, serve: Serve):
        gateway = serve(answering(start(), body(b"one", more=True), body(b"", more=True), body(b"two")))
        with gateway.connect_through(HOST) as connection:
            for _ in range(2):
                connection.sendall(GET)
                _, headers, data = read_response(connection)
                assert (headers["transfer-encoding"], data) == ("chunked", b"onetwo")

    def test_a_body_of_unknown_length_ends_with_the_connection_in_http_1_0(self, serve: Serve):
        gateway = serve(answering(start(), body(b"one", more=True), body(b"two")))
        with gateway.connect_through(HOST) as connection:
            connection.sendall(GET.replace(b"1.1", b"1.0"))
            head, _, data = read_all(connection).partition(b"\r\n\r\n")
        assert data == b"onetwo"
        assert b"transfer-encoding" not in head.lower()

    @pytest.mark.parametrize(
        ("request_bytes", "messages", "content_length"),
        [
            (HEAD, (start(content_length="12"), body()), "12"),
            (HEAD, (start(content_length="12"), body(b"x" * 12)), "12"),
            (HEAD, (start(), body(b"x", more=True), body()), None),
            (GET, (start(204), body()), None),
            (GET, (start(204, content_length="0"), body()), None),
            (GET, (start(304, content_length="12"), body()), "12"),
        ],
    )
    def test_answers_without_a_body(
        self, serve: Serve, request_bytes: bytes, messages: tuple[dict, ...], content_length: str | None
    ):
        gateway = serve(answering(*messages))
        with gateway.connect_through(HOST) as connection:
            for _ in range(2):  # the second shows that nothing of a body was sent
                connection.sendall(request_bytes)
                head = read_until(connection, b"\r\n\r\n")
                assert head.endswith(b"\r\n\r\n")
                lines = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:-2])
                assert lines.get("content-length") == content_length
                assert "transfer-encoding" not in lines

    def test_connection_close_of_the_application(self, serve: Serve):
        gateway = serve(answering(start(connection="close"), body(b"x")))
        with gateway.connect_through(HOST) as connection:
            connection.sendall(GET * 2)
            assert read_all(connection).count(b"HTTP/1.1 200") == 1

    def test_an_exception_is_a_500_in_the_apis_shape(self, serve: Serve, caplog: pytest.LogCaptureFixture):
        async def app(scope, receive, send):
            raise ValueError("secret")

        with caplog.at_level(logging.ERROR):
            status, headers, data = exchange(serve(app), GET)
        assert status == 500
        assert headers["content-type"] == "application/json"
        assert json.loads(data)["error"]["status"] == "INTERNAL"
        assert b"secret" not in data
        assert "secret" in caplog.text

    @pytest.mark.parametrize(
        "messages",
        [
            (),
            (start(),),
            (body(b"x"),),
            (start(), start()),
            (start(content_length="3"), body(b"four")),
            (start(content_length="3"), body(b"to")),
            (start(content_length="x"), body(b"to")),
            (start(evil="a\r\nInjected: yes"), body(b"to")),
            ({"type": "http.response.start", "status": 200, "headers": [(b"a b", b"c")]}, body(b"to")),
            ({"type": "websocket.accept"},),
        ],
    )
    def test_a_wrong_application_is_a_500(
        self, serve: Serve, messages: tuple[dict, ...], caplog: pytest.LogCaptureFixture
    ):
        with caplog.at_level(logging.CRITICAL, "enginehouse.gateway"):
            status, _, data = exchange(serve(answering(*messages)), GET)
        assert status == 500
        assert b"Injected" not in data

    @pytest.mark.parametrize(
        "messages",
        [
            (start(), body(b"part", more=True)),
            (start(content_length="8"), body(b"part", more=True)),
            (start(content_length="8"), body(b"part", more=True), body(b"way")),
        ],
    )
    def test_a_broken_off_answer_does_not_look_whole(self, serve: Serve, messages: tuple[dict, ...]):
        gateway = serve(answering(*messages))
        with gateway.connect_through("storage.googleapis.com", 80) as connection:
            connection.sendall(GET.replace(b"www", b"storage"))
            data = read_all(connection)
        assert not data.endswith(b"0\r\n\r\n")
        assert b"partway" not in data

    def test_a_broken_off_answer_does_not_look_whole_in_http_1_0(self, serve: Serve):
        """Where its end is the connection's."""
        gateway = serve(answering(start(), body(b"part", more=True)))
        with gateway.connect_through("storage.googleapis.com", 80) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                while connection.recv(65536):
                    pass

    def test_what_the_application_left_of_a_small_body_is_read(self, serve: Serve):
        gateway = serve(answering(start(), body(b"x")))
        put = b"PUT /storage/v1/b HTTP/1.1\r\nHost: www.googleapis.com\r\nContent-Length: 100000\r\n\r\n"
        with gateway.connect_through(HOST) as connection:
            for _ in range(3):
                connection.sendall(put + b"x" * 100_000)
                assert read_response(connection)[0] == 200

    @pytest.mark.parametrize("port", [80, 443])
    def test_a_client_that_sends_on_gets_an_early_answer(self, serve: Serve, port: int):
        """As Python's http.client does, which looks for the answer only when all is sent."""
        gateway = serve(answering(start(400), body(b"too much")))
        size = 32 * 1024 * 1024
        with gateway.connect_through("storage.googleapis.com", port) as connection:
            connection.sendall(
                b"PUT /b HTTP/1.1\r\nHost: storage.googleapis.com\r\nContent-Length: %d\r\n\r\n" % size
            )
            for _ in range(size // 65536):
                connection.sendall(bytes(65536))
            status, headers, data = read_response(connection)
        assert (status, headers["connection"], data) == (400, "close", b"too much")


class TestStreaming:
    def test_the_application_can_answer_while_it_reads(self, serve: Serve):
        async def shout(scope, receive, send):
            await send(start())
            more = True
            while more:
                message = await receive()
                more = message["more_body"]
                await send(body(message["body"].upper(), more=more))

        request = b"POST /storage/v1/b HTTP/1.1\r\nHost: www.googleapis.com\r\nTransfer-Encoding: chunked\r\n\r\n"
        with serve(shout).connect_through(HOST) as connection:
            connection.sendall(request)
            assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200")
            for word in (b"abc", b"defg"):
                connection.sendall(b"%x\r\n%b\r\n" % (len(word), word))
                assert read_until(connection, b"\r\n%b\r\n" % word.upper()).endswith(word.upper() + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
            assert read_until(connection, b"0\r\n\r\n") == b"0\r\n\r\n"

    def test_64_mib_up_and_down(self, serve: Serve):
        async def mirror(scope, receive, send):
            digest, size, more = hashlib.sha256(), 0, True
            while more:
                message = await receive()
                digest.update(message["body"])
                size += len(message["body"])
                more = message["more_body"]
            await send(start(content_length=str(size), etag=digest.hexdigest()))
            block = bytes(1024 * 1024)
            for left in range(size // len(block) - 1, -1, -1):
                await send(body(block, more=left > 0))

        size = 64 * 1024 * 1024
        with serve(mirror).connect_through(HOST) as connection:
            connection.sendall(
                b"PUT /storage/v1/b HTTP/1.1\r\nHost: www.googleapis.com\r\nContent-Length: %d\r\n\r\n" % size
            )
            block = bytes(1024 * 1024)
            for _ in range(size // len(block)):
                connection.sendall(block)
            _, headers, data = read_response(connection)
        assert headers["etag"] == sha256(bytes(size))
        assert len(data) == size

    @pytest.mark.parametrize("port", [80, 443])
    def test_a_slow_reader_stops_the_application(self, serve: Serve, port: int):
        """Back-pressure downwards: what waits in memory is bounded."""
        sent_bytes = 0

        async def flood(scope, receive, send):
            nonlocal sent_bytes
            await send(start())
            for _ in range(1000):
                await send(body(bytes(1024 * 1024), more=True))
                sent_bytes += 1024 * 1024

        gateway = serve(flood, limits=Limits(send_stall_s=1.0))
        with gateway.connect_through("storage.googleapis.com", port) as connection:
            connection.sendall(GET.replace(b"www", b"storage"))
            deadline_s = time.monotonic() + 10
            while gateway.server._connections and time.monotonic() < deadline_s:
                time.sleep(0.02)
            assert not gateway.server._connections, "a reader that does not read is dropped"
        assert 0 < sent_bytes < 32 * 1024 * 1024  # the kernel's buffers are most of it

    @pytest.mark.parametrize("port", [80, 443])
    def test_a_slow_application_stops_the_writer(self, serve: Serve, port: int):
        """Back-pressure upwards."""
        may_read = threading.Event()
        got_bytes = 0

        async def sip(scope, receive, send):
            nonlocal got_bytes
            more = True
            while more:
                message = await receive()
                more = message.get("more_body", False)
                got_bytes += len(message.get("body", b""))
                await asyncio.to_thread(may_read.wait, 30)
            await send(start())
            await send(body(b"done"))

        size = 64 * 1024 * 1024
        with serve(sip).connect_through("storage.googleapis.com", port) as connection:
            connection.sendall(
                b"PUT /b HTTP/1.1\r\nHost: storage.googleapis.com\r\nContent-Length: %d\r\n\r\n" % size
            )
            connection.settimeout(0.5)
            sent_bytes = 0
            with pytest.raises(TimeoutError):
                while sent_bytes < size:
                    sent_bytes += connection.send(bytes(65536))
            assert sent_bytes < 32 * 1024 * 1024
            assert got_bytes < 4 * 1024 * 1024
            if port == 443:
                may_read.set()
                return  # a TLS connection can't go on after a timeout in the middle of a record
            connection.settimeout(30)
            may_read.set()
            while sent_bytes < size:
                sent_bytes += connection.send(bytes(min(65536, size - sent_bytes)))
            assert read_response(connection)[2] == b"done"
            assert got_bytes == size


class TestDisconnects:
    @pytest.mark.parametrize("port", [80, 443])
    def test_the_application_learns_that_the_client_is_gone(self, serve: Serve, port: int):
        waiting, gone = threading.Event(), threading.Event()

        async def poll(scope, receive, send):
            assert (await receive())["type"] == "http.request"
            waiting.set()
            assert (await receive()) == {"type": "http.disconnect"}
            gone.set()

        gateway = serve(poll)
        with gateway.connect_through("storage.googleapis.com", port) as connection:
            connection.sendall(GET.replace(b"www", b"storage"))
            assert waiting.wait(10)
        assert gone.wait(10)

    def test_a_client_that_vanishes_in_its_body(self, serve: Serve):
        seen: list[dict] = []
        ended = threading.Event()

        async def app(scope, receive, send):
            while not seen or seen[-1]["type"] == "http.request":
                seen.append(await receive())
            try:
                await send(start())
                await send(body(b"x"))
            except OSError:
                ended.set()

        with serve(app).connect_through(HOST) as connection:
            connection.sendall(
                b"PUT /storage/v1/b HTTP/1.1\r\nHost: www.googleapis.com\r\nContent-Length: 9\r\n\r\nabc"
            )
            deadline_s = time.monotonic() + 10
            while not seen and time.monotonic() < deadline_s:
                time.sleep(0.01)
        assert ended.wait(10)
        assert seen == [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}]

    def test_writing_to_a_client_that_is_gone_is_an_oserror(self, serve: Serve):
        failed = threading.Event()

        async def pour(scope, receive, send):
            await send(start())
            try:
                while True:
                    await send(body(bytes(65536), more=True))
            except OSError:
                failed.set()
                raise

        with serve(pour).connect_through(HOST) as connection:
            connection.sendall(GET)
            connection.recv(1000)
        assert failed.wait(10)

    def test_closing_the_server_lets_a_request_come_to_its_end(self, serve: Serve):
        entered = threading.Event()

        async def slow(scope, receive, send):
            entered.set()
            await asyncio.sleep(0.3)
            await send(start())
            await send(body(b"whole"))

        gateway = serve(slow)
        with gateway.connect_through(HOST) as connection, gateway.connect_through(HOST) as idle:
            connection.sendall(GET)
            assert entered.wait(10)
            gateway.run(gateway.server.close(drain_s=10))
            assert read_response(connection)[2] == b"whole"
            assert read_all(idle) == b""
        with pytest.raises(ConnectionRefusedError):
            gateway.connect()

    def test_closing_the_server_breaks_off_what_takes_too_long(self, serve: Serve):
        entered = threading.Event()

        async def stuck(scope, receive, send):
            entered.set()
            await asyncio.sleep(3600)

        gateway = serve(stuck)
        with gateway.connect_through(HOST) as connection:
            connection.sendall(GET)
            assert entered.wait(10)
            gateway.run(gateway.server.close(drain_s=0.1))
            assert read_all(connection) == b""
