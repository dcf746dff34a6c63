"""The contract of a framework adapter, as a test class: subclass `AdapterContract` and give it a model.

The adapter runs where it runs in earnest, in a model server process with the runtime's interpreter, and is asked
through a `ServerPool`.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enginehouse.core.names import VersionName
from enginehouse.modelserver.frames import EXPLAIN, PREDICT
from enginehouse.serving.limits import DEFAULT_LIMITS, Limits
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.types import DeployReport, ModelLoadError, ServedVersion


@dataclass(frozen=True)
class ExampleModel:
    """A model for the contract.

    Args:
        framework: "TENSORFLOW", "SCIKIT_LEARN" or "XGBOOST".
        python: the interpreter of a runtime with the framework.
        directory: the model's files.
        instances: two or more that the model takes, with different predictions.
        bad_instance: one that it must refuse.
        in_worker: the runtime's Python is an old one.
    """

    framework: str
    python: Path
    directory: Path
    instances: list[Any]
    bad_instance: Any
    in_worker: bool = False

    def version(self, directory: Path | None = None, *, explanation: str = "") -> ServedVersion:
        """This model, or the files in another directory, as a version."""
        directory = directory or self.directory
        name = VersionName("p", "m", "v")
        return ServedVersion(
            name,
            directory.name,
            directory,
            self.framework,
            self.python,
            in_worker=self.in_worker,
            explanation=explanation,
        )


class Served:
    """A deployed version, for tests that are not coroutines. One thread; close it.

    Raises:
        ModelLoadError: the model cannot be served.
    """

    def __init__(self, version: ServedVersion, logs_dir: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.version = version
        self.pool = ServerPool(logs_dir, limits)
        self._runner = asyncio.Runner()
        self.report: DeployReport
        try:
            self.report = self._runner.run(self.pool.deploy(version))
        except BaseException:
            self.close()
            raise

    def ask(self, *requests: Any) -> list[Any]:
        """The answers' JSON to requests that are in flight together."""
        return [answer for _, answer in self.ask_with_status(*requests)]

    def ask_with_status(self, *requests: Any, wish: int = PREDICT) -> list[tuple[int, Any]]:
        """The same with their HTTP status."""

        async def ask() -> list[tuple[int, Any]]:
            bodies = [json.dumps(request).encode() for request in requests]
            answers = await asyncio.gather(*(self.pool.predict(self.version, body, wish) for body in bodies))
            return [(answer.status, json.loads(answer.body)) for answer in answers]

        return self._runner.run(ask())

    def predict(self, *instances: Any, **extra: Any) -> list[Any]:
        """The predictions for one request, which must succeed."""
        [answer] = self.ask({"instances": list(instances), **extra})
        assert "predictions" in answer, answer
        predictions: list[Any] = answer["predictions"]
        return predictions

    def explain(self, *instances: Any) -> list[Any]:
        """The one label's attributions of each instance of a request, which must succeed."""
        [(_, answer)] = self.ask_with_status({"instances": list(instances)}, wish=EXPLAIN)
        assert "explanations" in answer, answer
        found = [each["attributions_by_label"] for each in answer["explanations"]]
        assert [len(each) for each in found] == [1] * len(instances)
        return [entry for [entry] in found]

    def error(self, *instances: Any, **extra: Any) -> str:
        """The error text of one request, which must fail."""
        [answer] = self.ask({"instances": list(instances), **extra})
        assert answer.keys() == {"error"}, answer
        text: str = answer["error"]
        return text

    def close(self) -> None:
        """End the model server."""
        with self._runner:
            self._runner.run(self.pool.close())


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in JSON."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)


def same(left: Any, right: Any) -> bool:
    """Whether two predictions are equal up to the rounding that depends on the size of a batch."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-4, abs_tol=1e-6)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


class AdapterContract:
    """What every adapter must do. Give it a class-scoped fixture `model`."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ExampleModel:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def served(cls, model: ExampleModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
        served = Served(model.version(), tmp_path_factory.mktemp("logs"))
        yield served
        served.close()

    def test_passes_its_test_call(self, served: Served) -> None:
        assert served.report.self_test == "passed"
        assert served.report.load_s > 0

    def test_tells_its_signatures(self, served: Served) -> None:
        assert served.report.signatures
        for signature in served.report.signatures.values():
            assert signature["inputs"] and signature["outputs"]

    def test_gives_one_prediction_per_instance_in_order(self, served: Served, model: ExampleModel) -> None:
        one_by_one = [served.predict(instance)[0] for instance in model.instances]
        assert not all(same(prediction, one_by_one[0]) for prediction in one_by_one)
        assert same(served.predict(*model.instances), one_by_one)
        assert same(served.predict(*reversed(model.instances)), one_by_one[::-1])

    def test_gives_the_same_in_company(self, served: Served, model: ExampleModel) -> None:
        alone = [served.predict(instance)[0] for instance in model.instances]
        requests, expected = [], []
        for number in range(60):
            positions = [(number + offset) % len(alone) for offset in range(number % 4 + 1)]
            requests.append({"instances": [model.instances[position] for position in positions]})
            expected.append([alone[position] for position in positions])
        for answer, predictions in zip(served.ask(*requests), expected, strict=True):
            assert same(answer.get("predictions"), predictions), answer

    def test_a_bad_request_fails_alone(self, served: Served, model: ExampleModel) -> None:
        good, bad = {"instances": model.instances}, {"instances": [model.instances[0], model.bad_instance]}
        expected = served.predict(*model.instances)
        for number, answer in enumerate(served.ask(*[good, good, bad, good] * 5)):
            if number % 4 == 2:
                assert answer.keys() == {"error"}
                assert answer["error"].startswith("Prediction failed: ")
            else:
                assert same(answer["predictions"], expected)

    def test_no_instances_give_no_predictions(self, served: Served) -> None:
        assert served.predict() == []

    def test_explanations_share_out_the_whole_score(self, model: ExampleModel, tmp_path: Path) -> None:
        """Shapley values sum up to the difference from the baseline's score, whatever the model and the sampling."""
        version = model.version(explanation=json.dumps({"sampledShapleyAttribution": {"numPaths": 4}}))
        explained = Served(version, tmp_path)
        try:
            entries = explained.explain(*model.instances)
        finally:
            explained.close()
        assert any(set(_numbers(entry["attributions"])) != {0} for entry in entries)
        for entry in entries:
            attributions = sum(_numbers(entry["attributions"]))
            difference = entry["example_score"] - entry["baseline_score"]
            assert math.isclose(attributions, difference, rel_tol=1e-4, abs_tol=1e-4), entry

    @pytest.mark.parametrize("body", [{}, [], 3, {"instances": {"a": 1}}, {"instances": None}])
    def test_what_is_no_prediction_request_is_a_bad_request(self, served: Served, body: Any) -> None:
        [(status, answer)] = served.ask_with_status(body)
        assert status == 400
        assert answer["error"]["status"] == "INVALID_ARGUMENT"
        assert "instances" in answer["error"]["message"]

    def test_refuses_a_directory_without_a_model(self, model: ExampleModel, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no model here")
        self._check_refused(model, tmp_path)

    def test_refuses_damaged_files(self, model: ExampleModel, tmp_path: Path) -> None:
        directory = tmp_path / "damaged"
        shutil.copytree(model.directory, directory)
        for path in directory.iterdir():
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self._check_refused(model, directory)

    def _check_refused(self, model: ExampleModel, directory: Path) -> None:
        with pytest.raises(ModelLoadError) as caught:
            Served(model.version(directory), directory)
        assert caught.value.message.startswith("Failed to load model: ")
        assert caught.value.message.endswith(" (Error code: 0)")
