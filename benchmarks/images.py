"""Photographs of 180 × 180 for the base convnet: how long steps wait for them, and what it takes to come by them.

Ours: stages `preprocess` (check, describe, decode and resize once, into records) and `train`, which reads the records
while it trains (`feed: stream`). Keras: `image_dataset_from_directory`, as the book has it, which decodes and resizes
in every epoch, and `fit`. Both begin with the same JPEG files, each in a fresh process; the clock starts when
TensorFlow is imported. Measured are the input alone (decoded, resized and gone through once) and with the network, in
the first epoch and in later ones. Both networks augment in their first layers, if that is asked for.

Run: python -m benchmarks.images [--variant scratch|augmented] [--archive cats_vs_dogs_small.zip] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep
from headrace.artifacts import Artifact, close, write_json

NAME = "cats_vs_dogs_small.zip"
SIZE, BATCH = 180, 32
AT_MOST, AT_LEAST = 0.05, 1.0
"""Of a step's time that it waits for input; times as fast as `image_dataset_from_directory` gives the input."""


def drawn(path: Path, count: int) -> None:
    """An archive in the layout of the small set: drawn heads, of the size that photographs of Kaggle's have."""
    import numpy as np

    from pipelines.sources._drawing import encoded, pet

    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for split, some in (("train", count), ("validation", 2), ("test", 2)):
            for k in range(some):
                for kind in ("cat", "dog"):
                    photo, _ = pet(random, (170, 120, 80), pointed=kind == "cat")
                    width, height = (int(side) for side in random.integers(300, 501, 2))
                    whole = encoded(photo.resize((width, height)))
                    archive.writestr(f"{NAME[:-4]}/{split}/{kind}/{kind}.{k}.jpg", whole)


def ours(variant: str, raw: Path) -> dict[str, Any]:
    """Seconds of our stages, and the share of its time that training waits."""
    from headrace.jobs import resolve
    from headrace.preprocessing import preprocess
    from headrace.records.inputs import dataset
    from headrace.training import train

    def job(epochs: int) -> Any:
        changes = {"epochs": epochs, "feed": "stream", "validation": None, "checkpoint": None}
        overrides = {f"train.{name}": value for name, value in changes.items()}
        return resolve("cats_vs_dogs", variant=variant, source="small", overrides=overrides)

    given = Artifact(raw, json.loads((raw / "manifest.json").read_text())["digest"], "download")
    begun = time.perf_counter()
    records = preprocess(job(1), given)
    prepared = time.perf_counter()
    for _ in dataset(records.path, "train", BATCH):
        pass
    read = time.perf_counter() - prepared
    first = train(job(1), records)
    done = time.perf_counter() - read
    facts = [made.json("training.json") for made in (first, train(job(3), records))]
    return {
        "to the end of the first epoch": done - begun,
        "input of the first epoch": prepared - begun + read,
        "input of a later epoch": read,
        "a later epoch": (facts[1]["seconds"] - facts[0]["seconds"]) / 2,
        "waiting": facts[1]["share of time spent waiting for input"],
        "loss": first.json("history.json")["metrics"]["loss"][0],
    }


def plain(variant: str, folder: Path) -> dict[str, Any]:
    """Seconds of the book's way."""
    import keras

    from headrace import Feature
    from headrace.jobs import resolve

    job = resolve("cats_vs_dogs", variant=variant)

    def once() -> Any:
        return keras.utils.image_dataset_from_directory(
            folder / NAME[:-4] / "train", image_size=(SIZE, SIZE), batch_size=BATCH, verbose=False
        )

    begun = time.perf_counter()
    for _ in once():
        pass
    read = time.perf_counter() - begun
    keras.utils.set_random_seed(0)
    network = job.the("model")({"image": Feature(shape=(SIZE, SIZE, 3), dtype="uint8")}, **job.settings.model)
    network.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
    data = once()
    history = network.fit(data, epochs=1, verbose=0)
    done = time.perf_counter() - read
    again = time.perf_counter()
    network.fit(data, epochs=2, verbose=0)
    return {
        "to the end of the first epoch": done - begun,
        "input of the first epoch": read,
        "input of a later epoch": read,
        "a later epoch": (time.perf_counter() - again) / 2,
        "loss": history.history["loss"][0],
    }


def child(side: str, variant: str, folder: Path) -> None:
    """One timed run in a fresh process."""
    import keras  # noqa: F401 (its import is no part of it)
    import tensorflow as tf

    tf.constant(0)
    print(json.dumps(ours(variant, folder / "raw") if side == "ours" else plain(variant, folder / "files")))


def measure(side: str, variant: str, folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home:
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.images", "--child", side, "--variant", variant, "--folder", str(folder)],
            env={**os.environ, "HEADRACE_HOME": home, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(result.stdout.splitlines()[-1])


def compare(variant: str, archive: Path | None, count: int, repeats: int) -> dict[str, Any]:
    """Both sides in turn, several times."""
    runs: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "raw").mkdir()
        if archive:
            shutil.copyfile(archive, folder / "raw" / NAME)
        else:
            drawn(folder / "raw" / NAME, count)
        with zipfile.ZipFile(folder / "raw" / NAME) as packed:
            photographs = sum("/train/" in name and name.endswith(".jpg") for name in packed.namelist())
            packed.extractall(folder / "files")
        write_json(folder / "raw" / "data.json", {"data": "real", "files": {}})
        close(folder / "raw", {"node": "download", "seconds": 0})
        for turn in range(repeats):
            for side, found in runs.items():
                found.append(measure(side, variant, folder))
                print(f"{turn + 1}. {side:<6} {found[-1]}", flush=True)

    def ratio(what: str) -> list[float]:
        return [round(theirs[what] / mine[what], 2) for theirs, mine in zip(runs["plain"], runs["ours"], strict=True)]

    ratios = {what: ratio(what) for what in runs["plain"][0] if what != "loss"}
    return {
        "photographs": photographs,
        "from": "the sample of the competition's" if archive else "drawn",
        "seconds": {
            side: [{name: round(value, 3) for name, value in run.items()} for run in found]
            for side, found in runs.items()
        },
        "times faster": {what: {"median": statistics.median(found), "all": found} for what, found in ratios.items()},
        "at least": AT_LEAST,
        "share of time spent waiting for input": max(run["waiting"] for run in runs["ours"]),
        "at most": AT_MOST,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=["scratch", "augmented"], default="scratch")
    parser.add_argument("--archive", type=Path, help="photographs in the layout of the small set; default: drawn ones")
    parser.add_argument("--count", type=int, default=400, help="photographs of each class that are drawn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.variant, options.folder)
        return
    found = compare(options.variant, options.archive, options.count, options.repeats)
    keep("images", {options.variant: found}, "tensorflow", "keras", "numpy", beside=True)


if __name__ == "__main__":
    main()
