"""Intervals by the bootstrap: how far a metric would move if other examples had been drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Measure = Callable[[Array], Mapping[str, Array]]
"""Weights (…, examples) → metric → (…): how often each example counts; any axes before are measured each by itself."""

RESAMPLES, FEWEST = 1_000, 200
_SEED = 20_260
"""One for all: an interval is a property of the answers, not of the run that computes it."""
_ENOUGH = 50_000_000
"""Numbers drawn in all, beyond which there are fewer resamples: of so many examples fewer say as much."""
_AT_ONCE = 4_000_000
"""Numbers drawn at once: bounds the memory that resampling takes."""


def weights(examples: int, groups: Array | None = None, resamples: int | None = None) -> Iterator[Array]:
    """How often each example is drawn on each resample, some resamples at a time; the same for equally many examples.

    Args:
        examples: How many there are.
        groups: Number of the group (examples,), from 0, that each example belongs to, where examples are not
            independent (neighbours in time): groups are drawn as wholes.
        resamples: How many; default: `RESAMPLES`, or fewer of very many examples.

    Yields:
        (resamples, examples), float64; together as many as asked for.
    """
    random = np.random.default_rng(_SEED)
    resamples = resamples or max(FEWEST, min(RESAMPLES, _ENOUGH // examples))
    drawn = examples if groups is None else int(groups.max()) + 1
    at_once = max(1, _AT_ONCE // max(examples, drawn))
    for first in range(0, resamples, at_once):
        count = min(at_once, resamples - first)
        places = random.integers(drawn, size=(count, drawn)) + np.arange(count)[:, None] * drawn
        counts = np.bincount(places.ravel(), minlength=count * drawn).reshape(count, drawn).astype(np.float64)
        yield counts if groups is None else counts[:, groups]


def resampled(
    measure: Measure, examples: int, groups: Array | None = None, resamples: int | None = None
) -> dict[str, Array]:
    """What a measure gives on each resample.

    Returns:
        Metric → values (resamples,); NaN where it is undefined.
    """
    # What is only worked out when it is asked for would keep all weights in memory.
    parts = [dict(measure(drawn)) for drawn in weights(examples, groups, resamples)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def intervals(measure: Measure, examples: int, groups: Array | None = None) -> dict[str, list[float] | None]:
    """95 % percentile intervals.

    Returns:
        Metric → [low, high]; None where it is undefined on every resample.
    """
    return {name: interval(values) for name, values in resampled(measure, examples, groups).items()}


def interval(values: Array) -> list[float] | None:
    """The middle 95 % of the values that are defined; None if there are none."""
    defined = values[np.isfinite(values)]
    return [float(bound) for bound in np.percentile(defined, [2.5, 97.5])] if defined.size else None
