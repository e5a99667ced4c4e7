"""What a report shows of each output: every task with its own charts, its worst errors with their inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.jobs import Job, resolve
from headrace.showing import outcomes
from headrace.showing.outcomes import Outcome
from tests.core import reported
from tests.core.making import artifact
from tests.core.reported import Results

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
def job() -> Job:
    return resolve("tiny", data="synthetic")


def outcome(job: Job, made: Results) -> Outcome:
    """What is shown of the only output."""
    [found] = outcomes.outcomes(job, made, made["evaluate"].json("evaluation.json"))
    return found


def titles(found: Outcome) -> list[str]:
    return [figure["title"] for figure in found.figures]


class TestFigures:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("points", ["Where the model decides", "ROC curve", "Precision and recall", "Calibration"]),
            ("digits", []),
            ("line", ["What was learned", "Predictions and truth", "Residuals", "Sizes of the errors"]),
            ("forecasts", ["Error by step", *(f"Forecast from test example {k}" for k in (0, 13, 26, 39))]),
            ("masks", []),
            ("sentences", []),
            ("pictures", []),
        ],
    )
    def test_are_those_of_the_task(self, job: Job, tmp_path: Path, kind: str, expected: list[str]) -> None:
        assert titles(outcome(job, reported.KINDS[kind](tmp_path))) == expected

    def test_have_labels_of_their_own(self, job: Job, tmp_path: Path) -> None:
        found = outcome(job, reported.forecasts(tmp_path)).figures
        labels = [str(figure["svg"]).split('aria-label="')[1].split('"')[0] for figure in found]
        assert len(set(labels)) == len(labels)

    def test_draw_the_line_between_two_answers(self, job: Job, tmp_path: Path) -> None:
        made = reported.points(tmp_path)
        plane = str(outcome(job, made).figures[0]["svg"])
        assert "answer &lt;left&gt;" in plane
        assert "wrong" in plane

    def test_are_left_out_without_predictions(self, job: Job, tmp_path: Path) -> None:
        made = reported.line(tmp_path)
        (made["evaluate"].path / "predictions.npz").unlink()
        assert titles(outcome(job, made)) == []

    def test_of_forecasts_of_one_step_stand_in_their_order(self, job: Job, tmp_path: Path) -> None:
        made = reported.line(tmp_path)
        found = made["evaluate"].json("evaluation.json")
        found["outputs"]["price"]["task"] = "forecasting"
        artifact(made["evaluate"].path, "evaluate", evaluation=found)
        assert titles(outcome(job, made))[0] == "Forecasts in their order"


class TestConfusions:
    def test_are_a_matrix_with_shares_of_each_class(self, job: Job, tmp_path: Path) -> None:
        found = outcome(job, reported.digits(tmp_path)).confusion
        assert found is not None
        assert [row["name"] for row in found["rows"]] == ["calm", "wild", "odd"]
        assert found["rows"][0]["cells"][1] == {"count": 2, "share": 2 / 12, "right": False}
        assert [cell["share"] for cell in found["rows"][1]["cells"]] == [0, 0, 0]

    def test_of_many_classes_are_the_most_frequent_ones(self, job: Job, tmp_path: Path) -> None:
        found = outcome(job, reported.topics(tmp_path)).confusion
        assert found is not None
        assert found["pairs"] == [{"truth": "topic 3", "answer": "topic 4", "count": 9, "share": 9 / 14}]

    def test_are_none_for_numbers(self, job: Job, tmp_path: Path) -> None:
        assert outcome(job, reported.line(tmp_path)).confusion is None


class TestWorstErrors:
    def test_are_shown_with_their_images(self, job: Job, tmp_path: Path) -> None:
        found = outcome(job, reported.digits(tmp_path)).worst
        assert [one["example"] for one in found] == [5, 2, 39]
        assert [one["shown"].row for one in found] == [5, 2, 39]
        assert {picture.suffix for one in found for _, picture in one["shown"].pictures} == {".png"}

    def test_are_shown_with_their_words(self, job: Job, tmp_path: Path) -> None:
        found = outcome(job, reported.topics(tmp_path)).worst
        assert all(one["shown"].texts[0][1].startswith("word") for one in found)

    def test_are_shown_with_their_numbers(self, job: Job, tmp_path: Path) -> None:
        found = outcome(job, reported.points(tmp_path))
        assert found.columns == ["x", "y"]
        assert len(found.worst[0]["shown"].cells) == 2

    def test_of_numbers_are_found_where_the_evaluation_names_none(self) -> None:
        truth, answers = np.zeros((30, 1), "float32"), np.arange(-15, 15, dtype="float32")[:, None]
        rows = outcomes.worst_errors(truth, answers)
        assert rows[0] == {"example": 0, "truth": 0.0, "answer": -15.0, "error": -15.0}
        assert [abs(row["error"]) for row in rows] == sorted((abs(row["error"]) for row in rows), reverse=True)
        assert outcomes.worst_errors(np.zeros((3, 2)), np.zeros((3, 2))) == []

    def test_say_why_their_inputs_are_missing(self, job: Job, tmp_path: Path) -> None:
        made = reported.digits(tmp_path)
        (made["preprocess"].path / "info.json").unlink()
        found = outcome(job, made)
        assert "holds no records" in found.why_no_inputs
        assert found.worst[0]["shown"] is None

    def test_come_without_inputs_where_records_are_not_at_hand(self, job: Job, tmp_path: Path) -> None:
        made = reported.digits(tmp_path)
        found = outcome(job, {"evaluate": made["evaluate"]})
        assert (found.why_no_inputs, found.worst[0]["shown"]) == ("", None)


class TestPictures:
    def test_of_masks_lie_over_their_images_the_worst_first(self, job: Job, tmp_path: Path) -> None:
        [found] = outcome(job, reported.masks(tmp_path)).pictures
        assert found["words"].startswith("Each shows image, truth, answer. Test examples 9, 0, 6,")
        assert found["width"] > 6 * 96

    def test_of_answers_stand_below_the_truth(self, job: Job, tmp_path: Path) -> None:
        [found] = outcome(job, reported.pictures(tmp_path)).pictures
        assert found["height"] > 2 * 96
        assert found["words"].startswith("Above the truth")


class TestSequences:
    def test_are_decoded_by_the_words_that_were_learned(self, job: Job, tmp_path: Path) -> None:
        found = outcome(job, reported.sentences(tmp_path)).sequences
        assert found[0] == {
            "row": 0,
            "input": "das <Haus> brennt",
            "truth": "the house burns",
            "answer": "the home burns",
        }


class TestMetrics:
    def test_say_by_how_much_the_model_is_better(self, tmp_path: Path) -> None:
        found = reported.line(tmp_path)["evaluate"].json("evaluation.json")
        found["metrics"], found["larger_is_better"] = {"accuracy": 0.75, "mae": 2.0}, ["accuracy"]
        found["baselines"] = {"mean": {"accuracy": 0.5, "mae": 3.0}, "last value": {"mae": 1.5}}
        accuracy, mae = outcomes.metrics(found)
        assert [entry["gain"] for entry in accuracy["baselines"]] == [0.25, None]
        assert [entry["gain"] for entry in mae["baselines"]] == [1.0, -0.5]
        assert (accuracy["primary"], mae["title"]) == (True, "MAE")

    def test_without_a_value_are_no_better_and_no_worse(self, tmp_path: Path) -> None:
        found = reported.points(tmp_path)["evaluate"].json("evaluation.json")
        assert [entry["gain"] for entry in outcomes.metrics(found)[1]["baselines"]] == [None, None]


class TestSlices:
    def test_lie_between_the_least_and_the_largest_of_all(self, tmp_path: Path) -> None:
        found = reported.points(tmp_path)["evaluate"].json("evaluation.json")
        x, y = outcomes.slices(found)
        assert (x["by"], [row["slice"] for row in x["rows"]]) == ("x", ["below <0>", "0 and more"])
        assert [row["place"] for row in x["rows"]] == pytest.approx([25, 50])
        assert x["rows"][0]["places"] == pytest.approx([0, 45])
        assert [(row["slice"], row["place"], row["small"]) for row in y["rows"]] == [("far", 100, True)]

    def test_are_none_where_none_were_measured(self, tmp_path: Path) -> None:
        assert outcomes.slices(reported.line(tmp_path)["evaluate"].json("evaluation.json")) == []
