"""Tables become batches that can be gone through again; what is wrong in a file is told with its place."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from headrace.errors import ConfigError, DataError
from headrace.readers import csv_tables
from headrace.readers.batches import to_arrays
from headrace.readers.tables import read_table
from headrace.spec import Column, Feature

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
        read(path, features, **options)
    assert len(str(caught.value).splitlines()) <= 12
    return str(caught.value)


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
        assert rows["town"].tolist() == [b"NA", b" Ulm"]

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

    def test_a_folder_without_tables(self, tmp_path: Path) -> None:
        (tmp_path / "houses.csv").mkdir()
        assert "houses.csv holds no table" in refusal(tmp_path / "houses.csv")

    def test_an_unknown_ending(self, tmp_path: Path) -> None:
        path = tmp_path / "houses.xlsx"
        path.touch()
        assert "its ending is `.xlsx`" in refusal(path)
        assert "expected: a file that ends in .csv, .tsv, .txt, .parquet" in refusal(path)

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
        with pytest.raises(ConfigError, match=r"`x` can't be read from houses\.csv: it names no columns"):
            read_table(table(), {"x": Feature(shape=(3,))})


class TestDialects:
    ROWS = [[6.5, 65], [6.4, 78.9], [7.2, 61]]  # noqa: RUF012

    @pytest.mark.parametrize(
        ("name", "content", "options"),
        [
            ("a.csv", GOOD.replace(",", ";"), {"delimiter": ";"}),
            ("a.tsv", GOOD.replace(",", "\t"), {}),
            ("a.txt", GOOD.replace(",", "\t"), {}),
            ("a.CSV", GOOD, {}),
            ("a.csv", GOOD.partition("\n")[2], {"names": ("RM", "AGE", "MEDV")}),
            ("a.csv", GOOD.encode("utf-16"), {"encoding": "utf-16"}),
            ("a.csv.gz", gzip.compress(GOOD.encode(), mtime=0), {}),
            ("a.csv.gz", gzip.compress(GOOD.encode("utf-16"), mtime=0), {"encoding": "utf-16"}),
        ],
    )
    def test_are_read(self, tmp_path: Path, name: str, content: str | bytes, options: dict[str, Any]) -> None:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        np.testing.assert_array_equal(read(path, **options)["features"], np.float32(self.ROWS))

    def test_of_an_archive_one_file_is_read(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "houses.zip", "w") as archive:
            archive.writestr("all/houses.tsv", GOOD.replace(",", "\t"))
            archive.writestr("all/README", "no table")
        rows = read(tmp_path / "houses.zip", member="*.tsv")
        np.testing.assert_array_equal(rows["features"], np.float32(self.ROWS))
        with pytest.raises(DataError, match="holds 2 files"):
            read_table(tmp_path / "houses.zip", FEATURES)

    def test_letters_of_another_encoding_are_told_by_its_name(self, table: Write) -> None:
        path = table(GOOD.encode() + b"\x81,1,2\n")
        assert "letters on line 5 that are not cp1252" in refusal(path, encoding="cp1252")

    def test_letters_of_another_encoding_are_those_they_were(self, table: Write) -> None:
        path = table("town\nUlm\nKöln\n".encode("latin-1"))
        towns = read(path, {"town": Feature(dtype="string")}, encoding="latin-1")["town"]
        assert towns.tolist() == [b"Ulm", "Köln".encode()]

    def test_letters_that_cannot_be_read_are_found_on_any_line(self, table: Write) -> None:
        path = table(b"town\n" + b"Ulm\n" * 600_000 + b"K\xf6ln\n")
        assert "letters on line 600002 that are not UTF-8" in refusal(path, {"town": Feature(dtype="string")})

    def test_a_single_row_needs_neither_names_nor_a_line_break(self, table: Write) -> None:
        assert read(table("1,2,3"), names=("RM", "AGE", "MEDV"))["features"].tolist() == [[1, 2]]

    def test_rows_below_no_names_are_all_read_cell_by_cell_too(self, table: Write) -> None:
        features = {"rooms": Feature(dtype="int64")}
        (batch,) = read_table(table("1\nx\n3\n"), features, names=("rooms",), bad="null")
        assert batch.column("rooms").to_pylist() == [1, None, 3]
        assert 'on line 1 ("x")' in refusal(table("x\n1\n"), features, names=("rooms",))

    def test_an_unknown_encoding_is_a_mistake_in_the_request(self, table: Write) -> None:
        with pytest.raises(ConfigError, match="There is no encoding `latin-99`"):
            read_table(table(), FEATURES, encoding="latin-99")

    def test_quotes_may_be_letters(self, table: Write) -> None:
        sentences = {"one": Feature(dtype="string"), "two": Feature(dtype="string")}
        path = table('"Go" he said.\t"Ve\nHe said "go\tVe', "a")
        rows = read(path, sentences, delimiter="\t", names=("one", "two"), quotes=False)
        assert rows["one"].tolist() == [b'"Go" he said.', b'He said "go']
        assert rows["two"].tolist() == [b'"Ve', b"Ve"]

    def test_a_folder_is_read_in_the_order_of_its_names(self, table: Write) -> None:
        second, first = table("RM,AGE,MEDV\n2,0,0\n", "b"), table("MEDV,RM,AGE\n0,1,0\n", "a")
        assert read(first.parent)["features"][:, 0].tolist() == [1, 2]
        assert read([second, first])["features"][:, 0].tolist() == [2, 1]

    def test_a_file_in_a_folder_is_named_where_it_is_wrong(self, table: Write) -> None:
        table("RM,AGE,MEDV\n2,0,0\n", "a")
        assert "b.csv can't be used:\n  - RM holds text" in refusal(table("RM,AGE,MEDV\nx,0,0\n", "b").parent)

    def test_capitals_and_punctuation_of_names_do_not_count(self, table: Write) -> None:
        features = {"t_degc": Feature(), "p_mbar": Feature(), "rho": Feature()}
        rows = read(table('"T (degC)","p (mbar)",Rho\n1,2,3\n'), features)
        assert [rows[name].tolist() for name in features] == [[1], [2], [3]]

    def test_of_two_names_that_differ_in_that_alone_none_is_taken(self, table: Write) -> None:
        assert "there is no column `t_degc`" in refusal(table("T (degC),T [degC]\n1,2\n"), {"t_degc": Feature()})
        rows = read(table("T (degC),t_degc\n1,2\n"), {"t_degc": Feature()})
        assert rows["t_degc"].tolist() == [2]

    def test_a_column_belongs_to_one_feature(self, table: Write) -> None:
        assert "two features are read from `RM`" in refusal(table(), {"rm": Feature(), "RM": Feature()})

    def test_a_row_larger_than_what_is_parsed_at_a_time_is_read(self, table: Write) -> None:
        long = "x" * 3_000_000
        rows = read(table(f"town,rooms\nUlm,1\n{long},2\nBonn,3\n"), TEXT_AND_ROOMS)
        assert [len(town) for town in rows["town"]] == [3, len(long), 4]
        assert rows["rooms"].tolist() == [1, 2, 3]


TEXT_AND_ROOMS = {"town": Feature(dtype="string"), "rooms": Feature(dtype="int64")}


class TestCategories:
    SPECIES = {"species": Feature(dtype="int64", classes=("Adelie", "Gentoo"), role="target")}  # noqa: RUF012

    def test_are_read_by_name_or_by_number(self, table: Write) -> None:
        assert read(table("species\nGentoo\nAdelie\n1\n 0\n"), self.SPECIES)["species"].tolist() == [1, 0, 1, 0]
        assert read(table({"species": ["Gentoo", "Adelie"]}), self.SPECIES)["species"].tolist() == [1, 0]
        for numbers in ([1, 0], [1.0, 0.0], [True, False]):
            assert read(table({"species": numbers}), self.SPECIES)["species"].tolist() == [1, 0]

    def test_whose_names_are_numbers_are_read_by_name(self, table: Write) -> None:
        quality = {"quality": Feature(dtype="int64", classes=("3", "1", "8"))}
        assert read(table("quality\n8\n1\n3\n"), quality)["quality"].tolist() == [2, 1, 0]

    def test_that_are_none_are_refused(self, table: Write) -> None:
        said = refusal(table("species\nGentoo\nAdeli\n2\n-1\n"), self.SPECIES)
        assert 'species, the target, is none of the classes on line 3 ("Adeli"), line 4 ("2"), line 5 ("-1")' in said


class TestMissingValues:
    FEATURES = {  # noqa: RUF012
        "age": Feature(optional=True),
        "sex": Feature(dtype="string", optional=True),
        "both": Feature(shape=(2,), optional=True, columns=(Column(name="a"), Column(name="b"))),
        "id": Feature(dtype="int64"),
    }
    TABLE = "id,age,sex,a,b\n1,,NA,1,\n2,NaN,,NA,2\n3,7,male,5,6\n"

    def test_of_optional_features_are_nan_or_empty(self, table: Write) -> None:
        rows = read(table(self.TABLE), self.FEATURES)
        np.testing.assert_array_equal(rows["age"], [np.nan, np.nan, 7])
        assert rows["sex"].tolist() == [b"", b"", b"male"]
        np.testing.assert_array_equal(rows["both"], [[1, np.nan], [np.nan, 2], [5, 6]])

    def test_are_null_in_batches(self, table: Write) -> None:
        (batch,) = read_table(table(self.TABLE), self.FEATURES)
        assert [batch.column(name).null_count for name in ("age", "sex", "id")] == [2, 2, 0]

    def test_in_parquet_are_the_same(self, table: Write) -> None:
        columns = {"id": [1, 2], "age": [None, 7.0], "sex": [None, "male"], "a": [1.0, float("nan")], "b": [None, 2.0]}
        rows = read(table(columns), self.FEATURES)
        np.testing.assert_array_equal(rows["age"], [np.nan, 7])
        assert rows["sex"].tolist() == [b"", b"male"]
        np.testing.assert_array_equal(rows["both"], [[1, np.nan], [np.nan, 2]])

    @pytest.mark.parametrize("cell", ["None", " NA ", "<NA>", "NONE"])
    def test_that_arrow_does_not_know_are_missing_all_the_same(self, table: Write, cell: str) -> None:
        rows = read(table(self.TABLE.replace("NaN", cell)), self.FEATURES)
        np.testing.assert_array_equal(rows["age"], [np.nan, np.nan, 7])

    def test_do_not_hide_what_is_wrong(self, table: Write) -> None:
        said = refusal(table(self.TABLE.replace("7", "old").replace("5", "inf")), self.FEATURES)
        assert 'age holds text instead of a number on line 4 ("old")' in said
        assert 'a is infinite on line 4 ("inf")' in said
        assert 'age is too large on line 4 ("7e99")' in refusal(table(self.TABLE.replace("7", "7e99")), self.FEATURES)


class TestBadCellsAsNull:
    FEATURES = {"x": Feature(), "n": Feature(dtype="int64"), "s": Feature(dtype="string")}  # noqa: RUF012

    def nulls(self, path: Path, features: dict[str, Feature] | None = None) -> dict[str, list[Any]]:
        table = pa.Table.from_batches(read_table(path, features or self.FEATURES, bad="null"))
        return table.to_pydict()

    def test_only_they_are_null(self, table: Write) -> None:
        text = "x,n,s\n1,1,a\nsix,2,b\n,3,\n4,4.5,NA\ninf,,d\n1e39,6,e\n"
        assert self.nulls(table(text)) == {
            "x": [1, None, None, 4, None, None],
            "n": [1, 2, 3, None, None, 6],
            "s": ["a", "b", None, "NA", "d", "e"],
        }

    def test_in_parquet_too(self, table: Write) -> None:
        columns = {"x": ["1", "six"], "n": [1.5, 2.0], "s": ["", "b"]}
        assert self.nulls(table(columns)) == {"x": [1, None], "n": [None, 2], "s": [None, "b"]}

    def test_of_a_row_with_too_few_cells_all_are(self, table: Write) -> None:
        assert self.nulls(table("x,n,s\n1,1,a\n2,2\n3,3,c\n"))["n"] == [1, None, 3]

    def test_far_behind_sound_ones_too(self, table: Write) -> None:
        """Blocks before the bad one are read by Arrow, it and all others cell by cell."""
        rows = [f"{i},{i},{'word' * 5}" for i in range(100_000)]
        rows[90_000] = "?,90000,x"
        found = self.nulls(table("\n".join(["x,n,s", *rows, ""])))
        assert found["n"] == list(range(100_000))
        assert [i for i, x in enumerate(found["x"]) if x is None] == [90_000]

    def test_of_a_class_too(self, table: Write) -> None:
        features = {"s": Feature(dtype="int64", classes=("a", "b"))}
        assert self.nulls(table("s\na\nc\n1\nNA\n"), features) == {"s": [0, None, 1, None]}

    def test_but_a_quote_that_swallows_rows_is_refused(self, table: Write) -> None:
        with pytest.raises(DataError, match="a quote that opens on line 3 is never closed"):
            self.nulls(table('x,n,s\n1,1,a\n2,2,"b\n3,3,c\n'))


class TestSize:
    def test_a_table_is_read_a_few_rows_at_a_time(self, table: Write) -> None:
        """What has been read when the first rows are there is a part of the file."""
        path = table("RM,AGE,MEDV\n" + "1.5,2.5,3.5\n" * 1_000_000)
        pa.default_memory_pool().release_unused()
        before = pa.total_allocated_bytes()
        peaks = [pa.total_allocated_bytes() - before for _ in read_table(path, FEATURES)]
        assert len(peaks) > 100
        assert max(peaks) < 10_000_000, "the file has 12 MB, as numbers 24 MB"

    def test_what_is_wrong_at_the_end_is_found_after_the_rest_was_given(self, table: Write) -> None:
        path = table("RM,AGE,MEDV\n" + "1,2,3\n" * 500_000 + "x,2,3\n")
        batches = iter(read_table(path, FEATURES))
        assert next(batches).num_rows == 8192
        with pytest.raises(DataError, match=r'RM holds text instead of a number on line 500002 \("x"\)'):
            list(batches)

    def test_the_search_for_problems_ends(self, table: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_tables, "_SEARCHED", 10)
        said = refusal(table("RM,AGE,MEDV\n" + "1,2,3\nx,2,3\n" * 100))
        assert 'RM holds text instead of a number on line 3 ("x"), line 5 ("x"), line 7 ("x") and 2 more' in said
        assert "the lines after 12 were not looked at" in said

    def test_the_search_for_problems_does_not_end_before_it_has_found_one(
        self, table: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(csv_tables, "_SEARCHED", 10)
        assert "on line 202" in refusal(table("RM,AGE,MEDV\n" + "1,2,3\n" * 200 + "x,2,3\n"))

    def test_batches_can_be_gone_through_again(self, table: Write) -> None:
        rows = read_table(table(), FEATURES)
        assert [b.to_pydict() for b in rows] == [b.to_pydict() for b in rows] != []


class TestLists:
    """Columns of lists in Parquet: embeddings, token numbers, images."""

    FEATURES = {  # noqa: RUF012
        "words": Feature(shape=(None,), dtype="int64"),
        "image": Feature(shape=(2, 2, 1), dtype="uint8"),
        "place": Feature(shape=(2,)),
    }
    GOOD = {"words": [[1, 2], []], "image": [[0, 1, 2, 255], [4, 5, 6, 7]], "place": [[1.5, 2], [3, 4]]}  # noqa: RUF012

    def test_are_read(self, table: Write) -> None:
        batch = next(iter(read_table(table(self.GOOD), self.FEATURES)))
        rows = to_arrays(batch, self.FEATURES)
        assert [one.tolist() for one in rows["words"]] == [[1, 2], []]
        assert rows["image"].reshape(2, 4).tolist() == self.GOOD["image"]
        np.testing.assert_array_equal(rows["place"], self.GOOD["place"])

    def test_of_a_wrong_length_or_with_wrong_values_are_refused(self, table: Write) -> None:
        columns = {
            "words": [[1, None], None],
            "image": [[0, 1, 2], [0, 1, 2, 256]],
            "place": [[1.0, float("nan")], [1.0, 2.0]],
        }
        said = refusal(table(columns), self.FEATURES)
        assert "words holds a value that is empty on row 1" in said
        assert "words is empty on row 2" in said
        assert "image holds 3 values instead of 4 on row 1" in said
        assert "image holds a value that is too large on row 2" in said
        assert "place holds a value that has no value on row 1" in said

    def test_of_a_wrong_length_are_null_if_asked_for(self, table: Write) -> None:
        columns = self.GOOD | {"image": [[0, 1, 2], [4, 5, 6, 7]], "words": [None, [1]]}
        found = pa.Table.from_batches(read_table(table(columns), self.FEATURES, bad="null")).to_pydict()
        assert found["image"] == [[None] * 4, [4, 5, 6, 7]]
        assert found["words"] == [None, [1]]

    def test_and_plain_columns_are_told_apart(self, table: Write) -> None:
        said = refusal(table(self.GOOD | {"words": [1, 2]}), self.FEATURES)
        assert "words holds int64, no lists" in said
        assert "MEDV holds list<element: double>, and no single values" in refusal(
            table({"RM": [1.0], "AGE": [1.0], "MEDV": [[1.0]]})
        )

    def test_bytes_are_read_as_they_are(self, table: Write) -> None:
        photo = {"photo": Feature(dtype="string", content="image")}
        assert read(table({"photo": [b"\xff\xd8", b"\x89PNG"]}), photo)["photo"].tolist() == [b"\xff\xd8", b"\x89PNG"]
        assert "photo is empty on row 2" in refusal(table({"photo": [b"\xff", b""]}), photo)
