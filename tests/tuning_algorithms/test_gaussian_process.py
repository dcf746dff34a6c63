"""The parts of the Gaussian process bandit against what they should compute, and the whole on what it is for."""

import math
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import optimize, stats

from enginehouse.testing.designers import make_config
from enginehouse.tuning.algorithms.base import Problem, Tried
from enginehouse.tuning.algorithms.gaussian_process.acquisition import ExpectedImprovement, Mean, log_improvement
from enginehouse.tuning.algorithms.gaussian_process.cube import Cube
from enginehouse.tuning.algorithms.gaussian_process.designer import GaussianProcessBandit
from enginehouse.tuning.algorithms.gaussian_process.failures import Failures
from enginehouse.tuning.algorithms.gaussian_process.kernel import Hyperparameters, Kernel, squared_differences
from enginehouse.tuning.algorithms.gaussian_process.regression import Evidence, Posterior, Prior
from enginehouse.tuning.algorithms.gaussian_process.warping import warp
from enginehouse.tuning.space import Space

AXES = 3
NONE = np.zeros(AXES, dtype=bool)
CUBE = make_config(
    parameters=[
        {"parameter": f"x{axis}", "type": "DOUBLE", "doubleValueSpec": {"minValue": 0, "maxValue": 1}}
        for axis in range(AXES)
    ]
)


@pytest.fixture
def evidence() -> Evidence:
    rng = np.random.default_rng(1)
    x = rng.random((12, AXES))
    return Evidence(x, rng.normal(size=12), NONE, Prior.for_axes(AXES))


@pytest.fixture
def posterior() -> Posterior:
    rng = np.random.default_rng(2)
    hyper = Hyperparameters(np.log([0.3, 0.5, 0.9]), 0.2, -1.0, -4.0, 0.1, 0.2)
    return Posterior(rng.random((15, AXES)), rng.normal(size=(15, 2)), np.full(15, hyper.noise), hyper, NONE)


def test_the_slope_of_the_evidence(evidence: Evidence) -> None:
    theta = evidence.centre + 0.3
    value, slope = evidence._loss(theta)
    assert slope == pytest.approx(optimize.approx_fprime(theta, lambda t: evidence._loss(t)[0], 1e-7), rel=1e-4)
    assert evidence._loss(evidence.fit())[0] < value


def test_the_evidence_is_the_density_of_the_values() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.random((12, AXES)), rng.normal(size=12)
    x[:, 2] = rng.integers(2, size=12)
    categorical = np.array([False, False, True])
    evidence = Evidence(x, y, categorical, Prior.for_axes(AXES))
    hyper = Hyperparameters.of(evidence.centre)
    whole = Kernel(squared_differences(x, x, categorical), hyper).covariance + (hyper.noise + 1e-8) * np.eye(12)
    # A paraboloid with its top in the middle; the category has no part in it.
    bowl = ((x[:, :2] - 0.5) ** 2 - 1 / 12).sum(axis=1) / math.sqrt(AXES / 180)
    density = stats.multivariate_normal.logpdf(y, hyper.mean - hyper.dome * bowl, whole)
    at_centre = evidence._log_likelihood(np.zeros(len(evidence.centre)))
    assert at_centre - 6 * math.log(2 * math.pi) == pytest.approx(density)


def test_what_one_axis_does_by_itself_is_known_where_the_others_were_never_seen() -> None:
    """In a cross through the middle: away from it both moves were never made together."""
    line = np.linspace(0.0, 1.0, 7)
    x = np.concatenate([np.column_stack([line, np.full(7, 0.5)]), np.column_stack([np.full(7, 0.5), line])])
    y = np.sin(6.0 * x[:, 0]) + np.cos(5.0 * x[:, 1])
    none = np.zeros(2, dtype=bool)
    hyper = Hyperparameters.of(Evidence(x, y - y.mean(), none, Prior.for_axes(2)).fit())
    mean, _ = Posterior(x, y - y.mean(), np.full(14, hyper.noise), hyper, none).predict(np.array([[0.1, 0.9]]))
    assert mean[0] + y.mean() == pytest.approx(math.sin(0.6) + math.cos(4.5), abs=0.15)


def test_draws_without_much_data_are_those_of_the_prior() -> None:
    prior = Prior.for_axes(1)
    evidence = Evidence(np.full((1, 1), 0.5), np.zeros(1), np.zeros(1, dtype=bool), prior)
    draws = np.array(evidence.draw(evidence.centre, 1500, 1, np.random.default_rng(0)))
    # One value tells nothing of the length.
    assert draws[:, 0].mean() == pytest.approx(prior.length[0], abs=0.15)
    assert draws[:, 0].std() == pytest.approx(prior.length[1], rel=0.15)


def test_the_posterior_meets_the_data_and_knows_nothing_far_away(posterior: Posterior) -> None:
    mean, deviation = posterior.predict(posterior.x)
    assert np.abs(mean - posterior.y).max() < 0.4
    assert deviation.max() < 0.2
    mean, deviation = posterior.predict(np.full((1, AXES), 1e6))
    assert mean == pytest.approx(0.1)
    assert deviation == pytest.approx(math.sqrt(math.exp(0.2) + math.exp(-1.0)))


@pytest.mark.parametrize("kind", ["improvement", "mean", "weighed"])
def test_the_slopes_of_what_is_maximised(kind: str, posterior: Posterior) -> None:
    improvement = ExpectedImprovement(posterior, np.array([1.0, 2.5]))
    acquisition = {
        "improvement": lambda: improvement,
        "mean": lambda: Mean([improvement, ExpectedImprovement(posterior, np.array([0.2, 0.3]))]),
        "weighed": lambda: Failures(Cube(Space(CUBE.parameters)), posterior.x, posterior.x[:4] * 0.9).weighed(
            improvement
        ),
    }[kind]()
    for at in np.random.default_rng(3).random((5, 1, AXES)):
        value, slopes = acquisition.slopes(at)
        assert value == pytest.approx(acquisition.values(at))
        numeric = optimize.approx_fprime(at[0], lambda point: acquisition.values(point[None])[0], 1e-6)
        assert slopes[0] == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_the_logarithm_of_the_improvement() -> None:
    z = np.array([-30.0, -5.0, -1.0, 0.0, 1.0, 4.9, 5.1, 30.0])
    log_h, slope = log_improvement(z)
    near = np.abs(z) < 6
    expected = np.log(stats.norm.pdf(z) + z * stats.norm.cdf(z), where=near, out=np.zeros(8))
    assert log_h[near] == pytest.approx(expected[near], abs=1e-6)
    # Abramowitz and Stegun 26.2.12: φ(z)/z² far below.
    assert log_h[0] == pytest.approx(stats.norm.logpdf(30) - 2 * math.log(30), abs=0.01)
    assert (np.diff(log_h) > 0).all() and (slope > 0).all()
    far, _ = log_improvement(np.array([-1e6, -1e3 - 1, -1e3 + 1]))
    assert np.isfinite(far).all() and (np.diff(far) > 0).all()


def test_warping_keeps_the_order_and_draws_outliers_in() -> None:
    scores = np.array([-1e12, 0.1, 0.5, 0.4, 0.45, -7.0])
    warped = warp(scores)
    assert np.argsort(warped).tolist() == np.argsort(scores).tolist()
    assert np.abs(warped).max() < 3
    assert warp(np.array([5.0, 5.0])).tolist() == [0.0, 0.0]
    assert np.isfinite(warp(np.array([1e308, -1e308, 1e308]))).all()


def tune(trials: int, *, fails_above: float = 2.0) -> list[Tried]:
    """The optimum lies at (0.2, 0.7, 0.4)."""
    tried: list[Tried] = []
    for number in range(1, trials + 1):
        designer = GaussianProcessBandit(Problem(Space(CUBE.parameters), 1, 5))
        designer.update(tried)
        (point,) = designer.suggest(number, 1)
        x = np.array([point[f"x{axis}"] for axis in range(AXES)], dtype=float)
        score = -float(((x - [0.2, 0.7, 0.4]) ** 2).sum())
        tried.append(Tried(number, point, None if x[0] > fails_above else (score,)))
    return tried


def test_a_bowl_is_found_in_few_trials() -> None:
    assert max(trial.scores[0] for trial in tune(20) if trial.scores) > -1e-3


def test_where_trials_fail_fewer_are_made() -> None:
    tried = tune(24, fails_above=0.5)
    assert sum(trial.failed for trial in tried[14:]) <= 3
    assert max(trial.scores[0] for trial in tried if trial.scores) > -0.01


@pytest.mark.parametrize("trials", [100, 1200])
def test_a_suggestion_is_quick_however_many_trials_there_are(trials: int) -> None:
    rng = np.random.default_rng(0)
    points = rng.random((trials, AXES))
    tried = [
        Tried(number, {f"x{axis}": float(x[axis]) for axis in range(AXES)}, (-float((x**2).sum()),))
        for number, x in enumerate(points, 1)
    ]
    designer = GaussianProcessBandit(Problem(Space(CUBE.parameters), 1, 5))
    designer.update(tried)
    start = time.process_time()
    designer.suggest(trials + 1, 1)
    # Far above what is measured, since machines differ; with all trials in the model it would be minutes.
    assert time.process_time() - start < 10.0


def test_the_engine_starts_without_numpy() -> None:
    script = "import sys, enginehouse.main; sys.exit(bool({'numpy', 'scipy', 'optuna'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)
