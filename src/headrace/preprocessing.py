"""Stage `preprocess`: raw examples → TFRecords, beside them the schema and the training split's statistics."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, only, read_json, write_atomically, write_json
from headrace.console import progress
from headrace.errors import DataError, HeadraceError, StageFailed
from headrace.jobs import Job, taken
from headrace.placing.dividing import divided
from headrace.recording import Function, Recorder, failed, function_of, in_a_line, portions, tensors
from headrace.spec import Feature
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch
    from headrace.validation.checking import Quarantine

log = logging.getLogger(__name__)

SPLITS = ("train", "test")
"""The splits that every source must have; it may have more."""


def declared(job: Job) -> dict[str, Any]:
    """What the source declares of its features, as far as a result can depend on it (descriptions can't)."""
    return {
        "features": {
            name: {
                **feature.model_dump(mode="json", exclude={"columns", "description", "unit"}),
                "columns": [column.name for column in feature.columns],
            }
            for name, feature in job.origin.features.items()
        }
    }


def _facts(job: Job) -> dict[str, Any]:
    from headrace.validation.schema import reviewed_digest

    return {
        **declared(job),
        "quarantine": job.origin.quarantine,
        "schema": reviewed_digest(job),
        "records": job.pipeline.records.model_dump(mode="json"),
    }


@stage(
    settings=("preprocess", "windows"),
    functions=("read", "words", "learn", "preprocess"),
    versions=("tensorflow", "tensorflow-datasets", "pyarrow", "numpy"),
    facts=_facts,
    tensorflow=True,
)
def preprocess(job: Job, room: Room, raw: Artifact) -> None:
    """Learn from the training split, then carry every split over into records. Memory does not grow with the data.

    Where examples are windows of a series, all of this is of its rows: statistics are those of the training split's
    rows, each once; and `info.json` says how windows are cut out of the records.

    What is written: `info.json` and the shards (with what TensorFlow Datasets needs to read them); of the raw training
    split `statistics.json`, `statistics.pb`, `schema.pbtxt` and, if the workload learns more, `learned.npz`; and
    `quarantine.jsonl`, the examples that were left out; and `words.json`, if the source knows the words of its tokens.

    Raises:
        DataError: The raw data are not what the workload declares or the reviewed schema demands, a split is missing or
            empty, or preprocessing gives numbers that are not finite.
        StageFailed: The workload's `preprocess` fails, or can't do without the targets, as it must when serving.
    """
    import numpy as np

    from headrace.describing.summaries import summarise
    from headrace.records.inputs import Info, write_info
    from headrace.records.writing import store, stored
    from headrace.validation import checking, schema
    from headrace.windows import counts, of_example

    features, windows = job.origin.features, job.settings.windows
    quarantines = {split: checking.Quarantine(job.origin.quarantine, split) for split in _splits(job, raw.path)}
    statistics = summarise(_reviewed(job, raw.path, "train", quarantines["train"]), features)
    if not statistics.rows:
        raise _empty("train")

    learned = _learned(job, statistics, raw)
    recorder = Recorder(job, features, statistics, learned)
    layout = recorder.layout = _layout(job, recorder)
    # One portion is enough, and not too much to be worked on operation by operation.
    some = next(portions("train", raw_batches(job, raw.path, "train"), layout))
    _can_serve(job, recorder.function, layout, some.rows)

    written, own = {}, dict[str, int]()
    for split, quarantine in quarantines.items():
        # The training split was looked at while its statistics were taken.
        known = split == "train"
        found = (
            raw_batches(job, raw.path, split, quarantine.again())
            if known
            else _reviewed(job, raw.path, split, quarantine)
        )
        with progress(f"preprocess · {split}", statistics.rows if known else None) as advance:
            rows = itertools.chain(_noted(found, own, split), _rows_after(job, raw, split))
            made = divided(recorder, portions(split, rows, layout), lambda portion: portion.size)
            written[split] = store(room.output, split, _counted(made, advance), job.pipeline.records)
        if not own[split]:
            raise _empty(split)
        what = "rows" if windows else "examples"
        log.info("preprocess: %d %s in split %s%s", own[split], what, split, _left_out(quarantine))

    write_json(room.output / STATISTICS, statistics.to_json())
    write_atomically(room.output / "statistics.pb", statistics.to_proto("train").SerializeToString(deterministic=True))
    schema.write(room.output / "schema.pbtxt", schema.infer(features, statistics))
    checking.write_quarantine(room.output / QUARANTINE, quarantines.values())
    if learned is not None:
        np.savez(room.output / LEARNED, **learned)
    if job.origin.words:
        write_json(room.output / WORDS, list(job.origin.words(raw.path)))
    kept = job.pipeline.records
    info = Info(
        workload=job.workload,
        source=job.source,
        data=raw.json("data.json")["data"],
        features={name: of_example(row, windows) for name, row in layout.items()} if windows else layout,
        splits=written,
        encodings=stored(layout, kept),
        compression=kept.compression,
        windows=windows,
        cut=counts(windows, own) if windows else {},
    )
    write_info(room.output, info)


STATISTICS, LEARNED, QUARANTINE, WORDS = "statistics.json", "learned.npz", "quarantine.jsonl", "words.json"


def words(records: Artifact) -> list[str]:
    """The words that the numbers of `tokens` features stand for; none where the source has none."""
    return list(read_json(records.path / WORDS) or [])


def learned_function(job: Job, records: Artifact, *, of_rows: bool = False) -> Function:
    """The workload's preprocessing as it was learned when these records were written: raw batch → batch of records.

    Where examples are windows it takes windows, and does to each of their rows what was done to the records'; unless it
    is asked for as it is, to be used on rows.
    """
    from headrace.windows import over

    function, windows = learned_parts(job, records)[0], job.settings.windows
    return over(function, windows) if windows and not of_rows else function


def learned_parts(job: Job, records: Artifact) -> tuple[Function, Statistics, dict[str, Any] | None]:
    """The same, of rows, with what it was learned from: the statistics, and what the workload's `learn` gave."""
    from headrace.describing.summaries import Statistics

    learned = learned_arrays(records) if job.function("learn") else None
    statistics = Statistics.from_json(records.json(STATISTICS))
    return function_of(job, statistics, learned), statistics, learned


def learned_arrays(records: Artifact) -> dict[str, Any]:
    """What the workload's `learn` gave when these records were written: arrays by name."""
    import numpy as np

    with np.load(only(records, LEARNED), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def raw_batches(job: Job, raw: Path, split: str, quarantine: Quarantine | None = None) -> Iterator[pa.RecordBatch]:
    """The raw examples of a split, held against the declared features.

    Args:
        job: Names the source.
        raw: The finished folder of `download`.
        split: Name of a split.
        quarantine: Where unusable examples are noted. They are left out in any case, up to the share that the source
            allows, so that everyone who reads a split sees the same examples.

    Raises:
        DataError: The data are not what the workload declares.
    """
    from headrace.validation.checking import Quarantine, checked

    noted = Quarantine(job.origin.quarantine, split) if quarantine is None else quarantine
    return checked(_splits(job, raw)[split], job.origin.features, f"split `{split}`", noted)


def raw_windows(job: Job, raw: Path, split: str) -> dict[str, Any]:
    """The raw inputs (and notes) of all examples of a split, where these are windows of a series.

    Returns:
        Name of a feature → `headrace.windows.Windowed` or an array, in the order of the records.
    """
    from headrace.readers.batches import whole
    from headrace.windows import counts, examples

    windows = job.settings.windows
    assert windows is not None  # noqa: S101 (asked for only then)
    features = {name: feature for name, feature in job.origin.features.items() if feature.role in ("input", "note")}
    rows = whole(raw_batches(job, raw, split), features)
    lengths = {split: len(next(iter(rows.values())))}
    following = _after(job, raw, split) if windows.boundary == "beyond" else None
    if following:
        lengths[following] = sum(batch.num_rows for batch in raw_batches(job, raw, following))
    return examples(rows, features, windows, counts(windows, lengths)[split])


def raw_examples(job: Job, raw: Path, split: str) -> Iterator[pa.RecordBatch]:
    """The raw examples of a split as a served model would be sent them: as `raw_batches`, or windows of these rows."""
    import numpy as np

    from headrace.readers.batches import batches
    from headrace.windows import CUT

    if not job.settings.windows:
        yield from raw_batches(job, raw, split)
        return
    found = raw_windows(job, raw, split)
    for first in range(0, len(next(iter(found.values()))), CUT):
        yield from batches({name: np.asarray(values[first : first + CUT]) for name, values in found.items()})


def _after(job: Job, raw: Path, split: str) -> str | None:
    """The split that follows in time, if there is one."""
    names = list(_splits(job, raw))
    place = names.index(split) + 1
    return names[place] if place < len(names) else None


def _rows_after(job: Job, raw: Artifact, split: str) -> Iterator[pa.RecordBatch]:
    """The first rows of the split that follows, as many as hold targets of this one."""
    from headrace.windows import tail

    windows = job.settings.windows
    left = tail(windows) if windows else 0
    following = _after(job, raw.path, split) if left else None
    if following:
        for batch in raw_batches(job, raw.path, following):
            yield batch.slice(0, left)
            left -= batch.num_rows
            if left <= 0:
                return


def _noted(batches: Iterable[pa.RecordBatch], lengths: dict[str, int], split: str) -> Iterator[pa.RecordBatch]:
    """The same batches, their rows counted as those of the split."""
    lengths[split] = 0
    for batch in batches:
        lengths[split] += batch.num_rows
        yield batch


def _reviewed(job: Job, raw: Path, split: str, quarantine: Quarantine) -> Iterator[pa.RecordBatch]:
    """The raw examples of a split, held against the schema that a person has reviewed, too, if there is one."""
    from headrace.validation import schema
    from headrace.validation.inspecting import Inspection

    batches = raw_batches(job, raw, split, quarantine)
    path = schema.reviewed(job)
    if path is None:
        yield from batches
        return
    inspection = Inspection(
        schema.read(path),
        job.origin.features,
        environment=schema.TRAINING,
        where=f"split `{split}`",
        original=quarantine.original,
    )
    yield from inspection.watching(batches)
    inspection.enforce(f"the reviewed schema {path.name}")


def _left_out(quarantine: Quarantine) -> str:
    return f" ({quarantine.left_out} left out: see {QUARANTINE})" if quarantine.left_out else ""


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


def _counted(
    records: Iterable[pa.LargeBinaryArray], advance: Callable[[float, str], None]
) -> Iterator[pa.LargeBinaryArray]:
    done = 0
    for some in records:
        yield some
        done += len(some)
        advance(done, "")


# ------------------------------------------------------------------------------ the workload's own function


def _learned(job: Job, statistics: Statistics, raw: Artifact) -> dict[str, Any] | None:
    """What the workload learns from the training split beyond its statistics, by name."""
    import numpy as np

    learn = job.function("learn")
    if not learn:
        return None
    try:
        given = taken(learn, {**job.settings.preprocess, "raw": raw.path})
        found = learn(_Restartable(job, raw.path), statistics, **given)
        return {name: _storable(np.asarray(values)) for name, values in found.items()}
    except HeadraceError:
        raise
    except Exception as error:
        raise StageFailed(f"`learn` of {job.workload} fails.", received=in_a_line(error)) from error


@dataclass(frozen=True)
class _Restartable:
    """The training split as batches of tensors, as often as they are asked for: `adapt` may go through them twice."""

    job: Job
    raw: Path

    def __iter__(self) -> Iterator[Batch]:
        from headrace.readers.batches import to_arrays

        features = self.job.origin.features
        return (tensors(to_arrays(batch, features)) for batch in raw_batches(self.job, self.raw, "train"))


def _storable(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Text as UTF-8 bytes: what is kept for serving holds no objects."""
    import numpy as np

    return np.char.encode(values.astype(np.str_), "utf-8") if values.dtype.kind in "UO" else values


def _layout(job: Job, recorder: Recorder) -> dict[str, Feature]:
    """The features of a record, read off what the function returns."""
    given = job.origin.features
    try:
        returned = recorder.returned
    except HeadraceError:
        raise
    except Exception as error:
        raise failed(job, "with a batch of tensors", error) from error
    if not isinstance(returned, dict) or not returned:
        raise StageFailed(
            f"`preprocess` of {job.workload} must return a batch.",
            expected="a dictionary from the name of a feature to its tensor",
            received=type(returned).__name__,
        )
    layout = {name: _record_feature(job, name, tensor) for name, tensor in returned.items()}
    lost = [name for name, feature in given.items() if feature.role == "target" and name not in layout]
    if lost:
        raise StageFailed(
            f"`preprocess` of {job.workload} drops the target `{lost[0]}`.",
            expected=f"a batch with {', '.join(given)}",
            received=", ".join(layout),
            remedy="return `{**batch, …}` with what has changed",
        )
    return layout


def _record_feature(job: Job, name: str, tensor: Any) -> Feature:
    """What a record holds under this name: shape and type as returned, its meaning as the source declares it."""
    import tensorflow as tf

    ragged = isinstance(tensor, tf.RaggedTensorSpec)
    shape, dtype = tf.TensorShape(None), type(tensor).__name__
    if ragged or isinstance(tensor, tf.TensorSpec):
        shape, dtype = tensor.shape, tensor.dtype.name
    known = shape[2:] if ragged else shape[1:]
    single = not ragged or tensor.ragged_rank == 1
    if dtype not in _STORED or not shape.rank or not single or not known.is_fully_defined():
        raise StageFailed(
            f"`preprocess` of {job.workload} returns a feature `{name}` that records can't hold.",
            expected=f"{', '.join(_STORED)}; examples first, every other dimension known (or ragged, the second one)",
            received=f"{dtype} of shape {shape}",
            remedy="`tf.cast` it, or set its shape with `tf.ensure_shape`",
        )
    dimensions = (None, *known) if ragged else tuple(known)
    raw = job.origin.features.get(name)
    if raw is None:
        return Feature(shape=dimensions, dtype=dtype, role=job.pipeline.records.roles.get(name, "input"))
    # An image that was decoded is still an image; a class number that became a vector is no class number.
    alike = (raw.shape, raw.dtype) == (dimensions, dtype)
    decoded = raw.kind in ("image", "mask") and dtype == "uint8" and len(dimensions) == 3
    return Feature(
        shape=dimensions,
        dtype=dtype,
        role=raw.role,
        content=raw.content if alike else raw.kind if decoded else None,
        classes=raw.classes if alike or decoded else (),
        columns=raw.columns if dimensions and len(raw.columns) == dimensions[-1] else (),
    )


_STORED = ("float32", "int64", "uint8", "string")


def _can_serve(job: Job, function: Function, layout: Mapping[str, Feature], batch: pa.RecordBatch) -> None:
    """The same function must give the same inputs from a batch without targets: a served model is given none."""
    from headrace.readers.batches import to_arrays

    given = job.origin.features
    whole = tensors(to_arrays(batch, given))
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
            received=in_a_line(error),
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


def _equal(one: Any, other: Any) -> bool:
    import numpy as np
    import tensorflow as tf

    if isinstance(one, tf.RaggedTensor):
        same = isinstance(other, tf.RaggedTensor) and _equal(one.row_splits, other.row_splits)
        return same and _equal(one.values, other.values)
    # Only numbers can be asked whether they are NaN, which is then equal to itself.
    return np.array_equal(one.numpy(), other.numpy(), equal_nan=one.dtype.is_floating)
