"""Makes models for test_pytorch.py; run by the interpreter of a runtime, with a directory to write into."""

import json
import sys
from pathlib import Path

import torch

folder = Path(sys.argv[1])
generator = torch.manual_seed(0)


class Scores(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.layer(x), 1)


class Named(torch.nn.Module):
    def forward(self, words: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"total": words.sum(1) * weight, "words": words}


def place(name: str) -> Path:
    directory = folder / name
    directory.mkdir()
    return directory


rows = torch.export.Dim("rows", min=1)
program = torch.export.export(Scores(), (torch.zeros(3, 4),), dynamic_shapes=({0: rows},))
torch.export.save(program, place("exported") / "model.pt2")
torch.jit.save(torch.jit.script(Scores()), place("script") / "model.pt")
named = place("named")
torch.jit.save(torch.jit.script(Named()), named / "model.pt")
inputs = {"words": {"dtype": "int64", "shape": [None, 2]}, "weight": {"dtype": "float32", "shape": [None]}}
(named / "signature.json").write_text(json.dumps({"inputs": inputs}))
torch.jit.save(torch.jit.script(Named()), place("unnamed") / "model.pt")
