"""What the encoder writes is what protobuf would write, and what TensorFlow reads."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.internal import encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import DataError
from headrace.ragged import Ragged
from headrace.readers.batches import batches
from headrace.records.encoding import content, encode
from headrace.records.inputs import Info, parser
from headrace.records.writing import stored
from headrace.spec import Feature, Records

Values = dict[str, Any]

LENGTHS = (0, 1, 2, 126, 127, 128, 129, 300, 16_383, 16_384)
"""Around those at which a length takes one byte more."""
NUMBERS = {
    "float32": st.floats(width=32, allow_nan=False) | st.just(math.nan),
    "int64": st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300),
    "uint8": st.integers(0, 255),
    "string": st.binary(max_size=20) | st.sampled_from(LENGTHS).map(lambda size: b"x" * size),
}


@st.composite
def examples(draw: st.DrawFn) -> tuple[dict[str, Feature], Values]:
    """Some features of any type and shape, and their values in a few examples."""
    rows = draw(st.integers(1, 5))
    names = draw(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,59}", fullmatch=True), min_size=1, max_size=4, unique=True))
    layout, values = {}, {}
    for name in names:
        dtype = draw(st.sampled_from(list(NUMBERS)))
        rest = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 40]), max_size=2)))
        ragged = draw(st.booleans())
        layout[name] = Feature(shape=(None, *rest) if ragged else rest, dtype=dtype)
        lengths = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows)) if ragged else [1] * rows
        count = sum(lengths) * math.prod(rest)
        # Few different values, repeated: Hypothesis has better things to draw than thousands of numbers.
        several = draw(st.lists(NUMBERS[dtype], min_size=1, max_size=8))
        flat = np.array([several[i % len(several)] for i in range(count)], object if dtype == "string" else dtype)
        found = flat.reshape(sum(lengths), *rest)
        values[name] = Ragged(found, np.cumsum([0, *lengths])) if ragged else found
    return layout, values


def of_protobuf(layout: dict[str, Feature], values: Values, row: int) -> bytes:
    """An example as protobuf serialises it, one feature after the other, since it promises no order."""
    import tensorflow as tf

    parts = []
    for name, feature in sorted(layout.items()):
        one = values[name]
        one = one.values[one.splits[row] : one.splits[row + 1]] if isinstance(one, Ragged) else one[row]
        flat = np.reshape(one, -1).tolist()
        if feature.dtype == "float32":
            held = tf.train.Feature(float_list=tf.train.FloatList(value=flat))
        elif feature.dtype == "int64":
            held = tf.train.Feature(int64_list=tf.train.Int64List(value=flat))
        else:
            several = flat if feature.dtype == "string" else [bytes(flat)]
            held = tf.train.Feature(bytes_list=tf.train.BytesList(value=several))
        parts.append(tf.train.Features(feature={name: held}).SerializeToString())
    # Two messages of features, one after the other, are one message with the features of both.
    merged = b"".join(parts)
    return b"\n" + encoder._VarintBytes(len(merged)) + merged


def encoded(layout: dict[str, Feature], values: Values) -> list[bytes]:
    (batch,) = batches(values, 1000)
    return encode(batch, layout).to_pylist()


@settings(max_examples=100, deadline=None)
@given(examples())
def test_any_example_is_what_protobuf_makes_of_it(given: tuple[dict[str, Feature], Values]) -> None:
    layout, values = given
    found = encoded(layout, values)
    assert found == [of_protobuf(layout, values, row) for row in range(len(found))]


@settings(max_examples=40, deadline=None)
@given(examples())
def test_any_example_is_read_back_by_tensorflow(given: tuple[dict[str, Feature], Values]) -> None:
    import tensorflow as tf

    layout, values = given
    info = Info("toy", "made", "synthetic", layout, {}, stored(layout, Records()))
    batch = parser(info)(tf.constant(encoded(layout, values)))
    for name, given_values in values.items():
        found = batch[name]
        if isinstance(given_values, Ragged):
            np.testing.assert_array_equal(found.row_splits, given_values.splits)
            found, given_values = found.values, given_values.values
        np.testing.assert_array_equal(found.numpy(), given_values, strict=True)


@pytest.mark.parametrize("rows", [1, 200])
@pytest.mark.parametrize("size", LENGTHS)
def test_strings_of_any_length_stand_beside_each_other(size: int, rows: int) -> None:
    layout = {"a": Feature(dtype="string"), "b": Feature(shape=(2,), dtype="string"), "c": Feature(dtype="int64")}
    values = {
        "a": np.array([b"y" * (size if row % 3 else 0) for row in range(rows)], object),
        "b": np.array([[b"z" * size, b"" if row % 2 else b"q"] for row in range(rows)], object),
        "c": np.array([row - 3 for row in range(rows)]),
    }
    assert encoded(layout, values) == [of_protobuf(layout, values, row) for row in range(rows)]


@pytest.mark.parametrize("label", [1, 200])
def test_large_arrays_stand_beside_what_differs_in_length(label: int) -> None:
    layout = {"image": Feature(shape=(28, 28), dtype="uint8"), "label": Feature(dtype="int64")}
    image = np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28)
    values = {"image": image, "label": np.array([0, label, 7])}
    assert encoded(layout, values) == [of_protobuf(layout, values, row) for row in range(3)]


def test_a_part_of_a_batch_is_encoded_as_that_part() -> None:
    layout = {
        "x": Feature(shape=(2,)),
        "label": Feature(dtype="int64"),
        "word": Feature(dtype="string"),
        "words": Feature(shape=(2,), dtype="string"),
        "tokens": Feature(shape=(None,), dtype="int64"),
        "names": Feature(shape=(None,), dtype="string"),
    }
    values = {
        "x": np.arange(10.0).reshape(5, 2),
        "label": np.arange(5) * 100,
        "word": np.array([b"a" * row for row in range(5)], object),
        "words": np.array([[b"b" * row, b"c"] for row in range(5)], object),
        "tokens": Ragged.of([range(row) for row in range(5)], np.int64),
        "names": Ragged.of([[b"n"] * (4 - row) for row in range(5)], object),
    }
    (batch,) = batches(values)
    assert encode(batch.slice(1, 3), layout).to_pylist() == encode(batch, layout).to_pylist()[1:4]


def test_the_rows_lie_in_one_buffer() -> None:
    (batch,) = batches({"word": np.array([b"a", b"bcd"], object)})
    rows = encode(batch, {"word": Feature(dtype="string")})
    data, splits = content(rows)
    assert [data[start:end].tobytes() for start, end in pairwise(splits)] == rows.to_pylist()


def test_what_is_missing_is_no_number_or_an_empty_string() -> None:
    layout = {"x": Feature(optional=True), "v": Feature(shape=(2,), optional=True), "s": Feature(dtype="string")}
    columns = [
        pa.array([1.0, None], pa.float32()),
        pa.FixedSizeListArray.from_arrays(pa.array([1.0, None, 3.0, 4.0], pa.float32()), 2),
        pa.array([None, "b"]),
    ]
    found = encode(pa.RecordBatch.from_arrays(columns, ["x", "v", "s"]), layout).to_pylist()
    values = {
        "x": np.array([1, np.nan], np.float32),
        "v": np.array([[1, np.nan], [3, 4]], np.float32),
        "s": np.array([b"", b"b"], object),
    }
    assert found == [of_protobuf(layout, values, row) for row in range(2)]


def test_strings_missing_as_a_whole_are_empty_ones() -> None:
    column = pa.array([["a", "b"], None, ["c", None]], pa.list_(pa.string(), 2))
    layout = {"s": Feature(shape=(2,), dtype="string", optional=True)}
    found = encode(pa.RecordBatch.from_arrays([column], ["s"]), layout).to_pylist()
    values = {"s": np.array([[b"a", b"b"], [b"", b""], [b"c", b""]], object)}
    assert found == [of_protobuf(layout, values, row) for row in range(3)]


def test_a_missing_whole_number_is_refused() -> None:
    batch = pa.RecordBatch.from_pydict({"n": pa.array([1, None])})
    with pytest.raises(DataError, match="`n` has 1 missing"):
        encode(batch, {"n": Feature(dtype="int64")})


def test_no_rows_are_no_bytes() -> None:
    (batch,) = batches({"word": np.array([b"a"], object), "x": np.zeros(1), "n": np.zeros(1, int)})
    layout = {"word": Feature(dtype="string"), "x": Feature(), "n": Feature(dtype="int64")}
    assert encode(batch.slice(0, 0), layout).to_pylist() == []
