"""What TensorFlow Datasets has prepared, read back in Arrow batches: parsed many at a time, decoded by TFDS's features.

Kept apart from the preparation, so that a change of how files are downloaded reads no data again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import DataError, nearest
from headrace.spec import Feature

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import tensorflow as tf

    from headrace.ragged import Ragged
    from headrace.readers.batches import Restartable

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
"""Splits that are read unless others are named."""
ROWS = 2048
"""Examples that are parsed at a time; of images that are decoded, `IMAGES`."""
IMAGES = 256


def read_tfds(
    folder: Path,
    features: Mapping[str, Feature],
    *,
    names: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
) -> dict[str, Restartable]:
    """Read a data set that TFDS has prepared, or anything else that `tfds.builder_from_directory` can read.

    Images that are declared as `string` stay the encoded bytes that they are; declared as uint8 of a fixed shape they
    are decoded by TFDS.

    Args:
        folder: The data set's folder, or one that holds no other data set at any depth.
        features: What to read, as the source declares it.
        names: Feature → path in TFDS where it is called differently: `{"boxes": "objects/bbox"}`.
        splits: Split → split of TFDS, or part of one: `{"train": "train[:80%]", "test": "train[80%:]"}`. Default:
            those of train, validation and test that there are; others (unsupervised examples) are left out.

    Returns:
        Split → Arrow batches, in the order of the records, any number of times.

    Raises:
        DataError: The folder holds no such data set, or its features and splits are not what was declared; and while
            batches are read, a record that is damaged or missing.
    """
    import tensorflow_datasets as tfds

    from headrace.readers.batches import Restartable

    found = sorted(path.parent for path in folder.rglob("dataset_info.json"))
    if len(found) != 1:
        raise DataError(
            f"{folder} holds {len(found) or 'no'} data sets of TensorFlow Datasets.",
            expected="one, which has a dataset_info.json",
            received=", ".join(str(path.relative_to(folder)) for path in found[:5]) or None,
        )
    info = tfds.builder_from_directory(found[0]).info
    if info.file_format.value not in ("tfrecord", "array_record"):
        raise DataError(
            f"{info.full_name} is stored as {info.file_format.value}, which TFDS does not read reliably.",
            expected="tfrecord or array_record",
        )
    chosen = _chosen(info, splits)
    columns = _columns(info, features, names or {})

    def reading(split: Any) -> Restartable:
        return Restartable(lambda: _read(info, split, columns))

    return {ours: reading(split) for ours, split in chosen.items()}


def _chosen(info: Any, splits: Mapping[str, str] | None) -> dict[str, Any]:
    """The splits to be read."""
    if splits is None:
        splits = {name: name for name in SPLITS if name in info.splits}
        ignored = sorted(set(info.splits) - set(splits))
        if ignored:
            log.info("%s: not read: %s", info.full_name, ", ".join(ignored))
    chosen = {}
    for ours, theirs in splits.items():
        try:
            chosen[ours] = info.splits[theirs]
        except (KeyError, ValueError, AssertionError) as error:
            raise DataError(
                f"{info.full_name} has no split `{theirs}`.",
                expected=f"{', '.join(info.splits)}, or a part of one, as in train[:80%]",
                received=" ".join(str(error).split())[:300],
            ) from error
    missing = [name for name in ("train", "test") if name not in chosen]
    if missing:
        raise DataError(
            f"{info.full_name} has no split `{missing[0]}` by itself.",
            expected="train and test",
            received=", ".join(info.splits),
            remedy='say which parts to take: read_tfds(…, splits={"train": "train[:80%]", "test": "train[80%:]"})',
        )
    return chosen


@dataclass(frozen=True)
class _Column:
    """One feature: where it stands in the records of TFDS, and how it becomes what was declared."""

    name: str
    feature: Feature
    key: str
    connector: Any
    """The TFDS feature that decodes it; None if what is stored is what it means."""
    shape: tuple[int | None, ...]
    """As TFDS gives it."""
    default: Any
    stored: Any
    """Type of the values in the records."""

    @property
    def spec(self) -> Any:
        """How `parse_example` takes it."""
        import tensorflow as tf

        if self.connector:
            return tf.io.FixedLenFeature((), tf.string)
        if self.feature.ragged:
            return tf.io.RaggedFeature(self.stored, self.key, row_splits_dtype=tf.int64)
        return tf.io.FixedLenFeature(self.shape, self.stored, self.default)


def _columns(info: Any, features: Mapping[str, Feature], names: Mapping[str, str]) -> list[_Column]:
    """How each declared feature is read.

    Raises:
        DataError: One is not there, or is not of the declared kind; all such problems at once.
    """
    import tensorflow_datasets as tfds

    flat = tfds.core.utils.flatten_nest_dict
    given, stored = flat(info.features.get_tensor_info()), flat(info.features.get_serialized_info())
    columns, problems = [], []
    for name, feature in features.items():
        key = names.get(name, name)
        if key not in given:
            problems.append(f"there is no feature `{key}`: {nearest(key, given)}")
            continue
        try:
            columns.append(_column(name, feature, key, _connector(info.features, key), given[key], stored[key]))
        except ValueError as error:
            problems.append(f"`{key}`: {error}")
    if problems:
        raise DataError(
            f"{info.full_name} is not what the source declares:\n" + "\n".join(f"  - {line}" for line in problems),
            remedy="correct the features in the workload's file, or map names: read_tfds(…, names={ours: theirs})",
        )
    return columns


def _column(name: str, feature: Feature, key: str, connector: Any, given: Any, stored: Any) -> _Column:
    """How a feature is read; ValueError with the reason if it can't become what was declared."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    stored_type = tf.int64 if stored.tf_dtype.is_integer or stored.tf_dtype.is_bool else stored.tf_dtype
    stored_type = tf.float32 if stored_type.is_floating else stored_type
    is_image = isinstance(connector, tfds.features.Image)
    if feature.dtype == "string" and feature.shape == () and is_image:
        return _Column(name, feature, key, None, (), stored.default_value, tf.string)
    classes = tuple(getattr(connector, "names", None) or ())
    if feature.classes and classes and classes != feature.classes and not all(label.isdigit() for label in classes):
        raise ValueError(f"its classes are {_some(classes)}, not {_some(feature.classes)}")
    if not _fits(feature, given, tf):
        hint = '; keep them encoded: Feature(dtype="string", content="image")' if is_image else ""
        raise ValueError(
            f"it has the shape {given.shape} and the type {given.tf_dtype.name}, not {feature.shape} and "
            f"{feature.dtype}{hint}"
        )
    same = (stored.shape, stored.tf_dtype, stored.sequence_rank) == (given.shape, given.tf_dtype, given.sequence_rank)
    if not same and (stored.shape or not stored.tf_dtype == tf.string):
        raise ValueError("TFDS stores it in a way that is not read batch by batch")
    return _Column(name, feature, key, None if same else connector, given.shape, stored.default_value, stored_type)


def _fits(feature: Feature, given: Any, tf: Any) -> bool:
    """Whether a tensor of TFDS can become the declared feature."""
    dtype = given.tf_dtype
    types = {
        "string": dtype == tf.string,
        "float32": dtype.is_floating or dtype.is_integer or dtype.is_bool,
        "int64": dtype.is_integer or dtype.is_bool,
        "uint8": dtype in (tf.uint8, tf.bool),
    }
    if given.shape.count(None) != int(feature.ragged) or (feature.ragged and given.shape[0] is not None):
        return False
    alike = given.shape == feature.shape or (feature.size == 1 and all(side in (1, None) for side in given.shape))
    return bool(alike and types[feature.dtype])


def _connector(features: Any, key: str) -> Any:
    """The TFDS feature at a path."""
    for step in key.split("/"):
        features = getattr(features, "feature", features)[step]
    return features


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _read(info: Any, split: Any, columns: Sequence[_Column]) -> Iterator[pa.RecordBatch]:
    import tensorflow as tf

    from headrace.readers.batches import batches

    spec = {column.key: column.spec for column in columns}

    def parse(serialized: tf.Tensor) -> dict[str, Any]:
        parsed = tf.io.parse_example(serialized, spec)
        return {column.name: _decoded(column, parsed[column.key]) for column in columns}

    count = 0
    rows = IMAGES if any(column.connector for column in columns) else ROWS
    try:
        for parsed in _serialized(info, split, rows).map(parse, num_parallel_calls=2, deterministic=True).prefetch(2):
            arrays = {column.name: _array(column, parsed[column.name]) for column in columns}
            examples = len(next(iter(arrays.values())))
            count += examples
            yield from batches(arrays, rows=max(examples, 1))
    except tf.errors.OpError as error:
        raise DataError(
            f"The records of {info.full_name} can't be read after {count:,} examples of {split.name}.",
            received=" ".join(str(error).split())[:300],
        ) from error
    if count != split.num_examples:
        raise DataError(
            f"{info.full_name} is not complete.",
            expected=f"{split.num_examples:,} examples in {split.name}",
            received=f"{count:,}",
        )


def _serialized(info: Any, split: Any, rows: int) -> tf.data.Dataset:
    """Records in their order, some at a time."""
    import tensorflow as tf

    parts = [
        (str(part.filename), part.skip, part.take if part.take >= 0 else part.examples_in_shard - part.skip)
        for part in split.file_instructions
    ]
    if info.file_format.value == "array_record":
        return tf.data.Dataset.from_generator(
            lambda: _array_records(parts, rows), output_signature=tf.TensorSpec((None,), tf.string)
        )
    files, skips, takes = ([part[k] for part in parts] for k in range(3))
    listed = tf.data.Dataset.from_tensor_slices(
        (tf.constant(files, tf.string), tf.constant(skips, tf.int64), tf.constant(takes, tf.int64))
    )
    return listed.flat_map(lambda file, skip, take: tf.data.TFRecordDataset(file).skip(skip).take(take)).batch(rows)


def _array_records(parts: Sequence[tuple[str, int, int]], rows: int) -> Iterator[list[bytes]]:
    from array_record.python.array_record_module import ArrayRecordReader  # type: ignore[import-untyped]

    for file, skip, take in parts:
        reader = ArrayRecordReader(file)
        for start in range(skip, skip + take, rows):
            yield reader.read(list(range(start, min(start + rows, skip + take))))
        reader.close()


def _decoded(column: _Column, values: Any) -> Any:
    import tensorflow as tf

    if not column.connector:
        return values
    # As TFDS declares it, so that a picture of another size is an error and not a mess.
    given = column.connector.get_tensor_info()
    signature: Any = tf.TensorSpec(given.shape, given.tf_dtype)
    if column.feature.ragged:
        signature = tf.RaggedTensorSpec(given.shape, given.tf_dtype, ragged_rank=0)
    return tf.map_fn(column.connector.decode_example, values, fn_output_signature=signature)


def _array(column: _Column, values: Any) -> np.ndarray[Any, Any] | Ragged:
    from headrace.ragged import Ragged

    feature = column.feature
    dtype = object if feature.dtype == "string" else feature.dtype
    if not feature.ragged:
        return values.numpy().reshape(-1, *feature.shape).astype(dtype, copy=False)
    steps = values.values.numpy().reshape(-1, *feature.shape[1:]).astype(dtype, copy=False)
    size = 1 if column.connector else feature.size
    return Ragged(steps, values.row_splits.numpy() // size)
