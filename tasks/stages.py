"""The tasks, one for each stage, for `headrace.running.execute(job, STAGES, engine="prefect")`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from headrace.artifacts import Artifact
from headrace.chain import Stages
from headrace.jobs import Job
from headrace.stages import Call
from tasks.cross_validating import cross_validate
from tasks.downloading import download
from tasks.ensembling import ensemble
from tasks.evaluating import evaluate
from tasks.examining import examine
from tasks.exporting import export
from tasks.monitoring import monitor
from tasks.policies import HOUR, as_task
from tasks.preprocessing import preprocess
from tasks.publishing import publish
from tasks.reporting import report
from tasks.studying import study
from tasks.training import train
from tasks.tuning import tune

STAGES = Stages(
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


def for_fan_outs(elsewhere: Callable[[Call], Call], limit: int) -> Stages:
    """The tasks for many trainings of one flow run: what they make is shown once, by what comes after them all.

    Args:
        elsewhere: Function from a stage to one that runs in a worker process, or in this one.
        limit: How many run at the same time.
    """
    plain = Stages.plain()

    def quiet(stage: Call, hours: float, *, accelerated: bool = True) -> Call:
        # Prefect can't end a task in a thread, and warns of each that it could not.
        timeout = hours * HOUR if limit == 1 else None
        return as_task(stage, shows=nothing, timeout=timeout, accelerated=accelerated)

    return replace(
        STAGES,
        train=quiet(elsewhere(plain.train), 72),
        cross_validate=quiet(plain.cross_validate, 1, accelerated=False),
        evaluate=quiet(elsewhere(plain.evaluate), 6),
    )


def nothing(job: Job, made: Artifact) -> None:
    """Show nothing."""
