"""Measure a trained model on the test split, against what was promised and against naive answers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, write_json
from headrace.errors import ConfigError, StageFailed, nearest
from headrace.jobs import Job
from headrace.spec import Evaluate, Feature, Promise
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import keras
    import numpy as np

    from headrace.measuring.tasks import Facts, Measures, Naive, Task
    from headrace.records.inputs import Info

    Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)

Gate = dict[str, Any]
"""{"gate": name, "passed": True, False or None (not judged), "reason": a sentence with the numbers}"""

BATCH, BATCH_BYTES = 1024, 64 * 2**20
"""Examples that are asked at once, and how large their answers may be together."""
BATCH_TOKENS = 256
"""Examples of tokens, which become vectors of hundreds of numbers each."""
KEPT_BYTES = 64 * 2**20
"""What is kept of the answers: all of them, or the first ones where they are larger."""


@stage(
    settings=("promises", "evaluate"),
    functions=("naive", "decode", "measure", "custom"),
    versions=("tensorflow", "keras", "numpy", "sacrebleu", "scikit-learn", "scipy"),
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

    Writes `evaluation.json` (metrics, intervals, slices, what people see of each output, baselines, gates, promises),
    `facts.npz` (what the metrics are made of, example by example: see `headrace.measuring.tasks`), and
    `predictions.npz` with `truth/<target>` and `answer/<target>`, both (examples, …): of all test examples, or of the
    first ones where answers are large.

    Args:
        job: The job; its settings hold the promises.
        room: Where to work.
        records: Output of `preprocess`.
        model: Output of `train`.
        cross_validation: Output of `cross_validate`, for the promises on it.

    Raises:
        ConfigError: A promise names a metric that this task has not, or a slice a column that is not there.
        StageFailed: A target is no number; the model predicts infinite or no numbers, or has an output of another shape
            than its task needs.
    """
    import numpy as np

    from headrace.measuring import baselines, slices
    from headrace.measuring.resampling import intervals
    from headrace.measuring.tasks import examples
    from headrace.measuring.words import numbers, short, spread, title
    from headrace.models import load
    from headrace.records.inputs import read_info

    info, how = read_info(records.path), job.settings.evaluate
    if job.task == "own":
        _own(job, room, records, model, cross_validation)
        return
    measures = measures_of(job, info)
    train, test = (batches(records, info, split) for split in ("train", "test"))
    told, seen = Told(measures), slices.Seen(info.features, how.slices)
    for batch, answers in answered(job, load(model), info, test):
        told.add(batch, answers)
        seen.add(batch)
    facts: dict[str, Any] = told.facts()
    kept: dict[str, Any] = told.kept()
    naive = _naive(job, records, measures, info, train, test)
    if job.function("decode"):
        facts, naive = _with_sentences(job, room, records, model, measures, facts, naive)
    plain = baselines.plain(records.digest, measures, info, train, test)
    facts, known = measures.beside(facts, {**naive, **plain.known})

    def measure(weights: Array) -> Mapping[str, Array]:
        return measures.measure(facts, weights)

    count = examples(facts)
    metrics = numbers(measures.measure(facts))
    bounds = intervals(measure, count, measures.groups(count))
    primary = _primary(job.settings.promises, measures.primary, metrics)
    found = {"metrics": metrics, "intervals": bounds}
    followed = cross_validation.json("cross_validation.json") if cross_validation else None
    obstacle = why_not_judged(job, info.data, info.examples)
    judged = [_judge(promise, found, followed, obstacle) for promise in job.settings.promises]
    compared = baselines.compared(measures, primary, facts, known)
    parts = slices.sliced(measures, facts, seen, primary, how)
    gates = [gate for gate, _ in judged]
    gates.append(baselines.gate(primary, metrics[primary], compared, how.beat))
    gates += slices.gates(parts, primary, metrics[primary], how)

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
                name: {
                    "task": job.task_of(name),
                    "target": task.target.model_dump(mode="json"),
                    "how": task.how.model_dump(mode="json"),
                    **task.about(measures.of(name, facts)),
                }
                for name, task in measures.tasks.items()
            },
            **found,
            "baselines": {name: numbers(baselines.metrics(measures, name, theirs)) for name, theirs in known.items()},
            "comparisons": [one.json(primary) for one in compared],
            "learned_from": plain.learned_from,
            "left_out": plain.left_out,
            "slices": parts,
            "gates": gates,
            "promises": [entry for _, entry in judged],
            "not_judged": obstacle,
        },
    )
    log.info("test %s %s %s", title(primary), short(metrics[primary]), spread(bounds[primary]))


def measured(evaluation: Artifact) -> tuple[Measures, Facts]:
    """How an evaluation was measured, and what of: facts of the test examples, to be weighed in other ways."""
    import numpy as np

    from headrace.measuring.tasks import Measures, of

    outputs = evaluation.json("evaluation.json")["outputs"]
    tasks = {
        name: of(said["task"], Feature.model_validate(said["target"]), Evaluate.model_validate(said.get("how", {})))
        for name, said in outputs.items()
    }
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
    how = job.settings.evaluate
    named = {name: _with_classes(target, job.origin.features.get(name)) for name, target in targets.items()}
    return Measures({name: of(job.task_of(name), target, how) for name, target in named.items()})


def _with_classes(target: Feature, raw: Feature | None) -> Feature:
    """A target with the names of its classes, which it loses where `preprocess` makes a vector of the number."""
    if target.classes or raw is None or not raw.classes:
        return target
    fitting = target.size in (1, len(raw.classes))
    return target.model_copy(update={"classes": raw.classes}) if fitting else target


Batches = Iterable[Mapping[str, Any]]
"""Examples in stored order, some at a time, as often as they are asked for: arrays, or `Ragged` inputs."""


def batches(records: Artifact, info: Info, split: str) -> Batches:
    """The examples of a split."""
    from headrace.records.inputs import arrays, fits_in_memory

    if not fits_in_memory(info, [split]):
        return _Streamed(records, info, split)
    whole = arrays(records.path, split)
    return _Cut(whole) if info.windows else list(in_batches(measurable(whole, info)))


def measurable(values: Mapping[str, Any], info: Info) -> dict[str, Any]:
    """The values of some examples; targets must be of one length."""
    from headrace.ragged import dense

    targets = info.named("target")
    return {name: dense(part) if name in targets else part for name, part in values.items()}


@dataclass(frozen=True)
class _Streamed:
    records: Artifact
    info: Info
    split: str

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        from headrace.ragged import from_tensor
        from headrace.records.inputs import dataset

        for batch in dataset(self.records.path, self.split, BATCH):
            yield measurable({name: from_tensor(values) for name, values in batch.items()}, self.info)


@dataclass(frozen=True)
class _Cut:
    """Windows, of which there are never more than a batch at once."""

    whole: Mapping[str, Any]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return in_batches(self.whole)


def in_batches(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Examples in batches; windows are cut out."""
    import numpy as np

    from headrace.windows import Windowed

    for first in range(0, len(next(iter(whole.values()))), BATCH):
        batch = {name: values[first : first + BATCH] for name, values in whole.items()}
        yield {name: np.asarray(part) if isinstance(part, Windowed) else part for name, part in batch.items()}


def answered(
    job: Job, model: keras.Model, info: Info, examples: Batches
) -> Iterator[tuple[Mapping[str, Array], dict[str, Array]]]:
    """Examples with what a model answers to them, as many at once as their answers allow.

    Raises:
        StageFailed: The answers are infinite or no numbers.
    """
    import numpy as np

    from headrace.models import answer
    from headrace.ragged import Ragged

    names, inputs = list(info.named("target")), list(info.named("input"))
    tokens = any(feature.dtype == "int64" and feature.shape for feature in info.named("input").values())
    at_once, done, most = 16, 0, BATCH_TOKENS if tokens else BATCH
    for batch in examples:
        rows, first = len(batch[inputs[0]]), 0
        while first < rows:
            part = {name: values[first : first + at_once] for name, values in batch.items()}
            # As in training, sequences are filled up to the longest of those that are asked together.
            given = {n: part[n].tensor().to_tensor() if isinstance(part[n], Ragged) else part[n] for n in inputs}
            found = answer(model, given, names)
            answers = {name: np.asarray(values) for name, values in found.items()}
            _must_be_finite(answers, done + first)
            yield part, answers
            first += at_once
            each = max(sum(values.nbytes for values in answers.values()) // len(part[inputs[0]]), 1)
            at_once = int(min(max(BATCH_BYTES // each, 1), most))
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


def _must_be_known(truth: Array, name: str, before: int) -> None:
    import numpy as np

    if truth.dtype.kind != "f" or np.isfinite(truth).all():
        return
    first = int(np.argmin(np.isfinite(truth).reshape(len(truth), -1).all(axis=1)))
    raise StageFailed(
        f"The target `{name}` of a test example is infinite or no number, so that no answer to it can be measured.",
        received=f"{truth[first]} for test example {before + first}",
        remedy="leave such examples out where they are read",
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
        self._count = 0

    def add(self, batch: Mapping[str, Array], answers: Mapping[str, Array]) -> None:
        """Take in the next examples.

        Raises:
            StageFailed: A target is no number, or an answer has another shape than its task needs.
        """
        for name, task in self._measures.tasks.items():
            _must_be_known(batch[name], name, self._count)
            if not task.fits(answers[name].shape[1:]):
                raise StageFailed(
                    f"The model does not answer in the shape that its task needs of `{name}`.",
                    expected=task.expected,
                    received=f"(examples, {', '.join(map(str, answers[name].shape[1:]))})",
                    remedy="see `model` and `task` in the workload's file",
                )
        self._count += len(batch[next(iter(self._measures.tasks))])
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


def _naive(
    job: Job, records: Artifact, measures: Measures, info: Info, train: Batches, test: Batches
) -> dict[str, dict[str, Facts]]:
    """Name of a naive answer → target → the facts of that answer to all test examples."""
    from headrace.measuring.tasks import joined

    inputs, own = list(info.named("input")), _own_naive(job, records, list(measures.tasks))
    found: dict[str, dict[str, Facts]] = {}
    for target, task in measures.tasks.items():
        learned = task.learned(batch[target] for batch in train)
        for name, always in {**own[target], **task.naive(learned)}.items():
            found.setdefault(name, {})[target] = joined(
                task.facts(
                    batch[target],
                    _fitting(task, name, always({key: batch[key] for key in inputs}, len(batch[target]))),
                )
                for batch in test
            )
    return found


def _fitting(task: Task, name: str, answers: Array) -> Array:
    """The answers, if they are of the shape that the task needs."""
    if not task.fits(answers.shape[1:]):
        raise StageFailed(
            f"The naive answer `{name}` has not the shape that its task needs.",
            expected=task.expected,
            received=str(answers.shape),
            remedy="see `naive` in the workload's file",
        )
    return answers


def _with_sentences(
    job: Job,
    room: Room,
    records: Artifact,
    model: Artifact,
    measures: Measures,
    facts: Mapping[str, Array],
    naive: Mapping[str, dict[str, Facts]],
) -> tuple[dict[str, Any], dict[str, dict[str, Facts]]]:
    """Add what decoded sentences are measured by (see `Functions.decode`), and keep them: `sentences.json`."""
    from headrace.measuring.own import trial_of
    from headrace.measuring.sequences import decoded

    target = next((name for name in measures.tasks if job.task_of(name) == "sequence"), None)
    if target is None:
        raise ConfigError(f"{job.workload} has a `decode`, but no target whose task is `sequence`.")
    trial = trial_of(job, records, model)
    found = decoded(trial, job.the("decode")(trial))
    write_json(room.output / "sentences.json", found.sentences)
    further = {f"{target}/{fact}": values for fact, values in found.facts.items()}
    return {**facts, **further}, {**naive, **{name: {target: theirs} for name, theirs in found.naive.items()}}


def _own_naive(job: Job, records: Artifact, targets: list[str]) -> Mapping[str, Mapping[str, Naive]]:
    """Target → the naive answers that the workload itself knows: see `Functions.naive`."""
    from headrace.measuring.own import learned_of

    make = job.function("naive")
    found = make(*learned_of(job, records)) if make else {}
    of_each = found if len(targets) > 1 else {targets[0]: found}
    return {target: of_each.get(target, {}) for target in targets}


# --------------------------------------------------------------------------------------- the workload's own


def _own(job: Job, room: Room, records: Artifact, model: Artifact, cross_validation: Artifact | None) -> None:
    """Test and judge a model by what the workload measures itself: see `headrace.measuring.own`."""
    import numpy as np

    from headrace.measuring import own
    from headrace.measuring.words import short, spread, title
    from headrace.records.inputs import read_info

    trial = own.trial_of(job, records, model)
    measured = own.measured(job, trial)
    metrics, bounds = own.values(measured.metrics), own.intervals(measured.metrics)
    primary = _primary(job.settings.promises, measured.decisive, metrics)
    found = {"metrics": metrics, "intervals": bounds}
    followed = cross_validation.json("cross_validation.json") if cross_validation else None
    info = read_info(records.path)
    obstacle = why_not_judged(job, info.data, info.examples)
    judged = [_judge(promise, found, followed, obstacle) for promise in job.settings.promises]
    units = own.counts(measured.metrics)
    np.savez(room.output / "facts.npz", **own.facts(measured))
    write_json(
        room.output / "evaluation.json",
        {
            "split": "test",
            "examples": units[primary] or 1,
            "primary": primary,
            "larger_is_better": sorted(measured.larger_is_better),
            "outputs": {},
            **found,
            "units": units,
            "baselines": {name: own.values(theirs) for name, theirs in measured.naive.items()},
            "gates": [*(gate for gate, _ in judged), own.baseline_gate(measured, primary)],
            "promises": [entry for _, entry in judged],
            "not_judged": obstacle,
            "samples": own.write_samples(measured, room.output),
        },
    )
    log.info("test %s %s %s", title(primary), short(metrics[primary]), spread(bounds[primary]))


# --------------------------------------------------------------------------------------------------- gates


def _primary(promises: tuple[Promise, ...], usually: str, metrics: Mapping[str, Any]) -> str:
    """The metric that decides: that of the first promise on the test split, or else the task's."""
    named = [promise.metric for promise in promises if promise.on == "test"]
    for name in named:
        if name not in metrics:
            raise ConfigError(f"promises: there is no metric `{name}`: {nearest(name, metrics)}")
    return named[0] if named else usually


WHOLE = 0.95
"""Share of a data set's examples from which on it is no sample: some may be unusable."""


def why_not_judged(job: Job, data: str, examples: Mapping[str, int]) -> str | None:
    """Why no promise holds for this run; None if they do: they are made for full runs on the whole, real data.

    Args:
        job: The job.
        data: `real` or `synthetic`.
        examples: How many there are in each split.
    """
    reasons = []
    if job.profile != "full":
        reasons.append(f"a {job.profile} run")
    if data != "real":
        reasons.append(f"{data} data")
    if not job.on_its_own_data:
        reasons.append(f"the data are not {job.usual_source}")
    for split, whole in job.origin.examples.items():
        if not reasons and split in examples and examples[split] < WHOLE * whole:
            reasons.append(f"the data are a sample, {examples[split]:,} of {whole:,} {split} examples")
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
