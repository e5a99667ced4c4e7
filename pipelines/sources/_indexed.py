"""Texts as Keras packs them: lists of word ranks in a NumPy archive, and an index of the words beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.ragged import Ragged
from pipelines.sources._wording import vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST = 3
"""What Keras adds to the rank of a word: 0 is padding, 1 the start of a text, 2 a word that is left out."""
SPECIAL = ("", "[START]", "[OOV]", "[UNUSED]")
"""What the tokens stand for that are no words."""


def tokens(ranks: Ragged) -> Ragged:
    """The tokens of texts as `keras.datasets` gives them: a start sign (1), then the rank of each word plus 3."""
    values = np.insert(ranks.values.astype(np.int64) + FIRST, ranks.splits[:-1], 1)
    return Ragged(values, ranks.splits + np.arange(len(ranks.splits)))


def words(path: Path) -> list[str]:
    """The word that each token stands for, read from an index of words: `words(path)[token]`."""
    ranks: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    return [*SPECIAL, *sorted(ranks, key=ranks.__getitem__)]


def write(path: Path, **arrays: Any) -> None:
    """Write arrays, and lists of lists, as Keras packs them."""
    np.savez_compressed(path, allow_pickle=True, **{name: _packed(values) for name, values in arrays.items()})


def write_index(path: Path, count: int) -> None:
    """Write an index of so many made-up words."""
    path.write_text(json.dumps({word: rank for rank, word in enumerate(vocabulary(count), 1)}), encoding="utf-8")


def _packed(values: Sequence[Any]) -> Any:
    if not isinstance(values, list):
        return values
    packed = np.empty(len(values), object)
    packed[:] = values
    return packed
