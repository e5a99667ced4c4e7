"""The report: one file with everything in it, for whatever the run has made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace import reporting
from headrace.artifacts import Artifact
from headrace.chain import Stages, standard
from headrace.jobs import Job, resolve
from headrace.reporting import graph, render
from headrace.showing import pages
from tests.core import reported
from tests.core.reading import Page

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
def made(stages: Stages) -> list[Artifact]:
    """The artifacts of a run with three folds on synthetic data."""
    return standard(resolve("tiny", variant="folded", data="synthetic"), stages)[:-1]


@pytest.fixture
def job() -> Job:
    return resolve("tiny", variant="folded", data="synthetic")


def without(made: list[Artifact], *nodes: str) -> list[Artifact]:
    return [artifact for artifact in made if artifact.node not in nodes]


def replaced(made: list[Artifact], others: dict[str, Artifact]) -> list[Artifact]:
    """The run with other artifacts in the place of its own."""
    return [others.get(artifact.node, artifact) for artifact in made]


def put(artifact: Artifact, name: str, **changes: Any) -> None:
    """Change values in a JSON file of an artifact."""
    (artifact.path / name).write_text(json.dumps({**artifact.json(name), **changes}))


SECTIONS = {"gates", "graph", "results", "metrics", "promises", "training"}
SECTIONS |= {"data", "parity", "drift", "lineage", "files"}


class TestPage:
    def test_holds_every_part(self, job: Job, made: list[Artifact]) -> None:
        page = Page(render(job, made))
        assert page.ids >= SECTIONS
        assert page.open == []
        for words in (
            "Tiny",
            "pass",
            "MAE 2.5 beats 6.5 of the best naive answer",
            "2.1 to 2.9",
            "2.464",
            "an operation has no counterpart <there>",
            "nobody: made up by the workload's twin",
            "some columns have drifted",
            "cross_validation.folds",
        ):
            assert words in page.text

    def test_loads_nothing_from_elsewhere(self, job: Job, made: list[Artifact]) -> None:
        assert Page(render(job, made)).loads() == []

    def test_escapes_what_comes_from_data(self, job: Job, made: list[Artifact]) -> None:
        text = render(job, made)
        for words in ("<b>AGE", "<i>red", "<u>cat", "<s>3 examples", "listing <4.31>"):
            assert words not in text
            assert words.replace("<", "&lt;").replace(">", "&gt;") in text

    def test_escapes_labels_in_charts(self, job: Job, made: list[Artifact], edit: Any) -> None:
        edit('role="target")', 'role="target", unit="<script>")')
        text = render(resolve("tiny", variant="folded"), made)
        assert "<script>" not in text
        assert "truth: y (&lt;script&gt;)" in text
        assert 'aria-label="residuals: y (&lt;script&gt;)"' in text

    @pytest.mark.parametrize(
        ("lost", "section"),
        [
            (("cross_validate", "train/fold 1", "train/fold 2", "train/fold 3"), None),
            (("evaluate",), "results"),
            (("publish",), None),
            (("export",), "parity"),
            (("monitor",), "drift"),
            (("examine",), "data"),
            (("download",), "files"),
            (("train",), "training"),
        ],
    )
    def test_leaves_out_what_was_not_made(
        self, job: Job, made: list[Artifact], lost: tuple[str, ...], section: str | None
    ) -> None:
        page = Page(render(job, without(made, *lost, *(["cross_validate"] if lost == ("train",) else []))))
        assert section not in page.ids
        assert ("Cross-validation:" in page.text) == (lost[0] not in ("cross_validate", "train"))

    def test_can_be_made_of_nothing(self, job: Job) -> None:
        assert "not judged" in Page(render(job, [])).text

    def test_is_that_of_a_stage_which_is_skipped_the_second_time(self, stages: Stages, job: Job) -> None:
        real = replace(stages, report=reporting.report)
        first, second = standard(job, real)[-1], standard(job, real)[-1]
        assert (first.state, second.state) == ("run", "skipped")
        assert (first.path / "report.html").read_text().startswith("<!doctype html>")

    def test_is_made_anew_when_its_template_changes(
        self, stages: Stages, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = replace(stages, report=reporting.report)
        standard(job, real)
        changed = tmp_path / "templates"
        shutil.copytree(pages.TEMPLATES, changed)
        (changed / "look.html.j2").write_text("<style></style>")
        monkeypatch.setattr(pages, "TEMPLATES", changed)
        again = standard(job, real)[-1]
        assert again.state == "run"
        assert again.reason.startswith("`look`")


class TestData:
    def test_are_shown_with_what_was_found_and_one_picture(self, job: Job, made: list[Artifact]) -> None:
        page = Page(render(job, made))
        assert "404 examples in split train, 102 examples in split test." in page.text
        assert "warning · duplicates: x : <s>3 examples</s> repeat" in page.text
        assert {"src": "data:image/png;base64,UE5H"}.items() <= dict(page.tags)["img"].items()
        assert "… and 1 more columns." in page.text

    def test_are_linked_to_their_own_page(self, job: Job, made: list[Artifact], stages: Stages) -> None:
        report = standard(job, replace(stages, report=reporting.report))[-1].path / "report.html"
        links = [attributes["href"] or "" for tag, attributes in Page(report.read_text()).tags if tag == "a"]
        links = [link for link in links if not link.startswith("#")]
        assert [(report.parent / link).read_text() for link in links] == ["<title>data</title>"]

    def test_come_without_a_picture_that_is_too_large(
        self, job: Job, made: list[Artifact], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reporting, "PICTURE", 2)
        assert "img" not in dict(Page(render(job, made)).tags)


class TestBanner:
    def test_stands_on_synthetic_data_only(self, job: Job, made: list[Artifact]) -> None:
        assert "Synthetic data" in Page(render(job, made)).text
        put(made[0], "data.json", data="real")
        page = Page(render(job, made))
        assert "Synthetic data" not in page.text
        assert "real data" in page.text


class TestVerdict:
    @pytest.mark.parametrize(("verdict", "look"), [("pass", "pass"), ("fail", "fail"), ("not judged", "open")])
    def test_has_a_colour(self, job: Job, made: list[Artifact], verdict: str, look: str) -> None:
        put(next(a for a in made if a.node == "publish"), "publication.json", verdict=verdict)
        assert f'<span class="verdict {look}">{verdict}</span>' in render(job, made)

    def test_shows_a_gate_that_failed(self, job: Job, made: list[Artifact]) -> None:
        publish = next(a for a in made if a.node == "publish")
        put(publish, "publication.json", gates=[{"gate": "promise", "passed": False, "reason": "too large"}])
        assert '<span class="fail">failed</span>' in render(job, made)


class TestGraph:
    def test_puts_each_stage_to_the_right_of_what_it_is_made_of(self, made: list[Artifact]) -> None:
        at = {box.name: box for box in graph(made).boxes}
        order = ["download", "preprocess", "train/fold 1", "cross_validate", "train", "evaluate", "publish"]
        assert [at[name].x for name in order] == sorted({box.x for box in at.values()})
        assert at["train/fold 1"].x == at["train/fold 3"].x
        assert at["train/fold 1"].y < at["train/fold 2"].y < at["train/fold 3"].y

    def test_leaves_out_arrows_that_others_imply(self, made: list[Artifact]) -> None:
        # download → preprocess → examine; preprocess → 3 folds → cross_validate → train → evaluate, export → publish;
        # export → monitor
        assert len(graph(made).arrows) == 1 + 1 + 3 + 3 + 1 + 2 + 2 + 1

    def test_draws_many_folds_as_one_box(self, stages: Stages) -> None:
        job = resolve("tiny", variant="folded", overrides={"cross_validation.folds": 40})
        boxes = graph(standard(job, stages)[:-1]).boxes
        assert [box.name for box in boxes if "fold" in box.name or "more" in box.name][-1] == "… 36 more"
        assert len(boxes) < 16

    def test_of_nothing_is_empty(self) -> None:
        assert (graph([]).boxes, graph([]).width) == ([], 0)


class TestTraining:
    def test_is_shown_without_the_first_epochs_of_many(self, job: Job, made: list[Artifact]) -> None:
        assert "The first 10 epochs are not drawn" in Page(render(job, made)).text
        short = {"epochs": 3, "metrics": {"loss": [3.0, 2.0, 1.0]}, "stopped": "no progress for 10 epochs"}
        train = next(a for a in made if a.node == "train")
        put(train, "history.json", **short)
        page = Page(render(job, without(made, "cross_validate")))
        assert "The first 10 epochs" not in page.text
        assert "Final fit: loss by epoch" in page.text
        assert "Stopped early: no progress for 10 epochs." in page.text

    def test_shows_the_metric_that_decides_first_and_a_rate_that_changes_last(
        self, job: Job, made: list[Artifact]
    ) -> None:
        metrics = {"loss": [2.0, 1.0], "mae": [2.0, 1.0], "val_mae": [2.0, 1.5], "learning_rate": [0.1, 0.01]}
        train = next(a for a in made if a.node == "train")
        put(train, "history.json", epochs=2, metrics=metrics)
        page = Page(render(job, without(made, "cross_validate")))
        charts = [a["aria-label"] for tag, a in page.tags if tag == "svg" and "by epoch" in (a.get("aria-label") or "")]
        assert charts == ["mae by epoch", "loss by epoch", "learning_rate by epoch"]


class TestSamples:
    def test_are_those_of_some_epochs_from_the_first_to_the_last(self, tmp_path: Path) -> None:
        image, text = reporting.samples(reported.digits(tmp_path)["train"].path)[::-1]
        assert (image["name"], text["name"]) == ("an_image", "a_text")
        epochs = [one["epoch"] for one in image["epochs"]]
        assert (len(epochs), epochs[0], epochs[-1]) == (12, 1, 30)
        assert text["epochs"][0]["text"] == "after <1> epochs"

    def test_are_fewer_where_they_would_make_the_page_heavy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reporting, "KEPT", 300)
        found = reporting.samples(reported.digits(tmp_path)["train"].path)
        assert [one["epoch"] for one in found[1]["epochs"]] == [1, 30]

    def test_are_none_where_none_were_taken(self, tmp_path: Path) -> None:
        assert reporting.samples(tmp_path) == []

    def test_of_the_finished_model_are_shown(self, job: Job, made: list[Artifact], tmp_path: Path) -> None:
        others = reported.generated(tmp_path)
        page = Page(render(job, replaced(made, others)))
        assert {"shown", "samples"} <= page.ids
        assert "roses are <red>" in page.text


class TestFormats:
    def test_have_a_column_for_all_that_is_known_of_one(self) -> None:
        one = {"passed": True, "bytes": 1000, "milliseconds_p95": 0.5, "repeatable": True}
        other = {"passed": None, "problem": "no counterpart", "bytes": None, "agreement": 0.998}
        found = reporting.formats({"formats": {"saved_model": one, "tflite_int8": other}})
        assert found["columns"] == ["same answers", "size", "95 % within ms"]
        assert [row["cells"] for row in found["rows"]] == [["–", "1.0 KB", "0.5"], ["99.8 %", "–", "–"]]


class TestOutputs:
    @pytest.mark.parametrize("kind", sorted(reported.KINDS))
    def test_of_each_task_make_a_whole_page(self, job: Job, made: list[Artifact], kind: str, tmp_path: Path) -> None:
        others = reported.KINDS[kind](tmp_path)
        text = render(job, replaced(made, others))
        page = Page(text)
        assert (page.open, page.loads()) == ([], [])
        labels = [a["aria-label"] for tag, a in page.tags if tag == "svg" and a.get("class") == "chart"]
        assert len(set(labels)) == len(labels)
        assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
        for words in ("<left>", "<Haus>", "<others>", "<dollars>", "<0>", "<red>"):
            assert words not in text
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert sorted(set(ids)) == sorted(ids)

    def test_beyond_the_first_have_sections_of_their_own(self, job: Job, made: list[Artifact], tmp_path: Path) -> None:
        one, other = reported.digits(tmp_path / "one"), reported.points(tmp_path / "other")
        both = one["evaluate"].json("evaluation.json")
        both["outputs"] |= other["evaluate"].json("evaluation.json")["outputs"]
        put(one["evaluate"], "evaluation.json", **both)
        page = Page(render(job, replaced(made, one)))
        assert {"output-1", "output-2"} <= page.ids
        assert page.text.count("Confusions") == 2


class TestGates:
    def test_that_are_waived_say_by_whom_and_why(self, job: Job, made: list[Artifact]) -> None:
        waived = {"by": "Ada <Lovelace>", "reason": "known"}
        gate = {"gate": "promise", "passed": False, "reason": "too large", "waived": waived}
        put(next(a for a in made if a.node == "publish"), "publication.json", gates=[gate])
        assert "waived by Ada <Lovelace>: known" in Page(render(job, made)).text


def test_nothing_heavy_is_loaded_by_the_module_or_the_plan() -> None:
    script = "import sys, headrace.reporting; print([m for m in ('matplotlib', 'numpy', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
