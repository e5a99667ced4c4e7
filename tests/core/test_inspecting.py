"""Rules of a schema held against batches: what is odd, how odd, and where."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from headrace.describing.summaries import summarise
from headrace.errors import DataError
from headrace.ragged import Ragged
from headrace.readers.batches import batches
from headrace.spec import Column, Feature
from headrace.validation import schema
from headrace.validation.anomalies import KINDS, Anomaly, to_proto
from headrace.validation.checking import Quarantine, checked
from headrace.validation.inspecting import Inspection

FEATURES = {
    "facts": Feature(shape=(2,), columns=(Column(name="ROOMS"), Column(name="AGE"))),
    "price": Feature(role="target"),
}


def examples(**changes: Any) -> dict[str, Any]:
    """Six examples of two facts and a price."""
    return {
        "facts": np.array([[1, 10], [2, 20], [3, 30], [4, 40], [5, 50], [6, 60]], np.float32),
        "price": np.array([1, 2, 3, 4, 5, 6], np.float32),
        **changes,
    }


def made(text: str) -> Any:
    """A schema of this text."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    return text_format.Parse(text, schema_pb2.Schema())


def inferred(features: dict[str, Feature] = FEATURES, **arrays: Any) -> Any:
    return schema.infer(features, summarise(batches(arrays or examples()), features))


def inspect(rules: Any, arrays: dict[str, Any], features: dict[str, Feature], **options: Any) -> list[Anomaly]:
    """What is odd about these examples, read four at a time."""
    inspection = Inspection(rules, {n: f for n, f in features.items() if n in arrays}, **options)
    assert len(list(inspection.watching(batches(arrays, 4)))) > 0
    return inspection.anomalies()


def told(arrays: dict[str, Any], rules: Any = None, **options: Any) -> list[tuple[str, str, str]]:
    found = inspect(rules or inferred(), arrays, FEATURES, **options)
    return [(a.severity, a.column or a.feature, a.text) for a in found]


def single(rule: str, values: Any, feature: Feature, **options: Any) -> list[Anomaly]:
    """What is odd about the values of a feature `x` of which a schema says this."""
    return inspect(made(f'feature {{ name: "x" {rule} }}'), {"x": values}, {"x": feature}, **options)


def strings(*values: str) -> Any:
    return np.array([value.encode() for value in values], object)


class TestInferredRules:
    def test_let_the_same_data_pass(self) -> None:
        assert told(examples()) == []

    def test_miss_a_feature(self) -> None:
        arrays = examples()
        del arrays["facts"]
        assert told(arrays) == [("error", "facts", "feature `facts` is missing: there is `price`")]

    @pytest.mark.parametrize(
        ("environment", "found"), [(None, []), ("SERVING", []), ("TRAINING", [("error", "price", "missing_column")])]
    )
    def test_miss_a_target_only_when_training(self, environment: str | None, found: list[tuple[str, str, str]]) -> None:
        arrays = examples()
        del arrays["price"]
        anomalies = inspect(inferred(), arrays, FEATURES, environment=environment)
        assert [(a.severity, a.feature, a.kind) for a in anomalies] == found

    def test_look_at_a_target_that_is_there_in_every_environment(self) -> None:
        (found,) = inspect(
            inferred(), examples(price=np.array([np.nan, 2, 3, 4, 5, 6])), FEATURES, environment="SERVING"
        )
        assert (found.feature, found.kind) == ("price", "missing")

    def test_count_missing_values_and_name_their_rows(self) -> None:
        (found,) = inspect(inferred(), examples(price=np.array([1, np.nan, 3, 4, np.nan, 6])), FEATURES)
        assert found == Anomaly(
            "error",
            "price",
            "",
            "price: 2 of 6 values are missing (33.3%); none may be",
            "missing",
            count=2,
            share=2 / 6,
            rows=(1, 4),
        )

    def test_count_values_out_of_range_and_give_examples(self) -> None:
        (found,) = inspect(inferred(), examples(price=np.array([0.5, 2, 3, 4, 6.5, 100])), FEATURES)
        assert found == Anomaly(
            "warning",
            "price",
            "",
            "price: 3 of 6 values (50.0%) are outside of the range 1 to 6: they reach from 0.5 to 100",
            "range",
            count=3,
            share=0.5,
            values=("0.5", "6.5", "100"),
            rows=(0, 4, 5),
        )
        assert found.places == "row 0 (0.5), row 4 (6.5), row 5 (100)"

    def test_name_the_column_of_a_vector(self) -> None:
        facts = examples()["facts"]
        facts[3, 1] = -7
        (found,) = inspect(inferred(), examples(facts=facts), FEATURES)
        assert (found.feature, found.column, found.values, found.rows) == ("facts", "AGE", ("-7",), (3,))

    def test_name_no_more_than_five_places_and_count_all(self) -> None:
        (found,) = inspect(inferred(), examples(price=np.arange(10, 16, dtype=np.float32)), FEATURES)
        assert (found.count, len(found.rows), len(found.values)) == (6, 5, 5)
        assert found.places.endswith("row 4 (14) and 1 more")

    def test_tell_a_column_that_no_longer_varies(self) -> None:
        arrays = {"facts": np.repeat([[3, 30]], 20, axis=0).astype(np.float32), "price": np.full(20, 3, np.float32)}
        assert told(arrays) == [
            ("warning", "ROOMS", "ROOMS: every value is 3"),
            ("warning", "AGE", "AGE: every value is 30"),
            ("warning", "price", "price: every value is 3"),
        ]
        assert told({name: values[:19] for name, values in arrays.items()}) == []

    def test_tell_a_feature_that_they_don_t_know(self) -> None:
        features = FEATURES | {"year": Feature(dtype="int64")}
        (found,) = inspect(inferred(), examples(year=np.arange(6)), features)
        assert (found.severity, found.feature, found.kind) == ("warning", "year", "new_column")

    def test_are_right_about_every_kind_of_feature(self) -> None:
        features = {
            "image": Feature(shape=(2, 2, 1), dtype="uint8"),
            "series": Feature(shape=(None, 2), columns=(Column(name="T"), Column(name="p"))),
            "tokens": Feature(shape=(None,), dtype="int64"),
            "vector": Feature(shape=(2,), optional=True),
            "colour": Feature(dtype="string", content="category", optional=True),
            "words": Feature(shape=(None,), dtype="string"),
        }
        arrays = {
            "image": np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1),
            "series": Ragged.of([[[1, 2]], [[3, 4], [5, 6]]], np.float32),
            "tokens": Ragged.of([[1], [2, 3]], np.int64),
            "vector": np.array([[1, 2], [np.nan, np.nan]], np.float32),
            "colour": strings("red", ""),
            "words": Ragged.of([strings("a"), strings("b", "")], object),
        }
        rules = inferred(features, **arrays)
        assert inspect(rules, arrays, features) == []
        changed = arrays | {
            "series": Ragged.of([[[1, 2]], [[3, 4], [99, 6]]], np.float32),
            "tokens": Ragged.of([[], [2, 77]], np.int64),
            "colour": strings("red", "mauve"),
        }
        found = {(a.feature, a.column, a.kind): a for a in inspect(rules, changed, features)}
        assert set(found) == {
            ("series", "T", "range"),
            ("tokens", "", "range"),
            ("tokens", "", "short"),
            ("colour", "", "domain"),
        }
        assert found["series", "T", "range"].rows == found["tokens", "", "range"].rows == (1,)
        assert found["tokens", "", "short"].rows == (0,)

    def test_give_rows_of_the_split_also_where_examples_were_left_out(self) -> None:
        arrays = examples(price=np.array([np.nan, 2, np.nan, 4, 5, 99], np.float32))
        quarantine = Quarantine(0.5)
        inspection = Inspection(inferred(), FEATURES, original=quarantine.original)
        for _ in inspection.watching(checked(batches(arrays, 4), FEATURES, "here", quarantine)):
            pass
        (found,) = inspection.anomalies()
        assert (found.values, found.rows) == (("99",), (5,))


class TestDemands:
    """What a person may write into a schema, and what it then forbids."""

    NUMBERS = np.array([1, 2, 3, 4, 5, 6], np.float32)

    @pytest.mark.parametrize(
        ("mass", "severity"),
        [("", "error"), ("1.0", "error"), ("0.9", "error"), ("0.83", "warning"), ("0.0", "warning")],
    )
    def test_a_range_holds_for_as_many_values_as_it_says(self, mass: str, severity: str) -> None:
        constraint = f"min_domain_mass: {mass}" if mass else ""
        rule = f"float_domain {{ max: 5 }} distribution_constraints {{ {constraint} }}"
        (found,) = single(rule, self.NUMBERS, Feature())
        assert (found.severity, found.kind, found.rows) == (severity, "range", (5,))
        assert "outside of the range at most 5" in found.text

    def test_a_fraction_is_as_exact_as_single_precision(self) -> None:
        rule = "float_domain { max: 5 } distribution_constraints { min_domain_mass: 0.9 }"
        assert single(rule, np.array([1.0] * 9 + [6.0]), Feature())[0].severity == "warning"

    @pytest.mark.parametrize(
        ("rule", "missing", "found"),
        [
            ("presence { min_fraction: 0.5 }", 3, []),
            ("presence { min_fraction: 0.5 }", 4, ["missing"]),
            ("presence { min_count: 2 }", 4, []),
            ("presence { min_count: 3 }", 4, ["few"]),
            ("presence { min_count: 1 }", 6, ["few"]),
            ("", 6, []),
        ],
    )
    def test_presence(self, rule: str, missing: int, found: list[str]) -> None:
        values = self.NUMBERS.copy()
        values[:missing] = np.nan
        assert [a.kind for a in single(rule, values, Feature(optional=True))] == found

    @pytest.mark.parametrize(
        ("rule", "feature", "kind"),
        [
            ("type: FLOAT", Feature(), None),
            ("type: INT", Feature(), "type"),
            ("type: BYTES", Feature(), "type"),
            ("shape { }", Feature(), None),
            ("shape { dim { size: 2 } }", Feature(), "shape"),
            ("value_count { min: 1 max: 1 }", Feature(), None),
            ("value_count { min: 2 }", Feature(), "shape"),
        ],
    )
    def test_type_and_shape(self, rule: str, feature: Feature, kind: str | None) -> None:
        assert [a.kind for a in single(rule, self.NUMBERS, feature)] == [kind] * (kind is not None)

    def test_the_type_of_a_column_is_that_of_its_vector(self) -> None:
        rules = inferred()
        for field in rules.feature[0].struct_domain.feature:
            field.type = 2
        assert told(examples(), rules) == [("error", "facts", "facts is float32, where the schema asks for INT")]

    def test_lengths(self) -> None:
        values = Ragged.of([[1], [1, 2, 3], [1, 2], [], [5]], np.int64)
        feature = Feature(shape=(None,), dtype="int64")
        short, long = single("value_count { min: 1 max: 2 }", values, feature)
        assert (short.kind, short.rows, short.values) == ("short", (3,), ("0",))
        assert (long.kind, long.rows, long.values) == ("long", (1,), ("3",))
        assert "1 of 5 examples (20.0%) have more values than the schema allows: 1 to 2" in long.text

    def test_a_domain_of_strings(self) -> None:
        rules = made(
            'feature { name: "x" type: BYTES domain: "colours" } string_domain { name: "colours" value: "red" }'
        )
        (found,) = inspect(
            rules,
            {"x": strings("red", "mauve", "", "puce", "mauve", "red")},
            {"x": Feature(dtype="string", optional=True)},
        )
        assert (found.severity, found.count, found.rows) == ("error", 3, (1, 3, 4))
        assert found.text == 'x: 3 of 5 values (60.0%) are none of the 1 known ones: "mauve" (2), "puce" (1)'

    def test_a_label_never_seen_in_training(self) -> None:
        features = {"label": Feature(dtype="string", content="category", role="target")}
        rules = inferred(features, label=strings("cat", "dog", "cat"))
        (found,) = inspect(rules, {"label": strings("cat", "fish")}, features)
        assert (found.severity, found.values, found.rows) == ("error", ('"fish"',), (1,))

    @pytest.mark.parametrize(
        ("rule", "values", "feature", "wrong"),
        [
            ("type: INT bool_domain { }", np.array([0, 1, 2]), Feature(dtype="int64"), ("2",)),
            (
                'type: BYTES bool_domain { true_value: "yes" false_value: "no" }',
                strings("yes", "no", "maybe"),
                Feature(dtype="string"),
                ('"maybe"',),
            ),
            ("type: INT int_domain { min: 1 }", np.array([1, 2, -3]), Feature(dtype="int64"), ("-3",)),
            (
                "type: BYTES int_domain { min: 1 max: 9 }",
                strings("1", "10", "x"),
                Feature(dtype="string"),
                ('"x"', "10"),
            ),
            ("type: BYTES string_domain { value: 'a' }", strings("a", "b"), Feature(dtype="string"), ('"b"',)),
        ],
        ids=["flags", "flags as text", "at least", "numbers as text", "strings"],
    )
    def test_other_domains(self, rule: str, values: Any, feature: Feature, wrong: tuple[str, ...]) -> None:
        assert tuple(value for found in single(rule, values, feature) for value in found.values) == wrong

    @pytest.mark.parametrize(
        ("rule", "said"),
        [
            ("min: 2 max: 3", "there are more than 3 different values; the schema allows 2 to 3"),
            ("min: 9", "there are 6 different values; the schema allows at least 9"),
            ("min: 1 max: 6", None),
        ],
    )
    @pytest.mark.parametrize("text", [False, True])
    def test_the_number_of_distinct_values(self, rule: str, said: str | None, text: bool) -> None:
        values = strings(*"abcdefa") if text else np.array([1, 2, 3, 4, 5, 6, 1])
        feature = Feature(dtype="string" if text else "int64")
        found = single(f"unique_constraints {{ {rule} }}", values, feature)
        assert [a.text for a in found] == ([f"x: {said}"] if said else [])

    def test_text_that_is_none(self) -> None:
        values = np.array(["schön".encode(), "schön".encode("latin-1")], object)
        (found,) = single("natural_language_domain { }", values, Feature(dtype="string"))
        assert (found.kind, found.rows) == ("encoding", (1,))

    def test_images(self) -> None:
        rule = "image_domain { minimum_supported_image_fraction: 0.5 max_image_byte_size: 10 }"
        values = np.array([b"x" * 5, b"x" * 11], object)
        large, none = single(rule, values, Feature(dtype="string"))
        assert (large.kind, large.rows) == ("image_size", (1,))
        assert (none.severity, none.kind, none.count) == ("error", "image", 2)

    @pytest.mark.parametrize("rule", ["lifecycle_stage: DEPRECATED", "deprecated: true"])
    def test_ask_nothing_of_what_is_no_longer_used(self, rule: str) -> None:
        demands = "type: INT presence { min_fraction: 1 } float_domain { max: 0 }"
        assert single(f"{rule} {demands}", self.NUMBERS, Feature()) == []

    def test_ask_nothing_of_a_column_that_is_no_longer_used(self) -> None:
        rules = inferred()
        rules.feature[0].struct_domain.feature[1].deprecated = True
        facts = examples()["facts"]
        facts[:, 1] = 1e6
        assert told(examples(facts=facts), rules) == []

    @pytest.mark.parametrize("rule", ["lifecycle_stage: DEPRECATED", ""])
    def test_do_not_miss_what_is_no_longer_used(self, rule: str) -> None:
        rules = inferred()
        price = made(f'feature {{ name: "price" presence {{ min_count: 1 }} {rule} }}')
        rules.feature[1].CopyFrom(price.feature[0])
        arrays = examples()
        del arrays["price"]
        assert len(inspect(rules, arrays, FEATURES)) == (0 if rule else 1)

    def test_a_column_that_was_taken_out_by_hand_may_be_anything(self) -> None:
        rules = inferred()
        del rules.feature[0].struct_domain.feature[1]
        facts = examples()["facts"]
        facts[:, 1] = 1e6
        assert told(examples(facts=facts), rules) == []

    def test_a_column_that_the_features_lack_is_missed(self) -> None:
        rules = inferred()
        rules.feature[0].struct_domain.feature.add(name="TAX", type=3)
        assert told(examples(), rules)[0][:2] == ("error", "TAX")

    @pytest.mark.parametrize(
        ("rule", "found"), [("min_examples_count: 7", 1), ("max_examples_count: 5", 1), ("min_examples_count: 6", 0)]
    )
    def test_the_number_of_examples(self, rule: str, found: int) -> None:
        rules = made(f'feature {{ name: "x" }} dataset_constraints {{ {rule} }}')
        assert [a.kind for a in inspect(rules, {"x": self.NUMBERS}, {"x": Feature()})] == ["examples"] * found

    def test_no_example_at_all_is_never_right(self) -> None:
        inspection = Inspection(inferred(), FEATURES)
        assert [(a.severity, a.kind) for a in inspection.anomalies()] == [("error", "examples")]


class TestEnforcement:
    def test_stops_with_all_errors(self) -> None:
        inspection = Inspection(inferred(), FEATURES, where="split `test`")
        arrays = examples(price=np.array([np.nan, 2, 3, 4, 5, 6]))
        arrays["facts"][0, 0] = np.nan
        for _ in inspection.watching(batches(arrays)):
            pass
        with pytest.raises(DataError) as caught:
            inspection.enforce("the reviewed schema x.pbtxt")
        text = str(caught.value)
        assert text.startswith("Split `test` is not what the reviewed schema x.pbtxt allows:\n  - ROOMS: 1 of 6 ")
        assert "\n  - price: 1 of 6 values are missing (16.7%); none may be [row 0]\n" in text
        assert "change the reviewed schema x.pbtxt" in text

    def test_gives_the_warnings_back(self) -> None:
        inspection = Inspection(inferred(), FEATURES)
        for _ in inspection.watching(batches(examples(price=np.array([1, 2, 3, 4, 5, 99])))):
            pass
        assert [(a.severity, a.kind) for a in inspection.enforce()] == [("warning", "range")]

    def test_describes_what_was_seen(self) -> None:
        inspection = Inspection(inferred(), FEATURES)
        for _ in inspection.watching(batches(examples(price=np.array([np.nan, 2, 3, 4, 5, 6])))):
            pass
        assert inspection.columns()[-1] == {
            "feature": "price",
            "column": "",
            "missing": 1,
            "missing_share": pytest.approx(1 / 6),
            "minimum": 2.0,
            "maximum": 6.0,
        }


class TestProto:
    def test_holds_all_that_was_found(self) -> None:
        from tensorflow_metadata.proto.v0 import anomalies_pb2

        found = [
            Anomaly("warning", "facts", "AGE", "AGE: one", "range", 1, 0.5, ("-7",), (3,)),
            Anomaly("error", "facts", "AGE", "AGE: two", "missing"),
            Anomaly("error", "", "", "too few", "examples"),
        ]
        proto = to_proto(found, inferred())
        again = anomalies_pb2.Anomalies.FromString(proto.SerializeToString())
        entry = again.anomaly_info["facts.AGE"]
        assert list(entry.path.step) == ["facts", "AGE"]
        assert entry.severity == anomalies_pb2.AnomalyInfo.ERROR
        assert entry.description == "AGE: one [row 3 (-7)]. AGE: two."
        assert [reason.short_description for reason in entry.reason] == ["AGE: one", "AGE: two"]
        assert again.dataset_anomaly_info.short_description == "too few"
        assert again.baseline == inferred()

    def test_knows_every_kind(self) -> None:
        from tensorflow_metadata.proto.v0 import anomalies_pb2

        known = set(anomalies_pb2.AnomalyInfo.Type.keys())
        assert set(KINDS.values()) <= known


def test_infinity_is_outside_of_every_range() -> None:
    (found,) = single("float_domain { min: 0 max: 1 }", np.array([0.5, math.inf]), Feature())
    assert found.values == ("inf",)
