"""`mle storage`: buckets and objects, with gsutil's words."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from enginehouse.cli.base import Group
from enginehouse.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from enginehouse.core.names import ObjectUri
    from enginehouse.sdk.client import Client
    from enginehouse.sdk.objects import RemoteObject
    from enginehouse.sdk.transfer import Copy

recursive_option = click.option("-r", "-R", "--recursive", is_flag=True, help="Take folders with all below them.")
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=8,
    metavar="N",
    help="How many files at the same time: 1 to 64 (default: 8).",
)


@click.group(cls=Group, examples="mle storage mb gs://iris\nmle storage cp *.csv gs://iris")
def storage() -> None:
    """Work with buckets and objects.

    Wildcards: `*` and `?` within one folder level, `**` across levels. `-` is stdin or stdout.
    """


@storage.command(examples="mle storage mb gs://iris")
@click.argument("buckets", metavar="gs://BUCKET...", nargs=-1, required=True)
@click.option("-l", "--location", default="US", show_default=True, metavar="LOCATION", help="Location to name.")
@pass_invocation
def mb(invocation: Invocation, buckets: tuple[str, ...], location: str) -> None:
    """Make buckets."""
    client = invocation.client()
    for text in buckets:
        invocation.say(f"Creating {text}/...")
        client.storage.create_bucket(_bucket(text), location=location)


@storage.command(examples="mle storage rb gs://iris")
@click.argument("buckets", metavar="gs://BUCKET...", nargs=-1, required=True)
@pass_invocation
def rb(invocation: Invocation, buckets: tuple[str, ...]) -> None:
    """Remove empty buckets."""
    client = invocation.client()
    for text in buckets:
        client.storage.delete_bucket(_bucket(text))
        invocation.say(f"Removed {text}")


def _bucket(text: str) -> str:
    from enginehouse.core.errors import InvalidArgument
    from enginehouse.core.names import ObjectUri

    uri = ObjectUri.parse(text if text.startswith("gs://") else f"gs://{text}", field="bucket")
    if uri.name:
        raise InvalidArgument(f"{text} is an object; name a bucket: gs://{uri.bucket}.")
    return uri.bucket


@storage.command(
    examples="""
        mle storage ls
        mle storage ls -l gs://iris
        mle storage ls -d 'gs://iris/jobs/*'
        mle storage ls 'gs://iris/jobs/**/*.keras'
    """
)
@click.argument("urls", metavar="[gs://BUCKET[/OBJECT]]...", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="With size and time.")
@click.option("-d", "--directory", is_flag=True, help="Name folders instead of what is in them.")
@recursive_option
@pass_invocation
def ls(invocation: Invocation, urls: tuple[str, ...], long: bool, directory: bool, recursive: bool) -> None:
    """List buckets, or what is in one."""
    from enginehouse.sdk.wildcards import resolve

    client = invocation.client()
    if not urls or urls == ("gs://",):
        _show(invocation, [], [f"gs://{each['name']}/" for each in client.storage.list_buckets()], long)
        return
    for text in urls:
        found = resolve(client.storage, text)
        _show(invocation, found.objects, [str(each) for each in found.prefixes] if directory else [], long)
        for prefix in found.prefixes if not directory else ():
            if len(found.prefixes) > 1 and not recursive:
                click.echo(f"\n{prefix}:")
            if recursive:
                _show(invocation, client.storage.list(prefix.bucket, prefix.name), [], long)
            else:
                level = client.storage.list_level(prefix.bucket, prefix.name)
                _show(invocation, level.objects, [f"gs://{prefix.bucket}/{each}" for each in level.prefixes], long)


def _show(invocation: Invocation, objects: Iterable[RemoteObject], folders: Sequence[str], long: bool) -> None:
    if invocation.format is not None:
        from enginehouse.cli.output import print_list

        print_list(
            invocation, [*(dict(each.resource) for each in objects), *({"prefix": each} for each in folders)], []
        )
        return
    count, total = 0, 0
    for each in objects:
        count, total = count + 1, total + each.size_bytes
        click.echo(f"{each.size_bytes:>11}  {each.updated[:19]}Z  {each.uri}" if long else str(each.uri))
    for folder in folders:
        click.echo(f"{'':35}{folder}" if long else folder)
    if long and count:
        from enginehouse.core.units import format_size

        click.echo(f"TOTAL: {count} objects, {total} bytes ({format_size(total)})")


@storage.command(
    examples="""
        mle storage cp train_data.csv test_data.csv gs://iris
        mle storage cp -r gs://iris/jobs/iris_1/export .
        gzip -c big.csv | mle storage cp - gs://iris/big.csv.gz
    """
)
@click.argument("paths", metavar="SOURCE... TARGET", nargs=-1, required=True)
@recursive_option
@click.option("-n", "--no-clobber", is_flag=True, help="Leave what is there already.")
@threads_option
@pass_invocation
def cp(invocation: Invocation, paths: tuple[str, ...], recursive: bool, no_clobber: bool, threads: int) -> None:
    """Copy files and objects, local or gs://, several at a time; checksums are verified."""
    *sources, target = _source_and_target(invocation, paths)
    client = invocation.client()
    if "-" in sources or target == "-":
        _pipe(invocation, client, sources, target)
        return
    copies = _plan(client, sources, target, recursive=recursive)
    if no_clobber:
        copies = [copy for copy in copies if not _exists(client, copy)]
    _carry_out(invocation, client, copies, threads)


@storage.command(
    examples="mle storage mv gs://iris/old.csv gs://iris/new.csv\nmle storage mv -r gs://iris/a gs://iris/b"
)
@click.argument("paths", metavar="SOURCE... TARGET", nargs=-1, required=True)
@recursive_option
@threads_option
@pass_invocation
def mv(invocation: Invocation, paths: tuple[str, ...], recursive: bool, threads: int) -> None:
    """Move files and objects: each is copied, then removed."""
    from pathlib import Path

    *sources, target = _source_and_target(invocation, paths)
    client = invocation.client()
    copies = _plan(client, sources, target, recursive=recursive)
    failed = _carry_out(invocation, client, copies, threads, leave=False)
    for copy in copies:
        if copy in failed:
            continue
        if isinstance(copy.source, Path):
            copy.source.unlink()
        elif copy.source.uri != copy.target:
            client.storage.delete(copy.source.uri)
    if failed:
        raise click.exceptions.Exit(1)


def _source_and_target(invocation: Invocation, paths: Sequence[str]) -> list[str]:
    if len(paths) < 2:
        raise click.UsageError("give at least one source and a target.", invocation.context)
    return list(paths)


def _plan(client: Client, sources: Sequence[str], target: str, *, recursive: bool) -> list[Copy]:
    from enginehouse.sdk.transfer import plan_copy

    return plan_copy(client.storage, sources, target, recursive=recursive)


def _exists(client: Client, copy: Copy) -> bool:
    from pathlib import Path

    return copy.target.exists() if isinstance(copy.target, Path) else client.storage.find(copy.target) is not None


def _carry_out(
    invocation: Invocation, client: Client, copies: Sequence[Copy], threads: int, *, leave: bool = True
) -> list[Copy]:
    """Run a plan with its progress shown.

    Returns:
        The copies that failed, each told on stderr; with `leave` they end the command with status 1 instead.
    """
    from enginehouse.cli.progress import Progress
    from enginehouse.sdk.transfer import run_copies

    with Progress(invocation, copies) as progress:
        failures = run_copies(
            client.storage, copies, threads=threads, on_bytes=progress.on_bytes, on_done=progress.on_done
        )
    for failure in failures:
        click.echo(f"ERROR: ({invocation.command}) {failure.copy.source_text}: {failure.error}", err=True)
    if failures and leave:
        raise click.exceptions.Exit(1)
    return [failure.copy for failure in failures]


def _pipe(invocation: Invocation, client: Client, sources: Sequence[str], target: str) -> None:
    """Copy from stdin or to stdout."""
    from enginehouse.cli.progress import Progress
    from enginehouse.core.names import ObjectUri

    if sources == ["-"] and target.startswith("gs://"):
        uri = ObjectUri.parse(target)
        if not uri.name or uri.name.endswith("/"):
            raise click.UsageError("stdin has no name; name the object to write.", invocation.context)
        with Progress(invocation, None) as progress:
            client.storage.upload(sys.stdin.buffer, uri, on_bytes=progress.on_bytes)
    elif target == "-" and all(each.startswith("gs://") for each in sources):
        _write_out(client, sources)
    else:
        raise click.UsageError("- goes with one gs:// object on the other side.", invocation.context)


def _write_out(client: Client, texts: Sequence[str]) -> None:
    from enginehouse.sdk.wildcards import resolve

    for text in texts:
        for each in _objects_only(text, resolve(client.storage, text)):
            client.storage.download(each, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _objects_only(text: str, found: Any) -> list[RemoteObject]:
    from enginehouse.core.errors import InvalidArgument

    if not found.objects:
        raise InvalidArgument(f"{text} is a folder; name objects, such as {text.rstrip('/')}/*.")
    return list(found.objects)


@storage.command(
    examples="mle storage cat gs://iris/train_data.csv\nmle storage cat -r 0-99 gs://iris/train_data.csv"
)
@click.argument("urls", metavar="gs://BUCKET/OBJECT...", nargs=-1, required=True)
@click.option("-r", "--range", "span", metavar="FROM-TO", help="Only these bytes, both included: 0-99, 100-.")
@pass_invocation
def cat(invocation: Invocation, urls: tuple[str, ...], span: str | None) -> None:
    """Write objects to stdout, one after the other."""
    from enginehouse.sdk.wildcards import resolve

    client = invocation.client()
    if span is None:
        _write_out(client, urls)
        return
    first, dash, last = span.partition("-")
    if not dash or not first.isdigit() or not (last.isdigit() or last == ""):
        raise click.UsageError("a range is FROM-TO or FROM-, such as 0-99.", invocation.context)
    for text in urls:
        for each in _objects_only(text, resolve(client.storage, text)):
            for piece in client.storage.read(each, start=int(first), end=int(last) + 1 if last else None):
                sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


@storage.command(examples="mle storage rm gs://iris/old.csv\nmle storage rm -r gs://iris/jobs/iris_1")
@click.argument("urls", metavar="gs://BUCKET[/OBJECT]...", nargs=-1, required=True)
@recursive_option
@threads_option
@pass_invocation
def rm(invocation: Invocation, urls: tuple[str, ...], recursive: bool, threads: int) -> None:
    """Remove objects; with -r folders, and buckets with all that is in them."""
    from enginehouse.core.errors import InvalidArgument
    from enginehouse.sdk.wildcards import resolve

    client = invocation.client()
    for text in urls:
        found = resolve(client.storage, text)
        doomed = [each.uri for each in found.objects]
        if found.prefixes and not recursive and not found.objects:
            raise InvalidArgument(f"{text} is a folder; add -r to remove all that is in it.")
        for prefix in found.prefixes if recursive else ():
            doomed += [each.uri for each in client.storage.list(prefix.bucket, prefix.name)]
        _remove(invocation, client, doomed, threads)
        for prefix in found.prefixes if recursive else ():
            if not prefix.name:
                client.storage.delete_bucket(prefix.bucket)
                invocation.say(f"Removed {prefix}/")


def _remove(invocation: Invocation, client: Client, doomed: Sequence[ObjectUri], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for uri, _ in zip(doomed, pool.map(client.storage.delete, doomed), strict=True):
            invocation.say(f"Removed {uri}")


@storage.command(examples="mle storage rsync -r data gs://iris/data\nmle storage rsync -r -d gs://iris/data data")
@click.argument("source")
@click.argument("target")
@recursive_option
@click.option("-d", "--delete", is_flag=True, help="Remove from the target what the source does not hold.")
@click.option("-n", "--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option("-x", "--exclude", metavar="REGEX", help="Leave alone what matches from its start on.")
@threads_option
@pass_invocation
def rsync(
    invocation: Invocation,
    source: str,
    target: str,
    recursive: bool,
    delete: bool,
    dry_run: bool,
    exclude: str | None,
    threads: int,
) -> None:
    """Make a folder hold what another holds; only what differs in size or checksum is copied."""
    import re
    from pathlib import Path

    from enginehouse.sdk.sync import plan_sync

    try:
        pattern = re.compile(exclude) if exclude is not None else None
    except re.error as error:
        raise click.UsageError(f"--exclude is no regular expression: {error}", invocation.context) from None
    client = invocation.client()
    plan = plan_sync(
        client.storage,
        source,
        target,
        recursive=recursive,
        delete=delete,
        exclude=lambda name: pattern is not None and pattern.match(name) is not None,
    )
    if dry_run:
        for copy in plan.copies:
            click.echo(f"Would copy {copy.source_text} to {copy.target}")
        for place in plan.deletions:
            click.echo(f"Would remove {place}")
        return
    _carry_out(invocation, client, plan.copies, threads)
    for place in plan.deletions:
        if isinstance(place, Path):
            place.unlink()
            invocation.say(f"Removed {place}")
    _remove(invocation, client, [each for each in plan.deletions if not isinstance(each, Path)], threads)
    invocation.say(f"{len(plan.copies)} copied, {len(plan.deletions)} removed, {plan.unchanged} unchanged.")


@storage.command(examples="mle storage stat gs://iris/train_data.csv")
@click.argument("urls", metavar="gs://BUCKET/OBJECT...", nargs=-1, required=True)
@pass_invocation
def stat(invocation: Invocation, urls: tuple[str, ...]) -> None:
    """Show objects with size, times, checksums and generation."""
    from enginehouse.cli.output import print_resource
    from enginehouse.sdk.wildcards import resolve

    client = invocation.client()
    for text in urls:
        for each in _objects_only(text, resolve(client.storage, text)):
            print_resource(invocation, dict(each.resource))


@storage.command(examples="mle storage du -s gs://iris\nmle storage du --readable-sizes gs://iris/jobs")
@click.argument("urls", metavar="gs://BUCKET[/OBJECT]...", nargs=-1, required=True)
@click.option("-s", "--summarize", is_flag=True, help="Only the sum of each argument.")
@click.option("--readable-sizes", is_flag=True, help="KiB, MiB, … in place of bytes.")
@pass_invocation
def du(invocation: Invocation, urls: tuple[str, ...], summarize: bool, readable_sizes: bool) -> None:
    """Show how many bytes objects take."""
    from enginehouse.core.units import format_size
    from enginehouse.sdk.wildcards import resolve

    def line(size_bytes: int, name: str) -> str:
        return f"{format_size(size_bytes) if readable_sizes else size_bytes!s:<12}  {name}"

    client = invocation.client()
    for text in urls:
        found = resolve(client.storage, text)
        objects = [*found.objects]
        for prefix in found.prefixes:
            objects += client.storage.list(prefix.bucket, prefix.name)
        if not summarize:
            for each in objects:
                click.echo(line(each.size_bytes, str(each.uri)))
        click.echo(line(sum(each.size_bytes for each in objects), text))
