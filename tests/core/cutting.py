"""The power is cut in the middle of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.engine import checkpoints, driving


class Cut(BaseException):
    """The power is cut."""


def cut_off(trained: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, with a checkpoint after each call of the graph, until the power is cut after the fourth."""
    save, left = checkpoints.save, 4

    def saved(where: Path, checkpoint: checkpoints.Checkpoint) -> None:
        nonlocal left
        save(where, checkpoint)
        left -= 1
        if not left:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "due", lambda self: True)
        patch.setattr(checkpoints, "save", saved)
        # A busy machine must not make calls shorter than asked for.
        patch.setattr(driving, "LOOK_SECONDS", 1e9)
        with pytest.raises(Cut):
            trained()
