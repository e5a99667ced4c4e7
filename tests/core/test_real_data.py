"""Every set of the mirror is read by the readers that workloads have, and has the counts that its publisher gives."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import DataError
from headrace.getting.archives import opened
from headrace.readers.arrays import read_arrays
from headrace.readers.batches import whole
from headrace.readers.folders import files_by_class, files_by_name
from headrace.readers.splits import keras_order, split_arrays
from headrace.readers.tables import read_table
from headrace.readers.tfrecords import inferred, read_records, record_splits
from headrace.spec import Column, Feature

pytestmark = pytest.mark.real_data


def text(*classes: str, **more: Any) -> Feature:
    return Feature(dtype="int64" if classes else "string", classes=classes, **more)


def vector(*names: str, **more: Any) -> Feature:
    return Feature(shape=(len(names),), columns=tuple(Column(name=name) for name in names), **more)


def counts(splits: Mapping[str, Iterable[pa.RecordBatch]]) -> dict[str, int]:
    return {split: sum(batch.num_rows for batch in batches) for split, batches in splits.items()}


class TestArrays:
    def test_boston(self, mirror: Path) -> None:
        arrays = read_arrays(mirror / "boston_housing" / "boston_housing.npz", {"x": 2, "y": 1})
        train = split_arrays(arrays)["train"]["y"]
        assert len(train) == 404
        assert train[:10].tolist() == [15.2, 42.3, 50.0, 21.1, 17.7, 18.5, 11.3, 15.6, 15.6, 14.4]

    def test_california(self, mirror: Path) -> None:
        arrays = read_arrays(mirror / "california_housing" / "california_housing.npz", {"x": 2, "y": 1})
        assert {split: len(part["y"]) for split, part in split_arrays(arrays).items()} == {"train": 16512, "test": 4128}

    def test_mnist(self, mirror: Path) -> None:
        path = mirror / "mnist" / "mnist.npz"
        train = read_arrays(path, {"x_train": 3, "y_train": 1})
        test = read_arrays(path, {"x_test": 3, "y_test": 1})
        assert train["x_train"].shape == (60_000, 28, 28)
        assert train["x_train"].dtype == np.uint8
        assert np.bincount(test["y_test"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

    def test_imdb(self, mirror: Path) -> None:
        path = mirror / "imdb" / "imdb.npz"
        words = json.loads((mirror / "imdb" / "imdb_word_index.json").read_text())
        for split in ("train", "test"):
            arrays = read_arrays(path, {f"x_{split}": "lists", f"y_{split}": 1})
            assert len(arrays[f"x_{split}"]) == 5000
            assert arrays[f"y_{split}"].sum() == 2500
            assert arrays[f"x_{split}"].values.min() >= 1
            assert arrays[f"x_{split}"].values.max() <= len(words) == 88_584

    def test_reuters(self, mirror: Path) -> None:
        arrays = read_arrays(mirror / "reuters" / "reuters.npz", {"x": "lists", "y": 1})
        topics = json.loads((mirror / "reuters" / "reuters_topics.json").read_text())
        assert len(topics) == arrays["y"].max() + 1 == 46
        train = split_arrays(arrays)["train"]
        assert train["y"][:10].tolist() == [3, 4, 3, 4, 4, 4, 4, 3, 3, 16]
        # Keras adds 3, for padding, start and unknown words.
        assert (next(iter(train["x"]))[:11] + 3).tolist() == [27595, 28842, 8, 43, 10, 447, 5, 25, 207, 270, 5]
        assert (len(train["y"]), len(arrays["y"])) == (8982, 11_228)

    def test_olivetti(self, mirror: Path) -> None:
        from scipy.io import loadmat

        faces = loadmat(mirror / "olivetti" / "olivettifaces.mat")["faces"]
        assert faces.shape == (4096, 400)
        assert faces.mean() == pytest.approx(132.38, abs=0.01)


class TestTables:
    def test_california_housing_has_missing_bedrooms(self, mirror: Path) -> None:
        features = {
            "rooms": vector("total_rooms", "total_bedrooms", optional=True),
            "ocean_proximity": text("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN"),
            "price": vector("median_house_value", role="target"),
        }
        from_file = whole(read_table(mirror / "california_housing" / "housing.csv", features), features)
        packed = whole(read_table(mirror / "california_housing" / "housing.tgz", features), features)
        assert np.isnan(from_file["rooms"]).sum(0).tolist() == [0, 207]
        assert len(from_file["price"]) == 20_640
        for name in features:
            np.testing.assert_array_equal(packed[name], from_file[name])

        required = {"rooms": vector("total_rooms", "total_bedrooms")}
        with pytest.raises(DataError, match=r"total_bedrooms is empty on line 292, line 343, line 540 and 204 more"):
            whole(read_table(mirror / "california_housing" / "housing.csv", required), required)

    def test_wine_has_no_header(self, mirror: Path) -> None:
        names = [f"c{number}" for number in range(12)]
        features = {"facts": vector(*names[:11]), "c11": text(*"345678", role="target")}
        rows = whole(read_table(mirror / "wine_quality" / "winequality-red.csv", features, names=names), features)
        assert np.bincount(rows["c11"]).tolist() == [10, 53, 681, 638, 199, 18]
        assert rows["facts"][0].tolist() == pytest.approx([7.4, 0.7, 0, 1.9, 0.076, 11, 34, 0.9978, 3.51, 0.56, 9.4])

    def test_titanic_has_missing_values(self, mirror: Path) -> None:
        features = {
            "survived": Feature(dtype="int64", role="target"),
            "sex": text("male", "female"),
            "age": Feature(optional=True),
            "cabin": Feature(dtype="string", optional=True),
            "name": Feature(dtype="string", role="note"),
        }
        rows = whole(read_table(mirror / "titanic" / "train.csv", features), features)
        assert len(rows["age"]) == 891
        assert np.isnan(rows["age"]).sum() == 177
        assert (rows["cabin"] == b"").sum() == 687
        assert rows["survived"].sum() == 342
        assert rows["sex"].sum() == 314
        assert rows["name"][0] == b"Braund, Mr. Owen Harris"
        new = read_table(mirror / "titanic" / "test.csv", features, targets_required=False)
        assert sum(batch.num_rows for batch in new) == 418

    def test_penguins_say_na(self, mirror: Path) -> None:
        bill = vector("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", optional=True)
        features = {
            "bill": bill,
            "sex": Feature(dtype="string", optional=True),
            "species": text("Adelie", "Chinstrap", "Gentoo", role="target"),
        }
        rows = whole(read_table(mirror / "penguin" / "penguins.csv", features), features)
        assert np.bincount(rows["species"]).tolist() == [152, 68, 124]
        assert np.isnan(rows["bill"]).any(1).sum() == 2
        assert Counter(rows["sex"].tolist()) == {b"male": 168, b"female": 165, b"": 11}

        required = features | {"bill": bill.model_copy(update={"optional": False})}
        (batch,) = read_table(mirror / "penguin" / "penguins.csv", required, bad="null")
        assert np.isnan(whole([batch], required)["bill"]).any(1).sum() == 2

    def test_raw_penguins_have_dates_and_names_with_brackets(self, mirror: Path) -> None:
        features = {
            "date_egg": Feature(dtype="string"),
            "culmen_length_mm": Feature(optional=True),
            "delta_15_n_o_oo": Feature(optional=True),
        }
        rows = whole(read_table(mirror / "penguin" / "penguins_raw.csv", features), features)
        assert len(rows["date_egg"]) == 344
        assert rows["date_egg"][0] == b"2007-11-11"
        assert np.isnan(rows["delta_15_n_o_oo"]).sum() == 14

    @pytest.mark.parametrize("kind", ["labelled", "skewed"])
    def test_processed_penguins(self, mirror: Path, kind: str) -> None:
        features = {"species": Feature(dtype="int64"), "culmen_length_mm": Feature()}
        rows = whole(read_table(mirror / "penguin" / kind, features), features)
        assert np.bincount(rows["species"]).tolist() == [146, 68, 120]

    def test_bike_sharing_is_two_tables_in_one_archive(self, mirror: Path) -> None:
        features = {"dteday": Feature(dtype="string", role="note"), "temp": Feature(), "cnt": Feature(dtype="int64")}
        path = mirror / "bike_sharing" / "Bike-Sharing-Dataset.zip"
        sizes = {
            name: len(whole(read_table(path, features, member=name), features)["cnt"])
            for name in ("hour.csv", "day.csv")
        }
        assert sizes == {"hour.csv": 17_379, "day.csv": 731}

    def test_jena(self, mirror: Path) -> None:
        features = {"date_time": Feature(dtype="string", role="note"), "weather": vector("T (degC)", "wv (m/s)")}
        rows = whole(read_table(mirror / "jena_climate" / "jena_climate_2020.csv.zip", features), features)
        assert len(rows["weather"]) == 52_696
        assert rows["date_time"][0] == b"01.01.2020 00:10:00"
        assert rows["weather"].min(0).tolist() == pytest.approx([-6.44, -9999])
        assert rows["weather"][:, 0].max() == pytest.approx(34.8)

    def test_jena_as_its_station_gives_it(self, mirror: Path) -> None:
        features = {"date": Feature(dtype="string"), "t_degc": Feature()}
        path = mirror / "jena_climate" / "weather.zip"
        assert len(whole(read_table(path, features, member="*.csv"), features)["date"]) == 52_696

    def test_chicago_taxi(self, mirror: Path) -> None:
        features = {
            "company": Feature(dtype="string", optional=True),
            "trip_seconds": Feature(optional=True),
            "tips": Feature(role="target"),
        }
        path = mirror / "chicago_taxi" / "data.csv"
        rows = whole(read_table(path, features), features)
        with path.open(newline="") as file:
            expected = list(csv.DictReader(file))
        assert len(rows["tips"]) == len(expected) == 15_002
        assert (rows["company"] == b"").sum() == sum(row["company"] == "" for row in expected) > 5000
        assert np.isnan(rows["trip_seconds"]).sum() == sum(row["trip_seconds"] == "" for row in expected)
        np.testing.assert_array_equal(rows["tips"], np.float32([float(row["tips"]) for row in expected]))

    def test_sentences_are_pairs_without_quotes(self, mirror: Path) -> None:
        features = {"english": Feature(dtype="string"), "spanish": Feature(dtype="string", role="target")}
        path = mirror / "spa_eng" / "spa-eng.zip"
        rows = whole(
            read_table(path, features, member="*/spa.txt", names=("english", "spanish"), quotes=False), features
        )
        assert len(rows["english"]) == 118_964
        assert [rows["english"][0], rows["spanish"][0]] == [b"Go.", b"Ve."]

    def test_labelled_reviews(self, mirror: Path) -> None:
        features = {"text": Feature(dtype="string"), "label": text("neg", "pos", role="target")}
        rows = whole(read_table(mirror / "tfx" / "imdb_small_with_labels.txt", features, delimiter=","), features)
        assert len(rows["label"]) == 100

    def test_glove(self, mirror: Path) -> None:
        with opened(mirror / "glove" / "glove.6B.zip", "*.100d.txt") as lines:
            words = dict(line.decode().split(" ", 1) for line in lines)
        assert len(words) == 2604
        assert np.linalg.norm(np.fromstring(words["the"], sep=" ")) == pytest.approx(5.8212, abs=1e-4)

    @pytest.mark.parametrize(("name", "size"), [("nietzsche", 600_893), ("shakespeare", 1_115_394)])
    def test_texts(self, mirror: Path, name: str, size: int) -> None:
        assert len((mirror / "text" / f"{name}.txt").read_text()) == size


def by_class(*classes: str, kind: str = "image") -> dict[str, Feature]:
    return {
        "it": Feature(dtype="string", content=kind),  # type: ignore[arg-type]
        "label": text(*classes, role="target"),
        "file": Feature(dtype="string", role="note"),
    }


class TestFolders:
    def test_reviews(self, mirror: Path) -> None:
        splits = files_by_class(mirror / "imdb" / "aclImdb_v1.tar.gz", by_class("neg", "pos", kind="text"))
        rows = whole(splits["train"], by_class("neg", "pos", kind="text"))
        assert list(splits) == ["train", "test"]
        assert np.bincount(rows["label"]).tolist() == [2500, 2500]
        stars = [int(file.decode().removesuffix(".txt").rpartition("_")[2]) for file in rows["file"]]
        assert {label: {s for s, y in zip(stars, rows["label"], strict=True) if y == label} for label in (0, 1)} == {
            0: {1, 2, 3, 4},
            1: {7, 8, 9, 10},
        }

    def test_cats_and_dogs(self, mirror: Path) -> None:
        splits = files_by_class(mirror / "cats_vs_dogs" / "cats_vs_dogs_small.zip", by_class("cat", "dog"))
        assert counts(splits) == {"train": 800, "validation": 200, "test": 200}

    def test_flowers(self, mirror: Path) -> None:
        flowers = by_class("daisy", "dandelion", "roses", "sunflowers", "tulips")
        shares = {"validation": 0.1, "test": 0.1}
        splits = files_by_class(mirror / "flowers" / "flower_photos.tgz", flowers, shares=shares)
        assert counts(splits) == {"train": 320, "validation": 40, "test": 40}

    def test_pets_with_their_masks(self, mirror: Path) -> None:
        folder = mirror / "oxford_iiit_pet"
        with opened(folder / "annotations.tar.gz", "annotations/test.txt") as lines:
            held_out = {line.split()[0].decode() for line in lines}
        features = {
            "photo": Feature(dtype="string", content="image"),
            "trimap": Feature(dtype="string", content="mask", role="target", classes=("pet", "background", "border")),
            "breed": text("Abyssinian", "Bengal", "american_bulldog", role="note"),
            "name": Feature(dtype="string", role="note"),
        }
        splits = files_by_name(
            [folder / "images.tar.gz", folder / "annotations.tar.gz"],
            features,
            {"photo": "images/*.jpg", "trimap": "annotations/trimaps/*.png"},
            values=lambda name: {"breed": features["breed"].classes.index(name.rpartition("_")[0]), "name": name},
            split=lambda name: "test" if name in held_out else "train",
        )
        assert counts(splits) == {"train": 187, "test": 174}
        rows = [row for part in splits.values() for batch in part for row in batch.to_pylist()]
        assert all(row["trimap"].startswith(b"\x89PNG") for row in rows)
        assert [row["name"] for row in rows if not row["photo"].startswith(b"\xff\xd8")] == [b"Abyssinian_5"]

    def test_faces(self, mirror: Path) -> None:
        features = {"face": Feature(dtype="string", content="image")}
        place = mirror / "caltech_faces" / "Faces_easy.tar.gz"
        splits = files_by_name(place, features, {"face": "101_ObjectCategories/Faces_easy/*.jpg"})
        assert counts(splits) == {"train": 264, "test": 66}

    def test_celebrities_with_a_table_beside_them(self, mirror: Path) -> None:
        _, header, *lines = (mirror / "celeba" / "list_attr_celeba.txt").read_text().splitlines()
        column = 1 + header.split().index("Smiling")
        smiling = {line.split()[0]: line.split()[column] == "1" for line in lines}
        features = {"face": Feature(dtype="string", content="image"), "smiling": text("no", "yes", role="target")}
        zipped, pattern = mirror / "celeba" / "img_align_celeba.zip", {"face": "img_align_celeba/*.jpg"}
        known = files_by_name(
            zipped,
            features,
            pattern,
            values=lambda name: {"smiling": smiling[f"{name}.jpg"]} if f"{name}.jpg" in smiling else None,
        )
        assert sum(counts(known).values()) == 126
        found = [row["smiling"] for part in known.values() for batch in part for row in batch.to_pylist()]
        assert sum(found) == sum(smiling.values())
        assert sum(counts(files_by_name(zipped, {"face": features["face"]}, pattern)).values()) == 1200


class TestRecords:
    def test_mnist_of_tfx(self, mirror: Path) -> None:
        path = mirror / "tfx" / "mnist.tfrecord"
        assert inferred(path) == {"image_class": Feature(dtype="int64"), "image_floats": Feature(shape=(784,))}
        features = {"pixels": Feature(shape=(28, 28, 1)), "digit": Feature(dtype="int64", role="target")}
        names = {"pixels": "image_floats", "digit": "image_class"}
        rows = whole(read_records(path, features, names=names), features)
        assert rows["pixels"].shape == (1000, 28, 28, 1)
        assert (rows["pixels"].min(), rows["pixels"].max()) == (-0.5, 0.5)
        assert rows["digit"][:5].tolist() == [9, 3, 6, 1, 8]

        dealt = whole(record_splits(path, features, names=names)["train"], features)
        np.testing.assert_array_equal(dealt["digit"], rows["digit"][keras_order(1000)[:800]])

    def test_cut_off(self, mirror: Path, tmp_path: Path) -> None:
        data = (mirror / "tfx" / "mnist.tfrecord").read_bytes()
        (tmp_path / "mnist.tfrecord").write_bytes(data[:-100])
        features = {"image_class": Feature(dtype="int64")}
        with pytest.raises(DataError, match=r"record 999 from byte 3,199,797, is cut off"):
            whole(read_records(tmp_path / "mnist.tfrecord", features), features)
