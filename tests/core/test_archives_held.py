"""Packed tars are unpacked and listed once in a process, and read by several at once."""

from __future__ import annotations

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.errors import DataError
from headrace.getting import archives


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


FILES = {f"{k:03d}.txt": bytes([k]) * (1_000 + k) for k in range(100)}


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The archives that were unpacked, in their order."""
    archives._unpacked.cache_clear()
    seen, spooled = [], archives._spooled

    def watched(archive: archives._Archive, stream: io.BufferedIOBase) -> object:
        seen.append(archive.path)
        return spooled(archive, stream)

    monkeypatch.setattr(archives, "_spooled", watched)
    return seen


def read(path: Path) -> dict[str, bytes]:
    return {member.name: member.read() for member in archives.members(path)}


def test_an_archive_is_unpacked_once(tmp_path: Path, unpacked: list[Path]) -> None:
    path = packed(tmp_path / "a.tar.gz", FILES)

    assert read(path) == read(path) == FILES
    assert unpacked == [path]


def test_another_archive_of_the_same_path_is_read_anew(tmp_path: Path, unpacked: list[Path]) -> None:
    path = packed(tmp_path / "a.tar.gz", FILES)
    before = read(path)
    os.replace(packed(tmp_path / "b.tar.gz", {"000.txt": b"other"}), path)

    assert (before, read(path)) == (FILES, {"000.txt": b"other"})
    assert unpacked == [path, path]


def test_what_is_allowed_is_asked_each_time(tmp_path: Path, unpacked: list[Path]) -> None:
    path = packed(tmp_path / "a.tar.gz", FILES)
    read(path)

    with pytest.raises(DataError, match="more than 5 files"):
        next(archives.members(path, archives.Limits(members=5)))


def test_several_read_at_once(tmp_path: Path, unpacked: list[Path]) -> None:
    path = packed(tmp_path / "a.tar.gz", FILES)
    read(path)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, [path] * 8))

    assert found == [FILES] * 8
    assert unpacked == [path]


def test_a_member_is_read_although_other_archives_came_since(tmp_path: Path, unpacked: list[Path]) -> None:
    path = packed(tmp_path / "a.tar.gz", FILES)
    with archives.contents(path) as files:
        for name in "bcd":
            read(packed(tmp_path / f"{name}.tar.gz", FILES))

        assert files["007.txt"].read() == FILES["007.txt"]
