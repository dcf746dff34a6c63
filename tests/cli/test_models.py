"""Models, versions, operations and predictions, against recorded shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginehouse.testing.http import Answer, FakeHttpEngine, Request, error_answer

Mle = Callable[..., Any]
MODELS = "/v1/projects/p/models"
VERSIONS = f"{MODELS}/iris/versions"
OPERATION = "projects/p/operations/create_iris_v1"


def done(**more: object) -> dict[str, object]:
    return {"name": OPERATION, "done": True, **more}


class TestModels:
    def test_create(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("POST", MODELS, {"name": "projects/p/models/iris"})
        result = mle("models", "create", "iris", "--description", "x", "--labels", "a=b", "--enable-logging")
        assert (result.code, result.err) == (0, "Created ml engine model [projects/p/models/iris].\n")
        assert engine.requests[0].json() == {
            "name": "iris",
            "regions": ["us-central1"],
            "description": "x",
            "labels": {"a": "b"},
            "onlinePredictionLogging": True,
        }

    @pytest.mark.parametrize("flag", ["--regions=europe-west1", "--region=europe-west1"])
    def test_create_in_a_region(self, mle: Mle, engine: FakeHttpEngine, flag: str) -> None:
        engine.on("POST", MODELS, {})
        mle("models", "create", "iris", flag)
        assert engine.requests[0].json()["regions"] == ["europe-west1"]

    def test_a_bad_name_is_told_before_any_request(self, mle: Mle, engine: FakeHttpEngine) -> None:
        assert mle("models", "create", "iris-1").code == 1
        assert engine.requests == []

    def test_list(self, mle: Mle, engine: FakeHttpEngine) -> None:
        version = {"name": "projects/p/models/iris/versions/v1"}
        rows = [{"name": "projects/p/models/iris", "defaultVersion": version}, {"name": "projects/p/models/new"}]
        engine.on("GET", MODELS, {"models": rows})
        assert mle("models", "list").out == "NAME  DEFAULT_VERSION_NAME\niris  v1\nnew\n"

    def test_traffic(self, mle: Mle, engine: FakeHttpEngine) -> None:
        path = f"/enginehouse{MODELS}/iris/traffic"
        for method in ("GET", "PUT", "DELETE"):
            engine.on(method, path, {"shares": {"v1": 90, "v2": 10}, "base": "v1"})
        assert "v2: 10\n" in mle("models", "traffic", "iris").out
        assert mle("models", "set-traffic", "iris", "v1=90", "v2=10%", "--max-latency-factor", "1.5").code == 0
        assert engine.requests[-1].json() == {
            "shares": {"v1": 90, "v2": 10},
            "rollBack": {"max_latency_factor": 1.5},
        }
        assert mle("models", "set-traffic", "iris").code == 0
        assert engine.requests[-1].method == "DELETE"
        wrong = mle("models", "set-traffic", "iris", "v1:90")
        assert wrong.code == 2 and "write VERSION=PERCENT" in wrong.err

    def test_delete_and_update_wait(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("DELETE", f"{MODELS}/iris", done(response={}))
        engine.on("PATCH", f"{MODELS}/iris", done(response={}))
        assert mle("models", "delete", "iris").err == "Deleting model [iris]...done.\n"
        assert mle("models", "update", "iris", "--description", "d").err == "Updating model [iris]...done.\n"
        assert engine.requests[-1].query == {"updateMask": "description"}
        assert engine.requests[-1].json() == {"description": "d"}


class TestVersions:
    CREATE = ("versions", "create", "v1", "--model", "iris")

    def test_create_waits_with_dots(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("POST", VERSIONS, {"name": OPERATION})
        engine.on("GET", f"/v1/{OPERATION}", {"name": OPERATION}, done(response={"name": "v1"}))
        result = mle(
            *self.CREATE, "--origin", "gs://bkt/model", "--runtime-version", "2.21", "--framework", "scikit-learn"
        )
        assert (result.code, result.out) == (0, "")
        assert result.err == "Creating version (this might take a few minutes).....done.\n"
        assert engine.requests[0].json() == {
            "name": "v1",
            "deploymentUri": "gs://bkt/model",
            "runtimeVersion": "2.21",
            "framework": "SCIKIT_LEARN",
        }

    def test_create_fails_with_the_operations_error(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("POST", VERSIONS, done(error={"code": 9, "message": "Bad model detected with error: x"}))
        result = mle(*self.CREATE, "--origin", "gs://bkt/model")
        assert result.code == 1
        assert result.err.endswith(
            "...failed.\nERROR: (mle.versions.create) FAILED_PRECONDITION: Bad model detected with error: x\n"
        )

    def test_async_does_not_wait(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("POST", VERSIONS, {"name": OPERATION})
        result = mle(*self.CREATE, "--origin", "gs://bkt/model", "--async")
        assert (result.code, result.out, result.err) == (0, "", "")
        assert len(engine.requests) == 1

    def test_config_with_flags_over_it(self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path) -> None:
        config = tmp_path / "config.yaml"
        config.write_text('deploymentUri: "gs://bkt/old"\nruntimeVersion: \'1.8\'\nframework: "SCIKIT_LEARN"\n')
        engine.on("POST", VERSIONS, done(response={}))
        mle(*self.CREATE, "--config", config, "--runtime-version", "scikit-learn-1.9")
        assert engine.requests[0].json() == {
            "name": "v1",
            "deploymentUri": "gs://bkt/old",
            "runtimeVersion": "scikit-learn-1.9",
            "framework": "SCIKIT_LEARN",
        }

    def test_a_local_origin_is_uploaded_once_under_its_digest(
        self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path
    ) -> None:
        folder = tmp_path / "model"
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"pb")
        (folder / "variables" / "v.index").write_bytes(b"index")
        names: list[str] = []

        def store(request: Request) -> dict[str, Any]:
            name = json.loads(request.body.split(b"\r\n\r\n")[1].partition(b"\r\n")[0])["name"]
            names.append(name)
            return {"bucket": "bkt", "name": name, "size": "2" if name.endswith("pb") else "5"}

        engine.on("POST", "/upload/storage/v1/b/bkt/o", store)
        engine.on("POST", VERSIONS, done(response={}))
        assert mle(*self.CREATE, "--origin", folder, "--staging-bucket", "gs://bkt").code == 0
        uri = engine.requests[-1].json()["deploymentUri"]
        digest = uri.removeprefix("gs://bkt/").removesuffix("/")
        assert len(digest) == 64
        assert sorted(names) == [f"{digest}/saved_model.pb", f"{digest}/variables/v.index"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--origin", "/no/such/folder", "--staging-bucket", "bkt"], "there is no such folder"),
            (["--origin", "{tmp}"], "give --staging-bucket"),
            (["--origin", "{tmp}", "--staging-bucket", "bkt"], "the folder is empty"),
            (["--framework", "torch"], "is not one of tensorflow, scikit-learn, xgboost"),
        ],
    )
    def test_refusals(
        self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        result = mle(*self.CREATE, *(each.format(tmp=tmp_path) for each in arguments))
        assert result.code in (1, 2)
        assert message in result.err
        assert engine.requests == []

    def test_list_describe_default_delete(self, mle: Mle, engine: FakeHttpEngine) -> None:
        version = {"name": "projects/p/models/iris/versions/v1", "deploymentUri": "gs://bkt/m", "state": "READY"}
        engine.on("GET", VERSIONS, {"versions": [version]})
        engine.on("GET", f"{VERSIONS}/v1", version)
        engine.on("POST", f"{VERSIONS}/v1:setDefault", {**version, "isDefault": True})
        engine.on("DELETE", f"{VERSIONS}/v1", done(response={}))
        assert mle("versions", "list", "--model", "iris").out == (
            "NAME  DEPLOYMENT_URI  STATE\nv1    gs://bkt/m      READY\n"
        )
        served = {"nodes": 1, "signatures": {"predict": {"inputs": {"x": {"dtype": "float32", "shape": [None, 4]}}}}}
        engine.on("GET", f"/enginehouse{VERSIONS}/v1/serving", served)
        shown = mle("versions", "describe", "v1", "--model", "iris").out
        assert "state: READY\n" in shown and "nodes: 1\n" in shown and "dtype: float32\n" in shown
        engine.on("POST", f"/enginehouse{VERSIONS}/v1/restart", {})
        assert mle("versions", "restart", "v1", "--model", "iris").err == "Restarted version [v1] of model [iris].\n"
        assert "isDefault: true\n" in mle("versions", "set-default", "v1", "--model", "iris").out
        assert mle("versions", "delete", "v1", "--model", "iris").err == "Deleting version [v1]...done.\n"

    def test_update_from_a_file(self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path) -> None:
        config = tmp_path / "c.yaml"
        config.write_text("autoScaling:\n  minNodes: 1\n")
        engine.on("PATCH", f"{VERSIONS}/v1", done(response={}))
        assert mle("versions", "update", "v1", "--model", "iris", "--config", config, "--description", "d").code == 0
        assert engine.requests[0].query == {"updateMask": "autoScaling,description"}


class TestOperations:
    def test_list(self, mle: Mle, engine: FakeHttpEngine) -> None:
        row = {"name": OPERATION, "metadata": {"operationType": "CREATE_VERSION"}, "done": True}
        engine.on("GET", "/v1/projects/p/operations", {"operations": [row]})
        assert mle("operations", "list").out == (
            "NAME            OPERATION_TYPE  DONE\ncreate_iris_v1  CREATE_VERSION  true\n"
        )

    def test_wait_by_id_or_full_name(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("GET", f"/v1/{OPERATION}", done(response={}))
        for name in ("create_iris_v1", OPERATION):
            result = mle("operations", "wait", name)
            assert result.code == 0
            assert "done: true\n" in result.out

    def test_cancel(self, mle: Mle, engine: FakeHttpEngine) -> None:
        engine.on("POST", f"/v1/{OPERATION}:cancel", {})
        assert mle("operations", "cancel", "create_iris_v1").code == 0


class TestPredict:
    URL = f"{MODELS}/iris/versions/v1:predict"
    PREDICT = ("predict", "--model", "iris", "--version", "v1")

    def ask(self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path, answer: Any, *flags: str) -> Any:
        engine.on("POST", self.URL, answer if isinstance(answer, Answer) else {"predictions": answer})
        instances = tmp_path / "instances.json"
        instances.write_text("[5.1, 3.5]\n\n[1, 2]\n")
        return mle(*self.PREDICT, "--json-instances", instances, *flags)

    @pytest.mark.parametrize(
        ("predictions", "text"),
        [
            ([0], "[0]\n"),
            ([0.5, 1.0], "[0.5, 1.0]\n"),
            (["setosa", "ü"], "['setosa', 'ü']\n"),
            ([[0.25, 0.75]], "[[0.25, 0.75]]\n"),
            ([], "predictions: []\n"),
            (
                [{"scores": [0.5, 0.5], "class": "a"}, {"scores": [1.0, 0.0], "class": "bb"}],
                "CLASS  SCORES\na      [0.5, 0.5]\nbb     [1.0, 0.0]\n",
            ),
            ([{"a.b": 1}], "A.B\n1\n"),
            ([{"a": 1}, {"b": 2}], "[{'a': 1}, {'b': 2}]\n"),
        ],
    )
    def test_output(self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path, predictions: Any, text: str) -> None:
        assert self.ask(mle, engine, tmp_path, predictions).out == text
        assert engine.requests[-1].json() == {"instances": [[5.1, 3.5], [1, 2]]}

    def test_an_error_in_the_answer_is_shown_whole(self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path) -> None:
        result = self.ask(mle, engine, tmp_path, Answer(json_body={"error": "Prediction failed: x"}))
        assert (result.code, json.loads(result.out)) == (0, {"error": "Prediction failed: x"})

    def test_an_error_status(self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path) -> None:
        result = self.ask(mle, engine, tmp_path, error_answer(404, "NOT_FOUND", "no model"))
        assert (result.code, result.err) == (1, "ERROR: (mle.predict) NOT_FOUND: no model\n")

    def test_formats(self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path) -> None:
        assert json.loads(self.ask(mle, engine, tmp_path, [1], "--format", "json").out) == {"predictions": [1]}
        assert self.ask(mle, engine, tmp_path, [1], "--format", "yaml").out == "predictions:\n- 1\n"

    def test_the_other_inputs(self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path) -> None:
        engine.on("POST", f"{MODELS}/iris:predict", {"predictions": [1]})
        file = tmp_path / "in"
        file.write_text("1,2\n3,4\n")
        mle("predict", "--model", "iris", "--text-instances", file, "--signature-name", "s")
        assert engine.requests[-1].json() == {"instances": ["1,2", "3,4"], "signature_name": "s"}
        file.write_text('{"instances": [{"b64": "AA=="}], "signature_name": "dropped"}')
        mle("predict", "--model", "iris", "--json-request", file)
        assert engine.requests[-1].json() == {"instances": [{"b64": "AA=="}]}

    @pytest.mark.parametrize(
        ("flag", "text", "message"),
        [
            ("--json-instances", "[1]\n{", "line 2 is not JSON"),
            ("--json-instances", "\n", "no instances"),
            ("--json-request", "[1]", '{"instances": [...]}'),
        ],
    )
    def test_bad_input(
        self, mle: Mle, engine: FakeHttpEngine, tmp_path: Path, flag: str, text: str, message: str
    ) -> None:
        file = tmp_path / "in"
        file.write_text(text)
        result = mle(*self.PREDICT, flag, file)
        assert result.code == 1
        assert message in result.err
        assert mle(*self.PREDICT).code == 2
        assert mle(*self.PREDICT, "--json-instances", file, "--text-instances", file).code == 2
        assert engine.requests == []
