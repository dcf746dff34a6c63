"""`gcloud` and `gsutil` of a wired shell: `python -m enginehouse.cli.shim gcloud|gsutil ARGS`.

With a Cloud SDK its own program is run, the retired group `ml-engine` under its new name. Without one, the commands
of training and prediction and of buckets are served by `mle` itself, which has the same words.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from enginehouse.cli.tree import run
from enginehouse.core.errors import InvalidArgument
from enginehouse.gateway.shims import find_real

_TRACKS = ("alpha", "beta")
_GCLOUD_GLOBALS = {
    "--project",
    "--account",
    "--configuration",
    "--verbosity",
    "--format",
    "--impersonate-service-account",
}
_KEPT_GLOBALS = {"--project", "--format", "--verbosity"}
_GSUTIL_GLOBALS = {"-o", "-u", "-h", "-i"}
_GSUTIL_DROPPED = {
    "mb": {"-p", "-c", "-b", "--pap", "--retention"},
    "cp": {"-z", "-j", "-a", "-L"},
    "rsync": set(),
}
_GSUTIL_DROPPED_FLAGS = {
    "cp": {"-p", "-c", "-e", "-P", "-U", "-v"},
    "rsync": {"-c", "-e", "-p", "-P"},
    "rm": {"-f", "-a"},
}
_GSUTIL_RENAMED = {("ls", "-L"): "-l", ("du", "-h"): "--readable-sizes"}
_GSUTIL_COMMANDS = ("mb", "rb", "cp", "cat", "ls", "rm", "mv", "rsync", "stat", "du")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the Cloud SDK's tool that the first argument names with the other arguments, or do its work."""
    tool, *rest = sys.argv[1:] if arguments is None else arguments
    real = find_real(tool, os.environ)
    if real is not None:
        os.execv(real, [real, *(as_it_was(renamed(rest)) if tool == "gcloud" else rest)])
    try:
        answer = gcloud(rest) if tool == "gcloud" else gsutil(rest)
    except InvalidArgument as error:
        print(f"ERROR: ({tool}) {error.message}", file=sys.stderr)
        return 1
    if isinstance(answer, str):
        print(answer)
        return 0
    return run(answer)


def renamed(arguments: Sequence[str]) -> list[str]:
    """gcloud's arguments with the retired group `ml-engine` under its new name."""
    result = list(arguments)
    for index, word in enumerate(result):
        if word == "ml-engine":
            result[index] = "ai-platform"
        if not word.startswith("-") and word not in _TRACKS:
            break
    return result


def as_it_was(arguments: Sequence[str]) -> list[str]:
    """gcloud's arguments without `--scale-tier CUSTOM` where the machine types are in the file of `--config`.

    The file says CUSTOM, too; today's gcloud takes the flag only together with one for the master's type.
    """
    result = list(arguments)
    end = result.index("--") if "--" in result else len(result)
    own = result[:end]
    given = {word.partition("=")[0] for word in own}
    if "--config" in given and not given & {"--master-machine-type", "--master-image-uri"}:
        for index, word in enumerate(own):
            name, _, value = word.partition("=")
            is_split = word == "--scale-tier" and index + 1 < end
            if name == "--scale-tier" and (own[index + 1] if is_split else value).upper() == "CUSTOM":
                del result[index : index + (2 if is_split else 1)]
                break
    return result


def gcloud(arguments: Sequence[str]) -> list[str] | str:
    """The arguments of `mle` that do the same, or what to print."""
    flags, words = _split_globals(arguments, _GCLOUD_GLOBALS)
    words = [word for word in words[:1] if word not in _TRACKS] + list(words[1:])
    kept = [part for flag in flags if flag[0] in _KEPT_GLOBALS for part in flag]
    quiet = [] if not any(flag[0] in ("-q", "--quiet") for flag in flags) else ["--quiet"]
    match words:
        case ["ai-platform" | "ml-engine", *rest]:
            return [*kept, *quiet, *rest]
        case ["storage", *rest]:
            return [*kept, *quiet, "storage", *rest]
        case ["config", "get-value" | "get", "project" | "core/project", *_]:
            return os.environ.get("CLOUDSDK_CORE_PROJECT", "")
        case ["config", "list", *_]:
            return f"[core]\nproject = {os.environ.get('CLOUDSDK_CORE_PROJECT', '')}"
        case ["config" | "auth" | "services" | "components" | "init", *_]:
            return f"gcloud {' '.join(words)}: nothing to do, the engine needs no account and no configuration."
        case ["version" | "--version" | "info", *_]:
            return "Enginehouse serves gcloud ai-platform, ml-engine and storage; no Cloud SDK is installed."
        case _:
            raise InvalidArgument(
                f"gcloud {' '.join(words[:3])} needs the Cloud SDK, which is not installed. Served without it: "
                "ai-platform, ml-engine, storage, config get-value project, auth."
            )


def gsutil(arguments: Sequence[str]) -> list[str] | str:
    """The arguments of `mle` that do the same, or what to print."""
    flags, words = _split_globals(arguments, _GSUTIL_GLOBALS)
    match words:
        case ["version" | "-v", *_] | []:
            return "Enginehouse serves gsutil's commands; no Cloud SDK is installed."
        case ["config" | "help" | "web" | "cors" | "versioning", *_]:
            return f"gsutil {words[0]}: nothing to do."
        case [name, *rest] if name in _GSUTIL_COMMANDS:
            quiet = ["--quiet"] if any(flag[0] == "-q" for flag in flags) else []
            return [*quiet, "storage", name, *_gsutil_arguments(name, rest)]
        case _:
            raise InvalidArgument(
                f"gsutil {words[0]} needs the Cloud SDK, which is not installed. Served without it: "
                f"{', '.join(_GSUTIL_COMMANDS)}."
            )


def _gsutil_arguments(name: str, arguments: Sequence[str]) -> list[str]:
    """A gsutil command's own arguments without what has no meaning here."""
    result: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in _GSUTIL_DROPPED.get(name, ()):
            rest = rest[1:]
        elif word in _GSUTIL_DROPPED_FLAGS.get(name, ()):
            continue
        elif len(word) > 2 and word.startswith("-") and not word.startswith("--") and word[1:].isalpha():
            rest = [f"-{letter}" for letter in word[1:]] + rest  # -rd is -r -d
        else:
            result.append(_GSUTIL_RENAMED.get((name, word), word))
    return result


def _split_globals(arguments: Sequence[str], with_value: set[str]) -> tuple[list[list[str]], list[str]]:
    """The flags before the first word, each with its value, and the rest."""
    flags: list[list[str]] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("--version",):
        flag = rest.pop(0)
        flags.append([flag, rest.pop(0)] if flag in with_value and rest else [flag])
    return flags, rest


if __name__ == "__main__":
    raise SystemExit(main())
