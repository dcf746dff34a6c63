"""Run by test_batch_jobs.py in a runtime with pandas: tables give what their lines give one by one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from enginehouse.batch import run
from enginehouse.batch.read import Block
from enginehouse.batch.split import Piece
from enginehouse.modelserver.adapters.base import Call
from enginehouse.modelserver.adapters.tables import SIGNATURE, prepare_table

PIECE = Piece("b", "in.csv", "1", 0, 10**9, 10**9)
NUMBERS = ["0.1758", "-3", "+1.5", ".5", "5.", "1E5", "4.9e-324", "123456789012345678", " 2.5 ", "-inf"]
BLANKS = ["", " "]
OTHERS = ["nan", "1e999", "x", '"1"', "1_0", "0x1", "true", "NA", "null", "é", "1\x002", "1 2", "1\r2", "#"]
LINES = ["", "  ", "1", "1,2", "1,2,3,4", "1,2,3,", ",,", "[1,2,3]", '{"a":1}', "1;2;3"]


class Rows:
    """A model of three columns that tells what it got."""

    def __init__(self, names: list[str] | None) -> None:
        self._names = names
        self.n_tables = 0

    def takes_text(self, signature_name: str) -> bool:
        return False

    def input_names(self, signature_name: str) -> list[str] | None:
        return self._names

    def prepare_rows(self, table: Any, signature_name: str, *, named: bool) -> Call | None:
        if table.shape[1] != 3:
            return None
        self.n_tables += 1
        return Call(SIGNATURE, (table,), len(table), None)

    def prepare(self, request: Mapping[str, Any]) -> Call:
        return prepare_table(request, self._names)

    def run(self, call: Call) -> list[Any]:
        table = call.arrays[0]
        if table.shape[1:] != (3,):
            raise ValueError("three numbers are wanted")
        return list(map(repr, table.astype(np.float64).tolist()))


def predict(blocks: list[bytes], header: bytes, names: list[str] | None) -> tuple[list[bytes], list[Any], int]:
    """The lines, the errors, and how often the model was given a table."""
    model: Any = Rows(names)
    predictor = run.Predictor(model, data_format="CSV", batch_rows=7)
    results = [predictor.predict(Block(PIECE, 1000 * n, data), header) for n, data in enumerate(blocks)]
    return (
        b"".join(line for each in results for line in each.lines).splitlines(),
        [error for each in results for error in each.errors],
        model.n_tables,
    )


def main() -> None:
    """Each odd cell and line first, in the middle and last in a block between two others, with and without names."""
    pandas = run.pandas
    generator = np.random.default_rng(0)
    rows = [",".join(generator.choice(NUMBERS, 3)) for _ in range(10)]
    odd = [
        *LINES,
        *(",".join([*"12"[:at], cell, *"12"[at:]]) for cell in NUMBERS + BLANKS + OTHERS for at in range(3)),
    ]
    n_tables = 0
    for end in ("\n", "\r\n"):
        for line in odd:
            for place in (0, 5, 10):
                mixed = [*rows[:place], line, *rows[place:]]
                for before, header, names in (("", "", None), ("w,", "w,b,a,c", ["a", "b", "c"])):
                    blocks = [
                        "".join(before + each + end for each in lines).encode() for lines in (rows, mixed, rows)
                    ]
                    run.pandas = pandas
                    *quick, n = predict(blocks, header.encode(), names)
                    n_tables += n
                    run.pandas = None
                    *plain, _ = predict(blocks, header.encode(), names)
                    assert quick == plain, (line, end, place, header, quick, plain)
    assert n_tables > 2 * 2 * 3 * len(odd), "most blocks are tables"


main()
