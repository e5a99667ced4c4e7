"""IMDB as texts: 50,000 film reviews, liked or not, and 50,000 that are not labelled (Maas et al., 2011)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source
from pipelines.sources import glove
from pipelines.sources._reading import held_out, members

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "aclImdb_v1.tar.gz"
CLASSES = ("negative", "positive")
FOLDERS = {"neg": 0, "pos": 1}
SEED, SHARE = 1337, 0.2
"""Of what the book holds out of each class to validate."""

REVIEW = Feature(dtype="string", content="text", description="with its line breaks, as <br />")
NOTE = Feature(dtype="string", role="note", description="<folder>/<number>_<stars out of 10>; 0 stars: not labelled")
FILES = (
    File(
        url=f"https://ai.stanford.edu/~amaas/data/sentiment/{NAME}",
        sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
        size=84_125_825,
    ),
)
LICENCE = "none stated; its authors ask to be cited"
HOMEPAGE = "https://ai.stanford.edu/~amaas/data/sentiment/"


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The labelled reviews: 20,000 to train, 5,000 to validate, 25,000 to test; the order in a split is drawn.

    As in the book (section 11.3.1) a fifth of the training reviews of each class validate, after a shuffle of their
    files with seed 1337. The book shuffles them in the order in which its disk lists them; here they are sorted first,
    so that the shares are the book's and the files need not be.
    """
    from headrace.readers.folders import files_by_name

    training = [_name(path) for path in members(raw / NAME) if path.startswith("aclImdb/train/")]
    validation = {
        name
        for folder in FOLDERS
        for name in held_out([name for name in training if _folder(name) == folder], SHARE, SEED)
    }
    return files_by_name(
        raw / NAME,
        LABELLED.features,
        {"review": "aclImdb/*.txt"},
        values=lambda name: {"label": FOLDERS[_folder(name)]} if _folder(name) in FOLDERS else None,
        split=lambda name: "validation" if name in validation else name.partition("/")[0],
    )


def read_all(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """All reviews without their labels: 75,000 to train, 50,000 of them in no class, and 25,000 to test."""
    from headrace.readers.folders import files_by_name

    return files_by_name(
        raw / NAME,
        TEXTS.features,
        {"review": "aclImdb/*.txt"},
        values=lambda name: {} if _folder(name) in {*FOLDERS, "unsup"} else None,
        split=lambda name: name.partition("/")[0],
    )


def _name(path: str) -> str:
    """What a review is called: `train/pos/17_9` for aclImdb/train/pos/17_9.txt."""
    return path.removeprefix("aclImdb/").removesuffix(".txt")


def _folder(name: str) -> str:
    parts = name.split("/")
    return parts[1] if len(parts) == 3 else ""


def twin(raw: Path, seed: int) -> None:
    """Reviews of a small grammar: 200 of each class to train, 100 to test, and 100 in no class.

    They have a few judgements each. A tenth of these go against the whole, and a third are negated ("not dull"), so
    that pairs of words say more than words; what decides is how many go which way. Counting them with their negations
    is right in 97 of 100 reviews, which is about the best accuracy; counting single words, in 70.
    """
    import numpy as np

    from pipelines.sources._packing import tarred
    from pipelines.sources._wording import review

    random = np.random.default_rng(seed)
    files = {"aclImdb/README": b"Made-up reviews.\n", "aclImdb/imdbEr.txt": b"0.0\n"}
    for split, count in (("train", 200), ("test", 100)):
        for folder, label in FOLDERS.items():
            for number in range(count):
                stars = random.integers(7, 11) if label else random.integers(1, 5)
                text = review(random, bool(label))
                files[f"aclImdb/{split}/{folder}/{number}_{stars}.txt"] = text.encode()
    for number in range(100):
        files[f"aclImdb/train/unsup/{number}_0.txt"] = review(random, None).encode()
    tarred(raw / NAME, files)


def twin_with_glove(raw: Path, seed: int) -> None:
    """The same reviews, and vectors of their words; about the best accuracy is the same, too: 97 of 100."""
    twin(raw, seed)
    glove.twin(raw, seed)


LABELLED = Source(
    title="IMDB film reviews, 50,000 texts (Maas et al., 2011)",
    features={"review": REVIEW, "label": Feature(dtype="int64", role="target", classes=CLASSES), "file": NOTE},
    read=read,
    twin=twin,
    files=FILES,
    examples={"train": 20_000, "validation": 5_000, "test": 25_000},
    licence=LICENCE,
    homepage=HOMEPAGE,
    note="Some reviews are there twice, a few in the training and the test split. Ratings of 5 and 6 are left out.",
)
WITH_GLOVE = LABELLED.model_copy(
    update={
        "title": "IMDB film reviews, 50,000 texts, and vectors of words (GloVe)",
        "files": (*FILES, glove.FILE),
        "twin": twin_with_glove,
        "licence": f"reviews: {LICENCE}; vectors: PDDL 1.0",
    }
)
TEXTS = Source(
    title="IMDB film reviews without labels, 100,000 texts (Maas et al., 2011)",
    features={"review": REVIEW, "file": NOTE},
    read=read_all,
    twin=twin,
    files=FILES,
    licence=LICENCE,
    homepage=HOMEPAGE,
    note="For language models: nothing is to be predicted but the next word.",
)
