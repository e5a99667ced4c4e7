"""What is written: the same bytes each time, in shards that end where the data say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.records import write
from headrace.tables import batches


def examples(rows: int = 10) -> dict[str, np.ndarray]:
    return {
        "x": np.arange(rows * 3, dtype=np.float32).reshape(rows, 3),
        "label": np.arange(rows, dtype=np.int64),
    }


def parsed(folder: Path, names: tuple[str, ...]) -> list[Any]:
    """The examples of these files as `tf.train.Example`."""
    import tensorflow as tf

    records = tf.data.TFRecordDataset([str(folder / name) for name in names])
    return [tf.train.Example.FromString(record) for record in records.as_numpy_iterator()]


def test_an_example_holds_each_feature_flattened(tmp_path: Path) -> None:
    written = write(tmp_path, "train", batches(examples(2)))
    second = parsed(tmp_path, written.shards)[1].features.feature
    assert second["x"].float_list.value == [3, 4, 5]
    assert second["label"].int64_list.value == [1]


def test_strings_are_kept_as_bytes(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"name": pa.array(["Höhe", ""], pa.large_string())})
    written = write(tmp_path, "train", [batch])
    assert [e.features.feature["name"].bytes_list.value[0] for e in parsed(tmp_path, written.shards)] == [
        "Höhe".encode(),
        b"",
    ]


def test_equal_examples_give_equal_bytes_however_they_are_batched(tmp_path: Path) -> None:
    for name, rows in (("a", 4), ("b", 4), ("c", 3)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "train", batches(examples(), rows), shard_bytes=300)
    first, *others = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc")
    assert len(first) > 1
    assert others == [first, first]


def test_shards_are_numbered_and_keep_the_order(tmp_path: Path) -> None:
    written = write(tmp_path, "test", batches(examples(10), 4), shard_bytes=150)
    count = len(written.shards)
    assert count > 2
    assert written.shards == tuple(f"test.tfrecord-{i:05d}-of-{count:05d}" for i in range(count))
    assert sorted(p.name for p in tmp_path.iterdir()) == list(written.shards)
    example = max(len(record.SerializeToString()) for record in parsed(tmp_path, written.shards)) + 20
    assert max(p.stat().st_size for p in tmp_path.iterdir()) < 150 + example
    labels = [e.features.feature["label"].int64_list.value[0] for e in parsed(tmp_path, written.shards)]
    assert labels == list(range(10))
    assert written.examples == 10


def test_a_part_of_a_batch_is_written_as_that_part(tmp_path: Path) -> None:
    (whole,) = batches(examples(5))
    written = write(tmp_path, "train", [whole.slice(2, 2)])
    values = [e.features.feature["x"].float_list.value for e in parsed(tmp_path, written.shards)]
    assert values == [[6, 7, 8], [9, 10, 11]]


def test_no_example_gives_no_file(tmp_path: Path) -> None:
    assert write(tmp_path, "train", []).shards == ()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_halfway_is_passed_on(tmp_path: Path) -> None:
    def failing() -> Any:
        yield from batches(examples())
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write(tmp_path, "train", failing())
