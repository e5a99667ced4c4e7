"""The README's table of workloads says what the specs and the measurements say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace import cataloguing, projects
from headrace.__main__ import main
from headrace.cataloguing import BEGIN, END, insert, table
from headrace.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

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
    entry = {"metric": "mae", "values": values, "command": "headrace run tiny", "date": "2026-11-21", **changes}
    (project / "docs").mkdir(exist_ok=True)
    (project / "docs" / "results.json").write_text(json.dumps({"tiny": {"plain": entry}}))


def cells(project: Path) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(project).splitlines() if "|" in line]


class TestTable:
    def test_has_a_row_for_each_promise_and_each_variant(self, project: Path, promising: None) -> None:
        heading, _, *rows = cells(project)
        assert heading[0] == "workload"
        assert [row[3] for row in rows] == ["`plain`", "`plain`", "`folded`"]
        assert rows[0][:3] == ["[`tiny`](pipelines/tiny.py)", "Tiny", "none"]
        assert rows[0][4:] == ["test mae at most 3", "2.464 (listing 4.31)", ""]
        assert rows[1][:3] == ["", "", ""]
        assert rows[1][4:] == ["cross-validated val_mae 1 to 2", "", ""]

    def test_says_what_was_measured(self, project: Path, promising: None) -> None:
        measured(project)
        _, _, first, second, third = cells(project)
        assert first[-1] == "2.500 (2.250 to 2.750, 3 seeds)"
        assert second[-1] == third[-1] == ""
        assert table(project).splitlines()[-1] == (
            "- `tiny` `plain`, 2026-11-21, `headrace run tiny`: mae 2.500 (seed 0), 2.250 (seed 1), 2.750 (seed 2)"
        )

    def test_says_if_a_promise_was_not_kept(self, project: Path, promising: None) -> None:
        measured(project, values={"0": 3.25})
        assert cells(project)[2][-1] == "3.250 (3.250 to 3.250, 1 seed), **promise not kept**"

    def test_is_not_broken_by_a_title(self, project: Path, edit: Any) -> None:
        edit('title="Tiny"', 'title="A | B"')
        assert "A \\| B" in table(project)

    @pytest.mark.parametrize(
        ("results", "words"),
        [
            ("{", "can't be used"),
            ("[]", "can't be used"),
            ('{"tiny": {"plain": {"values": {"0": 1}}}}', "KeyError: 'metric'"),
            ('{"tiny": {"plain": {"values": {"0": "x"}}}}', "could not convert string to float"),
            ('{"tinny": {}}', "names workloads that are not there: tinny"),
            ('{"tiny": {"plane": {"metric": "mae", "values": {}, "command": "", "date": ""}}}', "has not: plane"),
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

    def test_is_brought_up_to_date_by_a_command(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (project / "README.md").write_text(f"# Tiny\n\n{BEGIN}\n{END}\n")
        assert main(["list", "--markdown"]) == 0
        printed = capsys.readouterr().out
        assert main(["list", "--write"]) == 0
        assert (project / "README.md").read_text() == f"# Tiny\n\n{BEGIN}\n{printed}{END}\n"

    def test_of_this_project_is_up_to_date(self) -> None:
        assert projects.root() == ROOT
        text = (ROOT / "README.md").read_text()
        assert text == cataloguing.insert(text, table(ROOT)), "run `headrace list --write`"
