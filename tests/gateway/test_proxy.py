"""Other hosts: tunnels, requests that are passed on, the upstream proxy, and who may come in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enginehouse.core.errors import InvalidArgument
from enginehouse.gateway import connection as connection_module
from enginehouse.gateway.ca import CertificateAuthority
from enginehouse.gateway.errors import LoopDetected
from enginehouse.gateway.hosts import HOSTS, HostRule, find_rule
from enginehouse.gateway.limits import Limits
from enginehouse.gateway.proxy import GatewayServer
from enginehouse.gateway.upstream import Upstream, UpstreamProxy
from enginehouse.testing.gateway import GatewayThread, echo_app, read_all, read_response, read_until

Serve = Callable[..., GatewayThread]


class Server:
    """A TCP server in threads, for one test; `handle` gets each connection."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.settimeout(30)
                handle(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RecordingProxy(Server):
    """A proxy that answers itself: `requests` has what it was asked."""

    def __init__(self, refuse: bytes = b"") -> None:
        super().__init__(self._handle)
        self.requests: list[bytes] = []
        self._refuse = refuse

    def _handle(self, connection: socket.socket) -> None:
        request = read_until(connection, b"\r\n\r\n")
        self.requests.append(request)
        if self._refuse:
            connection.sendall(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % self._refuse)
        elif request.startswith(b"CONNECT"):
            connection.sendall(b"HTTP/1.1 200 Yes\r\n\r\nfirst bytes")
            connection.sendall(b"; then " + read_until(connection, b"!"))
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy")


@pytest.fixture
def recording_proxy() -> Iterator[RecordingProxy]:
    with RecordingProxy() as proxy:
        yield proxy


def open_tunnel(gateway: GatewayThread, authority: str, *headers: str) -> socket.socket:
    connection = gateway.connect()
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *headers, "", ""]
    connection.sendall("\r\n".join(lines).encode())
    return connection


class TestTunnels:
    def test_bytes_pass_untouched_both_ways(self, gateway: GatewayThread):
        data = bytes(range(256)) * 40_000

        def mirror(connection: socket.socket) -> None:
            while chunk := connection.recv(65536):
                connection.sendall(chunk)

        with Server(mirror) as origin, open_tunnel(gateway, f"127.0.0.1:{origin.port}") as tunnel:
            assert read_until(tunnel, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            writer = threading.Thread(target=lambda: (tunnel.sendall(data), tunnel.shutdown(socket.SHUT_WR)))
            writer.start()
            assert read_all(tunnel) == data
            writer.join()

    def test_bytes_right_behind_connect_are_not_lost(self, gateway: GatewayThread):
        with Server(lambda c: c.sendall(b"got " + read_until(c, b"!"))) as origin, gateway.connect() as tunnel:
            tunnel.sendall(f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1\r\n\r\nhello!".encode())
            assert read_all(tunnel).endswith(b"\r\n\r\ngot hello!")

    def test_a_client_that_ended_still_gets_bytes(self, gateway: GatewayThread):
        with (
            Server(lambda c: c.sendall(b"you sent " + read_all(c))) as origin,
            open_tunnel(gateway, f"127.0.0.1:{origin.port}") as tunnel,
        ):
            read_until(tunnel, b"\r\n\r\n")
            tunnel.sendall(b"this")
            tunnel.shutdown(socket.SHUT_WR)
            assert read_all(tunnel) == b"you sent this"

    def test_an_origin_that_ended_still_gets_bytes(self, gateway: GatewayThread):
        got: list[bytes] = []
        done = threading.Event()

        def half_close(connection: socket.socket) -> None:
            connection.sendall(b"bye")
            connection.shutdown(socket.SHUT_WR)
            got.append(read_all(connection))
            done.set()

        with Server(half_close) as origin, open_tunnel(gateway, f"127.0.0.1:{origin.port}") as tunnel:
            read_until(tunnel, b"\r\n\r\n")
            assert read_all(tunnel) == b"bye"
            tunnel.sendall(b"still here")
            tunnel.shutdown(socket.SHUT_WR)
            assert done.wait(10)
        assert got == [b"still here"]

    def test_an_origin_that_cannot_be_reached_is_a_502(self, gateway: GatewayThread):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with open_tunnel(gateway, f"127.0.0.1:{unused.getsockname()[1]}") as tunnel:
                status, _, body = read_response(tunnel)
        assert status == 502
        assert "Connect" in json.loads(body)["error"]["message"]

    def test_other_ports_of_our_hosts_are_tunnelled(self, serve: Serve, recording_proxy: RecordingProxy):
        gateway = serve(echo_app, environ={"https_proxy": f"http://127.0.0.1:{recording_proxy.port}"})
        with open_tunnel(gateway, "storage.googleapis.com:8443") as tunnel:
            tunnel.sendall(b"!")
            assert b"first bytes" in read_all(tunnel)
        assert recording_proxy.requests[0].startswith(b"CONNECT storage.googleapis.com:8443 ")


class TestForwarding:
    def test_a_request_is_passed_on_and_its_answer_comes_back(self, gateway: GatewayThread):
        got: list[bytes] = []

        def answer(connection: socket.socket) -> None:
            got.append(read_until(connection, b"0\r\n\r\n"))
            connection.sendall(b"HTTP/1.1 201 Fine\r\nX-Odd: yes\r\n\r\nto the end")

        with Server(answer) as origin, gateway.connect() as connection:
            connection.sendall(
                f"PUT http://127.0.0.1:{origin.port}/a%2Fb?c HTTP/1.1\r\nHost: lies.example\r\nX-Kept: 1\r\n"
                "Connection: keep-alive, X-Dropped\r\nX-Dropped: 1\r\nProxy-Authorization: Basic secret\r\n"
                "Content-Length: 99\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"3\r\nabc\r\n0\r\n\r\n")
            assert read_all(connection) == b"HTTP/1.1 201 Fine\r\nX-Odd: yes\r\n\r\nto the end"
        head, _, body = got[0].partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[0] == "PUT /a%2Fb?c HTTP/1.1"
        assert sorted(line for line in lines[1:] if not line.startswith("via: 1.1 enginehouse-")) == [
            "connection: close",
            f"host: 127.0.0.1:{origin.port}",
            "transfer-encoding: chunked",
            "x-kept: 1",
        ]
        assert body == b"3\r\nabc\r\n0\r\n\r\n"

    def test_an_answer_before_the_end_of_the_request(self, gateway: GatewayThread):
        def refuse(connection: socket.socket) -> None:
            read_until(connection, b"\r\n\r\n")
            connection.sendall(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass

        with Server(refuse) as origin, gateway.connect() as connection:
            size = 32 * 1024 * 1024
            connection.sendall(
                f"PUT http://127.0.0.1:{origin.port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
            )
            for _ in range(size // 65536):
                connection.sendall(bytes(65536))
            assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 413 ")

    def test_an_answer_that_is_broken_off_does_not_look_whole(self, gateway: GatewayThread):
        half_read = threading.Event()

        def break_off(connection: socket.socket) -> None:
            read_until(connection, b"\r\n\r\n")
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nto the en")
            assert half_read.wait(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()

        with Server(break_off) as origin, gateway.connect() as connection, pytest.raises(ConnectionResetError):
            connection.sendall(f"GET http://127.0.0.1:{origin.port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert read_until(connection, b"to the en").endswith(b"to the en")
            half_read.set()
            connection.recv(1)

    @pytest.mark.parametrize(("behaviour", "status"), [("silent", 504), ("closing", 502), ("absent", 502)])
    def test_an_origin_without_an_answer(self, quick_gateway: GatewayThread, behaviour: str, status: int):
        released = threading.Event()

        def handle(connection: socket.socket) -> None:
            read_until(connection, b"\r\n\r\n")
            if behaviour == "silent":
                released.wait(10)

        with Server(handle) as origin:
            port = 1 if behaviour == "absent" else origin.port
            with quick_gateway.connect() as connection:
                connection.sendall(f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert read_response(connection)[0] == status
            released.set()

    def test_a_body_that_stops_is_the_clients_fault(self, quick_gateway: GatewayThread):
        with Server(read_all) as origin, quick_gateway.connect() as connection:
            connection.sendall(
                f"PUT http://127.0.0.1:{origin.port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc".encode()
            )
            assert read_response(connection)[0] == 408

    def test_other_paths_of_our_hosts_are_passed_on_in_tls(self, serve: Serve, tmp_path: Path):
        """www.googleapis.com has more APIs than ours. The real host is played by a server behind a proxy."""
        authority = CertificateAuthority(tmp_path / "real")
        context = authority.context("www.googleapis.com")

        def answer(raw: socket.socket) -> None:
            with context.wrap_socket(raw, server_side=True) as connection:
                read_until(connection, b"\r\n\r\n")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal")

        with Server(answer) as origin:

            def tunnel(connection: socket.socket) -> None:
                read_until(connection, b"\r\n\r\n")
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                with socket.create_connection(("127.0.0.1", origin.port)) as other:
                    back = threading.Thread(target=_copy, args=[other, connection])
                    back.start()
                    _copy(connection, other)
                    back.join()

            with Server(tunnel) as proxy:
                environ = {
                    "https_proxy": f"http://127.0.0.1:{proxy.port}",
                    "SSL_CERT_FILE": str(authority.certificate_path),
                }
                gateway = serve(echo_app, environ=environ)
                with gateway.connect_through("www.googleapis.com") as connection:
                    connection.sendall(b"GET /drive/v3/files HTTP/1.1\r\nHost: www.googleapis.com\r\n\r\n")
                    assert read_response(connection)[2] == b"real"
                with gateway.connect_through("www.googleapis.com") as connection:
                    connection.sendall(b"GET /storage/v1/b HTTP/1.1\r\nHost: www.googleapis.com\r\n\r\n")
                    assert json.loads(read_response(connection)[2])["path"] == "/storage/v1/b"


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class TestUpstreamProxy:
    def test_tunnels_lead_through_it(self, serve: Serve, recording_proxy: RecordingProxy):
        gateway = serve(echo_app, environ={"HTTPS_PROXY": f"http://me:p%40ss@127.0.0.1:{recording_proxy.port}/"})
        with open_tunnel(gateway, "other.example:443") as tunnel:
            tunnel.sendall(b"mine!")
            answer = read_all(tunnel)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\nfirst bytes; then mine!")
        request = recording_proxy.requests[0].decode()
        assert request.startswith("CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n")
        assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:p@ss').decode()}\r\n" in request

    def test_plain_requests_lead_through_it(self, serve: Serve, recording_proxy: RecordingProxy):
        gateway = serve(echo_app, environ={"http_proxy": f"http://127.0.0.1:{recording_proxy.port}"})
        with gateway.connect() as connection:
            connection.sendall(b"GET http://other.example:8080/a?b HTTP/1.1\r\nHost: other.example:8080\r\n\r\n")
            assert read_response(connection)[2] == b"proxy"
        assert recording_proxy.requests[0].startswith(b"GET http://other.example:8080/a?b HTTP/1.1\r\n")

    def test_our_hosts_do_not(self, serve: Serve, recording_proxy: RecordingProxy):
        proxy = f"http://127.0.0.1:{recording_proxy.port}"
        gateway = serve(echo_app, environ={"https_proxy": proxy, "http_proxy": proxy})
        with gateway.connect_through("ml.googleapis.com") as connection:
            connection.sendall(b"GET /v1/projects HTTP/1.1\r\nHost: ml.googleapis.com\r\n\r\n")
            assert read_response(connection)[0] == 200
        assert recording_proxy.requests == []

    def test_its_refusal_is_told(self, serve: Serve):
        with RecordingProxy(refuse=b"403 Forbidden by policy") as proxy:
            gateway = serve(echo_app, environ={"https_proxy": f"http://127.0.0.1:{proxy.port}"})
            with open_tunnel(gateway, "other.example:443") as tunnel:
                status, _, body = read_response(tunnel)
        assert status == 502
        assert "403 Forbidden by policy" in json.loads(body)["error"]["message"]

    def test_a_gateway_never_takes_itself_for_the_way_out(self, tmp_path: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = GatewayServer(
            echo_app, port=port, ca_dir=tmp_path / "ca", environ={"https_proxy": f"http://localhost:{port}"}
        )

        async def run() -> None:
            await server.start()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"CONNECT other.invalid:443 HTTP/1.1\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 502 ")  # the direct way leads nowhere
            writer.close()
            await server.close()

        asyncio.run(run())

    def test_gateways_that_name_each_other_notice(self, serve: Serve):
        """The second stands in for any chain of proxies that leads back."""
        ports: dict[str, int] = {}

        def lead_back(connection: socket.socket) -> None:
            request = read_until(connection, b"\r\n\r\n")
            with socket.create_connection(("127.0.0.1", ports["gateway"])) as back:
                back.sendall(request)
                answer = read_response(back)
            connection.sendall(b"HTTP/1.1 %d Loop\r\nContent-Length: 0\r\n\r\n" % answer[0])

        with Server(lead_back) as other:
            gateway = serve(echo_app, environ={"all_proxy": f"http://127.0.0.1:{other.port}"})
            ports["gateway"] = gateway.port
            with open_tunnel(gateway, "other.example:443") as tunnel:
                status, _, body = read_response(tunnel)
        assert status == 502
        assert str(LoopDetected.http_status) in json.loads(body)["error"]["message"]

    @pytest.mark.parametrize(
        ("no_proxy", "host", "direct"),
        [
            ("", "other.example", False),
            ("other.example", "other.example", True),
            ("example", "other.example", True),
            (".example", "other.example", True),
            ("*.example", "other.example", True),
            ("ample", "other.example", False),
            ("a, other.example:443 b", "other.example", True),
            ("other.example:80", "other.example", False),
            ("*", "other.example", True),
            ("10.0.0.0/8", "10.1.2.3", True),
            ("10.1.2.3", "10.1.2.3", True),
            ("10.0.0.0/8", "11.1.2.3", False),
            ("[fd00::/8]", "fd00::1", True),
            ("", "localhost", True),
            ("", "127.0.0.1", True),
            ("", "::1", True),
            ("not/a/host", "other.example", False),
        ],
    )
    def test_no_proxy(self, no_proxy: str, host: str, direct: bool):
        environ = {"https_proxy": "http://proxy.example:3128", "no_proxy": no_proxy}
        upstream = Upstream(environ, Limits(), ssl.create_default_context())
        assert (upstream.proxy_for("https", host, 443) is None) is direct

    @pytest.mark.parametrize(
        ("url", "proxy"),
        [
            ("http://p.example:3128", UpstreamProxy("p.example", 3128, False, None)),
            ("p.example:3128", UpstreamProxy("p.example", 3128, False, None)),
            ("https://p.example", UpstreamProxy("p.example", 443, True, None)),
            ("http://a:b@p.example", UpstreamProxy("p.example", 80, False, b"Basic YTpi")),
        ],
    )
    def test_the_urls_of_proxies(self, url: str, proxy: UpstreamProxy):
        assert UpstreamProxy.parse(url) == proxy

    def test_a_proxy_of_another_kind_is_not_used(self, caplog: pytest.LogCaptureFixture):
        upstream = Upstream({"https_proxy": "socks5://p.example:1"}, Limits(), ssl.create_default_context())
        assert upstream.proxy_for("https", "other.example", 443) is None
        assert "https_proxy is ignored" in caplog.text


class TestAccess:
    @pytest.fixture
    def strangers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this machine count as another."""
        monkeypatch.setattr(connection_module, "LOOPBACK_PEERS", frozenset())

    def test_beyond_loopback_a_token_is_needed(self, tmp_path: Path):
        with pytest.raises(InvalidArgument, match="token"):
            GatewayServer(echo_app, host="0.0.0.0", ca_dir=tmp_path)

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            ("A: b", 407),
            ("Proxy-Authorization: Basic " + base64.b64encode(b"enginehouse:wrong").decode(), 407),
            ("Proxy-Authorization: Basic ?", 407),
            ("Proxy-Authorization: Basic " + base64.b64encode(b"enginehouse:s:cret").decode(), 200),
            ("Proxy-Authorization: Bearer s:cret", 200),
        ],
    )
    def test_strangers_need_the_token(self, serve: Serve, strangers: None, header: str, status: int):
        gateway = serve(echo_app, token="s:cret")
        with open_tunnel(gateway, "storage.googleapis.com:80", header) as connection:
            assert read_until(connection, b"\r\n\r\n").split()[1] == str(status).encode()
        with gateway.connect() as connection:
            connection.sendall(f"GET http://storage.googleapis.com/ HTTP/1.1\r\n{header}\r\n\r\n".encode())
            got, headers, _ = read_response(connection)
        assert got == status
        assert ("proxy-authenticate" in headers) is (status == 407)

    def test_without_a_token_no_stranger_may_enter(self, serve: Serve, strangers: None):
        gateway = serve(echo_app)
        empty = "Proxy-Authorization: Basic " + base64.b64encode(b"enginehouse:").decode()
        with open_tunnel(gateway, "storage.googleapis.com:443", empty) as connection:
            assert read_response(connection)[0] == 407

    def test_the_application_learns_who_was_let_in(self, serve: Serve, strangers: None):
        seen = []

        async def app(scope, receive, send):
            seen.append(scope["extensions"]["enginehouse.gateway"])
            await echo_app(scope, receive, send)

        gateway = serve(app, token="s")
        header = "Proxy-Authorization: Basic " + base64.b64encode(b"x:s").decode()
        with open_tunnel(gateway, "storage.googleapis.com:80", header) as connection:
            read_until(connection, b"\r\n\r\n")
            connection.sendall(b"GET / HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n")
            assert read_response(connection)[0] == 200
        assert seen == [{"proxy_authenticated": True}]


class TestOurHosts:
    @pytest.mark.parametrize(
        "host",
        [
            "ml.googleapis.com",
            "us-central1-ml.googleapis.com",
            "storage.googleapis.com",
            "my.dotted_bucket.storage.googleapis.com",
            "oauth2.googleapis.com",
            "logging.googleapis.com",
            "ML.GoogleAPIs.com.",
        ],
    )
    def test_are_answered_in_tls_with_a_certificate_of_their_name(self, gateway: GatewayThread, host: str):
        with gateway.connect_through(host.rstrip(".")) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            status, _, body = read_response(connection)
        assert status == 200
        assert json.loads(body)["server"] == [host.rstrip(".").lower(), 443]

    @pytest.mark.parametrize(
        "host", ["metadata.google.internal", "metadata", "169.254.169.254", "us-east1-ml.googleapis.com"]
    )
    def test_are_answered_in_plain_http(self, gateway: GatewayThread, host: str):
        path = "/computeMetadata/v1/instance/?recursive=true"
        for connection, target in (
            (gateway.connect(), f"http://{host}{path}"),
            (gateway.connect_through(host, 80), path),
        ):
            with connection:
                connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                status, _, body = read_response(connection)
            told = json.loads(body)
            assert status == 200
            assert (told["scheme"], told["server"], told["path"]) == ("http", [host, 80], path.partition("?")[0])

    def test_are_known_by_the_host_header_alone(self, gateway: GatewayThread):
        with gateway.connect() as connection:
            connection.sendall(b"GET /v1/projects HTTP/1.1\r\nHost: ml.googleapis.com\r\n\r\n")
            assert json.loads(read_response(connection)[2])["server"] == ["ml.googleapis.com", 80]

    def test_one_connection_serves_several_plain_hosts(self, gateway: GatewayThread):
        with gateway.connect() as connection:
            for host in ("storage.googleapis.com", "ml.googleapis.com"):
                connection.sendall(f"GET http://{host}/x HTTP/1.1\r\nHost: ignored\r\n\r\n".encode())
                assert json.loads(read_response(connection)[2])["headers"][0] == ["host", host]

    def test_within_tls_another_of_ours_may_be_named_but_no_stranger(self, gateway: GatewayThread):
        with gateway.connect_through("www.googleapis.com") as connection:
            connection.sendall(b"GET /v1/x HTTP/1.1\r\nHost: ml.googleapis.com\r\n\r\n")
            assert read_response(connection)[0] == 200
            connection.sendall(b"GET https://ml.googleapis.com/v1/x HTTP/1.1\r\nHost: ml.googleapis.com\r\n\r\n")
            assert read_response(connection)[0] == 200
            connection.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert read_response(connection)[0] == 421

    def test_no_connect_within_connect(self, gateway: GatewayThread):
        with gateway.connect_through("www.googleapis.com") as connection:
            connection.sendall(b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example\r\n\r\n")
            assert read_response(connection)[0] == 400

    @pytest.mark.parametrize(
        ("host", "ours"),
        [
            ("ml.googleapis.com", True),
            ("europe-west4-ml.googleapis.com", True),
            ("-ml.googleapis.com", False),
            ("a.b-ml.googleapis.com", False),
            ("bigquery.googleapis.com", False),
            ("googleapis.com", False),
            ("ml.googleapis.com.evil.example", False),
            ("evilml.googleapis.com", False),
            ("a.storage.googleapis.com", True),
            ("a.b.storage.googleapis.com", True),
            (".storage.googleapis.com", False),
            ("accounts.google.com", True),
            ("www.google.com", False),
            ("metadata.google.internal", True),
            ("169.254.169.253", False),
        ],
    )
    def test_which_they_are(self, host: str, ours: bool):
        assert (find_rule(host) is not None) is ours

    @pytest.mark.parametrize(
        ("host", "path", "ours"),
        [
            ("www.googleapis.com", "/storage/v1/b", True),
            ("www.googleapis.com", "/upload/storage/v1/b/x/o?uploadType=media", True),
            ("www.googleapis.com", "/batch", True),
            ("www.googleapis.com", "/oauth2/v4/token", True),
            ("www.googleapis.com", "/discovery/v1/apis/ml/v1/rest", True),
            ("www.googleapis.com", "/drive/v3/files", False),
            ("www.googleapis.com", "/storagex", False),
            ("accounts.google.com", "/o/oauth2/token", True),
            ("accounts.google.com", "/o/oauth2/auth?x", False),
            ("metadata", "/", True),
            ("metadata", "/computeMetadata/v1/project/project-id", True),
            ("169.254.169.254", "/latest/meta-data/", False),
            ("storage.googleapis.com", "/anything", True),
        ],
    )
    def test_which_of_their_paths(self, host: str, path: str, ours: bool):
        rule = find_rule(host)
        assert isinstance(rule, HostRule)
        assert rule.serves(path) is ours

    def test_every_row_has_a_reason(self):
        assert all(len(rule.reason) > 10 for rule in HOSTS)


def test_a_body_of_64_mib_through_a_tunnel(gateway: GatewayThread):
    digest = hashlib.sha256()

    def swallow(connection: socket.socket) -> None:
        while chunk := connection.recv(1 << 20):
            digest.update(chunk)
        connection.sendall(digest.hexdigest().encode())

    with Server(swallow) as origin, open_tunnel(gateway, f"127.0.0.1:{origin.port}") as tunnel:
        read_until(tunnel, b"\r\n\r\n")
        for _ in range(64):
            tunnel.sendall(bytes(1 << 20))
        tunnel.shutdown(socket.SHUT_WR)
        assert read_all(tunnel).decode() == hashlib.sha256(bytes(64 << 20)).hexdigest()


def test_small_answers_leave_at_once_and_dead_peers_are_noticed(serve: Serve):
    options = []

    async def app(scope, receive, send):
        (connection,) = gateway.server._connections.values()
        raw = connection._stream._transport.get_extra_info("socket")
        options.append(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        options.append(raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        await echo_app(scope, receive, send)

    gateway = serve(app)
    with gateway.connect() as connection:
        connection.sendall(b"GET http://storage.googleapis.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(connection)[0] == 200
    assert all(options)
    assert len(options) == 2
