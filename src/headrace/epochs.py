"""Whole epochs in one graph: the loop over batches and epochs runs inside TensorFlow, with the data in memory.

For small networks a step costs far less than the Python around it. Measured on house prices (benchmarks/README.md):
the same updates as `model.fit` on the same batches, tens of times faster. The model, its losses, metrics and optimizer
are Keras' own; what early stopping does is done inside the graph, by the rules of `keras.callbacks.EarlyStopping`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import ConfigError, nearest
from headrace.spec import EarlyStopping, Train

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray[Any, Any]]

_ORDERS = 4_000_000
"""Positions drawn ahead for one call of the graph: bounds the memory that the orders of its epochs take."""


@dataclass(frozen=True)
class Split:
    """Examples in memory: inputs and targets by name, each array (examples, *shape)."""

    inputs: Arrays
    targets: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, rows: np.ndarray[Any, Any] | slice) -> Split:
        """The examples at these positions."""
        return Split(
            {name: values[rows] for name, values in self.inputs.items()},
            {name: values[rows] for name, values in self.targets.items()},
        )


def order(seed: int, epoch: int, examples: int, shuffle: bool = True) -> np.ndarray[Any, Any]:
    """The order in which an epoch sees the examples: a pure function, so that any epoch can be taken up again.

    Args:
        seed: Seed of the training.
        epoch: The epoch, from 0.
        examples: How many examples there are.
        shuffle: False for the order in which they are stored.

    Returns:
        Positions, shape (examples,), int32.
    """
    if not shuffle:
        return np.arange(examples, dtype=np.int32)
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples).astype(np.int32)


class Program:
    """A compiled model with the graph that trains it, traced once for each size of its splits.

    The same program trains several times (the folds of a cross-validation): `restore(initial)` starts afresh.

    Args:
        model: A Keras model, built but not compiled.
        settings: How to train it.
        strategy: The strategy; the model must have been built in its scope.
        sample: A few examples, by which losses and metrics learn their shapes.
    """

    def __init__(self, model: keras.Model, settings: Train, strategy: tf.distribute.Strategy, sample: Split) -> None:
        import keras
        import tensorflow as tf

        self.model = model
        self.settings = settings
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync
        with strategy.scope():
            optimizer = keras.optimizers.get(settings.optimizer)
            if settings.learning_rate is not None:
                optimizer.learning_rate = settings.learning_rate
            # Weighted, because a row that fills up a batch must not count.
            model.compile(optimizer=optimizer, loss=settings.loss, weighted_metrics=list(settings.metrics))
            optimizer.build(model.trainable_variables)
            self._build_metrics(sample)
            variables = [*model.variables, *optimizer.variables]
            rules = settings.early_stopping
            self._stopping = _Stopping(rules, model.weights) if rules else None
            if self._stopping:
                variables += self._stopping.variables
        self._variables = variables
        self._start = self.state
        self._compiled = settings.jit_compile and self._can_be_compiled()
        self._graph = tf.function(self._epochs, jit_compile=self._compiled, autograph=False)
        self._placed: tuple[Split, Split | None, Any] | None = None
        self.names: list[str] = []

    def _can_be_compiled(self) -> bool:
        """Whether XLA would compute the same; a warning says why not."""
        import keras

        if self.replicas > 1:
            log.warning("jit_compile is left out: XLA can't compile what several replicas do together")
            return False
        if any(isinstance(layer, keras.layers.BatchNormalization) for layer in self.model._flatten_layers()):
            log.warning("jit_compile is left out: batch normalisation would see the rows that fill up a last batch")
            return False
        return True

    def _build_metrics(self, sample: Split) -> None:
        """Let losses and metrics create their variables now: inside the graph it would be too late."""
        x, y = self._tensors(sample.take(slice(0, 2)))
        predicted = self.model(x, training=False)
        self.model.compute_loss(x, y, predicted, None, training=False)
        self.model.compute_metrics(x, y, predicted, None)

    def _tensors(self, split: Split) -> tuple[Any, Any]:
        """Inputs and targets as the model takes them: the tensor itself where there is only one."""
        import tensorflow as tf

        def plain(arrays: Arrays) -> Any:
            tensors = {name: tf.constant(values) for name, values in arrays.items()}
            return next(iter(tensors.values())) if len(tensors) == 1 else tensors

        return plain(split.inputs), plain(split.targets)

    # ------------------------------------------------------------------------------------------- state

    @property
    def state(self) -> list[np.ndarray[Any, Any]]:
        """Every value that the next step depends on: weights, optimizer, seed generators, early stopping."""
        return [variable.numpy() for variable in self._variables]

    def restore(self, state: list[np.ndarray[Any, Any]]) -> None:
        """Put a state back; the next step will be as if nothing had happened in between."""
        for variable, value in zip(self._variables, state, strict=True):
            variable.assign(value)

    def restart(self, weights: list[np.ndarray[Any, Any]]) -> None:
        """Begin afresh with these values of the model's variables, and everything else as it was at first."""
        self.restore([*weights, *self._start[len(weights) :]])

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the training."""
        return self._stopping is not None and bool(self._stopping.stopped.numpy())

    @property
    def best_epoch(self) -> int | None:
        """The epoch (from 1) that early stopping takes for the best, if it watches."""
        return int(self._stopping.best_epoch.numpy()) if self._stopping else None

    def weights(self) -> list[np.ndarray[Any, Any]]:
        """The values of the model's variables as the training leaves them: the best ones, if early stopping says so."""
        if self._stopping and self._stopping.rules.restore_best_weights and self.best_epoch:
            self._stopping.restore()
        return [variable.numpy() for variable in self.model.variables]

    # ------------------------------------------------------------------------------------------- running

    def chunk(self, examples: int) -> int:
        """The largest number of epochs that one call may run."""
        return int(np.clip(_ORDERS // max(examples, 1), 1, 1000))

    def run(self, train: Split, held: Split | None, seed: int, first: int, epochs: int) -> np.ndarray[Any, Any]:
        """Train for some epochs, fewer if early stopping or a loss that is no number ends them.

        Args:
            train: The examples to learn from.
            held: The examples to watch, or None.
            seed: Seed of the orders.
            first: Epochs done before.
            epochs: Epochs to do, at most `chunk(len(train))`.

        Returns:
            Metrics, shape (epochs done, len(self.names)), float32.
        """
        import tensorflow as tf

        self.names = self._metric_names(watched=held is not None)
        size = self.chunk(len(train))
        orders = np.zeros((size, len(train)), np.int32)
        for i in range(epochs):
            orders[i] = order(seed, first + i, len(train), self.settings.shuffle)
        tensors = self._on_device(train, held)
        rows, done = self._graph(*tensors, tf.constant(orders), tf.constant(epochs), tf.constant(first))
        return rows.numpy()[: int(done)]

    def _on_device(self, train: Split, held: Split | None) -> Any:
        """The splits as tensors, copied once."""
        kept = self._placed
        if kept is None or kept[0] is not train or kept[1] is not held:
            kept = train, held, (self._tensors(train), self._tensors(held) if held else None)
            self._placed = kept
        return kept[2]

    def forget(self) -> None:
        """Let go of the examples."""
        self._placed = None

    # ----------------------------------------------------------------------------------------- the graph

    # Written with `tf.while_loop` rather than Python loops: converting those (AutoGraph) would take longer than to
    # train four folds of house prices.

    def _epochs(self, train: Any, held: Any, orders: Any, epochs: Any, first: Any) -> Any:
        """Epochs until their number is done, the loss is no number, or early stopping says stop."""
        import tensorflow as tf

        def epoch(done: Any, _going: Any, rows: Any) -> Any:
            row = self._epoch(train, orders[done], orders.shape[1])
            if held is not None:
                row = tf.concat([row, self._evaluate(held)], 0)
            going = tf.math.is_finite(row[0])
            if self._stopping:
                monitored = row[self.names.index(self._stopping.rules.monitor)]
                going = tf.logical_and(going, self._stopping.watch(monitored, first + done + 1))
            return done + 1, going, rows.write(done, row)

        rows = tf.TensorArray(tf.float32, size=orders.shape[0], element_shape=(len(self.names),))
        done, _, rows = tf.while_loop(
            lambda done, going, _: tf.logical_and(done < epochs, going),
            epoch,
            (tf.constant(0), tf.constant(True), rows),
        )
        return rows.stack(), done

    def _epoch(self, train: Any, positions: Any, examples: int) -> Any:
        """One epoch: every whole batch, then the smaller last one, as `fit` does it."""
        import tensorflow as tf

        batch = min(self.settings.batch_size, examples)
        whole, rest = divmod(examples, batch)
        # A last batch with fewer rows than replicas can't be shared out: it is left out.
        steps = whole + (rest >= self.replicas and rest > 0)
        if self._compiled:
            positions = tf.pad(positions, [[0, steps * batch - examples]])

        def step(number: Any, total: Any) -> Any:
            first = number * batch
            if self._compiled:
                # XLA wants batches of one size: the last one is filled up with rows that weigh nothing.
                rows = tf.slice(positions, [first], [batch])
                weights = tf.cast(first + tf.range(batch) < examples, tf.float32)
                count = tf.reduce_sum(weights)
            else:
                rows, weights = positions[first : tf.minimum(first + batch, examples)], None
                count = tf.cast(tf.size(rows), tf.float32)
            return number + 1, total + count * self._step(train, rows, weights, count)

        self._reset()
        _, total = tf.while_loop(lambda number, _: number < steps, step, (tf.constant(0), tf.constant(0.0)))
        return tf.stack([total / examples, *self._results()])

    def _step(self, train: Any, rows: Any, weights: Any, count: Any) -> Any:
        """One update; returns the mean loss of the batch.

        Args:
            train: All examples.
            rows: Positions of the batch.
            weights: 1 for a row that counts and 0 for one that fills up, or None if all count.
            count: How many count.
        """
        import keras
        import tensorflow as tf

        model = self.model

        def update(rows: Any, share: Any) -> Any:
            x, y = keras.tree.map_structure(lambda values: tf.gather(values, rows), train)
            # Keras divides the loss by the size of the batch, whatever its rows weigh.
            scaled = None if weights is None else weights * (tf.cast(tf.size(rows), tf.float32) / count)
            with tf.GradientTape() as tape:
                predicted = model(x, training=True)
                loss = model.compute_loss(x, y, predicted, scaled, training=True) * share
            model.optimizer.apply_gradients(
                zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
            )
            model.compute_metrics(x, y, predicted, weights)
            return loss

        if self.replicas == 1:
            return update(rows, 1.0)

        def on_replica() -> Any:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            mine = tf.gather(rows, tf.range(replica, tf.size(rows), self.replicas))
            # Keras divides by the number of replicas, gradients are summed over them: a replica with fewer rows than
            # the others must count for as much less.
            return update(mine, tf.cast(tf.size(mine) * self.replicas, tf.float32) / count)

        losses = self.strategy.run(on_replica)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    def _evaluate(self, held: Any) -> Any:
        """Loss and metrics of the held-out examples, in one piece."""
        import tensorflow as tf

        x, y = held
        self._reset()
        predicted = self.model(x, training=False)
        loss = self.model.compute_loss(x, y, predicted, None, training=False)
        self.model.compute_metrics(x, y, predicted, None)
        return tf.stack([loss, *self._results()])

    def _metric_names(self, watched: bool) -> list[str]:
        """The columns of a row: of the examples learned from, then of those held out."""
        names = ["loss", *(name for name in self.model.get_metrics_result() if name != "loss")]
        names += [f"val_{name}" for name in names] if watched else []
        if self._stopping and self._stopping.rules.monitor not in names:
            raise ConfigError(
                f"early_stopping can't watch `{self._stopping.rules.monitor}`: "
                f"{nearest(self._stopping.rules.monitor, names)}"
            )
        return names

    def _results(self) -> list[Any]:
        import tensorflow as tf

        results = self.model.get_metrics_result()
        return [tf.cast(value, tf.float32) for name, value in results.items() if name != "loss"]

    def _reset(self) -> None:
        for metric in self.model.metrics:
            metric.reset_state()


class _Stopping:
    """Early stopping inside the graph, by the rules of `keras.callbacks.EarlyStopping`."""

    def __init__(self, rules: EarlyStopping, weights: list[Any]) -> None:
        import tensorflow as tf

        self.rules = rules
        self._weights = weights
        worst = np.inf if rules.mode == "min" else -np.inf
        self.best = tf.Variable(worst, dtype=tf.float32, trainable=False)
        self.wait = tf.Variable(0, trainable=False)
        self.best_epoch = tf.Variable(0, trainable=False)
        self.stopped = tf.Variable(False, trainable=False)
        self._kept = (
            [tf.Variable(weight.value, trainable=False) for weight in weights] if rules.restore_best_weights else []
        )

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint must hold of it."""
        return [self.best, self.wait, self.best_epoch, self.stopped, *self._kept]

    def watch(self, value: Any, epoch: Any) -> Any:
        """Take the value of an epoch (from 1); returns whether to go on."""
        import tensorflow as tf

        sign = 1.0 if self.rules.mode == "min" else -1.0
        better = sign * value < sign * self.best - self.rules.min_delta
        self.wait.assign(tf.where(better, 0, self.wait + 1))
        self.best.assign(tf.where(better, value, self.best))
        self.best_epoch.assign(tf.where(better, epoch, self.best_epoch))
        for kept, weight in zip(self._kept, self._weights if self._kept else [], strict=True):
            kept.assign(tf.where(better, weight.value, kept))
        # Keras never stops after the first epoch, whatever the patience.
        stop = tf.logical_and(self.wait >= max(self.rules.patience, 1), tf.logical_and(epoch > 1, ~better))
        self.stopped.assign(stop)
        return ~stop

    def restore(self) -> None:
        """Put the best weights back."""
        for kept, weight in zip(self._kept, self._weights, strict=True):
            weight.assign(kept)
