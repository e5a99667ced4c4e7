"""The power is cut in the middle of a training; trainings in processes of their own, which can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.engine import checkpoints, driving
from tests.conftest import PROJECT


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


def child(*words: str, **variables: str) -> subprocess.Popen[str]:
    """Python in a process of its own, with these words and variables of the environment; its output is read later."""
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=PROJECT,
    )
