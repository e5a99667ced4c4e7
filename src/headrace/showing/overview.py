"""The page over all runs, `runs/index.html`: where each workload stands, and every run with its verdict and report.

It is written after every run that made something anew, and when somebody asks for it (`headrace report --all`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.artifacts import home, read_json, write_atomically
from headrace.showing import pages

log = logging.getLogger(__name__)

READ = 1_000
"""Runs whose records are looked at, the newest ones."""
SHOWN = 300
"""Runs that are listed one by one."""
METRICS = 3
"""Metrics in a line."""
KINDS = {"study": "study", "tuning": "tuning", "ensemble": "ensemble"}
"""What the record of a fan-out holds beside that of a run."""


def path() -> Path:
    """Where the page is."""
    return home() / "runs" / "index.html"


def refresh() -> Path:
    """Write the page anew from the records of the runs."""
    folder = path().parent
    found = sorted(folder.glob("*/*/run.json"), key=lambda record: record.parent.name, reverse=True)
    records = [record for place in found[:READ] if isinstance(record := read_json(place), dict)]
    rows = [_row(record, folder) for record in records]
    html = pages.render(
        "runs.html.j2", standing=_standing(rows), runs=rows[:SHOWN], more=max(len(found) - len(rows[:SHOWN]), 0)
    )
    write_atomically(path(), html.encode())
    return path()


def keep_up() -> None:
    """Write the page anew; a run does not fail for it."""
    try:
        refresh()
    except Exception as error:
        # Whatever is wrong with it, possibly with the record of another run: what was asked for is done.
        log.warning("the page over all runs could not be written: %s", error)


def _row(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    report = Path(record["report"]) if record.get("report") else None
    state = record.get("state", "")
    return {
        "run": record.get("run", ""),
        "workload": record.get("workload", ""),
        "title": record.get("title") or record.get("workload", ""),
        "kind": next((kind for key, kind in KINDS.items() if key in record), "run"),
        "data": record.get("data", ""),
        "profile": record.get("profile", ""),
        "completed": state == "completed",
        "verdict": record.get("verdict", "") if state == "completed" else state,
        "metrics": _metrics(record.get("metrics") or {}),
        "version": record.get("version"),
        "started": str(record.get("started", "")).replace("T", " ").removesuffix("Z"),
        "seconds": record.get("seconds"),
        "error": str(record.get("error") or "").partition("\n")[0],
        # From disk the page and what it leads to stay together, wherever the folder is moved.
        "report": os.path.relpath(report, folder).replace(os.sep, "/") if report and report.is_file() else None,
    }


def _metrics(found: Mapping[str, Any]) -> str:
    return " · ".join(f"{name} {pages.number(value)}" for name, value in list(found.items())[:METRICS])


def _standing(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each workload the run that says most: the newest full one on real data, else the newest that was completed."""
    found = []
    for workload in sorted({row["workload"] for row in rows}):
        own = [row for row in rows if row["workload"] == workload]
        # The rows come newest first, and sorting keeps that order among equals.
        best = sorted(
            (row for row in own if row["completed"] and row["kind"] == "run"),
            key=lambda row: (row["data"] != "real", row["profile"] != "full"),
        )
        found.append({"workload": workload, "runs": len(own), "best": best[0] if best else None})
    return found
