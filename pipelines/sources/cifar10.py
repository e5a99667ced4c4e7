"""CIFAR-10: 60,000 small photographs of ten kinds (Krizhevsky, 2009)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source
from pipelines.sources._reading import each_by_itself

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.readers.batches import Arrays

NAME = "cifar-10-binary.tar.gz"
FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE
"""Bytes of an example: its class, then all that is red, all that is green, all that is blue of it."""


def photographs(raw: Path, split: str) -> Arrays:
    """The images (examples, 32, 32, 3) and the classes (examples,) of a split, in the order of the files."""
    import numpy as np

    from headrace.errors import DataError
    from headrace.getting.archives import opened

    parts = []
    for name in FILES[split]:
        with opened(raw / NAME, f"*/{name}") as file:
            content = np.frombuffer(file.read(), np.uint8)
        if len(content) % RECORD:
            raise DataError(
                f"{NAME}: {name} is cut off.", expected=f"a multiple of {RECORD} bytes", received=f"{len(content)}"
            )
        parts.append(content.reshape(-1, RECORD))
    records = np.concatenate(parts)
    planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return {"image": np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), "label": records[:, 0].astype("int64")}


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 50,000 photographs to train and the 10,000 to test, in the order of the files."""
    return each_by_itself(tuple(FILES), partial(photographs, raw))


def twin(raw: Path, seed: int) -> None:
    """Drawn flowers, 1,000 to train and 200 to test; each class has petals of its own colour: the best is 1.0."""
    import numpy as np

    from pipelines.sources._drawing import flower
    from pipelines.sources._packing import tarred

    random = np.random.default_rng(seed)
    dark, middle, light = 20, 130, 240
    looks = [
        *((dark, dark, dark), (light, light, light), (light, dark, dark), (dark, light, dark), (dark, dark, light)),
        *(
            (light, light, dark),
            (light, dark, light),
            (dark, light, light),
            (light, middle, dark),
            (middle, dark, middle),
        ),
    ]
    files = {}
    for split, count in (("train", 200), ("test", 200)):
        for name in FILES[split]:
            records = np.empty((count, RECORD), np.uint8)
            records[:, 0] = random.integers(0, len(CLASSES), count)
            for record in records:
                small = flower(random, 6, looks[record[0]], looks[record[0]]).resize((SIDE, SIDE))
                record[1:] = np.asarray(small).transpose(2, 0, 1).ravel()
            files[f"cifar-10-batches-bin/{name}"] = records.tobytes()
    tarred(raw / NAME, files)


CIFAR10 = Source(
    title="CIFAR-10, 60,000 photographs of ten kinds, 32 × 32 pixels (Krizhevsky, 2009)",
    features={
        "image": Feature(shape=(SIDE, SIDE, 3), dtype="uint8", unit="brightness, 0 to 255"),
        "label": Feature(dtype="int64", role="target", classes=CLASSES),
    },
    read=read,
    twin=twin,
    files=(
        File(
            url=f"https://www.cs.toronto.edu/~kriz/{NAME}",
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            size=170_052_171,
        ),
    ),
    examples={"train": 50_000, "test": 10_000},
    licence="none stated; cite the report that its page names",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
)
