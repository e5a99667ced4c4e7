"""What people see of answers that are classes: tables, curves, the worst errors, and rates in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.measuring.resampling import Array
from headrace.measuring.sums import auc

if TYPE_CHECKING:
    from headrace.measuring.tasks import Expected

WORST = 24
"""Examples that are shown of the worst."""
POINTS = 200
"""Of a curve."""
ENOUGH = 20
"""Examples of a class that sentences name as the hardest, at least."""
SURE = 0.9
"""From this probability on, sentences call an answer sure."""

Table = list[dict[str, Any]]


# ------------------------------------------------------------------------------------------ tables and curves


def confusion(truth: Array, answer: Array, classes: int) -> list[list[int]]:
    """How often each class (rows) was answered as each (columns)."""
    counts = np.bincount(truth * classes + answer, minlength=classes * classes)
    return [[int(count) for count in row] for row in counts.reshape(classes, classes)]


def binned(confidence: Array, bins: int) -> Array:
    """Number of the bin of each probability, of bins of equal width."""
    return np.clip((confidence * bins).astype(np.int64), 0, bins - 1)


def calibration(confidence: Array, right: Array, bins: int) -> Table:
    """How sure answers are, and how often they are right, in bins of equal width; empty bins are left out."""
    where = binned(confidence, bins)
    return [
        {
            "from": number / bins,
            "to": (number + 1) / bins,
            "examples": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
        }
        for number in range(bins)
        if (inside := where == number).any()
    ]


def _steps(truth: Array, score: Array) -> tuple[Array, Array]:
    """Cases and others that score at least as high as each score that occurs, from the highest on."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = np.cumsum(truth[order])[last]
    return hits, last + 1 - hits


def _curve(x: Array, y: Array) -> dict[str, list[float]]:
    """A curve of at most `POINTS` points, first and last among them."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int))
    return {"x": [float(value) for value in x[kept]], "y": [float(value) for value in y[kept]]}


def roc(truth: Array, score: Array) -> dict[str, list[float]] | None:
    """Share of the others that are taken for cases (x), and of the cases that are found (y), over all thresholds."""
    if truth.all() or not truth.any():
        return None
    hits, alarms = _steps(truth, score)
    return _curve(np.append(0, alarms / (~truth).sum()), np.append(0, hits / truth.sum()))


def precision_recall(truth: Array, score: Array) -> dict[str, list[float]] | None:
    """Share of the cases that are found (x), and of what is taken for one that is (y), over all thresholds."""
    if not truth.any():
        return None
    hits, alarms = _steps(truth, score)
    return _curve(hits / truth.sum(), hits / (hits + alarms))


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def per_class(truth: Array, answer: Array, names: Sequence[str], scores: Array | None = None) -> Table:
    """Each class by itself: how often it occurs, is found and is claimed rightly; None where that is undefined."""
    count = len(names)
    cases, claims = (np.bincount(numbers, minlength=count) for numbers in (truth, answer))
    hits = np.bincount(truth[truth == answer], minlength=count)
    table = [_entry(name, *row) for name, *row in zip(names, hits, claims, cases, strict=True)]
    if scores is not None:
        once = np.ones(len(truth))
        for k, entry in enumerate(table[: scores.shape[1]]):
            entry["auc"] = _defined(auc(truth == k, scores[:, k], once))
    return table


def per_label(truth: Array, said: Array, score: Array, names: Sequence[str]) -> Table:
    """Each of several labels by itself."""
    once = np.ones(len(truth))
    rows = zip(names, (truth & said).sum(axis=0), said.sum(axis=0), truth.sum(axis=0), strict=True)
    return [
        _entry(name, *row) | {"auc": _defined(auc(truth[:, k], score[:, k], once))}
        for k, (name, *row) in enumerate(rows)
    ]


def _entry(name: str, hits: Any, claims: Any, cases: Any) -> dict[str, Any]:
    return {
        "class": name,
        "examples": int(cases),
        "precision": _share(hits, claims),
        "recall": _share(hits, cases),
        "f1": _share(2 * hits, claims + cases),
    }


def _defined(value: Array) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plain(value: Any) -> Any:
    """As a JSON value."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def worst(error: Array, truth: Sequence[Any] | Array, answer: Sequence[Any] | Array, confidence: Array | None) -> Table:
    """The examples with the largest errors above 0, the largest first: for wrong answers, the surest.

    Args:
        error: (examples,)
        truth: What each example is, for people.
        answer: What was answered.
        confidence: How sure the answer is (examples,), if that is known.
    """
    order = np.argsort(-error, kind="stable")[:WORST]
    return [
        {
            "example": int(k),
            "error": float(error[k]),
            "truth": _plain(truth[k]),
            "answer": _plain(answer[k]),
            "confidence": None if confidence is None else float(confidence[k]),
        }
        for k in order
        if error[k] > 0
    ]


# -------------------------------------------------------------------------------------------------- sentences


def of(share: float, whole: int) -> str:
    """A share as a count: "22", "0.4", "none", "all"."""
    count = share * whole
    if count in (0, whole):
        return "all" if count else "none"
    if count < 0.1:
        return "fewer than 0.1"
    return f"{count:.1f}".removesuffix(".0") if count < 10 or whole - count < 10 else f"{count:,.0f}"


def of_two(truth: Array, said: Array, names: Sequence[str], threshold: float) -> list[str]:
    """Errors of a decision between two classes."""
    other, case = (f"“{name}”" for name in names)
    cases, claims, hits = truth.sum(), said.sum(), (truth & said).sum()
    lines = [f"Of 1,000 examples like these the model gets {of(float((truth != said).mean()), 1_000)} wrong."]
    if cases:
        lines.append(f"Of 100 that are {case} it misses {of(1 - hits / cases, 100)}.")
    if cases < len(truth):
        alarms = (claims - hits) / (len(truth) - cases)
        lines.append(f"Of 100 that are {other} it takes {of(alarms, 100)} for {case}.")
    if claims:
        lines.append(f"Of 100 that it takes for {case}, {of(hits / claims, 100)} are.")
    return [*lines, f"It answers {case} from a score of {threshold:g} on (the decision threshold)."]


def of_many(truth: Array, answer: Array, names: Sequence[str], table: Table) -> list[str]:
    """Errors of a decision between several classes: how many, where most, and what is taken for what."""
    wrong = truth != answer
    lines = [f"Of 1,000 examples like these the model gets {of(float(wrong.mean()), 1_000)} wrong."]
    if not wrong.any():
        return lines
    enough = min(ENOUGH, max(entry["examples"] for entry in table))
    hardest = min((entry for entry in table if entry["examples"] >= enough), key=lambda entry: entry["recall"])
    missed = of(1 - hardest["recall"], 100)
    lines.append(
        f"It finds “{hardest['class']}” worst: of 100 it misses {missed} ({hardest['examples']:,} in the test split)."
    )
    pairs, counts = np.unique(truth[wrong] * len(names) + answer[wrong], return_counts=True)
    true, taken = divmod(int(pairs[counts.argmax()]), len(names))
    lines.append(
        f"Its most frequent error is to take “{names[true]}” for “{names[taken]}”: {counts.max():,} of the "
        f"{wrong.sum():,} errors."
    )
    return lines


def of_labels(truth: Array, said: Array, names: Sequence[str], threshold: float) -> list[str]:
    """Errors of a decision on each of several labels."""
    lines = [
        f"Of 1,000 examples like these the model gets all {len(names)} labels right for "
        f"{of(float((truth == said).all(axis=1).mean()), 1_000)}.",
    ]
    if truth.any():
        lines.append(f"Of 100 labels that there are it misses {of(1 - (truth & said).sum() / truth.sum(), 100)}.")
    if said.any():
        lines.append(f"Of 100 labels that it gives {of((truth & said).sum() / said.sum(), 100)} are right.")
    return [*lines, f"It gives a label from a score of {threshold:g} on (the decision threshold)."]


def by_confidence(right: Array, confidence: Array) -> list[str]:
    """How far it can be relied on that the model is sure."""
    sure = confidence >= SURE
    if not sure.any():
        return [f"It is never sure: no answer has a probability of {SURE:g} or more."]
    return [
        f"It is sure (a probability of {SURE:g} or more) of {of(float(sure.mean()), 100)} of 100 examples; of 1,000 of "
        f"these it gets {of(float(1 - right[sure].mean()), 1_000)} wrong."
    ]


def by_chance(expected: Mapping[str, Expected]) -> list[str]:
    """What shuffled labels come to."""
    if "accuracy" not in expected:
        return []
    value, (low, high) = expected["accuracy"]
    return [f"The true labels in a drawn order would be right for {value:.1%} ({low:.1%} to {high:.1%})."]


def of_numbers(error: Array) -> list[str]:
    """How far numbers are off.

    Args:
        error: Without its sign (examples,).
    """
    from headrace.measuring.words import short

    half, most = (short(float(value)) for value in np.quantile(error, [0.5, 0.9]))
    return [f"Half of the answers are off by less than {half}, nine of ten by less than {most}."]
