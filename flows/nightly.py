"""Every workload in turn, each as a flow run of its own, and all results in one table.

python -m flows.nightly
prefect deployment run nightly/smoke --param profile=full --param data=real
"""

from __future__ import annotations

import importlib
import time
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from headrace import projects
from headrace.errors import HeadraceError, unknown
from headrace.jobs import Data, Profile
from headrace.running import Summary
from headrace.showing.pages import number
from tasks.policies import Rejected, hear_the_core, optional


def run_name() -> str:
    """The name of a flow run: the profile, and how many workloads."""
    given = flow_run.parameters
    return f"{given['profile']} · {len(given['workloads'] or projects.names())} workloads"


@flow(name="nightly", flow_run_name=run_name, persist_result=False)
def nightly(
    workloads: list[str] | None = None,
    profile: Profile = "smoke",
    data: Data = "auto",
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
) -> Summary:
    """Run every workload, one after the other; a failure of one does not end the others.

    Args:
        workloads: Which ones; default: all.
        profile: The whole trainings, or a few seconds of each.
        data: The real data, the synthetic twin, or whichever can be had.
        seed: Seed of everything random.
    """
    hear_the_core()
    known = projects.names()
    for name in workloads or ():
        if name not in known:
            raise unknown("workload", name, known)
    rows = [_run(name, profile, data, seed) for name in workloads or known]
    with optional("the results"):
        create_table_artifact(rows, key=f"nightly-{profile}", description=f"{_words(rows)}; data: {data}")
    return _ended(rows)


def _run(name: str, profile: Profile, data: Data, seed: int) -> Summary:
    """One workload by its own flow: what it came to, or why it did not come to anything."""
    begun = time.monotonic()
    variant: str | None = None
    outcome: Any
    try:
        deploy = projects.load(name).deploy
        variant = (profile == "smoke" and deploy.smoke) or deploy.variant or projects.load(name).default_variant
        run = getattr(importlib.import_module(f"flows.{name}"), name)
        state = run(variant=variant, profile=profile, data=data, seed=seed, return_state=True)
        outcome = state.result(raise_on_failure=False)
    except Exception as error:  # whatever it is: a workload's file that can't be imported must not end the others
        outcome = error
    row = {"workload": name, "variant": variant, "verdict": "none", "metric": "", "problem": ""}
    came_to = outcome.summary if isinstance(outcome, Rejected) else outcome
    if isinstance(came_to, BaseException):
        row["problem"] = f"{type(came_to).__name__}: {getattr(came_to, 'problem', came_to)}"
    else:
        metric, value = next(iter(came_to["metrics"].items()), ("", None))
        row |= {"verdict": came_to["verdict"], "metric": f"{metric} {number(value)}" if metric else ""}
    failed = isinstance(outcome, BaseException)
    return {**row, "minutes": round((time.monotonic() - begun) / 60, 1), "ended": "failed" if failed else "well"}


def _words(rows: list[Summary]) -> str:
    failed = [row["workload"] for row in rows if row["ended"] == "failed"]
    told = f"{len(rows) - len(failed)} of {len(rows)} workloads ended well"
    return told + (f"; not: {', '.join(failed)}" if failed else "")


def _ended(rows: list[Summary]) -> Any:
    """*Completed* if all ended well, else a failure, which says which did not."""
    words = _words(rows)
    troubled = [f"{row['workload']}: {row['problem'] or row['verdict']}" for row in rows if row["ended"] == "failed"]
    if troubled:
        return Failed(name="Incomplete", message=words, data=HeadraceError(words, received="\n".join(troubled)))
    return Completed(message=words, data={"workloads": rows, "words": words})


if __name__ == "__main__":
    import flows

    print(flows.fan_out("nightly", {})["words"])
