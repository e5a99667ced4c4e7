"""Small workloads of each kind of model, exported whole: what tests of bundles are made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifacts import Artifact
from headrace.exporting import export
from headrace.jobs import Job, resolve
from headrace.preprocessing import preprocess
from headrace.spec import Feature
from tests.core import making
from tests.core.making import artifact, stand_in, trained

ALL = ("saved_model", "tflite", "tflite_dynamic", "tflite_float16", "tflite_int8", "onnx")


def plain(statistics: Any) -> Any:
    """Nothing to prepare."""
    return lambda batch: batch


@dataclass
class Kind:
    """A kind of workload: its data, its preprocessing, and a model of it."""

    data: Callable[..., making.Data]
    model: Callable[[Mapping[str, Feature]], Any]
    task: Any = "regression"
    preprocess: Callable[..., Any] = plain
    learn: Callable[..., Any] | None = None
    roles: dict[str, str] = field(default_factory=dict)
    serve: Callable[..., Any] | None = None

    def job(self, **settings: Any) -> Job:
        """A job on 60 training and 40 test examples; settings are those of `export`."""
        overrides = {
            f"export.{name}": value for name, value in {"examples": 24, "representative": 16, **settings}.items()
        }
        job = resolve("house_prices", profile="smoke", data="synthetic", overrides=overrides)
        origin = job.origin
        # No schema was reviewed for a source of this name.
        job = job.model_copy(update={"source": "made_up", "settings": job.settings.model_copy(update={"promises": ()})})
        (features, train), (_, test) = self.data(60), self.data(40, seed=1)
        job.__dict__["origin"] = origin
        chosen = {"preprocess": self.preprocess, "learn": self.learn, "task": self.task, "serve": self.serve}
        records = job.pipeline.records.model_copy(update={"roles": self.roles})
        job.__dict__["pipeline"] = job.pipeline.model_copy(update={**chosen, "records": records})
        stand_in(job, features, {"train": train, "test": test}, quarantine=0.0)
        return job

    def export(self, folder: Path, change: Callable[[Any], None] = lambda model: None, **settings: Any) -> Artifact:
        """The bundle of an untrained model."""
        import keras

        from headrace.records.inputs import read_info

        job = self.job(**settings)
        (folder / "raw").mkdir(parents=True)
        raw = artifact(folder / "raw", "download", data={"data": "synthetic", "source": job.source, "files": {}})
        records = preprocess(job, raw)
        keras.backend.clear_session(free_memory=False)
        keras.utils.set_random_seed(3)
        model = self.model(read_info(records.path).named("input"))
        change(model)
        return export(job, raw, records, trained(model, folder / "model"))


# ------------------------------------------------------------------------------------------------- numbers


def standardised(statistics: Any) -> Any:
    mean, scale = (np.asarray(v, np.float32) for v in (statistics["x"].mean, statistics["x"].scale))
    return lambda batch: {**batch, "x": (batch["x"] - mean) / scale}


def dense(inputs: Mapping[str, Feature]) -> Any:
    import keras

    given = keras.Input((2,), name="x")
    hidden = keras.layers.Dense(16, activation="relu")(given)
    return keras.Model(given, keras.layers.Flatten()(keras.layers.Dense(1, name="price")(hidden))[:, 0])


DENSE = Kind(making.numbers, dense, preprocess=standardised)


# -------------------------------------------------------------------------------------------------- images


def scaled(statistics: Any) -> Any:
    import tensorflow as tf

    return lambda batch: {**batch, "image": tf.cast(batch["image"], tf.float32) / 255}


def convnet(inputs: Mapping[str, Feature]) -> Any:
    import keras

    x = given = keras.Input(inputs["image"].shape, name="image")
    x = keras.layers.RandomFlip("horizontal", seed=1)(x)
    x = keras.layers.Conv2D(8, 3, activation="relu", padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.MaxPooling2D()(x))
    return keras.Model(given, keras.layers.Dense(3, activation="softmax", name="label")(x))


CONVNET = Kind(making.images, convnet, "multiclass", scaled)


def decoded(statistics: Any) -> Any:
    import tensorflow as tf

    from headrace.images import decode

    return lambda batch: {**batch, "image": tf.cast(decode(batch["image"], (12, 12)), tf.float32) / 255}


FILES = Kind(making.files, convnet, "multiclass", decoded)


def masked(statistics: Any) -> Any:
    import tensorflow as tf

    return lambda batch: {**batch, "image": tf.cast(batch["image"], tf.float32) / 255}


def unet(inputs: Mapping[str, Feature]) -> Any:
    import keras

    given = keras.Input((12, 12, 3), name="image")
    down = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(given)
    up = keras.layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu")(down)
    both = keras.layers.Concatenate()([up, given])
    return keras.Model(given, keras.layers.Conv2D(3, 1, activation="softmax", name="mask")(both))


SEGMENTATION = Kind(making.masks, unet, "segmentation", masked)


# --------------------------------------------------------------------------------------------- sequences


def lstm(inputs: Mapping[str, Feature]) -> Any:
    import keras

    given = keras.Input((48, 2), name="window")
    x = keras.layers.Bidirectional(keras.layers.LSTM(6))(given)
    return keras.Model(given, keras.layers.Dense(1, name="next")(x)[:, 0])


LSTM = Kind(making.series, lstm, "regression")


def tagged(inputs: Mapping[str, Feature]) -> Any:
    import keras

    given = keras.Input((None,), dtype="int64", name="tokens")
    x = keras.layers.Embedding(50, 8, mask_zero=True)(given)
    x = keras.layers.GRU(6)(x)
    return keras.Model(given, keras.layers.Dense(3, activation="softmax", name="label")(x))


def some_tokens(rows: int = 60, seed: int = 0) -> making.Data:
    """Token numbers above 0, and at least one: what a recurrent layer with a mask can go through."""
    from headrace.ragged import Ragged

    random = np.random.default_rng([seed, rows])
    made = [random.integers(1, 50, length) for length in random.integers(1, 9, rows)]
    features = {"tokens": Feature(shape=(None,), dtype="int64"), "label": making.LABEL}
    return features, {"tokens": Ragged.of(made, np.int64), "label": random.integers(0, 3, rows)}


RAGGED = Kind(some_tokens, tagged, "multiclass")


# --------------------------------------------------------------------------------------------------- text


def vocabulary(batches: Any, statistics: Any) -> dict[str, Any]:
    import keras

    layer = keras.layers.TextVectorization(output_sequence_length=12)
    for batch in batches:
        layer.adapt(batch["review"])
    return {"words": np.array(layer.get_vocabulary(include_special_tokens=False))}


def vectorised(statistics: Any, learned: Any) -> Any:
    import keras

    words = [word.decode() if isinstance(word, bytes) else str(word) for word in learned["words"]]
    vectorise = keras.layers.TextVectorization(output_sequence_length=12, vocabulary=words)
    return lambda batch: {**batch, "review": vectorise(batch["review"])}


def transformer(inputs: Mapping[str, Feature]) -> Any:
    import keras

    given = keras.Input((12,), dtype="int64", name="review")
    x = keras.layers.Embedding(40, 8)(given)
    attended = keras.layers.MultiHeadAttention(2, 4)(x, x)
    x = keras.layers.LayerNormalization()(x + keras.layers.Dropout(0.5)(attended))
    x = keras.layers.GlobalMaxPooling1D()(x)
    return keras.Model(given, keras.layers.Dense(3, activation="softmax", name="label")(x))


TEXT = Kind(making.text, transformer, "multiclass", vectorised, vocabulary)


# -------------------------------------------------------------------------- several inputs and outputs


def tickets(rows: int = 60, seed: int = 0) -> making.Data:
    """A title, words of the body by number, tags; a priority and a department."""
    random = np.random.default_rng([seed, rows])
    titles = np.array([b"please help", "a broken d\u00e9sk".encode(), b"", b"nul\x00\x00"], object)
    return (
        {
            "title": Feature(dtype="string"),
            "tags": Feature(shape=(4,)),
            "priority": Feature(role="target"),
            "department": Feature(dtype="int64", role="target", classes=("sales", "repairs", "other")),
        },
        {
            "title": titles[random.integers(0, 4, rows)],
            "tags": random.integers(0, 2, (rows, 4)).astype(np.float32),
            "priority": random.random(rows).astype(np.float32),
            "department": random.integers(0, 3, rows),
        },
    )


def bagged(statistics: Any) -> Any:
    import keras

    bag = keras.layers.TextVectorization(output_mode="multi_hot", vocabulary=["please", "help", "broken", "a"])
    return lambda batch: {**batch, "title": bag(batch["title"])}


def two_headed(inputs: Mapping[str, Feature]) -> Any:
    import keras

    title, tags = keras.Input((5,), name="title"), keras.Input((4,), name="tags")
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Concatenate()([title, tags]))
    priority = keras.layers.Dense(1, activation="sigmoid", name="priority")(x)[:, 0]
    department = keras.layers.Dense(3, activation="softmax", name="department")(x)
    return keras.Model([title, tags], [priority, department])


TICKETS = Kind(tickets, two_headed, {"priority": "regression", "department": "multiclass"}, bagged)


# ------------------------------------------------------------------------ models of workloads to come, tiny


def sentences(rows: int = 60, seed: int = 0) -> making.Data:
    """Sentences in a language and in another, and the other one again without its first word, as numbers."""
    random = np.random.default_rng([seed, rows])
    words = random.integers(1, 20, (rows, 7))
    return (
        {
            "english": Feature(shape=(7,), dtype="int64"),
            "before": Feature(shape=(7,), dtype="int64"),
            "spanish": Feature(shape=(7,), dtype="int64", role="target"),
        },
        {"english": words, "before": words + 1, "spanish": words + 2},
    )


def encoder_decoder(inputs: Mapping[str, Feature]) -> Any:
    import keras

    english, before = (keras.Input((7,), dtype="int64", name=name) for name in ("english", "before"))
    encoded = keras.layers.Embedding(24, 8)(english)
    encoded = keras.layers.LayerNormalization()(encoded + keras.layers.MultiHeadAttention(2, 4)(encoded, encoded))
    x = keras.layers.Embedding(24, 8)(before)
    x = x + keras.layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 4)(x, encoded))
    return keras.Model([english, before], keras.layers.Dense(24, activation="softmax", name="spanish")(x))


TRANSLATION = Kind(sentences, encoder_decoder, "sequence")


def codes(rows: int = 60, seed: int = 0) -> making.Data:
    """A point of a latent space, and the image that it stands for."""
    random = np.random.default_rng([seed, rows])
    return (
        {"z": Feature(shape=(4,)), "image": Feature(shape=(8, 8, 1), role="target")},
        {
            "z": random.normal(size=(rows, 4)).astype(np.float32),
            "image": random.random((rows, 8, 8, 1)).astype(np.float32),
        },
    )


def vae_decoder(inputs: Mapping[str, Feature]) -> Any:
    import keras

    given = keras.Input((4,), name="z")
    x = keras.layers.Reshape((4, 4, 8))(keras.layers.Dense(128, activation="relu")(given))
    x = keras.layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(given, keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="image")(x))


def gan_generator(inputs: Mapping[str, Feature]) -> Any:
    import keras

    given = keras.Input((4,), name="z")
    x = keras.layers.Reshape((4, 4, 8))(keras.layers.Dense(128)(given))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2DTranspose(8, 4, strides=2, padding="same")(x))
    x = keras.layers.LeakyReLU(negative_slope=0.2)(x)
    return keras.Model(given, keras.layers.Conv2D(1, 5, padding="same", activation="sigmoid", name="image")(x))


DECODER = Kind(codes, vae_decoder, "own")
GENERATOR = Kind(codes, gan_generator, "own")
LATENT = Kind(making.images, vae_decoder, "own", scaled)
"""A decoder whose data are images: the points of its latent space stand in no record."""
