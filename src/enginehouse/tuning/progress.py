"""How far a tuning job is, beyond what its study and its trials' own records tell; stored with the job as JSON.

Each entry is written in the transaction that adds its line to the job's log, so that a line is written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Progress:
    """See the module.

    Attributes:
        told: ids of the trials whose end the job's log tells of, in the order of their ends.
        failed: those of `told` that failed.
        stopped: id of a trial that was stopped before its end → why.
        warned: what the job's owner was told once and for all.
        ending: how the job will end once no trial of it is left; empty while that is open.
        error_message: of a job that ends FAILED.
    """

    told: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    stopped: Mapping[str, str] = field(default_factory=dict)
    warned: tuple[str, ...] = ()
    ending: Literal["", "SUCCEEDED", "FAILED"] = ""
    error_message: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        lists = {key: tuple(value[key]) for key in ("told", "failed", "warned") if key in value}
        return cls(**{**value, **lists})
