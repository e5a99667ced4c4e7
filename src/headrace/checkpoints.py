"""Everything a training needs to go on exactly where it stood: written aside and renamed, two generations kept."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifacts import write_atomically

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The state after a number of whole epochs."""

    epoch: int
    """Epochs done."""
    state: list[np.ndarray[Any, Any]]
    """Every variable: model (seed generators included), optimizer, early stopping."""
    history: dict[str, list[float]]
    """Metric → its value in each epoch done."""


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint over the older one of the two that are kept."""
    buffer = io.BytesIO()
    facts = json.dumps({"epoch": checkpoint.epoch, "history": checkpoint.history, "arrays": len(checkpoint.state)})
    arrays = {f"a{i}": array for i, array in enumerate(checkpoint.state)}
    np.savez(buffer, facts=np.frombuffer(facts.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    write_atomically(_older(folder), buffer.getvalue())


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read; a damaged one falls back to the one before it."""
    readable = [found for found in (_read(path) for path in _generations(folder)) if found]
    return max(readable, key=lambda checkpoint: checkpoint.epoch, default=None)


def _generations(folder: Path) -> tuple[Path, Path]:
    return folder / "checkpoint-a.npz", folder / "checkpoint-b.npz"


def _older(folder: Path) -> Path:
    """The generation to write over: a missing or unreadable one, else the one with fewer epochs.

    Only the facts are read. Weights that are damaged can wait: the new file takes its place in one step, and is sound.
    """

    def epoch(path: Path) -> int:
        try:
            with np.load(path, allow_pickle=False) as archive:
                return int(json.loads(archive["facts"].tobytes())["epoch"])
        except Exception:
            return -1

    return min(_generations(folder), key=epoch)


def _read(path: Path) -> Checkpoint | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            facts = json.loads(archive["facts"].tobytes())
            # Reading an array checks the sum that the archive keeps of it.
            state = [archive[f"a{i}"] for i in range(facts["arrays"])]
    except FileNotFoundError:
        return None
    except Exception as error:
        log.warning("the checkpoint %s is damaged (%s): going back to the one before it", path.name, error)
        return None
    return Checkpoint(facts["epoch"], state, facts["history"])
