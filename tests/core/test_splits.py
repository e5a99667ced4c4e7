"""Examples are dealt out to splits as Keras deals them, in memory or in sweeps over what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import DataError
from headrace.ragged import Ragged
from headrace.readers import splits
from headrace.readers.batches import Restartable, batches, whole
from headrace.readers.splits import deal, keras_order, split_arrays, split_batches
from headrace.spec import Feature

FEATURES = {"n": Feature(dtype="int64"), "words": Feature(shape=(None,), dtype="int64")}


def examples(count: int) -> dict[str, np.ndarray | Ragged]:
    return {"n": np.arange(count), "words": Ragged.of([[i] * (i % 3) for i in range(count)], np.int64)}


def test_the_order_is_that_of_keras() -> None:
    order = np.arange(50)
    np.random.RandomState(113).shuffle(order)
    np.testing.assert_array_equal(keras_order(50), order)
    dealt = deal(50)
    np.testing.assert_array_equal(dealt["train"], order[:40])
    np.testing.assert_array_equal(dealt["test"], order[40:])


@pytest.mark.parametrize("count", [10, 11, 99, 506, 20_640])
def test_every_example_is_in_one_split(count: int) -> None:
    dealt = deal(count, {"validation": 0.1, "test": 0.2})
    assert list(dealt) == ["train", "validation", "test"]
    assert sorted(np.concatenate(list(dealt.values()))) == list(range(count))
    assert abs(len(dealt["validation"]) - 0.1 * count) <= 1
    assert abs(len(dealt["test"]) - 0.2 * count) <= 1


def test_another_seed_deals_otherwise() -> None:
    assert deal(50)["test"].tolist() != deal(50, seed=1)["test"].tolist()


@pytest.mark.parametrize(("count", "shares"), [(1, {"test": 0.2}), (3, {"validation": 0.1, "test": 0.1})])
def test_too_few_examples_are_refused(count: int, shares: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"houses.csv has too few examples for the splits train, .*test"):
        deal(count, shares, what="houses.csv")


def test_arrays_of_every_kind_are_split_alike() -> None:
    parts = split_arrays(examples(20))
    for split, rows in deal(20).items():
        assert parts[split]["n"].tolist() == rows.tolist()
        assert [one.tolist() for one in parts[split]["words"]] == [[i] * (i % 3) for i in rows.tolist()]


@pytest.mark.parametrize("held", [1 << 20, 1000, 1], ids=["in memory", "in sweeps", "one by one"])
def test_batches_are_split_as_arrays_are_however_much_fits(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "HELD", held)
    expected = split_arrays(examples(50))
    parts = split_batches(batches(examples(50), 7))

    for split in ("train", "test"):
        for _ in range(2):
            found = whole(parts[split], FEATURES)
            assert found["n"].tolist() == expected[split]["n"].tolist()
            assert [w.tolist() for w in found["words"]] == [w.tolist() for w in expected[split]["words"]]


def test_nothing_is_read_before_a_split_is_gone_through() -> None:
    def never() -> Any:
        raise AssertionError

    assert list(split_batches(Restartable(never))) == ["train", "test"]


def test_what_does_not_fit_is_swept_as_often_as_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = []

    def counted() -> Any:
        sweeps.append(1)
        return iter(batches({"n": np.arange(1000)}, 100))

    monkeypatch.setattr(splits, "HELD", 4000)  # half of 8 bytes each
    assert sum(batch.num_rows for batch in split_batches(Restartable(counted))["train"]) == 800
    assert len(sweeps) == 1 + 2


def test_batches_of_a_split_are_no_larger_than_others() -> None:
    rows = [batch.num_rows for batch in split_batches(batches({"n": np.arange(12_000)}))["train"]]
    assert rows == [8192, 1408]


def test_missing_values_stay_missing() -> None:
    vectors = pa.array([[1.0], None] * 5, pa.list_(pa.float32(), 1))
    batch = pa.RecordBatch.from_pydict({"s": pa.array(["a", None] * 5), "v": vectors})
    found = pa.Table.from_batches([b for part in split_batches([batch]).values() for b in part]).to_pydict()
    assert sorted(map(str, found["s"])) == ["None"] * 5 + ["a"] * 5
    assert found["v"].count(None) == 5
