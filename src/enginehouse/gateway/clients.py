"""All that a client of this machine needs to be wired: the files that its variables name, and what to make them of.

`mle env` calls it for a shell, the composition root for the replicas of a project.
"""

from __future__ import annotations

from enginehouse.core.settings import Settings
from enginehouse.gateway.credentials import write_client_files
from enginehouse.gateway.environment import Wiring
from enginehouse.gateway.shims import write_shims
from enginehouse.gateway.trust import BUNDLE_NAME, CERTIFICATE_NAME


def prepare_client(
    settings: Settings, project: str, *, engine_url: str, gateway_url: str | None, fast_tensorflow: bool = False
) -> Wiring:
    """Write the files of a project's clients, where they are not right already, and give the wiring to them.

    Args:
        settings: of the engine: where its data lie, and its token.
        gateway_url, fast_tensorflow: see `Wiring`.
    """
    wiring = Wiring(
        engine_url=engine_url,
        gateway_url=gateway_url,
        project=project,
        bundle=settings.gateway_dir / BUNDLE_NAME,
        authority=settings.gateway_dir / CERTIFICATE_NAME,
        files=settings.client_files_dir(project),
        token=settings.token,
        shims=settings.shims_dir,
        fast_tensorflow=fast_tensorflow,
    )
    write_client_files(wiring)
    write_shims(settings.shims_dir)
    return wiring
