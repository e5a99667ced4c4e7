"""Statistics of every kind of feature against NumPy, whole, in parts, and beside a reference."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.describing import summaries
from headrace.describing.summaries import FeatureStatistics, Statistics, Summary, aligned, position_names, summarise
from headrace.errors import DataError
from headrace.ragged import Ragged
from headrace.readers.batches import batches
from headrace.spec import Column, Feature
from tests.core.kinds import EVERY, everything, picture, strings

RANDOM = np.random.default_rng(7)


def of(values: Any, feature: Feature, rows: int = 16) -> FeatureStatistics:
    """Statistics of the values of one feature, read in batches."""
    return summarise(batches({"x": values}, rows), {"x": feature})["x"]


class TestNumbers:
    def test_of_a_series_are_described_along_its_last_dimension(self) -> None:
        values = RANDOM.normal(size=(40, 6, 2)).astype(np.float32)
        found = of(values, Feature(shape=(6, 2), columns=(Column(name="wind"), Column(name="rain"))))
        pooled = values.reshape(-1, 2).astype(np.float64)
        np.testing.assert_allclose(found.mean, pooled.mean(axis=0))
        np.testing.assert_allclose(found.std, pooled.std(axis=0))
        assert list(found.series) == ["wind", "rain"]
        assert (found.rows, found.series["rain"].count) == (40, 240)

    def test_of_a_wide_vector_have_moments_at_each_position_and_one_distribution(self) -> None:
        values = (RANDOM.random((50, 300)) < 0.1).astype(np.float32)
        values[3, 7] = np.nan
        found = of(values, Feature(shape=(300,), optional=True))
        np.testing.assert_allclose(found.mean, np.nanmean(values, axis=0))
        np.testing.assert_allclose(found.std, np.nanstd(values, axis=0), rtol=1e-6)
        np.testing.assert_array_equal(found.zeros, (values == 0).sum(axis=0))
        np.testing.assert_array_equal(found.minimum, np.nanmin(values, axis=0))
        np.testing.assert_array_equal(found.maximum, np.nanmax(values, axis=0))
        assert (found.missing[7], found.missing.sum(), found.pooled) == (1, 1, True)
        (distribution,) = found.distributions
        assert dict(zip(distribution.edges, distribution.counts, strict=True)) == Counter(values[np.isfinite(values)])
        assert found.series["x[7]"].distribution is None
        assert found.whole.mean == pytest.approx(np.nanmean(values, dtype=np.float64))
        assert found.whole.std == pytest.approx(np.nanstd(values, dtype=np.float64))

    def test_that_are_null_and_not_a_number_are_missing_alike(self) -> None:
        batch = pa.RecordBatch.from_arrays([pa.array([1.0, None, np.nan, 4.0], pa.float32())], ["x"])
        found = summarise([batch], {"x": Feature(optional=True)})["x"]
        assert (found.count.item(), found.missing.item(), found.mean.item(), found.missing_share) == (2, 2, 2.5, 0.5)

    def test_of_vectors_that_are_null_are_missing_at_every_position(self) -> None:
        column = pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2))
        found = summarise([pa.RecordBatch.from_arrays([column], ["x"])], {"x": Feature(shape=(2,), dtype="int64")})["x"]
        assert (found.rows, found.absent) == (3, 1)
        assert (found.count.tolist(), found.missing.tolist()) == ([2, 1], [1, 2])
        assert found.mean.tolist() == [2.0, 2.0]

    def test_of_ragged_lists_count_together_and_their_lengths_apart(self) -> None:
        values = Ragged.of([[1.0, 2.0], [], [6.0]], np.float32)
        found = of(values, Feature(shape=(None,)))
        assert (found.mean.item(), found.count.item(), found.rows) == (3.0, 3, 3)
        assert found.lengths
        assert (found.lengths.mean, found.lengths.minimum, found.lengths.maximum) == (1.0, 0.0, 2.0)

    def test_of_ragged_lists_of_steps_have_lengths_in_steps(self) -> None:
        values = Ragged.of([np.ones((3, 2)), np.zeros((1, 2))], np.float32)
        found = of(values, Feature(shape=(None, 2)))
        assert found.mean.tolist() == [0.75, 0.75]
        assert found.lengths
        assert found.lengths.distribution
        assert found.lengths.distribution.edges.tolist() == [1, 3]

    def test_that_weigh_examples_are_described_too(self) -> None:
        assert of(np.array([0.5, 1.5]), Feature(role="weight")).mean == 1.0


class TestPixels:
    def test_are_described_for_each_channel(self) -> None:
        images = RANDOM.integers(0, 256, (30, 5, 4, 3)).astype(np.uint8)
        found = of(images, Feature(shape=(5, 4, 3), dtype="uint8"))
        pooled = images.reshape(-1, 3)
        np.testing.assert_allclose(found.mean, pooled.mean(axis=0))
        np.testing.assert_allclose(found.std, pooled.std(axis=0))
        for channel, distribution in zip(pooled.T, found.distributions, strict=True):
            assert dict(zip(distribution.edges, distribution.counts, strict=True)) == Counter(channel.tolist())

    def test_without_channels_count_together(self) -> None:
        images = RANDOM.integers(0, 256, (30, 5, 4)).astype(np.uint8)
        found = of(images, Feature(shape=(5, 4), dtype="uint8", content="image"))
        assert found.mean == pytest.approx(images.mean())
        assert found.names == ("x",)

    def test_of_masks_are_counted_by_class_and_so_are_the_masks_that_have_it(self) -> None:
        masks = np.zeros((3, 2, 2, 1), np.uint8)
        masks[0], masks[1, 0], masks[2, 0, 0] = 1, 1, 9
        feature = Feature(shape=(2, 2, 1), dtype="uint8", content="mask", classes=("sky", "sea", "land"))
        found = of(masks, feature, rows=2)
        assert found.classes == {"sky": 5, "sea": 6, "land": 0}
        assert found.tally
        assert found.tally.unknown == 1
        assert found.examples
        assert dict(found.examples.known) == {"sky": 2, "sea": 2, "land": 0}
        assert found.examples.counts["9"] == 1


class TestTokens:
    def test_have_lengths_and_distinct_and_frequent_ids(self) -> None:
        examples = [RANDOM.integers(1, 30, RANDOM.integers(0, 12)) for _ in range(50)]
        found = of(Ragged.of(examples, np.int64), Feature(shape=(None,), dtype="int64"))
        truth = Counter(np.concatenate(examples).tolist())
        assert (found.kind, found.rows) == ("tokens", 50)
        assert (found.unique, dict(found.top)) == (len(truth), {str(token): n for token, n in truth.items()})
        assert (found.minimum, found.maximum) == (min(truth), max(truth))
        assert found.lengths
        assert found.lengths.mean == pytest.approx(np.mean([len(example) for example in examples]))

    def test_are_counted_exactly_for_a_hundred_thousand_ids(self) -> None:
        values = np.concatenate([np.arange(100_000), [7, 7]])[:, None]
        found = of(values, Feature(shape=(1,), dtype="int64", content="tokens"), rows=50_000)
        assert (found.unique, found.top[0]) == (100_000, ("7", 3))
        assert found.tally
        assert found.tally.exact

    def test_of_a_fixed_length_count_together(self) -> None:
        values = np.array([[5, 0, 0], [5, 7, 0]])
        found = of(values, Feature(shape=(3,), dtype="int64", content="tokens"))
        assert found.top == (("0", 3), ("5", 2), ("7", 1))
        assert (found.mean.shape, found.zeros.item(), found.lengths) == ((), 3, None)


class TestCategories:
    def test_as_numbers_are_counted_by_name_and_unknown_ones_apart(self) -> None:
        found = of(np.array([2, 0, 2, 5]), Feature(dtype="int64", classes=("ant", "bee", "cow")))
        assert found.classes == {"ant": 1, "bee": 0, "cow": 2}
        assert found.tally
        assert (found.tally.unknown, found.tally.counts["5"]) == (1, 1)

    def test_as_numbers_may_be_missing(self) -> None:
        found = of(np.array([1.0, np.nan, 1.0]), Feature(classes=("ant", "bee"), optional=True))
        assert (found.classes, found.missing.item()) == ({"ant": 0, "bee": 2}, 1)

    def test_as_strings_are_counted_in_the_declared_order(self) -> None:
        found = of(strings(b"cow", b"ant", b"cow", b"elk"), Feature(dtype="string", classes=("ant", "bee", "cow")))
        assert found.classes == {"ant": 1, "bee": 0, "cow": 2}
        assert found.top == (("cow", 2), ("ant", 1), ("elk", 1))
        assert found.tally
        assert found.tally.unknown == 1

    @pytest.mark.parametrize("dtype", ["string", "int64"])
    def test_in_columns_are_counted_column_by_column(self, dtype: Any) -> None:
        letters = strings(b"1", b"2") if dtype == "string" else np.array([1, 2])
        columns = (Column(name="sex"), Column(name="deck"))
        feature = Feature(shape=(2,), dtype=dtype, content="category", columns=columns)
        found = of(letters[[[0, 1], [0, 0], [1, 1]]], feature)
        assert found.names == ("sex", "deck")
        assert [tally.top for tally in found.tallies] == [(("1", 2), ("2", 1)), (("2", 2), ("1", 1))]
        assert found.count.tolist() == [3, 3]

    def test_of_unnamed_positions_count_together(self) -> None:
        found = of(np.array([[1, 2], [2, 2]]), Feature(shape=(2,), dtype="int64", content="category"))
        assert found.top == (("2", 3), ("1", 1))
        assert found.mean.tolist() == [1.5, 2.0]


class TestTexts:
    @pytest.fixture
    def found(self) -> FeatureStatistics:
        texts = strings(b"The cat, the dog!", b" \tthe\nB\xc3\xa4r ", b"", b"\xff\xfe", None, b"", b"word")
        return of(texts, Feature(dtype="string", optional=True), rows=4)

    def test_have_lengths_in_characters_and_words(self, found: FeatureStatistics) -> None:
        characters, words = found.measures["characters"], found.measures["words"]
        assert (characters.count, characters.maximum, characters.mean) == (5, 17, (17 + 10 + 0 + 0 + 4) / 5)
        assert (words.count, words.maximum, words.mean) == (5, 4, (4 + 2 + 0 + 0 + 1) / 5)

    def test_that_are_empty_missing_or_broken_are_counted(self, found: FeatureStatistics) -> None:
        assert (found.empty, found.broken, found.missing.tolist(), found.rows) == (2, 1, [1], 7)
        assert found.unique == 5

    def test_have_frequent_words(self, found: FeatureStatistics) -> None:
        assert found.words
        assert found.words.top == (("the", 3), ("bär", 1), ("cat", 1), ("dog", 1))

    def test_that_occur_often_weigh_as_often(self) -> None:
        found = of(strings(*[b"a b"] * 5, b"b"), Feature(dtype="string"))
        assert found.words
        assert found.words.top == (("a", 5), ("b", 5))
        assert found.measures["words"].mean == pytest.approx(11 / 6)

    def test_that_are_notes_are_only_counted(self) -> None:
        found = of(strings(b"a b", b"a b", b"c"), Feature(dtype="string", role="note"))
        assert (found.rows, found.unique, found.top, found.words, dict(found.measures)) == (3, 2, (), None, {})

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
    def test_are_the_same_whatever_the_column_is_called(self, kind: pa.DataType) -> None:
        batch = pa.RecordBatch.from_arrays([pa.array(["one two", "one"], kind)], ["x"])
        found = summarise([batch, batch], {"x": Feature(dtype="string")})["x"]
        assert found.top == (("one", 2), ("one two", 2))


class TestImageFiles:
    @pytest.fixture
    def found(self) -> FeatureStatistics:
        files = [picture(), picture(10, 20, kind="JPEG", level=50), picture(mode="L", kind="BMP"), picture(mode="RGBA")]
        return of(strings(*files, b"no image", None), Feature(dtype="string", content="image", optional=True))

    def test_have_sizes_channels_and_formats(self, found: FeatureStatistics) -> None:
        assert found.formats
        assert dict(found.formats.top) == {"PNG": 2, "JPEG": 1, "BMP": 1}
        measures = {name: (s.count, s.minimum, s.maximum) for name, s in found.measures.items() if name != "bytes"}
        assert measures == {"width": (4, 12, 20), "height": (4, 8, 10), "channels": (4, 1, 4)}
        assert found.measures["bytes"].minimum == len(b"no image")

    def test_that_are_none_and_that_are_missing_are_counted(self, found: FeatureStatistics) -> None:
        assert (found.broken, found.missing.tolist(), found.count.tolist(), found.unique) == (1, [1], [5], 5)

    def test_have_the_colours_of_a_sample(self, found: FeatureStatistics) -> None:
        red = found.pixels["red"]
        assert (red.count, red.minimum, red.maximum) == (3 * 96 + 200, 50, 100)

    def test_are_sampled_alike_in_any_order(self) -> None:
        files = [picture(width=1 + i, level=i) for i in range(100)]
        feature = Feature(dtype="string", content="image")
        there, back = (of(strings(*f), feature).to_json()["pixels"] for f in (files, files[::-1]))
        assert there == back
        assert there["red"]["count"] < sum(8 * (1 + i) for i in range(100))

        halves = [Summary({"x": feature}), Summary({"x": feature})]
        for half, part in zip(halves, (files[50:], files[:50]), strict=True):
            for batch in batches({"x": strings(*part)}):
                half.add(batch)
        halves[0].merge(halves[1])
        assert halves[0].finish()["x"].to_json()["pixels"] == there

    def test_have_formats_however_many_there_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(summaries, "LEAST_VALUES", 2)
        found = of(strings(*[picture()] * 9, picture(kind="BMP")), Feature(dtype="string", content="image"))
        assert found.formats
        assert found.formats.top == (("PNG", 9), ("BMP", 1))

    def test_that_end_in_the_middle_still_have_a_size(self) -> None:
        found = of(strings(picture(64, 64, kind="JPEG")[:-20]), Feature(dtype="string", content="image"))
        assert (found.broken, found.measures["width"].mean, dict(found.pixels)) == (0, 64.0, {})


# ---------------------------------------------------------------------------------------- all kinds at once


def assert_same(found: Any, expected: Any) -> None:
    """Equal but for the rounding of means and deviations."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if name in ("mean", "std"):
                one, other = (np.array(v, np.float64) for v in (found[name], value))
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
            else:
                assert_same(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 40), st.integers(0, 99), st.integers(1, 30), st.integers(1, 5), st.randoms(use_true_random=False))
def test_parts_in_any_order_give_the_whole(rows: int, seed: int, size: int, count: int, random: Any) -> None:
    examples = list(batches(everything(rows, seed), size))
    parts = [Summary(EVERY) for _ in range(count)]
    for batch in examples:
        random.choice(parts).add(batch)
    parts = [pickle.loads(pickle.dumps(part)) for part in parts]
    while len(parts) > 1:
        random.shuffle(parts)
        parts[0].merge(parts.pop())
    assert_same(parts[0].finish().to_json(), summarise(examples, EVERY).to_json())


def test_json_gives_back_every_bit() -> None:
    for rows in (0, 30):
        text = json.dumps(summarise(batches(everything(rows), 7), EVERY).to_json(), allow_nan=False)
        again = Statistics.from_json(json.loads(text))
        assert json.dumps(again.to_json()) == text
        assert list(again) == list(EVERY)
        assert again.rows == rows


def test_json_of_another_version_is_refused() -> None:
    with pytest.raises(DataError, match="another version"):
        Statistics.from_json({"x": {"dtype": "float32"}})


def test_a_split_compares_with_itself_in_equal_counts() -> None:
    examples = batches(everything(60), 16)
    known = summarise(examples, EVERY)
    again = summarise(examples, EVERY, like=known)
    seen = set()
    for name in EVERY:
        for aspect in aligned(known[name], again[name]):
            assert aspect.then.tolist() == aspect.now.tolist()
            assert len(aspect.places) == len(aspect.now)
            assert aspect.now.sum() > 0
            seen.add(aspect.what)
    assert {"number", "vector[2]", "all positions", "image[0]", "mask", "examples", "tokens", "length"} <= seen
    assert {"text", "characters", "words", "width", "bytes", "formats"} <= seen


def test_new_values_are_counted_in_the_places_of_known_ones() -> None:
    feature = Feature(dtype="string", content="category")
    known = summarise(batches({"x": strings(b"a", b"a", b"b")}), {"x": feature})
    now = summarise(batches({"x": strings(b"b", b"new", b"new", b"b")}), {"x": feature}, like=known)
    values, lengths = aligned(known["x"], now["x"])
    assert (values.what, values.numbers, values.places) == ("x", False, ("a", "b", "others"))
    assert (values.then.tolist(), values.now.tolist()) == ([2, 1, 0], [0, 2, 2])
    assert (lengths.what, lengths.numbers) == ("characters", True)
    assert np.asarray(lengths.places)[1:].tolist() == [1, 3]
    assert (lengths.then.tolist(), lengths.now.tolist()) == ([0, 3, 0], [0, 2, 2])


def test_known_values_are_counted_exactly_however_many_new_ones_there_are() -> None:
    feature = Feature(dtype="string", content="category")
    known = summarise(batches({"x": strings(b"a", b"b")}), {"x": feature})
    values = strings(*(b"new %d" % i for i in range(40_000)), b"a", b"b", b"a")
    now = summarise(batches({"x": values}), {"x": feature}, like=known)["x"]
    assert now.classes == {"a": 2, "b": 1}
    assert now.tally
    assert now.tally.unknown == 40_000


@pytest.mark.parametrize(
    ("feature", "names"),
    [
        (Feature(), ("x",)),
        (Feature(shape=(2,)), ("x[0]", "x[1]")),
        (Feature(shape=(2,), columns=(Column(name="a"), Column(name="b"))), ("a", "b")),
        (Feature(shape=(2, 2)), ("x[0,0]", "x[0,1]", "x[1,0]", "x[1,1]")),
        (Feature(shape=(2, 1), columns=(Column(name="a"),)), ("x[0,a]", "x[1,a]")),
        (Feature(shape=(None, 2)), ("x[0]", "x[1]")),
        (Feature(shape=(None,)), ("x",)),
    ],
)
def test_positions_have_names(feature: Feature, names: tuple[str, ...]) -> None:
    assert position_names("x", feature) == names
