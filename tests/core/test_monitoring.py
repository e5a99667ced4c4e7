"""Drift: found where it is, and not found where it isn't more often than was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact
from headrace.describing.summaries import summarise
from headrace.distances import divergence
from headrace.errors import DataError, StageFailed
from headrace.jobs import Job
from headrace.monitoring import check_file, compare, in_words, monitor
from headrace.preprocessing import preprocess
from headrace.readers.batches import batches, to_arrays
from headrace.spec import Column, Feature, Monitor
from tests.core.making import twin

COLUMNS = ("normal", "skewed", "river", "rooms")
FEATURES = {
    "facts": Feature(shape=(4,), columns=tuple(Column(name=name) for name in COLUMNS)),
    "price": Feature(role="target"),
}


def sample(rows: int, seed: int) -> dict[str, np.ndarray]:
    """A bell curve, a heavy tail, a rare 1 among 0, a few whole numbers; and a price."""
    random = np.random.default_rng(seed)
    facts = [
        random.normal(50, 10, rows),
        random.lognormal(0, 1, rows),
        (random.random(rows) < 0.07).astype(float),
        random.integers(1, 7, rows).astype(float),
    ]
    return {"facts": np.column_stack(facts), "price": random.normal(20, 5, rows)}


def held_against(new: dict[str, np.ndarray], known: dict[str, np.ndarray], **settings: Any) -> dict[str, Any]:
    statistics = summarise(batches(known), FEATURES)
    return compare(batches(new, 300), FEATURES, statistics, Monitor(**settings), seed=0)


def drifted(found: dict[str, Any]) -> list[str]:
    return [column["column"] for column in found["columns"] if column["drifted"]]


class TestDrift:
    def test_is_not_found_in_another_sample(self) -> None:
        found = held_against(sample(100, seed=1), sample(400, seed=0))
        assert not found["drifted"]
        assert [column["column"] for column in found["columns"]] == [*COLUMNS, "price"]
        assert all(0 <= column["distance"] < column["threshold"] < 1 for column in found["columns"])
        assert found["rows"] == 100
        assert in_words(found) == "100 rows, no drift"

    @pytest.mark.parametrize("position", range(4), ids=COLUMNS)
    @pytest.mark.parametrize(
        "change",
        [lambda x: x + 0.5 * x.std(), lambda x: x - 0.5 * x.std(), lambda x: x * 100],
        ids=["half a deviation more", "half a deviation less", "in another unit"],
    )
    def test_is_found_in_the_column_that_moved(self, position: int, change: Callable[[Any], Any]) -> None:
        new = sample(1000, seed=1)
        new["facts"][:, position] = change(new["facts"][:, position])
        assert drifted(held_against(new, sample(400, seed=0))) == [COLUMNS[position]]

    @pytest.mark.parametrize("position", [0, 1, 3])
    def test_is_found_where_the_variance_doubles(self, position: int) -> None:
        new = sample(1000, seed=1)
        values = new["facts"][:, position]
        new["facts"][:, position] = values.mean() + (values - values.mean()) * np.sqrt(2)
        assert drifted(held_against(new, sample(400, seed=0))) == [COLUMNS[position]]

    def test_is_found_where_a_rare_value_becomes_common(self) -> None:
        new = sample(1000, seed=1)
        new["facts"][:, 2] = np.random.default_rng(2).random(1000) < 0.2
        found = held_against(new, sample(400, seed=0))
        assert drifted(found) == ["river"]
        assert found["columns"][2]["current"]["outside"] == 0

    def test_is_found_in_the_target(self) -> None:
        new = sample(1000, seed=1)
        new["price"] += 2.5
        assert drifted(held_against(new, sample(400, seed=0))) == ["price"]

    def test_is_found_in_a_column_that_used_to_be_constant(self) -> None:
        known, new = sample(400, seed=0), sample(100, seed=1)
        known["facts"][:, 0] = new["facts"][:, 0] = 7
        found = held_against(new, known)
        assert drifted(found) == []
        assert found["columns"][0]["threshold"] > 0
        new["facts"][:, 0] = 8
        assert drifted(held_against(new, known)) == ["normal"]

    def test_is_found_where_every_value_is_missing(self) -> None:
        new = sample(100, seed=1)
        new["facts"][:, 0] = np.nan
        found = held_against(new, sample(400, seed=0))
        assert drifted(found) == ["normal"]
        assert found["columns"][0]["current"]["mean"] is None
        assert ("error", "normal: 100 of 100 values are missing (100.0%); none may be") in [
            (a["severity"], a["text"]) for a in found["anomalies"]
        ]

    def test_is_found_where_a_tenth_of_the_values_is_missing(self) -> None:
        new = sample(1000, seed=1)
        new["facts"][::10, 0] = np.nan
        column = held_against(new, sample(400, seed=0))["columns"][0]
        assert (column["because"], column["current"]["missing"]) == (["missing"], 0.1)

    def test_is_found_where_values_are_missing_no_more(self) -> None:
        known = sample(400, seed=0)
        known["facts"][::10, 0] = np.nan
        column = held_against(sample(1000, seed=1), known)["columns"][0]
        assert (column["because"], column["reference"]["missing"]) == (["missing"], 0.1)

    def test_is_not_claimed_where_about_as_many_are_missing(self) -> None:
        known, new = sample(400, seed=0), sample(1000, seed=1)
        known["facts"][::10, 0] = np.nan
        new["facts"][:115, 0] = np.nan
        assert drifted(held_against(new, known)) == []

    def test_of_one_row_is_not_claimed(self) -> None:
        assert not any(held_against(sample(1, seed), sample(400, seed=0))["drifted"] for seed in range(20))

    def test_of_two_rows_is_not_claimed_for_what_happens_once_in_two_hundred_pairs(self) -> None:
        new = sample(2, seed=1)
        new["facts"][:, 2] = 1
        assert drifted(held_against(new, sample(400, seed=0))) == []

    def test_is_not_claimed_for_a_few_values_beyond_the_extremes(self) -> None:
        known, new = sample(400, seed=0), sample(400, seed=1)
        new["facts"][0, 0] = known["facts"][:, 0].max() + 1
        found = held_against(new, known)
        assert found["columns"][0]["current"]["outside"] >= 1 / 400
        assert not found["drifted"]
        assert any(a["column"] == "normal" and "outside" in a["text"] for a in found["anomalies"])

    def test_alarms_are_false_about_as_often_as_asked_for(self) -> None:
        """120 halves of one sample against the other half; 0.2 is asked for, and bounds are added up, so a bit less."""
        both, alarms = sample(400, seed=0), 0
        for seed in range(120):
            order = np.random.default_rng(seed).permutation(400)
            known, new = ({name: values[half] for name, values in both.items()} for half in (order[:300], order[300:]))
            alarms += held_against(new, known, false_alarms=0.2)["drifted"]
        # 24 expected at most; 5 and 38 are both rarer than one in a thousand at rates of 0.12 and 0.2.
        assert 4 < alarms < 39

    def test_needs_more_evidence_where_fewer_false_alarms_are_allowed(self) -> None:
        new, known = sample(100, seed=1), sample(400, seed=0)
        thresholds = [held_against(new, known, false_alarms=f)["columns"][0]["threshold"] for f in (0.2, 0.01, 1e-4)]
        assert thresholds == sorted(thresholds)

    def test_is_measured_by_exact_shares_of_quantile_buckets(self) -> None:
        known, new = sample(400, seed=0), sample(1000, seed=1)
        column = held_against(new, known)["columns"][0]
        reference, current = (x["facts"][:, 0].astype(np.float32) for x in (known, new))
        cuts = np.quantile(reference, np.arange(1, 10) / 10, method="inverted_cdf")
        shares = [np.bincount(np.searchsorted(cuts, x), minlength=10) / len(x) for x in (reference, current)]
        assert column["distance"] == pytest.approx(float(np.sqrt(divergence(*shares))), rel=1e-12)
        outside = (current < reference.min()) | (current > reference.max())
        assert column["current"]["outside"] == outside.mean()

    def test_is_told_the_same_way_each_time(self) -> None:
        assert held_against(sample(50, 1), sample(400, 0)) == held_against(sample(50, 1), sample(400, 0))

    def test_is_not_sought_in_a_target_that_is_not_there(self) -> None:
        new = sample(100, seed=1)
        del new["price"]
        found = held_against(new, sample(400, seed=0))
        assert [column["column"] for column in found["columns"]] == list(COLUMNS)
        assert not any("missing" in anomaly["text"] for anomaly in found["anomalies"])

    def test_of_nothing_is_an_error(self) -> None:
        with pytest.raises(DataError, match="nothing to compare"):
            held_against(sample(0, seed=1), sample(400, seed=0))


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ([0.5, 0.5], [0.5, 0.5], 0.0),
        ([1.0, 0.0], [0.0, 1.0], 1.0),
        # By hand: half of 0.5·log2(0.5/0.75) + 0.5·log2(0.5/0.25) + 1·log2(1/0.75)
        ([0.5, 0.5], [1.0, 0.0], 0.311278),
    ],
)
def test_the_divergence_is_that_of_jensen_and_shannon(p: list[float], q: list[float], expected: float) -> None:
    assert divergence(np.array(p), np.array(q)) == pytest.approx(expected, abs=1e-6)
    assert divergence(np.array(q), np.array(p)) == pytest.approx(expected, abs=1e-6)


class TestHousePrices:
    @pytest.fixture
    def made(self, job: Callable[..., Job], tmp_path: Path) -> tuple[Job, Artifact, Artifact]:
        """The workload on its twin: job, raw folder, records."""
        found = job()
        raw = twin(found, tmp_path / "raw")
        return found, raw, preprocess(found, raw)

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Artifact:
        """An exported model that takes every house for 20,000 dollars."""
        return served(tmp_path / "bundle", "price")

    def test_first_check_finds_no_drift_and_the_metric(
        self, made: tuple[Job, Artifact, Artifact], bundle: Artifact
    ) -> None:
        job, raw, records = made
        found = monitor(job, raw, records, bundle).json("drift.json")
        assert found["rows"] == 102
        assert not found["drifted"]
        prices = np.concatenate(
            [to_arrays(b, job.origin.features)["price"] for b in job.origin.read(raw.path)["test"]]
        ).astype(np.float64)
        assert found["metric"] == {"metric": "mae", "value": pytest.approx(np.abs(prices - 20).mean()), "rows": 102}

    def test_a_file_is_checked_with_its_metric(
        self, made: tuple[Job, Artifact, Artifact], bundle: Artifact, tmp_path: Path
    ) -> None:
        job, raw, records = made
        path = csv(tmp_path / "new.csv", job, raw)
        found = check_file(job, path, records, bundle)
        assert found["rows"] == 102
        assert not found["drifted"]
        assert found["metric"]["rows"] == 102
        assert check_file(job, path, records)["metric"] is None

    def test_a_file_without_targets_is_checked_without_metric(
        self, made: tuple[Job, Artifact, Artifact], bundle: Artifact, tmp_path: Path
    ) -> None:
        job, raw, records = made
        found = check_file(job, csv(tmp_path / "new.csv", job, raw, targets=False), records, bundle)
        assert len(found["columns"]) == 13
        assert found["metric"] is None

    def test_a_file_in_another_unit_has_drifted(self, made: tuple[Job, Artifact, Artifact], tmp_path: Path) -> None:
        job, raw, records = made
        found = check_file(job, csv(tmp_path / "new.csv", job, raw, TAX=0.001), records)
        assert drifted(found) == ["TAX"]
        assert in_words(found) == "102 rows, drifted: TAX"

    def test_a_model_without_the_target_can_not_be_held_against_it(
        self, made: tuple[Job, Artifact, Artifact], tmp_path: Path
    ) -> None:
        job, raw, records = made
        with pytest.raises(StageFailed, match="gives no `price`"):
            monitor(job, raw, records, served(tmp_path / "bundle", "cost"))

    @pytest.mark.real_data
    def test_the_real_split_does_not_drift(self, job: Callable[..., Job], mirror: Path) -> None:
        found = job(data="real")
        splits = found.origin.read(mirror / "boston_housing")
        statistics = summarise(splits["train"], found.origin.features)
        told = compare(splits["test"], found.origin.features, statistics, found.settings.monitor, seed=0)
        assert (told["rows"], drifted(told)) == (102, [])


def served(folder: Path, output: str) -> Artifact:
    """A bundle whose model gives 20 for each row, under this name."""
    import tensorflow as tf

    class Model(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, 13), tf.float32, name="features")])  # type: ignore[misc]
        def serve(self, features: Any) -> dict[str, Any]:
            return {output: tf.fill((tf.shape(features)[0], 1), 20.0)}

    model = Model()
    tf.saved_model.save(model, str(folder / "saved_model"), signatures={"serving_default": model.serve})
    return Artifact(folder, f"gives {output}", "export")


def csv(path: Path, job: Job, raw: Artifact, targets: bool = True, **factors: float) -> Path:
    """The raw test split as a table, some columns multiplied."""
    columns: dict[str, np.ndarray] = {}
    for batch in job.origin.read(raw.path)["test"]:
        for name, values in to_arrays(batch, job.origin.features).items():
            feature = job.origin.features[name]
            if targets or feature.role == "input":
                for position, column in enumerate(feature.columns):
                    columns[column.name] = values[:, position] * factors.get(column.name, 1)
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path
