"""Values whose number differs from example to example, as NumPy keeps them: all in one array, and where each begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from headrace.errors import StageFailed

if TYPE_CHECKING:
    import tensorflow as tf

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Ragged:
    """The values of some examples: example `i` has `values[splits[i]:splits[i + 1]]`."""

    values: Array
    """(steps of all examples, *shape of a step)"""
    splits: Array
    """(examples + 1,), int64; the first is 0, the last the number of all steps."""

    @classmethod
    def of(cls, examples: Sequence[Any], dtype: Any = None) -> Self:
        """From one array (or list) for each example; an empty list of examples needs a `dtype`."""
        arrays = [np.asarray(example, dtype) for example in examples]
        splits = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
        return cls(np.concatenate(arrays) if arrays else np.empty(0, dtype), splits)

    @classmethod
    def joined(cls, parts: Iterable[Ragged]) -> Self:
        """The examples of several parts, one after the other."""
        parts = list(parts)
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.values for part in parts]), np.cumsum([0, *lengths], dtype=np.int64))

    @property
    def lengths(self) -> Array:
        """Steps of each example (examples,)."""
        return np.diff(self.splits)

    @property
    def dtype(self) -> Any:
        """Of the values."""
        return self.values.dtype

    def __len__(self) -> int:
        return len(self.splits) - 1

    def __iter__(self) -> Iterator[Array]:
        return (self.values[start:end] for start, end in zip(self.splits[:-1], self.splits[1:], strict=True))

    def __getitem__(self, rows: Array | slice) -> Ragged:
        """The examples at these positions: a slice, integers, or a mask, as NumPy takes them."""
        chosen = np.arange(len(self))[rows]
        lengths = self.lengths[chosen]
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        # The position of each step: where its example begins, and how far into the example it is.
        steps = np.arange(splits[-1]) + np.repeat(self.splits[chosen] - splits[:-1], lengths)
        return Ragged(self.values[steps], splits)

    def tensor(self) -> tf.RaggedTensor:
        """As TensorFlow keeps it."""
        import tensorflow as tf

        return tf.RaggedTensor.from_row_splits(tf.constant(self.values), tf.constant(self.splits), validate=False)


def joined(parts: Sequence[Array | Ragged]) -> Array | Ragged:
    """The examples of several parts of one feature, one after the other; at least one part."""
    ragged = [part for part in parts if isinstance(part, Ragged)]
    return Ragged.joined(ragged) if ragged else np.concatenate([dense(part) for part in parts])


def to_tensor(values: Any) -> Any:
    """Values of a feature (an array, `Ragged`, or `headrace.windows.Windowed`) as TensorFlow keeps them."""
    import tensorflow as tf

    return tf.constant(values) if isinstance(values, np.ndarray) else values.tensor()


def from_tensor(tensor: tf.Tensor | tf.RaggedTensor) -> Array | Ragged:
    """Values of a feature as NumPy keeps them."""
    import tensorflow as tf

    if isinstance(tensor, tf.RaggedTensor):
        return Ragged(tensor.values.numpy(), tensor.row_splits.numpy())
    return tensor.numpy()


def dense(values: Any) -> Array:
    """Values as an array; they are one, or windows, because their feature is of the same length in every example.

    Raises:
        StageFailed: They are not.
    """
    if isinstance(values, Ragged):
        raise StageFailed(
            "Values whose length differs from example to example can't be used here.",
            expected="a feature of one shape",
            remedy="cut or fill them up to one length in `preprocess`",
        )
    return np.asarray(values)
