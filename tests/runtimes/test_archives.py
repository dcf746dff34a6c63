import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from enginehouse.runtimes import archives
from enginehouse.runtimes.archives import content_hash, read_archive, write_members
from enginehouse.runtimes.errors import PackageError
from enginehouse.testing.packages import make_sdist, make_wheel


def tar_with(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, 1 if kind == tarfile.REGTYPE else 0
    return member


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (tar_member("../evil.py"), "'../evil.py', which lies outside"),
        (tar_member("p/../../evil.py"), "lies outside"),
        (tar_member("/etc/evil"), "lies outside"),
        (tar_member("p/link", tarfile.SYMTYPE, "/etc/passwd"), "the link 'p/link'"),
        (tar_member("p/hard", tarfile.LNKTYPE, "p/a"), "the link 'p/hard'"),
        (tar_member("p/fifo", tarfile.FIFOTYPE), "the device 'p/fifo'"),
    ],
)
def test_tar_that_tries_to_escape_is_refused(tmp_path: Path, member: tarfile.TarInfo, text: str) -> None:
    path = tar_with(tmp_path / "p-1.tar.gz", tar_member("p/a"), member)
    with pytest.raises(PackageError, match=r"p-1\.tar\.gz holds") as error:
        read_archive(path)
    assert text in str(error.value)


@pytest.mark.parametrize("name", ["../evil.py", "a/../../evil.py", "/evil.py"])
def test_zip_that_tries_to_escape_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(PackageError, match="which lies outside of it"):
        read_archive(path)


def test_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    info = zipfile.ZipInfo("p/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(PackageError, match="the link 'p/link'"):
        read_archive(path)


@pytest.mark.parametrize("name", ["p-1.tar.gz", "p-1-py3-none-any.whl"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped"])
def test_unreadable_archive_is_told(tmp_path: Path, name: str, damage: str) -> None:
    make = make_wheel if name.endswith(".whl") else make_sdist
    whole = make(tmp_path / "whole", {"trainer/task.py": "x = 1\n" * 500}).read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    path = tmp_path / name
    path.write_bytes({"empty": b"", "text": b"hello", "cut": whole[:-80], "flipped": flipped}[damage])
    with pytest.raises(PackageError, match="can't be read"):
        read_archive(path)


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"The package p\.whl is not there"):
        read_archive(tmp_path / "p.whl")


def test_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1000)
    path = make_sdist(tmp_path, {"trainer/data.txt": "x" * 2000})
    with pytest.raises(PackageError, match="unpacks to more than"):
        read_archive(path)


def test_hash_is_of_names_and_bytes_alone(tmp_path: Path) -> None:
    def sdist(folder: str, compression: str, mtime: int, text: str = "a", mode: int = 0o644) -> str:
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / f"p.tar.{compression}"
        with tarfile.open(path, f"w:{compression}") as archive:
            info = tarfile.TarInfo("p/setup.py")
            info.size, info.mtime, info.mode = len(text), mtime, mode
            archive.addfile(info, io.BytesIO(text.encode()))
        return content_hash(read_archive(path))

    same = {sdist("1", "gz", 1), sdist("2", "gz", 2), sdist("3", "bz2", 3)}
    assert len(same) == 1
    assert len(same | {sdist("4", "gz", 1, "b"), sdist("5", "gz", 1, mode=0o755)}) == 3


def test_written_files_keep_content_and_mode(tmp_path: Path) -> None:
    members = {"a/b/c.sh": archives.Member(b"#!", True), "a/d.txt": archives.Member(b"d")}
    write_members(members, tmp_path)
    assert (tmp_path / "a/b/c.sh").stat().st_mode & 0o111 and not (tmp_path / "a/d.txt").stat().st_mode & 0o111
    assert (tmp_path / "a/d.txt").read_bytes() == b"d"
