"""The objectives of bench/tuning_quality.py. Needs numpy; the three real ones need scikit-learn to be tabled once.

An objective is a cost: less is better. `seed` makes an instance of it: where the optimum lies, how the axes are
turned. No optimum lies near the centre of its space, where some algorithms look first.

The real ones train on data that ships with scikit-learn, each setting of a grid once with cross-validation; between
the grid's settings the cost is interpolated linearly (in the parameter's scale), so a run costs nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

Values = Mapping[str, Any]
CENTRE_MARGIN = 0.15
"""How far optima stay from the centre on each axis, of a width of 1."""


@dataclass(frozen=True)
class Objective:
    """One instance.

    Attributes:
        parameters: as ml v1's StudyConfig has them.
        cost: without noise, of the values of the active parameters.
        best: the lowest cost that there is.
        noise: the deviation of what is measured, in units of (cost of a median random point - best).
    """

    parameters: list[dict[str, Any]]
    cost: Callable[[Values], float]
    best: float
    noise: float = 0.0

    def regret(self, cost: float, reference: float) -> float:
        """0 at the optimum, 1 at the median random point and beyond."""
        return min(max((cost - self.best) / (reference - self.best), 0.0), 1.0)

    def reference(self, seed: int) -> float:
        """The cost of the median random point."""
        rng = np.random.default_rng([seed, 77])
        return float(np.median([self.cost(draw(self.parameters, rng)) for _ in range(1001)]))


def draw(parameters: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    """A random point, uniform in each parameter's scale."""
    values: dict[str, Any] = {}
    for spec in parameters:
        value: Any
        if spec["type"] == "DOUBLE":
            low, high = spec["doubleValueSpec"]["minValue"], spec["doubleValueSpec"]["maxValue"]
            value = scaled(spec, low, high, rng.random())
        elif spec["type"] == "INTEGER":
            low, high = (int(spec["integerValueSpec"][end]) for end in ("minValue", "maxValue"))
            value = min(max(round(scaled(spec, low - 0.5, high + 0.5, rng.random())), low), high)
        else:
            listed = (spec.get("discreteValueSpec") or spec.get("categoricalValueSpec"))["values"]
            value = listed[rng.integers(len(listed))]
        values[spec["parameter"]] = value
        for child in spec.get("childParameterSpecs", ()):
            if value in child["parentCategoricalValues"]["values"]:
                values |= draw([child], rng)
    return values


def scaled(spec: dict[str, Any], low: float, high: float, u: float) -> float:
    """From [0, 1] to the range by the parameter's scale."""
    scale = spec.get("scaleType", "UNIT_LINEAR_SCALE")
    if scale == "UNIT_LOG_SCALE":
        return float(low * (high / low) ** u)
    if scale == "UNIT_REVERSE_LOG_SCALE":
        return float(low + high - low * (high / low) ** (1 - u))
    return float(low + (high - low) * u)


def unscaled(spec: dict[str, Any], value: float) -> float:
    """From a number of the range to [0, 1]."""
    if spec["type"] == "DISCRETE":
        listed = spec["discreteValueSpec"]["values"]
        return float(listed.index(value) / (len(listed) - 1))
    bounds = spec.get("doubleValueSpec") or spec["integerValueSpec"]
    low, high = float(bounds["minValue"]), float(bounds["maxValue"])
    scale = spec.get("scaleType", "UNIT_LINEAR_SCALE")
    if scale == "UNIT_LOG_SCALE":
        return math.log(value / low) / math.log(high / low)
    if scale == "UNIT_REVERSE_LOG_SCALE":
        return 1 - math.log((low + high - value) / low) / math.log(high / low)
    return (value - low) / (high - low)


def double(name: str, low: float, high: float, scale: str = "LINEAR") -> dict[str, Any]:
    bounds = {"minValue": low, "maxValue": high}
    return {"parameter": name, "type": "DOUBLE", "doubleValueSpec": bounds, "scaleType": f"UNIT_{scale}_SCALE"}


def integer(name: str, low: int, high: int, scale: str = "LINEAR") -> dict[str, Any]:
    bounds = {"minValue": str(low), "maxValue": str(high)}
    return {"parameter": name, "type": "INTEGER", "integerValueSpec": bounds, "scaleType": f"UNIT_{scale}_SCALE"}


def discrete(name: str, *values: float) -> dict[str, Any]:
    return {"parameter": name, "type": "DISCRETE", "discreteValueSpec": {"values": list(values)}}


def category(name: str, *values: str) -> dict[str, Any]:
    return {"parameter": name, "type": "CATEGORICAL", "categoricalValueSpec": {"values": list(values)}}


def off_centre(rng: np.random.Generator, count: int) -> np.ndarray:
    """Coordinates in [0.05, 0.95], none near 0.5."""
    sides = rng.choice([-1.0, 1.0], size=count)
    return np.asarray(0.5 + sides * rng.uniform(CENTRE_MARGIN, 0.45, size=count))


# --- of real vectors, after BBOB (Hansen et al., 2009) and the usual test functions ---

Function = Callable[[np.ndarray], float]


def shifted(function: Function, axes: int, seed: int, *, turned: bool, noise: float = 0.0) -> Objective:
    """`function` has its minimum, 0, at 0; z = Q (x - x_opt), for x in [-5, 5]^axes."""
    rng = np.random.default_rng([seed, axes])
    optimum = 10 * off_centre(rng, axes) - 5
    turn = np.linalg.qr(rng.normal(size=(axes, axes)))[0] if turned else np.eye(axes)

    def cost(values: Values) -> float:
        x = np.array([values[f"x{index}"] for index in range(axes)])
        return function(turn @ (x - optimum))

    return Objective([double(f"x{index}", -5.0, 5.0) for index in range(axes)], cost, 0.0, noise)


def sphere(z: np.ndarray) -> float:
    return float(z @ z)


def ellipsoid(z: np.ndarray) -> float:
    return float((100.0 ** np.linspace(0, 1, len(z))) @ (z * z))


def rosenbrock(z: np.ndarray) -> float:
    y = z + 1.0
    return float(np.sum(100.0 * (y[1:] - y[:-1] ** 2) ** 2 + (1.0 - y[:-1]) ** 2))


def rastrigin(z: np.ndarray) -> float:
    return float(10.0 * (len(z) - np.cos(2.0 * math.pi * z / 2.5).sum()) + z @ z * 4.0)


def ackley(z: np.ndarray) -> float:
    n = len(z)
    return float(
        20.0 - 20.0 * np.exp(-0.2 * math.sqrt(z @ z / n)) + math.e - np.exp(np.cos(2.0 * math.pi * z / 2.0).sum() / n)
    )


def levy(z: np.ndarray) -> float:
    w = 1.0 + z / 4.0
    middle = ((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)).sum()
    # The sine of the middle is not 0 at the optimum, but it is multiplied by 0 there.
    return float(np.sin(math.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + np.sin(2 * math.pi * w[-1]) ** 2))


def different_powers(z: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.abs(z) ** (2.0 + 4.0 * np.linspace(0, 1, len(z))))))


def styblinski(z: np.ndarray) -> float:
    x = z - 2.903534
    return float(0.5 * np.sum(x**4 - 16 * x**2 + 5 * x) + 39.16616570377142 * len(z))


def hartmann(axes: int, seed: int, *, noise: float = 0.0) -> Objective:
    """Hartmann's function, with axes in another order and mirrored; its optimum lies off the centre by itself."""
    rng = np.random.default_rng([seed, axes, 5])
    order, flipped = rng.permutation(axes), rng.random(axes) < 0.5
    alpha = np.array([1.0, 1.2, 3.0, 3.2])
    if axes == 3:
        a = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
        p = np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]) * 1e-4
        best = -3.862779787332660
    else:
        a = np.array(
            [
                [10, 3, 17, 3.5, 1.7, 8],
                [0.05, 10, 17, 0.1, 8, 14],
                [3, 3.5, 1.7, 10, 17, 8],
                [17, 8, 0.05, 10, 0.1, 14],
            ]
        )
        p = 1e-4 * np.array(
            [
                [1312, 1696, 5569, 124, 8283, 5886],
                [2329, 4135, 8307, 3736, 1004, 9991],
                [2348, 1451, 3522, 2883, 3047, 6650],
                [4047, 8828, 8732, 5743, 1091, 381],
            ]
        )
        best = -3.322368011415515

    def cost(values: Values) -> float:
        u = np.array([values[f"x{index}"] for index in range(axes)])[order]
        u = np.where(flipped, 1 - u, u)
        return float(-alpha @ np.exp(-(a * (u - p) ** 2).sum(axis=1)))

    return Objective([double(f"x{index}", 0.0, 1.0) for index in range(axes)], cost, best, noise)


def branin(seed: int) -> Objective:
    rng = np.random.default_rng([seed, 2, 9])
    flip_a, flip_b = rng.random(2) < 0.5

    def cost(values: Values) -> float:
        u, v = (1 - values["x0"] if flip_a else values["x0"]), (1 - values["x1"] if flip_b else values["x1"])
        x, y = 15 * u - 5, 15 * v
        bend = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
        return float(bend**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)

    return Objective([double("x0", 0.0, 1.0), double("x1", 0.0, 1.0)], cost, 0.39788735772973816)


def schwefel(seed: int) -> Objective:
    """Its second best valley is far from the best."""
    rng = np.random.default_rng([seed, 3, 4])
    flipped = rng.random(3) < 0.5

    def cost(values: Values) -> float:
        x = np.array([values[f"x{index}"] for index in range(3)])
        x = np.where(flipped, -x, x)
        return float(418.9828872724338 * 3 - (x * np.sin(np.sqrt(np.abs(x)))).sum())

    return Objective([double(f"x{index}", -500.0, 500.0) for index in range(3)], cost, 0.0)


# --- of several types ---


def mixed_network(seed: int) -> Objective:
    """How a network's loss tends to depend on its settings; each optimizer has a learning rate of its own."""
    rng = np.random.default_rng([seed, 11])
    parameters = [
        double("learning_rate", 1e-5, 1.0, "LOG"),
        double("momentum", 0.5, 0.999, "REVERSE_LOG"),
        double("dropout", 0.0, 0.8),
        integer("layers", 1, 8),
        discrete("batch_size", 16, 32, 64, 128, 256, 512),
        category("optimizer", "sgd", "adam", "ftrl", "rmsprop"),
    ]
    best_layers, best_batch = int(rng.choice([2, 3, 6, 7])), int(rng.integers(6))
    rate, momentum, dropout = off_centre(rng, 3)
    names = parameters[-1]["categoricalValueSpec"]["values"]
    ranks = rng.permutation(4)
    moved = dict(zip(names, rng.uniform(-0.2, 0.2, 4), strict=True))
    worse = dict(zip(names, 0.06 * ranks, strict=True))
    winner = names[int(np.argmin(ranks))]

    def cost(values: Values) -> float:
        u = unscaled(parameters[0], values["learning_rate"]) - rate - (moved[values["optimizer"]] - moved[winner])
        v = unscaled(parameters[1], values["momentum"]) - momentum
        w = values["dropout"] / 0.8 - dropout
        n = (values["layers"] - best_layers) / 7
        b = unscaled(parameters[4], values["batch_size"]) - best_batch / 5
        valley = 1 - math.exp(-8 * (u - 0.3 * b) ** 2)
        return valley + 0.3 * v * v + 0.2 * w * w + 0.4 * n * n + 0.1 * b * b + worse[values["optimizer"]]

    return Objective(parameters, cost, 0.0)


def mixed_categories(seed: int) -> Objective:
    """Three categories that work together in pairs, two whole numbers, one real one."""
    rng = np.random.default_rng([seed, 12])
    parameters = [
        category("a", *"pqrst"),
        category("b", *"pqrs"),
        category("c", *"pqr"),
        integer("n", 1, 30),
        integer("m", 1, 1000, "LOG"),
        double("x", -1.0, 1.0),
    ]
    own_a, own_b, own_c = rng.uniform(0, 0.5, 5), rng.uniform(0, 0.5, 4), rng.uniform(0, 0.5, 3)
    pair = rng.uniform(0, 0.6, (5, 4))
    ats = off_centre(rng, 3)
    total = own_a[:, None, None] + own_b[None, :, None] + own_c[None, None, :] + pair[:, :, None]
    lowest = float(total.min())
    n_best, m_best = round(1 + 29 * ats[0]), max(round(1000 ** ats[1]), 1)

    def cost(values: Values) -> float:
        i, j, k = "pqrst".index(values["a"]), "pqrs".index(values["b"]), "pqr".index(values["c"])
        n = (values["n"] - n_best) / 29
        m = (math.log(values["m"]) - math.log(m_best)) / math.log(1000)
        x = (values["x"] + 1) / 2 - ats[2]
        return float(total[i, j, k]) - lowest + n * n + m * m + x * x * (1 + i)

    return Objective(parameters, cost, 0.0)


def conditional_models(seed: int) -> Objective:
    """Three kinds of models, each with parameters of its own."""
    rng = np.random.default_rng([seed, 13])
    specs = {
        "linear": [double("c", 1e-4, 1e4, "LOG")],
        "tree": [integer("depth", 1, 20), integer("leaf", 1, 100, "LOG")],
        "network": [
            double("rate", 1e-5, 1.0, "LOG"),
            integer("width", 8, 1024, "LOG"),
            category("act", "a", "b", "c"),
        ],
    }
    children = [
        {**spec, "parentCategoricalValues": {"values": [kind]}} for kind, group in specs.items() for spec in group
    ]
    model = {**category("model", *specs), "childParameterSpecs": children}
    shared = double("fraction", 0.1, 1.0)
    at = off_centre(rng, 6)
    floors = dict(zip(specs, rng.permutation([0.0, 0.08, 0.2]), strict=True))
    depth, width, act = round(1 + 19 * at[1]), round(8 * 128 ** at[4]), str(rng.choice(["a", "b", "c"]))
    leaf = max(round(100 ** at[2]), 1)

    def cost(values: Values) -> float:
        kind = values["model"]
        total = floors[kind] + 0.3 * (values["fraction"] / 0.9 - 0.1 / 0.9 - at[5]) ** 2
        if kind == "linear":
            u = unscaled(specs["linear"][0], values["c"]) - at[0]
            return float(total + 1 - math.exp(-6 * u * u))
        if kind == "tree":
            u, v = (values["depth"] - depth) / 19, math.log(values["leaf"] / leaf) / math.log(100)
            return float(total + u * u + 0.5 * v * v + 0.5 * abs(u * v))
        u = unscaled(specs["network"][0], values["rate"]) - at[3]
        v = math.log(values["width"] / width) / math.log(128)
        return float(total + 1 - math.exp(-10 * u * u) + 0.3 * v * v + 0.15 * (values["act"] != act))

    return Objective([model, shared], cost, 0.0)


# --- real ones ---


@dataclass(frozen=True)
class Table:
    """Costs on a grid of settings.

    Attributes:
        grid: the settings of each parameter, in the order of `parameters`.
    """

    parameters: list[dict[str, Any]]
    grid: list[list[Any]]
    measure: Callable[[tuple[Any, ...]], Mapping[Any, float] | float]

    def fill(self) -> np.ndarray:
        """Train all. The last axis may come from one training, as the stages of boosting do."""
        *outer, last = self.grid
        costs = np.empty([len(axis) for axis in self.grid])
        for places in product(*(range(len(axis)) for axis in outer)):
            setting = tuple(axis[place] for axis, place in zip(outer, places, strict=True))
            found = self.measure(setting)
            assert isinstance(found, Mapping)
            costs[places] = [found[value] for value in last]
        return costs


def svc_table() -> Table:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)
    x, y = x[:700] / 16.0, y[:700]
    parameters = [
        double("c", 1e-3, 1e3, "LOG"),
        double("gamma", 1e-5, 10.0, "LOG"),
        category("kernel", "rbf", "poly", "sigmoid"),
    ]
    kernels = parameters[2]["categoricalValueSpec"]["values"]

    def measure(setting: tuple[Any, ...]) -> Mapping[Any, float]:
        c, gamma = setting
        return {
            kernel: 1 - float(cross_val_score(SVC(C=c, gamma=gamma, kernel=kernel), x, y, cv=3).mean())
            for kernel in kernels
        }

    return Table(parameters, [list(np.geomspace(1e-3, 1e3, 13)), list(np.geomspace(1e-5, 10, 13)), kernels], measure)


def boosting_table() -> Table:
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.model_selection import KFold

    x, y = load_diabetes(return_X_y=True)
    parameters = [
        double("learning_rate", 0.005, 1.0, "LOG"),
        integer("max_depth", 1, 8),
        double("subsample", 0.2, 1.0),
        double("max_features", 0.1, 1.0),
        integer("n_estimators", 5, 150, "LOG"),
    ]
    stages = [5, 10, 20, 40, 70, 110, 150]

    def measure(setting: tuple[Any, ...]) -> Mapping[Any, float]:
        rate, depth, subsample, features = setting
        errors = np.zeros(150)
        for train, test in KFold(3, shuffle=True, random_state=0).split(x):
            model = GradientBoostingRegressor(
                learning_rate=rate, max_depth=depth, subsample=subsample, max_features=features, n_estimators=150,
                random_state=0,
            )  # fmt: skip
            model.fit(x[train], y[train])
            errors += [float(np.mean((y[test] - guess) ** 2)) for guess in model.staged_predict(x[test])]
        return {stage: float(errors[stage - 1] / 3) for stage in stages}

    grid = [list(np.geomspace(0.005, 1, 7)), [1, 2, 4, 8], [0.2, 0.6, 1.0], [0.1, 1.0], stages]
    return Table(parameters, grid, measure)


def network_table() -> Table:
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    x = x / 16.0
    parameters = [
        double("learning_rate", 1e-4, 0.3, "LOG"),
        double("alpha", 1e-6, 1.0, "LOG"),
        integer("units", 4, 128, "LOG"),
        discrete("batch_size", 16, 32, 64, 128),
        category("activation", "relu", "tanh"),
    ]

    def measure(setting: tuple[Any, ...]) -> Mapping[Any, float]:
        import warnings

        rate, alpha, units, batch = setting
        losses = {}
        for activation in ("relu", "tanh"):
            model = MLPClassifier(
                (units,), learning_rate_init=rate, alpha=alpha, batch_size=int(batch), activation=activation,
                max_iter=8, random_state=0,
            )  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(x[:600], y[:600])
            chances = np.clip(model.predict_proba(x[600:])[np.arange(len(x) - 600), y[600:]], 1e-9, 1)
            losses[activation] = float(min(-np.log(chances).mean(), 4.0))
        return losses

    grid = [
        list(np.geomspace(1e-4, 0.3, 8)),
        list(np.geomspace(1e-6, 1, 3)),
        [4, 12, 40, 128],
        [16, 32, 64, 128],
        ["relu", "tanh"],
    ]
    return Table(parameters, grid, measure)


TABLES: dict[str, Callable[[], Table]] = {"svc": svc_table, "boosting": boosting_table, "network": network_table}


def fill_tables(cache_dir: Path) -> None:
    """Train what is not in the cache yet; some minutes."""
    for name, table in TABLES.items():
        path = cache_dir / f"table-{name}.json"
        if not path.exists():
            made = table()
            grid = [[float(value) if isinstance(value, float) else value for value in axis] for axis in made.grid]
            content = {"parameters": made.parameters, "grid": grid, "costs": made.fill().tolist()}
            path.write_text(json.dumps(content), encoding="utf-8")


@cache
def _tabled(path: Path) -> Objective:
    content = json.loads(path.read_text(encoding="utf-8"))
    parameters, costs = content["parameters"], np.array(content["costs"])
    axes = [
        None if spec["type"] == "CATEGORICAL" else np.array([unscaled(spec, value) for value in axis])
        for spec, axis in zip(parameters, content["grid"], strict=True)
    ]

    def cost(values: Values) -> float:
        at = costs
        for spec, axis, settings in zip(parameters, axes, content["grid"], strict=True):
            value = values[spec["parameter"]]
            if axis is None:
                at = at[settings.index(value)]
                continue
            u = unscaled(spec, value)
            upper = min(max(int(np.searchsorted(axis, u)), 1), len(axis) - 1)
            share = min(max((u - axis[upper - 1]) / (axis[upper] - axis[upper - 1]), 0.0), 1.0)
            at = (1 - share) * at[upper - 1] + share * at[upper]
        return float(at)

    return Objective(parameters, cost, float(costs.min()))


def tabled(name: str, cache_dir: Path, seed: int = 0) -> Objective:
    """The same for all seeds, which only make the algorithms' own draws differ."""
    return _tabled(cache_dir / f"table-{name}.json")


def objectives(cache_dir: Path) -> dict[str, Callable[[int], Objective]]:
    """All, by name; each makes the instance of a seed."""
    return {
        "branin 2d": branin,
        "rastrigin 3d": partial(shifted, rastrigin, 3, turned=False),
        "schwefel 3d": schwefel,
        "ellipsoid 4d, turned": partial(shifted, ellipsoid, 4, turned=True),
        "rosenbrock 4d": partial(shifted, rosenbrock, 4, turned=False),
        "styblinski-tang 5d": partial(shifted, styblinski, 5, turned=False),
        "ackley 6d, turned": partial(shifted, ackley, 6, turned=True),
        "hartmann 6d": partial(hartmann, 6),
        "different powers 8d, turned": partial(shifted, different_powers, 8, turned=True),
        "levy 10d": partial(shifted, levy, 10, turned=False),
        "noisy hartmann 3d": partial(hartmann, 3, noise=0.1),
        "noisy sphere 5d": partial(shifted, sphere, 5, turned=False, noise=0.1),
        "mixed network": mixed_network,
        "mixed categories": mixed_categories,
        "conditional models": conditional_models,
        "SVC": partial(tabled, "svc", cache_dir),
        "gradient boosting": partial(tabled, "boosting", cache_dir),
        "small network": partial(tabled, "network", cache_dir),
    }
