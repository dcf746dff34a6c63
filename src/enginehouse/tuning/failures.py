"""When failed trials make their job fail, as a pure function.

With maxFailedTrials the job fails once so many trials have. Without it the service decides: a trial that fails before
any other has succeeded ends the job, as in the original, since most likely all would; after a success, several
failures in a row do. That number is ours, the original named none.
"""

from __future__ import annotations

from collections.abc import Mapping

from enginehouse.tuning.progress import Progress

MAX_FAILURES_IN_A_ROW = 5


def why_failed(
    progress: Progress, *, max_failed_trials: int, parameters: Mapping[str, str], error_message: str
) -> str:
    """The job's error message after the trial that was told of last has failed; empty if the job goes on.

    Args:
        parameters: name → text, of that trial.
        error_message: the trial's.
    """
    trial_id = progress.told[-1]
    count, why = len(progress.failed), ""
    if max_failed_trials:
        if count >= max_failed_trials:
            why = f": {count} trial(s) failed, and maxFailedTrials is {max_failed_trials}."
    elif count == len(progress.told):
        why = " before any other successful trials were completed."
    elif set(progress.told[-MAX_FAILURES_IN_A_ROW:]) <= set(progress.failed):
        why = f", as did the {MAX_FAILURES_IN_A_ROW - 1} before it; set maxFailedTrials if the job should go on."
    if not why:
        return ""
    shown = "".join(f"{name}={value}, " for name, value in parameters.items())
    return (
        f"Hyperparameter Tuning Trial #{trial_id} Failed{why} The failed trial had parameters: {shown}. "
        f"The trial's error message was: {error_message}"
    )
