"""Buckets that are not here: a second engine stands for the real service, and the first reaches it as it would that.

Its environment names the second one's gateway as the proxy to the outside and trusts its certificates, which is how
an engine in a company's network reaches storage.googleapis.com.
"""

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api_core.exceptions import NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from enginehouse.testing.engine import EngineProcess

pytestmark = pytest.mark.slow
PUBLIC = "cloud-samples-data"
SAMPLE = b"39, State-gov, 77516, Bachelors\n" * 3000
NAME = "ml-engine/census/data/adult.data.csv"


def client(engine: EngineProcess) -> storage.Client:
    options = {"api_endpoint": engine.url}
    return storage.Client(project="p", credentials=AnonymousCredentials(), client_options=options)


def plain_https(engine: EngineProcess, url: str) -> bytes:
    """What a program gets that is wired to the engine's gateway and fetches a URL."""
    context = ssl.create_default_context(cafile=engine.gateway_bundle)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"https": engine.gateway_url}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, timeout=30) as answer:
        content: bytes = answer.read()
    return content


@pytest.fixture
def real(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "real") as engine:
        client(engine).create_bucket(PUBLIC).blob(NAME).upload_from_string(SAMPLE)
        yield engine


@pytest.fixture
def engine(real: EngineProcess, tmp_path: Path) -> Iterator[EngineProcess]:
    environ = {
        "https_proxy": real.gateway_url,
        "SSL_CERT_FILE": str(real.gateway_bundle),
        "no_proxy": "127.0.0.1",
        "ENGINEHOUSE_UNKNOWN_BUCKETS": "forward",
        "ENGINEHOUSE_BUCKET_MAPPINGS": f"samples=gs://{PUBLIC}",
    }
    with EngineProcess(tmp_path / "here", environ) as started:
        yield started


def test_public_samples_are_read_from_the_real_service(engine: EngineProcess, real: EngineProcess) -> None:
    here = client(engine)
    for bucket in (PUBLIC, "samples"):
        assert here.bucket(bucket).blob(NAME).download_as_bytes() == SAMPLE
        assert [blob.name for blob in here.list_blobs(bucket, prefix="ml-engine/")] == [NAME]
        assert here.bucket(bucket).get_blob(NAME).size == len(SAMPLE)
        url = f"https://storage.googleapis.com/{bucket}/{NAME}"
        assert plain_https(engine, url) == SAMPLE
    with pytest.raises(NotFound):
        here.bucket(PUBLIC).blob("mine").upload_from_string(b"x")
    assert [blob.name for blob in client(real).list_blobs(PUBLIC)] == [NAME]

    real.stop()
    with pytest.raises(NotFound, match="gsutil mb gs://another-sample") as caught:
        here.bucket("another-sample").blob("x").download_as_bytes()
    assert "can't be reached" in str(caught.value)
    with pytest.raises(urllib.error.HTTPError) as told:
        plain_https(engine, "https://storage.googleapis.com/another-sample/x")
    assert told.value.code == 404
    assert b"NoSuchBucket" in told.value.read()
