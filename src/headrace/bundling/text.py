"""Text into the numbers that a model's core takes, without TensorFlow: the reference of what `TextVectorization` does.

A format that can't hold text (TFLite, ONNX) takes these numbers. Whoever serves one does what stands here, in their own
language, or uses it as it is:

    reader = TextReader.of(Path("saved_model/assets"), "review")
    reader(["A quiet film.", "Loud!"])      # [[7, 214, 9, 0, …], [88, 0, …]]

It works on bytes, as TensorFlow does: only ASCII letters are made lower case, only ASCII spaces separate words.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

PUNCTUATION = string.punctuation.encode()
SETTINGS = "text.json"
"""Name of a prepared input → what its reader is made of."""


@dataclass(frozen=True)
class Recipe:
    """How text becomes numbers: what a Keras `TextVectorization` was made with."""

    source: str
    """The raw feature of strings."""
    vocabulary: str
    """The file of its tokens, one in each line, without those that stand for nothing and for unknown words."""
    standardize: str | None = "lower_and_strip_punctuation"
    """Or `lower`, `strip_punctuation`, or None."""
    split: str = "whitespace"
    """Or `character`."""
    ngrams: tuple[int, ...] = ()
    """Lengths of the sequences of words that count as tokens; default: single words."""
    output_mode: str = "int"
    """Or `multi_hot`, `count`, `tf_idf`."""
    length: int | None = None
    """Of what `int` gives, to which it is cut or filled up; default: that of the longest text."""
    size: int | None = None
    """Of what the other modes give."""
    weights: tuple[float, ...] = ()
    """Of `tf_idf`, one for each position."""
    escaped: bool = False
    """Whether the lines of the vocabulary are JSON strings, since a token holds the end of a line."""


class TextReader:
    """Turns texts into the numbers of one prepared input.

    Args:
        recipe: How.
        tokens: The vocabulary.
    """

    def __init__(self, recipe: Recipe, tokens: Sequence[bytes]) -> None:
        self.recipe = recipe
        # Before them: 0 for nothing and 1 for an unknown word (`int`), or 0 for an unknown word (all others).
        self._first = 2 if recipe.output_mode == "int" else 1
        self._numbers = {token: number for number, token in enumerate(tokens, self._first)}

    @classmethod
    def of(cls, assets: Path, name: str) -> Self:
        """The reader of a prepared input, from a bundle's folder of assets."""
        said = json.loads((assets / SETTINGS).read_text(encoding="utf-8"))[name]
        recipe = Recipe(**{**said, "ngrams": tuple(said["ngrams"]), "weights": tuple(said["weights"])})
        lines = (assets / recipe.vocabulary).read_bytes().split(b"\n")[:-1]
        return cls(recipe, [json.loads(line).encode() for line in lines] if recipe.escaped else lines)

    def __call__(self, texts: Iterable[str | bytes]) -> Sequence[Sequence[float]]:
        """One row for each text."""
        found = [self.tokens(text) for text in texts]
        if self.recipe.output_mode != "int":
            return [self._bag(tokens) for tokens in found]
        length = self.recipe.length
        if length is None:
            length = max(map(len, found), default=0)
        numbers = ([self._number(token) for token in tokens[:length]] for tokens in found)
        return [row + [0] * (length - len(row)) for row in numbers]

    def tokens(self, text: str | bytes) -> list[bytes]:
        """The tokens of a text."""
        recipe = self.recipe
        data = text.encode() if isinstance(text, str) else text
        if recipe.standardize in ("lower", "lower_and_strip_punctuation"):
            data = data.lower()
        if recipe.standardize in ("strip_punctuation", "lower_and_strip_punctuation"):
            data = data.translate(None, PUNCTUATION)
        if recipe.split == "whitespace":
            words = data.split()
        else:
            words = [letter.encode() for letter in data.decode(errors="replace")]
        if not recipe.ngrams:
            return words
        return [b" ".join(words[i : i + n]) for n in recipe.ngrams for i in range(len(words) - n + 1)]

    def _number(self, token: bytes) -> int:
        return self._numbers.get(token, 1) if token else 0

    def _bag(self, tokens: Sequence[bytes]) -> list[float]:
        size = self.recipe.size or len(self._numbers) + 1
        row = [0.0] * size
        for token in tokens:
            row[self._numbers.get(token, 0)] += 1
        if self.recipe.output_mode == "multi_hot":
            return [min(value, 1.0) for value in row]
        if self.recipe.output_mode == "tf_idf":
            return [value * weight for value, weight in zip(row, self.recipe.weights, strict=True)]
        return row

    def agrees(self, texts: Sequence[bytes], expected: Sequence[Sequence[float]]) -> bool:
        """Whether it gives these numbers for these texts."""
        rows = self(texts)
        return all(
            len(row) == len(due) and all(math.isclose(a, float(b), rel_tol=1e-5) for a, b in zip(row, due, strict=True))
            for row, due in zip(rows, expected, strict=True)
        )


def write(folder: Path, recipe: Recipe, tokens: Sequence[bytes]) -> Path:
    """Write the vocabulary of a recipe; its path."""
    lines = [json.dumps(t.decode(), ensure_ascii=False).encode() for t in tokens] if recipe.escaped else tokens
    path = folder / recipe.vocabulary
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write_settings(folder: Path, recipes: dict[str, Recipe]) -> Path:
    """Write what the readers of all inputs are made of; its path."""
    path = folder / SETTINGS
    said = {name: asdict(recipe) for name, recipe in recipes.items()}
    path.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
