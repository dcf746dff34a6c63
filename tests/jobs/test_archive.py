"""What a package holds, seen without unpacking it."""

import gzip
import io
import tarfile
import zipfile

import pytest

from enginehouse.jobs.archive import UnreadableArchive, read_contents


def sdist(files: dict[str, str]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    buffer.seek(0)
    return buffer


def wheel(files: dict[str, str]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    buffer.seek(0)
    return buffer


def test_an_sdist_lies_in_a_folder_and_maybe_in_src() -> None:
    contents = read_contents(
        sdist(
            {
                "trainer-0.0.0/setup.py": "",
                "trainer-0.0.0/trainer/__init__.py": "",
                "trainer-0.0.0/trainer/task.py": "",
                "trainer-0.0.0/src/other/sub/__init__.py": "",
                "trainer-0.0.0/trainer.egg-info/requires.txt": "\n",
            }
        ),
        "trainer-0.0.0.tar.gz",
    )
    assert contents.modules == {"trainer", "trainer.task", "other.sub"}
    assert contents.top_level == {"trainer", "other"}
    assert not contents.has_requirements
    assert contents.can_run("trainer.task")
    assert not contents.can_run("trainer"), "a package without __main__ can't be run"
    assert not contents.can_run("trainer.tsk")


def test_a_package_with_main_can_be_run() -> None:
    contents = read_contents(wheel({"trainer/__init__.py": "", "trainer/__main__.py": ""}), "t-1-py3-none-any.whl")
    assert contents.can_run("trainer")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"p-1/p.egg-info/requires.txt": "six\n"}, True),
        ({"p-1/PKG-INFO": "Name: p\nRequires-Dist: six\n"}, True),
        ({"p-1/PKG-INFO": "Name: p\n"}, False),
    ],
)
def test_declared_dependencies_are_seen(files: dict[str, str], expected: bool) -> None:
    assert read_contents(sdist(files), "p-1.tar.gz").has_requirements is expected


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"not an archive", "p-1.tar.gz", "damaged"),
        (b"PK\x03\x04 cut", "p-1.whl", "damaged"),
        pytest.param(sdist({"p-1/p.py": "x" * 5000}).getvalue()[:-40], "p-1.tar.gz", "damaged", id="cut short"),
        (b"", "p.exe", "a package is an sdist"),
    ],
)
def test_unreadable_archives_say_why(data: bytes, name: str, words: str) -> None:
    with pytest.raises(UnreadableArchive, match=words):
        read_contents(io.BytesIO(data), name)


@pytest.mark.parametrize("name", ["bomb.tar.gz", "bomb.zip"])
def test_a_bomb_is_refused_before_it_is_unpacked(name: str) -> None:
    """Both claim 3 GiB in a few bytes; reading them over would find them cut off."""
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("p/a.py", "")
        data = bytearray(buffer.getvalue())
        directory = data.index(b"PK\x01\x02")
        data[directory + 24 : directory + 28] = (3 << 30).to_bytes(4, "little")
    else:
        member = tarfile.TarInfo("p-1/a.py")
        member.size = 3 << 30
        with gzip.open(buffer, "wb") as packed:
            packed.write(member.tobuf())
        data = bytearray(buffer.getvalue())
    with pytest.raises(UnreadableArchive, match="more than 2 GiB"):
        read_contents(io.BytesIO(bytes(data)), name)
