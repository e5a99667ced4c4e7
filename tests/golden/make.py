"""The records in `records/` beside this file, made anew: `python -m tests.golden.make`.

They are kept to guard the format. A change that makes them unreadable, or writes other bytes for the same examples,
must be meant: raise `headrace.records.inputs.VERSION` with it, and run this.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from headrace.ragged import Ragged
from headrace.records.inputs import Info
from headrace.spec import Column, Feature, Records
from tests.core.keeping import keep

FOLDER = Path(__file__).parent / "records"
KEPT = Records(images="png", shard_bytes=2000)
LAYOUT = {
    "rooms": Feature(shape=(2,), columns=(Column(name="kitchen"), Column(name="bath"))),
    "price": Feature(optional=True, role="target"),
    "label": Feature(dtype="int64", classes=("ant", "bee", "cow"), role="target"),
    "counts": Feature(shape=(2, 2), dtype="int64"),
    "image": Feature(shape=(4, 3, 3), dtype="uint8"),
    "mask": Feature(shape=(4, 3, 1), dtype="uint8", content="mask", classes=("no", "yes")),
    "levels": Feature(shape=(5,), dtype="uint8"),
    "tokens": Feature(shape=(None,), dtype="int64"),
    "curve": Feature(shape=(None, 2)),
    "words": Feature(shape=(None,), dtype="string"),
    "text": Feature(dtype="string"),
    "pair": Feature(shape=(2,), dtype="string", role="note"),
}


def examples(rows: int, first: int = 0) -> dict[str, Any]:
    """Examples without anything random, the largest and the smallest numbers among them."""
    n = np.arange(first, first + rows)
    lengths = n % 4
    steps = np.arange(lengths.sum())
    extremes = np.array([-(2**63), -1, 0, 127, 128, 2**31, 2**63 - 1])
    pixels = (n[:, None] * 7 + np.arange(36) * 5) % 256
    return {
        "rooms": np.stack([n / 3, -n * 1e30], 1).astype(np.float32),
        "price": np.where(n % 5 == 4, np.nan, n * 0.1).astype(np.float32),
        "label": n % 3,
        "counts": extremes[(n[:, None] + np.arange(4)) % 7].reshape(-1, 2, 2),
        "image": pixels.reshape(-1, 4, 3, 3).astype(np.uint8),
        "mask": (pixels[:, :12].reshape(-1, 4, 3, 1) % 2).astype(np.uint8),
        "levels": ((n[:, None] + np.arange(5)) % 256).astype(np.uint8),
        "tokens": Ragged.of([extremes[:length] for length in lengths], np.int64),
        "curve": Ragged(np.stack([steps, -steps], 1).astype(np.float32) / 7, np.cumsum([0, *lengths])),
        "words": Ragged.of([[b"w" * i for i in range(length)] for length in lengths], object),
        "text": np.array([f"Höhe {i} ".encode() * int(i) for i in n], object),
        "pair": np.array([[b"a%d" % i, b""] for i in n], object),
    }


def make(folder: Path) -> Info:
    """Write the records."""
    return keep(folder, LAYOUT, KEPT, train=examples(20), test=examples(4, first=100))


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    make(FOLDER)
