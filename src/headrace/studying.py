"""Stage `study`: configurations of a workload trained alike, laid side by side, and ranked as far as chance allows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from headrace import projects
from headrace.artifacts import Artifact, write_json
from headrace.errors import ConfigError, StageFailed, nearest, unknown
from headrace.jobs import Job, resolve
from headrace.showing import charts, pages
from headrace.spec import Finding, Grid, Overrides, Pipeline, Spec, Study, Watch
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import numpy as np

    from headrace.evaluating import Gate

TEMPLATE = "fanout.html.j2"


# ------------------------------------------------------------------------------------------- what to train


class Cell(Spec):
    """One configuration, with a job for each seed."""

    name: str
    settings: Overrides
    """What sets it apart from the other cells."""
    jobs: tuple[Job, ...] = Field(exclude=True)


class Problems(Spec):
    """Label of a job → why it could not be finished."""

    at: Mapping[str, str] = {}


class Plan(Spec):
    """A study with all its jobs, checked."""

    name: str
    job: Job = Field(exclude=True)
    """What its cells have in common: data and base variant."""
    study: Study
    metric: str
    mode: str
    cells: tuple[Cell, ...]

    @property
    def measure(self) -> str:
        """What the value of a cell is called."""
        more = {"best": "", "last": " (last epoch)", "since_best": " (last epoch against best)"}
        return f"{self.metric}{more[self.study.at]}"

    @property
    def sign(self) -> int:
        """1 if smaller values are better, −1 if larger ones are."""
        return 1 if self.mode == "min" or self.study.at == "since_best" else -1


def plan(workload: str, name: str, *, seeds: int | None = None, **request: Any) -> Plan:
    """A study of a workload, ready to be carried out.

    Args:
        workload: Name of a file in `pipelines/`.
        name: Name of one of its studies.
        seeds: How often to train each cell; default: as the study says.
        **request: What else `resolve` takes: `overrides` hold for every cell.

    Raises:
        ConfigError: There is no such study, or some of its cells can't run; the message names every mistake.
    """
    pipeline = projects.load(workload)
    if name not in pipeline.studies:
        raise unknown(f"study of {workload}", name, pipeline.studies)
    study = pipeline.studies[name]
    job, cells = spread_out(pipeline, name, study, seeds=seeds, **request)
    mistakes = []
    names = [cell.name for cell in cells]
    for finding in study.findings:
        mistakes += [
            f"findings: there is no cell `{cell}`: {nearest(cell, names)}"
            for cell in (finding.cell, finding.beats)
            if cell is not None and cell not in names
        ]
    for cell in cells:
        settings = cell.jobs[0].settings
        if study.on == "cross_validation" and settings.cross_validation is None:
            mistakes.append(f"{cell.name}: there is nothing to measure on without `cross_validation`")
        if study.on == "validation" and not (settings.train.validation_split or settings.train.validation):
            mistakes.append(f"{cell.name}: nothing is held out to measure on: set train.validation_split")
    if mistakes:
        raise _refused(workload, name, mistakes)
    metric, mode = _metric(study, cells[0].jobs[0])
    return Plan(name=name, job=job, study=study, metric=metric, mode=mode, cells=cells)


def _metric(study: Study, job: Job) -> tuple[str, str]:
    """The metric by which cells are ranked, and its direction."""
    from headrace.measuring.tasks import usual

    primary, larger = usual(job.task)
    protocol = job.settings.cross_validation
    by_default = {
        "test": primary,
        "validation": "val_loss",
        "cross_validation": protocol.metric if protocol else "",
    }[study.on]
    metric = study.metric or by_default
    if not metric:
        raise ConfigError("A study of a workload that measures itself must name its `metric`.")
    if study.mode == "auto" and metric.removeprefix("val_") in larger:
        return metric, "max"
    return metric, "min" if Watch(monitor=metric, mode=study.mode).sign > 0 else "max"


def spread_out(
    pipeline: Pipeline,
    name: str,
    grid: Grid,
    *,
    seeds: int | None = None,
    seed: int = 0,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    **request: Any,
) -> tuple[Job, tuple[Cell, ...]]:
    """The jobs of a grid, and the job that stands for all of it.

    Args:
        pipeline: The workload.
        name: What the grid is called.
        grid: The grid.
        seeds: How often to train each cell; default: as the grid says.
        seed: The first seed.
        variant: What the cells start from; default: as the grid says.
        overrides: Settings of all cells, stronger than those of the grid.
        **request: Profile, data and source, as `resolve` takes them.

    Raises:
        ConfigError: Some cells can't run; the message names every mistake.
    """
    base = variant or grid.variant or pipeline.default_variant
    given = {key: value for key, value in request.items() if value is not None}
    request = {"profile": "full", **({"source": grid.source} if grid.source else {}), **given}
    common = in_profile(pipeline, grid.settings, request["profile"])
    found: list[Cell] = []
    mistakes: dict[str, list[str]] = {}
    for cell, (start, own) in _combinations(grid, base).items():
        try:
            jobs = [
                resolve(
                    pipeline.name,
                    variant=start,
                    seed=seed + number,
                    overrides=common | own | dict(overrides or {}),
                    **request,
                ).model_copy(update={"cell": cell})
                for number in range(seeds or grid.seeds)
            ]
            found.append(Cell(name=cell, settings=own or {"variant": start}, jobs=tuple(jobs)))
        except ConfigError as error:
            for line in error.problem.splitlines()[1:] or [error.problem]:
                mistakes.setdefault(line.removeprefix("  - "), []).append(cell)
    if mistakes:
        lines = [f"{line} (in {_listed(cells)})" for line, cells in mistakes.items()]
        raise _refused(pipeline.name, name, lines)
    job = resolve(pipeline.name, variant=base, seed=seed, **request)
    return job.model_copy(update={"cell": name}), tuple(found)


def in_profile(pipeline: Pipeline, settings: Overrides, profile: str) -> Overrides:
    """Settings of a fan-out: in a smoke run the workload's smoke values take the place of those it has."""
    return {path: pipeline.smoke.get(path, value) if profile == "smoke" else value for path, value in settings.items()}


def _combinations(grid: Grid, base: str) -> dict[str, tuple[str, Overrides]]:
    """Cell → variant that it starts from, and what sets it apart."""
    found: dict[str, tuple[str, Overrides]] = {variant: (variant, {}) for variant in grid.variants}
    for values in itertools.product(*grid.axes.values()) if grid.axes else ():
        own = dict(zip(grid.axes, values, strict=True))
        words = [_word(value) for value in values]
        alone = len(words) == 1 and not isinstance(values[0], str)
        name = f"{next(iter(grid.axes)).rpartition('.')[2]} {words[0]}" if alone else "-".join(words)
        if name in found:
            raise ConfigError(f"Two cells are called `{name}`.", remedy="list the cells with names: cells={…}")
        found[name] = (base, own)
    found |= {name: (base, own) for name, own in grid.cells.items()}
    return found or {base: (base, {})}


def _word(value: Any) -> str:
    """A value as a part of a name."""
    if isinstance(value, list | tuple):
        return "x".join(map(_word, value))
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_word(inner)}" for key, inner in value.items())
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "none"}[value]
    return (f"{value:g}" if isinstance(value, float) else str(value)).replace("/", "_")


def _listed(cells: Sequence[str]) -> str:
    return ", ".join(cells[:3]) + (f" and {len(cells) - 3} more" if len(cells) > 3 else "")


def _refused(workload: str, name: str, mistakes: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"`{name}` of {workload} can't run as asked:\n" + "\n".join(f"  - {line}" for line in mistakes),
        remedy=f"see pipelines/{workload}.py, and `headrace show {workload}` for the names of settings",
    )


# ------------------------------------------------------------------------------------------------ the stage


@stage(
    versions=("scipy", "numpy", "matplotlib"),
    facts=lambda job: {
        "title": job.title,
        "task": job.task,
        "default_source": job.source == job.usual_source,
        "look": pages.look(),
    },
)
def study(job: Job, room: Room, records: Artifact, made: Sequence[Artifact], *, plan: Plan, problems: Problems) -> None:
    """Lay the cells side by side: `study.json`, and `study.html` for people.

    Two cells differ clearly if the 95 % interval of their difference leaves zero out. It covers the draw of the test
    examples (the same for both cells) or of the folds, and, with two seeds or more, that of the seeds. A cell's rank is
    one more than the number of cells that are clearly better, so that cells which chance may have parted share one.

    Args:
        job: The job that stands for the study.
        room: Where to work.
        records: Output of `preprocess`.
        made: Output of `train` and, as the study measures, of `evaluate` or `cross_validate`, for each cell and seed.
        plan: What was asked for.
        problems: What could not be finished.

    Raises:
        ConfigError: The metric is none of those that were measured.
        StageFailed: No cell could be finished.
    """
    from headrace.evaluating import why_not_judged

    info = records.json("info.json")
    data = info["data"]
    at = {artifact.node: artifact for artifact in made}
    rows = [_row(plan, cell, at, problems) for cell in plan.cells]
    done = {row["cell"]: measured for row, measured in rows if measured}
    if not done:
        first = next(iter(problems.at.values()), "")
        raise StageFailed(f"No cell of `{plan.name}` could be finished.", received=first.partition("\n")[0] or None)
    sign = plan.sign
    order = sorted(done, key=lambda name: sign * done[name].mean)
    ranks = ranked(done, order, sign)
    entries = {row["cell"]: row | {"rank": ranks.get(row["cell"])} for row, _ in rows}
    best = order[0]
    others = [name for name in order[1:] if not clearly_better(done[best], done[name], sign)]
    counts = {split: written["examples"] for split, written in info["splits"].items()}
    obstacle = why_not_judged(job, data, counts)
    findings = [judged(finding, plan, done, best, obstacle) for finding in plan.study.findings]
    found = {
        "study": plan.name,
        "description": plan.study.description,
        "workload": job.workload,
        "data": data,
        "profile": job.profile,
        "on": plan.study.on,
        "at": plan.study.at,
        "metric": plan.metric,
        "measure": plan.measure,
        "mode": plan.mode,
        "seeds": [job.seed for job in plan.cells[0].jobs],
        "settings": plan.study.settings,
        "not_judged": obstacle,
        "best": best,
        "not_clearly_worse": others,
        "basis": basis(plan),
        "cells": [entries[name] for name in [*order, *(row["cell"] for row, _ in rows if row["cell"] not in done)]],
        "findings": findings,
    }
    write_json(room.output / "study.json", found)
    (room.output / "study.html").write_text(_page(job, found), encoding="utf-8")


def basis(plan: Plan) -> str:
    """What the intervals cover, in words."""
    parts = {
        "test": ["the draw of the test examples, the same for all cells"],
        "validation": [],
        "cross_validation": ["the draw of the folds, the same for all cells"],
    }[plan.study.on]
    if len(plan.cells[0].jobs) > 1:
        parts.append(f"that of the {len(plan.cells[0].jobs)} seeds")
    if not parts:
        return "One training each: whether differences are more than chance can't be told. Give more seeds."
    alone = "" if len(plan.cells[0].jobs) > 1 else " One seed each: what another seed would change is not in them."
    return f"The intervals (95 %) cover {' and '.join(parts)}.{alone}"


def _row(
    plan: Plan, cell: Cell, at: Mapping[str, Artifact], problems: Problems
) -> tuple[dict[str, Any], Measured | None]:
    """What is known of one cell."""
    trouble = [problems.at[job.label] for job in cell.jobs if job.label in problems.at]
    values: dict[int, float] = {}
    shared: list[Any] = []
    curves: dict[int, list[float]] = {}
    facts: dict[str, Any] = {"parameters": None, "seconds": 0.0, "training": None, "curve": None}
    for job in cell.jobs:
        value, common = _value(plan, job, at)
        if value is not None:
            values[job.seed] = value
            shared.append(common)
        for node, artifact in at.items():
            if node.split("/")[:2] != ["train", job.label]:
                continue
            training, history = artifact.json("training.json"), artifact.json("history.json")
            facts["parameters"] = training["parameters"]
            facts["seconds"] += training["seconds"]
            facts["curve"] = name = _drawn(plan.metric, history["metrics"])
            curves[job.seed] = history["metrics"][name]
            facts["training"] = {name: curve[-1] for name, curve in history["metrics"].items()}
        average = at.get(f"cross_validate/{job.label}")
        if average and plan.study.on == "cross_validation":
            facts["curve"], curves[job.seed] = plan.metric, average.json("cross_validation.json")["curve"]
    measured = Measured.of(plan, list(values.values()), shared) if values else None
    if measured and len(values) < len(cell.jobs) and not trouble:
        trouble = [f"{plan.metric} is undefined for {len(cell.jobs) - len(values)} of {len(cell.jobs)} seeds"]
    row = {
        "cell": cell.name,
        "settings": cell.settings,
        "value": measured.mean if measured else None,
        "interval": measured.interval if measured else None,
        "values": values,
        **facts,
        "seconds": round(facts["seconds"], 2),
        "curves": curves,
        "problem": "; ".join(text.splitlines()[0] for text in trouble) or None,
    }
    return row, measured


def _drawn(metric: str, history: Mapping[str, Any]) -> str:
    """The curve to draw: that of the metric on held-out examples, or what comes nearest to it."""
    wanted = (f"val_{metric.removeprefix('val_')}", metric, "val_loss", "loss")
    return next((name for name in wanted if name in history), next(iter(history)))


def _value(plan: Plan, job: Job, at: Mapping[str, Artifact]) -> tuple[float | None, Any]:
    """The metric of one job, and what its chance is told from: answers to the test examples, or values of the folds."""
    if plan.study.on == "test":
        evaluation = at.get(f"evaluate/{job.label}")
        if evaluation is None:
            return None, None
        metrics = evaluation.json("evaluation.json")["metrics"]
        _known(plan.metric, metrics)
        return metrics[plan.metric], _resampled(plan, evaluation)
    if plan.study.on == "cross_validation":
        average = at.get(f"cross_validate/{job.label}")
        if average is None:
            return None, None
        found = average.json("cross_validation.json")
        _known(plan.metric, [found["metric"]])
        return found["mean"], [fold["last"] for fold in found["folds"]]
    model = at.get(f"train/{job.label}")
    if model is None:
        return None, None
    history = model.json("history.json")["metrics"]
    _known(plan.metric, history)
    curve = history[plan.metric]
    best = (min if plan.mode == "min" else max)(curve)
    return {"best": best, "last": curve[-1], "since_best": abs(curve[-1] - best)}[plan.study.at], None


def _known(metric: str, metrics: Any) -> None:
    if metric not in metrics:
        raise ConfigError(f"metric: there is no `{metric}`: {nearest(metric, metrics)}")


def _resampled(plan: Plan, evaluation: Artifact) -> Any:
    """The metric on each resample of the test examples, the same ones for every cell."""
    from headrace.evaluating import measured
    from headrace.measuring.resampling import resampled
    from headrace.measuring.tasks import examples

    if not evaluation.json("evaluation.json")["outputs"]:
        from headrace.measuring.own import resamples

        return resamples(evaluation, plan.metric)
    measures, facts = measured(evaluation)
    count = examples(facts)

    def measure(weights: np.ndarray[Any, Any]) -> dict[str, Any]:
        return {plan.metric: measures.measure(facts, weights)[plan.metric]}

    return resampled(measure, count, measures.groups(count))[plan.metric]


# ------------------------------------------------------------------------------------------------- chance


@dataclass(frozen=True)
class Measured:
    """What was measured of one cell."""

    values: Sequence[float]
    """One for each seed."""
    shared: np.ndarray[Any, Any] | None
    """The mean over the seeds on each resample, or on each fold, which are the same for every cell; None without."""
    resamples: bool
    """Whether `shared` is spread as the mean itself is (a bootstrap), or as single values are (folds)."""

    @classmethod
    def of(cls, plan: Plan, values: Sequence[float], shared: Sequence[Any]) -> Measured:
        """Put the seeds together."""
        import numpy as np

        common = None if shared[0] is None else np.mean(np.asarray(shared, float), axis=0)
        return cls(values, common, plan.study.on == "test")

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return sum(self.values) / len(self.values)

    @property
    def interval(self) -> list[float] | None:
        """Of the mean, at 95 %; None if there is nothing to tell it from."""
        return _around(self.mean, _noise(self, None))


def difference(one: Measured, other: Measured) -> list[float] | None:
    """The 95 % interval of the difference of two cells' means; None if there is nothing to tell it from."""
    return _around(one.mean - other.mean, _noise(one, other))


def _noise(one: Measured, other: Measured | None) -> list[tuple[float, float]]:
    """Where chance comes in: variances, each with its degrees of freedom."""
    import numpy as np

    parts: list[tuple[float, float]] = []
    if one.shared is not None and (
        other is None or (other.shared is not None and len(other.shared) == len(one.shared))
    ):
        drawn = one.shared - (0 if other is None or other.shared is None else other.shared)
        drawn = drawn[np.isfinite(drawn)]
        if one.resamples and len(drawn):
            parts.append((float(np.var(drawn)), math.inf))
        elif len(drawn) > 1:
            parts.append((float(np.var(drawn, ddof=1)) / len(drawn), len(drawn) - 1))
    seeds = [np.asarray(cell.values) for cell in (one, other) if cell is not None and len(cell.values) > 1]
    return [*parts, *((float(np.var(values, ddof=1)) / len(values), len(values) - 1) for values in seeds)]


def _around(mean: float, noise: Sequence[tuple[float, float]]) -> list[float] | None:
    """Student's interval with the degrees of freedom by Welch and Satterthwaite."""
    from scipy import stats

    if not noise:
        return None
    total = sum(variance for variance, _ in noise)
    spent = sum(variance**2 / freedom for variance, freedom in noise)
    freedom = total**2 / spent if spent else math.inf
    reach = float(stats.t.ppf(0.975, freedom)) * math.sqrt(total)
    return [mean - reach, mean + reach]


def clearly_better(one: Measured, other: Measured, sign: int) -> bool:
    """Whether chance doesn't explain that one cell is better (`sign` 1: smaller is better; −1: larger)."""
    bounds = difference(one, other)
    return bounds is not None and max(sign * bound for bound in bounds) < 0


def ranked(done: Mapping[str, Measured], order: Sequence[str], sign: int) -> dict[str, int]:
    """Rank of each cell: one more than the number of clearly better ones; its place where chance can't be told."""
    if all(done[name].interval is None for name in order):
        return {name: place for place, name in enumerate(order, 1)}
    return {
        name: 1 + sum(clearly_better(done[other], done[name], sign) for other in order if other != name)
        for name in order
    }


def judged(
    finding: Finding, plan: Plan, done: Mapping[str, Measured], best: str, obstacle: str | None
) -> dict[str, Any]:
    """A finding with what was found, and whether it holds (None: not judged)."""
    from headrace.measuring.words import short, spread

    cell = finding.cell or best
    measured = done.get(cell)
    rival = done.get(finding.beats) if finding.beats else None
    book = f" (the book: {finding.book:g})" if finding.book is not None else ""
    entry = {**finding.model_dump(), "cell": cell, "value": measured.mean if measured else None, "passed": None}
    lost = [name for name in (cell, finding.beats) if name and name not in done]
    if measured is None or lost:
        return entry | {
            "reason": f"{', '.join(lost)} could not be finished{book}",
            "passed": None if obstacle else False,
        }
    holds = (finding.at_least is None or measured.mean >= finding.at_least) and (
        finding.at_most is None or measured.mean <= finding.at_most
    )
    interval = f" {spread(measured.interval)}" if measured.interval else ""
    reason = f"{plan.measure} of {cell} is {short(measured.mean)}{interval}"
    bounds = [f"at least {finding.at_least:g}"] if finding.at_least is not None else []
    bounds += [f"at most {finding.at_most:g}"] if finding.at_most is not None else []
    if bounds:
        reason += f", expected {' and '.join(bounds)}"
    if rival:
        sign = plan.sign
        ahead = sign * (rival.mean - measured.mean)
        better = ahead > 0 and ahead >= finding.by
        holds = holds and better
        apart = clearly_better(measured, rival, sign) or clearly_better(rival, measured, sign)
        reason += (
            f", {'better' if better else 'not better'}{f' by {finding.by:g}' if finding.by else ''}"
            f" than {short(rival.mean)} of {finding.beats}"
            f" ({'clearly' if apart else 'within chance'})"
        )
    if obstacle:
        return entry | {"reason": f"{reason}{book}: not judged, {obstacle}"}
    return entry | {"reason": f"{reason}{book}", "passed": holds}


def gates(found: Mapping[str, Any]) -> list[Gate]:
    """The findings of a study as gates."""
    return [{"gate": "finding", "passed": one["passed"], "reason": one["reason"]} for one in found["findings"]]


# --------------------------------------------------------------------------------------------------- page


def _page(job: Job, found: Mapping[str, Any]) -> str:
    cells = found["cells"]
    settings = list(dict.fromkeys(path for cell in cells for path in cell["settings"]))
    last = list(dict.fromkeys(name for cell in cells for name in cell["training"] or ()))
    numbers = [found["measure"], "interval", *[f"last {name}" for name in last], "parameters", "seconds"]
    table = {
        "columns": ["rank", "cell", *settings, *numbers, ""],
        "right": ["rank", *numbers],
        "rows": [
            [
                cell["rank"],
                cell["cell"],
                *[_shown(cell["settings"].get(path)) for path in settings],
                cell["value"],
                " to ".join(map(pages.number, cell["interval"] or ())),
                *[(cell["training"] or {}).get(name) for name in last],
                f"{cell['parameters']:,}" if cell["parameters"] else None,
                cell["seconds"],
                cell["problem"] or "",
            ]
            for cell in cells
        ],
        "marked": [index for index, cell in enumerate(cells) if cell["problem"]],
    }
    done = [cell for cell in cells if cell["value"] is not None]
    alike = found["not_clearly_worse"]
    words = f"Best: {found['best']}. " + (f"Not clearly worse: {', '.join(alike)}. " if alike else "")
    if found["on"] == "test":
        words += "Measured on the test split: a table of results. To choose by it would use the test split up. "
    measure = found["measure"]
    figures = [
        {"title": f"{measure}, best first", "svg": charts.ranking(done, measure), "words": found["basis"]},
        {"title": "Curves", "svg": charts.curves(done), "words": "One line for each seed."},
    ]
    sections = [
        {"title": f"{len(cells)} cells by {found['measure']}", "words": words + found["basis"], "table": table},
        {"title": "Ranking and curves", "figures": figures},
    ]
    kind, called = "study", found["study"]
    return pages.render(TEMPLATE, job=job, kind=kind, called=called, found=found, gates=gates(found), sections=sections)


def _shown(value: Any) -> str:
    return "" if value is None else _word(value)
