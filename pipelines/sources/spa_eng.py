"""English sentences and their Spanish translations: 118,964 pairs (Tatoeba, by way of manythings.org)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "spa-eng.zip"
SHARES = {"validation": 0.15, "test": 0.15}
"""As in the book (section 11.5.1), which shuffles without a seed; here it is 113."""


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The pairs, 70 % to train and 15 % each to validate and to test.

    Many English sentences have several translations, which may lie in different splits, as in the book.
    """
    from headrace.readers.splits import split_batches
    from headrace.readers.tables import read_table

    # In sentences, quotes are letters like others.
    pairs = read_table(
        raw / NAME, SPA_ENG.features, member="*/spa.txt", names=("english", "spanish"), delimiter="\t", quotes=False
    )
    return split_batches(pairs, SHARES, what=NAME)


_NOUNS = {
    "cat": "el gato",
    "dog": "el perro",
    "boy": "el niño",
    "teacher": "el maestro",
    "book": "el libro",
    "queen": "la reina",
    "girl": "la niña",
    "apple": "la manzana",
    "house": "la casa",
    "letter": "la carta",
}
_VERBS = {"sees": "ve", "wants": "quiere", "has": "tiene", "finds": "encuentra", "paints": "pinta", "forgets": "olvida"}
_ADJECTIVES = {"red": "roj", "small": "pequeñ", "new": "nuev", "old": "viej", "beautiful": "hermos"}


def twin(raw: Path, seed: int) -> None:
    """2,000 pairs of a small grammar, in which adjectives follow their noun and agree with it.

    A sentence has one translation, so that the best accuracy is 1.0.
    """
    import numpy as np

    from pipelines.sources._packing import zipped

    random = np.random.default_rng(seed)

    def noun() -> tuple[str, str]:
        english = str(random.choice(list(_NOUNS)))
        article, name = _NOUNS[english].split()
        if random.random() < 0.3:
            return f"the {english}", f"{article} {name}"
        adjective = str(random.choice(list(_ADJECTIVES)))
        ending = "o" if article == "el" else "a"
        return f"the {adjective} {english}", f"{article} {name} {_ADJECTIVES[adjective]}{ending}"

    pairs: dict[str, str] = {}
    while len(pairs) < 2_000:
        (who, quien), (what, que), verb = noun(), noun(), str(random.choice(list(_VERBS)))
        if random.random() < 0.2:
            pairs[f"Does {who} {verb} {what}?"] = f"¿{quien.capitalize()} {_VERBS[verb]} {que}?"
        else:
            pairs[f"{who.capitalize()} {verb} {what}."] = f"{quien.capitalize()} {_VERBS[verb]} {que}."
    lines = "".join(f"{english}\t{spanish}\n" for english, spanish in pairs.items())
    zipped(raw / NAME, {"spa-eng/spa.txt": lines.encode(), "spa-eng/_about.txt": b"Made up.\n"})


SPA_ENG = Source(
    title="English and Spanish, 118,964 pairs of sentences (Tatoeba, 2018)",
    features={
        "english": Feature(dtype="string", content="text"),
        # An input, since a decoder reads what was said so far; what comes next is made of it.
        "spanish": Feature(dtype="string", content="text"),
    },
    read=read,
    twin=twin,
    files=(File(url=f"http://storage.googleapis.com/download.tensorflow.org/data/{NAME}"),),
    licence="CC BY 2.0 FR",
    homepage="https://www.manythings.org/anki/",
)
