"""Formats made and tried in fresh processes (`headrace.serving_check`), so that a crash spoils one of them only.

One process has TensorFlow: it tries the SavedModel, then converts. Each converted format is then tried in a process of
its own that has nothing but its runtime, which starts in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from headrace import serving_check
from headrace.artifacts import read_json
from headrace.bundling import nursery, parity
from headrace.bundling.examples import EXAMPLES
from headrace.bundling.graphs import Inputs
from headrace.spec import Export
from headrace.stages import Room

if TYPE_CHECKING:
    from headrace.bundling.examples import Arrays

TIMEOUT = 300.0
"""Seconds for each step of a process, after which it is given up."""


@dataclass(frozen=True)
class Plan:
    """How a format is made and asked."""

    format: str
    target: Path
    """Its place in the bundle."""
    source: Path
    """The SavedModel that it is converted from."""
    inputs: Inputs = "raw"
    batch: int | None = None
    """How many examples it takes at once; none: any number."""
    why: str | None = None
    """Why its inputs are not raw, or its batches not of any size."""
    problem: str | None = None
    """Why it can't even be tried."""

    def step(self, do: str) -> dict[str, Any]:
        """What a process is told."""
        path = self.target if do == "check" else self.source
        return {
            "do": do,
            "format": self.format,
            "path": str(path),
            "target": str(self.target),
            "inputs": self.inputs,
            "batch": self.batch,
        }


def examined(
    room: Room,
    plans: Sequence[Plan],
    representative: Path | None,
    lengths: Mapping[str, str],
    expected: parity.Expected,
    settings: Export,
    signatures: Mapping[str, Arrays] = MappingProxyType({}),
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Convert, load and ask every format in fresh processes, and compare; what was made goes to its place.

    Args:
        room: Where to work; its output holds the SavedModel and the recorded examples.
        plans: The formats, the SavedModel first.
        representative: The examples for int8.
        lengths: Ragged input → the input that holds its lengths.
        expected: What each should answer.
        settings: Tolerances.
        signatures: Of the SavedModel's other signatures, what they should answer to the examples recorded for them.

    Returns:
        What was found of each format, and of each signature.
    """
    # A folder of its own for each attempt: the child of one that was killed may still be writing.
    folder = Path(tempfile.mkdtemp(prefix="check-", dir=room.scratch))
    told = {
        "examples": str(room.output / EXAMPLES),
        "representative": str(representative) if representative else None,
        "lengths": dict(lengths),
        "zipped": bool(settings.prune or settings.cluster),
    }
    first, *others = plans
    tried = [plan for plan in others if not plan.problem]
    asked = [{**first.step("ask"), "path": str(first.target), "signatures": list(signatures)}] * bool(signatures)
    findings = _carried_out(folder, told, [first.step("check"), *asked, *(plan.step("convert") for plan in tried)])
    found = {}
    for plan in plans:
        entry = (
            {"problem": plan.problem}
            if plan.problem
            else findings[_name(plan, "convert" if plan != first else "check")]
        )
        if plan != first and not entry["problem"]:
            checked = _carried_out(folder, told, [plan.step("check")])[_name(plan, "check")]
            if checked["problem"]:
                checked["problem"] = f"it was converted, and then {checked['problem']}"
            entry = entry | checked
        entry = {"inputs": plan.inputs, "batch": plan.batch, **entry}
        found[plan.format] = parity.compared(plan.format, entry, folder / f"{plan.format}.npz", expected, settings)
        if found[plan.format]["problem"] and plan.target.is_file():
            plan.target.unlink()
    heard = {}
    if signatures:
        said = findings[_name(first, "ask")]
        for name, due in signatures.items():
            entry = {"problem": said["problem"]} if said["problem"] else said["signatures"][name]
            heard[name] = parity.same(entry, folder / f"signature-{name}.npz", due, settings)
    shutil.rmtree(folder, ignore_errors=True)
    return found, heard


def _name(plan: Plan, do: str) -> str:
    return f"{do} {plan.format}"


def _carried_out(
    folder: Path, told: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What processes find; one that ends early is followed by another for the steps after the one that ended it."""
    findings: dict[str, dict[str, Any]] = {}
    left = list(steps)
    while left:
        (folder / "findings.json").unlink(missing_ok=True)
        end = _run(folder, {**told, "steps": left})
        findings |= read_json(folder / "findings.json") or {}
        left = [step for step in left if f"{step['do']} {step['format']}" not in findings]
        if not left:
            break
        ended, *left = left
        findings[f"{ended['do']} {ended['format']}"] = {"problem": end}
        if ended["format"] == "saved_model":
            because = f"not tried, since {ended['format']} ended the check: {end}"
            findings |= {f"{step['do']} {step['format']}": {"problem": because} for step in left}
            break
    return findings


def _run(folder: Path, plan: Mapping[str, Any]) -> str:
    """Run the steps in a fresh interpreter; how it ended, in words that matter if it left something out."""
    (folder / "plan.json").write_text(json.dumps(plan))
    # The accelerator's memory may be this process's own, and a server's answers must not depend on it.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    seconds = TIMEOUT * len(plan["steps"])
    try:
        code, errors = _ended(folder, plan, environment, seconds)
    except (subprocess.TimeoutExpired, TimeoutError):
        return f"the check did not finish within {seconds:g} seconds"
    if not code:
        return "the check left it out"
    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    last = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()][-3:]
    return f"the check ended with {how}" + (f": {' / '.join(last)}"[:600] if last else "")


def _ended(folder: Path, plan: Mapping[str, Any], environment: Mapping[str, str], seconds: float) -> tuple[int, bytes]:
    """The exit code of a fresh process that carries the plan out, and what it said of errors."""
    # Converted formats have a small runtime of their own, and are not to find TensorFlow in memory.
    if any(step["do"] == "convert" or step["format"] == "saved_model" for step in plan["steps"]):
        with contextlib.suppress(nursery.Closed):
            code = nursery.run(serving_check.__file__, folder, environment, seconds)
            return code, (folder / "errors.txt").read_bytes()
    done = subprocess.run(
        [sys.executable, "-I", serving_check.__file__, "plan.json"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stderr
