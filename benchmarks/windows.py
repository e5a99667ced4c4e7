"""Windows cut when they are read, against windows that are stored one by one; and what a training waits for them.

One series of the shape of Chollet's chapter 10 (14 readings, windows of 120 steps every 6 rows): its rows are written
as records and read as windows, and the same windows are written as examples and read as such. Sizes and seconds of
both, in turn; then, over the windows in a new order, how long an LSTM of 16 units takes for a step and how long it
takes to get the step's batch, from memory and from files.

Run: python -m benchmarks.windows [--windows 20000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep
from headrace import Feature, Records, Windows

WINDOWS = Windows(length=120, every=6, ahead=24)
ROW = {"weather": Feature(shape=(14,)), "temperature": Feature(shape=(1,), role="target")}
BATCH = 256


def written(folder: Path, values: dict[str, Any], layout: dict[str, Feature], cut: int) -> int:
    """Records of rows (if windows are to be cut out of them), or of windows; their bytes."""
    from headrace.readers.batches import batches
    from headrace.records.inputs import Info, write_info
    from headrace.records.writing import stored, write
    from headrace.windows import of_example

    folder.mkdir()
    found = {"train": write(folder, "train", batches(values), layout)}
    info = Info("windows", "made", "synthetic", layout, found, stored(layout, Records()))
    if cut:
        features = {name: of_example(row, WINDOWS) for name, row in layout.items()}
        info = replace(info, features=features, windows=WINDOWS, cut={"train": cut})
    write_info(folder, info)
    return found["train"].bytes


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = function()
    return time.perf_counter() - begun, found


def waiting(folder: Path, in_memory: bool, steps: int) -> float:
    """Seconds until a batch is there, on average, where nothing else is done."""
    from headrace.records.inputs import stream

    data = iter(stream(folder, "train", batch_size=BATCH, seed=0, epochs=100, in_memory=in_memory))
    next(data)
    return timed(lambda: [next(data) for _ in range(steps)])[0] / steps


def step(folder: Path, steps: int) -> float:
    """Seconds that a step of training takes on a batch that is there."""
    import keras

    from headrace.records.inputs import dataset

    batch = next(iter(dataset(folder, "train", BATCH)))
    model = keras.Sequential([keras.Input((120, 14)), keras.layers.LSTM(16), keras.layers.Dense(1)])
    model.compile("rmsprop", "mse")
    model.train_on_batch(batch["weather"], batch["temperature"])
    train = model.train_on_batch
    return timed(lambda: [train(batch["weather"], batch["temperature"]) for _ in range(steps)])[0] / steps


def measured(folder: Path, windows: int, repeats: int) -> dict[str, Any]:
    import numpy as np

    from headrace.records.inputs import arrays
    from headrace.windows import examples

    random = np.random.default_rng(0)
    rows = {
        "weather": random.normal(size=(windows + WINDOWS.delay, 14)).astype(np.float32),
        "temperature": random.normal(size=(windows + WINDOWS.delay, 1)).astype(np.float32),
    }
    whole = {name: np.asarray(found) for name, found in examples(rows, ROW, WINDOWS, windows).items()}
    layout = {**ROW, "weather": Feature(shape=(120, 14))}
    seconds: dict[str, list[float]] = {"write rows": [], "write windows": [], "read rows": [], "read windows": []}
    sizes = {}
    # Imports and the first call of everything are no part of it.
    written(folder / "first", rows, ROW, windows)
    arrays(folder / "first", "train")
    for turn in range(repeats):
        for kind, values, features, cut in (("rows", rows, ROW, windows), ("windows", whole, layout, 0)):
            place = folder / f"{kind} {turn}"
            spent, sizes[kind] = timed(lambda v=values, f=features, c=cut, p=place: written(p, v, f, c))  # type: ignore[misc]
            seconds[f"write {kind}"].append(spent)
            seconds[f"read {kind}"].append(timed(lambda p=place: arrays(p, "train"))[0])  # type: ignore[misc]
    place = folder / "rows 0"
    of_step = statistics.median(step(place, 10) for _ in range(repeats))
    shares = {
        kind: statistics.median(waiting(place, kept, 20 if kept else 4) for _ in range(repeats)) / of_step
        for kind, kept in (("memory", True), ("files", False))
    }
    ratio = {
        what: round(statistics.median(seconds[f"{what} windows"]) / statistics.median(seconds[f"{what} rows"]), 1)
        for what in ("write", "read")
    }
    return {
        "windows": windows,
        "bytes": sizes,
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "times faster": ratio,
        "milliseconds of a step": round(1000 * of_step, 1),
        "getting a batch of the next order, as a share of its step": {k: round(v, 4) for k, v in shares.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), options.windows, options.repeats)
    keep("windows", found, "tensorflow", "keras", "numpy")


if __name__ == "__main__":
    main()
