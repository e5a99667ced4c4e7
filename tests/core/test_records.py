"""What is written: the same bytes each time, in shards that end where the data say."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from headrace.errors import DataError
from headrace.readers.batches import batches
from headrace.records import writing as records
from headrace.records.writing import stored, write
from headrace.spec import Feature, Records
from tests.core.kinds import EVERY, everything

LAYOUT = {"x": Feature(shape=(3,)), "label": Feature(dtype="int64", role="target")}


def examples(rows: int = 10) -> dict[str, np.ndarray]:
    return {
        "x": np.arange(rows * 3, dtype=np.float32).reshape(rows, 3),
        "label": np.arange(rows, dtype=np.int64),
    }


def parsed(folder: Path, names: tuple[str, ...], compression: str = "") -> list[Any]:
    """The examples of these files as `tf.train.Example`, read by TensorFlow."""
    import tensorflow as tf

    found = tf.data.TFRecordDataset([str(folder / name) for name in names], compression)
    return [tf.train.Example.FromString(record) for record in found.as_numpy_iterator()]


def labels(found: list[Any]) -> list[int]:
    return [example.features.feature["label"].int64_list.value[0] for example in found]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_example_holds_each_feature_flattened(tmp_path: Path) -> None:
    written = write(tmp_path, "train", batches(examples(2)), LAYOUT)
    second = parsed(tmp_path, written.shards)[1].features.feature
    assert second["x"].float_list.value == [3, 4, 5]
    assert second["label"].int64_list.value == [1]


def test_strings_are_kept_as_bytes(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"name": pa.array(["Höhe", ""], pa.large_string())})
    written = write(tmp_path, "train", [batch], {"name": Feature(dtype="string")})
    assert [e.features.feature["name"].bytes_list.value[0] for e in parsed(tmp_path, written.shards)] == [
        "Höhe".encode(),
        b"",
    ]


def test_only_the_features_of_the_layout_are_kept(tmp_path: Path) -> None:
    written = write(tmp_path, "train", batches(examples(1)), {"x": LAYOUT["x"]})
    assert list(parsed(tmp_path, written.shards)[0].features.feature) == ["x"]


class TestTheSameBytes:
    @pytest.mark.parametrize("kept", [Records(shard_bytes=2000), Records(images="png", compression="gzip")])
    def test_come_of_equal_examples_whatever_the_number_of_threads(self, tmp_path: Path, kept: Records) -> None:
        values, found = everything(60), []
        for workers in (1, 2, 4):
            (tmp_path / str(workers)).mkdir()
            written = write(tmp_path / str(workers), "train", batches(values, 7), EVERY, kept, workers=workers)
            assert written.examples == 60
            found.append(contents(tmp_path / str(workers)))
        assert found[1:] == [found[0], found[0]]

    def test_come_of_equal_examples_however_they_are_batched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = everything(60)
        for name, rows, at_once in (("a", 60, 8192), ("b", 7, 8192), ("c", 60, 5)):
            monkeypatch.setattr(records, "ROWS", at_once)
            (tmp_path / name).mkdir()
            write(tmp_path / name, "train", batches(values, rows), EVERY, Records(shard_bytes=2000))
        first, *others = (contents(tmp_path / name) for name in "abc")
        assert len(first) > 5
        assert others == [first, first]

    def test_come_of_equal_examples_in_compressed_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.time", lambda: 1e9)
        for name in "ab":
            (tmp_path / name).mkdir()
            write(tmp_path / name, "train", batches(examples()), LAYOUT, Records(compression="gzip"))
            monkeypatch.setattr("time.time", lambda: 2e9)
        assert contents(tmp_path / "a") == contents(tmp_path / "b")


class TestShards:
    def test_are_numbered_and_keep_the_order(self, tmp_path: Path) -> None:
        written = write(tmp_path, "test", batches(examples(100), 4), LAYOUT, Records(shard_bytes=1000))
        count = len(written.shards)
        assert count > 2
        assert written.shards == tuple(f"test.tfrecord-{i:05d}-of-{count:05d}" for i in range(count))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["test.lengths", *written.shards]
        assert labels(parsed(tmp_path, written.shards)) == list(range(100))
        assert written.lengths == tuple(len(parsed(tmp_path, (name,))) for name in written.shards)
        assert written.examples == 100
        sizes = [(tmp_path / name).stat().st_size for name in written.shards]
        assert written.bytes == sum(sizes)
        example = max(len(record.SerializeToString()) for record in parsed(tmp_path, written.shards)) + 16
        assert all(1000 <= size < 1000 + example for size in sizes[:-1])

    def test_end_where_a_record_fills_them_exactly(self, tmp_path: Path) -> None:
        """Ten records of 100 bytes with their frames make a shard of 1000 bytes, and not one byte more."""
        text = {"t": np.array([b"x" * 71] * 25, object)}
        written = write(tmp_path, "train", batches(text), {"t": Feature(dtype="string")}, Records(shard_bytes=1000))
        assert {len(example.SerializeToString()) for example in parsed(tmp_path, written.shards)} == {84}
        assert written.lengths == (10, 10, 5)

    def test_say_how_long_each_record_is(self, tmp_path: Path) -> None:
        values = {"t": np.array([b"x" * length for length in (5, 0, 2000, 7)], object)}
        written = write(tmp_path, "train", batches(values), {"t": Feature(dtype="string")}, Records(shard_bytes=1000))
        assert len(written.shards) == 2
        lengths = np.fromfile(tmp_path / "train.lengths", "<u4")
        assert lengths.tolist() == [len(e.SerializeToString()) for e in parsed(tmp_path, written.shards)]

    def test_of_a_compressed_split_end_where_those_of_a_plain_one_do(self, tmp_path: Path) -> None:
        (tmp_path / "plain").mkdir()
        plain = write(tmp_path / "plain", "train", batches(examples(99)), LAYOUT, Records(shard_bytes=1000))
        packed = write(tmp_path, "train", batches(examples(99)), LAYOUT, Records(shard_bytes=1000, compression="gzip"))
        assert packed.lengths == plain.lengths
        assert packed.bytes < plain.bytes
        for name in plain.shards:
            assert gzip.decompress((tmp_path / name).read_bytes()) == (tmp_path / "plain" / name).read_bytes()
        assert labels(parsed(tmp_path, packed.shards, "GZIP")) == list(range(99))

    def test_are_none_of_no_example(self, tmp_path: Path) -> None:
        assert write(tmp_path, "train", [], LAYOUT).shards == ()
        assert list(tmp_path.iterdir()) == []


class TestImages:
    IMAGE = Feature(shape=(8, 6, 3), dtype="uint8")

    @pytest.mark.parametrize(
        ("feature", "expected"),
        [
            (IMAGE, ("raw", "png", "jpeg")),
            (Feature(shape=(8, 6, 1), dtype="uint8", content="mask"), ("raw", "png", "png")),
            (Feature(shape=(8, 6, 4), dtype="uint8"), ("raw", "png", "raw")),
            (Feature(shape=(8, 6, 3), dtype="uint8", content="number"), ("raw", "raw", "raw")),
            (Feature(shape=(8, 6, 7), dtype="uint8", content="image"), ("raw", "raw", "raw")),
            (Feature(shape=(None, 6, 3), dtype="uint8", content="image"), ("raw", "raw", "raw")),
            (Feature(shape=(8,), dtype="uint8"), ("raw", "raw", "raw")),
            (Feature(shape=(8, 6, 3)), (None, None, None)),
            (Feature(dtype="string", content="image"), (None, None, None)),
        ],
    )
    def test_are_stored_as_asked_for_where_that_can_be(
        self, feature: Feature, expected: tuple[str | None, ...]
    ) -> None:
        kinds: tuple[Any, ...] = ("raw", "png", "jpeg")
        assert tuple(stored({"f": feature}, Records(images=kind))["f"] for kind in kinds) == expected

    @pytest.mark.parametrize("encoding", ["png", "jpeg"])
    def test_are_files_that_others_can_open(self, tmp_path: Path, encoding: Any) -> None:
        smooth = np.add.outer(np.arange(8) * 9, np.arange(6) * 7)
        images = np.stack([smooth, smooth + 60, smooth * 2], -1)[None].astype(np.uint8)
        written = write(tmp_path, "train", batches({"image": images}), {"image": self.IMAGE}, Records(images=encoding))
        (file,) = parsed(tmp_path, written.shards)[0].features.feature["image"].bytes_list.value
        opened = Image.open(io.BytesIO(file))
        assert opened.format == encoding.upper()
        tolerance = 0 if encoding == "png" else 12
        assert np.abs(np.asarray(opened).astype(int) - images[0]).max() <= tolerance


class TestFailure:
    @pytest.fixture
    def failing(self) -> Callable[[], Iterator[pa.RecordBatch]]:
        def make() -> Iterator[pa.RecordBatch]:
            yield from batches(examples(500), 10)
            raise RuntimeError("halfway")

        return make

    def test_halfway_is_passed_on_and_leaves_nothing(
        self, tmp_path: Path, failing: Callable[[], Iterator[pa.RecordBatch]]
    ) -> None:
        write(tmp_path, "test", batches(examples()), LAYOUT)
        before = contents(tmp_path)
        with pytest.raises(RuntimeError, match="halfway"):
            write(tmp_path, "train", failing(), LAYOUT, Records(shard_bytes=1000))
        assert contents(tmp_path) == before

    def test_of_encoding_is_passed_on_and_leaves_nothing(self, tmp_path: Path) -> None:
        sound, broken = pa.array([1, 2]), pa.array([1, None])
        given = [pa.RecordBatch.from_arrays([column], ["label"]) for column in (sound, sound, broken, sound)]
        with pytest.raises(DataError, match="`label` has 1 missing"):
            write(tmp_path, "train", given, {"label": LAYOUT["label"]})
        assert list(tmp_path.iterdir()) == []

    def test_for_want_of_room_is_passed_on_and_leaves_nothing(
        self, tmp_path: Path, full_disk: Callable[[], None]
    ) -> None:
        full_disk()
        with pytest.raises(OSError, match="too large"):
            write(tmp_path, "train", batches(examples(2000)), LAYOUT)
        assert list(tmp_path.iterdir()) == []

    def test_of_an_example_that_protobuf_can_not_hold(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(records, "LARGEST", 1000)
        given = batches({"t": np.array([b"x" * 1000], object)})
        with pytest.raises(DataError, match="too large to be stored"):
            write(tmp_path, "train", given, {"t": Feature(dtype="string")})
        assert list(tmp_path.iterdir()) == []


def test_batches_are_taken_only_as_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, few are in memory at a time."""
    written, waiting = 0, []
    add = records._Shards.add

    def counted(self: Any, frames: Any) -> None:
        nonlocal written
        add(self, frames)
        written += 1

    def many() -> Iterator[pa.RecordBatch]:
        for taken, batch in enumerate(batches(examples(500), 10)):
            waiting.append(taken - written)
            yield batch

    monkeypatch.setattr(records._Shards, "add", counted)
    write(tmp_path, "train", many(), LAYOUT, workers=2)
    assert written == 50
    assert 0 < max(waiting) <= 3


def test_large_batches_are_encoded_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    add = records._Shards.add

    def seen(self: Any, frames: Any) -> None:
        sizes.append(len(frames))
        add(self, frames)

    monkeypatch.setattr(records._Shards, "add", seen)
    write(tmp_path, "train", batches(examples(100), 100), LAYOUT)
    monkeypatch.setattr(records, "ROWS", 60)
    write(tmp_path, "train", batches(examples(100), 100), LAYOUT)
    # 20 bytes in each row.
    monkeypatch.setattr(records, "BYTES", 1000)
    write(tmp_path, "train", batches(examples(100), 100), LAYOUT)
    assert sizes == [100, 60, 40, 50, 50]
