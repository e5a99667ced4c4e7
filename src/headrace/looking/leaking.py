"""Does one column alone give the target away? Judged on examples that the judgement was not learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.describing.described import position_names
from headrace.looking.duplicates import words
from headrace.ragged import Array, Ragged
from headrace.spec import Feature

COLUMNS = 1_024
"""Columns of one feature that are looked at; of a larger one (the pixels of an image), only what sums it up."""
BUCKETS = 64
"""Quantile buckets of a column of numbers."""
CATEGORIES = 1_024
"""Categories of a column of text that are told apart; rarer ones get the answer that fits all."""
SUSPICIOUS = 0.95
"""Skill above which a column is reported: hardly anything that is known beforehand predicts so well by itself."""


Columns = Mapping[tuple[str, str], Array]
"""Feature and column → one value for each example."""


@dataclass(frozen=True)
class Clue:
    """What a column alone says about the target."""

    feature: str
    column: str
    skill: float
    """0: no better than the answer that ignores it; 1: always right. For classes the share of that answer's errors that
    is avoided; for numbers the share of the variance of their ranks that is explained (R²)."""
    equal: bool
    """Whether the column is the target itself."""


def columns(arrays: Mapping[str, Array | Ragged], features: Mapping[str, Feature]) -> dict[tuple[str, str], Array]:
    """What can be held against the target: (feature, column) → one value for each example (rows,).

    Small features give their columns; the large ones, and those whose length differs, what sums them up: brightness and
    contrast of an image, length, mean and last value of a series. Text gives its length, and itself as a category, by a
    digest (uint64).
    """
    found: dict[tuple[str, str], Array] = {}
    for name, feature in features.items():
        if name not in arrays:
            continue
        values = arrays[name]
        if isinstance(values, Ragged):
            found |= {(name, column): summed for column, summed in _of_ragged(values, feature).items()}
        elif feature.dtype == "string":
            parts = values.reshape(len(values), -1)
            lengths = np.array([len(value) for value in values.flat], np.float64).reshape(parts.shape)
            known = words(parts)
            for position, label in enumerate(position_names(name, feature)[:COLUMNS]):
                if feature.kind not in ("image", "mask"):
                    found[name, label] = known[:, position]
                if feature.kind != "category":
                    found[name, "bytes" if parts.shape[1] == 1 else f"bytes of {label}"] = lengths[:, position]
        elif feature.kind in ("image", "mask") or feature.size > COLUMNS:
            flat = values.reshape(len(values), -1).astype(np.float32)
            found[name, "mean"] = flat.mean(axis=1)
            found[name, "spread"] = flat.std(axis=1)
        else:
            flat = values.reshape(len(values), -1)
            found |= {(name, label): flat[:, i] for i, label in enumerate(position_names(name, feature))}
    return found


def _of_ragged(values: Ragged, feature: Feature) -> dict[str, Array]:
    found: dict[str, Array] = {"length": values.lengths.astype(np.float64)}
    if feature.kind == "number":
        some = values.lengths > 0
        steps = values.values.reshape(len(values.values), -1).mean(axis=1, dtype=np.float64)
        sums = np.concatenate([[0.0], np.cumsum(steps)])
        totals = sums[values.splits[1:]] - sums[values.splits[:-1]]
        found["mean"] = np.where(some, totals / np.maximum(values.lengths, 1), np.nan)
        found["last value"] = np.full(len(values), np.nan)
        found["last value"][some] = steps[values.splits[1:][some] - 1]
    return found


def clues(train: Columns, target: Array, test: Columns, truth: Array, *, classes: bool) -> list[Clue]:
    """What each column alone says about the target, the most telling first.

    Args:
        train: Columns from which the answers are learned.
        target: Their target (rows,): numbers, or digests of text.
        test: The same columns of other examples, on which the answers are judged.
        truth: Their target.
        classes: Whether the target is a class, and not a number.
    """
    known, wanted = (target, truth) if classes else _ranks(target, truth)
    if classes:
        names, known = np.unique(target, return_inverse=True)
        # A class never seen in training can't be right: it is none of the known ones.
        wanted = np.where(np.isin(truth, names), np.searchsorted(names, truth), -1)
    found = []
    for (feature, column), values in train.items():
        others = test[feature, column]
        ways = [_buckets(values, others)]
        if classes and values.dtype != np.uint64:
            ways += _runs(values, known, others)
        judge = _skill_of_classes if classes else _skill_of_numbers
        skill = max(judge(buckets, known, those, wanted, count) for buckets, those, count in ways)
        found.append(Clue(feature, column, skill, _is(values, target) and _is(others, truth)))
    return sorted(found, key=lambda clue: (-clue.equal, -clue.skill))


def _is(values: Array, target: Array) -> bool:
    same_kind = (values.dtype == np.uint64) == (target.dtype == np.uint64)
    return same_kind and len(values) > 0 and bool((values == target).all())


def _ranks(train: Array, test: Array) -> tuple[Array, Array]:
    """Numbers as the share of the training ones that they exceed: no single outlier decides how well they are met."""
    ordered = np.sort(train)

    def rank(values: Array) -> Array:
        below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
        return (below + upto) / 2 / max(len(ordered), 1)

    return rank(train), rank(test)


def _buckets(train: Array, test: Array) -> tuple[Array, Array, int]:
    """The bucket of each value, and their number; the last one is for what is missing or was never seen."""
    if train.dtype == np.uint64:
        names, counts = np.unique(train, return_counts=True)
        names = names[np.sort(np.argsort(-counts, kind="stable")[:CATEGORIES])]

        def place(values: Array) -> Array:
            at = np.minimum(np.searchsorted(names, values), len(names) - 1)
            return np.where(names[at] == values, at, len(names))

        return place(train), place(test), len(names) + 1
    finite = train[np.isfinite(train)]
    cuts = np.unique(finite)
    if len(cuts) > BUCKETS:
        # At least some ten examples in each, so that an answer is more than the chance of a few.
        count = min(max(len(finite) // 10, 2), BUCKETS)
        cuts = np.unique(np.quantile(finite, np.arange(1, count) / count))
    else:
        cuts = _between(cuts[:-1], cuts[1:])
    return _cut(train, test, cuts)


def _runs(train: Array, classes: Array, test: Array) -> list[tuple[Array, Array, int]]:
    """As `_buckets`, cut where the class changes; nothing if it does so too often to be told from chance."""
    order = np.argsort(train, kind="stable")
    order = order[np.isfinite(train[order])]
    values, classes = train[order], classes[order]
    changes = np.flatnonzero((values[1:] > values[:-1]) & (classes[1:] != classes[:-1]))
    if len(changes) > len(values) // 4:
        return []
    return [_cut(train, test, _between(values[changes], values[changes + 1]))]


def _between(low: Array, high: Array) -> Array:
    return (low.astype(np.float64) + high) / 2


def _cut(train: Array, test: Array, cuts: Array) -> tuple[Array, Array, int]:
    last = len(cuts) + 1
    places = [np.where(np.isfinite(values), np.searchsorted(cuts, values), last) for values in (train, test)]
    return places[0], places[1], last + 1


def _skill_of_classes(buckets: Array, known: Array, others: Array, wanted: Array, count: int) -> float:
    """The share of the majority answer's errors that is avoided by the most frequent class of each bucket."""
    width = int(known.max(initial=0)) + 1
    table = np.bincount(buckets * width + known, minlength=count * width).reshape(count, width)
    majority = int(table.sum(axis=0).argmax())
    answers = np.where(table.sum(axis=1) > 0, table.argmax(axis=1), majority)
    wrong, naive = (answers[others] != wanted).mean(), (wanted != majority).mean()
    return float(1 - wrong / naive) if naive else 0.0


def _skill_of_numbers(buckets: Array, known: Array, others: Array, wanted: Array, count: int) -> float:
    """R² of the mean of each bucket."""
    sizes = np.bincount(buckets, minlength=count)
    means = np.bincount(buckets, weights=known, minlength=count) / np.maximum(sizes, 1)
    answers = np.where(sizes > 0, means, known.mean())[others]
    naive = ((wanted - known.mean()) ** 2).sum()
    return float(1 - ((wanted - answers) ** 2).sum() / naive) if naive else 0.0
