"""Explanations against what is known: linear models, completeness, exact Shapley values, the region that counts."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

from enginehouse.modelserver.adapters.base import Adapter, Call
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.batcher import EXPLANATIONS, Batcher
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import ModelLoadError, PredictionError
from enginehouse.modelserver.explain import gradients, shapley
from enginehouse.modelserver.explain.explainer import Explainer
from enginehouse.modelserver.explain.metadata import FILE, InputMetadata, Metadata
from enginehouse.modelserver.explain.method import IntegratedGradients, Method, SampledShapley, Xrai
from enginehouse.modelserver.explain.segments import felzenszwalb
from enginehouse.modelserver.explain.target import DifferentiableTarget, Explainable, Target
from enginehouse.modelserver.explain.xrai import regions
from enginehouse.serving import types
from enginehouse.testing.adapters import ExampleModel, Served

FEATURES, LABELS = load_iris(return_X_y=True)
SHAPLEY = json.dumps({"sampledShapleyAttribution": {"numPaths": 24}})


class Formula(Adapter, Explainable, DifferentiableTarget):
    """A formula of one array, with its derivative, as adapter and target in one."""

    output_name = "y"

    def __init__(
        self, score: Callable[[Array], Array], derive: Callable[[Array], Array] | None = None, dtype: Any = np.float64
    ) -> None:
        self.parts = (TensorSpec("x", "x:0", np.dtype(dtype), None),)
        self._score = score
        self._derive = derive
        self.n_rows = 0

    @classmethod
    def load(cls, directory: Path) -> Formula:
        raise NotImplementedError

    def signatures(self) -> dict[str, Any]:
        return {}

    def self_test(self) -> str:
        return "passed"

    def run(self, call: Call) -> list[Any]:
        raise NotImplementedError

    def prepare(self, request: Mapping[str, Any]) -> Call:
        array = np.array(request["instances"], dtype=self.parts[0].dtype)
        return Call("", (array,), len(array), "all")

    def target(self, signature: str, metadata: Metadata, *, gradients: bool) -> Target:
        return self

    def scores(self, arrays: Sequence[Array]) -> Array:
        self.n_rows += len(arrays[0])
        return np.asarray(self._score(arrays[0]), dtype=np.float64).reshape(len(arrays[0]), -1)

    def gradients(self, arrays: Sequence[Array], labels: Array, positions: Sequence[int]) -> list[Array]:
        assert positions == [0] and self._derive is not None
        return [self._derive(arrays[0])]

    def explain(self, instances: Any, method: Method, metadata: Metadata | None = None) -> list[Any]:
        explainer = Explainer(self, method, metadata or Metadata())
        answers = explainer.run(explainer.prepare({"instances": instances}))
        return [each["attributions_by_label"][0] for each in answers]


def linear(weights: Sequence[float]) -> Formula:
    return Formula(lambda x: x @ np.array(weights) + 7, lambda x: np.tile(weights, (len(x), 1)))


def exact_shapley(score: Callable[[Array], Array], x: Array, base: Array) -> Array:
    """By the definition: the mean over all orders."""
    values = np.zeros(len(x))
    for order in itertools.permutations(range(len(x))):
        current = base.copy()
        for feature in order:
            before = score(current[None])[0]
            current[feature] = x[feature]
            values[feature] += score(current[None])[0] - before
    return values / math.factorial(len(x))


def tangled(x: Array) -> Array:
    return x[:, 0] * x[:, 1] + np.sin(x[:, 2]) * x[:, 0] + x[:, 3] ** 2


# --- integrated gradients ---


@given(
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=50)
def test_integrated_gradients_of_a_linear_model_are_exact(w: list[float], x: list[float], b: list[float]) -> None:
    metadata = Metadata((InputMetadata("x", baselines=[b]),))
    [entry] = linear(w).explain([x], IntegratedGradients(steps=2), metadata)
    expected = np.array(w) * (np.array(x) - np.array(b))
    assert np.allclose(entry["attributions"]["x"], expected, atol=1e-9)
    assert math.isclose(entry["example_score"] - entry["baseline_score"], expected.sum(), abs_tol=1e-9)


def test_integrated_gradients_are_complete_up_to_the_error_that_they_tell() -> None:
    model = Formula(
        tangled,
        lambda x: np.stack([x[:, 1] + np.sin(x[:, 2]), x[:, 0], np.cos(x[:, 2]) * x[:, 0], 2 * x[:, 3]], axis=1),
    )
    instance = [2.0, -1.0, 3.0, 0.5]
    errors = []
    for steps in (4, 40):
        [entry] = model.explain([instance], IntegratedGradients(steps=steps))
        difference = entry["example_score"] - entry["baseline_score"]
        missing = abs(sum(entry["attributions"]["x"]) - difference)
        assert math.isclose(entry["approx_error"], missing / abs(difference), rel_tol=1e-6)
        errors.append(entry["approx_error"])
    assert errors[1] < errors[0] / 50, "the trapezoid rule's error falls with the square of the steps"
    assert errors[1] < 0.001


def test_several_baselines_are_averaged() -> None:
    metadata = Metadata((InputMetadata("x", baselines=[[0, 0], [2, 2]]),))
    [entry] = linear([3, 5]).explain([[1, 1]], IntegratedGradients(), metadata)
    assert np.allclose(entry["attributions"]["x"], [0, 0])
    assert entry["baseline_score"] == 7 + 8


def test_smooth_grad_leaves_a_linear_model_as_it_is_on_average() -> None:
    method = IntegratedGradients(noise_sigma=0.1, noisy_samples=50)
    [entry] = linear([3, 5]).explain([[1, 1]], method)
    assert np.allclose(entry["attributions"]["x"], [3, 5], atol=0.2)
    assert entry["attributions"]["x"] != [3, 5]


def test_blur_paths_are_complete() -> None:
    weights = np.random.default_rng(0).normal(size=(8, 8, 1))
    model = Formula(lambda x: (x * weights).sum(axis=(1, 2, 3)), lambda x: np.repeat(weights[None], len(x), axis=0))
    image = np.random.default_rng(1).random((8, 8, 1))
    [entry] = model.explain([image], IntegratedGradients(max_blur_sigma=3))
    assert entry["approx_error"] < 1e-9
    assert math.isclose(entry["baseline_score"], (gradients.blur(image[None], 3)[0] * weights).sum(), rel_tol=1e-9)
    with pytest.raises(PredictionError, match="is no image"):
        linear([1, 2]).explain([[1, 1]], IntegratedGradients(max_blur_sigma=3))


def test_the_label_with_the_highest_score_is_explained() -> None:
    model = Formula(lambda x: np.stack([x[:, 0], 2 * x[:, 1]], axis=1), lambda x: np.ones_like(x))
    first, second = model.explain([[5, 1], [1, 5]], SampledShapley(10))
    assert (first["label_index"], first["attributions"]["x"]) == (0, [5.0, 0.0])
    assert (second["label_index"], second["attributions"]["x"]) == (1, [0.0, 10.0])


# --- sampled Shapley ---


def test_shapley_values_are_exact_when_all_orders_are_walked() -> None:
    x, base = np.array([2.0, -1.0, 3.0, 0.5]), np.array([1.0, 1.0, 0.0, -1.0])
    metadata = Metadata((InputMetadata("x", baselines=[base.tolist()]),))
    model = Formula(tangled)
    [entry] = model.explain([x], SampledShapley(24), metadata)
    assert np.allclose(entry["attributions"]["x"], exact_shapley(tangled, x, base))
    assert entry["approx_error"] == 0
    assert model.n_rows == 2**4 + 2, "each set of features is scored once"


def test_sampled_values_are_near_the_exact_ones_as_their_error_says() -> None:
    def score(x: Array) -> Array:
        return np.prod(x[:, :3], axis=1) + x[:, 3] * x[:, 4] - np.abs(x[:, 5] - x[:, 0])

    x = np.array([1.5, 2.0, 0.5, 1.0, -2.0, 1.0])
    exact = exact_shapley(score, x, np.zeros(6))
    [few] = Formula(score).explain([x], SampledShapley(10))
    [many] = Formula(score).explain([x], SampledShapley(500))
    difference = abs(few["example_score"] - few["baseline_score"])
    for entry in (few, many):
        off = np.linalg.norm(np.array(entry["attributions"]["x"]) - exact)
        assert 0 < off < 4 * entry["approx_error"] * difference
        assert math.isclose(sum(entry["attributions"]["x"]), entry["example_score"] - entry["baseline_score"])
    assert many["approx_error"] < few["approx_error"] / 3


def test_too_many_features_are_refused() -> None:
    with pytest.raises(PredictionError, match="at most 1024 features, there are 2000"):
        linear([1.0] * 2000).explain([[0.0] * 2000], SampledShapley())
    assert shapley.orders(3, 6)[1] and not shapley.orders(3, 5)[1]


# --- XRAI ---


def square_image() -> tuple[Array, tuple[slice, slice]]:
    """A dark image with a bright square and a middling one; the place of the bright one."""
    image = np.full((48, 48, 3), 0.1)
    place = (slice(8, 24), slice(8, 24))
    image[place] = 0.9
    image[30:44, 30:44] = 0.5
    return image, place


def test_segments_follow_the_edges() -> None:
    image, _ = square_image()
    segments = felzenszwalb(image, scale=50)
    inner = segments[10:22, 10:22]
    assert len(np.unique(inner)) == 1
    assert inner[0, 0] not in (segments[2, 2], segments[37, 37])
    assert segments[0, 0] == segments[47, 0] == segments[0, 47]


def test_regions_are_taken_by_their_gain_per_pixel() -> None:
    attributions = np.array([[4.0, 4.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    top = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    upper = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    right = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], dtype=bool)
    heat = regions(attributions, [upper, right, top])
    # top first (4); of the rest `right` gives 2 on 4 pixels; then nothing new but the lower left.
    assert heat.tolist() == [[4, 4, 0.5, 0.5], [0, 0, 0.5, 0.5]]


def test_xrai_finds_the_region_that_counts() -> None:
    image, place = square_image()
    weights = np.zeros((48, 48, 3))
    weights[place] = 1.0
    model = Formula(lambda x: (x * weights).sum(axis=(1, 2, 3)), lambda x: np.repeat(weights[None], len(x), axis=0))
    metadata = Metadata((InputMetadata("x", visualization={"type": "Raw"}),))
    [entry] = model.explain([image], Xrai(), metadata)
    heat = np.array(entry["attributions"]["x"])
    assert heat.shape == (48, 48)
    inside = np.zeros((48, 48), dtype=bool)
    inside[place] = True
    assert heat[inside].min() > heat[~inside].max() * 0.999
    assert heat[inside].mean() > 4 * heat[~inside].mean()
    assert entry["approx_error"] < 1e-9
    with pytest.raises(PredictionError, match="XRAI explains images"):
        linear([1, 2]).explain([[1, 1]], Xrai())


# --- metadata and batches ---


def test_bags_of_features_are_told_by_name() -> None:
    bag = InputMetadata("words", tensor="x:0", encoding="bag_of_features", feature_names=["a", "b"])
    [entry] = linear([3, 5]).explain([[1, 1]], IntegratedGradients(), Metadata((bag,)))
    assert entry["attributions"] == pytest.approx({"a": 3.0, "b": 5.0})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is not JSON"),
        ('{"inputs": []}', "inputs in explanation_metadata.json: it must hold an object for each name"),
        ('{"inputs": {"x": {"encoding": "morse"}}}', "inputs.x.encoding in explanation_metadata.json: 'morse'"),
        ('{"inputs": {"x": {"encoding": "indicator"}}}', "index_feature_mapping"),
        ('{"inputs": {"x": {"encoding": "concat_embedding"}}}', "encoded_tensor_name"),
        ('{"inputs": {"x": {"input_baselines": 3}}}', "input_baselines"),
        ('{"outputs": {"a": {}, "b": {}}}', "exactly one output"),
    ],
)
def test_bad_metadata_names_the_field(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ModelLoadError) as caught:
        Metadata.load(tmp_path)
    assert words in caught.value.detail


def test_metadata_must_fit_the_model() -> None:
    with pytest.raises(PredictionError, match=r"names the input z \(z:0\), but the model has: x \(x:0\)"):
        linear([1]).explain([[1]], IntegratedGradients(), Metadata((InputMetadata("z", tensor="z:0"),)))
    with pytest.raises(PredictionError, match=r"baseline of the input x .* shape is \(2\)"):
        linear([1, 2]).explain([[1, 1]], SampledShapley(), Metadata((InputMetadata("x", baselines=[[1, 2, 3]]),)))
    with pytest.raises(PredictionError, match="no input of the model is a floating-point tensor"):
        Formula(lambda x: x, dtype=np.int64).explain([[1]], IntegratedGradients())


def test_requests_are_explained_together_as_alone() -> None:
    explainer = Explainer(Formula(tangled), SampledShapley(5), Metadata())
    batcher = Batcher(explainer, key=EXPLANATIONS)
    instances = np.random.default_rng(0).normal(size=(6, 4)).tolist()
    bodies = [json.dumps({"instances": [each]}).encode() for each in instances]
    alone = [a.body for body in bodies for _, part in batcher.answer(batcher.open([(0, body)])) for a in part]
    batch = batcher.open(enumerate([*bodies, b'{"instances": []}']))
    together = {answer.asker: answer.body for _, part in batcher.answer(batch) for answer in part}
    assert together.pop(6) == b'{"explanations":[]}'
    for position, body in enumerate(alone):
        one, other = json.loads(body)["explanations"], json.loads(together[position])["explanations"]
        for ours, theirs in zip(one, other, strict=True):
            [ours], [theirs] = ours["attributions_by_label"], theirs["attributions_by_label"]
            assert np.allclose(ours["attributions"]["x"], theirs["attributions"]["x"])


# --- in a model server ---

Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a scikit-learn model with explanations."""
    running: list[Served] = []

    def serve(model: Any, metadata: Any = None, *, explanation: str = SHAPLEY) -> Served:
        directory = tmp_path / "model"
        directory.mkdir()
        joblib.dump(model, directory / "model.joblib")
        if metadata is not None:
            (directory / FILE).write_text(json.dumps(metadata))
        example = ExampleModel("SCIKIT_LEARN", Path(sys.executable), directory, [], None)
        running.append(Served(example.version(explanation=explanation), tmp_path))
        return running[-1]

    yield serve
    for served in running:
        served.close()


def test_a_linear_regression_with_names_and_a_baseline(serve: Serve) -> None:
    model = LinearRegression().fit(FEATURES, LABELS)
    names, mean = ["sepal length", "sepal width", "petal length", "petal width"], FEATURES.mean(axis=0)
    served = serve(
        model, {"inputs": {"flower": {"index_feature_mapping": names, "input_baselines": [mean.tolist()]}}}
    )
    entries = served.explain(FEATURES[0].tolist(), FEATURES[100].tolist(), [6, 3, 5, 2])
    for entry, row in zip(entries, [FEATURES[0], FEATURES[100], np.array([6, 3, 5, 2])], strict=True):
        expected = model.coef_ * (row - mean)
        assert list(entry["attributions"]) == names
        assert np.allclose(list(entry["attributions"].values()), expected)
        assert entry["output_name"] == "predictions"
        assert math.isclose(entry["baseline_score"], LABELS.mean(), rel_tol=1e-6)
    assert len(served.predict([6, 3, 5, 2])) == 1, "predictions are answered beside"


def test_a_classifier_by_the_probability_of_its_class(serve: Serve) -> None:
    model = RandomForestClassifier(10, random_state=0).fit(FEATURES, np.array(["a", "b", "c"])[LABELS])
    entries = serve(model).explain(*FEATURES[[0, 60, 120]].tolist())
    assert [entry["label_name"] for entry in entries] == ["a", "b", "c"]
    for entry, row in zip(entries, FEATURES[[0, 60, 120]], strict=True):
        label = entry["label_index"]
        expected = exact_shapley(lambda x, label=label: model.predict_proba(x)[:, label], row, np.zeros(4))
        assert np.allclose(entry["attributions"]["instances"], expected)
        assert math.isclose(entry["example_score"], model.predict_proba([row])[0, label])


def test_a_bad_instance_is_told_as_in_predictions(serve: Serve) -> None:
    served = serve(LogisticRegression(max_iter=1000).fit(FEATURES, LABELS))
    good, bad = {"instances": FEATURES[:2].tolist()}, {"instances": [[1, 2]]}
    answers = served.ask_with_status(good, bad, good, wish=1)
    assert [list(answer) for _, answer in answers] == [["explanations"], ["error"], ["explanations"]]
    assert answers[1][1]["error"].startswith("Prediction failed: ")


def test_gradients_of_scikit_learn_fail_at_the_start(serve: Serve) -> None:
    with pytest.raises(types.ModelLoadError, match=r"scikit-learn [\d.]+ gives no gradients; use sampled Shapley"):
        serve(
            LinearRegression().fit(FEATURES, LABELS),
            explanation=json.dumps({"integratedGradientsAttribution": {"numIntegralSteps": 5}}),
        )
