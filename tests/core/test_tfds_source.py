"""TFDS prepares data sets from files that come like all others, and what it has prepared is read back in batches."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import projects
from headrace.artifacts import Artifact
from headrace.downloading import download
from headrace.errors import ConfigError, DataError, Unavailable
from headrace.getting.fetching import fetch
from headrace.getting.tfds_source import _file, prepare
from headrace.jobs import Job
from headrace.ragged import Ragged
from headrace.readers.batches import to_arrays
from headrace.readers.tfds_reading import read_tfds
from headrace.spec import Feature, File, Pipeline

JobFactory = Callable[..., Job]
Arrays = dict[str, Any]

DIGITS = {
    "image": Feature(shape=(28, 28, 1), dtype="uint8"),
    "label": Feature(dtype="int64", role="target", classes=tuple("0123456789")),
}
MNIST = {"train": 30, "t10k": 10}


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """An array in the format of the MNIST files, packed."""
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def mnist(seed: int = 0) -> dict[str, bytes]:
    """The four files of a small MNIST, though the headers say what the real ones say."""
    random = np.random.default_rng(seed)
    files = {}
    for split, count in MNIST.items():
        files[f"{split}-images-idx3-ubyte.gz"] = idx(random.integers(0, 256, (count, 28, 28)))
        files[f"{split}-labels-idx1-ubyte.gz"] = idx(random.integers(0, 10, count))
    return files


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """TFDS's own builder of MNIST, which knows these files and their digests instead of the real ones."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.image_classification import mnist as module

    files = mnist()
    urls = {f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}": name for name in files}
    infos = {
        url: tfds.download.checksums.UrlInfo(len(files[name]), hashlib.sha256(files[name]).hexdigest(), name)
        for url, name in urls.items()
    }
    monkeypatch.setattr(module.MNIST, "url_infos", infos)
    monkeypatch.setattr(module, "_TRAIN_EXAMPLES", MNIST["train"])
    monkeypatch.setattr(module, "_TEST_EXAMPLES", MNIST["t10k"])
    return files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror in a folder, empty."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("HEADRACE_MIRROR", str(folder))
    return folder


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pipeline]:
    """Let a workload's data come from TFDS; state only what differs."""
    pipeline = projects.load("house_prices")

    def make(**changes: Any) -> Pipeline:
        update = {"files": (), "tfds": "mnist", "twin": _twin, "read": _read, "features": DIGITS, **changes}
        source = pipeline.sources["boston"].model_copy(update=update)
        made = pipeline.model_copy(update={"sources": {"digits": source}})
        monkeypatch.setattr(projects, "load", lambda name: made)
        return made

    return make


def _twin(raw: Path, seed: int) -> None:
    (raw / "made.up").write_text("digits")


def _read(raw: Path) -> Any:
    return read_tfds(raw, DIGITS)


def arrays(splits: Any, features: dict[str, Feature]) -> dict[str, Arrays]:
    """All of each split."""
    found = {}
    for split, batches in splits.items():
        parts = [to_arrays(batch, features) for batch in batches]
        found[split] = {
            name: Ragged.joined([part[name] for part in parts])
            if isinstance(parts[0][name], Ragged)
            else np.concatenate([part[name] for part in parts])
            for name in features
        }
    return found


def by_tfds(folder: Path, split: str) -> list[dict[str, Any]]:
    """The same examples as TFDS itself reads them."""
    import tensorflow_datasets as tfds

    (found,) = folder.rglob("dataset_info.json")
    builder = tfds.builder_from_directory(found.parent)
    return list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))


class TestBuiltIn:
    """MNIST, as any builder that TFDS brings."""

    def test_is_prepared_from_the_mirror_and_read_as_tfds_reads_it(
        self, small_mnist: dict[str, bytes], folder: Path, digits: Callable[..., Pipeline], job: JobFactory
    ) -> None:
        digits()
        put(folder, small_mnist)
        raw = download(job(data="real"))

        found = arrays(job(data="real").origin.read(raw.path), DIGITS)
        assert {split: len(values["label"]) for split, values in found.items()} == {"train": 30, "test": 10}
        for split in ("train", "test"):
            theirs = by_tfds(raw.path, split)
            np.testing.assert_array_equal(found[split]["image"], np.stack([each["image"] for each in theirs]))
            np.testing.assert_array_equal(found[split]["label"], [each["label"] for each in theirs])

    def test_is_described_by_what_was_downloaded(
        self, small_mnist: dict[str, bytes], folder: Path, digits: Callable[..., Pipeline], job: JobFactory
    ) -> None:
        digits()
        put(folder, small_mnist)
        raw = download(job(data="real"))
        facts, lineage = raw.json("data.json"), raw.json("lineage.json")
        assert facts["data"] == "real"
        assert facts["files"] == {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "vouched_by": "origin"}
            for name, data in small_mnist.items()
        }
        assert lineage["tfds"] == "mnist/3.0.1"
        assert {entry["way"] for entry in lineage["files"].values()} == {"mirror"}
        assert download(job(data="real")).state == "skipped"
        assert "tfds" in json.loads((raw.path / "manifest.json").read_text())["ingredients"]["settings"]

    def test_gives_the_same_bytes_each_time(self, small_mnist: dict[str, bytes], folder: Path, tmp_path: Path) -> None:
        put(folder, small_mnist)
        bytes_of = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            assert prepare("mnist", tmp_path / name, tmp_path / f"scratch {name}", fetch) == "mnist/3.0.1"
            files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
            bytes_of.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
        assert bytes_of[0] == bytes_of[1]

    def test_stands_on_the_word_of_a_mirror_with_other_bytes(
        self, small_mnist: dict[str, bytes], folder: Path, digits: Callable[..., Pipeline], job: JobFactory
    ) -> None:
        digits()
        others = mnist(seed=1)

        def put_listed(files: dict[str, bytes]) -> None:
            put(folder, files)
            manifest = [{"file": name, "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()]
            (folder / "MANIFEST.json").write_text(json.dumps(manifest))

        put_listed(others)
        raw = download(job(data="real"))
        assert {entry["vouched_by"] for entry in raw.json("data.json")["files"].values()} == {"mirror"}
        put_listed(mnist(seed=2))
        assert "had other bytes than those in force now" in download.plan(job(data="real")).reason

    def test_with_wrong_bytes_is_refused(
        self, small_mnist: dict[str, bytes], folder: Path, digits: Callable[..., Pipeline], job: JobFactory
    ) -> None:
        digits()
        put(folder, {**small_mnist, "t10k-labels-idx1-ubyte.gz": b"something else"})
        with pytest.raises(DataError, match=r"Wrong checksum: .*t10k-labels") as caught:
            download(job(data="auto"))
        assert not isinstance(caught.value, Unavailable)

    def test_that_can_not_be_had_is_told_at_once(
        self,
        small_mnist: dict[str, bytes],
        folder: Path,
        digits: Callable[..., Pipeline],
        job: JobFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Neither TFDS's retries, nor ours."""
        from tensorflow_datasets.core.download import downloader

        from headrace.getting import origins

        def never(*arguments: Any, **options: Any) -> None:
            raise AssertionError("TFDS downloads by itself")

        def nobody(url: str, seconds: float) -> None:
            raise Unavailable("storage.googleapis.com: Name or service not known")

        monkeypatch.setattr(downloader._Downloader, "download", never)
        monkeypatch.setattr(origins, "reach", nobody)
        digits()
        with pytest.raises(Unavailable, match=r"ubyte\.gz can't be had: .* storage\.googleapis\.com: Name or service"):
            download(job(data="real"))

        made_up = download(job(data="auto"))
        assert made_up.json("data.json")["data"] == "synthetic"
        assert sorted(path.name for path in made_up.path.iterdir()) == [
            "data.json",
            "lineage.json",
            "made.up",
            "manifest.json",
        ]
        assert len(made_up.json("lineage.json")["wanted"]) == 4
        assert download.plan(job(data="auto")).state == "skipped"
        put(folder, small_mnist)
        assert download.plan(job(data="auto")).reason == "made before, but the real data can be had now"
        assert download(job(data="auto")).json("data.json")["data"] == "real"

    def test_with_damaged_files_is_told(self, folder: Path, tmp_path: Path, small_mnist: dict[str, bytes]) -> None:
        name = "t10k-images-idx3-ubyte.gz"
        damaged = gzip.compress(gzip.decompress(small_mnist[name])[:-100])
        put(folder, {**small_mnist, name: damaged})
        (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(damaged).hexdigest()}  {name}\n")
        (tmp_path / "out").mkdir()
        with pytest.raises(DataError, match=r"TensorFlow Datasets can't prepare `mnist/3\.0\.1`"):
            prepare("mnist", tmp_path / "out", tmp_path / "scratch", fetch)
        assert list((tmp_path / "out").iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("mnits", r"has no builder `mnits`: did you mean .*`mnist`"),
            ("xqzwv", "has no builder `xqzwv`: `tfds.list_builders"),
            ("mnist:9.9.9", "can't give `mnist:9.9.9`"),
            ("glue/sst3", "can't give `glue/sst3`"),
        ],
    )
    def test_must_exist(self, tmp_path: Path, name: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            prepare(name, tmp_path, tmp_path / "scratch", fetch)

    def test_that_only_a_person_can_fetch_says_what_to_put_where(self, tmp_path: Path, headrace_home: Path) -> None:
        with pytest.raises(Unavailable, match="a person must") as caught:
            prepare("imagenet2012", tmp_path, tmp_path / "scratch", fetch)
        assert "ILSVRC2012_img_train.tar" in str(caught.value)
        assert f"put it into {headrace_home}/manual/imagenet2012" in str(caught.value)

    def test_says_nothing_on_standard_output(
        self, small_mnist: dict[str, bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        put(folder, small_mnist)
        (tmp_path / "out").mkdir()
        prepare("mnist", tmp_path / "out", tmp_path / "scratch", fetch)
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("url", "filename", "ours"),
        [
            ("https://a.org/b/c.zip", "c.zip", "https://a.org/b/c.zip"),
            ("https://a.org/files/123", "c.zip", "https://a.org/files/123#c.zip"),
            (
                "https://drive.google.com/uc?export=download&id=0B7EVK8r0v71pZjFTYXZWM3FlRnM",
                "img_align_celeba.zip",
                "gdrive://0B7EVK8r0v71pZjFTYXZWM3FlRnM/img_align_celeba.zip",
            ),
        ],
    )
    def test_files_have_the_names_that_tfds_knows(self, url: str, filename: str, ours: str) -> None:
        import tensorflow_datasets as tfds

        info = tfds.download.checksums.UrlInfo(5, "ab" * 32, filename)
        assert _file(url, info) == File(url=ours, sha256="ab" * 32, size=5)
        assert _file(url, info).name == filename
        assert _file("https://a.org/d.zip", None) == File(url="https://a.org/d.zip")


def examples(split: str) -> list[dict[str, Any]]:
    """Of every kind that TFDS has."""
    random = np.random.default_rng(len(split))
    return [
        {
            "id": k,
            "picture": random.integers(0, 256, (4, 6, 3), dtype=np.uint8),
            "text": f"{split} {k} é",
            "label": k % 3,
            "vector": random.random(5, dtype=np.float32),
            "one": [k / 2],
            "flag": bool(k % 2),
            "bytes": random.integers(0, 256, (2, 3), dtype=np.uint8),
            "packed": random.random((2, 2), dtype=np.float32),
            "tokens": list(range(k % 4)),
            "track": random.random((k % 3, 2), dtype=np.float32),
            "nested": {"boxes": [{"box": [0.1 * j, 0.2, 0.3, 0.4]} for j in range(k % 3)], "age": k},
        }
        for k in range(5 + len(split))
    ]


KINDS = {
    "id": Feature(dtype="int64"),
    "picture": Feature(shape=(4, 6, 3), dtype="uint8"),
    "text": Feature(dtype="string"),
    "label": Feature(dtype="int64", role="target", classes=("cat", "dog", "bird")),
    "vector": Feature(shape=(5,)),
    "one": Feature(shape=(1,)),
    "flag": Feature(dtype="uint8"),
    "bytes": Feature(shape=(2, 3), dtype="uint8"),
    "packed": Feature(shape=(2, 2)),
    "tokens": Feature(shape=(None,), dtype="int64"),
    "track": Feature(shape=(None, 2)),
    "boxes": Feature(shape=(None, 4)),
    "age": Feature(shape=(1,)),
}
NAMES = {"boxes": "nested/boxes/box", "age": "nested/age"}


@pytest.fixture(scope="module")
def kinds() -> Any:
    """A builder of one's own, with features of every kind."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    class KindsOfFeatures(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = tfds.features
            box = features.Sequence({"box": features.BBoxFeature()})
            return tfds.core.DatasetInfo(
                builder=self,
                features=features.FeaturesDict(
                    {
                        "id": tf.int32,
                        "picture": features.Image(shape=(4, 6, 3)),
                        "text": features.Text(),
                        "label": features.ClassLabel(names=["cat", "dog", "bird"]),
                        "vector": features.Tensor(shape=(5,), dtype=tf.float32),
                        "one": features.Tensor(shape=(1,), dtype=tf.float64),
                        "flag": tf.bool,
                        "bytes": features.Tensor(shape=(2, 3), dtype=tf.uint8, encoding="bytes"),
                        "packed": features.Tensor(shape=(2, 2), dtype=tf.float32, encoding="zlib"),
                        "tokens": features.Sequence(tf.int64),
                        "track": features.Tensor(shape=(None, 2), dtype=tf.float32),
                        "nested": {"boxes": box, "age": tf.int64},
                    }
                ),
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: self._generate_examples(split) for split in ("train", "test", "extra")}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            for each in examples(split):
                boxes = [{**box, "box": tfds.features.BBox(0.0, 0.0, 1.0, 1.0)} for box in each["nested"]["boxes"]]
                yield each["id"], {**each, "nested": {**each["nested"], "boxes": boxes}}

    return KindsOfFeatures


@pytest.fixture(scope="module")
def prepared(kinds: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of one's own, as `prepare` makes it."""
    folder = tmp_path_factory.mktemp("prepared")
    assert prepare("kinds_of_features", folder, folder / "scratch", fetch) == "kinds_of_features/1.0.0"
    return folder


class TestReading:
    def test_gives_every_kind_of_feature_as_tfds_does(self, prepared: Path) -> None:
        found = arrays(read_tfds(prepared, KINDS, names=NAMES), KINDS)
        for split, values in found.items():
            theirs = by_tfds(prepared, split)
            assert len(theirs) == len(examples(split))
            for name, feature in KINDS.items():
                expected = [_at(each, NAMES.get(name, name)) for each in theirs]
                assert len(values[name]) == len(expected)
                for ours, their in zip(values[name], expected, strict=True):
                    np.testing.assert_array_equal(ours, np.reshape(their, np.shape(ours)), err_msg=name)
                if feature.dtype != "string":
                    assert values[name].dtype == feature.dtype

    def test_gives_the_examples_that_were_generated(self, prepared: Path) -> None:
        features = {name: KINDS[name] for name in ("id", "picture", "text", "packed")}
        found = arrays(read_tfds(prepared, features), features)["train"]
        originals = {each["id"]: each for each in examples("train")}
        assert sorted(found["id"]) == sorted(originals)
        for k, number in enumerate(found["id"]):
            np.testing.assert_array_equal(found["picture"][k], originals[number]["picture"])
            np.testing.assert_array_equal(found["packed"][k], originals[number]["packed"])
            assert found["text"][k].decode() == originals[number]["text"]

    def test_leaves_pictures_encoded_if_they_are_declared_so(self, prepared: Path) -> None:
        features = {"picture": Feature(dtype="string", content="image")}
        found = arrays(read_tfds(prepared, features), features)["train"]["picture"]
        assert all(data.startswith(b"\x89PNG") for data in found)

    def test_can_be_done_again(self, prepared: Path) -> None:
        train = read_tfds(prepared, {"id": KINDS["id"]})["train"]
        once, again = ([batch.to_pydict() for batch in train] for _ in range(2))
        assert once == again

    def test_is_done_in_batches(self, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from headrace.readers import tfds_reading

        monkeypatch.setattr(tfds_reading, "ROWS", 4)
        train = read_tfds(prepared, {"id": KINDS["id"]})["train"]
        assert [batch.num_rows for batch in train] == [4, 4, 2]

    def test_leaves_out_other_splits_and_says_so(self, prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        assert list(read_tfds(prepared, {"id": KINDS["id"]})) == ["train", "test"]
        assert "kinds_of_features/1.0.0: not read: extra" in caplog.text

    def test_takes_the_splits_that_it_is_told(self, prepared: Path) -> None:
        features = {"id": KINDS["id"]}
        splits = {"train": "train[:70%]", "validation": "train[70%:]", "test": "extra"}
        found = {
            name: values["id"]
            for name, values in arrays(read_tfds(prepared, features, splits=splits), features).items()
        }
        whole = arrays(read_tfds(prepared, features), features)["train"]["id"]
        np.testing.assert_array_equal(np.concatenate([found["train"], found["validation"]]), whole)
        assert [len(found[name]) for name in splits] == [7, 3, 10]

    @pytest.mark.parametrize(
        ("splits", "said"),
        [
            ({"train": "train", "test": "tests"}, "has no split `tests`"),
            ({"train": "train[:x%]", "test": "test"}, r"has no split `train\[:x%\]`"),
            ({"train": "train"}, "has no split `test` by itself"),
        ],
    )
    def test_refuses_splits_that_are_not_there(self, prepared: Path, splits: dict[str, str], said: str) -> None:
        with pytest.raises(DataError, match=said):
            read_tfds(prepared, {"id": KINDS["id"]}, splits=splits)

    def test_tells_all_that_differs_from_the_declaration(self, prepared: Path) -> None:
        features = {
            "labels": KINDS["label"],
            "label": Feature(dtype="int64", classes=("dog", "cat", "bird")),
            "vector": Feature(shape=(4,)),
            "text": Feature(),
            "tokens": Feature(shape=(3,), dtype="int64"),
            "one": Feature(shape=(1,), dtype="int64"),
            "picture": Feature(shape=(28, 28, 3), dtype="uint8"),
        }
        with pytest.raises(DataError) as caught:
            read_tfds(prepared, features)
        said = str(caught.value)
        assert "there is no feature `labels`: did you mean `label`" in said
        assert "`label`: its classes are cat, dog, bird, not dog, cat, bird" in said
        assert "`vector`: it has the shape (5,) and the type float32, not (4,) and float32" in said
        assert "`text`: it has the shape () and the type string, not () and float32" in said
        assert "`tokens`: it has the shape (None,) and the type int64, not (3,) and int64" in said
        assert "`one`: it has the shape (1,) and the type float64, not (1,) and int64" in said
        assert "`picture`: it has the shape (4, 6, 3) and the type uint8, not (28, 28, 3) and uint8; keep them" in said

    def test_needs_a_data_set(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds no data sets of TensorFlow Datasets"):
            read_tfds(tmp_path, KINDS)

    @pytest.mark.parametrize("fault", ["flipped", "cut", "shorter"])
    def test_finds_damaged_records(self, prepared: Path, tmp_path: Path, fault: str) -> None:
        import shutil

        folder = tmp_path / "damaged"
        shutil.copytree(prepared / "kinds_of_features", folder)
        (path,) = folder.rglob("*train.tfrecord*")
        data = bytearray(path.read_bytes())
        if fault == "flipped":
            data[len(data) // 2] ^= 1
        first = 16 + struct.unpack("<Q", data[:8])[0]
        path.write_bytes({"flipped": data, "cut": data[:-7], "shorter": data[:first]}[fault])
        features = {"id": KINDS["id"]}
        with pytest.raises(DataError, match=r"can't be read after|is not complete"):
            arrays(read_tfds(folder, features), features)

    def test_reads_array_records_too(self, kinds: Any, tmp_path: Path) -> None:
        builder = kinds(data_dir=tmp_path, file_format="array_record")
        builder.download_and_prepare()
        features = {name: KINDS[name] for name in ("id", "text", "picture")}
        found = arrays(read_tfds(tmp_path, features), features)["train"]
        assert sorted(found["id"]) == list(range(10))

    def test_refuses_the_format_that_loses_examples(self, kinds: Any, prepared: Path, tmp_path: Path) -> None:
        import shutil

        shutil.copytree(prepared / "kinds_of_features", tmp_path / "parquet")
        path = next((tmp_path / "parquet").rglob("dataset_info.json"))
        path.write_text(path.read_text().replace('"tfrecord"', '"parquet"'))
        with pytest.raises(DataError, match="is stored as parquet"):
            read_tfds(tmp_path / "parquet", KINDS)


def _at(example: dict[str, Any], path: str) -> Any:
    for step in path.split("/"):
        example = example[step]
    return example


def test_what_is_skipped_needs_no_tensorflow(
    small_mnist: dict[str, bytes], folder: Path, digits: Callable[..., Pipeline], job: JobFactory
) -> None:
    digits()
    put(folder, small_mnist)
    assert isinstance(download(job(data="real")), Artifact)
    modules = "headrace.downloading, headrace.getting.tfds_source, headrace.readers.tfds_reading"
    code = f"import sys, {modules}; print({{'tensorflow', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.real_data
class TestRealData:
    @pytest.mark.parametrize(
        ("name", "features", "counts"),
        [
            (
                "imdb_reviews",
                {"text": Feature(dtype="string"), "label": Feature(dtype="int64", classes=("neg", "pos"))},
                {"train": 5000, "test": 5000},
            ),
            (
                "oxford_iiit_pet",
                {
                    "image": Feature(dtype="string", content="image"),
                    "segmentation_mask": Feature(dtype="string", content="mask"),
                },
                {"train": 187, "test": 174},
            ),
        ],
    )
    def test_of_the_mirror_is_prepared_by_the_builders_of_tfds(
        self, mirror: Path, tmp_path: Path, name: str, features: dict[str, Feature], counts: dict[str, int]
    ) -> None:
        (tmp_path / "out").mkdir()
        prepare(name, tmp_path / "out", tmp_path / "scratch", fetch)
        splits = read_tfds(tmp_path / "out", features)
        assert {split: sum(batch.num_rows for batch in batches) for split, batches in splits.items()} == counts

    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    def test_of_tfdss_own_tests_is_read(
        self, mirror: Path, folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its fake examples are unpacked, and have the names of its tests."""
        from tensorflow_datasets.image_classification import mnist as module

        fake = mirror / "tfds_fake_examples" / name
        images = gzip.compress((fake / "train-image").read_bytes()), gzip.compress((fake / "test-image").read_bytes())
        labels = gzip.compress((fake / "train-label").read_bytes()), gzip.compress((fake / "test-label").read_bytes())
        for k, part in enumerate(("train", "t10k")):
            put(folder, {f"{part}-images-idx3-ubyte.gz": images[k], f"{part}-labels-idx1-ubyte.gz": labels[k]})
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in folder.iterdir()]
        (folder / "SHA256SUMS").write_text("\n".join(sums))
        monkeypatch.setattr(module, "_TRAIN_EXAMPLES", 10)
        monkeypatch.setattr(module, "_TEST_EXAMPLES", 2)
        (tmp_path / "out").mkdir()
        prepare(name, tmp_path / "out", tmp_path / "scratch", fetch)
        features = {"image": DIGITS["image"], "label": Feature(dtype="int64")}
        found = arrays(read_tfds(tmp_path / "out", features), features)
        assert {split: values["image"].shape for split, values in found.items()} == {
            "train": (10, 28, 28, 1),
            "test": (2, 28, 28, 1),
        }
