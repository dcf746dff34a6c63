"""Reading a setup.py must give what setuptools gives, or nothing at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from enginehouse.runtimes.archives import Member, write_members
from enginehouse.runtimes.setup_script import copyable_files, find_packages

setuptools = pytest.importorskip("setuptools", reason="setuptools is the oracle of these tests")

FILES = {
    "trainer/__init__.py": "",
    "trainer/task.py": "print(1)",
    "trainer/data/a.csv": "1",
    "trainer/data/b.json": "2",
    "trainer/data/.hidden.csv": "3",
    "trainer/data/deep/c.csv": "4",
    "trainer/sub/__init__.py": "",
    "trainer/sub/model.py": "",
    "trainer/no_package/x.py": "",
    "src/other/__init__.py": "",
    "src/other/thing.py": "",
    "tests/__init__.py": "",
    "tests/test_it.py": "",
    "single.py": "",
    "README.md": "hello",
    "trainer.egg-info/SOURCES.txt": "setup.py\ntrainer/__init__.py\ntrainer/data/a.csv\ntrainer/data/deep/c.csv",
}
HEAD = "from setuptools import find_packages, setup\n"

READ = {
    "gcloud": HEAD
    + "if __name__ == '__main__':\n  setup(name='trainer', packages=find_packages(include=['trainer']))\n",
    "all packages": HEAD + "setup(name='trainer', version='0.1', packages=find_packages())",
    "module": "import setuptools\nsetuptools.setup(name='t', version='1', packages=setuptools.find_packages())",
    "renamed": "from setuptools import setup as s\ns(name='t', packages=['trainer'])",
    "distutils": "from distutils.core import setup\nsetup(name='t', packages=['trainer', 'trainer.sub'])",
    "variables": '"""Docs."""\nfrom __future__ import annotations\nimport os\n' + HEAD + "NAME = 'tra' + 'iner'\n"
    "REQUIRED = ['numpy>=1.0', 'tqdm']\nsetup(name=NAME, packages=[NAME], install_requires=REQUIRED + ['six'],\n"
    "description='x', author='me', zip_safe=False, python_requires='>=3.6', extras_require={'x': ['y']})",
    "exclude": HEAD + "setup(name='t', packages=find_packages(exclude=['tests', 'tests.*', '*.sub']))",
    "src": HEAD + "setup(name='t', package_dir={'': 'src'}, packages=find_packages('src'), py_modules=[])",
    "src where": HEAD + "setup(name='t', package_dir={'': 'src'}, packages=find_packages(where='src'))",
    "py_modules": HEAD + "setup(name='t', py_modules=['single'], packages=[])",
    "package data": HEAD + "setup(name='t', packages=['trainer'], package_data={'trainer': ['data/*.csv']})",
    "package data of all": HEAD
    + "setup(name='t', packages=find_packages(), package_data={'': ['*.json', 'data/*']})",
    "package data deep": HEAD + "setup(name='t', packages=['trainer'], package_data={'trainer': ['**/*.csv']})",
    "listed data": HEAD + "setup(name='trainer', packages=find_packages(), include_package_data=True)",
    "requirements as text": HEAD
    + "setup(name='t', packages=['trainer'], install_requires='''\nnumpy\n# no\nsix\n''')",
}

NOT_READ = {
    "open": HEAD + "setup(name='t', packages=['trainer'], long_description=open('README.md').read())",
    "function": HEAD + "def f():\n  return 'x'\nsetup(name=f(), packages=['trainer'])",
    "cmdclass": HEAD + "setup(name='t', packages=['trainer'], cmdclass={'build': 1})",
    "extension": "from setuptools import Extension, setup\nsetup(ext_modules=[Extension('a', ['a.c'])], packages=[])",
    "scripts": HEAD + "setup(name='t', packages=['trainer'], entry_points={'console_scripts': ['t=trainer:main']})",
    "data_files": HEAD + "setup(name='t', packages=['trainer'], data_files=[('x', ['README.md'])])",
    "discovery": HEAD + "setup(name='t')",
    "unknown argument": HEAD + "setup(name='t', packages=['trainer'], use_scm_version=True)",
    "double star": HEAD + "o = {'name': 't'}\nsetup(packages=['trainer'], **o)",
    "twice": HEAD + "setup(name='t', packages=['trainer'])\nsetup(name='t', packages=['trainer'])",
    "none": "x = 1",
    "conditional": HEAD + "import sys\nif sys.version_info > (3,):\n  setup(name='t', packages=['trainer'])",
    "missing package": HEAD + "setup(name='t', packages=['nothing'])",
    "other import": "import numpy\n" + HEAD + "setup(name='t', packages=['trainer'])",
    "pip": "from pip.req import parse_requirements\n" + HEAD + "setup(name='t', packages=['trainer'])",
    "syntax": "print 'hello'",
    "no text": "\x00",
    "augmented": HEAD + "r = []\nr += ['x']\nsetup(name='t', packages=['trainer'], install_requires=r)",
    "package dir of one": HEAD + "setup(name='t', package_dir={'trainer': 'src'}, packages=['trainer'])",
    "setup_requires": HEAD + "setup(name='t', packages=['trainer'], setup_requires=['x'])",
    "shadowed": HEAD + "find_packages = ['x']\nsetup(name='t', packages=find_packages())",
    "format": HEAD + "setup(name='t{}'.format(1), packages=['trainer'])",
}  # fmt: skip


def members(script: str, **more: str) -> dict[str, Member]:
    files = {**FILES, "setup.py": script, **more}
    return {name: Member(text.encode()) for name, text in files.items()}


@pytest.mark.parametrize("script", READ.values(), ids=READ)
def test_copies_what_setuptools_would_build(script: str, tmp_path: Path) -> None:
    copyable = copyable_files(members(script))
    assert copyable is not None
    write_members(members(script), tmp_path / "source")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(command, cwd=tmp_path / "source", check=True, capture_output=True)
    built = {
        path.relative_to(tmp_path / "built").as_posix(): path.read_bytes()
        for path in (tmp_path / "built").rglob("*")
        if path.is_file()
    }
    assert {name: member.data for name, member in copyable.files.items()} == built


def test_reads_name_version_and_requirements() -> None:
    copyable = copyable_files(members(READ["variables"]))
    assert copyable is not None
    assert (copyable.name, copyable.version) == ("trainer", "")
    assert copyable.requires == ("numpy>=1.0", "tqdm", "six") and copyable.python_requires == (">=3.6",)
    text = copyable_files(members(READ["requirements as text"]))
    assert text is not None and text.requires == ("numpy", "six")


@pytest.mark.parametrize("script", NOT_READ.values(), ids=NOT_READ)
def test_leaves_the_rest_to_a_build(script: str) -> None:
    assert copyable_files(members(script)) is None


@pytest.mark.parametrize(
    ("name", "text", "plain"),
    [
        ("setup.cfg", "[egg_info]\ntag_build =\n", True),
        ("setup.cfg", "[options]\npackages = find:\n", False),
        ("setup.cfg", "broken", False),
        ("pyproject.toml", "[build-system]\nrequires = ['setuptools>=40', 'wheel']\n", True),
        ("pyproject.toml", "[build-system]\nrequires=['setuptools']\nbuild-backend='setuptools.build_meta'\n", True),
        ("pyproject.toml", "[tool.black]\nline-length = 88\n", True),
        ("pyproject.toml", "[project]\nname = 'x'\n", False),
        ("pyproject.toml", "[build-system]\nrequires=['hatchling']\nbuild-backend='hatchling.build'\n", False),
        ("pyproject.toml", "[build-system]\nrequires=['setuptools', 'cython']\n", False),
        ("pyproject.toml", "[tool.setuptools]\npackages = ['x']\n", False),
        ("pyproject.toml", "broken", False),
    ],
)
def test_other_configuration(name: str, text: str, plain: bool) -> None:
    assert (copyable_files(members(READ["all packages"], **{name: text})) is not None) is plain


@pytest.mark.parametrize(
    "arguments",
    [{}, {"exclude": ["tests*"]}, {"include": ["trainer", "trainer.*"]}, {"where": "src"}, {"where": "trainer"}],
)
def test_finds_the_packages_that_setuptools_finds(arguments: dict[str, object], tmp_path: Path, monkeypatch) -> None:
    write_members(members(""), tmp_path)
    monkeypatch.chdir(tmp_path)
    assert find_packages(list(FILES), **arguments) == sorted(setuptools.find_packages(**arguments))
