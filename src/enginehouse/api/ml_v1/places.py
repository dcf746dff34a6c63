"""Methods about the service itself: locations and getConfig."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from enginehouse.api.http import Handler, message_response, page_of
from enginehouse.core.errors import NotFound
from enginehouse.core.names import project_number
from enginehouse.schemas.ml_v1 import Capability, Config, GetConfigResponse, ListLocationsResponse, Location
from enginehouse.schemas.wire import Int64

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


def place_handlers() -> dict[str, Handler]:
    """Handlers by method id."""
    return {
        "projects.getConfig": _get_config,
        "projects.locations.list": _list_locations,
        "projects.locations.get": _get_location,
    }


async def _get_config(request: Request) -> Response:
    number = project_number(request.path_params["project"])
    config = GetConfigResponse(
        service_account=f"service-{number}@cloud-ml.google.com.iam.gserviceaccount.com",
        service_account_project=Int64(number),
        config=Config(tpu_service_account=f"service-{number}@cloud-tpu.iam.gserviceaccount.com"),
    )
    return message_response(request, config)


async def _list_locations(request: Request) -> Response:
    page = page_of(request)
    start = LOCATIONS.index(page["page_token"]) if page["page_token"] in LOCATIONS else 0
    shown = LOCATIONS[start : start + page["page_size"]]
    answer = ListLocationsResponse(locations=[_location(request, name) for name in shown])
    if start + len(shown) < len(LOCATIONS):
        answer.next_page_token = LOCATIONS[start + len(shown)]
    return message_response(request, answer)


async def _get_location(request: Request) -> Response:
    name = request.path_params["location"]
    if name not in LOCATIONS:
        raise NotFound(f"There is no location {name!r}; `locations list` shows them all.", field="name")
    return message_response(request, _location(request, name))


def _location(request: Request, name: str) -> Location:
    return Location(
        name=f"projects/{request.path_params['project']}/locations/{name}",
        capabilities=[Capability(type="TRAINING"), Capability(type="ONLINE_PREDICTION")],
    )
