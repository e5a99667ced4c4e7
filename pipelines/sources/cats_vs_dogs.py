"""Cats and dogs: photographs of Kaggle's competition (Asirra), and the small set that the book makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CLASSES = ("cat", "dog")
FEATURES = {
    "image": Feature(dtype="string", content="image", description="a photograph of any size, in colour"),
    "label": Feature(dtype="int64", role="target", classes=CLASSES),
    "file": Feature(dtype="string", role="note", description="<class>.<number>"),
}
SPLITS = {"train": range(1_000), "validation": range(1_000, 1_500), "test": range(1_500, 2_500)}
"""Split → the numbers of its photographs of each class (section 8.2.2); the other 10,000 of each are not used."""
COUNTS = {"train": 2_000, "validation": 1_000, "test": 2_000}
LICENCE = "none formal; research and the competition (Microsoft, Petfinder.com)"
HOMEPAGE = "https://www.kaggle.com/c/dogs-vs-cats"


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The book's small set out of all photographs: 2,000 to train, 1,000 to validate, 2,000 to test."""
    from headrace.readers.folders import files_by_name

    def split(name: str) -> str | None:
        _, _, number = name.partition(".")
        return next((split for split, some in SPLITS.items() if number.isdecimal() and int(number) in some), None)

    return files_by_name(
        raw / "train.zip",
        FEATURES,
        {"image": "train/*.jpg"},
        values=lambda name: {"label": CLASSES.index(name.partition(".")[0])} if split(name) else None,
        split=split,
    )


def read_small(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """A small set that was made already, in folders `cats_vs_dogs_small/<split>/<class>/`."""
    from headrace.readers.folders import files_by_class

    return files_by_class(raw / "cats_vs_dogs_small.zip", FEATURES)


def twin(raw: Path, seed: int) -> None:
    """Drawn heads, 120, 40, 60 and 5 unused ones of each class; the ears tell, so that the best accuracy is 1.0."""
    import numpy as np

    from pipelines.sources._packing import zipped

    random = np.random.default_rng(seed)
    numbers = [*range(120), *range(1_000, 1_040), *range(1_500, 1_560), *range(2_500, 2_505)]
    zipped(raw / "train.zip", {f"train/{kind}.{k}.jpg": _photo(random, kind) for kind in CLASSES for k in numbers})


def twin_small(raw: Path, seed: int) -> None:
    """Drawn heads, 120, 40 and 60 of each class; the ears tell, so that the best accuracy is 1.0."""
    import numpy as np

    from pipelines.sources._packing import zipped

    random = np.random.default_rng(seed)
    files = {
        f"cats_vs_dogs_small/{split}/{kind}/{kind}.{SPLITS[split][k]}.jpg": _photo(random, kind)
        for split, count in (("train", 120), ("validation", 40), ("test", 60))
        for kind in CLASSES
        for k in range(count)
    }
    zipped(raw / "cats_vs_dogs_small.zip", files)


def _photo(random: np.random.Generator, kind: str) -> bytes:
    from pipelines.sources._drawing import encoded, pet

    photo, _ = pet(random, (170, 120, 80), pointed=kind == "cat")
    return encoded(photo)


KAGGLE = Source(
    title="Dogs vs. Cats, 5,000 of Kaggle's 25,000 photographs, as the book takes them (Asirra, 2007)",
    features=FEATURES,
    read=read,
    twin=twin,
    files=(
        File(
            url="kaggle://dogs-vs-cats/train.zip",
            hint="sign in at https://www.kaggle.com/c/dogs-vs-cats/rules and accept the rules of the competition; then "
            "make an API token (Account, Create New API Token)",
        ),
    ),
    quarantine=0.01,
    examples=COUNTS,
    licence=LICENCE,
    homepage=HOMEPAGE,
)
SMALL = Source(
    title="Dogs vs. Cats, a small set in folders by split and class (Asirra, 2007)",
    features=FEATURES,
    read=read_small,
    twin=twin_small,
    files=(
        File(
            url="manual:cats_vs_dogs_small.zip",
            hint="pack the book's folder cats_vs_dogs_small (section 8.2.2), or a part of it: "
            "cats_vs_dogs_small/<train, validation or test>/<cat or dog>/*.jpg",
        ),
    ),
    quarantine=0.01,
    examples=COUNTS,
    stands_for="kaggle",
    licence=LICENCE,
    homepage=HOMEPAGE,
)
