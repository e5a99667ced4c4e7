"""Prefect artifacts: small, under keys that stay the same from run to run, so that the UI keeps their history."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from headrace.jobs import Job
from headrace.showing.pages import number

LIMIT = 150_000
"""Bytes in one artifact: the browser takes seconds for a megabyte, and hangs at five."""
MOST_ROWS = 200
MOST_CURVES = 20

Row = Mapping[str, Any]


def key(job: Job, name: str) -> str:
    """The key of an artifact: `house-prices-statistics`."""
    return f"{job.workload}-{name}".lower().replace("_", "-").replace(" ", "-")


def table(job: Job, name: str, rows: Sequence[Row], description: str) -> None:
    """Show a table that can be searched."""
    if len(rows) > MOST_ROWS:
        description += f" (the first {MOST_ROWS} of {len(rows)} rows)"
    cells = [{column: number(value) for column, value in row.items()} for row in rows[:MOST_ROWS]]
    create_table_artifact(cells, key=key(job, name), description=description)


def markdown(job: Job, name: str, text: str, description: str) -> None:
    """Show text with tables and charts; what goes beyond the limit is left out, whole paragraphs at a time."""
    kept: list[str] = []
    size = 0
    for paragraph in text.split("\n\n"):
        size += len(paragraph.encode()) + 2
        if size > LIMIT:
            kept.append("…")
            break
        kept.append(paragraph)
    create_markdown_artifact("\n\n".join(kept), key=key(job, name), description=description)


def grid(values: Sequence[Row]) -> str:
    """A table in markdown."""
    columns = list(dict.fromkeys(column for row in values for column in row))
    cells = [columns, ["---"] * len(columns), *([number(row.get(column)) for column in columns] for row in values)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in cells)


def chart(
    curves: Mapping[str, Sequence[float]],
    *,
    title: str,
    bold: Mapping[str, Sequence[float]] | None = None,
    mark: int | None = None,
) -> str:
    """Curves over the epochs as a picture inside markdown.

    Args:
        curves: Label → a value for each epoch; empty ones are left out.
        title: What the values are.
        bold: Curves that stand out.
        mark: An epoch to be marked.
    """
    # Not pyplot: it keeps every figure, and a window system, in a state that threads share.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), dpi=80, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="epoch")
    thin = dict(list(curves.items())[:MOST_CURVES])
    for label, values in thin.items():
        if values:
            axes.plot(range(1, len(values) + 1), values, label=label, linewidth=1, alpha=0.6 if bold else 1)
    for label, values in (bold or {}).items():
        axes.plot(range(1, len(values) + 1), values, label=label, linewidth=2, color="black")
    if mark is not None:
        axes.axvline(mark, linestyle=":", color="black", linewidth=1)
    _fit(axes, [*thin.values(), *(bold or {}).values()])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return f"![{title}](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"


def _fit(axes: Any, curves: Sequence[Sequence[float]]) -> None:
    """Leave the first tenth of the epochs out of the scale: they are so bad that they would flatten all the rest."""
    settled = [value for values in curves for value in values[len(values) // 10 :]]
    if settled:
        low, high = min(settled), max(settled)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)
