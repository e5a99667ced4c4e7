"""Raw files as their publishers pack them, for the synthetic twins: equal contents, equal bytes."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def zipped(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip archive of these files (path within it → bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # Made by its path alone, a member is of the first day of 1980, whenever it is written.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def tarred(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a gzipped tar archive of these files (path within it → bytes)."""
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] = (), *, quote_header: bool = False) -> bytes:
    """A CSV file; None is an empty cell."""
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    if header:
        quoted = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        (quoted if quote_header else plain).writerow(header)
    plain.writerows(rows)
    return text.getvalue().encode()
