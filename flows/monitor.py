"""Watching published models: what came to them, held against what they were made of. Drift starts `on-drift` runs.

python -m flows.monitor WORKLOAD [--input new.csv …]
prefect deployment run monitor/hourly --param workload=house_prices --param input=/data/new
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from headrace import watching
from headrace.errors import ConfigError, HeadraceError
from headrace.running import Summary
from headrace.showing.pages import number
from tasks import showing
from tasks.policies import hear_the_core, log, optional


def run_name() -> str:
    """The name of a flow run: what is watched, and what it is held against."""
    given = flow_run.parameters
    words = [given["workload"] or "all that is served", Path(given["input"]).name if given["input"] else "requests"]
    return " · ".join(word for word in (words[0], given["line"], words[1]) if word)


@flow(name="monitor", flow_run_name=run_name, persist_result=False)
def monitor(
    workload: str | None = None,
    input: str | None = None,
    line: str | None = None,
    version: str | None = None,
    window: watching.Window = "new",
    least_rows: Annotated[int, Field(ge=1)] = 100,
    false_alarms: Annotated[float, Field(gt=0, lt=1)] | None = None,
    buckets: Annotated[int, Field(ge=2, le=100)] | None = None,
    rollback: bool = True,
) -> Summary:
    """Hold new data against published models; tell of drift, and go back where a model has decayed.

    Args:
        workload: The workload; default: all to whose models requests came that were kept.
        input: A file or folder of new data, as the worker sees it, with targets or without; default: the requests that
            serve and predict have kept.
        line: Line of the registry; default: the workload's own.
        version: The number of a version, `previous` or an alias; default: the blessed one.
        window: Of the requests: those that came since the last look, or all that are kept.
        least_rows: Fewer requests than this wait for the next look.
        false_alarms: Share of undrifted looks that may be called drifted; default: as the workload says.
        buckets: Quantile buckets into which numbers are cut; default: as the workload says.
        rollback: Serve the previous version again where the blessed one has decayed and that one has not.
    """
    hear_the_core()
    if input is not None and workload is None:
        raise ConfigError("New data are those of a workload.", expected="a workload beside the input")
    wanted: dict[Any, str] = {line: workload} if workload else {**watching.served()}
    settings = {"false_alarms": false_alarms, "buckets": buckets}
    looks: list[Summary] = []
    troubles: dict[str, str] = {}
    for name, owner in wanted.items():
        try:
            model = watching.watched(owner, version or "blessed", name)
            given = {key: value for key, value in settings.items() if value is not None}
            found = watching.look(
                model,
                Path(input) if input else None,
                window=window,
                least_rows=least_rows,
                settings=model.job.settings.monitor.model_copy(update=given),
            )
        except HeadraceError as error:
            if workload:
                raise
            # The others are looked at all the same.
            log.error("%s: %s", name, error)
            troubles[str(name)] = error.problem
            continue
        if found is None:
            found = {"workload": owner, "line": model.line, "version": model.version, "rows": 0}
        else:
            found["rolled_back_to"] = watching.roll_back(found) if rollback else None
            _tell(found)
        looks.append(found)
    return _ended(looks, troubles)


def _tell(found: watching.Found) -> None:
    """Events for those who listen, and what a person wants to see."""
    about = {
        "prefect.resource.id": watching.resource(found["workload"]),
        "prefect.resource.name": found["workload"],
        "headrace.line": found["line"],
        "headrace.version": str(found["version"]),
    }
    moved = [column for column in (*found["columns"], *found["answers"]) if column["drifted"]]
    facts = {"line": found["line"], "version": found["version"], "rows": found["rows"], "input": found["input"]}
    if found["drifted"]:
        columns = {column["column"]: round(column["distance"], 4) for column in moved[: showing.MOST_ROWS]}
        payload = {**found["request"], **facts, "columns": columns, "words": watching.in_words(found)}
        emit_event(watching.DRIFTED, resource=about, payload=payload)
    if found["rolled_back_to"]:
        payload = {**facts, "now": found["rolled_back_to"], "words": found["decay"]["reason"]}
        emit_event(watching.ROLLED_BACK, resource=about, payload=payload)
    with optional("what was found"):
        _show(found)


def _show(found: watching.Found) -> None:
    key = f"{found['line']}-watched".lower().replace("_", "-")
    words = [f"### {'Drifted' if found['drifted'] else 'No drift'}", watching.in_words(found)]
    if found["rolled_back_to"]:
        words.append(f"**Version {found['rolled_back_to']} is blessed again.**")
    words += [f"- {anomaly['severity']}: {anomaly['text']}" for anomaly in found["anomalies"]]
    create_markdown_artifact("\n\n".join(words)[: showing.LIMIT], key=key, description=f"From {found['input']}")
    columns = [("feature", column) for column in found["columns"]] + [("answer", column) for column in found["answers"]]
    rows = [
        {
            "column": column["column"],
            "of": kind,
            "drifted": ", ".join(column["because"]) or "no",
            "distance": number(column["distance"]),
            "threshold": number(column["threshold"]),
            "mean then": number(column["reference"]["mean"]),
            "mean now": number(column["current"]["mean"]),
        }
        for kind, column in sorted(columns, key=lambda pair: (pair[1]["drifted"], pair[1]["distance"]), reverse=True)
    ]
    create_table_artifact(rows[: showing.MOST_ROWS], key=f"{key}-columns", description=f"{found['rows']:,} rows")


def _ended(looks: list[Summary], troubles: dict[str, str]) -> Any:
    """*Completed*, whatever has drifted; a failure (*Incomplete*) only if a line could not be looked at."""
    looked = [found for found in looks if found["rows"]]
    words = [watching.in_words(found) for found in looked]
    words += [f"{found['line']}: too few new requests" for found in looks if not found["rows"]]
    message = "\n".join(words) or "no requests are kept, nothing to look at"
    data = {"looks": looks, "troubles": troubles}
    if troubles:
        told = "\n".join(f"{line}: {problem}" for line, problem in troubles.items())
        error = HeadraceError(f"{len(troubles)} of {len(troubles) + len(looks)} lines can't be watched.", received=told)
        return Failed(name="Incomplete", message=f"{message}\n{told}", data=error)
    return Completed(message=message, data=data)


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["monitor", *sys.argv[1:], "--engine", "prefect"]))
