"""The standard order of the stages, written once, for whoever carries them out: plain functions, tasks, or a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

from headrace.artifacts import Artifact
from headrace.jobs import Job

Call = Callable[..., Artifact]


@dataclass(frozen=True)
class Stages:
    """Something to call for each stage: the core's functions, their plans, or the Prefect tasks around them."""

    download: Call
    preprocess: Call
    train: Call
    cross_validate: Call
    evaluate: Call
    export: Call
    publish: Call
    monitor: Call
    report: Call

    @classmethod
    def plain(cls) -> Self:
        """The stages themselves."""
        from headrace.cross_validating import cross_validate
        from headrace.downloading import download
        from headrace.evaluating import evaluate
        from headrace.exporting import export
        from headrace.monitoring import monitor
        from headrace.preprocessing import preprocess
        from headrace.publishing import publish
        from headrace.reporting import report
        from headrace.training import train

        return cls(download, preprocess, train, cross_validate, evaluate, export, publish, monitor, report)

    @classmethod
    def planned(cls) -> Self:
        """What each stage would do, and why."""
        plain = cls.plain()
        return cls(**{item.name: getattr(plain, item.name).plan for item in fields(cls)})


Order = Callable[[Job, Stages], list[Artifact]]


def standard(job: Job, stages: Stages) -> list[Artifact]:
    """Download, preprocess, train (each fold first, if there are folds), evaluate, export, publish, monitor, report.

    Returns:
        The artifact of each node, in the order in which they were made; the last one is the report.
    """
    raw = stages.download(job)
    records = stages.preprocess(job, raw)
    made = [raw, records]

    protocol = job.settings.cross_validation
    chosen = None
    if protocol:
        # Each fold is a node of its own: seen, skipped, resumed and retried by itself.
        folds = [stages.train(job, records, fold=k, folds=protocol.folds) for k in range(1, protocol.folds + 1)]
        chosen = stages.cross_validate(job, folds)
        made += [*folds, chosen]

    model = stages.train(job, records, chosen=chosen)
    evaluation = stages.evaluate(job, records, model, cross_validation=chosen)
    bundle = stages.export(job, raw, records, model)
    publication = stages.publish(job, raw, records, evaluation, bundle)
    drift = stages.monitor(job, raw, records, bundle)
    made += [model, evaluation, bundle, publication, drift]
    return [*made, stages.report(job, made)]
