"""Reuters: 11,228 newswires of 1986 and 1987 in 46 topics, as lists of word indices (Reuters-21578)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source
from pipelines.sources._reading import KERAS_DATASETS, each_by_itself

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.readers.batches import Arrays

NAME, INDEX = "reuters.npz", "reuters_word_index.json"
TOPICS = (
    *("cocoa", "grain", "veg-oil", "earn", "acq", "wheat", "copper", "housing", "money-supply", "coffee", "sugar"),
    *("trade", "reserves", "ship", "cotton", "carcass", "crude", "nat-gas", "cpi", "money-fx", "interest", "gnp"),
    *("meal-feed", "alum", "oilseed", "gold", "tin", "strategic-metal", "livestock", "retail", "ipi", "iron-steel"),
    *("rubber", "heat", "jobs", "lei", "bop", "zinc", "orange", "pet-chem", "dlr", "gas", "silver", "wpi", "hog"),
    "lead",
)


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The newswires with all their words, 8,982 to train and 2,246 to test, as `keras.datasets.reuters` splits them."""

    def split(name: str) -> Arrays:
        from headrace.readers.arrays import read_arrays
        from headrace.readers.splits import split_arrays
        from pipelines.sources._indexed import tokens

        arrays = read_arrays(raw / NAME, {"x": "lists", "y": 1})
        return split_arrays({"tokens": tokens(arrays["x"]), "topic": arrays["y"]})[name]

    return each_by_itself(("train", "test"), split)


def words(raw: Path) -> list[str]:
    """The word that each token stands for: `words(raw)[token]`."""
    from pipelines.sources import _indexed

    return _indexed.words(raw / INDEX)


def twin(raw: Path, seed: int) -> None:
    """2,000 made-up newswires, most of them of a few topics, as the real ones; each topic has words of its own.

    A tenth of the labels are wrong, so that the best accuracy is 0.9.
    """
    import numpy as np

    from pipelines.sources import _indexed
    from pipelines.sources._wording import documents, mislabelled

    random = np.random.default_rng(seed)
    vocabulary = 2_000
    often = 1 / np.arange(1, len(TOPICS) + 1)
    topics = random.choice(len(TOPICS), 2_000, p=often / often.sum())
    lists = documents(random, topics, len(TOPICS), words=vocabulary)
    _indexed.write(raw / NAME, x=lists, y=mislabelled(random, topics, len(TOPICS), 0.1))
    _indexed.write_index(raw / INDEX, vocabulary)


REUTERS = Source(
    title="Reuters newswires in 46 topics, 11,228 texts as word indices (Reuters-21578)",
    features={
        "tokens": Feature(
            shape=(None,),
            dtype="int64",
            content="tokens",
            description="1, then the rank of each word plus 3; no word is left out",
        ),
        "topic": Feature(dtype="int64", role="target", classes=TOPICS),
    },
    read=read,
    words=words,
    twin=twin,
    files=(
        File(
            url=f"{KERAS_DATASETS}/{NAME}",
            sha256="d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916",
        ),
        File(url=f"{KERAS_DATASETS}/{INDEX}"),
    ),
    examples={"train": 8_982, "test": 2_246},
    licence="Reuters Ltd.; free distribution for research only",
    homepage="https://martin-thoma.com/nlp-reuters/",
    note="Two topics make more than half of the newswires: the answer that ignores the text is right in 36 of 100.",
)
