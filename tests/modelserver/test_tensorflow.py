"""The TensorFlow adapter in a real runtime. Slow: builds the runtime if need be; TensorFlow starts for seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enginehouse.serving.types import ModelLoadError
from enginehouse.testing.adapters import AdapterContract, ExampleModel, Served, same

pytestmark = pytest.mark.slow

Start = Callable[[str], Served]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, make_models: Callable[..., Path]) -> tuple[Path, Path]:
    """The interpreter and the directory with the models."""
    directory = tmp_path_factory.mktemp("tensorflow")
    return make_models("2.21", "make_tensorflow_models.py", directory), directory


@pytest.fixture(scope="module")
def start(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Serve one of the models, once."""
    python, directory = models
    running: dict[str, Served] = {}

    def start(name: str) -> Served:
        if name not in running:
            example = ExampleModel("TENSORFLOW", python, directory / name, [], None)
            running[name] = Served(example.version(), tmp_path_factory.mktemp("logs"))
        return running[name]

    yield start
    for served in running.values():
        served.close()


class TestContract(AdapterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, models: tuple[Path, Path]) -> ExampleModel:
        python, directory = models
        instances = [[5.1, 3.5, 1.4, 0.2], [6, 3, 5, 2], {"x": [1, 2, 3, 4]}, [0.5, None, 1, 1]]
        return ExampleModel("TENSORFLOW", python, directory / "keras_export", instances, [1, 2, 3])


def test_signatures_are_told(start: Start) -> None:
    signatures = start("module").report.signatures
    assert signatures["serving_default"]["inputs"] == {
        "name": {"dtype": "string", "shape": [None]},
        "x": {"dtype": "float32", "shape": [None, 2]},
    }
    assert signatures["length"]["outputs"] == {"length": {"dtype": "int32", "shape": [None]}}


def test_several_inputs_and_outputs(start: Start) -> None:
    predictions = start("module").predict(
        {"name": "a", "x": [1, 2]}, {"x": [0.5, 0], "name": {"b64": "Yg=="}}, {"name": "é", "x": [0, 0]}
    )
    assert predictions == [
        {"id": 1, "sum": 6.0, "raw_bytes": {"b64": "YQ=="}, "label": "a!"},
        {"id": 2, "sum": 1.0, "raw_bytes": {"b64": "Yg=="}, "label": "b!"},
        {"id": -1, "sum": 0.0, "raw_bytes": {"b64": "w6k="}, "label": "é!"},
    ]


def test_one_string_input_in_all_its_forms(start: Start) -> None:
    instances = ["abc", {"b64": "AAEC/w=="}, {"image_bytes": {"b64": "AA=="}}, {"image_bytes": "ab"}]
    assert start("module").predict(*instances, signature_name="length") == [3, 4, 1, 2]


def test_signatures_do_not_mix(start: Start) -> None:
    served = start("module")
    by_length = {"instances": ["abc", "a"], "signature_name": "length"}
    by_default = {"instances": [{"name": "b", "x": [1, 1]}]}
    for number, answer in enumerate(served.ask(*[by_length, by_default] * 20)):
        if number % 2 == 0:
            assert answer == {"predictions": [3, 1]}
        else:
            assert answer["predictions"][0]["sum"] == 4.0


@pytest.mark.parametrize(
    ("instances", "extra", "words"),
    [
        ([{"name": "a"}], {}, "Input x was missing in at least one input instance."),
        ([{"name": "a", "x": [1, 2], "z": 0}], {}, "Unexpected tensor name: z"),
        (["a"], {}, "instance 0 must be an object"),
        ([{"name": "a", "x": [1, 2]}, {"name": 3, "x": [1, 2]}], {}, "Expected string, got 3 of type 'int' instead."),
        (
            [{"name": "a", "x": ["1", 2]}],
            {},
            "Expected float32, got '1' of type 'str' instead. (Input x of instance 0",
        ),
        ([{"name": {"b64": "/w=="}, "x": [1, 2]}], {}, "The output label holds bytes that are not UTF-8."),
        (
            [{"word": "a"}],
            {"signature_name": "length"},
            "Expected tensor name: image_bytes, got tensor name: ['word'].",
        ),
        (["a"], {"signature_name": "nope"}, "No signature found for signature key nope."),
        ([1.0, 2.0, 3.0], {"signature_name": "uneven"}, "outputs had differing sizes in the batch (outer) dimension"),
        ([4, -1], {"signature_name": "positive"}, "Exception during running the graph: "),
        ([1.5], {"signature_name": "positive"}, "Expected int32, got 1.5 of type 'float' instead."),
        ([[1, 2], [3, 4]], {"signature_name": "one_row"}, "takes exactly 1 instances at a time, got 2"),
    ],
)
def test_mistakes_are_named(start: Start, instances: list[object], extra: dict[str, str], words: str) -> None:
    text = start("module").error(*instances, **extra)
    assert text.startswith("Prediction failed: ")
    assert words in text


def test_what_the_graph_says_is_passed_on_without_its_trace(start: Start) -> None:
    text = start("module").error(4, -1, signature_name="positive")
    assert "only positive numbers" in text
    assert len(text) < 1000


def test_calls_that_cannot_be_merged_are_not(start: Start) -> None:
    served = start("module")
    fixed = [{"instances": [[number, 1]], "signature_name": "one_row"} for number in range(20)]
    assert [answer["predictions"] for answer in served.ask(*fixed)] == [[number + 1.0] for number in range(20)]
    totals = [{"instances": [number, 1], "signature_name": "total"} for number in range(20)]
    assert [answer["predictions"] for answer in served.ask(*totals)] == [[number + 1.0] for number in range(20)]


def test_keras_lookups_and_normalisation_are_exported_with_the_model(start: Start) -> None:
    red, blue, other = start("keras_lookup").predict(
        {"colour": ["red"], "size": [1]}, {"colour": ["blue"], "size": [1]}, {"colour": ["?"], "size": [1]}
    )
    assert red.keys() == {"price", "class"} and len(red["class"]) == 2
    assert not same(red, blue) and not same(red, other)


def test_a_keras_file_answers_like_its_export(start: Start) -> None:
    flower = [5.1, 3.5, 1.4, 0.2]
    assert same(start("keras_file").predict(flower), start("keras_export").predict(flower))


def test_a_model_of_tensorflow_one(start: Start) -> None:
    assert start("version_one").predict([1], [2]) == [{"y": 3.0, "label": "low"}, {"y": 6.0, "label": "high"}]


def test_the_only_signature_is_the_default_else_predict(start: Start) -> None:
    assert start("one_signature").predict("abc") == [3]
    assert start("predict_default").predict("abc") == [3]
    text = start("no_default").error("abc")
    assert "No signature found for signature key serving_default. The model has: a, b." in text
    assert start("no_default").predict("abc", signature_name="a") == [3]


def test_a_model_that_dislikes_zeros_is_not_bad(start: Start) -> None:
    served = start("picky")
    assert served.report.self_test.startswith("inconclusive: ")
    assert "only positive numbers" in served.report.self_test
    assert served.predict(4, 9) == [2.0, 3.0]


def test_a_model_without_its_variables_is_bad(start: Start) -> None:
    with pytest.raises(ModelLoadError, match="Failed to load model: Error loading the model: Could not load model: "):
        start("no_variables")
