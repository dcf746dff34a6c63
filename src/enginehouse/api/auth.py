"""What Google's clients ask for before they ask for anything else: tokens, and the metadata server of a machine.

Everybody on this machine is let in, so any assertion is answered with the engine's one token. Requests from other
machines have shown theirs before they come here.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from enginehouse.api.http import endpoint, json_response
from enginehouse.core.names import project_number

_TOKEN_PATHS = ("/token", "/oauth2/v4/token", "/o/oauth2/token", "/oauth2/v3/token")
_METADATA = "/computeMetadata/v1"
_LIFETIME_S = 3599
_FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
_SCOPES = "https://www.googleapis.com/auth/cloud-platform\n"


@dataclass(frozen=True)
class AuthApi:
    """The handlers.

    Args:
        token: what clients are given and send back.
        project: what the metadata server says it runs in.
    """

    token: str
    project: str

    def routes(self) -> list[BaseRoute]:
        account = _METADATA + "/instance/service-accounts/{account}"
        return [
            *(Route(path, endpoint(self._token), methods=["POST"]) for path in _TOKEN_PATHS),
            Route("/tokeninfo", endpoint(self._token_info), methods=["GET", "POST"]),
            Route("/oauth2/v1/tokeninfo", endpoint(self._token_info), methods=["GET", "POST"]),
            Route("/oauth2/v3/tokeninfo", endpoint(self._token_info), methods=["GET", "POST"]),
            Route(account + "/token", endpoint(self._token), methods=["GET"]),
            Route(account + "/email", endpoint(self._email), methods=["GET"]),
            Route(account + "/scopes", endpoint(self._scopes), methods=["GET"]),
            Route(account + "/", endpoint(self._account), methods=["GET"]),
            Route(_METADATA + "/project/project-id", endpoint(self._project_id), methods=["GET"]),
            Route(_METADATA + "/project/numeric-project-id", endpoint(self._project_number), methods=["GET"]),
            Route(_METADATA + "/universe/universe-domain", endpoint(self._universe), methods=["GET"]),
            Route(_METADATA + "/", endpoint(self._root), methods=["GET"]),
        ]

    @property
    def _account_email(self) -> str:
        return f"enginehouse@{self.project}.iam.gserviceaccount.com"

    async def _token(self, request: Request) -> Response:
        answer = {"access_token": self.token, "expires_in": _LIFETIME_S, "token_type": "Bearer"}
        response = json_response(request, answer)
        response.headers.update(_FLAVOR)
        return response

    async def _token_info(self, request: Request) -> Response:
        info = {"email": self._account_email, "scope": _SCOPES.strip(), "expires_in": str(_LIFETIME_S)}
        return json_response(request, info)

    async def _account(self, request: Request) -> Response:
        account = {"aliases": ["default"], "email": self._account_email, "scopes": [_SCOPES.strip()]}
        response = json_response(request, account)
        response.headers.update(_FLAVOR)
        return response

    async def _email(self, _request: Request) -> Response:
        return PlainTextResponse(self._account_email, headers=_FLAVOR)

    async def _scopes(self, _request: Request) -> Response:
        return PlainTextResponse(_SCOPES, headers=_FLAVOR)

    async def _project_id(self, _request: Request) -> Response:
        return PlainTextResponse(self.project, headers=_FLAVOR)

    async def _project_number(self, _request: Request) -> Response:
        return PlainTextResponse(str(project_number(self.project)), headers=_FLAVOR)

    async def _universe(self, _request: Request) -> Response:
        return PlainTextResponse("googleapis.com", headers=_FLAVOR)

    async def _root(self, _request: Request) -> Response:
        return PlainTextResponse("instance/\nproject/\n", headers=_FLAVOR)
