"""Reads a setup.py without running it, where that is certain to give what running it would.

Nearly every trainer's setup.py is a few literals: name, version, `packages=find_packages()`,
`install_requires=[…]`. Such a source distribution is installed by copying its packages, in milliseconds; setuptools
takes most of a second to say the same. `copyable_files` returns None at the first thing that it does not know for
certain, and the package is then built the regular way.
"""

from __future__ import annotations

import ast
import configparser
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from enginehouse.runtimes.archives import Member

# Arguments of setup() that change nothing of what is installed but the metadata.
_DESCRIBING = frozenset(
    {
        "name",
        "version",
        "description",
        "long_description",
        "long_description_content_type",
        "author",
        "author_email",
        "maintainer",
        "maintainer_email",
        "url",
        "download_url",
        "project_urls",
        "license",
        "license_files",
        "classifiers",
        "keywords",
        "platforms",
        "provides",
        "obsoletes",
        "zip_safe",
        "test_suite",
        "tests_require",
        "extras_require",
    }
)
_DECIDING = frozenset(
    {
        "packages",
        "py_modules",
        "package_dir",
        "package_data",
        "include_package_data",
        "install_requires",
        "python_requires",
        "setup_requires",
        "entry_points",
        "scripts",
        "data_files",
        "ext_modules",
        "cmdclass",
        "namespace_packages",
    }
)
_MUST_BE_EMPTY = (
    "setup_requires",
    "entry_points",
    "scripts",
    "data_files",
    "ext_modules",
    "cmdclass",
    "namespace_packages",
)
_HARMLESS_IMPORTS = frozenset({"setuptools", "distutils.core", "distutils", "os", "sys", "io", "__future__"})


class _NotPlainError(Exception):
    """The script does something that only running it can tell."""


@dataclass(frozen=True)
class Copyable:
    """What running the setup script would install."""

    name: str
    version: str
    requires: tuple[str, ...]
    python_requires: tuple[str, ...]
    files: Mapping[str, Member]


def copyable_files(members: Mapping[str, Member]) -> Copyable | None:
    """What a source distribution installs, or None if only a build can tell.

    Args:
        members: its files, by their names below its folder (`setup.py`, `trainer/task.py`).
    """
    try:
        _check_configuration(members)
        arguments = _setup_arguments(members)
        return _plan(arguments, members)
    except Exception:  # whatever is odd about these files, the build will say it better
        return None


def _check_configuration(members: Mapping[str, Member]) -> None:
    """setup.cfg and pyproject.toml may only hold what setuptools writes there by itself."""
    if "setup.cfg" in members:
        parser = configparser.RawConfigParser()
        parser.read_string(members["setup.cfg"].data.decode())
        _require(set(parser.sections()) <= {"egg_info", "bdist_wheel"})
    if "pyproject.toml" in members:
        project = tomllib.loads(members["pyproject.toml"].data.decode())
        build = project.pop("build-system", {})
        _require("project" not in project and "setuptools" not in project.get("tool", {}))
        _require(build.get("build-backend", "setuptools.build_meta").startswith("setuptools.build_meta"))
        _require("backend-path" not in build)
        _require(
            {text.split(">")[0].split("=")[0].strip() for text in build.get("requires", [])}
            <= {"setuptools", "wheel"}
        )


def _setup_arguments(members: Mapping[str, Member]) -> dict[str, Any]:
    """The evaluated keyword arguments of the script's one setup() call."""
    script = _Script(members)
    script.run(ast.parse(members["setup.py"].data).body)
    _require(len(script.calls) == 1)
    return script.calls[0]


class _Script:
    """Walks the statements of a setup.py that consists of imports, literal assignments and setup(…)."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members
        self._variables: dict[str, Any] = {"__name__": "__main__"}
        self._functions: dict[str, str] = {}
        self._modules: set[str] = set()
        self.calls: list[dict[str, Any]] = []

    def run(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Import(names):
                    for alias in names:
                        _require(alias.name in _HARMLESS_IMPORTS)
                        if alias.name == "setuptools":
                            self._modules.add(alias.asname or alias.name)
                case ast.ImportFrom(module=module, names=names, level=0):
                    _require(module in _HARMLESS_IMPORTS)
                    for alias in names:
                        if alias.name in ("setup", "find_packages") and module != "os":
                            self._functions[alias.asname or alias.name] = alias.name
                case ast.Expr(ast.Constant()):
                    pass
                case ast.Assign([ast.Name(name)], value) if name not in self._functions:
                    self._variables[name] = self._evaluate(value)
                case ast.If(test, body, []) if self._is_main(test):
                    self.run(body)
                case ast.Expr(ast.Call(args=[], keywords=keywords) as call) if self._function(call) == "setup":
                    _require(all(keyword.arg for keyword in keywords))
                    self.calls.append({keyword.arg or "": self._evaluate(keyword.value) for keyword in keywords})
                case _:
                    raise _NotPlainError

    def _is_main(self, test: ast.expr) -> bool:
        match test:
            case ast.Compare(ast.Name("__name__"), [ast.Eq()], [ast.Constant("__main__")]):
                return True
        return False

    def _function(self, call: ast.Call) -> str | None:
        match call.func:
            case ast.Name(name):
                return self._functions.get(name)
            case ast.Attribute(ast.Name(module), name) if module in self._modules:
                return name
        return None

    def _evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name) if name in self._variables:
                return self._variables[name]
            case ast.List(elements) | ast.Tuple(elements):
                return [self._evaluate(element) for element in elements]
            case ast.Dict(keys, values):
                _require(None not in keys)
                return {
                    self._evaluate(key): self._evaluate(value) for key, value in zip(keys, values, strict=True) if key
                }
            case ast.BinOp(left, ast.Add(), right):
                return self._evaluate(left) + self._evaluate(right)
            case ast.Call() as call if self._function(call) == "find_packages":
                arguments = [self._evaluate(argument) for argument in call.args]
                keywords = {keyword.arg or "": self._evaluate(keyword.value) for keyword in call.keywords}
                return find_packages(list(self._members), *arguments, **keywords)
        raise _NotPlainError


def find_packages(
    files: Sequence[str], where: str = ".", exclude: Sequence[str] = (), include: Sequence[str] = ("*",)
) -> list[str]:
    """What `setuptools.find_packages` finds in a folder that holds `files`."""
    _require(not isinstance(exclude, str) and not isinstance(include, str))
    prefix = "" if where in (".", "", "./") else where.strip("/") + "/"
    folders = {
        name.removesuffix("__init__.py").rstrip("/") for name in files if name.rpartition("/")[2] == "__init__.py"
    }
    inner = {folder[len(prefix) :] for folder in folders if folder.startswith(prefix)} - {""}
    found = []
    for folder in sorted(inner):
        parts = folder.split("/")
        parents = ["/".join(parts[:count]) for count in range(1, len(parts))]
        name = ".".join(parts)
        if all(parent in inner for parent in parents) and not any("." in part for part in parts):
            wanted = any(fnmatchcase(name, pattern) for pattern in include)
            if wanted and not any(fnmatchcase(name, pattern) for pattern in exclude):
                found.append(name)
    return found


def _plan(arguments: Mapping[str, Any], members: Mapping[str, Member]) -> Copyable:
    _require(set(arguments) <= _DESCRIBING | _DECIDING)
    _require(not any(arguments.get(name) for name in _MUST_BE_EMPTY))
    packages, modules = arguments.get("packages"), arguments.get("py_modules")
    _require(packages is not None or modules is not None)  # without both setuptools discovers by itself
    package_dir = arguments.get("package_dir") or {}
    _require(set(package_dir) <= {""})
    base = package_dir.get("", "").strip("./")
    base = base + "/" if base else ""
    files: dict[str, Member] = {}
    folders = {package.replace(".", "/"): package for package in packages or []}
    for module in modules or []:
        name = module.replace(".", "/") + ".py"
        files[name] = members[base + name]
    for folder, package in folders.items():
        inside = {name[len(base + folder) + 1 :] for name in members if name.startswith(f"{base}{folder}/")}
        _require(bool(inside))
        chosen = {name for name in inside if "/" not in name and _is_code(name)}
        for pattern in _patterns(arguments.get("package_data") or {}, package):
            chosen |= {name for name in inside if _matches(name.split("/"), pattern.split("/"))}
        files.update({f"{folder}/{name}": members[f"{base}{folder}/{name}"] for name in chosen})
    if arguments.get("include_package_data"):
        files.update(_listed_data(_text(arguments.get("name")), base, set(folders), members))
    return Copyable(
        name=_text(arguments.get("name")),
        version=_text(arguments.get("version")),
        requires=_lines(arguments.get("install_requires")),
        python_requires=_lines(arguments.get("python_requires")),
        files=files,
    )


def _is_code(name: str) -> bool:
    return name.endswith((".py", ".pyi")) or name == "py.typed"


def _patterns(package_data: Mapping[str, Any], package: str) -> list[str]:
    patterns: list[str] = []
    for key in ("", "*", package):
        value = package_data.get(key, [])
        patterns += [value] if isinstance(value, str) else list(value)
    _require(not any(character in pattern for pattern in patterns for character in "[]\\"))
    return patterns


def _matches(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """`glob.glob(…, recursive=True)` on the parts of a path."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return _matches(name, pattern[1:]) or (
            bool(name) and not name[0].startswith(".") and _matches(name[1:], pattern)
        )
    if not name or (name[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def _listed_data(name: str, base: str, folders: set[str], members: Mapping[str, Member]) -> dict[str, Member]:
    """The files of SOURCES.txt that lie in a package or below one: what include_package_data means in an sdist."""
    listing = members[re.sub(r"[^A-Za-z0-9.]+", "_", name) + ".egg-info/SOURCES.txt"]
    data: dict[str, Member] = {}
    for file in listing.data.decode().splitlines():
        inner = file[len(base) :]
        parts = inner.split("/")
        inside = any("/".join(parts[:count]) in folders for count in range(1, len(parts)))
        if file.startswith(base) and inside and file in members:
            data[inner] = members[file]
    return data


def _text(value: Any) -> str:
    _require(value is None or isinstance(value, str))
    return value or ""


def _lines(value: Any) -> tuple[str, ...]:
    """Requirements as setuptools takes them: a list, or text with one on each line."""
    lines = value.splitlines() if isinstance(value, str) else list(value or [])
    _require(all(isinstance(line, str) for line in lines))
    return tuple(line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))


def _require(condition: bool) -> None:
    if not condition:
        raise _NotPlainError
