"""Work on a stream, divided: the same results in the same order as in one go, a few parts of it at a time."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace import preprocessing, recording
from headrace.describing import summaries
from headrace.describing.summaries import summarise
from headrace.errors import DataError
from headrace.jobs import Job
from headrace.placing import dividing
from headrace.placing.dividing import Parts, divided, helped_by, in_threads, in_turn, processors
from headrace.preprocessing import preprocess
from headrace.readers.batches import batches
from headrace.recording import Portion, Recorder, portions
from tests.core.kinds import EVERY, everything
from tests.core.making import parts_of, twin


def double(pieces: Iterable[int]) -> Iterator[int]:
    return (2 * piece for piece in pieces)


class Far:
    """Helpers that share no memory with the caller: what goes there and back is pickled."""

    def __init__(self) -> None:
        self.parts: list[int] = []
        """How many pieces each part had."""
        self.seconds = 0.0
        """What the work on a part is told to have taken."""

    def __call__(self, work: dividing.Work, cut: Iterable[list[Any]]) -> Iterator[tuple[Iterable[Any], float]]:
        theirs = pickle.loads(pickle.dumps(work))
        for part in cut:
            self.parts.append(len(part))
            made = list(theirs(pickle.loads(pickle.dumps(part))))
            yield pickle.loads(pickle.dumps(made)), self.seconds


@pytest.fixture
def far() -> Iterator[Far]:
    found = Far()
    with helped_by(found):
        yield found


class TestParts:
    def test_end_with_the_piece_that_fills_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dividing, "PART", 10)
        parts = Parts([4, 4, 4, 20, 1, 1], int)
        parts.rate = 1e9
        assert list(parts) == [[4, 4, 4], [20], [1, 1]]
        assert list(Parts([], int)) == []

    def test_become_as_large_as_the_work_on_them_is_quick_and_never_larger_than_fits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dividing, "PART", 20)
        monkeypatch.setattr(dividing, "SECONDS", 1.0)
        cut = Parts(range(1000), lambda _: 1)
        cut.rate = 4
        parts = iter(cut)

        def following(seconds: float) -> int:
            cut.took(seconds)
            return len(next(parts))

        # Two are under way at the same time: what is told of one holds for the part after the next.
        assert [len(next(parts)), len(next(parts))] == [4, 4]
        assert [following(seconds) for seconds in (0.5, 2.0, 0.8, 0.1, 0.0, 1e6)] == [8, 2, 10, 20, 20, 1]


class TestInTurn:
    def test_keeps_the_order_and_takes_a_few_pieces_ahead(self) -> None:
        taken: list[int] = []

        def pieces() -> Iterator[int]:
            for piece in range(10):
                taken.append(piece)
                yield piece

        found = in_turn(lambda piece: lambda: 2 * piece, pieces(), 3)
        assert [(next(found), len(taken)) for _ in range(3)] == [(0, 4), (2, 5), (4, 6)]
        assert list(found) == [6, 8, 10, 12, 14, 16, 18]

    def test_tells_of_an_error_in_the_stream_after_what_came_before_it(self) -> None:
        def pieces() -> Iterator[int]:
            yield from (1, 2)
            raise DataError("the third can't be read")

        found = in_turn(lambda piece: lambda: piece, pieces(), 4)
        assert (next(found), next(found)) == (1, 2)
        with pytest.raises(DataError, match="the third"):
            next(found)

    def test_in_threads_works_on_several_at_once(self) -> None:
        together = threading.Barrier(3, timeout=30)

        def wait(piece: int) -> int:
            together.wait()  # all three are at it at the same time, or never
            time.sleep(0.1 if piece == 0 else 0)
            return piece

        assert list(in_threads(wait, range(3), 3)) == [0, 1, 2]


class TestDividing:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        parts_of(3, monkeypatch)

    def test_is_left_alone_without_helpers(self) -> None:
        given: list[list[int]] = []

        def once(pieces: Iterable[int]) -> Iterable[int]:
            given.append(list(pieces))
            return given[-1]

        assert list(divided(once, range(10), lambda _: 1)) == list(range(10))
        assert given == [list(range(10))]

    def test_gives_the_results_of_all_parts_in_their_order(self, far: Far) -> None:
        assert list(divided(double, range(10), lambda _: 1)) == list(range(0, 20, 2))
        # The first piece is worked on here.
        assert far.parts == [3, 3, 3]

    def test_cuts_parts_by_the_time_that_those_before_took(self, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dividing, "PART", 100)
        monkeypatch.setattr(dividing, "SECONDS", 1.0)
        clock = itertools.count(0, 0.1)
        monkeypatch.setattr(dividing.time, "perf_counter", lambda: next(clock))
        far.seconds = 0.5
        assert list(divided(double, range(40), lambda _: 1)) == list(range(0, 80, 2))
        # The first piece, here, takes 0.4 s by this clock: three of them more than a second.
        assert far.parts == [3, 6, 12, 18]

    def test_sends_nothing_of_a_few_pieces(self, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dividing, "FEW", 3)
        assert list(divided(double, range(4), lambda _: 1)) == [0, 2, 4, 6]
        assert list(divided(double, [], len)) == []
        assert far.parts == []

    def test_works_here_no_longer_than_on_a_part(self, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dividing, "FEW", 1_000)
        monkeypatch.setattr(dividing, "SECONDS", 1.0)
        clock = itertools.count(0, 0.1)
        monkeypatch.setattr(dividing.time, "perf_counter", lambda: next(clock))
        assert list(divided(double, range(10), lambda _: 1)) == list(range(0, 20, 2))
        # The clock is looked at three times for each piece.
        assert sum(far.parts) == 10 - 4

    def test_sends_nothing_that_is_done_quicker_than_it_is_sent(
        self, far: Far, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dividing, "SENT", 0)
        assert list(divided(double, range(10), lambda _: 1)) == list(range(0, 20, 2))
        assert far.parts == []

    @pytest.mark.parametrize("sound", [1, 3, 5, 8])
    def test_tells_of_an_error_in_the_stream_after_what_came_before_it(self, sound: int, far: Far) -> None:
        def pieces() -> Iterator[int]:
            yield from range(sound)
            raise DataError("the last can't be read")

        found = divided(double, pieces(), lambda _: 1)
        assert [next(found) for _ in range(sound)] == list(range(0, 2 * sound, 2))
        with pytest.raises(DataError, match="the last"):
            next(found)


def test_processors_are_those_of_the_process_or_as_many_as_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dividing.PROCESSORS, raising=False)
    assert processors() == len(os.sched_getaffinity(0))
    monkeypatch.setenv(dividing.PROCESSORS, "1")
    assert processors() == 1


class TestData:
    """What is divided: statistics, and making records."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        parts_of(1, monkeypatch)
        monkeypatch.setattr(summaries, "ROWS", 20)
        monkeypatch.setattr(recording, "PORTION", 5_000)

    def test_statistics_are_the_same_to_the_last_digit(self) -> None:
        examples = list(batches(everything(200), 7))
        here = summarise(examples, EVERY).to_json()
        far = Far()
        with helped_by(far):
            assert summarise(examples, EVERY).to_json() == here
        assert far.parts == [1] * 9

    def test_records_are_the_same_byte_by_byte(
        self, job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = job()
        raw = twin(found, tmp_path / "raw")
        here = preprocess(found, raw)
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "elsewhere"))
        helpers = Far()
        with helped_by(helpers):
            there = preprocess(found, raw)
        assert helpers.parts == [1] * 5
        assert (there.state, there.digest) == ("run", here.digest)

    def test_a_portion_travels_without_the_batch_it_was_cut_from(self) -> None:
        (batch,) = batches({"x": np.arange(80_000.0).reshape(-1, 10)}, 8_000)
        portion = Portion("train", 100, batch.slice(100, 2), 80)
        packed = pickle.dumps(portion)
        assert len(packed) < 2_000
        assert pickle.loads(packed) == portion

    def test_what_is_wrong_is_told_with_the_rows_of_the_split(
        self, job: Callable[..., Job], tmp_path: Path, far: Far
    ) -> None:
        found = job()
        raw = twin(found, tmp_path / "raw")
        features = found.origin.features
        examples = list(preprocessing.raw_batches(found, raw.path, "train"))
        recorder = Recorder(found, features, summarise(examples, features), None)
        recorder.layout = dict(features)
        values = np.concatenate([batch.column("features").flatten().to_numpy() for batch in examples]).reshape(-1, 13)
        values = np.where(np.arange(len(values))[:, None] == 333, np.inf, values)
        prices = pa.concat_arrays([batch.column("price") for batch in examples]).flatten().to_numpy()[:, None]
        pieces = list(portions("train", batches({"features": values, "price": prices}, 100), features))
        with pytest.raises(DataError, match=r"after preprocess, 1 example(.|\n)*is infinite in row 333 ") as here:
            list(recorder(pieces))
        with pytest.raises(DataError) as there:
            list(divided(recorder, pieces, lambda portion: portion.size))
        assert len(far.parts) > 1
        assert str(there.value) == str(here.value)
