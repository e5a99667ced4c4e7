"""Which `tf.distribute` strategy a training runs under. Batch sizes are global whichever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf


def choose(name: str) -> tf.distribute.Strategy:
    """The strategy of this name.

    Args:
        name: `default` (TensorFlow's own placement), `one_device` (the first accelerator, or the CPU), `mirrored` (a
            copy of the model on each device of the machine), or `auto`: mirrored where there are several
            accelerators, else default.

    Raises:
        ConfigError: There is no such strategy.
    """
    import tensorflow as tf

    accelerators = tf.config.list_logical_devices("GPU")
    devices = accelerators or tf.config.list_logical_devices("CPU")
    if name == "auto":
        name = "mirrored" if len(accelerators) > 1 else "default"
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0].name)
    if name == "mirrored":
        # The default reduction fails inside loops in a graph: "You must feed a value for placeholder …/while/cond".
        return tf.distribute.MirroredStrategy(
            [device.name for device in devices], cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
    raise ConfigError(f"There is no strategy `{name}`.", expected="auto, default, one_device or mirrored")
