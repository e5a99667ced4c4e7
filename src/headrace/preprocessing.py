"""Stage `preprocess`: raw examples → TFRecords, beside them the schema and the training split's statistics."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, write_atomically, write_json
from headrace.errors import DataError, HeadraceError, StageFailed
from headrace.inputs import INFO
from headrace.jobs import Job
from headrace.spec import Feature
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import pyarrow as pa
    import tensorflow as tf

    from headrace.inputs import Batch

log = logging.getLogger(__name__)

Function = Callable[["Batch"], "Batch"]

SPLITS = ("train", "test")
"""The splits that every source must have; it may have more."""


def declared(job: Job) -> dict[str, Any]:
    """What the source declares of its features, as far as a result can depend on it (descriptions can't)."""
    return {
        "features": {
            name: {
                **feature.model_dump(mode="json", include={"shape", "dtype", "role"}),
                "columns": [column.name for column in feature.columns],
            }
            for name, feature in job.origin.features.items()
        }
    }


@stage(
    functions=("read", "preprocess"),
    versions=("tensorflow", "tfx-bsl", "pyarrow"),
    facts=declared,
)
def preprocess(job: Job, room: Room, raw: Artifact) -> None:
    """Learn from the training split, then carry every split over into records. Memory does not grow with the data.

    What is written: `info.json`, the shards, and of the raw training split `statistics.json`, `statistics.pb` and
    `schema.pbtxt`.

    Raises:
        DataError: The raw data are not what the workload declares, a split is missing or empty, or preprocessing gives
            numbers that are not finite.
        StageFailed: The workload's `preprocess` fails, or can't do without the targets, as it must when serving.
    """
    from headrace import schema
    from headrace.records import write
    from headrace.summaries import summarise

    features = job.origin.features
    splits = list(_splits(job, raw.path))
    statistics = summarise(raw_batches(job, raw.path, "train"), features)
    if not statistics.rows:
        raise _empty("train")

    function = _learned(job, statistics)
    layout = _layout(job, function)
    _can_serve(job, function, layout, next(raw_batches(job, raw.path, "train")))

    written = {}
    for split in splits:
        batches = _preprocessed(job, raw_batches(job, raw.path, split), function)
        written[split] = write(room.output, split, schema.checked(batches, layout, f"split `{split}` after preprocess"))
        if not written[split].examples:
            raise _empty(split)
        log.info("preprocess: %d examples in split %s", written[split].examples, split)

    write_json(room.output / "statistics.json", statistics.to_json())
    write_atomically(room.output / "statistics.pb", statistics.to_proto("train").SerializeToString(deterministic=True))
    schema.write(room.output / "schema.pbtxt", schema.infer(features, statistics))
    write_json(
        room.output / INFO,
        {
            "version": 1,
            "workload": job.workload,
            "source": job.source,
            "data": raw.json("data.json")["data"],
            "features": {
                name: feature.model_dump(mode="json", include={"shape", "dtype", "role"})
                for name, feature in layout.items()
            },
            "splits": {
                split: {"examples": done.examples, "shards": list(done.shards)} for split, done in written.items()
            },
        },
    )


def raw_batches(job: Job, raw: Path, split: str) -> Iterator[pa.RecordBatch]:
    """The raw examples of a split, held against the declared features.

    Args:
        job: Names the source.
        raw: The finished folder of `download`.
        split: Name of a split.

    Raises:
        DataError: The data are not what the workload declares.
    """
    from headrace.schema import checked

    return checked(_splits(job, raw)[split], job.origin.features, f"split `{split}`")


def _splits(job: Job, raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    splits = job.origin.read(raw)
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        raise DataError(
            f"`read` of {job.workload} gives no split {' and no split '.join(f'`{split}`' for split in missing)}.",
            expected=f"at least {' and '.join(f'`{split}`' for split in SPLITS)}",
            received=", ".join(f"`{split}`" for split in splits) or "none",
        )
    return splits


def _empty(split: str) -> DataError:
    return DataError(
        f"Split `{split}` is empty.",
        expected="at least one example",
        received="none",
        remedy="look at the raw files, and at how `read` splits them",
    )


# ------------------------------------------------------------------------------ the workload's own function


def _learned(job: Job, statistics: Any) -> Function:
    """The function that the workload makes of the statistics."""
    try:
        return job.pipeline.preprocess(statistics)
    except HeadraceError:
        raise
    except Exception as error:
        raise _failed(job, "with the statistics of the training split", error) from error


def _layout(job: Job, function: Function) -> dict[str, Feature]:
    """The features of a record, read off what the function returns."""
    import tensorflow as tf

    given = job.origin.features
    try:
        spec = _pipeline(lambda: iter(()), given, function).element_spec
    except HeadraceError:
        raise
    except Exception as error:
        raise _failed(job, "with a batch of tensors", error) from error
    if not isinstance(spec, dict) or not spec:
        raise StageFailed(
            f"`preprocess` of {job.workload} must return a batch.",
            expected="a dictionary from the name of a feature to its tensor",
            received=type(spec).__name__,
        )
    layout: dict[str, Feature] = {}
    for name, tensor in spec.items():
        dtype = tensor.dtype.name if isinstance(tensor, tf.TensorSpec) else type(tensor).__name__
        shape = tensor.shape if isinstance(tensor, tf.TensorSpec) else tf.TensorShape(None)
        if dtype not in ("float32", "int64", "string") or not shape.rank or not shape[1:].is_fully_defined():
            raise StageFailed(
                f"`preprocess` of {job.workload} returns a feature `{name}` that records can't hold.",
                expected="float32, int64 or string; examples first, every other dimension known",
                received=f"{dtype} of shape {shape}",
                remedy="`tf.cast` it, or set its shape with `tf.ensure_shape`",
            )
        role = given[name].role if name in given else "input"
        layout[name] = Feature(shape=tuple(shape[1:]), dtype=dtype, role=role)
    lost = [name for name, feature in given.items() if feature.role == "target" and name not in layout]
    if lost:
        raise StageFailed(
            f"`preprocess` of {job.workload} drops the target `{lost[0]}`.",
            expected=f"a batch with {', '.join(given)}",
            received=", ".join(layout),
            remedy="return `{**batch, …}` with what has changed",
        )
    return layout


def _can_serve(job: Job, function: Function, layout: Mapping[str, Feature], batch: pa.RecordBatch) -> None:
    """The same function must give the same inputs from a batch without targets: a served model is given none."""
    from headrace.tables import to_arrays

    given = job.origin.features
    whole = _tensors(to_arrays(batch, given))
    inputs = {name: tensor for name, tensor in whole.items() if given[name].role == "input"}
    names = [name for name, feature in layout.items() if feature.role == "input"]
    try:
        with_targets, without = function(whole), function(inputs)
    except HeadraceError:
        raise
    except Exception as error:
        raise StageFailed(
            f"`preprocess` of {job.workload} can't run without the targets, as it must when the model serves.",
            expected=f"a batch with {', '.join(names)}, given one with {', '.join(inputs)}",
            received=_in_a_line(error),
            remedy="change a target only `if` it is in the batch",
        ) from error
    differing = [name for name in names if name not in without or not _equal(with_targets[name], without[name])]
    if differing:
        raise StageFailed(
            f"`preprocess` of {job.workload} gives other inputs without the targets, as a served model would get them.",
            expected=f"the same {', '.join(names)} with targets and without",
            received=f"a difference in {', '.join(differing)}",
            remedy="make no input out of a target, and none at random",
        )


def _equal(one: tf.Tensor, other: tf.Tensor) -> bool:
    import numpy as np

    # Only numbers can be asked whether they are NaN, which is then equal to itself.
    return np.array_equal(one.numpy(), other.numpy(), equal_nan=one.dtype.is_floating)


def _preprocessed(job: Job, batches: Iterable[pa.RecordBatch], function: Function) -> Iterator[pa.RecordBatch]:
    """The function applied to every batch by `tf.data`, several batches at a time, in their order."""
    import tensorflow as tf

    from headrace.tables import to_arrays

    features = job.origin.features
    trouble: list[Exception] = []
    rows: deque[int] = deque()

    def arrays() -> Iterator[Any]:
        # An error that crossed TensorFlow would come out as another one, with a stack printed to the terminal.
        try:
            for batch in batches:
                rows.append(batch.num_rows)
                yield to_arrays(batch, features)
        except Exception as error:
            trouble.append(error)

    try:
        for batch in _pipeline(arrays, features, function).as_numpy_iterator():
            yield _to_arrow(job, batch, rows.popleft())
    except tf.errors.OpError as error:
        raise _failed(job, "with the examples", error) from error
    if trouble:
        raise trouble[0]


def _pipeline(
    arrays: Callable[[], Iterator[Any]], features: Mapping[str, Feature], function: Function
) -> tf.data.Dataset:
    import tensorflow as tf

    signature = {
        name: tf.TensorSpec((None, *feature.shape), tf.as_dtype(feature.dtype)) for name, feature in features.items()
    }
    return (
        tf.data.Dataset.from_generator(arrays, output_signature=signature)
        .map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _to_arrow(job: Job, batch: Mapping[str, Any], rows: int) -> pa.RecordBatch:
    """Arrays as an Arrow batch, each of them with as many examples as were put in."""
    import pyarrow as pa

    columns = {}
    for name, values in batch.items():
        if len(values) != rows:
            raise StageFailed(
                f"`preprocess` of {job.workload} changes the number of examples of `{name}`.",
                expected=f"{rows} examples, as many as were given",
                received=len(values),
                remedy="leave examples out in `read`",
            )
        kind = pa.large_binary() if values.dtype == object else pa.from_numpy_dtype(values.dtype)
        flat = pa.array(values.reshape(-1), kind)
        size = math.prod(values.shape[1:])
        columns[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
    return pa.RecordBatch.from_pydict(columns)


def _tensors(arrays: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    import tensorflow as tf

    return {name: tf.constant(values) for name, values in arrays.items()}


def _failed(job: Job, given: str, error: Exception) -> StageFailed:
    return StageFailed(f"`preprocess` of {job.workload} fails {given}.", received=_in_a_line(error))


def _in_a_line(error: Exception) -> str:
    """The kind and the last line of an error: AutoGraph puts the reason at the end of a long account."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return last if last.startswith(type(error).__name__) else f"{type(error).__name__}: {last}"
