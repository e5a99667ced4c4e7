"""What people see of a run in the browser: small, readable, under stable keys."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.artifacts import Artifact
from headrace.describing.summaries import summarise
from headrace.spec import Feature
from tasks import showing
from tasks.downloading import files
from tasks.examining import findings
from tasks.monitoring import drift
from tasks.preprocessing import statistics
from tests.conftest import JobFactory

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The artifacts that would have been made."""
    made: list[dict[str, Any]] = []

    def note(content: Any, **words: Any) -> None:
        made.append({"content": content, **words})

    monkeypatch.setattr(showing, "create_markdown_artifact", note)
    monkeypatch.setattr(showing, "create_table_artifact", note)
    return made


def picture(markdown: str) -> bytes:
    (found,) = re.findall(r"data:image/png;base64,([^)]*)\)", markdown)
    return base64.b64decode(found)


def test_keys_are_made_of_what_prefect_allows(job: JobFactory) -> None:
    assert showing.key(job(), "curve-fold 2") == "house-prices-curve-fold-2"


def test_a_table_shows_numbers_in_four_digits(job: JobFactory, shown: list[dict[str, Any]]) -> None:
    showing.table(job(), "statistics", [{"column": "RM", "mean": 6.284634, "missing": 0}], "words")

    (table,) = shown
    assert table["content"] == [{"column": "RM", "mean": "6.285", "missing": "0"}]


def test_a_long_table_is_cut_and_says_so(job: JobFactory, shown: list[dict[str, Any]]) -> None:
    showing.table(job(), "drift", [{"column": n} for n in range(1000)], "Drift")

    (table,) = shown
    assert (len(table["content"]), table["description"]) == (200, "Drift (the first 200 of 1000 rows)")


def test_text_beyond_the_limit_is_left_out_paragraph_by_paragraph(job: JobFactory, shown: list[dict[str, Any]]) -> None:
    showing.markdown(job(), "curve", "\n\n".join(["first", "x" * showing.LIMIT, "last"]), "words")

    (text,) = shown
    assert text["content"] == "first\n\n…"


def test_a_table_within_text_has_all_columns_of_all_rows() -> None:
    table = showing.grid([{"metric": "mae", "value": 2.5}, {"metric": "a|b", "book": None}])

    assert table.splitlines() == [
        "| metric | value | book |",
        "| --- | --- | --- |",
        "| mae | 2.5 | – |",
        "| a\\|b | – | – |",
    ]


def test_a_chart_is_a_small_picture_inside_the_text() -> None:
    folds = {f"fold {k}": [30 / epoch + k for epoch in range(1, 501)] for k in range(1, 5)}

    chart = showing.chart(folds, title="val_mae", bold={"mean": folds["fold 2"]}, mark=127)

    assert picture(chart).startswith(PNG)
    assert len(chart) < showing.LIMIT / 2


def test_equal_curves_give_the_same_picture() -> None:
    curves = {"training": [3.0, 2.0, 1.0], "held out": []}

    assert showing.chart(curves, title="loss") == showing.chart(curves, title="loss")


def test_a_curve_of_one_epoch_can_be_drawn() -> None:
    assert picture(showing.chart({"training": [3.0]}, title="loss")).startswith(PNG)


# ------------------------------------------------------------------------------------ what the tasks show


def artifact(folder: Path, **files: Any) -> Artifact:
    """A finished stage whose JSON files hold this."""
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return Artifact(folder, "digest")


def test_text_columns_have_statistics_of_their_own(
    job: JobFactory, shown: list[dict[str, Any]], tmp_path: Path
) -> None:
    batch = pa.RecordBatch.from_pydict({"town": ["Lynn", "Salem", "Lynn"], "rooms": pa.array([5, 6, 7], pa.float32())})
    declared = {"town": Feature(dtype="string"), "rooms": Feature()}
    found = summarise([batch], declared).to_json()

    statistics(job(), artifact(tmp_path, statistics=found, info={"splits": {"train": {"examples": 3}}}))

    (table,) = shown
    assert [(row["feature"], row.get("distinct"), row.get("mean")) for row in table["content"]] == [
        ("town", "2", None),
        ("rooms", None, "6"),
    ]


def test_what_was_found_of_the_data_is_shown_with_samples(
    job: JobFactory, shown: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = [
        {"severity": "error", "check": "unseen classes", "text": "`cat` occurs in test only", "feature": "y"},
        {"severity": "info", "check": "size of splits", "text": "test has 9 examples", "feature": ""},
    ]
    sheets = [{"kind": "text", "title": "review"}, {"kind": "images", "title": "image", "picture": "samples.png"}]
    (tmp_path / "samples.png").write_bytes(PNG)

    findings(job(), artifact(tmp_path, examination={"findings": found, "sheets": sheets}))

    (text,) = shown
    assert (text["key"], text["description"]) == (
        "house-prices-data-findings",
        "What was found of the data: 1 errors, 0 warnings",
    )
    assert "| error | unseen classes | `cat` occurs in test only |" in text["content"]
    assert str(tmp_path / "data.html") in text["content"]
    assert picture(text["content"]) == PNG


def test_what_has_drifted_comes_first(job: JobFactory, shown: list[dict[str, Any]], tmp_path: Path) -> None:
    def column(name: str, distance: float, drifted: bool) -> dict[str, Any]:
        means = {"reference": {"mean": 0.0}, "current": {"mean": 1.0}}
        return {"feature": "x", "column": name, "distance": distance, "threshold": 0.0, "drifted": drifted, **means}

    columns = [column("ZN", 0.3, False), column("RM", 0.2, True), column("AGE", 0.1, False)]
    drift(job(), artifact(tmp_path, drift={"rows": 102, "columns": columns}))

    (table,) = shown
    assert [row["column"] for row in table["content"]] == ["RM", "ZN", "AGE"]
    assert table["description"] == "1 of 3 columns have drifted; 102 rows"


def test_made_up_data_are_called_so(job: JobFactory, shown: list[dict[str, Any]], tmp_path: Path) -> None:
    entry = {"size": 57_162, "sha256": "365a", "vouched_by": "twin"}

    files(job(), artifact(tmp_path, data={"data": "synthetic", "source": "boston", "files": {"a.npz": entry}}))

    (table,) = shown
    assert "made up by the workload's twin" in table["description"]
    assert table["content"] == [{"file": "a.npz", "size": "57.2 KB", "vouched by": "twin", "sha256": "365a"}]
