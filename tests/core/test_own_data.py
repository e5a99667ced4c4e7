"""What a user puts after `--source` is read as what it is, and otherwise answered with what would be."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from headrace.errors import ConfigError, DataError
from headrace.readers.batches import batches, to_arrays, whole
from headrace.readers.own_data import own_data, read_own
from headrace.spec import Column, Feature, Records, Source

HOUSES = {
    "features": Feature(shape=(2,), columns=(Column(name="RM"), Column(name="AGE"))),
    "price": Feature(shape=(1,), role="target", columns=(Column(name="MEDV"),)),
}
REVIEWS = {
    "review": Feature(dtype="string"),
    "liked": Feature(dtype="int64", role="target", classes=("neg", "pos")),
}

DIGITS = {
    "image": Feature(shape=(2, 2, 1), dtype="uint8"),
    "label": Feature(dtype="int64", role="target", classes=("0", "1")),
}


def like(features: dict[str, Feature] = HOUSES, **changes: Any) -> Source:
    return Source(**{"title": "Like", "features": features, "read": lambda raw: {}, "licence": "none"} | changes)


def numbers(count: int = 10) -> dict[str, np.ndarray]:
    """Houses that can be told by their price."""
    x = np.arange(count, dtype=np.float32)
    return {"features": np.column_stack([x, x * 2]), "price": x[:, None]}


def table(path: Path, count: int = 10, delimiter: str = ",") -> Path:
    rows = [("RM", "AGE", "MEDV"), *((i, 2 * i, i) for i in range(count))]
    path.write_text("".join(delimiter.join(map(str, row)) + "\n" for row in rows))
    return path


def csv_file(folder: Path) -> Path:
    return table(folder / "houses.csv")


def tsv_file(folder: Path) -> Path:
    return table(folder / "houses.tsv", delimiter="\t")


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "houses.zip", "w") as archive:
        archive.write(csv_file(folder), "houses.csv")
    return folder / "houses.zip"


def parquet(folder: Path) -> Path:
    values = numbers()
    columns = {"RM": values["features"][:, 0], "AGE": values["features"][:, 1], "MEDV": values["price"][:, 0]}
    pyarrow.parquet.write_table(pa.table(columns), folder / "houses.parquet")
    return folder / "houses.parquet"


def folder_of_tables(folder: Path) -> Path:
    (folder / "tables").mkdir()
    csv_file(folder).rename(folder / "tables" / "houses.csv")
    (folder / "tables" / "LICENSE.txt").write_text("none")
    return folder / "tables"


def arrays(folder: Path) -> Path:
    np.savez(folder / "houses.npz", **numbers())
    return folder / "houses.npz"


def records(folder: Path) -> Path:
    from headrace.records.writing import write

    (folder / "records").mkdir()
    written = write(folder / "records", "houses", batches(numbers()), HOUSES, Records())
    return folder / "records" / written.shards[0]


def folder_of_records(folder: Path) -> Path:
    return records(folder).parent


@pytest.mark.parametrize(
    "make", [csv_file, tsv_file, zipped, parquet, folder_of_tables, arrays, records, folder_of_records]
)
class TestKinds:
    def test_are_split_alike(self, make: Callable[[Path], Path], tmp_path: Path) -> None:
        path = make(tmp_path)
        splits = own_data(path, like()).read(path.parent)

        order = np.arange(10)
        np.random.RandomState(113).shuffle(order)
        found = {split: whole(parts, HOUSES) for split, parts in splits.items()}
        assert {split: rows["price"][:, 0].tolist() for split, rows in found.items()} == {
            "train": order[:8].tolist(),
            "test": order[8:].tolist(),
        }
        np.testing.assert_array_equal(found["train"]["features"][:, 1], order[:8] * 2)

    def test_are_read_in_their_own_order(self, make: Callable[[Path], Path], tmp_path: Path) -> None:
        rows = whole(read_own(make(tmp_path), HOUSES), HOUSES)
        assert rows["price"][:, 0].tolist() == list(range(10))

    def test_are_found_in_the_raw_folder(self, make: Callable[[Path], Path], tmp_path: Path) -> None:
        path = make(tmp_path)
        source = own_data(path, like())
        raw = tmp_path / "raw"
        raw.mkdir()
        shutil.move(path, raw / path.name)
        assert sum(batch.num_rows for batch in source.read(raw)["train"]) == 8


class TestSource:
    def test_has_the_features_and_the_quarantine_of_the_other_one(self, tmp_path: Path) -> None:
        source = own_data(csv_file(tmp_path), like(quarantine=0.5))
        assert source.title == "houses.csv, data of your own"
        assert source.features == HOUSES
        assert source.quarantine == 0.5
        assert source.files == ()
        assert source.twin is None
        assert source.licence == ""

    def test_refuses_bad_cells_unless_there_is_a_quarantine_for_them(self, tmp_path: Path) -> None:
        path = csv_file(tmp_path)
        path.write_text(path.read_text() + "?,1,1\n")
        with pytest.raises(DataError, match="RM holds text instead of a number on line 12"):
            list(own_data(path, like()).read(tmp_path)["train"])
        splits = own_data(path, like(quarantine=0.5)).read(tmp_path)
        found = [row for parts in splits.values() for batch in parts for row in batch.to_pylist()]
        assert [row["features"] for row in found].count([None, 1]) == 1

    def test_must_have_the_targets(self, tmp_path: Path) -> None:
        path = tmp_path / "houses.csv"
        path.write_text("RM,AGE\n1,2\n3,4\n")
        with pytest.raises(DataError, match="there is no column `MEDV`"):
            own_data(path, like()).read(tmp_path)

    def test_must_have_rows_for_both_splits(self, tmp_path: Path) -> None:
        splits = own_data(table(tmp_path / "houses.csv", 1), like()).read(tmp_path)
        with pytest.raises(DataError, match=r"houses.csv has too few examples for the splits train, test"):
            list(splits["train"])

    @pytest.mark.parametrize("name", ["no.csv", "no", "folder/no.npz"])
    def test_that_does_not_exist_is_a_mistake_in_the_request(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigError, match="There is no file or folder") as caught:
            own_data(tmp_path / name, like())
        assert "expected: a source of the workload, or the path of a table (.csv, .tsv, .parquet)" in str(caught.value)

    @pytest.mark.parametrize("name", ["houses.xlsx", "houses", "houses.csv.rar"])
    def test_that_is_of_no_known_kind_is_a_mistake_in_the_request(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        with pytest.raises(ConfigError, match="is of no kind that features/price can be read from"):
            own_data(tmp_path / name, like())

    def test_what_is_accepted_depends_on_the_features(self, tmp_path: Path) -> None:
        for features, offered in ((HOUSES, False), (REVIEWS, True)):
            with pytest.raises(ConfigError) as caught:
                own_data(tmp_path / "no", like(features))
            assert ("a folder or an archive of <class>/<file>" in str(caught.value)) == offered

    def test_a_folder_of_something_else_is_a_mistake_in_the_request(self, tmp_path: Path) -> None:
        (tmp_path / "own" / "cat").mkdir(parents=True)
        (tmp_path / "own" / "cat" / "1.jpg").touch()
        with pytest.raises(ConfigError, match="of no kind"):
            own_data(tmp_path / "own", like())

    def test_a_folder_with_words_about_it_alone_is_no_table(self, tmp_path: Path) -> None:
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "README.txt").touch()
        with pytest.raises(ConfigError, match="of no kind"):
            own_data(tmp_path / "own", like())

    def test_reads_nothing_before_it_is_asked_to(self, tmp_path: Path) -> None:
        (tmp_path / "houses.csv").write_text("no table at all")
        own_data(tmp_path / "houses.csv", like())

    def test_has_code_that_a_key_can_hold_with_all_that_reads_it(self, tmp_path: Path) -> None:
        from headrace.fingerprints import function_code

        codes = function_code(own_data(csv_file(tmp_path), like()).read)
        assert {
            "readers/own_data.py",
            "headrace.readers.tables",
            "headrace.readers.csv_tables",
            "headrace.readers.folders",
        } <= codes.keys()


class TestFilesByClass:
    def write(self, folder: Path) -> Path:
        for split in ("train", "test"):
            for kind in ("neg", "pos"):
                for number in range(3):
                    file = folder / "reviews" / split / kind / f"{number}.txt"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(f"{split} {kind} {number}")
        (folder / "reviews" / "README.txt").write_text("none")
        return folder / "reviews"

    @pytest.mark.parametrize("packed", [False, True])
    def test_are_read_by_their_folders(self, tmp_path: Path, packed: bool) -> None:
        path = self.write(tmp_path)
        if packed:
            path = Path(shutil.make_archive(str(path), "gztar", tmp_path, "reviews"))
        splits = own_data(path, like(REVIEWS)).read(tmp_path)
        rows = {split: whole(parts, REVIEWS) for split, parts in splits.items()}
        assert {split: len(values["liked"]) for split, values in rows.items()} == {"train": 6, "test": 6}
        for text, number in zip(rows["test"]["review"], rows["test"]["liked"], strict=True):
            assert text.decode().split()[:2] == ["test", ["neg", "pos"][number]]

    def test_are_read_whole_for_what_needs_no_splits(self, tmp_path: Path) -> None:
        assert sum(batch.num_rows for batch in read_own(self.write(tmp_path), REVIEWS)) == 12

    def test_that_are_columns_of_a_table_are_read_from_that(self, tmp_path: Path) -> None:
        (tmp_path / "reviews.csv").write_text("review,liked\ngood,pos\nbad,neg\n")
        rows = whole(read_own(tmp_path / "reviews.csv", REVIEWS), REVIEWS)
        assert rows["liked"].tolist() == [1, 0]


class TestArrays:
    """Archives that keep their splits apart, as Keras' own do."""

    def write(self, folder: Path, *names: str) -> Path:
        """Eight examples in `train`, three in `test`, one in `validation`; every image holds its label."""
        counts, arrays = {"train": 8, "test": 3, "validation": 1, "": 10}, {}
        for name in names:
            labels = np.arange(counts[name.rpartition("_")[2] if "_" in name else ""]) % 2
            image = np.repeat(labels.astype(np.uint8), 4).reshape(-1, 2, 2)
            arrays[name] = image if name[0] in "xi" else labels[:, None].astype(np.uint8)
        np.savez(folder / "digits.npz", **arrays)
        return folder / "digits.npz"

    @pytest.mark.parametrize("called", [("x", "y"), ("image", "label")])
    def test_called_by_splits_stay_in_them_and_in_their_order(self, tmp_path: Path, called: tuple[str, str]) -> None:
        splits = ("train", "test", "validation")
        path = self.write(tmp_path, *(f"{name}_{split}" for name in called for split in splits))
        found = own_data(path, like(DIGITS)).read(tmp_path)
        rows = {split: whole(parts, DIGITS) for split, parts in found.items()}
        assert {split: len(values["label"]) for split, values in rows.items()} == dict(
            zip(splits, (8, 3, 1), strict=True)
        )
        assert rows["train"]["image"].shape == (8, 2, 2, 1)
        assert rows["train"]["label"].tolist() == rows["train"]["image"][:, 0, 0, 0].tolist() == [0, 1] * 4
        assert len(whole(read_own(path, DIGITS), DIGITS)["label"]) == 12

    def test_of_one_input_and_one_target_may_be_called_x_and_y(self, tmp_path: Path) -> None:
        rows = whole(read_own(self.write(tmp_path, "x", "y"), DIGITS), DIGITS)
        assert rows["label"].tolist() == [0, 1] * 5

    def test_of_more_than_one_input_are_called_by_their_features(self, tmp_path: Path) -> None:
        features = {**DIGITS, "extra": Feature()}
        with pytest.raises(DataError, match="there is no array `image`"):
            read_own(self.write(tmp_path, "x_train", "y_train", "x_test", "y_test"), features)

    def test_that_lack_a_split_name_what_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no array `image`"):
            own_data(self.write(tmp_path, "x_train", "y_train"), like(DIGITS)).read(tmp_path)

    def test_that_lack_the_labels_of_a_split_say_so_when_they_are_read(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "x_train", "y_train", "x_test")
        with pytest.raises(DataError, match="there is no array `y_test`"):
            list(own_data(path, like(DIGITS)).read(tmp_path)["test"])


def test_targets_may_be_absent_where_they_are_not_known_yet(tmp_path: Path) -> None:
    for path in (arrays(tmp_path), csv_file(tmp_path)):
        if path.suffix == ".npz":
            np.savez(path, features=numbers()["features"])
        else:
            path.write_text("RM,AGE\n1,2\n")
        (batch,) = read_own(path, HOUSES, targets_required=False)
        assert list(to_arrays(batch, HOUSES)) == ["features"]


def test_what_cannot_be_read_whole_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file or folder"):
        read_own(tmp_path / "no.csv", HOUSES)
    (tmp_path / "houses.xlsx").touch()
    with pytest.raises(DataError, match=r"houses\.xlsx is of no kind that can be read"):
        read_own(tmp_path / "houses.xlsx", HOUSES)


def test_naming_own_data_loads_neither_numpy_nor_arrow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from headrace.readers.own_data import own_data; from headrace.spec import Source\n"
        f"own_data(Path({str(csv_file(tmp_path))!r}), Source(title='', features={{}}, read=print));"
        "print(*{'numpy', 'pyarrow', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")
