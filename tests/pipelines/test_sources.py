"""What every data set of `pipelines/sources` must be able to do. Found by listing the package: nothing to register."""

from __future__ import annotations

import importlib
import io
import itertools
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from headrace import Feature, Source, projects
from headrace.describing.summaries import Statistics, summarise
from headrace.errors import DataError
from headrace.fingerprints import function_code
from headrace.getting.fetching import fetch
from headrace.getting.tfds_source import prepare
from headrace.looking.leaking import SUSPICIOUS, Clue, clues, columns
from headrace.ragged import Ragged
from headrace.readers.batches import to_arrays, whole
from headrace.records.inputs import Info, arrays, write_info
from headrace.records.writing import stored, write
from headrace.spec import Records
from headrace.validation.checking import Quarantine, checked

Array = np.ndarray[Any, Any]

FOLDER = projects.root() / "pipelines" / "sources"
MODULES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
SOURCES: dict[str, Source] = {
    f"{module}.{name}": value
    for module in MODULES
    for name, value in vars(importlib.import_module(f"pipelines.sources.{module}")).items()
    if isinstance(value, Source)
}
each_source = pytest.mark.parametrize("name", SOURCES)


@cache
def made(name: str, seed: int, base: Path) -> Path:
    """The folder of a source's twin, written once for all tests."""
    folder = base / f"{name}-{seed}"
    folder.mkdir()
    source = SOURCES[name]
    assert source.twin
    source.twin(folder, seed)
    return folder


@pytest.fixture
def twin(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    return made(name, 0, tmp_path_factory.getbasetemp())


def sound(source: Source, raw: Path, split: str) -> Iterator[Any]:
    """The batches of a split without what a quarantine leaves out."""
    return checked(source.read(raw)[split], source.features, split, Quarantine(source.quarantine, split))


@cache
def read(name: str, raw: Path, split: str) -> dict[str, Any]:
    """All examples of a split, read once for all tests."""
    return whole(sound(SOURCES[name], raw, split), SOURCES[name].features)


def names_of(source: Source) -> list[str]:
    """What lies in the folder of a source: its files, or that of a builder of TFDS."""
    return [file.name for file in source.files] or [str(source.tfds).partition(":")[0]]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, at any depth."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, Ragged):
        np.testing.assert_array_equal(found.splits, expected.splits)
        found, expected = found.values, expected.values
    np.testing.assert_array_equal(found, expected)


def rows_of(values: dict[str, Any]) -> list[bytes]:
    """Each example as bytes."""
    parts = [
        [b"".join(np.atleast_1d(row).tolist()) if values.dtype == object else row.tobytes() for row in values]
        for values in values.values()
    ]
    return [b"|".join(row) for row in zip(*parts, strict=True)]


def kept(folder: Path, source: Source, splits: dict[str, Any]) -> None:
    """Write examples as records, without any preprocessing."""
    written = {split: write(folder, split, batches, source.features) for split, batches in splits.items()}
    encodings = stored(source.features, Records())
    write_info(folder, Info("it", "it", "synthetic", source.features, written, encodings))


def test_the_package_is_found() -> None:
    assert len(SOURCES) >= 20
    assert set(MODULES) == {key.partition(".")[0] for key in SOURCES} | {"glove"}


def test_data_sets_are_listed_without_reading_any() -> None:
    """A workload's file, which imports them, is imported by every command."""
    code = "; ".join(f"import pipelines.sources.{module}" for module in MODULES)
    heavy = "print(*sorted({'numpy', 'pyarrow', 'scipy', 'tensorflow', 'PIL'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; {heavy}"], cwd=projects.root(), capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == ("\n", "")


@each_source
class TestASource:
    def test_says_what_it_is(self, name: str) -> None:
        source = SOURCES[name]

        assert source.licence
        assert source.homepage.startswith("http")
        assert source.files or source.tfds
        for file in source.files:
            assert file.hint or not file.url.startswith(("kaggle:", "manual:", "gdrive:")), "a person needs a hint"
        for label, feature in source.features.items():
            wide = feature.dtype == "float32" and len(feature.shape) == 1
            assert feature.columns or not wide, f"the positions of `{label}` have names"
            assert all(column.unit or column.description for column in feature.columns if column.name != "pH")
            assert feature.classes or not (feature.role == "target" and feature.kind == "category")

    def test_twin_says_what_the_best_score_is(self, name: str) -> None:
        source = SOURCES[name]
        said = source.twin.__doc__ or ""

        # A twin of which another one says it refers to that.
        assert not source.named("target") or "best" in said or "`twin_" in said

    def test_code_counts_with_its_helpers(self, name: str) -> None:
        """A change of a helper makes the twin, and what is read, anew."""
        module = importlib.import_module(f"pipelines.sources.{name.partition('.')[0]}")
        code = Path(str(module.__file__)).read_text()
        used = set(re.findall(r"from pipelines\.sources(?:\.(_\w+)| import (_\w+))", code))
        both = [value for key, value in SOURCES.items() if key.partition(".")[0] == name.partition(".")[0]]
        codes = {k for one in both for f in (one.read, one.twin) for k in function_code(f)}  # type: ignore[arg-type]

        assert {f"sources/{a or b}.py" for a, b in used} <= codes

    def test_twin_writes_the_files_of_the_source(self, name: str, twin: Path) -> None:
        assert sorted(path.name for path in twin.iterdir()) == sorted(names_of(SOURCES[name]))
        assert sum(map(len, contents(twin).values())) < 4e6

    def test_twin_depends_on_its_seed_only(
        self, name: str, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "again").mkdir()
        (tmp_path / "other").mkdir()
        with monkeypatch.context() as another_day:
            # Archives may hold the time at which they were made.
            another_day.setattr("time.time", lambda: 1.5e9)
            SOURCES[name].twin(tmp_path / "again", 0)  # type: ignore[misc]
        SOURCES[name].twin(tmp_path / "other", 1)  # type: ignore[misc]
        files, others = contents(twin), contents(tmp_path / "other")

        assert files == contents(tmp_path / "again")
        # An index of words is the same language, whatever was written in it; so is what TFDS says of a data set.
        alike = {key for key in files if files[key] == others.get(key) and not key.endswith((".json", ".labels.txt"))}
        assert alike <= {file.name for file in SOURCES[name].files[1:]}

    def test_is_read_the_same_each_time(self, name: str, twin: Path) -> None:
        source = SOURCES[name]
        first, second = source.read(twin), source.read(twin)

        assert list(first) in (["train", "test"], ["train", "validation", "test"])
        for split, batches in first.items():
            found = list(batches)
            assert found
            assert found == list(batches) == list(second[split])

    def test_examples_are_as_declared(self, name: str, twin: Path) -> None:
        source = SOURCES[name]
        for split, batches in source.read(twin).items():
            assert sum(batch.num_rows for batch in checked(batches, source.features, split)) > 0

    def test_splits_share_no_example(self, name: str, twin: Path) -> None:
        source = SOURCES[name]
        seen = {split: set(rows_of(read(name, twin, split))) for split in source.read(twin)}

        assert len(set.union(*seen.values())) == sum(map(len, seen.values()))

    def test_no_input_holds_the_answer(self, name: str, twin: Path) -> None:
        source = SOURCES[name]
        train, test = (read(name, twin, split) for split in ("train", "test"))

        assert all(clue.skill < SUSPICIOUS for clue in found_clues(source, train, test))

    def test_can_be_learned(self, name: str, twin: Path) -> None:
        # What comes next hangs on the order of the characters, of which a bag of them knows little.
        if SOURCES[name].named("target"):
            assert skill(name, twin) > (0.1 if name == "texts.CHARACTERS" else 0.25)

    def test_is_kept_in_records(self, name: str, twin: Path, tmp_path: Path) -> None:
        source = SOURCES[name]
        kept(tmp_path, source, {split: sound(source, twin, split) for split in source.read(twin)})

        for split in source.read(twin):
            found, expected = arrays(tmp_path, split), read(name, twin, split)
            for label in source.features:
                assert_equal(found[label], expected[label])

    @pytest.mark.parametrize("damage", ["missing", "empty"])
    def test_damaged_files_are_told(self, name: str, twin: Path, tmp_path: Path, damage: str) -> None:
        """By an error that names the file, or the data set that TFDS has prepared."""
        files = sorted(contents(twin))
        damaged = next((key for key in files if "-train.tfrecord" in key), None) or SOURCES[name].files[0].name
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            if file != damaged:
                (tmp_path / file).symlink_to(twin / file)
        if damage == "empty":
            (tmp_path / damaged).touch()

        with pytest.raises(DataError, match=re.escape(names_of(SOURCES[name])[0])):
            list(SOURCES[name].read(tmp_path)["train"])

    def test_has_statistics(self, name: str, twin: Path) -> None:
        source = SOURCES[name]
        statistics = summarise(sound(source, twin, "train"), source.features)

        assert statistics.rows == sum(batch.num_rows for batch in sound(source, twin, "train"))
        assert Statistics.from_json(statistics.to_json()).to_json() == statistics.to_json()


def found_clues(source: Source, *splits: dict[str, Any]) -> list[Clue]:
    """What single columns say about the target, if that is one value; learned from one split, judged by another."""
    target = next((key for key, f in source.named("target").items() if f.dtype != "string" and f.size == 1), None)
    if target is None:
        return []
    (train, known), (test, truth) = (
        (columns(values, source.named("input")), values[target].reshape(-1)) for values in splits
    )
    return clues(train, known, test, truth, classes=bool(source.features[target].classes))


# ------------------------------------------------------------------------------------- a small linear model


def skill(name: str, raw: Path) -> float:
    """How much better than an answer that knows no inputs a linear model is on the test split (1: no error is left).

    Of a class its share of the errors is compared, of anything else the mean square.
    """
    source = SOURCES[name]
    train, test = (read(name, raw, split) for split in ("train", "test"))
    x, others = (described(values, source.named("input")) for values in (train, test))
    centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, others = (np.column_stack([(part - centre) / scale, np.ones(len(part))]) for part in (x, others))
    y, truth = (described(values, source.named("target")) for values in (train, test))
    average = y.mean(axis=0)
    # The dual form: there are fewer examples than columns.
    penalty = 0.1 * x.shape[1]
    answers = average + others @ x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y - average)
    if any(feature.classes and feature.dtype == "int64" for feature in source.named("target").values()):
        right = truth[np.arange(len(truth)), answers.argmax(axis=1)].mean()
        usual = truth[:, average.argmax()].mean()
        return float((right - usual) / (1 - usual))
    return float(1 - ((answers - truth) ** 2).sum() / ((average - truth) ** 2).sum())


def described(values: dict[str, Any], features: dict[str, Feature], most: int = 1_600) -> Array:
    """Features as columns of numbers (examples, columns), of the first examples."""
    parts = [numbers(values[name][:most], feature) for name, feature in features.items()]
    return np.column_stack(parts).astype(np.float64)


def numbers(values: Any, feature: Feature) -> Array:
    if isinstance(values, Ragged):
        return np.stack([np.log1p(np.bincount(row % 1024, minlength=1024)) for row in values])
    if feature.kind in ("image", "mask"):
        return np.stack([pixels(value, feature.kind == "mask") for value in values])
    if feature.kind == "text":
        return np.stack([bag(value.decode()) for value in values])
    if feature.dtype == "string":
        return np.stack([np.bincount([crc32(value) % 64], minlength=64) for value in values])
    if feature.classes:
        return np.eye(len(feature.classes))[values]
    known = values.reshape(len(values), -1)
    return np.where(np.isnan(known), np.nanmean(known, axis=0), known)


def pixels(value: Any, mask: bool) -> Array:
    """An image or a mask of 16 × 16: brightness and colours, or what is in the foreground."""
    if isinstance(value, bytes):
        image: Image.Image = Image.open(io.BytesIO(value))
    else:
        image = Image.fromarray(value[..., 0] if value.shape[-1] == 1 else value)
    if mask:
        return (np.asarray(image.resize((16, 16), Image.Resampling.NEAREST)) == 1).reshape(-1)
    return np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)).reshape(-1)


def bag(text: str) -> Array:
    """How often words, and pairs of words, occur."""
    words = re.findall(r"\w+", text.lower())
    terms = [*words, *map(" ".join, itertools.pairwise(words))]
    return np.bincount([crc32(term.encode()) % 1024 for term in terms] or [0], minlength=1024)


# --------------------------------------------------------------------------- what single data sets promise


def read_twin(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Split → all examples of a twin; `folder` is the test's own."""
    raw = made(name, 0, folder.parent)
    return {split: read(name, raw, split) for split in SOURCES[name].read(raw)}


def test_keras_gives_the_same_indexed_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens in the same order, from the same files."""
    from keras.src.datasets import imdb, reuters

    for name, module in (("reuters.REUTERS", reuters), ("imdb_indexed.IMDB_INDEXED", imdb)):
        raw = made(name, 0, tmp_path.parent)
        monkeypatch.setattr(module, "get_file", lambda raw=raw, **known: str(raw / Path(known["fname"]).name))
        # Without a number of words Keras leaves out the rarest one.
        loaded = module.load_data(num_words=10**6)
        for split, (texts, labels) in zip(("train", "test"), loaded, strict=True):
            found = read(name, raw, split)
            assert [row.tolist() for row in found["tokens"]] == [list(text) for text in texts]
            np.testing.assert_array_equal(found[list(SOURCES[name].features)[1]], labels)


def test_tokens_have_their_words(tmp_path: Path) -> None:
    from pipelines.sources import imdb_indexed
    from pipelines.sources._wording import vocabulary

    imdb_indexed.twin(tmp_path, 0)
    words = imdb_indexed.words(tmp_path)

    assert words[1:3] == ["[START]", "[OOV]"]
    assert words[4:] == vocabulary(2_000)


def test_pets_hold_out_what_the_book_does() -> None:
    """The book sorts the paths, shuffles them with seed 1337, and takes the last 1,000."""
    import random

    from pipelines.sources._reading import held_out
    from pipelines.sources.oxford_iiit_pet import HELD_OUT, SEED

    names = [f"pet_{k}" for k in range(7_390)]
    paths = sorted(names)
    random.Random(1337).shuffle(paths)

    assert held_out(names, HELD_OUT, SEED) == paths[-1_000:]


def test_reviews_are_held_out_class_by_class(tmp_path: Path) -> None:
    found = read_twin("imdb_raw.LABELLED", tmp_path)

    assert {split: np.bincount(values["label"]).tolist() for split, values in found.items()} == {
        "train": [160, 160],
        "validation": [40, 40],
        "test": [100, 100],
    }


def test_photographs_that_the_book_leaves_out_are_left_out(tmp_path: Path) -> None:
    found = read_twin("cats_vs_dogs.KAGGLE", tmp_path)

    assert {split: {int(file.split(b".")[1]) // 500 for file in values["file"]} for split, values in found.items()} == {
        "train": {0},
        "validation": {2},
        "test": {3},
    }


def test_masks_are_of_the_size_of_their_photographs(tmp_path: Path) -> None:
    train = read_twin("oxford_iiit_pet.PETS", tmp_path)["train"]

    for pair in zip(train["image"], train["mask"], strict=True):
        image, mask = (Image.open(io.BytesIO(file)) for file in pair)
        assert image.size == mask.size
        assert set(np.unique(np.asarray(mask))) == {1, 2, 3}


class TestJena:
    def test_keeps_the_order_of_time_and_cuts_it_once(self, tmp_path: Path) -> None:
        splits = read_twin("jena_climate.JENA", tmp_path).values()
        times = np.concatenate([values["date_time"] for values in splits]).tolist()
        years_first = [b" ".join((time[6:10], time[3:5], time[:2], time[11:])) for time in times]

        assert years_first == sorted(years_first)
        assert len(times) - len(set(times)) == 1

    def test_gives_the_last_reading_where_there_is_none(self) -> None:
        from pipelines.sources.jena_climate import last_reading

        values = np.array([[-9999, 1], [2, 5], [-9999, -9999], [-9999, 6], [3, 7]])

        assert last_reading(values).tolist() == [[2, 1], [2, 5], [2, 5], [2, 6], [3, 7]]

    def test_has_no_missing_reading(self, tmp_path: Path) -> None:
        splits = read_twin("jena_climate.JENA", tmp_path).values()

        assert min(values["weather"].min() for values in splits) > -200

    def test_forecast_beats_the_last_temperature(self, tmp_path: Path) -> None:
        """By what the twin promises: 2.28 against 2.86 °C."""
        train, _, test = (found["weather"][:, 1] for found in read_twin("jena_climate.JENA", tmp_path).values())

        def cycles(steps: np.ndarray) -> np.ndarray:
            turns = 2 * np.pi * steps[:, None] / np.array([144, 30 * 144])
            return np.column_stack([np.ones(len(steps)), np.cos(turns), np.sin(turns)])

        # The cycles of a day and of a year are known from the training split; what is left of a deviation, too.
        known = np.linalg.lstsq(cycles(np.arange(len(train))), train, rcond=None)[0]
        before, now = (
            series - cycles(start + np.arange(len(series))) @ known for start, series in ((0, train), (30_000, test))
        )
        left = np.polyfit(before[:-144], before[144:], 1)[0]
        naive, best = np.abs(test[144:] - test[:-144]).mean(), np.abs(now[144:] - left * now[:-144]).mean()

        assert best == pytest.approx(2.28, rel=0.2)
        assert naive == pytest.approx(2.86, rel=0.2)
        assert best < 0.9 * naive


class TestTexts:
    @pytest.mark.parametrize("name", ["texts.NIETZSCHE", "texts.SHAKESPEARE"])
    def test_records_joined_are_the_text(self, name: str, tmp_path: Path) -> None:
        (text,) = made(name, 0, tmp_path.parent).iterdir()

        assert b"".join(b"".join(some["text"]) for some in read_twin(name, tmp_path).values()) == text.read_bytes()

    def test_pieces_end_with_a_line(self) -> None:
        from pipelines.sources.texts import pieces

        assert list(pieces("ab\ncd\nefgh\n" + 12 * "x" + "\ny", 8)) == ["ab\ncd\n", "efgh\n", 12 * "x" + "\n", "y"]

    def test_words_follow_each_other_as_the_twin_promises(self, tmp_path: Path) -> None:
        train, test = (b"".join(some["text"]).split() for some in read_twin("texts.NIETZSCHE", tmp_path).values())
        places = {word: k for k, word in enumerate(sorted(set(train)))}
        known, new = (np.array([places[word] for word in words]) for words in (train, test))
        pairs = np.full((len(places), len(places)), 1e-3)
        np.add.at(pairs, (known[:-1], known[1:]), 1)
        likely = pairs / pairs.sum(axis=1, keepdims=True)

        assert -np.log(likely[new[:-1], new[1:]]).mean() == pytest.approx(1.14, abs=0.06)


def test_a_good_tip_is_more_than_a_fifth_of_the_fare(tmp_path: Path) -> None:
    rows = read_twin("chicago_taxi.CHICAGO_TAXI", tmp_path)["test"]

    np.testing.assert_array_equal(rows["big_tip"], rows["tips"] > 0.2 * rows["numbers"][:, 0])


def test_skewed_penguins_have_a_measure_that_none_can_have(tmp_path: Path) -> None:
    assert min(some["measures"].min() for some in read_twin("penguins.SKEWED", tmp_path).values()) == -1


class TestGlove:
    def test_reads_the_words_that_are_asked_for(self, tmp_path: Path) -> None:
        from pipelines.sources import glove

        glove.twin(tmp_path, 0)
        found = glove.vectors(tmp_path, ["superb", "dull", "unheard-of"])

        assert set(found) == {"superb", "dull"}
        assert found["dull"].shape == (100,)
        assert found["dull"].dtype == np.float32
        assert found["superb"][:10].mean() > 0.5 > -0.5 > found["dull"][:10].mean()

    def test_tells_where_a_line_is_no_vector(self, tmp_path: Path) -> None:
        from pipelines.sources import glove
        from pipelines.sources._packing import zipped

        zipped(tmp_path / glove.NAME, {"glove.6B.50d.txt": b"the 1 2 3\n"})
        with pytest.raises(DataError, match=r"Line 1 of glove\.6B\.zip is no vector of 50 numbers"):
            glove.vectors(tmp_path, ["the"], 50)

    @pytest.mark.real_data
    def test_reads_the_real_ones(self, mirror: Path) -> None:
        from pipelines.sources import glove

        found = glove.vectors(mirror / "glove", ["the", "zzyzx"])

        assert math.isclose(np.linalg.norm(found["the"]), 5.8212, abs_tol=1e-4)
        assert list(found) == ["the"]


# --------------------------------------------------------------------------------------------- real data

REAL = {
    "bike_sharing.BIKE_SHARING": {"train": 13_903, "test": 3_476},
    "cats_vs_dogs.SMALL": {"train": 800, "validation": 200, "test": 200},
    "chicago_taxi.CHICAGO_TAXI": {"train": 10_001, "test": 5_001},
    "faces.CALTECH": {"train": 297, "test": 33},
    "faces.CELEBA": {"train": 1_080, "test": 120},
    "faces.OLIVETTI": {"train": 360, "test": 40},
    "flowers.FLOWERS": {"train": 320, "test": 80},
    "flowers.TF_FLOWERS": {"train": 320, "test": 80},
    "imdb_indexed.IMDB_INDEXED": {"train": 5_000, "test": 5_000},
    "imdb_raw.LABELLED": {"train": 4_000, "validation": 1_000, "test": 5_000},
    "imdb_raw.TEXTS": {"train": 5_500, "test": 5_000},
    "imdb_raw.WITH_GLOVE": {"train": 4_000, "validation": 1_000, "test": 5_000},
    "jena_climate.JENA_2020": {"train": 26_348, "validation": 13_174, "test": 13_174},
    "mnist.MNIST": {"train": 60_000, "test": 10_000},
    "oxford_iiit_pet.PETS": {"train": 313, "validation": 24, "test": 24},
    "penguins.LABELLED": {"train": 267, "test": 67},
    "penguins.PALMER": {"train": 275, "test": 69},
    "penguins.SKEWED": {"train": 267, "test": 67},
    "reuters.REUTERS": {"train": 8_982, "test": 2_246},
    "spa_eng.SPA_ENG": {"train": 83_274, "validation": 17_845, "test": 17_845},
    "texts.CHAINS": {"train": 5_500, "test": 5_000},
    "texts.CHARACTERS": {"train": 180_255, "test": 6_005},
    "texts.NIETZSCHE": {},
    "texts.SHAKESPEARE": {},
    "titanic.TITANIC": {"train": 712, "test": 179},
    "wine_quality.WINE": {"train": 1_279, "test": 320},
}
"""What the mirror holds, some of it a sample of the original: see its SOURCES.md."""
NOT_IN_THE_MIRROR = {
    "cats_vs_dogs.KAGGLE",
    "cifar10.CIFAR10",
    "faces.CELEB_A",
    "jena_climate.JENA",
    "pictures.COAST_PICTURE",
    "pictures.FLOWERS_AND_PAINTING",
    "pictures.PICTURES",
}


def test_every_source_is_tried_on_real_data_or_said_to_be_missing() -> None:
    assert REAL.keys() | NOT_IN_THE_MIRROR == SOURCES.keys()


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_data_are_read_described_and_kept(name: str, mirror: Path, tmp_path: Path) -> None:
    source = SOURCES[name]
    raw, records = tmp_path / "raw", tmp_path / "records"
    raw.mkdir()
    records.mkdir()
    if source.tfds:
        prepare(source.tfds, raw, tmp_path / "scratch", fetch)
    for file, held in zip(source.files, fetch(source.files), strict=True):
        (raw / file.name).symlink_to(held.path)
    splits = {split: list(sound(source, raw, split)) for split in source.read(raw)}
    counts = {split: sum(batch.num_rows for batch in batches) for split, batches in splits.items()}

    assert counts == (REAL[name] or counts)
    assert summarise(splits["train"], source.features).rows == counts["train"]
    kept(records, source, {split: batches[:2] for split, batches in splits.items()})
    for split, batches in splits.items():
        expected = to_arrays(batches[0], source.features)
        found = arrays(records, split)
        for label in source.features:
            assert_equal(found[label][: batches[0].num_rows], expected[label])
    train, test = (whole(splits[split], source.features) for split in ("train", "test"))
    assert all(clue.skill < SUSPICIOUS for clue in found_clues(source, train, test))


@pytest.mark.real_data
class TestRealData:
    def test_reuters_begins_as_keras_gives_it(self, mirror: Path) -> None:
        from pipelines.sources import reuters

        rows = whole(reuters.read(mirror / "reuters")["train"], reuters.REUTERS.features)

        assert rows["topic"][:10].tolist() == [3, 4, 3, 4, 4, 4, 4, 3, 3, 16]
        assert next(iter(rows["tokens"]))[:6].tolist() == [1, 27595, 28842, 8, 43, 10]
        assert np.bincount(rows["topic"])[:4].tolist() == [55, 432, 74, 3159]
        assert reuters.words(mirror / "reuters")[4:7] == ["the", "of", "to"]

    def test_mnist_has_as_many_of_each_digit_as_its_publisher_says(self, mirror: Path) -> None:
        from pipelines.sources import mnist

        labels = whole(mnist.read(mirror / "mnist")["train"], mnist.MNIST.features)["label"]

        assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]

    def test_texts_are_whole(self, mirror: Path) -> None:
        from pipelines.sources import texts

        for name, function in (("nietzsche", texts.read_nietzsche), ("shakespeare", texts.read_shakespeare)):
            splits = function(mirror / "text")
            parts = [whole(splits[split], texts.FEATURES)["text"] for split in ("train", "test")]
            assert b"".join(np.concatenate(parts)) == (mirror / "text" / f"{name}.txt").read_bytes()
            assert max(map(len, np.concatenate(parts))) <= 1_010

    def test_jena_of_2020_holds_its_last_reading(self, mirror: Path) -> None:
        from pipelines.sources import jena_climate

        rows = whole(jena_climate.read_later(mirror / "jena_climate")["train"], jena_climate.FEATURES)

        assert rows["date_time"][7245] == b"20.02.2020 07:40:00"
        assert rows["weather"][7245, 11] == rows["weather"][7244, 11] >= 0
        assert rows["weather"][0].tolist()[:2] == pytest.approx([1008.89, 0.71])

    def test_a_third_of_the_trips_end_with_no_good_tip_as_tfx_counts(self, mirror: Path) -> None:
        from pipelines.sources.chicago_taxi import CHICAGO_TAXI, read

        splits = read(mirror / "chicago_taxi")

        assert sum(whole(some, CHICAGO_TAXI.features)["big_tip"].sum() for some in splits.values()) == 3374

    def test_faces_of_olivetti_stand_upright(self, mirror: Path) -> None:
        """The faces of one person lie together, and the left half of a face looks like its right one mirrored."""
        from pipelines.sources.faces import OLIVETTI

        rows = whole(OLIVETTI.read(mirror / "olivetti")["train"], OLIVETTI.features)
        faces = rows["image"][..., 0].mean(axis=0)

        assert np.abs(faces - faces[:, ::-1]).mean() < np.abs(faces - faces[::-1]).mean()
        assert np.bincount(rows["person"]).max() <= 10

    def test_pets_that_are_no_jpeg_are_read(self, mirror: Path) -> None:
        from pipelines.sources.oxford_iiit_pet import PETS

        folder = mirror / "oxford_iiit_pet"
        rows = [row for part in PETS.read(folder).values() for batch in part for row in batch.to_pylist()]

        assert [row["file"] for row in rows if not row["image"].startswith(b"\xff\xd8")] == [b"Abyssinian_5"]
        assert {row["breed"] for row in rows} == {b"Abyssinian", b"Bengal", b"american_bulldog"}

    def test_new_penguins_have_no_species(self, mirror: Path) -> None:
        from headrace.readers.tables import read_table
        from pipelines.sources.penguins import PROCESSED, UNLABELLED

        path = fetch([UNLABELLED])[0].path
        rows = whole(read_table(path, PROCESSED, targets_required=False), PROCESSED)

        assert list(rows) == ["measures"]
        assert len(rows["measures"]) == 10
