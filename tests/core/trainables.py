"""One tiny workload of each trainable kind, and records for it: what exact resume is proven on.

As a script, `python -m tests.core.trainables KIND HOME RECORDS SETTINGS` trains one and prints what came out.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from headrace import Feature, Pipeline, Source, Train, Variant
from headrace.artifacts import Artifact
from headrace.engine.loops import Loop, Start
from headrace.jobs import Job
from headrace.ragged import Ragged

EXAMPLES = 44
"""In batches of 8: five whole ones and one of 4."""


def _none(*_: Any) -> Any:
    raise NotImplementedError


# --------------------------------------------------------------------------------------------------- models


def dense(inputs: Mapping[str, Feature]) -> Any:
    """Two inputs and two outputs, by name."""
    import keras

    size, place = (keras.Input(inputs[name].shape, name=name) for name in ("size", "place"))
    hidden = keras.layers.Concatenate()([keras.layers.Dense(6, "relu")(size), place])
    hidden = keras.layers.Dropout(0.3)(keras.layers.BatchNormalization()(hidden))
    outputs = {
        "price": keras.layers.Dense(1, name="price", kernel_regularizer="l2")(hidden),
        "kind": keras.layers.Dense(3, "softmax", name="kind")(hidden),
    }
    return keras.Model({"size": size, "place": place}, outputs)


def convnet(inputs: Mapping[str, Feature]) -> Any:
    """Augmentation, convolutions, batch normalisation, dropout."""
    import keras

    given = keras.Input(inputs["image"].shape, name="image")
    x = keras.layers.RandomFlip("horizontal")(given)
    x = keras.layers.RandomRotation(0.1)(x)
    x = keras.layers.RandomZoom(0.2)(x)
    x = keras.layers.Rescaling(1 / 255)(x)
    x = keras.layers.Conv2D(4, 3, use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(given, keras.layers.Dense(3, "softmax")(x))


def lstm(inputs: Mapping[str, Feature]) -> Any:
    """Recurrent dropout, whose mask is the same at each step of a sequence."""
    import keras

    return keras.Sequential(
        [
            keras.Input(inputs["series"].shape, name="series"),
            keras.layers.LSTM(5, recurrent_dropout=0.25, dropout=0.1),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )


def transformer(inputs: Mapping[str, Feature]) -> Any:
    """Embeddings of tokens, whose number differs, with a mask; attention with dropout."""
    import keras

    given = keras.Input((None,), dtype="int64", name="tokens")
    x = keras.layers.Embedding(20, 8, mask_zero=True)(given)
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 4, dropout=0.2)(x, x))
    x = keras.layers.LayerNormalization()(x + keras.layers.Dense(8)(keras.layers.Dense(16, "relu")(x)))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling1D()(x))
    return keras.Model(given, keras.layers.Dense(1, "sigmoid")(x))


def plain(inputs: Mapping[str, Feature]) -> Any:
    """Nothing random, nothing that looks at a whole batch: what must come out the same on any number of replicas."""
    import keras

    hidden = keras.layers.Dense(6, "relu", kernel_regularizer="l2")
    return keras.Sequential([keras.Input(inputs["x"].shape, name="x"), hidden, keras.layers.Dense(1)])


def subclassed(inputs: Mapping[str, Feature]) -> Any:
    """A model that creates its weights when it is first called, with a generator that Keras doesn't know of."""
    import keras
    import tensorflow as tf

    class Subclassed(keras.Model):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.hidden, self.out = keras.layers.Dense(6, "relu"), keras.layers.Dense(1)
            self.noise = SimpleNamespace(generator=tf.random.Generator.from_seed(3))

        def call(self, inputs: Any, training: bool = False) -> Any:
            x = self.hidden(inputs)
            return self.out(x + self.noise.generator.normal(tf.shape(x), stddev=0.1) if training else x)

    return Subclassed()


def vae(inputs: Mapping[str, Feature]) -> Any:
    """A step of its own with metrics of its own, and noise."""
    import keras
    import tensorflow as tf

    class Vae(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            shape = inputs["image"].shape
            given = keras.Input(shape)
            x = keras.layers.Conv2D(3, 3, strides=2, padding="same", activation="relu")(given)
            x = keras.layers.Flatten()(x)
            self.encoder = keras.Model(given, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)])
            code = keras.Input((2,))
            out = keras.layers.Dense(int(np.prod(shape)), "sigmoid")(code)
            self.decoder = keras.Model(code, keras.layers.Reshape(shape)(out))
            self.seeds = keras.random.SeedGenerator(5)
            self.total = keras.metrics.Mean(name="loss")
            self.divergence = keras.metrics.Mean(name="kl_loss")

        @property
        def metrics(self) -> list[Any]:
            return [self.total, self.divergence]

        def losses_of(self, data: Any) -> tuple[Any, Any]:
            pixels = tf.cast(data, tf.float32) / 255
            mean, spread = self.encoder(pixels)
            code = mean + tf.exp(0.5 * spread) * keras.random.normal(tf.shape(mean), seed=self.seeds)
            error = tf.reduce_mean(tf.reduce_sum((pixels - self.decoder(code)) ** 2, (1, 2, 3)))
            return error, tf.reduce_mean(-0.5 * (1 + spread - mean**2 - tf.exp(spread)))

        def results(self, error: Any, divergence: Any) -> dict[str, Any]:
            self.total.update_state(error + divergence)
            self.divergence.update_state(divergence)
            return {metric.name: metric.result() for metric in self.metrics}

        def train_step(self, data: Any) -> dict[str, Any]:
            with tf.GradientTape() as tape:
                error, divergence = self.losses_of(data)
                loss = error + divergence
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            return self.results(error, divergence)

        def test_step(self, data: Any) -> dict[str, Any]:
            return self.results(*self.losses_of(data))

    return Vae()


def keep_decoder(model: Any) -> Mapping[str, Any]:
    """What is served, and what goes with it."""
    return {"model": model.decoder, "encoder": model.encoder}


def gan(inputs: Mapping[str, Feature]) -> Any:
    """Two networks with two optimizers that the model keeps under names of its own."""
    import keras
    import tensorflow as tf

    class Gan(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            shape = inputs["image"].shape
            self.discriminator = keras.Sequential(
                [
                    keras.Input(shape),
                    keras.layers.Conv2D(3, 4, strides=2, padding="same"),
                    keras.layers.LeakyReLU(0.2),
                    keras.layers.Flatten(),
                    keras.layers.Dropout(0.2),
                    keras.layers.Dense(1, "sigmoid"),
                ]
            )
            out = keras.layers.Dense(int(np.prod(shape)), "sigmoid")
            self.generator = keras.Sequential([keras.Input((4,)), out, keras.layers.Reshape(shape)])
            self.seeds = keras.random.SeedGenerator(7)
            self.averages = [keras.metrics.Mean(name="d_loss"), keras.metrics.Mean(name="g_loss")]

        def compile(self, d_optimizer: Any, g_optimizer: Any, loss_fn: Any) -> None:
            super().compile()
            self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

        @property
        def metrics(self) -> list[Any]:
            return self.averages

        def train_step(self, data: Any) -> dict[str, Any]:
            real = tf.cast(data, tf.float32) / 255
            count = tf.shape(real)[0]
            fake = self.generator(keras.random.normal((count, 4), seed=self.seeds))
            labels = tf.concat([tf.ones((count, 1)), tf.zeros((count, 1))], 0)
            labels += 0.05 * keras.random.uniform(tf.shape(labels), seed=self.seeds)
            with tf.GradientTape() as tape:
                d_loss = self.loss_fn(labels, self.discriminator(tf.concat([fake, real], 0), training=True))
            weights = self.discriminator.trainable_weights
            self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
            noise = keras.random.normal((count, 4), seed=self.seeds)
            with tf.GradientTape() as tape:
                g_loss = self.loss_fn(tf.zeros((count, 1)), self.discriminator(self.generator(noise)))
            weights = self.generator.trainable_weights
            self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
            for average, loss in zip(self.averages, (d_loss, g_loss), strict=True):
                average.update_state(loss)
            return {average.name: average.result() for average in self.averages}

    return Gan()


def compile_gan(model: Any, settings: Train) -> None:
    """An optimizer for each of the two."""
    import keras

    rate = settings.learning_rate or 1e-3
    model.compile(keras.optimizers.Adam(rate), keras.optimizers.Adam(rate), keras.losses.BinaryCrossentropy())


def keep_generator(model: Any) -> Mapping[str, Any]:
    """The discriminator has done its work."""
    return {"model": model.generator}


def first_weights(model: Any) -> Mapping[str, Any]:
    """A part of a subclassed model that Keras can save without knowing its class."""
    import keras

    return {"model": keras.Sequential([keras.Input((3,)), model.hidden, model.out])}


def q_network(inputs: Mapping[str, Feature]) -> Any:
    """The values of two actions."""
    import keras

    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])


class Dqn(Loop):
    """Deep Q-learning on a toy: push a ball to the middle of a line. A step is a game, an epoch two of them."""

    steps = 2

    def __init__(self, start: Start) -> None:
        import keras

        self.model = start.model
        self.optimizer = keras.optimizers.Adam(start.settings.learning_rate or 1e-2)
        self.optimizer.build(self.model.trainable_variables)
        self.random = np.random.default_rng(start.seed)
        self.replay: list[Any] = []

    def state(self) -> Mapping[str, Any]:
        return {**super().state(), "replay": self.replay}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.replay = list(state["replay"])

    def advance(self, step: int) -> Mapping[str, float]:
        place, speed, rewards, losses = float(self.random.uniform(-1, 1)), 0.0, 0.0, []
        for _ in range(5):
            values = self.model(np.array([[place, speed]], np.float32)).numpy()[0]
            explore = self.random.random() < max(0.05, 1 - step / 10)
            action = int(self.random.integers(2)) if explore else int(values.argmax())
            before, speed = [place, speed], speed + (0.1 if action else -0.1)
            place += speed
            self.replay = [*self.replay[-30:], [before, action, -abs(place), [place, speed]]]
            losses.append(self.learn())
            rewards -= abs(place)
        return {"loss": float(np.mean(losses)), "reward": rewards}

    def learn(self) -> float:
        import tensorflow as tf

        rows = [self.replay[i] for i in self.random.integers(len(self.replay), size=4)]
        states, ahead = (np.array([row[i] for row in rows], np.float32) for i in (0, 3))
        wanted = np.array([row[2] for row in rows], np.float32) + 0.9 * self.model(ahead).numpy().max(1)
        actions = tf.one_hot([row[1] for row in rows], 2)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((wanted - tf.reduce_sum(self.model(states) * actions, 1)) ** 2)
        weights = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return float(loss)


def play(start: Start) -> Dqn:
    """The loop of this workload."""
    return Dqn(start)


# ------------------------------------------------------------------------------------------------ workloads

FEATURES: dict[str, dict[str, Feature]] = {
    "dense": {
        "size": Feature(shape=(3,)),
        "place": Feature(shape=(2,)),
        "price": Feature(shape=(1,), role="target"),
        "kind": Feature(shape=(3,), role="target"),
        "trust": Feature(role="weight"),
        "name": Feature(dtype="string", role="note"),
    },
    "convnet": {
        "image": Feature(shape=(8, 8, 1), dtype="uint8"),
        "digit": Feature(dtype="int64", role="target", classes=("0", "1", "2")),
    },
    "lstm": {"series": Feature(shape=(6, 2)), "next": Feature(shape=(1,), role="target")},
    "transformer": {"tokens": Feature(shape=(None,), dtype="int64"), "good": Feature(shape=(1,), role="target")},
    "plain": {"x": Feature(shape=(3,)), "y": Feature(shape=(1,), role="target")},
    "subclassed": {"x": Feature(shape=(3,)), "y": Feature(shape=(1,), role="target")},
    "vae": {"image": Feature(shape=(8, 8, 1), dtype="uint8")},
    "gan": {"image": Feature(shape=(8, 8, 1), dtype="uint8")},
    "dqn": {"nothing": Feature()},
}

SPECIAL: dict[str, dict[str, Any]] = {
    "dense": {
        "model": dense,
        "train": {
            "loss": {"price": "mse", "kind": "categorical_crossentropy"},
            "loss_weights": {"price": 0.5},
            "metrics": {"price": ["mae"], "kind": ["accuracy", "auc"]},
            "validation_split": 0.25,
            "reduce_lr": {"monitor": "val_loss", "patience": 1, "min_delta": 0.05, "factor": 0.5},
            "checkpoint": {"monitor": "val_loss"},
        },
    },
    "convnet": {
        "model": convnet,
        "train": {
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["accuracy"],
            "validation_split": 0.25,
            "early_stopping": {"patience": 20},
            "class_weight": "balanced",
        },
    },
    "lstm": {
        "model": lstm,
        "train": {
            "schedule": {"name": "exponential_decay", "decay_steps": 5, "decay_rate": 0.9},
            "learning_rate": 0.01,
        },
    },
    "transformer": {
        "model": transformer,
        "train": {"loss": "binary_crossentropy", "optimizer": {"name": "adam", "gradient_accumulation_steps": 2}},
    },
    "plain": {"model": plain, "train": {"optimizer": "adam", "metrics": ["mae"], "validation_split": 0.2}},
    "subclassed": {"model": subclassed, "keep": first_weights, "train": {}},
    "vae": {"model": vae, "keep": keep_decoder, "train": {"loss": None, "optimizer": "adam", "validation_split": 0.25}},
    "gan": {"model": gan, "compile": compile_gan, "keep": keep_generator, "train": {}},
    "dqn": {"model": q_network, "loop": play, "train": {"early_stopping": {"monitor": "reward", "patience": 20}}},
}
KINDS = tuple(SPECIAL)


def pipeline(kind: str) -> Pipeline:
    """The workload of this kind."""
    special = dict(SPECIAL[kind])
    settings = {"epochs": 4, "batch_size": 8, **special.pop("train")}
    return Pipeline(
        name=kind,
        title=kind,
        task="regression",
        book="none",
        expect="nothing",
        sources={"made": Source(title="Made up", features=FEATURES[kind], read=_none)},
        preprocess=_none,
        variants={"only": Variant(train=Train.model_validate(settings))},
        **special,
    )


def arrays(kind: str, examples: int = EXAMPLES, seed: int = 0) -> dict[str, Any]:
    """Made-up examples."""
    random = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for name, feature in FEATURES[kind].items():
        if feature.ragged:
            found[name] = Ragged.of([random.integers(1, 20, random.integers(2, 9)) for _ in range(examples)], np.int64)
        elif feature.dtype == "string":
            found[name] = np.array([b"note"] * examples, object)
        elif feature.dtype == "uint8":
            found[name] = random.integers(0, 255, (examples, *feature.shape), np.uint8)
        elif feature.classes:
            found[name] = random.integers(0, len(feature.classes), examples)
        elif name == "kind":
            found[name] = np.eye(3, dtype=np.float32)[random.integers(0, 3, examples)]
        elif name in ("good", "trust"):
            found[name] = random.integers(0, 2, (examples, *feature.shape)).astype(np.float32)
        else:
            found[name] = random.normal(size=(examples, *feature.shape)).astype(np.float32)
    return found


def records(kind: str, folder: Path, **splits: int) -> Artifact:
    """Finished records of made-up examples, and of further splits: `records("dense", folder, validation=10)`."""
    from headrace.readers.batches import batches
    from headrace.records.inputs import Info, write_info
    from headrace.records.writing import stored, write
    from headrace.spec import Records
    from tests.core.making import artifact

    folder.mkdir(parents=True)
    layout = FEATURES[kind]
    written = {
        split: write(folder, split, batches(arrays(kind, examples, seed)), layout)
        for seed, (split, examples) in enumerate({"train": EXAMPLES, **splits}.items())
    }
    write_info(folder, Info(kind, "made", "synthetic", layout, written, stored(layout, Records())))
    return artifact(folder, "preprocess")


def request(kind: str, **train: Any) -> Job:
    """A job on this kind; state only the training settings that differ."""
    workload = pipeline(kind)
    variant = workload.variants["only"]
    settings = Train.model_validate({**variant.train.model_dump(), **train})
    job = Job(workload=kind, variant="only", source="made", settings=variant.model_copy(update={"train": settings}))
    # A job finds its workload among the files of a project; this one isn't there.
    job.__dict__["pipeline"] = workload
    return job


def main() -> None:
    """Train in this process, as the kill tests do it in another one."""
    kind, home, folder, settings = sys.argv[1:]
    os.environ["HEADRACE_HOME"] = home
    from headrace.training import train

    manifest = json.loads((Path(folder) / "manifest.json").read_text())
    made = train(request(kind, **json.loads(settings)), Artifact(Path(folder), manifest["digest"], "preprocess"))
    facts = made.json("training.json")
    print("done", made.digest, facts["resumed_from_epoch"], facts["resumed_from_step"])


if __name__ == "__main__":
    main()
