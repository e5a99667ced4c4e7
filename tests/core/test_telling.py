"""Progress of other processes: shown where the work was asked for, in its context, however it ends."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
import rich.console

from headrace import console
from headrace.console import Advance, shown_by, terminal
from headrace.placing.telling import Exchange, Listener, Teller, Told


class Seen:
    """A meter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextlib.contextmanager
    def meter(self, title: str, total: float | None) -> Iterator[Advance]:
        self.lines.append(f"{title} begins, of {total}")
        yield lambda done, words: self.lines.append(f"{title}: {done:g} {words}")
        self.lines.append(f"{title} ends")


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    with shown_by(found.meter):
        yield found


def test_a_teller_says_what_a_meter_is_told_and_the_last_of_it_in_any_case(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(100)
    monkeypatch.setattr("headrace.placing.telling.time.monotonic", lambda: next(clock))
    listener = Listener()
    with Teller(listener.hear, every=2)("train", 4) as advance:
        for epoch in range(1, 5):
            advance(epoch, f"loss {5 - epoch}")
    # A second goes by from one to the next: every other one is said, and what came last.
    told = ["train begins, of 4", "train: 1 loss 4", "train: 3 loss 2", "train: 4 loss 1", "train ends"]
    assert seen.lines == told


def test_a_listener_ends_what_breaks_off_and_leaves_other_messages_alone(seen: Seen) -> None:
    told: list[Told] = []
    broken_off = [Teller(told.append, every=0)(title, None) for title in ("study", "train")]
    for one in broken_off:
        one.__enter__()
    listener = Listener()
    for number, message in enumerate(told):
        assert listener.hear({**message, "meter": number})
    assert not listener.hear({"says": "made"})
    listener.close()
    assert seen.lines == ["study begins, of None", "train begins, of None", "train ends", "study ends"]


def test_a_listener_ends_the_meter_of_a_work_that_is_begun_again_and_drops_what_comes_late(seen: Seen) -> None:
    listener = Listener()
    for title in ("first attempt", "second attempt"):
        listener.hear({"says": "begins", "meter": 0, "title": title, "total": 2})
    for says in ("ends", "advances", "ends"):
        listener.hear({"says": says, "meter": 0, "done": 1, "words": "late"})
    told = ["first attempt begins, of 2", "first attempt ends", "second attempt begins, of 2", "second attempt ends"]
    assert seen.lines == told


def test_an_exchange_shows_each_work_in_the_context_that_asked_for_it() -> None:
    asked: ContextVar[str] = ContextVar("asked")
    shown: list[str] = []

    @contextlib.contextmanager
    def meter(title: str, total: float | None) -> Iterator[Advance]:
        shown.append(f"{asked.get()}: {title}")
        yield lambda done, words: shown.append(f"{asked.get()}: {title} {words}")

    exchange = Exchange()
    with contextlib.ExitStack() as works, shown_by(meter):
        lines = []
        for name in ("first", "second"):
            asked.set(name)
            lines.append(works.enter_context(exchange.line()))
        asked.set("somebody else")
        for words in ("half", "whole"):
            for line in lines:
                if words == "half":
                    exchange.hear(line, {"says": "begins", "meter": 0, "title": "train", "total": 2})
                exchange.hear(line, {"says": "advances", "meter": 0, "done": 1, "words": words})
    exchange.hear(lines[0], {"says": "advances", "meter": 0, "done": 2, "words": "late"})
    expected = ["train", "train half", "train", "train half", "train whole", "train whole"]
    assert [line.partition(": ")[2] for line in shown] == expected
    assert [line.partition(": ")[0] for line in shown] == ["first", "first", "second", "second", "first", "second"]


def test_bars_of_a_terminal_share_one_display_and_end_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(
        rich.console, "Console", lambda **_: REAL(file=out, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    )
    study, train = terminal("study", 2), terminal("train", 10)
    outer, inner = study.__enter__(), train.__enter__()
    outer(1, "one cell")
    inner(4, "loss 0.5")
    display = console._bars._shown
    assert display
    assert [(task.description, task.completed, task.fields["words"]) for task in display.tasks] == [
        ("study", 1, "one cell"),
        ("train", 4, "loss 0.5"),
    ]
    study.__exit__(None, None, None)
    assert [task.description for task in display.tasks] == ["train"]
    assert not display.finished
    train.__exit__(None, None, None)
    assert console._bars._shown is None
    assert "loss 0.5" in out.getvalue() or "study" in out.getvalue()


REAL = rich.console.Console
