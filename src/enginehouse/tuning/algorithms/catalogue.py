"""Which algorithm is which: names of the API to designers.

Modules are imported when a study asks for them: numpy and scipy take a third of a second, and an engine that never
tunes should not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from enginehouse.core.errors import FailedPrecondition
from enginehouse.jobs.hyperparameters import lacking
from enginehouse.tuning.algorithms.base import Designer, Problem
from enginehouse.tuning.algorithms.grid_search import GridSearch
from enginehouse.tuning.algorithms.random_search import RandomSearch
from enginehouse.tuning.space import Space

DEFAULT = "GAUSSIAN_PROCESS_BANDIT"
AUTO_GRID_POINTS = 32
"""AUTO goes through all points of a space of at most this many."""

_HERE = "enginehouse.tuning.algorithms"
_ALGORITHMS: dict[str, Callable[[Problem], Designer]] = {
    "GAUSSIAN_PROCESS_BANDIT": lambda problem: _made("gaussian_process.designer", "GaussianProcessBandit", problem),
    "GRID_SEARCH": GridSearch,
    "RANDOM_SEARCH": RandomSearch,
    "QUASI_RANDOM_SEARCH": lambda problem: _made("quasi_random", "QuasiRandomSearch", problem),
    "TPE": lambda problem: _made("tpe", "TpeSearch", problem),
    "CMA_ES": lambda problem: _made("cma_es", "CmaEsSearch", problem),
}
ALGORITHMS = tuple(_ALGORITHMS)


def check_algorithm(name: str, *, field: str) -> None:
    """Judge whether an algorithm can be used here.

    Raises:
        FailedPrecondition: what it needs is not installed.
    """
    if said := lacking(name):
        raise FailedPrecondition(said, field=field)


def resolve(name: str, space: Space) -> str:
    """The algorithm that a name stands for.

    AUTO is GRID_SEARCH where the space is so small that a study can see all of it, else the default.
    """
    if name == "AUTO":
        return "GRID_SEARCH" if space.size() <= AUTO_GRID_POINTS else DEFAULT
    return DEFAULT if name == "ALGORITHM_UNSPECIFIED" else name


def designer_for(name: str, problem: Problem) -> Designer:
    """A designer of the algorithm of this name for one request."""
    return _ALGORITHMS[resolve(name, problem.space)](problem)


def _made(module: str, name: str, problem: Problem) -> Designer:
    designer: Designer = getattr(import_module(f"{_HERE}.{module}"), name)(problem)
    return designer
