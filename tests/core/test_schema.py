"""Batches against what is declared, the schema as text, and what is odd about new data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace import schema
from headrace.errors import DataError
from headrace.schema import anomalies, checked
from headrace.spec import Column, Feature
from headrace.summaries import Statistics, summarise
from headrace.tables import batches

FEATURES = {
    "facts": Feature(shape=(2,), columns=(Column(name="ROOMS"), Column(name="AGE"))),
    "price": Feature(role="target"),
}


def examples(**changes: Any) -> dict[str, np.ndarray]:
    """Six examples of two facts and a price."""
    return {
        "facts": np.array([[1, 10], [2, 20], [3, 30], [4, 40], [5, 50], [6, 60]], np.float32),
        "price": np.array([1, 2, 3, 4, 5, 6], np.float32),
        **changes,
    }


def check(arrays: dict[str, np.ndarray], features: dict[str, Feature] = FEATURES) -> list[pa.RecordBatch]:
    return list(checked(batches(arrays, 2), features, "split `train`"))


def message(arrays: dict[str, np.ndarray], features: dict[str, Feature] = FEATURES) -> str:
    with pytest.raises(DataError) as caught:
        check(arrays, features)
    return str(caught.value)


class TestBatches:
    def test_that_are_as_declared_pass_unchanged(self) -> None:
        assert check(examples()) == list(batches(examples(), 2))

    def test_come_out_in_the_declared_order(self) -> None:
        turned = dict(reversed(examples().items()))
        assert check(turned)[0].schema.names == ["facts", "price"]

    def test_without_rows_are_left_out(self) -> None:
        (batch,) = batches(examples())
        assert [b.num_rows for b in checked([batch.slice(0, 0), batch], FEATURES, "here")] == [6]

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
        assert "feature `facts` is not what was declared" in text
        assert "expected: fixed_size_list<item: float>[2] (shape (2,))" in text
        assert "[3]" in text.split("received:")[1]

    @pytest.mark.parametrize(
        "values",
        [np.zeros(6, np.int64), np.zeros((6, 1), np.float32)],
        ids=["another type", "a list instead of a number"],
    )
    def test_another_type_is_refused(self, values: np.ndarray) -> None:
        assert "expected: float (shape ())" in message(examples(price=values))

    def test_a_nan_target_is_told_with_its_row(self) -> None:
        text = message(examples(price=np.array([1, 2, 3, np.nan, 5, 6])))
        assert text.startswith("In split `train`, feature `price`, row 3 (the first is 0) can't be used.")
        assert "received: nan" in text

    @pytest.mark.parametrize("value", [math.inf, -math.inf])
    def test_an_infinite_input_is_told_with_row_and_column(self, value: float) -> None:
        arrays = examples()
        arrays["facts"][5, 1] = value
        text = message(arrays)
        assert "feature `facts`, column `AGE`, row 5 " in text
        assert f"received: {value}" in text

    def test_more_bad_rows_are_counted(self) -> None:
        arrays = examples()
        arrays["facts"][2:4] = np.nan
        assert "row 2 (the first is 0) can't be used, nor 1 more of the 2 rows around it." in message(arrays)

    def test_a_position_without_a_name_is_told_by_its_index(self) -> None:
        features = {"image": Feature(shape=(2, 2))}
        image = np.zeros((1, 2, 2))
        image[0, 1, 0] = np.nan
        assert "column `image[1,0]`, row 0" in message({"image": image}, features)

    @pytest.mark.parametrize(
        ("column", "feature"),
        [
            (pa.array([1.0, None], pa.float32()), Feature()),
            (pa.array([1, None]), Feature(dtype="int64")),
            (pa.array(["a", None], pa.large_string()), Feature(dtype="string")),
            (pa.array([[1.0], None], pa.list_(pa.float32(), 1)), Feature(shape=(1,))),
            (pa.array([[1], [None]], pa.list_(pa.int64(), 1)), Feature(shape=(1,), dtype="int64")),
        ],
        ids=["float", "whole number", "string", "list", "in a list"],
    )
    def test_a_null_is_told_with_its_row(self, column: pa.Array, feature: Feature) -> None:
        batch = pa.RecordBatch.from_arrays([column], ["x"])
        with pytest.raises(DataError, match=r"(?s)row 1 .*received: nothing"):
            list(checked([batch], {"x": feature}, "here"))


class TestText:
    FEATURES = FEATURES | {
        "count": Feature(dtype="int64"),
        "kind": Feature(dtype="string"),
        "image": Feature(shape=(2, 2)),
    }

    @pytest.fixture
    def found(self) -> Any:
        arrays = examples(
            count=np.array([3, -4, 5, 6, 7, 8]),
            kind=np.array(list("abcdef"), object),
            image=np.arange(24.0).reshape(6, 2, 2),
        )
        return schema.infer(self.FEATURES, summarise(batches(arrays), self.FEATURES))

    def test_columns_are_described_one_by_one(self, found: Any) -> None:
        facts = found.feature[0]
        ranges = {f.name: (f.float_domain.min, f.float_domain.max) for f in facts.struct_domain.feature}
        assert ranges == {"ROOMS": (1, 6), "AGE": (10, 60)}
        assert [d.size for d in facts.shape.dim] == [2]
        assert facts.presence.min_fraction == 1

    def test_other_features_are_described_as_a_whole(self, found: Any) -> None:
        from tensorflow_metadata.proto.v0 import schema_pb2

        by_name = {entry.name: entry for entry in found.feature}
        assert (by_name["count"].int_domain.min, by_name["count"].int_domain.max) == (-4, 8)
        assert by_name["kind"].type == schema_pb2.BYTES
        assert (by_name["image"].float_domain.min, by_name["image"].float_domain.max) == (0, 23)

    def test_is_read_back_as_it_was_written(self, found: Any, tmp_path: Path) -> None:
        schema.write(tmp_path / "schema.pbtxt", found)
        assert schema.read(tmp_path / "schema.pbtxt") == found
        assert 'name: "ROOMS"' in (tmp_path / "schema.pbtxt").read_text()

    @pytest.mark.parametrize("text", [None, "feature { nonsense: 1 }"])
    def test_what_is_no_schema_is_refused(self, text: str | None, tmp_path: Path) -> None:
        if text is not None:
            (tmp_path / "schema.pbtxt").write_text(text)
        with pytest.raises(DataError, match=r"schema\.pbtxt can't be read"):
            schema.read(tmp_path / "schema.pbtxt")


class TestAnomalies:
    def told(self, arrays: dict[str, np.ndarray]) -> list[tuple[str, str, str]]:
        """What is odd about these examples, given the usual ones."""
        known = summarise(batches(examples()), FEATURES)
        present = {name: feature for name, feature in FEATURES.items() if name in arrays}
        new = summarise(batches(arrays), present, like=known)
        return [(a.severity, a.column or a.feature, a.text) for a in anomalies(new, schema.infer(FEATURES, known))]

    def test_the_same_data_have_none(self) -> None:
        assert self.told(examples()) == []

    def test_a_missing_feature_is_an_error(self) -> None:
        arrays = examples()
        del arrays["price"]
        assert self.told(arrays) == [("error", "price", "feature `price` is missing")]

    def test_missing_values_are_an_error(self) -> None:
        assert self.told(examples(price=np.array([1, np.nan, np.nan, 4, 5, 6.0]))) == [
            ("error", "price", "price: 33.3% of the values are missing")
        ]

    def test_values_out_of_range_are_counted_on_both_sides(self) -> None:
        assert self.told(examples(price=np.array([0.9, 2, 3, 4, 6.1, 100]))) == [
            ("warning", "price", "price: 50.0% of the values are outside 1 to 6: they reach from 0.9 to 100")
        ]

    def test_a_column_that_no_longer_varies_is_told(self) -> None:
        facts = examples()["facts"]
        facts[:, 0] = 3
        assert self.told(examples(facts=facts)) == [("warning", "ROOMS", "ROOMS: every value is 3")]

    def test_a_range_that_was_widened_by_hand_counts(self) -> None:
        known = summarise(batches(examples()), FEATURES)
        allowed = schema.infer(FEATURES, known)
        allowed.feature[1].float_domain.max = 1000
        new = summarise(batches(examples(price=np.array([1, 2, 3, 4, 5, 900.0]))), FEATURES, like=known)
        assert anomalies(new, allowed) == []

    def test_statistics_are_of_the_type_that_json_gives(self) -> None:
        known = Statistics.from_json(summarise(batches(examples()), FEATURES).to_json())
        assert anomalies(known, schema.infer(FEATURES, known)) == []
