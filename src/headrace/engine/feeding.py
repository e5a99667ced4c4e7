"""Where the batches of a training come from: arrays in memory, or records that are read while it goes on.

Both feeds give the same batches: the order of an epoch is a function of seed and epoch (`headrace.records.orders`),
and a batch is a function of that order and the number of the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.ragged import Array, Ragged, from_tensor, to_tensor
from headrace.records.inputs import ALIGNMENT, aligned
from headrace.windows import Windowed

if TYPE_CHECKING:
    import tensorflow as tf

    from headrace.records.inputs import Info

Arrays = Mapping[str, Array | Ragged | Windowed]


@dataclass(frozen=True)
class Split:
    """Examples in memory: inputs and targets by name, each array (examples, *shape)."""

    inputs: Arrays
    targets: Arrays = field(default_factory=dict)
    weights: Array | None = None
    """How much each example counts in the loss, (examples,); None for all the same."""

    @classmethod
    def of(cls, values: Arrays, info: Info) -> Split:
        """The features that a model sees, of those that records hold."""
        inputs, targets = ({name: values[name] for name in info.named(role)} for role in ("input", "target"))
        weights = [np.asarray(values[name]).reshape(-1) for name in info.named("weight")]
        return cls(inputs, targets, np.prod(weights, axis=0, dtype=np.float32) if weights else None)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, rows: Array | slice) -> Split:
        """The examples at these positions."""
        return Split(
            {name: values[rows] for name, values in self.inputs.items()},
            {name: values[rows] for name, values in self.targets.items()},
            None if self.weights is None else self.weights[rows],
        )

    def dense(self) -> Split:
        """The same with windows as arrays: copies, for code that is not the engine's."""
        inputs, targets = (
            {name: np.asarray(values) if isinstance(values, Windowed) else values for name, values in arrays.items()}
            for arrays in (self.inputs, self.targets)
        )
        return Split(inputs, targets, self.weights)

    def tensors(self) -> Any:
        """Inputs, targets and weights as TensorFlow keeps them."""
        import tensorflow as tf

        inputs, targets = (
            {name: shared(values) for name, values in arrays.items()} for arrays in (self.inputs, self.targets)
        )
        return inputs, targets, None if self.weights is None else tf.constant(self.weights)


@dataclass(frozen=True, eq=False)
class Memory:
    """A training on arrays.

    Args:
        train: The examples to learn from.
        held: The examples to watch, or None.
        seed: Seed of the orders.
    """

    train: Split
    held: Split | None
    seed: int

    @property
    def examples(self) -> int:
        """Of an epoch."""
        return len(self.train)


@dataclass(eq=False)
class Stream:
    """A training on records that don't fit in memory.

    Args:
        folder: A finished folder of records.
        held: Name of the split to watch, or None.
        seed: Seed of the orders.
        batch_size: Of a global batch.
        epochs: In all.
        shuffle: Draw a new order for each epoch.
        drop_remainder: Leave the smaller last batch of an epoch out.
        shard: The share of this worker: `(number, workers)`.
        rows: Positions of the examples to learn from; default: the whole split.
        held_rows: Positions of those to watch, in the split `held`; default: all of it.
    """

    folder: Path
    held: str | None
    seed: int
    batch_size: int
    epochs: int
    shuffle: bool = True
    drop_remainder: bool = False
    shard: tuple[int, int] = (0, 1)
    rows: Array | None = None
    held_rows: Array | None = None
    _at: int = -1
    _iterator: Iterator[Any] | None = None

    def __post_init__(self) -> None:
        from headrace.records.inputs import read_info

        self.info = read_info(self.folder)

    @property
    def examples(self) -> int:
        """Of an epoch."""
        return self.info.examples["train"] if self.rows is None else len(self.rows)

    def sample(self, rows: int) -> Split:
        """The first examples, by which a model learns its shapes."""
        from headrace.records.inputs import dataset

        batch = next(iter(dataset(self.folder, "train", rows, self.rows)))
        return Split.of({name: from_tensor(values) for name, values in batch.items()}, self.info)

    def batches(self, step: int, steps: int) -> Iterator[Any]:
        """The batches from that of this step on, counted over all epochs, of which `steps` will be taken."""
        from headrace.records.inputs import stream

        if self._iterator is None or self._at != step:
            data = stream(
                self.folder,
                "train",
                batch_size=self.batch_size,
                seed=self.seed,
                epochs=self.epochs,
                first_step=step,
                shuffle=self.shuffle,
                drop_remainder=self.drop_remainder,
                shard=self.shard,
                # In an order of their own, windows would have each row read as often as they have steps: the rows are
                # kept, if they fit.
                in_memory=None if self.info.windows else False,
                rows=self.rows,
            )
            self._iterator = iter(self._seen(data))
        self._at = step + steps
        return self._iterator

    def watched(self, size: int) -> tuple[Iterator[Any], int]:
        """The batches of the split that is watched, in stored order, and their number."""
        from headrace.records.inputs import dataset

        assert self.held is not None  # noqa: S101 (asked for only if there is one)
        examples = self.info.examples[self.held] if self.held_rows is None else len(self.held_rows)
        return iter(self._seen(dataset(self.folder, self.held, size, self.held_rows))), -(-examples // size)

    def _seen(self, data: tf.data.Dataset) -> tf.data.Dataset:
        """Leave out what the model never sees, and pad what differs in length."""
        import tensorflow as tf

        weights = list(self.info.named("weight"))

        def parts(batch: Any) -> Any:
            inputs, targets = (
                {name: padded(batch[name]) for name in self.info.named(role)} for role in ("input", "target")
            )
            if not weights:
                return inputs, targets
            return (
                inputs,
                targets,
                tf.math.reduce_prod(
                    tf.stack([tf.reshape(tf.cast(batch[name], tf.float32), [-1]) for name in weights]), 0
                ),
            )

        return data.map(parts, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def shared(values: Array | Ragged | Windowed) -> Any:
    """An array as a tensor on the same memory, where TensorFlow can use that: nobody may change it any more.

    `tf.constant` would copy it twice: once for safety, and once to where its kernels want numbers to begin.
    """
    import tensorflow as tf

    if isinstance(values, Windowed):
        return values.tensor()
    if isinstance(values, Ragged) or values.dtype == object or tf.config.list_logical_devices("GPU"):
        return to_tensor(values)
    if values.ctypes.data % ALIGNMENT or not values.flags.c_contiguous or not values.flags.writeable:
        moved = aligned(values.shape, values.dtype)
        moved[...] = values
        values = moved
    return tf.experimental.dlpack.from_dlpack(values.__dlpack__())


def padded(values: Any) -> Any:
    """A plain tensor: examples of different length are filled up with zeros at their end, to the longest of the batch;
    windows are cut out."""
    import tensorflow as tf

    return values if isinstance(values, tf.Tensor) else values.to_tensor()
