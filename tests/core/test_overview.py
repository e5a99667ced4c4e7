"""The page over all runs: what stands in it, and that no run fails for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from headrace.artifacts import home
from headrace.errors import SystemTrouble
from headrace.showing import overview
from tests.core.conftest import Result
from tests.core.reading import Page

Headrace = Callable[..., Result]


def put(workload: str, run: str, **changes: Any) -> dict[str, Any]:
    """The record of a run, with its report."""
    report = home() / "artifacts" / workload / "report" / run / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text(f"<title>{run}</title>")
    record = {
        "run": run,
        "state": "completed",
        "workload": workload,
        "title": f"{workload} · final",
        "profile": "full",
        "data": "real",
        "started": "2026-11-21T18:28:08Z",
        "seconds": 1234.5,
        "verdict": "pass",
        "metrics": {"mae": 2.4642, "r2": None},
        "version": 3,
        "report": str(report),
        **changes,
    }
    folder = home() / "runs" / workload / run
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    return record


def page() -> Page:
    return Page(overview.refresh().read_text())


def links(found: Page) -> list[str]:
    return [attributes["href"] or "" for tag, attributes in found.tags if tag == "a"]


class TestPage:
    def test_lists_runs_with_verdict_metrics_and_report(self) -> None:
        put("prices", "20260101-000000-a")
        found = page()
        for words in ("prices · final", "pass", "mae 2.464 · r2 –", "2026-11-21 18:28:08", "1,234.5"):
            assert words in found.text
        assert (found.open, found.loads()) == ([], [])

    def test_leads_to_reports_from_where_it_lies(self) -> None:
        put("prices", "20260101-000000-a")
        found = links(page())
        assert len(found) == 2
        assert all((overview.path().parent / link).read_text() == "<title>20260101-000000-a</title>" for link in found)

    def test_leads_nowhere_where_a_report_is_gone(self) -> None:
        Path(put("prices", "20260101-000000-a")["report"]).unlink()
        assert links(page()) == []

    def test_shows_the_newest_first(self) -> None:
        put("prices", "20260101-000000-a", title="the older one")
        put("digits", "20260102-000000-b", title="the newer one")
        text = page().text.partition("All runs")[2]
        assert text.index("the newer one") < text.index("the older one")

    def test_says_what_a_run_failed_of(self) -> None:
        put("prices", "20260101-000000-a", state="failed", error="No <room> left\nat all", report=None, metrics=None)
        text = page().text
        assert "No <room> left" in text
        assert "at all" not in text
        assert "no run was completed" in text

    def test_of_nothing_says_so(self) -> None:
        assert "There are no runs yet" in page().text

    def test_lists_no_more_than_a_reader_will_look_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(overview, "SHOWN", 2)
        for k in range(5):
            put("prices", f"20260101-00000{k}-a")
        assert "… and 3 earlier ones." in page().text


class TestStanding:
    def test_is_that_of_the_newest_full_run_on_real_data(self) -> None:
        put("prices", "20260101-000000-a", title="real and old")
        put("prices", "20260102-000000-b", title="real and newer")
        put("prices", "20260103-000000-c", title="a smoke run", profile="smoke")
        put("prices", "20260104-000000-d", title="made up", data="synthetic")
        put("prices", "20260105-000000-e", title="a study", study={})
        first = page().text.partition("All runs")[0]
        assert "real and newer" in first
        assert not any(words in first for words in ("a smoke run", "made up", "a study", "real and old"))


class TestRuns:
    def test_keep_the_page_up_to_date(self, headrace: Headrace, standing_in: Any) -> None:
        headrace("run", "tiny")
        assert "tiny" in Page(overview.path().read_text()).text

    def test_that_make_nothing_anew_leave_it_alone(self, headrace: Headrace, standing_in: Any) -> None:
        headrace("run", "tiny")
        overview.path().write_text("as it was")
        headrace("run", "tiny")
        assert overview.path().read_text() == "as it was"

    def test_that_fail_stand_in_it_too(self, headrace: Headrace, standing_in: Any) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise SystemTrouble("No room left")

        standing_in(train=fail)
        headrace("run", "tiny")
        assert "No room left" in Page(overview.path().read_text()).text

    def test_do_not_fail_for_it(self, headrace: Headrace, standing_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(overview, "_row", lambda record, folder: 1 / 0)
        result = headrace("run", "tiny")
        assert (result.code, "the page over all runs could not be written" in result.err) == (0, True)


class TestCommand:
    def test_prints_the_place_of_the_page(
        self, headrace: Headrace, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []
        monkeypatch.setattr(click, "launch", opened.append)
        result = headrace("report", "--all", "--open")
        assert (result.code, result.out.strip()) == (0, str(overview.path()))
        assert opened == [overview.path().as_uri()]

    def test_takes_no_workload_beside_all(self, headrace: Headrace, project: Path) -> None:
        result = headrace("report", "tiny", "--all")
        assert (result.code, "leave out the workload" in result.err) == (2, True)
