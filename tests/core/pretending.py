"""Stages that train nothing, and whose results follow from the settings: for studies, tunings and ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from headrace.artifacts import Artifact, write_json
from headrace.chain import Stages
from headrace.ensembling import Mix
from headrace.errors import Diverged
from headrace.jobs import Job
from headrace.measuring.regression import Regression
from headrace.spec import Feature
from headrace.stages import Room, stage

GRID = """
    studies={
        "widths": Study(
            axes={"model.units": (2, 4, 8)},
            settings={"train.validation_split": 0.2},
            seeds=2,
            findings=(Finding(cell="units 8", beats="units 2"), Finding(at_most=2.5)),
        ),
        "watched": Study(
            cells={"a": {"model.units": 2}, "b": {"model.units": 8}},
            settings={"train.validation_split": 0.2},
            on="validation",
            metric="val_mae",
        ),
        "folds": Study(axes={"model.units": (2, 8)}, variant="folded", on="cross_validation"),
        "rates": Study(axes={"train.learning_rate": (0.001, 1.0)}),
    },
    tunings={
        "eight": Tuning(
            space={
                "model.units": Choice(values=(16, 32, 48, 64)),
                "train.optimizer": Choice(values=("rmsprop", "adam")),
            },
            settings={"train.validation_split": 0.2, "train.early_stopping": {"patience": 5}},
            tuner="grid",
            objective="val_mae",
            top=2,
        ),
    },
    ensembles={
        "both": Ensemble(
            cells={"small": {"model.units": 2}, "large": {"model.units": 8}},
            settings={"train.validation_split": 0.25},
            weights="searched",
        ),
    },
    smoke="""
"""What a test puts into the workload of the `project` fixture in the place of `smoke=`."""


def value_of(job: Job) -> float:
    """What a job comes to: wider is better, Adam too, and a seed moves it a little."""
    units = job.settings.model.get("units", 4)
    adam = 0.3 if "adam" in str(job.settings.train.optimizer) else 0.0
    return 8.0 / units + 1.0 - adam + 0.01 * (job.seed % 3)


@stage(settings=("train", "model"), facts=lambda job: {"seed": job.seed}, volatile=("training.json",))
def train(
    job: Job,
    room: Room,
    records: Artifact,
    *,
    fold: int | None = None,
    folds: int | None = None,
    repeat: int | None = None,
    chosen: Artifact | None = None,
) -> None:
    """A curve that falls to the value of the job in its middle, and rises again."""
    settings = job.settings.train
    if (settings.learning_rate or 0) >= 1:
        raise Diverged("The loss is nan in epoch 1.", remedy="lower train.learning_rate")
    value = value_of(job) + 0.1 * (fold or 0)
    curve = [value + abs(epoch - settings.epochs // 2) / 10 for epoch in range(1, settings.epochs + 1)]
    metrics = {"loss": curve, "mae": curve}
    if fold or settings.validation_split:
        metrics |= {"val_loss": curve, "val_mae": curve}
    write_json(room.output / "history.json", {"epochs": settings.epochs, "metrics": metrics, "stopped": None})
    write_json(room.output / "training.json", {"seconds": 0.5, "parameters": 10 * job.settings.model.get("units", 4)})


@stage(settings=("model",), facts=lambda job: {"seed": job.seed})
def evaluate(
    job: Job, room: Room, records: Artifact, model: Artifact, *, cross_validation: Artifact | None = None
) -> None:
    """Answers that are wrong by the value of the job, on average."""
    random = np.random.default_rng(0)
    truth = random.normal(0, 5, (200, 1))
    wrong = value_of(job) * np.sqrt(np.pi / 2) * random.normal(0, 1, (200, 1))
    task = Regression(Feature(shape=(1,), role="target"))
    facts = {f"y/{name}": values for name, values in task.facts(truth, truth + wrong).items()}
    np.savez(room.output / "facts.npz", **facts)
    mae = float(np.abs(wrong).mean())
    gates = [{"gate": "baseline", "passed": True, "reason": "better than the median"}]
    write_json(
        room.output / "evaluation.json",
        {
            "outputs": {"y": {"task": "regression", "target": task.target.model_dump(mode="json")}},
            "metrics": {"mae": mae},
            "intervals": {"mae": [mae, mae]},
            "gates": gates,
        },
    )


@stage()
def ensemble(job: Job, room: Room, records: Artifact, models: Sequence[Artifact], *, mix: Mix) -> None:
    """As good as one would hope."""
    write_json(room.output / "ensemble.json", {"data": "synthetic", "metrics": {"mae": 1.0 / len(models)}})


def pretending(stages: Stages) -> Stages:
    """These stages with a training, an evaluation and an average that follow the settings."""
    return replace(stages, train=train, evaluate=evaluate, ensemble=ensemble)


def write_workload(root: Path) -> None:
    """Give the workload `tiny` of a project studies, a tuning and an ensemble."""
    path = root / "pipelines" / "tiny.py"
    text = path.read_text().replace("\n    smoke=", GRID, 1)
    names = "Choice, CrossValidation, Ensemble, Feature, Finding, Pipeline, Source, Study, Train, Tuning, Variant"
    path.write_text(text.replace("CrossValidation, Feature, Pipeline, Source, Train, Variant", names, 1))
