"""Reading finished records: what is in them, as a `tf.data` pipeline in any order, or as whole arrays.

Records are read by their position (`headrace.records.positions`), some thousand at a time, and parsed as many at once:
reading them one by one takes six times as long or more. So the batch of any step can be had without those before it.

Where examples are windows of a series (`headrace.windows`), records hold its rows, and all of this is of windows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from headrace.artifacts import read_json, write_json
from headrace.errors import ConfigError, DataError, nearest
from headrace.records.writing import ANEW, Stored, Written
from headrace.spec import Column, Feature, Windows

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from headrace.ragged import Ragged
    from headrace.records.positions import Fault, Reader
    from headrace.windows import Cutter, Windowed

Batch: TypeAlias = "dict[str, tf.Tensor | tf.RaggedTensor]"
"""Name of a feature → tensor of shape (examples, *shape of the feature)."""

INFO = "info.json"
VERSION = 2
"""Of the format of a folder of records."""

MEMORY_SHARE = 0.25
"""Of the machine's memory that examples may take before they are read from their files instead."""
ROWS, BYTES = 2048, 8 * 2**20
"""What is parsed at once, at most: batches smaller than that are cut out of it."""
ALIGNMENT = 64
"""Bytes: where TensorFlow wants the numbers of a tensor to begin."""
_PACKED = 4
"""How many times larger records may be than their compressed files: text is three times as large."""

_MARK = "headrace_records"
"""Stands in the names of our operations, and so in the errors of TensorFlow that come from them."""


@dataclass(frozen=True)
class Info:
    """What a folder of records says of itself."""

    workload: str
    source: str
    data: str
    """`real` or `synthetic`."""
    features: Mapping[str, Feature]
    """The features of an example as a model gets it, that is, after preprocessing; of a window, where it is one."""
    splits: Mapping[str, Written]
    """Split → its files, and how many records each of them holds."""
    encodings: Mapping[str, Stored]
    """How each feature is stored: see `headrace.records.writing.stored`."""
    compression: Literal["none", "gzip"] = "none"
    """Of the files."""
    windows: Windows | None = None
    """How examples are cut out of the records, which are rows of a series then."""
    cut: Mapping[str, int] = field(default_factory=dict)
    """Split → number of windows."""

    @property
    def examples(self) -> dict[str, int]:
        """Split → number of examples."""
        return {split: self.cut.get(split, written.examples) for split, written in self.splits.items()}

    @property
    def rows(self) -> Info:
        """What is stored: the same where an example is a record, else the rows by themselves."""
        from headrace.windows import of_row

        windows = self.windows
        if windows is None:
            return self
        features = {name: of_row(feature, windows) for name, feature in self.features.items()}
        return replace(self, features=features, windows=None, cut={})

    @property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """Split → names of its files, in their order."""
        return {split: written.shards for split, written in self.splits.items()}

    def named(self, role: str) -> dict[str, Feature]:
        """The features that have this role, in their order."""
        return {name: feature for name, feature in self.features.items() if feature.role == role}


def write_info(folder: Path, info: Info) -> None:
    """Write what a folder of records says of itself: `info.json`, and what TensorFlow Datasets needs to read it."""
    from headrace.records.tfds_metadata import write_metadata

    write_json(
        folder / INFO,
        {
            "version": VERSION,
            "workload": info.workload,
            "source": info.source,
            "data": info.data,
            "compression": info.compression,
            "features": {
                name: {
                    **feature.model_dump(mode="json", include=_KEPT),
                    "columns": [column.name for column in feature.columns],
                    "encoding": info.encodings[name],
                }
                for name, feature in info.rows.features.items()
            },
            **({"windows": info.windows.model_dump(mode="json")} if info.windows else {}),
            "splits": {
                split: {
                    "examples": written.examples,
                    "shards": list(written.shards),
                    "lengths": list(written.lengths),
                    "bytes": written.bytes,
                    **({"windows": info.cut[split]} if info.windows else {}),
                }
                for split, written in info.splits.items()
            },
        },
    )
    write_metadata(folder, info)


_KEPT = {"shape", "dtype", "role", "content", "classes", "optional"}
"""Of a feature: what the values mean, without the words about it."""


def read_info(folder: Path) -> Info:
    """What the folder of records says of itself.

    Raises:
        DataError: The folder holds no readable `info.json`, or that of another version.
    """
    found = read_json(folder / INFO)
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise DataError(
            f"{folder} holds no records.",
            expected=f"a readable {INFO} of version {VERSION}",
            received=f"version {found['version']}" if isinstance(found, dict) and "version" in found else None,
            remedy=ANEW,
        )
    features = {}
    for name, entry in found["features"].items():
        columns = tuple(Column(name=column) for column in entry["columns"])
        features[name] = Feature(**{key: entry[key] for key in _KEPT if key in entry}, columns=columns)
    windows = Windows.model_validate(found["windows"]) if "windows" in found else None
    if windows:
        from headrace.windows import of_example

        features = {name: of_example(feature, windows) for name, feature in features.items()}
    return Info(
        workload=found["workload"],
        source=found["source"],
        data=found["data"],
        features=features,
        splits={
            split: Written(tuple(entry["shards"]), tuple(entry["lengths"]), entry["bytes"])
            for split, entry in found["splits"].items()
        },
        encodings={name: entry["encoding"] for name, entry in found["features"].items()},
        compression=found["compression"],
        windows=windows,
        cut={split: entry["windows"] for split, entry in found["splits"].items()} if windows else {},
    )


# ------------------------------------------------------------------------------------------------ reading


def arrays(folder: Path, split: str) -> dict[str, np.ndarray[Any, Any] | Ragged | Windowed]:
    """A whole split in memory, in stored order.

    Returns:
        Name of a feature → array of shape (examples, *shape), `Ragged`, or `Windowed`; images decoded; strings as
        `bytes` objects.

    Raises:
        DataError: There is no such split, or a file is damaged, truncated or missing; the message says where.
    """
    from headrace import windows

    info = read_info(folder)
    rows = _rows(folder, split, info.rows)
    return windows.examples(rows, info.features, info.windows, info.examples[split]) if info.windows else rows


def _rows(folder: Path, split: str, info: Info) -> dict[str, Any]:
    """All records of a split: the same as `arrays`, where an example is a record."""
    from headrace.ragged import Ragged

    count = _written(info, split).examples
    parts: dict[str, list[Ragged]] = {name: [] for name, feature in info.features.items() if feature.ragged}
    whole: dict[str, Any] = {
        name: aligned((count, *feature.shape), object if feature.dtype == "string" else feature.dtype)
        for name, feature in info.features.items()
        if name not in parts
    }
    rows = _rows_at_once(info, split)
    for start, (batch, faults) in zip(range(0, count, rows), _checked(folder, split, info), strict=True):
        if faults:
            raise faults[0].error()
        for name, values in whole.items():
            values[start : start + rows] = batch[name].numpy()
        for name, ragged in parts.items():
            ragged.append(Ragged(batch[name].values.numpy(), batch[name].row_splits.numpy()))
    return {name: whole[name] if name in whole else Ragged.joined(parts[name]) for name in info.features}


def aligned(shape: tuple[Any, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """An array of any contents that begins where TensorFlow wants it, so that it can take it over without a copy."""
    import numpy as np

    kind = np.dtype(dtype)
    if kind.hasobject:
        return np.empty(shape, kind)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(kind).reshape(shape)


def dataset(folder: Path, split: str, batch_size: int, rows: np.ndarray[Any, Any] | None = None) -> tf.data.Dataset:
    """The examples of a split in stored order.

    Args:
        folder: A finished folder of records.
        split: Name of a split.
        batch_size: Examples in a batch; the last one may be smaller.
        rows: Positions of those that are wanted; default: all.

    Returns:
        A dataset of `Batch`, with the number of batches known. Iterating raises an error of TensorFlow where a file is
        damaged: see `damage_named`.

    Raises:
        DataError: There is no such split.
    """
    return stream(folder, split, batch_size=batch_size, seed=0, epochs=1, shuffle=False, in_memory=False, rows=rows)


def stream(
    folder: Path,
    split: str,
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    first_step: int = 0,
    shuffle: bool = True,
    drop_remainder: bool = False,
    shard: tuple[int, int] = (0, 1),
    in_memory: bool | None = None,
    rows: np.ndarray[Any, Any] | None = None,
) -> tf.data.Dataset:
    """The batches of a whole training; that of any step, counted over all epochs, follows from seed and step alone.

    Args:
        folder: A finished folder of records.
        split: Name of a split.
        batch_size: Examples in a global batch; the last one of an epoch may be smaller.
        seed: Seed of the orders.
        epochs: Epochs in all, those before `first_step` included.
        first_step: Where to begin: what comes is what comes from this step on without it, at no cost.
        shuffle: A new order for each epoch (`headrace.records.orders.order`); else the stored order.
        drop_remainder: Leave the smaller last batch of each epoch out; all batches then have the same known size.
        shard: `(i, k)` for rows `i::k` of each global batch, the share of input worker `i` of `k`. A share of the last
            batch may be empty.
        in_memory: Parse the examples once and keep them (raises the errors of `arrays`), or read and parse them in the
            order asked for; default: keep them if they fit (`fits_in_memory`). The batches are the same.
        rows: Positions of the examples that it is made of, such as all but a fold; default: the whole split.

    Returns:
        A dataset of `Batch`, with the number of batches known. Iterating raises an error of TensorFlow where a file is
        damaged: see `damage_named`.

    Raises:
        ConfigError: No batch can be made, or compressed records shall be read in another order than stored.
        DataError: There is no such split, or the file that says where records begin is damaged.
    """
    import numpy as np
    import tensorflow as tf

    from headrace.records.orders import order

    info = read_info(folder)
    _written(info, split)
    examples = info.examples[split] if rows is None else len(rows)
    worker, workers = shard
    steps = examples // batch_size if drop_remainder else -(-examples // batch_size)
    share, rest = (len(range(worker, size, workers)) for size in (batch_size, examples % batch_size))
    if not steps or not share:
        raise ConfigError(
            f"No batch of {batch_size} can be made of split `{split}`.",
            expected=f"at most {examples:,} examples in a batch" if share else f"at least {workers}, one per worker",
            received=batch_size,
            remedy="set train.batch_size",
        )
    if fits_in_memory(info, [split]) if in_memory is None else in_memory:
        batches_of = _gathering(arrays(folder, split))
    else:
        _can_be_read(info, shuffle)
        batches_of = _reading(_reader(folder, split, info), parser(info.rows), cutter(info))
    # Small batches are cut out of larger ones, by which an empty one at the end would be lost.
    whole = drop_remainder or rest or not examples % batch_size
    at_once = max(_rows_at_once(info, split) // share, 1) if whole else 1
    begun, skipped = divmod(first_step, steps)

    def positions(epoch: int) -> np.ndarray[Any, Any]:
        found = order(seed, int(epoch), examples, shuffle)[: steps * batch_size]
        found = found[skipped * batch_size :] if epoch == begun else found
        found = found if workers == 1 else found[np.arange(len(found)) % batch_size % workers == worker]
        return found if rows is None else rows[found].astype(np.int32)

    # Nothing here is for AutoGraph, whose conversion would take longer than to build the graph.
    @tf.autograph.experimental.do_not_convert
    def batches(epoch: tf.Tensor, ordered: tf.Tensor) -> tf.data.Dataset:
        left = steps - skipped * tf.cast(epoch == begun, tf.int64)
        size = at_once * share
        pieces = tf.data.Dataset.range(-(-left // at_once)).map(lambda n: ordered[n * size : (n + 1) * size])
        found = batches_of(pieces)
        return found.rebatch(share) if at_once > 1 else found

    data = (
        tf.data.Dataset.range(begun, epochs)
        .map(lambda epoch: (epoch, tf.ensure_shape(tf.numpy_function(positions, [epoch], tf.int32), (None,))))
        .prefetch(1)
        .flat_map(batches)
    )
    if drop_remainder:
        data = data.map(lambda batch: {name: _of_size(values, share) for name, values in batch.items()})
    return data.apply(tf.data.experimental.assert_cardinality(max(steps * epochs - first_step, 0))).prefetch(
        tf.data.AUTOTUNE
    )


def _of_size(values: Any, rows: int) -> Any:
    """The same batch, of which it is known how many examples it has."""
    import tensorflow as tf

    return values if isinstance(values, tf.RaggedTensor) else tf.ensure_shape(values, (rows, *values.shape[1:]))


def _gathering(values: Mapping[str, Any]) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Positions → batches, out of arrays."""
    import tensorflow as tf

    from headrace.ragged import to_tensor
    from headrace.tensors import gathered

    tensors = {name: to_tensor(part) for name, part in values.items()}

    def gather(rows: tf.Tensor) -> Batch:
        return {name: gathered(tensor, rows) for name, tensor in tensors.items()}

    return lambda pieces: pieces.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _reading(
    reader: Reader, parse: Callable[[tf.Tensor], Batch], cutter: Cutter | None
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Positions → batches, out of files; of windows, if there is something to cut them with."""
    import tensorflow as tf

    def look(positions: np.ndarray[Any, Any]) -> tuple[Any, Any, bytes]:
        rows = cutter.touched(positions) if cutter else positions
        found, faults = reader.look(rows)
        return (found[:0], rows[:0], str(faults[0].error()).encode()) if faults else (found, rows, b"")

    def read(positions: tf.Tensor) -> Any:
        with tf.name_scope(_MARK):
            # A Python error that crosses TensorFlow is printed to the terminal, with its stack.
            found, rows, trouble = tf.numpy_function(look, [positions], (tf.string, tf.int32, tf.string))
            with tf.control_dependencies([tf.debugging.Assert(trouble == "", [trouble])]):
                found = tf.ensure_shape(tf.identity(found), (None,))
            return (found, tf.ensure_shape(rows, (None,)), positions) if cutter else found

    def cut(found: tf.Tensor, rows: tf.Tensor, positions: tf.Tensor) -> Batch:
        assert cutter is not None  # noqa: S101
        return cutter.cut(parse(found), rows, positions)

    # Reading holds Python's lock, so that it gains nothing by several threads; parsing does.
    return lambda pieces: pieces.map(read).map(
        cut if cutter else parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def at(folder: Path, split: str, positions: Sequence[int] | np.ndarray[Any, Any]) -> Batch:
    """The examples of a split at some positions, at least one, in the order in which these are given.

    Raises:
        DataError: There is no such split, or a file is damaged.
    """
    import numpy as np
    import tensorflow as tf

    info = read_info(folder)
    reader, cutting = _reader(folder, split, info), cutter(info)
    places = np.asarray(positions)
    rows = cutting.touched(places) if cutting else places
    found, faults = reader.look(rows)
    if faults:
        raise faults[0].error()
    batch = parser(info.rows)(tf.constant(found.tolist(), tf.string))
    return cutting.cut(batch, rows, places) if cutting else batch


def cutter(info: Info) -> Cutter | None:
    """What cuts windows out of rows; None where an example is a record."""
    from headrace.windows import Cutter

    return Cutter(info.windows, info.features) if info.windows else None


def _can_be_read(info: Info, shuffle: bool) -> None:
    if shuffle and info.compression != "none":
        raise ConfigError(
            "Compressed records that don't fit in memory can't be read in a new order for each epoch.",
            remedy="set `compression` of the workload's records to `none`, or train.shuffle to false",
        )


def fits_in_memory(info: Info, splits: Sequence[str]) -> bool:
    """Whether the examples of these splits, parsed, take less than a quarter of the machine's memory together."""
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE
    kept = info.rows
    return sum(kept.examples[split] * _bytes_of_example(kept, split) for split in splits) <= room


def _rows_at_once(info: Info, split: str) -> int:
    return int(max(min(ROWS, BYTES // _bytes_of_example(info, split)), 1))


def _bytes_of_example(info: Info, split: str) -> float:
    """Bytes of one parsed example, on average; what differs in length counts as much as the whole record does."""
    sizes = {"float32": 4, "int64": 8, "uint8": 1}
    fixed = [feature for feature in info.features.values() if not feature.ragged and feature.dtype != "string"]
    written = info.splits[split]
    stored = written.bytes / max(written.examples, 1) * (_PACKED if info.compression == "gzip" else 1)
    return stored * (len(fixed) < len(info.features)) + sum(feature.size * sizes[feature.dtype] for feature in fixed)


def _written(info: Info, split: str) -> Written:
    if split not in info.splits:
        raise DataError(f"The records have no split `{split}`: {nearest(split, info.splits)}")
    if not info.splits[split].examples:
        raise DataError(f"Split `{split}` has no examples.", remedy=ANEW)
    return info.splits[split]


def _reader(folder: Path, split: str, info: Info) -> Reader:
    from headrace.records.positions import Reader

    return Reader(folder, split, _written(info, split), compressed=info.compression == "gzip")


# ------------------------------------------------------------------------------------------------ parsing


def parser(info: Info) -> Callable[[tf.Tensor], Batch]:
    """The function from serialised `tf.train.Example`s (examples,) to a `Batch`."""
    import tensorflow as tf

    def kind(feature: Feature) -> Any:
        if feature.dtype == "uint8":
            return tf.io.FixedLenFeature((), tf.string)
        dtype = tf.as_dtype(feature.dtype)
        if feature.ragged:
            return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        return tf.io.FixedLenFeature(feature.shape, dtype)

    layout = {name: kind(feature) for name, feature in info.features.items()}

    def parse(serialised: tf.Tensor) -> Batch:
        with tf.name_scope(_MARK):
            found = tf.io.parse_example(serialised, layout)
            return {
                name: _shaped(found[name], feature, info.encodings[name]) for name, feature in info.features.items()
            }

    return parse


def _shaped(values: Any, feature: Feature, encoding: Stored) -> Any:
    """What was stored as a list or as bytes, in the shape of the feature."""
    import tensorflow as tf

    if encoding in ("png", "jpeg"):
        decode, pixels = _decoder(encoding), tf.TensorSpec(feature.shape, tf.uint8)
        return tf.map_fn(
            lambda file: tf.ensure_shape(decode(file, channels=feature.shape[-1]), feature.shape),
            values,
            fn_output_signature=pixels,
        )
    if feature.ragged:
        if encoding == "raw":
            ends = tf.cumsum(tf.cast(tf.strings.length(values), tf.int64))
            splits = tf.concat([[tf.constant(0, tf.int64)], ends], 0)
            flat = tf.io.decode_raw(tf.strings.reduce_join(values), tf.uint8)
        else:
            splits, flat = values.row_splits, values.values
        tf.debugging.assert_equal(splits % feature.size, tf.zeros_like(splits))
        steps = tf.reshape(flat, (-1, *feature.shape[1:]))
        return tf.RaggedTensor.from_row_splits(steps, splits // feature.size, validate=False)
    if encoding == "raw":
        rows = tf.shape(values)[0]
        return tf.reshape(tf.io.decode_raw(values, tf.uint8), (rows, *feature.shape))
    return values


def _decoder(encoding: Stored) -> Any:
    import tensorflow as tf

    return tf.io.decode_png if encoding == "png" else tf.io.decode_jpeg


# ------------------------------------------------------------------------------------------------- damage


def verify(folder: Path, split: str) -> Iterator[Fault]:
    """Everything that is wrong with the records of a split, read and parsed as training does it.

    Raises:
        DataError: There is no such split, or the file that says where records begin is damaged.
    """
    told: set[Fault] = set()
    for _, faults in _checked(folder, split, read_info(folder).rows):
        # A file that can't be read is told once, not with each of its records.
        yield from (fault for fault in faults if fault.record is not None or fault not in told)
        told.update(faults)


def _checked(folder: Path, split: str, info: Info) -> Iterator[tuple[Batch, list[Fault]]]:
    """The records of a split in stored order, many at a time: parsed, and everything that is wrong with them."""
    import numpy as np
    import tensorflow as tf

    reader, parse = _reader(folder, split, info), parser(info)
    if {"png", "jpeg"} & set(info.encodings.values()):
        # Image by image, which is slow outside of a graph; without images, building one would take longer.
        parse = tf.function(parse, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
    at_once = _rows_at_once(info, split)
    for start in range(0, len(reader), at_once):
        rows = np.arange(start, min(start + at_once, len(reader)))
        found, faults = reader.look(rows)
        sound = np.flatnonzero(found != None)  # noqa: E711 (of each element)
        batch: Batch = {}
        try:
            batch = parse(tf.constant(found[sound], tf.string))
        except (tf.errors.OpError, ValueError):
            wrong = ((rows[place], _wrong(found[place], info)) for place in sound)
            faults += [reader.fault(row, what) for row, what in wrong if what]
            if not faults:
                raise
        yield batch, sorted(faults, key=lambda fault: (fault.path, -1 if fault.record is None else fault.record))


def _wrong(record: bytes, info: Info) -> str | None:
    """Why a record can't be parsed, in a sentence without its subject."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        example = tf.train.Example.FromString(record)
    except DecodeError:
        return "is no tf.train.Example"
    for name, feature in info.features.items():
        what = _wrong_feature(example.features.feature, name, feature, info.encodings[name])
        if what:
            return what
    return None


def _wrong_feature(held: Any, name: str, feature: Feature, encoding: Stored) -> str | None:
    import tensorflow as tf

    due = {"float32": "float_list", "int64": "int64_list"}.get(feature.dtype, "bytes_list")
    kind = held[name].WhichOneof("kind") if name in held else None
    if kind is None:
        # To TensorFlow a list that isn't there is an empty one.
        return None if feature.ragged and encoding is None else f"has no feature `{name}`"
    if kind != due:
        return f"holds `{name}` as {kind} instead of {due}"
    values = getattr(held[name], kind).value
    count, unit = len(values), "values"
    size = feature.size if encoding is None else 1
    if encoding == "raw" and count == 1:
        count, size, unit = len(values[0]), feature.size, "bytes"
    ragged = feature.ragged and (encoding is None or unit == "bytes")
    if count % size if ragged else count != size:
        return f"holds {count:,} {unit} of `{name}` instead of {'a multiple of ' * ragged}{size:,}"
    if encoding in ("png", "jpeg"):
        try:
            shape = tuple(_decoder(encoding)(values[0], channels=feature.shape[-1]).shape)
        except tf.errors.OpError:
            return f"holds no {encoding.upper()} image in `{name}`"
        return None if shape == feature.shape else f"holds an image of shape {shape} in `{name}`, not {feature.shape}"
    return None


@contextlib.contextmanager
def damage_named(folder: Path, *splits: str) -> Iterator[None]:
    """Turn an error of TensorFlow that comes from damaged records into one that says which record it is, and where.

    Args:
        folder: The folder of records that is read in this context.
        splits: Names of the splits that are.

    Raises:
        DataError: A record is damaged.
    """
    try:
        yield
    except Exception as error:
        # The text of an error may quote a record, and then TensorFlow fails to make a string of it.
        text = repr(error.object) if isinstance(error, UnicodeDecodeError) else str(error)
        if _MARK not in text:
            raise
        for split in splits:
            for fault in verify(folder, split):
                raise fault.error() from error
        raise
