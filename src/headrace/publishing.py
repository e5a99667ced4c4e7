"""Judge an exported model by all its gates, and put it into the registry if none of them fails."""

from __future__ import annotations

import logging
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace import __version__, registry
from headrace.artifacts import MANIFEST, Artifact, as_json, only, read_json, write_json
from headrace.jobs import Job
from headrace.judging.verdicts import Gate, judge, settled, waivers
from headrace.stages import Room, stage

log = logging.getLogger(__name__)


def _stands(publication: Artifact) -> str | None:
    """Why a publication no longer holds in the registry as it is now; None if it does."""
    said = publication.json("publication.json")
    if said["version"] is not None:
        return registry.trouble(said["line"], said["version"], said["bundle"])
    blessed = registry.blessed(said["line"])
    refused = any(gate["gate"] == "blessed" and gate["passed"] is False for gate in said["gates"])
    if refused and blessed != said["against"]:
        return f"it was refused beside version {said['against']}, and {blessed or 'none'} is blessed by now"
    return None


@stage(
    functions=("read",),
    versions=("tensorflow", "numpy"),
    facts=lambda job: {
        "source": job.source,
        "profile": job.profile,
        # What a verdict makes of a run is no part of the verdict.
        "policy": job.settings.publish.model_dump(mode="json", exclude={"on_fail", "on_not_judged"}),
    },
    stands=_stands,
    tensorflow=True,
)
def publish(
    job: Job,
    room: Room,
    raw: Artifact,
    records: Artifact,
    evaluation: Artifact,
    bundle: Artifact,
    *,
    model: Artifact | None = None,
) -> None:
    """Give the verdict; publish and bless a model that passes, and leave the registry alone otherwise.

    Writes `publication.json`: verdict, all gates, waivers, line, version (None if there is none), whether it was
    blessed, the reason, the bundle's digest, and the version that was blessed before (`against`). A bundle that the
    line has already keeps its number.

    Args:
        job: The job; its settings hold the policy.
        room: Where to work.
        raw: Output of `download`.
        records: Output of `preprocess`.
        evaluation: Output of `evaluate`.
        bundle: Output of `export`.
        model: Output of `train`, for the model card.
    """
    line = line_of(job, records.json("info.json")["data"])
    policy = job.settings.publish
    version = None
    while True:
        against = registry.blessed(line)
        gates = _gates(job, raw, records, evaluation, bundle, line, against)
        verdict, reason = judge(gates)
        given = waivers(gates, policy)
        found = {"verdict": verdict, "reason": reason, "gates": gates, "waivers": given, "against": against}
        if verdict != "pass":
            log.warning("%s: not published: %s", line, reason)
            break
        contents = _contents(job, raw, records, evaluation, bundle, model, found)
        facts = {"waivers": [waiver for waiver in given if waiver["needed"]]}
        if not policy.bless:
            version = registry.publish(line, contents, bundle=bundle.digest, facts=facts)
            break
        version = registry.replace(line, contents, bundle=bundle.digest, against=against, facts=facts)
        if version is not None:
            break
        log.info("%s: another version was blessed meanwhile, the model is compared with that one", line)
    if version is not None:
        how = "blessed" if policy.bless else "not blessed"
        found["reason"] = f"published as version {version} of {line}, {how}" + (f" ({reason})" if reason else "")
        log.info("published %s version %d, %s (before: %s)", line, version, how, against or "none")
    write_json(
        room.output / "publication.json",
        {
            **found,
            "line": line,
            "version": version,
            "blessed": version is not None and policy.bless,
            "bundle": bundle.digest,
        },
    )


def line_of(job: Job, data: str) -> str:
    """The line of the registry in which a job's models stand.

    Args:
        job: The job.
        data: `real` or `synthetic`: a model of made-up data never stands among those that are served, nor does one
            of a smoke run.
    """
    words = [job.workload, *([job.settings.line] if job.settings.line else [])]
    if job.source in job.pipeline.sources:
        words += [job.source] * (job.source != job.pipeline.default_source)
    else:
        words.append("own_" + re.sub(r"[^a-z0-9]+", "_", Path(job.source).stem.lower()).strip("_"))
    words += ["synthetic"] * (data != "real")
    words += [job.profile] * (job.profile != "full")
    return "-".join(words)


def _gates(
    job: Job,
    raw: Artifact,
    records: Artifact,
    evaluation: Artifact,
    bundle: Artifact,
    line: str,
    against: int | None,
) -> list[Gate]:
    """All gates, in their order, as the policy sees them."""
    from headrace.judging.comparing import beside_the_blessed

    measured, parity = evaluation.json("evaluation.json"), bundle.json("bundle.json")["gate"]
    beside: Gate = {"gate": "blessed", "passed": None, "reason": "not compared: the export itself is not sound"}
    if parity["passed"]:
        beside = beside_the_blessed(job, raw, records, evaluation, bundle, line, against)
    return settled([*measured["gates"], beside, parity], job.settings.publish)


# ---------------------------------------------------------------------------------- what is published


def _contents(
    job: Job,
    raw: Artifact,
    records: Artifact,
    evaluation: Artifact,
    bundle: Artifact,
    model: Artifact | None,
    verdict: Mapping[str, Any],
) -> dict[str, Path | bytes]:
    """Name in the version → what stands there."""
    from headrace.judging.cards import model_card

    lineage = _lineage(job, [raw, records, *([model] if model else []), evaluation, bundle])
    card = model_card(
        job, records=records, evaluation=evaluation, bundle=bundle, model=model, lineage=lineage, verdict=verdict
    )
    # What a later version is compared by, where a workload measures by itself.
    facts = [path for path in [evaluation.path / "facts.npz"] if path.is_file()]
    beside = [path for path in sorted(bundle.path.iterdir()) if path.name not in (MANIFEST, "saved_model")]
    extra: dict[str, Path | bytes] = {
        **{path.name: path for path in [*beside, *facts]},
        "evaluation.json": only(evaluation, "evaluation.json"),
        "statistics.json": only(records, "statistics.json"),
        "verdict.json": as_json(verdict),
        "lineage.json": as_json(lineage),
        "environment.txt": environment().encode(),
        "model_card.md": card.encode(),
    }
    served: dict[str, Path | bytes] = {path.name: path for path in sorted(only(bundle, "saved_model").iterdir())}
    return served | {f"{registry.EXTRA}/{name}": content for name, content in extra.items()}


def _lineage(job: Job, made: list[Artifact]) -> dict[str, Any]:
    """What the model came from: request, data, code, versions, each stage by its digest and ingredients."""
    at = {artifact.node.partition("/")[0]: artifact for artifact in made}
    return {
        "headrace": __version__,
        "python": platform.python_version(),
        "job": job.title,
        "request": job.model_dump(mode="json"),
        "data": at["download"].json("data.json"),
        "weights": read_json(at["export"].path / "weights.json") or {},
        "stages": {
            artifact.node: {
                name: value for name, value in artifact.json(MANIFEST).items() if name not in ("files", "node")
            }
            for artifact in made
        },
        "published": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def environment() -> str:
    """Every distribution that is installed, with its exact version, in the form that pip reads."""
    from importlib.metadata import distributions

    found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    system = f"# Python {platform.python_version()}, {platform.platform()}"
    return "\n".join([system, *(f"{name}=={found[name]}" for name in sorted(found, key=str.lower)), ""])
