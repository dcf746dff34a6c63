"""Every algorithm under the contract."""

import pytest

from enginehouse.core.errors import FailedPrecondition
from enginehouse.jobs import hyperparameters
from enginehouse.schemas.ml_v1 import HyperparameterSpec
from enginehouse.testing.designers import DesignerContract
from enginehouse.tuning.algorithms.catalogue import check_algorithm


class TestRandomSearch(DesignerContract):
    algorithm = "RANDOM_SEARCH"


class TestGridSearch(DesignerContract):
    algorithm = "GRID_SEARCH"
    finite_only = True


class TestQuasiRandomSearch(DesignerContract):
    algorithm = "QUASI_RANDOM_SEARCH"


class TestGaussianProcessBandit(DesignerContract):
    algorithm = "GAUSSIAN_PROCESS_BANDIT"


class TestAuto(DesignerContract):
    algorithm = "AUTO"


class TestTpe(DesignerContract):
    algorithm = "TPE"


class TestCmaEs(DesignerContract):
    algorithm = "CMA_ES"
    several_metrics = False


def test_who_lacks_the_extra_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hyperparameters, "find_spec", lambda module: None)
    with pytest.raises(FailedPrecondition, match=r"pip install 'enginehouse\[optuna\]'"):
        check_algorithm("TPE", field="algorithm")
    check_algorithm("RANDOM_SEARCH", field="algorithm")
    faults = dict(hyperparameters.faults(HyperparameterSpec(algorithm="CMA_ES")))
    assert "needs cmaes" in faults["algorithm"]
