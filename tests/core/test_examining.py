"""What is found of data: on every kind of them, on faults that were put in, and on a workload's twin."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact, write_atomically
from headrace.examining import examine
from headrace.jobs import Job
from headrace.showing import pages
from headrace.spec import Column, Feature
from tests.core.making import KINDS, LABEL, artifact, files, images, numbers, records, stand_in, table, text, twin
from tests.core.reading import Page

Splits = Mapping[str, Mapping[str, Any]]


class Examined:
    """What the stage has made of some data."""

    def __init__(self, made: Artifact) -> None:
        self.made = made
        self.found: dict[str, Any] = made.json(pages.EXAMINATION)
        self.page = Page((made.path / pages.DATA).read_text())

    def texts(self, check: str, severity: str | None = None) -> list[str]:
        """What was said about this."""
        said = [f for f in self.found["findings"] if f["check"] == check]
        return [finding["text"] for finding in said if severity in (None, finding["severity"])]


Examine = Callable[..., Examined]


@pytest.fixture
def look(job: Callable[..., Job], tmp_path: Path) -> Examine:
    """Examine features and splits: `look(features, train, test)`."""
    count = itertools.count()

    def make(
        features: Mapping[str, Feature],
        train: Mapping[str, Any],
        test: Mapping[str, Any],
        task: str = "classification",
        kept: Mapping[str, str] | None = None,
        **source: Any,
    ) -> Examined:
        found = stand_in(job(), features, {"train": train, "test": test}, **source)
        found.__dict__["pipeline"] = found.pipeline.model_copy(update={"task": task})
        folder = tmp_path / str(next(count))
        raw = artifact(folder / "raw", "download", data={"data": "synthetic", "files": {}})
        for name, content in (kept or {}).items():
            write_atomically(folder / "records" / name, content.encode())
        return Examined(examine(found, raw, records(found, raw, folder / "records")))

    return make


@pytest.fixture
def of_kind(look: Examine) -> Examine:
    """Examine made-up data of a kind."""

    def make(kind: str, rows: int = 120, **more: Any) -> Examined:
        (features, train), (_, test) = KINDS[kind](rows), KINDS[kind](40, 1)
        return look(features, train, test, **more)

    return make


def changed(arrays: Mapping[str, Any], name: str, change: Callable[[np.ndarray], None]) -> dict[str, Any]:
    """The same values but for one feature."""
    values = arrays[name].copy()
    change(values)
    return {**arrays, name: values}


class TestEveryKind:
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_shown_on_a_page_that_loads_nothing(self, of_kind: Examine, kind: str) -> None:
        examined = of_kind(kind)
        assert examined.page.open == []
        assert examined.page.loads() == []
        assert {"findings", "samples", "features", "duplicates", "drift", "schema"} <= examined.page.ids
        assert "Synthetic data" in examined.page.text
        assert {feature["name"] for feature in examined.found["features"]} == set(KINDS[kind](3)[0])

    @pytest.mark.parametrize("kind", KINDS)
    def test_gives_equal_bytes_the_second_time(
        self, of_kind: Examine, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        first = of_kind(kind)
        assert of_kind(kind).made.state == "skipped"
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "other"))
        again = of_kind(kind)
        assert again.made.state == "run"
        assert again.made.digest == first.made.digest

    @pytest.mark.parametrize("kind", KINDS)
    def test_that_is_in_order_gives_no_warning(self, of_kind: Examine, kind: str) -> None:
        """`table` repeats its few categories, and `images` and `sequences` are made to be given away."""
        warned = {f["check"] for f in of_kind(kind).found["findings"] if f["severity"] != "info"}
        expected = {
            "table": {"missing values", "duplicates", "duplicates across splits", "contradictory labels"},
            "images": {"leaking features"},
            "sequences": {"leaking features", "duplicates across splits"},
            "tokens": {"duplicates across splits"},
        }
        assert warned == expected.get(kind, set())

    @pytest.mark.parametrize("kind", ["masks", "series"])
    @pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
    def test_is_drawn_by_a_browser(self, of_kind: Examine, kind: str) -> None:
        path = of_kind(kind).made.path / pages.DATA
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
        done = subprocess.run([*command, path.as_uri()], check=True, capture_output=True, text=True, timeout=60)
        assert "CONSOLE" not in done.stderr
        assert Page(done.stdout).text == Page(path.read_text()).text

    def test_with_a_third_split_is_compared_with_both(self, job: Callable[..., Job], tmp_path: Path) -> None:
        features, train = numbers(200)
        splits = {"train": train, "test": numbers(100, 1)[1], "validation": numbers(100, 2)[1]}
        found = stand_in(job(), features, splits)
        raw = artifact(tmp_path / "raw", "download", data={"data": "real", "files": {}})
        examined = Examined(examine(found, raw, records(found, raw, tmp_path / "records")))
        assert list(examined.found["splits"]) == list(splits)
        assert list(examined.found["drift"]) == ["test", "validation"]
        pairs = [(pair["known"], pair["other"]) for pair in examined.found["duplicates"]["between"]]
        assert pairs == [("train", "test"), ("train", "validation"), ("test", "validation")]
        assert "Synthetic data" not in examined.page.text


class TestClasses:
    def test_are_counted_in_each_split(self, of_kind: Examine) -> None:
        target = of_kind("images").found["target"]
        counts = np.bincount(images(120)[1]["label"])
        found = {row["label"]: row["train"] for row in target["classes"]}
        assert found == dict(zip(("calm", "wild", "odd"), counts.tolist(), strict=True))
        assert target["majority"]["train"] == counts.max() / 120

    def test_that_are_unequal_are_warned_of(self, look: Examine) -> None:
        features, train = images(300)
        train["label"] = np.where(np.arange(300) < 285, 0, np.arange(300) % 2 + 1)
        (said,) = look(features, train, images(40, 1)[1]).texts("class balance", "warning")[:1]
        assert "from 7 examples (`wild`) to 285 (`calm`); always answering the latter is right for 95.0%" in said

    def test_never_seen_in_training_are_an_error(self, look: Examine) -> None:
        features, train = images(60)
        train["label"] = train["label"] % 2
        examined = look(features, train, images(40, 1)[1])
        (said,) = examined.texts("unseen classes", "error")
        assert said.startswith("`label`: `odd` occur in test")
        assert "`odd`: declared, but without a training example" in " ".join(examined.texts("class balance", "warning"))

    def test_of_which_there_is_only_one_are_an_error(self, look: Examine) -> None:
        features, train = images(60)
        train["label"] = train["label"] * 0
        assert look(features, train, train).texts("class balance", "error")

    def test_may_be_text(self, look: Examine) -> None:
        features = {"x": Feature(), "y": Feature(dtype="string", role="target")}
        random = np.random.default_rng(0)
        given = {"x": random.normal(size=200), "y": np.array([b"yes", b"no"], object)[random.integers(0, 2, 200)]}
        target = look(features, given, given).found["target"]
        assert {row["label"] for row in target["classes"]} == {"yes", "no"}

    def test_are_not_what_a_regression_predicts(self, look: Examine) -> None:
        features = {"x": Feature(), "y": Feature(dtype="int64", role="target")}
        random = np.random.default_rng(0)
        given = {"x": random.normal(size=200), "y": random.integers(3, 9, 200)}
        assert look(features, given, given, task="regression").found["target"]["is_class"] is False
        assert look(features, given, given).found["target"]["is_class"] is True


class TestMissingValues:
    def test_are_told_with_their_share(self, of_kind: Examine) -> None:
        examined = of_kind("table")
        share = np.isnan(table(120)[1]["fare"]).mean()
        assert examined.texts("missing values") == [f"`fare`: {share:.1%} of the values are missing"]

    def test_are_information_where_they_are_few(self, look: Examine) -> None:
        features, train = table(120)
        train = changed(train, "fare", lambda v: np.nan_to_num(v, copy=False))
        train = changed(train, "fare", lambda v: v.__setitem__(0, np.nan))
        assert look(features, train, train).texts("missing values", "info")

    def test_of_the_target_keep_nothing_from_being_looked_at(self, look: Examine) -> None:
        features, train = numbers(120)
        features["price"] = Feature(role="target", optional=True)
        train["price"][:30] = np.nan
        examined = look(features, train, numbers(60, 1)[1], "regression")
        (sheet,) = examined.found["sheets"]
        assert all(row[0] >= 30 for row in sheet["rows"])
        assert examined.texts("missing values") == ["`price`: 25.0% of the values are missing"]
        assert examined.found["clues"][0]["skill"] > 0.1

    def test_are_named_by_their_columns(self, look: Examine) -> None:
        columns = tuple(Column(name=name) for name in "abc")
        features = {"x": Feature(shape=(3,), columns=columns, optional=True), "y": Feature(role="target")}
        random = np.random.default_rng(0)
        given = {"x": random.normal(size=(50, 3)), "y": random.normal(size=50)}
        given["x"][:10, 1] = np.nan
        said = look(features, given, given).texts("missing values", "warning")
        assert said == ["`x`: 20.0% of the values are missing in `b`"]


class TestColumns:
    def test_that_never_change_are_warned_of(self, look: Examine) -> None:
        features, train = numbers(60)
        train = changed(train, "x", lambda v: v.__setitem__((slice(None), 1), 7))
        said = look(features, train, numbers(40, 1)[1]).texts("constant columns", "warning")
        assert said == ["`x`: 1 of 2 columns never change: `age`"]

    def test_that_tell_every_example_apart_are_names(self, look: Examine) -> None:
        features, train = table(120)
        features["ticket"] = Feature(dtype="string", content="category")
        train["ticket"] = np.array([f"T{i}".encode() for i in range(120)], object)
        (said,) = look(features, train, train).texts("identifiers", "warning")
        assert said == "`ticket` has 120 different values in 120 examples: rather a name than a property"

    def test_that_give_the_target_away_are_warned_of(self, look: Examine) -> None:
        def leaked(rows: int, seed: int) -> dict[str, Any]:
            _, arrays = table(rows, seed)
            return {**arrays, "refund": 10.0 * arrays["label"] + np.random.default_rng(seed).uniform(0, 5, rows)}

        features = {**table()[0], "refund": Feature()}
        examined = look(features, leaked(300, 0), leaked(100, 1))
        (said,) = examined.texts("leaking features", "warning")
        assert said.startswith("`refund` by itself gives `label` away (skill 1.000 of 1")
        assert examined.found["clues"][0]["column"] == "refund"

    def test_that_are_the_target_are_an_error(self, look: Examine) -> None:
        features, train = numbers(200)
        features["copy"], test = Feature(), numbers(100, 1)[1]
        examined = look(features, {**train, "copy": train["price"]}, {**test, "copy": test["price"]}, "regression")
        said = examined.texts("leaking features", "error")
        assert said == ["`copy` is equal to the target `price` in every example looked at"]


class TestDuplicates:
    def test_within_a_split_are_named(self, look: Examine) -> None:
        features, train = numbers(120)
        train = changed(train, "x", lambda v: v.__setitem__([50, 60], v[[3, 4]]))
        (said,) = look(features, train, numbers(40, 1)[1]).texts("duplicates")
        assert said == "2 examples of train (1.7%) repeat an earlier one: 50 (as 3), 60 (as 4)"

    @pytest.mark.parametrize("kind", ["numbers", "images", "files", "text", "series", "sequences"])
    def test_across_splits_are_found_in_every_kind(self, look: Examine, kind: str) -> None:
        (features, train), (_, test) = KINDS[kind](60), KINDS[kind](20, 1)
        inputs = [name for name, feature in features.items() if feature.role == "input"]
        rows = np.array([*range(1, 20), 0])
        test = {**test, **{name: train[name][rows] for name in inputs}}
        (said,) = look(features, train, test).texts("duplicates across splits", "warning")
        assert said.startswith("20 examples of test (100.0%) are in train, too")
        assert "0 (in train: 1)" in said

    def test_with_another_target_contradict_each_other(self, look: Examine) -> None:
        features, train = images(120)
        train = changed(train, "image", lambda v: v.__setitem__([50, 60], v[[3, 4]]))
        train = changed(train, "label", lambda v: v.__setitem__([3, 50, 4, 60], [0, 1, 2, 2]))
        (said,) = look(features, train, images(40, 1)[1]).texts("contradictory labels")
        assert "in 1 groups: train 3 and train 50" in said


class TestOrder:
    def test_by_class_is_warned_of(self, look: Examine) -> None:
        features, train = text(90)
        order = np.argsort(train["label"], kind="stable")
        examined = look(features, {name: v[order] for name, v in train.items()}, text(40, 1)[1])
        (said,) = examined.texts("order", "warning")
        assert said.startswith("the training examples are sorted by class (it changes 2 times, by chance it would 58")

    def test_in_runs_is_warned_of(self, look: Examine) -> None:
        features, train = text(90)
        order = np.argsort(train["label"], kind="stable").reshape(9, 10)[[0, 4, 8, 1, 5, 2, 6, 3, 7]].reshape(-1)
        (said,) = look(features, {n: v[order] for n, v in train.items()}, text(40, 1)[1]).texts("order", "warning")
        assert "come in runs of one class" in said

    def test_by_time_is_told(self, look: Examine) -> None:
        features, train = numbers(120)
        features["day"] = Feature(dtype="string", role="note")
        days = np.array([f"2020-{1 + i // 28:02}-{1 + i % 28:02}".encode() for i in range(120)], object)
        examined = look(features, {**train, "day": days}, {**numbers(40, 1)[1], "day": days[:40]})
        (said,) = examined.texts("order", "info")
        assert said.startswith("the training examples are in ascending order of `day`")

    def test_of_neighbours_that_are_alike_is_warned_of(self, look: Examine) -> None:
        features, train = numbers(300)
        train["price"] = np.random.default_rng(0).normal(size=300).cumsum()
        (said,) = look(features, train, numbers(100, 1)[1], "regression").texts("order", "warning")
        assert "`price` is much like that of the example before (correlation 0.9" in said

    def test_is_looked_for_beyond_the_end_of_a_batch(self, look: Examine) -> None:
        features, train = numbers(160)
        saw = changed(train, "x", lambda v: v.__setitem__((slice(None), 1), np.arange(160) % 16))
        assert look(features, saw, numbers(40, 1)[1]).texts("order") == []

    def test_is_none_where_examples_are_shuffled(self, of_kind: Examine) -> None:
        for kind in ("numbers", "text", "images"):
            assert of_kind(kind).texts("order") == []


class TestSplits:
    def test_that_differ_are_warned_of(self, look: Examine) -> None:
        features, train = numbers(300)
        test = changed(numbers(200, 1)[1], "x", lambda v: v.__setitem__((slice(None), 1), v[:, 1] + 3))
        examined = look(features, train, test, "regression")
        (said,) = examined.texts("representative splits", "warning")
        assert said.startswith("test is not like train in `age`")
        assert [c["column"] for c in examined.found["drift"]["test"] if c["drifted"]] == ["age"]

    def test_that_differ_in_their_classes_are_warned_of(self, look: Examine) -> None:
        features, train = files(60)
        test = files(60, 1)[1]
        test["label"] = np.zeros(60, np.int64)
        (said,) = look(features, train, test).texts("representative splits", "warning")
        assert "`label`" in said

    @pytest.mark.parametrize("seed", range(3))
    def test_that_only_differ_by_chance_are_not(self, look: Examine, seed: int) -> None:
        for kind in ("masks", "series", "files", "text"):
            (features, train), (_, test) = KINDS[kind](200, 2 * seed), KINDS[kind](80, 2 * seed + 1)
            assert look(features, train, test).texts("representative splits") == []

    def test_may_differ_in_what_no_model_sees(self, look: Examine) -> None:
        features, train = numbers(120)
        features["year"] = Feature(dtype="int64", role="note")
        test = numbers(60, 1)[1]
        examined = look(features, {**train, "year": np.full(120, 2019)}, {**test, "year": np.full(60, 2020)})
        assert examined.texts("representative splits") == []

    def test_that_are_small_are_told(self, of_kind: Examine) -> None:
        assert of_kind("numbers").texts("size of splits") == [
            "test has 40 examples only: figures come with wide margins"
        ]


class TestPage:
    def test_escapes_what_comes_from_data(self, look: Examine) -> None:
        evil = "<script>alert(1)</script>"
        features = {
            "review": Feature(dtype="string", description=evil),
            "word": Feature(dtype="string", content="category", unit=evil),
            "label": LABEL.model_copy(update={"classes": (evil, "b", "c")}),
        }
        _, train = text(60)
        train = {**train, "word": np.array([evil.encode(), b"plain"], object)[np.arange(60) % 2]}
        train["review"][:] = evil.encode()
        examined = look(features, train, train, title=evil, note=evil, licence=evil)
        assert "<script" not in (examined.made.path / pages.DATA).read_text()
        assert examined.page.text.count(evil) > 8

    def test_lists_what_was_left_out(self, of_kind: Examine) -> None:
        problem = {"feature": "x", "column": "age", "reason": "is missing", "value": "", "more": 0}
        lines = [
            {"split": "train", "row": 7, "note": {"file": "a.csv"}, "problems": [problem]},
            {
                "split": "train",
                "total": {"examples": 121, "left_out": 1, "problems": ["x is missing"], "remarks": ["row 3: PNG"]},
            },
        ]
        examined = of_kind("numbers", kept={"quarantine.jsonl": "\n".join(map(json.dumps, lines))})
        assert examined.texts("quarantine") == [
            "1 examples of train (0.8%) were left out: x is missing",
            "train: row 3: PNG",
        ]
        assert "x age is missing a.csv" in examined.page.text

    def test_has_a_map_of_places(self, look: Examine) -> None:
        columns = (Column(name="longitude"), Column(name="latitude"))
        features = {"x": Feature(shape=(2,), columns=columns), "y": Feature(role="target")}
        random = np.random.default_rng(0)
        given = {"x": random.uniform([-124, 32], [-114, 42], (90, 2)), "y": random.normal(size=90)}
        examined = look(features, given, given, "regression")
        assert [tag for tag, _ in examined.page.tags].count("circle") == 90
        assert examined.found["map"]["width"] == pytest.approx(np.cos(np.radians(37)), abs=0.05)

    def test_shows_the_schema(self, of_kind: Examine) -> None:
        assert 'name: "rooms"' in of_kind("numbers").page.text

    def test_is_made_anew_when_words_about_the_data_change(self, of_kind: Examine) -> None:
        first = of_kind("numbers", note="mind the gap")
        second = of_kind("numbers", note="mind the step")
        assert second.made.state == "run"
        assert "mind the step" in second.page.text
        assert "mind the gap" in first.page.text


class TestHousePrices:
    def test_are_examined_as_they_are(self, job: Callable[..., Job], tmp_path: Path) -> None:
        found = job()
        raw = twin(found, tmp_path / "raw")
        examined = Examined(examine(found, raw, records(found, raw, tmp_path / "records")))
        assert {split: entry["examples"] for split, entry in examined.found["splits"].items()} == {
            "train": 404,
            "test": 102,
        }
        assert examined.found["findings"] == []
        assert examined.found["target"]["is_class"] is False
        assert "rooms per dwelling" in examined.page.text
        assert "Column B encodes" in examined.page.text
        assert [path.name for path in examined.made.path.glob("samples*")] == []

    def test_do_not_depend_on_variant_and_seed(self, job: Callable[..., Job], tmp_path: Path) -> None:
        raw = twin(job(), tmp_path / "raw")
        made = records(job(), raw, tmp_path / "records")
        examine(job(), raw, made)
        assert examine(job(seed=3, variant="kfold_100"), raw, made).state == "skipped"
