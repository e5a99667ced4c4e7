"""Images and texts in folders and archives become examples: their class, split and partners are told by their paths."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import ConfigError, DataError
from headrace.readers.folders import files_by_class, files_by_name
from headrace.spec import Feature

PETS = {
    "photo": Feature(dtype="string", content="image"),
    "animal": Feature(dtype="int64", role="target", classes=("cat", "dog")),
    "file": Feature(dtype="string", role="note"),
}
REVIEWS = {
    "review": Feature(dtype="string"),
    "liked": Feature(dtype="float32", shape=(1,), role="target", classes=("neg", "pos")),
}
MASKED = {
    "photo": Feature(dtype="string", content="image"),
    "mask": Feature(dtype="string", content="mask", role="target"),
    "name": Feature(dtype="string", role="note"),
}

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Write:
    """A folder of files, each of which holds its own path unless it says what else."""

    def write(*paths: str, name: str = "data", **contents: bytes) -> Path:
        for path in paths:
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(contents.get(file.stem, path.encode()))
        return tmp_path / name

    return write


def rows(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    return pa.Table.from_batches(batches).to_pylist()


def animals(count: int = 10, *, within: str = "") -> list[str]:
    return [f"{within}{kind}/{i}.jpg" for kind in ("cat", "dog") for i in range(count)]


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def tarred(folder: Path) -> Path:
    """A packed tar in the opposite order."""
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(folder.rglob("*.*"), reverse=True):
            archive.add(file, file.relative_to(folder).as_posix())
    return path


class TestByClass:
    def test_the_folder_is_the_class(self, folder: Write) -> None:
        splits = files_by_class(folder(*animals()), PETS)
        found = rows(splits["train"]) + rows(splits["test"])

        assert {split: len(rows(batches)) for split, batches in splits.items()} == {"train": 16, "test": 4}
        assert sorted(row["file"] for row in found) == sorted(path.encode() for path in animals())
        for row in found:
            assert row["photo"] == row["file"]
            assert row["animal"] == (0 if row["file"].startswith(b"cat") else 1)

    @pytest.mark.parametrize("packed", [zipped, tarred])
    def test_an_archive_gives_what_its_folder_gives(self, folder: Write, packed: Callable[[Path], Path]) -> None:
        place = folder(*animals())
        from_folder, from_archive = files_by_class(place, PETS), files_by_class(packed(place), PETS)
        for split in ("train", "test"):
            assert rows(from_archive[split]) == rows(from_folder[split])

    def test_the_order_is_drawn_by_the_seed_and_always_the_same(self, folder: Write) -> None:
        place = folder(*animals())
        first = [row["file"] for row in rows(files_by_class(place, PETS)["train"])]
        splits = files_by_class(place, PETS)

        assert [row["file"] for row in rows(splits["train"])] == first
        assert [row["file"] for row in rows(splits["train"])] == first, "the same batches, gone through again"
        assert first != sorted(first)
        assert first != [row["file"] for row in rows(files_by_class(place, PETS, seed=1)["train"])]

    def test_the_order_may_be_that_of_the_paths(self, folder: Write) -> None:
        found = [row["file"] for row in rows(files_by_class(folder(*animals()), PETS, seed=None)["train"])]
        assert found == sorted(found)

    def test_splits_are_folders_too(self, folder: Write) -> None:
        names = ("train", "Val", "testing")
        place = folder(*(path for name in names for path in animals(3, within=f"small/{name}/")))
        splits = files_by_class(place, PETS)
        assert list(splits) == ["train", "validation", "test"]
        assert {row["file"].split(b"/")[1] for row in rows(splits["validation"])} == {b"Val"}
        assert len(rows(splits["test"])) == 6

    def test_examples_to_train_with_are_dealt_out_where_there_are_none_to_test_with(self, folder: Write) -> None:
        place = folder(*animals(10, within="train/"), *animals(2, within="valid/"))
        splits = files_by_class(place, PETS)
        assert {split: len(rows(batches)) for split, batches in splits.items()} == {
            "train": 16,
            "validation": 4,
            "test": 4,
        }

    def test_shares_say_what_is_dealt_out(self, folder: Write) -> None:
        splits = files_by_class(folder(*animals()), PETS, shares={"validation": 0.1, "test": 0.1})
        assert {split: len(rows(batches)) for split, batches in splits.items()} == {
            "train": 16,
            "validation": 2,
            "test": 2,
        }

    def test_a_pattern_says_it_where_folders_do_not(self, folder: Write) -> None:
        place = folder(*(f"train/{kind}.{i}.jpg" for kind in ("cat", "dog") for i in range(5)), "test1/1.jpg")
        splits = files_by_class(place, PETS, pattern=r"train/(?P<class>cat|dog)\.\d+\.jpg$")
        found = rows(splits["train"]) + rows(splits["test"])
        assert len(found) == 10
        assert all(row["animal"] == (b"dog" in row["file"]) for row in found)

    def test_capitals_do_not_count_in_names(self, folder: Write) -> None:
        splits = files_by_class(folder(*(f"PetImages/{k}/{i}.JPG" for k in ("Cat", "Dog") for i in range(3))), PETS)
        assert sum(len(rows(batches)) for batches in splits.values()) == 6

    def test_the_nearest_folder_that_is_a_class_counts(self, folder: Write) -> None:
        place = folder(*(f"dog/{i}/cat/small/{i}.jpg" for i in range(5)))
        assert {row["animal"] for part in files_by_class(place, PETS).values() for row in rows(part)} == {0}

    def test_what_is_no_example_is_left_out_and_counted(self, folder: Write, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        place = folder(
            *animals(2),
            "LICENSE.txt",
            "cat/Thumbs.db",
            "cat/._1.jpg",
            ".git/cat/1.jpg",
            "__MACOSX/cat/1.jpg",
            "bird/1.jpg",
            "bird/2.jpg",
        )
        splits = files_by_class(place, PETS)
        assert sum(len(rows(batches)) for batches in splits.values()) == 4
        assert "data: left out, in no class: bird (2)" in caplog.text

    def test_a_class_without_files_is_told(self, folder: Write, caplog: pytest.LogCaptureFixture) -> None:
        files_by_class(folder(*(f"cat/{i}.jpg" for i in range(5))), PETS)
        assert "data: no file of class `dog`" in caplog.text

    def test_texts_are_their_bytes(self, folder: Write) -> None:
        place = folder(
            "train/pos/1.txt", "train/neg/bad.txt", "train/unsup/3.txt", "test/pos/4.txt", bad="Käse\r\n".encode()
        )
        splits = files_by_class(place, REVIEWS, seed=None)
        assert rows(splits["train"]) == [
            {"review": "Käse\r\n".encode(), "liked": [0.0]},
            {"review": b"train/pos/1.txt", "liked": [1.0]},
        ]

    def test_a_text_that_is_no_utf_8_is_named(self, folder: Write) -> None:
        place = folder("pos/1.txt", "neg/2.txt", "neg/bad.txt", "pos/4.txt", "pos/5.txt", bad=b"a\nK\xe4se")
        with pytest.raises(DataError, match=r"neg/bad.txt of data can't be used: it is no UTF-8 on line 2"):
            [rows(batches) for batches in files_by_class(place, REVIEWS).values()]
        found = [row for batches in files_by_class(place, REVIEWS, bad="null").values() for row in rows(batches)]
        assert [row["review"] for row in found].count(None) == 1

    def test_an_empty_file_is_named(self, folder: Write) -> None:
        place = folder(*animals(3), "cat/empty.jpg", empty=b"")
        with pytest.raises(DataError, match=r"cat/empty.jpg of data can't be used: it is empty"):
            [rows(batches) for batches in files_by_class(place, PETS).values()]

    def test_an_image_that_is_none_is_left_to_those_who_decode(self, folder: Write) -> None:
        place = folder(*animals(3), "cat/bad.jpg", bad=b"\xff\xd8 no more")
        found = [row["photo"] for batches in files_by_class(place, PETS).values() for row in rows(batches)]
        assert b"\xff\xd8 no more" in found

    def test_nothing_by_class_is_told_with_what_there_is(self, folder: Write) -> None:
        with pytest.raises(DataError) as caught:
            files_by_class(folder("Katzen/1.jpg", "Hunde/2.jpg"), PETS)
        assert "No file of data lies in a folder of a class" in str(caught.value)
        assert "the classes cat, dog" in str(caught.value)
        assert "received: Hunde, Katzen" in str(caught.value)

    def test_too_few_files_are_told(self, folder: Write) -> None:
        with pytest.raises(DataError, match="data has too few examples"):
            files_by_class(folder("cat/1.jpg"), PETS)

    def test_a_place_that_is_missing_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"pets.zip can't be read"):
            files_by_class(tmp_path / "pets.zip", PETS)

    @pytest.mark.parametrize("features", [{"x": Feature(), "y": PETS["animal"]}, {"x": PETS["photo"], "y": Feature()}])
    def test_other_features_are_a_mistake_of_the_workload(self, folder: Write, features: dict[str, Feature]) -> None:
        with pytest.raises(ConfigError, match="Files by class need one"):
            files_by_class(folder(*animals()), features)

    def test_large_files_make_small_batches(self, folder: Write) -> None:
        place = folder(*animals(5), **{str(i): bytes(6 << 20) for i in range(5)})
        assert [batch.num_rows for batch in files_by_class(place, PETS)["train"]] == [3, 3, 2]


class TestByName:
    def test_files_of_one_name_are_one_example(self, folder: Write) -> None:
        images = folder(*(f"images/pet_{i}.jpg" for i in range(10)), name="images")
        masks = folder(*(f"trimaps/pet_{i}.png" for i in range(10)), "trimaps/._pet_1.png", "README", name="masks")
        splits = files_by_name(
            [tarred(images), zipped(masks)], MASKED, {"photo": "images/*.jpg", "mask": "trimaps/*.png"}
        )
        found = rows(splits["train"]) + rows(splits["test"])

        assert len(found) == 10
        for row in found:
            assert row["photo"] == b"images/" + row["name"] + b".jpg"
            assert row["mask"] == b"trimaps/" + row["name"] + b".png"

    def test_what_a_name_tells_becomes_values_and_splits(self, folder: Write) -> None:
        place = folder(*(f"{kind}_{i}.jpg" for kind in ("cat", "dog", "bird") for i in range(3)))
        numbers = {"cat": 0, "dog": 1}

        def values(name: str) -> dict[str, Any] | None:
            kind = name.partition("_")[0]
            return {"animal": numbers[kind], "file": f"of a {kind}"} if kind in numbers else None

        splits = files_by_name(
            place, PETS, {"photo": "*.jpg"}, values=values, split=lambda name: "test" if "2" in name else "train"
        )
        assert len(rows(splits["train"])) == 4
        assert sorted((row["animal"], row["file"]) for row in rows(splits["test"])) == [
            (0, b"of a cat"),
            (1, b"of a dog"),
        ]

    def test_a_partner_that_is_missing_is_null_and_told(self, folder: Write, caplog: pytest.LogCaptureFixture) -> None:
        place = folder("i/1.jpg", "i/2.jpg", "i/3.jpg", "m/1.png", "m/2.png", "m/9.png")
        splits = files_by_name(place, MASKED, {"photo": "i/*.jpg", "mask": "m/*.png"}, seed=None, shares={"test": 0.4})
        found = {row["name"]: row["mask"] for batches in splits.values() for row in rows(batches)}
        assert found == {b"1": b"m/1.png", b"2": b"m/2.png", b"3": None}
        assert "1 of i/*.jpg have no m/*.png: 3" in caplog.text
        assert "1 of m/*.png have no i/*.jpg: 9" in caplog.text

    def test_vectors_of_values_keep_their_shape(self, folder: Write) -> None:
        features = {"photo": PETS["photo"], "smiling": Feature(shape=(2,), role="target")}
        place = folder(*(f"{i}.jpg" for i in range(5)))
        splits = files_by_name(place, features, {"photo": "*.jpg"}, values=lambda name: {"smiling": [1, int(name)]})
        assert sorted(row["smiling"][1] for batches in splits.values() for row in rows(batches)) == [0, 1, 2, 3, 4]

    def test_no_such_files_are_told(self, folder: Write) -> None:
        with pytest.raises(DataError, match=r"data holds no file `images/\*.jpg`"):
            files_by_name(folder("x.jpg"), MASKED, {"photo": "images/*.jpg"})

    def test_two_files_of_one_name_are_told(self, folder: Write) -> None:
        first, second = folder("1.jpg", name="a"), folder("1.jpg", name="b")
        with pytest.raises(DataError, match=r"a and b holds two files 1.jpg"):
            files_by_name([first, second], MASKED, {"photo": "*.jpg"})


def test_an_archive_that_is_damaged_is_named(folder: Write) -> None:
    path = zipped(folder(*animals()))
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("cat/1.jpg").header_offset
    data = bytearray(path.read_bytes())
    data[start + 45] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"data.zip.*cat/1.jpg"):
        [rows(batches) for batches in files_by_class(path, PETS).values()]
