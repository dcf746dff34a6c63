"""The private CA and the bundle of certificates."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509

from enginehouse.core.errors import FailedPrecondition
from enginehouse.gateway import ca, trust
from enginehouse.gateway.ca import CertificateAuthority
from enginehouse.gateway.hosts import HOSTS, permitted_names
from enginehouse.gateway.trust import TrustBundle, system_bundle
from enginehouse.testing.clock import FakeClock

DAY_S = 86400
SYSTEM = "-----BEGIN CERTIFICATE-----\nc3lzdGVt\n-----END CERTIFICATE-----\n"


def handshake(context: ssl.SSLContext, trusted: Path, host: str) -> ssl.SSLSocket:
    """A client's side of a TLS connection to a server with `context`."""
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            with context.wrap_socket(there, server_side=True) as server:
                server.recv(1)
        except OSError:
            pass

    threading.Thread(target=serve, daemon=True).start()
    client = ssl.create_default_context(cafile=str(trusted))
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    client.set_alpn_protocols(["h2", "http/1.1"])
    return client.wrap_socket(here, server_hostname=host)


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "ca")


@pytest.mark.parametrize(
    "host",
    [rule.name.replace("*", "us-central1") for rule in HOSTS]
    + ["a.b_c.storage.googleapis.com", "x" * 60 + "." + "y" * 60 + ".storage.googleapis.com"],
)
def test_vouches_for_each_of_our_hosts(authority: CertificateAuthority, host: str):
    with handshake(authority.context(host), authority.certificate_path, host) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"
        assert connection.version() == "TLSv1.3"


@pytest.mark.parametrize("host", ["example.com", "google.com", "mail.google.com", "127.0.0.1", "metadata.internal"])
def test_can_vouch_for_nobody_else(authority: CertificateAuthority, host: str):
    """Even with the key, which another host's certificate is made with here."""
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(authority.context(host), authority.certificate_path, host)


def test_a_certificate_is_for_one_host(authority: CertificateAuthority):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(authority.context("ml.googleapis.com"), authority.certificate_path, "storage.googleapis.com")


def test_the_key_is_its_owners_alone(authority: CertificateAuthority, tmp_path: Path):
    authority.context("ml.googleapis.com")
    assert stat.S_IMODE((tmp_path / "ca" / "ca-key.pem").stat().st_mode) == 0o600
    assert b"PRIVATE" not in authority.certificate_path.read_bytes()
    assert sorted(path.name for path in (tmp_path / "ca").iterdir()) == ["ca-key.pem", "ca.lock", "ca.pem"]


def test_is_made_once(authority: CertificateAuthority, tmp_path: Path):
    again = CertificateAuthority(tmp_path / "ca")
    assert again.certificate_pem == authority.certificate_pem
    with handshake(again.context("ml.googleapis.com"), authority.certificate_path, "ml.googleapis.com"):
        pass


def test_processes_that_start_together_share_one(tmp_path: Path):
    code = (
        "import sys, pathlib; from enginehouse.gateway.ca import CertificateAuthority as A; "
        "sys.stdout.write(A(pathlib.Path(sys.argv[1])).certificate_pem.decode())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "ca")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    made = {process.communicate(timeout=60)[0] for process in processes}
    assert made == {(tmp_path / "ca" / "ca.pem").read_bytes()}


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_broken_file_is_replaced(tmp_path: Path, content: bytes):
    (tmp_path / "ca-key.pem").write_bytes(content)
    authority = CertificateAuthority(tmp_path)
    with handshake(authority.context("ml.googleapis.com"), tmp_path / "ca.pem", "ml.googleapis.com"):
        pass


def test_another_releases_constraints_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names, addresses = permitted_names()
    with monkeypatch.context() as patch:
        patch.setattr(ca, "permitted_names", lambda: (names[:1], addresses))
        old = CertificateAuthority(tmp_path).certificate_pem
    assert CertificateAuthority(tmp_path).certificate_pem != old


def test_is_renewed_before_it_ends(tmp_path: Path):
    clock = FakeClock()
    old = CertificateAuthority(tmp_path, clock).certificate_pem
    clock.advance(8 * 365 * DAY_S)
    assert CertificateAuthority(tmp_path, clock).certificate_pem == old
    clock.advance(1.5 * 365 * DAY_S)
    assert CertificateAuthority(tmp_path, clock).certificate_pem != old


def test_contexts_are_kept_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = FakeClock()
    authority = CertificateAuthority(tmp_path, clock)
    assert authority.context_if_ready("ml.googleapis.com") is None
    context = authority.context("ml.googleapis.com")
    assert authority.context_if_ready("ml.googleapis.com") is context
    clock.advance(380 * DAY_S)
    assert authority.context_if_ready("ml.googleapis.com") is None
    monkeypatch.setattr(ca, "_MAX_CONTEXTS", 3)
    for number in range(5):
        authority.context(f"b{number}.storage.googleapis.com")
    ready = [n for n in range(5) if authority.context_if_ready(f"b{n}.storage.googleapis.com")]
    assert ready == [2, 3, 4]


def test_the_certificate_says_what_it_is_for(authority: CertificateAuthority):
    certificate = x509.load_pem_x509_certificate(authority.certificate_pem)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert certificate.extensions.get_extension_for_class(x509.NameConstraints).critical


class TestBundle:
    def test_has_the_systems_certificates_and_ours(self, authority: CertificateAuthority, tmp_path: Path):
        (tmp_path / "system.pem").write_text("# a comment\n" + SYSTEM)
        bundle = TrustBundle(
            tmp_path / "bundle.pem", authority.certificate_pem, {"SSL_CERT_FILE": str(tmp_path / "system.pem")}
        )
        assert bundle.refresh()
        assert bundle.path.read_bytes() == authority.certificate_pem + SYSTEM.encode()

    def test_follows_the_system(self, authority: CertificateAuthority, tmp_path: Path):
        system = tmp_path / "system.pem"
        system.write_text(SYSTEM)
        bundle = TrustBundle(tmp_path / "bundle.pem", authority.certificate_pem, {"SSL_CERT_FILE": str(system)})
        assert bundle.refresh()
        assert not bundle.refresh()
        system.write_text(SYSTEM + SYSTEM.replace("c3lz", "bmV3"))
        os.utime(system, (1, 1))
        assert bundle.refresh()
        assert b"bmV3" in bundle.path.read_bytes()
        bundle.path.unlink()
        assert bundle.refresh()

    def test_of_a_bundle_that_has_ours_already(self, authority: CertificateAuthority, tmp_path: Path):
        """As an engine sees that was started with another's bundle, or its own of yesterday."""
        system = tmp_path / "system.pem"
        system.write_bytes(authority.certificate_pem + SYSTEM.encode())
        bundle = TrustBundle(tmp_path / "bundle.pem", authority.certificate_pem, {"SSL_CERT_FILE": str(system)})
        bundle.refresh()
        assert bundle.path.read_bytes().count(b"BEGIN") == 2

    def test_is_one_that_openssl_takes(self, authority: CertificateAuthority, tmp_path: Path):
        bundle = TrustBundle(tmp_path / "bundle.pem", authority.certificate_pem, {})
        bundle.refresh()
        names = {dict(pair[0] for pair in entry["subject"]).get("commonName", "") for entry in _loaded(bundle.path)}
        assert any(name.startswith("Enginehouse local CA") for name in names)
        assert len(names) > 1

    def test_where_the_systems_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        first, second = tmp_path / "first.pem", tmp_path / "second.pem"
        first.write_text(SYSTEM)
        second.write_text(SYSTEM)
        environ = {"SSL_CERT_FILE": str(first), "REQUESTS_CA_BUNDLE": str(second)}
        assert system_bundle(environ) == first
        assert system_bundle(environ, avoid=first) == second
        first.unlink()
        assert system_bundle(environ) == second
        monkeypatch.setattr(trust, "_SYSTEM_BUNDLES", (str(tmp_path / "none"), str(second)))
        assert system_bundle({}) == second

    def test_without_any_certificates(self, authority: CertificateAuthority, tmp_path: Path, monkeypatch):
        monkeypatch.setattr(trust, "system_bundle", lambda *_args, **_kwargs: None)
        with pytest.raises(FailedPrecondition, match="ca-certificates"):
            TrustBundle(tmp_path / "bundle.pem", authority.certificate_pem, {}).refresh()


def _loaded(path: Path) -> list[dict]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(path))
    return context.get_ca_certs()
