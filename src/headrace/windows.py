"""Windows of a series: which there are, what an example of them is, and how they are kept without a copy of each.

A series of 210,000 rows has as many windows, and stored each by itself they would be 120 times as large. So records
hold the rows, and a window is where it begins: `Windowed` is to windows what `headrace.ragged.Ragged` is to lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import ConfigError, DataError
from headrace.spec import Feature, Windows

if TYPE_CHECKING:
    import tensorflow as tf

    from headrace.tensors import WindowTensor

Array = np.ndarray[Any, Any]

CUT = 256
"""Windows that are cut out at once, where they are asked for one after the other."""


@dataclass(frozen=True, eq=False)
class Windowed:
    """The values of some windows: example `i` is `values[starts[i] + offsets]`.

    To NumPy it is an array that is made when it is asked for: `np.asarray(windows[:256])`.
    """

    values: Array
    """(rows of the series, *shape of a row)"""
    starts: Array
    """Where each example begins (examples,), int32."""
    offsets: Array
    """Rows from there to each step (steps,), int32."""

    @property
    def dtype(self) -> Any:
        """Of the values."""
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(examples, steps, *shape of a row)"""
        return (len(self.starts), len(self.offsets), *self.values.shape[1:])

    @property
    def ndim(self) -> int:
        """Of the examples as an array."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """What is kept, which is far less than the array would take."""
        return self.values.nbytes + self.starts.nbytes + self.offsets.nbytes

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Array]:
        return (self.values[start + self.offsets] for start in self.starts)

    def __getitem__(self, rows: Any) -> Any:
        """The examples at these positions: a slice, integers or a mask, as NumPy takes them; or one, as an array."""
        starts = self.starts[rows]
        return Windowed(self.values, starts, self.offsets) if starts.ndim else self.values[starts + self.offsets]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        found = self.values[self.starts[:, None] + self.offsets]
        return found if dtype is None else found.astype(dtype, copy=False)

    def tensor(self) -> WindowTensor:
        """As TensorFlow keeps it: not a copy of each window either."""
        from headrace.engine.feeding import shared
        from headrace.tensors import WindowTensor

        return WindowTensor(shared(self.values), shared(self.starts), shared(self.offsets))


# --------------------------------------------------------------------------------- which windows there are


def tail(windows: Windows) -> int:
    """Rows of the split that follows in time which are read with a split, for their targets."""
    return windows.ahead * windows.every if windows.boundary == "beyond" else 0


def count(windows: Windows, rows: int, after: int = 0) -> int:
    """How many windows a split has.

    Args:
        windows: How they are cut.
        rows: Rows of the split.
        after: Rows that follow in the next split; none of the last one.
    """
    if windows.boundary == "inside":
        room = rows - windows.delay
    elif after:
        room = min(rows - windows.span, rows + min(after, tail(windows)) - windows.delay)
    else:
        # The rows of the book's series that have a target are `data[:-delay]`, and its windows end within them.
        room = rows - windows.delay - windows.span
    return max(-(-room // windows.stride), 0)


def counts(windows: Windows, rows: Mapping[str, int]) -> dict[str, int]:
    """Split → windows, of splits with so many rows in the order of time.

    Raises:
        DataError: A split is too short for a single one.
    """
    following = [*list(rows.values())[1:], 0]
    found = {split: count(windows, own, after) for (split, own), after in zip(rows.items(), following, strict=True)}
    for split, examples in found.items():
        if not examples:
            raise DataError(
                f"Split `{split}` is too short for a window of {windows.length} steps.",
                expected=f"more than {windows.delay:,} rows",
                received=f"{rows[split]:,} rows",
                remedy="set windows.length, windows.every or windows.ahead to less",
            )
    return found


def starts(windows: Windows, examples: int) -> Array:
    """Where the first windows begin (examples,), int32."""
    return np.arange(examples, dtype=np.int32) * np.int32(windows.stride)


def apart(windows: Windows, learn: Array, held: Array) -> Array:
    """Those examples to learn from that share no row, of inputs or targets, with an example that is held out.

    Args:
        windows: How they are cut.
        learn: A mask of the examples to learn from (examples,).
        held: A mask of those that are held out.
    """
    reach = windows.delay // windows.stride
    before = np.concatenate([[0], np.cumsum(held)])
    place = np.arange(len(held))
    near = before[np.minimum(place + reach + 1, len(held))] - before[np.maximum(place - reach, 0)]
    return learn & (near == 0)


# ------------------------------------------------------------------------------------- what an example is


def offsets(feature: Feature, windows: Windows) -> Array | int:
    """The rows of a window that a feature of an example is made of, counted from where the window begins.

    Returns:
        One for each step (steps,), int32, or the only one: that of the target, for a note the last step.
    """
    steps = np.arange(windows.length, dtype=np.int32) * np.int32(windows.every)
    if feature.role == "input":
        return steps
    if feature.role == "target" and windows.target == "each":
        return steps + np.int32(windows.delay - windows.span)
    if feature.role == "target" and windows.target == "path":
        return np.int32(windows.span) + np.arange(1, windows.ahead + 1, dtype=np.int32) * np.int32(windows.every)
    return windows.span if feature.role == "note" else windows.delay


def of_example(row: Feature, windows: Windows) -> Feature:
    """A feature of an example, made of this feature of a row.

    Raises:
        ConfigError: It differs in length from row to row.
    """
    steps = offsets(row, windows)
    if isinstance(steps, int):
        return row
    if row.ragged:
        raise ConfigError(
            "Windows can't be cut out of rows that differ in length.",
            expected="features of one shape",
            received=f"a feature of shape {row.shape}",
        )
    content = None if row.content in ("image", "mask") else row.content
    return row.model_copy(update={"shape": (len(steps), *row.shape), "content": content})


def of_row(example: Feature, windows: Windows) -> Feature:
    """The opposite of `of_example`."""
    whole = isinstance(offsets(example, windows), int)
    return example if whole else example.model_copy(update={"shape": example.shape[1:]})


def examples(rows: Mapping[str, Any], features: Mapping[str, Feature], windows: Windows, number: int) -> dict[str, Any]:
    """The windows of some rows.

    Args:
        rows: Feature → values of all rows (rows, *shape).
        features: What the features are; of rows or of examples.
        windows: How they are cut.
        number: How many there are.

    Returns:
        Feature → `Windowed`, or an array where one row of each window is enough.
    """
    begin = starts(windows, number)
    found: dict[str, Any] = {}
    for name, values in rows.items():
        steps = offsets(features[name], windows)
        found[name] = values[begin + steps] if isinstance(steps, int) else Windowed(values, begin, steps)
    return found


def over(function: Callable[[Any], Any], windows: Windows) -> Callable[[Any], Any]:
    """Preprocessing of rows, applied to windows: the same function to each row of them.

    Args:
        function: Batch of rows → batch of rows.
        windows: How they are cut.

    Returns:
        Batch of windows (examples, length, *shape of a row) → the same of what the function makes of the rows.
    """

    def apply(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        import tensorflow as tf

        rows = function({name: tf.reshape(values, (-1, *values.shape[2:])) for name, values in batch.items()})
        return {name: tf.reshape(values, (-1, windows.length, *values.shape[1:])) for name, values in rows.items()}

    return apply


# ------------------------------------------------------------------------------------------ rows by position


@dataclass(frozen=True)
class Cutter:
    """Cuts windows out of those rows that they are made of, and no others.

    Args:
        windows: How they are cut.
        features: Of the examples.
    """

    windows: Windows
    features: Mapping[str, Feature]

    def touched(self, positions: Array) -> Array:
        """The rows that the windows at these positions are made of, ascending, int32."""
        begin = (np.asarray(positions) * self.windows.stride).astype(np.int32)
        parts = [np.unique(begin[:, None] + steps) for steps in self._steps()]
        return np.unique(np.concatenate(parts)).astype(np.int32)

    def _steps(self) -> Sequence[Array]:
        found = {tuple(np.atleast_1d(offsets(feature, self.windows))) for feature in self.features.values()}
        return [np.array(steps, np.int32) for steps in sorted(found)]

    def cut(self, rows: Mapping[str, tf.Tensor], touched: Any, positions: Any) -> dict[str, tf.Tensor]:
        """In the graph: the windows at these positions, out of the rows that they touch."""
        import tensorflow as tf

        begin = tf.cast(positions, tf.int32) * self.windows.stride
        found = {}
        for name, values in rows.items():
            steps = offsets(self.features[name], self.windows)
            wanted = begin + steps if isinstance(steps, int) else begin[:, None] + steps
            places = tf.searchsorted(touched, tf.reshape(wanted, [-1]))
            found[name] = tf.gather(values, tf.reshape(places, tf.shape(wanted)))
            found[name].set_shape((None, *wanted.shape[1:], *values.shape[1:]))
        return found
