"""A new model beside the blessed one: on the same test examples, example by example, as both are served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import registry
from headrace.artifacts import Artifact, only, read_json
from headrace.bundling.signatures import own_answer
from headrace.jobs import Job
from headrace.judging.verdicts import Gate

if TYPE_CHECKING:
    import numpy as np

    from headrace.measuring.tasks import Facts, Measures

    Arrays = dict[str, np.ndarray[Any, Any]]


def beside_the_blessed(
    job: Job, raw: Artifact, records: Artifact, evaluation: Artifact, bundle: Artifact, line: str, version: int | None
) -> Gate:
    """The gate that compares with the blessed version.

    It fails only if this model is worse by more than chance explains, in the metric that decides. What is measured
    example by example is compared on the same raw test examples. A workload that measures by itself (task `own`) is
    compared by what both evaluations say, if they were made of the same records.

    Args:
        job: The job.
        raw: Output of `download`.
        records: Output of `preprocess`.
        evaluation: Output of `evaluate`.
        bundle: Output of `export`.
        line: The line of the registry.
        version: The version that is blessed there; None if none is.
    """
    if version is None:
        return _not_judged("no version is blessed yet")
    if registry.find(line, bundle.digest) == version:
        return _not_judged(f"this model is the blessed version {version} itself")
    damage = registry.verify(line).get(version)
    if damage:
        return _not_comparable(version, damage)
    theirs = registry.held(line, version)
    now, before = evaluation.json("evaluation.json"), read_json(theirs / registry.EXTRA / "evaluation.json") or {}
    lineage = read_json(theirs / registry.EXTRA / "lineage.json") or {}
    learned_from = lineage.get("stages", {}).get("preprocess", {}).get("digest")
    same = learned_from in (None, records.digest)
    if "own" in (job.task.values() if isinstance(job.task, dict) else [job.task]):
        return _by_their_evaluations(now, before, version, same)
    difference = _asked_otherwise(now, before)
    if difference:
        return _not_comparable(version, difference)
    gate = _paired(job, raw, records, now["primary"], only(bundle, "saved_model"), version, theirs)
    if not same and gate["passed"] is not None:
        # Another split, say: what is a test example now may have been one to learn from.
        gate["reason"] += "; that one has learned from other records, and may have seen these examples"
    return gate


def _not_judged(reason: str) -> Gate:
    return {"gate": "blessed", "passed": None, "reason": reason}


def _not_comparable(version: int, why: str) -> Gate:
    return _not_judged(f"not comparable with the blessed version {version}: {why}")


def _by_their_evaluations(now: Mapping[str, Any], before: Mapping[str, Any], version: int, same: bool) -> Gate:
    from headrace.measuring.own import blessed_gate

    if not same:
        return _not_comparable(version, "it was measured on other data")
    if now["primary"] not in before.get("metrics", {}):
        return _not_comparable(version, f"its {now['primary']} was not measured")
    return blessed_gate(now, before, version)


def _asked_otherwise(now: Mapping[str, Any], before: Mapping[str, Any]) -> str | None:
    """In what the answers of two models mean other things, though their signatures may be the same."""
    outputs, earlier = (found.get("outputs") or {} for found in (now, before))
    for target in sorted({*outputs} & {*earlier}):
        one, other = outputs[target], earlier[target]
        if one["task"] != other["task"]:
            return f"the task of {target} is {one['task']} (before: {other['task']})"
        mine, theirs = ([str(name) for name in side["target"].get("classes") or ()] for side in (one, other))
        if mine != theirs:
            return f"the classes of {target} are {', '.join(mine[:8])} (before: {', '.join(theirs[:8])})"
    return None


def _paired(job: Job, raw: Artifact, records: Artifact, metric: str, ours: Path, version: int, theirs: Path) -> Gate:
    import tensorflow as tf

    from headrace.evaluating import batches, measures_of
    from headrace.exporting import recorded
    from headrace.measuring.resampling import intervals
    from headrace.measuring.tasks import examples
    from headrace.measuring.words import short, spread, title
    from headrace.preprocessing import raw_batches, raw_windows
    from headrace.records.inputs import read_info
    from headrace.serving_check import cause

    info = read_info(records.path)
    measures, truths = measures_of(job, info), batches(records, info, "test")
    if job.settings.windows:
        found = raw_windows(job, raw.path, "test")
        given = {name: found[name] for name in job.inputs}
    else:
        given = recorded(raw_batches(job, raw.path, "test"), job.inputs)
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
    if not _is_known(measures, now, metric):
        # BLEU, say, is of sentences, which no serving signature gives.
        metric = measures.primary

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


def _is_known(measures: Measures, facts: Facts, metric: str) -> bool:
    """Whether a metric can be worked out from these facts."""
    try:
        return metric in (found := measures.measure(facts)) and found[metric] is not None
    except KeyError:
        return False


def _differences(mine: Any, theirs: Any) -> str | None:
    """In what two serving signatures differ."""
    sides = {}
    for which, loaded in (("this model", mine), ("the blessed one", theirs)):
        serve = loaded.signatures[own_answer(loaded.signatures)]
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

    from headrace.evaluating import BATCH, BATCH_BYTES
    from headrace.measuring.tasks import joined

    serve = loaded.signatures[own_answer(loaded.signatures)]
    parts, done = [], 0
    # Large answers (masks, texts) are asked for some at a time.
    at_once = 16
    for truth in truths:
        targets = {name: truth[name] for name in measures.tasks}
        rows, first = len(next(iter(targets.values()))), 0
        while first < rows:
            count = min(at_once, rows - first)
            batch = {name: tf.constant(values[done : done + count]) for name, values in given.items()}
            answers = {name: values.numpy() for name, values in serve(**batch).items()}
            parts.append(measures.facts({name: v[first : first + count] for name, v in targets.items()}, answers))
            first, done = first + count, done + count
            each = max(sum(values.nbytes for values in answers.values()) // count, 1)
            at_once = int(min(max(BATCH_BYTES // each, 1), BATCH))
    return joined(parts)
