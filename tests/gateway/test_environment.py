"""The variables of `mle env`: which, undone, and in the words of shells; and the files that they name."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.core.errors import InvalidArgument
from enginehouse.gateway.credentials import boto_config, service_account, write_client_files
from enginehouse.gateway.environment import (
    VARIABLES,
    Change,
    Wiring,
    original_environment,
    unwire,
    variables_table,
    wire,
)
from enginehouse.gateway.shells import render, shell_of

FILES = Path("/data/clients/p")
GATEWAY = Wiring(
    engine_url="http://127.0.0.1:8600",
    gateway_url="http://127.0.0.1:8601",
    project="p",
    bundle=Path("/data/ca/bundle.pem"),
    authority=Path("/data/ca/ca.pem"),
    files=FILES,
)


def changed(wiring: Wiring, **fields: object) -> Wiring:
    from dataclasses import replace

    return replace(wiring, **fields)


PLAIN = changed(GATEWAY, gateway_url=None)


class TestWire:
    def test_leads_clients_through_the_gateway(self):
        environ = wire(GATEWAY, {"HOME": "/home/u"}).apply({"HOME": "/home/u"})
        assert environ["HOME"] == "/home/u"
        for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"):
            assert environ[name] == "http://127.0.0.1:8601"
        for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"):
            assert environ[name] == "/data/ca/bundle.pem"
        assert environ["no_proxy"] == environ["NO_PROXY"] == "localhost,127.0.0.1,::1"
        assert environ["CLOUDSDK_CORE_PROJECT"] == environ["GOOGLE_CLOUD_PROJECT"] == "p"
        assert environ["GOOGLE_AUTH_TOKEN_FOR_TESTING"]
        assert not any("OVERRIDES" in name for name in environ)
        assert not any("STALENESS" in name or "STAT_CACHE" in name for name in environ)

    def test_plain_has_overrides_and_no_proxy_or_certificates(self):
        environ = wire(PLAIN, {}).apply({})
        assert environ["CLOUDSDK_API_ENDPOINT_OVERRIDES_ML"] == "http://127.0.0.1:8600/"
        assert environ["CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE"] == "http://127.0.0.1:8600/storage/v1/"
        assert environ["STORAGE_EMULATOR_HOST"] == "http://127.0.0.1:8600"
        assert environ["CLOUDSDK_AI_PLATFORM_REGION"] == "global"
        assert not {"https_proxy", "http_proxy", "SSL_CERT_FILE", "CURL_CA_BUNDLE"} & set(environ)

    def test_overrides_what_the_shell_has(self):
        before = {
            "https_proxy": "http://corporate:3128",
            "CURL_CA_BUNDLE": "/etc/ssl/certs/ca-certificates.crt",
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": "/mine",
            "STORAGE_EMULATOR_HOST": "http://other:1",
            "CLOUDSDK_PROXY_ADDRESS": "corporate",
        }
        environ = wire(GATEWAY, before).apply(before)
        assert environ["https_proxy"] == "http://127.0.0.1:8601"
        assert environ["CURL_CA_BUNDLE"] == "/data/ca/bundle.pem"
        assert environ["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"] == str(FILES / "token")
        assert "STORAGE_EMULATOR_HOST" not in environ
        assert "CLOUDSDK_PROXY_ADDRESS" not in environ
        assert environ["ENGINEHOUSE_OLD_https_proxy"] == "http://corporate:3128"

    def test_keeps_what_is_a_matter_of_taste(self):
        before = {"CLOUDSDK_ML_ENGINE_POLLING_INTERVAL": "30", "GCS_READ_CACHE_MAX_SIZE_MB": "512"}
        assert wire(GATEWAY, before).apply(before).items() >= before.items()

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("corp.example,10.0.0.0/8", "localhost,127.0.0.1,::1,corp.example,10.0.0.0/8"),
            ("localhost, .googleapis.com", "localhost,127.0.0.1,::1"),
            ("*", "localhost,127.0.0.1,::1"),
            ("googleapis.com:443,storage.googleapis.com,*.google.com", "localhost,127.0.0.1,::1"),
            ("metadata.google.internal,169.254.169.254,metadata", "localhost,127.0.0.1,::1"),
            ("bigquery.googleapis.com", "localhost,127.0.0.1,::1,bigquery.googleapis.com"),
        ],
    )
    def test_no_proxy_must_not_hide_our_hosts(self, given: str, kept: str):
        assert wire(GATEWAY, {"NO_PROXY": given}).set["no_proxy"] == kept

    def test_engines_elsewhere_and_cluster_nodes_are_reached_directly(self):
        wiring = changed(
            GATEWAY,
            engine_url="http://engine.lan:8600",
            gateway_url="http://engine.lan:8601",
            direct_hosts=("node-1",),
        )
        assert wire(wiring, {}).set["no_proxy"] == "localhost,127.0.0.1,::1,engine.lan,node-1"

    def test_a_token_is_the_proxys_password_and_the_clients_bearer(self):
        environ = wire(changed(GATEWAY, token="s:cr/et"), {}).set
        assert environ["https_proxy"] == "http://enginehouse:s%3Acr%2Fet@127.0.0.1:8601"
        assert environ["GOOGLE_AUTH_TOKEN_FOR_TESTING"] == "s:cr/et"

    def test_a_training_process_may_trust_our_certificate_alone(self):
        environ = wire(changed(GATEWAY, fast_tensorflow=True), {}).set
        assert environ["CURL_CA_BUNDLE"] == "/data/ca/ca.pem"
        assert environ["SSL_CERT_FILE"] == "/data/ca/bundle.pem"

    def test_shims_come_first_in_path(self):
        before = {"PATH": "/usr/bin:/bin"}
        environ = wire(changed(GATEWAY, shims=Path("/data/shims")), before).apply(before)
        assert environ["PATH"] == "/data/shims:/usr/bin:/bin"
        environ["PATH"] = "/venv/bin:" + environ["PATH"]
        assert unwire(environ).apply(environ) == {"PATH": "/venv/bin:/usr/bin:/bin"}

    @pytest.mark.parametrize("wiring", [GATEWAY, PLAIN])
    def test_no_variable_is_told_twice(self, wiring: Wiring):
        names = [v.name for v in VARIABLES if (v.gateway if wiring.gateway_url else v.plain)]
        assert len(names) == len(set(names))


NAMES = st.sampled_from([variable.name for variable in VARIABLES] + ["no_proxy", "PATH", "HOME", "LANG"])
ENVIRONS = st.dictionaries(NAMES, st.text(alphabet="ab/:,'\"\\ $", max_size=8), max_size=12)


class TestUndo:
    @given(ENVIRONS, st.sampled_from([GATEWAY, PLAIN]), st.sampled_from([None, Path("/shims")]))
    def test_everything_comes_back(self, before: dict[str, str], wiring: Wiring, shims: Path | None):
        wiring = changed(wiring, shims=shims if "PATH" in before else None)
        wired = wire(wiring, before).apply(before)
        assert original_environment(wired) == before
        assert unwire(wired).apply(wired) == before

    @given(ENVIRONS)
    def test_wiring_twice_is_wiring_once(self, before: dict[str, str]):
        once = wire(GATEWAY, before).apply(before)
        assert wire(GATEWAY, once) == Change({}, ())
        plain = wire(PLAIN, once).apply(once)
        assert plain == wire(PLAIN, before).apply(before)
        assert unwire(plain).apply(plain) == before

    def test_what_is_not_wired_stays(self):
        assert unwire({"https_proxy": "mine"}) == Change({}, ())

    def test_names_that_are_none_are_left_alone(self):
        """They would become words of a shell."""
        environ = {"ENGINEHOUSE_WIRED": "a b:$(x)", "ENGINEHOUSE_OLD_$(x)": "1"}
        assert "$(x)" not in original_environment(environ)


class TestShells:
    ODD = 'a\'b "c" $HOME `x` \\ \n é;&|'

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_understand_the_words(self, shell: str):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        script = render(Change({"ENGINEHOUSE_TEST": self.ODD}, ("GONE",)), shell)
        code = "import os, json; print(json.dumps([os.environ['ENGINEHOUSE_TEST'], 'GONE' in os.environ]))"
        command = [shell, "-c", f'{script}python3 -c "{code}"']
        environ = {**os.environ, "GONE": "x"}
        printed = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
        assert json.loads(printed) == [self.ODD, False]

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_wire_and_unwire(self, shell: str):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        before = {"PATH": os.environ["PATH"], "https_proxy": "http://corporate:3128", "BOTO_PATH": "/x"}
        wired = wire(GATEWAY, before)
        script = render(wired, shell) + render(unwire(wired.apply(before)), shell) + "env -0"
        printed = subprocess.run([shell, "-c", script], env=before, capture_output=True, check=True).stdout.decode()
        after = dict(item.partition("=")[::2] for item in printed.split("\0") if item)
        assert {name: after[name] for name in before} == before
        assert not {name for name in after if name.startswith(("CLOUDSDK", "GOOGLE", "GCS", "ENGINEHOUSE", "CURL"))}

    def test_fish(self):
        assert render(Change({"A": "it's \\"}, ("B",)), "fish") == "set -e B;\nset -gx A 'it\\'s \\\\';\n"

    def test_other_shells_are_refused(self):
        with pytest.raises(InvalidArgument, match="bash, zsh, fish"):
            render(Change({}, ()), "tcsh")

    @pytest.mark.parametrize(
        ("path", "shell"), [("/usr/bin/fish", "fish"), ("/bin/zsh", "zsh"), ("/bin/dash", "bash"), ("", "bash")]
    )
    def test_the_users_shell(self, path: str, shell: str):
        assert shell_of({"SHELL": path}) == shell


class TestFiles:
    def wiring(self, tmp_path: Path, **fields: object) -> Wiring:
        return changed(GATEWAY, files=tmp_path / "clients", **fields)

    def test_exist_for_each_variable_that_names_one(self, tmp_path: Path):
        wiring = self.wiring(tmp_path)
        write_client_files(wiring)
        named = [Path(value) for value in wire(wiring, {}).set.values() if value.startswith(str(tmp_path))]
        assert len(named) == 4
        assert all(path.exists() for path in named)
        for path in wiring.files.iterdir():
            if path.suffix != ".lock":
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0

    def test_the_token_is_the_engines(self, tmp_path: Path):
        wiring = self.wiring(tmp_path, token="secret")
        write_client_files(wiring)
        assert (wiring.files / "token").read_text() == "secret"

    def test_the_service_account_stays_while_it_is_right(self, tmp_path: Path):
        wiring = self.wiring(tmp_path)
        path = wiring.files / "service-account.json"
        write_client_files(wiring)
        first = path.read_bytes()
        write_client_files(wiring)
        assert path.read_bytes() == first
        write_client_files(changed(wiring, project="other"))
        assert json.loads(path.read_bytes())["project_id"] == "other"
        write_client_files(changed(wiring, project="other", gateway_url=None))
        assert json.loads(path.read_bytes())["token_uri"] == "http://127.0.0.1:8600/token"

    def test_googles_library_takes_the_service_account(self):
        account = pytest.importorskip("google.oauth2.service_account", reason="google-auth is not installed")
        info = service_account("p")
        credentials = account.Credentials.from_service_account_info(info)
        assert credentials.service_account_email == "enginehouse@p.iam.gserviceaccount.com"
        assert info["token_uri"] == "https://oauth2.googleapis.com/token"
        key = load_pem_private_key(info["private_key"].encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey)

    def test_the_boto_file_leads_through_the_gateway(self, tmp_path: Path):
        wiring = self.wiring(tmp_path, token="100%")
        config = configparser.RawConfigParser()
        config.read_string(boto_config(wiring))
        assert config["Boto"]["proxy"] == urlsplit(wiring.gateway_url).hostname
        assert config["Boto"]["proxy_port"] == "8601"
        assert config["Boto"]["proxy_rdns"] == "True"
        assert config["Boto"]["proxy_pass"] == "100%"
        assert config["Boto"]["ca_certificates_file"] == "/data/ca/bundle.pem"
        assert config["GSUtil"]["default_project_id"] == "p"

    def test_without_gateway_gsutil_runs_gcloud(self):
        config = configparser.RawConfigParser()
        config.read_string(boto_config(PLAIN))
        assert config["GSUtil"]["use_gcloud_storage"] == "True"
        assert "Boto" not in config


def test_the_table_tells_every_variable():
    table = variables_table()
    for variable in VARIABLES:
        assert f"| `{variable.name}` |" in table
        assert len(variable.reason) > 5
