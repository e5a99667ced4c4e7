"""From raw examples to records, portion by portion: the workload's function applied to them, checked and encoded."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError, StageFailed
from headrace.jobs import Job, taken
from headrace.placing.dividing import in_threads, processors, until_trouble
from headrace.spec import Feature

if TYPE_CHECKING:
    import pyarrow as pa
    import tensorflow as tf

    from headrace.describing.summaries import Statistics
    from headrace.readers.batches import Arrays
    from headrace.records.inputs import Batch

Function = Callable[["Batch"], "Batch"]


def function_of(job: Job, statistics: Statistics, learned: Mapping[str, Any] | None) -> Function:
    """The function that the workload makes of what it learned."""
    try:
        make = job.the("preprocess")
        given = [learned] if job.function("learn") else []
        return make(statistics, *given, **taken(make, job.settings.preprocess))
    except HeadraceError:
        raise
    except Exception as error:
        raise failed(job, "with the statistics of the training split", error) from error


@dataclass(frozen=True)
class Portion:
    """Raw examples of a split that are worked on at once."""

    split: str
    first: int
    """The row of the first of them in the split."""
    rows: pa.RecordBatch
    size: int
    """Bytes of them, and of what becomes of them."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Arrow would pickle the whole batch that these rows were cut from.
        return _unpacked, (self.split, self.first, self.rows.schema, self.rows.serialize(), self.size)


def _unpacked(split: str, first: int, schema: pa.Schema, rows: pa.Buffer, size: int) -> Portion:
    import pyarrow as pa

    return Portion(split, first, pa.ipc.read_record_batch(rows, schema), size)


def portions(split: str, batches: Iterable[pa.RecordBatch], layout: Mapping[str, Feature]) -> Iterator[Portion]:
    """Batches cut so small that what becomes of them fits in memory a few times over (a file of 20 kB may be decoded
    into an image of a megabyte), and that several cores find work in texts and files, which take long to read.
    """
    example = sum(feature.size * _BYTES[feature.dtype] for feature in layout.values())
    before = 0
    for batch in batches:
        read = sum(column.nbytes for column in batch.columns if _of_bytes(column.type))
        rows = max(1, min(PORTION // max(example, 1), READ * batch.num_rows // max(read, 1)))
        for first in range(0, batch.num_rows, rows):
            some = batch.slice(first, rows)
            yield Portion(split, before + first, some, some.nbytes + example * some.num_rows)
        before += batch.num_rows


class Recorder:
    """From raw examples to records: the workload's function applied to them, its results checked, encoded and framed.

    Called with portions of a split it gives their records in their order, some at a time; one split after the other.
    It can be pickled: a copy builds the function anew when it is first called.

    Args:
        job: Names the workload's function.
        features: Those of the raw examples.
        statistics: What the function is made of: those of the training split,
        learned: and what the workload's `learn` gave, if it has one.
    """

    layout: Mapping[str, Feature]
    """The features of a record; to be set before it is called."""
    _arrays: Callable[[], Iterator[Arrays]]

    def __init__(
        self,
        job: Job,
        features: Mapping[str, Feature],
        statistics: Statistics,
        learned: Mapping[str, Any] | None,
    ) -> None:
        self._job, self._features, self._statistics, self._learned = job, features, statistics, learned

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: vars(self)[name] for name in ("_features", "_statistics", "_learned", "layout")}
        # A job that was used holds its workload's functions, which are found by its name where it goes.
        return {**kept, "_job": self._job.model_dump_json()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "_job": Job.model_validate_json(state["_job"])})

    @cached_property
    def function(self) -> Function:
        """The workload's function."""
        return function_of(self._job, self._statistics, self._learned)

    @property
    def returned(self) -> Any:
        """What the function returns of a batch of these features: specs of tensors."""
        return self._made.element_spec

    @cached_property
    def _made(self) -> tf.data.Dataset:
        # Kept for all splits and parts: to trace the function takes TensorFlow up to some tenths of a second.
        return mapped(self.function, self._features, lambda: self._arrays())

    def __call__(self, portions: Iterable[Portion]) -> Iterator[pa.LargeBinaryArray]:
        """The records of portions, framed as they stand in a file.

        Raises:
            DataError: Some numbers are not finite.
            StageFailed: The function fails.
        """
        yield from itertools.chain.from_iterable(in_threads(self._records, self._applied(portions)))

    def _applied(self, portions: Iterable[Portion]) -> Iterator[tuple[Portion, Batch]]:
        """Portions, and what the function makes of each."""
        import tensorflow as tf

        from headrace.readers.batches import to_arrays

        trouble: list[Exception] = []
        under_way: deque[Portion] = deque()

        def noted(portion: Portion) -> Arrays:
            under_way.append(portion)
            return to_arrays(portion.rows, self._features)

        def arrays() -> Iterator[Arrays]:
            # An error that crossed TensorFlow would come out as another one, with a stack printed to the terminal.
            return until_trouble(trouble, map(noted, portions))

        self._arrays = arrays
        try:
            for made in self._made:
                yield under_way.popleft(), made
        except tf.errors.OpError as error:
            raise failed(self._job, "with the examples", error) from error
        if trouble:
            raise trouble[0]

    def _records(self, applied: tuple[Portion, Batch]) -> list[pa.LargeBinaryArray]:
        from headrace.records.writing import framed, small
        from headrace.validation import checking

        portion, made = applied
        batch = _to_arrow(self._job, made, portion.rows.num_rows)
        remedy = "let `preprocess` give finite numbers; what is missing, it must fill in"
        none = checking.Quarantine(remedy=remedy, before=portion.first)
        checked = checking.checked([batch], self.layout, f"split `{portion.split}` after preprocess", none)
        return [framed(some, self.layout, self._job.pipeline.records) for some in small(checked)]


def mapped(
    function: Function, features: Mapping[str, Feature], arrays: Callable[[], Iterator[Arrays]]
) -> tf.data.Dataset:
    """Batches of these features → what the function makes of each, in their order, one at a time for each processor."""
    import tensorflow as tf

    from headrace.ragged import Ragged

    def flat(batch: Arrays) -> dict[str, Any]:
        # Ragged values travel as two arrays: what builds a ragged tensor in Python would go through every example.
        return {name: (v.values, v.splits) if isinstance(v, Ragged) else v for name, v in batch.items()}

    def signature(feature: Feature) -> Any:
        # The first dimension is that of the examples, or of the steps of all of them.
        shape = feature.shape if feature.ragged else (None, *feature.shape)
        values = tf.TensorSpec(shape, feature.dtype)
        return (values, tf.TensorSpec((None,), tf.int64)) if feature.ragged else values

    def batch_of(parts: Mapping[str, Any]) -> Batch:
        return {
            name: tf.RaggedTensor.from_row_splits(*part) if isinstance(part, tuple) else part
            for name, part in parts.items()
        }

    threads = processors()
    several = {"num_parallel_calls": threads, "deterministic": True} if threads > 1 else {}
    options = tf.data.Options()
    # TensorFlow would do several at a time, and some ahead, also where it is told not to.
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    made = tf.data.Dataset.from_generator(
        lambda: map(flat, arrays()),
        output_signature={name: signature(feature) for name, feature in features.items()},
    ).map(lambda parts: function(batch_of(parts)), **several)
    return (made.prefetch(1) if several else made).with_options(options)


def _of_bytes(kind: pa.DataType) -> bool:
    import pyarrow.types as is_

    return bool(is_.is_string(kind) or is_.is_binary(kind) or is_.is_large_string(kind) or is_.is_large_binary(kind))


PORTION = 2**24
"""Bytes of decoded examples that are worked on at once, for each core."""
READ = 2**19
"""Bytes of texts and files that are worked on at once, for each core."""
_BYTES = {"float32": 4, "int64": 8, "uint8": 1, "string": 64}


def _to_arrow(job: Job, batch: Batch, rows: int) -> pa.RecordBatch:
    """Tensors as an Arrow batch, each of them with as many examples as were put in."""
    from headrace.ragged import from_tensor
    from headrace.readers.batches import batches

    arrays: dict[str, Any] = {}
    for name, tensor in batch.items():
        values = from_tensor(tensor)
        if len(values) != rows:
            raise StageFailed(
                f"`preprocess` of {job.workload} changes the number of examples of `{name}`.",
                expected=f"{rows} examples, as many as were given",
                received=len(values),
                remedy="leave examples out in `read`",
            )
        arrays[name] = values
    return next(iter(batches(arrays, rows)))


def tensors(arrays: Arrays) -> Batch:
    """Arrays of some examples as TensorFlow keeps them."""
    from headrace.ragged import to_tensor

    return {name: to_tensor(values) for name, values in arrays.items()}


def failed(job: Job, given: str, error: Exception) -> StageFailed:
    """The error for a workload's function that fails, given something."""
    return StageFailed(f"`preprocess` of {job.workload} fails {given}.", received=in_a_line(error))


def in_a_line(error: Exception) -> str:
    """The kind and the last line of an error: AutoGraph puts the reason at the end of a long account."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return last if last.startswith(type(error).__name__) else f"{type(error).__name__}: {last}"
