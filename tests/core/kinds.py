"""Examples with a feature of every kind."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from headrace.ragged import Ragged
from headrace.spec import Feature

EVERY = {
    "number": Feature(optional=True),
    "vector": Feature(shape=(3,)),
    "wide": Feature(shape=(260,)),
    "series": Feature(shape=(4, 2)),
    "image": Feature(shape=(2, 2, 3), dtype="uint8"),
    "mask": Feature(shape=(2, 2), dtype="uint8", content="mask", classes=("no", "yes")),
    "tokens": Feature(shape=(None,), dtype="int64"),
    "curve": Feature(shape=(None, 2)),
    "label": Feature(dtype="int64", classes=("ant", "bee"), role="target"),
    "text": Feature(dtype="string", optional=True),
    "file": Feature(dtype="string", content="image"),
    "name": Feature(dtype="string", role="note"),
}


def everything(rows: int, seed: int = 0) -> dict[str, Any]:
    """Examples of `EVERY`."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 5, rows)
    texts = strings(b"red fox", b"Fox", b"", b"\xff", None)
    return {
        "number": np.where(random.random(rows) < 0.2, np.nan, random.normal(size=rows)),
        "vector": random.lognormal(size=(rows, 3)).astype(np.float32),
        "wide": (random.random((rows, 260)) < 0.1).astype(np.float32),
        "series": random.normal(size=(rows, 4, 2)).astype(np.float32),
        "image": random.integers(0, 256, (rows, 2, 2, 3)).astype(np.uint8),
        "mask": random.integers(0, 3, (rows, 2, 2)).astype(np.uint8),
        "tokens": Ragged.of([random.integers(0, 9, n) for n in lengths], np.int64),
        "curve": Ragged.of([random.normal(size=(n, 2)) for n in lengths], np.float32),
        "label": random.integers(0, 3, rows),
        "text": texts[random.integers(0, 5, rows)],
        "file": strings(*(picture(width=int(n)) for n in random.integers(1, 4, rows))),
        "name": strings(*(b"%d" % n for n in random.integers(0, 50, rows))),
    }


def strings(*values: bytes | None) -> np.ndarray:
    """Values of a feature of strings; None is missing."""
    return np.array(values, object)


def picture(height: int = 8, width: int = 12, mode: str = "RGB", kind: str = "PNG", level: int = 100) -> bytes:
    """The bytes of an image file of one colour."""
    file = io.BytesIO()
    Image.new(mode, (width, height), (level,) * len(mode) if len(mode) > 1 else level).save(file, kind)
    return file.getvalue()
