"""Studies and trials: the methods of `projects.locations.studies`.

In come names and messages of the API, out come messages or errors. Called by `api.ml_v1.studies`. A suggestion is
computed outside of the store's transactions, by one thread at a time for a study; all that follows from a request is
written in one transaction before it is answered. So a kill leaves either nothing or the whole of it, and a client
that asks again gets what the first request made.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import replace

from enginehouse.core import names
from enginehouse.core.clock import Clock
from enginehouse.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from enginehouse.core.ids import new_id
from enginehouse.core.names import LocationOperationName, StudyName, TrialName
from enginehouse.core.repeats import creation_key, is_repeat
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import (
    LocationOperationRecord,
    NewEvent,
    StudyChange,
    StudyRecord,
    TrialRecord,
)
from enginehouse.schemas import optimizer as messages
from enginehouse.schemas.ml_v1 import Operation
from enginehouse.schemas.wire import from_builtins, to_builtins
from enginehouse.tuning import study as studies
from enginehouse.tuning.job_study import LOCATION
from enginehouse.tuning.policy import Policy, StopDecision
from enginehouse.tuning.study_config import check_parameters, check_study_config
from enginehouse.tuning.study_messages import (
    early_stopping_operation,
    study_message,
    suggestion_operation,
    trial_message,
)

MAX_SUGGESTIONS = 100
"""For one request; a limit of ours."""


class StudyService:
    """The studies of all projects. Safe to call from any thread."""

    def __init__(self, store: MetadataStore, policy: Policy, clock: Clock) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._locks: defaultdict[StudyName, threading.Lock] = defaultdict(threading.Lock)

    # --- studies ---

    def create(self, name: StudyName, study: messages.Study, caller: str = "") -> messages.Study:
        """Make a study; asked for the same again, give the one that is there (see core/repeats.py).

        Raises:
            InvalidArgument: with every wrong field.
            FailedPrecondition: its algorithm or way of stopping is not available.
            AlreadyExists: there is another one of that id.
        """
        _check_no_jobs(name)
        names.check_project_id(name.project)
        names.check_study_id(name.study_id)
        if study.study_config is None:
            raise InvalidArgument("The configuration is required.", field="study.study_config")
        check_study_config(study.study_config, field="study.study_config")
        self._policy.check(study.study_config)
        config = to_builtins(study.study_config)
        record = StudyRecord(
            name=name,
            config=config,
            create_time_ns=self._clock.time_ns(),
            seed=int(new_id(8), 16),
            creation_key=creation_key(caller, config),
        )
        try:
            return study_message(self._store.create_study(record))
        except AlreadyExists:
            existing = self._store.get_study(name)
            if not is_repeat(record, existing):
                raise
            return study_message(existing)

    def get(self, name: StudyName) -> messages.Study:
        return study_message(self._store.get_study(name))

    def list(self, project: str, location: str) -> messages.ListStudiesResponse:
        found = self._store.list_studies(project, location)
        return messages.ListStudiesResponse(studies=[study_message(study) for study in found])

    def delete(self, name: StudyName) -> None:
        _check_no_jobs(name)
        self._store.delete_study(name)

    # --- trials ---

    def create_trial(self, name: StudyName, trial: messages.Trial, caller: str = "") -> messages.Trial:
        """Add a trial of the user's own: COMPLETED with its final measurement, else to be suggested to somebody.

        Raises:
            InvalidArgument: its parameters are not of the study's space, or a measurement is wrong.
        """
        _check_no_jobs(name)
        config = _config(self._store.get_study(name))
        check_parameters(config, trial.parameters, field="trial.parameters")
        for index, measurement in enumerate(trial.measurements):
            field = f"trial.measurements[{index}]"
            studies.check_measurement(measurement, config, field=field, final=False)
        if trial.final_measurement is not None:
            studies.check_measurement(trial.final_measurement, config, field="trial.final_measurement", final=True)
        now_ns = self._clock.time_ns()
        key = creation_key(caller, to_builtins(trial)) if caller else ""

        def change(study: StudyRecord, _unfinished: list[TrialRecord]) -> StudyChange:
            new = TrialRecord(
                name=study.name.trial(study.next_trial_id),
                state="ACTIVE" if trial.state == "ACTIVE" else "REQUESTED",
                parameters=[to_builtins(parameter) for parameter in trial.parameters],
                start_time_ns=now_ns,
                creation_key=key,
            )
            for measurement in trial.measurements:
                new = studies.with_measurement(new, measurement) or new
            if trial.state == "COMPLETED" or trial.final_measurement is not None:
                ended = studies.completed(
                    new, trial.final_measurement, infeasible=False, reason="", config=config, now_ns=now_ns
                )
                assert ended is not None
                new = ended
            return StudyChange(replace(study, next_trial_id=study.next_trial_id + 1), [new])

        with self._locks[name]:
            for made in self._store.list_trials(name) if key else ():
                if made.creation_key == key:
                    return trial_message(made)
            return trial_message(self._store.change_study(name, change).trials[0])

    def get_trial(self, name: TrialName) -> messages.Trial:
        return trial_message(self._store.get_trial(name))

    def list_trials(self, name: StudyName) -> messages.ListTrialsResponse:
        return messages.ListTrialsResponse(trials=[trial_message(each) for each in self._store.list_trials(name)])

    def delete_trial(self, name: TrialName) -> None:
        _check_no_jobs(name.study)
        self._store.delete_trial(name)

    def suggest(self, name: StudyName, request: messages.SuggestTrialsRequest) -> Operation:
        """Give a client trials to run: those that it has, then those that users asked for, then new ones.

        Returns:
            The operation, done. It tells of fewer trials when the search space is exhausted, which completes the
            study.

        Raises:
            FailedPrecondition: the study is not active and the client has no trial left.
        """
        _check_no_jobs(name)
        count, client_id = request.suggestion_count, request.client_id
        if not 1 <= count <= MAX_SUGGESTIONS:
            raise InvalidArgument(f"Ask for 1 to {MAX_SUGGESTIONS} suggestions.", field="suggestion_count")
        if not client_id:
            raise InvalidArgument("The client's id is required.", field="client_id")
        start_ns = self._clock.time_ns()
        with self._locks[name]:
            study, trials = self._store.get_study(name), self._store.list_trials(name)
            plan = studies.assign(study, trials, client_id=client_id, count=count, now_ns=start_ns)
            proposals = self._policy.suggest(study, trials, plan.missing) if plan.missing else []
            operation_name = self._operation_name(name, "suggest")

            def change(study: StudyRecord, unfinished: list[TrialRecord]) -> StudyChange:
                given = studies.assign(
                    study, unfinished, client_id=client_id, count=count, proposals=proposals, now_ns=start_ns
                )
                if not given.taken and study.state != "ACTIVE":
                    raise FailedPrecondition(f"The study is {study.state}: {study.inactive_reason}", field="parent")
                after = given.study
                if len(proposals) < plan.missing:
                    after = replace(after, state="COMPLETED", inactive_reason="The search space is exhausted.")
                operation = suggestion_operation(
                    operation_name, after, given.taken, request, start_ns=start_ns, end_ns=self._clock.time_ns()
                )
                record = LocationOperationRecord(operation_name, to_builtins(operation), start_ns)
                return StudyChange(after, given.changed, record)

            changed = self._store.change_study(name, change)
        assert changed.operation is not None
        return from_builtins(Operation, changed.operation.message)

    def add_measurement(self, name: TrialName, request: messages.AddTrialMeasurementRequest) -> messages.Trial:
        """Report a measurement. The same one again changes nothing; another at the same step and time replaces it."""
        _check_no_jobs(name.study)
        config = _config(self._store.get_study(name.study))
        measurement = studies.check_measurement(request.measurement, config, field="measurement", final=False)

        def change(trial: TrialRecord) -> tuple[TrialRecord, list[NewEvent]] | None:
            changed = studies.with_measurement(trial, measurement)
            return (changed, []) if changed else None

        return trial_message(self._store.change_trial(name, change))

    def complete(self, name: TrialName, request: messages.CompleteTrialRequest) -> messages.Trial:
        """End a trial with its final measurement, with the last one reported, or as infeasible."""
        _check_no_jobs(name.study)
        config, final = _config(self._store.get_study(name.study)), request.final_measurement
        if final is not None and not request.trial_infeasible:
            studies.check_measurement(final, config, field="final_measurement", final=True)
        now_ns = self._clock.time_ns()

        def change(trial: TrialRecord) -> tuple[TrialRecord, list[NewEvent]] | None:
            ended = studies.completed(
                trial,
                final,
                infeasible=request.trial_infeasible,
                reason=request.infeasible_reason,
                config=config,
                now_ns=now_ns,
            )
            return (ended, []) if ended else None

        return trial_message(self._store.change_trial(name, change))

    def check_early_stopping(self, name: TrialName) -> Operation:
        """Judge whether a trial should stop; one that should is STOPPING from then on, with the reason as an event.

        Raises:
            FailedPrecondition: it has ended.
        """
        _check_no_jobs(name.study)
        start_ns = self._clock.time_ns()
        trial = self._store.get_trial(name)
        if studies.stopping(trial) is None:
            decision = StopDecision(True, "It was told to stop before.")
        else:
            study, trials = self._store.get_study(name.study), self._store.list_trials(name.study)
            decision = self._policy.should_stop(study, trials, trial)
        operation_name = self._operation_name(name.study, "check_early_stopping")
        operation = early_stopping_operation(
            operation_name, name, decision.stop, start_ns=start_ns, end_ns=self._clock.time_ns()
        )

        def change(trial: TrialRecord) -> tuple[TrialRecord, list[NewEvent]] | None:
            changed = studies.stopping(trial) if decision.stop else None
            return (changed, [NewEvent("decision", decision.reason)]) if changed else None

        record = LocationOperationRecord(operation_name, to_builtins(operation), start_ns)
        self._store.change_trial(name, change, operation=record)
        return operation

    def stop(self, name: TrialName) -> messages.Trial:
        """Ask whoever runs a trial to stop it; it keeps its measurements and is completed as any other."""

        def change(trial: TrialRecord) -> tuple[TrialRecord, list[NewEvent]] | None:
            changed = studies.stopping(trial)
            return (changed, [NewEvent("decision", "Stopped by a user.")]) if changed else None

        return trial_message(self._store.change_trial(name, change))

    def list_optimal(self, name: StudyName) -> messages.ListOptimalTrialsResponse:
        """The best trials: with several metrics all that no other one dominates."""
        config = _config(self._store.get_study(name))
        optimal = studies.optimal_trials(config, self._store.list_trials(name))
        return messages.ListOptimalTrialsResponse(trials=[trial_message(trial) for trial in optimal])

    # --- operations ---

    def get_operation(self, name: LocationOperationName) -> Operation:
        return from_builtins(Operation, self._store.get_location_operation(name).message)

    def _operation_name(self, study: StudyName, verb: str) -> LocationOperationName:
        return LocationOperationName(study.project, study.location, f"{verb}-{study.study_id}-{new_id()}")


def _config(study: StudyRecord) -> messages.StudyConfig:
    return from_builtins(messages.StudyConfig, study.config)


def _check_no_jobs(name: StudyName) -> None:
    """The study of a tuning job can be read, and its trials be stopped; all else is the job's affair.

    Raises:
        FailedPrecondition: `name` is in the location of such studies.
    """
    if name.location == LOCATION:
        raise FailedPrecondition(
            f"Studies in the location {LOCATION!r} are those of tuning jobs: change the job instead "
            "(mle jobs update), or make a study in another location.",
            field="name",
        )
