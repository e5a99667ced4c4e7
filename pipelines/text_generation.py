"""A transformer that has read film reviews and writes them: a small GPT, asked for the next word.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 12.1.
Run:     headrace run text_generation                       the book's 200 epochs of 75,000 reviews: for an accelerator
         headrace run text_generation --variant small       what two CPU cores can do in some hours
Expect:  texts that stay on films for a sentence or so; they repeat themselves at temperature 0.2, are about random from
         1.0 on, and are best at 0.7. The book measures nothing.

A review is its first 100 words, in lower case and without punctuation. The model is asked at each of 99 places for the
word that follows; padding doesn't count, neither in the loss nor in the perplexity (per word, "unknown" being one).

The book learns from all 100,000 files, among them those whose labels nobody knows. Here the 25,000 of the test split
are held out, so that there is something to measure perplexity on. Its decoder is one made for translation, which is
given its own inputs as the source; later words are hidden from both attentions (else it would read off the answer).

What is served is the writing itself: a prompt, a temperature, `top_k`, `top_p`, a length and a seed give a text of at
most 99 words. Keys and values of earlier words are kept, where the book runs the whole model again for each word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from headrace import Deploy, Export, Feature, Pipeline, Records, Train, Variant
from pipelines.sources.texts import CHAINS

if TYPE_CHECKING:
    import keras

    from headrace.bundling.signatures import Given, Signature
    from headrace.describing.summaries import Statistics
    from headrace.engine.journals import Moment
    from headrace.generation import Step
    from headrace.records.inputs import Batch

WORDS = 15_000
"""Tokens that are told apart, padding and the unknown word among them."""
LENGTH = 100
"""Words of a review that are read."""
TEMPERATURES = (0.2, 0.5, 0.7, 1.0, 1.5)
PROMPT, SAMPLED = "this movie", 50
"""How samples begin, and how many words follow."""


# ------------------------------------------------------------------------------------------------ records


def learn(batches: Iterable[Batch], statistics: Statistics, words: int = WORDS) -> dict[str, Any]:
    """The most frequent words of the training reviews."""
    from headrace.texts import FIRST, Vocabulary, strings

    texts = (text.replace(b"<br />", b" ") for text in strings(batches, "review"))
    return Vocabulary.of(texts, words - FIRST).arrays()


def preprocess(statistics: Statistics, learned: Mapping[str, Any], length: int = LENGTH) -> Callable[[Batch], Batch]:
    """A review becomes the numbers of its first 99 words, and of the 99 that follow one place later."""
    import tensorflow as tf

    from headrace.texts import Vocabulary

    vectorise = Vocabulary.from_arrays(learned).vectorise()

    def numbered(batch: Batch) -> Batch:
        words = vectorise(tf.strings.regex_replace(batch["review"], "<br />", " "))
        numbers = tf.cast(words.to_tensor(shape=(None, length)), tf.int64)
        ready = {**batch, "words": numbers[:, :-1], "following": numbers[:, 1:]}
        del ready["review"]
        return ready

    return numbered


# -------------------------------------------------------------------------------------------------- model


def model(
    inputs: Mapping[str, Feature], words: int = WORDS, width: int = 256, inner: int = 2048, heads: int = 2
) -> keras.Model:
    """Words and their positions as vectors, a block of a decoder, and the probability of each word: 9,825,176
    parameters."""
    import keras

    from headrace.layers import PositionalEmbedding, TransformerDecoder

    given = keras.Input(inputs["words"].shape, dtype="int64", name="words")
    (steps,) = inputs["words"].shape
    # The book has room for one word more than it ever reads.
    x = PositionalEmbedding((steps or LENGTH) + 1, words, width, name="embedding")(given)
    x = TransformerDecoder(width, inner, heads, memory="itself", name="decoder")(x)
    return keras.Model(given, keras.layers.Dense(words, activation="softmax", name="following")(x))


def own() -> Mapping[str, Any]:
    """The layers of transformers."""
    from headrace.layers import LAYERS

    return LAYERS


# ------------------------------------------------------------------------------------------------ writing


def stepwise(model: keras.Model, known: int) -> tuple[Step, Callable[[Any], Any]]:
    """The model word by word: its step, and the empty cache of so many texts.

    Args:
        model: The model.
        known: Words that it knows; it may have room for more.
    """
    from headrace.generation import scores

    embedding, decoder, dense = (model.get_layer(name) for name in ("embedding", "decoder", "following"))

    def step(word: Any, at: Any, cache: Any) -> Any:
        x, cache = decoder.step(embedding(word[:, None], first=at), at, cache)
        return scores(dense(x)[:, 0], known), cache

    return step, lambda batch: decoder.cache(batch, embedding.length)


def write(model: keras.Model, words: Any, prompt: Any, lengths: Any, manner: Any) -> Any:
    """What the model writes after prompts.

    Args:
        model: The model, which has read texts of `steps` words.
        words: Those that it knows, strings (words,).
        prompt: Numbers of words, filled up with zeros at the end (batch, at least 1).
        lengths: How many are to be written; of a prompt that leaves no room for them the last words count (batch,).
        manner: A `headrace.generation.Manner`.

    Returns:
        Words with a blank between them (batch,), without the prompts.
    """
    import tensorflow as tf

    from headrace.generation import written
    from headrace.texts import FIRST, UNKNOWN

    step, begin = stepwise(model, len(words) + FIRST)
    room = model.get_layer("embedding").length - 1
    lengths = tf.clip_by_value(tf.cast(lengths, tf.int32), 0, room - 1)
    # A text that begins with nothing begins with an unknown word.
    known = tf.math.count_nonzero(prompt, axis=1, dtype=tf.int32)
    prompt = tf.where((known == 0)[:, None] & (tf.range(tf.shape(prompt)[1]) == 0), UNKNOWN, tf.cast(prompt, tf.int32))
    known = tf.maximum(known, 1)
    left = tf.minimum(known, room - lengths)
    places = (known - left)[:, None] + tf.range(tf.reduce_max(left))
    prompt = tf.gather(prompt, tf.minimum(places, tf.shape(prompt)[1] - 1), batch_dims=1)
    numbers = written(step, begin(tf.shape(prompt)[0]), prompt, left, lengths, manner)
    read = tf.ragged.map_flat_values(lambda values: tf.gather(words, values - FIRST), numbers)
    return tf.strings.reduce_join(read, axis=-1, separator=" ")


def serve(given: Given) -> dict[str, Signature]:
    """Text in, text out: what is written stands behind the prompt."""
    import numpy as np
    import tensorflow as tf

    from headrace.bundling.signatures import Signature
    from headrace.generation import ASKED, Manner

    model, words = given.models["model"], tf.constant((given.learned or {})["words"])

    def text(inputs: dict[str, Any]) -> dict[str, Any]:
        ready = given.prepare({"review": inputs["prompt"]})
        # All words that are read: the first one, and those that follow.
        prompt = tf.concat([ready["words"][:, :1], ready["following"]], axis=1)
        added = write(model, words, prompt, inputs["length"], Manner.asked(inputs))
        blank = tf.where((tf.strings.length(inputs["prompt"]) > 0) & (tf.strings.length(added) > 0), " ", "")
        return {"text": tf.strings.join([inputs["prompt"], blank, added])}

    examples = {
        "prompt": np.array(["This movie", "I did not", "", "The story, " * 60, "This movie"], object),
        "temperature": np.array([0, 0.7, 1, 1.5, 1], np.float32),
        "top_k": np.array([0, 0, 0, 5, 0]),
        "top_p": np.array([1, 1, 1, 1, 0.8], np.float32),
        "length": np.array([10, 20, 15, 10, 10]),
        "seed": np.arange(5),
    }
    return {"serving_default": Signature(text, ASKED, examples)}


def sample(model: keras.Model, moment: Moment) -> dict[str, str]:
    """50 words at each of the book's temperatures, after "this movie"."""
    import tensorflow as tf

    from headrace.generation import Manner
    from headrace.texts import FIRST, UNKNOWN

    count, words = len(TEMPERATURES), tuple(moment.learned["words"].tolist())
    numbers = {word: number for number, word in enumerate(words, FIRST)}
    prompt = [numbers.get(word, UNKNOWN) for word in PROMPT.encode().split()]
    manner = Manner.of(TEMPERATURES, moment.seed)
    texts = _graph(model, words)(tf.tile(tf.constant([prompt]), [count, 1]), tf.fill([count], SAMPLED), manner)
    return {
        f"temperature {temperature}": f"{PROMPT} {text.decode(errors='replace')}"
        for temperature, text in zip(TEMPERATURES, texts.numpy().tolist(), strict=True)
    }


@lru_cache(maxsize=1)
def _graph(model: keras.Model, words: tuple[bytes, ...]) -> Any:
    """`write` with this model, traced once for all epochs: that takes much longer than to write."""
    import tensorflow as tf

    return tf.function(partial(write, model, tf.constant(words)), autograph=False)


# ----------------------------------------------------------------------------------------------- pipeline

BOOK = Train(epochs=200, batch_size=256, optimizer="rmsprop", loss="sparse_categorical_crossentropy")
# The answers to one example are 6 MB: 99 places, 15,000 words.
EXPORT = Export(examples=16)

PIPELINE = Pipeline(
    name="text_generation",
    title="Film reviews, written word by word",
    task="language_model",
    book="Chollet, Deep Learning with Python (2nd ed.), 12.1",
    expect="readable nonsense at temperature 0.7 after 200 epochs on an accelerator; `small` in hours on two CPU cores",
    sources={"imdb": CHAINS},
    records=Records(roles={"following": "target"}),
    learn=learn,
    preprocess=preprocess,
    model=model,
    custom=own,
    sample=sample,
    serve=serve,
    variants={
        "full": Variant(
            description="The book's: 15,000 words, 200 epochs; days on CPU cores, hours on an accelerator",
            train=BOOK,
            export=EXPORT,
        ),
        "small": Variant(
            description="4,000 words, vectors of 128, 10 epochs: for two CPU cores",
            train=BOOK.model_copy(update={"epochs": 10, "batch_size": 64, "optimizer": "adam"}),
            preprocess={"words": 4_000},
            model={"words": 4_000, "width": 128, "inner": 512},
            line="small",
            export=EXPORT,
        ),
    },
    deploy=Deploy(variant="small"),
    smoke={
        "train.epochs": 1,
        "train.batch_size": 32,
        "preprocess.words": 200,
        "preprocess.length": 40,
        "model.words": 200,
        "model.width": 32,
        "model.inner": 64,
        "export.examples": 8,
    },
)
