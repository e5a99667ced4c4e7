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


def prepared(raw: Path, name: str, splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write a data set as TensorFlow Datasets would prepare it: its builder's features and format, in its folder.

    Args:
        raw: The folder of raw files.
        name: The builder, with its version.
        splits: Split of TFDS → examples, as the builder gives them to be written.
    """
    import tensorflow_datasets as tfds

    info = tfds.builder(name, data_dir=raw).info
    Path(info.data_dir).mkdir(parents=True)
    # One shard for each split; what is drawn here is small.
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=1_000_000)
    writer.initialize_splits(list(splits))
    for split, examples in splits.items():
        writer.add_examples({split: list(examples)})
    writer.close_all()


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] = (), *, quote_header: bool = False) -> bytes:
    """A CSV file; None is an empty cell."""
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    if header:
        quoted = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        (quoted if quote_header else plain).writerow(header)
    plain.writerows(rows)
    return text.getvalue().encode()
