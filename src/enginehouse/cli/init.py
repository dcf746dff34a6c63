"""`mle init`: write a project that trains and predicts as it is.

In: a name and a framework. Out: a folder made of `templates/FRAMEWORK`, with the Iris data split three ways, the same
on every machine, by a seeded shuffle of each class.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

import click

from enginehouse.cli.base import Command
from enginehouse.cli.invocation import Invocation, pass_invocation

TEMPLATES = Path(__file__).parent / "templates"
FRAMEWORKS = ("tensorflow", "tensorflow1", "sklearn", "xgboost")
SPLIT = {"train_data.csv": 30, "test_data.csv": 10, "hold_out_test.csv": 10}
"""Rows of each class in each file."""
_SEED = 1

Row = list[str]


@click.command(cls=Command, examples="mle init iris --framework tensorflow\nmle init flowers --framework sklearn")
@click.argument("name")
@click.option(
    "--framework",
    type=click.Choice(FRAMEWORKS),
    default="tensorflow",
    show_default=True,
    help="What the trainer is written with.",
)
@pass_invocation
def init(invocation: Invocation, name: str, framework: str) -> None:
    """Write a new project into the folder NAME: trainer, scripts, data, README."""
    from enginehouse.core.errors import AlreadyExists

    folder = Path(name).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists(f"{folder} exists already; name a folder that does not.")
    write_project(folder, framework)
    invocation.say(f"Wrote the project {folder}. What to do next is in {folder / 'README.md'}.")


def write_project(folder: Path, framework: str) -> None:
    """Write the project of one framework into a new or empty folder."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(TEMPLATES / framework, folder, dirs_exist_ok=True, ignore=ignore)
    for script in (folder / "scripts").iterdir():
        script.chmod(0o755)  # an installation may have lost the mode
    header, rows = read_iris()
    files = split(rows)
    for name, part in files.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *part])
    samples = [_first_of_class(files["hold_out_test.csv"], species) for species in sorted({row[-1] for row in rows})]
    lines = [json.dumps(_instance(framework, header, row)) for row in samples]
    (folder / "test-sample.json").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_iris() -> tuple[Row, list[Row]]:
    """The header and the 150 rows that `tools/make_iris.py` wrote."""
    with (TEMPLATES / "iris.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows


def split(rows: list[Row]) -> dict[str, list[Row]]:
    """Share the rows out as SPLIT says, each class alike, in an order that mixes the classes."""
    generator = random.Random(_SEED)
    files: dict[str, list[Row]] = {name: [] for name in SPLIT}
    for species in sorted({row[-1] for row in rows}):
        of_class = [row for row in rows if row[-1] == species]
        generator.shuffle(of_class)
        start = 0
        for name, count in SPLIT.items():
            files[name] += of_class[start : start + count]
            start += count
    for part in files.values():
        generator.shuffle(part)
    return files


def _first_of_class(rows: list[Row], species: str) -> Row:
    return next(row for row in rows if row[-1] == species)


def _instance(framework: str, header: Row, row: Row) -> object:
    """A row as the framework's model takes it: by name, as a line of CSV without the species, or as a list."""
    if framework == "tensorflow1":
        return ",".join([*row[:-1], ""])
    values = [float(text) for text in row[:-1]]
    return dict(zip(header[:-1], values, strict=True)) if framework == "tensorflow" else values
