"""`headrace data`: what it shows, what it opens, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from headrace import projects
from headrace.cli import data as command
from headrace.cli import shared
from headrace.cli.groups import Commands
from headrace.stages import stage
from headrace.validation import validating
from headrace.validation.anomalies import Anomaly
from headrace.validation.validating import Findings

Headrace = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("standing_in")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was opened in the browser that is at hand."""
    found: list[str] = []
    monkeypatch.setattr(command, "browser_at_hand", lambda: True)
    monkeypatch.setattr(click, "launch", found.append)
    return found


class TestShowing:
    def test_tells_splits_features_findings_and_the_place_of_the_page(self, headrace: Headrace) -> None:
        result = headrace("data", "tiny")
        assert result.code == 0
        for words in ("Numbers", "SYNTHETIC DATA", "404", "ROOMS", "<b>AGE", "▂▁█"[0], "<i>red (3)", "and 1 more"):
            assert words in result.out, words
        assert "warning: `x`: <s>3 examples</s> repeat" in result.out
        assert Path(result.out.splitlines()[-1].removeprefix("page: ")).name == "data.html"

    def test_is_one_json_object_when_asked(self, headrace: Headrace, opened: list[str]) -> None:
        found = headrace("data", "tiny", "--json").json
        assert found["splits"]["train"]["examples"] == 404
        assert Path(found["page"]).is_file()
        assert opened == []

    def test_opens_the_page_where_there_is_a_browser(self, headrace: Headrace, opened: list[str]) -> None:
        page = headrace("data", "tiny").out.splitlines()[-1].removeprefix("page: ")
        assert opened == [Path(page).as_uri()]
        headrace("data", "tiny", "--no-open")
        assert len(opened) == 1

    def test_makes_nothing_twice(self, headrace: Headrace) -> None:
        first = headrace("data", "tiny", "--json").json["page"]
        made = Path(first).stat().st_mtime_ns
        assert headrace("data", "tiny", "--json").json["page"] == first
        assert Path(first).stat().st_mtime_ns == made

    def test_is_of_the_data_that_were_asked_for(self, headrace: Headrace) -> None:
        assert "SYNTHETIC" not in headrace("data", "tiny", "--data", "real").out

    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (("tinny",), "There is no workload `tinny`: did you mean `tiny`?"),
            (("schemas", "tiny"), "There is no workload `schemas`: did you mean `schema`?"),
            (("tiny", "--source", "nowhere"), "tiny can't run as asked"),
            (("tiny", "--sorce", "x"), "No such option '--sorce'"),
            (("validate", "tiny"), "Missing option '--input'"),
        ],
    )
    def test_of_what_makes_no_sense_is_refused(self, headrace: Headrace, words: tuple[str, ...], answer: str) -> None:
        result = headrace("data", *words)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"headrace: error: {answer}")

    def test_with_no_words_at_all_tells_what_there_is(self, headrace: Headrace) -> None:
        assert "validate" in headrace("data").out


class TestSplits:
    def test_show_classes_with_the_majority(self, capsys: pytest.CaptureFixture[str]) -> None:
        rows = [{"label": f"class {k}", "train": 10 - k, "test": k} for k in range(7)]
        target = {"name": "y", "is_class": True, "classes": rows, "majority": {"train": 0.25, "test": 0.125}}
        command.show_splits({"target": target, "splits": {"train": {"examples": 49}, "test": {"examples": 21}}})
        out = capsys.readouterr().out
        assert "class 0 10, class 1 9, class 2 8, class 3 7, class 4 6 and 2 more" in out
        assert "25.0%" in out
        assert "12.5%" in out


@pytest.mark.parametrize(
    ("heights", "line"),
    [([0, 1, 0.5, 0], "█▅"), ([0.001, 0, 0, 0], "▁ "), ([], ""), ([1.0], "█")],
)
def test_a_histogram_fits_a_line(heights: list[float], line: str) -> None:
    assert command.bars(heights) == line


class TestBrowsers:
    def test_are_at_hand_where_somebody_looks_at_a_display(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setenv("DISPLAY", ":0")
        assert shared.browser_at_hand()
        monkeypatch.delenv("DISPLAY")
        assert not shared.browser_at_hand()
        monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
        assert shared.browser_at_hand()
        monkeypatch.setattr("sys.stdout.isatty", lambda: False)
        assert not shared.browser_at_hand()


class TestValidating:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What was asked of the check, which finds an error in files called `bad`."""
        calls: list[Any] = []

        def validate(job: Any, path: Path, records: Path | None, *, environment: str | None) -> Findings:
            calls.append((job, path, records, environment))
            wrong = Anomaly("error", "x", "ROOMS", "ROOMS: 2 of 9 values are missing", "missing", count=2, rows=(3, 7))
            found = [wrong] if path.stem == "bad" else []
            return Findings(path.name, "the schema", environment, 9, [], found, [], [])

        monkeypatch.setattr(validating, "validate", validate)
        return calls

    def test_exits_with_3_and_names_the_rows_of_what_is_wrong(self, headrace: Headrace, asked: list[Any]) -> None:
        result = headrace("data", "validate", "tiny", "--input", "bad.csv")
        assert result.code == 3
        assert "error: ROOMS: 2 of 9 values are missing [row 3, row 7]" in result.out

    def test_passes_what_is_right(self, headrace: Headrace, asked: list[Any]) -> None:
        result = headrace("data", "validate", "tiny", "--input", "good.csv", "--environment", "SERVING")
        assert (result.code, asked[0][1], asked[0][3]) == (0, Path("good.csv"), "SERVING")
        assert result.out.startswith("pass: good.csv, 9 rows")

    def test_is_one_json_object_when_asked(self, headrace: Headrace, asked: list[Any]) -> None:
        result = headrace("data", "validate", "tiny", "--input", "bad.csv", "--json")
        assert result.code == 3
        assert (result.json["workload"], result.json["verdict"]) == ("tiny", "fail")
        assert result.json["anomalies"][0]["rows"] == [3, 7]

    def test_uses_records_that_are_there_and_makes_none(self, headrace: Headrace, asked: list[Any]) -> None:
        headrace("data", "validate", "tiny", "--input", "good.csv")
        assert asked[0][2] is None
        headrace("data", "tiny")
        headrace("data", "validate", "tiny", "--input", "good.csv")
        assert (asked[1][2] / "schema.pbtxt").is_file()

    def test_takes_another_schema(self, headrace: Headrace, tmp_path: Path) -> None:
        (tmp_path / "new.csv").write_text("rooms,age\n3,7\n,8\nmany,9\n")
        (tmp_path / "rules.pbtxt").write_text(
            'feature { name: "rooms" type: FLOAT presence { min_fraction: 1 min_count: 1 } }\n'
            'feature { name: "age" type: FLOAT float_domain { min: 0 max: 8 } }\n'
        )
        words = ("--input", str(tmp_path / "new.csv"), "--schema", str(tmp_path / "rules.pbtxt"))
        result = headrace("data", "validate", "tiny", *words)
        assert result.code == 3
        for line in ("line 3", "line 4 (", "line 4 (9)"):
            assert line in result.out, result.out


class TestSchema:
    @pytest.fixture
    def path(self, project: Path) -> Path:
        """Where the reviewed schema is kept."""
        return project / "pipelines" / "schemas" / "tiny.numbers.pbtxt"

    def test_is_printed_as_it_is_inferred(self, headrace: Headrace, path: Path) -> None:
        assert headrace("data", "schema", "tiny").out == 'feature {\n  name: "x"\n}\n'
        assert not path.exists()

    def test_is_written_for_review(self, headrace: Headrace, path: Path) -> None:
        result = headrace("data", "schema", "tiny", "--data", "real", "--write")
        assert (result.code, path.read_text()) == (0, 'feature {\n  name: "x"\n}\n')
        assert result.out == f"wrote {path}: look through it, and commit it\n"
        again = headrace("data", "schema", "tiny", "--data", "real", "--write")
        assert again.out == f"{path} says the same already\n"

    def test_that_was_reviewed_is_not_replaced_but_compared(self, headrace: Headrace, path: Path) -> None:
        path.parent.mkdir()
        path.write_text('feature {\n  name: "z"\n}\n')
        result = headrace("data", "schema", "tiny", "--data", "real", "--write")
        assert (result.code, path.read_text()) == (2, 'feature {\n  name: "z"\n}\n')
        assert '-  name: "z"\n+  name: "x"' in result.err
        assert "--force" in result.err
        forced = headrace("data", "schema", "tiny", "--data", "real", "--write", "--force")
        assert (forced.code, path.read_text()) == (0, 'feature {\n  name: "x"\n}\n')
        assert '-  name: "z"\n+  name: "x"' in forced.out

    def test_of_made_up_data_is_not_written(self, headrace: Headrace, path: Path) -> None:
        result = headrace("data", "schema", "tiny", "--write")
        assert result.code == 2
        assert "made up by the twin" in result.err
        assert not path.exists()
        assert headrace("data", "schema", "tiny", "--write", "--force").code == 0
        assert path.exists()

    def test_is_one_json_object_when_asked(self, headrace: Headrace, path: Path) -> None:
        found = headrace("data", "schema", "tiny", "--json").json
        assert found == {
            "schema": 'feature {\n  name: "x"\n}\n',
            "path": str(path),
            "written": False,
            "changes": None,
        }


def test_no_workload_can_be_called_as_a_command_is(headrace: Headrace) -> None:
    assert isinstance(command.data, Commands)
    assert set(command.data.commands) == set(projects.RESERVED)
    for name in projects.RESERVED:
        result = headrace("new", name)
        assert (result.code, f"`headrace data {name}` is a command" in result.err) == (2, True)


def test_stages_of_the_project_are_used(headrace: Headrace, standing_in: Any) -> None:
    from headrace.errors import DataError

    @stage()
    def examine(*_: Any) -> None:
        raise DataError("bad data")

    standing_in(examine=examine)
    assert headrace("data", "tiny").code == 3
