"""English sentences into Spanish: a Transformer, recurrent networks, and a design that can't work.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 11.5.
Run:     headrace run translation                          the Transformer, 30 epochs: for an accelerator
         headrace run translation --variant transformer_quick
         headrace run translation --variant rnn            two GRUs, 15 epochs: for an accelerator
         headrace run translation --variant naive_lstm     what section 11.5.2 advises against
         headrace predict translation --input sentences.txt
Expect:  next words are guessed in 67 of 100 cases (the Transformer) and 64 (the GRUs), after hours on an accelerator;
         `transformer_quick` takes half an hour on two CPU cores, and guesses 69 of the first 14 words of a sentence and
         what follows them, with a BLEU of 31. The twin is a small grammar, which can be learned without a mistake.

What is served takes an English sentence and writes a Spanish one, word by word, inside the graph: the likeliest word
each time, or the best of four candidates (signature `beam`). Sentences are compared (BLEU) as networks see them: in
lower case and without punctuation. The book's accuracy is of held-out pairs, as the promises' is of the test pairs.

Unlike in the book's listings the order of batches changes in every epoch, a decoder's padding is masked in any case,
and accented capitals become small letters like others.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from headrace import Deploy, Export, Feature, Finding, Pipeline, Promise, Records, Study, Train, Variant
from pipelines.sources.spa_eng import SPA_ENG
from pipelines.translation import models

if TYPE_CHECKING:
    import tensorflow as tf

    from headrace.bundling.signatures import Given, Signature
    from headrace.describing.summaries import Statistics
    from headrace.engine.journals import Moment
    from headrace.measuring.own import Trial
    from headrace.measuring.sequences import Sentences
    from headrace.records.inputs import Batch

START, END = "[start]", "[end]"
CANDIDATES = 4
"""Of the signature `beam`."""
EXAMPLES = 16
"""Recorded test examples: the answer to one of the book's networks has 20 × 15,000 numbers."""
ENGLISH = Feature(dtype="string", content="text", description="a sentence")


# ---------------------------------------------------------------------------------------------- preprocessing


def plain(text: tf.Tensor) -> tf.Tensor:
    """Spanish in small letters and without punctuation, but for the brackets of `[start]` and `[end]`."""
    import tensorflow as tf

    marks = string.punctuation.replace("[", "").replace("]", "") + "¿"
    escaped = "".join(f"\\{mark}" if ord(mark) < 128 else mark for mark in marks)
    return tf.strings.regex_replace(tf.strings.lower(text, encoding="utf-8"), f"[{escaped}]", "")


def learn(batches: Iterable[Batch], statistics: Statistics, vocabulary: int = 15_000) -> dict[str, Any]:
    """The most frequent words of both languages."""
    import numpy as np
    import tensorflow as tf

    found = {}
    for name in ("english", "spanish"):
        layer = reader(name, vocabulary)
        texts = tf.data.Dataset.from_generator(
            lambda name=name: (batch[name] for batch in batches), output_signature=tf.TensorSpec((None,), tf.string)
        )
        layer.adapt(texts.map(marked) if name == "spanish" else texts)
        found[name] = np.array(layer.get_vocabulary(include_special_tokens=False))
    return found


def reader(language: str, vocabulary: int, length: int | None = None, words: Any = None) -> Any:
    """The layer that turns sentences of a language into the numbers of their words."""
    import keras

    return keras.layers.TextVectorization(
        max_tokens=vocabulary,
        standardize=plain if language == "spanish" else "lower_and_strip_punctuation",
        output_sequence_length=length,
        vocabulary=None if words is None else [word.decode() if isinstance(word, bytes) else word for word in words],
    )


def marked(text: tf.Tensor) -> tf.Tensor:
    """Spanish between the words that begin and end it."""
    import tensorflow as tf

    return tf.strings.join([START, text, END], separator=" ")


def preprocess(
    statistics: Statistics,
    learned: Mapping[str, Any],
    vocabulary: int = 15_000,
    length: int = 20,
    word_for_word: bool = False,
) -> Callable[[Batch], Batch]:
    """Pairs become `source`, `previous` (what was said before each word), and `following` (that word).

    The sentences stay in the records, for people and for BLEU.

    Args:
        statistics: Of the training pairs; not needed.
        learned: The words of both languages.
        vocabulary: Words of each that are told apart, those for nothing and for unknown ones included.
        length: Words of a sentence that are kept.
        word_for_word: Spanish words stand beside the English ones, without `previous` and `[start]`.
    """
    words = {name: learned[name][: vocabulary - 2] for name in ("english", "spanish")}
    english = reader("english", vocabulary, length, words["english"])
    spanish = reader("spanish", vocabulary, length + 1, words["spanish"])

    def numbered(batch: Batch) -> Batch:
        said = spanish(marked(batch["spanish"]))
        ready = {"source": english(batch["english"]), "previous": said[:, :-1], "following": said[:, 1:]}
        if word_for_word:
            del ready["previous"]
        return {**ready, "asked": plain(batch["english"]), "wanted": plain(batch["spanish"])}

    return numbered


# ------------------------------------------------------------------------------------------------- translating


def translator(model: Any, learned: Mapping[str, Any], width: int = 1) -> Callable[[tf.Tensor], tf.Tensor]:
    """What writes Spanish sentences (examples,) for the tokens of English ones (examples, length), in a graph.

    Args:
        model: A trained network.
        learned: The words of both languages.
        width: Candidates of a beam search; 1: the likeliest word each time.
    """
    import numpy as np

    from pipelines.translation.writing import text, written

    known = [word.decode() if isinstance(word, bytes) else str(word) for word in learned["spanish"]]
    words = np.array(["", "[UNK]", *known], object)
    start, end = (2 + known.index(mark) for mark in (START, END))

    def translate(source: tf.Tensor) -> tf.Tensor:
        return text(written(model, source, start, end, width), words)

    return translate


def serve(given: Given) -> dict[str, Signature]:
    """English in, Spanish out: the likeliest word each time, or (`beam`) the best of four candidates."""
    from headrace.bundling.signatures import Signature

    def signature(width: int) -> Signature:
        translate = translator(given.models["model"], given.learned or {}, width)

        def call(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            english = inputs["english"]
            ready = given.prepare({"english": english, "spanish": english})
            return {"spanish": translate(ready["source"])}

        return Signature(call, {"english": ENGLISH})

    beams = {} if "previous" not in given.features else {"beam": signature(CANDIDATES)}
    return {"serving_default": signature(1), **beams}


def decode(trial: Trial) -> Sentences:
    """How test pairs become sentences: as networks see them, in small letters and without punctuation."""
    import tensorflow as tf

    from headrace.measuring.sequences import Sentences

    spec = tf.TensorSpec((None, *trial.features["source"].shape), tf.int64)
    translate = tf.function(translator(trial.models["model"], trial.learned), input_signature=[spec], autograph=False)
    return Sentences(
        answer=lambda batch: [text.decode() for text in translate(tf.constant(batch["source"])).numpy()],
        truth=lambda batch: [text.decode() for text in batch["wanted"]],
        source=lambda batch: [text.decode() for text in batch["asked"]],
    )


def sample(model: Any, moment: Moment) -> dict[str, str]:
    """The first training sentences in the network's words."""
    import tensorflow as tf

    source = tf.constant(moment.examples["source"][:5])
    words = ["", "[UNK]", *(word.decode() if isinstance(word, bytes) else word for word in moment.learned["english"])]
    asked = (" ".join(words[token] for token in row if token) for row in source.numpy())
    told = (text.decode() for text in translator(model, moment.learned)(source).numpy())
    return {"translations": "\n".join(f"{one} → {other}" for one, other in zip(asked, told, strict=True))}


def own() -> dict[str, Any]:
    """What training names, and saved networks hold."""
    from headrace.layers import LAYERS
    from pipelines.translation.steps import WordAccuracy

    return {**LAYERS, "word_accuracy": WordAccuracy}


# ---------------------------------------------------------------------------------------------------- variants

LOSS = {"name": "sparse_categorical_crossentropy", "ignore_class": 0}
"""Of the words; what fills up to 20 does not count."""


def trained(epochs: int, batch_size: int = 64, **others: Any) -> Train:
    """How a variant is trained, unless it says otherwise."""
    usual: dict[str, Any] = {"loss": LOSS, "metrics": ("word_accuracy",), "validation": "validation"}
    return Train(**{"epochs": epochs, "batch_size": batch_size, **usual, **others})


EXPORT = Export(formats=("saved_model",), examples=EXAMPLES)

PIPELINE = Pipeline(
    name="translation",
    title="English into Spanish",
    task="sequence",
    book="Chollet, Deep Learning with Python (2nd ed.), 11.5",
    expect="next words guessed in 60 to 65 of 100 cases; hours on an accelerator, `transformer_quick` half an hour",
    sources={"spa_eng": SPA_ENG},
    records=Records(roles={"following": "target", "asked": "note", "wanted": "note"}),
    preprocess=preprocess,
    learn=learn,
    model=models.model,
    serve=serve,
    decode=decode,
    sample=sample,
    custom=own,
    variants={
        "transformer": Variant(
            description="An encoder and a decoder of 8 heads, 30 epochs",
            train=trained(30),
            export=EXPORT,
            promises=(
                Promise(
                    metric="accuracy", at_least=0.6, book=0.67, source="section 11.5.3, the step after the end counted"
                ),
            ),
        ),
        "transformer_quick": Variant(
            description="A smaller one for two CPU cores: 10,000 words, the first 14 of a sentence; 4 epochs",
            train=trained(4, optimizer="adam"),
            preprocess={"vocabulary": 10_000, "length": 14},
            model={"vocabulary": 10_000, "width": 128, "units": 512, "heads": 4, "size": 32, "dropout": 0.2},
            export=EXPORT,
            line="quick",
            # Copies of the English have a BLEU of 0.1, the most frequent tokens an accuracy of 0.14.
            promises=(
                Promise(metric="accuracy", at_least=0.67, source="measured here: 0.692"),
                Promise(metric="bleu", at_least=27, source="measured here: 31.1"),
            ),
        ),
        "rnn": Variant(
            description="A GRU in both directions, and one that goes on from its state; 15 epochs",
            train=trained(15),
            model={"architecture": "rnn", "units": 1024},
            export=EXPORT,
            line="rnn",
            promises=(
                Promise(
                    metric="accuracy", at_least=0.57, book=0.64, source="section 11.5.2, the step after the end counted"
                ),
            ),
        ),
        "naive_lstm": Variant(
            description="A word for each word of the source, from those before it: what the book advises against",
            train=trained(15),
            preprocess={"word_for_word": True},
            model={"architecture": "lstm", "width": 128, "units": 32},
            export=EXPORT,
            line="naive_lstm",
        ),
    },
    studies={
        "book": Study(
            description="The Transformer beside the GRUs; for an accelerator",
            variants=("transformer", "rnn"),
            findings=(Finding(cell="transformer", beats="rnn", source="section 11.5.3"),),
        ),
    },
    smoke={
        "train.epochs": 2,
        "train.sample_every": 2,
        "preprocess.vocabulary": 100,
        "preprocess.length": 12,
        "model.vocabulary": 100,
        "model.width": 32,
        "model.units": 32,
        "model.heads": 2,
        "model.size": 16,
        "export.examples": 4,
        "evaluate.trials": 16,
    },
    deploy=Deploy(variant="transformer_quick", smoke="transformer_quick"),
)
