"""A published model watched: drift of what is asked and answered, skew, decay, and the way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import registry, watching
from headrace.artifacts import Artifact
from headrace.errors import DataError
from headrace.jobs import Job
from headrace.preprocessing import preprocess
from headrace.readers.batches import to_arrays
from headrace.serving.logs import Sample
from tests.core.conftest import Result
from tests.core.making import twin

LINE = "house_prices-synthetic-smoke"
FAIR = {"metrics": {"mae": 4.3}, "intervals": {"mae": [3.8, 4.8]}}
"""What the evaluation of a model said that takes every house for 22,000 dollars, which is not far off."""


class House:
    """A project's line of price models, each of which gives one price for all houses; 22 is about right."""

    def __init__(self, job: Job, raw: Artifact, folder: Path) -> None:
        self.job, self.folder = job, folder
        self.records = preprocess(job, raw)
        parts = [to_arrays(b, job.origin.features) for b in job.origin.read(raw.path)["train"]]
        self.features, self.prices = (np.concatenate([np.asarray(p[n]) for p in parts]) for n in ("features", "price"))

    def publish(self, price: float, **changed: Any) -> int:
        """Publish and bless a model that gives this price."""
        import tensorflow as tf

        class Model(tf.Module):  # type: ignore[misc]
            @tf.function(input_signature=[tf.TensorSpec((None, 13), tf.float32, name="features")])  # type: ignore[misc]
            def serve(self, features: Any) -> dict[str, Any]:
                return {"price": tf.fill((tf.shape(features)[0], 1), price)}

        model, saved = Model(), self.folder / f"gives-{price}"
        tf.saved_model.save(model, str(saved), signatures={"serving_default": model.serve})
        np.savez(self.folder / "examples.npz", **{"output/price": np.random.default_rng(0).normal(22, 1, (400, 1))})
        lineage = {
            "request": self.job.model_dump(mode="json"),
            "stages": {"preprocess": {"digest": self.records.digest}},
        }
        files: dict[str, Any] = {"evaluation.json": FAIR, "lineage.json": lineage} | changed
        contents: dict[str, Path | bytes] = {path.name: path for path in saved.iterdir()}
        contents |= {f"{registry.EXTRA}/{name}": json.dumps(value).encode() for name, value in files.items()}
        contents[f"{registry.EXTRA}/statistics.json"] = self.records.path / "statistics.json"
        contents[f"{registry.EXTRA}/examples.npz"] = self.folder / "examples.npz"
        version = registry.publish(LINE, contents, bundle=f"gives {price}")
        registry.bless(LINE, version)
        return version

    def sold(self, rows: int = 300, tax: float = 1.0, labelled: bool = True) -> Path:
        """A table of houses like those of the training."""
        chosen = np.random.default_rng(rows).integers(0, len(self.features), rows)
        values = self.features[chosen].astype(np.float64)
        names = [column.name for column in self.job.origin.features["features"].columns]
        values[:, names.index("TAX")] *= tax
        if labelled:
            names.append("MEDV")
            values = np.column_stack([values, self.prices[chosen]])
        path = self.folder / "sold.csv"
        path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in values)]) + "\n")
        return path

    def ask(self, rows: int, answer: float, version: int, seed: int = 0, spread: float = 1.0, tax: float = 1.0) -> None:
        """Keep so many requests, and that this version answered about this."""
        random = np.random.default_rng(seed)
        inputs = self.features[random.integers(0, len(self.features), rows)].copy()
        names = [column.name for column in self.job.origin.features["features"].columns]
        inputs[:, names.index("TAX")] *= tax
        sample = Sample(LINE)
        answers = random.normal(answer, spread, (rows, 1)).astype(np.float32)
        sample.add({"features": inputs}, {"price": answers}, version, self.job.inputs)
        sample.write()

    def look(self, path: Path | None = None, **asked: Any) -> Any:
        return watching.look(watching.watched("house_prices", line=LINE), path, **asked)


@pytest.fixture
def house(job: Callable[..., Job], tmp_path: Path) -> House:
    found = job()
    return House(found, twin(found, tmp_path / "raw"), tmp_path)


def drifted(columns: list[dict[str, Any]]) -> list[str]:
    return [column["column"] for column in columns if column["drifted"]]


class TestData:
    def test_like_those_of_the_training_are_no_news(self, house: House) -> None:
        house.publish(22)
        found = house.look(house.sold())
        assert (found["drifted"], found["rows"], found["version"]) == (False, 300, 1)
        assert found["metric"]["rows"] == 300
        assert found["decay"]["decayed"] is False
        assert found["request"] == {
            "variant": house.job.variant,
            "profile": "smoke",
            "data": "synthetic",
            "source": "boston",
        }

    def test_in_another_unit_have_drifted_from_what_the_version_carries(self, house: House) -> None:
        house.publish(22)
        found = house.look(house.sold(tax=10, labelled=False))
        assert drifted(found["columns"]) == ["TAX"]
        assert (found["drifted"], found["decay"]) == (True, None)
        assert "drifted: TAX" in watching.in_words(found)

    def test_are_compared_where_the_records_are_gone_and_only_the_metric_is_not(
        self, house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        house.publish(22)
        monkeypatch.setenv("HEADRACE_REGISTRY", str(registry.folder("")))
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "another"))
        found = house.look(house.sold(tax=10))
        assert drifted(found["columns"]) == ["TAX"]
        assert found["metric"] is None

    def test_of_a_version_with_settings_of_another_time_can_not_be_judged(self, house: House) -> None:
        request = house.job.model_dump(mode="json") | {"colour": "red"}
        house.publish(22, **{"lineage.json": {"request": request}})
        with pytest.raises(DataError, match="can't be watched"):
            house.look(house.sold())


class TestRequests:
    def test_are_looked_at_once(self, house: House) -> None:
        house.publish(22)
        house.ask(120, 22, version=1)
        assert house.look()["rows"] == 120
        assert house.look() is None
        house.ask(130, 22, version=1, seed=1)
        assert house.look()["rows"] == 130
        assert house.look(window="all")["rows"] == 250

    def test_wait_until_there_are_enough(self, house: House) -> None:
        house.publish(22)
        house.ask(60, 22, version=1)
        assert house.look(least_rows=100) is None
        house.ask(60, 22, version=1, seed=1)
        assert house.look(least_rows=100)["rows"] == 120

    def test_drift_in_their_features(self, house: House) -> None:
        house.publish(22)
        house.ask(200, 22, version=1, tax=10)
        found = house.look()
        assert drifted(found["columns"]) == ["TAX"]
        assert (drifted(found["answers"]), found["metric"]) == ([], None)

    def test_drift_in_the_answers_of_the_version_that_is_watched(self, house: House) -> None:
        house.publish(22)
        house.ask(200, 26, version=7)
        assert house.look(window="all")["answers"] == []
        house.ask(200, 26, version=1, seed=1)
        found = house.look(window="all")
        assert drifted(found["answers"]) == ["price"]
        assert found["drifted"]
        assert "answers drifted: price" in watching.in_words(found)

    def test_that_would_now_be_answered_otherwise_are_skew(self, house: House) -> None:
        house.publish(22)
        house.ask(50, 22, version=1, spread=0)
        assert house.look()["skew"] == {"rows": 50, "differing": 0, "largest": 0.0}
        house.ask(50, 21, version=1, spread=0)
        found = house.look()
        assert found["skew"]["differing"] == 50
        assert "50 of 50 answers differ" in watching.in_words(found)

    def test_tell_which_lines_are_served(self, house: House) -> None:
        assert watching.served() == {}
        house.ask(10, 22, version=1)
        assert watching.served() == {}
        house.publish(22)
        assert watching.served() == {LINE: "house_prices"}

    @pytest.mark.parametrize("warmer", [0, 40])
    def test_that_are_windows_of_a_series_count_by_their_newest_row(
        self, job: Callable[..., Job], tmp_path: Path, warmer: float
    ) -> None:
        found = job("jena_climate")
        raw = twin(found, tmp_path / "raw")
        records = preprocess(found, raw)
        lineage = {"request": found.model_dump(mode="json")}
        registry.publish(
            "weather",
            {
                f"{registry.EXTRA}/lineage.json": json.dumps(lineage).encode(),
                f"{registry.EXTRA}/statistics.json": records.path / "statistics.json",
            },
            bundle="weather",
        )
        registry.bless("weather", 1)
        rows = np.concatenate(
            [to_arrays(b, found.origin.features)["weather"] for b in found.origin.read(raw.path)["train"]]
        )
        length, columns = found.inputs["weather"].shape
        # What came before the newest row would be drift if it were looked at.
        windows = np.full((500, length, columns), -1e3, np.float32)
        windows[:, -1] = rows[np.random.default_rng(0).integers(0, len(rows), 500)]
        windows[:, -1, 1] += warmer
        sample = Sample("weather")
        sample.add({"weather": windows}, {"temperature": np.zeros((500, 1), np.float32)}, 1, found.inputs)
        sample.write()
        seen = watching.look(watching.watched("jena_climate", line="weather"))
        assert seen is not None
        assert seen["rows"] == 500
        assert drifted(seen["columns"]) == (["T (degC)"] if warmer else [])


class TestDecay:
    def test_of_the_blessed_version_alone_leads_back_to_the_previous_one(self, house: House) -> None:
        house.publish(22)
        house.publish(40)
        found = house.look(house.sold())
        assert found["decay"]["decayed"]
        assert found["decay"]["rollback"]
        assert not found["drifted"], "the model is to blame, not the data"
        assert found["decay"]["previous"]["version"] == 1
        assert "decayed, and version 1 has not" in found["decay"]["reason"]
        assert watching.roll_back(found) == 1
        assert registry.blessed(LINE) == 1
        assert not house.look(house.sold())["decay"]["decayed"]

    def test_changes_nothing_if_somebody_has_moved_the_pointers_since(self, house: House) -> None:
        house.publish(22)
        house.publish(40)
        found = house.look(house.sold())
        registry.bless(LINE, 1)
        assert watching.roll_back(found) is None
        house.publish(25)
        assert (registry.blessed(LINE), registry.pointed(LINE, "previous")) == (3, 1)
        assert watching.roll_back(found) is None
        assert registry.blessed(LINE) == 3

    def test_of_both_is_drift_of_what_the_data_mean(self, house: House) -> None:
        once = {"evaluation.json": {"metrics": {"mae": 2.0}, "intervals": {"mae": [1.9, 2.1]}}}
        house.publish(22, **once)
        house.publish(40, **once)
        found = house.look(house.sold())
        assert (found["decay"]["decayed"], found["decay"]["rollback"], found["drifted"]) == (True, False, True)
        assert drifted(found["columns"]) == []
        assert watching.roll_back(found) is None
        assert registry.blessed(LINE) == 2

    def test_leads_back_only_to_a_version_that_is_better_on_the_same_rows(self, house: House) -> None:
        house.publish(22)
        boastful = {"metrics": {"mae": 2.0}, "intervals": {"mae": [1.9, 2.1]}}
        house.publish(22.1, **{"evaluation.json": boastful})
        found = house.look(house.sold())
        assert found["decay"]["decayed"]
        before = found["decay"]["previous"]
        assert (before["fallen"], before["better"]) == (False, False)
        assert (found["decay"]["rollback"], found["drifted"]) == (False, True)

    def test_without_a_version_to_go_back_to_is_told(self, house: House) -> None:
        house.publish(40)
        found = house.look(house.sold())
        assert (found["decay"]["decayed"], found["decay"]["previous"], found["decay"]["rollback"]) == (
            True,
            None,
            False,
        )

    def test_is_not_claimed_of_a_bad_model_that_was_evaluated_as_bad(self, house: House) -> None:
        """It was a person's word (a waiver) that it be served."""
        house.publish(22)
        bad = {"metrics": {"mae": 17.0}, "intervals": {"mae": [16.0, 18.0]}}
        house.publish(40, **{"evaluation.json": bad})
        assert house.look(house.sold())["decay"]["decayed"] is False

    def test_is_not_judged_by_a_few_rows(self, house: House) -> None:
        house.publish(40)
        assert house.look(house.sold(rows=49))["decay"]["decayed"] is None
        assert house.look(house.sold(rows=50))["decay"]["decayed"] is True

    def test_is_not_judged_where_the_evaluation_gave_no_interval(self, house: House) -> None:
        house.publish(40, **{"evaluation.json": {"metrics": {}}})
        assert house.look(house.sold())["decay"]["decayed"] is None


class TestCommand:
    def test_tells_and_goes_back_only_when_it_is_asked_to(self, house: House, headrace: Callable[..., Result]) -> None:
        house.publish(22)
        house.publish(40)
        words = ("monitor", "house_prices", "--line", LINE, "--input", str(house.sold()))
        told = headrace(*words)
        assert told.code == 1
        assert "the same with --rollback" in told.out
        assert registry.blessed(LINE) == 2
        told = headrace(*words, "--rollback")
        assert (told.code, registry.blessed(LINE)) == (1, 1)
        assert "version 1 is blessed again" in told.out
        assert headrace(*words).code == 0

    def test_looks_at_kept_requests_where_no_file_is_named(self, house: House, headrace: Callable[..., Result]) -> None:
        house.publish(22)
        words = ("monitor", "house_prices", "--line", LINE)
        assert "nothing was asked" in headrace(*words).out
        house.ask(40, 22, version=1)
        found = headrace(*words, "--json")
        assert (found.code, found.json["rows"]) == (0, 40)
        assert headrace(*words, "--json").json == {"line": LINE, "version": 1, "rows": 0, "drifted": False}

    def test_can_not_roll_a_run_back(self, headrace: Callable[..., Result]) -> None:
        told = headrace("monitor", "house_prices", "--input", "x.csv", "--variant", "final", "--rollback")
        assert (told.code, "A run is no published version" in told.err) == (2, True)
