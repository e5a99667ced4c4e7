"""Translations written with what is remembered of earlier steps, beside the whole network run again for each word.

Three ways to the same words, on one network in one process: the graph that is exported (keys and values are kept), the
same graph with the whole network at each step, and the loop of the book (Chollet 11.5.3), which calls the network from
Python. The end is never the likeliest word, so that all of them write as many words as there is room for.

Run: python -m benchmarks.decoding [--examples 32 --length 20 --repeats 5] [--small]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.keeping import keep
from headrace import Feature

START, END = 2, 3
SMALL = {"vocabulary": 500, "width": 32, "units": 64, "heads": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a small network, to try this program; nothing is written")
    options = parser.parse_args()
    found = {
        name: measured(name, options.examples, options.length, options.repeats, SMALL if options.small else more)
        for name, more in {"transformer": {}, "rnn": {"units": 1024}}.items()
    }
    if options.small:
        print(json.dumps(found, indent=1))
    else:
        keep("decoding", {"length": options.length, "results": found}, "tensorflow", "keras")


def measured(architecture: Any, examples: int, length: int, repeats: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """Seconds and ratios, for one sentence and for several at once."""
    import keras
    import tensorflow as tf

    from pipelines.translation.models import model
    from pipelines.translation.writing import all_over, begun, written

    keras.utils.set_random_seed(0)
    feature = Feature(shape=(length,), dtype="int64")
    made = model({"source": feature, "previous": feature}, architecture=architecture, **arguments)
    words = made.get_layer("following")
    words.bias.assign(np.where(np.isin(np.arange(words.units), (0, END)), -100.0, 0.0))
    spec = [tf.TensorSpec((None, length), tf.int64)]
    ways: dict[str, Callable[[Any], Any]] = {
        "remembered": tf.function(
            lambda s: written(made, s, START, END, 1, begun), input_signature=spec, autograph=False
        ),
        "all over": tf.function(
            lambda s: written(made, s, START, END, 1, all_over), input_signature=spec, autograph=False
        ),
        "book": lambda source: book(made, source.numpy()),
    }
    found = {}
    tokens = np.random.default_rng(0).integers(4, words.units, (examples, length))
    for rows in sorted({1, examples}):
        source = tf.constant(tokens[:rows])
        answers = {name: np.asarray(write(source)) for name, write in ways.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(repeats):
            for name, write in ways.items():
                if repeat and name == "book":
                    continue  # it takes up to a minute, each time
                begun_at = time.perf_counter()
                write(source)
                seconds[name].append(time.perf_counter() - begun_at)
        usual = {name: statistics.median(times) for name, times in seconds.items()}
        found[f"{rows} at once"] = {
            "seconds": {name: round(value, 4) for name, value in usual.items()},
            "times as fast": {name: round(usual[name] / usual["remembered"], 1) for name in ("all over", "book")},
            "same tokens": all(np.array_equal(answers["remembered"], theirs) for theirs in answers.values()),
        }
    return found


def book(model: Any, source: Any) -> Any:
    """The likeliest words, by calling the whole network for each of them."""
    said = np.zeros((len(source), source.shape[1] + 1), np.int64)
    said[:, 0] = START
    for at in range(source.shape[1]):
        said[:, at + 1] = np.asarray(model([source, said[:, :-1]], training=False))[:, at].argmax(axis=-1)
    return said[:, 1:]


if __name__ == "__main__":
    main()
