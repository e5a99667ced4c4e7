"""Arrays and tables become batches that can be gone through again; what is wrong in a file is told with its place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from headrace.errors import ConfigError, DataError
from headrace.spec import Column, Feature, Source
from headrace.tables import batches, own_table, read_arrays, read_table, to_arrays

FEATURES = {
    "features": Feature(shape=(2,), columns=(Column(name="RM"), Column(name="AGE"))),
    "price": Feature(shape=(1,), role="target", columns=(Column(name="MEDV"),)),
}
GOOD = "RM,AGE,MEDV\n6.5,65,24\n6.4,78.9,21.6\n7.2,61,34.7\n"

Write = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Write:
    """Write a table; text as CSV, columns as Parquet."""

    def write(content: str | bytes | dict[str, Sequence[Any]] = GOOD, name: str = "houses") -> Path:
        if isinstance(content, dict):
            path = tmp_path / f"{name}.parquet"
            pyarrow.parquet.write_table(pa.table(content), path)
        else:
            path = tmp_path / f"{name}.csv"
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read(path: Path, features: dict[str, Feature] = FEATURES, **options: Any) -> dict[str, np.ndarray]:
    """All rows of a table."""
    parts = [to_arrays(batch, features) for batch in read_table(path, features, **options)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def refusal(path: Path, features: dict[str, Feature] = FEATURES, **options: Any) -> str:
    """What is said of a table that is refused."""
    with pytest.raises(DataError) as caught:
        read_table(path, features, **options)
    assert len(str(caught.value).splitlines()) <= 12
    return str(caught.value)


class TestArrays:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Callable[..., Path]:
        def write(**arrays: Any) -> Path:
            random = np.random.default_rng(0)
            defaults = {"x": random.random((20, 3)), "y": random.random(20)}
            path = tmp_path / "houses.npz"
            np.savez(path, **{name: values for name, values in (defaults | arrays).items() if values is not None})
            return path

        return write

    @staticmethod
    def refusal(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            read_arrays(path, {"x": 2, "y": 1})
        return str(caught.value)

    def test_are_read_as_they_were_written(self, archive: Callable[..., Path]) -> None:
        x = np.arange(6.0).reshape(3, 2)
        arrays = read_arrays(archive(x=x, y=np.arange(3), z=np.ones(9)), {"x": 2, "y": 1})

        assert list(arrays) == ["x", "y"]
        np.testing.assert_array_equal(arrays["x"], x)
        np.testing.assert_array_equal(arrays["y"], [0, 1, 2])

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    def test_a_truncated_archive_is_refused(self, archive: Callable[..., Path], share: float) -> None:
        path = archive()
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

        said = self.refusal(path)
        assert said.startswith("houses.npz can't be read: it is truncated or damaged.")
        assert f"put a sound {path.name} where this one came from" in said

    def test_no_altered_byte_gives_anything_but_the_arrays_or_a_clear_error(self, archive: Callable[..., Path]) -> None:
        """Zip, zlib and the header's parser raise errors of many kinds; none of them reaches a person."""
        path = archive()
        whole = path.read_bytes()
        refused = 0
        for position in range(0, len(whole), 3):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x11]) + whole[position + 1 :])
            try:
                read_arrays(path, {"x": 2, "y": 1})
            except DataError:
                refused += 1
        assert refused > 150

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path / "no.npz").startswith(f"There is no file {tmp_path / 'no.npz'}.")

    def test_a_single_array_is_no_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "houses.npz"
        with path.open("wb") as file:
            np.save(file, np.ones(3))
        assert "a single array" in self.refusal(path)

    def test_pickled_objects_are_never_loaded(self, archive: Callable[..., Path]) -> None:
        assert "can't be read" in self.refusal(archive(x=np.array([[{"code": "evil"}]], dtype=object)))

    def test_all_that_is_wrong_is_told_at_once(self, archive: Callable[..., Path]) -> None:
        said = self.refusal(archive(x=np.array(["a", "b"]), y=None, price=np.ones(2)))

        assert "there is no array `y`: there is `price`, `x`" in said
        assert "`x` holds no numbers but <U1" in said
        assert "`x` has 1 dimensions (2,), not 2" in said

    def test_unequal_lengths_are_told(self, archive: Callable[..., Path]) -> None:
        assert "the arrays differ in length: `x` 20, `y` 19" in self.refusal(archive(y=np.ones(19)))

    def test_arrays_without_examples_are_refused(self, archive: Callable[..., Path]) -> None:
        assert "`x` is empty: its shape is (0, 3)" in self.refusal(archive(x=np.ones((0, 3))))


class TestBatches:
    def test_hold_the_arrays_in_their_order(self) -> None:
        arrays = {"x": np.arange(20.0).reshape(10, 2), "label": np.arange(10)}
        features = {"x": Feature(shape=(2,)), "label": Feature(dtype="int64")}
        cut = list(batches(arrays, rows=4))

        assert [batch.num_rows for batch in cut] == [4, 4, 2]
        assert cut[0].schema.field("x").type == pa.list_(pa.field("item", pa.float32()), 2)
        assert cut[0].schema.field("label").type == pa.int64()
        together = [to_arrays(batch, features) for batch in cut]
        np.testing.assert_array_equal(np.concatenate([part["x"] for part in together]), arrays["x"])
        np.testing.assert_array_equal(np.concatenate([part["label"] for part in together]), arrays["label"])

    def test_can_be_gone_through_again(self) -> None:
        again = batches({"x": np.arange(5)}, rows=2)
        assert [b.to_pydict() for b in again] == [b.to_pydict() for b in again] != []

    def test_keep_the_shape_of_examples(self) -> None:
        images = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        (batch,) = batches({"image": images})
        back = to_arrays(batch, {"image": Feature(shape=(3, 4))})
        np.testing.assert_array_equal(back["image"], images)

    def test_do_not_mind_how_an_array_lies_in_memory(self) -> None:
        x = np.arange(24, dtype=np.float32).reshape(4, 6)
        (batch,) = batches({"x": x[::2, ::-2], "y": x[::2, 1], "z": np.asfortranarray(x)[:2]})
        back = to_arrays(batch, {"x": Feature(shape=(3,)), "y": Feature(), "z": Feature(shape=(6,))})
        np.testing.assert_array_equal(back["x"], x[::2, ::-2])
        np.testing.assert_array_equal(back["y"], x[::2, 1])
        np.testing.assert_array_equal(back["z"], x[:2])

    def test_of_a_slice_give_the_slice(self) -> None:
        """A slice of a list column keeps the whole column's values behind it."""
        (batch,) = batches({"x": np.arange(10.0).reshape(5, 2)})
        back = to_arrays(batch.slice(3, 1), {"x": Feature(shape=(2,))})
        np.testing.assert_array_equal(back["x"], [[6, 7]])

    def test_carry_text(self) -> None:
        words = np.array(["ein", "zwei"])
        (batch,) = batches({"word": words})
        assert to_arrays(batch, {"word": Feature(dtype="string")})["word"].tolist() == ["ein", "zwei"]

    def test_make_a_number_that_is_too_large_infinite(self) -> None:
        (batch,) = batches({"x": np.array([1e300])})
        assert batch.column("x").to_pylist() == [float("inf")]


class TestTables:
    def test_a_csv_file_is_packed_into_its_features(self, table: Write) -> None:
        rows = read(table())
        np.testing.assert_array_equal(rows["features"], np.float32([[6.5, 65], [6.4, 78.9], [7.2, 61]]))
        np.testing.assert_array_equal(rows["price"], np.float32([[24], [21.6], [34.7]]))

    def test_columns_are_found_by_name_and_others_are_ignored(
        self, table: Write, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        rows = read(table('id,MEDV,AGE,RM,note\n1,24,65,6.5,"a\nb"\n2,21.6,78.9,6.4,\n'))
        np.testing.assert_array_equal(rows["features"], np.float32([[6.5, 65], [6.4, 78.9]]))
        assert "houses.csv: ignored id, note" in caplog.text

    def test_parquet_gives_the_same_as_csv(self, table: Write) -> None:
        columns = {"MEDV": [24, 21.6, 34.7], "AGE": [65, 78.9, 61], "RM": [6.5, 6.4, 7.2], "other": ["a", "b", "c"]}
        from_csv, from_parquet = read(table()), read(table(columns))
        for name in FEATURES:
            np.testing.assert_array_equal(from_parquet[name], from_csv[name])

    def test_integers_in_parquet_are_numbers_too(self, table: Write) -> None:
        rows = read(table({"RM": [6, 7], "AGE": [True, False], "MEDV": [24.0, 21.0]}))
        np.testing.assert_array_equal(rows["features"], [[6, 1], [7, 0]])

    @pytest.mark.parametrize(
        "text",
        [
            "\ufeff" + GOOD,
            GOOD.replace("\n", "\r\n"),
            GOOD.removesuffix("\n"),
            "\n" + GOOD.replace("\n", "\n\n"),
            GOOD.replace("6.5", '" 6.5 "').replace("RM", '"RM"'),
            GOOD.replace("6.5", "+0.65e1"),
        ],
        ids=["byte order mark", "CRLF", "no line break at the end", "empty lines", "quotes", "exponent"],
    )
    def test_csv_is_read_in_all_its_dialects(self, table: Write, text: str) -> None:
        np.testing.assert_array_equal(read(table(text))["features"], read(table(GOOD, "good"))["features"])

    def test_whole_numbers_and_text_keep_their_types(self, table: Write) -> None:
        features = {"rooms": Feature(dtype="int64"), "town": Feature(dtype="string")}
        rows = read(table("town,rooms\nNA,9007199254740993\n Ulm,-2\n"), features)
        assert rows["rooms"].tolist() == [9007199254740993, -2]
        assert rows["town"].tolist() == ["NA", " Ulm"]

    def test_numbers_are_those_that_an_archive_of_doubles_gives(self, table: Write) -> None:
        """Read as float32 at once, this one would be rounded up: rounded twice, it is not."""
        text = "16777217.00000000001"
        rows = read(table(GOOD.replace("6.5", text)))
        assert rows["features"][0, 0] == np.float32(float(text)) == 16777216

    def test_a_cell_with_a_line_break_is_one_cell_in_a_large_file_too(self, table: Write) -> None:
        path = table("RM,AGE,MEDV,note\n" + '1,2,3,"a\nb"\n' * 150_000)
        assert len(read(path)["price"]) == 150_000

    def test_a_large_table_is_cut_into_batches(self, table: Write) -> None:
        path = table("RM,AGE,MEDV\n" + "1,2,3\n" * 10_000)
        assert [batch.num_rows for batch in read_table(path, FEATURES)] == [8192, 1808]

    def test_targets_may_be_absent_where_they_are_not_known_yet(self, table: Write) -> None:
        path = table("RM,AGE\n6.5,65\n")
        assert list(read(path, targets_required=False)) == ["features"]
        assert "there is no column `MEDV`" in refusal(path)

    def test_targets_that_are_there_must_be_sound(self, table: Write) -> None:
        path = table("RM,AGE,MEDV\n6.5,65,\n")
        assert "MEDV, the target, is empty on line 2" in refusal(path, targets_required=False)


class TestRefusals:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "no.csv").startswith(f"There is no file {tmp_path / 'no.csv'}.")

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "houses.csv").mkdir()
        assert "is no file" in refusal(tmp_path / "houses.csv")

    def test_an_unknown_ending(self, tmp_path: Path) -> None:
        path = tmp_path / "houses.xlsx"
        path.touch()
        assert "its ending is `.xlsx`" in refusal(path)
        assert "expected: a file that ends in .csv or .parquet" in refusal(path)

    @pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
    def test_an_empty_file(self, table: Write, text: str) -> None:
        assert refusal(table(text)).startswith("houses.csv is empty.")

    @pytest.mark.parametrize("content", ["RM,AGE,MEDV", "RM,AGE,MEDV\n", {"RM": [], "AGE": [], "MEDV": []}])
    def test_a_table_without_rows(self, table: Write, content: Any) -> None:
        assert "has no rows." in refusal(table(content))

    def test_a_missing_column_with_the_nearest_name(self, table: Write) -> None:
        said = refusal(table(GOOD.replace("MEDV", "MEDVAL")))
        assert said == (
            "houses.csv can't be used:\n"
            "  - there is no column `MEDV`: did you mean `MEDVAL`?\n"
            "  expected: the columns RM, AGE, MEDV\n"
            f"  to go on: correct {said.rpartition('correct ')[2]}"
        )

    def test_a_missing_column_of_a_parquet_file(self, table: Write) -> None:
        assert "there is no column `AGE`: there is `MEDV`, `RM`" in refusal(table({"RM": [1.0], "MEDV": [2.0]}))

    def test_many_missing_columns_in_a_few_lines(self, table: Write) -> None:
        features = {"x": Feature(shape=(9,), columns=tuple(Column(name=f"c{i}") for i in range(9)))}
        said = refusal(table(), features)
        assert "6 more columns are missing: c3, c4, c5, c6, c7, c8" in said

    def test_a_column_that_is_there_twice(self, table: Write) -> None:
        assert "there are 2 columns `RM`" in refusal(table("RM,AGE,MEDV,RM\n1,2,3,4\n"))

    def test_another_separator_with_the_remedy(self, table: Write) -> None:
        assert "to go on: separate the columns by commas" in refusal(table(GOOD.replace(",", ";")))

    def test_text_in_a_number_with_line_and_value(self, table: Write) -> None:
        said = refusal(table(GOOD.replace("6.4", "six").replace("61", "61 years")))
        assert 'RM holds text instead of a number on line 3 ("six")' in said
        assert 'AGE holds text instead of a number on line 4 ("61 years")' in said

    @pytest.mark.parametrize("cell", ["1_000", "0x10", "1d5", "6,5", "?", "--1"])
    def test_whatever_arrow_takes_for_no_number(self, table: Write, cell: str) -> None:
        assert "text instead of a number on line 2" in refusal(table(GOOD.replace("6.5", f'"{cell}"')))

    @pytest.mark.parametrize("cell", ["NaN", "nan", "NA", "N/A", "null", "#N/A", "None"])
    def test_a_target_that_is_not_a_number(self, table: Write, cell: str) -> None:
        assert f'MEDV, the target, has no value on line 3 ("{cell}")' in refusal(table(GOOD.replace("21.6", cell)))

    def test_an_empty_target(self, table: Write) -> None:
        assert "MEDV, the target, is empty on line 2, line 4\n" in refusal(
            table(GOOD.replace("24\n", "\n").replace("34.7", ""))
        )

    def test_an_empty_input(self, table: Write) -> None:
        assert "AGE is empty on line 4" in refusal(table(GOOD.replace("61", " ")))

    @pytest.mark.parametrize("cell", ["inf", "-Infinity"])
    def test_an_infinite_number(self, table: Write, cell: str) -> None:
        assert f'RM is infinite on line 2 ("{cell}")' in refusal(table(GOOD.replace("6.5", cell)))

    @pytest.mark.parametrize("cell", ["1e39", "-1e400"])
    def test_a_number_that_does_not_fit_in_float32(self, table: Write, cell: str) -> None:
        assert f'RM is too large on line 2 ("{cell}")' in refusal(table(GOOD.replace("6.5", cell)))

    def test_a_whole_number_that_is_none(self, table: Write) -> None:
        features = {"rooms": Feature(dtype="int64")}
        said = refusal(table("rooms\n1.5\n7\n99999999999999999999\n"), features)
        assert 'rooms is no whole number on line 2 ("1.5")' in said
        assert 'rooms is too large on line 4 ("99999999999999999999")' in said

    def test_empty_text(self, table: Write) -> None:
        features = {"town": Feature(dtype="string"), "rooms": Feature()}
        assert "town is empty on line 3" in refusal(table("town,rooms\nUlm,1\n,2\n"), features)

    def test_the_first_places_of_each_problem_and_how_many_there_are(self, table: Write) -> None:
        said = refusal(table("RM,AGE,MEDV\n" + "1,?,\n" * 2_000))
        assert 'AGE holds text instead of a number on line 2 ("?"), line 3 ("?"), line 4 ("?") and 1,997 more' in said
        assert "MEDV, the target, is empty on line 2, line 3, line 4 and 1,997 more" in said

    def test_line_numbers_count_empty_lines_and_line_breaks_in_cells(self, table: Write) -> None:
        said = refusal(table('RM,note,AGE,MEDV\n\n1,"a\nb",2,3\n\nsix,c,2,3\n'))
        assert 'RM holds text instead of a number on line 6 ("six")' in said

    def test_rows_that_are_too_short_or_too_long(self, table: Write) -> None:
        said = refusal(table(GOOD + "6.5,65\n1,2,3,4\n"))
        assert "a row of 2 cells instead of 3 stands on line 5" in said
        assert "a row of 4 cells instead of 3 stands on line 6" in said

    def test_a_quote_that_is_never_closed(self, table: Write) -> None:
        """It swallows the rows behind it, and what is left looks sound."""
        said = refusal(table('RM,AGE,MEDV,note\n1,2,3,a\n4,5,6,"b\n7,8,9,c\n'))
        assert "a quote that opens on line 3 is never closed" in said

    def test_a_quote_within_a_word_is_a_letter(self, table: Write) -> None:
        assert len(read(table('RM,AGE,MEDV,note\n1,2,3,5" pipe\n4,5,6,b\n'))["price"]) == 2

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
    def test_another_encoding(self, table: Write, encoding: str) -> None:
        text = "RM,AGE,MEDV,town\n" + "1,2,3,Ulm\n" * 5_000 + "4,5,6,Köln\n"
        said = refusal(table(text.encode(encoding)))
        assert said.startswith("houses.csv can't be read as CSV.")
        assert f"letters on line {5_002 if encoding == 'latin-1' else 1} that are not UTF-8" in said

    def test_a_truncated_parquet_file(self, table: Write) -> None:
        path = table({"RM": [1.0], "AGE": [1.0], "MEDV": [1.0]})
        path.write_bytes(path.read_bytes()[:-10])
        assert refusal(path).startswith("houses.parquet can't be read as Parquet.")

    def test_cells_of_a_parquet_file_by_their_rows(self, table: Write) -> None:
        said = refusal(table({"RM": ["6.5", "six"], "AGE": [None, 65.0], "MEDV": [24.0, float("nan")]}))
        assert 'RM holds text instead of a number on row 2 ("six")' in said
        assert "AGE is empty on row 1" in said
        assert 'MEDV, the target, has no value on row 2 ("nan")' in said

    def test_nothing_but_a_nan_in_a_parquet_file(self, table: Write) -> None:
        said = refusal(table({"RM": [6.5], "AGE": [65.0], "MEDV": [float("nan")]}))
        assert "MEDV, the target, has no value on row 1" in said

    def test_whole_numbers_that_a_parquet_file_holds_in_another_type_are_no_problem(self, table: Write) -> None:
        features = {"rooms": Feature(dtype="int64"), "river": Feature(dtype="int64")}
        said = refusal(table({"rooms": [5.0, 1.5], "river": [True, None]}), features)
        assert 'rooms is no whole number on row 2 ("1.5")' in said
        assert "river is empty on row 2" in said
        assert "row 1" not in said

    def test_a_vector_without_column_names(self, table: Write) -> None:
        with pytest.raises(ConfigError, match="`x` can't be read from a table: it names no columns"):
            read_table(table(), {"x": Feature(shape=(3,))})


class TestOwnTable:
    @pytest.fixture
    def like(self) -> Source:
        return Source(title="Boston", features=FEATURES, read=lambda raw: {}, licence="none")

    def test_is_split_as_keras_splits_its_own(self, table: Write, like: Source) -> None:
        path = table("RM,AGE,MEDV\n" + "".join(f"{i},0,{i}\n" for i in range(10)))
        source = own_table(path, like)
        splits = source.read(path.parent)
        rows = {
            split: [v for b in parts for v in to_arrays(b, FEATURES)["price"][:, 0].tolist()]
            for split, parts in splits.items()
        }

        order = np.arange(10)
        np.random.RandomState(113).shuffle(order)
        assert rows == {"train": order[:8].tolist(), "test": order[8:].tolist()}
        assert source.features == like.features
        assert source.files == ()
        assert source.twin is None

    def test_is_found_in_the_raw_folder(self, table: Write, like: Source, tmp_path: Path) -> None:
        path = table()
        source = own_table(path, like)
        raw = tmp_path / "raw"
        raw.mkdir()
        path.rename(raw / path.name)
        assert sum(batch.num_rows for batch in source.read(raw)["train"]) == 2

    def test_must_have_the_target(self, table: Write, like: Source) -> None:
        path = table("RM,AGE\n1,2\n3,4\n")
        with pytest.raises(DataError, match="there is no column `MEDV`"):
            own_table(path, like).read(path.parent)

    def test_must_have_rows_for_both_splits(self, table: Write, like: Source) -> None:
        path = table("RM,AGE,MEDV\n1,2,3\n")
        with pytest.raises(DataError, match="too few rows"):
            own_table(path, like).read(path.parent)

    @pytest.mark.parametrize("name", ["no.csv", "houses.txt", "houses"])
    def test_that_does_not_exist_or_is_no_table_is_a_mistake_in_the_request(
        self, table: Write, like: Source, tmp_path: Path, name: str
    ) -> None:
        with pytest.raises(ConfigError, match="expected: a source of the workload, or a file that ends in"):
            own_table(tmp_path / name, like)

    def test_reads_nothing_before_it_is_asked_to(self, table: Write, like: Source) -> None:
        own_table(table("no table at all"), like)

    def test_has_code_that_a_key_can_hold(self, table: Write, like: Source) -> None:
        from headrace.fingerprints import function_code

        assert list(function_code(own_table(table(), like).read)) == ["headrace/tables.py"]


def test_importing_the_module_and_naming_a_table_loads_neither_numpy_nor_arrow(table: Write) -> None:
    code = (
        "import sys; from pathlib import Path; from headrace.tables import own_table; from headrace.spec import Source;"
        f"own_table(Path({str(table())!r}), Source(title='', features={{}}, read=print));"
        "print(*{'numpy', 'pyarrow', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")
