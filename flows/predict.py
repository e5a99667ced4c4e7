"""Batch scoring: a published model of any workload answers for every row of a file.

python -m flows.predict WORKLOAD --input new.parquet --output answers.parquet
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from headrace.console import shown_by
from headrace.errors import DataError
from headrace.running import Summary
from headrace.serving import bundles, predicting
from tasks.policies import hear_the_core, meter, optional


def run_name() -> str:
    """The name of a flow run: workload, version and file."""
    given = flow_run.parameters
    return " · ".join([given["workload"], str(given.get("version") or bundles.BLESSED), Path(given["input"]).name])


@flow(name="predict", flow_run_name=run_name, persist_result=False)
def predict(
    workload: str,
    input: str,
    output: str,
    version: str = "blessed",
    line: str | None = None,
    format: Literal["parquet", "jsonl"] | None = None,
    keep: list[str] | None = None,
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256,
    log: bool = True,
) -> Summary:
    """Let a published model answer for every row of a file.

    Args:
        workload: The workload.
        input: A table, TFRecords, arrays, a folder or archive of images or texts, JSON lines, or lines of text, as the
            worker sees it.
        output: The file of answers, .parquet or .jsonl; rows that can't be used are listed beside it.
        version: The number of a version, `blessed`, `previous` or an alias.
        line: Line of the registry; default: the workload's own.
        format: Of the output; default: as its name ends.
        keep: Columns of a table that are copied beside the answers.
        batch_size: Rows that are asked together.
        log: Keep a sample of inputs and answers for monitoring.
    """
    hear_the_core()
    bundle = bundles.published(workload, version, line)
    request = predicting.Request(bundle, Path(input), Path(output), format, keep or (), batch_size, log)
    with shown_by(meter):
        found = predicting.predict(request)
    with optional("what was answered"):
        rows = [{"fact": name, "value": str(value)} for name, value in found.to_json().items()]
        key = f"{workload}-predictions".replace("_", "-")
        create_table_artifact(rows, key=key, description=found.in_words())
    return _ended(found)


def _ended(found: predicting.Summary) -> Any:
    """*Completed*; or *Quarantined* (a failure) where rows could not be used, all others being answered."""
    if not found.quarantined:
        return Completed(message=found.in_words(), data=found.to_json())
    error = DataError(f"{found.quarantined:,} rows of {found.input} could not be used.", received=found.quarantine)
    return Failed(name="Quarantined", message=found.in_words(), data=error)


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["predict", *sys.argv[1:], "--engine", "prefect"]))
