"""What models were asked and answered, as Parquet files that `headrace monitor` reads.

```
$HEADRACE_HOME/requests/<line>/<date>/
├── serve-<time>-<process>-<number>.parquet    raw inputs as a table of new data has them; beside them what was answered
└── unusable.jsonl                             examples that no monitor could read: a value is missing, …
```

Inputs stand under the names by which the workload's readers know them. What is added is called `served/…` (time,
version) and `answer/…`, so that no reader takes it for an input or a target. Files appear when they are whole. Folders
and files are for their owner's eyes only: they hold what people have sent.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import home, write_atomically
from headrace.spec import Feature

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Array = np.ndarray[Any, Any]
    Arrays = Mapping[str, Array]

log = logging.getLogger(__name__)

SHARD_ROWS, SHARD_BYTES, SHARD_SECONDS = 10_000, 16 * 2**20, 60.0
"""A file is closed when it holds so much, or has been open for so long."""
LOOK_SECONDS = 0.5
"""Between two looks at what came."""
WAITING_BYTES = 64 * 2**20
"""What may wait to be written; more is not kept, and counted."""
PART = 8192
"""Examples that are looked at together."""
PROBLEMS = 2**20
"""Bytes of `unusable.jsonl` in a day."""


def folder(line: str) -> Path:
    """Where the requests to a line are kept."""
    return home() / "requests" / line


@dataclass(frozen=True)
class Kept:
    """What is kept of requests."""

    share: float = 1.0
    """Share of the requests, drawn at random."""
    most_bytes: int = 2**30
    """Size of all files of a line; the oldest ones go."""


@dataclass(frozen=True)
class _Entry:
    inputs: Arrays
    outputs: Arrays
    version: int
    time: float | Array
    """Of all, or of each example."""
    features: Mapping[str, Feature]

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def bytes(self) -> int:
        return sum(_bytes(values) for values in (*self.inputs.values(), *self.outputs.values()))


def _bytes(values: Array) -> int:
    return sum(map(len, values.flat)) if values.dtype == object else values.nbytes


class RequestLog:
    """Keeps requests and answers from a thread of its own; whoever answers a request never waits for it.

    Args:
        line: The line of the registry.
        kept: How much is kept.
    """

    def __init__(self, line: str, kept: Kept = Kept()) -> None:
        self._place = folder(line)
        self._kept = kept
        # Looked at now and then: waking a thread costs a request more than everything else that is done for the log.
        self._came: deque[_Entry] = deque()
        self._waiting = 0
        self._end = threading.Event()
        self._random = random.Random()
        self.written = 0
        """Examples in files."""
        self.lost = 0
        """Examples that came faster than they could be written, or could not be written."""
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def add(self, inputs: Arrays, outputs: Arrays, version: int, features: Mapping[str, Feature]) -> None:
        """Keep a request and its answer, or not, as the share has it."""
        if self._kept.share < 1 and self._random.random() >= self._kept.share:
            return
        entry = _Entry(inputs, outputs, version, time.time(), features)
        if self._waiting + entry.bytes > WAITING_BYTES:
            self.lost += entry.rows
            return
        # Counted by both threads without a lock: a bound, not an account.
        self._waiting += entry.bytes
        self._came.append(entry)

    def close(self) -> None:
        """Write what is left."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        entries: list[_Entry] = []
        rows = size = 0
        begun = time.monotonic()
        ending = False
        while not ending:
            ending = self._end.wait(LOOK_SECONDS)
            while self._came:
                entry = self._came.popleft()
                if not entries:
                    begun = time.monotonic()
                entries.append(entry)
                rows, size = rows + entry.rows, size + entry.bytes
                self._waiting -= entry.bytes
                if rows >= SHARD_ROWS or size >= SHARD_BYTES:
                    self._write(entries)
                    entries, rows, size = [], 0, 0
            if entries and (ending or time.monotonic() - begun >= SHARD_SECONDS):
                self._write(entries)
                entries, rows, size = [], 0, 0

    def _write(self, entries: list[_Entry]) -> None:
        if not entries:
            return
        try:
            self.written += write_entries(self._place, "serve", entries, self._kept.most_bytes)
        except Exception as error:  # a full disk must not end the service
            self.lost += sum(entry.rows for entry in entries)
            log.error("requests could not be kept: %s: %s", type(error).__name__, error)


class Sample:
    """Some of very many examples, each with the same chance, in bounded memory: what a batch run leaves for monitoring.

    When there are too many, every second one goes, and from then on every second one is not taken at all.

    Args:
        line: The line of the registry.
        share: Share of the examples to begin with.
        most_rows: Examples that are kept, at most.
        most_bytes: What they may hold.
    """

    def __init__(
        self, line: str, share: float = 1.0, most_rows: int = 50_000, most_bytes: int = 2 * SHARD_BYTES
    ) -> None:
        self._place = folder(line)
        self._share = share
        self._most = (most_rows, most_bytes)
        self._entries: list[_Entry] = []
        self._rows = self._bytes = 0
        self._random = random.Random()

    def add(self, inputs: Arrays, outputs: Arrays, version: int, features: Mapping[str, Feature]) -> None:
        """Take some of these examples."""
        self._take(_Entry(inputs, outputs, version, time.time(), features), self._share)
        while self._rows > self._most[0] or self._bytes > self._most[1]:
            entries, self._entries = self._entries, []
            self._rows = self._bytes = 0
            self._share /= 2
            for entry in entries:
                self._take(entry, 0.5)

    def _take(self, entry: _Entry, share: float) -> None:
        chosen = [row for row in range(entry.rows) if share >= 1 or self._random.random() < share]
        if chosen:
            kept = entry if len(chosen) == entry.rows else _taken(entry, chosen)
            self._entries.append(kept)
            self._rows, self._bytes = self._rows + kept.rows, self._bytes + kept.bytes

    def write(self, most_bytes: int = Kept.most_bytes) -> int:
        """Write them; the number of examples written."""
        return write_entries(self._place, "predict", self._entries, most_bytes) if self._entries else 0


def _parts(entry: _Entry) -> Iterator[_Entry]:
    """An entry in parts of which every unusable example is noted."""
    for start in range(0, entry.rows, PART):
        yield entry if entry.rows <= PART else _taken(entry, slice(start, start + PART))


def _taken(entry: _Entry, rows: Sequence[int] | slice) -> _Entry:
    """Some examples of an entry."""
    return _Entry(
        {name: values[rows] for name, values in entry.inputs.items()},
        {name: values[rows] for name, values in entry.outputs.items()},
        entry.version,
        entry.time if isinstance(entry.time, float) else entry.time[rows],
        entry.features,
    )


# -------------------------------------------------------------------------------------------------- files

_numbers = iter(range(1_000_000_000))


def write_entries(place: Path, word: str, entries: Sequence[_Entry], most_bytes: int) -> int:
    """Write a file for what was asked of each model alike, and let the oldest ones go.

    Returns:
        Examples written; those that nobody could read are noted beside them.
    """
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    entries = _merged(entries)
    last = time.gmtime(max(float(np.max(entry.time)) for entry in entries))
    day = place / time.strftime("%Y-%m-%d", last)
    day.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.chmod(0o700)
    # Two versions may differ in what they take, and a file has one set of columns.
    groups: dict[str, list[pa.RecordBatch]] = {}
    for part in (part for entry in entries for part in _parts(entry)):
        batch, unusable = as_batch(part)
        if unusable:
            _note(day / "unusable.jsonl", unusable)
        if batch.num_rows:
            groups.setdefault(str(batch.schema), []).append(batch)
    written = 0
    for batches in groups.values():
        table = pa.Table.from_batches(batches)
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink, compression="zstd")
        stamp = time.strftime("%H%M%S", last)
        path = day / f"{word}-{stamp}-{os.getpid()}-{next(_numbers)}.parquet"
        write_atomically(path, sink.getvalue().to_pybytes())
        path.chmod(0o600)
        written += table.num_rows
    _prune(place, most_bytes)
    return written


def _merged(entries: Sequence[_Entry]) -> list[_Entry]:
    """Entries of the same model and shapes as one: thousands of single examples are written as fast as one table."""
    import numpy as np

    groups: dict[Any, list[_Entry]] = {}
    for entry in entries:
        arrays = (*entry.inputs.items(), *entry.outputs.items())
        shapes = tuple((name, values.shape[1:], values.dtype) for name, values in arrays)
        # Of an output that has no value for each example nothing could be joined.
        whole = all(values.ndim and len(values) == entry.rows for _, values in arrays)
        groups.setdefault((entry.version, id(entry.features), shapes, None if whole else id(entry)), []).append(entry)
    return [
        some[0]
        if len(some) == 1
        else _Entry(
            {name: np.concatenate([one.inputs[name] for one in some]) for name in some[0].inputs},
            {name: np.concatenate([one.outputs[name] for one in some]) for name in some[0].outputs},
            some[0].version,
            np.concatenate([np.broadcast_to(one.time, one.rows) for one in some]),
            some[0].features,
        )
        for some in groups.values()
    ]


def as_batch(entry: _Entry) -> tuple[pa.RecordBatch, list[dict[str, Any]]]:
    """Inputs and answers as rows of a table, and what is wrong with those that were left out."""
    import numpy as np
    import pyarrow as pa

    from headrace.readers.batches import batches
    from headrace.validation.checking import Quarantine, checked

    times = np.broadcast_to(entry.time, entry.rows)
    asked = next(iter(batches(dict(entry.inputs), entry.rows)))
    quarantine = Quarantine(1.0)
    keep = np.ones(entry.rows, bool)
    unusable: list[dict[str, Any]] = []
    for _ in checked([asked], _alike(asked, entry.features), "the requests", quarantine):
        pass
    if quarantine.left_out:
        keep[[note["row"] for note in quarantine.noted]] = False
        for note in quarantine.noted:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(times[note["row"]])))
            unusable.append({"time": when, "version": entry.version, "problems": note["problems"]})
    columns: dict[str, pa.Array] = {
        "served/time": pa.array((times * 1e6).astype(np.int64), pa.timestamp("us", "UTC")),
        "served/version": pa.array(np.full(entry.rows, entry.version, np.int64)),
    }
    for name, values in entry.inputs.items():
        feature = entry.features[name]
        if len(feature.shape) == 1 and feature.columns:
            columns |= {column.name: _cells(values[:, i]) for i, column in enumerate(feature.columns)}
        else:
            columns[name] = _cells(values)
    for name, values in entry.outputs.items():
        if values.ndim and len(values) == entry.rows:
            columns[f"answer/{name}"] = _cells(values)
    batch = pa.RecordBatch.from_pydict(columns)
    return (batch if keep.all() else batch.filter(pa.array(keep))), unusable


def _alike(batch: pa.RecordBatch, features: Mapping[str, Feature]) -> dict[str, Feature]:
    """The features as they are held against a batch: without a length, where requests come with one."""
    import pyarrow as pa

    return {
        name: feature.model_copy(
            update={"shape": (batch.column(name).type.list_size // feature.size, *feature.shape[1:])}
        )
        if feature.ragged and pa.types.is_fixed_size_list(batch.column(name).type)
        else feature
        for name, feature in ((name, features[name]) for name in batch.schema.names)
    }


def _cells(values: Array) -> pa.Array:
    """An example in each cell: a single value, or a list of all its values."""
    import numpy as np
    import pyarrow as pa

    flat = np.ascontiguousarray(values).reshape(len(values), -1)
    single = pa.array(flat.reshape(-1), pa.binary() if values.dtype == object else None)
    if values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
        return single
    ends = np.arange(len(values) + 1, dtype=np.int64) * flat.shape[1]
    return pa.LargeListArray.from_arrays(pa.array(ends), single)


def _note(path: Path, unusable: Sequence[Mapping[str, Any]]) -> None:
    with contextlib.suppress(OSError):
        if path.exists() and path.stat().st_size > PROBLEMS:
            return
        with path.open("a", encoding="utf-8") as file:
            path.chmod(0o600)
            file.writelines(json.dumps(note, ensure_ascii=False) + "\n" for note in unusable)


def _prune(place: Path, most_bytes: int) -> None:
    """Remove the oldest files, until all together are small enough."""
    files = []
    for path in place.glob("*/*.parquet"):
        with contextlib.suppress(OSError):  # another server of the line may have removed it
            found = path.stat()
            files.append((found.st_mtime_ns, found.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files)[:-1]:
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size
        for day in {path.parent}:
            if not any(day.glob("*.parquet")):
                (day / "unusable.jsonl").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                day.rmdir()
