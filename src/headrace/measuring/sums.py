"""Weighted sums over examples: what metrics are made of, for any number of weightings at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from headrace.measuring.resampling import Array


class Sums:
    """Sums over examples, in groups.

    Args:
        weights: How often each example counts (…, examples).
    """

    def __init__(self, weights: Array) -> None:
        self._shape = weights.shape[:-1]
        # Sparse sums read whole rows: example by example, all weightings of each.
        self._columns = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]).T)

    def by(self, groups: Array, count: int, values: Array | None = None) -> Array:
        """The sum within each group.

        Args:
            groups: Number of the group of each example (examples,), from 0.
            count: How many groups there are.
            values: What is summed (examples,); default: 1 for each example.

        Returns:
            (…, count)
        """
        from scipy import sparse

        examples = len(self._columns)
        each = np.ones(examples) if values is None else values.astype(np.float64)
        rows = sparse.csr_array((each, (groups, np.arange(examples))), shape=(count, examples))
        return np.ascontiguousarray((rows @ self._columns).T).reshape(*self._shape, count)


class Asked(Mapping[str, Array]):
    """Metrics that are worked out when they are asked for: a comparison by one of them need not pay for the others.

    Args:
        ways: Metric → how it is worked out.
    """

    def __init__(self, ways: Mapping[str, Callable[[], Array]]) -> None:
        self._ways = ways
        self._found: dict[str, Array] = {}

    def __getitem__(self, metric: str) -> Array:
        if metric not in self._found:
            self._found[metric] = self._ways[metric]()
        return self._found[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ways)

    def __len__(self) -> int:
        return len(self._ways)


def ratio(part: Array, whole: Array) -> Array:
    """Part of a whole; NaN where there is none."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def mean_defined(values: Array) -> Array:
    """The mean over the last axis of what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))


def auc(truth: Array, score: Array, weights: Array | Sums) -> Array:
    """The area under the ROC curve: how often a case of the class scores above one that is none; ties count half.

    Args:
        truth: Whether an example is a case (examples,).
        score: (examples,)
        weights: (…, examples), or their sums.

    Returns:
        (…); NaN where there are no cases, or nothing else.
    """
    sums = weights if isinstance(weights, Sums) else Sums(weights)
    steps, place = np.unique(score[truth], return_inverse=True)
    # Where each example stands among the scores of the cases: 2 k + 1 at the k-th of them, even numbers between them.
    stands = np.searchsorted(steps, score, "left") + np.searchsorted(steps, score, "right")
    others = sums.by(stands, 2 * len(steps) + 1, ~truth)
    found = np.zeros(len(truth), int)
    found[truth] = place
    cases = sums.by(found, len(steps) or 1, truth)
    below = np.cumsum(others, axis=-1)[..., :-1:2] + others[..., 1::2] / 2
    won = (cases[..., : len(steps)] * below).sum(axis=-1)
    return ratio(won, cases.sum(axis=-1) * others.sum(axis=-1))
