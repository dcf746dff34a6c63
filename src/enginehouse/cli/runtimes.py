"""`mle runtimes`: which there are, building one before the first job needs it, and keeping their cache in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginehouse.cli.base import Group
from enginehouse.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from enginehouse.runtimes.inventory import Entry, Inventory


@click.group(cls=Group, examples="mle runtimes list\nmle runtimes build 2.21\nmle runtimes doctor")
def runtimes() -> None:
    """List, build and remove runtimes."""


@runtimes.command("list", examples="mle runtimes list\nmle runtimes list --format json")
@pass_invocation
def list_runtimes(invocation: Invocation) -> None:
    """List the runtimes that jobs and versions may name: the running engine's, or those of this installation.

    PYTHON is the one that a job gets on this host, without a wish of its own; REASON says why.
    """
    from enginehouse.cli.output import field, print_list
    from enginehouse.core.errors import Unavailable
    from enginehouse.core.units import format_size

    try:
        rows = invocation.client().engine.runtimes()
    except Unavailable:
        rows = _inventory(invocation).rows()
    columns = [
        ("RUNTIME", field("name")),
        ("PYTHON", field("pythonVersion")),
        ("BUILT", lambda row: format_size(row["sizeBytes"]) if row.get("built") else ""),
        ("DESCRIPTION", field("description")),
        ("REASON", field("reason")),
    ]
    print_list(invocation, rows, columns)


@runtimes.command(examples="mle runtimes build 2.21\nmle runtimes build scikit-learn-1.9 --python-version 3.12")
@click.argument("runtime")
@click.option("--python-version", metavar="X.Y", help="Python of the runtime (default: the one a job would get).")
@pass_invocation
def build(invocation: Invocation, runtime: str, python_version: str | None) -> None:
    """Build a runtime now, on this machine, so that no job has to wait for it."""
    from enginehouse.runtimes.cache import RuntimeCache
    from enginehouse.runtimes.catalogue import Catalogue
    from enginehouse.sdk.packaging import find_uv

    resolution = Catalogue.load(uv=find_uv()).resolve(runtime, python_version)
    invocation.say(f"Runtime {resolution.runtime.name} on this host: {resolution.reason}.")
    cache = RuntimeCache(invocation.settings().runtimes_dir, find_uv())
    environment = cache.ensure(resolution, invocation.say)
    click.echo(environment.python)


@runtimes.command(examples="mle runtimes prune --dry-run\nmle runtimes prune 1.8\nmle runtimes prune --all")
@click.argument("names", metavar="[RUNTIME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove all that no process uses.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@pass_invocation
def prune(invocation: Invocation, names: tuple[str, ...], everything: bool, dry_run: bool) -> None:
    """Remove from the cache what nothing finds any more: runtimes of older catalogues, and what was put on them.

    With names: these runtimes, and what was put on them. What is removed is built again when a job needs it; what a
    process uses or builds stays.
    """
    from enginehouse.core.units import format_size

    def wanted(entry: Entry) -> bool:
        named = any(entry.runtime == name or entry.runtime.startswith(f"{name}-py") for name in names)
        return everything or (named if names else entry.superseded)

    freed_bytes, overlays = 0, 0
    for entry, became in _inventory(invocation).prune(wanted, dry_run=dry_run):
        freed_bytes += entry.size_bytes if became == "removed" else 0
        if entry.kind == "overlay" and became == "removed":  # there may be hundreds
            overlays += 1
            continue
        became = "would be removed" if dry_run and became == "removed" else became
        click.echo(f"{entry.path}  {format_size(entry.size_bytes)}  {became}")
    if overlays:
        click.echo(f"{overlays} overlays of users' packages  {'would be removed' if dry_run else 'removed'}")
    invocation.say(f"{'To be freed' if dry_run else 'Freed'}: {format_size(freed_bytes)}.")


@runtimes.command(examples="mle runtimes install 3.7")
@click.argument("python_version", metavar="X.Y")
@pass_invocation
def install(invocation: Invocation, python_version: str) -> None:
    """Fetch a Python for runtimes that need it, with uv, where the network allows."""
    from enginehouse.core.errors import FailedPrecondition
    from enginehouse.runtimes.catalogue import is_python_2
    from enginehouse.runtimes.errors import RuntimesError
    from enginehouse.runtimes.interpreters import Interpreters
    from enginehouse.runtimes.uvtool import Uv
    from enginehouse.sdk.packaging import find_uv

    if found := Interpreters(find_uv()).find(python_version):
        invocation.say(f"Python {python_version} is on this host already.")
        click.echo(found)
        return
    if is_python_2(python_version):
        raise FailedPrecondition(
            "uv has no Python 2. Install it another way, for example with pyenv: pyenv install 2.7.18"
        )
    try:
        Uv(find_uv()).run(
            "python", "install", python_version, doing=f"Installing Python {python_version}", directory=Path.cwd()
        )
    except RuntimesError as error:
        raise FailedPrecondition(
            f"{error}\nInstall it another way, for example with pyenv: pyenv install {python_version}"
        ) from None
    click.echo(Interpreters(find_uv()).find(python_version))


@runtimes.command(examples="mle runtimes doctor")
@pass_invocation
def doctor(invocation: Invocation) -> None:
    """Look at all that building a runtime needs on this host. Exits with 1 if no runtime can be built at all."""
    failed = False
    for verdict, text in _findings(invocation):
        click.echo(f"{verdict:7}  {text}")
        failed = failed or verdict == "broken"
    if failed:
        raise click.exceptions.Exit(1)


def _findings(invocation: Invocation) -> Iterator[tuple[str, str]]:
    """("ok" | "missing" | "broken", what) of uv, the cache, the Pythons, the runtimes and the package index."""
    import shutil
    import tempfile

    from enginehouse.core.units import format_size
    from enginehouse.runtimes.catalogue import Catalogue, version_key
    from enginehouse.runtimes.errors import RuntimesError
    from enginehouse.runtimes.interpreters import Interpreters
    from enginehouse.runtimes.uvtool import Uv
    from enginehouse.sdk.packaging import find_uv

    root = invocation.settings().runtimes_dir
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
        free_bytes = shutil.disk_usage(root).free
        yield "ok", f"cache {root}: writable, {format_size(free_bytes)} free"
    except OSError as error:
        yield "broken", f"cache {root}: {error}"
        return
    uv = Uv(find_uv())
    try:
        [version] = uv.run("--version", doing="Starting uv", directory=root)
        yield "ok", version
    except RuntimesError as error:
        yield "broken", str(error)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            ask = ("pip", "install", "--dry-run", "--no-cache", "--target", scratch, "six")
            uv.run(*ask, doing="Asking the package index", directory=root)
        yield "ok", "the package index answers"
    except RuntimesError as error:
        yield "missing", str(error)
    catalogue, interpreters = Catalogue.load(uv=find_uv()), Interpreters(find_uv())
    hosts = {version for runtime in catalogue.runtimes() for version in runtime.python_versions}
    versions = sorted(hosts, key=version_key)
    for version in versions:
        found = interpreters.find(version)
        yield ("ok", f"Python {version}: {found}") if found else ("missing", f"Python {version}")
    inventory = _inventory(invocation)
    for row in inventory.rows():
        if not row["pythonVersion"]:
            yield "missing", f"runtime {row['name']}: {row['reason']}"
    entries = inventory.entries()
    for kind in ("runtime", "overlay", "leftover"):
        mine = [entry for entry in entries if entry.kind == kind]
        size_bytes = sum(entry.size_bytes for entry in mine)
        old = sum(entry.superseded for entry in mine)
        yield "ok", f"{kind}s in the cache: {len(mine)}, {format_size(size_bytes)}, of which {old} can be pruned"


def _inventory(invocation: Invocation) -> Inventory:
    from enginehouse.runtimes.catalogue import Catalogue
    from enginehouse.runtimes.inventory import Inventory
    from enginehouse.sdk.packaging import find_uv

    return Inventory(invocation.settings().runtimes_dir, Catalogue.load(uv=find_uv()))
