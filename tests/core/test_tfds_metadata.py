"""TensorFlow Datasets reads our records without a word of our code, and sees the same examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.ragged import Ragged
from headrace.records.inputs import arrays
from headrace.spec import Feature, Records
from tests.core.keeping import keep
from tests.core.kinds import EVERY, everything

MORE = {
    "words": Feature(shape=(None,), dtype="string"),
    "pair": Feature(shape=(2,), dtype="string"),
    "counts": Feature(shape=(2, 2), dtype="int64"),
    "bytes": Feature(shape=(None, 2), dtype="uint8"),
}


def more(rows: int) -> dict[str, Any]:
    return {
        "words": Ragged.of([[b"w"] * (row % 3) for row in range(rows)], object),
        "pair": np.array([[b"a", b"b" * row] for row in range(rows)], object),
        "counts": np.arange(-4, 4 * rows - 4).reshape(rows, 2, 2),
        "bytes": Ragged(np.arange(rows * 2, dtype=np.uint8).reshape(rows, 2), np.arange(rows + 1)),
    }


def read(folder: Path, split: str) -> tuple[Any, list[dict[str, Any]]]:
    """The builder, and the examples that it gives, in stored order."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    return builder, list(tfds.as_numpy(builder.as_dataset(split=split, read_config=in_order)))


@pytest.mark.parametrize("images", ["raw", "png", "jpeg"])
def test_examples_of_every_kind_are_the_same(tmp_path: Path, images: Any) -> None:
    values = {**everything(40), **more(40)}
    layout = {**EVERY, **MORE, "photo": EVERY["image"]}
    # JPEG is not exact, so that this one is compared with what we read ourselves.
    values["photo"] = values["image"]
    kept = Records(images=images, shard_bytes=10_000)
    info = keep(tmp_path, layout, kept, train=values, test={name: part[:5] for name, part in values.items()})
    assert len(info.shards["train"]) > 2
    for split, rows in (("train", 40), ("test", 5)):
        ours = arrays(tmp_path, split)
        builder, theirs = read(tmp_path, split)
        assert len(theirs) == builder.info.splits[split].num_examples == rows
        for row, example in enumerate(theirs):
            assert example.keys() == layout.keys()
            for name, found in example.items():
                one = ours[name]
                expected = one.values[slice(*one.splits[row : row + 2])] if isinstance(one, Ragged) else one[row]
                assert np.shape(found) == np.shape(expected), name
                np.testing.assert_array_equal(found, expected, err_msg=name)


def test_what_is_an_image_a_class_or_a_text_is_called_so(tmp_path: Path) -> None:
    from tensorflow_datasets import features

    keep(tmp_path, EVERY, Records(images="png"), train=everything(5))
    builder, _ = read(tmp_path, "train")
    found = builder.info.features
    assert isinstance(found["image"], features.Image)
    assert isinstance(found["text"], features.Text)
    assert found["label"].names == ["ant", "bee"]
    assert builder.info.name == "toy"
    assert "synthetic" in builder.info.description


def test_a_part_of_a_split_can_be_asked_for(tmp_path: Path) -> None:
    layout = {"n": Feature(dtype="int64")}
    keep(tmp_path, layout, Records(shard_bytes=1000), train={"n": np.arange(100)})
    assert [example["n"] for example in read(tmp_path, "train[40:60]")[1]] == list(range(40, 60))


@pytest.mark.parametrize("kept", [Records(compression="gzip"), Records()])
def test_nothing_is_promised_that_can_not_be_read(tmp_path: Path, kept: Records) -> None:
    rows = 0 if kept.compression == "none" else 3
    keep(tmp_path, {"n": Feature(dtype="int64")}, kept, train={"n": np.arange(rows)})
    assert not (tmp_path / "dataset_info.json").exists()


def test_a_split_without_examples_is_left_out(tmp_path: Path) -> None:
    keep(tmp_path, {"n": Feature(dtype="int64")}, train={"n": np.arange(3)}, test={"n": np.arange(0)})
    builder, found = read(tmp_path, "train")
    assert list(builder.info.splits) == ["train"]
    assert [example["n"] for example in found] == [0, 1, 2]
