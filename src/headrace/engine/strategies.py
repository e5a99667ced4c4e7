"""Which `tf.distribute` strategy a training runs under. Batch sizes are global whichever it is."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import TYPE_CHECKING

from headrace.errors import ConfigError, SystemTrouble, nearest
from headrace.spec import REFUSED

if TYPE_CHECKING:
    import tensorflow as tf

NAMES = ("auto", "default", "one_device", "mirrored", "multi_worker", "tpu")


def choose(name: str) -> tf.distribute.Strategy:
    """The strategy of this name.

    Args:
        name: `default` (TensorFlow's own placement), `one_device` (the first accelerator, or the CPU), `mirrored` (a
            copy of the model on each device of the machine), `multi_worker` (a copy on each device of each worker that
            TF_CONFIG names), `tpu`; or `auto`: whichever of the last three there is more than one device for, else
            default.

    Raises:
        ConfigError: There is no such strategy, it is one of those that don't work, or TF_CONFIG names no workers.
        SystemTrouble: The other workers can't be joined any more, or there is no TPU.
    """
    if name in REFUSED:
        raise ConfigError(f"Strategy `{name}` is refused: {REFUSED[name]}.", expected=", ".join(NAMES))
    if name not in NAMES:
        raise ConfigError(f"There is no strategy `{name}`: {nearest(name, NAMES)}", expected=", ".join(NAMES))
    # Before anything else is asked of TensorFlow: workers can be joined only by a process that has done nothing yet.
    if name == "multi_worker" or (name == "auto" and worker()[1] > 1):
        return _workers()
    import tensorflow as tf

    accelerators = tf.config.list_logical_devices("GPU")
    devices = accelerators or tf.config.list_logical_devices("CPU")
    if name == "auto":
        name = "mirrored" if len(accelerators) > 1 else "tpu" if os.environ.get("TPU_NAME") else "default"
    if name == "tpu":
        return _tpu()
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0].name)
    if name == "mirrored":
        # The default reduction fails inside loops in a graph: "You must feed a value for placeholder …/while/cond".
        return tf.distribute.MirroredStrategy(
            [device.name for device in devices], cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
    return tf.distribute.get_strategy()


def worker() -> tuple[int, int]:
    """The number of this process among the workers that TF_CONFIG names, and how many there are: `(0, 1)` if alone.

    Raises:
        ConfigError: TF_CONFIG can't be read.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0, 1
    try:
        found = json.loads(text)
        workers = found["cluster"]["worker"]
        index = int(found["task"]["index"])
        if found["task"]["type"] != "worker" or not 0 <= index < len(workers):
            raise ValueError(f"task {found['task']}")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "TF_CONFIG can't be read.",
            expected='{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}',
            received=f"{text} ({error})",
        ) from error
    return index, len(workers)


@lru_cache(maxsize=1)
def _workers() -> tf.distribute.Strategy:
    """Made once: a process joins the others once."""
    import tensorflow as tf

    if worker()[1] == 1:
        raise ConfigError(
            "TF_CONFIG names no other workers.",
            expected='{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}',
            received=os.environ.get("TF_CONFIG"),
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise SystemTrouble(
            "The other workers can be joined only before TensorFlow has computed anything in this process.",
            received=str(error).splitlines()[0],
            remedy="run the stages before it first (`headrace run` with train.strategy=default), then start again",
        ) from error


def _tpu() -> tf.distribute.Strategy:
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise SystemTrouble(
            "There is no TPU to be found.", received=str(error).splitlines()[0], remedy="set train.strategy to auto"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def from_chief(strategy: tf.distribute.Strategy, message: bytes) -> bytes:
    """What the first worker says, told to all; what the others say is not heard."""
    import numpy as np
    import tensorflow as tf

    def told(values: np.ndarray[tuple[int], np.dtype[np.int32]]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        def on_replica() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            mine = tf.constant(values) * tf.cast(tf.equal(context.replica_id_in_sync_group, 0), tf.int32)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        found = tf.function(lambda: strategy.run(on_replica), autograph=False)()
        return strategy.experimental_local_results(found)[0].numpy()

    length = int(told(np.array([len(message)], np.int32))[0])
    padded = message[:length].ljust(length, b"\0") + bytes(-length % 4)
    return told(np.frombuffer(padded, np.int32)).tobytes()[:length]
