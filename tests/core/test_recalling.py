"""Examples of the test split by their position, as people can look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact, write_json
from headrace.jobs import Job, resolve
from headrace.showing.recalling import of_records, recalled, vocabulary
from tests.core.keeping import keep
from tests.core.making import files, images, numbers, series, stand_in, table, text

pytestmark = pytest.mark.usefixtures("project")

ROWS = 12
RAW = Artifact(Path("raw"), "0", "download")


@pytest.fixture
def job() -> Job:
    return resolve("tiny", data="synthetic")


def records(folder: Path, features: Any, values: Any) -> Artifact:
    keep(folder, features, train=values, test=values)
    return Artifact(folder, "0", "preprocess")


class TestExamples:
    def test_are_raw_where_there_are_as_many_as_records(self, job: Job, tmp_path: Path) -> None:
        features, values = numbers(ROWS)
        made = records(tmp_path, features, {"x": values["x"] * 0, "price": values["price"]})
        found = recalled(stand_in(job, features, {"train": values, "test": values}), RAW, made, [3, 1, 3])
        shown = {row: one.cells for row, one in found.shown().items()}
        assert shown == {
            row: [("rooms", f"{values['x'][row, 0]:.4g}"), ("age", f"{values['x'][row, 1]:.4g}")] for row in (1, 3)
        }

    def test_are_records_where_there_are_more_or_fewer_of_them(self, job: Job, tmp_path: Path) -> None:
        features, values = numbers(ROWS)
        made = records(tmp_path, features, {"x": values["x"] * 0, "price": values["price"]})
        fewer = {name: some[:-1] for name, some in values.items()}
        found = recalled(stand_in(job, features, {"train": fewer, "test": fewer}), RAW, made, [1])
        assert found.shown()[1].cells == [("rooms", "0"), ("age", "0")]

    def test_are_none_where_none_are_asked_for(self, job: Job, tmp_path: Path) -> None:
        assert recalled(job, None, Artifact(tmp_path, "0"), []).shown() == {}

    def test_that_can_not_be_had_are_told(self, job: Job, tmp_path: Path) -> None:
        found = recalled(job, None, Artifact(tmp_path, "0"), [1])
        assert (found.shown(), "holds no records" in found.problem) == ({}, True)

    def test_beyond_the_last_one_are_left_out(self, tmp_path: Path) -> None:
        made = records(tmp_path, *numbers(ROWS))
        assert of_records(made, [ROWS - 1, ROWS]).arrays["row"].tolist() == [ROWS - 1]


class TestForms:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            (numbers, ("cells",)),
            (images, ("pictures",)),
            (files, ("pictures",)),
            (text, ("texts",)),
            (series, ("series",)),
            (table, ("cells",)),
        ],
    )
    def test_are_those_of_the_kind_of_data(self, tmp_path: Path, kind: Any, expected: tuple[str, ...]) -> None:
        [one] = of_records(records(tmp_path, *kind(ROWS)), [2]).shown().values()
        assert tuple(form for form in ("pictures", "texts", "series", "cells") if getattr(one, form)) == expected

    def test_show_inputs_only_and_name_what_is_for_people(self, tmp_path: Path) -> None:
        [one] = of_records(records(tmp_path, *table(ROWS)), [2]).shown().values()
        assert [label for label, _ in one.cells] == ["port", "fare"]
        assert one.note == "person 2"

    def test_count_what_is_set_of_very_many_switches(self, tmp_path: Path) -> None:
        from headrace.spec import Feature

        hot = np.zeros((ROWS, 2000), np.uint8)
        hot[2, :7] = 1
        features = {"words": Feature(shape=(2000,), dtype="uint8"), "y": Feature(role="target")}
        made = records(tmp_path, features, {"words": hot, "y": np.zeros(ROWS, np.float32)})
        assert of_records(made, [2]).shown()[2].texts == [("words", "7 of 2,000 are set")]


class TestVocabulary:
    def test_is_the_sources(self, tmp_path: Path) -> None:
        write_json(tmp_path / "words.json", ["a", "b"])
        np.savez(tmp_path / "learned.npz", words=np.array(["x", "y"]))
        assert vocabulary(Artifact(tmp_path, "0")) == ["a", "b"]

    def test_is_learned_where_the_source_has_none(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "learned.npz", words=np.array([b"x", b"y"]), mean=np.zeros(3))
        assert vocabulary(Artifact(tmp_path, "0")) == ["x", "y"]

    @pytest.mark.parametrize("learned", [{}, {"one": np.array(["a"]), "two": np.array(["b"])}, {"mean": np.zeros(3)}])
    def test_is_empty_where_nobody_can_tell(self, tmp_path: Path, learned: Any) -> None:
        np.savez(tmp_path / "learned.npz", **learned)
        assert vocabulary(Artifact(tmp_path, "0")) == []
