"""The order in which an epoch sees the examples."""

from __future__ import annotations

from typing import Any

import numpy as np


def order(seed: int, epoch: int, examples: int, shuffle: bool = True) -> np.ndarray[Any, Any]:
    """The order in which an epoch sees the examples: a pure function, so that any epoch can be taken up again.

    Args:
        seed: Seed of the training.
        epoch: The epoch, from 0.
        examples: How many examples there are.
        shuffle: False for the order in which they are stored.

    Returns:
        Positions, shape (examples,), int32.
    """
    if not shuffle:
        return np.arange(examples, dtype=np.int32)
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples).astype(np.int32)
