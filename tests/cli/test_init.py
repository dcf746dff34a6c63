"""The project that `mle init` writes."""

from __future__ import annotations

import csv
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginehouse.cli.init import FRAMEWORKS, read_iris, split
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.sdk.packaging import check_package

Mle = Callable[..., Any]
HEADER = ["sepal_length", "sepal_width", "petal_length", "petal_width", "class"]


@pytest.fixture(params=FRAMEWORKS)
def project(request: pytest.FixtureRequest, mle: Mle, tmp_path: Path) -> Path:
    folder = tmp_path / request.param
    result = mle("init", folder, "--framework", request.param)
    assert result.code == 0
    assert str(folder / "README.md") in result.err
    return folder


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_the_shipped_rows_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_iris

    iris = load_iris()
    header, shipped = read_iris()
    assert header == HEADER
    assert [[float(text) for text in row[:-1]] for row in shipped] == iris.data.tolist()
    assert [row[-1] for row in shipped] == [str(iris.target_names[number]) for number in iris.target]


def test_the_split_shares_every_row_out_once_and_always_alike() -> None:
    _, all_rows = read_iris()
    files = split(all_rows)
    shared = [tuple(row) for part in files.values() for row in part]
    assert Counter(shared) == Counter(tuple(row) for row in all_rows)
    assert {name: Counter(row[-1] for row in part) for name, part in files.items()} == {
        "train_data.csv": {"setosa": 30, "versicolor": 30, "virginica": 30},
        "test_data.csv": {"setosa": 10, "versicolor": 10, "virginica": 10},
        "hold_out_test.csv": {"setosa": 10, "versicolor": 10, "virginica": 10},
    }
    assert split(all_rows) == files
    assert files["hold_out_test.csv"][:2] == [
        ["6.5", "3.0", "5.2", "2.0", "virginica"],
        ["5.5", "2.6", "4.4", "1.2", "versicolor"],
    ], "another split than before"


def test_files(project: Path) -> None:
    names = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    expected = {
        "README.md",
        "hold_out_test.csv",
        "scripts/create-prediction-service.sh",
        "scripts/online-prediction.sh",
        "scripts/single-instance-training.sh",
        "test-sample.json",
        "test_data.csv",
        "train_data.csv",
        "trainer/__init__.py",
        "trainer/model.py",
    }
    more = {
        "tensorflow": {"trainer/task.py", "hptuning_config.yaml", "scripts/hyper-tune.sh"},
        "tensorflow1": {
            "trainer/task.py",
            "hptuning_config.yaml",
            "gpu_hptuning_config.yaml",
            "scripts/distributed-training.sh",
            "scripts/hyper-tune.sh",
            "scripts/gpu-hyper-tune.sh",
            "scripts/run-batch-predictions.sh",
        },
    }
    assert names == expected | more.get(project.name, {"config.yaml"})
    assert [rows(project / name)[0] for name in sorted(names) if name.endswith(".csv")] == [HEADER] * 3
    for name in names:
        if name.endswith(".yaml"):
            assert isinstance(yaml.safe_load((project / name).read_text()), dict)


def test_the_package_is_one(project: Path) -> None:
    check_package(project / "trainer", "trainer.task" if project.name.startswith("tensorflow") else "trainer.model")
    for path in (project / "trainer").glob("*.py"):
        compile(path.read_text(), str(path), "exec")


def test_scripts_are_sound_and_name_known_runtimes(project: Path) -> None:
    known = Catalogue.load().names()
    for script in sorted((project / "scripts").iterdir()):
        assert script.stat().st_mode & 0o111
        subprocess.run(["bash", "-n", script], check=True)
    texts = [path.read_text() for path in project.rglob("*") if path.suffix in (".sh", ".md", ".yaml")]
    named = {
        text.split()[0].strip("'\"")
        for whole in texts
        for key in ("--runtime-version ", "runtimeVersion: ")
        for text in whole.split(key)[1:]
    }
    assert named
    assert named <= set(known)


def test_the_samples_are_one_of_each_class_in_the_models_own_form(project: Path) -> None:
    lines = [json.loads(line) for line in (project / "test-sample.json").read_text().splitlines()]
    truth = {tuple(row[:-1]): row[-1] for row in rows(project / "hold_out_test.csv")[1:]}
    if project.name == "tensorflow1":
        lines = [line.split(",")[:-1] for line in lines]
    values = [tuple(str(value) for value in (line.values() if isinstance(line, dict) else line)) for line in lines]
    assert [truth[value] for value in values] == ["setosa", "versicolor", "virginica"]
    assert isinstance(lines[0], dict) is (project.name == "tensorflow")


def test_an_existing_folder_is_left_alone(mle: Mle, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("x")
    result = mle("init", tmp_path / "there")
    assert result.code == 1
    assert "ALREADY_EXISTS" in result.err
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]
    assert mle("init", tmp_path / "x", "--framework", "torch").code == 2
