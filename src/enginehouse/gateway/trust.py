"""The file of certificates that wired processes trust: the system's and our own.

`CURL_CA_BUNDLE`, `SSL_CERT_FILE` and their like replace a client's certificates instead of adding to them, so the
file must have all of them: other hosts are tunnelled untouched and show their own.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from enginehouse.core.errors import FailedPrecondition
from enginehouse.core.files import atomic_write

CERTIFICATE_NAME = "ca.pem"
"""Our certificate alone, in the authority's directory."""
BUNDLE_NAME = "bundle.pem"
"""All certificates, in the same place."""
_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS
)
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class TrustBundle:
    """The bundle of one authority.

    Args:
        path: the file; written by `refresh`.
        authority_pem: our certificate.
        environ: the environment without our own variables, see `environment.original_environment`.
    """

    def __init__(self, path: Path, authority_pem: bytes, environ: Mapping[str, str]) -> None:
        self.path = path
        self._authority_pem = authority_pem
        self._environ = environ
        self._seen: tuple[Path, int, int] | None = None

    def refresh(self) -> bool:
        """Write the file if the system's has changed since; cheap when nothing has.

        Returns:
            Whether the file changed.

        Raises:
            FailedPrecondition: the machine trusts nobody.
        """
        source = system_bundle(self._environ, avoid=self.path)
        if source is None:
            raise FailedPrecondition(
                "There are no certificate authorities on this machine. Install the package ca-certificates, or name "
                "a file of them in SSL_CERT_FILE."
            )
        status = source.stat()
        seen = (source, status.st_mtime_ns, status.st_size)
        if seen == self._seen and self.path.exists():
            return False
        content = self._authority_pem + b"".join(
            certificate + b"\n"
            for certificate in _CERTIFICATE.findall(source.read_bytes())
            if certificate.strip() != self._authority_pem.strip()
        )
        self._seen = seen
        if self.path.exists() and self.path.read_bytes() == content:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, content)
        return True


def system_bundle(environ: Mapping[str, str], *, avoid: Path | None = None) -> Path | None:
    """The certificates that clients on this machine trust: what the environment names, the system's, or certifi's.

    Args:
        avoid: our own bundle, which is never the answer.
    """
    candidates = [Path(environ[name]) for name in _VARIABLES if environ.get(name)]
    candidates += [Path(name) for name in _SYSTEM_BUNDLES]
    for candidate in candidates:
        if candidate.is_file() and candidate != avoid:
            return candidate
    if importlib.util.find_spec("certifi") is None:
        return None
    return Path(importlib.import_module("certifi").where())
