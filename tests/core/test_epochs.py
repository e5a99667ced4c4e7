"""The whole-epoch graph does what `model.fit` does, faster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.engine.compiling import compile_model, precision
from headrace.engine.epochs import Program
from headrace.engine.feeding import Memory, Split
from headrace.engine.steps import Step
from headrace.engine.strategies import choose
from headrace.errors import ConfigError
from headrace.records.orders import order
from headrace.spec import EarlyStopping, Train
from tests.core import trainables

EXAMPLES, WIDTH = 70, 3


def examples(count: int = EXAMPLES, seed: int = 0) -> Split:
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, WIDTH)).astype(np.float32)
    y = (x @ [[1.0], [-2.0], [0.5]] + random.normal(scale=0.1, size=(count, 1))).astype(np.float32)
    return Split({"features": x}, {"price": y})


def network(dropout: float = 0.0, strategy: str = "default") -> Any:
    import keras

    keras.utils.set_random_seed(1)
    with choose(strategy).scope():
        given = keras.Input((WIDTH,), name="features")
        hidden = keras.layers.Dense(8, activation="relu")(given)
        hidden = keras.layers.Dropout(dropout)(hidden)
        return keras.Model(given, keras.layers.Dense(1, name="price")(hidden))


def settings(**changes: Any) -> Train:
    return Train.model_validate({"epochs": 5, "batch_size": 16, "metrics": ("mae",), "shuffle": False, **changes})


def program(rules: Train, strategy: str = "default", dropout: float = 0.0) -> Program:
    return Program(Step(network(dropout, strategy), rules, choose(strategy), examples()))


def fit(epochs: int, callbacks: Any = (), held: Split | None = None) -> tuple[list[Any], dict[str, list[float]]]:
    """The textbook way, on the same examples."""
    model = network()
    model.compile("rmsprop", "mse", metrics=["mae"])
    split = examples()
    held = held or examples(20, seed=1)
    history = model.fit(
        split.inputs["features"],
        split.targets["price"],
        validation_data=(held.inputs["features"], held.targets["price"]),
        epochs=epochs,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
    return [weight.numpy() for weight in model.weights], history.history


def test_weights_equal_those_of_fit_bit_for_bit() -> None:
    """70 examples in batches of 16 leave a smaller last batch, which counts as in `fit`."""
    ours = program(settings())
    ours.run(examples(), examples(20, seed=1), seed=0, first=0, epochs=5)

    expected, _ = fit(5)

    for theirs, mine in zip(expected, ours.weights(), strict=True):
        np.testing.assert_array_equal(theirs, mine)


@pytest.mark.parametrize("compiled", [False, True])
def test_curves_equal_those_of_fit(compiled: bool) -> None:
    ours = program(settings(jit_compile=compiled))
    rows = ours.run(examples(), examples(20, seed=1), seed=0, first=0, epochs=5)

    _, expected = fit(5)

    assert list(expected) == ours.names
    for name, values in zip(ours.names, rows.T, strict=True):
        np.testing.assert_allclose(expected[name], values, rtol=1e-5)


def test_batch_normalisation_is_never_compiled_and_learns_as_in_fit(caplog: pytest.LogCaptureFixture) -> None:
    """The rows that fill up a last batch for XLA weigh nothing, but would count in the mean of a batch."""
    import keras

    def normalised() -> Any:
        keras.utils.set_random_seed(1)
        given = keras.Input((WIDTH,), name="features")
        return keras.Model(given, keras.layers.Dense(1)(keras.layers.BatchNormalization()(given)))

    ours = Program(Step(normalised(), settings(jit_compile=True), choose("default"), examples()))
    ours.run(examples(), None, seed=0, first=0, epochs=3)
    theirs = normalised()
    theirs.compile("rmsprop", "mse")
    split = examples()
    theirs.fit(split.inputs["features"], split.targets["price"], epochs=3, batch_size=16, shuffle=False, verbose=0)

    assert "jit_compile is left out" in caplog.text
    for expected, weight in zip(theirs.weights, ours.weights(), strict=True):
        np.testing.assert_array_equal(expected.numpy(), weight)


def test_chunks_make_no_difference() -> None:
    at_once, in_parts = program(settings(shuffle=True)), program(settings(shuffle=True))
    at_once.run(examples(), None, seed=7, first=0, epochs=5)
    in_parts.run(examples(), None, seed=7, first=0, epochs=2)
    in_parts.run(examples(), None, seed=7, first=2, epochs=3)

    for one, other in zip(at_once.state, in_parts.state, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_restored_state_goes_on_exactly_with_dropout_too() -> None:
    """Dropout draws from a generator whose position is part of the state."""
    whole = program(settings(shuffle=True), dropout=0.5)
    whole.run(examples(), None, seed=7, first=0, epochs=3)
    kept = whole.state
    whole.run(examples(), None, seed=7, first=3, epochs=3)

    other = program(settings(shuffle=True), dropout=0.5)
    other.restore(kept)
    other.run(examples(), None, seed=7, first=3, epochs=3)

    for one, resumed in zip(whole.state, other.state, strict=True):
        np.testing.assert_array_equal(one, resumed)


def test_a_restarted_program_trains_like_a_new_one() -> None:
    used = program(settings(), dropout=0.5)
    start = [value.numpy() for value in used.model.variables]
    used.run(examples(seed=3), None, seed=0, first=0, epochs=4)
    used.restart(start)
    used.run(examples(), None, seed=0, first=0, epochs=4)
    new = program(settings(), dropout=0.5)
    new.run(examples(), None, seed=0, first=0, epochs=4)

    for one, other in zip(new.state, used.state, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping_ends_where_keras_ends(restore: bool) -> None:
    import keras

    # Held-out labels that have nothing to do with the inputs: their loss soon climbs.
    held = Split({"features": examples(20, seed=1).inputs["features"]}, {"price": np.ones((20, 1), np.float32)})
    rules = {"monitor": "val_loss", "patience": 3, "restore_best_weights": restore, "min_delta": 0.01}
    callback = keras.callbacks.EarlyStopping(**rules)
    expected, history = fit(60, [callback], held)
    ours = program(settings(epochs=60, validation_split=0.1, early_stopping=EarlyStopping(**rules)))
    rows = ours.run(examples(), held, seed=0, first=0, epochs=60)

    assert len(history["loss"]) == len(rows) < 60
    assert ours.stopped
    assert ours.best_epoch == callback.best_epoch + 1
    for theirs, mine in zip(expected, ours.weights(), strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-6)


def test_early_stopping_on_an_unknown_metric_names_the_known_ones() -> None:
    rules = EarlyStopping(monitor="val_mea")
    ours = program(settings(validation_split=0.1, early_stopping=rules))

    with pytest.raises(ConfigError, match="did you mean `val_mae`"):
        ours.run(examples(), examples(10), seed=0, first=0, epochs=1)


def test_training_ends_at_a_loss_that_is_no_number() -> None:
    ours = program(settings(learning_rate=1e30, optimizer="sgd"))
    rows = ours.run(examples(), None, seed=0, first=0, epochs=5)

    assert len(rows) < 5
    assert not np.isfinite(rows[-1, 0])


def test_an_order_depends_on_seed_and_epoch_only() -> None:
    np.testing.assert_array_equal(order(3, 5, 100), order(3, 5, 100))
    assert sorted(order(3, 5, 100)) == list(range(100))
    assert not np.array_equal(order(3, 5, 100), order(3, 6, 100))
    assert not np.array_equal(order(3, 5, 100), order(4, 5, 100))


def test_other_held_out_examples_are_never_taken_for_those_before() -> None:
    one, split = program(settings(learning_rate=1e-12)), examples()
    losses = [one.run(split, examples(20, seed=seed), seed=0, first=0, epochs=1)[0, 2] for seed in (1, 2)]

    assert losses[0] != losses[1]


# ------------------------------------------------------------------------- all that `fit` takes, and more


def of_kind(kind: str, examples: int = 44) -> Split:
    features = trainables.FEATURES[kind]
    values = trainables.arrays(kind, examples)
    inputs, targets = ({n: values[n] for n, f in features.items() if f.role == role} for role in ("input", "target"))
    weights = [values[name] for name, feature in features.items() if feature.role == "weight"]
    return Split(inputs, targets, weights[0] if weights else None)


def built(kind: str, strategy: str = "default") -> Any:
    import keras

    keras.utils.set_random_seed(1)
    inputs = {name: f for name, f in trainables.FEATURES[kind].items() if f.role == "input"}
    with choose(strategy).scope():
        return trainables.pipeline(kind).model(inputs)


def both(kind: str, **changes: Any) -> tuple[Any, Any]:
    """The weights after three epochs, by `fit` and by our own graph."""
    rules = Train.model_validate(
        {**trainables.SPECIAL[kind]["train"], "epochs": 3, "batch_size": 8, "shuffle": False, "validation_split": 0}
        | {"checkpoint": None, "reduce_lr": None, "early_stopping": None, **changes}
    )
    split, theirs = of_kind(kind), built(kind)
    inputs, targets = (
        values if len(values) > 1 else next(iter(values.values()), None) for values in (split.inputs, split.targets)
    )
    compile_model(theirs, rules, {}, weighted=False)
    weights = {int(k): v for k, v in rules.class_weight.items()} if isinstance(rules.class_weight, dict) else None
    sizes = {"epochs": 3, "batch_size": 8, "shuffle": False, "verbose": 0}
    theirs.fit(inputs, targets, sample_weight=split.weights, class_weight=weights, **sizes)
    table = np.array([weights.get(i, 1.0) for i in range(3)], np.float32) if weights else None
    ours = Program(Step(built(kind), rules, choose("default"), split, class_weights=table))
    ours.run(split, None, seed=0, first=0, epochs=3)
    return [v.numpy() for v in theirs.variables], [v.numpy() for v in ours.model.variables]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("dense", {}),
        ("convnet", {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}),
        ("lstm", {}),
        ("vae", {}),
        ("plain", {"optimizer": {"name": "adam", "gradient_accumulation_steps": 3, "clipnorm": 0.5}}),
    ],
    ids=lambda value: str(value),
)
def test_every_kind_learns_what_it_learns_by_fit(kind: str, changes: dict[str, Any]) -> None:
    """Several inputs and outputs, weights of examples and classes, a step of its own: the same to the last bit."""
    expected, found = both(kind, **changes)

    for theirs, mine in zip(expected, found, strict=True):
        np.testing.assert_array_equal(theirs, mine)


def test_mixed_precision_computes_in_half_and_keeps_whole_weights() -> None:
    split = of_kind("plain")
    with precision("mixed_float16"):
        model = built("plain")
    ours = Program(Step(model, settings(optimizer="adam", learning_rate=0.05), choose("default"), split))
    rows = ours.run(split, None, seed=0, first=0, epochs=30)

    assert model.layers[0].compute_dtype == "float16"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    # Scaled losses would be seen here, were they not brought back.
    assert rows[-1, 0] < rows[0, 0] < 10


def test_a_batch_that_is_left_out_counts_nowhere() -> None:
    """70 examples are four batches of 16, and 6 that are left out."""
    ours = program(settings(drop_remainder=True, learning_rate=1e-12))
    split = examples()
    rows = ours.run(split, None, seed=0, first=0, epochs=1)
    start = network()
    start.compile("sgd", "mse")
    expected = start.evaluate(split.inputs["features"][:64], split.targets["price"][:64], verbose=0)

    assert ours.steps(70) == 4
    assert rows[0, 0] == pytest.approx(expected, rel=1e-5)


def test_many_held_out_examples_are_judged_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of 16 and a last one of 5, the loss is that of all of them."""
    whole = program(settings()).run(examples(), examples(53, seed=1), seed=0, first=0, epochs=2)
    monkeypatch.setattr("headrace.engine.epochs._JUDGED", 1)
    pieces = program(settings()).run(examples(), examples(53, seed=1), seed=0, first=0, epochs=2)

    np.testing.assert_allclose(whole, pieces, rtol=1e-5)


def test_steps_in_any_portions_make_the_same_epochs() -> None:
    whole, parts = program(settings(shuffle=True), dropout=0.5), program(settings(shuffle=True), dropout=0.5)
    held = examples(20, seed=1)
    expected = whole.run(examples(), held, seed=7, first=0, epochs=3)
    feed, at, rows = Memory(examples(), held, 7), (0, 0), []
    parts.prepare(feed)
    for count in (2, 1, 6, 3, 3):
        done = parts.advance(feed, *at, count)
        rows += list(done.rows)
        at = at[0] + len(done.rows), (at[1] + count) % 5

    np.testing.assert_array_equal(expected, np.stack(rows))
    for one, other in zip(whole.state, parts.state, strict=True):
        np.testing.assert_array_equal(one, other)


def test_outputs_that_are_called_otherwise_than_the_targets_are_told() -> None:
    split = of_kind("dense")
    wrong = Split(split.inputs, {"prize": split.targets["price"], "kind": split.targets["kind"]}, split.weights)

    with pytest.raises(ConfigError, match=r"prize|price"):
        Program(
            Step(built("dense"), settings(loss={"price": "mse", "kind": "mse"}, metrics=()), choose("default"), wrong)
        )


def test_a_state_holds_what_keras_does_not_know_of() -> None:
    """The generator in a corner of a subclassed model is found in the graph."""
    split = of_kind("subclassed")
    ours = Program(Step(built("subclassed"), settings(metrics=()), choose("default"), split))
    before = ours.state
    first = ours.run(split, None, seed=0, first=0, epochs=1)
    ours.restore(before)
    again = ours.run(split, None, seed=0, first=0, epochs=1)

    assert any(array.dtype == np.int64 and array.shape == (3,) for array in before)
    np.testing.assert_array_equal(first, again)


def test_a_step_of_its_own_may_return_what_keras_keeps_together() -> None:
    """`{m.name: m.result() for m in self.metrics}` holds the compiled metrics as one, which `fit` takes apart."""
    import keras
    import tensorflow as tf

    class Stepping(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            with tf.GradientTape() as tape:
                predicted = self(x, training=True)
                loss = self.compute_loss(x, y, predicted)
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
                else:
                    metric.update_state(y, predicted)
            return {metric.name: metric.result() for metric in self.metrics}

    given = keras.Input((WIDTH,), name="features")
    model = Stepping(given, keras.layers.Dense(1, name="price")(given))
    trained = Program(Step(model, settings(), choose("default"), examples()))
    rows = trained.run(examples(), None, seed=0, first=0, epochs=2)
    assert trained.names == ["loss", "mae"]
    assert np.isfinite(rows).all()
