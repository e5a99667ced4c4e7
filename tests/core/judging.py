"""Models that answer with their input, judged by any task: what they answer is what a test hands over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifacts import Artifact
from headrace.evaluating import evaluate
from headrace.jobs import Job
from headrace.measuring import words
from headrace.measuring.tasks import Task
from headrace.spec import Feature, Pipeline, Source, Train, Variant
from tests.core.keeping import keep
from tests.core.making import artifact, trained

Array = np.ndarray[Any, Any]


def request(task: Any, variant: Mapping[str, Any] | None = None, **functions: Any) -> Job:
    """A job with this task; `variant` holds the settings that differ, `functions` those of the workload."""

    def nothing(*_: Any) -> Any:
        return {}

    settings = Variant(train=Train(epochs=1), **(variant or {}))
    workload = Pipeline(
        name="judged",
        title="Judged",
        task=task,
        book="none",
        expect="nothing",
        sources={"made": Source(title="Made up", features={"x": Feature(shape=(1,))}, read=nothing)},
        preprocess=nothing,
        variants={"only": settings},
        **{"model": nothing, **functions},
    )
    job = Job(workload="judged", variant="only", source="made", settings=settings)
    # A job finds its workload among the files of a project; this one isn't there.
    job.__dict__["pipeline"] = workload
    return job


def recorded(folder: Path, target: Feature, truth: Array, answers: Array, train: Array, **further: Array) -> Artifact:
    """Records of one input, `x`, which is what the model shall answer, of the target `y`, and of further inputs."""
    rows = min(len(train), len(answers))
    learned = {"x": np.resize(answers[:rows], (len(train), *answers.shape[1:])), "y": train}
    learned |= {name: np.resize(values, (len(train), *values.shape[1:])) for name, values in further.items()}
    layout = {"x": Feature(shape=answers.shape[1:]), "y": target}
    layout |= {name: Feature(shape=values.shape[1:], role="note") for name, values in further.items()}
    about = {"workload": "judged", "source": "made", "data": "synthetic"}
    keep(folder, layout, about=about, train=learned, test={"x": answers, "y": truth, **further})
    return artifact(folder, "preprocess", statistics={"version": 2, "rows": len(train), "features": {}})


def echo(folder: Path, shape: tuple[int, ...]) -> Artifact:
    """A model that answers with its input."""
    import keras

    given = keras.Input(shape, name="x")
    return trained(keras.Model(given, keras.layers.Activation("linear")(given)), folder)


def judged(
    folder: Path, job: Job, target: Feature, truth: Array, answers: Array, train: Array, **further: Array
) -> Artifact:
    """The evaluation of a model that gives these answers."""
    answers = answers.astype(np.float32)
    records = recorded(folder / "records", target, truth, answers, train, **further)
    return evaluate(job, records, echo(folder / "model", answers.shape[1:]))


def metrics(task: Task, truth: Array, answers: Array, weights: Array | None = None) -> dict[str, float | None]:
    """What a task measures."""
    counted = np.ones(len(truth)) if weights is None else weights
    return words.numbers(task.measure(task.facts(truth, answers), counted))


def gate(evaluation: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The gate of this name."""
    return next(dict(entry) for entry in evaluation["gates"] if entry["gate"] == name)
