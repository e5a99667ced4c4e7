"""Which pixels are the pet: from download to report.

Written by `headrace sync` from pipelines/pets_segmentation.py.

python -m flows.pets_segmentation [--profile smoke …]
prefect deployment run pets_segmentation/weekly
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from headrace.jobs import Data, Profile, resolve
from headrace.running import Summary, execute
from tasks.policies import concluded, flow_run_name
from tasks.stages import STAGES


@flow(name="pets_segmentation", flow_run_name=flow_run_name, persist_result=False)
def pets_segmentation(
    variant: Literal["book", "augmented", "small", "small_augmented", "pretrained"] = "book",
    profile: Profile = "full",
    data: Data = "auto",
    source: str | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
    overrides: dict[str, Any] | None = None,
) -> Summary:
    """Which pixels are the pet.

    Args:
        variant: Which configuration of the workload; `headrace show` describes them.
        profile: The whole training, or a few seconds of it.
        data: The real data, the synthetic twin, or whichever can be had.
        source: `pets`, or the path of data of one's own; default: that of the variant.
        seed: Seed of everything random.
        overrides: Path of a setting → value, as in `{"train.epochs": 8}`.
    """
    job = resolve(
        "pets_segmentation", variant=variant, profile=profile, data=data, source=source, seed=seed, overrides=overrides
    )
    return concluded(execute(job, STAGES, engine="prefect"))


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["run", "pets_segmentation", "--engine", "prefect", *sys.argv[1:]]))
