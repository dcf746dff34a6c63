"""The program of `containers.FakePodman`; it keeps what it knows in files beside itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

_HOME = Path(__file__).absolute().parent
_TAKES_VALUE = {
    "--name",
    "--network",
    "--log-driver",
    "--env",
    "--volume",
    "--memory",
    "--cpus",
    "--device",
    "--gpus",
    "--entrypoint",
    "--publish",
    "--env-file",
}
_NEVER = "0001-01-01 00:00:00 +0000 UTC"


def main(arguments: list[str]) -> None:
    """Do what the command line asks."""
    with (_HOME / "said").open("a") as said:
        said.write(json.dumps(arguments) + "\n")
    match arguments:
        case ["info", *_]:
            print("{}")
        case ["image", "inspect", *_, name]:
            print(json.dumps(_image(name).get("cmd")))
        case ["pull", name]:
            _fail(f"initializing source: name unknown: {name}")
        case ["run", *rest]:
            _run(rest)
        case ["inspect", _, wanted, name]:
            known = _container(name)
            told = {"StartedAt": known["started"], "Pid": known["pid"], "OOMKilled": str(known["oom"]).lower()}
            print(next(value for key, value in told.items() if key in wanted))
        case ["kill", name]:
            _kill(name, signal.SIGKILL)
        case ["rm", "--force", name]:
            _file(name).unlink(missing_ok=True)
        case _:
            _fail(f"unknown: {arguments}")


def _run(arguments: list[str]) -> None:
    options: dict[str, list[str]] = {}
    while arguments[0].startswith("-"):
        option = arguments.pop(0)
        options.setdefault(option, []).append(arguments.pop(0) if option in _TAKES_VALUE else "")
    name, image, given = options["--name"][0], _image(arguments[0]), arguments[1:]
    if _file(name).exists():
        _fail(f"the name {name} is in use")
    variables = {each: os.environ[each] for each in options.get("--env", []) if each in os.environ}
    for file in options.get("--env-file", []):
        variables |= dict(line.split("=", 1) for line in Path(file).read_text().splitlines())
    _in_place_of_namespaces(variables, options)
    variables["PATH"] = os.environ["PATH"]
    if entrypoint := options.get("--entrypoint"):
        command = [*entrypoint, *given]
    else:
        command = [*image.get("entrypoint", []), *(given or image.get("cmd", []))]
    _note(name, started=_NEVER, oom=False, pid=0)
    ends, tells = os.pipe()
    if os.fork() == 0:  # the container's monitor, which is nobody's child
        os.setsid()
        if os.fork() == 0:
            _monitor(name, command, variables, tells)
        os._exit(0)
    os.wait()
    os.close(tells)
    signal.signal(signal.SIGTERM, lambda *_: _kill(name, signal.SIGTERM))
    told = os.read(ends, 100)
    sys.exit(int(told) if told else 125)


def _in_place_of_namespaces(variables: dict[str, str], options: dict[str, list[str]]) -> None:
    """Point a model server to the port and the files on the host that it would have in a container."""
    for published in options.get("--publish", []):
        variables["AIP_HTTP_PORT"] = published.split(":")[1]
    for volume in options.get("--volume", []):
        source, target, *_ = volume.split(":")
        if variables.get("AIP_STORAGE_URI") == target:
            variables["AIP_STORAGE_URI"] = source


def _monitor(name: str, command: list[str], variables: dict[str, str], tells: int) -> None:
    try:
        child = subprocess.Popen(command, env=variables, start_new_session=True)
    except OSError as error:
        os.write(2, f"Error: crun: executable file {command[0]} not found: {error.strerror}\n".encode())
        status = 127
    else:
        _note(name, started="2026-01-01 00:00:00 +0000 UTC", pid=child.pid)
        status = child.wait()
        if _file(name).exists():
            _note(name, oom=(_HOME / "oom").exists(), pid=0)
    os.write(tells, str(128 - status if status < 0 else status).encode())


def _kill(name: str, number: signal.Signals) -> None:
    pid = _container(name)["pid"]
    if not pid:
        _fail(f"{name} does not run")
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _image(name: str) -> dict[str, list[str]]:
    images: dict[str, dict[str, list[str]]] = json.loads((_HOME / "images.json").read_text())
    return images.get(name) or _fail(f"{name}: image not known")


def _container(name: str) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(_file(name).read_text())
    except FileNotFoundError:
        _fail(f"no such container: {name}")
    return known


def _note(name: str, **change: object) -> None:
    known = _container(name) if _file(name).exists() else {}
    new = _HOME / f"new-{name}"
    new.write_text(json.dumps(known | change))
    new.rename(_file(name))


def _file(name: str) -> Path:
    return _HOME / f"container-{name}"


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"Error: {text}\n")
    sys.exit(125)


if __name__ == "__main__":
    main(sys.argv[1:])
