"""Blobs in a directory that is not there yet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enginehouse.storage.blobs import BlobDirectory


def test_the_directory_may_come_to_be_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread makes it between the attempt that failed and the look at why."""
    open_file = os.open

    def open_too_early(path: Path, *arguments: int) -> int:
        try:
            return open_file(path, *arguments)
        except FileNotFoundError:
            path.parent.mkdir(parents=True)
            raise

    monkeypatch.setattr(os, "open", open_too_early)
    blobs = BlobDirectory(tmp_path / "blobs")
    with blobs.create() as made:
        made.write(b"content")
    assert blobs.path(made.blob).read_bytes() == b"content"


def test_a_link_to_a_blob_that_is_gone_is_refused(tmp_path: Path) -> None:
    blobs = BlobDirectory(tmp_path / "blobs")
    with pytest.raises(FileNotFoundError):
        blobs.link("ab" + "0" * 30)
