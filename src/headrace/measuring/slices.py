"""Metrics of parts of the test split: by columns, by the length of a text, by class; and which parts are worse."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.errors import ConfigError, nearest
from headrace.measuring.resampling import Array, interval, resampled
from headrace.measuring.tasks import Facts, Measures, examples
from headrace.measuring.words import numbers, short, title
from headrace.ragged import Ragged
from headrace.spec import Evaluate, Feature

PARTS = {2: ("lower half", "upper half"), 4: ("lowest quarter", "second quarter", "third quarter", "highest quarter")}
"""What numbers are cut into: quarters, or halves where quarters would be small."""
CATEGORIES = 20
"""Most values of a column that are slices each, and most that are told apart at all by default."""
COLUMNS = 24
"""Most columns by which examples are told apart, if nobody says by which."""
RESAMPLES = 400
"""For the interval of one slice."""
WORSE = 0.05
"""Chance that any slice is called clearly worse though none is."""


@dataclass(frozen=True)
class Cut:
    """One way of telling examples apart."""

    by: str
    labels: Sequence[str]
    """Of the slices."""
    slice_of: Array
    """Number of the slice of each example (examples,); −1 for none."""
    of_class: str | None = None
    """The target whose classes they are, if they are classes."""


@dataclass
class Seen:
    """What is kept of the test examples to tell them apart, taken in batch by batch.

    Args:
        features: Of the records.
        asked: Names of columns and features; None for all that lend themselves to it.
    """

    features: Mapping[str, Feature]
    asked: Sequence[str] | None = None
    _parts: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, batch: Mapping[str, Any]) -> None:
        """Take in the next examples."""
        for name, feature in self.features.items():
            if name not in batch or feature.role not in ("input", "note"):
                continue
            values = batch[name]
            if feature.kind == "tokens" or (feature.kind == "text" and feature.size == 1):
                self._keep(length_of(name), _lengths(values, feature))
            if feature.kind in ("image", "mask", "tokens", "text") and not feature.classes:
                continue
            if isinstance(values, Ragged) or feature.ragged or len(feature.shape) > 1:
                continue
            if feature.size == 1:
                self._keep(name, values.reshape(len(values)))
            elif self.asked is not None or (feature.columns and len(feature.columns) <= COLUMNS):
                for k, column in enumerate(feature.columns):
                    self._keep(column.name, values[:, k])

    def _keep(self, by: str, values: Array) -> None:
        if self.asked is None or by in self.asked:
            self._parts.setdefault(by, []).append(values)

    def cuts(self, small: int) -> list[Cut]:
        """The ways of telling the examples apart that these columns give."""
        columns = {by: np.concatenate(parts) for by, parts in self._parts.items()}
        if self.asked is None:
            columns = dict(list(columns.items())[:COLUMNS])
        found = (cut(by, values, self.features.get(by), small) for by, values in columns.items())
        return [one for one in found if one is not None]


def length_of(feature: str) -> str:
    """By what the examples of a text are told apart."""
    return f"length of {feature}"


def _lengths(values: Any, feature: Feature) -> Array:
    """Words of a string, or tokens that are not padding."""
    if isinstance(values, Ragged):
        return values.lengths
    if feature.dtype == "string":
        return np.array([len(text.split()) for text in values.reshape(len(values))])
    return np.count_nonzero(values.reshape(len(values), -1), axis=1)


def cut(by: str, values: Array, feature: Feature | None, small: int) -> Cut | None:
    """Tell examples apart by one column: by its values if these are few, or by quarters; None where that is no use.

    Args:
        by: What the column is called.
        values: (examples,)
        feature: What it is, if it is a feature by itself.
        small: Examples below which a slice is small.
    """
    present = np.isfinite(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    distinct, places = np.unique(values[present], return_inverse=True)
    if len(distinct) < 2:
        return None
    slice_of = np.full(len(values), -1)
    classes = feature.classes if feature else ()
    categories = bool(classes) or values.dtype.kind in "OS" or len(distinct) <= min(CATEGORIES, 2 + len(values) // 100)
    if categories and len(distinct) <= CATEGORIES:
        slice_of[present] = places
        labels = [_called(value, classes) for value in distinct]
    elif values.dtype.kind in "OS":
        return None
    else:
        number = 4 if present.sum() >= 4 * small else 2
        bounds = np.unique(np.quantile(values[present], np.arange(1, number) / number))
        slice_of[present] = np.searchsorted(bounds, values[present], "left")
        if len(bounds) == number - 1:
            labels = list(PARTS[number])
        else:  # a value that many examples have takes up several quarters
            labels = [f"part {k + 1} of {len(bounds) + 1}, in rising order" for k in range(len(bounds) + 1)]
    if not present.all():
        slice_of[~present] = len(labels)
        labels = [*labels, "missing"]
    return Cut(by, labels, slice_of)


def _called(value: Any, classes: Sequence[str]) -> str:
    """A value of a category, for people."""
    if isinstance(value, bytes):
        return value.decode(errors="replace") or "missing"
    if classes and float(value).is_integer() and 0 <= value < len(classes):
        return classes[int(value)]
    return f"{value:g}" if not isinstance(value, str) else value


def by_class(measures: Measures, facts: Facts) -> list[Cut]:
    """The classes of each target that has any."""
    found = []
    for target, task in measures.tasks.items():
        known = task.classes(measures.of(target, facts))
        if known is not None:
            found.append(Cut("class" if len(measures.tasks) == 1 else f"class of {target}", known[1], known[0], target))
    return found


def sliced(measures: Measures, facts: Facts, seen: Seen, primary: str, how: Evaluate) -> list[dict[str, Any]]:
    """The metrics of each slice, with what is said of it in `evaluation.json`.

    A slice is worse if its metric is worse than that of all examples by more than the tolerated gap and the draw of its
    examples explain, taking into account how many slices are looked at.

    Raises:
        ConfigError: There is nothing by which examples were asked to be told apart.
    """
    classes = [one for one in by_class(measures, facts) if how.slices is None or one.by in how.slices]
    cuts = [*seen.cuts(how.small_slice), *classes]
    if how.slices is not None:
        known = {one.by for one in cuts}
        for name in how.slices:
            if name not in known:
                raise ConfigError(
                    f"evaluate.slices: test examples can't be told apart by `{name}`: {nearest(name, known)}"
                )
    whole, groups = numbers(measures.measure(facts)), measures.groups(examples(facts))
    parts = [(one, number) for one in cuts for number in range(len(one.labels)) if (one.slice_of == number).any()]
    found = []
    for one, number in parts:
        rows = np.flatnonzero(one.slice_of == number)
        own = {name: values[rows] for name, values in facts.items()}
        values = numbers(measures.measure(own))
        # A score that is a probability for these examples by chance is still none; a class by itself has no AUC.
        alone = _meaningful(measures, one)
        values = {name: values[name] if whole[name] is not None and alone(name) else None for name in values}
        kept = None if groups is None else np.unique(groups[rows], return_inverse=True)[1]
        drawn = None if values[primary] is None else _drawn(measures, own, primary, kept)
        bounds = None if drawn is None else interval(drawn)
        small = len(rows) < how.small_slice
        entry = {
            "by": one.by,
            "slice": one.labels[number],
            "examples": len(rows),
            "metrics": values,
            "intervals": {primary: bounds},
            "small": small,
            "worse": False,
        }
        if drawn is not None and not small:
            behind = float(measures.gain(primary, whole[primary], values[primary]))
            reach = _reach(len(parts)) * float(np.nanstd(drawn))
            entry["worse"] = behind - reach > (how.slice_gap or 0.0)
        found.append(entry)
    return found


def _meaningful(measures: Measures, one: Cut) -> Any:
    """Function that tells whether a metric makes sense within one of the slices."""
    if one.of_class is None:
        return lambda metric: True
    own = {measures.named(one.of_class, name) for name in measures.tasks[one.of_class].means}
    return lambda metric: metric in own or measures.target_of(metric) != one.of_class


def _drawn(measures: Measures, facts: Facts, metric: str, groups: Array | None) -> Array:
    """A metric on resamples of these examples."""

    def measure(weights: Array) -> dict[str, Array]:
        return {metric: measures.measure(facts, weights)[metric]}

    return resampled(measure, examples(facts), groups, RESAMPLES)[metric]


def _reach(slices: int) -> float:
    """Standard errors within which the metric of the worst of so many slices may lie by chance."""
    return statistics.NormalDist().inv_cdf(1 - WORSE / slices)


def gates(found: Sequence[Mapping[str, Any]], metric: str, value: float | None, how: Evaluate) -> list[dict[str, Any]]:
    """The gate of the slices, if there are any.

    Args:
        found: What `sliced` gave.
        metric: The metric that decides.
        value: Of all test examples.
        how: What is tolerated.
    """
    if not found:
        return []
    judged = [one for one in found if not one["small"] and one["metrics"][metric] is not None]
    worse = [one for one in judged if one["worse"]]
    small = len(found) - len(judged)
    words = f"{title(metric)} {short(value)} over all; of {_count(judged, 'slice')}"
    words += f" ({small} more are too small or have no {title(metric)})" if small else ""
    beyond = "clearly worse" if how.slice_gap is None else f"worse by clearly more than {how.slice_gap:g}"
    reason = f"{words}, {f'{len(worse)} {beyond}: {_listed(worse, metric)}' if worse else f'none is {beyond}'}"
    if how.slice_gap is None:
        return [{"gate": "slices", "passed": None, "reason": f"{reason}; not judged: no gap is said to be too much"}]
    if not judged:
        return [{"gate": "slices", "passed": None, "reason": f"{words}: nothing to judge"}]
    return [{"gate": "slices", "passed": not worse, "reason": reason}]


def _count(found: Sequence[Any], noun: str) -> str:
    return f"{len(found)} {noun}{'s' * (len(found) != 1)}"


def _listed(found: Iterable[Mapping[str, Any]], metric: str) -> str:
    entries = [f"{one['by']} {one['slice']} {short(one['metrics'][metric])} ({one['examples']:,})" for one in found]
    return ", ".join(entries[:3]) + (f" and {len(entries) - 3} more" if len(entries) > 3 else "")
