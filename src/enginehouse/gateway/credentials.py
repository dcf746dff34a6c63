"""The files that the variables of `environment` name: token, boto file, service account.

`mle env` writes them into a directory per project, which only its owner can read. Nothing in them is good for any
other server than this engine.
"""

from __future__ import annotations

import hashlib
import io
import json
from configparser import RawConfigParser
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from enginehouse.core.files import FileLock, atomic_write, read_json
from enginehouse.gateway.environment import Wiring

TOKEN_URI = "https://oauth2.googleapis.com/token"
_RSA_BITS = 2048  # what Google's own keys have; google-auth signs with RSA alone


def write_client_files(wiring: Wiring) -> None:
    """Write all files into `wiring.files`; those that are right already stay. Safe in several processes."""
    directory = wiring.files
    for part in (directory, directory / "gcloud", directory / "gsutil"):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(directory / "files.lock").held():
        _write(directory / "token", wiring.bearer)
        _write(directory / "boto", boto_config(wiring))
        token_uri = TOKEN_URI if wiring.gateway_url is not None else f"{wiring.engine_url}/token"
        account = directory / "service-account.json"
        known = read_json(account)
        if not isinstance(known, dict) or (known["project_id"], known["token_uri"]) != (wiring.project, token_uri):
            _write(account, json.dumps(service_account(wiring.project, token_uri), indent=2))


def boto_config(wiring: Wiring) -> str:
    """The text of gsutil's configuration."""
    config = RawConfigParser()
    config["GSUtil"] = {
        "default_project_id": wiring.project,
        "state_dir": str(wiring.files / "gsutil"),
        "software_update_check_period": "0",
        "disable_analytics_prompt": "True",
    }
    if wiring.gateway_url is None:
        # gsutil knows the JSON API by https alone; gcloud storage, which it can run instead, knows the override.
        config["GSUtil"]["use_gcloud_storage"] = "True"
        return _text(config)
    gateway = urlsplit(wiring.gateway_url)
    config["Credentials"] = {"gs_service_key_file": str(wiring.files / "service-account.json")}
    config["Boto"] = {
        "https_validate_certificates": "True",
        "ca_certificates_file": str(wiring.bundle),
        "proxy_type": "http",
        "proxy": str(gateway.hostname),
        "proxy_port": str(gateway.port),
        "proxy_rdns": "True",  # or gsutil would look Google's hosts up itself
        "num_retries": "6",  # of 23, which take ten minutes to tell that the engine is down
        **({"proxy_user": "enginehouse", "proxy_pass": wiring.token} if wiring.token else {}),
    }
    return _text(config)


def service_account(project: str, token_uri: str = TOKEN_URI) -> dict[str, str]:
    """The JSON key of a service account that was never registered anywhere, with a key pair of its own.

    Args:
        project: whose account it says it is.
        token_uri: where clients exchange their signed claims for a token.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    email = f"enginehouse@{project}.iam.gserviceaccount.com"
    return {
        "type": "service_account",
        "project_id": project,
        "private_key_id": hashlib.sha256(public).hexdigest()[:40],
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "client_email": email,
        "client_id": str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:8], "big")),
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }


def _text(config: RawConfigParser) -> str:
    buffer = io.StringIO()
    config.write(buffer)
    return buffer.getvalue()


def _write(path: Path, text: str) -> None:
    data = text.encode()
    if not path.exists() or path.read_bytes() != data:
        atomic_write(path, data, mode=0o600)
