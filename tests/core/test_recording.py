"""The workload's function over batches: the numbers of its operations, values of every kind, in their order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from headrace.placing.dividing import PROCESSORS
from headrace.ragged import Ragged
from headrace.recording import mapped
from headrace.spec import Feature


def through(function: Any, features: dict[str, Feature], *batches: Any) -> list[Any]:
    def arrays() -> Iterator[Any]:
        yield from batches

    return list(mapped(function, features, arrays))


def test_numbers_are_those_of_the_operations_to_the_last_bit() -> None:
    """A graph that is rewritten before it runs divides by a constant as it multiplies by the reciprocal."""
    import tensorflow as tf

    values = np.random.default_rng(0).normal(size=(10_000, 2)).astype(np.float32)
    scale = np.array([3.1, 0.7], np.float32)
    (found,) = through(lambda batch: {"x": batch["x"] / tf.constant(scale)}, {"x": Feature(shape=(2,))}, {"x": values})
    np.testing.assert_array_equal(found["x"].numpy(), values / scale)


def test_values_of_any_kind_are_taken_and_returned() -> None:
    features = {"words": Feature(shape=(None,), dtype="string"), "n": Feature(dtype="int64")}
    given = {"words": Ragged.of([[b"a", b"b"], [], [b"c"]], object), "n": np.arange(3)}
    (found,) = through(lambda batch: {**batch, "length": batch["words"].row_lengths()}, features, given)
    assert found["words"].to_list() == [[b"a", b"b"], [], [b"c"]]
    assert (found["n"].numpy().tolist(), found["length"].numpy().tolist()) == ([0, 1, 2], [2, 0, 1])


def test_batches_of_any_size_come_in_their_order() -> None:
    sizes = range(1, 50)
    given = [{"x": np.full(size, size, np.float32)} for size in sizes]
    found = through(lambda batch: {"x": 2 * batch["x"]}, {"x": Feature()}, *given)
    assert [one["x"].numpy().tolist() for one in found] == [[2.0 * size] * size for size in sizes]


@pytest.mark.parametrize("processors", [1, 2])
def test_as_many_batches_are_worked_on_at_once_as_there_are_processors(
    processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    monkeypatch.setenv(PROCESSORS, str(processors))
    under_way, most = 0, 0

    def slow(x: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.05)
        under_way -= 1
        return x

    given = [{"x": np.ones(3, np.float32)}] * 10
    # The function of each batch, and what would be done ahead while the one before is used.
    made = mapped(
        lambda batch: {"x": tf.ensure_shape(tf.numpy_function(slow, [batch["x"]], tf.float32), (None,))},
        {"x": Feature()},
        lambda: iter(given),
    )
    for _ in made:
        slow(None)
    assert (most == 1) == (processors == 1)
