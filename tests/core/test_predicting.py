"""`headrace predict`: every row of a file through a published model, and none dropped in silence."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from headrace import projects
from headrace.errors import ConfigError, DataError, StageFailed
from headrace.readers.batches import batches
from headrace.records.writing import write
from headrace.serving import bundles, predicting
from headrace.serving.answers import columns
from headrace.serving.bundles import Bundle, Target
from headrace.serving.predicting import Request, predict
from headrace.serving.rows import portions
from headrace.spec import Column, Feature
from tests.conftest import PROJECT
from tests.core.making import picture
from tests.core.serving_models import prices, publish, save_letters, save_prices

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

Headrace = Callable[..., Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A SavedModel of prices and its Keras model."""
    model = prices(1)
    return save_prices(tmp_path_factory.mktemp("prices") / "model", model), model


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_letters(tmp_path_factory.mktemp("letters") / "model")


@pytest.fixture
def published(saved: tuple[Path, Any]) -> Any:
    """The model of prices, blessed; its Keras model."""
    publish(saved[0], "prices")
    return saved[1]


FEATURES = projects.load("house_prices").sources["boston"].named("input")
NAMES = [column.name for column in FEATURES["features"].columns]


def houses(rows: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(rows, 13)).astype(np.float32)


def table(path: Path, values: Any, **cells: dict[int, str]) -> Path:
    """A CSV of houses; `CHAS={3: "abc"}` puts something else into a cell."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *NAMES])
        for row, example in enumerate(values):
            texts = {name: repr(float(value)) for name, value in zip(NAMES, example, strict=True)}
            texts |= {name: changed[row] for name, changed in cells.items() if row in changed}
            writer.writerow([f"house {row}", *texts.values()])
    return path


def answers(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text().splitlines()]


def text_bundle(path: Path, **feature: Any) -> Bundle:
    given = {"text": Feature(dtype="string", **feature)}
    return Bundle("letters", 1, path, given, {"scores": Target("multiclass", ("many", "few"))})


def lengths(path: Path) -> list[int]:
    return [answer["length"] for answer in answers(path)]


class TestTables:
    @pytest.mark.parametrize("name", ["answers.jsonl", "answers.parquet"])
    def test_every_row_has_its_answer_and_its_place(
        self, headrace: Headrace, published: Any, tmp_path: Path, name: str
    ) -> None:
        given = houses(600)
        output = tmp_path / name
        words = ["--input", str(table(tmp_path / "new.csv", given)), "--output", str(output), "--keep", "name"]
        result = headrace("predict", "house_prices", *words)

        found = answers(output)
        assert result.code == 0, result.err
        assert "answered 600 rows" in result.out
        assert [(answer["row"], answer["name"]) for answer in found] == [(i, f"house {i}") for i in range(600)]
        expected = published(given).numpy()[:, 0]
        np.testing.assert_allclose([answer["price"] for answer in found], expected, rtol=1e-5, atol=1e-6)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "home", "new.csv"])

    def test_a_row_that_cant_be_used_is_listed_with_its_line_and_reason(
        self, headrace: Headrace, published: Any, tmp_path: Path
    ) -> None:
        path = table(tmp_path / "new.csv", houses(300), CHAS={3: "abc"}, RM={3: "inf", 290: ""})
        path.write_text(path.read_text() + "house 300,1,2\n")
        output = tmp_path / "answers.jsonl"
        result = headrace("predict", "house_prices", "--input", str(path), "--output", str(output), "--json")

        noted = answers(tmp_path / "answers.jsonl.quarantine.jsonl")
        assert result.code == DataError.exit_code
        assert (result.json["answered"], result.json["quarantined"], result.json["exit_code"]) == (298, 3, 3)
        told = [(n["row"], n["line"], [(p["column"], p["reason"], p["value"]) for p in n["problems"]]) for n in noted]
        assert told == [
            (3, 5, [("CHAS", "holds text instead of a number", "abc"), ("RM", "is infinite", "inf")]),
            (290, 292, [("RM", "is empty", "")]),
            (300, 302, [("", "has no values, or another number of cells than the header", "")]),
        ]
        assert {answer["row"] for answer in answers(output)} == set(range(300)) - {3, 290}

    def test_targets_need_not_be_there_nor_be_sound(self, headrace: Headrace, published: Any, tmp_path: Path) -> None:
        values = [[*map(repr, map(float, example)), "unknown"] for example in houses(3)]
        path = tmp_path / "with_target.csv"
        path.write_text("\n".join([",".join([*NAMES, "MEDV"]), *(",".join(row) for row in values)]))
        output = tmp_path / "answers.jsonl"

        assert headrace("predict", "house_prices", "--input", str(path), "--output", str(output)).code == 0
        assert len(answers(output)) == 3

    @pytest.mark.parametrize("kind", ["npz", "parquet", "tfrecord"])
    def test_arrays_parquet_and_records_give_the_same_answers(self, published: Any, tmp_path: Path, kind: str) -> None:
        given = houses(20)
        path = tmp_path / f"new.{kind}"
        if kind == "npz":
            np.savez(path, features=given)
        elif kind == "parquet":
            parquet.write_table(pa.table({name: given[:, i] for i, name in enumerate(NAMES)}), path)
        else:
            written = write(tmp_path, "train", batches({"features": given}), FEATURES)
            (tmp_path / written.shards[0]).rename(path)
        found = predict(Request(bundles.published("house_prices"), path, tmp_path / "out.parquet"))

        assert (found.answered, found.quarantined) == (20, 0)
        expected = published(given).numpy()[:, 0]
        np.testing.assert_allclose([a["price"] for a in answers(tmp_path / "out.parquet")], expected, rtol=1e-5)

    def test_what_was_asked_is_kept_for_monitoring_unless_it_shall_not(
        self, headrace: Headrace, published: Any, tmp_path: Path, headrace_home: Path
    ) -> None:
        words = ["--input", str(table(tmp_path / "new.csv", houses(30))), "--output", str(tmp_path / "out.jsonl")]
        headrace("predict", "house_prices", *words, "--no-log")
        assert not (headrace_home / "requests").exists()
        assert headrace("predict", "house_prices", *words, "--json").json["kept"] == 30
        (file,) = (headrace_home / "requests" / "house_prices").rglob("*.parquet")

        assert set(NAMES) < set(parquet.read_table(file).column_names)


class TestLines:
    def test_json_lines_go_in_and_out_by_standard_streams(
        self, headrace: Headrace, published: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = houses(4)
        lines = [json.dumps({"features": given[0].tolist()}), "", json.dumps(given[1].tolist())]
        lines += [json.dumps(dict(zip(NAMES, map(float, given[2]), strict=True))), "{", '{"CRIM": 1}']
        lines += [json.dumps({"features": [1, 2]}), json.dumps({"features": [*map(float, given[3][:12]), "x"]})]
        stream = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
        monkeypatch.setattr(sys, "stdin", stream)
        result = headrace("predict", "house_prices", "--input", "-")

        found = [json.loads(line) for line in result.out.splitlines()]
        assert result.code == DataError.exit_code
        assert [answer["row"] for answer in found] == [0, 1, 2]
        expected = published(given[:3]).numpy()[:, 0]
        np.testing.assert_allclose([answer["price"] for answer in found], expected, rtol=1e-5)
        for words in (
            "line 5: is no JSON",
            "line 6: ZN is missing",
            "line 7: features is not of shape [13]",
            "line 8: features is no number",
            "4 rows could not be used",
        ):
            assert words in result.err

    def test_a_text_file_has_an_example_on_each_line(self, letters: Path, tmp_path: Path) -> None:
        (tmp_path / "new.txt").write_bytes("one\n\nzwölf\n".encode() + b"\xff\nlast")
        found = predict(Request(text_bundle(letters), tmp_path / "new.txt", tmp_path / "out.jsonl"))

        assert lengths(tmp_path / "out.jsonl") == [3, 6, 4]
        assert (found.quarantined, found.exit_code) == (1, 3)
        (noted,) = answers(tmp_path / "out.jsonl.quarantine.jsonl")
        assert (noted["row"], noted["line"], noted["problems"][0]["reason"]) == (2, 4, "is no UTF-8")

    def test_a_row_with_which_the_model_fails_is_listed_and_the_others_are_answered(
        self, letters: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "new.txt").write_text("\n".join(["fail" if i == 7 else f"text {i}" for i in range(20)]))
        predict(Request(text_bundle(letters), tmp_path / "new.txt", tmp_path / "out.jsonl"))

        (noted,) = answers(tmp_path / "out.jsonl.quarantine.jsonl")
        assert [answer["row"] for answer in answers(tmp_path / "out.jsonl")] == [i for i in range(20) if i != 7]
        assert noted["row"] == 7
        assert "a text that fails" in noted["problems"][0]["reason"]

    def test_a_model_that_fails_with_every_row_leaves_nothing(self, letters: Path, tmp_path: Path) -> None:
        (tmp_path / "new.txt").write_text("fail\nfail\n")
        with pytest.raises(StageFailed, match="fails with every row"):
            predict(Request(text_bundle(letters), tmp_path / "new.txt", tmp_path / "out.jsonl"))
        assert [path.name for path in tmp_path.iterdir()] == ["new.txt"]


class TestFiles:
    def images(self, folder: Path) -> dict[str, bytes]:
        made = {f"{name}.png": picture(np.full((4 + i, 4), 9 * i)) for i, name in enumerate(("b", "sub/a", "c"))}
        for name, content in {**made, "broken.png": b"no image", "notes.md": b"# notes"}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return made

    @pytest.mark.parametrize("packed", [False, True])
    def test_images_in_a_folder_or_an_archive_are_called_by_their_paths(
        self, letters: Path, tmp_path: Path, packed: bool
    ) -> None:
        made = self.images(tmp_path / "photos")
        source = tmp_path / "photos"
        if packed:
            source = tmp_path / "photos.zip"
            with zipfile.ZipFile(source, "w") as archive:
                for path in sorted((tmp_path / "photos").rglob("*.*")):
                    archive.write(path, path.relative_to(tmp_path / "photos"))
        found = predict(Request(text_bundle(letters, content="image"), source, tmp_path / "out.jsonl"))

        assert {answer["file"]: answer["length"] for answer in answers(tmp_path / "out.jsonl")} == {
            name: len(content) for name, content in made.items()
        }
        (noted,) = answers(tmp_path / "out.jsonl.quarantine.jsonl")
        assert noted["problems"][0]["reason"].startswith("is no image")
        assert found.answered == 3


class TestAnswers:
    def test_classes_are_answered_by_name_and_probability(self) -> None:
        outputs = {
            "digit": np.array([[0.1, 0.9], [0.75, 0.25]], np.float32),
            "spam": np.array([[0.25], [0.5]], np.float32),
            "tags": np.array([[0.9, 0.2], [0.5, 0.6]], np.float32),
            "mask": np.zeros((2, 2, 3), np.float32),
        }
        targets = {
            "digit": Target("multiclass", ("one", "two")),
            "spam": Target("binary", ("no", "yes")),
            "tags": Target("multilabel", ("red", "round")),
            "mask": Target("segmentation"),
        }
        found = {name: values.to_pylist() for name, values in columns(outputs, targets).items()}

        assert found["digit_label"] == ["two", "one"]
        assert found["digit_probability"] == pytest.approx([0.9, 0.75])
        assert found["spam_label"] == ["no", "yes"]
        assert found["spam_probability"] == pytest.approx([0.75, 0.5])
        assert found["spam"] == [0.25, 0.5]
        assert found["tags_labels"] == [["red"], ["red", "round"]]
        assert found["mask"] == np.zeros((2, 2, 3)).tolist()

    def test_logits_are_made_probabilities(self) -> None:
        found = columns({"y": np.array([[0.0, np.log(3)]])}, {"y": Target("multiclass")})

        assert found["y_label"].to_pylist() == ["1"]
        assert found["y_probability"].to_pylist() == pytest.approx([0.75])


class TestRows:
    def test_examples_of_each_kind_come_in_order_with_their_places(self, tmp_path: Path) -> None:
        features = {
            "x": Feature(shape=(2,), columns=(Column(name="a"), Column(name="b"))),
            "port": Feature(dtype="int64", classes=("C", "Q")),
            "fare": Feature(optional=True),
            "tokens": Feature(shape=(None,), dtype="int64"),
        }
        good = {"x": [1, 2], "port": "Q", "tokens": [1, 2, 3]}
        lines = [good, {**good, "port": "Z"}, {**good, "fare": 2.5, "tokens": []}, {**good, "tokens": [1.5]}]
        path = tmp_path / "new.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines))
        (found,) = portions(path, features, {})

        assert found.rows.tolist() == [0, 2]
        assert found.batch.column("port").to_pylist() == [1, 1]
        assert found.batch.column("fare").to_pylist() == [None, 2.5]
        assert found.batch.column("tokens").to_pylist() == [[1, 2, 3], []]
        assert [bad.row for bad in found.bad] == [1, 3]


def refused(headrace: Headrace, *words: str) -> str:
    result = headrace("predict", "house_prices", *words)
    assert result.code == ConfigError.exit_code, result.err
    return result.err


class TestRequests:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--input", "none.csv", "--output", "a.jsonl"], "There is no file or folder none.csv"),
            (["--input", "new.csv", "--output", "a.txt"], "a.txt does not say what is to be written"),
            (["--input", "new.csv", "--format", "parquet"], "can't be written to standard output"),
            (["--input", "new.csv", "--json"], "--json needs --output"),
            (["--input", "new.csv", "--output", "a.jsonl", "--keep", "names"], "did you mean `name`?"),
            (["--input", "new.csv", "--version", "9"], "house_prices has no version 9"),
            (["--input", "new.csv", "--bundle", ".", "--line", "x"], "A folder has neither lines nor versions"),
        ],
    )
    def test_what_makes_no_sense_is_refused_and_leaves_nothing(
        self,
        headrace: Headrace,
        published: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        words: Sequence[str],
        said: str,
    ) -> None:
        table(tmp_path / "new.csv", houses(3))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(projects, "root", lambda: PROJECT)

        assert said in refused(headrace, *words)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "new.csv"]

    def test_a_file_that_breaks_off_leaves_the_answers_of_before(self, published: Any, tmp_path: Path) -> None:
        output = tmp_path / "out.jsonl"
        output.write_text("before\n")
        bundle = bundles.published("house_prices")
        (tmp_path / "new.parquet").write_bytes(b"PAR1 and no more")

        with pytest.raises(DataError):
            predict(Request(bundle, tmp_path / "new.parquet", output))
        assert output.read_text() == "before\n"
        assert not list(tmp_path.glob(".out*"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(published: Any, tmp_path: Path, headrace_home: Path) -> None:
    """A file ten times as long, scored in a process of its own each time."""
    peaks = []
    for rows in (30_000, 300_000):
        path = tmp_path / f"{rows}.parquet"
        parquet.write_table(pa.table({name: houses(rows)[:, i] for i, name in enumerate(NAMES)}), path)
        words = ["predict", "house_prices", "--input", str(path), "--output", str(tmp_path / "out.parquet")]
        code = f"""
import sys
from headrace.__main__ import main
code = main({words!r})
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
sys.exit(code)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 60_000, peaks


def test_the_command_names_its_parts_without_loading_tensorflow() -> None:
    code = "import sys; import headrace.cli.serving; print('tensorflow' in sys.modules, 'numpy' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]
    assert predicting.SHOWN
