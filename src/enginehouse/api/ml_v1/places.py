"""Methods about the service itself: locations, getConfig, and what this release has no part for yet.

A method without a part answers FAILED_PRECONDITION: clients take it as final; a 501 they would repeat five times.
"""

from __future__ import annotations

import zlib
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from enginehouse.api.http import endpoint, json_response, page_of
from enginehouse.core.errors import FailedPrecondition, NotFound

LOCATIONS = (
    "asia-east1",
    "asia-northeast1",
    "asia-southeast1",
    "australia-southeast1",
    "europe-west1",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "northamerica-northeast1",
    "us-central1",
    "us-east1",
    "us-east4",
    "us-west1",
)
"""The regions that gcloud knows. All of them are this machine."""

_CAPABILITIES = ("TRAINING", "ONLINE_PREDICTION")
_PROJECT = "/v1/projects/{project}"
_STUDIES = _PROJECT + "/locations/{location}/studies"


def place_routes() -> list[BaseRoute]:
    """The routes of this module."""
    routes: list[BaseRoute] = [
        Route(_PROJECT + ":getConfig", endpoint(_get_config), methods=["GET"]),
        Route(_PROJECT + "/locations", endpoint(_list_locations), methods=["GET"]),
        Route(_PROJECT + "/locations/{location}", endpoint(_get_location), methods=["GET"]),
        Route(
            _PROJECT + "/locations/{location}/operations/{operation}:cancel", endpoint(_operation), methods=["POST"]
        ),
        Route(_PROJECT + "/locations/{location}/operations/{operation}", endpoint(_operation), methods=["GET"]),
        Route(_STUDIES + "/{rest:path}", endpoint(_no_studies), methods=["GET", "POST", "DELETE"]),
        Route(_STUDIES, endpoint(_no_studies), methods=["GET", "POST"]),
        Route(_PROJECT + "/{resource:path}:explain", endpoint(_no_explanations), methods=["POST"]),
    ]
    return routes


def project_number(project: str) -> int:
    """A stable 12-digit number for a project id, where an answer must have one."""
    return 100_000_000_000 + zlib.crc32(project.encode())


async def _get_config(request: Request) -> Response:
    number = project_number(request.path_params["project"])
    config = {
        "serviceAccount": f"service-{number}@cloud-ml.google.com.iam.gserviceaccount.com",
        "serviceAccountProject": str(number),
        "config": {"tpuServiceAccount": f"service-{number}@cloud-tpu.iam.gserviceaccount.com"},
    }
    return json_response(request, config)


async def _list_locations(request: Request) -> Response:
    page = page_of(request)
    start = LOCATIONS.index(page["page_token"]) if page["page_token"] in LOCATIONS else 0
    shown = LOCATIONS[start : start + page["page_size"]]
    answer: dict[str, Any] = {"locations": [_location(request, name) for name in shown]}
    if start + len(shown) < len(LOCATIONS):
        answer["nextPageToken"] = LOCATIONS[start + len(shown)]
    return json_response(request, answer)


async def _get_location(request: Request) -> Response:
    name = request.path_params["location"]
    if name not in LOCATIONS:
        raise NotFound(f"There is no location {name!r}; `locations list` shows them all.", field="name")
    return json_response(request, _location(request, name))


def _location(request: Request, name: str) -> dict[str, Any]:
    return {
        "name": f"projects/{request.path_params['project']}/locations/{name}",
        "capabilities": [{"type": capability} for capability in _CAPABILITIES],
    }


async def _operation(request: Request) -> Response:
    raise NotFound(f"The specified operation {request.path_params['operation']!r} was not found.", field="name")


async def _no_studies(request: Request) -> Response:
    raise FailedPrecondition("Studies and trials are not available in this release.")


async def _no_explanations(request: Request) -> Response:
    raise FailedPrecondition("Explanations are not available in this release; ask for predictions with :predict.")
