"""Photographs preprocessed by 1 and by 2 workers of a Ray cluster, beside the plain engine; what a part costs.

The stage `preprocess` as it is: JPEG files are read out of an archive, checked, described, decoded and resized to
180 × 180, and kept as records. Each worker is a node with one processor, as many threads, and a process of its own,
which has begun and imported TensorFlow before the clock starts. The plain engine uses all processors of the machine.
All of them make the same artifact, or the benchmark fails. The machine that asks reads and writes on the processors
that the workers share: on two cores two workers are twice as fast as one only where that is little beside their work,
as it is with photographs of 2,400 pixels. With those of 500, as in the competition, it is a third of it.

Beside it, what is needed to reckon with more workers (docs/scale.md): seconds of a part on which nothing is done, empty
and with as many bytes as a part holds there and back; of merging the summary of a chunk; and, in seconds of processors,
what the machine that asks does by itself: reading and checking, packing, and writing records.

Run: python -m benchmarks.scaling [--pixels 2400] [--examples 3000] [--repeats 3] [--archive cats_vs_dogs_small.zip]
     python -m benchmarks.scaling --short      to see that it runs
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.keeping import keep
from headrace.artifacts import Artifact, close, write_json
from headrace.errors import HeadraceError

NAME = "cats_vs_dogs_small.zip"
WORKERS = (1, 2)
AT_LEAST = 1.7
"""Times as fast with two workers as with one."""
DRAWN = 100
"""Different photographs; further ones are these again under other names."""
STORE = 2 * 2**30
"""Bytes of a node's object store: what `ray start` takes of 7 GB of memory. Those of a test cluster hold two parts."""
EMPTY, FULL = 400, 60
"""Parts on which nothing is done, and how many of them have something in them."""


def photographs(raw: Path, examples: int, pixels: int, archive: Path | None) -> None:
    """An archive in the layout of the small set: drawn heads of so many pixels a side, or another's photographs."""
    import numpy as np

    from pipelines.sources._drawing import encoded, pet

    def drawn(k: int) -> bytes:
        random = np.random.default_rng(k)
        width, height = (int(side) for side in random.integers(pixels * 3 // 5, pixels + 1, 2))
        return encoded(pet(random, (170, 120, 80), pointed=k % 2 == 0)[0].resize((width, height)))

    if archive:
        with zipfile.ZipFile(archive) as packed:
            names = [name for name in packed.namelist() if name.endswith(".jpg")]
            files = [packed.read(name) for name in names]
    else:
        files = [drawn(k) for k in range(min(DRAWN, examples))]
    with zipfile.ZipFile(raw / NAME, "w") as packed:
        for split, some in (("train", examples), ("validation", 2), ("test", 2)):
            for k in range(some):
                kind = ("cat", "dog")[k % 2]
                packed.writestr(f"{NAME[:-4]}/{split}/{kind}/{kind}.{k}.jpg", files[k % len(files)])
    write_json(raw / "data.json", {"data": "real", "files": {}})
    close(raw, {"node": "download", "seconds": 0})


def job(variant: str) -> Any:
    from headrace.jobs import resolve

    drawn = {"preprocess.weights": "random"} if "features" in variant else {}
    return resolve("cats_vs_dogs", variant=variant, source="small", overrides=drawn)


def prepared(raw: Artifact, given: Any) -> tuple[float, str]:
    """Seconds of the stage in a home where there is nothing yet, and the digest of what it makes."""
    from headrace.preprocessing import preprocess

    before = os.environ.get("HEADRACE_HOME")
    with tempfile.TemporaryDirectory() as home:
        os.environ["HEADRACE_HOME"] = home
        begun = perf_counter()
        made = preprocess(given, raw)
        seconds = perf_counter() - begun
    os.environ.pop("HEADRACE_HOME")
    if before:
        os.environ["HEADRACE_HOME"] = before
    return seconds, made.digest


@contextmanager
def workers(count: int) -> Iterator[None]:
    """A cluster of as many nodes with one processor each, whose processes are ready."""
    from ray.cluster_utils import Cluster

    from headrace.placing.clusters import nodes
    from headrace.placing.dividing import divided
    from headrace.placing.spreading import Share

    node = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(count - 1):
            cluster.add_node(**node)
        os.environ["RAY_ADDRESS"] = cluster.address
        with nodes(None, Share()):
            while len(set(divided(ready, range(2 * count + 1), whole)) - {os.getpid()}) < count:
                pass
            yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()


def ready(pieces: Iterable[int]) -> Iterator[int]:
    """Imports what the work needs; slowly enough that each worker gets a piece."""
    import keras  # noqa: F401
    import tensorflow as tf

    tf.constant(0)
    for _ in pieces:
        time.sleep(0.5)
        yield os.getpid()


def whole(_: Any) -> int:
    """A part by itself."""
    from headrace.placing.dividing import PART

    return PART


def untouched(pieces: Iterable[Any]) -> Iterable[Any]:
    """Work that does nothing."""
    return pieces


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of all processors together; of a clock on the wall, if it is that."""
    begun = clock()
    work()
    return clock() - begun


def overhead() -> dict[str, float]:
    """Seconds of a part on which nothing is done, empty and full, there and back, on the cluster of the context."""
    import numpy as np

    from headrace.placing.dividing import PART, _helpers

    helpers = _helpers.get()
    assert helpers  # noqa: S101 (of the context)

    def drained(parts: Iterable[list[Any]]) -> float:
        return timed(lambda: sum(1 for _ in helpers(untouched, parts)), perf_counter)

    drained([k] for k in range(20))
    full = ([np.full(PART, k, np.uint8)] for k in range(FULL))
    return {"an empty part": drained([k] for k in range(EMPTY)) / EMPTY, "a full part": drained(full) / FULL}


def alone(raw: Artifact, given: Any) -> dict[str, float]:
    """What the machine that asks does by itself, and what it has done: seconds of processors, bytes."""
    from headrace.describing.summaries import Summary, _chunks, _summaries, summarise
    from headrace.preprocessing import _layout, raw_batches
    from headrace.recording import Recorder, portions
    from headrace.records.writing import store

    features = given.origin.features
    batches: list[Any] = []
    reading = timed(lambda: batches.extend(raw_batches(given, raw.path, "train")))
    rows = sum(batch.num_rows for batch in batches)
    found = list(_summaries(features, None, _chunks(batches, list(features))))
    merged = Summary(features)

    def merge() -> None:
        for one in found:
            merged.merge(one)

    merging = timed(merge)
    recorder = Recorder(given, features, summarise(batches, features), None)
    recorder.layout = _layout(given, recorder)
    pieces = list(portions("train", batches, recorder.layout))
    packing = timed(lambda: [pickle.dumps(piece, 5, buffer_callback=lambda _: None) for piece in pieces])
    some = pieces[: max(len(pieces) // 4, 1)]
    records: list[Any] = []
    working = timed(lambda: records.extend(recorder(some)))
    examples = sum(map(len, records))
    with tempfile.TemporaryDirectory() as folder:
        writing = timed(lambda: store(Path(folder), "train", records, given.pipeline.records))
        written = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {
        "reading and checking, of an example": reading / rows,
        "packing, of an example": packing / rows,
        "writing, of an example": writing / examples,
        "merging, of a chunk": merging / len(found),
        "working, of an example": working / examples,
        "bytes read of an example": sum(batch.nbytes for batch in batches) / rows,
        "bytes written of an example": written / examples,
        "bytes of a summary": len(pickle.dumps(found[0])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=3000, help="photographs, of both classes together")
    parser.add_argument("--pixels", type=int, default=2400, help="of the longer side, at most, where they are drawn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--archive", type=Path, help="photographs in the layout of the small set; default: drawn ones")
    parser.add_argument("--variant", default="scratch", help="whose preprocessing; default: scratch")
    parser.add_argument("--short", action="store_true", help="few photographs, once; nothing is kept")
    options = parser.parse_args()
    examples, repeats = (200, 1) if options.short else (options.examples, options.repeats)

    found: dict[str, list[float]] = {side: [] for side in ("plain", *(f"{count} workers" for count in WORKERS))}
    digests: set[str] = set()
    given = job(options.variant)
    with tempfile.TemporaryDirectory() as place:
        photographs(Path(place), examples, options.pixels, options.archive)
        manifest = json.loads((Path(place) / "manifest.json").read_text())
        raw = Artifact(Path(place), manifest["digest"], "download")

        def measure(side: str) -> None:
            seconds, digest = prepared(raw, given)
            found[side].append(seconds)
            digests.add(digest)
            print(f"{side:<10} {examples / seconds:8,.0f} photographs/s", flush=True)

        steps = alone(raw, given)
        for _ in range(repeats):
            measure("plain")
            for count in WORKERS:
                with workers(count):
                    measure(f"{count} workers")
                    steps |= overhead() if count == 1 else {}
    if len(digests) > 1:
        raise HeadraceError("The sides made different records.", expected="one digest", received=sorted(digests))
    one, two = (found[f"{count} workers"] for count in WORKERS)
    ratios = [round(slow / fast, 2) for slow, fast in zip(one, two, strict=True)]
    result = {
        "photographs": examples,
        "seconds": {side: [round(seconds, 2) for seconds in runs] for side, runs in found.items()},
        "photographs per second": {side: round(examples / statistics.median(runs)) for side, runs in found.items()},
        "2 workers against 1": {"median": statistics.median(ratios), "all": ratios, "at least": AT_LEAST},
        "steps": {name: float(f"{value:.3g}") for name, value in steps.items()},
    }
    if options.short:
        print(json.dumps(result, indent=1))
        return
    name = f"{options.variant}, {'of an archive' if options.archive else f'of {options.pixels} pixels'}"
    what = "photographs through `preprocess`, with 1 and 2 workers of a Ray cluster, and by the plain engine"
    keep("scaling", {"what": what, name: result}, "ray", "tensorflow", "numpy", "pyarrow", beside=True)


if __name__ == "__main__":
    main()
