"""Arrays of every kind of feature become Arrow batches, and arrays again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import DataError
from headrace.ragged import Ragged
from headrace.readers.batches import batches, to_arrays, whole
from headrace.spec import Feature


def test_batches_hold_the_arrays_in_their_order() -> None:
    arrays = {"x": np.arange(20.0).reshape(10, 2), "label": np.arange(10)}
    features = {"x": Feature(shape=(2,)), "label": Feature(dtype="int64")}
    cut = list(batches(arrays, rows=4))

    assert [batch.num_rows for batch in cut] == [4, 4, 2]
    assert cut[0].schema.field("x").type == pa.list_(pa.field("item", pa.float32()), 2)
    assert cut[0].schema.field("label").type == pa.int64()
    together = [to_arrays(batch, features) for batch in cut]
    np.testing.assert_array_equal(np.concatenate([part["x"] for part in together]), arrays["x"])
    np.testing.assert_array_equal(np.concatenate([part["label"] for part in together]), arrays["label"])


def test_batches_can_be_gone_through_again() -> None:
    again = batches({"x": np.arange(5)}, rows=2)
    assert [b.to_pydict() for b in again] == [b.to_pydict() for b in again] != []


def test_batches_keep_the_shape_of_examples() -> None:
    images = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    (batch,) = batches({"image": images})
    back = to_arrays(batch, {"image": Feature(shape=(3, 4))})
    np.testing.assert_array_equal(back["image"], images)


def test_batches_do_not_mind_how_an_array_lies_in_memory() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    (batch,) = batches({"x": x[::2, ::-2], "y": x[::2, 1], "z": np.asfortranarray(x)[:2]})
    back = to_arrays(batch, {"x": Feature(shape=(3,)), "y": Feature(), "z": Feature(shape=(6,))})
    np.testing.assert_array_equal(back["x"], x[::2, ::-2])
    np.testing.assert_array_equal(back["y"], x[::2, 1])
    np.testing.assert_array_equal(back["z"], x[:2])


def test_batches_of_a_slice_give_the_slice() -> None:
    """A slice of a list column keeps the whole column's values behind it."""
    (batch,) = batches({"x": np.arange(10.0).reshape(5, 2)})
    back = to_arrays(batch.slice(3, 1), {"x": Feature(shape=(2,))})
    np.testing.assert_array_equal(back["x"], [[6, 7]])


def test_batches_carry_text() -> None:
    words = np.array(["ein", "zwei"])
    (batch,) = batches({"word": words})
    assert to_arrays(batch, {"word": Feature(dtype="string")})["word"].tolist() == [b"ein", b"zwei"]


def test_batches_make_a_number_that_is_too_large_infinite() -> None:
    (batch,) = batches({"x": np.array([1e300])})
    assert batch.column("x").to_pylist() == [float("inf")]


def through(values: Any, feature: Feature, rows: int | None = None) -> Any:
    """Values, after they were batches."""
    return whole(batches({"x": values}, rows), {"x": feature})["x"]


def test_images_keep_their_bytes_and_their_memory() -> None:
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1)
    (batch,) = batches({"x": images})
    back = to_arrays(batch, {"x": Feature(shape=(3, 4, 1), dtype="uint8")})["x"]

    assert batch.schema.field("x").type == pa.list_(pa.uint8(), 12)
    assert back.dtype == np.uint8
    assert np.shares_memory(back, images)
    np.testing.assert_array_equal(back, images)


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [("float64", "float32"), ("float16", "float32"), ("int32", "int64"), ("bool", "int64"), ("uint8", "uint8")],
)
def test_numbers_become_one_of_three_types(dtype: str, becomes: str) -> None:
    values = np.array([0, 1, 1], dtype)
    back = through(values, Feature(dtype=becomes))  # type: ignore[arg-type]
    assert back.dtype == becomes
    assert back.tolist() == [0, 1, 1]


@pytest.mark.parametrize("rows", [1, 2, None])
def test_ragged_values_keep_their_lengths(rows: int | None) -> None:
    steps = Ragged(np.arange(12.0, dtype=np.float32).reshape(6, 2), np.array([0, 2, 2, 5, 6]))
    back = through(steps, Feature(shape=(None, 2)), rows)

    assert back.splits.tolist() == [0, 2, 2, 5, 6]
    np.testing.assert_array_equal(back.values, steps.values)


def test_ragged_values_keep_their_memory() -> None:
    steps = Ragged(np.arange(6), np.array([0, 2, 2, 6]))
    (batch,) = batches({"x": steps})
    assert np.shares_memory(to_arrays(batch, {"x": Feature(shape=(None,), dtype="int64")})["x"].values, steps.values)


def test_ragged_values_of_a_slice_are_those_of_its_examples() -> None:
    (batch,) = batches({"x": Ragged.of([[1, 2], [], [3], [4, 5]], np.int64)})
    back = to_arrays(batch.slice(1, 2), {"x": Feature(shape=(None,), dtype="int64")})["x"]
    assert [one.tolist() for one in back] == [[], [3]]


def test_texts_come_back_as_bytes_and_a_missing_one_empty() -> None:
    texts = np.array(["Köln", b"\xff\xd8", None], object)
    (batch,) = batches({"x": texts})
    assert batch.column("x").null_count == 1
    assert through(texts, Feature(dtype="string", optional=True)).tolist() == ["Köln".encode(), b"\xff\xd8", b""]


def test_texts_of_a_shape_keep_it() -> None:
    words = np.array([["a", "b"], ["c", None]], object)
    assert through(words, Feature(shape=(2,), dtype="string", optional=True)).tolist() == [[b"a", b"b"], [b"c", b""]]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_texts_may_be_of_every_type_that_arrow_has_for_them(kind: pa.DataType) -> None:
    batch = pa.RecordBatch.from_pydict({"x": pa.array(["a", None], kind)})
    assert to_arrays(batch, {"x": Feature(dtype="string", optional=True)})["x"].tolist() == [b"a", b""]


def test_missing_numbers_are_nan_in_arrays() -> None:
    vectors = pa.array([[1.0, None], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    batch = pa.RecordBatch.from_pydict({"x": pa.array([None, 1.0, 2.0], pa.float32()), "v": vectors})
    features = {"x": Feature(optional=True), "v": Feature(shape=(2,), optional=True)}
    back = to_arrays(batch.slice(1), features)

    np.testing.assert_array_equal(back["x"], [1, 2])
    np.testing.assert_array_equal(back["v"], [[np.nan, np.nan], [3, 4]])
    np.testing.assert_array_equal(to_arrays(batch, features)["v"][0], [1, np.nan])
    assert back["v"].dtype == np.float32


def test_a_missing_whole_number_is_an_error_and_no_other_number() -> None:
    batch = pa.RecordBatch.from_pydict({"n": pa.array([1, None], pa.int64())})
    with pytest.raises(DataError, match="`n` has 1 missing values"):
        to_arrays(batch, {"n": Feature(dtype="int64")})


def test_an_example_that_ends_within_a_step_is_an_error_even_if_another_makes_up_for_it() -> None:
    batch = pa.RecordBatch.from_pydict({"x": pa.array([[1.0], [2.0, 3.0, 4.0]], pa.large_list(pa.float32()))})
    with pytest.raises(DataError, match="breaks off within a step in row 0"):
        to_arrays(batch, {"x": Feature(shape=(None, 2))})


def test_a_feature_that_a_batch_lacks_is_left_out() -> None:
    (batch,) = batches({"x": np.ones(2)})
    assert list(to_arrays(batch, {"x": Feature(), "y": Feature(role="target")})) == ["x"]


def test_large_examples_make_small_batches() -> None:
    images = np.zeros((100, 512, 512), np.uint8)
    assert [batch.num_rows for batch in batches({"x": images})] == [64, 36]


def test_arrays_of_unequal_length_are_refused() -> None:
    with pytest.raises(DataError, match="Features differ in the number of their examples") as caught:
        batches({"x": np.ones(3), "y": np.ones(2)})
    assert "received: 3 of `x`, 2 of `y`" in str(caught.value)


def test_no_examples_are_no_arrays() -> None:
    with pytest.raises(DataError, match="There are no examples"):
        whole([], {"x": Feature()})


@given(
    examples=st.lists(
        st.tuples(
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
            st.none() | st.binary(min_size=1, max_size=5),
            st.floats(width=32, allow_infinity=True),
        ),
        min_size=1,
        max_size=20,
    ),
    rows=st.integers(1, 7),
)
@settings(deadline=None)
def test_any_examples_come_back_as_they_were(examples: list[Any], rows: int) -> None:
    words, texts, numbers = zip(*examples, strict=True)
    given_arrays = {
        "words": Ragged.of(words, np.int64),
        "text": np.array([*texts, None], object)[:-1],
        "number": np.array(numbers, np.float32),
    }
    features = {
        "words": Feature(shape=(None,), dtype="int64"),
        "text": Feature(dtype="string", optional=True),
        "number": Feature(optional=True),
    }
    back = whole(batches(given_arrays, rows), features)

    assert [one.tolist() for one in back["words"]] == list(words)
    assert back["text"].tolist() == [text or b"" for text in texts]
    np.testing.assert_array_equal(back["number"], np.float32(numbers))
