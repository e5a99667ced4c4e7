"""The training of a Keras model in one graph: the loop over steps, and over whole epochs, runs inside TensorFlow.

For small networks a step costs far less than the Python around it. Measured on house prices (benchmarks/README.md):
the same updates as `model.fit` on the same batches, tens of times faster. What a step is: `headrace.engine.steps`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.engine.callbacks import Watchers, rate
from headrace.engine.feeding import Memory, Split, Stream, padded, shared
from headrace.engine.steps import Step, mapped, rows_of
from headrace.records.inputs import aligned
from headrace.records.orders import order

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

_ORDERS = 4_000_000
"""Positions drawn ahead for one call of the graph: bounds the memory that the orders of its epochs take."""

_JUDGED = 2**20
"""Numbers of held-out examples that are judged in one piece: bounds the memory that a network takes for them."""
_HUNDREDS = 256
"""Steps of a sequence of any length, and numbers in the vector of a token, as long as nobody knows better."""


@dataclass(frozen=True)
class Advance:
    """What some steps have come to."""

    rows: Array
    """Metrics of the epochs that were finished (epochs, len(names)), float32."""
    steps: int
    """Steps done; fewer than asked for where early stopping or a loss that is no number ended them."""
    latest: Array | None
    """Metrics so far of an epoch that isn't finished (training metrics only)."""


class Program:
    """The graph that trains a compiled model, traced once for each size of its splits.

    The same program trains several times (the folds of a cross-validation): `restart(weights)` starts afresh.

    Args:
        step: What is done with each batch.
    """

    def __init__(self, step: Step) -> None:
        import tensorflow as tf

        self.model = step.model
        self.settings = step.settings
        self.strategy = step.strategy
        self.replicas = step.replicas
        self.optimizers = step.optimizers
        self.names: list[str] = []
        self.waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        """Seconds that steps have waited for the batches of a stream."""
        self.watchers = Watchers(step.settings, step.model.weights, step.optimizers)
        self._step = step
        self._placed: tuple[Memory, Any] | None = None
        self._drawn: tuple[Any, int, int, Any] | None = None
        self._rate = rate(step.optimizers[0]) if step.settings.reduce_lr else None
        self._variables = self._everything()
        self._start = self.state
        if step.streamed:
            self._stream_graph = tf.function(self._stream, autograph=False)
            self._finish_graph = tf.function(self._finish_stream, autograph=False)
        else:
            self._graph = tf.function(self._run, autograph=False, jit_compile=step.jit)

    def _everything(self) -> list[Any]:
        """Every variable that a step reads or writes, those of the model first.

        What the lists of Keras leave out (a generator that a layer keeps, an average in a closure) is found among those
        that the graph of a step has captured.
        """
        import keras

        model = self.model
        variables = [*model.variables, *(v for metric in model.metrics for v in metric.variables)]
        variables += [v for optimizer in self.optimizers for v in optimizer.variables]
        variables += [self._step.total, *self.watchers.variables]
        kept, seen = [], set()
        for variable in variables:
            if id(variable) not in seen:
                seen.add(id(variable))
                kept.append(variable)
        if self.replicas == 1:
            known = {id(v.value) if isinstance(v, keras.Variable) else id(v) for v in kept}
            kept += [v for v in self._step.captured if id(v) not in known]
        return kept

    # ------------------------------------------------------------------------------------------- state

    @property
    def state(self) -> list[Array]:
        """Every value that the next step depends on: weights, optimizers, seed generators, metrics, callbacks."""
        return [part.numpy() for variable in self._variables for part in _parts(variable)]

    def restore(self, state: list[Array]) -> None:
        """Put a state back; the next step will be as if nothing had happened in between."""
        parts = [part for variable in self._variables for part in _parts(variable)]
        for part, value in zip(parts, state, strict=True):
            part.assign(value)

    def restart(self, weights: list[Array]) -> None:
        """Begin afresh with these values of the model's variables, and everything else as it was at first."""
        self.restore(self._start)
        for variable, value in zip(self.model.variables, weights, strict=True):
            variable.assign(value)

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the training."""
        return self.watchers.stopped

    @property
    def best_epoch(self) -> int | None:
        """The epoch (from 1) that is taken for the best, if anything watches."""
        return self.watchers.best_epoch

    def finals(self) -> dict[str, list[Array]]:
        """The values of the model's variables that a training leaves: of `model`, and of `best` or `last` beside it."""
        return self.watchers.finals(self.model.variables)

    def weights(self) -> list[Array]:
        """The values of the model's variables as the training leaves them: the best ones, if the settings say so."""
        return self.finals()["model"]

    def lower_rate(self, factor: float) -> None:
        """Multiply every learning rate."""
        for optimizer in self.optimizers:
            learning_rate = rate(optimizer)
            learning_rate.assign(learning_rate.value * factor)

    # ------------------------------------------------------------------------------------------- running

    def steps(self, examples: int) -> int:
        """The steps of an epoch. A last batch with fewer rows than replicas can't be shared out: it is left out."""
        whole, rest = divmod(examples, min(self.settings.batch_size, examples))
        return whole + (rest >= self.replicas and rest > 0 and not self.settings.drop_remainder)

    def prepare(self, feed: Memory | Stream) -> None:
        """Learn the names of the metrics.

        Raises:
            ConfigError: Something is to be watched that isn't measured.
        """
        held = feed.held is not None
        if held and self._step.own_judge and not self._step.judged_names:
            import tensorflow as tf

            # Tracing it tells the names.
            tf.function(self._step.judge, autograph=False).get_concrete_function(*self._step.specs)
        names = self._step.names or ["loss", *(name for name in self.model.get_metrics_result() if name != "loss")]
        watched = [f"val_{name}" for name in self._step.judged_names or names] if held else []
        self.names = [*names, *watched, *(["learning_rate"] if self._rate is not None else [])]
        self._trained = len(names)
        self.watchers.check(self.names)

    @property
    def losses(self) -> list[int]:
        """Which columns must be finite numbers."""
        names = self.names[: self._trained]
        # The loss itself; of a model with a step of its own everything that is called one.
        return [i for i, name in enumerate(names) if name.endswith("loss") and (self._step.own or not i)] or [0]

    def run(self, train: Split, held: Split | None, seed: int, first: int, epochs: int) -> Array:
        """Train for whole epochs, fewer if early stopping or a loss that is no number ends them.

        Args:
            train: The examples to learn from.
            held: The examples to watch, or None.
            seed: Seed of the orders.
            first: Epochs done before.
            epochs: Epochs to do.

        Returns:
            Metrics, shape (epochs done, len(self.names)), float32.
        """
        feed = self._placed[0] if self._placed else None
        if feed is None or feed.train is not train or feed.held is not held or feed.seed != seed:
            feed = Memory(train, held, seed)
        self.prepare(feed)
        return self.advance(feed, first, 0, epochs * self.steps(len(train))).rows

    def advance(self, feed: Memory | Stream, epoch: int, step: int, steps: int) -> Advance:
        """Do some steps.

        Args:
            feed: Where the batches come from.
            epoch: Epochs done before.
            step: Steps done of this epoch.
            steps: Steps to do; of a stream they end with the epoch.
        """
        if isinstance(feed, Stream):
            return self._from_stream(feed, epoch, step, steps)
        return self._from_memory(feed, epoch, step, steps)

    def _from_memory(self, feed: Memory, epoch: int, step: int, steps: int) -> Advance:
        import tensorflow as tf

        per_epoch, size = self.steps(feed.examples), self._table(feed.examples)
        rows, begun = [], steps
        latest = None
        while steps:
            count = min(steps, size * per_epoch - step)
            orders, row = self._orders(feed, epoch, -(-(step + count) // per_epoch))
            found, epochs, left, so_far = self._graph(
                *self._on_device(feed), orders, *(tf.constant(value) for value in (row, epoch, step, count))
            )
            epochs, did = int(epochs), count - int(left)
            rows.append(found.numpy()[:epochs])
            epoch, step = epoch + epochs, (step + did) % per_epoch
            steps -= did
            latest = so_far.numpy() if step else None
            if did < count or (epochs and not np.isfinite(rows[-1][-1][self.losses]).all()) or self.stopped:
                break
        return Advance(np.concatenate(rows), begun - steps, latest)

    def _from_stream(self, feed: Stream, epoch: int, step: int, steps: int) -> Advance:
        import tensorflow as tf

        per_epoch = self.steps(feed.examples)
        if per_epoch * self.settings.batch_size < feed.examples:
            feed.drop_remainder = True
        steps = min(steps, per_epoch - step)
        iterator = feed.batches(epoch * per_epoch + step, steps)
        carry, latest = self._stream_graph(iterator, feed.examples, tf.constant(step), tf.constant(step + steps))
        if step + steps < per_epoch:
            return Advance(np.zeros((0, len(self.names)), np.float32), steps, latest.numpy())
        numbers = sum(_numbers(spec) for spec in self._step.specs[0].values())
        held = feed.watched(self._piece(numbers)) if feed.held else (None, 0)
        row = self._finish_graph(held[0], tf.constant(held[1]), carry, tf.constant(epoch + 1), feed.examples)
        return Advance(row.numpy()[None], steps, None)

    def _table(self, examples: int) -> int:
        """The largest number of epochs whose orders are handed over at once."""
        return int(np.clip(_ORDERS // max(examples, 1), 1, self.settings.epochs))

    def _orders(self, feed: Memory, epoch: int, epochs: int) -> tuple[Any, int]:
        """The orders of some epochs as a tensor, and the row of the first; those that were drawn are used again."""
        drawn = self._drawn
        if drawn is None or drawn[0] is not feed or not drawn[1] <= epoch <= epoch + epochs <= drawn[2]:
            table = aligned((self._table(feed.examples), feed.examples), np.int32)
            for i in range(len(table)):
                table[i] = order(feed.seed, epoch + i, feed.examples, self.settings.shuffle)
            self._drawn = drawn = feed, epoch, epoch + len(table), shared(table)
        return drawn[3], epoch - drawn[1]

    def _on_device(self, feed: Memory) -> Any:
        """The splits as tensors, copied once."""
        if self._placed is None or self._placed[0] is not feed:
            self._placed = feed, (feed.train.tensors(), feed.held.tensors() if feed.held else None)
        return self._placed[1]

    def forget(self) -> None:
        """Let go of the examples."""
        self._placed = self._drawn = None

    # ----------------------------------------------------------------------------------------- the graph

    # Written with `tf.while_loop` rather than Python loops: converting those (AutoGraph) would take longer than to
    # train four folds of house prices.

    def _run(self, train: Any, held: Any, orders: Any, row: Any, epoch: Any, step: Any, steps: Any) -> Any:
        """Steps on arrays, across the ends of epochs, until their number is done or something says stop.

        Returns:
            Metrics of the epochs finished, their number, the steps that are left, metrics so far of the last one.
        """
        import tensorflow as tf

        examples = int(orders.shape[1])
        per_epoch = self.steps(examples)

        def one(done: Any, begin: Any, left: Any, _going: Any, rows: Any, _carry: Any) -> Any:
            end = tf.minimum(begin + left, per_epoch)
            # Cut out by an index, the row would be a constant to XLA, which would compile everything for each of them.
            positions = tf.gather(orders, row + done)
            carry = self._loop(lambda number: self._gathered(train, positions, number), begin, end, examples)
            finished = tf.equal(end, per_epoch)
            values, going = tf.cond(
                finished,
                lambda: self._finish(carry, examples, lambda: self._evaluate(held), held is not None, epoch + done + 1),
                lambda: (tf.zeros((len(self.names),)), tf.constant(True)),
            )
            rows = rows.write(done, values)
            return (
                done + tf.cast(finished, tf.int32),
                tf.where(finished, 0, end),
                left - (end - begin),
                going,
                rows,
                carry,
            )

        rows = tf.TensorArray(tf.float32, size=orders.shape[0], element_shape=(len(self.names),))
        done, begin, left, _, rows, carry = tf.while_loop(
            lambda done, begin, left, going, rows, carry: tf.logical_and(left > 0, going),
            one,
            (tf.constant(0), step, steps, tf.constant(True), rows, self._step.nothing()),
        )
        return rows.stack(), done, left, self._step.results(carry, self._seen(begin, examples))

    def _stream(self, iterator: Any, examples: Any, begin: Any, end: Any) -> Any:
        """Steps on the next batches of an iterator; what the last one answered, and metrics so far."""
        import tensorflow as tf

        def next_batch(_number: Any) -> Any:
            if self.settings.seeds == "strict":
                # A clock never tells the same time twice, and is forbidden.
                return (*iterator.get_next(), None)[:3]
            asked = tf.timestamp()
            with tf.control_dependencies([asked]):
                batch = iterator.get_next()
            with tf.control_dependencies(tf.nest.flatten(batch)):
                self.waited.assign_add(tf.timestamp() - asked)
            return (*batch, None)[:3]

        carry = self._loop(next_batch, begin, end, examples)
        return carry, self._step.results(carry, self._seen(end, examples))

    def _finish_stream(self, held: Any, pieces: Any, carry: Any, epoch: Any, examples: Any) -> Any:
        """The end of an epoch of a stream."""

        def evaluate() -> Any:
            return self._judged(lambda _number: (*held.get_next(), None)[:3], pieces)

        return self._finish(carry, examples, evaluate, held is not None, epoch)[0]

    def _seen(self, steps: Any, examples: int) -> Any:
        """The examples of the first steps of an epoch."""
        import tensorflow as tf

        return tf.minimum(steps * min(self.settings.batch_size, examples), examples)

    def _gathered(self, train: Any, positions: Any, number: Any) -> Any:
        """The batch of a step, out of all examples: those of this worker."""
        import tensorflow as tf

        from headrace.tensors import gathered

        examples = int(positions.shape[0])
        batch = min(self.settings.batch_size, examples)
        first = number * batch
        if self._step.masked:
            positions = tf.pad(positions, [[0, -examples % batch]])
            rows = tf.slice(positions, [first], [batch])
        elif self._step.size:
            rows = tf.slice(positions, [first], [batch])
        else:
            rows = positions[first : tf.minimum(first + batch, examples)]
        if self._step.worker[1] > 1:
            rows = rows[self._step.worker[0] :: self._step.worker[1]]
        return mapped(lambda values: padded(gathered(values, rows)), train)

    def _loop(self, batch_of: Callable[[Any], Any], begin: Any, end: Any, examples: Any) -> Any:
        """The steps of an epoch from `begin` to before `end`; what the last one answered."""
        import tensorflow as tf

        size = min(self.settings.batch_size, examples)

        def step(number: Any, _carry: Any) -> Any:
            inputs, targets, weights = batch_of(number)
            # The rows of the whole batch, not only those of this worker.
            count = tf.minimum(size, examples - number * size)
            mask = tf.cast(tf.range(size) < count, tf.float32) if self._step.masked else None
            answer = self._step(inputs, targets, weights, mask, tf.cast(count, tf.float32))
            return number + 1, answer

        return tf.while_loop(lambda number, _: number < end, step, (begin, self._step.nothing()))[1]

    def _finish(self, carry: Any, examples: Any, evaluate: Callable[[], Any], held: bool, epoch: Any) -> Any:
        """The end of an epoch: its metrics, and whether to go on."""
        import tensorflow as tf

        row = self._step.results(carry, self._seen(self.steps(examples), examples))
        going = tf.reduce_all(tf.math.is_finite(tf.gather(row, self.losses)))
        self._step.reset()
        if held:
            row = tf.concat([row, evaluate()], 0)
            self._step.reset()
        if self._rate is not None:
            row = tf.concat([row, tf.reshape(tf.cast(self._rate.value, tf.float32), [1])], 0)
        values = dict(zip(self.names, tf.unstack(row, len(self.names)), strict=True))
        return row, tf.logical_and(going, self.watchers.watch(values, epoch))

    def _evaluate(self, held: Any) -> Any:
        """Loss and metrics of the held-out examples in memory, in pieces of equal size and a last one."""
        import tensorflow as tf

        from headrace.tensors import gathered

        examples = int(next(iter(held[0].values())).shape[0])
        size = min(self._piece(sum(_numbers(values) for values in held[0].values())), examples)
        whole, rest = divmod(examples, size)

        def piece(start: Any, rows: int) -> Any:
            if rows == examples:
                return mapped(padded, held)
            return mapped(lambda values: padded(gathered(values, start + tf.range(rows))), held)

        last = piece(whole * size, rest) if rest else None
        return self._judged(lambda number: piece(number * size, size), whole, last)

    def _piece(self, numbers: int) -> int:
        """Examples that are judged at once."""
        return max(self.settings.batch_size, _JUDGED // max(numbers, 1))

    def _judged(self, batch_of: Callable[[Any], Any], pieces: Any, rest: Any = None) -> Any:
        """Loss and metrics over some batches, and a last one of another size."""
        import tensorflow as tf

        def add(total: Any, seen: Any, batch: Any) -> Any:
            answer, count = self._step.judge(*batch), tf.cast(rows_of(batch[0]), tf.float32)
            return (answer if self._step.own_judge else total + answer * count), seen + count

        def one(number: Any, total: Any, seen: Any) -> Any:
            return number + 1, *add(total, seen, batch_of(number))

        total, seen = tf.zeros((max(len(self._step.judged_names), 1),)), tf.constant(0.0)
        if isinstance(pieces, int) and pieces == 1:
            total, seen = add(total, seen, batch_of(0))
        else:
            _, total, seen = tf.while_loop(lambda number, *_: number < pieces, one, (tf.constant(0), total, seen))
        if rest is not None:
            total, seen = add(total, seen, rest)
        return total if self._step.own_judge else tf.concat([total / seen, self._step.metrics()], 0)


def _numbers(values: Any) -> int:
    """Numbers in one example, of which it has some hundred steps where it isn't said; tokens become vectors of them."""
    count = int(np.prod([length or _HUNDREDS for length in values.shape[1:]]))
    tokens = getattr(values, "dtype", None) == "int64" and len(values.shape) > 1
    return count * _HUNDREDS if tokens else count


def _parts(variable: Any) -> list[Any]:
    """What of a variable has a value of its own: what each replica has counted, else the variable itself."""
    import keras
    import tensorflow as tf

    held = variable.value if isinstance(variable, keras.Variable) else variable
    if getattr(held, "synchronization", None) == tf.VariableSynchronization.ON_READ and hasattr(held, "values"):
        return list(held.values)
    return [variable]
