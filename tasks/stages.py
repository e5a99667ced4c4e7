"""The tasks, one for each stage, for `headrace.running.execute(job, STAGES, engine="prefect")`."""

from __future__ import annotations

from headrace.chain import Stages
from tasks.cross_validating import cross_validate
from tasks.downloading import download
from tasks.evaluating import evaluate
from tasks.exporting import export
from tasks.monitoring import monitor
from tasks.preprocessing import preprocess
from tasks.publishing import publish
from tasks.reporting import report
from tasks.training import train

STAGES = Stages(
    download=download,
    preprocess=preprocess,
    train=train,
    cross_validate=cross_validate,
    evaluate=evaluate,
    export=export,
    publish=publish,
    monitor=monitor,
    report=report,
)
