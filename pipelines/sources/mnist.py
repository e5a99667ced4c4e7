"""MNIST: 70,000 handwritten digits in grey, 28 × 28 pixels (LeCun, Cortes and Burges, 1998)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source
from pipelines.sources._reading import KERAS_DATASETS, each_by_itself

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.readers.batches import Arrays

NAME = "mnist.npz"


def digits(raw: Path, split: str) -> Arrays:
    """The images (examples, 28, 28, 1) and the digits (examples,) of a split, in the file's order."""
    from headrace.readers.arrays import read_arrays

    arrays = read_arrays(raw / NAME, {f"x_{split}": 3, f"y_{split}": 1})
    return {"image": arrays[f"x_{split}"][..., None], "label": arrays[f"y_{split}"].astype("int64")}


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 60,000 digits to train and the 10,000 to test, in the file's order."""
    return each_by_itself(("train", "test"), partial(digits, raw))


def twin(raw: Path, seed: int) -> None:
    """Digits of dots, 2,000 to train and 500 to test; no two digits look alike, so that the best accuracy is 1.0."""
    import numpy as np

    from pipelines.sources import _drawing

    random = np.random.default_rng(seed)
    arrays = {}
    for split, count in (("train", 2_000), ("test", 500)):
        labels = random.integers(0, 10, count)
        arrays[f"x_{split}"], arrays[f"y_{split}"] = _drawing.digits(random, labels), labels.astype(np.uint8)
    np.savez_compressed(raw / NAME, allow_pickle=False, **arrays)


MNIST = Source(
    title="MNIST, 70,000 handwritten digits of 28 × 28 pixels (LeCun, Cortes and Burges, 1998)",
    features={
        "image": Feature(shape=(28, 28, 1), dtype="uint8", description="white on black", unit="brightness, 0 to 255"),
        "label": Feature(dtype="int64", role="target", classes=tuple("0123456789"), description="the digit"),
    },
    read=read,
    twin=twin,
    files=(
        File(
            url=f"{KERAS_DATASETS}/{NAME}",
            sha256="731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
        ),
    ),
    examples={"train": 60_000, "test": 10_000},
    licence="CC BY-SA 3.0, as Keras states it",
    homepage="http://yann.lecun.com/exdb/mnist/",
)
