"""What a report shows of each output: metrics beside those of naive answers, charts, confusions, the worst errors.

All of it is drawn from `evaluation.json` and `predictions.npz`; a part of them that is missing is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact
from headrace.errors import DataError
from headrace.jobs import Job
from headrace.measuring.words import title
from headrace.showing import charts, pages
from headrace.showing.recalling import Recalled, of_records, recalled, vocabulary
from headrace.spec import Feature

if TYPE_CHECKING:
    import numpy as np

    from headrace.looking.sheets import Shown

    Array = np.ndarray[Any, Any]

WORST = 12
"""Errors that are shown with their inputs."""
SQUARE = 20
"""Classes up to which a confusion matrix is drawn whole; of more classes the largest confusions are listed."""
LISTED = 20
"""Confusions, and classes, that are listed."""
SERIES, LINES = 4, 6
"""Forecasts, and decoded sequences, that are shown."""
TILES = 8
"""Pictures of answers that are pictures."""
PLACES = 5_000
"""Examples that are laid out by their inputs."""
STEPS = 300
"""Examples of a chart that shows them in their order."""
LEAST_SIDE = 8
"""Numbers of two dimensions, both at least so long, are a picture."""


@dataclass(frozen=True)
class Outcome:
    """What is shown of one output."""

    name: str
    title: str
    """With its unit: "MEDV (1,000 dollars)"."""
    task: str
    said: Sequence[str] = ()
    figures: Sequence[Mapping[str, Any]] = ()
    confusion: Mapping[str, Any] | None = None
    """`classes` and `rows` of cells; or `pairs`, the largest confusions, if there are many classes."""
    per_class: Sequence[Mapping[str, Any]] = ()
    sequences: Sequence[Mapping[str, Any]] = ()
    worst: Sequence[Mapping[str, Any]] = ()
    """Each with the example `shown`, where its inputs can be had."""
    columns: Sequence[str] = ()
    """The names of the inputs' values, if they fit into one table with the errors."""
    why_no_inputs: str = ""
    pictures: Sequence[Mapping[str, Any]] = ()


def outcomes(job: Job, made: Mapping[str, Artifact], evaluation: Mapping[str, Any]) -> list[Outcome]:
    """All outputs that were evaluated.

    Args:
        job: The job.
        made: Node → its artifact: `evaluate`, and as far as they are at hand `download` and `preprocess`.
        evaluation: The contents of `evaluation.json`.
    """
    answers = _predictions(made["evaluate"])
    return [_outcome(job, made, name, said, *answers.get(name, (None, None))) for name, said in _outputs(evaluation)]


def _outputs(evaluation: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(evaluation.get("outputs", {}).items())


def _predictions(evaluation: Artifact) -> dict[str, tuple[Array, Array]]:
    """Target → truth and answers (examples, …), of the first test examples at least."""
    import numpy as np

    path = evaluation.path / "predictions.npz"
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        names = [name.removeprefix("truth/") for name in arrays.files if name.startswith("truth/")]
        return {name: (arrays[f"truth/{name}"], arrays[f"answer/{name}"]) for name in names}


def _outcome(
    job: Job,
    made: Mapping[str, Artifact],
    name: str,
    said: Mapping[str, Any],
    truth: Array | None,
    answers: Array | None,
) -> Outcome:
    task = said.get("task", "")
    words = in_words(job, name)
    worst = list(said.get("worst") or [])
    if truth is not None and answers is not None and not worst and task == "regression":
        worst = worst_errors(truth, answers)
    worst = worst[:WORST]
    found = _recalled(job, made, [one["example"] for one in worst])
    shown = found.shown()
    figures = _curves_of_classes(said, words)
    more: dict[str, Any] = {}
    if truth is not None and answers is not None and len(truth):
        drawn = _Drawn(job, made, name, words, truth, answers, said)
        figures = [*_of_task(task, drawn), *figures]
        more = {"pictures": _pictures(task, drawn, worst), "sequences": _sequences(task, drawn)}
    columns = _columns(list(shown.values()))
    return Outcome(
        name=name,
        title=words,
        task=task,
        said=list(said.get("said") or []),
        figures=figures,
        confusion=confusion(said),
        per_class=list(said.get("per_class") or [])[: 5 * LISTED],
        worst=[{**one, "shown": shown.get(one["example"])} for one in worst],
        columns=columns,
        why_no_inputs=found.problem if worst else "",
        **more,
    )


def in_words(job: Job, name: str) -> str:
    """Name and unit of what is predicted: "MEDV (1,000 dollars)"."""
    feature = job.origin.named("target").get(name)
    column = feature.columns[0] if feature and len(feature.columns) == 1 else None
    unit = column.unit if column else feature.unit if feature else ""
    return f"{column.name if column else name}{f' ({unit})' if unit else ''}"


# ----------------------------------------------------------------------------------------------- metrics


def metrics(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table of metrics, each with what every naive answer reaches and how far that is from the model.

    A gain is positive where the model is better, whichever direction that is.
    """
    larger = evaluation.get("larger_is_better", ())
    rows = []
    for name, value in evaluation["metrics"].items():
        beside = []
        for theirs in evaluation["baselines"].values():
            other = theirs.get(name)
            gain = None if value is None or other is None else (value - other) * (1 if name in larger else -1)
            beside.append({"value": other, "gain": gain})
        rows.append(
            {
                "name": name,
                "title": title(name),
                "value": value,
                "interval": evaluation["intervals"].get(name),
                "baselines": beside,
                "primary": name == evaluation.get("primary"),
            }
        )
    return rows


def slices(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The slices by what they are made by, each with its metric and where its interval lies among all of them."""
    primary = evaluation.get("primary", "")
    found = [one for one in evaluation.get("slices") or [] if one["metrics"].get(primary) is not None]
    ends = [one["metrics"][primary] for one in found]
    for one in found:
        ends += one.get("intervals", {}).get(primary) or []
    overall = evaluation["metrics"].get(primary)
    ends += [overall] if overall is not None else []
    low, high = min(ends, default=0), max(ends, default=1)

    def place(value: float | None) -> float | None:
        return None if value is None else 100 * (value - low) / (high - low) if high > low else 50.0

    groups: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        bounds = one.get("intervals", {}).get(primary)
        row = {
            "slice": one["slice"],
            "examples": one["examples"],
            "value": one["metrics"][primary],
            "interval": bounds,
            "places": [place(bound) for bound in bounds] if bounds else None,
            "place": place(one["metrics"][primary]),
            "overall": place(overall),
            "small": bool(one.get("small")),
            "worse": bool(one.get("worse")),
        }
        groups.setdefault(one["by"], []).append(row)
    return [{"by": by, "rows": rows, "metric": title(primary)} for by, rows in groups.items()]


# --------------------------------------------------------------------------------------------- confusion


def confusion(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """The confusion matrix to be drawn: whole, or its largest confusions if there are many classes."""
    counts = said.get("confusion")
    if not counts:
        return None
    names = [str(name) for name in said.get("classes") or range(len(counts))]
    totals = [sum(row) for row in counts]
    if len(counts) <= SQUARE:
        rows = [
            {
                "name": name,
                "cells": [
                    {"count": count, "share": count / total if total else 0.0, "right": i == j}
                    for j, count in enumerate(row)
                ],
            }
            for i, (name, row, total) in enumerate(zip(names, counts, totals, strict=False))
        ]
        return {"classes": names, "rows": rows}
    pairs = [
        {"truth": names[i], "answer": names[j], "count": count, "share": count / totals[i]}
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return {"classes": names, "pairs": sorted(pairs, key=lambda pair: -float(pair["count"]))[:LISTED]}


def _curves_of_classes(said: Mapping[str, Any], words: str) -> list[dict[str, Any]]:
    """How well probabilities tell classes apart, and how far they can be trusted."""
    figures = []
    if roc := said.get("roc"):
        svg = charts.rates(roc, ("false alarms", "cases found"), f"ROC curve: {words}", chance=True)
        note = "Share of the cases that are found, by the share of the others that are taken for one, over all "
        figures.append({"title": "ROC curve", "svg": svg, "words": f"{note}thresholds."})
    if curve := said.get("precision_recall"):
        svg = charts.rates(curve, ("recall", "precision"), f"precision and recall: {words}")
        note = "How many of those that are taken for a case are one, by the share of the cases that are found."
        figures.append({"title": "Precision and recall", "svg": svg, "words": note})
    if bins := said.get("calibration"):
        svg = charts.calibration(bins, f"calibration: {words}")
        note = "On the line answers are right as often as they are sure; below it the model is too sure of itself. "
        figures.append({"title": "Calibration", "svg": svg, "words": f"{note}The larger a point, the more examples."})
    return figures


# -------------------------------------------------------------------------------------- charts of answers


@dataclass(frozen=True)
class _Drawn:
    """What the charts of one output are drawn from."""

    job: Job
    made: Mapping[str, Artifact]
    name: str
    words: str
    truth: Array
    answers: Array
    said: Mapping[str, Any]

    @property
    def target(self) -> Feature:
        """The target as records hold it."""
        return Feature.model_validate(self.said.get("target") or {"role": "target"})


def _of_task(task: str, drawn: _Drawn) -> list[dict[str, Any]]:
    if task in ("binary", "multiclass"):
        return _plane(drawn)
    comparable = drawn.truth.size == drawn.answers.size and drawn.truth.dtype.kind in "fiu"
    if not comparable or _is_picture(drawn):
        return []
    if task == "forecasting":
        return _forecasts(drawn)
    return _numbers(drawn) if task in ("regression", "own") else []


def _numbers(drawn: _Drawn) -> list[dict[str, Any]]:
    true, given = _flat(drawn)
    each = "one example" if true.shape[1] == 1 else "one number of an example"
    few = f" Of {true.size:,} points the largest errors and some others are drawn." if true.size > charts.POINTS else ""
    figures = [
        {
            "title": "Predictions and truth",
            "svg": charts.predictions(true, given, drawn.words),
            "words": f"Each point is {each} of the test split; on the line prediction and truth are equal.{few}",
        },
        {
            "title": "Residuals",
            "svg": charts.residuals(true, given, drawn.words),
            "words": "A pattern in them is something that the model has not learned.",
        },
        {
            "title": "Sizes of the errors",
            "svg": charts.histogram((given - true).reshape(-1), f"prediction minus truth: {drawn.words}"),
            "words": "Beside the line lie predictions that are too low (left) or too high (right).",
        },
    ]
    inputs = _small_inputs(drawn, 1) if true.shape[1] == 1 else None
    if inputs is not None:
        values, names = inputs
        rows = len(values)
        svg = charts.fitted(values[:, 0], true[:rows, 0], given[:rows, 0], (names[0], drawn.words))
        note = "What the model answers to each value of its only input."
        figures.insert(0, {"title": "What was learned", "svg": svg, "words": note})
    return figures


def _forecasts(drawn: _Drawn) -> list[dict[str, Any]]:
    import numpy as np

    true, given = _flat(drawn)
    if true.shape[1] == 1:
        first = slice(0, STEPS)
        return [
            {
                "title": "Forecasts in their order",
                "svg": charts.along(true[first, 0], given[first, 0], drawn.words),
                "words": f"The first {min(len(true), STEPS):,} test examples.",
            },
            *_numbers(drawn),
        ]
    steps, channels = drawn.truth.shape[1], math.prod(drawn.truth.shape[2:])
    true, given = (values.reshape(len(values), steps, channels) for values in (true, given))
    errors = drawn.said.get("horizons") or np.abs(given - true).mean(axis=(0, 2)).tolist()
    figures = [
        {
            "title": "Error by step",
            "svg": charts.horizon(errors, f"mean absolute error: {drawn.words}"),
            "words": "How far off the forecast is, the further it looks ahead.",
        }
    ]
    for row in np.unique(np.linspace(0, len(true) - 1, SERIES).round().astype(int)).tolist():
        label = f"forecast from test example {row}: {drawn.words}"
        svg = charts.forecast(true[row, :, 0], given[row, :, 0], label)
        words = "The first of its channels." if channels > 1 else ""
        figures.append({"title": f"Forecast from test example {row}", "svg": svg, "words": words})
    return figures


def _flat(drawn: _Drawn) -> tuple[Array, Array]:
    """Truth and answers as float64 (examples, numbers)."""
    rows = len(drawn.truth)
    return drawn.truth.reshape(rows, -1).astype("float64"), drawn.answers.reshape(rows, -1).astype("float64")


def _plane(drawn: _Drawn) -> list[dict[str, Any]]:
    """The answers in the plane of the inputs, if these are two numbers."""
    import numpy as np

    inputs = _small_inputs(drawn, 2)
    if inputs is None:
        return []
    points, names = inputs
    answers, truth = (values[: len(points)].reshape(len(points), -1) for values in (drawn.answers, drawn.truth))
    scores = answers.astype("float64")
    if scores.shape[1] == 1:
        threshold = (drawn.said.get("how") or {}).get("threshold", 0.5)
        answer, margins = (scores[:, 0] >= threshold).astype(int), (scores - threshold).T
    else:
        answer = scores.argmax(axis=1)
        others = np.where(np.eye(scores.shape[1], dtype=bool)[None], -np.inf, scores[:, None, :]).max(axis=2)
        margins = (scores - others).T
    known = truth.argmax(axis=1) if truth.shape[1] > 1 else truth[:, 0].astype(int)
    classes = drawn.target.classes or drawn.said.get("classes") or ()
    labels = [str(classes[number]) if number < len(classes) else str(number) for number in answer.tolist()]
    svg = charts.plane(points, labels, answer != known, margins, (names[0], names[1]))
    words = "Each point is one test example, coloured by the answer. On the line the answer changes: it is drawn "
    return [{"title": "Where the model decides", "svg": svg, "words": f"{words}between the answers to these examples."}]


def _small_inputs(drawn: _Drawn, size: int) -> tuple[Array, tuple[str, ...]] | None:
    """The model's inputs (examples, size) as records hold them, and their names, if they are so many numbers."""
    import numpy as np

    from headrace.describing.described import position_names
    from headrace.records.inputs import read_info

    records = drawn.made.get("preprocess")
    if records is None:
        return None
    try:
        inputs = read_info(records.path).named("input")
        plain = [f for f in inputs.values() if not f.ragged and f.dtype == "float32" and f.kind == "number"]
        if len(plain) < len(inputs) or sum(feature.size for feature in plain) != size:
            return None
        rows = min(len(drawn.truth), PLACES)
        found = of_records(records, range(rows))
    except DataError:
        return None
    parts = [np.asarray(found.arrays[name]).reshape(rows, -1) for name in inputs]
    names = tuple(label for name, feature in inputs.items() for label in position_names(name, feature))
    return np.concatenate(parts, axis=1).astype(np.float64), names


# -------------------------------------------------------------------------- answers that are pictures, or texts


def _is_picture(drawn: _Drawn) -> bool:
    shape = drawn.truth.shape[1:]
    channels = shape[2] if len(shape) == 3 else 1
    return len(shape) in (2, 3) and min(shape[:2]) >= LEAST_SIDE and channels in (1, 3, 4)


def _pictures(task: str, drawn: _Drawn, worst: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Masks over their images, or pictures with what the model makes of them: the worst ones first."""
    import numpy as np

    from headrace.looking.pictures import SHARP, background, is_small, overlay, sheet, tile

    if not _is_picture(drawn):
        return []
    there = [one["example"] for one in worst if one["example"] < len(drawn.truth)]
    spread = np.unique(np.linspace(0, len(drawn.truth) - 1, TILES).round().astype(int)).tolist()
    rows = list(dict.fromkeys([*there[: TILES // 2], *spread]))[:TILES]
    truth, answers = drawn.truth[rows], drawn.answers[rows]
    if task == "segmentation":
        masks = _classes(answers, truth)
        images = _images(drawn, rows)
        clear = background(drawn.target.classes)
        tiles = [
            overlay(image, true, given, clear=clear)
            for image, true, given in zip(images, truth.astype(int), masks, strict=True)
        ]
        sharp = max(truth.shape[1:3]) <= SHARP
        shown = "image, truth, answer" if images[0] is not None else "truth, answer"
        made = sheet([tiles[start : start + 2] for start in range(0, len(tiles), 2)], sharp)
        note = f"Each shows {shown}. Test examples {', '.join(map(str, rows))}, in lines of two."
    elif truth.size == answers.size and task in ("regression", "own"):
        sharp = is_small(truth[0])
        made = sheet(
            [[tile(value) for value in truth], [tile(value.reshape(truth.shape[1:])) for value in answers]], sharp
        )
        note = f"Above the truth, below what the model makes of it: test examples {', '.join(map(str, rows))}."
    else:
        return []
    uri = pages.picture(made.data, made.suffix)
    return [{"title": "Answers as pictures", "uri": uri, "width": made.width, "height": made.height, "words": note}]


def _classes(answers: Array, truth: Array) -> Array:
    """Class of each pixel (examples, height, width), of probabilities of classes or of one class."""
    if answers.ndim == truth.ndim and answers.shape[-1] in (1, truth.shape[-1]):
        return (answers.reshape(truth.shape) >= 0.5).astype(int)
    return answers.argmax(axis=-1)


def _images(drawn: _Drawn, rows: Sequence[int]) -> list[Any]:
    """The input images of some examples, as records hold them; None for each if there are none."""
    records = drawn.made.get("preprocess")
    try:
        found = of_records(records, rows) if records else Recalled()
    except DataError:
        found = Recalled()
    for name, feature in found.features.items():
        if feature.role == "input" and feature.kind == "image":
            at = {int(row): found.arrays[name][place] for place, row in enumerate(found.arrays["row"])}
            return [at.get(row) for row in rows]
    return [None] * len(rows)


def _sequences(task: str, drawn: _Drawn) -> list[dict[str, Any]]:
    """Some sequences of tokens, decoded: what was asked for, and what was answered."""
    import numpy as np

    records = drawn.made.get("preprocess")
    whole = drawn.truth.ndim >= 2 and drawn.truth.dtype.kind in "iu" and task in ("sequence", "language_model")
    if not whole or records is None:
        return []
    given = drawn.answers.argmax(axis=-1) if drawn.answers.ndim > drawn.truth.ndim else drawn.answers
    words = list(drawn.target.classes) or vocabulary(records)
    rows = np.unique(np.linspace(0, len(drawn.truth) - 1, LINES).round().astype(int)).tolist()
    shown = _recalled(drawn.job, drawn.made, rows).shown()
    return [
        {
            "row": row,
            "input": " · ".join(text for _, text in (*shown[row].texts, *shown[row].cells)) if row in shown else "",
            "truth": _decoded(drawn.truth[row], words, drawn.truth[row]),
            "answer": _decoded(given[row].astype(int), words, drawn.truth[row]),
        }
        for row in rows
    ]


def _decoded(tokens: Array, words: Sequence[str], truth: Array) -> str:
    """Tokens as words, without those at the end where the truth is only filled up (0)."""
    import numpy as np

    from headrace.looking.sheets import excerpt

    flat = tokens.reshape(-1)
    filled = np.flatnonzero(truth.reshape(-1))
    flat = flat[: filled[-1] + 1] if len(filled) else flat
    return excerpt(" ".join(words[n] if 0 <= n < len(words) else str(n) for n in flat.tolist()))


# ------------------------------------------------------------------------------------------ worst errors


def worst_errors(truth: Array, answers: Array) -> list[dict[str, Any]]:
    """The test examples whose number is predicted worst; none where more than one number is predicted.

    Args:
        truth: (examples, …)
        answers: (examples, …)
    """
    if truth.size != len(truth) or answers.size != len(truth):
        return []
    true, given = (values.reshape(len(truth)).astype("float64") for values in (truth, answers))
    error = given - true
    return [
        {"example": int(i), "truth": float(true[i]), "answer": float(given[i]), "error": float(error[i])}
        for i in abs(error).argsort(kind="stable")[::-1][:WORST]
    ]


def _recalled(job: Job, made: Mapping[str, Artifact], rows: Sequence[int]) -> Recalled:
    if "preprocess" not in made:
        return Recalled()
    return recalled(job, made.get("download"), made["preprocess"], rows)


def _columns(shown: Sequence[Shown]) -> list[str]:
    """The names of the inputs' values, if they are numbers and short texts only."""
    plain = shown and not any(one.pictures or one.texts or one.series for one in shown)
    return [label for label, _ in shown[0].cells] if plain else []
