"""Charts: equal bytes for equal data, the page's own colours, and small whatever there is to draw."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from headrace.showing import charts

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.normal(size=(40, 1))
CELL = {"cell": "4 <units>", "value": 2.0, "interval": [1.0, 3.0], "values": {"0": 2.0}, "curve": "mae"}
FOLDS = {
    "metric": "val_mae",
    "folds": [{"curve": [3.0, 2.0]}, {"curve": [4.0, 3.0]}],
    "curve": [3.5, 2.5],
    "smoothed": [3.5, 2.5],
    "best_epoch": 2,
}
BINS = [{"examples": 9, "confidence": 0.7, "accuracy": 0.6}, {"examples": 0, "confidence": None, "accuracy": None}]

DRAWN: dict[str, Any] = {
    "folds": lambda: charts.folds(FOLDS),
    "history": lambda: charts.history({"loss": [3.0, 2.0], "val_loss": [3.5, 2.5]}, "loss"),
    "history of one epoch": lambda: charts.history({"loss": [3.0]}, "loss"),
    "predictions": lambda: charts.predictions(TRUTH, TRUTH * 0.9, "price"),
    "residuals": lambda: charts.residuals(TRUTH, TRUTH * 0.9, "price"),
    "histogram": lambda: charts.histogram(TRUTH[:, 0], "error"),
    "histogram of one value": lambda: charts.histogram(np.zeros(5), "error"),
    "fitted": lambda: charts.fitted(TRUTH[:, 0], TRUTH[:, 0], TRUTH[:, 0], ("x", "y")),
    "plane": lambda: charts.plane(
        np.hstack([TRUTH, TRUTH[::-1]]), ["a", "b"] * 20, TRUTH[:, 0] > 1, TRUTH.T, ("x", "y")
    ),
    "plane of a line": lambda: charts.plane(
        np.hstack([TRUTH, TRUTH]), ["a"] * 40, TRUTH[:, 0] > 9, TRUTH.T, ("x", "y")
    ),
    "rates": lambda: charts.rates({"x": [0, 1], "y": [0, 1]}, ("x", "y"), "ROC", chance=True),
    "calibration": lambda: charts.calibration(BINS, "calibration"),
    "calibration of nothing": lambda: charts.calibration([], "calibration"),
    "forecast": lambda: charts.forecast(np.arange(5.0), np.arange(5.0), "forecast"),
    "along": lambda: charts.along(np.arange(5.0), np.arange(5.0), "price"),
    "horizon": lambda: charts.horizon([1.0, 2.0], "error"),
    "ranking": lambda: charts.ranking([CELL], "mae"),
    "curves": lambda: charts.curves([{**CELL, "cell": str(k), "curves": {"0": [3.0, 2.0]}} for k in range(20)]),
    "progress": lambda: charts.progress([(0, 2.0), (1, 3.0), (2, 1.0)], "mae", "min"),
    "parallel": lambda: charts.parallel({"train.lr": [0.1, 0.2], "model.kind": ["a", "b"], "mae": [1.0, 2.0]}, "min"),
}


@pytest.mark.parametrize("name", DRAWN)
class TestEveryChart:
    def test_has_equal_bytes_for_equal_data(self, name: str) -> None:
        assert DRAWN[name]() == DRAWN[name]()

    def test_takes_its_colours_from_the_page(self, name: str) -> None:
        svg = str(DRAWN[name]())
        assert {"var(--ink)", "var(--faint)"} <= set(re.findall(r"var\([a-z0-9-]+\)", svg))
        assert not re.search(r"#[0-9a-f]{6}\b(?!\))", re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", svg))

    def test_takes_its_font_from_the_page_and_says_what_it_shows(self, name: str) -> None:
        svg = str(DRAWN[name]())
        assert "DejaVu" not in svg
        assert re.match(r'<svg class="chart" viewBox="[0-9. -]+" role="img" aria-label="[^"<>]+">', svg)


def test_a_learning_rate_that_falls_by_orders_of_magnitude_is_drawn_by_orders_of_magnitude() -> None:
    steep = charts.history({"learning_rate": [0.1, 0.01, 0.001]}, "learning_rate")
    assert "<tspan" in steep
    assert "<tspan" not in charts.history({"learning_rate": [0.1, 0.05]}, "learning_rate")


class TestManyPoints:
    def test_stay_small(self) -> None:
        truth = RANDOM.normal(size=(20_000, 1))
        assert len(charts.predictions(truth, truth * 0.9, "price")) < 300_000

    def test_are_thinned_to_the_largest_errors_and_some_others(self) -> None:
        errors = np.zeros(100_000)
        errors[[5, 70_001]] = 9
        shown = charts.thinned(errors)
        assert {5, 70_001, 0, 99_999} <= set(shown.tolist())
        assert charts.POINTS * 0.9 < len(shown) <= charts.POINTS
        assert charts.thinned(errors[:7]).tolist() == list(range(7))


def test_labels_are_escaped() -> None:
    assert '"error of &lt;b&gt;&#34;x&#34;' in charts.rates({"x": [0], "y": [0]}, ("x", "y"), 'error of <b>"x"')
