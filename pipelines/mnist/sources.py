"""MNIST as it is, and with what a network must not learn from: columns of noise, labels that mean nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature
from pipelines.sources._reading import each_by_itself
from pipelines.sources.mnist import MNIST, digits

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from headrace.readers.batches import Arrays

COLUMNS = 784
"""As many as an image has pixels."""


def read_noise(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The digits, each beside 784 numbers that say nothing: uniform noise from 0 to 255."""
    return each_by_itself(("train", "test"), partial(beside_noise, raw))


def read_zeros(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The digits, each beside 784 zeros."""
    return each_by_itself(("train", "test"), partial(beside_zeros, raw))


def read_shuffled(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The images, each with the label of another one, drawn."""
    return each_by_itself(("train", "test"), partial(shuffled, raw))


def beside_noise(raw: Path, split: str) -> Arrays:
    """A split with the columns `extra`, noise that is always the same."""
    import numpy as np

    arrays = digits(raw, split)
    noise = generator(split).integers(0, 256, (len(arrays["label"]), COLUMNS), dtype=np.uint8)
    return {**arrays, "extra": noise}


def beside_zeros(raw: Path, split: str) -> Arrays:
    """A split with the columns `extra`, all zeros."""
    import numpy as np

    arrays = digits(raw, split)
    return {**arrays, "extra": np.zeros((len(arrays["label"]), COLUMNS), np.uint8)}


def shuffled(raw: Path, split: str) -> Arrays:
    """A split whose labels were dealt out anew, always in the same way."""
    import numpy as np

    arrays = digits(raw, split)
    return {**arrays, "label": generator(split).permutation(np.asarray(arrays["label"]))}


def generator(split: str) -> np.random.Generator:
    """Random numbers for a split that do not depend on the run's seed: the data are the same in each run."""
    import numpy as np

    return np.random.default_rng([113, *split.encode()])


EXTRA = Feature(shape=(COLUMNS,), dtype="uint8", description="columns that say nothing of the digit")

SOURCES = {
    "mnist": MNIST,
    "noise": MNIST.model_copy(
        update={
            "title": "MNIST, with 784 columns of noise beside each image",
            "features": {**MNIST.features, "extra": EXTRA},
            "read": read_noise,
        }
    ),
    "zeros": MNIST.model_copy(
        update={
            "title": "MNIST, with 784 zeros beside each image",
            "features": {**MNIST.features, "extra": EXTRA},
            "read": read_zeros,
        }
    ),
    "random_labels": MNIST.model_copy(
        update={
            "title": "MNIST, its labels shuffled",
            "read": read_shuffled,
            "note": "The labels mean nothing: what a network learns of them, it has learned by heart.",
        }
    ),
}
"""The first one is the default."""
