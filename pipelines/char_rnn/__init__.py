"""A network that reads Nietzsche letter by letter, and writes on: an LSTM that is asked for the next character.

Book:    The TensorFlow handbook, on recurrent networks.
Run:     headrace run char_rnn                      every character of a window is to be guessed
         headrace run char_rnn --variant last       the book's own: only the one after the window
Expect:  a perplexity of 8.6 per character on the last tenth of the text, after the book's 1,000 batches, in about two
         minutes on two CPU cores; `last` comes to 11. Characters by how often they occur have one of 20.

The book draws 1,000 batches of 50 windows of 40 characters, and trains on the one that follows each: 50 answers in a
batch. `every` asks the same network for the next character at each place of the same windows, and gets 2,000. The book
tests nothing; here the last tenth of the text is held out before windows are cut, so that they share no character.

What is served is the writing itself: a prompt, a temperature, `top_k`, `top_p`, a length and a seed give a text. Where
the book reads the last 40 characters anew for each one that it writes, the state of the LSTM is carried on here: that
is 40 times less work, and its state after a window is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from headrace import Evaluate, Export, Feature, Pipeline, Promise, Train, Variant
from pipelines.sources.texts import APART, CHARACTERS, WINDOW

if TYPE_CHECKING:
    import keras

    from headrace.bundling.signatures import Given, Signature
    from headrace.describing.summaries import Statistics
    from headrace.engine.journals import Moment
    from headrace.engine.loops import Loop, Start
    from headrace.generation import Step
    from headrace.records.inputs import Batch

LETTERS = 57
"""Characters of the text."""
TEMPERATURES = (0.2, 0.5, 1.0, 1.2)
SAMPLED, MOST = 400, 2_000
"""Characters of a sample, and of a text that is asked for at most."""


# ------------------------------------------------------------------------------------------------ records


def learn(batches: Iterable[Batch], statistics: Statistics, letters: int = LETTERS) -> dict[str, Any]:
    """The characters of the training text, the most frequent first."""
    from collections import Counter

    import numpy as np

    found: Counter[str] = Counter()
    for batch in batches:
        found.update(b"".join(batch["window"].numpy()).decode())
    ranked = sorted(found, key=lambda letter: (-found[letter], letter))
    return {"letters": np.array([letter.encode() for letter in ranked[:letters]])}


def preprocess(statistics: Statistics, learned: Mapping[str, Any], every: bool = True) -> Callable[[Batch], Batch]:
    """Characters become numbers: from 2 on by how frequent they are; 1 is unknown, 0 fills up a shorter window.

    Args:
        statistics: None are needed.
        learned: What `learn` gave.
        every: Each character of a window is asked for the next one, instead of the last only.
    """
    import keras
    import tensorflow as tf

    # As TensorFlow does it, only ASCII letters are made lower case: the text itself was by Python.
    numbers = keras.layers.TextVectorization(
        standardize="lower",
        split="character",
        output_sequence_length=WINDOW,
        vocabulary=[letter.decode() for letter in learned["letters"].tolist()],
    )

    def numbered(batch: Batch) -> Batch:
        window = tf.ensure_shape(numbers(batch["window"]), (None, WINDOW))
        ready = {**batch, "window": tf.cast(window, tf.uint8)}
        if "following" in batch:
            last = numbers(batch["following"])[:, :1]
            ready["following"] = tf.concat([window[:, 1:], last], axis=1) if every else last[:, 0]
        return ready

    return numbered


# -------------------------------------------------------------------------------------------------- model


def model(inputs: Mapping[str, Feature], units: int = 256, letters: int = LETTERS, every: bool = True) -> keras.Model:
    """Characters as vectors with a 1, an LSTM of 256 units, and the probability of each character: 338,747 parameters.

    The book has a character less at either end, as it knows none that is unknown.
    """
    import keras

    size = letters + 2
    given = keras.Input(inputs["window"].shape, dtype="uint8", name="window")
    x = keras.ops.one_hot(given, size)
    x = keras.layers.LSTM(units, return_sequences=every, name="lstm")(x)
    return keras.Model(given, keras.layers.Dense(size, activation="softmax", name="following")(x))


def drawn(start: Start) -> Loop:
    """Batches of windows drawn with replacement, 100 to an epoch."""
    from pipelines.char_rnn.loops import Drawn

    return Drawn(start)


# ------------------------------------------------------------------------------------------------ writing


def stepwise(model: keras.Model, letters: int) -> tuple[Step, Callable[[Any], Any]]:
    """The network character by character: its step, and what it knows before the first one of so many texts.

    Args:
        model: The network.
        letters: How many characters it knows.
    """
    import tensorflow as tf

    from headrace.generation import NEVER, scores

    lstm, dense = model.get_layer("lstm"), model.get_layer("following")
    size = dense.units

    def step(letter: Any, at: Any, state: Any) -> Any:
        x, state = lstm.cell(tf.one_hot(letter, size), state)
        return scores(dense(x), letters + len(NEVER)), state

    return step, lambda batch: [tf.zeros((batch, lstm.units)), tf.zeros((batch, lstm.units))]


def write(model: keras.Model, letters: Any, window: Any, known: Any, lengths: Any, manner: Any) -> Any:
    """What the model writes after windows of text.

    Args:
        model: The network.
        letters: The characters that it knows, (LETTERS,) strings.
        window: Numbers of characters, filled up with zeros at the end (batch, steps).
        known: How many of them there are, at least 1 (batch,).
        lengths: How many are to be written (batch,).
        manner: A `headrace.generation.Manner`.

    Returns:
        Texts (batch,), without the windows.
    """
    import tensorflow as tf

    from headrace.generation import NEVER, written

    step, begin = stepwise(model, len(letters))
    numbers = written(step, begin(tf.shape(window)[0]), window, known, lengths, manner)
    read = tf.ragged.map_flat_values(lambda values: tf.gather(letters, values - len(NEVER)), numbers)
    return tf.strings.reduce_join(read, axis=-1)


def serve(given: Given) -> dict[str, Signature]:
    """Text in, text out: the last 40 characters of a prompt are read, and what is written stands behind the prompt."""
    import numpy as np
    import tensorflow as tf

    from headrace.bundling.signatures import Signature
    from headrace.generation import ASKED, Manner

    model, letters = given.models["model"], tf.constant((given.learned or {})["letters"])

    def text(inputs: dict[str, Any]) -> dict[str, Any]:
        prompt = inputs["prompt"]
        # Without a prompt a text begins at the beginning of a line.
        begun = tf.where(tf.strings.length(prompt) > 0, prompt, "\n")
        size = tf.strings.length(begun, unit="UTF8_CHAR")
        read = tf.strings.substr(begun, tf.maximum(size - WINDOW, 0), tf.fill(tf.shape(size), WINDOW), "UTF8_CHAR")
        window = tf.cast(given.prepare({"window": read})["window"], tf.int32)
        lengths = tf.clip_by_value(inputs["length"], 0, MOST)
        added = write(model, letters, window, tf.minimum(size, WINDOW), lengths, Manner.asked(inputs))
        return {"text": tf.strings.join([prompt, added])}

    examples = {
        "prompt": np.array(["the ", "he who has ", "", "What is noble? " * 8, "the "], object),
        "temperature": np.array([0, 0.5, 1, 1.2, 1], np.float32),
        "top_k": np.array([0, 0, 0, 5, 0]),
        "top_p": np.array([1, 1, 1, 1, 0.8], np.float32),
        "length": np.array([40, 80, 60, 40, 40]),
        "seed": np.arange(5),
    }
    return {"serving_default": Signature(text, ASKED, examples)}


def sample(model: keras.Model, moment: Moment) -> dict[str, str]:
    """400 characters at each of the book's temperatures, after the first window of the training text."""
    import tensorflow as tf

    from headrace.generation import NEVER, Manner

    count, letters = len(TEMPERATURES), tuple(moment.learned["letters"].tolist())
    first = moment.examples["window"][0].astype(int)
    window, known = tf.tile(tf.constant(first[None], tf.int32), [count, 1]), tf.fill([count], len(first))
    manner = Manner.of(TEMPERATURES, moment.seed)
    texts = _graph(model, letters)(window, known, tf.fill([count], SAMPLED), manner)
    prompt = b"".join(letters[number - len(NEVER)] for number in first).decode()
    return {
        f"temperature {temperature}": prompt + text.decode()
        for temperature, text in zip(TEMPERATURES, texts.numpy().tolist(), strict=True)
    }


@lru_cache(maxsize=1)
def _graph(model: keras.Model, letters: tuple[bytes, ...]) -> Any:
    """`write` with this model, traced once for all epochs: that takes twenty times as long as to write."""
    import tensorflow as tf

    return tf.function(partial(write, model, tf.constant(letters)), autograph=False)


# ----------------------------------------------------------------------------------------------- pipeline

TRAIN = Train(
    epochs=10,
    batch_size=50,
    optimizer="adam",
    learning_rate=1e-3,
    loss="sparse_categorical_crossentropy",
)
# Test windows overlap: as many as make 1,000 characters are drawn together for intervals.
TESTED = Evaluate(padding=None, block=1_000 // APART["test"])

PIPELINE = Pipeline(
    name="char_rnn",
    title="Nietzsche, character by character",
    task="language_model",
    book="The TensorFlow handbook, on recurrent networks",
    expect="perplexity per character 8.5 to 8.8 on the last tenth of the text; two minutes on two CPU cores",
    sources={"nietzsche": CHARACTERS},
    learn=learn,
    preprocess=preprocess,
    model=model,
    loop=drawn,
    sample=sample,
    serve=serve,
    variants={
        "every": Variant(
            description="1,000 batches of 50 windows; every character of them is to be guessed",
            train=TRAIN,
            evaluate=TESTED,
            export=Export(examples=64),
            promises=(Promise(metric="perplexity", at_most=9),),
        ),
        "last": Variant(
            description="The book's own: 1,000 batches of 50 windows, by the one character after each",
            train=TRAIN,
            preprocess={"every": False},
            model={"every": False},
            line="last",
            evaluate=TESTED,
            export=Export(examples=64),
            promises=(Promise(metric="perplexity", at_most=12.5),),
        ),
    },
    smoke={
        "train.epochs": 1,
        "train.batch_size": 20,
        "train.learning_rate": 0.01,
        "model.units": 32,
        "export.examples": 16,
    },
)
