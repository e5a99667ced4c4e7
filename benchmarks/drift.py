"""How often drift is claimed where there is none, and found where there is some, on real tables and on twins.

Nothing drifts between two random parts of one table: the larger part stands for the training split, the other one, of
100, 1,000 or 10,000 rows, for new data. A false alarm is one column or more that counts as drifted.

Shifts are planted into 1,000 rows, in one column drawn at random, the rest being as it was: the mean moved by half a
standard deviation, the variance doubled, the share of a category doubled (the most frequent one that has a twentieth
to a half of the rows), a tenth of the values missing, another unit (a thousand times as much), a category that was
never there in a twentieth of the rows. A shift is found if this very column counts as drifted.

The settings are those of every workload that says nothing else (`spec.Monitor`). The benchmark fails if more than 5 %
of the undrifted parts of a table are called drifted, or less than 95 % of the shifts of a kind are found.

Run: HEADRACE_MIRROR=… python -m benchmarks.drift [--repeats 200]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep
from headrace import projects
from headrace.describing.summaries import summarise
from headrace.errors import DataError
from headrace.monitoring import moved
from headrace.readers.batches import batches, whole
from headrace.spec import Feature, Monitor, Source
from headrace.validation.checking import Quarantine, checked
from pipelines.sources.bike_sharing import BIKE_SHARING
from pipelines.sources.chicago_taxi import CHICAGO_TAXI
from pipelines.sources.titanic import TITANIC
from pipelines.sources.wine_quality import WINE

SIZES = (100, 1_000, 10_000)
ROWS = 1_000
"""Into which shifts are planted."""
FALSE, FOUND = 0.05, 0.95
"""At most, and at least."""
TWINS = 5
"""A twin is as large as the table that it stands for; several of them make one with room for 1,000 new rows, where the
real table has none."""

Table = dict[str, Any]
"""Feature → values of all rows (rows, *shape)."""
Place = tuple[str, int | None]
"""A feature, and the position if it is one column of it."""
Plant = Callable[[np.random.Generator, Table, Place], None]


def sources() -> dict[str, tuple[Source, str]]:
    """Name of a table → its source, and its folder in the mirror."""
    houses = projects.load("house_prices").sources
    return {
        "boston": (houses["boston"], "boston_housing"),
        "california": (houses["california"], "california_housing"),
        "wine": (WINE, "wine_quality"),
        "bikes": (BIKE_SHARING, "bike_sharing"),
        "titanic": (TITANIC, "titanic"),
        "taxis": (CHICAGO_TAXI, "chicago_taxi"),
    }


def read(source: Source, raw: Path) -> Table:
    """All sound rows of a source that are more than a note."""
    features = watched(source)
    parts = [
        whole(checked(batches, source.features, split, Quarantine(source.quarantine, split)), features)
        for split, batches in source.read(raw).items()
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in features}


def twins(source: Source) -> Table:
    """Several twins, one after the other."""
    made = []
    for seed in range(TWINS):
        with tempfile.TemporaryDirectory() as folder:
            assert source.twin  # noqa: S101
            source.twin(Path(folder), seed)
            made.append(read(source, Path(folder)))
    return {name: np.concatenate([table[name] for table in made]) for name in made[0]}


def watched(source: Source) -> dict[str, Feature]:
    return {name: feature for name, feature in source.features.items() if feature.role != "note"}


def length(table: Table) -> int:
    return len(next(iter(table.values())))


def taken(table: Table, rows: Any) -> Table:
    return {name: values[rows].copy() for name, values in table.items()}


def parts(random: np.random.Generator, table: Table, size: int) -> tuple[Table, Table]:
    """A random part of this size, and the rest."""
    order = random.permutation(length(table))
    return taken(table, order[:size]), taken(table, order[size:])


def drifted(new: Table, known: Table, features: dict[str, Feature], seed: int) -> set[str]:
    """The columns that count as drifted."""
    statistics = summarise(batches(known), features)
    found = moved(summarise(batches(new), features, like=statistics), statistics, Monitor(), seed)
    return {column["column"] for column in found if column["drifted"]}


# ------------------------------------------------------------------------------------------------- shifts


def numbers(table: Table, features: dict[str, Feature]) -> Iterator[Place]:
    """Columns of numbers that are more than a few."""
    for name, feature in features.items():
        if feature.kind == "number" and len(feature.shape) <= 1:
            for position in range(feature.size) if feature.shape else [None]:
                if len(np.unique(at(table, (name, position)))) > 20:
                    yield name, position


def categories(table: Table, features: dict[str, Feature]) -> Iterator[Place]:
    """Categories of which one has a share that can be doubled."""
    for name, feature in features.items():
        if feature.kind == "category" and not feature.shape and frequent(table[name]) is not None:
            yield name, None


def at(table: Table, place: Place) -> Any:
    """The values of a column, which may be written to."""
    name, position = place
    return table[name] if position is None else table[name][:, position]


def frequent(values: Any) -> Any:
    """The most frequent category of a twentieth to a half of the rows."""
    known, counts = np.unique(values[known_ones(values)], return_counts=True)
    fitting = (counts >= len(values) / 20) & (counts <= len(values) / 2)
    return known[fitting][counts[fitting].argmax()] if fitting.any() else None


def known_ones(values: Any) -> Any:
    return np.array([value is not None for value in values]) if values.dtype == object else np.ones(len(values), bool)


def mean_moved(random: np.random.Generator, new: Table, place: Place) -> None:
    values = at(new, place)
    values += 0.5 * np.nanstd(values)


def variance_doubled(random: np.random.Generator, new: Table, place: Place) -> None:
    values = at(new, place)
    middle = np.nanmean(values)
    values[:] = middle + (values - middle) * np.sqrt(2)


def share_doubled(random: np.random.Generator, new: Table, place: Place) -> None:
    values = at(new, place)
    chosen = frequent(values)
    others = np.flatnonzero(values != chosen)
    values[random.choice(others, min(int((values == chosen).sum()), len(others)), replace=False)] = chosen


def tenth_missing(random: np.random.Generator, new: Table, place: Place) -> None:
    values = at(new, place)
    values[random.choice(len(values), len(values) // 10, replace=False)] = np.nan


def another_unit(random: np.random.Generator, new: Table, place: Place) -> None:
    values = at(new, place)
    values *= 1000


def new_category(random: np.random.Generator, new: Table, place: Place) -> None:
    values = at(new, place)
    unknown = b"never seen" if values.dtype == object else values.max() + 1
    values[random.choice(len(values), len(values) // 20, replace=False)] = unknown


SHIFTS: dict[str, tuple[Plant, Any]] = {
    "mean by half a deviation": (mean_moved, numbers),
    "variance doubled": (variance_doubled, numbers),
    "share of a category doubled": (share_doubled, categories),
    "a tenth missing": (tenth_missing, numbers),
    "another unit": (another_unit, numbers),
    "a new category": (new_category, categories),
}


# ----------------------------------------------------------------------------------------------- measuring


def false_alarms(table: Table, features: dict[str, Feature], size: int, repeats: int) -> float:
    alarms = 0
    for seed in range(repeats):
        new, known = parts(np.random.default_rng([seed, size]), table, size)
        alarms += bool(drifted(new, known, features, seed))
    return alarms / repeats


def shifts_found(table: Table, features: dict[str, Feature], kind: str, repeats: int) -> dict[str, list[bool]]:
    """Column → whether the shift was found, each time that it was planted there."""
    plant, where = SHIFTS[kind]
    places = list(where(table, features))
    found: dict[str, list[bool]] = {}
    for seed in range(repeats if places else 0):
        random = np.random.default_rng([seed, 7])
        new, known = parts(random, table, ROWS)
        name, position = places[random.integers(len(places))]
        plant(random, new, (name, position))
        column = name if position is None else features[name].columns[position].name
        told = drifted(new, known, features, seed)
        found.setdefault(column, []).append(column in told)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--mirror", type=Path, default=os.environ.get("HEADRACE_MIRROR"))
    options = parser.parse_args()
    begun, used = time.time(), time.process_time()
    tables: dict[str, tuple[Table, dict[str, Feature]]] = {}
    for name, (source, folder) in sources().items():
        if options.mirror:
            tables[name] = read(source, Path(options.mirror) / folder), watched(source)
        if name not in tables or length(tables[name][0]) < 1.5 * ROWS:
            tables[f"{name}, made up"] = twins(source), watched(source)
    alarms: dict[str, dict[str, float]] = {}
    shifts: dict[str, dict[str, float]] = {kind: {} for kind in SHIFTS}
    every: dict[str, list[bool]] = {kind: [] for kind in SHIFTS}
    missed: dict[str, dict[str, float]] = {kind: {} for kind in SHIFTS}
    for name, (table, features) in tables.items():
        # The rest has to be at least half as large as what is taken out.
        fitting = [size for size in SIZES if length(table) >= 1.5 * size]
        alarms[name] = {f"{size:,}": false_alarms(table, features, size, options.repeats) for size in fitting}
        print(f"{name:<22} {length(table):>7,} rows  false alarms {alarms[name]}", flush=True)
        for kind in SHIFTS if ROWS in fitting else ():
            found = shifts_found(table, features, kind, max(options.repeats // 8, 1))
            together = [one for column in found.values() for one in column]
            if together:
                shifts[kind][name] = float(np.mean(together))
                every[kind] += together
                rates = {f"{name}: {column}": float(np.mean(ones)) for column, ones in found.items()}
                missed[kind] |= {column: round(rate, 2) for column, rate in rates.items() if rate < FOUND}
                print(f"  {kind:<30} {shifts[kind][name]:.3f} {missed[kind] or ''}", flush=True)
    worst = max(rate for rates in alarms.values() for rate in rates.values())
    power = {kind: round(float(np.mean(ones)), 4) for kind, ones in every.items()}
    result = {
        "what": f"share of {options.repeats} undrifted parts called drifted; share of shifts in {ROWS:,} rows found",
        "false alarms": alarms,
        "false alarms, worst": worst,
        "shifts found": power,
        "shifts found, by table": shifts,
        "columns in which a shift was found less often": {kind: rates for kind, rates in missed.items() if rates},
        "seconds": round(time.time() - begun),
        "seconds of all processors": round(time.process_time() - used),
    }
    keep("drift", result, "numpy", "pyarrow", "scipy")
    if worst > FALSE or min(power.values()) < FOUND:
        raise DataError(
            "Drift is not told as it should be.",
            expected=f"at most {FALSE:.0%} false alarms for every table, {FOUND:.0%} of every kind of shift found",
            received=f"{worst:.1%} and {min(power.values()):.1%}",
        )


if __name__ == "__main__":
    main()
