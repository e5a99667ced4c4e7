"""Samples of a stream of batches: every example equally likely, the same ones however the batches are cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.looking.duplicates import mixed
from headrace.ragged import Array, Ragged, joined

Arrays = dict[Any, Array | Ragged]
"""Values of some examples by feature, or by column."""

ROW = "row"
"""The name under which a sample holds the positions of its examples."""


class Sample:
    """At most so many examples of a stream, chosen by a number that is drawn from each one's position.

    Args:
        size: Examples to keep.
        seed: Another seed, another sample.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size = size
        self._seed = np.uint64(seed)
        self._parts: list[tuple[Array, Arrays]] = []
        self._waiting = 0
        # Whoever is not below it is not among the chosen ones.
        self._bound = np.uint64(2**64 - 1)

    def add(self, arrays: Mapping[Any, Array | Ragged], rows: Array, among: Array | None = None) -> None:
        """Offer the examples of a batch.

        Args:
            arrays: Values of each feature, as many as there are rows.
            rows: The position of each example in the stream, each of them once.
            among: Which of the batch are offered; default: all.
        """
        offered = np.arange(len(rows)) if among is None else among
        draws = mixed(rows[offered].astype(np.uint64) + self._seed * np.uint64(2**32) + np.uint64(1))
        best = np.flatnonzero(draws < self._bound)
        if len(best) > self._size:
            best = best[np.argpartition(draws[best], self._size - 1)[: self._size]]
        if len(best):
            chosen = offered[best]
            # A copy: what is kept must not keep the whole batch in memory.
            kept = {name: values[chosen] for name, values in arrays.items()}
            self._parts.append((draws[best], {**kept, ROW: rows[chosen]}))
            self._waiting += len(best)
        if self._waiting > 2 * self._size:
            self._settle()

    def _settle(self) -> None:
        draws = np.concatenate([part for part, _ in self._parts])
        best = np.argsort(draws)[: self._size]
        values = {name: joined([part[name] for _, part in self._parts])[best] for name in self._parts[0][1]}
        self._parts = [(draws[best], values)]
        self._waiting = len(best)
        if len(best) == self._size:
            self._bound = draws[best[-1]]

    @property
    def arrays(self) -> Arrays:
        """The chosen examples in the order of the stream, with their positions as `row`; empty if none was offered."""
        if not self._parts:
            return {}
        self._settle()
        [(_, values)] = self._parts
        order = np.argsort(np.asarray(values[ROW]))
        return {name: kept[order] for name, kept in values.items()}


class Grouped:
    """A sample of each group of a stream, of the first groups in the order of their names where there are too many.

    Args:
        size: Examples of each group.
        groups: Groups to keep.
    """

    def __init__(self, size: int, groups: int) -> None:
        self._size, self._most = size, groups
        self._samples: dict[Any, Sample] = {}

    def add(self, arrays: Mapping[Any, Array | Ragged], rows: Array, groups: Array, among: Array) -> None:
        """Offer examples of a batch.

        Args:
            arrays: Values of each feature, as many as there are rows.
            rows: The position of each example in the stream.
            groups: The group of each example; numbers or strings.
            among: Which of the batch are offered.
        """
        names, members = np.unique(groups[among], return_inverse=True)
        for number, name in enumerate(names.tolist()):
            if name not in self._samples:
                if len(self._samples) == self._most and name > max(self._samples):
                    continue
                self._samples[name] = Sample(self._size)
                if len(self._samples) > self._most:
                    del self._samples[max(self._samples)]
            self._samples[name].add(arrays, rows, among[members == number])

    @property
    def arrays(self) -> dict[Any, Arrays]:
        """Group → its examples, in the order of the groups' names."""
        return {name: self._samples[name].arrays for name in sorted(self._samples)}
