"""Promises measured over seeds, on real data: writes `docs/results.json` and the README's table.

Run: python -m benchmarks.quality house_prices [--seeds 5] [--variants final kfold_100]
"""

from __future__ import annotations

import argparse
import time
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
    measured: dict[str, cataloguing.Measured] = {}
    for variant in options.variants or list(projects.load(options.workload).variants):
        values: dict[str, float] = {}
        for seed in range(options.seeds):
            job = resolve(options.workload, variant=variant, data="real", seed=seed)
            record = execute(job, Stages.plain())
            evaluation = read_json(Path(record["artifacts"]["evaluate"]) / "evaluation.json")
            # The first promise is the one that the variant is known by.
            promise = evaluation["promises"][0]
            values[str(seed)] = round(promise["value"], 3)
            print(f"{variant} seed {seed}: {promise['metric']} {promise['value']:.3f}, verdict {record['verdict']}")
        measured[variant] = {
            "metric": promise["metric"],
            "values": values,
            "command": f"headrace run {options.workload} --variant {variant} --data real --seed N",
            "date": time.strftime("%Y-%m-%d"),
        }
    cataloguing.keep(projects.root(), options.workload, measured)


if __name__ == "__main__":
    main()
