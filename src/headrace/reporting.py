"""Stage `report`: everything about a run in one HTML file that opens from disk, loads nothing and needs no script."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace import fingerprints, pages
from headrace.artifacts import MANIFEST, Artifact, read_json
from headrace.jobs import Job
from headrace.pages import number
from headrace.spec import Variant
from headrace.stages import Room, stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = 150_000
"""Bytes up to which a sheet of samples stands in the report; the page of the data has it in any case."""
WORST = 10
"""Test examples in the table of the worst errors."""


@stage(
    # It shows the settings, the code's digests and the versions, so it depends on them, and not on results only.
    settings=tuple(name for name in Variant.model_fields if name != "functions"),
    functions=("read", "preprocess", "model"),
    versions=("tensorflow", "keras", "numpy", "matplotlib"),
    facts=lambda job: {
        "job": job.title,
        "data_asked_for": job.data,
        "look": pages.look(),
    },
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

    evaluation = contents("evaluate", "evaluation.json")
    publication = contents("publish", "publication.json")
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
        target=target_in_words(job, evaluation),
        figures=_figures(job, at, evaluation, contents("cross_validate", "cross_validation.json")),
        worst=worst_errors(at["evaluate"]) if "evaluate" in at else [],
        **_data(at.get("examine")),
        parity=contents("export", "parity.json"),
        drift=contents("monitor", "drift.json"),
        lineage=_lineage(job, made, contents("download", "data.json")),
    )


# -------------------------------------------------------------------------------------------------- in words


def target_in_words(job: Job, evaluation: Mapping[str, Any] | None) -> str:
    """Name and unit of what is predicted: "MEDV (1,000 dollars)"."""
    targets = job.origin.named("target")
    name = next(iter((evaluation or {}).get("outputs", targets)), "")
    feature = targets.get(name)
    column = feature.columns[0] if feature and len(feature.columns) == 1 else None
    unit = column.unit if column else feature.unit if feature else ""
    return f"{column.name if column else name}{f' ({unit})' if unit else ''}"


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


def worst_errors(evaluation: Artifact) -> list[dict[str, float]]:
    """The test examples that the model gets most wrong: index, truth, prediction, error."""
    truth, predicted = _predictions(evaluation)
    if truth is None or truth.shape[1] != 1:
        return []
    error = (predicted - truth)[:, 0]
    return [
        {"index": int(i), "truth": float(truth[i, 0]), "predicted": float(predicted[i, 0]), "error": float(error[i])}
        for i in abs(error).argsort(kind="stable")[::-1][:WORST]
    ]


def _predictions(evaluation: Artifact) -> tuple[Any, Any]:
    """Truth and prediction, both float64 of shape (examples, size); None and None where there are none."""
    import numpy as np

    path = evaluation.path / "predictions.npz"
    if not path.is_file():
        return None, None
    with np.load(path, allow_pickle=False) as arrays:
        names = [next(name for name in arrays.files if name.startswith(side)) for side in ("truth/", "answer/")]
        return tuple(arrays[name].reshape(len(arrays[name]), -1).astype("float64") for name in names)


# -------------------------------------------------------------------------------------------------- charts

# Stand-ins that matplotlib writes into the SVG and the page replaces by its own colours, light or dark.
INK, FAINT, GRID, MAIN, ACCENT = "#101112", "#202122", "#303132", "#404142", "#505152"
_VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--line", MAIN: "--main", ACCENT: "--accent"}


def _figures(
    job: Job,
    at: Mapping[str, Artifact],
    evaluation: Mapping[str, Any] | None,
    folds: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """The charts: title, words below it, and the SVG."""
    found = []
    if folds:
        found.append(
            {
                "title": f"Cross-validation: {folds['metric']} of {len(folds['folds'])} folds",
                "words": (
                    f"Mean over the folds at their last epoch: {number(folds['mean'])}. The smoothed mean is best at "
                    f"epoch {folds['best_epoch']}. {_cut_words(folds['curve'])}"
                ),
                "svg": draw_folds(folds),
            }
        )
    history = read_json(at["train"].path / "history.json") if "train" in at else None
    if history:
        wanted = (evaluation or {}).get("primary", "")
        metric: str = wanted if wanted in history["metrics"] else "loss"
        stopped = f" Stopped early: {history['stopped']}." if history.get("stopped") else ""
        found.append(
            {
                "title": f"Final fit: {metric} by epoch",
                "words": f"{history['epochs']} epochs.{stopped} {_cut_words(history['metrics'][metric])}",
                "svg": draw_history(history["metrics"], metric),
            }
        )
    if "evaluate" in at:
        truth, predicted = _predictions(at["evaluate"])
        if truth is not None:
            words = "Each point is one example of the test split; on the line prediction and truth are equal."
            svg = draw_predictions(truth, predicted, target_in_words(job, evaluation))
            found.append({"title": "Predictions and truth", "words": words, "svg": svg})
    return found


SKIPPED = 10
"""Epochs at the beginning that are not drawn if there are many: they would press the rest flat."""


def skipped(curve: Sequence[float]) -> int:
    """How many epochs at the beginning of a curve are not drawn."""
    return SKIPPED if len(curve) > 4 * SKIPPED else 0


def _cut_words(curve: Sequence[float]) -> str:
    return f"The first {skipped(curve)} epochs are not drawn." if skipped(curve) else ""


def draw_folds(folds: Mapping[str, Any]) -> Any:
    """The curve of each fold, their mean, the smoothed mean and the epoch at which it is best."""
    skip = skipped(folds["curve"])
    with canvas(5.6, 3.6) as (figure, axes):
        for number_, fold in enumerate(folds["folds"]):
            label = "folds" if number_ == 0 else None
            draw_line(axes, fold["curve"], skip, color=FAINT, linewidth=0.8, alpha=0.7, label=label)
        draw_line(axes, folds["curve"], skip, color=MAIN, linewidth=1.6, label="mean of the folds")
        draw_line(axes, folds["smoothed"], skip, color=ACCENT, linewidth=2.2, label="smoothed")
        # The smoothed curve comes from far above: it would press the others flat.
        drawn = [value for fold in folds["folds"] for value in fold["curve"][skip:]]
        axes.set_ylim(min(drawn) * 0.97, max(drawn) * 1.03)
        axes.axvline(folds["best_epoch"], color=ACCENT, linestyle=(0, (2, 2)), linewidth=1.4, label="best epoch")
        axes.set(xlabel="epoch", ylabel=folds["metric"])
        axes.legend()
        return to_svg(figure, "folds")


def draw_history(metrics: Mapping[str, Sequence[float]], metric: str) -> Any:
    """The curve of one metric in training, and in validation if it was watched."""
    skip = skipped(metrics[metric])
    with canvas(5.6, 3.6) as (figure, axes):
        draw_line(axes, metrics[metric], skip, color=MAIN, linewidth=1.8, label="training")
        if f"val_{metric}" in metrics:
            draw_line(axes, metrics[f"val_{metric}"], skip, color=ACCENT, linewidth=1.8, label="validation")
            axes.legend()
        axes.set(xlabel="epoch", ylabel=metric)
        return to_svg(figure, "history")


def draw_predictions(truth: Any, predicted: Any, target: str) -> Any:
    """Predictions against truth, both (examples, size)."""
    low, high = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
    with canvas(5.6, 4.8) as (figure, axes):
        axes.plot([low, high], [low, high], color=FAINT, linewidth=1, linestyle="--")
        # Thousands of points would make the file heavy: those beyond are drawn as one picture inside of the SVG.
        dense = truth.size > 3000
        axes.scatter(truth, predicted, s=14, color=MAIN, alpha=0.6, linewidths=0, rasterized=dense)
        axes.set(xlabel=f"truth: {target}", ylabel="prediction", aspect="equal")
        return to_svg(figure, "predictions")


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this many inches, drawn without pyplot and its global figures."""
    import matplotlib
    from matplotlib.figure import Figure

    look = {
        "axes.edgecolor": GRID,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "font.size": 9,
        "legend.frameon": False,
        "text.color": INK,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        # Text stays text, in the reader's own fonts.
        "svg.fonttype": "none",
    }
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def draw_line(axes: Axes, curve: Sequence[float], skip: int, **style: Any) -> None:
    """Draw a curve over its epochs, without those at the beginning."""
    axes.plot(range(skip + 1, len(curve) + 1), curve[skip:], **style)


def to_svg(figure: Figure, name: str) -> Any:
    """The figure as SVG to stand in a page, safe to insert: matplotlib escapes all text."""
    import matplotlib
    from markupsafe import Markup

    buffer = io.StringIO()
    # The salt makes ids equal from run to run, and different from those of other figures on the page.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    # Only the picture's proportions count, the page gives it its width.
    opening = rf'<svg viewBox="\1" role="img" aria-label="{name}">'
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', opening, text, count=1)
    return Markup(text)
