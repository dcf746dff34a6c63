"""The resources of the ml v1 API and the engine's own endpoints, as plain methods over dictionaries.

Shapes are those of the API (`jobId`, `trainingInput`, …); nothing is renamed, so its documentation applies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from enginehouse.core.errors import NotFound
from enginehouse.core.settings import load_settings
from enginehouse.sdk.locate import find_url
from enginehouse.sdk.operations import Operations
from enginehouse.sdk.storage import Storage
from enginehouse.sdk.transport import Transport

_PAGE_SIZE = 100

Resource = dict[str, Any]


def connect(url: str | None = None, *, data_dir: Path | str | None = None, project: str | None = None) -> Client:
    """A client of the engine at `url`, of `ENGINEHOUSE_URL`, or of the data directory.

    Args:
        url: `http://HOST:PORT`.
        data_dir: default: the setting `data_dir` (`~/.enginehouse`).
        project: default: the setting `project`.

    Nothing is sent yet; an absent engine is told by the first request.
    """
    settings = load_settings({"data_dir": data_dir, "project": project})
    return Client(Transport(lambda: find_url(settings, url), token=settings.token), settings.project)


class Client:
    """One engine and one project. Thread-safe, as its transport is."""

    def __init__(self, transport: Transport, project: str) -> None:
        self.transport = transport
        self.project = project
        parent = f"/v1/projects/{quote(project, safe='')}"
        self.jobs = Jobs(transport, parent, project)
        self.models = Models(transport, parent)
        self.operations = Operations(transport, parent)
        self.engine = Engine(transport)
        self.storage = Storage(transport, project)

    def versions(self, model: str) -> Versions:
        """The versions of one model."""
        return Versions(self.transport, f"{self.models.path(model)}/versions")

    def predict(
        self, model: str, version: str | None, instances: Sequence[Any], *, signature_name: str | None = None
    ) -> Any:
        """The answer of `:predict`, whole: `{"predictions": [...]}` or `{"error": "..."}`."""
        return self._ask("predict", model, version, instances, signature_name)

    def explain(self, model: str, version: str | None, instances: Sequence[Any]) -> Any:
        """The answer of `:explain`, whole: `{"explanations": [...]}` or `{"error": "..."}`."""
        return self._ask("explain", model, version, instances, None)

    def log_entries(self, filter: str, *, newest: int) -> list[Resource]:
        """The newest entries of Cloud Logging's API that pass a filter, oldest first."""
        body = {"resourceNames": [f"projects/{self.project}"], "filter": filter, "pageSize": newest}
        answer = self.transport.json("POST", "/v2/entries:list", {**body, "orderBy": "timestamp desc"})
        return list(reversed(answer.get("entries", [])))

    def question_path(self, verb: str, model: str, version: str | None) -> str:
        """The path of `:predict` or `:explain`."""
        resource = self.versions(model).path(version) if version else self.models.path(model)
        return f"{resource}:{verb}"

    def _ask(
        self, verb: str, model: str, version: str | None, instances: Sequence[Any], signature_name: str | None
    ) -> Any:
        path = self.question_path(verb, model, version)
        body: Resource = {"instances": list(instances)}
        if signature_name is not None:
            body["signature_name"] = signature_name
        return self.transport.json("POST", path, body)


class Collection:
    """A list of resources below one path: what jobs, models and versions have in common.

    Args:
        key: name of the list in the list answer.
    """

    def __init__(self, transport: Transport, path: str, key: str) -> None:
        self._transport = transport
        self._path = path
        self._key = key

    def path(self, resource_id: str) -> str:
        """The URL path of one resource."""
        return f"{self._path}/{quote(resource_id, safe='')}"

    def create(self, body: Mapping[str, Any]) -> Resource:
        """POST a new one; a job or model comes back itself, a version as an operation."""
        return dict(self._transport.json("POST", self._path, body))

    def get(self, resource_id: str) -> Resource:
        return dict(self._transport.json("GET", self.path(resource_id)))

    def exists(self, resource_id: str) -> bool:
        try:
            self.get(resource_id)
        except NotFound:
            return False
        return True

    def list(self, *, filter: str | None = None) -> Iterator[Resource]:
        """All of them in the engine's order, page by page as they are taken."""
        token: str | None = None
        while True:
            query = {"pageSize": _PAGE_SIZE, "pageToken": token, "filter": filter}
            page = self._transport.json("GET", self._path, query=query)
            yield from page.get(self._key, [])
            token = page.get("nextPageToken")
            if not token:
                return

    def patch(self, resource_id: str, body: Mapping[str, Any], update_mask: Sequence[str]) -> Resource:
        """PATCH the fields that `update_mask` names."""
        query = {"updateMask": ",".join(sorted(update_mask))}
        return dict(self._transport.json("PATCH", self.path(resource_id), body, query=query))

    def delete(self, resource_id: str) -> Resource:
        """DELETE one; models and versions answer with an operation."""
        return dict(self._transport.json("DELETE", self.path(resource_id)))


class Jobs(Collection):
    """`projects.jobs` and the log of a job."""

    def __init__(self, transport: Transport, parent: str, project: str) -> None:
        super().__init__(transport, f"{parent}/jobs", "jobs")
        self._studies = f"{parent}/locations/jobs/studies"
        self._logs_parent = f"/enginehouse/v1/projects/{quote(project, safe='')}/jobs"

    def cancel(self, job_id: str) -> None:
        self._transport.json("POST", f"{self.path(job_id)}:cancel", {})

    def stop_trial(self, job_id: str, trial_id: str) -> None:
        """Let one trial of a tuning job end early; it keeps what it has reported."""
        trial = f"{quote(job_id, safe='')}/trials/{quote(trial_id, safe='')}"
        self._transport.json("POST", f"{self._studies}/{trial}:stop", {})

    def read_logs(self, job_id: str, cursor: str = "", *, limit: int = 1000, wait_s: float = 0) -> Resource:
        """One page of a job's log: `{"entries": [...], "cursor": "...", "ended": bool}`.

        Args:
            cursor: where the page before ended; empty for the start.
            wait_s: how long the engine may wait for something new, at most 30.
        """
        path = f"{self._logs_parent}/{quote(job_id, safe='')}/logs"
        query = {"cursor": cursor, "limit": limit, "waitS": f"{wait_s:g}"}
        return dict(self._transport.json("GET", path, query=query))


class Models(Collection):
    """`projects.models`."""

    def __init__(self, transport: Transport, parent: str) -> None:
        super().__init__(transport, f"{parent}/models", "models")

    def traffic(self, model: str) -> Resource:
        """How the model's requests are shared out to its versions."""
        return dict(self._transport.json("GET", self._traffic_path(model)))

    def set_traffic(self, model: str, shares: Mapping[str, int], roll_back: Mapping[str, float]) -> Resource:
        """Share them out by percent; none for the default version alone."""
        if not shares:
            return dict(self._transport.json("DELETE", self._traffic_path(model)))
        body = {"shares": dict(shares), "rollBack": dict(roll_back)}
        return dict(self._transport.json("PUT", self._traffic_path(model), body))

    def _traffic_path(self, model: str) -> str:
        return f"/enginehouse{self.path(model)}/traffic"


class Versions(Collection):
    """`projects.models.versions` of one model."""

    def __init__(self, transport: Transport, path: str) -> None:
        super().__init__(transport, path, "versions")

    def serving(self, version: str) -> Resource:
        """How a version is served now, and what its model told of its inputs and outputs."""
        return dict(self._transport.json("GET", f"/enginehouse{self.path(version)}/serving"))

    def restart(self, version: str) -> None:
        """Replace the version's model servers by new ones, without losing a request."""
        self._transport.json("POST", f"/enginehouse{self.path(version)}/restart", {})

    def set_default(self, version: str) -> Resource:
        return dict(self._transport.json("POST", f"{self.path(version)}:setDefault", {}))


class Engine:
    """The engine's own endpoints."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def healthy(self) -> bool:
        """Whether the engine answers and says it is well. Raises as `Transport.request` does when it does not."""
        return bool(self._transport.json("GET", "/healthz").get("status") == "ok")

    def status(self) -> Resource:
        return dict(self._transport.json("GET", "/enginehouse/v1/status"))

    def settings(self) -> list[Resource]:
        return list(self._transport.json("GET", "/enginehouse/v1/settings")["settings"])

    def waiting_reason(self, project: str, job_id: str) -> str:
        """Why a job is still in the queue; empty when it is not."""
        return str(self._transport.json("GET", f"/enginehouse/v1/projects/{project}/jobs/{job_id}/waiting")["reason"])

    def flush_requests(self) -> str:
        """Have the sampled requests written to their tables; the bucket that these are in."""
        return str(self._transport.json("POST", "/enginehouse/v1/requests:flush", {})["bucket"])

    def runtimes(self) -> list[Resource]:
        return list(self._transport.json("GET", "/enginehouse/v1/runtimes")["runtimes"])
