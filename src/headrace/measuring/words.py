"""Metrics and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

TITLES = {
    "mae": "MAE",
    "mse": "MSE",
    "rmse": "RMSE",
    "r2": "R²",
    "auc": "AUC",
    "log_loss": "log loss",
    "f1": "F1",
    "brier": "Brier score",
    "top_5_accuracy": "top-5 accuracy",
    "mean_iou": "mean IoU",
    "bleu": "BLEU",
    "chrf": "chrF",
}


def title(metric: str) -> str:
    """The name of a metric for people: "MAE", "R²", "priority MAE", "IoU of cat", "MAE at step 3"."""
    whole, step, number = metric.rpartition("_step_")
    if step and number.isdigit():
        return f"{title(whole)} at step {number}"
    whole, of, name = metric.partition("iou_")
    if of and whole[-1:] in ("", "_"):
        return f"{whole.replace('_', ' ')}IoU of {name.replace('_', ' ')}"
    for name, words in TITLES.items():
        if metric == name:
            return words
        if metric.endswith(f"_{name}"):
            return f"{metric.removesuffix(f'_{name}')} {words}"
    return metric.replace("_", " ")


def short(value: float | None) -> str:
    """A number for people, to three digits: "2.51", "41,240"."""
    if value is None:
        return "undefined"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def spread(interval: list[float] | None) -> str:
    """An interval for people: "[2.1, 3.02]"."""
    return f"[{', '.join(map(short, interval))}]" if interval else "[undefined]"


def numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    """As JSON values; None where a metric is undefined."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
