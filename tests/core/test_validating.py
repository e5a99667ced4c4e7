"""New files held against a schema: verdict, places, environments; and the real data that must pass or be caught."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from headrace.artifacts import write_json
from headrace.describing.summaries import Statistics, summarise
from headrace.errors import ConfigError, DataError
from headrace.jobs import Job
from headrace.readers.batches import batches
from headrace.readers.tables import read_table
from headrace.spec import Column, Feature
from headrace.validation import schema
from headrace.validation.validating import Findings, comparisons, validate, validate_table

FEATURES = {
    "facts": Feature(shape=(2,), columns=(Column(name="ROOMS"), Column(name="AGE"))),
    "colour": Feature(dtype="string", content="category", optional=True),
    "count": Feature(dtype="int64"),
    "price": Feature(role="target"),
}
ROWS = [
    "ROOMS,AGE,colour,count,price",
    *(f"{n},{10 * n},{'red' if n % 2 else 'blue'},{n},{n / 2}" for n in range(1, 7)),
]


def inferred(features: dict[str, Feature], path: Path, **reading: Any) -> Any:
    """The schema of a table."""
    return schema.infer(features, summarise(read_table(path, features, **reading), features))


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table of six rows; state only which lines differ (1 is the header)."""

    def make(name: str = "new.csv", **lines: str) -> Path:
        rows = {f"line_{number}": row for number, row in enumerate(ROWS, 1)} | lines
        (tmp_path / name).write_text("\n".join(row for row in rows.values() if row is not None) + "\n")
        return tmp_path / name

    return make


@pytest.fixture
def rules(table: Callable[..., Path]) -> Any:
    return inferred(FEATURES, table("usual.csv"))


def told(findings: Findings) -> list[tuple[str, str, str]]:
    return [(a.severity, a.column or a.feature, a.places) for a in findings.anomalies]


class TestTables:
    def test_like_the_usual_one_pass(self, table: Callable[..., Path], rules: Any) -> None:
        findings = validate_table(table(), rules)
        assert (findings.verdict, findings.exit_code, findings.rows, findings.anomalies) == ("pass", 0, 6, [])
        assert findings.environment == "TRAINING"

    def test_with_a_value_out_of_a_demanded_range_fail_with_its_line(
        self, table: Callable[..., Path], rules: Any
    ) -> None:
        rules.feature[0].struct_domain.feature[1].ClearField("distribution_constraints")
        findings = validate_table(table(line_4="3,-30,red,3,1.5"), rules)
        assert told(findings) == [("error", "AGE", "line 4 (-30)")]
        assert (findings.verdict, findings.exit_code) == ("fail", 3)

    def test_with_a_value_out_of_the_range_that_was_seen_pass_with_a_warning(
        self, table: Callable[..., Path], rules: Any
    ) -> None:
        findings = validate_table(table(line_4="3,-30,red,3,1.5"), rules)
        assert told(findings) == [("warning", "AGE", "line 4 (-30)")]
        assert (findings.verdict, findings.exit_code) == ("pass", 0)

    def test_are_looked_through_to_the_end_whatever_a_cell_holds(self, table: Callable[..., Path], rules: Any) -> None:
        path = table(line_2="x,10,red,1.5,1", line_4=",30,mauve,3,nan", line_6="4,1e99,red,99999999999999999999,2")
        assert told(validate_table(path, rules)) == [
            ("error", "ROOMS", "line 4"),
            ("error", "ROOMS", 'line 2 ("x")'),
            ("error", "AGE", 'line 6 ("1e99")'),
            ("error", "colour", 'line 4 ("mauve")'),
            ("error", "count", 'line 2 ("1.5"), line 6 ("99999999999999999999")'),
            ("error", "price", "line 4"),
        ]

    def test_a_missing_number_is_not_out_of_range(self, table: Callable[..., Path], rules: Any) -> None:
        findings = validate_table(table(line_3="2,20,red,,1", line_5="4,40,red,-4,2"), rules)
        assert told(findings) == [("error", "count", "line 3"), ("warning", "count", "line 5 (-4)")]

    def test_that_change_their_type_half_way_are_told_from_where(self, table: Callable[..., Path], rules: Any) -> None:
        path = table(line_5="4,40,red,four,2", line_6="5,50,red,five,2.5", line_7="6,60,red,six,3")
        (found,) = validate_table(path, rules).anomalies
        assert found.text == "count: 3 of 6 values (50.0%) hold no whole number that can be used"
        assert found.places == 'line 5 ("four"), line 6 ("five"), line 7 ("six")'

    def test_give_lines_also_behind_empty_ones_and_cells_of_several(
        self, table: Callable[..., Path], rules: Any
    ) -> None:
        path = table(line_2='1,10,"red\nor so",1,1', line_3="\n2,-20,red,2,1")
        assert {a.column or a.feature: a.lines for a in validate_table(path, rules).anomalies} == {
            "AGE": (5,),
            "colour": (3,),
        }

    def test_without_targets_are_taken_for_serving(self, table: Callable[..., Path], rules: Any) -> None:
        path = table(**{f"line_{n}": row.rpartition(",")[0] for n, row in enumerate(ROWS, 1)})
        findings = validate_table(path, rules)
        assert (findings.environment, findings.anomalies) == ("SERVING", [])
        (found,) = validate_table(path, rules, environment="TRAINING").errors
        assert (found.feature, found.column, found.kind) == ("price", "", "missing_column")

    def test_without_an_input_fail(self, table: Callable[..., Path], rules: Any) -> None:
        findings = validate_table(table(line_1="ROOMS,YEARS,colour,count,price"), rules)
        assert told(findings) == [("error", "AGE", ""), ("warning", "YEARS", "")]
        assert findings.environment == "TRAINING"
        assert (
            findings.errors[0].text == "column `AGE` is missing: there is `ROOMS`, `YEARS`, `colour`, `count`, `price`"
        )

    def test_may_write_their_columns_a_little_differently(self, table: Callable[..., Path], rules: Any) -> None:
        assert validate_table(table(line_1="rooms,Age,Colour,Count,PRICE"), rules).anomalies == []

    def test_with_a_column_twice_are_refused(self, table: Callable[..., Path], rules: Any) -> None:
        with pytest.raises(DataError, match="there are 2 columns `AGE`"):
            validate_table(table(line_1="ROOMS,AGE,AGE,count,price"), rules)

    def test_with_rows_of_other_lengths_are_refused_with_their_lines(
        self, table: Callable[..., Path], rules: Any
    ) -> None:
        with pytest.raises(DataError, match="a row of 2 cells instead of 5 stands on line 3"):
            validate_table(table(line_3="2,20"), rules)

    def test_of_no_rows_are_refused(self, tmp_path: Path, rules: Any) -> None:
        (tmp_path / "new.csv").write_text(ROWS[0] + "\n")
        with pytest.raises(DataError, match=r"new\.csv has no rows"):
            validate_table(tmp_path / "new.csv", rules)

    def test_in_parquet_are_told_by_their_rows(self, tmp_path: Path, rules: Any) -> None:
        columns = {
            "ROOMS": pa.array([1.0, 2.0]),
            "AGE": pa.array([10, 90]),
            "colour": pa.array(["red", None]),
            "count": pa.array([1.0, None]),  # as whole numbers that may be missing are often kept
            "price": pa.array([1.0, 2.0]),
        }
        parquet.write_table(pa.table(columns), tmp_path / "new.parquet")
        assert told(validate_table(tmp_path / "new.parquet", rules)) == [
            ("warning", "AGE", "row 1 (90)"),
            ("error", "count", "row 1"),
        ]

    def test_of_several_files_are_one(self, table: Callable[..., Path], tmp_path: Path, rules: Any) -> None:
        folder = tmp_path / "days"
        folder.mkdir()
        table("days/1.csv")
        table("days/2.csv", line_2="1,-5,red,1,1")
        findings = validate_table(folder, rules)
        assert (findings.rows, told(findings)) == (12, [("warning", "AGE", "row 6 (-5)")])
        table("days/3.csv", line_1="ROOMS,YEARS,colour,count,price")
        with pytest.raises(DataError, match=r"3\.csv has other columns"):
            validate_table(folder, rules)

    def test_can_be_told_as_json_and_in_words(self, table: Callable[..., Path], rules: Any) -> None:
        findings = validate_table(table(line_3="2,20,,2,1", line_4="3,-30,red,3,"), rules)
        value = json.loads(json.dumps(findings.to_json()))
        assert value["verdict"] == "fail"
        assert value["anomalies"][1]["lines"] == [4]
        assert findings.in_words() == [
            "fail: new.csv, 6 rows against the schema: 1 error, 1 warning",
            "error: price: 1 of 6 values are missing (16.7%); none may be [line 4]",
            "warning: AGE: 1 of 6 values (16.7%) are outside of the range 10 to 60: they reach from -30 to 60 "
            "[line 4 (-30)]",
            "missing values: colour 16.7%, price 16.7%",
        ]

    def test_what_is_not_looked_after_is_told(self, table: Callable[..., Path], rules: Any) -> None:
        rules.feature[3].drift_comparator.normalized_abs_difference.threshold = 0.1
        findings = validate_table(table(), rules)
        assert findings.in_words()[-1] == ("said by the schema, but not looked after: price: normalized_abs_difference")


class TestWorkloads:
    """`house_prices` on its twin: the reviewed schema is of its first source."""

    COLUMNS = ("CRIM", "ZN", "INDUS", "CHAS", "NOX", "RM", "AGE", "DIS", "RAD", "TAX", "PTRATIO", "B", "LSTAT", "MEDV")

    def records(self, job: Job, folder: Path) -> Path:
        """What `preprocess` keeps of the training split."""
        (folder / "raw").mkdir(parents=True)
        assert job.origin.twin
        job.origin.twin(folder / "raw", 0)
        statistics = summarise(job.origin.read(folder / "raw")["train"], job.origin.features)
        write_json(folder / "statistics.json", statistics.to_json())
        schema.write(folder / "schema.pbtxt", schema.infer(job.origin.features, statistics))
        return folder

    def houses(self, path: Path, **columns: Any) -> Path:
        """A table of forty tracts, all much alike."""
        usual = np.tile([0.5, 12.5, 10, 0, 0.5, 6.3, 50, 3.3, 4, 300, 18.5, 200, 11, 22], (40, 1))
        usual += np.linspace(0, 0.01, 40)[:, None] * usual
        table = dict(zip(self.COLUMNS, usual.T, strict=True)) | columns
        parquet.write_table(pa.table(table), path)
        return path

    def test_are_held_against_their_reviewed_schema(self, job: Callable[..., Job], tmp_path: Path) -> None:
        findings = validate(job(), self.houses(tmp_path / "new.parquet", AGE=np.linspace(50, 120, 40)))
        assert findings.schema == "the reviewed schema house_prices.boston.pbtxt"
        assert [(a.feature, a.column, a.kind) for a in findings.errors] == [("features", "AGE", "range")]

    def test_without_a_reviewed_one_against_what_was_seen(self, job: Callable[..., Job], tmp_path: Path) -> None:
        found = job(source="california")
        records = self.records(found, tmp_path / "records")
        columns = [column.name for feature in found.origin.features.values() for column in feature.columns]
        (tmp_path / "new.csv").write_text(
            ",".join(columns) + "\n" + ",".join(["-120,35,20,2000,400,1000,300,3,200"]) + "\n"
        )
        findings = validate(found, tmp_path / "new.csv", records)
        assert findings.schema == "the schema inferred from the training split"
        assert findings.verdict == "pass"

    def test_without_either_can_not_be_validated(self, job: Callable[..., Job], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no schema of house_prices yet"):
            validate(job(source="california"), self.houses(tmp_path / "new.parquet"))

    def test_are_compared_with_the_training_split(self, job: Callable[..., Job], tmp_path: Path) -> None:
        found = job()
        records = self.records(found, tmp_path / "records")
        findings = validate(found, self.houses(tmp_path / "new.parquet"), records)
        assert len(findings.compared) == 14
        skewed = {a.column for a in findings.warnings if a.kind == "skew"}
        assert "TAX" in skewed
        assert findings.verdict == "pass"

    def test_without_prices_are_compared_all_the_same(self, job: Callable[..., Job], tmp_path: Path) -> None:
        found = job()
        records = self.records(found, tmp_path / "records")
        path = self.houses(tmp_path / "new.parquet")
        parquet.write_table(parquet.read_table(path).drop_columns("MEDV"), path)
        findings = validate(found, path, records)
        assert (findings.environment, len(findings.compared)) == ("SERVING", 13)

    def test_their_twins_pass_the_reviewed_schema(self, job: Callable[..., Job], tmp_path: Path) -> None:
        from headrace.validation.inspecting import Inspection

        found = job()
        for seed in range(5):
            raw = tmp_path / str(seed)
            raw.mkdir()
            assert found.origin.twin
            found.origin.twin(raw, seed)
            inspection = Inspection(schema.read(schema.reviewed(found) or Path()), found.origin.features)
            for split in found.origin.read(raw).values():
                for batch in split:
                    inspection.add(batch)
            assert all(anomaly.severity == "warning" for anomaly in inspection.enforce())

    def test_images_are_looked_at_one_by_one(self, job: Callable[..., Job], tmp_path: Path) -> None:
        from PIL import Image

        features = {
            "photo": Feature(dtype="string", content="image"),
            "kind": Feature(dtype="int64", classes=("cat", "dog"), role="target"),
        }
        found = job(source="california")
        found.__dict__["origin"] = found.origin.model_copy(update={"features": features})
        for kind in ("cat", "dog"):
            for number in range(3):
                path = tmp_path / "photos" / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (number, 9, 9)).save(path)
        arrays = {
            "photo": np.array([p.read_bytes() for p in sorted((tmp_path / "photos").rglob("*.png"))], object),
            "kind": np.array([0, 0, 0, 1, 1, 1]),
        }
        records = tmp_path / "records"
        schema.write(records / "schema.pbtxt", schema.infer(features, summarise(batches(arrays), features)))
        assert validate(found, tmp_path / "photos", records).anomalies == []

        (tmp_path / "photos" / "dog" / "1.png").write_bytes(b"<html>")
        findings = validate(found, tmp_path / "photos", records)
        (error,) = findings.errors
        assert (error.feature, error.kind, error.count) == ("photo", "unusable", 1)
        assert (findings.rows, len(findings.unusable)) == (6, 1)
        assert findings.exit_code == 3


COLOURS = {"x": Feature(dtype="string", content="category")}
NUMBERS = {"x": Feature()}


class TestComparators:
    def compared(self, rule: str, then: Any, now: Any, features: dict[str, Feature], **options: Any) -> list[Any]:
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        rules = text_format.Parse(f'feature {{ name: "x" {rule} }}', schema_pb2.Schema())
        reference = Statistics.from_json(summarise(batches({"x": then}), features).to_json())
        return comparisons(rules, summarise(batches({"x": now}), features, like=reference), reference, **options)

    def test_bound_the_shares_of_values(self) -> None:
        then, now = (np.array([b"red"] * n + [b"blue"] * (10 - n), object) for n in (5, 8))
        rule = "skew_comparator {{ infinity_norm {{ threshold: {} }} }}"
        (found,) = self.compared(rule.format(0.2), then, now, COLOURS)
        assert (found.severity, found.kind, found.share) == ("error", "frequencies", pytest.approx(0.3))
        assert (
            "80.0%, in the reference 50.0%; allowed: 0.2" in found.text or "20.0%, in the reference 50.0%" in found.text
        )
        assert self.compared(rule.format(0.4), then, now, COLOURS) == []

    def test_bound_the_divergence_of_numbers(self) -> None:
        then, now = np.arange(100.0), np.arange(50.0, 150.0)
        rule = "drift_comparator {{ jensen_shannon_divergence {{ threshold: {} }} }}"
        (found,) = self.compared(rule.format(0.1), then, now, NUMBERS, comparator="drift_comparator")
        assert (found.kind, round(found.share, 2)) == ("skew", 0.5)
        assert self.compared(rule.format(0.6), then, now, NUMBERS, comparator="drift_comparator") == []

    def test_for_drift_say_nothing_about_skew(self) -> None:
        rule = "drift_comparator { jensen_shannon_divergence { threshold: 0 } }"
        assert self.compared(rule, np.arange(9.0), np.arange(5.0, 14.0), NUMBERS) == []


PENGUIN = {
    "species": Feature(dtype="int64", classes=("Adelie", "Chinstrap", "Gentoo"), role="target"),
    **{name: Feature() for name in ("culmen_length_mm", "culmen_depth_mm", "flipper_length_mm", "body_mass_g")},
}
TITANIC = {
    "PassengerId": Feature(dtype="int64", role="note"),
    "Survived": Feature(dtype="int64", classes=("no", "yes"), role="target"),
    "Pclass": Feature(dtype="int64", content="category"),
    "Name": Feature(dtype="string", role="note"),
    "Sex": Feature(dtype="string", classes=("male", "female")),
    "Age": Feature(optional=True),
    "SibSp": Feature(dtype="int64"),
    "Parch": Feature(dtype="int64"),
    "Ticket": Feature(dtype="string"),
    "Fare": Feature(optional=True),
    "Cabin": Feature(dtype="string", optional=True),
    "Embarked": Feature(dtype="string", content="category", optional=True),
}


@pytest.mark.real_data
class TestRealData:
    @pytest.fixture
    def penguin(self, mirror: Path) -> Any:
        return inferred(PENGUIN, mirror / "penguin" / "labelled" / "penguins_processed.csv")

    def test_the_labelled_penguins_pass(self, mirror: Path, penguin: Any) -> None:
        findings = validate_table(mirror / "penguin" / "labelled" / "penguins_processed.csv", penguin)
        assert (findings.verdict, findings.rows, findings.anomalies) == ("pass", 334, [])
        assert findings.environment == "TRAINING"

    def test_the_skewed_penguins_are_caught_in_the_feature_that_is_skewed(self, mirror: Path, penguin: Any) -> None:
        findings = validate_table(mirror / "penguin" / "skewed" / "penguins_processed.csv", penguin)
        (found,) = findings.anomalies
        assert (found.severity, found.feature, found.kind) == ("error", "culmen_length_mm", "range")
        assert (found.count, found.values, found.rows, found.lines) == (1, ("-1",), (1,), (3,))
        assert (findings.verdict, findings.exit_code) == ("fail", 3)

    def test_the_unlabelled_penguins_pass_when_serving(self, mirror: Path, penguin: Any) -> None:
        findings = validate_table(mirror / "penguin" / "unlabelled" / "penguins_unlabelled.csv", penguin)
        assert (findings.verdict, findings.environment, findings.anomalies) == ("pass", "SERVING", [])

    def test_the_tracts_of_boston_pass_their_reviewed_schema(self, job: Callable[..., Job], mirror: Path) -> None:
        from headrace.validation.inspecting import Inspection

        found = job()
        rules = schema.read(schema.reviewed(found) or Path())
        kinds = {}
        for split, examples in found.origin.read(mirror / "boston_housing").items():
            inspection = Inspection(rules, found.origin.features, environment="TRAINING")
            for batch in examples:
                inspection.add(batch)
            kinds[split] = {(a.severity, a.kind) for a in inspection.enforce()}
        assert kinds == {"train": set(), "test": {("warning", "range")}}

    def test_the_taxi_trips_are_held_against_their_published_schema(self, mirror: Path) -> None:
        """It demands a place of departure of every trip, and knows fifty companies."""
        folder = mirror / "chicago_taxi"
        findings = validate_table(folder / "data.csv", folder / "schema.pbtxt")
        assert findings.rows == 15_002
        assert {a.feature: (a.severity, a.kind, a.count, a.lines[:2]) for a in findings.anomalies} == {
            "pickup_community_area": ("error", "missing", 2, (2, 3)),
            "pickup_latitude": ("error", "missing", 2, (2, 3)),
            "pickup_longitude": ("error", "missing", 2, (2, 3)),
            "company": ("error", "domain", 14, (205, 843)),
        }
        missing = {c["feature"]: c["missing"] for c in findings.columns}
        assert (missing["pickup_census_tract"], missing["trip_seconds"], missing["fare"]) == (15_001, 6, 0)
        assert findings.not_enforced == []

    def test_the_taxi_trips_pass_what_a_person_has_reviewed(self, mirror: Path) -> None:
        rules = schema.read(mirror / "chicago_taxi" / "schema.pbtxt")
        for entry in rules.feature:
            if entry.presence.min_fraction:
                entry.presence.min_fraction = 0.999
            if entry.name == "company":
                entry.distribution_constraints.min_domain_mass = 0.99
        findings = validate_table(mirror / "chicago_taxi" / "data.csv", rules)
        assert [(a.severity, a.feature) for a in findings.anomalies] == [("warning", "company")]

    def test_the_titanic_may_lack_what_is_optional(self, mirror: Path) -> None:
        rules = inferred(TITANIC, mirror / "titanic" / "train.csv")
        train, test = (validate_table(mirror / "titanic" / f"{split}.csv", rules) for split in ("train", "test"))
        assert (train.anomalies, test.errors) == ([], [])
        assert (train.environment, test.environment) == ("TRAINING", "SERVING")
        shares = {c["feature"]: round(c["missing_share"], 3) for c in train.columns if c["missing"]}
        assert shares == {"Age": 0.199, "Cabin": 0.771, "Embarked": 0.002}
        assert next(c["missing"] for c in test.columns if c["feature"] == "Fare") == 1

    def test_the_bikes_of_a_day_are_not_those_of_an_hour(self, mirror: Path) -> None:
        path = mirror / "bike_sharing" / "Bike-Sharing-Dataset.zip"
        with zipfile.ZipFile(path) as archive:
            header = io.TextIOWrapper(archive.open("hour.csv")).readline().strip().split(",")
        features = {
            name: Feature(dtype="string") if name == "dteday" else Feature(role="target" if name == "cnt" else "input")
            for name in header
        }
        rules = inferred(features, path, member="hour.csv")
        assert validate_table(path, rules, member="hour.csv").anomalies == []
        findings = validate_table(path, rules, member="day.csv")
        assert [(a.feature, a.kind) for a in findings.errors] == [("hr", "missing_column")]
        assert "cnt" in {a.feature for a in findings.warnings}
