"""Our pages in a real browser: they load nothing, complain of nothing, fit any width, and can be read day and night."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.artifacts import Artifact
from headrace.chain import Stages, standard
from headrace.jobs import resolve
from headrace.reporting import render
from headrace.showing import overview
from tests.core import browsing, reported
from tests.core.browsing import Browser
from tests.core.making import artifact
from tests.core.test_overview import put

pytestmark = pytest.mark.usefixtures("project")

WIDTHS = (380, 1280)
LEAST_CONTRAST = 4.5
"""Between text and what is behind it, as WCAG 2.2 asks for (level AA)."""

EMPTY = """[
  ...[...document.querySelectorAll('svg.chart')].filter(svg => {
    const box = svg.getBoundingClientRect();
    return box.width < 200 || box.height < 100 || svg.querySelectorAll('path, use').length < 10;
  }).map(svg => svg.getAttribute('aria-label')),
  ...[...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt),
]"""
"""Names of charts and pictures in which there is nothing to be seen."""

FAINT = """(() => {
  const numbers = text => {
    const found = text.match(/[\\d.e-]+/g).map(Number);
    const scale = text.startsWith('color(') ? 255 : 1;
    return [...found.slice(0, 3).map(part => part * scale), found.length > 3 ? found[3] : 1];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(p => p / 255).map(p => p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join('');
    if (!text || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const front = numbers(element.closest('svg') ? style.fill : style.color);
    const [low, high] = [light(front), light(behind(element))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < LEAST) found.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
})()""".replace("LEAST", str(LEAST_CONTRAST))
"""Texts that stand out too little from what is behind them."""

WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
"""Pixels by which a page is wider than its window."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = browsing.found()
    if not program:
        pytest.skip(f"no browser: install one of {', '.join(browsing.NAMES)}, or set HEADRACE_BROWSER")
    with Browser(program) as opened:
        yield opened


def report(folder: Path, stages: Stages, *kinds: str) -> Path:
    """The report of a run with the results of some tasks, each as one of its outputs."""
    job = resolve("tiny", variant="folded", data="synthetic")
    results = [reported.KINDS[kind](folder / kind) for kind in kinds]
    others = results[0]
    said: dict[str, Any] = others["evaluate"].json("evaluation.json")
    for more in results[1:]:
        said["outputs"] |= more["evaluate"].json("evaluation.json")["outputs"]
    artifact(others["evaluate"].path, "evaluate", evaluation=said)
    made: list[Artifact] = [others.get(one.node, one) for one in standard(job, stages)[:-1]]
    # The stand-in's picture is none.
    examine = next(one for one in made if one.node == "examine")
    (examine.path / "samples-x.png").write_bytes((others["train"].path / "samples" / "00009-an_image.png").read_bytes())
    page = folder / "report.html"
    page.write_text(render(job, made))
    return page


def runs(folder: Path, stages: Stages) -> Path:
    put("prices", "20260101-000000-a", error="it/is/a/very/long/path" * 9, state="failed", report=None)
    put("digits", "20260102-000000-b", verdict="not judged", data="synthetic")
    put("digits", "20260103-000000-c", verdict="fail")
    return overview.refresh()


def study(folder: Path, stages: Stages) -> Path:
    from headrace import studying

    cells: list[dict[str, Any]] = [
        {
            "cell": f"{k} units",
            "rank": k,
            "settings": {"model.units": k},
            "value": 2.0 + k,
            "interval": [1.0 + k, 3.0 + k],
            "values": {"0": 2.0 + k},
            "curve": "val_mae",
            "curves": {"0": [4.0, 3.0, 2.0 + k]},
            "training": {"loss": 1.0},
            "parameters": 10_000 * k,
            "seconds": 1.0,
            "problem": None,
        }
        for k in range(1, 12)
    ]
    found = {
        "study": "capacity",
        "description": "How large it has to be",
        "data": "synthetic",
        "metric": "val_mae",
        "measure": "val_mae",
        "on": "test",
        "best": "1 units",
        "not_clearly_worse": ["2 units"],
        "basis": "One training each.",
        "cells": cells,
        "findings": [{"passed": False, "reason": "a_cell_with_a_name_that_is_not_going_to_end " * 5}],
    }
    page = folder / "study.html"
    page.write_text(studying._page(resolve("tiny"), found))
    return page


PAGES: dict[str, Callable[[Path, Stages], Path]] = {
    "points": lambda folder, stages: report(folder, stages, "points"),
    "digits": lambda folder, stages: report(folder, stages, "digits"),
    "topics": lambda folder, stages: report(folder, stages, "topics"),
    "line": lambda folder, stages: report(folder, stages, "line"),
    "forecasts": lambda folder, stages: report(folder, stages, "forecasts"),
    "masks": lambda folder, stages: report(folder, stages, "masks"),
    "sentences": lambda folder, stages: report(folder, stages, "sentences"),
    "several outputs": lambda folder, stages: report(folder, stages, "generated", "line", "points"),
    "study": study,
    "runs": runs,
}


@pytest.mark.parametrize("kind", PAGES)
def test_pages_are_whole_in_any_width_by_day_and_by_night(
    browser: Browser, stages: Stages, tmp_path: Path, kind: str
) -> None:
    page = PAGES[kind](tmp_path, stages)
    for width in WIDTHS:
        for dark in (False, True):
            browser.open(page, width, dark)
            assert browser.requests() == [page.as_uri()]
            assert browser.complaints() == []
            assert browser.run(EMPTY) == []
            assert browser.run(WIDE) <= 0, f"wider than {width} pixels"
            assert browser.run(FAINT) == []
    assert page.stat().st_size < 3_000_000


def test_charts_have_the_colours_of_day_and_night(browser: Browser, stages: Stages, tmp_path: Path) -> None:
    page = report(tmp_path, stages, "forecasts")
    colours = []
    for dark in (False, True):
        browser.open(page, dark=dark)
        paper = browser.run("getComputedStyle(document.body).backgroundColor")
        ink = browser.run("getComputedStyle(document.querySelector('svg.chart text')).fill")
        colours.append((paper, ink))
    day, night = colours
    assert day[0] == "rgb(255, 255, 255)"
    assert not set(day) & set(night)


def test_links_within_a_page_lead_somewhere(browser: Browser, stages: Stages, tmp_path: Path) -> None:
    browser.open(report(tmp_path, stages, "points"))
    links = browser.run("[...document.links].map(link => link.getAttribute('href')).filter(to => to.startsWith('#'))")
    assert len(links) > 5
    assert [link for link in links if not browser.run(f"!!document.querySelector('{link}')")] == []


def test_what_is_folded_is_printed(browser: Browser, stages: Stages, tmp_path: Path) -> None:
    browser.open(report(tmp_path, stages, "line"))
    folded = "getComputedStyle(document.querySelector('#lineage details'), '::details-content').contentVisibility"
    assert browser.run(folded) == "hidden"
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.run(folded) == "visible"


class TestBrokenPages:
    """The checks above can fail."""

    @pytest.fixture
    def broken(self, browser: Browser, tmp_path: Path) -> Callable[[str], Browser]:
        def open_(html: str) -> Browser:
            (tmp_path / "page.html").write_text(f"<!doctype html><body>{html}</body>")
            browser.open(tmp_path / "page.html", 380)
            return browser

        return open_

    def test_that_ask_for_something_are_found(self, broken: Callable[[str], Browser]) -> None:
        found = broken('<img src="missing.png" alt="a picture">')
        assert [address.rpartition("/")[2] for address in found.requests()] == ["page.html", "missing.png"]
        assert found.run(EMPTY) == ["a picture"]
        assert "ERR_FILE_NOT_FOUND" in "".join(found.complaints())

    def test_that_complain_are_found(self, broken: Callable[[str], Browser]) -> None:
        found = broken("<script>console.error('so it is'); nothing.at.all</script>")
        assert len(found.complaints()) == 2

    def test_that_are_too_wide_are_found(self, broken: Callable[[str], Browser]) -> None:
        assert broken('<div style="width: 700px">wide</div>').run(WIDE) > 0

    def test_that_can_hardly_be_read_are_found(self, broken: Callable[[str], Browser]) -> None:
        assert broken('<p style="color: #999">a faint text</p><p>a good one</p>').run(FAINT) == ["a faint text: 2.85"]

    def test_whose_charts_are_empty_are_found(self, broken: Callable[[str], Browser]) -> None:
        found = broken('<svg class="chart" viewBox="0 0 4 3" aria-label="nothing"><path d="M0 0L1 1"/></svg>')
        assert found.run(EMPTY) == ["nothing"]
