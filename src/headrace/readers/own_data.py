"""Data of the user's own, in any form that can be read, as a source of examples.

- `.csv`, `.tsv`, `.txt` (or packed by gzip), `.parquet`, a folder of them: a column for each column of each feature
- `.npz`: an array for each feature, called like it, or `x` and `y` where there are one input and one target; of each
  split, where they are called by splits as well: `x_train`, `y_train`, `x_test`, `y_test`
- `.tfrecord`, or a folder of them: `tf.train.Example` with the features
- a folder or an archive (zip, tar, tar.gz, …) of `<class>/<file>` or `<split>/<class>/<file>`, where the features are
  an image or a text, and its class as target; for other features, an archive with one table in it

Nothing is read here, nor numpy or pyarrow imported, before it is asked for: every job that names a path is resolved
first.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from headrace.errors import ConfigError, DataError
from headrace.spec import Feature, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.readers.batches import Restartable
    from headrace.readers.cells import Bad

Kind = Literal["table", "arrays", "records", "files"]

_ENDINGS: dict[Kind, str] = {
    "records": r"\.tfrecords?(-\d+-of-\d+)?(\.gz)?",
    "table": r"\.(csv|tsv|txt)(\.(gz|bz2|xz|zip))?|\.parquet",
    "arrays": r"\.npz",
    "files": r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))",
}
"""How the name of a file ends, for each kind."""


def own_data(path: Path, like: Source) -> Source:
    """The user's own data as a source with the features of another one.

    Args:
        path: A file or a folder of any kind that this module knows.
        like: The source whose features it has.

    Returns:
        A source without files and twin, whose `read` finds the data by their name in the raw folder. Where folders or
        files are not called by splits, examples are dealt out 80 to 20 after a shuffle with seed 113, as
        `keras.datasets` does.

    Raises:
        ConfigError: There is no such path, or it is of no kind that these features can be read from.
    """
    path = path.expanduser()
    features = like.features
    trouble = f"There is no file or folder {path}." if not path.exists() else None
    if not trouble and not like.own and not kind_of(path, features):
        trouble = f"{path} is of no kind that {'/'.join(features)} can be read from."
    if trouble:
        raise ConfigError(trouble, expected=f"a source of the workload, or {_accepted(features)}")
    bad: Bad = "null" if like.quarantine else "refuse"

    def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
        return like.own(raw / path.name) if like.own else _splits(raw / path.name, features, bad)

    return Source(title=f"{path.name}, data of your own", features=features, read=read, quarantine=like.quarantine)


def read_own(
    path: Path, features: Mapping[str, Feature], *, bad: Bad = "refuse", targets_required: bool = True
) -> Iterable[pa.RecordBatch]:
    """All examples of the user's own data, in the order in which they lie there.

    Args:
        path: As in `own_data`.
        features: What to read.
        bad: As in `tables.read_table`.
        targets_required: As in `tables.read_table`; files by class always have theirs.

    Raises:
        DataError: It is of no kind that these features can be read from, or can't be read.
    """
    kind = kind_of(path, features)
    if not kind:
        raise DataError(
            f"{path} is of no kind that can be read." if path.exists() else f"There is no file or folder {path}.",
            expected=_accepted(features),
        )
    if kind == "files":
        from headrace.readers.batches import Restartable

        splits = _splits(path, features, bad).values()
        return Restartable(lambda: itertools.chain.from_iterable(splits))
    return _whole(kind, path, features, bad, targets_required)


def kind_of(path: Path, features: Mapping[str, Feature]) -> Kind | None:
    """What a path leads to, as far as names tell."""
    by_class = _by_class(features)
    if path.is_dir():
        inside = list(path.iterdir())
        if by_class and any(item.is_dir() for item in inside):
            return "files"
        kinds = {_ending(item.name) for item in inside if item.suffix != ".txt"}
        return "records" if "records" in kinds else "table" if "table" in kinds else None
    kind = _ending(path.name) if path.exists() else None
    # Without classes that folders could be called by, an archive can only hold a table.
    return "table" if kind == "files" and not by_class else kind


def _ending(name: str) -> Kind | None:
    return next((kind for kind, ending in _ENDINGS.items() if re.search(f"({ending})$", name, re.IGNORECASE)), None)


def _by_class(features: Mapping[str, Feature]) -> bool:
    """Whether there is a file to be read and a class for it."""
    inputs = [feature for feature in features.values() if feature.role == "input" and feature.kind in ("image", "text")]
    return any(feature.dtype == "string" for feature in inputs) and any(
        feature.role == "target" and feature.classes for feature in features.values()
    )


def _accepted(features: Mapping[str, Feature]) -> str:
    files = "; or a folder or an archive of <class>/<file>" if _by_class(features) else ""
    return f"the path of a table (.csv, .tsv, .parquet), of arrays (.npz) or of TFRecords (.tfrecord){files}"


def _splits(path: Path, features: Mapping[str, Feature], bad: Bad) -> Mapping[str, Iterable[pa.RecordBatch]]:
    kind = kind_of(path, features)
    if kind == "files":
        from headrace.readers.folders import files_by_class

        return files_by_class(path, features, bad=bad)
    if kind == "records":
        from headrace.readers.tfrecords import record_splits

        return record_splits(path, features, bad=bad)
    if kind == "arrays":
        from headrace.readers.arrays import splits_of

        called = splits_of(path, features)
        if called:
            return {split: _arrays(path, features, called[split]) for split in called}
    from headrace.readers.splits import split_batches

    return split_batches(read_own(path, features, bad=bad), what=path.name)


def _arrays(path: Path, features: Mapping[str, Feature], called: Mapping[str, str]) -> Restartable:
    """One split of an archive of arrays, read when it is gone through."""
    from headrace.readers.arrays import read_features
    from headrace.readers.batches import Restartable, batches

    return Restartable(lambda: iter(batches(read_features(path, features, called=called))))


def _whole(
    kind: Kind, path: Path, features: Mapping[str, Feature], bad: Bad, targets_required: bool
) -> Iterable[pa.RecordBatch]:
    if kind == "arrays":
        from headrace.readers.arrays import read_features, splits_of
        from headrace.readers.batches import Restartable, batches

        called = splits_of(path, features)
        if called:
            return Restartable(lambda: itertools.chain(*(_arrays(path, features, names) for names in called.values())))
        return batches(read_features(path, features, targets_required=targets_required))
    if kind == "records":
        from headrace.readers.tfrecords import read_records

        return read_records(path, features, bad=bad, targets_required=targets_required)
    from headrace.readers.tables import read_table

    return read_table(path, features, bad=bad, targets_required=targets_required)
