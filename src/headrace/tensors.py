"""Windows of a series as TensorFlow keeps them: where each begins, and cut out in the graph where they are needed."""

from typing import Any

import tensorflow as tf


class WindowTensor(tf.experimental.ExtensionType):
    """The values of some windows: see `headrace.windows.Windowed`."""

    values: tf.Tensor
    """(rows of the series, *shape of a row)"""
    starts: tf.Tensor
    """(examples,), int32"""
    offsets: tf.Tensor
    """(steps,), int32"""

    @property
    def shape(self) -> Any:
        """(examples, steps, *shape of a row)"""
        return tf.TensorShape([*self.starts.shape, *self.offsets.shape, *self.values.shape[1:]])

    @property
    def dtype(self) -> Any:
        """Of the values."""
        return self.values.dtype

    def gather(self, rows: Any) -> Any:
        """The examples at these positions (rows,), as a plain tensor."""
        return tf.gather(self.values, tf.gather(self.starts, rows)[:, None] + self.offsets)

    def to_tensor(self) -> Any:
        """All of them, as a plain tensor."""
        return self.gather(tf.range(tf.shape(self.starts)[0]))


def gathered(values: Any, rows: Any) -> Any:
    """The examples at these positions, out of a tensor of any kind."""
    return values.gather(rows) if isinstance(values, WindowTensor) else tf.gather(values, rows)
