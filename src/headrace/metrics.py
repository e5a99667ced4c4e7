"""What a task is measured by: metrics with intervals, and the naive answers that any model has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Measure = Callable[..., Mapping[str, Array]]
"""Arrays (…, examples, size) → metric → array (…): any axes before the examples are measured each by itself."""

RESAMPLES = 1_000
_SEED = 20_260
"""One for all: an interval is a property of the answers, not of the run that computes it."""
_AT_ONCE = 4_000_000
"""Numbers drawn at once: bounds the memory that resampling takes."""


@dataclass(frozen=True)
class Task:
    """How the answers to one kind of task are measured."""

    measure: Measure
    """Truth and prediction → metrics."""
    primary: str
    """The metric that decides where no promise names one."""
    larger_is_better: frozenset[str]
    baselines: Mapping[str, Callable[[Array], Array]]
    """Name → function from the training targets (examples, size) to the one answer (size,) that it always gives."""
    errors: Callable[[Array, Array], Array]
    """Truth and prediction (examples, …) → how wrong each answer is (examples,), by which two models are compared."""
    error_name: str
    """What the mean of these errors is called."""

    def gain(self, metric: str, ours: Array, theirs: Array) -> Array:
        """By how much our values of a metric are better than theirs."""
        return ours - theirs if metric in self.larger_is_better else theirs - ours


def rows(values: Array) -> Array:
    """As float64 of shape (examples, size), whatever the shape of an example."""
    return values.reshape(len(values), -1).astype(np.float64)


def regression(truth: Array, predicted: Array) -> dict[str, Array]:
    """Mean absolute error, mean squared error and its root, and the share of the variance that is explained.

    R² is NaN where the truth does not vary.
    """
    squares = np.square(predicted - truth).mean(axis=(-2, -1))
    variance = np.square(truth - truth.mean(axis=-2, keepdims=True)).mean(axis=(-2, -1))
    return {
        "mae": np.abs(predicted - truth).mean(axis=(-2, -1)),
        "mse": squares,
        "rmse": np.sqrt(squares),
        "r2": np.where(variance > 0, 1 - squares / np.where(variance > 0, variance, 1), np.nan),
    }


TASKS = {
    "regression": Task(
        measure=regression,
        primary="mae",
        larger_is_better=frozenset({"r2"}),
        baselines={
            "mean": lambda targets: targets.mean(axis=0),
            "median": lambda targets: np.median(targets, axis=0),
        },
        errors=lambda truth, predicted: np.abs(rows(predicted) - rows(truth)).mean(axis=1),
        error_name="mean absolute error",
    ),
}
"""Task of a pipeline → how it is measured."""


def intervals(measure: Measure, *arrays: Array) -> dict[str, list[float] | None]:
    """95 % percentile intervals by the bootstrap: the examples are drawn anew, the same ones from every array.

    Args:
        measure: What to compute on each resample.
        *arrays: Values of the same examples, each (examples, size).

    Returns:
        Metric → [low, high]; None where it is undefined on every resample.
    """
    return {name: _interval(values) for name, values in resampled(measure, *arrays).items()}


def resampled(measure: Measure, *arrays: Array) -> dict[str, Array]:
    """What a measure gives on each of the bootstrap's resamples, which are the same for equally many examples.

    Args:
        measure: What to compute on each resample.
        *arrays: Values of the same examples, each (examples, size).

    Returns:
        Metric → values (RESAMPLES,); NaN where it is undefined.
    """
    random = np.random.default_rng(_SEED)
    examples = len(arrays[0])
    at_once = max(1, _AT_ONCE // max(values.size for values in arrays))
    parts = []
    for first in range(0, RESAMPLES, at_once):
        rows = random.integers(examples, size=(min(at_once, RESAMPLES - first), examples))
        parts.append(measure(*(values[rows] for values in arrays)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _interval(values: Array) -> list[float] | None:
    defined = values[np.isfinite(values)]
    return [float(bound) for bound in np.percentile(defined, [2.5, 97.5])] if defined.size else None


def numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    """As JSON values; None where a metric is undefined."""
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def title(metric: str) -> str:
    """The name of a metric for people: "MAE", "R²"."""
    return {"mae": "MAE", "mse": "MSE", "rmse": "RMSE", "r2": "R²"}.get(metric, metric)


def short(value: float | None) -> str:
    """A number for people, to three digits: "2.51", "41,240"."""
    if value is None:
        return "undefined"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def spread(interval: list[float] | None) -> str:
    """An interval for people: "[2.1, 3.02]"."""
    return f"[{', '.join(map(short, interval))}]" if interval else "[undefined]"
