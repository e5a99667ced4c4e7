"""Finished folders made directly, so that a test of one stage need not run those before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.artifacts import Artifact, close, write_json
from headrace.jobs import Job


def artifact(folder: Path, node: str, **files: Any) -> Artifact:
    """A finished folder of what lies in it already and of these JSON files (name without ending → contents)."""
    for name, value in files.items():
        write_json(folder / f"{name}.json", value)
    facts = {"node": node, "made": "2020-01-01T00:00:00Z", "ingredients": {"versions": {}}}
    return Artifact(folder, close(folder, facts)["digest"], node)


def twin(job: Job, folder: Path) -> Artifact:
    """What `download` would give for the synthetic twin."""
    folder.mkdir(parents=True)
    assert job.origin.twin
    job.origin.twin(folder, 0)
    return artifact(folder, "download", data={"data": "synthetic", "source": job.source, "files": {}})


def trained(model: Any, folder: Path) -> Artifact:
    """What `train` would give with this Keras model."""
    from headrace.training import save_model

    folder.mkdir(parents=True)
    save_model(model, folder / "model.keras")
    return artifact(folder, "train")
