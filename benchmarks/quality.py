"""Variants measured over seeds, on real data: writes `docs/results.json`, `docs/results.md` and the README's table.

Each run is written down when it ends, so that what was measured stays if the rest is called off.

Run: python -m benchmarks.quality house_prices [--seeds 5] [--variants final kfold_100]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from headrace import projects
from headrace.artifacts import read_json
from headrace.chain import Stages
from headrace.jobs import resolve
from headrace.running import execute
from headrace.upkeep import cataloguing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("--variants", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for variant in options.variants or list(projects.load(options.workload).variants):
        for seed in range(options.seeds):
            job = resolve(options.workload, variant=variant, data="real", seed=seed)
            record = execute(job, Stages.plain())
            evaluation = read_json(Path(record["artifacts"]["evaluate"]) / "evaluation.json")
            cataloguing.record_run(projects.root(), job, evaluation)
            primary = evaluation["primary"]
            figure = evaluation["metrics"][primary]
            print(f"{variant} seed {seed}: {primary} {figure:.3f}, verdict {record['verdict']}", flush=True)


if __name__ == "__main__":
    main()
