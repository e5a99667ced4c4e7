"""What the documents say of results: the README's table of workloads, and a page for each study that was carried out.

`docs/results.json` holds what was measured: workload → variant → metric, values by seed, command, date.

```json
{"tiny": {"plain": {"metric": "mae", "values": {"0": 2.41, "1": 2.5}, "command": "headrace run …", "date": "…"}}}
```
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace import projects
from headrace.artifacts import write_atomically, write_json
from headrace.errors import ConfigError
from headrace.spec import Pipeline, Promise

BEGIN, END = "<!-- workloads:begin -->", "<!-- workloads:end -->"

HEADINGS = ("workload", "what it predicts", "book", "variant", "promise", "the book's figure", "measured")

Measured = Mapping[str, Any]


def table(root: Path) -> str:
    """The table in Markdown, and below it the seeds and the commands.

    Args:
        root: The project.

    Raises:
        ConfigError: `docs/results.json` is not as described above, or names a workload or variant that is not there.
    """
    results = _results(root / "docs" / "results.json")
    lines = [_row(HEADINGS), _row(["---"] * len(HEADINGS))]
    details: list[str] = []
    for name in projects.names():
        pipeline = projects.load(name)
        found = results.pop(name, {})
        lines += [_row(cells) for cells in _rows(pipeline, dict(found))]
        details += [
            f"- `{name}` `{variant}`, {one['date']}, `{one['command']}`: {one['metric']} {_seeds(one)}"
            for variant, one in found.items()
        ]
    if results:
        raise ConfigError(f"docs/results.json names workloads that are not there: {', '.join(results)}")
    folded = ["", "<details><summary>Seeds and commands</summary>", "", *details, "", "</details>"]
    return "\n".join([*lines, *(folded if details else [])])


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


def write(root: Path) -> Path:
    """Bring the README's table up to date and return the README's path."""
    path = root / "README.md"
    write_atomically(path, insert(path.read_text(), table(root)).encode())
    return path


def stale(root: Path) -> Path | None:
    """The README's path, if it has a table that is not up to date."""
    path = root / "README.md"
    if not path.is_file() or BEGIN not in path.read_text():
        return None
    text = path.read_text()
    return None if insert(text, table(root)) == text else path


def record(root: Path, found: Mapping[str, Any], command: str) -> list[Path]:
    """Write what a study has found into the documents: a page, and the results of variants for the README's table.

    Args:
        root: The project.
        found: Contents of `study.json`.
        command: The command that it was carried out by.

    Returns:
        The files that were written.
    """
    date = time.strftime("%Y-%m-%d", time.gmtime())
    page = root / "docs" / "studies" / f"{found['workload']}-{found['study']}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, page_of(found, command, date).encode())
    if found["on"] != "test" or found["data"] != "real" or found["profile"] != "full":
        return [page]
    variants = projects.load(found["workload"]).variants
    measured = {
        cell["cell"]: {
            "metric": found["metric"],
            "values": {seed: round(value, 5) for seed, value in cell["values"].items()},
            "command": command,
            "date": date,
        }
        for cell in found["cells"]
        if cell["cell"] in variants and cell["settings"] == {"variant": cell["cell"]} and cell["value"] is not None
    }
    return [page, *(keep(root, found["workload"], measured) if measured else [])]


def keep(root: Path, workload: str, measured: Mapping[str, Measured]) -> list[Path]:
    """Write what was measured of some variants beside the results of the others, and bring the README up to date.

    Args:
        root: The project.
        workload: The workload.
        measured: Variant → metric, values by seed, command, date.

    Returns:
        The files that were written.

    Raises:
        ConfigError: `docs/results.json` is there and can't be read; it stays as it is.
    """
    path = root / "docs" / "results.json"
    results = _results(path)
    results[workload] = {**results.get(workload, {}), **measured}
    write_json(path, results)
    return [path, write(root)]


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
        f"{', '.join(map(str, found['seeds']))}: {found['metric']} on {found['on'].replace('_', ' ')}. "
        f"{found['basis']}",
        "",
    ]
    lines += [f"- {one['reason']}: {marks[one['passed']]}" for one in found["findings"]]
    lines += ["", _row(("rank", "cell", found["metric"], "95 % interval", "by seed", "parameters", "seconds"))]
    lines += [_row(["---"] * 7)]
    for cell in found["cells"]:
        seeds = ", ".join(short(value) for value in cell["values"].values()) or cell["problem"]
        parameters = "" if cell["parameters"] is None else f"{cell['parameters']:,}"
        interval = spread(cell["interval"]) if cell["interval"] else ""
        value = "" if cell["value"] is None else short(cell["value"])
        lines.append(_row((cell["rank"] or "", cell["cell"], value, interval, seeds, parameters, cell["seconds"])))
    return "\n".join([*lines, ""])


def _rows(pipeline: Pipeline, found: dict[str, Measured]) -> Iterator[list[str]]:
    """A row for each variant that promises or has shown something; what all have in common stands in the first one."""
    common = [f"[`{pipeline.name}`]({projects.file(pipeline.name)})", pipeline.title, pipeline.book]
    told = [name for name, variant in pipeline.variants.items() if variant.promises or name in found]
    for name in told or [pipeline.default_variant]:
        variant, measured = pipeline.variants[name], found.pop(name, None)
        promises = variant.promises or (None,)
        for promise in promises:
            yield [*common, f"`{name}`", *_promised(promise), _measured(promise, measured)]
            common = [""] * 3
    if found:
        raise ConfigError(f"docs/results.json names variants that {pipeline.name} has not: {', '.join(found)}")


def _promised(promise: Promise | None) -> tuple[str, str]:
    if promise is None:
        return "", ""
    where = "test" if promise.on == "test" else "cross-validated"
    source = f" ({promise.source})" if promise.source else ""
    return f"{where} {promise.metric} {promise.bounds}", f"{promise.book:g}{source}" if promise.book is not None else ""


def _measured(promise: Promise | None, measured: Measured | None) -> str:
    """Mean and range over the seeds, if it is what was promised that was measured."""
    if measured is None or (promise and promise.metric != measured["metric"]):
        return ""
    values = list(measured["values"].values())
    mean = sum(values) / len(values)
    kept = "" if promise is None or all(promise.holds(value) for value in values) else ", **promise not kept**"
    seeds = f"{len(values)} seeds" if len(values) > 1 else "1 seed"
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f}, {seeds}){kept}"


def _seeds(measured: Measured) -> str:
    return ", ".join(f"{value:.3f} (seed {seed})" for seed, value in measured["values"].items())


def _row(cells: Any) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _results(path: Path) -> dict[str, dict[str, Measured]]:
    if not path.is_file():
        return {}
    expected = '{workload: {variant: {"metric": …, "values": {seed: number}, "command": …, "date": …}}}'
    try:
        results: dict[str, dict[str, Measured]] = json.loads(path.read_text())
        for variants in results.values():
            for measured in variants.values():
                [float(value) for value in measured["values"].values()]
                [measured[name] for name in ("metric", "command", "date")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path.name} can't be used.", expected=expected, received=f"{type(error).__name__}: {error}"
        ) from error
    return results
