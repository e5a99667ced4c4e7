"""Numbers of later moments: errors at each step ahead, and by how much a forecast beats a naive one.

The naive forecasts are the workload's own affair: it alone knows how its inputs came about.

```python
def naive(statistics: Statistics) -> Mapping[str, Naive]:
    series = statistics["window"]           # before it was standardised
    column = series.names.index("T (degC)")
    mean, scale = series.mean[column], series.scale[column]
    return {"last value": lambda inputs, count: inputs["window"][:, -1, column, None] * scale + mean}
```
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from headrace.measuring.regression import Regression
from headrace.measuring.resampling import Array
from headrace.measuring.sums import ratio
from headrace.measuring.tasks import Facts, mean

NAMED = 4
"""Steps ahead whose error is a metric of its own, at most: the first, the last, and some between them."""


class Forecasting(Regression):
    """As regression; beside that the error at some steps ahead, and the skill: 1 − MAE / MAE of a naive forecast.

    The first dimension of the target is that of the steps. The naive forecast is the first of the workload's own; the
    mean of the training targets, if it has none. A skill of 0 is no better, 1 is perfect.

    Neighbouring examples share most of their windows: intervals draw blocks of them (see `groups`).
    """

    larger_is_better: ClassVar[frozenset[str]] = Regression.larger_is_better | {"skill"}

    @property
    def steps(self) -> int:
        """Moments that an answer is of."""
        return int(self.target.shape[0] or 1) if self.target.shape else 1

    def facts(self, truth: Array, answers: Array) -> Facts:
        """As of a regression; and the absolute error at each step (examples, steps), where there are several."""
        found = dict(super().facts(truth, answers))
        if self.steps > 1:
            shape = (len(truth), self.steps, -1)
            errors = np.abs(answers.reshape(shape).astype(np.float64) - truth.reshape(shape).astype(np.float64))
            found["steps"] = errors.mean(axis=2).astype(np.float32)
        return found

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """See the class."""
        found = dict(super().measure(facts, weights))
        if "reference" in facts:
            found["skill"] = 1 - ratio(found["mae"], mean(facts["reference"], weights))
        for step in _named(self.steps):
            found[f"mae_step_{step}"] = mean(facts["steps"][:, step - 1], weights)
        return found

    def beside(self, naive: Mapping[str, Facts]) -> Facts:
        """The error of the naive forecast that the skill is measured against."""
        return {"reference": next(iter(naive.values()))["absolute"]} if naive else {}

    def about(self, facts: Facts) -> Mapping[str, Any]:
        """As of numbers; the error at each step ahead, and how many neighbours are drawn together."""
        examples = len(facts["absolute"])
        found: dict[str, Any] = {**super().about(facts), "block": self._block(examples)}
        if self.steps > 1:
            found["horizons"] = facts["steps"].astype(np.float64).mean(axis=0).tolist()
        return found

    def groups(self, examples: int) -> Array:
        """Blocks of neighbours in stored order, which must be that of time."""
        return np.arange(examples) // self._block(examples)

    def _block(self, examples: int) -> int:
        return self.how.block or math.ceil(round(examples ** (1 / 3), 6)) or 1


def _named(steps: int) -> list[int]:
    """Steps (from 1) whose errors are metrics of their own; none where there is one step only."""
    if steps == 1:
        return []
    return sorted({round(step) for step in np.linspace(1, steps, min(NAMED, steps))})
