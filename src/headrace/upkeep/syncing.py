"""Files that follow from the workloads: flows, deployments, the README's table, the page of results."""

from __future__ import annotations

from pathlib import Path

from headrace.artifacts import system_errors, write_atomically
from headrace.upkeep import cataloguing, deploying


def texts(root: Path) -> dict[Path, str]:
    """Every file that follows from the workloads of a project → what it is to hold.

    Raises:
        ConfigError: A workload's file can't be loaded, or there is no place for what is to be written.
    """
    return {**deploying.texts(root), **cataloguing.texts(root)}


def stale(root: Path) -> dict[Path, str]:
    """Those of `texts` that differ from what lies there."""
    return {path: text for path, text in texts(root).items() if not path.is_file() or path.read_text() != text}


def sync(root: Path) -> list[Path]:
    """Write what differs, all or nothing.

    Returns:
        The files that were written.
    """
    changes = stale(root)
    before = {path: path.read_bytes() if path.is_file() else None for path in changes}
    with system_errors("writing what follows from the workloads"):
        try:
            for path, text in changes.items():
                write_atomically(path, text.encode())
        except BaseException:
            for path, held in before.items():
                if held is None:
                    path.unlink(missing_ok=True)
                elif path.read_bytes() != held:
                    write_atomically(path, held)
            raise
    return list(changes)
