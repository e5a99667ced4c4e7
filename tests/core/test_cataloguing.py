"""The README's table of workloads says what the specs and the measurements say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.jobs import resolve
from headrace.upkeep import cataloguing
from headrace.upkeep.cataloguing import BEGIN, END, insert, page, table, texts

PROMISES = """
        "plain": Variant(
            train=Train(epochs=5),
            promises=(
                Promise(metric="mae", at_most=3.0, book=2.464, source="listing 4.31"),
                Promise(metric="val_mae", on="cross_validation", at_least=1, at_most=2),
            ),
        ),
"""


@pytest.fixture
def promising(edit: Any) -> None:
    """Two promises for the first variant of the workload."""
    edit('        "plain": Variant(train=Train(epochs=5)),\n', PROMISES)
    edit("Pipeline, Source", "Pipeline, Promise, Source")


def measured(project: Path, **changes: Any) -> None:
    """Write results of five seeds."""
    values = {"0": 2.5, "1": 2.25, "2": 2.75}
    entry = {"values": values, "command": "headrace run tiny", "date": "2026-11-21", **changes}
    (project / "docs").mkdir(exist_ok=True)
    (project / "docs" / "results.json").write_text(json.dumps({"tiny": {"plain": {"mae": entry}}}))


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


class TestTable:
    def test_has_a_row_for_each_workload(self, project: Path, promising: None) -> None:
        heading, _, *rows = cells(table(project))
        assert heading[0] == "workload"
        assert rows == [
            [
                *("[`tiny`](pipelines/tiny.py)", "Tiny", "none", "2", "`plain`"),
                *("test mae at most 3", "2.464 (listing 4.31)", ""),
            ]
        ]

    def test_shows_the_variant_that_is_trained_by_schedule(self, project: Path, edit: Any) -> None:
        edit('name="tiny"', 'name="tiny", deploy=Deploy(variant="folded")')
        edit("import CrossValidation", "import CrossValidation, Deploy")
        assert cells(table(project))[2][4] == "`folded`"

    def test_says_what_was_measured(self, project: Path, promising: None) -> None:
        measured(project)
        assert cells(table(project))[2][-1] == "2.500 (2.250 to 2.750, 3 seeds)"

    def test_says_if_a_promise_was_not_kept(self, project: Path, promising: None) -> None:
        measured(project, values={"0": 3.25})
        assert cells(table(project))[2][-1] == "3.250 (1 seed), **promise not kept**"

    def test_judges_no_promise_by_a_sample(self, project: Path, promising: None) -> None:
        measured(project, values={"0": 3.25}, **{"not judged": "the data are a sample, 4 of 9 examples"})
        said = "3.250 (1 seed); not judged: the data are a sample, 4 of 9 examples"
        assert cells(table(project))[2][-1] == said

    def test_is_not_broken_by_a_title(self, project: Path, edit: Any) -> None:
        edit('title="Tiny"', 'title="A | B"')
        assert "A \\| B" in table(project)


class TestPage:
    def test_has_a_row_for_each_variant_and_each_promise(self, project: Path, promising: None) -> None:
        _, _, *rows = cells(page(project))
        assert [row[:2] for row in rows] == [["`tiny`", "`plain`"], ["", "`plain`"], ["", "`folded`"]]
        assert rows[1][3:] == ["cross-validated val_mae 1 to 2", "", ""]

    def test_says_seeds_and_commands(self, project: Path, promising: None) -> None:
        measured(project)
        assert page(project).splitlines()[-1] == (
            "- `tiny` `plain`, 2026-11-21, `headrace run tiny`: mae 2.500 (seed 0), 2.250 (seed 1), 2.750 (seed 2)"
        )

    def test_shows_what_was_measured_of_a_variant_without_a_promise(self, project: Path) -> None:
        measured(project)
        path = project / "docs" / "results.json"
        path.write_text(path.read_text().replace('"plain"', '"folded"'))
        assert cells(page(project))[3][-1] == "mae 2.500 (2.250 to 2.750, 3 seeds)"

    def test_says_of_each_promise_what_was_measured(self, project: Path, promising: None) -> None:
        measured(project)
        path = project / "docs" / "results.json"
        results = json.loads(path.read_text())
        results["tiny"]["plain"]["val_mae"] = {**results["tiny"]["plain"]["mae"], "values": {"0": 1.5}}
        path.write_text(json.dumps(results))
        assert [row[-1] for row in cells(page(project))[2:4]] == ["2.500 (2.250 to 2.750, 3 seeds)", "1.500 (1 seed)"]

    @pytest.mark.parametrize(
        ("results", "words"),
        [
            ("{", "can't be used"),
            ("[]", "can't be used"),
            ('{"tiny": {"plain": {"mae": {"values": {"0": 1}}}}}', "KeyError: 'command'"),
            ('{"tiny": {"plain": {"mae": {"values": {"0": "x"}}}}}', "could not convert string to float"),
            ('{"tiny": {"plain": {"metric": "mae", "values": {}}}}', "can't be used"),
            ('{"tinny": {}}', "names workloads that are not there: tinny"),
            ('{"tiny": {"plane": {"mae": {"values": {}, "command": "", "date": ""}}}}', "has not: plane"),
        ],
    )
    def test_is_refused_for_results_that_fit_nothing(self, project: Path, results: str, words: str) -> None:
        (project / "docs").mkdir()
        (project / "docs" / "results.json").write_text(results)
        with pytest.raises(ConfigError, match=words):
            table(project)


class TestReadme:
    def test_keeps_everything_outside_of_the_markers(self) -> None:
        assert insert(f"a\n{BEGIN}\nold\n{END}\nb\n", "new") == f"a\n{BEGIN}\nnew\n{END}\nb\n"

    @pytest.mark.parametrize("text", ["", BEGIN, f"{END} {BEGIN}"])
    def test_must_have_the_markers(self, text: str) -> None:
        with pytest.raises(ConfigError, match="has no place"):
            insert(text, "new")

    def test_is_written_with_the_page_of_results_where_it_has_a_table(self, project: Path) -> None:
        assert texts(project) == {}
        readme = project / "README.md"
        readme.write_text(f"# Tiny\n\n{BEGIN}\n{END}\n")
        assert texts(project) == {
            readme: f"# Tiny\n\n{BEGIN}\n{table(project)}\n{END}\n",
            project / "docs" / "results.md": page(project),
        }


class TestStudies:
    FOUND: dict[str, Any] = {  # noqa: RUF012 (never changed)
        "study": "sizes",
        "description": "Which size",
        "workload": "tiny",
        "data": "real",
        "profile": "full",
        "on": "test",
        "metric": "mae",
        "measure": "mae",
        "seeds": [0, 1],
        "basis": "The intervals cover the seeds.",
        "findings": [{"reason": "mae of plain is 2", "passed": True}, {"reason": "folded is worse", "passed": False}],
        "cells": [
            {
                "cell": "plain",
                "settings": {"variant": "plain"},
                "value": 2.0,
                "interval": [1.5, 2.5],
                "values": {0: 1.75, 1: 2.25},
                "parameters": 1234,
                "seconds": 3.2,
                "rank": 1,
                "problem": None,
            },
            {
                "cell": "wide | deep",
                "settings": {"model.units": 9},
                "value": None,
                "interval": None,
                "values": {},
                "parameters": None,
                "seconds": 0.0,
                "rank": None,
                "problem": "The loss is nan",
            },
        ],
    }

    def recorded(self, project: Path, **changes: Any) -> list[str]:
        (project / "README.md").write_text(f"# Tiny\n\n{BEGIN}\n{END}\n")
        (project / "docs").mkdir(exist_ok=True)
        paths = cataloguing.record(project, "study", {**self.FOUND, **changes}, "headrace study tiny sizes --seeds 2")
        return [path.relative_to(project).as_posix() for path in paths]

    def test_get_a_page_with_findings_and_cells(self, project: Path) -> None:
        assert "docs/studies/tiny-sizes.md" in self.recorded(project)
        text = (project / "docs" / "studies" / "tiny-sizes.md").read_text()
        for words in ("`headrace study tiny sizes --seeds 2`", "mae of plain is 2: holds", "**does not hold**"):
            assert words in text
        assert "| 1 | plain | 2 | [1.5, 2.5] | 1.75, 2.25 | 1,234 | 3.2 |" in text
        assert "wide \\| deep" in text
        assert "The loss is nan" in text

    def test_bring_the_variants_that_they_have_tested_into_the_readme(self, project: Path) -> None:
        assert self.recorded(project)[1:] == ["docs/results.json", "README.md", "docs/results.md"]
        kept = json.loads((project / "docs" / "results.json").read_text())["tiny"]
        assert list(kept) == ["plain"]
        assert kept["plain"]["mae"]["values"] == {"0": 1.75, "1": 2.25}
        assert "2.000 (1.750 to 2.250, 2 seeds)" in (project / "README.md").read_text()

    def test_keep_what_was_measured_of_other_variants(self, project: Path) -> None:
        measured(project)
        before = (project / "docs" / "results.json").read_text().replace('"plain"', '"folded"')
        (project / "docs" / "results.json").write_text(before)
        self.recorded(project)
        assert set(json.loads((project / "docs" / "results.json").read_text())["tiny"]) == {"plain", "folded"}

    def test_tell_why_no_promise_is_judged_by_them(self, project: Path) -> None:
        self.recorded(project, not_judged="a sample")
        kept = json.loads((project / "docs" / "results.json").read_text())["tiny"]
        assert kept["plain"]["mae"]["not judged"] == "a sample"

    @pytest.mark.parametrize(
        "changes",
        [{"on": "validation"}, {"data": "synthetic"}, {"profile": "smoke"}, {"settings": {"train.epochs": 2}}],
    )
    def test_that_are_no_test_of_a_variant_on_real_data_change_no_result(
        self, project: Path, changes: dict[str, Any]
    ) -> None:
        assert self.recorded(project, **changes) == ["docs/studies/tiny-sizes.md"]

    def test_leave_results_that_cant_be_read_as_they_are(self, project: Path) -> None:
        (project / "docs").mkdir()
        (project / "docs" / "results.json").write_text("{")
        with pytest.raises(ConfigError, match="can't be used"):
            self.recorded(project)
        assert (project / "docs" / "results.json").read_text() == "{"


class TestRuns:
    EVALUATION: dict[str, Any] = {  # noqa: RUF012 (never changed)
        "primary": "mae",
        "metrics": {"mae": 2.25, "mse": 7.0},
        "promises": [{"metric": "mae", "value": 2.25}, {"metric": "val_mae", "value": None}],
        "not_judged": None,
    }

    def recorded(self, project: Path, seed: int = 0, **changes: Any) -> dict[str, Any]:
        job = resolve("tiny", variant="plain", data="real", seed=seed)
        (project / "docs").mkdir(exist_ok=True)
        cataloguing.record_run(project, job, {**self.EVALUATION, **changes})
        path = project / "docs" / "results.json"
        return dict(json.loads(path.read_text())["tiny"]["plain"]) if path.exists() else {}

    def test_leave_the_value_of_each_promise_that_has_one(self, project: Path) -> None:
        (kept,) = self.recorded(project).items()
        assert (kept[0], kept[1]["values"]) == ("mae", {"0": 2.25})
        assert kept[1]["command"] == "headrace run tiny --variant plain --data real --seed N"

    def test_leave_what_decides_where_nothing_is_promised(self, project: Path) -> None:
        assert self.recorded(project, promises=[], primary="mse")["mse"]["values"] == {"0": 7.0}

    def test_leave_nothing_where_nothing_has_a_value(self, project: Path) -> None:
        assert self.recorded(project, promises=[{"metric": "mae", "value": None}]) == {}

    def test_join_the_seeds_of_the_same_command(self, project: Path) -> None:
        self.recorded(project, 10)
        self.recorded(project, 2)
        kept = self.recorded(project, 10, promises=[{"metric": "mae", "value": 3.0}])
        assert kept["mae"]["values"] == {"2": 2.25, "10": 3.0}

    def test_take_the_place_of_what_another_command_gave(self, project: Path) -> None:
        measured(project)
        assert self.recorded(project)["mae"]["values"] == {"0": 2.25}

    def test_tell_why_no_promise_is_judged_by_them(self, project: Path) -> None:
        assert self.recorded(project, not_judged="a sample")["mae"]["not judged"] == "a sample"

    @pytest.mark.parametrize(("stands", "refused"), [('stands_for="numbers"', False), ('licence="none"', True)])
    def test_of_a_source_that_stands_for_the_usual_one_name_it(
        self, project: Path, edit: Any, stands: str, refused: bool
    ) -> None:
        again = f'Source(title="Again", features={{"y": Feature(role="target")}}, read=read, {stands})'
        edit("    },\n    preprocess=preprocess,", f'        "again": {again},\n    }},\n    preprocess=preprocess,')
        job = resolve("tiny", variant="plain", source="again", data="real")
        if refused:
            with pytest.raises(ConfigError, match="received: --source again"):
                cataloguing.writable(job, [])
            return
        cataloguing.writable(job, [])
        (project / "docs").mkdir()
        cataloguing.record_run(project, job, self.EVALUATION)
        kept = json.loads((project / "docs" / "results.json").read_text())["tiny"]["plain"]["mae"]
        assert kept["command"] == "headrace run tiny --variant plain --source again --data real --seed N"

    def test_of_something_else_than_the_variant_are_refused(self, project: Path) -> None:
        job = resolve("tiny", data="synthetic", profile="smoke", overrides={"train.epochs": 2})
        with pytest.raises(ConfigError) as error:
            cataloguing.writable(job, ["train.epochs", "publish.waivers.promise"])
        assert "received: --set train.epochs, --profile smoke, --data synthetic" in str(error.value)


class TestTuningsAndEnsembles:
    TUNING: dict[str, Any] = {  # noqa: RUF012
        "workload": "tiny",
        "tuning": "width",
        "description": "Units and optimizer",
        "data": "real",
        "profile": "full",
        "objective": "val_mae",
        "space": {"model.units": {}},
        "trials": [
            {"trial": 1, "values": {"model.units": 4}, "trained_epochs": 7, "value": 2.5, "problem": None},
            {"trial": 2, "values": {"model.units": 8}, "trained_epochs": None, "value": None, "problem": "too | large"},
        ],
        "finalists": [
            {"place": 1, "trial": 1, "epochs": 8, "metrics": {"mae": 2.25}},
            {"place": 2, "trial": 2, "epochs": None, "metrics": None},
        ],
        "ensemble": {"metrics": {"mae": 2.125}},
    }
    ENSEMBLE: dict[str, Any] = {  # noqa: RUF012
        "workload": "tiny",
        "ensemble": "both",
        "data": "real",
        "profile": "full",
        "split": "test",
        "metrics": {"mae": 2.0},
        "members": [{"member": "plain", "weight": 0.75, "metrics": {"mae": 2.5}}],
    }

    def page(self, project: Path, kind: str, found: dict[str, Any]) -> list[str]:
        (path,) = cataloguing.record(project, kind, found, f"headrace {kind} tiny")
        assert not (project / "docs" / "results.json").exists()
        return [path.name, *path.read_text().splitlines()]

    def test_get_a_page_with_trials_finalists_and_their_average(self, project: Path) -> None:
        name, *lines = self.page(project, "tune", self.TUNING)
        assert name == "tiny-width.md"
        assert lines[:3] == ["# tiny: width", "", "Units and optimizer"]
        for row in (
            "| trial | model.units | epochs | val_mae |  |",
            "| 1 | 4 | 7 | 2.5 |  |",
            "| 2 | 8 |  |  | too \\| large |",
            "| best 1 | 1 | 8 | 2.25 |",
            "| best 2 | 2 |  |  |",
            "| average |  |  | 2.125 |",
        ):
            assert row in lines

    def test_get_a_page_with_the_average_and_its_members(self, project: Path) -> None:
        name, *lines = self.page(project, "ensemble", self.ENSEMBLE)
        assert name == "tiny-both.md"
        assert lines[-3:] == ["| --- | --- | --- |", "| average |  | 2 |", "| plain | 0.750 | 2.5 |"]
