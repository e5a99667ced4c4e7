"""Flowers: 3,670 photographs of five kinds (The TensorFlow Team, 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "flower_photos.tgz"
CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


TFDS_NAME = "tf_flowers:3.0.1"


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """Four fifths to train and one fifth to test, dealt out by seed 113: the set itself has no splits."""
    from headrace.readers.folders import files_by_class

    return files_by_class(raw / NAME, FLOWERS.features)


def read_prepared(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The first four fifths to train and the last fifth to test, in the order into which TFDS has shuffled them."""
    from headrace.readers.tfds_reading import read_tfds

    return read_tfds(raw, TF_FLOWERS.features, splits={"train": "train[:80%]", "test": "train[80%:]"})


def twin(raw: Path, seed: int, each: int = 60) -> None:
    """60 drawn flowers of each kind, which has its own number and colour of petals: the best accuracy is 1.0.

    Another data set that is made of them may ask for fewer of `each`.
    """
    from pipelines.sources._packing import tarred

    files = {"flower_photos/LICENSE.txt": b"Drawn, not photographed.\n"}
    files |= {f"flower_photos/{kind}/{number:04}_{kind}.jpg": image for kind, number, image in _drawn(seed, each)}
    tarred(raw / NAME, files)


def twin_prepared(raw: Path, seed: int) -> None:
    """The flowers of `twin`, in an order drawn by the seed; the best accuracy is 1.0."""
    import io

    import numpy as np

    from pipelines.sources._packing import prepared

    drawn = _drawn(seed, 60)
    order = np.random.default_rng(seed).permutation(len(drawn))
    examples = ({"image": io.BytesIO(drawn[k][2]), "label": drawn[k][0]} for k in order)
    prepared(raw, TFDS_NAME, {"train": examples})


def _drawn(seed: int, each: int) -> list[tuple[str, int, bytes]]:
    """So many flowers of each kind: kind, number, JPEG."""
    import numpy as np

    from pipelines.sources._drawing import encoded, flower

    random = np.random.default_rng(seed)
    looks = {
        "daisy": (14, (240, 240, 240), (230, 200, 50)),
        "dandelion": (24, (240, 215, 40), (240, 215, 40)),
        "roses": (5, (200, 30, 60), (150, 10, 40)),
        "sunflowers": (16, (245, 190, 30), (70, 40, 20)),
        "tulips": (3, (220, 60, 180), (200, 50, 150)),
    }
    return [(kind, number, encoded(flower(random, *look))) for kind, look in looks.items() for number in range(each)]


FLOWERS = Source(
    title="Flowers, 3,670 photographs of five kinds (The TensorFlow Team, 2019)",
    features={
        "image": Feature(dtype="string", content="image", description="a photograph of any size, in colour"),
        "label": Feature(dtype="int64", role="target", classes=CLASSES),
        "file": Feature(dtype="string", role="note"),
    },
    read=read,
    twin=twin,
    files=(
        File(
            url=f"http://download.tensorflow.org/example_images/{NAME}",
            sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
            size=228_813_984,
        ),
    ),
    quarantine=0.01,
    examples={"train": 2_936, "test": 734},
    licence="CC BY, each photograph its own: see LICENSE.txt in the archive",
    homepage="https://www.tensorflow.org/datasets/catalog/tf_flowers",
)
TF_FLOWERS = Source(
    title="Flowers, 3,670 photographs of five kinds, as TensorFlow Datasets prepares them",
    features={
        "image": FLOWERS.features["image"],
        # In the order in which TFDS numbers them.
        "label": Feature(dtype="int64", role="target", classes=("dandelion", "daisy", "tulips", "sunflowers", "roses")),
    },
    read=read_prepared,
    twin=twin_prepared,
    tfds=TFDS_NAME,
    quarantine=0.01,
    examples=FLOWERS.examples,
    stands_for="flowers",
    licence=FLOWERS.licence,
    homepage=FLOWERS.homepage,
)
