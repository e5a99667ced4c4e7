"""The train stage against plain Keras scripts of the books, for the same updates.

Each case trains one network on arrays of the real data's shapes (made up: what is learned does not matter here, only
how long it takes): by `model.fit` as the book writes it, and by our train stage from finished records, with everything
that it does: reading the records, tracing, checkpoints, the journal, TensorBoard, saving the model. Both sides start in
a fresh process, in turn; the clock starts when TensorFlow is imported, the arrays are made and the records are written.
Initial weights, batches and their order are the same, so that the losses must agree.

Tracing is most of a training of seconds, and neither side can do without it. Where a case says so, both sides train
several times as many epochs, too, and that ratio is told as well.

Run: python -m benchmarks.training [CASE …] [--repeats 3] [--feed memory|stream]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep
from headrace import Feature, Pipeline, Source, Train, Variant, Windows
from headrace.artifacts import Artifact, close
from headrace.jobs import Job


@dataclass(frozen=True)
class Case:
    """One network of the books."""

    what: str
    at_least: float
    """How many times faster than the script it shall be."""
    examples: int
    features: dict[str, Feature]
    model: Any
    train: dict[str, Any]
    longer: int = 0
    """How many times as many epochs are trained, too, so that tracing is little of it; 0: not asked."""
    windows: Windows | None = None
    """How examples are cut out of the rows that `features` describes."""

    @property
    def rows(self) -> int:
        """What records hold: the examples, or the rows of which as many windows are cut."""
        windows = self.windows
        return self.examples + (windows.delay + windows.span if windows else 0)


def linear(inputs: Mapping[str, Feature]) -> Any:
    import keras

    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def mlp(inputs: Mapping[str, Feature]) -> Any:
    import keras

    layers = [keras.layers.Dense(512, "relu"), keras.layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((784,)), *layers])


def convnet(inputs: Mapping[str, Feature]) -> Any:
    import keras

    x = given = keras.Input((28, 28, 1))
    for filters in (32, 64):
        x = keras.layers.MaxPooling2D(2)(keras.layers.Conv2D(filters, 3, activation="relu")(x))
    x = keras.layers.Flatten()(keras.layers.Conv2D(128, 3, activation="relu")(x))
    return keras.Model(given, keras.layers.Dense(10, "softmax")(x))


def bag_of_words(inputs: Mapping[str, Feature]) -> Any:
    import keras

    hidden = [keras.layers.Dense(16, "relu"), keras.layers.Dense(16, "relu")]
    return keras.Sequential([keras.Input((10_000,)), *hidden, keras.layers.Dense(1, "sigmoid")])


def weather(inputs: Mapping[str, Feature]) -> Any:
    import keras

    return keras.Sequential([keras.Input((120, 14)), keras.layers.LSTM(16), keras.layers.Dense(1)])


def transformer(inputs: Mapping[str, Feature]) -> Any:
    import keras

    given = keras.Input((200,), dtype="int64")
    x = keras.layers.Embedding(20_000, 64)(given)
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 32)(x, x))
    x = keras.layers.LayerNormalization()(x + keras.layers.Dense(64)(keras.layers.Dense(32, "relu")(x)))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalMaxPooling1D()(x))
    return keras.Model(given, keras.layers.Dense(1, "sigmoid")(x))


DIGIT = Feature(dtype="int64", role="target", classes=tuple("0123456789"))
YES = Feature(shape=(1,), role="target")

CASES = {
    "linear_classifier": Case(
        "linear classifier, 2,000 points, 40 full batches (Chollet 3.5.4)",
        10,
        2_000,
        {"x": Feature(shape=(2,)), "y": YES},
        linear,
        {"epochs": 40, "batch_size": 2_000, "optimizer": "sgd", "learning_rate": 0.1, "loss": "mse"},
        longer=20,
    ),
    "mnist_mlp": Case(
        "MNIST, 784-512-10, 5 epochs of batches of 128 (Chollet 2.1)",
        1.8,
        60_000,
        {"x": Feature(shape=(784,)), "y": DIGIT},
        mlp,
        {"epochs": 5, "batch_size": 128, "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]},
    ),
    "mnist_convnet": Case(
        "MNIST convnet, 1 of the 5 epochs of batches of 64 (Chollet 8.1)",
        0.98,
        60_000,
        {"x": Feature(shape=(28, 28, 1)), "y": DIGIT},
        convnet,
        {"epochs": 1, "batch_size": 64, "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]},
    ),
    "imdb_bow": Case(
        "IMDB bag of 10,000 words, 4 epochs of batches of 512 (Chollet 4.1)",
        0.98,
        15_000,
        {"x": Feature(shape=(10_000,)), "y": YES},
        bag_of_words,
        {"epochs": 4, "batch_size": 512, "loss": "binary_crossentropy", "metrics": ["accuracy"]},
    ),
    "jena_lstm": Case(
        "weather, LSTM of 16 on 120 hours, 51,200 windows in batches of 256 (Chollet 10.2.5)",
        0.98,
        51_200,
        {"x": Feature(shape=(14,)), "y": YES},
        weather,
        {"epochs": 1, "batch_size": 256, "loss": "mse", "metrics": ["mae"]},
        windows=Windows(length=120, every=6, ahead=24, boundary="beyond"),
    ),
    "imdb_transformer": Case(
        "a small Transformer on 200 tokens, 8,000 texts in batches of 32 (Chollet 11.4)",
        0.98,
        8_000,
        {"x": Feature(shape=(200,), dtype="int64"), "y": YES},
        transformer,
        {"epochs": 1, "batch_size": 32, "loss": "binary_crossentropy", "metrics": ["accuracy"]},
    ),
}


def arrays(case: Case) -> dict[str, Any]:
    """Made-up examples (or rows) of the case's shapes."""
    import numpy as np

    random = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, feature in case.features.items():
        shape = (case.rows, *(length or 1 for length in feature.shape))
        if feature.classes:
            found[name] = random.integers(0, 10, shape)
        elif feature.dtype == "int64":
            found[name] = random.integers(1, 20_000, shape)
        elif feature.role == "target":
            found[name] = random.integers(0, 2, shape).astype(np.float32)
        else:
            found[name] = random.random(shape, np.float32)
    return found


def _unused(*_: Any) -> Any:
    raise NotImplementedError


def job(name: str, feed: str, epochs: int) -> Job:
    """The case as a workload."""
    case = CASES[name]
    settings = Train.model_validate({**case.train, "epochs": epochs, "shuffle": False, "feed": feed})
    pipeline = Pipeline(
        name=name,
        title=case.what,
        task="regression",
        book="none",
        expect="nothing",
        sources={"made": Source(title="Made up", features=case.features, read=_unused)},
        preprocess=_unused,
        model=case.model,
        variants={"only": Variant(train=settings, windows=case.windows)},
    )
    found = Job(workload=name, variant="only", source="made", settings=pipeline.variants["only"])
    found.__dict__["pipeline"] = pipeline
    return found


def write_records(name: str, folder: Path) -> Artifact:
    """Finished records of the case's examples."""
    from headrace.readers.batches import batches
    from headrace.records.inputs import Info, write_info
    from headrace.records.writing import stored, write
    from headrace.spec import Records
    from headrace.windows import of_example

    case, layout = CASES[name], CASES[name].features
    folder.mkdir(parents=True)
    written = {"train": write(folder, "train", batches(arrays(case)), layout)}
    info = Info(name, "made", "synthetic", layout, written, stored(layout, Records()))
    if case.windows:
        features = {called: of_example(row, case.windows) for called, row in layout.items()}
        info = replace(info, features=features, windows=case.windows, cut={"train": case.examples})
    write_info(folder, info)
    return Artifact(folder, close(folder, {"node": "preprocess", "seconds": 0})["digest"], "preprocess")


def ours(name: str, records: Artifact, feed: str, epochs: int) -> tuple[list[float], dict[str, Any]]:
    """The losses of the epochs, and what the stage says of itself."""
    from headrace.training import train

    made = train(job(name, feed, epochs), records)
    return made.json("history.json")["metrics"]["loss"], made.json("training.json")


def plain(name: str, given: Mapping[str, Any], epochs: int) -> list[float]:
    """The losses of the epochs, as the book's reader would get them."""
    import keras

    rules = CASES[name].train
    keras.utils.set_random_seed(0)
    model = CASES[name].model({})
    model.compile(rules.get("optimizer", "rmsprop"), rules["loss"], metrics=rules.get("metrics"))
    if "learning_rate" in rules:
        model.optimizer.learning_rate = rules["learning_rate"]
    windows = CASES[name].windows
    if windows:
        data = keras.utils.timeseries_dataset_from_array(
            given["x"][: -windows.delay],
            given["y"][windows.delay :],
            windows.length,
            sampling_rate=windows.every,
            batch_size=rules["batch_size"],
        )
        return list(model.fit(data, epochs=epochs, verbose=0).history["loss"])
    sizes = {"epochs": epochs, "batch_size": rules["batch_size"]}
    return list(model.fit(given["x"], given["y"], **sizes, shuffle=False, verbose=0).history["loss"])


def child(name: str, side: str, folder: Path, feed: str, times: int) -> None:
    """One timed run in a fresh process."""
    import keras  # noqa: F401 (its import is no part of the training)
    import tensorflow as tf

    tf.constant(0)
    facts: dict[str, Any] = {}
    epochs = times * CASES[name].train["epochs"]
    if side == "plain":
        given = arrays(CASES[name])
        begun, busy = time.perf_counter(), time.process_time()
        losses = plain(name, given, epochs)
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        records = Artifact(folder, manifest["digest"], "preprocess")
        begun, busy = time.perf_counter(), time.process_time()
        losses, facts = ours(name, records, feed, epochs)
    spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - busy}
    print(json.dumps({**spent, "losses": losses, "facts": facts}))


def measure(name: str, side: str, records: Path, feed: str, times: int = 1) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.training",
                name,
                "--child",
                side,
                "--records",
                str(records),
                "--feed",
                feed,
                "--times",
                str(times),
            ],
            env={**os.environ, "HEADRACE_HOME": folder, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(result.stdout.splitlines()[-1])


def compare(name: str, repeats: int, feed: str) -> dict[str, Any]:
    """Both sides in turn, several times."""
    case = CASES[name]
    runs: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    longer: dict[str, list[float]] = {"plain": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        records = write_records(name, Path(folder) / "records").path
        for turn in range(repeats):
            for side, found in runs.items():
                found.append(measure(name, side, records, feed))
                said = f"{found[-1]['seconds']:7.2f} s, {found[-1]['cpu']:7.2f} s of the processors"
                if case.longer:
                    longer[side].append(measure(name, side, records, feed, case.longer)["seconds"])
                    said += f"; {longer[side][-1]:.2f} s for {case.longer} times as many epochs"
                print(f"{name} {turn + 1}. {side:<6} {said}", flush=True)
    losses = [runs[side][0]["losses"] for side in ("plain", "ours")]
    facts = runs["ours"][0]["facts"]
    result = {
        "what": case.what,
        "feed": facts["feed"],
        "seconds": {side: [round(run["seconds"], 2) for run in found] for side, found in runs.items()},
        "seconds of the processors": {side: [round(run["cpu"], 2) for run in found] for side, found in runs.items()},
        "times faster": faster({side: [run["seconds"] for run in found] for side, found in runs.items()}),
        "at least": case.at_least,
        "largest difference of the losses": max(abs(a - b) for a, b in zip(*losses, strict=True)),
        "checkpoints": {
            **facts["checkpoints"],
            "milliseconds per step": round(1000 * facts["checkpoints"]["seconds"] / facts["steps"], 4),
        },
        "share of time spent waiting for input": facts.get("share of time spent waiting for input", 0.0),
    }
    if case.longer:
        epochs = case.longer * case.train["epochs"]
        result[f"seconds of {epochs} epochs"] = {
            side: [round(seconds, 2) for seconds in found] for side, found in longer.items()
        }
        result[f"times faster for {epochs} epochs"] = faster(longer)
    return result


def faster(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    """How many times as long the script takes, turn by turn."""
    ratios = [theirs / mine for theirs, mine in zip(seconds["plain"], seconds["ours"], strict=True)]
    return {"median": round(statistics.median(ratios), 2), "all": [round(ratio, 2) for ratio in ratios]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=[], metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--feed", choices=["memory", "stream"], default="memory")
    parser.add_argument("--child", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--records", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.cases[0], options.child, options.records, options.feed, options.times)
        return
    results = {
        f"{name}, {options.feed}": compare(name, options.repeats, options.feed) for name in options.cases or CASES
    }
    keep("training", results, "tensorflow", "keras", "numpy", beside=True)


if __name__ == "__main__":
    main()
