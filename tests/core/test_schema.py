"""The schema as text: inferred from what was seen, read whoever wrote it, reviewed by a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.describing.summaries import summarise
from headrace.errors import ConfigError, DataError
from headrace.jobs import Job
from headrace.ragged import Ragged
from headrace.readers.batches import batches
from headrace.spec import Column, Feature
from headrace.validation import schema

PNG = b"\x89PNG\r\n\x1a\n"

FEATURES = {
    "facts": Feature(shape=(2,), columns=(Column(name="ROOMS"), Column(name="AGE"))),
    "count": Feature(dtype="int64"),
    "share": Feature(),
    "age": Feature(optional=True),
    "pixels": Feature(shape=(2, 2, 1), dtype="uint8"),
    "grid": Feature(shape=(2, 2)),
    "series": Feature(shape=(None, 2)),
    "words": Feature(shape=(None,), dtype="int64"),
    "review": Feature(dtype="string"),
    "colour": Feature(dtype="string", content="category"),
    "size": Feature(dtype="string", classes=("S", "M", "L")),
    "photo": Feature(dtype="string", content="image"),
    "name": Feature(dtype="string", role="note"),
    "id": Feature(dtype="int64", role="note"),
    "label": Feature(dtype="int64", classes=("cat", "dog"), role="target"),
    "kind": Feature(dtype="string", content="category", role="target"),
    "price": Feature(role="target"),
}


def examples() -> dict[str, Any]:
    """Four examples of every kind of feature."""
    return {
        "facts": np.array([[1, 10], [2, 20], [3, 30], [6, 60]], np.float32),
        "count": np.array([3, -4, 5, 8]),
        "share": np.array([0, 0.5, 0.25, 1], np.float32),
        "age": np.array([20, np.nan, 30, 40], np.float32),
        "pixels": np.full((4, 2, 2, 1), 9, np.uint8),
        "grid": np.arange(16, dtype=np.float32).reshape(4, 2, 2),
        "series": Ragged.of([np.ones((steps, 2)) for steps in (1, 2, 3, 4)], np.float32),
        "words": Ragged.of([[3, 4], [], [5], [9]], np.int64),
        "review": np.array([b"good", b"bad", b"so so", b"good"], object),
        "colour": np.array([b"red", b"blue", b"red", b"green"], object),
        "size": np.array([b"S", b"S", b"M", b"M"], object),
        "photo": np.array([PNG] * 4, object),
        "name": np.array([b"a.png", b"b.png", b"c.png", b"d.png"], object),
        "id": np.arange(4),
        "label": np.array([0, 1, 1, 0]),
        "kind": np.array([b"x", b"y", b"x", b"y"], object),
        "price": np.array([1, 2, 3, 6], np.float32),
    }


@pytest.fixture(scope="module")
def found() -> Any:
    """The schema inferred from the examples."""
    return schema.infer(FEATURES, summarise(batches(examples()), FEATURES))


@pytest.fixture(scope="module")
def entries(found: Any) -> dict[str, Any]:
    """Its features by their names."""
    return {entry.name: entry for entry in found.feature}


class TestInference:
    def test_describes_columns_one_by_one(self, entries: dict[str, Any]) -> None:
        facts = entries["facts"]
        ranges = {f.name: (f.float_domain.min, f.float_domain.max) for f in facts.struct_domain.feature}
        assert ranges == {"ROOMS": (1, 6), "AGE": (10, 60)}
        assert [d.size for d in facts.shape.dim] == [2]

    @pytest.mark.parametrize(
        ("name", "kind", "domain"),
        [
            ("count", "INT", "int_domain { min: -4 max: 8 }"),
            ("price", "FLOAT", "float_domain { min: 1.0 max: 6.0 }"),
            ("grid", "FLOAT", "float_domain { min: 0.0 max: 15.0 }"),
            ("pixels", "INT", "int_domain { min: 0 max: 255 }"),
            ("words", "INT", "int_domain { min: 3 max: 9 }"),
            ("review", "BYTES", "natural_language_domain { }"),
            ("colour", "BYTES", 'string_domain { value: "blue" value: "green" value: "red" }'),
            ("size", "BYTES", 'string_domain { value: "S" value: "M" value: "L" }'),
            ("photo", "BYTES", "image_domain { minimum_supported_image_fraction: 1.0 }"),
            ("label", "INT", "int_domain { min: 0 max: 1 is_categorical: true }"),
            ("name", "BYTES", ""),
            ("id", "INT", ""),
        ],
    )
    def test_describes_each_kind_of_feature(self, name: str, kind: str, domain: str, entries: dict[str, Any]) -> None:
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        entry = entries[name]
        assert schema_pb2.FeatureType.Name(entry.type) == kind
        chosen = entry.WhichOneof("domain_info")
        told = (
            f"{chosen} {{ {text_format.MessageToString(getattr(entry, chosen), as_one_line=True)} }}" if chosen else ""
        )
        assert " ".join(told.split()) == domain

    def test_keeps_the_names_of_class_numbers(self, entries: dict[str, Any]) -> None:
        assert list(entries["label"].annotation.comment) == ["0 is cat", "1 is dog"]

    @pytest.mark.parametrize(
        ("name", "mass"),
        [("price", 0.0), ("count", 0.0), ("words", 0.0), ("colour", 0.9)],
    )
    def test_of_what_was_seen_demands_no_more_than_a_share(
        self, name: str, mass: float, entries: dict[str, Any]
    ) -> None:
        assert entries[name].distribution_constraints.min_domain_mass == pytest.approx(mass)

    @pytest.mark.parametrize("name", ["share", "label", "size", "kind", "pixels"])
    def test_demands_natural_ranges_declared_classes_and_known_targets(
        self, name: str, entries: dict[str, Any]
    ) -> None:
        assert not entries[name].HasField("distribution_constraints")

    def test_demands_every_value_but_of_optional_features(self, entries: dict[str, Any]) -> None:
        assert {name: entry.presence.min_fraction for name, entry in entries.items()} == {
            **dict.fromkeys(FEATURES, 1.0),
            "age": 0.0,
        }
        assert all(entry.presence.min_count == 1 for entry in entries.values())

    def test_knows_shapes_and_lengths(self, entries: dict[str, Any]) -> None:
        assert [dim.size for dim in entries["pixels"].shape.dim] == [2, 2, 1]
        assert entries["price"].HasField("shape")
        assert (entries["series"].value_count.min, entries["words"].value_count.min) == (2, 0)

    def test_expects_only_inputs_when_serving(self, found: Any, entries: dict[str, Any]) -> None:
        assert list(found.default_environment) == ["TRAINING", "SERVING"]
        absent = {name for name, entry in entries.items() if list(entry.not_in_environment) == ["SERVING"]}
        assert absent == {"name", "id", "label", "kind", "price"}

    @pytest.mark.parametrize(("role", "demanded"), [("target", True), ("input", False)])
    def test_demands_class_numbers_of_targets_only(self, role: Any, demanded: bool) -> None:
        features = {"x": Feature(dtype="int64", content="category", role=role)}
        (entry,) = schema.infer(features, summarise(batches({"x": np.array([3, 4, 5])}), features)).feature
        assert (entry.int_domain.min, entry.int_domain.max, entry.int_domain.is_categorical) == (3, 5, True)
        assert entry.HasField("distribution_constraints") is not demanded

    def test_of_categories_that_are_no_text_lists_none(self) -> None:
        features = {"colour": FEATURES["colour"]}
        latin = {"colour": np.array(["grün".encode("latin-1"), b"rot"], object)}
        (entry,) = schema.infer(features, summarise(batches(latin), features)).feature
        assert entry.WhichOneof("domain_info") is None

    def test_of_text_columns_keeps_their_categories_apart(self) -> None:
        features = {
            "x": Feature(
                shape=(2,), dtype="string", content="category", columns=(Column(name="size"), Column(name="colour"))
            )
        }
        arrays = {"x": np.array([[b"S", b"red"], [b"M", b"blue"]], object)}
        (entry,) = schema.infer(features, summarise(batches(arrays), features)).feature
        assert [list(one.string_domain.value) for one in entry.struct_domain.feature] == [["M", "S"], ["blue", "red"]]

    def test_of_class_numbers_that_may_be_missing_lists_the_classes(self) -> None:
        features = {"x": Feature(classes=("a", "b", "c"), optional=True)}
        (entry,) = schema.infer(features, summarise(batches({"x": np.array([0, np.nan])}), features)).feature
        assert (entry.float_domain.min, entry.float_domain.max, entry.float_domain.is_categorical) == (0, 2, True)

    def test_of_too_many_categories_lists_none(self) -> None:
        features = {"colour": FEATURES["colour"]}
        many = {"colour": np.array([f"{i}".encode() for i in range(60)], object)}
        (entry,) = schema.infer(features, summarise(batches(many), features)).feature
        assert entry.WhichOneof("domain_info") is None

    def test_of_a_column_without_any_value_has_no_range(self) -> None:
        features = {"age": FEATURES["age"]}
        (entry,) = schema.infer(features, summarise(batches({"age": np.array([np.nan] * 3)}), features)).feature
        assert entry.WhichOneof("domain_info") is None


class TestText:
    def test_is_read_back_as_it_was_written(self, found: Any, tmp_path: Path) -> None:
        schema.write(tmp_path / "schema.pbtxt", found)
        assert schema.read(tmp_path / "schema.pbtxt") == found

    def test_is_the_same_each_time(self, found: Any, tmp_path: Path) -> None:
        again = schema.infer(FEATURES, summarise(batches(examples(), 3), FEATURES))
        for name, each in (("one", found), ("two", again)):
            schema.write(tmp_path / name, each)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

    def test_tells_a_person_what_to_do_with_it(self, found: Any, tmp_path: Path) -> None:
        schema.write(tmp_path / "schema.pbtxt", found)
        text = (tmp_path / "schema.pbtxt").read_text()
        assert text.startswith("# What the data must look like.")
        assert "pipelines/schemas/<workload>.<source>.pbtxt" in text

    @pytest.mark.parametrize("text", [None, "feature { nonsense: 1 }", "\xff"])
    def test_that_is_no_schema_is_refused(self, text: str | None, tmp_path: Path) -> None:
        if text is not None:
            (tmp_path / "schema.pbtxt").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=r"schema\.pbtxt can't be read"):
            schema.read(tmp_path / "schema.pbtxt")

    def test_that_contradicts_itself_is_refused_with_all_reasons(self, tmp_path: Path) -> None:
        (tmp_path / "schema.pbtxt").write_text(
            'feature { name: "x" type: BYTES domain: "colours" } feature { name: "x" } string_domain { name: "colour" }'
        )
        with pytest.raises(DataError) as caught:
            schema.read(tmp_path / "schema.pbtxt")
        assert "there is more than one feature `x`" in str(caught.value)
        assert "`x` is of a domain `colours` that is not there: did you mean `colour`?" in str(caught.value)

    @pytest.mark.real_data
    def test_of_others_is_read(self, mirror: Path) -> None:
        taxi = schema.read(mirror / "chicago_taxi" / "schema.pbtxt")
        columns = schema.columns(taxi)
        assert len(columns) == 18
        assert (columns["fare"], columns["trip_seconds"], columns["company"]) == ("float32", "int64", None)
        (company,) = (rule for rule in schema.rules(taxi) if rule.feature == "company")
        assert len(company.allowed) == 50
        assert schema.not_enforced(taxi) == []


class TestRules:
    def made(self, text: str) -> Any:
        """A schema of this text."""
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        return text_format.Parse(text, schema_pb2.Schema())

    def test_that_nobody_looks_after_are_told(self) -> None:
        made = self.made("""
            feature {
              name: "x"
              drift_comparator { normalized_abs_difference { threshold: 0.1 } }
              struct_domain { feature { name: "y" struct_domain { feature { name: "z" } } } }
            }
            feature { name: "t" natural_language_domain { coverage { min_coverage: 0.5 } } }
            feature { name: "f" float_domain { min: 0 disallow_nan: true } }
            feature { name: "u" time_domain { string_format: "%Y" } }
            sparse_feature { name: "s" }
            dataset_constraints { min_examples_count: 1 num_examples_drift_comparator { min_fraction_threshold: 0.5 } }
        """)
        assert set(schema.not_enforced(made)) == {
            "x: normalized_abs_difference",
            "x: y: struct_domain",
            "t: coverage",
            "u: time_domain",
            "f: disallow_nan",
            "sparse_feature",
            "num_examples_drift_comparator",
        }

    @pytest.mark.parametrize(
        ("entry", "environment", "expected"),
        [
            ("presence { min_count: 1 }", None, True),
            ("presence { min_fraction: 0.5 }", "SERVING", True),
            ("", None, False),
            ("presence { min_count: 0 }", None, False),
            ('presence { min_count: 1 } not_in_environment: "SERVING"', None, False),
            ('presence { min_count: 1 } not_in_environment: "SERVING"', "SERVING", False),
            ('presence { min_count: 1 } not_in_environment: "SERVING"', "TRAINING", True),
            ('presence { min_count: 1 } in_environment: "LABELS"', "LABELS", True),
            ('presence { min_count: 1 } in_environment: "LABELS"', "TRAINING", False),
        ],
    )
    def test_say_where_a_feature_has_to_be(self, entry: str, environment: str | None, expected: bool) -> None:
        text = f'feature {{ name: "x" {entry} }} default_environment: "TRAINING" default_environment: "SERVING"'
        made = self.made(text)
        assert schema.demanded(made, made.feature[0], environment) is expected

    def test_without_environments_hold_in_each(self) -> None:
        made = self.made('feature { name: "x" presence { min_count: 1 } }')
        assert schema.demanded(made, made.feature[0], "SERVING")

    @pytest.mark.parametrize(
        ("entry", "expected"),
        [
            ("deprecated: true", True),
            ("lifecycle_stage: DEPRECATED", True),
            ("lifecycle_stage: DISABLED", True),
            ("lifecycle_stage: PRODUCTION", False),
            ("", False),
        ],
    )
    def test_of_a_feature_no_longer_used_are_none(self, entry: str, expected: bool) -> None:
        assert schema.retired(self.made(f'feature {{ name: "x" {entry} }}').feature[0]) is expected

    @pytest.mark.parametrize(
        ("present", "expected"),
        [(("x", "price"), "TRAINING"), (("x",), "SERVING"), (("price",), None)],
    )
    def test_suggest_what_data_are_meant_for(self, present: tuple[str, ...], expected: str | None) -> None:
        features = {"x": Feature(), "price": Feature(role="target")}
        arrays = {"x": np.arange(3.0), "price": np.arange(3.0)}
        made = schema.infer(features, summarise(batches(arrays), features))
        assert schema.environment(made, present) == expected

    def test_don_t_know_every_environment(self) -> None:
        made = self.made('default_environment: "TRAINING"')
        with pytest.raises(ConfigError, match="did you mean `TRAINING`"):
            schema.environment(made, (), "TRAININGS")


class TestReview:
    def test_is_found_by_workload_and_source(self, job: Callable[..., Job]) -> None:
        found = schema.reviewed(job())
        assert found
        assert found.name == "house_prices.boston.pbtxt"
        assert schema.reviewed(job(source="california")) is None

    def test_changes_the_key_of_a_stage(self, project: Path) -> None:
        from headrace.jobs import resolve

        tiny = resolve("tiny")
        assert schema.reviewed_digest(tiny) is None
        path = project / "pipelines" / "schemas" / "tiny.numbers.pbtxt"
        path.parent.mkdir()
        path.write_text('feature { name: "x" }')
        first = schema.reviewed_digest(tiny)
        path.write_text('feature { name: "y" }')
        assert first
        assert schema.reviewed_digest(tiny) not in (None, first)

    def test_imports_nothing_that_takes_time(self) -> None:
        """A plan asks for the digest of the reviewed schema."""
        import subprocess
        import sys

        heavy = "{'numpy', 'pyarrow', 'tensorflow_metadata'}"
        code = f"import sys, headrace.validation.schema; print({heavy} & set(sys.modules))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
