"""What one pass over the raw examples of a split gathers, beside its statistics: the ground that remarks stand on.

Memory is bounded but for the digests, 16 bytes for each example (`headrace.looking.duplicates`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace.describing.described import Statistics
from headrace.looking.duplicates import digests, words
from headrace.looking.leaking import columns
from headrace.looking.sampling import ROW, Arrays, Grouped, Sample
from headrace.ragged import Array, Ragged
from headrace.readers.batches import to_arrays
from headrace.spec import Feature

PROBED = 20_000
"""Examples of each split on which single columns are held against the target."""
CLASSES = 1_000
"""Distinct values beyond which a target is no class."""
FEW_NUMBERS = 20
"""Distinct whole numbers up to which a target of numbers counts as a class, unless the workload predicts numbers."""
GROUPS = 12
"""Classes of which samples are shown."""
EACH, ALL = 8, 40
"""Samples of each class; samples where there are no classes."""
PARTS = 5
"""Parts into which samples are cut by a target of numbers."""
SAMPLED_BYTES = 64 * 2**20
"""What all samples of a split may take in memory."""


@dataclass(frozen=True)
class Target:
    """The target by which examples are grouped and single columns are judged."""

    name: str
    feature: Feature
    is_class: bool

    def values(self, arrays: Mapping[str, Array | Ragged]) -> Array:
        """The target of each example (rows,): numbers as float64, text as bytes."""
        flat = np.asarray(arrays[self.name]).reshape(-1)
        return flat if flat.dtype == object else flat.astype(np.float64)

    def label(self, value: float | bytes) -> str:
        """A value as people call it."""
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if self.is_class and 0 <= value < len(self.feature.classes):
            return self.feature.classes[int(value)]
        return f"{value:g}"


def target_of(features: Mapping[str, Feature], statistics: Statistics, tasks: Mapping[str, str]) -> Target | None:
    """The first target that is one value for each example; None if there is none (a mask, a sequence, nothing at all).

    Args:
        features: The declared features.
        statistics: Of the training split.
        tasks: What the workload does, by target; `regression` takes its numbers for numbers, however few they are.
    """
    for name, feature in features.items():
        if feature.role == "target" and not feature.ragged and feature.size == 1 and feature.kind not in _PICTURES:
            return Target(name, feature, _is_class(feature, statistics, name, tasks.get(name, "")))
    return None


_PICTURES = ("image", "mask")


def _is_class(feature: Feature, statistics: Statistics, name: str, task: str) -> bool:
    if feature.kind == "category":
        return True
    found = statistics[name]
    if feature.dtype == "string":
        return (found.unique or 0) <= min(CLASSES, found.rows // 2)
    edges = found.distributions[0].edges
    return (
        task not in ("regression", "forecasting")
        and len(edges) <= FEW_NUMBERS
        and bool((edges == np.round(edges)).all())
    )


# -------------------------------------------------------------------------------------------------- order

Place = tuple[str, str]
"""Feature and column."""

TARGET: Place = ("", "target")
"""The place of the target among columns."""


class Order:
    """Whether the examples of a split stand in an order that a model could take advantage of, or suffer from."""

    def __init__(self) -> None:
        self.ascending: dict[Place, int] = {}
        """Columns that never fall from one example to the next → how often they rise."""
        self.changes = 0
        """Places where the target differs from that of the example before."""
        self._sums = np.zeros(5)
        self._last: dict[Place, Array] = {}
        self._unordered: set[Place] = set()

    def add(self, values: Mapping[Place, Array], target: Array | None) -> None:
        """Take in the next examples, at least one: columns (rows,), and the target (rows,)."""
        for place, column in values.items():
            if place not in self._unordered:
                self._climb(place, self._continued(place, column))
        if target is not None:
            target = self._continued(TARGET, target)
            before, after = target[:-1], target[1:]
            self.changes += int((before != after).sum())
            if target.dtype != object:
                there = np.isfinite(before) & np.isfinite(after)
                x, y = before[there], after[there]
                self._sums += [len(x), x.sum(), (x * x).sum(), y.sum(), (x * y).sum()]

    def _continued(self, place: Place, column: Array) -> Array:
        """The values with the last one of the batch before in front of them."""
        before = self._last.get(place)
        # A copy: a view would keep the whole batch in memory.
        self._last[place] = column[-1:].copy()
        return column if before is None else np.concatenate([before, column])

    def _climb(self, place: Place, column: Array) -> None:
        rises = column[1:] > column[:-1]
        if (rises | (column[1:] == column[:-1])).all():
            self.ascending[place] = self.ascending.get(place, 0) + int(rises.sum())
        else:
            self._unordered.add(place)
            self.ascending.pop(place, None)
            del self._last[place]

    @property
    def likeness(self) -> float:
        """The correlation of a numeric target with that of the example before; 0 where it can't be told."""
        count, x, xx, y, xy = self._sums
        spread = xx - x * x / count if count else 0.0
        return float((xy - x * y / count) / spread) if spread > 1e-9 * xx else 0.0


# -------------------------------------------------------------------------------------------------- a pass


class Observer:
    """Watches the batches of a split pass by.

    Args:
        features: The declared features.
        target: As `target_of` gives it.
        shown: Whether to keep samples for a sheet.
    """

    def __init__(self, features: Mapping[str, Feature], target: Target | None, *, shown: bool) -> None:
        self.rows = 0
        self.classes: Counter[float | bytes] = Counter()
        """How often each class of the target occurs."""
        self.order = Order()
        self._features, self._target = features, target
        self._probes = Sample(PROBED)
        self._digests: list[tuple[Array, Array]] = []
        self._grouped, self._samples = _sheet(features, target) if shown else (None, None)

    def watching(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, looked at as they pass."""
        for batch in batches:
            if batch.num_rows:
                self._add(to_arrays(batch, self._features), batch.num_rows)
            yield batch

    def _add(self, arrays: Arrays, count: int) -> None:
        rows = np.arange(self.rows, self.rows + count)
        self.rows += count
        inputs = _named(self._features, "input")
        self._digests.append(
            (
                digests({name: arrays[name] for name in inputs}, count),
                digests({name: arrays[name] for name in _named(self._features, "target")}, count),
            )
        )
        found = columns(arrays, inputs)
        # Text has an order of its own, which its digest has not.
        text = {
            (name, name): np.asarray(arrays[name])
            for name, feature in (inputs | _named(self._features, "note")).items()
            if feature.dtype == "string" and feature.shape == ()
        }
        target = self._target.values(arrays) if self._target else None
        self.order.add({**found, **text}, target)
        if self._samples:
            self._samples.add(arrays, rows)
        if self._target and target is not None:
            known = np.flatnonzero(target != b"" if target.dtype == object else np.isfinite(target))
            held_against = words(target[:, None])[:, 0] if target.dtype == object else target
            self._probes.add({**found, TARGET: held_against}, rows, known)
            if self._target.is_class:
                names, counts = np.unique(target[known], return_counts=True)
                self.classes.update(dict(zip(names.tolist(), counts.tolist(), strict=True)))
            if self._grouped:
                self._grouped.add(arrays, rows, target, known)

    @property
    def inputs(self) -> Array:
        """The digest of each example's inputs (rows,), uint64."""
        return np.concatenate([inputs for inputs, _ in self._digests])

    @property
    def targets(self) -> Array:
        """The digest of each example's targets (rows,), uint64."""
        return np.concatenate([targets for _, targets in self._digests])

    @property
    def probes(self) -> tuple[dict[Place, Array], Array]:
        """Columns of a sample of examples, as `leaking.columns` gives them, and the target of each."""
        kept = {key: np.asarray(values) for key, values in self._probes.arrays.items() if key != ROW}
        return kept, kept.pop(TARGET, np.empty(0))

    @property
    def samples(self) -> list[tuple[str, Arrays]]:
        """Examples to be shown, in groups: those of a class, or those with a low, middle or high target."""
        if self._grouped and self._target:
            return [(self._target.label(value), kept) for value, kept in self._grouped.arrays.items()]
        kept = self._samples.arrays if self._samples else {}
        if not kept or not self._target:
            return [("", kept)] if kept else []
        return _by_size(kept, self._target)


def _named(features: Mapping[str, Feature], role: str) -> dict[str, Feature]:
    return {name: feature for name, feature in features.items() if feature.role == role}


def _sheet(features: Mapping[str, Feature], target: Target | None) -> tuple[Grouped | None, Sample | None]:
    """Samples of each class, or of all examples; fewer where examples are large."""
    room = SAMPLED_BYTES // (2 * sum(map(_bytes, features.values())))
    if target and target.is_class:
        return Grouped(min(EACH, max(room // GROUPS, 2)), GROUPS), None
    return None, Sample(min(ALL, max(room, 2)))


def _bytes(feature: Feature) -> int:
    """What one example takes in memory; of encoded images, text and sequences a guess."""
    if feature.dtype == "string":
        return feature.size * (100_000 if feature.kind in _PICTURES else 1_000)
    return feature.size * (1 if feature.dtype == "uint8" else 8) * (200 if feature.ragged else 1)


def _by_size(kept: Arrays, target: Target) -> list[tuple[str, Arrays]]:
    """Examples by fifths of a numeric target, or all in one group where it is none."""
    values = target.values(kept)
    if values.dtype == object:
        return [("", kept)]
    order = np.argsort(values, kind="stable")
    order = order[np.isfinite(values[order])]
    groups = []
    for part in np.array_split(order, PARTS):
        if len(part):
            low, high = values[part[0]], values[part[-1]]
            label = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
            groups.append((label, {name: found[part] for name, found in kept.items()}))
    return groups
