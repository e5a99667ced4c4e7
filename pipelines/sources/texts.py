"""Long texts, for models that write: Nietzsche's Beyond Good and Evil, and plays of Shakespeare.

A record is a piece of about 1,000 characters: as many whole lines as fit, line breaks included. All records of `train`
and `test`, one after the other, are the text again, to the byte. Windows of characters or of words are cut out of the
pieces, or of all of them joined; no word is broken off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source
from pipelines.sources._reading import cut, each_by_itself

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.readers.batches import Arrays

PIECE = 1_000
"""Characters of a piece, at most, but for a longer line."""
SHARES = {"train": 0.9, "test": 0.1}
"""Of the pieces, in the order of the text."""
FEATURES = {"text": Feature(dtype="string", content="text", description="whole lines of about 1,000 characters")}


def read_nietzsche(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The first nine tenths to train, the last one to test."""
    return _pieces_of(raw / "nietzsche.txt")


def read_shakespeare(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The first nine tenths to train, the last one to test."""
    return _pieces_of(raw / "shakespeare.txt")


def _pieces_of(path: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    def split(name: str) -> Arrays:
        import numpy as np

        from headrace.errors import DataError

        try:
            text = path.read_bytes().decode()
        except OSError as error:
            raise DataError(f"{path} can't be read.", received=error.strerror) from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path.name} is no UTF-8 at byte {error.start:,}.", remedy="get a sound copy") from error
        found = [piece.encode() for piece in pieces(text)]
        if len(found) < 10:
            raise DataError(f"{path.name} is too short.", expected="10,000 characters", received=len(text))
        return cut({"text": np.array(found, object)}, name, **SHARES)

    return each_by_itself(tuple(SHARES), split)


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """Cut a text between lines into pieces of at most so many characters, unless a single line is longer."""
    piece = ""
    for line in text.splitlines(keepends=True):
        if piece and len(piece) + len(line) > size:
            yield piece
            piece = ""
        piece += line
    if piece:
        yield piece


def twin_nietzsche(raw: Path, seed: int) -> None:
    """20,000 words, each of which is followed by one of four others.

    The best loss of a word is 1.14 nats, that of a character (space or line break included) about 0.30 nats.
    """
    _write(raw / "nietzsche.txt", seed)


def twin_shakespeare(raw: Path, seed: int) -> None:
    """As `twin_nietzsche`."""
    _write(raw / "shakespeare.txt", seed)


def _write(path: Path, seed: int) -> None:
    import numpy as np

    from pipelines.sources._wording import chain

    words = chain(np.random.default_rng(seed), 20_000)
    lines = [" ".join(words[k : k + 14]) for k in range(0, len(words), 14)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


NIETZSCHE = Source(
    title="Beyond Good and Evil, 600,893 characters (Nietzsche, 1886; translated by Helen Zimmern)",
    features=FEATURES,
    read=read_nietzsche,
    twin=twin_nietzsche,
    files=(File(url="https://s3.amazonaws.com/text-datasets/nietzsche.txt", size=600_901),),
    licence="public domain",
    homepage="https://www.gutenberg.org/ebooks/4363",
)
SHAKESPEARE = Source(
    title="Tiny Shakespeare, 1,115,394 characters of his plays (collected by Karpathy, 2015)",
    features=FEATURES,
    read=read_shakespeare,
    twin=twin_shakespeare,
    files=(
        File(
            url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt#shakespeare.txt",
            sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            size=1_115_394,
        ),
    ),
    licence="public domain",
    homepage="https://github.com/karpathy/char-rnn",
)
