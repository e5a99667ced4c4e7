"""TFRecord files of anybody's become batches; what is damaged in them is named by file, record and byte."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from headrace.errors import DataError
from headrace.ragged import Ragged
from headrace.readers import tfrecords
from headrace.readers.batches import whole
from headrace.readers.tfrecords import inferred, read_records, record_splits
from headrace.spec import Feature

FEATURES = {
    "x": Feature(shape=(2,)),
    "words": Feature(shape=(None,), dtype="int64"),
    "name": Feature(dtype="string"),
    "label": Feature(dtype="int64", role="target"),
}

Write = Callable[..., Path]


def examples(**columns: Sequence[Any]) -> list[bytes]:
    """Serialised examples of lists of values; None is an example without the feature."""
    kinds = {float: pa.float32(), int: pa.int64(), bytes: pa.binary()}
    arrays = {}
    for name, lists in columns.items():
        values = [value for one in lists for value in one or []]
        arrays[name] = pa.array(lists, pa.large_list(kinds[type(values[0])]))
    return RecordBatchToExamplesEncoder().encode(pa.RecordBatch.from_pydict(arrays))


def some(count: int = 3, first: int = 0, **changes: Sequence[Any]) -> list[bytes]:
    numbers = range(first, first + count)
    columns: dict[str, Sequence[Any]] = {
        "x": [[i + 0.5, 1.0] for i in numbers],
        "words": [[7] * (i % 3) for i in numbers],
        "name": [[f"n{i}".encode()] for i in numbers],
        "label": [[i] for i in numbers],
    }
    return examples(**columns | changes)


def framed(records: Iterable[bytes]) -> bytes:
    """As TensorFlow frames them."""

    def masked(data: bytes) -> bytes:
        plain = google_crc32c.value(data)
        return struct.pack("<I", ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    lengths = ((struct.pack("<Q", len(record)), record) for record in records)
    return b"".join(length + masked(length) + record + masked(record) for length, record in lengths)


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(data: bytes | list[bytes], name: str = "data.tfrecord") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else framed(data))
        return path

    return write


def read(place: Any, features: dict[str, Feature] = FEATURES, **options: Any) -> dict[str, Any]:
    return whole(read_records(place, features, **options), features)


def refusal(place: Any, features: dict[str, Feature] = FEATURES, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(place, features, **options)
    return str(caught.value)


class TestReading:
    def test_gives_every_kind_of_feature(self, file: Write) -> None:
        rows = read(file(some()))
        np.testing.assert_array_equal(rows["x"], [[0.5, 1], [1.5, 1], [2.5, 1]])
        assert isinstance(rows["words"], Ragged)
        assert [words.tolist() for words in rows["words"]] == [[], [7], [7, 7]]
        assert rows["name"].tolist() == [b"n0", b"n1", b"n2"]
        assert rows["label"].tolist() == [0, 1, 2]

    @pytest.mark.parametrize(
        "pack", [gzip.compress, zlib.compress, lambda d: gzip.compress(d[:100]) + gzip.compress(d[100:])]
    )
    def test_unpacks_what_is_packed_whatever_it_is_called(self, file: Write, pack: Callable[[bytes], bytes]) -> None:
        assert read(file(pack(framed(some()))))["label"].tolist() == [0, 1, 2]

    @pytest.mark.parametrize("length", [0x0178, 0x8B1F])
    def test_does_not_take_a_length_for_the_mark_of_a_packer(self, file: Write, length: int) -> None:
        """376 bytes begin as zlib does, 35,615 as gzip."""
        records = (some(1, words=[[7]], name=[[b"n" * size]])[0] for size in range(length - 120, length))
        record = next(record for record in records if len(record) == length)
        assert read(file([record]))["label"].tolist() == [0]

    def test_goes_from_file_to_file_in_the_order_of_names(self, file: Write) -> None:
        second = file(some(2, first=2), "records/b.tfrecord-00001-of-00002")
        first = file(some(2), "records/b.tfrecord-00000-of-00002")
        (first.parent / "info.json").write_text("{}")
        assert read(first.parent)["label"].tolist() == [0, 1, 2, 3]
        assert read([second, first])["label"].tolist() == [2, 3, 0, 1]

    def test_can_be_done_again(self, file: Write) -> None:
        rows = read_records(file(some()), FEATURES)
        assert [b.to_pydict() for b in rows] == [b.to_pydict() for b in rows] != []

    @pytest.mark.parametrize("chunk", [1, 50, 1000])
    def test_does_not_depend_on_where_a_file_is_cut(
        self, file: Write, chunk: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tfrecords, "_CHUNK", chunk)
        monkeypatch.setattr(tfrecords, "_STEP", chunk)
        assert read(file(some(9)))["label"].tolist() == list(range(9))
        assert read(file(gzip.compress(framed(some(9)))))["label"].tolist() == list(range(9))

    def test_takes_numbers_of_another_type_if_nothing_is_lost(self, file: Write) -> None:
        features = {"x": Feature(shape=(2,), dtype="int64"), "label": Feature(shape=(1,))}
        rows = read(file(some(2, x=[[1.0, 2.0], [3.0, 4.0]])), features)
        assert rows["x"].tolist() == [[1, 2], [3, 4]]
        assert rows["label"].tolist() == [[0.0], [1.0]]
        assert "x holds a value that is no whole number on record 0" in refusal(file(some(2)), features)

    def test_finds_features_by_other_names(self, file: Write) -> None:
        features = {"digit": Feature(dtype="int64")}
        assert read(file(some()), features, names={"digit": "label"})["digit"].tolist() == [0, 1, 2]

    def test_knows_classes_by_name_and_by_number(self, file: Write) -> None:
        features = {"label": Feature(dtype="int64", classes=("a", "b"))}
        assert read(file(examples(label=[[b"b"], [b"a"]])), features)["label"].tolist() == [1, 0]
        assert read(file(examples(label=[[1], [0]])), features)["label"].tolist() == [1, 0]
        assert "is none of the classes on record 1" in refusal(file(examples(label=[[1], [2]])), features)

    def test_gives_pixels_however_an_image_is_stored(self, file: Write) -> None:
        pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        features = {"image": Feature(shape=(2, 2, 3), dtype="uint8")}
        for stored in (pixels.tobytes(), png.getvalue()):
            (image,) = read(file(examples(image=[[stored]])), features)["image"]
            np.testing.assert_array_equal(image, pixels)
        numbers = file(examples(image=[pixels.reshape(-1).tolist()]))
        np.testing.assert_array_equal(read(numbers, features)["image"][0], pixels)
        assert "image holds 8 values instead of 12 on record 1" in refusal(
            file(examples(image=[[png.getvalue()], [b"no image"]])), features
        )

    def test_takes_a_missing_value_for_missing(self, file: Write) -> None:
        features = {
            "age": Feature(optional=True),
            "name": Feature(dtype="string", optional=True),
            "x": Feature(shape=(2,), optional=True),
            "words": Feature(shape=(None,), dtype="int64"),
        }
        records = examples(
            age=[[1.5], None, []], name=[[b"a"], None, [b""]], x=[[1.0, 2.0], None, [3.0, 4.0]], words=[[1], None, []]
        )
        rows = read(file(records), features)
        np.testing.assert_array_equal(rows["age"], [1.5, np.nan, np.nan])
        assert rows["name"].tolist() == [b"a", b"", b""]
        np.testing.assert_array_equal(rows["x"], [[1, 2], [np.nan, np.nan], [3, 4]])
        assert [words.tolist() for words in rows["words"]] == [[1], [], []]

    def test_needs_no_targets_where_they_are_not_known_yet(self, file: Write) -> None:
        path = file(examples(x=[[1.0, 2.0]], words=[[1]], name=[[b"a"]]))
        (batch,) = read_records(path, FEATURES, targets_required=False)
        assert batch.schema.names == ["x", "words", "name"]
        assert "there is no feature `label`" in refusal(path)


class TestValues:
    def test_that_are_missing_or_too_many_are_told_with_their_records(self, file: Write) -> None:
        x = [[1.0, 2.0], [1.0], [float("nan"), 1.0]]
        said = refusal(file(some(3, label=[[1], None, [2, 3]], x=x, name=[[b"a"], [b""], [b"c"]])))
        assert "label, the target, is empty on record 1" in said
        assert "label, the target, holds 2 values instead of 1 on record 2" in said
        assert "x holds 1 values instead of 2 on record 1" in said
        assert "x holds a value that has no value on record 2" in said
        assert "name holds a value that is empty on record 1" in said

    def test_several_instead_of_one_are_not_taken_for_a_missing_one(self, file: Write) -> None:
        path = file(examples(age=[[1.0], [2.0, 3.0], None]))
        assert "age holds 2 values instead of 1 on record 1\n" in refusal(path, {"age": Feature(optional=True)})

    def test_that_cannot_be_used_are_null_if_asked_for(self, file: Write) -> None:
        path = file(some(3, label=[[1], None, [2, 3]], x=[[1.0, 2.0], [1.0], [float("inf"), 1.0]]))
        found = pa.Table.from_batches(read_records(path, FEATURES, bad="null")).to_pydict()
        assert found["label"] == [1, None, None]
        assert found["x"] == [[1, 2], [None, None], [None, 1]]

    def test_a_feature_that_is_missing_is_told_with_the_nearest(self, file: Write) -> None:
        said = refusal(file(some()), {"labels": Feature(dtype="int64")})
        assert "there is no feature `labels`: did you mean `label`?" in said

    def test_a_feature_that_changes_its_type_is_told_with_its_record(self, file: Write) -> None:
        said = refusal(file(some(2) + some(2, label=[[b"one"], [b"two"]])))
        assert "data.tfrecord, record 2 from byte " in said
        assert "is of another type than those before" in said

    def test_a_record_that_is_no_example_is_told_with_its_place(self, file: Write) -> None:
        records = [*some(2), b"no example"]
        said = refusal(file(records))
        offset = len(framed(records[:2]))
        assert f"data.tfrecord, record 2 from byte {offset}, is no tf.train.Example" in said


class TestDamage:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize(
        ("place", "what"),
        [
            (0, "has a damaged length"),
            (7, "has a damaged length"),
            (8, "has a damaged length"),
            (12, "does not match its checksum"),
            (-5, "does not match its checksum"),
            (-1, "does not match its checksum"),
        ],
    )
    def test_a_changed_byte_is_found_and_named(self, file: Write, place: int, what: str, packed: bool) -> None:
        records = some(20)
        start, end = (len(framed(records[:k])) for k in (11, 12))
        data = bytearray(framed(records))
        data[(start if place >= 0 else end) + place] ^= 1
        said = refusal(file(gzip.compress(data) if packed else bytes(data)))
        assert f"data.tfrecord, record 11 from byte {start:,}, {what}" in said
        assert "to go on: get a sound data.tfrecord" in said

    @pytest.mark.parametrize("lost", [1, 4, 5, 30])
    def test_a_file_that_is_cut_off_is_named(self, file: Write, lost: int) -> None:
        records = some(20)
        data = framed(records)[:-lost]
        said = refusal(file(data))
        assert f"record 19 from byte {len(framed(records[:19])):,}, is cut off: " in said
        assert f"the file ends at byte {len(data):,}" in said

    @pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
    @pytest.mark.parametrize("lost", [1, 8, 100])
    def test_a_packed_file_that_is_cut_off_is_named(
        self, file: Write, pack: Callable[[bytes], bytes], lost: int
    ) -> None:
        said = refusal(file(pack(framed(some(500)))[:-lost]))
        assert "is cut off" in said
        assert "it is packed, and its end is missing" in said

    def test_no_changed_byte_of_a_packed_file_goes_unnoticed(self, file: Write) -> None:
        whole_file, refused = gzip.compress(framed(some(3))), 0
        for position in range(len(whole_file)):
            data = bytearray(whole_file)
            data[position] ^= 0x10
            try:
                assert read(file(bytes(data)))["x"].tolist() == [[0.5, 1], [1.5, 1], [2.5, 1]]
            except DataError:
                refused += 1
        assert refused > len(whole_file) - 12, "all but what its header says of time and system"

    def test_no_changed_byte_goes_unnoticed(self, file: Write) -> None:
        whole_file = framed(some(3))
        for position in range(len(whole_file)):
            data = bytearray(whole_file)
            data[position] ^= 0x10
            with pytest.raises(DataError):
                read(file(bytes(data)))

    def test_what_is_sound_before_it_is_given(self, file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tfrecords, "_CHUNK", 200)
        batches = iter(read_records(file(framed(some(20))[:-1]), FEATURES))
        assert next(batches).num_rows > 0
        with pytest.raises(DataError, match="is cut off"):
            list(batches)

    @pytest.mark.parametrize("data", [b"Some words, no records.", b"\x00" * 100, b"short"])
    def test_another_kind_of_file_is_told_as_such(self, file: Write, data: bytes) -> None:
        said = refusal(file(data))
        assert "record 0 from byte 0" in said
        assert "no TFRecord file" in said or "is cut off" in said

    def test_no_records_are_told(self, file: Write, tmp_path: Path) -> None:
        assert "holds no records" in refusal(file(b""))
        assert "There is no file" in refusal(tmp_path / "none.tfrecord")
        (tmp_path / "empty").mkdir()
        assert "There is no TFRecord file in" in refusal(tmp_path / "empty")


class TestSplits:
    def test_are_told_by_the_names_of_files(self, file: Write) -> None:
        for name, count in [
            ("mnist-train.tfrecord-00000-of-00002", 3),
            ("mnist-train.tfrecord-00001-of-00002", 2),
            ("mnist-test.tfrecord-00000-of-00001", 4),
        ]:
            folder = file(some(count), f"mnist/{name}").parent
        splits = record_splits(folder, FEATURES)
        assert {split: sum(b.num_rows for b in batches) for split, batches in splits.items()} == {"train": 5, "test": 4}

    def test_are_dealt_out_where_names_tell_none(self, file: Write) -> None:
        file(some(6), "own/part-0.tfrecord")
        folder = file(some(4, first=6), "own/part-1.tfrecord.gz").parent
        splits = record_splits(folder, FEATURES)
        found = {split: whole(batches, FEATURES)["label"].tolist() for split, batches in splits.items()}
        assert {split: len(labels) for split, labels in found.items()} == {"train": 8, "test": 2}
        assert sorted(found["train"] + found["test"]) == list(range(10))


def test_features_are_inferred_from_records(file: Write) -> None:
    jpeg = b"\xff\xd8\xff\xe0"
    records = examples(
        x=[[1.0, 2.0], [3.0, 4.0]],
        age=[[1.5], None],
        words=[[1], [1, 2]],
        label=[[1], [2]],
        photo=[[jpeg], [jpeg]],
        name=[None, [b"a"]],
    )
    assert inferred(file(records)) == {
        "age": Feature(optional=True),
        "label": Feature(dtype="int64"),
        "name": Feature(dtype="string", optional=True),
        "photo": Feature(dtype="string", content="image"),
        "words": Feature(shape=(None,), dtype="int64"),
        "x": Feature(shape=(2,)),
    }
