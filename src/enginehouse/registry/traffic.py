"""Sharing out a model's requests to several of its versions: an extension of the original.

In: shares by version id. Stored with the model; read by `directory.StoredVersions.traffic` for the router, which
tells when a version is worse than the default one. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from enginehouse.core.errors import FailedPrecondition, InvalidArgument, NotFound
from enginehouse.core.names import ModelName, VersionName
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import ModelRecord, NewEvent
from enginehouse.registry.messages import TRAFFIC
from enginehouse.serving.traffic import RollBack, Verdict


class TrafficService:
    """The splits of all models.

    Args:
        forget: called with (project, model_id) when what serves under that name has changed.
    """

    def __init__(self, store: MetadataStore, forget: Callable[[str, str], None]) -> None:
        self._store = store
        self._forget = forget

    def get(self, name: ModelName) -> dict[str, Any]:
        """`{"shares": {version: percent}, "base": version, "rollBack": {…}, "decision": why it is so}`."""
        return _shown(self._store.get_model(name))

    def set(self, name: ModelName, shares: Mapping[str, Any], roll_back: Mapping[str, Any]) -> dict[str, Any]:
        """Share out by percent from now on. A version gets its share once its server is ready.

        Raises:
            InvalidArgument: the shares are not whole percents that make 100, or the default version is not in them.
            FailedPrecondition: a version is not READY.
        """
        if not shares or any(not isinstance(s, int) or isinstance(s, bool) or s < 0 for s in shares.values()):
            raise InvalidArgument("Give a whole number of percent for each version: v1=90 v2=10.", field="shares")
        if sum(shares.values()) != 100:
            raise InvalidArgument(f"The shares make {sum(shares.values())} %, not 100 %.", field="shares")
        limits = _roll_back(roll_back)
        for version_id in shares:
            version = self._store.get_version(VersionName(name.project, name.model_id, version_id))
            if version.state != "READY":
                raise FailedPrecondition(
                    f"The version {version_id!r} is {version.state}; only one that is READY can have a share.",
                    field="shares",
                )
        base = self._store.get_model(name).default_version_id
        if base not in shares:
            raise InvalidArgument(
                f"The default version {base!r} must be in it: it answers what others can't. Give it 0 % to take all "
                "other requests from it.",
                field="shares",
            )
        text = ", ".join(f"{share} % to {version_id}" for version_id, share in shares.items())
        return self._change(name, {"shares": dict(shares), "rollBack": asdict(limits)}, f"asked for: {text}", "INFO")

    def clear(self, name: ModelName) -> dict[str, Any]:
        """Let all requests go to the default version again."""
        return self._change(name, {}, "asked for: all to the default version", "INFO")

    def roll_back(self, name: ModelName, verdict: Verdict) -> None:
        """Take a split back, since one of its versions is worse than the default one. Harmless when it is gone."""
        try:
            if self._store.get_model(name).request.get(TRAFFIC, {}).get("shares"):
                self._change(name, {}, f"{verdict.version_id} was taken back: {verdict.reason}", "WARNING")
        except NotFound:
            pass

    def _change(self, name: ModelName, value: dict[str, Any], reason: str, severity: str) -> dict[str, Any]:
        def change(model: ModelRecord) -> tuple[ModelRecord, Sequence[NewEvent]]:
            request = {**model.request, TRAFFIC: {**value, "decision": reason}}
            event = NewEvent("decision", f"Traffic: {reason}", severity=severity, data=value)
            return replace(model, request=request), [event]

        changed = self._store.change_model(name, change)
        self._forget(name.project, name.model_id)
        return _shown(changed)


def _shown(model: ModelRecord) -> dict[str, Any]:
    value = dict(model.request.get(TRAFFIC, {}))
    base = model.default_version_id
    value.setdefault("shares", {base: 100} if base else {})
    return {**value, "base": base}


def _roll_back(given: Mapping[str, Any]) -> RollBack:
    known = {each.name for each in fields(RollBack)}
    for name, value in given.items():
        if name not in known or isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise InvalidArgument(
                f"{name}={value!r} is no limit; there are: {', '.join(sorted(known))}.", field="roll_back"
            )
    return RollBack(**given)
