"""The decisions of a study: which parameters to try next, and whether a trial is worth going on with.

In come a study and all its trials as they are stored, out come decisions with their reasons; a policy changes
nothing. Called by `tuning.service`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.schemas.optimizer import StudyConfig, TrialParameter


@dataclass(frozen=True)
class StopDecision:
    """Whether a trial should stop; `reason` is for its owner."""

    stop: bool
    reason: str


class Policy(Protocol):
    """How a study decides. Safe to call from any thread, for one study by one thread at a time.

    The same study with the same trials gives the same suggestions, also after a restart.
    """

    def check(self, config: StudyConfig) -> None:
        """Judge whether studies of this configuration, which is a valid one, can be decided on.

        Raises:
            FailedPrecondition: naming what is not available.
        """
        ...

    def suggest(
        self, study: StudyRecord, trials: Sequence[TrialRecord], count: int
    ) -> Sequence[Sequence[TrialParameter]]:
        """Parameters for `count` trials; fewer only when the search space is exhausted.

        Args:
            trials: all of the study, those that go on among them, by id.
        """
        ...

    def should_stop(self, study: StudyRecord, trials: Sequence[TrialRecord], trial: TrialRecord) -> StopDecision:
        """Judge a trial that goes on by its measurements and those of the others."""
        ...
