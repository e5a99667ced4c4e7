"""How often single values occur: strings, categories, tokens. Exact while they are few, bounded memory always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.describing.distributions import FEW, Array

TOP = 20
"""The most frequent values that are kept, where there are more than a few."""
LONGEST = 256
"""Bytes of a string that are looked at: longer ones that begin alike count as one value."""
HASHES = 2**14
"""Distinct values up to which a `KmvSketch` counts exactly; beyond, it is right to 1 or 2 percent."""


@dataclass(frozen=True)
class Tally:
    """How often single values occur; numbers are written as text.

    All counts are exact as long as no more than some thousand distinct values occur (`exact`). Beyond that, those of
    `known` still are, and `top` holds what is certain to be frequent: nothing, where nearly all values are different.
    """

    total: int
    """Values counted, these and others."""
    unique: int
    """Distinct values. They are estimated to 1 or 2 percent if not `exact`; so are more than 16,384 notes, image files,
    or strings of which some are longer than 256 bytes."""
    top: tuple[tuple[str, int], ...] = ()
    """The most frequent values, the most frequent first, equally frequent ones by their names: all if there are up to
    256, else 20."""
    known: tuple[tuple[str, int], ...] = ()
    """Of each value that was asked for, in this order, how often it occurs: the declared classes, or what a reference
    split lists."""
    short: int = 0
    """By so many the counts of `top` may be too small."""

    @property
    def exact(self) -> bool:
        """Whether the counts of `top` are exact, and `unique` is (but see there)."""
        return not self.short

    @property
    def unknown(self) -> int:
        """How often values occur that are none of `known`; 0 if nothing was asked for."""
        return self.total - sum(count for _, count in self.known) if self.known else 0

    @cached_property
    def counts(self) -> dict[str, int]:
        """All counts there are, by value: `known` first, then `top`."""
        return dict(self.known) | dict(self.top) | dict(self.known)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value; `from_json` gives the same."""
        return {
            "total": self.total,
            "unique": self.unique,
            "top": [list(pair) for pair in self.top],
            "known": [list(pair) for pair in self.known],
            "short": self.short,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        pairs = {name: tuple((text, count) for text, count in value[name]) for name in ("top", "known")}
        return cls(value["total"], value["unique"], **pairs, short=value["short"])


class Counter:
    """Counts of single values in bounded memory.

    Exact until more than `most` distinct values were met. Then so much is taken off all counts that no more are left
    (Misra and Gries, 1982, in the form that merges: Agarwal et al., 2012): what is frequent stays, and `short` says by
    how much its count may be too small. The number of distinct values comes from hashes, which merge in any order.

    Args:
        most: Values that are kept, beside those that are known; 0: only how many different ones there are.
        known: Values that are counted exactly whatever happens: bytes, or whole numbers.
        names: Names of the whole numbers from 0, where these are numbers of classes.
    """

    def __init__(self, most: int, known: Sequence[bytes] | Sequence[int] = (), names: Sequence[str] = ()) -> None:
        from tfx_bsl.sketches import KmvSketch

        self._most = most
        self._known: tuple[bytes | int, ...] = tuple(known)
        self._names = tuple(names)
        self._total = self._short = 0
        self._values: pa.Array = pa.nulls(0)
        self._counts: Array = np.empty(0, np.int64)
        self._waiting: list[tuple[pa.Array, Array]] = []
        self._cut = False
        self._hashes = KmvSketch(HASHES)

    def take(self, values: pa.Array, counts: Array) -> None:
        """Take in values (large_binary, or int64; without nulls; each of them once), each so many times."""
        if not len(values):
            return
        self._hashes.AddValues(values)
        self._total += int(counts.sum())
        if not self._most:
            return
        if pa.types.is_large_binary(values.type) and pc.max(pc.binary_length(values)).as_py() > LONGEST:
            # Several of them may be one value now.
            self._cut = True
            self._waiting.append((pc.binary_slice(values, 0, LONGEST), counts))
        else:
            # Most of the values that are nearly all different need not be looked up among those that are kept.
            self._waiting.append(self._fewer(values, counts))
        if sum(len(waiting) for waiting, _ in self._waiting) >= self._most:
            self._settle()

    def merge(self, other: Counter) -> None:
        """Take in what another part, begun alike, has taken in."""
        self._settle()
        other._settle()
        self._hashes.Merge(other._hashes)
        self._total += other._total
        self._short += other._short
        self._cut |= other._cut
        if len(other._values):
            self._waiting.append((other._values, other._counts))
            self._settle()

    def _settle(self) -> None:
        """Add what waits to what is kept; waiting saves a table of both for each batch."""
        if not self._waiting:
            return
        values, counts = zip((self._values.cast(self._waiting[0][0].type), self._counts), *self._waiting, strict=True)
        self._waiting = []
        table = pa.table({"value": pa.chunked_array(values), "count": np.concatenate(counts)})
        found = table.group_by("value", use_threads=False).aggregate([("count", "sum")]).combine_chunks()
        kept = found["value"].combine_chunks(), found["count_sum"].to_numpy()
        self._values, self._counts = self._fewer(*kept)

    def _fewer(self, values: pa.Array, counts: Array) -> tuple[pa.Array, Array]:
        """The most frequent values, where there are too many."""
        if len(values) <= self._most:
            return values, counts
        spared = pc.is_in(values, pa.array(self._known, values.type)).to_numpy(zero_copy_only=False)
        others = counts[~spared]
        if len(others) <= self._most:
            return values, counts
        cut = int(np.partition(others, -self._most - 1)[-self._most - 1])
        self._short += cut
        kept = spared | (counts > cut)
        return values.filter(pa.array(kept)), np.where(spared, counts, counts - cut)[kept]

    def finish(self) -> Tally:
        """The counts of all that was taken in."""
        self._settle()
        held: dict[bytes | int, int] = dict(zip(self._values.to_pylist(), self._counts.tolist(), strict=True))
        # What may be a hundred times as frequent as it is counted, or not frequent at all, is nothing to be told.
        certain = [(self._label(value), count) for value, count in held.items() if count > self._short]
        top = sorted(certain, key=lambda pair: (-pair[1], pair[0]))
        return Tally(
            total=self._total,
            unique=len(held) if self._most and not self._short and not self._cut else round(self._hashes.Estimate()),
            top=tuple(top if len(held) <= FEW and not self._short else top[:TOP]),
            known=tuple((self._label(value), held.get(value, 0)) for value in self._known),
            short=self._short,
        )

    def _label(self, value: bytes | int) -> str:
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        return self._names[value] if 0 <= value < len(self._names) else str(value)
