"""What is decided at the end of an epoch: stop, lower the learning rate, keep the weights; by the rules of Keras.

The rules are written in TensorFlow's operations and keep what they remember in variables, so that they work inside the
graph that trains whole epochs as well as from Python, and a checkpoint that holds the variables holds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import ConfigError, nearest
from headrace.spec import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau, Train
from headrace.spec import Watch as Rules

if TYPE_CHECKING:
    import tensorflow as tf

Array = np.ndarray[Any, Any]


class Watchers:
    """Everything that watches a training.

    Args:
        settings: What shall be watched.
        weights: The weights that are kept when they are the best.
        optimizers: Whose learning rate is lowered.
    """

    def __init__(self, settings: Train, weights: Sequence[Any], optimizers: Sequence[Any]) -> None:
        self.stopping = _Stopping(settings.early_stopping, weights) if settings.early_stopping else None
        self.plateau = _Plateau(settings.reduce_lr, optimizers) if settings.reduce_lr else None
        self.best = _Best(settings.checkpoint, weights) if settings.checkpoint else None
        self._all: list[_Watcher] = [item for item in (self.stopping, self.plateau, self.best) if item]

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint must hold of them."""
        return [variable for watcher in self._all for variable in watcher.variables]

    def check(self, names: Sequence[str]) -> None:
        """Make sure that everything watched is measured.

        Raises:
            ConfigError: Something isn't; the message names all of it, and what is nearest.
        """
        wrong = [watcher for watcher in self._all if watcher.rules.monitor not in names]
        if wrong:
            monitored = [(item.field, item.rules.monitor) for item in wrong]
            raise ConfigError(
                "\n".join(f"{field} can't watch `{name}`: {nearest(name, names)}" for field, name in monitored)
            )

    def watch(self, values: Mapping[str, Any], epoch: Any) -> Any:
        """Take the metrics of an epoch (from 1); returns whether to go on."""
        import tensorflow as tf

        going = tf.constant(True)
        for watcher in self._all:
            going = tf.logical_and(going, watcher.watch(values[watcher.rules.monitor], epoch))
        return going

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the training."""
        return self.stopping is not None and bool(self.stopping.stopped.numpy())

    @property
    def best_epoch(self) -> int | None:
        """The epoch (from 1) whose weights are the best, if anything watches; 0 before the first one."""
        judge = self.best or self.stopping
        return int(judge.best_epoch.numpy()) if judge else None

    def finals(self, variables: Sequence[Any]) -> dict[str, list[Array]]:
        """The values that a training leaves of a model's variables: of `model`, and of `best` or `last` beside it."""
        if self.stopping and self.stopping.rules.restore_best_weights and int(self.stopping.best_epoch.numpy()):
            self.stopping.kept.put_back()
        last = [variable.numpy() for variable in variables]
        if not self.best or not self.best_epoch:
            return {"model": last}
        self.best.kept.put_back()
        found = [variable.numpy() for variable in variables]
        return {"model": found, "last": last} if self.best.rules.use == "best" else {"model": last, "best": found}


class _Watcher:
    """Remembers the best value of a metric, the epoch it is from, and how long ago that was."""

    field = ""
    """The setting of `Train` that asks for it."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.sign = float(rules.sign)
        self.best = _variable(np.inf * self.sign, np.float32)
        self.best_epoch = _variable(0, np.int32)
        self.wait = _variable(0, np.int32)

    @property
    def variables(self) -> list[Any]:
        return [self.best, self.best_epoch, self.wait]

    def improves(self, value: Any) -> Any:
        return self.sign * value < self.sign * self.best - self.rules.min_delta

    def remember(self, better: Any, value: Any, epoch: Any) -> None:
        import tensorflow as tf

        self.wait.assign(tf.where(better, 0, self.wait + 1))
        self.best.assign(tf.where(better, value, self.best))
        self.best_epoch.assign(tf.where(better, epoch, self.best_epoch))

    def watch(self, value: Any, epoch: Any) -> Any:
        raise NotImplementedError


class _Kept:
    """A copy of the best weights."""

    def __init__(self, weights: Sequence[Any]) -> None:
        import tensorflow as tf

        self._weights = weights
        self.copies = [tf.Variable(weight.value, trainable=False) for weight in weights]

    def take(self, better: Any) -> None:
        import tensorflow as tf

        for copy, weight in zip(self.copies, self._weights, strict=True):
            copy.assign(tf.where(better, weight.value, copy))

    def put_back(self) -> None:
        """Give the model the weights that were kept."""
        for copy, weight in zip(self.copies, self._weights, strict=True):
            weight.assign(copy)


class _Stopping(_Watcher):
    """`keras.callbacks.EarlyStopping`."""

    field = "early_stopping"
    rules: EarlyStopping

    def __init__(self, rules: EarlyStopping, weights: Sequence[Any]) -> None:
        super().__init__(rules)
        self.stopped = _variable(False, np.bool_)
        self.kept = _Kept(weights if rules.restore_best_weights else [])

    @property
    def variables(self) -> list[Any]:
        return [*super().variables, self.stopped, *self.kept.copies]

    def watch(self, value: Any, epoch: Any) -> Any:
        import tensorflow as tf

        watched = epoch > self.rules.start_from_epoch
        better = tf.logical_and(self.improves(value), watched)
        self.remember(better, value, epoch)
        self.wait.assign(tf.where(watched, self.wait, 0))
        self.kept.take(better)
        # Keras never stops after the first epoch, whatever the patience.
        stop = tf.logical_and(self.wait >= max(self.rules.patience, 1), tf.logical_and(epoch > 1, ~better))
        self.stopped.assign(stop)
        return ~stop


class _Best(_Watcher):
    """`keras.callbacks.ModelCheckpoint(save_best_only=True)`; the file is written when training ends."""

    field = "checkpoint"
    rules: ModelCheckpoint

    def __init__(self, rules: ModelCheckpoint, weights: Sequence[Any]) -> None:
        super().__init__(rules)
        self.kept = _Kept(weights)

    @property
    def variables(self) -> list[Any]:
        return [*super().variables, *self.kept.copies]

    def watch(self, value: Any, epoch: Any) -> Any:
        import tensorflow as tf

        better = self.improves(value)
        self.remember(better, value, epoch)
        self.kept.take(better)
        return tf.constant(True)


class _Plateau(_Watcher):
    """`keras.callbacks.ReduceLROnPlateau`."""

    field = "reduce_lr"
    rules: ReduceLROnPlateau

    def __init__(self, rules: ReduceLROnPlateau, optimizers: Sequence[Any]) -> None:
        super().__init__(rules)
        self._rates = [rate(optimizer) for optimizer in optimizers]
        self.cooldown = _variable(0, np.int32)

    @property
    def variables(self) -> list[Any]:
        return [*super().variables, self.cooldown]

    def watch(self, value: Any, epoch: Any) -> Any:
        import tensorflow as tf

        rules = self.rules
        resting = self.cooldown > 0
        self.cooldown.assign_sub(tf.cast(resting, tf.int32))
        # In the last epoch of the rest Keras counts again, from 0.
        cooling = self.cooldown > 0
        better = self.improves(value)
        counted = tf.where(better, 0, tf.where(cooling, 0, tf.where(resting, 0, self.wait) + 1))
        self.best.assign(tf.where(better, value, self.best))
        self.best_epoch.assign(tf.where(better, epoch, self.best_epoch))
        # Keras asks after counting: the epoch that makes the patience full is the one that lowers the rate.
        lower = tf.logical_and(~tf.logical_or(better, cooling), counted >= rules.patience)
        for learning_rate in self._rates:
            lowered = tf.maximum(learning_rate.value * rules.factor, rules.min_lr)
            learning_rate.assign(tf.where(lower, lowered, learning_rate.value))
        self.cooldown.assign(tf.where(lower, rules.cooldown, self.cooldown))
        self.wait.assign(tf.where(lower, 0, counted))
        return tf.constant(True)


def rate(optimizer: Any) -> Any:
    """The variable that holds the learning rate.

    Raises:
        ConfigError: The rate follows a schedule.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if not hasattr(inner._learning_rate, "assign"):
        raise ConfigError(
            "The learning rate follows a schedule, it can't be lowered.",
            remedy="leave out train.reduce_lr and on_divergence",
        )
    return inner._learning_rate


def _variable(value: Any, dtype: Any) -> tf.Variable:
    import tensorflow as tf

    return tf.Variable(np.asarray(value, dtype), trainable=False)
