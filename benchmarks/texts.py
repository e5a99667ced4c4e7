"""Raw reviews into numbers: as `preprocess` does it against the book's `map(…, num_parallel_calls=4)` (Chollet 11.3).

Both sides turn the same made-up reviews (233 words on average, as IMDB's, from 60,000 words by Zipf's law), strings in
memory, into numbers with one vocabulary. The book maps a `TextVectorization` over batches of 32, to sequences of 600
numbers, bags of 20,000 words, or bags of words and pairs. Ours goes through the tf.data pipeline of the stage
`preprocess`, to the numbers of all words or of all words and pairs, which records hold; of them the model's first layer
(`FixedLength`, `TokenBag`) makes the same sequences and bags in each epoch: what that costs is told by itself, and what
comes out is compared.

Beside that: what learning the vocabulary costs, with `adapt` and with `headrace.texts.Vocabulary`.

All in one process, in turn, several times; a ratio is the median of those of runs that follow each other.

Run: python -m benchmarks.texts [--repeats 9] [--rows 20000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.keeping import keep
from headrace.spec import Feature

if TYPE_CHECKING:
    import tensorflow as tf

    from headrace.texts import Vocabulary

WORDS, LENGTH, BATCH, KEPT = 20_000, 600, 32, 8192
KINDS = {"sequences": 1, "bags of words": 1, "bags of words and pairs": 2}
"""What is made → most words of one token."""
FEATURES = {"review": Feature(dtype="string")}


def reviews(rows: int) -> list[bytes]:
    """Made-up reviews: words of all lengths, commas, capitals and line breaks."""
    import numpy as np

    random = np.random.default_rng(0)
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgk", np.uint8)
    words = [random.choice(letters, size).tobytes() for size in random.integers(1, 11, 60_000)]
    share = 1 / np.arange(1, len(words) + 1)
    lengths = np.clip(random.lognormal(np.log(175), 0.75, rows), 10, 2_500).astype(int)
    drawn = iter(random.choice(len(words), lengths.sum(), p=share / share.sum()).tolist())
    found = []
    for length in lengths:
        said = [words[next(drawn)] for _ in range(length)]
        said[::17] = [word.capitalize() + b"," for word in said[::17]]
        found.append(b" ".join(said) + b".<br /><br />")
    return found


def book(texts: list[bytes], kind: str, vocabulary: Vocabulary) -> tf.data.Dataset:
    """Batches of 32 through a `TextVectorization`, four at a time."""
    import keras
    import tensorflow as tf

    mode = {"output_mode": "int", "output_sequence_length": LENGTH} if kind == "sequences" else {}
    layer = keras.layers.TextVectorization(
        # A sequence has a number for padding, too, which takes the place of the rarest word.
        vocabulary=[word.decode() for word in vocabulary.words][: WORDS - 2 if mode else WORDS - 1],
        ngrams=vocabulary.ngrams if vocabulary.ngrams > 1 else None,
        **(mode or {"output_mode": "multi_hot", "max_tokens": WORDS, "pad_to_max_tokens": True}),
    )
    return tf.data.Dataset.from_tensor_slices(texts).batch(BATCH).map(layer, num_parallel_calls=4)


def ours(texts: list[bytes], vocabulary: Vocabulary) -> tf.data.Dataset:
    """Batches as readers give them, through the pipeline of `preprocess`: what records hold."""
    import pyarrow as pa

    from headrace.readers.batches import to_arrays
    from headrace.recording import mapped, portions

    vectorise = vocabulary.vectorise()
    batches = pa.table({"review": pa.array(texts, pa.binary())}).to_batches(KEPT)
    records = {"tokens": Feature(shape=(None,), dtype="int64")}

    def arrays() -> Iterator[Mapping[str, Any]]:
        yield from (to_arrays(portion.rows, FEATURES) for portion in portions("train", batches, FEATURES | records))

    return mapped(lambda batch: {"tokens": vectorise(batch["review"])}, FEATURES, arrays)


def first_layer(numbers: tf.RaggedTensor, kind: str) -> tf.data.Dataset:
    """Batches of 32, gathered out of memory, through the first layer of a model."""
    import tensorflow as tf

    from headrace.layers import FixedLength, TokenBag

    layer = FixedLength(LENGTH, WORDS) if kind == "sequences" else TokenBag(WORDS)
    rows = tf.data.Dataset.range(numbers.nrows()).batch(BATCH)
    return rows.map(lambda some: layer(tf.gather(numbers, some).to_tensor()), num_parallel_calls=tf.data.AUTOTUNE)


def learned(texts: list[bytes], kind: str) -> dict[str, Callable[[], Any]]:
    """Both ways to a vocabulary."""
    import keras
    import tensorflow as tf

    from headrace.texts import Vocabulary

    def adapt() -> None:
        layer = keras.layers.TextVectorization(max_tokens=WORDS, ngrams=KINDS[kind] if KINDS[kind] > 1 else None)
        layer.adapt(tf.data.Dataset.from_tensor_slices(texts).batch(BATCH))

    return {"book": adapt, "ours": lambda: Vocabulary.of(texts, WORDS - 1, KINDS[kind])}


def compared(what: str, sides: Mapping[str, Callable[[], Any]], rows: int, repeats: int) -> dict[str, Any]:
    """Reviews per second of each side, and how many times as fast ours is."""
    found: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(repeats):
        for side, work in sides.items():
            begun = time.perf_counter()
            work()
            found[side].append(time.perf_counter() - begun)
            print(f"{turn + 1}. {what:<40} {side:<5} {rows / found[side][-1]:10,.0f} reviews/s", flush=True)
    # Of runs that follow each other: a machine that is shared is quicker at one time than at another.
    ratio = statistics.median(theirs / mine for theirs, mine in zip(found["book"], found["ours"], strict=True))
    print(f"   {what}: {ratio:.2f} times as fast", flush=True)
    rates = {side: [round(rows / seconds) for seconds in times] for side, times in found.items()}
    return {"reviews per second": rates, "ratio": round(ratio, 2)}


def through(data: tf.data.Dataset) -> Callable[[], Any]:
    """Going through all batches."""
    return lambda: data.reduce(0, lambda count, _: count + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()

    import numpy as np
    import tensorflow as tf

    from headrace.texts import Vocabulary

    texts = reviews(options.rows)
    result: dict[str, Any] = {
        "what": "raw reviews into numbers, against TextVectorization mapped over batches of 32, four at a time",
        "reviews": options.rows,
        "target of vectorisation": 1.0,
        "vectorisation": {},
        "vocabulary": {},
    }
    for kind, ngrams in KINDS.items():
        vocabulary = Vocabulary.of(texts, WORDS - 1, ngrams)
        sides = {"book": book(texts, kind, vocabulary), "ours": ours(texts, vocabulary)}
        numbers = tf.concat([batch["tokens"] for batch in sides["ours"]], 0)
        ready = first_layer(numbers, kind)
        for one, other in zip(sides["book"].take(5), ready.take(5), strict=True):
            if not np.array_equal(one, other):
                raise RuntimeError(f"the two sides give different {kind}")
        works = {side: through(data) for side, data in sides.items()}
        found = compared(kind, works, options.rows, options.repeats)
        begun = time.perf_counter()
        through(ready)()
        found["first layer, reviews per second"] = round(options.rows / (time.perf_counter() - begun))
        result["vectorisation"][kind] = found
        if kind != "bags of words":
            name = "words and pairs" if ngrams > 1 else "words"
            found = compared(f"vocabulary of {name}", learned(texts, kind), options.rows, min(options.repeats, 3))
            result["vocabulary"][name] = found
    keep("texts", result, "tensorflow", "keras", "numpy")


if __name__ == "__main__":
    main()
