"""GloVe: 400,000 words as vectors, learned from Wikipedia and news of 2014 (Pennington, Socher and Manning, 2014).

No source of examples: a workload adds `FILE` to the files of its own source, and its `learn`, which asks for the folder
of raw files, reads the vectors of its own words (`pipelines/imdb_reviews.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import File

if TYPE_CHECKING:
    from headrace.readers.batches import Array

NAME = "glove.6B.zip"
FILE = File(url=f"https://nlp.stanford.edu/data/{NAME}")


def vectors(raw: Path, words: Iterable[str], dimensions: int = 100) -> dict[str, Array]:
    """The vectors of these words, read out of the archive without unpacking it.

    Args:
        raw: Folder that holds the archive.
        words: In lower case, as GloVe knows them.
        dimensions: 50, 100, 200 or 300.

    Returns:
        Word → vector (dimensions,), float32; words that GloVe doesn't know are not in it.

    Raises:
        DataError: The archive is damaged, has no vectors of these dimensions, or a line of it is no vector.
    """
    import numpy as np

    from headrace.errors import DataError
    from headrace.getting.archives import opened

    wanted = {word.encode(): word for word in words}
    found = {}
    with opened(raw / NAME, f"*.{dimensions}d.txt") as lines:
        for number, line in enumerate(lines, 1):
            word, _, numbers = line.partition(b" ")
            if word not in wanted:
                continue
            parts = numbers.split()
            try:
                found[wanted[word]] = np.array(parts, np.float32)
            except ValueError:
                parts = []
            if len(parts) != dimensions:
                raise DataError(
                    f"Line {number:,} of {NAME} is no vector of {dimensions} numbers.", remedy="get a sound copy of it"
                )
    return found


def twin(raw: Path, seed: int) -> None:
    """Vectors of 100 numbers for the words of the other twins; words that praise lie opposite to those that blame."""
    import numpy as np

    from pipelines.sources._packing import zipped
    from pipelines.sources._wording import judgements, vocabulary

    random = np.random.default_rng(seed)
    good, bad = judgements()
    words = ["the", "was", "not", *good, *bad, *vocabulary(500)]
    rows = random.normal(0, 0.4, (len(words), 100))
    rows[[words.index(word) for word in good], :10] += 1
    rows[[words.index(word) for word in bad], :10] -= 1
    lines = [f"{word} {' '.join(f'{x:.5g}' for x in row)}\n" for word, row in zip(words, rows, strict=True)]
    zipped(raw / NAME, {"glove.6B.100d.txt": "".join(lines).encode()})
