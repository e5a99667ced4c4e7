"""Writing records: Arrow batches, encoded as `tf.train.Example` by tfx-bsl's coder, into TFRecord shards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

SHARD_BYTES = 100 * 2**20
"""A shard is closed when it holds this much: large enough to be read in one sweep, small enough to be shared out."""


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
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    encoder = RecordBatchToExamplesEncoder()
    unnamed: list[Path] = []
    examples, room = 0, 0
    with contextlib.ExitStack() as current:
        for batch in batches:
            for example in encoder.encode(_as_lists(batch)):
                if room <= 0:
                    current.close()
                    # How many shards there will be is known at the end only: until then a name without the total.
                    unnamed.append(folder / f"{split}.tfrecord-{len(unnamed):05d}")
                    writer = current.enter_context(tf.io.TFRecordWriter(str(unnamed[-1])))
                    room = shard_bytes
                writer.write(example)
                examples += 1
                room -= len(example)
    named = [path.with_name(f"{path.name}-of-{len(unnamed):05d}") for path in unnamed]
    for before, after in zip(unnamed, named, strict=True):
        os.replace(before, after)
    return Written(tuple(path.name for path in named), examples)


def _as_lists(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same batch with the list columns that the coder wants: it knows neither plain columns nor fixed sizes."""
    lists = []
    for column in batch.columns:
        fixed = pa.types.is_fixed_size_list(column.type)
        values, size = (column.flatten(), column.type.list_size) if fixed else (column, 1)
        offsets = pa.array(range(0, (len(column) + 1) * size, size) if size else [0] * (len(column) + 1), pa.int64())
        lists.append(pa.LargeListArray.from_arrays(offsets, values))
    return pa.RecordBatch.from_arrays(lists, names=batch.schema.names)
