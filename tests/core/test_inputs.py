"""Reading records back: everything, in order, and loudly when something is damaged or gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.artifacts import write_json
from headrace.errors import DataError
from headrace.inputs import arrays, dataset, read_info
from headrace.records import write
from headrace.tables import batches

ROWS = 50


@pytest.fixture
def examples() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "x": random.normal(size=(ROWS, 2, 3)).astype(np.float32),
        "label": np.arange(ROWS, dtype=np.int64),
    }


@pytest.fixture
def folder(tmp_path: Path, examples: dict[str, np.ndarray]) -> Path:
    """Records in several shards."""
    written = write(tmp_path, "train", batches(examples, 16), shard_bytes=1000)
    assert len(written.shards) > 2
    info(tmp_path, written.shards, ROWS)
    return tmp_path


def info(folder: Path, shards: tuple[str, ...], rows: int, **features: Any) -> None:
    features = features or {
        "x": {"shape": [2, 3], "dtype": "float32", "role": "input"},
        "label": {"shape": [], "dtype": "int64", "role": "target"},
    }
    splits = {"train": {"examples": rows, "shards": list(shards)}}
    about = {"version": 1, "workload": "toy", "source": "made", "data": "synthetic"}
    write_json(folder / "info.json", {**about, "features": features, "splits": splits})


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("train.tfrecord-*"))


def test_what_was_written_is_read_back(folder: Path, examples: dict[str, np.ndarray]) -> None:
    found = arrays(folder, "train")
    assert found.keys() == examples.keys()
    for name, values in examples.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def test_strings_are_read_back_as_bytes(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"name": pa.array(["oak", "Höhe"], pa.large_string())})
    written = write(tmp_path, "train", [batch])
    info(tmp_path, written.shards, 2, name={"shape": [], "dtype": "string", "role": "input"})
    assert arrays(tmp_path, "train")["name"].tolist() == [b"oak", "Höhe".encode()]


def test_a_dataset_gives_batches_in_stored_order(folder: Path, examples: dict[str, np.ndarray]) -> None:
    found = list(dataset(folder, "train", 16).as_numpy_iterator())
    assert [len(batch["x"]) for batch in found] == [16, 16, 16, 2]
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in found]), examples["x"], strict=True)


def test_a_dataset_knows_how_long_it_is(folder: Path) -> None:
    assert len(dataset(folder, "train", 16)) == 4


def test_info_tells_features_by_role(folder: Path) -> None:
    found = read_info(folder)
    assert (found.workload, found.source, found.data) == ("toy", "made", "synthetic")
    assert found.examples == {"train": ROWS}
    assert list(found.named("input")) == ["x"]
    assert found.named("target")["label"].dtype == "int64"


class TestDamage:
    def test_a_flipped_byte_is_found_and_the_file_named(self, folder: Path) -> None:
        second = shards(folder)[1]
        data = bytearray(second.read_bytes())
        data[40] ^= 1
        second.write_bytes(data)
        with pytest.raises(DataError, match=second.name):
            arrays(folder, "train")

    def test_a_truncated_file_is_found_and_named(self, folder: Path) -> None:
        last = shards(folder)[-1]
        last.write_bytes(last.read_bytes()[:-5])
        with pytest.raises(DataError, match=last.name):
            arrays(folder, "train")

    def test_a_missing_file_is_named(self, folder: Path) -> None:
        first = shards(folder)[0]
        first.unlink()
        with pytest.raises(DataError, match=first.name):
            arrays(folder, "train")

    def test_a_file_that_ends_early_between_two_examples_is_found(self, folder: Path) -> None:
        shards(folder)[-1].write_bytes(b"")
        with pytest.raises(DataError, match=rf"expected: {ROWS} examples"):
            arrays(folder, "train")

    def test_a_dataset_that_ends_early_is_an_error(self, folder: Path) -> None:
        import tensorflow as tf

        for path in shards(folder)[1:]:
            path.write_bytes(b"")
        with pytest.raises(tf.errors.FailedPreconditionError):
            list(dataset(folder, "train", 4))

    def test_records_of_another_kind_are_refused(self, folder: Path) -> None:
        info(folder, tuple(p.name for p in shards(folder)), ROWS, y={"shape": [], "dtype": "float32", "role": "input"})
        with pytest.raises(DataError, match="expected: examples with y"):
            arrays(folder, "train")

    def test_a_folder_without_info_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds no records"):
            read_info(tmp_path)

    def test_an_unknown_split_is_answered_with_the_nearest(self, folder: Path) -> None:
        with pytest.raises(DataError, match="no split `traim`: did you mean `train`"):
            arrays(folder, "traim")
