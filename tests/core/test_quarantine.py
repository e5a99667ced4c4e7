"""Batches held against what is declared: what can't be used stops the run, or is left out and noted."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import DataError
from headrace.ragged import Ragged
from headrace.readers.batches import batches, whole
from headrace.spec import Column, Feature
from headrace.validation import checking
from headrace.validation.checking import Quarantine, checked, image_fault, shortened, write_quarantine

FEATURES = {
    "facts": Feature(shape=(2,), columns=(Column(name="ROOMS"), Column(name="AGE"))),
    "price": Feature(role="target"),
}


def examples(**changes: Any) -> dict[str, Any]:
    """Six examples of two facts and a price."""
    return {
        "facts": np.array([[1, 10], [2, 20], [3, 30], [4, 40], [5, 50], [6, 60]], np.float32),
        "price": np.array([1, 2, 3, 4, 5, 6], np.float32),
        **changes,
    }


def check(
    arrays: dict[str, Any], features: dict[str, Feature] = FEATURES, quarantine: Quarantine | None = None
) -> list[pa.RecordBatch]:
    return list(checked(batches(arrays, 2), features, "split `train`", quarantine))


def message(arrays: dict[str, Any], features: dict[str, Feature] = FEATURES) -> str:
    with pytest.raises(DataError) as caught:
        check(arrays, features)
    return str(caught.value)


def one(column: pa.Array, feature: Feature, quarantine: Quarantine | None = None) -> list[Any]:
    """The values of a single feature `x` after the check."""
    batch = pa.RecordBatch.from_arrays([column], ["x"])
    found = checked([batch], {"x": feature}, "here", quarantine)
    return [value for kept in found for value in kept.column(0).to_pylist()]


def fault(column: pa.Array, feature: Feature) -> str:
    """What is said about a single feature `x`, without the frame."""
    with pytest.raises(DataError) as caught:
        one(column, feature)
    (line,) = (line for line in str(caught.value).splitlines() if line.startswith("  - "))
    return line.removeprefix("  - feature `x` ").removeprefix("  - feature `x`, ")


class TestBatches:
    def test_that_are_as_declared_pass_unchanged(self) -> None:
        assert check(examples()) == list(batches(examples(), 2))

    def test_come_out_in_the_declared_order(self) -> None:
        turned = dict(reversed(examples().items()))
        assert check(turned)[0].schema.names == ["facts", "price"]

    def test_without_rows_are_left_out(self) -> None:
        (batch,) = batches(examples())
        assert [b.num_rows for b in checked([batch.slice(0, 0), batch], FEATURES, "here")] == [6]

    @pytest.mark.parametrize(
        ("column", "feature"),
        [
            (pa.array([[1, 2], [3, 4]], pa.list_(pa.uint8(), 2)), Feature(shape=(2,), dtype="uint8")),
            (pa.array([[1.0], []], pa.large_list(pa.float32())), Feature(shape=(None,))),
            (pa.array([[1, 2, 3, 4], [5, 6]], pa.list_(pa.int64())), Feature(shape=(None, 2), dtype="int64")),
            (pa.array(["a", None]), Feature(dtype="string", optional=True)),
            (pa.array(["a", ""]), Feature(dtype="string", optional=True, classes=("a", "b"))),
            (pa.array([1.0, None], pa.float32()), Feature(optional=True)),
            (pa.array([1.0, math.nan], pa.float32()), Feature(optional=True)),
            (pa.array([[1.0], None], pa.list_(pa.float32(), 1)), Feature(shape=(1,), optional=True)),
            (pa.array([0, 1]), Feature(dtype="int64", classes=("no", "yes"))),
            (pa.array([b"yes", b"no"]), Feature(dtype="string", classes=("no", "yes"))),
            (pa.array(["a", ""]), Feature(dtype="string")),
        ],
        ids=[
            "bytes",
            "ragged, also empty",
            "ragged in steps of two",
            "a missing string",
            "a missing category",
            "a null",
            "a NaN",
            "a missing vector",
            "class numbers",
            "class names",
            "an empty text",
        ],
    )
    def test_may_hold(self, column: pa.Array, feature: Feature) -> None:
        assert repr(one(column, feature)) == repr(column.to_pylist())


class TestStructure:
    def test_a_missing_feature_is_named_with_the_nearest(self) -> None:
        arrays = examples()
        arrays["prices"] = arrays.pop("price")
        assert message(arrays).startswith(
            "In split `train`, feature `price` is missing: did you mean `prices`?; "
            "feature `prices` is not declared: did you mean `price`?"
        )

    def test_a_feature_that_is_not_declared_is_refused(self) -> None:
        assert "feature `year` is not declared" in message(examples(year=np.arange(6)))

    def test_a_feature_that_is_there_twice_is_refused(self) -> None:
        (batch,) = batches(examples())
        twice = pa.RecordBatch.from_arrays([*batch.columns, batch.column(1)], ["facts", "price", "price"])
        with pytest.raises(DataError, match="`price` is there twice"):
            list(checked([twice], FEATURES, "here"))

    def test_a_wrong_width_is_told_with_both(self) -> None:
        text = message(examples(facts=np.zeros((6, 3), np.float32)))
        assert "feature `facts` is not what was declared." in text
        assert "expected: fixed_size_list<item: float>[2] (shape (2,))" in text
        assert "[3]" in text.split("received:")[1]

    @pytest.mark.parametrize(
        ("values", "feature"),
        [
            (np.zeros(6, np.int64), Feature()),
            (np.zeros((6, 1), np.float32), Feature()),
            (np.zeros(6, np.float32), Feature(shape=(1,))),
            (np.zeros((6, 2), np.float32), Feature(shape=(None,))),
            (Ragged.of([[1.0]] * 6, np.float32), Feature(shape=(1,))),
            (np.zeros(6, np.int64), Feature(dtype="uint8")),
            (np.array(["a"] * 6, object), Feature(dtype="int64")),
        ],
        ids=[
            "another type",
            "a list instead of a number",
            "a number instead of a list",
            "fixed instead of ragged",
            "ragged instead of fixed",
            "whole numbers instead of bytes",
            "text",
        ],
    )
    def test_another_type_is_refused(self, values: Any, feature: Feature) -> None:
        assert "is not what was declared" in message(examples(price=values), FEATURES | {"price": feature})

    @pytest.mark.parametrize(
        ("values", "feature"),
        [
            (np.arange(6, dtype=np.uint8), Feature(dtype="int64")),
            (np.arange(12, dtype=np.uint8).reshape(6, 2), Feature(shape=(2,))),
            (Ragged.of([[1, 2], [3]] * 3, np.uint8), Feature(shape=(None,), dtype="int64")),
        ],
        ids=["a number", "a list", "ragged"],
    )
    def test_bytes_become_the_larger_numbers_that_are_declared(self, values: Any, feature: Feature) -> None:
        features = FEATURES | {"price": feature}
        found = whole(check(examples(price=values), features), features)["price"]
        one, other = (found.values, values.values) if isinstance(found, Ragged) else (found, values)
        np.testing.assert_array_equal(one, other)
        assert one.dtype == feature.dtype

    def test_a_column_that_changes_type_half_way_is_told_with_its_row(self) -> None:
        first, second = (
            next(iter(batches({"x": values}))) for values in (np.zeros(3, np.float32), np.zeros(3, np.int64))
        )
        with pytest.raises(DataError, match="`x` is not what was declared, from row 3 on"):
            list(checked([first, second], {"x": Feature()}, "here"))


class TestValues:
    def test_a_nan_target_is_told_with_its_row(self) -> None:
        text = message(examples(price=np.array([1, 2, 3, np.nan, 5, 6])))
        assert text.startswith("In split `train`, 1 example can't be used (rows are counted from 0):")
        assert "feature `price` is missing in row 3 (nan)" in text
        assert "received: 1 of the first 4 without" in text

    @pytest.mark.parametrize("value", [math.inf, -math.inf])
    def test_an_infinite_input_is_told_with_row_and_column(self, value: float) -> None:
        arrays = examples()
        arrays["facts"][5, 1] = value
        assert f"feature `facts`, column `AGE`, is infinite in row 5 ({value})" in message(arrays)

    def test_all_that_is_wrong_with_a_batch_is_told_at_once(self) -> None:
        arrays = examples(price=np.array([1, 2, np.nan, 4, 5, 6]))
        arrays["facts"][2:4] = np.nan
        text = message(arrays)
        assert "2 examples can't be used" in text
        assert "feature `facts`, column `ROOMS`, is missing in row 2 (nan), row 3 (nan)\n" in text
        assert "feature `price` is missing in row 2 (nan)\n" in text

    def test_of_many_rows_the_first_are_named_and_the_others_counted(self) -> None:
        values = np.full(9_000, np.nan, np.float32)
        with pytest.raises(DataError, match=r"in row 0 \(nan\), row 1 \(nan\), row 2 \(nan\) and 8,189 more"):
            list(checked(batches({"x": values}), {"x": Feature()}, "here"))

    def test_of_many_problems_the_first_are_told_and_the_others_counted(self) -> None:
        features = {"x": Feature(shape=(20,))}
        quarantine = Quarantine(0.99)
        values = np.where(np.eye(20, dtype=bool), np.nan, 0)
        list(checked(batches({"x": np.concatenate([values, np.zeros((1, 20))])}), features, "here", quarantine))
        assert len(quarantine.problems()) == 9
        assert quarantine.problems()[-1] == "and 12 problems more"

    @pytest.mark.parametrize(
        ("shape", "index", "name"),
        [((2, 2), (1, 0), "x[1,0]"), ((3,), (2,), "x[2]")],
    )
    def test_a_position_without_a_name_is_told_by_its_index(
        self, shape: tuple[int, ...], index: tuple[int, ...], name: str
    ) -> None:
        values = np.zeros((1, *shape), np.float32)
        values[(0, *index)] = np.nan
        text = message({"x": values}, {"x": Feature(shape=shape)})
        assert f"column `{name}`, is missing in row 0" in text

    def test_a_step_of_a_series_is_told_with_the_name_of_its_column(self) -> None:
        feature = Feature(shape=(3, 2), columns=(Column(name="T"), Column(name="p")))
        values = np.zeros((1, 3, 2), np.float32)
        values[0, 2, 1] = np.nan
        assert "column `x[2,p]`, is missing" in message({"x": values}, {"x": feature})

    def test_a_step_of_a_ragged_series_is_counted_from_the_beginning_of_its_example(self) -> None:
        values = Ragged.of([[0, 0, 0], [], [1, 2, math.inf]], np.float32)
        assert "column `x[2]`, is infinite in row 2 (inf)" in message({"x": values}, {"x": Feature(shape=(None,))})

    @pytest.mark.parametrize(
        ("column", "feature"),
        [
            (pa.array([1.0, None], pa.float32()), Feature()),
            (pa.array([1, None]), Feature(dtype="int64")),
            (pa.array(["a", None], pa.large_string()), Feature(dtype="string")),
            (pa.array([[1.0], None], pa.list_(pa.float32(), 1)), Feature(shape=(1,))),
            (pa.array([[1], None], pa.large_list(pa.int64())), Feature(shape=(None,), dtype="int64")),
            (pa.array(["a", ""]), Feature(dtype="string", content="category")),
            (pa.array([b"a", b""]), Feature(dtype="string", classes=("a",))),
        ],
        ids=["float", "whole number", "string", "list", "ragged", "empty category", "empty class"],
    )
    def test_a_missing_value_is_told_with_its_row(self, column: pa.Array, feature: Feature) -> None:
        assert fault(column, feature).startswith("is missing in row 1")

    def test_a_null_within_a_list_is_told_with_its_place(self) -> None:
        column = pa.array([[1], [None]], pa.list_(pa.int64(), 1))
        assert fault(column, Feature(shape=(1,), dtype="int64")) == "column `x[0]`, is missing in row 1"

    def test_a_bad_value_behind_a_missing_list_is_told_with_its_own_row(self) -> None:
        column = pa.array([None, [1.0, math.inf]], pa.list_(pa.float32(), 2))
        assert fault(column, Feature(shape=(2,), optional=True)) == "column `x[1]`, is infinite in row 1 (inf)"

    def test_rows_are_right_in_a_slice(self) -> None:
        column = pa.array([[9.0], [1.0], [math.inf]], pa.list_(pa.float32(), 1)).slice(1)
        assert fault(column, Feature(shape=(1,))) == "column `x[0]`, is infinite in row 1 (inf)"

    @pytest.mark.parametrize("value", [3, -1])
    def test_a_class_number_without_a_class_is_told(self, value: int) -> None:
        column = pa.array([0, 1, value, 2])
        assert fault(column, Feature(dtype="int64", classes=("a", "b", "c"))) == (
            f"is none of the 3 classes in row 2 ({value})"
        )

    @pytest.mark.parametrize("value", [3.0, -1.0, 0.5])
    def test_a_class_that_may_be_missing_is_a_whole_number_all_the_same(self, value: float) -> None:
        column = pa.array([0, None, math.nan, value], pa.float32())
        feature = Feature(classes=("a", "b", "c"), optional=True)
        assert fault(column, feature) == f"is none of the 3 classes in row 3 ({value:g})"

    def test_a_label_that_is_no_class_is_told(self) -> None:
        column = pa.array([b"cat", b"dog", b"fish"])
        feature = Feature(dtype="string", classes=("cat", "dog"), role="target")
        assert fault(column, feature) == 'is none of the 2 classes in row 2 ("fish")'

    def test_a_pixel_of_a_mask_that_is_no_class_is_told(self) -> None:
        mask = np.zeros((2, 2, 2, 1), np.uint8)
        mask[1, 0, 1] = 3
        feature = Feature(shape=(2, 2, 1), dtype="uint8", content="mask", classes=("pet", "edge", "ground"))
        assert "column `x[0,1,0]`, is none of the 3 classes in row 1 (3)" in message({"x": mask}, {"x": feature})

    def test_a_sequence_that_breaks_off_within_a_step_is_told(self) -> None:
        column = pa.array([[1.0, 2.0], [1.0, 2.0, 3.0]], pa.large_list(pa.float32()))
        assert fault(column, Feature(shape=(None, 2))) == "holds no multiple of 2 values in row 1 (3)"


class TestQuarantine:
    def bad(self) -> dict[str, Any]:
        """Of six examples the third and the sixth can't be used."""
        arrays = examples(
            price=np.array([1, 2, 3, 4, 5, np.nan]), name=np.array([f"{i}.csv" for i in range(6)], object)
        )
        arrays["facts"][2] = np.inf
        return arrays

    FEATURES = FEATURES | {"name": Feature(dtype="string", role="note")}

    def test_leaves_out_what_can_not_be_used(self) -> None:
        kept = check(self.bad(), self.FEATURES, Quarantine(0.4))
        assert [price for batch in kept for price in batch.column("price").to_pylist()] == [1, 2, 4, 5]

    def test_notes_row_reason_value_and_what_the_notes_say(self) -> None:
        quarantine = Quarantine(0.4, "train")
        check(self.bad(), self.FEATURES, quarantine)
        assert (quarantine.examples, quarantine.left_out) == (6, 2)
        assert quarantine.noted == [
            {
                "split": "train",
                "row": 2,
                "note": {"name": "2.csv"},
                "problems": [
                    {"feature": "facts", "column": "ROOMS", "reason": "is infinite", "value": "inf", "more": 1}
                ],
            },
            {
                "split": "train",
                "row": 5,
                "note": {"name": "5.csv"},
                "problems": [{"feature": "price", "column": "", "reason": "is missing", "value": "nan", "more": 0}],
            },
        ]

    def test_is_not_asked_twice_what_it_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = examples(price=np.array([1, np.nan, 3, 4, 5, np.inf], np.float32))
        known = Quarantine(0.5, "train")
        kept = check(values, quarantine=known)
        monkeypatch.setattr(checking, "faults", None)
        assert check(values, quarantine=known.again()) == kept
        assert sum(batch.num_rows for batch in kept) == 4

    def test_leaves_out_the_same_when_the_split_is_read_again(self) -> None:
        assert check(self.bad(), self.FEATURES, Quarantine(0.4)) == check(self.bad(), self.FEATURES, Quarantine(0.4))

    def test_of_more_than_its_share_stops_with_all_that_is_wrong(self) -> None:
        with pytest.raises(DataError) as caught:
            check(self.bad(), self.FEATURES, Quarantine(0.3))
        text = str(caught.value)
        assert "feature `facts`, column `ROOMS`, is infinite in row 2 (inf)\n" in text
        assert "feature `price` is missing in row 5 (nan)\n" in text
        assert "or at most 30.00% without" in text
        assert "received: 2 of 6 without" in text

    def test_takes_exactly_its_share(self) -> None:
        assert sum(batch.num_rows for batch in check(self.bad(), self.FEATURES, Quarantine(2 / 6))) == 4

    def test_without_a_share_stops_at_the_first_batch(self) -> None:
        read = []

        def watched() -> Any:
            for batch in batches(self.bad(), 2):
                read.append(batch)
                yield batch

        with pytest.raises(DataError, match="1 of the first 4"):
            list(checked(watched(), self.FEATURES, "here"))
        assert len(read) == 2

    def test_knows_where_an_example_was_before(self) -> None:
        quarantine = Quarantine(0.9)
        values = np.array([np.nan, 1, np.nan, np.nan, 4, 5, np.nan, 7])
        kept = one(pa.array(values.astype(np.float32)), Feature(), quarantine)
        assert [quarantine.original(row) for row in range(len(kept))] == [1, 4, 5, 7]

    def test_names_some_and_counts_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("headrace.validation.checking.NOTED", 3)
        quarantine = Quarantine(0.99)
        check({"x": np.array([np.nan] * 9 + [1.0])}, {"x": Feature()}, quarantine)
        assert ([line["row"] for line in quarantine.noted], quarantine.left_out) == ([0, 1, 2], 9)

    def test_is_written_line_by_line_with_its_totals(self, tmp_path: Path) -> None:
        quarantine, clean = Quarantine(0.4, "train"), Quarantine(0.4, "test")
        check(self.bad(), self.FEATURES, quarantine)
        check(examples(), FEATURES, clean)
        write_quarantine(tmp_path / "quarantine.jsonl", [quarantine, clean])
        lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
        assert lines[:2] == quarantine.noted
        problems = [
            "feature `facts`, column `ROOMS`, is infinite in row 2 (inf)",
            "feature `price` is missing in row 5 (nan)",
        ]
        assert lines[2:] == [
            {"split": "train", "total": {"examples": 6, "left_out": 2, "problems": problems, "remarks": []}},
            {"split": "test", "total": {"examples": 6, "left_out": 0, "problems": [], "remarks": []}},
        ]

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, ""),
            (0.5, "0.5"),
            (12, "12"),
            ("word", '"word"'),
            (b"word", '"word"'),
            ("x" * 100, '"' + "x" * 57 + '…"'),
            (b"\xff\xd8" + bytes(98), "100 bytes: ff d8 00 00 00 00 00 00 00 00 00 00 …"),
        ],
    )
    def test_shortens_values(self, value: Any, text: str) -> None:
        assert shortened(value) == text


def image(kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """A small image file."""
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert(mode).save(file, kind)
    return file.getvalue()


class TestImages:
    FEATURE = Feature(dtype="string", content="image")

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
    def test_that_are_whole_can_be_used(self, kind: str) -> None:
        found, wrong = image_fault(image(kind))
        assert found.startswith(kind)
        assert not wrong

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
    @pytest.mark.parametrize("share", [0.5, 0.99])
    def test_that_are_cut_short_can_not(self, kind: str, share: float) -> None:
        file = image(kind)
        assert image_fault(file[: int(len(file) * share)]) == ("", "is an image cut short")

    def test_with_something_behind_their_end_can_be_used(self) -> None:
        assert image_fault(image() + b"\n<!-- junk -->")[1] == ""

    @pytest.mark.parametrize("file", [b"<html>not found</html>", b"x", image("WEBP"), image()[:3]])
    def test_that_are_none_are_told_with_how_they_begin(self, file: bytes) -> None:
        said = fault(pa.array([image(), file], pa.large_binary()), self.FEATURE)
        assert said.startswith("is no image (JPEG, PNG, GIF, BMP) in row 1 (")
        assert shortened(file) in said

    def test_that_are_missing_are_told_once(self) -> None:
        assert fault(pa.array([image(), b""], pa.large_binary()), self.FEATURE) == 'is missing in row 1 ("")'

    def test_in_a_list_are_told_with_their_place(self) -> None:
        column = pa.array([[image(), image()], [image(), b"none"]], pa.list_(pa.binary(), 2))
        assert fault(column, self.FEATURE.model_copy(update={"shape": (2,)})).startswith("column `x[1]`, is no image")

    def test_of_another_kind_than_the_others_are_used_and_remarked(self) -> None:
        features = {"x": self.FEATURE, "file": Feature(dtype="string", role="note")}
        files = [image(), image("PNG", "RGBA"), image(), image()]
        arrays = {"x": np.array(files, object), "file": np.array([f"{i}.jpg" for i in range(4)], object)}
        quarantine = Quarantine()
        assert sum(batch.num_rows for batch in check(arrays, features, quarantine)) == 4
        assert quarantine.remarks() == ["feature `x` is PNG, RGBA where most images are JPEG, RGB in row 1 (1.jpg)"]
        (anomaly,) = quarantine.anomalies()
        assert (anomaly.severity, anomaly.kind, anomaly.count, anomaly.rows) == ("warning", "image", 1, (1,))

    @pytest.mark.real_data
    def test_the_png_among_the_pets_is_remarked(self, mirror: Path) -> None:
        with tarfile.open(mirror / "oxford_iiit_pet" / "images.tar.gz") as archive:
            files = [(m.name, archive.extractfile(m).read()) for m in archive if m.isfile()]  # type: ignore[union-attr]
        arrays = {"x": np.array([f for _, f in files], object), "file": np.array([n for n, _ in files], object)}
        quarantine = Quarantine()
        list(
            checked(
                batches(arrays), {"x": self.FEATURE, "file": Feature(dtype="string", role="note")}, "pets", quarantine
            )
        )
        (remark,) = quarantine.remarks()
        assert remark.endswith("(images/Abyssinian_5.jpg)")
        assert "is PNG, RGBA where most images are JPEG, RGB" in remark
