"""Writing records: Arrow batches, encoded as `tf.train.Example` by tfx-bsl's coder, into TFRecord shards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

SHARD_BYTES = 100 * 2**20
"""A shard is closed when it holds this much: large enough to be read in one sweep, small enough to be shared out."""

FRAME = 16
"""Bytes that TFRecord puts around each example: its length and two checksums."""


@dataclass(frozen=True)
class Written:
    """What was written for one split."""

    shards: tuple[str, ...]
    """File names in the order of the examples."""
    examples: int


def write(folder: Path, split: str, batches: Iterable[pa.RecordBatch], shard_bytes: int = SHARD_BYTES) -> Written:
    """Write one split, one batch at a time, so that memory stays flat.

    The order of the examples is kept from shard to shard, and where a shard ends follows from the examples alone: equal
    batches give equal files on any machine.

    Args:
        folder: An existing folder.
        split: Name of the split: `train` is written to `train.tfrecord-00000-of-00002` and so on.
        batches: Examples, one column for each feature: a plain array, or a list of equal length for a vector.
        shard_bytes: Size from which a shard is closed.

    Returns:
        The files and the number of examples; no file if there is no example.
    """
    import tensorflow as tf

    unnamed: list[Path] = []
    examples, room = 0, 0
    with contextlib.ExitStack() as current:
        for batch in batches:
            for example in encoded(batch):
                if room <= 0:
                    current.close()
                    # How many shards there will be is known at the end only: until then a name without the total.
                    unnamed.append(folder / f"{split}.tfrecord-{len(unnamed):05d}")
                    writer = current.enter_context(tf.io.TFRecordWriter(str(unnamed[-1])))
                    room = shard_bytes
                writer.write(example)
                examples += 1
                room -= len(example) + FRAME
    named = [path.with_name(f"{path.name}-of-{len(unnamed):05d}") for path in unnamed]
    for before, after in zip(unnamed, named, strict=True):
        os.replace(before, after)
    return Written(tuple(path.name for path in named), examples)


def encoded(batch: pa.RecordBatch) -> Iterator[bytes]:
    """Each row as a serialised `tf.train.Example`, the same bytes each time.

    The coder puts the features of an example in a new random order each time (protocol buffers promise none for maps),
    so it is given one feature at a time, in the order of their names. What it makes of them is joined: by the rules of
    the format, and to every reader of it, two messages in a row are one message with the fields of both.
    """
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    encoder = RecordBatchToExamplesEncoder()
    names = sorted(batch.schema.names)
    columns = [encoder.encode(pa.RecordBatch.from_arrays([_as_lists(batch.column(name))], [name])) for name in names]
    return map(b"".join, zip(*columns, strict=True))


def _as_lists(column: pa.Array) -> pa.LargeListArray:
    """The same column as lists of numbers or bytes: the coder knows no plain columns, fixed sizes or strings."""
    fixed = pa.types.is_fixed_size_list(column.type)
    values, size = (column.flatten(), column.type.list_size) if fixed else (column, 1)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = values.cast(pa.large_binary())
    ends = pa.array([row * size for row in range(len(column) + 1)], pa.int64())
    return pa.LargeListArray.from_arrays(ends, values)
