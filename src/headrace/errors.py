"""Every error that a person may meet, with what to do about it.

HeadraceError
├── ConfigError          2   the request can't be carried out as it is written
├── DataError            3   the data are missing or not what was declared
│   └── Unavailable      3   … because they can't be fetched from anywhere
├── SystemTrouble        4   the machine refuses: no room, no permission, a broken installation
│   └── Deserted         4   … because another worker of the same training is gone
└── StageFailed          5   a stage can't finish with the data and settings it was given
    └── Diverged         5   … because the loss is no longer a finite number

The number is the exit code of the command line. 0 is success; 1 means that everything ran and the verdict is *fail*;
70 is a fault of the program itself; 130 is an interruption from the keyboard.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_VERDICT = 1
EXIT_FAULT = 70
EXIT_INTERRUPTED = 130


class HeadraceError(Exception):
    """A problem told to the person who reads it: what is wrong, what was expected and received, how to go on.

    Args:
        problem: What is wrong, in one sentence or a few lines.
        expected: What would have been right.
        received: What was found instead.
        remedy: How to go on.
    """

    exit_code = 5

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        received: object = None,
        remedy: str | None = None,
    ) -> None:
        lines = [problem]
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if received is not None:
            lines.append(f"  received: {received}")
        if remedy is not None:
            lines.append(f"  to go on: {remedy}")
        # One positional argument, so that the exception survives pickling on its way between processes.
        super().__init__("\n".join(lines))
        self.problem = problem


class ConfigError(HeadraceError):
    """The request can't be carried out as it is written: an unknown name, a wrong type, a value out of range."""

    exit_code = 2


class DataError(HeadraceError):
    """The data are missing, damaged, or not what the workload declares."""

    exit_code = 3


class Unavailable(DataError):
    """The data are in no cache and no mirror, and the origin can't be reached."""


class SystemTrouble(HeadraceError):
    """The machine refuses: a folder that can't be written, a full disk, an installation that is not as locked."""

    exit_code = 4


class Deserted(SystemTrouble):
    """Another worker of the same training is gone; all can begin again, from the last checkpoint."""


class StageFailed(HeadraceError):
    """A stage can't finish with the data and settings it was given."""


class Diverged(StageFailed):
    """The loss is no longer a finite number."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A clause that offers the names which look like `name`, and else lists them all: "did you mean `mnist`?"."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(f'`{item}`' for item in close)}?"
    return "there is none" if not known else f"there is {', '.join(f'`{item}`' for item in known)}"


def unknown(kind: str, name: str, names: Iterable[str]) -> ConfigError:
    """The error for a name that does not exist, with the nearest ones."""
    return ConfigError(f"There is no {kind} `{name}`: {nearest(name, names)}")
