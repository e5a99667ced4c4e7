"""House prices: download, preprocess, train (fold by fold, if asked), evaluate, export, publish, monitor, report.

python -m flows.house_prices [--variant kfold_100 --profile smoke …]
prefect deployment run house_prices/nightly
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from headrace.jobs import Data, Profile, resolve
from headrace.running import Summary, execute
from tasks.policies import concluded, flow_run_name
from tasks.stages import STAGES


@flow(name="house_prices", flow_run_name=flow_run_name, persist_result=False)
def house_prices(
    variant: Literal["final", "kfold_100", "kfold_500"] = "final",
    profile: Profile = "full",
    data: Data = "auto",
    source: str | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
    overrides: dict[str, Any] | None = None,
) -> Summary:
    """Predict prices of houses from 13 facts about their neighbourhood.

    Args:
        variant: The final fit alone, or after 4 folds of 100 or 500 epochs.
        profile: The whole training, or a few seconds of it.
        data: The real data, the synthetic twin, or whichever can be had.
        source: `boston` (default), `california`, or the path of a CSV or Parquet file with the columns of the former.
        seed: Seed of everything random.
        overrides: Path of a setting → value, as in `{"train.epochs": 8}`.
    """
    job = resolve(
        "house_prices", variant=variant, profile=profile, data=data, source=source, seed=seed, overrides=overrides
    )
    return concluded(execute(job, STAGES, engine="prefect"))


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["run", "house_prices", "--engine", "prefect", *sys.argv[1:]]))
