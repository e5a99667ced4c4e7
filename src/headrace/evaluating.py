"""Measure a trained model on the test split, against what was promised and against naive answers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, write_json
from headrace.errors import ConfigError, StageFailed, nearest
from headrace.jobs import Job
from headrace.spec import Feature, Promise
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import keras
    import numpy as np

    from headrace.measuring.tasks import Facts, Measures
    from headrace.records.inputs import Info

    Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)

Gate = dict[str, Any]
"""{"gate": name, "passed": True, False or None (not judged), "reason": a sentence with the numbers}"""

BATCH, BATCH_BYTES = 1024, 64 * 2**20
"""Examples that are asked at once, and how large their answers may be together."""
KEPT_BYTES = 64 * 2**20
"""What is kept of the answers: all of them, or the first ones where they are larger."""


@stage(
    settings=("promises",),
    versions=("tensorflow", "keras", "numpy"),
    facts=lambda job: {
        "task": job.task,
        "profile": job.profile,
        "default_source": job.source == job.usual_source,
    },
    tensorflow=True,
)
def evaluate(
    job: Job, room: Room, records: Artifact, model: Artifact, *, cross_validation: Artifact | None = None
) -> None:
    """Test a model once, and judge it.

    Writes `evaluation.json` (metrics, intervals, naive baselines, gates, promises), `facts.npz` (what the metrics are
    made of, example by example: see `headrace.measuring.tasks`), and `predictions.npz` with `truth/<target>` and
    `answer/<target>`, both (examples, …): of all test examples, or of the first ones where answers are large.

    Args:
        job: The job; its settings hold the promises.
        room: Where to work.
        records: Output of `preprocess`.
        model: Output of `train`.
        cross_validation: Output of `cross_validate`, for the promises on it.

    Raises:
        ConfigError: A promise names a metric that this task has not.
        StageFailed: The model predicts infinite or no numbers, or has an output of another shape than its task needs.
    """
    import numpy as np

    from headrace.measuring.resampling import intervals
    from headrace.measuring.tasks import examples
    from headrace.measuring.words import numbers, short, spread, title
    from headrace.models import load
    from headrace.records.inputs import read_info

    info = read_info(records.path)
    measures = measures_of(job, info)
    test = batches(records, info, "test")
    told = Told(measures)
    for batch, answers in answered(job, load(model), info, test):
        told.add(batch, answers)
    facts: dict[str, Any] = told.facts()
    kept: dict[str, Any] = told.kept()

    def measure(weights: Array) -> Mapping[str, Array]:
        return measures.measure(facts, weights)

    count = examples(facts)
    metrics = numbers(measures.measure(facts))
    bounds = intervals(measure, count, measures.groups(count))
    primary = _primary(job.settings.promises, measures, metrics)
    naive = _naive(measures, info, test, _targets(measures, batches(records, info, "train")))
    found = {"metrics": metrics, "intervals": bounds}
    followed = cross_validation.json("cross_validation.json") if cross_validation else None
    obstacle = why_not_judged(job, info.data)
    judged = [_judge(promise, found, followed, obstacle) for promise in job.settings.promises]
    gates = [gate for gate, _ in judged]
    gates.append(_baseline_gate(measures, primary, facts, naive))

    np.savez(room.output / "facts.npz", **facts)
    np.savez(room.output / "predictions.npz", **kept)
    write_json(
        room.output / "evaluation.json",
        {
            "split": "test",
            "examples": count,
            "primary": primary,
            "larger_is_better": sorted(measures.larger_is_better),
            "outputs": {
                name: {"task": job.task_of(name), "target": task.target.model_dump(mode="json")}
                for name, task in measures.tasks.items()
            },
            **found,
            "baselines": {name: numbers(_of_all(measures, theirs)) for name, theirs in naive.items()},
            "gates": gates,
            "promises": [entry for _, entry in judged],
        },
    )
    log.info("test %s %s %s", title(primary), short(metrics[primary]), spread(bounds[primary]))


def measured(evaluation: Artifact) -> tuple[Measures, Facts]:
    """How an evaluation was measured, and what of: facts of the test examples, to be weighed in other ways."""
    import numpy as np

    from headrace.measuring.tasks import Measures, of

    outputs = evaluation.json("evaluation.json")["outputs"]
    tasks = {name: of(said["task"], Feature.model_validate(said["target"])) for name, said in outputs.items()}
    with np.load(evaluation.path / "facts.npz", allow_pickle=False) as file:
        return Measures(tasks), {name: file[name] for name in file.files}


# ------------------------------------------------------------------------------------------------- answers


def measures_of(job: Job, info: Info) -> Measures:
    """How the answers for the targets of these records are measured.

    Raises:
        ConfigError: The workload's `task` names other targets.
        StageFailed: There is no target.
    """
    from headrace.measuring.tasks import Measures, of

    targets = info.named("target")
    if not targets:
        raise StageFailed(f"{info.workload} can't be evaluated.", expected="a target", received="none")
    unknown = [name for name in job.task if name not in targets] if isinstance(job.task, dict) else []
    if unknown or (isinstance(job.task, dict) and len(job.task) < len(targets)):
        raise ConfigError(
            f"`task` of {job.workload} does not say what each target is.",
            expected=f"a task for {', '.join(targets)}",
            received=", ".join(job.task),
        )
    return Measures({name: of(job.task_of(name), target) for name, target in targets.items()})


Batches = Iterable[Mapping[str, "Array"]]
"""Examples in stored order, some at a time, as often as they are asked for."""


def batches(records: Artifact, info: Info, split: str) -> Batches:
    """The examples of a split."""
    from headrace.ragged import dense
    from headrace.records.inputs import arrays, fits_in_memory

    if fits_in_memory(info, [split]):
        return list(in_batches({name: dense(values) for name, values in arrays(records.path, split).items()}))
    return _Streamed(records, split)


@dataclass(frozen=True)
class _Streamed:
    records: Artifact
    split: str

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        from headrace.ragged import dense, from_tensor
        from headrace.records.inputs import dataset

        for batch in dataset(self.records.path, self.split, BATCH):
            yield {name: dense(from_tensor(values)) for name, values in batch.items()}


def in_batches(whole: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """Examples in batches."""
    for first in range(0, len(next(iter(whole.values()))), BATCH):
        yield {name: values[first : first + BATCH] for name, values in whole.items()}


def answered(
    job: Job, model: keras.Model, info: Info, examples: Batches
) -> Iterator[tuple[Mapping[str, Array], dict[str, Array]]]:
    """Examples with what a model answers to them, as many at once as their answers allow.

    Raises:
        StageFailed: The answers are infinite or no numbers.
    """
    import numpy as np

    from headrace.models import answer

    names, inputs = list(info.named("target")), list(info.named("input"))
    at_once, done = 16, 0
    for batch in examples:
        rows, first = len(batch[inputs[0]]), 0
        while first < rows:
            part = {name: values[first : first + at_once] for name, values in batch.items()}
            found = answer(model, {name: part[name] for name in inputs}, names)
            answers = {name: np.asarray(values) for name, values in found.items()}
            _must_be_finite(answers, done + first)
            yield part, answers
            first += at_once
            each = max(sum(values.nbytes for values in answers.values()) // len(part[inputs[0]]), 1)
            at_once = int(min(max(BATCH_BYTES // each, 1), BATCH))
        done += rows


def _must_be_finite(answers: Mapping[str, Array], before: int) -> None:
    import numpy as np

    for name, values in answers.items():
        sound = np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if not sound.all():
            raise StageFailed(
                f"The model predicts infinite or no numbers for {(~sound).sum()} of {len(sound)} test examples.",
                received=f"{values[~sound][0]} of `{name}` for test example {before + int(np.argmin(sound))}",
                remedy="lower train.learning_rate",
            )


class Told:
    """Takes in answers batch by batch, and keeps what they are measured by.

    Args:
        measures: How.
    """

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._facts: list[Facts] = []
        self._kept: list[dict[str, Array]] = []
        self._room = KEPT_BYTES

    def add(self, batch: Mapping[str, Array], answers: Mapping[str, Array]) -> None:
        """Take in the next examples.

        Raises:
            StageFailed: An answer has another shape than its task needs.
        """
        for name, task in self._measures.tasks.items():
            if not task.fits(answers[name].shape[1:]):
                raise StageFailed(
                    f"The model does not answer in the shape that its task needs of `{name}`.",
                    expected=task.expected,
                    received=f"(examples, {', '.join(map(str, answers[name].shape[1:]))})",
                    remedy="see `model` and `task` in the workload's file",
                )
        self._facts.append(self._measures.facts(batch, answers))
        part = {f"truth/{name}": batch[name] for name in self._measures.tasks}
        part |= {f"answer/{name}": answers[name] for name in self._measures.tasks}
        if self._room >= 0:
            self._kept.append(part)
        self._room -= sum(values.nbytes for values in part.values())

    def facts(self) -> dict[str, Array]:
        """Of all examples: name → (examples, …)."""
        from headrace.measuring.tasks import joined

        return joined(self._facts)

    def kept(self) -> dict[str, Array]:
        """Truth and answers (examples, …), of the first ones at least."""
        from headrace.measuring.tasks import joined

        return joined(self._kept)


def _targets(measures: Measures, examples: Batches) -> dict[str, Array]:
    """The targets of a whole split."""
    from headrace.measuring.tasks import joined

    return joined({name: batch[name] for name in measures.tasks} for batch in examples)


def _naive(measures: Measures, info: Info, test: Batches, learned: Mapping[str, Array]) -> dict[str, dict[str, Facts]]:
    """Name of a naive answer → target → the facts of that answer to all test examples."""
    from headrace.measuring.tasks import joined

    inputs = list(info.named("input"))
    found: dict[str, dict[str, Facts]] = {}
    for target, task in measures.tasks.items():
        for name, always in task.naive(learned[target]).items():
            found.setdefault(name, {})[target] = joined(
                task.facts(batch[target], always({key: batch[key] for key in inputs}, len(batch[target])))
                for batch in test
            )
    return found


def _of_all(measures: Measures, theirs: Mapping[str, Facts]) -> dict[str, Any]:
    """The metrics of a naive answer, for the targets that have it."""
    import numpy as np

    from headrace.measuring.tasks import examples

    return {
        measures.named(target, metric): value
        for target, facts in theirs.items()
        for metric, value in measures.tasks[target].measure(facts, np.ones(examples(facts))).items()
    }


# --------------------------------------------------------------------------------------------------- gates


def _primary(promises: tuple[Promise, ...], measures: Measures, metrics: Mapping[str, Any]) -> str:
    """The metric that decides: that of the first promise on the test split, or else the task's."""
    named = [promise.metric for promise in promises if promise.on == "test"]
    for name in named:
        if name not in metrics:
            raise ConfigError(f"promises: there is no metric `{name}`: {nearest(name, metrics)}")
    return named[0] if named else measures.primary


def why_not_judged(job: Job, data: str) -> str | None:
    """Why no promise holds for this run; None if they do: they are made for full runs on the default, real data."""
    reasons = []
    if job.profile != "full":
        reasons.append(f"a {job.profile} run")
    if data != "real":
        reasons.append(f"{data} data")
    if job.source != job.usual_source:
        reasons.append(f"the data are not {job.usual_source}")
    return ", ".join(reasons) or None


def _judge(
    promise: Promise, measured: Mapping[str, Any], followed: Mapping[str, Any] | None, obstacle: str | None
) -> tuple[Gate, dict[str, Any]]:
    """The gate of one promise, and the promise with the value that was measured."""
    from headrace.measuring.words import short, spread, title

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


def _baseline_gate(measures: Measures, metric: str, facts: Facts, naive: Mapping[str, Mapping[str, Facts]]) -> Gate:
    """Whether the model is better than the best naive answer by more than the draw of the test examples explains."""
    from headrace.measuring.resampling import intervals
    from headrace.measuring.tasks import examples
    from headrace.measuring.words import short, spread, title

    target = measures.target_of(metric)
    task, plain = measures.tasks[target], metric if len(measures.tasks) == 1 else metric.removeprefix(f"{target}_")
    theirs = {name: found[target] for name, found in naive.items() if target in found}
    values = {name: float(_of_all(measures, {target: found})[metric]) for name, found in theirs.items()}
    ours = float(measures.measure(facts)[metric])
    best = max(values, key=lambda name: float(measures.gain(metric, values[name], ours)))

    def gain(weights: Array) -> dict[str, Array]:
        naively = task.measure(theirs[best], weights)[plain]
        return {"gain": measures.gain(metric, measures.measure(facts, weights)[metric], naively)}

    better = float(measures.gain(metric, ours, values[best]))
    interval = intervals(gain, examples(facts), measures.groups(examples(facts)))["gain"]
    passed = interval is not None and interval[0] > 0
    return {
        "gate": "baseline",
        "passed": passed,
        "reason": (
            f"{title(metric)} {short(ours)} {'beats' if passed else 'does not clearly beat'} "
            f"{short(values[best])} of the best naive answer, the {best} of the training targets: "
            f"better by {short(better)} {spread(interval)}"
        ),
    }
