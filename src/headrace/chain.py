"""The standard order of the stages, written once, for whoever carries them out: plain functions, tasks, or a plan."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from headrace.artifacts import Artifact
from headrace.console import progress
from headrace.engine import borrowing
from headrace.errors import StageFailed
from headrace.jobs import Job
from headrace.placing.spreading import at_once
from headrace.stages import Call

if TYPE_CHECKING:
    from headrace import ensembling, studying, tuning

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Stages:
    """Something to call for each stage: the core's functions, their plans, or the Prefect tasks around them."""

    download: Call
    preprocess: Call
    examine: Call
    train: Call
    cross_validate: Call
    evaluate: Call
    export: Call
    publish: Call
    monitor: Call
    report: Call
    study: Call
    tune: Call
    ensemble: Call

    @classmethod
    def plain(cls) -> Self:
        """The stages themselves."""
        from headrace.cross_validating import cross_validate
        from headrace.downloading import download
        from headrace.ensembling import ensemble
        from headrace.evaluating import evaluate
        from headrace.examining import examine
        from headrace.exporting import export
        from headrace.monitoring import monitor
        from headrace.preprocessing import preprocess
        from headrace.publishing import publish
        from headrace.reporting import report
        from headrace.studying import study
        from headrace.training import train
        from headrace.tuning import tune

        return cls(
            download=download,
            preprocess=preprocess,
            examine=examine,
            train=train,
            cross_validate=cross_validate,
            evaluate=evaluate,
            export=export,
            publish=publish,
            monitor=monitor,
            report=report,
            study=study,
            tune=tune,
            ensemble=ensemble,
        )

    @classmethod
    def planned(cls) -> Self:
        """What each stage would do, and why."""
        plain = cls.plain()
        return cls(**{item.name: getattr(plain, item.name).plan for item in fields(cls)})


Order = Callable[[Job, Stages], list[Artifact]]


def standard(job: Job, stages: Stages, limit: int = 1) -> list[Artifact]:
    """Download, preprocess, examine, train (after its folds, if any), evaluate, export, publish, monitor, report.

    Args:
        job: What to run.
        stages: Who carries the stages out.
        limit: How many folds at the same time.

    Returns:
        The artifact of each node, in the order in which they were made; the last one is the report.
    """
    raw = stages.download(job)
    records = stages.preprocess(job, raw)
    examination = stages.examine(job, raw, records)
    made = [raw, records, examination]

    chosen = None
    if job.settings.cross_validation:
        *folds, chosen = cross_validated(job, stages, records, limit)
        made += [*folds, chosen]

    *before, model = trained(job, stages, records, chosen=chosen)
    made += before
    evaluation = stages.evaluate(job, records, model, cross_validation=chosen)
    bundle = stages.export(job, raw, records, model)
    publication = stages.publish(job, raw, records, evaluation, bundle, model=model)
    drift = stages.monitor(job, raw, records, bundle)
    made += [model, evaluation, bundle, publication, drift]
    return [*made, stages.report(job, made)]


def cross_validated(job: Job, stages: Stages, records: Artifact, limit: int = 1) -> list[Artifact]:
    """Train on all folds but one, for each fold (anew for each repeat), and average: the last artifact is the average.

    Each fold is a node of its own: seen, skipped, resumed and retried by itself.
    """
    protocol = job.settings.cross_validation
    assert protocol is not None  # noqa: S101 (asked for by jobs that have one)
    # Only drawn folds belong to a repeat; consecutive blocks are the same in each.
    repeats: list[dict[str, Any]] = [{}]
    if protocol.shuffle:
        repeats = [{"repeat": repeat} for repeat in range(1, protocol.repeats + 1)]
    calls = [
        partial(trained, job, stages, records, fold=fold, folds=protocol.folds, **of_repeat)
        for of_repeat in repeats
        for fold in range(1, protocol.folds + 1)
    ]
    fits = at_once(calls, limit)
    made = [artifact for fit in fits for artifact in fit]
    return [*made, stages.cross_validate(job, [fit[-1] for fit in fits])]


def trained(
    job: Job, stages: Stages, records: Artifact, *, chosen: Artifact | None = None, **cut: Any
) -> list[Artifact]:
    """Train, after the variant whose weights the training begins with if there is one: the last artifact is the model.

    Args:
        job: The job.
        stages: Who carries the stages out.
        records: What to learn from.
        chosen: The average of the folds, for a final fit.
        cut: Which examples are held out (`fold`, `folds`, `repeat`), from that variant's training as well.
    """
    base = borrowing.base(job)
    before = trained(base, stages, records, **cut) if base else []
    more = {"start": before[-1]} if before else {}
    return [*before, stages.train(job, records, **({} if cut else {"chosen": chosen}), **cut, **more)]


# ----------------------------------------------------------------------------------------------- fan-outs

# Download and preprocess are done once, for the job that stands for the whole. Every training below is a node of its
# own: seen, skipped, resumed and retried by itself. One that fails is told in the result, and does not end the others.


def studied(plan: studying.Plan, limit: int = 1) -> Order:
    """The order of a study: every cell with every seed, as it measures; then all side by side.

    Args:
        plan: The study.
        limit: How many cells at the same time.

    Returns:
        An order whose last artifact is the study's.
    """
    from headrace.studying import Problems

    def order(job: Job, stages: Stages) -> list[Artifact]:
        before = prepared(job, stages)
        jobs = [job for cell in plan.cells for job in cell.jobs]
        # Cells may differ in their data, too: each other source or preprocessing is a node of its own.
        own, others = {_data_of(job): before[-1]}, list[Artifact]()
        for cell in jobs:
            if _data_of(cell) not in own:
                others += prepared(job, stages, cell)
                own[_data_of(cell)] = others[-1]
        done = _counted(
            [(cell.label, partial(_attempt, cell, stages, own[_data_of(cell)], plan.study.on)) for cell in jobs],
            limit,
            f"study {plan.name}",
        )
        made = [*others, *(artifact for artifacts, _ in done for artifact in artifacts)]
        problems = {job.label: problem for job, (_, problem) in zip(jobs, done, strict=True) if problem}
        result = stages.study(job, before[-1], made, plan=plan, problems=Problems(at=problems))
        return [*before, *made, result]

    return order


def tuned(plan: tuning.Plan, limit: int = 1) -> Order:
    """The order of a tuning: trials as the oracle proposes them, then the best settings to the end, and their average.

    Args:
        plan: The tuning.
        limit: How many trials to propose and train at the same time.

    Returns:
        An order whose last artifact is the tuning's. Of a plan, it ends with the first trials that are not done: what
        the oracle would propose next depends on them.
    """
    from headrace.ensembling import Mix
    from headrace.tuning import Outcome, Trial, finalists, in_words, proposals, scored

    def order(job: Job, stages: Stages) -> list[Artifact]:
        before = prepared(job, stages)
        records = before[-1]
        made: list[Artifact] = []
        trials: list[Trial] = []
        with proposals(plan) as oracle, progress(f"tuning {plan.name}", plan.tuning.max_trials) as advance:
            while batch := oracle.ask(limit):
                jobs = [plan.jobs(trial) for trial in batch]
                calls = [partial(_attempt, job, stages, records, "validation") for trial in jobs for job in trial]
                done = iter(at_once(calls, limit))
                for trial, its_jobs in zip(batch, jobs, strict=True):
                    executed = [next(done) for _ in its_jobs]
                    made += [artifact for artifacts, _ in executed for artifact in artifacts]
                    models = [artifacts[-1] for artifacts, _ in executed if artifacts]
                    if any(not model.digest for model in models):
                        return [*before, *made]
                    problem = next((problem for _, problem in executed if problem), None)
                    trials.append(scored(plan, trial, models, problem))
                    oracle.tell(trials[-1])
                    advance(len(trials), in_words(plan, trials[-1]))
        ends = [_finished(plan, finalist, stages, records) for finalist in finalists(plan, trials)]
        outcome = Outcome(trials=tuple(trials), finalists=tuple(finalist for finalist, _ in ends))
        made += [artifact for _, artifacts in ends for artifact in artifacts]
        models = [artifacts[-2] for finalist, artifacts in ends if not finalist.problem]
        if len(models) > 1:
            made.append(stages.ensemble(job, records, models, mix=Mix()))
        return [*before, *made, stages.tune(job, records, made, plan=plan, outcome=outcome)]

    return order


def _finished(
    plan: tuning.Plan, finalist: tuning.Finalist, stages: Stages, records: Artifact
) -> tuple[tuning.Finalist, list[Artifact]]:
    """Find the best epoch of a finalist, train it on all training examples, test it once."""
    from headrace.tuning import with_epochs

    searched, problem = _attempt(plan.search(finalist), stages, records, "validation")
    if problem or not searched[-1].digest:
        return finalist.model_copy(update={"problem": problem}), searched
    finalist = with_epochs(plan, finalist, searched[-1])
    made, problem = _attempt(plan.final(finalist), stages, records, "test")
    return finalist.model_copy(update={"problem": problem}), [*searched, *made]


def averaged(plan: ensembling.Plan, limit: int = 1) -> Order:
    """The order of an ensemble: every member, then their average.

    Args:
        plan: The ensemble.
        limit: How many members at the same time.

    Returns:
        An order whose last artifact is the ensemble's.
    """

    def order(job: Job, stages: Stages) -> list[Artifact]:
        before = prepared(job, stages)
        calls = [(job.label, partial(_fitted, job, stages, before[-1])) for job in plan.jobs]
        models = _counted(calls, limit, f"ensemble {plan.name}")
        made = [artifact for artifacts in models for artifact in artifacts]
        result = stages.ensemble(job, before[-1], [artifacts[-1] for artifacts in models], mix=plan.mix)
        return [*before, *made, result]

    return order


def prepared(job: Job, stages: Stages, cell: Job | None = None) -> list[Artifact]:
    """What the trainings of a fan-out have in common: the raw data, and the records made of them.

    Args:
        job: The job that stands for the whole.
        stages: Who carries the stages out.
        cell: The first of the jobs that have other data than this one; None for those that have the same.
    """
    plain = cell.model_copy(update={"seed": job.seed}) if cell else job.model_copy(update={"cell": ""})
    raw = stages.download(plain)
    return [raw, stages.preprocess(plain, raw)]


def _data_of(job: Job) -> str:
    """What tells the records of one job from those of another job of the same fan-out."""
    functions = [job.function("learn"), job.function("preprocess")]
    return repr([job.source, sorted(job.settings.preprocess.items()), functions])


def _counted(calls: Sequence[tuple[str, Callable[[], T]]], limit: int, title: str) -> list[T]:
    """Carry out calls with labels, and show how many of them are done."""
    with progress(title, len(calls)) as advance:
        finished = itertools.count(1)

        def carried_out(label: str, call: Callable[[], T]) -> T:
            result = call()
            advance(next(finished), label)
            return result

        return at_once([partial(carried_out, *labelled) for labelled in calls], limit)


def _fitted(job: Job, stages: Stages, records: Artifact) -> list[Artifact]:
    """The final fit, after its folds if it has any."""
    if not job.settings.cross_validation:
        return trained(job, stages, records)
    before = cross_validated(job, stages, records)
    return [*before, *trained(job, stages, records, chosen=before[-1])]


def _attempt(
    job: Job, stages: Stages, records: Artifact, on: Literal["test", "validation", "cross_validation"]
) -> tuple[list[Artifact], str | None]:
    """Train and measure one job: what was made, and why it could not be finished, if it could not."""
    made: list[Artifact] = []
    try:
        if on == "cross_validation":
            made += cross_validated(job, stages, records)
            return made, None
        made += _fitted(job, stages, records)
        if on == "test":
            chosen = next((one for one in made if one.node.startswith("cross_validate")), None)
            made.append(stages.evaluate(job, records, made[-1], cross_validation=chosen))
    except StageFailed as error:
        log.warning("%s could not be finished: %s", job.label, error.problem)
        return made, str(error)
    return made, None
