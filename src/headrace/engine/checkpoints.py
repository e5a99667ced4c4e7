"""Everything a training needs to go on exactly where it stood: written aside and renamed, two generations kept."""

from __future__ import annotations

import io
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifacts import write_atomically

log = logging.getLogger(__name__)

SHARE = 0.02
"""Of a training's time that its checkpoints may take: the longer one takes to write, the rarer they are."""

SECONDS = 1.0
"""How much work a killed training loses at most, where a checkpoint is cheap."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after a number of steps."""

    epoch: int
    """Epochs done."""
    state: list[np.ndarray[Any, Any]]
    """Every value that the next step depends on."""
    history: dict[str, list[float]]
    """Metric → its value in each epoch done."""
    step: int = 0
    """Steps done of the epoch that isn't."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else must be known: seconds spent, the seed that was drawn."""


class Keeper:
    """Saves now and then, as often as the cost allows.

    Args:
        folder: Where checkpoints are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = time.perf_counter()
        self.seconds = 0.0
        """Spent on checkpoints."""
        self.written = 0

    def due(self) -> bool:
        """Whether it is time for the next one."""
        cost = self.seconds / self.written if self.written else 0.0
        return time.perf_counter() - self._last >= max(SECONDS, cost / SHARE)

    def save(self, checkpoint: Checkpoint, begun: float) -> None:
        """Write it, and count the time since `begun`, when its state began to be gathered."""
        save(self._folder, checkpoint)
        self._last = time.perf_counter()
        self.seconds += self._last - begun
        self.written += 1


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint over the older one of the two that are kept."""
    serials = [_serial(path) for path in _generations(folder)]
    write_atomically(_generations(folder)[serials.index(min(serials))], packed(checkpoint, max(serials) + 1))


def packed(checkpoint: Checkpoint, serial: int = 0) -> bytes:
    """A checkpoint as the bytes of its file."""
    buffer = io.BytesIO()
    facts = json.dumps(
        {
            "serial": serial,
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "history": checkpoint.history,
            "facts": checkpoint.facts,
            "arrays": len(checkpoint.state),
        }
    )
    arrays = {f"a{i}": array for i, array in enumerate(checkpoint.state)}
    np.savez(buffer, facts=np.frombuffer(facts.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpacked(file: Any) -> tuple[int, Checkpoint]:
    """The serial number and the checkpoint in a file; what is wrong with it is told as whatever error it gives."""
    with np.load(file, allow_pickle=False) as archive:
        facts = json.loads(archive["facts"].tobytes())
        # Reading an array checks the sum that the archive keeps of it.
        state = [archive[f"a{i}"] for i in range(facts["arrays"])]
    return facts["serial"], Checkpoint(facts["epoch"], state, facts["history"], facts["step"], facts["facts"])


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read; a damaged one falls back to the one before it."""
    readable = [found for found in (_read(path) for path in _generations(folder)) if found]
    return max(readable, key=lambda found: found[0])[1] if readable else None


def _generations(folder: Path) -> tuple[Path, Path]:
    return folder / "checkpoint-a.npz", folder / "checkpoint-b.npz"


def _serial(path: Path) -> int:
    """The number of a checkpoint; -1 for a missing or unreadable one, which is written over first.

    Only the facts are read. Weights that are damaged can wait: the new file takes its place in one step, and is sound.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return int(json.loads(archive["facts"].tobytes())["serial"])
    except Exception:
        return -1


def _read(path: Path) -> tuple[int, Checkpoint] | None:
    try:
        return unpacked(path)
    except FileNotFoundError:
        return None
    except Exception as error:
        log.warning("the checkpoint %s is damaged (%s): going back to the one before it", path.name, error)
        return None
