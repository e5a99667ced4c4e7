"""Four folds of 100 epochs on house prices: our train stage against the plain Keras script of the book.

Both make the same updates: same initial weights, same batches in the same order (unshuffled, so that `fit` can be told
the order), same optimizer. Each side runs in a fresh process, in turn, several times. The clock starts after TensorFlow
is imported and the data are in place (records for us, arrays for the script), and stops when the four trained models
and the averaged curve are there: tracing and compiling count, and on our side so do reading the records, checkpoints,
metrics log, TensorBoard and saving.

Run: python -m benchmarks.kfold [--repeats 3] [--epochs 100] [--data real]
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
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep
from headrace.artifacts import Artifact, home, write_json
from headrace.jobs import Job, resolve

FOLDS = 4


def job(data: str, epochs: int) -> Job:
    overrides = {"train.epochs": epochs, "train.shuffle": False}
    return resolve("house_prices", variant="kfold_100", data=data, overrides=overrides)


def ours(request: Job, records: Artifact) -> list[float]:
    """The averaged validation MAE of each epoch, by the stages of the pipeline."""
    from headrace.cross_validating import cross_validate
    from headrace.training import train

    folds = [train(request, records, fold=k, folds=FOLDS) for k in range(1, FOLDS + 1)]
    return cross_validate(request, folds).json("cross_validation.json")["curve"]


def plain(request: Job, records: Artifact) -> list[float]:
    """The same, as the book's reader would write it."""
    import keras
    import numpy as np

    from headrace.ragged import dense
    from headrace.records.inputs import arrays
    from headrace.training import node_seed

    stored = arrays(records.path, "train")
    train_data, train_targets = dense(stored["features"]), dense(stored["price"])
    epochs = request.settings.train.epochs

    def build_model() -> Any:
        model = keras.Sequential(
            [
                keras.Input(train_data.shape[1:]),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(1),
            ]
        )
        model.compile(optimizer="rmsprop", loss="mse", metrics=["mae"])
        return model

    size = len(train_data) // FOLDS
    histories = []
    for i in range(FOLDS):
        keras.utils.set_random_seed(node_seed(request.seed, i + 1))
        rest = np.r_[: i * size, (i + 1) * size : len(train_data)]
        history = build_model().fit(
            train_data[rest],
            train_targets[rest],
            validation_data=(train_data[i * size : (i + 1) * size], train_targets[i * size : (i + 1) * size]),
            epochs=epochs,
            batch_size=16,
            shuffle=False,
            verbose=0,
        )
        histories.append(history.history["val_mae"])
    return [float(np.mean([history[epoch] for history in histories])) for epoch in range(epochs)]


def child(side: str, path: Path) -> None:
    """One timed run in a fresh process."""
    import keras  # noqa: F401 (its import is not part of the training)
    import tensorflow as tf

    tf.constant(0)
    given = json.loads(path.read_text())
    records = Artifact(Path(given["path"]), given["digest"], "preprocess")
    begun = time.perf_counter()
    curve = {"ours": ours, "plain": plain}[side](Job.model_validate(given["job"]), records)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "curve": curve}))


def measure(side: str, path: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.kfold", "--child", side, "--request", str(path)],
            env={**os.environ, "HEADRACE_HOME": folder, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--data", default="auto")
    parser.add_argument("--child", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--request", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.request)
        return

    from headrace.downloading import download
    from headrace.preprocessing import preprocess

    request = job(options.data, options.epochs)
    records = preprocess(request, download(request))
    path = home() / "benchmark-request.json"
    write_json(path, {"job": request.model_dump(mode="json"), "path": str(records.path), "digest": records.digest})
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": []}
    for turn in range(options.repeats):
        for side, found in runs.items():
            found.append(measure(side, path))
            print(f"{turn + 1}. {side:<6} {found[-1]['seconds']:7.2f} s", flush=True)
    path.unlink()

    pairs = zip(runs["plain"], runs["ours"], strict=True)
    ratios = [theirs["seconds"] / mine["seconds"] for theirs, mine in pairs]
    curves = [runs[side][0]["curve"] for side in ("plain", "ours")]
    apart = max(abs(a - b) for a, b in zip(*curves, strict=True))
    result = {
        "what": f"4 folds × {options.epochs} epochs, batch 16, train stage with checkpoints against plain model.fit",
        "data": records.json("info.json")["data"],
        "seconds": {side: [round(run["seconds"], 2) for run in found] for side, found in runs.items()},
        "ratio": {"median": round(statistics.median(ratios), 1), "all": [round(ratio, 1) for ratio in ratios]},
        "largest difference of the averaged val_mae curves": apart,
        "val_mae at the end": {"plain": curves[0][-1], "ours": curves[1][-1]},
    }
    keep("kfold", result, "tensorflow", "keras", "numpy")


if __name__ == "__main__":
    main()
