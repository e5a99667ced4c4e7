"""Stage `ensemble`: the average of what several models answer, weighted equally or as held-out examples advise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from headrace import projects
from headrace.artifacts import Artifact, write_json
from headrace.errors import ConfigError, StageFailed, unknown
from headrace.jobs import Job
from headrace.showing import pages
from headrace.spec import Ensemble, Spec
from headrace.stages import Room, stage
from headrace.studying import TEMPLATE, spread_out

if TYPE_CHECKING:
    import numpy as np

    from headrace.measuring.tasks import Measures

    Array = np.ndarray[Any, Any]


class Mix(Spec):
    """How answers are put together."""

    weights: str = "equal"
    power: float = 1.0
    metric: str | None = None
    """By which weights are searched; None: the task's own."""
    held_out: float = 0.0
    """Share of the training split, its last examples, that no member has learned from."""
    split: str | None = None
    """A split that no member has learned from, instead."""


class Plan(Spec):
    """An ensemble with the jobs of all its members, checked."""

    name: str
    job: Job = Field(exclude=True)
    mix: Mix
    jobs: tuple[Job, ...] = Field(exclude=True)


def plan(
    workload: str,
    name: str | None = None,
    *,
    members: Sequence[str] = (),
    weights: str | None = None,
    seeds: int | None = None,
    **request: Any,
) -> Plan:
    """An ensemble of a workload, ready to be carried out.

    Args:
        workload: Name of a file in `pipelines/`.
        name: Name of one of its ensembles; None for one of these members.
        members: Names of variants, instead of the ensemble's own.
        weights: `equal` or `searched`; default: as the ensemble says.
        seeds: How often to train each member; default: as the ensemble says.
        **request: What else `resolve` takes: `overrides` hold for every member.

    Raises:
        ConfigError: There is no such ensemble, its members can't run, or are fewer than two; or weights are to be
            searched and the members don't hold out the same examples.
    """
    pipeline = projects.load(workload)
    if name is None and not members:
        names = ", ".join(pipeline.ensembles) or "none"
        raise ConfigError("An ensemble needs members.", expected=f"its name, or --members; {workload} has {names}")
    if name is not None and name not in pipeline.ensembles:
        raise unknown(f"ensemble of {workload}", name, pipeline.ensembles)
    ensemble = pipeline.ensembles[name] if name else Ensemble()
    if members:
        ensemble = ensemble.model_copy(update={"variants": tuple(members), "axes": {}, "cells": {}})
    if weights:
        ensemble = Ensemble.model_validate({**ensemble.model_dump(), "weights": weights})
    job, cells = spread_out(pipeline, name or "members", ensemble, seeds=seeds, **request)
    jobs = tuple(job for cell in cells for job in cell.jobs)
    if len(jobs) < 2:
        raise ConfigError("An ensemble needs at least two members.", received=", ".join(job.cell for job in jobs))
    held = {job.label: (job.settings.train.validation_split, job.settings.train.validation) for job in jobs}
    share, split = held[jobs[0].label]
    if ensemble.weights == "searched" and (not (share or split) or len(set(held.values())) > 1):
        raise ConfigError(
            "Weights are searched on examples that no member has learned from.",
            expected="one train.validation_split above 0 (or one train.validation) for all members",
            received=", ".join(f"{label} {split or format(share, 'g')}" for label, (share, split) in held.items()),
            remedy="--set train.validation_split=0.2, or --weights equal",
        )
    mix = Mix(weights=ensemble.weights, power=ensemble.power, metric=ensemble.metric, held_out=share, split=split)
    return Plan(name=name or "members", job=job, mix=mix, jobs=jobs)


# ------------------------------------------------------------------------------------------------ the stage


@stage(
    versions=("tensorflow", "keras", "numpy", "scipy", "matplotlib"),
    facts=lambda job: {"title": job.title, "task": job.task, "look": pages.look()},
    tensorflow=True,
)
def ensemble(job: Job, room: Room, records: Artifact, models: Sequence[Artifact], *, mix: Mix) -> None:
    """Average the members, and test the average once beside each of them.

    Writes `ensemble.json` (weights, metrics with intervals, gains over the members), `predictions.npz` as `evaluate`
    does, and `ensemble.html` for people. Searched weights see held-out training examples only: they are found before
    the test split is read.

    Args:
        job: The job that stands for the ensemble.
        room: Where to work.
        records: Output of `preprocess`.
        models: Output of `train` for each member.
        mix: How to put the answers together.

    Raises:
        ConfigError: The task has no such metric.
        StageFailed: A member's answers can't be averaged.
    """
    import numpy as np

    from headrace.cross_validating import validation_rows
    from headrace.evaluating import answered, in_batches, measurable, measures_of
    from headrace.measuring.resampling import intervals
    from headrace.measuring.tasks import Facts
    from headrace.measuring.words import numbers
    from headrace.models import load
    from headrace.records.inputs import arrays, read_info

    info = read_info(records.path)
    measures = measures_of(job, info)
    targets = list(measures.tasks)
    names = [model.node.partition("/")[2] for model in models]
    primary = mix.metric or measures.primary

    def answers_to(split: Mapping[str, Any]) -> dict[str, Array]:
        """Target → what every member answers (members, examples, *shape)."""
        asked = [[answers for _, answers in answered(job, load(m), info, list(in_batches(split)))] for m in models]
        return {
            target: np.stack([np.concatenate([answers[target] for answers in parts]) for parts in asked])
            for target in targets
        }

    searched: dict[str, Any] | None = None
    weights = np.full(len(models), 1 / len(models))
    if mix.weights == "searched":
        watched = measurable(arrays(records.path, mix.split or "train"), info)
        if not mix.split:
            held = validation_rows(len(watched[targets[0]]), mix.held_out)
            watched = {name: values[held] for name, values in watched.items()}
        value = _valued(measures, mix, primary, watched, answers_to(watched))
        weights, tried = search(value, len(models))
        searched = {
            "metric": primary,
            "examples": len(watched[targets[0]]),
            "searched": _signed(measures, primary, value(weights)),
            "equal": _signed(measures, primary, value(np.full(len(models), 1 / len(models)))),
            "members": {
                name: _signed(measures, primary, value(row))
                for name, row in zip(names, np.eye(len(models)), strict=True)
            },
            "tried": tried,
        }

    test = measurable(arrays(records.path, "test"), info)
    answers, count = answers_to(test), len(test[targets[0]])
    average = averages(measures, answers, weights, mix.power)
    ours = measures.facts(test, average)
    metrics = numbers(measures.measure(ours))
    measures.known(primary, metrics)

    def gains(theirs: Facts, weights: Array | None = None) -> dict[str, Array]:
        before = measures.measure(theirs, weights)
        return {name: measures.gain(name, mine, before[name]) for name, mine in measures.measure(ours, weights).items()}

    members = []
    for k, (name, weight) in enumerate(zip(names, weights, strict=True)):
        facts = measures.facts(test, {target: given[k] for target, given in answers.items()})
        members.append(
            {
                "member": name,
                "weight": float(weight),
                "metrics": numbers(measures.measure(facts)),
                "gain": numbers(gains(facts)),
                "gain_intervals": intervals(partial(gains, facts), count, measures.groups(count)),
            }
        )
    found = {
        "ensemble": job.cell,
        "workload": job.workload,
        "data": info.data,
        "profile": job.profile,
        "weights": mix.weights,
        "power": mix.power,
        "primary": primary,
        "split": "test",
        "examples": count,
        "metrics": metrics,
        "intervals": intervals(partial(measures.measure, ours), count, measures.groups(count)),
        "members": members,
        "validation": searched,
    }
    kept: dict[str, Any] = {f"truth/{target}": test[target] for target in targets}
    kept |= {f"answer/{target}": average[target] for target in targets}
    np.savez(room.output / "predictions.npz", **kept)
    write_json(room.output / "ensemble.json", found)
    (room.output / "ensemble.html").write_text(_page(job, found), encoding="utf-8")


def averages(measures: Measures, answers: Mapping[str, Array], weights: Array, power: float = 1.0) -> dict[str, Array]:
    """Target → the weighted mean of what the members answer.

    Args:
        measures: The tasks, which say what an answer is.
        answers: Target → what they answer (members, examples, *shape).
        weights: One for each member, which sum to one.
        power: As in `mixed`.
    """
    import numpy as np

    from headrace.measuring.classification import Scored

    found = {}
    for target, given in answers.items():
        if power != 1 and isinstance(measures.tasks[target], Scored):
            # The score of a class is the share of one of two: both sides must be raised to the power.
            found[target] = mixed(np.stack([1 - given, given], axis=-1), weights, power)[..., 1]
        else:
            found[target] = mixed(given, weights, power)
    return found


def mixed(answers: Array, weights: Array, power: float = 1.0) -> Array:
    """The weighted mean of what the members answer.

    Args:
        answers: What they answer (members, examples, *shape).
        weights: One for each member, which sum to one.
        power: Answers are raised to it before, so that above 1 confident members count more. Afterwards probabilities,
            which sum to one over the last axis, are made to do so again; other means are brought back by the root.

    Returns:
        The mean (examples, *shape), as the members' type.

    Raises:
        StageFailed: There are negative answers, of which a power makes no sense.
    """
    import numpy as np

    exact = answers.astype(np.float64)
    if power == 1:
        return np.tensordot(weights, exact, axes=1).astype(answers.dtype)
    if (exact < 0).any():
        raise StageFailed(
            f"Members can't be raised to the power of {power:g} before they are averaged.",
            expected="answers that are not negative, such as probabilities",
            received=f"{exact.min():g}",
            remedy="set power to 1",
        )
    mean = np.tensordot(weights, exact**power, axes=1)
    shares = exact.shape[-1] > 1 and np.allclose(exact.sum(axis=-1), 1, atol=1e-3)
    mean = mean / mean.sum(axis=-1, keepdims=True) if shares else mean ** (1 / power)
    return mean.astype(answers.dtype)


def _valued(
    measures: Measures, mix: Mix, metric: str, truths: Mapping[str, Array], answers: Mapping[str, Array]
) -> Callable[[Array], float]:
    """Function from weights to how bad the average is on these examples: smaller is better."""

    def value(weights: Array) -> float:
        found = measures.measure(measures.facts(truths, averages(measures, answers, weights, mix.power)))
        return _signed(measures, metric, float(found[measures.known(metric, found)]))

    return value


def _signed(measures: Measures, metric: str, value: float) -> float:
    """How bad a value of a metric is, smaller being better; and back."""
    return -value if metric in measures.larger_is_better else value


def search(value: Callable[[Array], float], members: int) -> tuple[Array, int]:
    """The weights with the smallest value: Nelder and Mead's simplex, from equal weights and from near each member.

    Weights are the softmax of free numbers, so that they are positive and sum to one. Equal weights win if nothing is
    better.

    Args:
        value: How bad weights (members,) are.
        members: How many there are.

    Returns:
        The weights (members,), and how many were tried.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import softmax

    equal = np.full(members, 1 / members)
    best, least, tried = equal, value(equal), 1
    for start in (np.zeros(members), *(3.0 * np.eye(members))):
        # Wide first steps: a metric such as accuracy is flat in the small.
        corners = np.vstack([start, *(start + 1.5 * step for step in np.eye(members))])
        options = {"initial_simplex": corners, "maxiter": 100 * members, "xatol": 1e-4, "fatol": 1e-9}
        found = minimize(lambda free: value(softmax(free)), start, method="Nelder-Mead", options=options)
        tried += int(found.nfev)
        if found.fun < least:
            best, least = softmax(found.x), float(found.fun)
    return best, tried


# --------------------------------------------------------------------------------------------------- page


def _page(job: Job, found: Mapping[str, Any]) -> str:
    names = list(found["metrics"])
    primary = found["primary"]
    rows = [["average", None, *[found["metrics"][name] for name in names], ""]]
    for member in found["members"]:
        interval = " to ".join(map(pages.number, member["gain_intervals"][primary] or ()))
        gain = f"{pages.number(member['gain'][primary])} ({interval})"
        rows.append([member["member"], f"{member['weight']:.3f}", *[member["metrics"][name] for name in names], gain])
    columns = ["", "weight", *[f"test {name}" for name in names], f"gain of the average in {primary}"]
    table = {"columns": columns, "right": columns[1:], "rows": rows, "marked": [0]}
    words = "All members count alike."
    if found["validation"]:
        held = found["validation"]
        words = (
            f"Weights found by Nelder and Mead's simplex on {held['examples']} held-out training examples "
            f"({held['tried']} tried): {primary} {pages.number(held['searched'])} there, {pages.number(held['equal'])} "
            "with equal weights. The test split was read afterwards."
        )
    sections = [
        {"title": f"{len(rows) - 1} members on {found['examples']} test examples", "words": words, "table": table}
    ]
    kind, called = "ensemble", found["ensemble"]
    return pages.render(TEMPLATE, job=job, kind=kind, called=called, found=found, gates=[], sections=sections)
