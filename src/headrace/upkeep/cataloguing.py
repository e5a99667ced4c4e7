"""What the documents say of results: the README's table of workloads, a page of all variants, and one for each study.

`docs/results.json` holds what was measured: workload → variant → metric → values by seed, command, date; and, where no
promise is judged by it, why (`not judged`).

```json
{"tiny": {"plain": {"mae": {"values": {"0": 2.41, "1": 2.5}, "command": "headrace run …", "date": "…"}}}}
```
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import projects
from headrace.artifacts import write_atomically, write_json
from headrace.errors import ConfigError
from headrace.showing.tabulating import of_ensemble, of_tuning
from headrace.spec import Pipeline, Promise

if TYPE_CHECKING:
    from headrace.jobs import Job

BEGIN, END = "<!-- workloads:begin -->", "<!-- workloads:end -->"

HEADINGS = ("workload", "what it does", "book", "variants", "variant", "promise", "the book's figure", "measured")
ALL_HEADINGS = ("workload", "variant", "what is special", "promise", "the book's figure", "measured")

PREFACE = """\
# Results

Written by `headrace sync` from the files in `pipelines/` and from `docs/results.json`: every variant, what it promises
beside the figure that its book reports, and what was measured on real data. Studies are in [`studies/`](studies).
"""

Measured = Mapping[str, Any]
"""What was measured by one metric: values by seed, command, date, perhaps `not judged`."""


def table(root: Path) -> str:
    """The README's table in Markdown: a row for each workload, with the variant that is trained by schedule.

    Args:
        root: The project.

    Raises:
        ConfigError: `docs/results.json` is not as described above, or names a workload or variant that is not there.
    """
    lines = [_row(HEADINGS), _row(["---"] * len(HEADINGS))]
    for pipeline, found in _everything(root):
        name = pipeline.deploy.variant or pipeline.default_variant
        promise = next(iter(pipeline.variants[name].promises), None)
        link = f"[`{pipeline.name}`]({projects.file(pipeline.name)})"
        lines.append(
            _row(
                (
                    *(link, pipeline.title, pipeline.book, len(pipeline.variants), f"`{name}`"),
                    *(*_promised(promise), _measured(promise, found.get(name, {}))),
                )
            )
        )
    return "\n".join(lines)


def page(root: Path) -> str:
    """The page `docs/results.md`: a row for each variant and promise, and below it the seeds and the commands.

    Args:
        root: The project.

    Raises:
        ConfigError: As `table`.
    """
    lines = [PREFACE, _row(ALL_HEADINGS), _row(["---"] * len(ALL_HEADINGS))]
    details = ["", "## Seeds and commands", ""]
    for pipeline, found in _everything(root):
        shown = f"`{pipeline.name}`"
        for name, variant in pipeline.variants.items():
            told = variant.description
            for promise in variant.promises or (None,):
                cells = (*_promised(promise), _measured(promise, found.get(name, {})))
                lines.append(_row((shown, f"`{name}`", told, *cells)))
                shown = told = ""
        details += [
            f"- `{pipeline.name}` `{variant}`, {one['date']}, `{one['command']}`: {metric} {_seeds(one)}"
            for variant, metrics in found.items()
            for metric, one in metrics.items()
        ]
    return "\n".join([*lines, *details, ""])


def _everything(root: Path) -> Iterator[tuple[Pipeline, dict[str, dict[str, Measured]]]]:
    """Each workload and what was measured of its variants."""
    results = _results(root / "docs" / "results.json")
    for name in projects.names():
        pipeline, found = projects.load(name), results.pop(name, {})
        strange = [variant for variant in found if variant not in pipeline.variants]
        if strange:
            raise ConfigError(f"docs/results.json names variants that {name} has not: {', '.join(strange)}")
        yield pipeline, found
    if results:
        raise ConfigError(f"docs/results.json names workloads that are not there: {', '.join(results)}")


def insert(text: str, content: str) -> str:
    """A text with this content between the markers.

    Raises:
        ConfigError: The markers are not there, or not in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError("README.md has no place for the table.", expected=f"{BEGIN} and, below it, {END}")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def texts(root: Path) -> dict[Path, str]:
    """What the README and the page of results are to hold; nothing where a project has no table.

    Raises:
        ConfigError: As `table`.
    """
    readme = root / "README.md"
    if not readme.is_file() or BEGIN not in readme.read_text():
        return {}
    return {readme: insert(readme.read_text(), table(root)), root / "docs" / "results.md": page(root)}


def record(root: Path, kind: str, found: Mapping[str, Any], command: str) -> list[Path]:
    """Write what a fan-out has found into the documents: a page, and of a study the results of variants, too.

    Args:
        root: The project.
        kind: `study`, `tune` or `ensemble`.
        found: Contents of `study.json`, `tuning.json` or `ensemble.json`.
        command: The command that it was carried out by.

    Returns:
        The files that were written.
    """
    date = _today()
    name = found["study" if kind == "study" else "tuning" if kind == "tune" else "ensemble"]
    page = root / "docs" / "studies" / f"{found['workload']}-{name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    text = page_of(found, command, date) if kind == "study" else page_of_models(kind, found, command, date)
    write_atomically(page, text.encode())
    if kind != "study":
        return [page]
    # What all cells of a study have in common besides makes something else of a variant.
    if found["on"] != "test" or found["data"] != "real" or found["profile"] != "full" or found.get("settings"):
        return [page]
    variants = projects.load(found["workload"]).variants
    measured = {
        cell["cell"]: {found["metric"]: _entry(cell["values"], command, date, found.get("not_judged"))}
        for cell in found["cells"]
        if cell["cell"] in variants and cell["settings"] == {"variant": cell["cell"]} and cell["value"] is not None
    }
    return [page, *(keep(root, found["workload"], measured) if measured else [])]


def writable(job: Job, overrides: Iterable[str]) -> None:
    """Make sure that what a run measures may be called a result of its variant.

    Args:
        job: The job.
        overrides: Paths of the settings that differ from the variant's.

    Raises:
        ConfigError: It may not: the run is short, or on made-up or other data, or something was changed.
    """
    reasons = [f"--set {path}" for path in overrides if not path.startswith("publish.")]
    if job.profile != "full":
        reasons.append(f"--profile {job.profile}")
    if job.data == "synthetic":
        reasons.append("--data synthetic")
    if not job.on_its_own_data:
        reasons.append(f"--source {job.source}")
    if reasons:
        raise ConfigError(
            "What this run measures is no result of the variant.",
            expected="the variant as it is, whole, on its own data",
            received=", ".join(reasons),
            remedy="leave out --write, or what differs",
        )


def record_run(root: Path, job: Job, evaluation: Mapping[str, Any]) -> list[Path]:
    """Write what a run has measured into the documents, beside what other seeds gave by the same command.

    Args:
        root: The project.
        job: The job, which is `writable` and had real data.
        evaluation: Contents of its `evaluation.json`: what was promised is kept, or else what decides.

    Returns:
        The files that were written; none if nothing has a value.

    Raises:
        ConfigError: As `keep`.
    """
    promised = {entry["metric"]: entry["value"] for entry in evaluation["promises"]}
    primary = evaluation["primary"]
    values = {
        metric: value
        for metric, value in (promised or {primary: evaluation["metrics"][primary]}).items()
        if value is not None
    }
    source = f" --source {job.source}" if job.source != job.usual_source else ""
    command = f"headrace run {job.workload} --variant {job.variant}{source} --data real --seed N"
    before = _results(root / "docs" / "results.json").get(job.workload, {}).get(job.variant, {})
    measured = {}
    for metric, value in values.items():
        earlier = before.get(metric, {})
        others = earlier["values"] if earlier.get("command") == command else {}
        seeds = dict(sorted({**others, str(job.seed): value}.items(), key=lambda one: int(one[0])))
        measured[metric] = _entry(seeds, command, _today(), evaluation["not_judged"])
    return keep(root, job.workload, {job.variant: measured}) if measured else []


def _entry(values: Mapping[Any, float], command: str, date: str, not_judged: str | None) -> dict[str, Any]:
    return {
        "values": {str(seed): round(value, 5) for seed, value in values.items()},
        "command": command,
        "date": date,
        **({"not judged": not_judged} if not_judged else {}),
    }


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def keep(root: Path, workload: str, measured: Mapping[str, Mapping[str, Measured]]) -> list[Path]:
    """Write what was measured of some variants beside the results of the others, and bring the README up to date.

    Args:
        root: The project.
        workload: The workload.
        measured: Variant → metric → values by seed, command, date. Other metrics of a variant stay.

    Returns:
        The files that were written.

    Raises:
        ConfigError: `docs/results.json` is there and can't be read; it stays as it is.
    """
    path = root / "docs" / "results.json"
    results = _results(path)
    kept = results.setdefault(workload, {})
    for variant, metrics in measured.items():
        kept[variant] = {**kept.get(variant, {}), **metrics}
    write_json(path, results)
    changed = texts(root)
    for document, text in changed.items():
        write_atomically(document, text.encode())
    return [path, *changed]


def page_of(found: Mapping[str, Any], command: str, date: str) -> str:
    """A study as a page in Markdown: its findings, and its cells by rank."""
    from headrace.measuring.words import short, spread

    marks = {True: "holds", False: "**does not hold**", None: "not judged"}
    lines = [
        f"# {found['workload']}: {found['study']}",
        "",
        found["description"],
        "",
        f"`{command}`, {date}, {found['data']} data, profile {found['profile']}, seeds "
        f"{', '.join(map(str, found['seeds']))}: {found['measure']}, on {found['on'].replace('_', ' ')}. "
        f"{found['basis']}",
        "",
    ]
    lines += [f"- {one['reason']}: {marks[one['passed']]}" for one in found["findings"]]
    lines += ["", _row(("rank", "cell", found["measure"], "95 % interval", "by seed", "parameters", "seconds"))]
    lines += [_row(["---"] * 7)]
    for cell in found["cells"]:
        seeds = ", ".join(short(value) for value in cell["values"].values()) or cell["problem"]
        parameters = "" if cell["parameters"] is None else f"{cell['parameters']:,}"
        interval = spread(cell["interval"]) if cell["interval"] else ""
        value = "" if cell["value"] is None else short(cell["value"])
        lines.append(_row((cell["rank"] or "", cell["cell"], value, interval, seeds, parameters, cell["seconds"])))
    return "\n".join([*lines, ""])


def page_of_models(kind: str, found: Mapping[str, Any], command: str, date: str) -> str:
    """A tuning or an ensemble as a page in Markdown: its tables."""
    of_a_tuning = kind == "tune"
    lines = [
        f"# {found['workload']}: {found['tuning' if of_a_tuning else 'ensemble']}",
        "",
        *([found["description"], ""] if found.get("description") else []),
        f"`{command}`, {date}, {found['data']} data, profile {found['profile']}.",
    ]
    for table in of_tuning(found) if of_a_tuning else of_ensemble(found):
        lines += ["", _row(table.columns), _row(["---"] * len(table.columns))]
        lines += [_row("" if cell is None else cell for cell in row) for row in table.rows]
    return "\n".join([*lines, ""])


def _promised(promise: Promise | None) -> tuple[str, str]:
    if promise is None:
        return "", ""
    where = "test" if promise.on == "test" else "cross-validated"
    source = f" ({promise.source})" if promise.source else ""
    return f"{where} {promise.metric} {promise.bounds}", f"{promise.book:g}{source}" if promise.book is not None else ""


def _measured(promise: Promise | None, measured: Mapping[str, Measured]) -> str:
    """Mean and range over the seeds: of what was promised, or else of what was measured first."""
    metric = promise.metric if promise else next(iter(measured), None)
    if metric is None or metric not in measured:
        return ""
    one = measured[metric]
    values = list(one["values"].values())
    mean = sum(values) / len(values)
    several = len(values) > 1
    seeds = f"{min(values):.3f} to {max(values):.3f}, {len(values)} seeds" if several else "1 seed"
    named = "" if promise else f"{metric} "
    kept = "" if promise is None or all(promise.holds(value) for value in values) else ", **promise not kept**"
    if promise and one.get("not judged"):
        kept = f"; not judged: {one['not judged']}"
    return f"{named}{mean:.3f} ({seeds}){kept}"


def _seeds(measured: Measured) -> str:
    return ", ".join(f"{value:.3f} (seed {seed})" for seed, value in measured["values"].items())


def _row(cells: Any) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _results(path: Path) -> dict[str, dict[str, dict[str, Measured]]]:
    if not path.is_file():
        return {}
    expected = '{workload: {variant: {metric: {"values": {seed: number}, "command": …, "date": …}}}}'
    try:
        results: dict[str, dict[str, dict[str, Measured]]] = json.loads(path.read_text())
        for variants in results.values():
            for metrics in variants.values():
                for measured in metrics.values():
                    [float(value) for value in measured["values"].values()]
                    [measured[name] for name in ("command", "date")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path.name} can't be used.", expected=expected, received=f"{type(error).__name__}: {error}"
        ) from error
    return results
