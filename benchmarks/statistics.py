"""Statistics of a table against pandas, and what they cost in memory and for ten times the rows.

The table has 14 columns of float32 (normal, log-normal, large with a small spread, whole; one with 10 percent NaN)
and two of strings (1,000 distinct ones, and 57 for every 100 rows). Our side gives counts, moments, extremes,
percentiles, histograms, distinct and frequent values, lengths and words, mergeable; pandas gives `describe` of the
columns of numbers and `value_counts` of every column. Both find the data in memory: batches of 8,192 rows for us, a
`DataFrame` for pandas. Each side runs in a fresh process, in turn, several times; the clock starts after a few rows
have warmed it up. Seconds of all processors together are told, too: they depend less on what else the machine does.

Percentiles are held against the exact ones of all 14 columns: the error of a value relative to it, and of a rank as a
share of all rows; the benchmark fails if one of them is beyond 1 percent. Memory is what the process takes at its peak
beyond what it took after its imports, while batches are made as they are asked for, and kept by nobody.

Run: python -m benchmarks.statistics [--rows 1000000] [--repeats 3] [--times 10]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.keeping import keep
from headrace.describing.summaries import Statistics, summarise
from headrace.errors import DataError
from headrace.readers.batches import ROWS
from headrace.spec import Feature

FLOATS = 14
ALLOWED = 0.01
"""Error of a percentile."""
STRINGS = {"few": Feature(dtype="string"), "many": Feature(dtype="string")}
LAYOUTS = {
    "scalars": {**{f"x{i}": Feature(optional=True) for i in range(FLOATS)}, **STRINGS},
    "vector": {"x": Feature(shape=(FLOATS,), optional=True), **STRINGS},
}
"""A feature for each column, or one for all columns of numbers."""


def batches(rows: int, layout: str) -> Iterator[pa.RecordBatch]:
    """The table, made batch by batch; the same rows whatever the layout."""
    names = pa.array([f"value {i:04}" for i in range(1000)])
    for begin in range(0, rows, ROWS):
        random = np.random.default_rng(begin)
        count = min(ROWS, rows - begin)
        table = random.normal(size=(count, FLOATS)).astype(np.float32)
        table[:, 1] = np.exp(2 * table[:, 1])
        table[:, 2] += 1e4
        table[:, 3] = np.where(random.random(count) < 0.1, np.nan, table[:, 3])
        table[:, 4] = np.round(10 * table[:, 4])
        few = names.take(pa.array(random.zipf(1.3, count) % 1000))
        numbers = pa.array(random.integers(0, max(rows * 4 // 5, 1), count)).cast(pa.string())
        many = pc.binary_join_element_wise("id", numbers, "-")
        if layout == "vector":
            columns = [pa.FixedSizeListArray.from_arrays(pa.array(table.reshape(-1)), FLOATS)]
        else:
            columns = [pa.array(column) for column in np.ascontiguousarray(table.T)]
        yield pa.RecordBatch.from_arrays([*columns, few, many], names=list(LAYOUTS[layout]))


def frame(rows: int) -> Any:
    """The table as a pandas data frame."""
    return pa.Table.from_batches(list(batches(rows, "scalars"))).to_pandas()


def pandas_side(rows: int) -> dict[str, Any]:
    def described(table: Any) -> dict[str, float]:
        begun, used = time.perf_counter(), time.process_time()
        table.describe()
        numbers = time.perf_counter() - begun
        for name in STRINGS:
            table[name].value_counts()
        strings = time.perf_counter() - begun
        for name in table.columns.difference(list(STRINGS)):
            table[name].value_counts()
        whole = time.perf_counter() - begun
        used = time.process_time() - used
        return {"describe": numbers, "counts of strings too": strings, "seconds": whole, "processors": used}

    described(frame(1000))
    return described(frame(rows))


def our_side(rows: int, layout: str) -> dict[str, Any]:
    summarise(batches(1000, layout), LAYOUTS[layout])
    held = list(batches(rows, layout))
    begun, used = time.perf_counter(), time.process_time()
    found = summarise(held, LAYOUTS[layout])
    spent = {"seconds": time.perf_counter() - begun, "processors": time.process_time() - used}
    return {**spent, **errors(found, pa.Table.from_batches(held), layout)}


def errors(found: Statistics, table: pa.Table, layout: str) -> dict[str, float]:
    """The largest errors of percentiles 1 to 99, of moments, and of the numbers of distinct strings."""
    if layout == "vector":
        exact = np.concatenate([chunk.flatten().to_numpy() for chunk in table["x"].chunks]).reshape(-1, FLOATS).T
        series = list(found["x"].series.values())
    else:
        exact = np.stack([table[f"x{i}"].to_numpy() for i in range(FLOATS)])
        series = [found[f"x{i}"].series[f"x{i}"] for i in range(FLOATS)]
    percents = range(1, 100)
    value, rank, moment = 0.0, 0.0, 0.0
    for column, seen in zip(exact.astype(np.float64), series, strict=True):
        column = np.sort(column[np.isfinite(column)])
        shares = np.array(percents) / 100
        true = np.quantile(column, shares, method="inverted_cdf")
        told = np.array([seen.quantile(percent) for percent in percents])
        # Around 0 nothing is relative; there the middle half of the values is the measure.
        scale = np.maximum(np.abs(true), 0.01 * (true[74] - true[24]))
        value = max(value, float((np.abs(told - true) / scale).max()))
        first, last = (np.searchsorted(column, told, side) / len(column) for side in ("left", "right"))
        apart = np.maximum(np.maximum(first - shares, shares - last), 0)
        rank = max(rank, float(apart.max()))
        moments = [abs(seen.mean - column.mean()) / column.std(), abs(seen.std / column.std() - 1)]
        moment = max(moment, *moments)
    distinct = max(abs((found[name].unique or 0) / pc.count_distinct(table[name]).as_py() - 1) for name in STRINGS)
    return {"value": value, "rank": rank, "moments": float(moment), "distinct": distinct}


def streaming_side(rows: int, layout: str) -> dict[str, Any]:
    """Time and peak memory while nobody keeps the batches."""
    making = 0.0

    def made() -> Iterator[pa.RecordBatch]:
        nonlocal making
        begun = time.perf_counter()
        for batch in batches(rows, layout):
            making += time.perf_counter() - begun
            yield batch
            begun = time.perf_counter()

    summarise(batches(1000, layout), LAYOUTS[layout])
    before = peak()
    begun = time.perf_counter()
    summarise(made(), LAYOUTS[layout])
    return {"seconds": time.perf_counter() - begun - making, "imports": before, "above": peak() - before}


def peak() -> float:
    """The most memory that this process has taken, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(side: str, layout: str, rows: int) -> dict[str, Any]:
    """What one side gives in a fresh process."""
    call = [sys.executable, "-m", "benchmarks.statistics", "--child", side, "--rows", str(rows), "--layout", layout]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{side:<9} {layout:<7} {rows:>10,} rows  {json.dumps(found)}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--times", type=int, default=10, help="how many times the rows, for the second memory figure")
    parser.add_argument("--child", choices=["ours", "pandas", "streaming"], help=argparse.SUPPRESS)
    parser.add_argument("--layout", choices=list(LAYOUTS), default="scalars", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "pandas":
        print(json.dumps(pandas_side(options.rows)))
        return
    if options.child:
        measured = {"ours": our_side, "streaming": streaming_side}[options.child]
        print(json.dumps(measured(options.rows, options.layout)))
        return

    runs: dict[str, list[dict[str, Any]]] = {"pandas": [], **{layout: [] for layout in LAYOUTS}}
    for _ in range(options.repeats):
        for side, found in runs.items():
            found.append(child(*(("ours", side) if side in LAYOUTS else (side, "scalars")), options.rows))
    ours, used = (
        {layout: statistics.median(run[clock] for run in runs[layout]) for layout in LAYOUTS}
        for clock in ("seconds", "processors")
    )
    theirs = {part: statistics.median(run[part] for run in runs["pandas"]) for part in runs["pandas"][0]}
    worst = {
        kind: max(run[kind] for layout in LAYOUTS for run in runs[layout])
        for kind in ("value", "rank", "moments", "distinct")
    }
    if max(worst["value"], worst["rank"]) > ALLOWED:
        raise DataError("A percentile is off.", expected=f"at most {ALLOWED:.0%} in value and rank", received=worst)
    streamed = {
        f"{rows:,} rows": child("streaming", "scalars", rows) for rows in (options.rows, options.rows * options.times)
    }
    result = {
        "what": f"statistics of {options.rows:,} rows × {FLOATS + len(STRINGS)} columns, in memory, median seconds",
        "seconds": {"ours": rounded(ours), "pandas": rounded(theirs)},
        "seconds of all processors": {"ours": rounded(used), "pandas": round(theirs["processors"], 2)},
        "ratio": {
            "describe and value_counts of every column": rounded({k: theirs["seconds"] / s for k, s in ours.items()}),
            "the same in seconds of all processors": rounded({k: theirs["processors"] / s for k, s in used.items()}),
            "describe and value_counts of strings only": rounded(
                {k: theirs["counts of strings too"] / s for k, s in ours.items()}
            ),
        },
        "largest error": {kind: f"{error:.2g}" for kind, error in worst.items()},
        "streaming, one batch at a time": {
            name: {
                "seconds": round(found["seconds"], 2),
                "MB at the peak above imports": round(found["above"]),
                "MB of imports": round(found["imports"]),
            }
            for name, found in streamed.items()
        },
        "repeats": options.repeats,
    }
    keep("statistics", result, "numpy", "pandas", "pyarrow", "tfx-bsl")


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(figure, 2) for name, figure in figures.items()}


if __name__ == "__main__":
    main()
