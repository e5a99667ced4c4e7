"""Writing records: Arrow batches, encoded as `tf.train.Example` in a few threads, into TFRecord shards.

Files of a split `train`: the shards `train.tfrecord-00000-of-00002` and so on, and `train.lengths`, the number of bytes
of each record in their order (uint32, little-endian), by which any record is found without reading those before it.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from headrace.errors import DataError
from headrace.placing.dividing import in_threads, processors
from headrace.spec import Feature, Records

if TYPE_CHECKING:
    import pyarrow as pa

ANEW = "run the workload again: records that were damaged are found and made anew"

Stored: TypeAlias = Literal["raw", "png", "jpeg"] | None
"""How a feature of type uint8 is stored; None for the other types, which have one way only."""

MOST_THREADS = 8
"""Threads that encode, at most. Most of the time they work without Python's lock; the checksums need it, so that more
would not help."""
ROWS, BYTES = 8192, 4 * 2**20
"""What is encoded at once, at most: few enough to stay in a processor's cache, many enough to pay for the calls."""
QUALITY = 95
"""Of JPEG, from 0 to 100."""
COMPRESSION = 2
"""Of PNG, from 0 to 9: measured on photographs three times as fast as zlib's usual 6, and 7 % larger."""
LARGEST = 2**31 - 1
"""Bytes of an example, which protobuf can't hold more of."""


@dataclass(frozen=True)
class Written:
    """What was written for one split."""

    shards: tuple[str, ...]
    """File names in the order of the examples."""
    lengths: tuple[int, ...]
    """Examples in each of them."""
    bytes: int
    """Size of these files."""

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(self.lengths)


def stored(layout: Mapping[str, Feature], kept: Records) -> dict[str, Stored]:
    """How each feature of a record is stored.

    Images and masks are as `kept` says, where PNG (1, 3 or 4 channels) or JPEG (1 or 3) can hold them, masks never as
    JPEG; everything else of type uint8 is stored as it is.
    """
    return {name: _stored(feature, kept.images) for name, feature in layout.items()}


def _stored(feature: Feature, images: Literal["raw", "png", "jpeg"]) -> Stored:
    if feature.dtype != "uint8":
        return None
    if feature.kind not in ("image", "mask") or len(feature.shape) != 3 or feature.ragged:
        return "raw"
    if images == "jpeg" and feature.kind == "mask":
        images = "png"
    channels = {"raw": (), "png": (1, 3, 4), "jpeg": (1, 3)}[images]
    return images if feature.shape[2] in channels else "raw"


def write(
    folder: Path,
    split: str,
    batches: Iterable[pa.RecordBatch],
    layout: Mapping[str, Feature],
    kept: Records = Records(),  # noqa: B008 (frozen)
    *,
    workers: int | None = None,
) -> Written:
    """Write one split, a few batches at a time, so that memory stays flat.

    The order of the examples is kept from shard to shard, and where a shard ends follows from the examples alone: equal
    examples give equal files, however they are batched and however many threads there are.

    Args:
        folder: An existing folder.
        split: Name of the split.
        batches: Examples, as `headrace.readers.batches` describes them.
        layout: The features to store.
        kept: How images are stored, whether the files are compressed, and when a shard is closed.
        workers: Threads that encode while the next batch is made and the last one is written; default: one for each
            processor, up to 8.

    Returns:
        The files and how many examples they hold; no shard if there is no example.

    Raises:
        DataError: An example is too large to be stored. After this or any other error no file of the split is left.
    """
    work = partial(framed, layout=layout, kept=kept)
    return store(folder, split, in_threads(work, small(batches), workers or min(processors(), MOST_THREADS)), kept)


def framed(batch: pa.RecordBatch, layout: Mapping[str, Feature], kept: Records) -> pa.LargeBinaryArray:
    """The examples of a batch as records that stand in a file; arguments as for `write`."""
    from headrace.records import framing
    from headrace.records.encoding import encode

    return framing.framed(encode(_with_files(batch, layout, stored(layout, kept)), layout))


def store(folder: Path, split: str, records: Iterable[pa.LargeBinaryArray], kept: Records) -> Written:
    """Write one split whose records were made by `framed`; arguments, result and errors as for `write`."""
    with _Shards(folder, split, kept) as shards:
        for some in records:
            shards.add(some)
        return shards.finished()


def small(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches cut into what is encoded at once."""
    for batch in batches:
        rows = max(min(ROWS, BYTES * batch.num_rows // max(batch.nbytes, 1)), 1)
        yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def _with_files(
    batch: pa.RecordBatch, layout: Mapping[str, Feature], encodings: Mapping[str, Stored]
) -> pa.RecordBatch:
    """The batch with the bytes of PNG or JPEG files in place of the images that are stored so."""
    import pyarrow as pa

    from headrace.readers.batches import to_arrays

    images = {name: layout[name] for name, encoding in encodings.items() if encoding in ("png", "jpeg")}
    for name, values in to_arrays(batch, images).items():
        files = pa.array(_files(values, encodings[name]), pa.large_binary())
        batch = batch.set_column(batch.schema.get_field_index(name), name, files)
    return batch


def _files(images: Any, encoding: Stored) -> list[bytes]:
    """Images (examples, height, width, channels), uint8, as files."""
    import tensorflow as tf

    if encoding == "png":
        return tf.io.encode_png(images, compression=COMPRESSION).numpy().tolist()
    return [tf.io.encode_jpeg(image, quality=QUALITY).numpy() for image in images]


class _Shards(contextlib.ExitStack):
    """The files of a split while they are written; an error takes them all away."""

    def __init__(self, folder: Path, split: str, kept: Records) -> None:
        super().__init__()
        self._name = str(folder / f"{split}.tfrecord")
        self._kept = kept
        self._paths: list[Path] = []
        self._counts: list[int] = []
        self._room = 0
        self.push(self._remove)
        self._lengths_path = lengths_path(folder, split)
        self._lengths = self.enter_context(self._lengths_path.open("wb"))
        self._shard = self.enter_context(contextlib.ExitStack())
        self._file: Any = None

    def _remove(self, kind: object, *_: object) -> None:
        if kind or not self._paths:
            for path in (*self._paths, self._lengths_path):
                path.unlink(missing_ok=True)

    def add(self, frames: pa.LargeBinaryArray) -> None:
        """Write some records; a shard ends with the record that fills it."""
        import numpy as np

        from headrace.records.encoding import content
        from headrace.records.framing import FRAME

        data, splits = content(frames)
        lengths = np.diff(splits) - FRAME
        if lengths.max() > LARGEST:
            raise DataError("An example is too large to be stored.", expected="less than 2 GiB", received=lengths.max())
        self._lengths.write(lengths.astype("<u4").tobytes())
        row = 0
        while row < len(frames):
            if self._room <= 0:
                self._open()
            end = min(int(np.searchsorted(splits, splits[row] + self._room)), len(frames))
            self._file.write(data[splits[row] : splits[end]])
            self._room -= int(splits[end] - splits[row])
            self._counts[-1] += end - row
            row = end

    def _open(self) -> None:
        self._shard.close()
        # How many shards there will be is known at the end only: until then a name without the total.
        self._paths.append(Path(f"{self._name}-{len(self._paths):05d}"))
        self._file = self._shard.enter_context(self._paths[-1].open("wb"))
        if self._kept.compression == "gzip":
            # Without a name and a time, so that equal contents are equal bytes.
            self._file = self._shard.enter_context(gzip.GzipFile("", "wb", fileobj=self._file, mtime=0))
        self._room = self._kept.shard_bytes
        self._counts.append(0)

    def finished(self) -> Written:
        """Close the files and give them their names."""
        self._shard.close()
        for number, path in enumerate(self._paths):
            self._paths[number] = path.rename(f"{path}-of-{len(self._paths):05d}")
        size = sum(path.stat().st_size for path in self._paths)
        return Written(tuple(path.name for path in self._paths), tuple(self._counts), size)


def lengths_path(folder: Path, split: str) -> Path:
    """The file that holds the number of bytes of each record of a split: uint32, little-endian, in their order."""
    return folder / f"{split}.lengths"
