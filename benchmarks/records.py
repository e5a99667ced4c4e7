"""Records: ours against a plain Python loop and TensorFlow Datasets' writer; reading ours against one at a time.

The same made-up examples on each side, stored alike (raw pixels as bytes): a table of 14 numbers as 14 features and as
one vector, images of 28×28 with a label (a fifth of the pixels not black, as in MNIST), texts of about 1,500 letters
with a label. TFDS writes images as its own MNIST does, as `Image` and shuffled (`tfds`), and as we do, as bytes in the
given order (`tfds_bytes`). Every measurement is a fresh process, in turn, several times; the clock starts after the
imports and a small first go, with the examples in memory: as Arrow batches for us, as lists and arrays for the others.
What is stored is checked by TensorFlow afterwards.

With --linear, tables of 1 and of 10 million rows, made while they are written: seconds per million, and by how much the
memory of the process grew (anonymous pages; those of a mapped file belong to the system's cache).

Run: python -m benchmarks.records [--repeats 3] [--scale 1] [--linear 1000000 10000000]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.keeping import keep
from headrace.spec import Feature

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 128

LABEL = Feature(dtype="int64", role="target")
LAYOUTS = {
    "table": {f"column_{i:02d}": Feature() for i in range(14)},
    "vector": {"columns": Feature(shape=(14,))},
    "images": {"image": Feature(shape=(28, 28, 1), dtype="uint8"), "label": LABEL},
    "texts": {"text": Feature(dtype="string"), "label": LABEL},
}
ROWS = {"table": 300_000, "vector": 300_000, "images": 60_000, "texts": 100_000}
ROWS_READ = {"table": 500_000, "vector": 500_000, "images": 300_000, "texts": 200_000}
WRITERS = {kind: ["loop", "ours"] for kind in LAYOUTS}
WRITERS["images"] += ["tfds", "tfds_bytes"]
READERS = ["one_by_one", "read"]
TARGETS = {
    ("table", "loop", "ours"): 8,
    ("images", "loop", "ours"): 2.5,
    ("texts", "loop", "ours"): 2.5,
    ("images", "tfds", "ours"): 20,
    **{(kind, "one_by_one", "read"): 6 for kind in LAYOUTS},
}


# ----------------------------------------------------------------------------------------------- examples


def examples(kind: str, rows: int) -> dict[str, Any]:
    """Values of each feature."""
    import numpy as np

    random = np.random.default_rng(0)
    if kind in ("table", "vector"):
        table = random.normal(size=(rows, 14)).astype(np.float32)
        return {"columns": table} if kind == "vector" else {n: table[:, i] for i, n in enumerate(LAYOUTS[kind])}
    label = random.integers(0, 10 if kind == "images" else 2, rows)
    if kind == "images":
        pixels = random.integers(0, 256, (rows, 28, 28, 1), np.uint8)
        pixels[random.integers(0, 5, pixels.shape, np.uint8) > 0] = 0
        return {"image": pixels, "label": label}
    words = np.array([bytes(random.integers(97, 123, size, np.uint8)) for size in random.integers(2, 10, 5000)], object)
    different = [b" ".join(words[random.integers(0, len(words), size)]) for size in random.integers(120, 340, 1000)]
    return {"text": np.array(different, object)[random.integers(0, 1000, rows)], "label": label}


def tables(rows: int) -> Iterator[pa.RecordBatch]:
    """A table of 14 columns, made batch by batch."""
    import numpy as np
    import pyarrow as pa

    for start in range(0, rows, 8192):
        size = min(8192, rows - start)
        values = np.random.default_rng(start).random((14, size), np.float32)
        yield pa.RecordBatch.from_arrays([pa.array(column) for column in values], list(LAYOUTS["table"]))


# -------------------------------------------------------------------------------------------------- sides


def loop(kind: str, values: dict[str, Any], folder: Path) -> None:
    """One `tf.train.Example` after the other, as the guides of TensorFlow write them."""
    import tensorflow as tf

    def float_feature(value: Any) -> Any:
        return tf.train.Feature(float_list=tf.train.FloatList(value=value))

    def int64_feature(value: Any) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    def bytes_feature(value: Any) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    with tf.io.TFRecordWriter(str(folder / "train.tfrecord-00000-of-00001")) as writer:
        columns = [values[name].tolist() if values[name].ndim < 3 else values[name] for name in values]
        for row in zip(*columns, strict=True):
            if kind == "table":
                feature = {name: float_feature([value]) for name, value in zip(values, row, strict=True)}
            elif kind == "vector":
                feature = {"columns": float_feature(row[0])}
            elif kind == "images":
                feature = {"image": bytes_feature(row[0].tobytes()), "label": int64_feature(row[1])}
            else:
                feature = {"text": bytes_feature(row[0]), "label": int64_feature(row[1])}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def tfds(kind: str, values: dict[str, Any], folder: Path, *, as_bytes: bool = False) -> None:
    """A builder of TensorFlow Datasets, as its own MNIST is; or with pixels as bytes, in the order given."""
    import numpy as np
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Images(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self) -> Any:
                raw = tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
                image = raw if as_bytes else tfds.features.Image(shape=(28, 28, 1))
                features = tfds.features.FeaturesDict({"image": image, "label": np.int64})
                return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=as_bytes)

            def _split_generators(self, _: Any) -> Any:
                return {"train": self._generate_examples()}

            def _generate_examples(self) -> Any:
                for row, (image, label) in enumerate(zip(values["image"], values["label"], strict=True)):
                    yield row, {"image": image, "label": label}

    tfds.display_progress_bar(False)
    Images(data_dir=folder, file_format="tfrecord").download_and_prepare()


def ours(kind: str, values: dict[str, Any], folder: Path) -> None:
    """Ours, with everything that it writes."""
    from headrace.readers.batches import batches

    into_records(kind, batches(values), folder)


def into_records(kind: str, batches: Any, folder: Path) -> None:
    from headrace.records.inputs import Info, write_info
    from headrace.records.writing import stored, write
    from headrace.spec import Records

    layout = LAYOUTS[kind]
    written = write(folder, "train", batches, layout)
    write_info(folder, Info(kind, "benchmark", "synthetic", layout, {"train": written}, stored(layout, Records())))


def one_by_one(kind: str, folder: Path) -> Any:
    """Each record parsed by itself, on as many threads as TensorFlow likes, then batched."""
    import tensorflow as tf

    layout: dict[str, Any] = {
        "table": {name: tf.io.FixedLenFeature((), tf.float32) for name in LAYOUTS["table"]},
        "vector": {"columns": tf.io.FixedLenFeature((14,), tf.float32)},
        "images": {"image": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64)},
        "texts": {"text": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64)},
    }[kind]

    def parse(record: Any) -> Any:
        example = tf.io.parse_single_example(record, layout)
        if kind == "images":
            example["image"] = tf.reshape(tf.io.decode_raw(example["image"], tf.uint8), (28, 28, 1))
        return example

    files = sorted(str(path) for path in folder.glob("train.tfrecord-*"))
    data = tf.data.TFRecordDataset(files).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return data.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def read(kind: str, folder: Path) -> Any:
    """Ours, in stored order."""
    from headrace.records.inputs import dataset

    return dataset(folder, "train", BATCH)


def drained(data: Any) -> int:
    """Go through a data set; returns the number of its batches."""
    import numpy as np

    return int(data.reduce(np.int64(0), lambda count, _: count + 1))


# ---------------------------------------------------------------------------------------------- measuring


class Peak(threading.Thread):
    """The most anonymous memory that this process has, looked at a hundred times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.01):
            status = Path("/proc/self/status").read_text()
            self.most = max(self.most, int(status.partition("RssAnon:")[2].split()[0]) * 1024)


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds, and by how many bytes the memory grew at most."""
    before, after = Peak(), Peak()
    before.start()
    time.sleep(0.1)
    before.done.set()
    after.start()
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    after.done.set()
    return {"seconds": seconds, "grown": max(after.most - before.most, 0)}


def child(side: str, kind: str, rows: int, folder: Path) -> dict[str, float]:
    """One timed run in a fresh process."""
    import tensorflow as tf

    tf.constant(0)
    writers: dict[str, Callable[..., None]] = {
        "loop": loop,
        "tfds": tfds,
        "tfds_bytes": functools.partial(tfds, as_bytes=True),
        "ours": ours,
    }
    if side == "tables":
        small = folder / "small"
        small.mkdir()
        into_records("table", tables(20_000), small)
        return timed(lambda: into_records("table", tables(rows), folder))
    if side in writers:
        values = examples(kind, rows)
        small = folder / "small"
        small.mkdir()
        writers[side](kind, {name: part[:500] for name, part in values.items()}, small)
        found = timed(lambda: writers[side](kind, values, folder))
        written = [str(path) for path in folder.rglob("*tfrecord-*") if small not in path.parents]
        if drained(tf.data.TFRecordDataset(written)) != rows:
            raise RuntimeError(f"{side} did not write {rows} records")
        return found
    reader = {"one_by_one": one_by_one, "read": read}[side]
    drained(reader(kind, folder).take(2))
    return timed(lambda: drained(reader(kind, folder)))


def measure(side: str, kind: str, rows: int, folder: Path) -> dict[str, float]:
    words = ["--child", side, "--kind", kind, "--rows", str(rows), "--folder", str(folder)]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.records", *words],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


def compare(kind: str, sides: list[str], rows: int, repeats: int, made: Path | None = None) -> dict[str, Any]:
    """Rows per second of each side, and how many times as fast as each other one the last of them is."""
    found: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(repeats):
        for side in sides:
            with tempfile.TemporaryDirectory() as fresh:
                rate = rows / measure(side, kind, rows, made or Path(fresh))["seconds"]
            found[side].append(rate)
            print(f"{turn + 1}. {kind:<7} {side:<11} {rate:12,.0f} rows/s", flush=True)
    last = sides[-1]
    ratios = {
        side: {
            "median": round(statistics.median(b / a for a, b in zip(found[side], found[last], strict=True)), 1),
            "all": [round(b / a, 1) for a, b in zip(found[side], found[last], strict=True)],
            "target": TARGETS.get((kind, side, last)),
        }
        for side in sides[:-1]
    }
    for side, ratio in ratios.items():
        print(f"   {kind}: {last} is {ratio['median']} times as fast as {side} (target: {ratio['target']})", flush=True)
    return {"rows": rows, "rows per second": {side: [round(r) for r in rates] for side, rates in found.items()}} | {
        f"{last} against {side}": ratio for side, ratio in ratios.items()
    }


def growth(rows: int) -> dict[str, Any]:
    """Seconds per million rows, and growth of the memory in megabytes, of writing and of reading a table."""
    result: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory() as name:
        for side in ("tables", "read"):
            found = measure(side, "table", rows, Path(name))
            word = "writing" if side == "tables" else "reading"
            result[word] = {
                "seconds per million": round(found["seconds"] / rows * 1e6, 2),
                "memory grown by MB": round(found["grown"] / 2**20),
            }
    print(json.dumps(result), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="how many of the usual examples")
    parser.add_argument("--linear", type=int, nargs="*", default=[1_000_000, 10_000_000], metavar="ROWS")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.kind, options.rows, options.folder)))
        return

    result: dict[str, Any] = {
        "what": "records written and read, against a loop over examples, TFDS's writer, and reading one by one",
        "writing": {},
        "reading": {},
    }
    for kind in LAYOUTS:
        rows = int(ROWS[kind] * options.scale)
        sides = sorted(WRITERS[kind], key="ours".__eq__)
        result["writing"][kind] = compare(kind, sides, rows, options.repeats)
        rows = int(ROWS_READ[kind] * options.scale)
        with tempfile.TemporaryDirectory() as name:
            measure("ours", kind, rows, Path(name))
            result["reading"][kind] = compare(kind, READERS, rows, options.repeats, Path(name))
    result |= {
        "from one to ten million rows": [growth(rows) for rows in options.linear],
    }
    keep("records", result, "tensorflow", "tensorflow-datasets", "pyarrow", "numpy")


if __name__ == "__main__":
    main()
