"""How a training is driven, shown by one that only pretends to learn."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import console
from headrace.engine.driving import Outcome, drive
from headrace.engine.epochs import Advance
from headrace.engine.journals import Journal
from headrace.errors import Diverged
from headrace.spec import Train
from headrace.stages import Room


class Pretended:
    """A course of one step an epoch whose losses are known beforehand, at each rate that it may be lowered to."""

    per_epoch, names, losses, stopped = 1, ["loss"], [0], False

    def __init__(self, *curves: list[float]) -> None:
        self.curves, self.rate, self.steps = curves, 0, 0

    def state(self) -> list[Any]:
        return []

    def restore(self, state: list[Any]) -> None:
        pass

    def lower_rate(self, factor: float) -> None:
        self.rate += 1

    def advance(self, epoch: int, step: int, steps: int) -> Advance:
        self.steps += steps
        rows = np.array(self.curves[self.rate][epoch : epoch + steps], np.float32)
        return Advance(rows[:, None], steps, None)


def driven(course: Pretended, folder: Path, told: Any = None, **settings: Any) -> Outcome:
    output, scratch = folder / "output", folder / "scratch"
    for place in (output, scratch):
        place.mkdir(parents=True)
    epochs = len(course.curves[0])
    rules = Train.model_validate({"epochs": epochs, **settings})
    return drive(course, rules, epochs, Room(output, scratch, "key", "train"), Journal(output), told=told)


class TestALossThatBlowsUp:
    def test_is_warned_of_once_and_may_come_back(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        found = driven(Pretended([2.0, 1.0, 5000.0, 6000.0, 0.5]), tmp_path)

        assert (found.epochs, found.lowered) == (5, 0)
        assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
            "train: the loss is 5000, after 1 at best, in epoch 3; train.on_divergence could go back"
        ]

    def test_lowers_the_rate_where_that_is_asked_for(self, tmp_path: Path) -> None:
        found = driven(Pretended([2.0, 1.0, 5000.0], [2.0, 1.0, 0.9]), tmp_path, on_divergence="lower_rate")

        assert (found.lowered, found.history["loss"][-1]) == (1, pytest.approx(0.9))

    def test_fails_when_lower_rates_do_not_help(self, tmp_path: Path) -> None:
        with pytest.raises(Diverged, match=r"5000, after 1 at best, in epoch 3(.|\n)*below 1,000 times"):
            driven(Pretended(*[[2.0, 1.0, 5000.0]] * 4), tmp_path, on_divergence="lower_rate")

    @pytest.mark.parametrize(
        "losses", [[8.0, 9.0, 700.0], [1.0, 1e-5, 0.9], [-1.0, -5.0, 40.0]], ids=["growing", "tiny", "below zero"]
    )
    def test_is_none_that_is_large_for_other_reasons(
        self, losses: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert driven(Pretended(losses), tmp_path).epochs == 3
        assert "could go back" not in caplog.text


class TestATimeBudgetOfSeveralWorkers:
    def test_is_over_when_the_first_one_says_so(self, tmp_path: Path) -> None:
        """The clock of this one has not begun, or is long over."""
        heard = iter([b"", b"no", b"no", b"yes"])
        late = Pretended([1.0] * 9)
        found = driven(late, tmp_path / "late", lambda _: next(heard), time_budget=1000.0)

        assert (found.stopped, found.epochs, late.steps) == ("time budget", 2, 2)
        heard = iter([b"", *[b"no"] * 9])
        found = driven(Pretended([1.0] * 9), tmp_path / "early", lambda _: next(heard), time_budget=1e-9)
        assert (found.stopped, found.epochs) == (None, 9)

    def test_is_told_by_the_first_one(self, tmp_path: Path) -> None:
        said: list[bytes] = []

        def told(message: bytes) -> bytes:
            said.append(message)
            return message

        driven(Pretended([1.0] * 3), tmp_path, told, time_budget=1e-9)

        assert said == [b"", b"yes"]


class TestLinesOutsideOfATerminal:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        class Clock:
            now = 100.0

            def monotonic(self) -> float:
                return self.now

        clock = Clock()
        monkeypatch.setattr(console, "time", clock)
        return clock

    def lines(self, clock: Any, caplog: pytest.LogCaptureFixture, steps: list[tuple[float, float]]) -> list[str]:
        """The amounts of which a line tells, of steps `(seconds, amount)`."""
        caplog.set_level(logging.INFO, "headrace")
        with console.lines("train", 1000) as advance:
            for seconds, done in steps:
                clock.now += seconds
                advance(done, "loss 1")
        return [record.getMessage().split()[1] for record in caplog.records]

    def test_tell_of_each_epoch(self, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
        assert self.lines(clock, caplog, [(2, 1), (1, 1.5), (1, 2), (2, 3)]) == ["1", "2", "3"]

    def test_are_at_most_one_a_second_where_epochs_are_short(
        self, clock: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        found = self.lines(clock, caplog, [(0.1, number) for number in range(1, 1001)])

        assert (found[0], found[-1]) == ("1", "1000")
        assert len(found) <= 101

    def test_are_rare_where_much_is_done_at_once(self, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
        assert self.lines(clock, caplog, [(1, 100), (1, 200), (1, 300), (3, 400)]) == ["400"]
