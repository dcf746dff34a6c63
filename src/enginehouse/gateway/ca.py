"""A private certificate authority that can vouch for the hosts of `hosts.HOSTS` and nothing else.

It is made once per directory. Whoever reads its key could pose as these hosts to whoever trusts the certificate,
which are the shells and processes wired by `mle env` alone; the name constraints keep everything else out of reach.

    DIRECTORY/ca-key.pem     key and certificate, 0600: the one truth
    DIRECTORY/ca.pem         the certificate, for clients
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enginehouse.core.clock import Clock, SystemClock
from enginehouse.core.files import FileLock, atomic_write
from enginehouse.gateway.hosts import permitted_names
from enginehouse.gateway.trust import CERTIFICATE_NAME

_CA_LIFE = datetime.timedelta(days=3650)
_LEAF_LIFE = datetime.timedelta(days=397)  # the longest that clients accept of public servers
_RENEW_BEFORE = datetime.timedelta(days=30)
_CLOCK_SKEW = datetime.timedelta(days=1)
_MAX_CONTEXTS = 256


class CertificateAuthority:
    """The authority of one directory. Safe to use from threads, and by several processes at the same time.

    Args:
        directory: made if it is not there.
        clock: for the dates in certificates.
    """

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self._directory = directory
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._contexts: OrderedDict[str, tuple[ssl.SSLContext, datetime.datetime]] = OrderedDict()
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / "ca.lock").held():
            self._key, self._certificate = self._load() or self._make()
            public = self.certificate_pem
            if not self.certificate_path.exists() or self.certificate_path.read_bytes() != public:
                atomic_write(self.certificate_path, public)

    @property
    def certificate_path(self) -> Path:
        """A PEM file with this authority's certificate alone."""
        return self._directory / CERTIFICATE_NAME

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def context_if_ready(self, host: str) -> ssl.SSLContext | None:
        """`context` if that needs no work."""
        with self._lock:
            entry = self._contexts.get(host)
            if entry is None or entry[1] < self._now():
                return None
            self._contexts.move_to_end(host)
            return entry[0]

    def context(self, host: str) -> ssl.SSLContext:
        """What a TLS server needs to be `host`; made at the first call, which takes a few milliseconds.

        It offers HTTP/1.1 alone. Session tickets work for as long as the context is kept: the last 256 hosts are.
        """
        if ready := self.context_if_ready(host):
            return ready
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        self._load_chain(context, self._issue(host))
        with self._lock:
            self._contexts[host] = (context, self._now() + _LEAF_LIFE - _RENEW_BEFORE)
            while len(self._contexts) > _MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        return context

    def _load_chain(self, context: ssl.SSLContext, leaf: x509.Certificate) -> None:
        key = self._leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # Python's ssl reads keys from files only; this one is 0600 and gone at once.
        descriptor, name = tempfile.mkstemp(dir=self._directory, prefix=".leaf-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(key + leaf.public_bytes(Encoding.PEM))
            context.load_cert_chain(name)
        finally:
            Path(name).unlink()

    def _issue(self, host: str) -> x509.Certificate:
        """A certificate for `host`, as an alternative name: a common name is too short for some."""
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        public_key = self._leaf_key.public_key()
        builder = (
            self._builder("Enginehouse gateway", public_key, _LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return builder.issuer_name(self._certificate.subject).sign(self._key, hashes.SHA256())

    def _make(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        names, addresses = permitted_names()
        permitted: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        permitted += [x509.IPAddress(ipaddress.ip_network(address)) for address in addresses]
        # Its own name each time: clients that keep an older one would else take the two for the same issuer.
        subject = f"Enginehouse local CA {os.urandom(4).hex()}"
        builder = (
            self._builder(subject, key.public_key(), _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True), critical=True)
            .add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
        )
        certificate = builder.issuer_name(_name(subject)).sign(key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        atomic_write(self._key_path, private + certificate.public_bytes(Encoding.PEM), mode=0o600)
        return key, certificate

    def _load(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
        """The authority on disk; None if there is none, or none that is of use any longer."""
        try:
            data = self._key_path.read_bytes()
            key = load_pem_private_key(data, password=None)
            certificate = x509.load_pem_x509_certificate(data)
            certificate.verify_directly_issued_by(certificate)
        except (FileNotFoundError, ValueError, TypeError, InvalidSignature):
            return None
        usable = (
            isinstance(key, ec.EllipticCurvePrivateKey)
            and key.public_key() == certificate.public_key()
            and certificate.not_valid_after_utc > self._now() + _LEAF_LIFE
            and self._constraints_of(certificate) == permitted_names()
        )
        return (key, certificate) if usable and isinstance(key, ec.EllipticCurvePrivateKey) else None

    @staticmethod
    def _constraints_of(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
        """The permitted names, which another release may have chosen otherwise."""
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            return [], []
        permitted = constraints.permitted_subtrees or []
        names = [general.value for general in permitted if isinstance(general, x509.DNSName)]
        addresses = [
            str(general.value).partition("/")[0] for general in permitted if isinstance(general, x509.IPAddress)
        ]
        return names, addresses

    def _builder(
        self, common_name: str, public_key: ec.EllipticCurvePublicKey, life: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = self._now()
        return (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + life)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )

    @property
    def _key_path(self) -> Path:
        return self._directory / "ca-key.pem"

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._clock.time_ns() / 1e9, tz=datetime.UTC)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
