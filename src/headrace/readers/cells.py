"""What a cell of a table may hold, and how the problems of a file are told, all at once."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from headrace.errors import DataError
from headrace.spec import Feature

Bad = Literal["refuse", "null"]
"""What becomes of a cell that can't be used: the file is refused, or the cell counts as missing."""

SHOWN = 3
"""Places of each problem, and missing columns, that a message names; it counts the others."""
_LARGEST = 3.4028234663852886e38
"""The largest float32: what is larger would be stored as infinite."""

_WORDS = ("na", "n/a", "#na", "#n/a", "#n/a n/a", "<na>", "nan", "-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan")
Wanted = Mapping[str, Feature]
"""Column → the feature that it belongs to."""

NOTHING = frozenset((*_WORDS, "null", "none"))
"""What stands in a cell without a value, in lower case."""
SPELLINGS = ["", *sorted({spell(word) for word in NOTHING for spell in (str.lower, str.upper, str.capitalize)}), "NaN"]
"""The same as Arrow's readers are to know it; what they don't, is read again cell by cell."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_RANGES = {"int64": (-(2**63), 2**63 - 1), "uint8": (0, 255)}

# --------------------------------------------------------------------------------------------- single cells


def judged(cell: Any, feature: Feature) -> tuple[Any, str | None]:
    """The value of a cell, and what is wrong with it; the value is None if it is missing or can't be used.

    Args:
        cell: Its text; or a value of another type, as binary files hold them.
        feature: What it belongs to.
    """
    if not isinstance(cell, str):
        cell = _text(cell)
    if feature.dtype == "string":
        return (None, _nothing(cell, feature)) if _is_nothing(cell, feature) else (cell, None)
    text = cell.strip()
    if feature.classes:
        number = numbers_of(feature.classes).get(text)
        if number is None:
            return None, _nothing(text, feature) if _is_nothing(text, feature) else "is none of the classes"
        return number, None
    if not _NUMBER.fullmatch(text):
        if _is_nothing(text, feature):
            return None, _nothing(text, feature)
        return None, "is infinite" if _INFINITE.fullmatch(text) else "holds text instead of a number"
    if feature.dtype == "float32":
        value = float(text)
        return (value, None) if abs(value) <= _LARGEST else (None, "is too large")
    if not _WHOLE.fullmatch(text):
        return None, "is no whole number"
    low, high = _RANGES[feature.dtype]
    whole = int(text)
    return (whole, None) if low <= whole <= high else (None, "is too large" if whole > high else "is too small")


def _is_nothing(text: str, feature: Feature) -> bool:
    """Whether a cell has no value. As text that must be there, NA is a word, and a space a letter."""
    if feature.dtype == "string" and not feature.optional:
        return not text
    return not text.strip() or text.strip().lower() in NOTHING


def _nothing(text: str, feature: Feature) -> str | None:
    """What is wrong with a cell that has no value."""
    return None if feature.optional else "has no value" if text else "is empty"


def wrong(cell: Any, feature: Feature, *, in_lists: bool = False) -> str | None:
    """What is wrong with a cell, which holds a list if features lie `in_lists`."""
    if not in_lists:
        return judged(cell, feature)[1]
    if cell is None:
        return None if feature.optional else "is empty"
    if len(cell) % feature.size if feature.ragged else len(cell) != feature.size:
        return f"holds {len(cell)} values instead of {'a multiple of ' * feature.ragged}{feature.size}"
    return next((f"holds a value that {what}" for item in cell if (what := judged(item, feature)[1])), None)


def _text(cell: Any) -> str:
    if isinstance(cell, bool) or (isinstance(cell, float) and cell.is_integer()):
        cell = int(cell)
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    return "" if cell is None else str(cell)


@cache
def numbers_of(classes: tuple[str, ...]) -> dict[str, int]:
    """What a cell with a class may hold: its name, or else its number."""
    return {**{str(number): number for number in range(len(classes))}, **{c: i for i, c in enumerate(classes)}}


class Findings:
    """What is wrong in the cells of a table: the first places of each problem, and how many there are."""

    def __init__(self, unit: Literal["line", "row", "record"], wanted: Wanted) -> None:
        self._unit = unit
        self._wanted = wanted
        self._counts: Counter[tuple[str, str]] = Counter()
        self._places: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, subject: str, what: str, number: int, cell: str = "") -> None:
        """Note a problem in the line, row or record of this number."""
        self._counts[subject, what] += 1
        if self._counts[subject, what] <= SHOWN:
            shown = f' ("{cell[:30]}{"…" * (len(cell) > 30)}")' if cell.strip() else ""
            self._places[subject, what].append(f"{self._unit} {number}{shown}")

    def lines(self) -> list[str]:
        """The problems in words, one line for each column and kind."""
        told = []
        for (subject, what), places in self._places.items():
            target = subject in self._wanted and self._wanted[subject].role == "target"
            more = self._counts[subject, what] - len(places)
            told.append(
                f"{subject}{', the target,' if target else ''} {what} on {', '.join(places)}"
                + (f" and {more:,} more" if more else "")
            )
        return told


# -------------------------------------------------------------------------------------------------- errors


def unusable(path: Path, problems: Sequence[str], expected: str, remedy: str | None = None) -> DataError:
    """The error for a file with these problems."""
    shown = [*problems[:8], *([f"and {len(problems) - 8} problems more"] if len(problems) > 8 else [])]
    lines = "\n".join(f"  - {problem}" for problem in shown)
    return DataError(f"{path.name} can't be used:\n{lines}", expected=expected, remedy=remedy or f"correct {path.name}")


def unfit(path: Path, problems: Sequence[str]) -> DataError:
    """The error for a table with problems in its cells."""
    return unusable(
        path,
        problems,
        "a value in every cell of the columns that are read",
        f"correct {path.name}, or leave these rows out",
    )


def unreadable(path: Path, kind: str, error: object) -> DataError:
    """The error for a file that is not of the kind that it should be."""
    return DataError(
        f"{path.name} can't be read as {kind}.",
        received=first_line(error),
        remedy=f"see whether {path.name} is complete, and write it again",
    )


def first_line(error: object) -> str:
    """The first line of a message, and not all of it if it is long."""
    return (str(error).splitlines() or [""])[0][:200]
