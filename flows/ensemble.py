"""An ensemble of any workload: its members trained one by one (or side by side), their answers averaged.

python -m flows.ensemble WORKLOAD NAME [--members a,b --seeds 3 --jobs 2 --profile smoke …]
prefect deployment run ensemble/default --param workload=house_prices --param name=widths
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from headrace import ensembling
from headrace.chain import averaged
from headrace.jobs import Data, Profile
from headrace.placing.spreading import Share, crew
from headrace.running import Summary, execute, fan_out_summary
from tasks.policies import concluded, fan_out_name
from tasks.stages import for_fan_outs


@flow(name="ensemble", flow_run_name=fan_out_name, persist_result=False)
def ensemble(
    workload: str,
    name: str | None = None,
    members: list[str] | None = None,
    weights: Literal["equal", "searched"] | None = None,
    seeds: Annotated[int, Field(ge=1, le=100)] | None = None,
    at_once: Annotated[int, Field(ge=1, le=256)] = 1,
    cluster: bool = False,
    variant: str | None = None,
    profile: Profile = "full",
    data: Data = "auto",
    source: str | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
    overrides: dict[str, Any] | None = None,
) -> Summary:
    """Average the answers of several models of a workload.

    Args:
        workload: The workload.
        name: One of its ensembles; or else members are named.
        members: Variants to be averaged, instead of a name.
        weights: All alike, or as held-out examples advise; default: as the ensemble says.
        seeds: How often to train each member; default: as the ensemble says.
        at_once: Trainings at the same time, each in a process of its own.
        cluster: On the nodes of the Ray cluster that the worker's RAY_ADDRESS names, at most `at_once` of them.
        variant: What the members start from; default: as the ensemble says.
        profile: The whole trainings, or a few seconds of each.
        data: The real data, the synthetic twin, or whichever can be had.
        source: One of the workload's sources, or the path of a file of your own; default: its first.
        seed: The first seed.
        overrides: Path of a setting → value, for every member, as in `{"train.epochs": 8}`.
    """
    request: dict[str, Any] = {
        "variant": variant,
        "profile": profile,
        "data": data,
        "source": source,
        "seed": seed,
        "overrides": overrides,
    }
    plan = ensembling.plan(workload, name, members=members or (), weights=weights, seeds=seeds, **request)
    with crew(at_once, Share() if cluster else None) as (elsewhere, limit):
        stages = for_fan_outs(elsewhere, limit)
        return concluded(execute(plan.job, stages, averaged(plan, limit), "prefect", fan_out_summary))


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["ensemble", *sys.argv[1:], "--engine", "prefect"]))
