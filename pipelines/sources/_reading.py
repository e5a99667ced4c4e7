"""What several data sets have in common when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.readers.batches import Arrays, Restartable

KERAS_DATASETS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"


def each_by_itself(splits: Sequence[str], read: Callable[[str], Arrays]) -> dict[str, Restartable]:
    """Split → batches of the arrays that `read` gives for it, read when they are gone through and not before."""
    from headrace.readers.batches import Restartable, batches

    def make(split: str) -> Iterator[pa.RecordBatch]:
        return iter(batches(read(split)))

    return {split: Restartable(partial(make, split)) for split in splits}


def cut(arrays: Arrays, split: str, **shares: float) -> dict[str, Any]:
    """One split of examples that have an order: the first share of them, the next one, the rest.

    Args:
        arrays: All examples.
        split: Which of the splits.
        shares: Split → its share, rounded down; the last one gets what is left.
    """
    (examples,) = {len(values) for values in arrays.values()}
    counts = {name: int(examples * share) for name, share in shares.items()}
    start = sum(counts[name] for name in list(shares)[: list(shares).index(split)])
    end = examples if split == list(shares)[-1] else start + counts[split]
    return {name: values[start:end] for name, values in arrays.items()}


def members(path: Path) -> tuple[str, ...]:
    """The paths of an archive's files, listed once as long as it doesn't change: a tar is unpacked for that.

    Raises:
        DataError: There is no such archive, or it is damaged.
    """
    from headrace.errors import DataError

    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path} can't be read.", received=error.strerror) from error
    return _members(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _members(path: Path, _time: int, _size: int) -> tuple[str, ...]:
    from headrace.getting.archives import contents

    with contents(path) as files:
        return tuple(files)


def held_out(names: Sequence[str], share: float, seed: int) -> list[str]:
    """The last share of some names, after Python's own shuffle: as the book holds files out."""
    import random

    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    return shuffled[len(shuffled) - int(share * len(shuffled)) :]


def mapped(batches: Restartable, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Restartable:
    """The same batches, each with the columns that `change` makes of its columns (Arrow arrays by name)."""
    import pyarrow as pa

    from headrace.readers.batches import Restartable

    def make() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            yield pa.RecordBatch.from_pydict(dict(change(columns)))

    return Restartable(make)
