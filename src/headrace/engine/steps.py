"""One step of a Keras model in a graph: an update on a batch, shared out over the replicas, or the judgement of one.

The model, its losses, metrics and optimizer are Keras' own, and so is a `train_step` that a model brings along.
`headrace.engine.epochs` loops over steps.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.engine.compiling import compile_model
from headrace.engine.feeding import Split, padded
from headrace.errors import ConfigError, nearest
from headrace.ragged import Ragged
from headrace.spec import Train
from headrace.windows import Windowed

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]


class Step:
    """A compiled model, and the graph of its step, which is traced.

    Calling it does one update; what loops call it from must be a graph, too.

    Args:
        model: A Keras model, not compiled, built in the scope of the strategy.
        settings: How to train it.
        strategy: The strategy.
        sample: The examples to learn from, or a few of them, by which everything learns its shapes.
        custom: What the workload calls by names of its own.
        own_compile: The workload's own way to compile.
        class_weights: How much the examples of each class count in the loss (classes,), float32.
        streamed: Batches come from a `Stream`, not out of memory.
        worker: Which rows of a batch this process takes: `(number, workers)`.

    Raises:
        ConfigError: A name in the settings means nothing, or the model can't be trained as they say.
    """

    def __init__(
        self,
        model: keras.Model,
        settings: Train,
        strategy: tf.distribute.Strategy,
        sample: Split,
        *,
        custom: Mapping[str, Any] | None = None,
        own_compile: Callable[..., None] | None = None,
        class_weights: Array | None = None,
        streamed: bool = False,
        worker: tuple[int, int] = (0, 1),
    ) -> None:
        import keras
        import tensorflow as tf

        self.model = model
        self.settings = settings
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync
        self.streamed = streamed
        self.worker = worker
        self.own = type(model).train_step is not keras.Model.train_step
        """Whether the model brings a `train_step` along."""
        self.own_judge = self.own or type(model).test_step is not keras.Model.test_step
        """Whether it is judged by its `test_step`: where that, or its `train_step`, is its own."""
        self.names: list[str] = []
        """What the model's own step measures."""
        self.judged_names: list[str] = []
        """What its own judgement measures, once that was traced."""
        self.total = tf.Variable(0.0, trainable=False)
        """The sum of the losses of an epoch's examples."""
        self.jit = settings.jit_compile and self._can_be_compiled(sample)
        """Whether XLA compiles it."""
        self.masked = self.jit and not streamed
        """Whether a last batch is filled up with rows that do not count: XLA wants batches of one size."""
        whole = self.masked or settings.drop_remainder
        self.size = settings.batch_size if whole and len(sample) >= settings.batch_size else None
        """Rows of every batch; None if the last one of an epoch may have fewer."""
        self._class_weights = None if class_weights is None else tf.constant(class_weights, tf.float32)
        self.specs = _specs(sample)
        """The shapes of a batch of any size: inputs, targets, weights."""
        with strategy.scope():
            self._ready(sample, own_compile, custom or {})
            if self.replicas > 1:
                _split_noise(model)
                self._build_optimizers()
        self._graph = tf.function(self._update_everywhere, autograph=False, jit_compile=self.jit and streamed)
        # Traced by itself: a model's own step creates its optimizers' variables, which it could not in a loop.
        with self._told_in_our_words(sample.targets):
            traced = self._graph.get_concrete_function(*self._specs_of_an_update())
        self.captured = list(traced.graph.variables)
        """Every variable that the graph reads or writes."""
        # One that was never built moves nothing: `compile` of a model with optimizers of its own leaves such a one.
        self.optimizers = [optimizer for optimizer in _optimizers(model) if optimizer.built]

    def __call__(self, inputs: Any, targets: Any, weights: Any, mask: Any, count: Any) -> Any:
        """One update.

        Args:
            inputs: Those of the batch, by name.
            targets: Those of the batch, by name.
            weights: How much each row counts in the loss, or None.
            mask: 1 for a row that counts and 0 for one that fills up, or None if all count.
            count: How many rows count, over all workers.

        Returns:
            The metrics that a model's own step answers; else nothing of interest.
        """
        return self._graph(inputs, targets, weights, mask, count)

    def nothing(self) -> Any:
        """What a step answers, before the first one."""
        import tensorflow as tf

        return tf.zeros((max(len(self.names), 1),))

    def results(self, answer: Any, examples: Any) -> Any:
        """The metrics of the epoch so far.

        Args:
            answer: What the last step has answered.
            examples: Examples so far.
        """
        import tensorflow as tf

        if self.own:
            return answer
        return tf.concat([[self.total / tf.cast(examples, tf.float32)], self.metrics()], 0)

    def judge(self, inputs: Any, targets: Any, weights: Any) -> Any:
        """The loss of a batch, shape (1,), or what the model's own `test_step` answers."""
        import tensorflow as tf

        if self.own_judge:
            results = _flat(self.model.test_step(self._data(inputs, targets, weights)))
            self.judged_names = list(results)
            return _vector(results)
        x, y = self._packed(inputs, targets)
        predicted = self.model(x, training=False)
        loss = self.model.compute_loss(x, y, predicted, weights, training=False)
        self.model.compute_metrics(x, y, predicted, None)
        return tf.reshape(tf.cast(loss, tf.float32), [1])

    def metrics(self) -> Any:
        """What the model's metrics say, without its loss."""
        import tensorflow as tf

        results = {name: value for name, value in self.model.get_metrics_result().items() if name != "loss"}
        return _vector(results) if results else tf.zeros((0,))

    def reset(self) -> None:
        """Begin the metrics of an epoch, or of what is held out, afresh."""
        for metric in self.model.metrics:
            metric.reset_state()
        self.total.assign(0.0)

    # ------------------------------------------------------------------------------------------- readiness

    def _ready(self, sample: Split, own_compile: Any, custom: Mapping[str, Any]) -> None:
        """Compile the model, and let everything create its variables now: inside a loop it would be too late."""
        model = self.model
        inputs, targets, _ = sample.take(slice(0, 2)).tensors()
        x, y = self._packed(*mapped(padded, (inputs, targets)))
        compile_model(model, self.settings, custom, own_compile, weighted=not self.own)
        if self.own:
            return
        # Recurrent layers with dropout draw from their generators even where they don't drop anything.
        drawn = [(variable, variable.numpy()) for variable in model.non_trainable_variables]
        with self._told_in_our_words(targets):
            predicted = _answers(model, x)
            model.optimizer.build(model.trainable_variables)
            model.compute_loss(x, y, predicted, None, training=False)
            model.compute_metrics(x, y, predicted, None)
        self.reset()
        for variable, value in drawn:
            variable.assign(value)

    @contextlib.contextmanager
    def _told_in_our_words(self, targets: Iterable[str]) -> Iterator[None]:
        """Say what Keras means when a model of the usual step, its targets and the settings don't fit."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            if self.own:
                raise
            raise ConfigError(
                "The model, its targets and the training settings don't go together.",
                expected=f"outputs for {', '.join(targets) or 'no target'}",
                received=str(error).strip().splitlines()[0],
                remedy="see train.loss and train.metrics in `headrace show`, and the names of the model's outputs",
            ) from error

    def _build_optimizers(self) -> None:
        """Let the optimizers of a model's own step create their variables, in the scope of the strategy.

        Among several replicas a step can't create them itself. Which weights an optimizer moves is told by a step that
        is traced, and never run, with optimizers that only listen.
        """
        import tensorflow as tf

        moved: dict[int, list[Any]] = {}
        waiting = {id(optimizer): optimizer for optimizer in _optimizers(self.model) if not optimizer.built}
        for number, optimizer in waiting.items():
            optimizer.apply = lambda _, variables=(), number=number: moved.setdefault(number, list(variables))

        def step(inputs: Any, targets: Any, weights: Any) -> Any:
            return self.strategy.run(lambda: self.model.train_step(self._data(inputs, targets, weights)))

        if waiting:
            tf.function(step, autograph=False).get_concrete_function(*self.specs)
        for number, optimizer in waiting.items():
            del optimizer.apply
            if number in moved:
                optimizer.build(moved[number])

    def _can_be_compiled(self, sample: Split) -> bool:
        """Whether XLA would compute the same; a warning says why not."""
        import keras

        uneven = len(sample) % self.settings.batch_size and not self.settings.drop_remainder
        reasons = {
            "XLA can't compile what several replicas do together": self.replicas > 1,
            "batch normalisation would see the rows that fill up a last batch": uneven
            and not self.streamed
            and any(isinstance(layer, keras.layers.BatchNormalization) for layer in self.model._flatten_layers()),
            "a model with a step of its own would see the rows that fill up a last batch": uneven
            and not self.streamed
            and self.own,
            "the length of the examples differs": any(isinstance(v, Ragged) for v in sample.inputs.values()),
        }
        for reason, holds in reasons.items():
            if holds:
                log.warning("jit_compile is left out: %s", reason)
                return False
        return True

    def _specs_of_an_update(self) -> Any:
        """The shapes of what an update takes."""
        import tensorflow as tf

        size = self.size if self.worker[1] == 1 else None
        batch = mapped(lambda spec: tf.TensorSpec((size, *spec.shape[1:]), spec.dtype), self.specs)
        mask = tf.TensorSpec((size,), tf.float32) if self.masked else None
        return *batch, mask, tf.TensorSpec((), tf.float32)

    # ---------------------------------------------------------------------------------------------- update

    def _update_everywhere(self, inputs: Any, targets: Any, weights: Any, mask: Any, count: Any) -> Any:
        """One update, on all replicas."""
        import tensorflow as tf

        if self._class_weights is not None:
            weights = self._weighted(targets, weights)
        update = self._own_update if self.own else self._update
        if self.replicas == 1:
            answer = update(inputs, targets, weights, mask, count, 1.0)
            return answer if self.own else self._added(answer * count)
        if self.own and (self.settings.batch_size % self.replicas or not self.size):
            raise ConfigError(
                "A model with a step of its own can be spread over replicas only in batches of one size.",
                expected=f"train.drop_remainder, and a train.batch_size that {self.replicas} replicas can share",
                received=f"batch_size {self.settings.batch_size}, drop_remainder {self.settings.drop_remainder}",
            )

        local = self.replicas // self.worker[1]

        def on_replica() -> Any:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = tf.range(number % local if local > 1 else 0, rows_of(inputs), local)
            x, y, w = mapped(lambda values: tf.gather(values, rows), (inputs, targets, weights))
            # Keras divides by the number of replicas, gradients are summed over them: a replica with fewer rows than
            # the others must count for as much less.
            return update(x, y, w, None, count, tf.cast(tf.size(rows) * self.replicas, tf.float32) / count)

        answers = self.strategy.run(on_replica)
        if self.own:
            return self.strategy.reduce(tf.distribute.ReduceOp.MEAN, answers, axis=None)
        return self._added(self.strategy.reduce(tf.distribute.ReduceOp.SUM, answers, axis=None) * count)

    def _added(self, loss: Any) -> Any:
        """Add the loss of a batch to that of the epoch."""
        import tensorflow as tf

        self.total.assign_add(loss)
        return tf.zeros((1,))

    def _update(self, inputs: Any, targets: Any, weights: Any, mask: Any, count: Any, share: Any) -> Any:
        """The step that Keras gives every model, with rows that need not count; its loss."""
        import tensorflow as tf

        model = self.model
        x, y = self._packed(inputs, targets)
        scaled = weights
        if mask is not None:
            # Keras divides the loss by the size of the batch, whatever its rows weigh.
            filled = mask * (tf.cast(tf.size(mask), tf.float32) / count)
            scaled = filled if weights is None else weights * filled
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            loss = model.compute_loss(x, y, predicted, scaled, training=True) * share
            raised = model.optimizer.scale_loss(loss)
        variables = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(raised, variables), variables, strict=True))
        model.compute_metrics(x, y, predicted, mask)
        return loss

    def _own_update(self, inputs: Any, targets: Any, weights: Any, _mask: Any, _count: Any, _share: Any) -> Any:
        """The model's own step."""
        results = _flat(self.model.train_step(self._data(inputs, targets, weights)))
        self.names = list(results)
        return _vector(results)

    def _data(self, inputs: Any, targets: Any, weights: Any) -> Any:
        """A batch as `fit` hands it to a model's own step."""
        x, y = self._packed(inputs, targets)
        if y is None:
            return x
        return (x, y) if weights is None else (x, y, weights)

    def _weighted(self, targets: Any, weights: Any) -> Any:
        """The weights of the examples, by the classes that they are in."""
        import tensorflow as tf

        (classes,) = targets.values()
        one_hot = classes.shape.rank > 1 and classes.shape[-1] > 1
        numbers = tf.argmax(classes, -1) if one_hot else tf.cast(tf.reshape(classes, [-1]), tf.int64)
        found = tf.gather(self._class_weights, numbers)
        return found if weights is None else found * weights

    def _packed(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """Inputs and targets as the model takes them: the tensor itself where there is only one."""
        x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        outputs = getattr(self.model, "output", None)
        if not targets:
            return x, None
        if isinstance(outputs, dict) or (len(targets) > 1 and not isinstance(outputs, list | tuple)):
            return x, targets
        if len(targets) == 1:
            return x, next(iter(targets.values()))
        names = list(self.model.output_names)
        if set(names) != set(targets):
            lines = [f"`{name}` is no output: {nearest(name, names)}" for name in targets if name not in names]
            raise ConfigError(
                "The outputs of the model aren't called as the targets: " + "; ".join(lines),
                expected=", ".join(targets),
                received=", ".join(names),
            )
        return x, [targets[name] for name in names]


def mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    """The same structure with the function applied to every tensor; None stays None."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda item: None if item is None else function(item), structure)


def rows_of(inputs: Mapping[str, Any]) -> Any:
    """The rows of a batch."""
    import tensorflow as tf

    return tf.shape(next(iter(inputs.values())))[0]


def first_call(model: keras.Model, sample: Split) -> None:
    """Call a model on two examples, so that it creates its weights; one that can't be called has built its parts."""
    inputs = {name: padded(values) for name, values in sample.take(slice(0, 2)).tensors()[0].items()}
    with contextlib.suppress(NotImplementedError):
        model(inputs if len(inputs) > 1 else next(iter(inputs.values())), training=False)


def _flat(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results of a step by name, also those that Keras keeps together as one metric."""
    found: dict[str, Any] = {}
    for name, value in results.items():
        found |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return found


def _vector(results: Mapping[str, Any]) -> Any:
    """The numbers of a step as one tensor; of a metric for each class their mean."""
    import tensorflow as tf

    return tf.stack([tf.reduce_mean(tf.cast(value, tf.float32)) for value in results.values()])


def _answers(model: keras.Model, x: Any) -> Any:
    """Something of the shape of what a model answers: by its plan, which is quicker than to call it."""
    import tensorflow as tf

    outputs = getattr(model, "output", None)
    if outputs is None:
        # A Sequential has `outputs` only, of which there is one.
        outputs = next(iter(getattr(model, "outputs", None) or []), None)
    planned = [] if outputs is None else tf.nest.flatten(outputs)
    if not planned or any(None in output.shape[1:] for output in planned):
        return model(x, training=False)
    return tf.nest.map_structure(lambda output: tf.zeros((2, *output.shape[1:]), output.dtype), outputs)


def _specs(sample: Split) -> Any:
    """The shapes of a batch of any size: inputs, targets, weights."""
    import tensorflow as tf

    def spec(values: Array | Ragged | Windowed) -> Any:
        shape = (None, None, *values.values.shape[1:]) if isinstance(values, Ragged) else (None, *values.shape[1:])
        return tf.TensorSpec(shape, tf.string if values.dtype == object else tf.as_dtype(values.dtype))

    inputs, targets = (
        {name: spec(values) for name, values in arrays.items()} for arrays in (sample.inputs, sample.targets)
    )
    return inputs, targets, None if sample.weights is None else tf.TensorSpec((None,), tf.float32)


def _optimizers(model: keras.Model) -> list[Any]:
    """The optimizers of a model: its own, and those that it or its layers keep under names of their own."""
    import keras

    found: dict[int, Any] = {}
    for layer in model._flatten_layers():
        for value in vars(layer).values():
            items = value.values() if isinstance(value, dict) else value
            for item in items if isinstance(value, dict | list | tuple) else [value]:
                if isinstance(item, keras.optimizers.Optimizer):
                    found[id(item)] = item
    return list(found.values())


def _split_noise(model: keras.Model) -> None:
    """Let each replica draw noise of its own: Keras would give all of them the same.

    It reaches every generator that a layer tracks, and none that a function draws from by itself.
    """
    import keras
    import tensorflow as tf

    class OfReplica(keras.random.SeedGenerator):
        def next(self, ordered: bool = True) -> Any:
            seed = super().next(ordered)
            context = tf.distribute.get_replica_context()
            if context is None:
                return seed
            number = context.replica_id_in_sync_group
            folded = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int32), number)
            return tf.cast(folded, seed.dtype)

    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            generator.__class__ = OfReplica
