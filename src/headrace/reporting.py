"""Stage `report`: everything about a run in one HTML file that opens from disk, loads nothing and needs no script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace import fingerprints
from headrace.artifacts import MANIFEST, Artifact, read_json
from headrace.jobs import Job
from headrace.showing import charts, pages
from headrace.showing.pages import number
from headrace.spec import Variant
from headrace.stages import Room, stage

PICTURE = 150_000
"""Bytes up to which a sheet of samples stands in the report; the page of the data has it in any case."""
CURVES = 8
"""Metrics whose curves are drawn."""
SENTENCES = 12
"""Decoded sentences that are shown."""
EPOCHS, KEPT = 12, 1_500_000
"""Epochs whose samples are shown, and the bytes that all of them may take."""
TEXT = 600
"""Characters of a sampled text."""


@stage(
    # It shows the settings, the code's digests and the versions, so it depends on them, and not on results only.
    settings=tuple(name for name, field in Variant.model_fields.items() if not field.exclude),
    functions=("read", "preprocess", "model"),
    versions=("tensorflow", "keras", "numpy", "matplotlib"),
    facts=lambda job: {
        "job": job.title,
        "data_asked_for": job.data,
        "look": pages.look(),
    },
    # Examples are read back from their records.
    tensorflow=True,
)
def report(job: Job, room: Room, made: Sequence[Artifact]) -> None:
    """Write `report.html`.

    Args:
        job: The job.
        room: Where to work.
        made: What the run has made so far, in its order. A part whose stage is not among them is left out.
    """
    (room.output / "report.html").write_text(render(job, made), encoding="utf-8")


def render(job: Job, made: Sequence[Artifact]) -> str:
    """The report as HTML."""
    at = {artifact.node: artifact for artifact in made}

    def contents(node: str, name: str) -> Any:
        return read_json(at[node].path / name) if node in at else None

    from headrace.showing import outcomes

    evaluation = contents("evaluate", "evaluation.json")
    publication = contents("publish", "publication.json")
    parity = contents("export", "parity.json")
    return pages.render(
        "report.html.j2",
        job=job,
        source=job.origin,
        synthetic=(contents("download", "data.json") or {}).get("data") == "synthetic",
        publication=publication,
        verdict=(publication or {}).get("verdict", "not judged"),
        gates=(publication or evaluation or {}).get("gates", []),
        graph=graph(made),
        evaluation=evaluation,
        metrics=outcomes.metrics(evaluation) if evaluation else [],
        outcomes=outcomes.outcomes(job, at, evaluation) if evaluation else [],
        slices=outcomes.slices(evaluation) if evaluation else [],
        training=_training(at, evaluation, contents("cross_validate", "cross_validation.json")),
        samples=samples(at["train"].path) if "train" in at else [],
        shown=shown(at["evaluate"].path, evaluation) if evaluation else [],
        **_data(at.get("examine")),
        formats=formats(parity) if parity else None,
        drift=contents("monitor", "drift.json"),
        lineage=_lineage(job, made, contents("download", "data.json")),
    )


# ------------------------------------------------------------------------------------------ graph of the run


@dataclass(frozen=True)
class Box:
    """A node of the graph."""

    name: str
    note: str
    x: float
    y: float


@dataclass(frozen=True)
class Graph:
    """Boxes and arrows with their places, in pixels."""

    boxes: list[Box]
    arrows: list[str]
    """Paths, as SVG writes them."""
    width: float
    height: float


BOX_WIDTH, BOX_HEIGHT = 118, 42
GAP_X, GAP_Y = 34, 12
MOST_IN_COLUMN = 6
"""More nodes than this side by side are drawn as one box for all that don't fit."""


def graph(made: Sequence[Artifact]) -> Graph:
    """The run as a graph: each stage to the right of what it depends on; arrows that others imply are left out."""
    inputs = {a.node: list(_manifest(a).get("ingredients", {}).get("inputs", {})) for a in made}
    inputs = {node: [name for name in names if name in inputs] for node, names in inputs.items()}
    depth: dict[str, int] = {}
    behind: dict[str, set[str]] = {}
    for node, names in inputs.items():  # in the order in which they were made: inputs first
        depth[node] = 1 + max((depth[name] for name in names), default=-1)
        behind[node] = set(names).union(*(behind[name] for name in names))

    columns: dict[int, list[str]] = {}
    for node in inputs:
        columns.setdefault(depth[node], []).append(node)
    seconds = {artifact.node: f"{artifact.seconds:.1f} s" for artifact in made}
    boxes: dict[str, Box] = {}
    height = max((_column_height(nodes) for nodes in columns.values()), default=0)
    for place, nodes in columns.items():
        y = (height - _column_height(nodes)) / 2
        for row, node in enumerate(nodes[:MOST_IN_COLUMN]):
            hidden = len(nodes) - MOST_IN_COLUMN if row == MOST_IN_COLUMN - 1 else 0
            name, note = (f"… {hidden + 1} more", "") if hidden > 0 else (node, seconds[node])
            boxes[node] = Box(name, note, place * (BOX_WIDTH + GAP_X), y + row * (BOX_HEIGHT + GAP_Y))

    arrows = [
        _arrow(boxes[name], boxes[node])
        for node, names in inputs.items()
        for name in names
        if name in boxes and node in boxes and not any(name in behind[other] for other in names)
    ]
    width = len(columns) * (BOX_WIDTH + GAP_X) - GAP_X
    return Graph(list(boxes.values()), arrows, max(width, 0), height)


def _column_height(nodes: Sequence[str]) -> int:
    return min(len(nodes), MOST_IN_COLUMN) * (BOX_HEIGHT + GAP_Y) - GAP_Y


def _arrow(start: Box, end: Box) -> str:
    x1, y1 = start.x + BOX_WIDTH, start.y + BOX_HEIGHT / 2
    x2, y2 = end.x - 6, end.y + BOX_HEIGHT / 2
    middle = (x1 + x2) / 2
    return f"M{x1:g} {y1:g}C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}"


# ------------------------------------------------------------------------------------------ data and lineage


def _data(examination: Artifact | None) -> dict[str, Any]:
    """What was found of the data: the findings, one picture, and the way to the page that shows all of it."""
    found = read_json(examination.path / pages.EXAMINATION) if examination else None
    if not found or not examination:
        return {"data": None, "data_page": None, "sheet": None, "picture": None}
    sheet = next((sheet for sheet in found["sheets"] if sheet["kind"] == "images"), None)
    path = examination.path / sheet["picture"] if sheet else None
    fits = path is not None and path.stat().st_size <= PICTURE
    return {
        "data": found,
        # Both folders lie in those of their stages, side by side.
        "data_page": f"../../{examination.path.parent.name}/{examination.path.name}/{pages.DATA}",
        "sheet": sheet if fits else None,
        "picture": pages.picture(path.read_bytes(), path.suffix) if fits and path else None,
    }


def _lineage(job: Job, made: Sequence[Artifact], data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where everything came from: files, settings, code, versions, folders."""
    manifests = {artifact.node: _manifest(artifact) for artifact in made}
    ingredients = [manifest.get("ingredients", {}) for manifest in manifests.values()]
    code = {name: digest for given in ingredients for name, digest in given.get("code", {}).items()}
    core = {name: digest for given in ingredients for name, digest in given.get("core", {}).items()}
    versions = {name: version for given in ingredients for name, version in given.get("versions", {}).items()}
    settings = job.settings.model_dump(mode="json", exclude={"description", "promises"})
    return {
        "files": (data or {}).get("files", {}),
        "settings": [
            (".".join(path), json.dumps(value)) for path, value in fingerprints.leaves(settings) if value != {}
        ],
        "spec": fingerprints.digest(job.model_dump(mode="json")),
        "code": dict(sorted(code.items())),
        "core": fingerprints.digest(core),
        "versions": dict(sorted(versions.items())),
        "stages": [
            (
                artifact.node,
                manifests[artifact.node].get("made", ""),
                artifact.seconds,
                artifact.path.name,
                artifact.digest,
            )
            for artifact in made
        ],
    }


def _manifest(artifact: Artifact) -> dict[str, Any]:
    return read_json(artifact.path / MANIFEST) or {}


# ---------------------------------------------------------------------------------------------- training


def _training(
    at: Mapping[str, Artifact], evaluation: Mapping[str, Any] | None, folds: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """The curves of the training: title, words below it, and the SVG."""
    found = []
    if folds:
        found.append(
            {
                "title": f"Cross-validation: {folds['metric']} of {len(folds['folds'])} folds",
                "words": (
                    f"Mean over the folds at their last epoch: {number(folds['mean'])}. The smoothed mean is best at "
                    f"epoch {folds['best_epoch']}. {_cut_words(folds['curve'])}"
                ),
                "svg": charts.folds(folds),
            }
        )
    history = read_json(at["train"].path / "history.json") if "train" in at else None
    if not history:
        return found
    metrics = {name: curve for name, curve in history["metrics"].items() if curve}
    stopped = f" Stopped early: {history['stopped']}." if history.get("stopped") else ""
    for place, metric in enumerate(_by_interest(metrics, (evaluation or {}).get("primary", ""))[:CURVES]):
        said = f"{history['epochs']} epoch{'s' * (history['epochs'] != 1)}.{stopped} " if place == 0 else ""
        title = f"Final fit: {metric} by epoch" if place == 0 else f"{metric} by epoch"
        words = said + _cut_words(metrics[metric])
        found.append({"title": title, "words": words, "svg": charts.history(metrics, metric)})
    return found


def _by_interest(metrics: Mapping[str, Sequence[float]], primary: str) -> list[str]:
    """The metrics to draw: the one that decides, the loss, the others; the learning rate last, if it changes."""
    rate = "learning_rate"
    plain = [name for name in metrics if not (name.startswith("val_") and name.removeprefix("val_") in metrics)]
    order = [primary, "loss", *(name for name in plain if name != rate)]
    order += [rate] if len(set(metrics.get(rate, ()))) > 1 else []
    return [name for name in dict.fromkeys(order) if name in metrics]


def _cut_words(curve: Sequence[float]) -> str:
    return f"The first {charts.skipped(curve)} epochs are not drawn." if charts.skipped(curve) else ""


def samples(model: Path) -> list[dict[str, Any]]:
    """What the model made while it was trained: name of a sample → pictures and texts by epoch.

    Args:
        model: Output of `train`, with the journal's `samples/<epoch>-<name>.png` and `.txt`.

    Returns:
        Names in alphabetical order, each with `EPOCHS` epochs at most, the first and the last among them, within `KEPT`
        bytes for all of them together.
    """
    files = sorted((model / "samples").glob("*-*.*")) if (model / "samples").is_dir() else []
    named: dict[str, list[tuple[int, Path]]] = {}
    for path in files:
        epoch, _, name = path.stem.partition("-")
        if epoch.isdecimal() and path.suffix in (".png", ".txt"):
            named.setdefault(name, []).append((int(epoch), path))
    found = []
    for name, of_name in sorted(named.items()):
        shown = _spread(of_name, EPOCHS)
        # Half as many until they fit: the first and the last one are what a reader compares.
        while len(shown) > 2 and sum(path.stat().st_size for _, path in shown) > KEPT / len(named):
            shown = _spread(shown, len(shown) // 2 + 1 if len(shown) > 3 else 2)
        found.append({"name": name, "epochs": [_sample(epoch, path) for epoch, path in shown]})
    return found


def shown(folder: Path, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a workload that measures by itself gave people to look at: names, with a picture or a text each."""
    found, room = [], KEPT
    for one in evaluation.get("samples") or ():
        path = folder / one["file"]
        room -= path.stat().st_size if path.is_file() else room
        if room > 0:
            found.append({"name": one["name"], **_sample(0, path)})
    return found + _sentences(read_json(folder / "sentences.json") or [])


def _sentences(decoded: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Some of the sentences that a model was asked for (see `Functions.decode`), spread over all of them."""
    chosen = decoded[:: max(len(decoded) // SENTENCES, 1)][:SENTENCES]
    names = {"source": "given", "truth": "wanted", "answer": "answered"}
    return [
        {
            "name": f"test example {one['example']}",
            "text": "\n".join(f"{name}: {one[key]}" for key, name in names.items() if key in one),
            "uri": None,
        }
        for one in chosen
    ]


def _spread(found: list[tuple[int, Path]], count: int) -> list[tuple[int, Path]]:
    """At most so many of them, evenly spread from the first to the last."""
    if len(found) <= count:
        return found
    return [found[round(place * (len(found) - 1) / (count - 1))] for place in range(count)]


def _sample(epoch: int, path: Path) -> dict[str, Any]:
    if path.suffix == ".txt":
        text = path.read_text(errors="replace")
        return {"epoch": epoch, "text": text[:TEXT] + ("…" if len(text) > TEXT else ""), "uri": None}
    return {"epoch": epoch, "text": None, "uri": pages.picture(path.read_bytes(), path.suffix)}


# ----------------------------------------------------------------------------------------------- formats

MEASURED = {
    "max_difference": ("largest difference", number),
    "relative_difference": ("relative", number),
    "mean_difference": ("mean difference", number),
    "agreement": ("same answers", pages.percent),
    "metric": ("metric", number),
    "metric_difference": ("metric lost", number),
    "bytes": ("size", pages.size),
    "zipped_bytes": ("zipped", pages.size),
    "peak_bytes": ("memory", pages.size),
    "milliseconds_loading": ("ms to load", number),
    "milliseconds": ("ms for one", number),
    "milliseconds_p95": ("95 % within ms", number),
    "milliseconds_together": ("ms for all at once", number),
}
"""What may be known of an exported format: key → heading, and how it is written."""


def formats(parity: Mapping[str, Any]) -> dict[str, Any]:
    """The table of the exported formats, and of what a SavedModel is asked besides: the columns of which anything is
    known, and a row for each."""
    others = (parity.get("signatures") or {}).items()
    found = {**parity["formats"], **{f"signature {name}": one for name, one in others}}

    def there(one: Mapping[str, Any], key: str) -> bool:
        return isinstance(one.get(key), int | float)

    known = {key: how for key, how in MEASURED.items() if any(there(one, key) for one in found.values())}
    rows = [
        {
            "name": name,
            "passed": one.get("passed"),
            "problem": one.get("problem") or "",
            "cells": [written(one[key]) if there(one, key) else "–" for key, (_, written) in known.items()],
        }
        for name, one in found.items()
    ]
    return {"columns": [heading for heading, _ in known.values()], "rows": rows}
