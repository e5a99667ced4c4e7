"""Fresh processes that have TensorFlow already: to import it takes most of the time in which a bundle is tried.

A nursery is a stranger itself (`headrace.serving_check`, run with `python -I`): it has imported TensorFlow, done
nothing with it, and forks for each plan. A process that exports once is served better by an interpreter of its own,
which begins at once; the nursery is opened for the second bundle, as in a study, and ends with who opened it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_AFTER = 1
"""Bundles that are tried without a nursery."""

_lock = threading.Lock()
_asked = 0
_opened: Nursery | None = None


class Closed(Exception):
    """The nursery has ended, or can't be used now: do without."""


class Nursery:
    """A process that forks.

    Args:
        script: `headrace/serving_check.py`.
        environment: Of all that it forks.
    """

    def __init__(self, script: str, environment: Mapping[str, str]) -> None:
        self.key = (script, os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-I", script, "--nursery"],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._held = b""

    def run(self, folder: Path, seconds: float) -> int:
        """Carry out the plan in a folder.

        Returns:
            The exit code; the negative number of a signal, if one ended it.

        Raises:
            TimeoutError: It did not end in time, and was killed.
            Closed: The nursery has ended.
        """
        until = time.monotonic() + seconds
        try:
            assert self._process.stdin  # noqa: S101
            self._process.stdin.write(json.dumps(str(folder)).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Closed from error
        child = int(self._line(until)["child"])
        try:
            return int(self._line(until)["code"])
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            self._line(time.monotonic() + 10)
            raise

    def _line(self, until: float) -> Any:
        assert self._process.stdout  # noqa: S101
        # Not by `readline`, which would hold back a second line that has come with the first.
        while b"\n" not in self._held:
            ready, _, _ = select.select([self._process.stdout], [], [], max(until - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            part = os.read(self._process.stdout.fileno(), 4096)
            if not part:
                raise Closed
            self._held += part
        line, _, self._held = self._held.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """End it; what it has forked is done by then."""
        with contextlib.suppress(OSError):
            assert self._process.stdin  # noqa: S101
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()


def run(script: str, folder: Path, environment: Mapping[str, str], seconds: float) -> int:
    """Carry out a plan by the nursery of this process, which is opened if need be.

    Args:
        script: `headrace/serving_check.py`.
        folder: Where `plan.json` is; errors go to `errors.txt` there.
        environment: For what is started.
        seconds: After which it is given up.

    Returns:
        The exit code, or the negative number of a signal.

    Raises:
        Closed: There is none for this: the first bundle of a process, two at once, another system than Linux.
        TimeoutError: It did not end in time, and was killed.
    """
    global _asked, _opened
    # Elsewhere a process that has TensorFlow can't be forked safely.
    if sys.platform != "linux" or not _lock.acquire(blocking=False):
        raise Closed
    try:
        _asked += 1
        if _asked <= _AFTER:
            raise Closed
        if _opened and _opened.key != (script, os.getpid()):
            _close()
        if not _opened:
            _opened = Nursery(script, environment)
        try:
            return _opened.run(folder, seconds)
        except Closed:
            _close()
            raise
    finally:
        _lock.release()


def _close() -> None:
    global _opened
    if _opened and _opened.key[1] == os.getpid():
        _opened.close()
    _opened = None


atexit.register(_close)
