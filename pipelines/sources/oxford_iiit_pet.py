"""Oxford-IIIT Pet: 7,390 photographs of cats and dogs, and which of their pixels are the pet (Parkhi et al., 2012)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source
from pipelines.sources._reading import held_out, members

if TYPE_CHECKING:
    import pyarrow as pa

URL = "https://thor.robots.ox.ac.uk/~vgg/data/pets"
IMAGES, ANNOTATIONS = "images.tar.gz", "annotations.tar.gz"
MASK_CLASSES = ("foreground", "background", "contour")
SEED, HELD_OUT = 1337, 1_000 / 7_390
"""What the book holds out: the last 1,000 of 7,390 photographs, after Python's shuffle with this seed."""
BREEDS = (
    *("Abyssinian", "Bengal", "Birman", "Bombay", "British_Shorthair", "Egyptian_Mau", "Maine_Coon", "Persian"),
    *("Ragdoll", "Russian_Blue", "Siamese", "Sphynx", "american_bulldog", "american_pit_bull_terrier", "basset_hound"),
    *("beagle", "boxer", "chihuahua", "english_cocker_spaniel", "english_setter", "german_shorthaired"),
    *("great_pyrenees", "havanese", "japanese_chin", "keeshond", "leonberger", "miniature_pinscher", "newfoundland"),
    *("pomeranian", "pug", "saint_bernard", "samoyed", "scottish_terrier", "shiba_inu", "staffordshire_bull_terrier"),
    *("wheaten_terrier", "yorkshire_terrier"),
)
"""Of cats with a capital letter, of dogs without."""


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """Photographs with their masks: 6,390 to train as in the book, and its 1,000 held-out ones in two halves.

    The book has no test split: it judges by the 1,000 photographs that it validates with. Here 500 of them validate and
    the other 500 test, so that training is the book's. Of a sample the same share is held out.
    """
    from headrace.readers.folders import files_by_name

    names = [Path(path).stem for path in members(raw / IMAGES) if path.endswith(".jpg")]
    last = held_out(names, HELD_OUT, SEED)
    splits = {name: "validation" if k < len(last) // 2 else "test" for k, name in enumerate(last)}
    return files_by_name(
        [raw / IMAGES, raw / ANNOTATIONS],
        PETS.features,
        {"image": "images/*.jpg", "mask": "annotations/trimaps/*.png"},
        values=lambda name: {"breed": name.rpartition("_")[0]},
        split=lambda name: splits.get(name, "train"),
    )


def twin(raw: Path, seed: int) -> None:
    """200 drawn heads of three breeds on a background of their own colour, with exact masks: the best IoU is near 1."""
    import numpy as np

    from pipelines.sources._drawing import encoded, pet
    from pipelines.sources._packing import tarred

    random = np.random.default_rng(seed)
    colours = {"Abyssinian": (190, 110, 60), "Bengal": (200, 170, 120), "american_bulldog": (225, 220, 215)}
    images, masks, listed = {}, {}, []
    for k in range(200):
        breed = list(colours)[k % len(colours)]
        photo, mask = pet(random, colours[breed], pointed=breed[0].isupper())
        name = f"{breed}_{k // len(colours) + 1}"
        images[f"images/{name}.jpg"] = encoded(photo)
        masks[f"annotations/trimaps/{name}.png"] = encoded(mask, "PNG")
        listed.append(f"{name} {BREEDS.index(breed) + 1} {1 if breed[0].isupper() else 2} 1\n")
    tarred(raw / IMAGES, images)
    tarred(raw / ANNOTATIONS, {"annotations/list.txt": "".join(listed).encode(), **masks})


PETS = Source(
    title="Oxford-IIIT Pet, 7,390 photographs with trimaps (Parkhi, Vedaldi, Zisserman and Jawahar, 2012)",
    features={
        "image": Feature(dtype="string", content="image", description="a photograph of any size, in colour"),
        "mask": Feature(
            dtype="string",
            role="target",
            content="mask",
            classes=MASK_CLASSES,
            description="PNG of the photograph's size; its pixels are 1, 2 and 3 for the classes 0, 1 and 2",
        ),
        "breed": Feature(dtype="string", role="note", classes=BREEDS),
        "file": Feature(dtype="string", role="note"),
    },
    read=read,
    twin=twin,
    files=(
        File(
            url=f"{URL}/{IMAGES}",
            sha256="67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
            size=791_918_971,
        ),
        File(
            url=f"{URL}/{ANNOTATIONS}",
            sha256="52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
            size=19_173_078,
        ),
    ),
    quarantine=0.01,
    examples={"train": 6_390, "validation": 500, "test": 500},
    licence="CC BY-SA 4.0; the images keep their owners' rights",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    note="Some photographs named .jpg are PNG, GIF or BMP files; they are decoded all the same.",
)
