"""A study of any workload: its configurations trained one by one (or side by side), ranked in one table.

python -m flows.study WORKLOAD NAME [--seeds 3 --jobs 2 --profile smoke …]
prefect deployment run study/default --param workload=house_prices --param name=capacity
"""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from headrace import studying
from headrace.chain import studied
from headrace.jobs import Data, Profile
from headrace.placing.spreading import Share, crew
from headrace.running import Summary, execute, fan_out_summary
from tasks.policies import concluded, fan_out_name
from tasks.stages import for_fan_outs


@flow(name="study", flow_run_name=fan_out_name, persist_result=False)
def study(
    workload: str,
    name: str,
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
    """Compare configurations of a workload.

    Args:
        workload: The workload.
        name: One of its studies.
        seeds: How often to train each configuration; default: as the study says.
        at_once: Trainings at the same time, each in a process of its own.
        cluster: On the nodes of the Ray cluster that the worker's RAY_ADDRESS names, at most `at_once` of them.
        variant: What the configurations start from; default: as the study says.
        profile: The whole trainings, or a few seconds of each.
        data: The real data, the synthetic twin, or whichever can be had.
        source: One of the workload's sources, or the path of a file of your own; default: its first.
        seed: The first seed.
        overrides: Path of a setting → value, for every configuration, as in `{"train.epochs": 8}`.
    """
    request: dict[str, Any] = {
        "variant": variant,
        "profile": profile,
        "data": data,
        "source": source,
        "overrides": overrides,
    }
    plan = studying.plan(workload, name, seeds=seeds, seed=seed, **request)
    with crew(at_once, Share() if cluster else None) as (elsewhere, limit):
        stages = for_fan_outs(elsewhere, limit)
        return concluded(execute(plan.job, stages, studied(plan, limit), "prefect", fan_out_summary))


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["study", *sys.argv[1:], "--engine", "prefect"]))
