"""Long texts, for models that write: Nietzsche's Beyond Good and Evil, and plays of Shakespeare.

A record is a piece of about 1,000 characters: as many whole lines as fit, line breaks included. All records of `train`
and `test`, one after the other, are the text again, to the byte. Windows of characters or of words are cut out of the
pieces, or of all of them joined; no word is broken off.

`CHARACTERS` is the first of the texts as windows of 40 characters with the one that follows, `CHAINS` are film reviews
whose twin is a text of known entropy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source
from pipelines.sources import imdb_raw
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

        text = _text(path)
        found = [piece.encode() for piece in pieces(text)]
        if len(found) < 10:
            raise DataError(f"{path.name} is too short.", expected="10,000 characters", received=len(text))
        return cut({"text": np.array(found, object)}, name, **SHARES)

    return each_by_itself(tuple(SHARES), split)


def _text(path: Path) -> str:
    from headrace.errors import DataError

    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise DataError(f"{path} can't be read.", received=error.strerror) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is no UTF-8 at byte {error.start:,}.", remedy="get a sound copy") from error


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


# ------------------------------------------------------------------------------------------------ windows

WINDOW = 40
"""Characters of a window (the TensorFlow handbook)."""
APART = {"train": 3, "test": 10}
"""Characters from where one window begins to where the next one does."""
PLENTY = (0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05)
"""How often each of the eight words that may follow a word does, where two windows must hardly ever be the same."""
TWIN_WORDS = 20
"""Words of `twin_windows`."""
LETTER_ENTROPY = 0.6043
"""Nats of a character of `twin_windows`, given those before: the best loss of any model."""


def read_windows(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """Lower-case characters, 40 by 40, with the one that follows: of the first nine tenths to train, the last to test.

    The text is cut before the windows are: no character of the test split is in a training window.
    """

    def split(name: str) -> Arrays:
        import numpy as np

        from headrace.errors import DataError

        text = _text(raw / "nietzsche.txt").lower()
        if len(text) < 20 * WINDOW:
            raise DataError("nietzsche.txt is too short.", expected=f"{20 * WINDOW} characters", received=len(text))
        border = int(len(text) * SHARES["train"])
        part = text[:border] if name == "train" else text[border:]
        starts = range(0, len(part) - WINDOW, APART[name])
        return {
            "window": np.array([part[k : k + WINDOW].encode() for k in starts], object),
            "following": np.array([part[k + WINDOW].encode() for k in starts], object),
        }

    return each_by_itself(tuple(SHARES), split)


def twin_windows(raw: Path, seed: int) -> None:
    """20,000 words, each of which is followed by one of eight others; a line ends after each "ba", and nowhere else.

    So the words alone decide what is drawn: −Σ p·ln p of `PLENTY`, 1.88 nats for each of them. A word and the space or
    line break behind it are 3.11 characters on average, and the entropy of a character is `LETTER_ENTROPY`: the best
    loss of any model.
    """
    import numpy as np

    from pipelines.sources._wording import chain, vocabulary

    last = vocabulary(1)[0]
    words = chain(np.random.default_rng(seed), 20_000, TWIN_WORDS, PLENTY)
    text = "".join(word + ("\n" if word == last else " ") for word in words)
    (raw / "nietzsche.txt").write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------------------------- reviews

WORD_ENTROPY = 1.1421
"""Nats of a word of `twin_chains`, given the one before: the best loss of any model."""


def twin_chains(raw: Path, seed: int) -> None:
    """3,600 reviews to train and 200 to test, of 20 to 80 words each; a word is followed by one of four others.

    The entropy of a word, given the one before, is −Σ p·ln p of `FOLLOWERS`: `WORD_ENTROPY`, a perplexity of 3.13.
    """
    import numpy as np

    from pipelines.sources._packing import tarred
    from pipelines.sources._wording import chain

    random = np.random.default_rng(seed)
    files = {"aclImdb/README": b"Made-up reviews.\n"}
    for folder, count in {
        "train/unsup": 2_000,
        "train/neg": 800,
        "train/pos": 800,
        "test/neg": 100,
        "test/pos": 100,
    }.items():
        for number in range(count):
            words = chain(random, int(random.integers(20, 81)))
            # Line breaks as they are in the real files: nothing but them parts the words.
            text = "<br /><br />".join([" ".join(words[:15]), " ".join(words[15:])])
            files[f"aclImdb/{folder}/{number}_0.txt"] = text.encode()
    tarred(raw / imdb_raw.NAME, files)


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
CHARACTERS = Source(
    title="Beyond Good and Evil in windows of 40 lower-case characters (Nietzsche, 1886; translated by Helen Zimmern)",
    features={
        "window": Feature(dtype="string", content="text", description="40 characters of the text"),
        "following": Feature(dtype="string", role="target", content="text", description="the character after them"),
    },
    read=read_windows,
    twin=twin_windows,
    files=NIETZSCHE.files,
    licence=NIETZSCHE.licence,
    homepage=NIETZSCHE.homepage,
    examples={"train": 180_255, "test": 6_005},
)
CHAINS = Source(
    title=imdb_raw.TEXTS.title,
    features=imdb_raw.TEXTS.features,
    read=imdb_raw.read_all,
    twin=twin_chains,
    files=imdb_raw.FILES,
    licence=imdb_raw.LICENCE,
    homepage=imdb_raw.HOMEPAGE,
    examples={"train": 75_000, "test": 25_000},
    note=imdb_raw.TEXTS.note,
)
