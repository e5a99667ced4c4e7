"""The tasks mirror the stages of the core."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from headrace.chain import Stages
from tasks.stages import STAGES

FOLDER = Path(__file__).resolve().parents[2] / "tasks"
CARRIED_OUT = {item.name: getattr(STAGES, item.name) for item in fields(Stages)}


@pytest.mark.parametrize("name", CARRIED_OUT)
def test_every_stage_has_its_task_in_the_module_of_the_same_name(name: str) -> None:
    stage, task = getattr(Stages.plain(), name), CARRIED_OUT[name]

    module = stage.__module__.removeprefix("headrace.")
    assert task.__name__ == name
    assert f"\n{name} = as_task(stage, " in (FOLDER / f"{module}.py").read_text()


def test_only_the_download_is_tried_again() -> None:
    retrying = [path.stem for path in FOLDER.glob("*ing.py") if "retry_delays=" in path.read_text()]

    assert retrying == ["downloading"]
