"""Judge an exported model by all its gates, and put it into the registry if none of them fails."""

from __future__ import annotations

import json
import logging
import platform
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import __version__, registry
from headrace.artifacts import MANIFEST, Artifact, only, read_json, write_json
from headrace.jobs import Job
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import numpy as np

    from headrace.evaluating import Gate
    from headrace.measuring.tasks import Facts, Measures

    Arrays = dict[str, np.ndarray[Any, Any]]

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
    facts=lambda job: {"source": job.source, "profile": job.profile},
    stands=_stands,
    tensorflow=True,
)
def publish(job: Job, room: Room, raw: Artifact, records: Artifact, evaluation: Artifact, bundle: Artifact) -> None:
    """Give the verdict; publish and bless a model that passes, and leave the registry alone otherwise.

    Writes `publication.json`: verdict, all gates, line, version (None if there is none), whether it was blessed, the
    reason, the bundle's digest, and the version that was blessed before (`against`). A bundle that the line has already
    keeps its number.

    Args:
        job: The job.
        room: Where to work.
        raw: Output of `download`.
        records: Output of `preprocess`.
        evaluation: Output of `evaluate`.
        bundle: Output of `export`.
    """
    line = line_of(job, records.json("info.json")["data"])
    against = registry.blessed(line)
    parity = bundle.json("bundle.json")["gate"]
    gates: list[Gate] = [*evaluation.json("evaluation.json")["gates"], parity]
    if parity["passed"]:
        metric = evaluation.json("evaluation.json")["primary"]
        gates.append(_beside_the_blessed(job, raw, records, metric, bundle, line))
    else:
        gates.append({"gate": "blessed", "passed": None, "reason": "not compared: the export itself is not sound"})
    verdict, reason = judge(gates)
    version = None
    if verdict == "pass":
        contents = _contents(job, raw, records, evaluation, bundle)
        version = registry.publish(line, contents, bundle=bundle.digest)
        registry.bless(line, version)
        reason = f"published as version {version} of {line}, and blessed"
        log.info("published %s version %d, blessed (before: %s)", line, version, against or "none")
    else:
        log.warning("%s: not published: %s", line, reason)
    write_json(
        room.output / "publication.json",
        {
            "verdict": verdict,
            "gates": gates,
            "line": line,
            "version": version,
            "blessed": version is not None,
            "reason": reason,
            "bundle": bundle.digest,
            "against": against,
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


def judge(gates: list[Gate]) -> tuple[str, str]:
    """The verdict over all gates and its reason: "fail" if one fails, "pass" if at least one passes."""
    failed = [f"{gate['gate']}: {gate['reason']}" for gate in gates if gate["passed"] is False]
    if failed:
        return "fail", "; ".join(failed)
    if not any(gate["passed"] for gate in gates):
        return "not judged", "no gate could be judged"
    return "pass", ""


# ----------------------------------------------------------------------------------- the blessed version


def _beside_the_blessed(job: Job, raw: Artifact, records: Artifact, metric: str, bundle: Artifact, line: str) -> Gate:
    """The gate that compares with the blessed version, on the same raw test examples, example by example.

    It fails only if this model is worse by more than the draw of the test examples explains.
    """
    version = registry.blessed(line)
    if version is None:
        return {"gate": "blessed", "passed": None, "reason": "no version is blessed yet"}
    if registry.find(line, bundle.digest) == version:
        return {"gate": "blessed", "passed": None, "reason": f"this model is the blessed version {version} itself"}
    damage = registry.verify(line).get(version)
    if damage:
        return _not_comparable(version, damage)
    return _paired(job, raw, records, metric, only(bundle, "saved_model"), version, registry.folder(line, version))


def _not_comparable(version: int, why: str) -> Gate:
    return {"gate": "blessed", "passed": None, "reason": f"not comparable with the blessed version {version}: {why}"}


def _paired(job: Job, raw: Artifact, records: Artifact, metric: str, ours: Path, version: int, theirs: Path) -> Gate:
    import tensorflow as tf

    from headrace.evaluating import batches, measures_of
    from headrace.exporting import recorded
    from headrace.measuring.resampling import intervals
    from headrace.measuring.tasks import examples
    from headrace.measuring.words import short, spread, title
    from headrace.preprocessing import raw_batches
    from headrace.records.inputs import read_info
    from headrace.serving_check import cause

    info = read_info(records.path)
    measures, truths = measures_of(job, info), batches(records, info, "test")
    given = recorded(raw_batches(job, raw.path, "test"), job.origin.named("input"))
    mine = tf.saved_model.load(str(ours))
    try:
        blessed = tf.saved_model.load(str(theirs))
        differences = _differences(mine, blessed)
        if differences:
            return _not_comparable(version, differences)
        before = _facts(measures, blessed, given, truths)
    except Exception as error:  # whatever it is: an old version that can't be run must not stop a new one
        return _not_comparable(version, f"it can't be run ({cause(error)})")
    now = _facts(measures, mine, given, truths)

    def worse_by(weights: Any) -> dict[str, Any]:
        return {"worse": -measures.gain(metric, *(measures.measure(f, weights)[metric] for f in (now, before)))}

    count = examples(now)
    interval = intervals(worse_by, count, measures.groups(count))["worse"]
    worse = interval is not None and interval[0] > 0
    values = [float(measures.measure(facts)[metric]) for facts in (now, before)]
    return {
        "gate": "blessed",
        "passed": not worse,
        "reason": (
            f"{title(metric)} {short(values[0])}, of the blessed version {version} {short(values[1])}, on the same "
            f"{count} test examples: {'worse' if worse else 'not clearly worse'} "
            f"(by {short(-float(measures.gain(metric, *values)))} {spread(interval)})"
        ),
    }


def _differences(mine: Any, theirs: Any) -> str | None:
    """In what two serving signatures differ."""
    sides = {}
    for which, loaded in (("this model", mine), ("the blessed one", theirs)):
        serve = loaded.signatures["serving_default"]
        specs = {**serve.structured_input_signature[1], **serve.structured_outputs}
        sides[which] = ", ".join(f"{name} {spec.dtype.name}{spec.shape}" for name, spec in sorted(specs.items()))
    one, other = sides.values()
    return None if one == other else f"the signatures differ ({one}; before: {other})"


def _facts(measures: Measures, loaded: Any, given: Arrays, truths: Iterable[Mapping[str, Any]]) -> Facts:
    """What the answers of a SavedModel's serving signature are measured by.

    Args:
        measures: How.
        loaded: The SavedModel.
        given: The raw inputs of all test examples.
        truths: The records of the same examples, batch by batch.
    """
    import tensorflow as tf

    from headrace.measuring.tasks import joined

    serve = loaded.signatures["serving_default"]
    parts, first = [], 0
    for truth in truths:
        rows = len(next(iter(truth.values())))
        batch = {name: tf.constant(values[first : first + rows]) for name, values in given.items()}
        answers = {name: values.numpy() for name, values in serve(**batch).items()}
        parts.append(measures.facts(truth, answers))
        first += rows
    return joined(parts)


# ---------------------------------------------------------------------------------- what is published


def _contents(
    job: Job, raw: Artifact, records: Artifact, evaluation: Artifact, bundle: Artifact
) -> dict[str, Path | bytes]:
    """Name in the version → what stands there."""
    lineage = _lineage(job, raw, records, evaluation, bundle)
    extra: dict[str, Path | bytes] = {
        "model.keras": only(bundle, "model.keras"),
        "parity.json": only(bundle, "parity.json"),
        "evaluation.json": only(evaluation, "evaluation.json"),
        "statistics.json": only(records, "statistics.json"),
        "lineage.json": (json.dumps(lineage, indent=1, ensure_ascii=False, default=str) + "\n").encode(),
        "model_card.md": _model_card(job, evaluation, bundle, lineage).encode(),
    }
    if "tflite" in bundle.json("bundle.json")["formats"]:
        extra["model.tflite"] = only(bundle, "model.tflite")
    served: dict[str, Path | bytes] = {path.name: path for path in sorted(only(bundle, "saved_model").iterdir())}
    return served | {f"{registry.EXTRA}/{name}": content for name, content in extra.items()}


def _lineage(job: Job, raw: Artifact, records: Artifact, evaluation: Artifact, bundle: Artifact) -> dict[str, Any]:
    """What the model came from: request, data, code, versions, each stage by its digest and ingredients."""
    return {
        "headrace": __version__,
        "python": platform.python_version(),
        "job": job.title,
        "request": job.model_dump(mode="json"),
        "data": raw.json("data.json"),
        "weights": read_json(bundle.path / "weights.json") or {},
        "stages": {
            artifact.node: {
                name: value for name, value in artifact.json(MANIFEST).items() if name not in ("files", "node")
            }
            for artifact in (raw, records, evaluation, bundle)
        },
        "published": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _model_card(job: Job, evaluation: Artifact, bundle: Artifact, lineage: Mapping[str, Any]) -> str:
    """What a person should know before using the model, in Markdown."""
    from headrace.measuring.words import short, spread, title

    measured = evaluation.json("evaluation.json")
    described = bundle.json("bundle.json")
    data = lineage["data"]["data"]
    source = job.origin
    columns = [
        f"- `{name}`: {feature.dtype} {list(feature.shape)}"
        + "".join(
            f"\n  - {column.name}"
            + (f": {column.description}" if column.description else "")
            + f" ({column.unit})" * bool(column.unit)
            for column in feature.columns
        )
        for name, feature in source.features.items()
    ]
    metrics = [
        f"| {title(name)} | {short(value)} | {spread(measured['intervals'][name])} |"
        + "".join(f" {short(baseline.get(name))} |" for baseline in measured["baselines"].values())
        for name, value in measured["metrics"].items()
    ]
    naive = "".join(f" always the {name} |" for name in measured["baselines"])
    gates = [
        f"- {gate['gate']}: {'passed' if gate['passed'] else 'not judged'}. {gate['reason']}"
        for gate in [*measured["gates"], described["gate"]]
    ]
    limits = [source.note] if source.note else []
    if data != "real":
        limits.append("The data are made up. The model is fit for tests of the pipeline and for nothing else.")
    limits.append(
        "It was tested on data like those it was trained on; `statistics.json` says what these look like, and "
        "`headrace` monitors how far new data are from them."
    )
    versions = {
        name: value for entry in lineage["stages"].values() for name, value in entry["ingredients"]["versions"].items()
    }
    stages = [f"- {node}: `{entry['digest']}` ({entry['made']})" for node, entry in lineage["stages"].items()]
    return "\n".join(
        [
            f"# {job.pipeline.title}",
            "",
            f"{lineage['job']} · {job.task_in_words} · {job.pipeline.book}",
            "",
            "## Limits and notes",
            "",
            *[f"- {limit}" for limit in limits],
            "",
            "## Data",
            "",
            f"{source.title}: {data} data"
            + (f"; licence: {source.licence}" if source.licence else "")
            + (f"; {source.homepage}" if source.homepage else ""),
            "",
            *columns,
            "",
            f"## Metrics on {measured['examples']} test examples",
            "",
            f"| metric | value | 95 % interval |{naive}",
            "|---|---|---|" + "---|" * len(measured["baselines"]),
            *metrics,
            "",
            "## Gates",
            "",
            *gates,
            "",
            "## Lineage",
            "",
            *stages,
            f"- Python {lineage['python']}, "
            + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
            "",
        ]
    )
