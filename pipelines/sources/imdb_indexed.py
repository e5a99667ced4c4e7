"""IMDB as word indices: 50,000 film reviews, liked or not (Maas et al., 2011), packed by Keras."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import Feature, File, Source
from pipelines.sources._reading import KERAS_DATASETS, each_by_itself

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.readers.batches import Array, Arrays

NAME, INDEX = "imdb.npz", "imdb_word_index.json"
CLASSES = ("negative", "positive")


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The reviews with all their words, 25,000 to train and 25,000 to test, in the order of `keras.datasets.imdb`."""

    def split(name: str) -> Arrays:
        from headrace.readers.arrays import read_arrays
        from pipelines.sources._indexed import tokens

        arrays = read_arrays(raw / NAME, {f"x_{name}": "lists", f"y_{name}": 1})
        order = _order(raw, name, len(arrays[f"y_{name}"]))
        return {"tokens": tokens(arrays[f"x_{name}"][order]), "label": arrays[f"y_{name}"][order]}

    return each_by_itself(("train", "test"), split)


def _order(raw: Path, split: str, examples: int) -> Array:
    """Keras draws the orders of both splits from one generator, that of the test split after the other."""
    import numpy as np

    from headrace.readers.arrays import read_arrays
    from headrace.readers.splits import SEED

    random, order = np.random.RandomState(SEED), np.arange(examples)
    if split == "test":
        random.shuffle(np.arange(len(read_arrays(raw / NAME, {"y_train": 1})["y_train"])))
    random.shuffle(order)
    return order


def words(raw: Path) -> list[str]:
    """The word that each token stands for: `words(raw)[token]`."""
    from pipelines.sources import _indexed

    return _indexed.words(raw / INDEX)


def twin(raw: Path, seed: int) -> None:
    """1,000 made-up reviews to train and 500 to test; a tenth of the labels are wrong: the best accuracy is 0.9."""
    import numpy as np

    from pipelines.sources import _indexed
    from pipelines.sources._wording import documents, mislabelled

    random = np.random.default_rng(seed)
    vocabulary = 2_000
    arrays: dict[str, Any] = {}
    for split, count in (("train", 1_000), ("test", 500)):
        liked = random.permutation(np.arange(count) % 2)
        arrays[f"x_{split}"] = documents(random, liked, 2, words=vocabulary, telling=0.1, length=80)
        arrays[f"y_{split}"] = mislabelled(random, liked, 2, 0.1)
    _indexed.write(raw / NAME, **arrays)
    _indexed.write_index(raw / INDEX, vocabulary)


IMDB_INDEXED = Source(
    title="IMDB film reviews, 50,000 as word indices (Maas et al., 2011)",
    features={
        "tokens": Feature(
            shape=(None,),
            dtype="int64",
            content="tokens",
            description="1, then the rank of each word plus 3; no word is left out",
        ),
        "label": Feature(dtype="int64", role="target", classes=CLASSES),
    },
    read=read,
    words=words,
    twin=twin,
    files=(
        File(
            url=f"{KERAS_DATASETS}/{NAME}",
            sha256="69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f",
        ),
        File(url=f"{KERAS_DATASETS}/{INDEX}"),
    ),
    examples={"train": 25_000, "test": 25_000},
    licence="none stated; its authors ask to be cited",
    homepage="https://ai.stanford.edu/~amaas/data/sentiment/",
    note="Reviews rated 5 or 6 of 10 are not among them. Words that only test reviews have are left out by Keras.",
)
