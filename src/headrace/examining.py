"""Stage `examine`: what a person should know of the data before trusting a model trained on them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, write_json
from headrace.console import progress
from headrace.fingerprints import digest
from headrace.jobs import Job
from headrace.preprocessing import declared, raw_batches, words
from headrace.showing import pages
from headrace.spec import Column, Feature, Monitor
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.describing.described import FeatureStatistics, Statistics
    from headrace.describing.distributions import Series
    from headrace.looking.observing import Observer, Target
    from headrace.looking.pictures import Picture
    from headrace.looking.remarks import Remark

log = logging.getLogger(__name__)

COLUMNS = 64
"""Columns of a feature that are described one by one; of a larger one the others are counted."""
CLUES = 10
"""The most telling columns that are listed."""
TOP = 20
"""The most frequent values that are listed."""
BARS = 24
"""Bars of a histogram."""
QUARANTINED = 200
"""Examples left out that are listed."""
SCHEMA = 60_000
"""Characters of the schema that the page shows."""
PLACES = 1_500
"""Points of a map."""


@stage(
    functions=("read",),
    versions=("numpy", "pyarrow", "pillow", "jinja2"),
    facts=lambda job: {
        **declared(job),
        "description": digest(_told(job)),
        "task": job.task,
        "quarantine": job.origin.quarantine,
        "look": pages.look(),
    },
    tensorflow=True,
)
def examine(job: Job, room: Room, raw: Artifact, records: Artifact) -> None:
    """Look at the raw examples of every split as a careful person would, and say what is remarkable.

    Classes and how they are balanced, missing values, duplicates within and across splits, labels that contradict each
    other, columns that give the target away, constant columns, an order of the examples, splits that differ, and
    samples to look at. What it finds never stops a run: what must, has stopped `preprocess`.

    Writes `examination.json`, `data.html` (all of it on one page that opens from disk) and the pictures of samples.
    Memory: 16 bytes for each example, and 100 to 300 MB.
    """
    from headrace.looking.leaking import SUSPICIOUS

    found, pictures = _examined(job, raw, records)
    write_json(room.output / pages.EXAMINATION, found)
    for name, picture in pictures.items():
        (room.output / name).write_bytes(picture.data)
    schema = records.path / "schema.pbtxt"
    page = pages.render(
        "data.html.j2",
        data=found,
        pictures={name: pages.picture(picture.data, picture.suffix) for name, picture in pictures.items()},
        suspicious=SUSPICIOUS,
        schema=_beginning(schema),
    )
    (room.output / pages.DATA).write_text(page, encoding="utf-8")


def _beginning(schema: Path) -> str:
    """The text of a schema, cut where it becomes a book (a vocabulary, say)."""
    text = schema.read_text(encoding="utf-8") if schema.is_file() else ""
    more = len(text) - SCHEMA
    return text if more <= 0 else f"{text[:SCHEMA]}\n… {more:,} more characters in {schema.name}"


def _told(job: Job) -> dict[str, Any]:
    """What the source says of itself for people; it stands on the page."""
    source = job.origin
    words = ("description", "unit", "content", "classes", "optional", "columns")
    return {
        "title": source.title,
        "licence": source.licence,
        "homepage": source.homepage,
        "note": source.note,
        "words": {name: f.model_dump(mode="json", include=set(words)) for name, f in source.features.items()},
    }


def _readable(features: Mapping[str, Feature], names: Sequence[str]) -> dict[str, Feature]:
    """The features, with the words that tokens stand for in place of names that they have not."""
    return {
        name: feature.model_copy(update={"classes": tuple(names), "content": "tokens"})
        if feature.kind == "tokens" and not feature.classes
        else feature
        for name, feature in features.items()
    }


def _examined(job: Job, raw: Artifact, records: Artifact) -> tuple[dict[str, Any], dict[str, Picture]]:
    from headrace.describing.described import Statistics
    from headrace.looking import remarks
    from headrace.looking.observing import target_of
    from headrace.looking.sheets import sheets

    features = job.origin.features
    train = Statistics.from_json(records.json("statistics.json"))
    target = target_of(features, train, {name: job.task_of(name) for name in job.origin.named("target")})
    splits = ["train", *(split for split in records.json("info.json")["splits"] if split != "train")]
    seen, statistics = {}, {"train": train}
    for split in splits:
        seen[split], statistics[split] = _observed(job, raw, split, target, train)

    described = [_described(name, feature, train[name]) for name, feature in features.items()]
    quarantine = _quarantine(records)
    repeats, told = _repeated(seen, target)
    clues = _clues(seen, target)
    drift = {split: _moved(job, train, statistics[split]) for split in splits[1:]}
    shown, pictures = sheets(seen["train"].samples, _readable(features, words(records)))
    said: list[Remark] = [
        *remarks.of_quarantine(quarantine),
        *remarks.of_columns(described),
        *(remarks.of_classes(target, {s: seen[s].classes for s in splits}) if target and target.is_class else ()),
        *(remarks.of_texts(described) if target and target.is_class else ()),
        *(remarks.of_leaks(clues, target.name) if target else ()),
        *told,
        *remarks.of_order(seen["train"], target),
        *remarks.of_splits(
            {split: seen[split].rows for split in splits},
            {split: [column for column in columns if column["drifted"]] for split, columns in drift.items()},
        ),
    ]
    said.sort(key=lambda remark: remarks.SEVERITIES.index(remark.severity))
    data = raw.json("data.json")
    examination = {
        "version": 1,
        "workload": job.workload,
        "source": job.source,
        "data": data["data"],
        **{name: value for name, value in _told(job).items() if name != "words"},
        "splits": {split: {"examples": seen[split].rows} for split in splits},
        "findings": [asdict(remark) for remark in said],
        "target": _balance(target, seen) if target else None,
        "features": described,
        "duplicates": repeats,
        "clues": [asdict(clue) for clue in clues[:CLUES]],
        "drift": drift,
        "map": _map(seen["train"], target),
        "sheets": shown,
        "quarantine": [line for line in quarantine if "total" not in line][:QUARANTINED],
        "files": data.get("files", {}),
    }
    return examination, pictures


def _observed(
    job: Job, raw: Artifact, split: str, target: Target | None, train: Statistics
) -> tuple[Observer, Statistics]:
    """One pass over a split. The statistics of the training split are known already."""
    from headrace.describing.summaries import summarise
    from headrace.looking.observing import Observer

    features = job.origin.features
    observer = Observer(features, target, shown=split == "train")
    with progress(f"examine · {split}", train.rows if split == "train" else None) as advance:

        def watched() -> Iterator[pa.RecordBatch]:
            for batch in observer.watching(raw_batches(job, raw.path, split)):
                yield batch
                advance(observer.rows, "")

        if split == "train":
            for _ in watched():
                pass
            return observer, train
        return observer, summarise(watched(), features, like=train)


def _quarantine(records: Artifact) -> list[dict[str, Any]]:
    path = records.path / "quarantine.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


# --------------------------------------------------------------------------------------------- what is seen


def _described(name: str, feature: Feature, found: FeatureStatistics) -> dict[str, Any]:
    """A feature of the training split as the page, the terminal and the report show it."""
    from headrace.looking.sheets import SHORT, excerpt

    declared = {column.name: column for column in feature.columns}
    series = list(found.series.items())[:COLUMNS]
    columns = [_column(label, found=numbers, declared=declared.get(label)) for label, numbers in series]
    if not series:
        # Strings have no numbers, only values that are there or not.
        pairs = zip(found.names, found.count.flat, found.missing.flat, strict=False)
        columns = [_absent(label, int(count), int(missing), declared.get(label)) for label, count, missing in pairs]
    if found.pooled:
        columns.insert(0, _column("all positions", found=found.whole, declared=None))
    names = found.names if len(found.tallies) == len(found.names) > 1 else ("values",)
    tallies = dict(zip(names, found.tallies, strict=False))
    tallies |= {key: tally for key in ("words", "formats", "examples") if (tally := getattr(found, key))}
    return {
        "name": name,
        **feature.model_dump(mode="json", include={"role", "dtype", "shape", "description", "unit"}),
        "kind": feature.kind,
        "named": bool(feature.columns) or not feature.shape,
        "rows": found.rows,
        "columns": columns,
        "more": max(len(found.names) - COLUMNS, 0),
        "measures": [
            _column(label, found=measured, declared=None)
            for label, measured in {**found.measures, **found.pixels}.items()
        ],
        "tallies": [
            {
                "of": label,
                "unique": tally.unique,
                "total": tally.total,
                # Where every value is another one, none of them is worth showing.
                "top": [[excerpt(value, SHORT), count] for value, count in tally.top[:TOP] if tally.top[0][1] > 1],
            }
            for label, tally in tallies.items()
        ],
        "empty": found.empty,
        "broken": found.broken,
    }


def _column(label: str, found: Series, declared: Column | None) -> dict[str, Any]:
    """A list of numbers: moments, and the bars of a histogram, the highest of which is 1."""
    bars: list[int] = found.distribution.bars(BARS).tolist() if found.distribution else []
    highest = max([*bars, 1])
    numbers = {name: _finite(getattr(found, name)) for name in ("mean", "std", "minimum", "maximum")}
    return {
        **_absent(label, found.count, found.missing, declared),
        **numbers,
        "median": _finite(found.quantile(50)),
        "constant": found.count > 1 and not found.missing and found.minimum == found.maximum,
        "bars": [round(bar / highest, 3) for bar in bars],
    }


def _absent(label: str, count: int, missing: int, declared: Column | None) -> dict[str, Any]:
    """What can be said of any column."""
    return {
        "name": label,
        "description": declared.description if declared else "",
        "unit": declared.unit if declared else "",
        "missing": missing,
        "missing_share": missing / max(count + missing, 1),
        **dict.fromkeys(("mean", "std", "minimum", "maximum", "median")),
        "constant": False,
        "bars": [],
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _balance(target: Target, seen: Mapping[str, Observer]) -> dict[str, Any]:
    """The target: how often each class occurs in each split, and what the answer that ignores all inputs comes to."""
    found: dict[str, Any] = {"name": target.name, "is_class": target.is_class, "classes": [], "majority": {}}
    if target.is_class:
        counts = {split: observer.classes for split, observer in seen.items()}
        values = sorted(set().union(*counts.values()), key=lambda value: (-counts["train"][value], str(value)))
        found["classes"] = [
            {"label": target.label(value), **{split: count[value] for split, count in counts.items()}}
            for value in values
        ]
        for split, count in counts.items():
            found["majority"][split] = count[values[0]] / max(count.total(), 1) if values else 0.0
    return found


def _repeated(seen: Mapping[str, Observer], target: Target | None) -> tuple[dict[str, Any], list[Remark]]:
    from headrace.looking import remarks
    from headrace.looking.duplicates import across, contradictions, within

    known = {split: observer.inputs for split, observer in seen.items()}
    inside = {split: within(digests) for split, digests in known.items()}
    pairs = [(a, b) for i, a in enumerate(known) for b in list(known)[i + 1 :]]
    between = {pair: across(known[pair[0]], known[pair[1]]) for pair in pairs}
    against = contradictions(known, {split: observer.targets for split, observer in seen.items()})
    table = {
        "inside": {split: asdict(found) for split, found in inside.items()},
        "between": [{"known": a, "other": b, **asdict(found)} for (a, b), found in between.items()],
        "contradictions": asdict(against),
    }
    is_class = target is not None and target.is_class
    return table, [*remarks.of_repeats(inside, between), *remarks.of_contradictions(against, is_class)]


def _clues(seen: Mapping[str, Observer], target: Target | None) -> list[Any]:
    from headrace.looking.leaking import clues

    if target is None:
        return []
    (train, known), (test, truth) = seen["train"].probes, seen["test"].probes
    return clues(train, known, test, truth, classes=target.is_class) if len(known) and len(truth) else []


def _moved(job: Job, train: Statistics, other: Statistics) -> list[dict[str, Any]]:
    """How far each column of a split lies from the training split's, by the rule of `monitor`."""
    from headrace.describing.described import Statistics
    from headrace.monitoring import moved

    # Neither the variant's settings nor the job's seed: what is found of the data is the same for all models.
    roles = ("input", "target")
    told = [name for name, feature in job.origin.features.items() if feature.role in roles]
    return moved(Statistics({name: other[name] for name in told}), train, Monitor(), seed=0)


def _map(seen: Observer, target: Target | None) -> dict[str, Any] | None:
    """Where examples lie, if two columns are called longitude and latitude: points (x, y, target) from 0 to 1."""
    import numpy as np

    columns, values = seen.probes
    by_name = {column.lower(): found for (_, column), found in columns.items()}
    if target is None or target.is_class or not {"longitude", "latitude"} <= by_name.keys():
        return None
    chosen = slice(PLACES)
    x, y, shade = (
        np.asarray(found[chosen], np.float64) for found in (by_name["longitude"], by_name["latitude"], values)
    )
    there = np.isfinite(x) & np.isfinite(y) & np.isfinite(shade)
    x, y, ranks = x[there], y[there], np.argsort(np.argsort(shade[there])) / max(there.sum() - 1, 1)
    if not len(x) or x.min() == x.max() or y.min() == y.max():
        return None
    # A degree of longitude is as wide as the cosine of the latitude.
    width = float((x.max() - x.min()) * np.cos(np.radians(y.mean())) / (y.max() - y.min()))
    points = np.column_stack([(x - x.min()) / (x.max() - x.min()), (y.max() - y) / (y.max() - y.min()), ranks])
    return {"target": target.name, "width": round(width, 3), "points": points.round(4).tolist()}
