"""Figures of a benchmark, kept in `results/` with the machine and the versions they were measured with."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from headrace.artifacts import write_json
from headrace.fingerprints import versions

RESULTS = Path(__file__).parent / "results"


def keep(name: str, found: dict[str, Any], *packages: str, beside: bool = False) -> None:
    """Write the figures to `results/<name>.json`, and print them.

    Args:
        name: Of the benchmark.
        found: What was measured, by name.
        packages: Whose versions are noted.
        beside: Leave figures of other names where they are, from runs that measured something else.
    """
    print(json.dumps(found, indent=1, ensure_ascii=False))
    path = RESULTS / f"{name}.json"
    kept = json.loads(path.read_text()) if beside and path.exists() else {}
    about = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "versions": versions(*packages),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(path, {**kept, **found, **about})
