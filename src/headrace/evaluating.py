"""Measure a trained model on the test split, against what was promised and against naive answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, write_json
from headrace.errors import ConfigError, StageFailed, nearest
from headrace.jobs import Job
from headrace.spec import Promise
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import numpy as np

    from headrace.metrics import Task
    from headrace.records.inputs import Info

log = logging.getLogger(__name__)

Gate = dict[str, Any]
"""{"gate": name, "passed": True, False or None (not judged), "reason": a sentence with the numbers}"""

_BATCH = 1024


@stage(
    settings=("promises",),
    versions=("tensorflow", "keras", "numpy"),
    facts=lambda job: {
        "task": job.pipeline.task,
        "profile": job.profile,
        "default_source": job.source == job.pipeline.default_source,
    },
    tensorflow=True,
)
def evaluate(
    job: Job, room: Room, records: Artifact, model: Artifact, *, cross_validation: Artifact | None = None
) -> None:
    """Test a model once, and judge it.

    Writes `evaluation.json` (metrics, intervals, naive baselines, gates, promises) and `predictions.npz` with `y_true`
    and `y_pred`, both (examples, *shape of the target).

    Args:
        job: The job; its settings hold the promises.
        room: Where to work.
        records: Output of `preprocess`.
        model: Output of `train`.
        cross_validation: Output of `cross_validate`, for the promises on it.

    Raises:
        ConfigError: A promise names a metric that this task has not.
        StageFailed: The model predicts infinite or no numbers, or has several targets.
    """
    import numpy as np

    from headrace.metrics import TASKS, intervals, numbers, rows, short, spread, title
    from headrace.ragged import dense
    from headrace.records.inputs import arrays, read_info

    task = TASKS[job.pipeline.task]
    info = read_info(records.path)
    target = only_target(info)
    test = {name: dense(values) for name, values in arrays(records.path, "test").items()}
    predicted = predictions(job, model, info, test, target)
    learned_from = rows(dense(arrays(records.path, "train")[target]))
    truth, answers = rows(test[target]), rows(predicted)

    metrics = numbers(task.measure(truth, answers))
    bounds = intervals(task.measure, truth, answers)
    primary = _primary(job.settings.promises, task, metrics)
    naive = {name: np.broadcast_to(always(learned_from), truth.shape) for name, always in task.baselines.items()}
    baselines = {name: numbers(task.measure(truth, values)) for name, values in naive.items()}
    measured = {"metrics": metrics, "intervals": bounds}
    followed = cross_validation.json("cross_validation.json") if cross_validation else None
    obstacle = why_not_judged(job, info.data)
    judged = [_judge(promise, measured, followed, obstacle) for promise in job.settings.promises]
    gates = [gate for gate, _ in judged]
    gates.append(_baseline_gate(task, primary, truth, answers, naive))

    np.savez(room.output / "predictions.npz", y_true=test[target], y_pred=predicted)
    write_json(
        room.output / "evaluation.json",
        {
            "split": "test",
            "examples": len(truth),
            "target": target,
            "primary": primary,
            "metrics": metrics,
            "intervals": bounds,
            "baselines": baselines,
            "gates": gates,
            "promises": [entry for _, entry in judged],
        },
    )
    log.info("test %s %s %s", title(primary), short(metrics[primary]), spread(bounds[primary]))


def only_target(info: Info) -> str:
    """The name of the one target.

    Raises:
        StageFailed: There are several, or none.
    """
    names = list(info.named("target"))
    if len(names) != 1:
        raise StageFailed(
            f"{info.workload} can't be evaluated.", expected="one target", received=f"{len(names)}: {', '.join(names)}"
        )
    return names[0]


def predictions(
    job: Job, model: Artifact, info: Info, test: Mapping[str, np.ndarray[Any, Any]], target: str
) -> np.ndarray[Any, Any]:
    """The model's answers to the examples of a split, in the shape of the target.

    Raises:
        StageFailed: The answers have another shape, or are infinite or no numbers.
    """
    import numpy as np

    from headrace.models import answer, load

    loaded = load(model)
    parts = []
    for first in range(0, len(test[target]), _BATCH):
        inputs = {name: test[name][first : first + _BATCH] for name in info.named("input")}
        parts.append(np.asarray(answer(loaded, inputs, [target])[target]))
    predicted = np.concatenate(parts)
    if predicted.shape != test[target].shape:
        raise StageFailed(
            f"The model of {job.title} does not answer in the shape of `{target}`.",
            expected=f"(examples, *{info.features[target].shape})",
            received=f"(examples, *{predicted.shape[1:]})",
            remedy=f"see `model` in pipelines/{job.workload}.py",
        )
    sound = np.isfinite(predicted).reshape(len(predicted), -1).all(axis=1)
    if not sound.all():
        raise StageFailed(
            f"The model predicts infinite or no numbers for {(~sound).sum()} of {len(sound)} test examples.",
            received=f"{predicted[~sound][0]} for test example {int(np.argmin(sound))}",
            remedy="lower train.learning_rate",
        )
    return predicted


# --------------------------------------------------------------------------------------------------- gates


def _primary(promises: tuple[Promise, ...], task: Task, metrics: Mapping[str, Any]) -> str:
    """The metric that decides: that of the first promise on the test split, or else the task's."""
    named = [promise.metric for promise in promises if promise.on == "test"]
    for name in named:
        if name not in metrics:
            raise ConfigError(f"promises: there is no metric `{name}`: {nearest(name, metrics)}")
    return named[0] if named else task.primary


def why_not_judged(job: Job, data: str) -> str | None:
    """Why no promise holds for this run; None if they do: they are made for full runs on the default, real data."""
    reasons = []
    if job.profile != "full":
        reasons.append(f"a {job.profile} run")
    if data != "real":
        reasons.append(f"{data} data")
    if job.source != job.pipeline.default_source:
        reasons.append(f"the data are not {job.pipeline.default_source}")
    return ", ".join(reasons) or None


def _judge(
    promise: Promise, measured: Mapping[str, Any], followed: Mapping[str, Any] | None, obstacle: str | None
) -> tuple[Gate, dict[str, Any]]:
    """The gate of one promise, and the promise with the value that was measured."""
    from headrace.metrics import short, spread, title

    value = None
    if promise.on == "test":
        value = measured["metrics"][promise.metric]
        figure = f"{title(promise.metric)} {short(value)} {spread(measured['intervals'][promise.metric])}"
        if value is None:
            obstacle = f"{title(promise.metric)} is undefined on this test split"
    elif followed is None:
        obstacle = "there was no cross-validation"
    elif followed["metric"] != promise.metric:
        obstacle = f"the cross-validation measured {followed['metric']}"
    else:
        value = followed["mean"]
        figure = f"{promise.metric} {short(value)}, the mean over {len(followed['folds'])} folds,"
    book = f" (the book: {promise.book:g})" if promise.book is not None else ""
    passed = promise.holds(value) if value is not None and obstacle is None else None
    if value is None:
        reason = f"{promise.metric} {promise.bounds}{book} not judged: {obstacle}"
    elif passed is None:
        reason = f"{figure} not judged against {promise.bounds}{book}: {obstacle}"
    else:
        reason = f"{figure} {'within' if passed else 'not within'} {promise.bounds}{book}"
    entry = {
        "metric": promise.metric,
        "on": promise.on,
        "bounds": promise.bounds,
        "book": promise.book,
        "source": promise.source,
        "value": value,
        "judged": passed is not None,
    }
    return {"gate": "promise", "passed": passed, "reason": reason}, entry


def _baseline_gate(
    task: Task,
    metric: str,
    truth: np.ndarray[Any, Any],
    answers: np.ndarray[Any, Any],
    naive: Mapping[str, np.ndarray[Any, Any]],
) -> Gate:
    """Whether the model is better than the best naive answer by more than the draw of the test examples explains."""
    from headrace.metrics import Array, intervals, short, spread, title

    ours = task.measure(truth, answers)[metric]
    values = {name: task.measure(truth, always)[metric] for name, always in naive.items()}
    best = max(values, key=lambda name: float(task.gain(metric, values[name], ours)))

    def gain(truth: Array, answers: Array, always: Array) -> dict[str, Array]:
        return {"gain": task.gain(metric, task.measure(truth, answers)[metric], task.measure(truth, always)[metric])}

    better = float(gain(truth, answers, naive[best])["gain"])
    interval = intervals(gain, truth, answers, naive[best])["gain"]
    passed = interval is not None and interval[0] > 0
    return {
        "gate": "baseline",
        "passed": passed,
        "reason": (
            f"{title(metric)} {short(float(ours))} {'beats' if passed else 'does not clearly beat'} "
            f"{short(float(values[best]))} of the best naive answer, the {best} of the training targets: "
            f"better by {short(better)} {spread(interval)}"
        ),
    }
