"""`headrace platform`: what it asks of the application, and what it prints of the answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Headrace = Callable[..., Any]

STOPPED: dict[str, Any] = {
    "runs": False,
    "ui": None,
    "pid": None,
    "log": "l",
    "database": None,
    "problems": ["no server"],
}
RUNNING: dict[str, Any] = {
    "runs": True,
    "ui": "http://here",
    "pid": 7,
    "log": None,
    "database": "SQLite",
    "version": "3.8.8",
    "workers": [{"name": "a", "alive": True}, {"name": "b", "alive": False}],
    "queues": [
        {"name": "default", "paused": False, "served": True, "late": 2},
        {"name": "ray", "paused": False, "served": False, "late": 0},
        {"name": "watch", "paused": True, "served": True, "late": 0},
    ],
    "deployments": {"there": 41, "missing": [], "paused": ["mnist/weekly"], "current": True},
    "last_runs": [{"name": "house_prices · final", "state": "Completed", "at": datetime(2026, 11, 22, 3, tzinfo=UTC)}],
    "automations": {"there": ["x", "y"], "switched_off": [], "missing": []},
    "notified": False,
    "problems": [],
}


@pytest.fixture
def asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Put an application in place that gives an answer, and notes what it was asked."""

    def answering(answer: Any = None) -> list[str]:
        calls: list[str] = []
        actions = {name: lambda name=name: calls.append(name) or answer for name in ("up", "detach", "down", "status")}
        monkeypatch.setitem(sys.modules, "tasks", SimpleNamespace(__path__=[]))
        monkeypatch.setitem(sys.modules, "tasks.operating", SimpleNamespace(**actions))
        return calls

    return answering


@pytest.mark.parametrize(
    ("words", "action"),
    [(["up"], "up"), (["up", "--background"], "detach"), (["up", "-b"], "detach")],
)
def test_up_serves_here_or_in_the_background(headrace: Headrace, asked: Any, words: list[str], action: str) -> None:
    calls = asked()

    assert headrace("platform", *words).code == 0
    assert calls == [action]


def test_options_of_up_are_what_variables_would_say(
    headrace: Headrace, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked()
    options = {"host": "::1", "port": "4200", "database": "postgresql://db/p", "webhook": "https://hook"}
    names = ["PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_PORT", "PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    names.append("HEADRACE_WEBHOOK")
    for name in names:
        # Set and not only deleted, so that what the command sets is taken back.
        monkeypatch.setenv(name, "")

    headrace("platform", "up", *(word for name, value in options.items() for word in (f"--{name}", value)))

    assert [os.environ[name] for name in names] == list(options.values())


@pytest.mark.parametrize(
    ("ended", "words"), [(["worker", "server"], "stopped: worker, server\n"), ([], "there was nothing to stop\n")]
)
def test_down_tells_what_it_has_ended(headrace: Headrace, asked: Any, ended: list[str], words: str) -> None:
    asked(ended)

    result = headrace("platform", "down")

    assert (result.code, result.out) == (0, words)


def test_status_of_nothing_fails_and_says_how_to_go_on(headrace: Headrace, asked: Any) -> None:
    asked(STOPPED)

    result = headrace("platform", "status")

    assert result.code == 4
    assert result.out == "server       not running\nlog          l\nPROBLEM      no server\n"


def test_status_of_a_healthy_platform_tells_all_of_it(headrace: Headrace, asked: Any) -> None:
    asked(RUNNING)

    result = headrace("platform", "status")

    assert result.code == 0
    assert (
        result.out
        == """\
server       http://here
             Prefect 3.8.8, SQLite
workers      a: alive
             b: silent
queues       default: served, 2 late
             ray: served by nobody
             watch: paused
deployments  41
paused       mnist/weekly
automations  2
failures     told to nobody; --webhook or HEADRACE_WEBHOOK
last runs    2026-11-22 03:00  Completed: house_prices · final
pid          7
"""
    )


def test_status_as_json_is_what_the_application_says(headrace: Headrace, asked: Any) -> None:
    asked(STOPPED)

    result = headrace("platform", "status", "--json")

    assert (result.code, result.json) == (4, STOPPED)
