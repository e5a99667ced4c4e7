"""Numbers: how far answers are from the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from headrace.measuring import showing
from headrace.measuring.resampling import Array
from headrace.measuring.tasks import Facts, Naive, Task, constant, mean


class Regression(Task):
    """Mean absolute error, mean squared error and its root, and the share of the variance that is explained.

    R² is NaN where the truth does not vary.
    """

    primary: ClassVar[str] = "mae"
    larger_is_better: ClassVar[frozenset[str]] = frozenset({"r2"})
    means: ClassVar[frozenset[str]] = frozenset({"mae", "mse"})
    learned_as: ClassVar[Literal["numbers", "classes", "labels"] | None] = "numbers"

    @property
    def expected(self) -> str:
        """The shape of the target."""
        return f"({', '.join(map(str, ('examples', *self.target.shape)))}), as the target"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is the shape of the target, but for dimensions of 1."""
        return _squeezed(shape) == _squeezed(self.target.shape)

    def facts(self, truth: Array, answers: Array) -> Facts:
        """Truth and answer (examples, size); absolute and squared error, their means over the positions of a vector."""
        given, true = _rows(answers), _rows(truth)
        return {
            "truth": true,
            "answer": given,
            "absolute": np.abs(given - true).mean(axis=1),
            "squared": np.square(given - true).mean(axis=1),
        }

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """See the class."""
        squares = mean(facts["squared"], weights)
        # Far from zero the squares would swallow what varies.
        centred = facts["truth"] - facts["truth"].mean(axis=0)
        middle = np.square(mean(centred, weights)).mean(axis=-1)
        whole = mean(np.square(centred).mean(axis=1), weights)
        variance = np.where(whole - middle > 1e-12 * whole, whole - middle, np.nan)
        return {
            "mae": mean(facts["absolute"], weights),
            "mse": squares,
            "rmse": np.sqrt(squares),
            "r2": 1 - squares / variance,
        }

    def naive(self, learned: Array) -> Mapping[str, Naive]:
        """Always the mean, or the median, of the training targets."""
        exact = learned.astype(np.float64)
        return {"mean": constant(exact.mean(axis=0)), "median": constant(np.median(exact, axis=0))}

    def about(self, facts: Facts) -> Mapping[str, Any]:
        """How far off answers are, and the worst of them."""
        error = facts["absolute"]
        true, given = (rows[:, 0] if rows.shape[1] == 1 else rows for rows in (facts["truth"], facts["answer"]))
        return {"worst": showing.worst(error, true, given, None), "said": showing.of_numbers(error)}


def _squeezed(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return tuple(length for length in shape if length != 1)


def _rows(values: Array) -> Array:
    return values.reshape(len(values), -1).astype(np.float64)
