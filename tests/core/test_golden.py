"""Records that were written once are read for ever, and written again they are the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.ragged import Ragged
from headrace.records.inputs import arrays, read_info, verify
from tests.golden.make import FOLDER, KEPT, LAYOUT, examples, make


def test_they_say_what_they_are() -> None:
    info = read_info(FOLDER)
    assert info.features == LAYOUT
    assert info.examples == {"train": 20, "test": 4}
    assert len(info.shards["train"]) > 1
    assert info.encodings["image"] == info.encodings["mask"] == KEPT.images == "png"
    assert info.encodings["levels"] == "raw"


@pytest.mark.parametrize(("split", "rows", "first"), [("train", 20, 0), ("test", 4, 100)])
def test_they_are_read_to_the_last_bit(split: str, rows: int, first: int) -> None:
    assert list(verify(FOLDER, split)) == []
    found = arrays(FOLDER, split)
    for name, expected in examples(rows, first).items():
        one = found[name]
        if isinstance(expected, Ragged):
            assert one.splits.tolist() == expected.splits.tolist()
            one, expected = one.values, expected.values
        assert (one.shape, one.dtype) == (expected.shape, expected.dtype), name
        if expected.dtype == object:
            assert one.tolist() == expected.tolist(), name
        else:
            assert one.tobytes() == np.ascontiguousarray(expected).tobytes(), name


def test_they_are_written_to_the_last_bit(tmp_path: Path) -> None:
    make(tmp_path)
    written, kept = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in (tmp_path, FOLDER))
    assert written == kept
