"""Checkpoints survive what happens to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.engine.checkpoints import Checkpoint, newest, save


def checkpoint(epoch: int) -> Checkpoint:
    return Checkpoint(epoch, [np.full((3, 2), epoch, np.float32), np.array(epoch)], {"loss": [0.5] * epoch})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(3))
    found = newest(tmp_path)

    assert found is not None
    assert (found.epoch, found.history) == (3, {"loss": [0.5] * 3})
    np.testing.assert_array_equal(found.state[0], np.full((3, 2), 3, np.float32))


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None


def test_two_generations_are_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save(tmp_path, checkpoint(epoch))

    assert len(list(tmp_path.iterdir())) == 2
    found = newest(tmp_path)
    assert found is not None
    assert found.epoch == 3


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty"])
def test_a_damaged_newest_falls_back_to_the_one_before(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, checkpoint(1))
    save(tmp_path, checkpoint(2))
    latest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(latest.read_bytes())
    if harm == "flip":
        # A byte of the weights themselves, which only the archive's sum can tell.
        at = bytes(data).index(np.full((3, 2), 2, np.float32).tobytes())
        data[at] ^= 1
    latest.write_bytes({"truncate": data[: len(data) // 2], "flip": data, "empty": b""}[harm])

    found = newest(tmp_path)

    assert found is not None
    assert found.epoch == 1
    assert "damaged" in caplog.text


def test_the_next_one_is_written_over_the_damaged_one(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(1))
    save(tmp_path, checkpoint(2))
    latest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    latest.write_bytes(b"nothing")
    save(tmp_path, checkpoint(2))
    latest.unlink()

    found = newest(tmp_path)
    assert found is not None
    assert found.epoch == 1
