"""Charts as SVG in the colours of the page on which they stand, light or dark. Equal data, equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Array = np.ndarray[Any, Any]

# Stand-ins that matplotlib writes into the SVG and the page replaces by its own colours.
INK, FAINT, GRID, MAIN, ACCENT = "#101112", "#202122", "#303132", "#404142", "#505152"
KINDS = tuple(f"#6{place}616{place}" for place in range(8))
"""Of things that are told apart: classes, cells of a study. The first two are `MAIN` and `ACCENT` again."""
_VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--line", MAIN: "--main", ACCENT: "--accent"} | {
    stand_in: f"--kind-{place}" for place, stand_in in enumerate(KINDS)
}

POINTS = 1500
"""Points of a scatter plot: of more examples those that stand out, and every n-th of the others."""
SKIPPED = 10
"""Epochs at the beginning that are not drawn if there are many: they would press the rest flat."""


# ------------------------------------------------------------------------------------------------- canvas


@contextmanager
def canvas(width: float = 5.6, height: float = 3.6) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this many inches, drawn without pyplot and its global figures."""
    import matplotlib
    from matplotlib.figure import Figure

    look = {
        "axes.edgecolor": GRID,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "font.size": 10,
        "legend.frameon": False,
        "text.color": INK,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        # Text stays text, in the reader's own fonts.
        "svg.fonttype": "none",
    }
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def to_svg(figure: Figure, label: str) -> Markup:
    """The figure as SVG to stand in a page, safe to insert: matplotlib escapes all text.

    Args:
        figure: What was drawn.
        label: What it shows, for those who can't see it; another one for each figure of a page.
    """
    import matplotlib
    from markupsafe import Markup, escape

    buffer = io.StringIO()
    # The salt makes ids equal from run to run, and different from those of other figures on the page.
    with matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    # In the page's own font, whatever matplotlib has measured with.
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"|(?<=\n) +', "", text)
    # Ids that nothing refers to only have to be different on the whole page.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    # Only the picture's proportions count, the page gives it its width.
    box = re.search(r'viewBox="([^"]+)"', text)
    opening = f'<svg class="chart" viewBox="{box[1] if box else ""}" role="img" aria-label="{escape(label)}">'
    return Markup(re.sub(r"<svg [^>]*>", lambda _: opening, text, count=1))


# ------------------------------------------------------------------------------------------------- curves


def skipped(curve: Sequence[float]) -> int:
    """How many epochs at the beginning of a curve are not drawn."""
    return SKIPPED if len(curve) > 4 * SKIPPED else 0


def draw_line(axes: Axes, curve: Sequence[float], skip: int = 0, **style: Any) -> None:
    """Draw a curve over its epochs, without those at the beginning; a curve of one epoch is a point."""
    marker: dict[str, Any] = {"marker": "o", "markersize": 4} if len(curve) - skip == 1 else {}
    axes.plot(range(skip + 1, len(curve) + 1), curve[skip:], **marker, **style)


def folds(found: Mapping[str, Any]) -> Markup:
    """The curve of each fold, their mean, the smoothed mean and the epoch at which it is best.

    Args:
        found: The contents of `cross_validation.json`.
    """
    skip = skipped(found["curve"])
    with canvas() as (figure, axes):
        for place, fold in enumerate(found["folds"]):
            label = "folds" if place == 0 else None
            draw_line(axes, fold["curve"], skip, color=FAINT, linewidth=0.8, alpha=0.7, label=label)
        draw_line(axes, found["curve"], skip, color=MAIN, linewidth=1.6, label="mean of the folds")
        draw_line(axes, found["smoothed"], skip, color=ACCENT, linewidth=2.2, label="smoothed")
        # The smoothed curve comes from far above: it would press the others flat.
        drawn = [value for fold in found["folds"] for value in fold["curve"][skip:]]
        axes.set_ylim(min(drawn) * 0.97, max(drawn) * 1.03)
        axes.axvline(found["best_epoch"], color=ACCENT, linestyle=(0, (2, 2)), linewidth=1.4, label="best epoch")
        axes.set(xlabel="epoch", ylabel=found["metric"])
        _whole_numbers(axes)
        _legend(figure)
        return to_svg(figure, f"{found['metric']} of each fold by epoch")


def history(metrics: Mapping[str, Sequence[float]], metric: str) -> Markup:
    """The curve of one metric in training, and in validation if it was watched."""
    skip = skipped(metrics[metric])
    with canvas() as (figure, axes):
        draw_line(axes, metrics[metric], skip, color=MAIN, linewidth=1.8, label="training")
        drawn = list(metrics[metric][skip:])
        if f"val_{metric}" in metrics:
            draw_line(axes, metrics[f"val_{metric}"], skip, color=ACCENT, linewidth=1.8, label="validation")
            drawn += metrics[f"val_{metric}"][skip:]
            _legend(figure)
        if metric == "learning_rate" and min(drawn) > 0 and max(drawn) > 20 * min(drawn):
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=metric)
        _whole_numbers(axes)
        return to_svg(figure, f"{metric} by epoch")


def _legend(figure: Figure, size: float = 9) -> None:
    """What is what, above the axes, where it hides nothing."""
    figure.legend(loc="outside upper left", ncols=3, fontsize=size, borderaxespad=0, columnspacing=1.2)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


# ---------------------------------------------------------------------------------------------- regression


def thinned(errors: Array) -> Array:
    """Positions of the points to draw: the largest errors, and every n-th of the others.

    Args:
        errors: The size of each point's error (points,).

    Returns:
        Ascending positions, at most about `POINTS`; all of them if there are no more.
    """
    import numpy as np

    if len(errors) <= POINTS:
        return np.arange(len(errors))
    worst = np.argsort(errors, kind="stable")[-POINTS // 3 :]
    others = np.linspace(0, len(errors) - 1, POINTS - len(worst)).round().astype(int)
    return np.unique(np.concatenate([worst, others]))


def predictions(truth: Array, predicted: Array, target: str) -> Markup:
    """Predictions against truth, both of any shape."""
    true, given = truth.reshape(-1), predicted.reshape(-1)
    low, high = min(true.min(), given.min()), max(true.max(), given.max())
    shown = thinned(abs(given - true))
    with canvas(5.6, 4.6) as (figure, axes):
        axes.plot([low, high], [low, high], color=FAINT, linewidth=1, linestyle="--")
        _dots(axes, true[shown], given[shown])
        axes.set(xlabel=f"truth: {target}", ylabel="prediction", aspect="equal")
        return to_svg(figure, f"predictions against truth: {target}")


def residuals(truth: Array, predicted: Array, target: str) -> Markup:
    """The error of each prediction by its size, both of any shape."""
    true, given = truth.reshape(-1), predicted.reshape(-1)
    shown = thinned(abs(given - true))
    with canvas() as (figure, axes):
        axes.axhline(0, color=FAINT, linewidth=1, linestyle="--")
        _dots(axes, given[shown], (given - true)[shown])
        axes.set(xlabel=f"prediction: {target}", ylabel="prediction minus truth")
        return to_svg(figure, f"residuals: {target}")


def histogram(values: Array, words: str) -> Markup:
    """How often values of each size occur; the line is zero."""
    import numpy as np

    counts, edges = np.histogram(values, bins=30)
    with canvas() as (figure, axes):
        axes.stairs(counts, edges, fill=True, color=MAIN, alpha=0.8)
        axes.axvline(0, color=ACCENT, linewidth=1.4, linestyle="--")
        axes.set(xlabel=words, ylabel="how often")
        return to_svg(figure, f"histogram: {words}")


def fitted(inputs: Array, truth: Array, predicted: Array, names: tuple[str, str]) -> Markup:
    """Truth and prediction over the only input, all (examples,); the names are the input's and the target's."""
    order = inputs.argsort(kind="stable")
    shown = thinned(abs(predicted - truth))
    with canvas() as (figure, axes):
        _dots(axes, inputs[shown], truth[shown], label="truth")
        thin = order[:: max(len(order) // POINTS, 1)]
        axes.plot(inputs[thin], predicted[thin], color=ACCENT, linewidth=1.8, label="prediction")
        axes.set(xlabel=names[0], ylabel=names[1])
        _legend(figure)
        return to_svg(figure, f"{names[1]} over {names[0]}")


def _dots(axes: Axes, x: Array, y: Array, colour: str = MAIN, **style: Any) -> None:
    axes.plot(x, y, "o", color=colour, markersize=3.6, markeredgewidth=0, alpha=0.6, **style)


# ------------------------------------------------------------------------------------------- classification


def plane(
    points: Array, answers: Sequence[str], wrong: Array, margins: Array | None, axes_names: tuple[str, str]
) -> Markup:
    """Examples of two columns, coloured by the answer, wrong ones crossed; the line where the answer changes.

    Args:
        points: (examples, 2)
        answers: What was answered to each.
        wrong: Whether that was wrong (examples,).
        margins: For each of some classes, by how much it leads in each answer (classes, examples): its line is where
            that is zero, interpolated between the examples.
        axes_names: The names of the columns.
    """
    import numpy as np

    shown = thinned(wrong.astype(float))
    names, kinds = np.unique(np.asarray(answers), return_inverse=True)
    with canvas(5.6, 4.6) as (figure, axes):
        for kind, name in enumerate(names.tolist()):
            here = shown[kinds[shown] == kind]
            _dots(axes, points[here, 0], points[here, 1], KINDS[kind % len(KINDS)], label=f"answer {name}")
        crossed = shown[wrong[shown]]
        if len(crossed):
            axes.plot(points[crossed, 0], points[crossed, 1], "x", color=INK, markersize=6, label="wrong")
        for margin in () if margins is None else margins:
            _border(axes, points, margin)
        axes.set(xlabel=axes_names[0], ylabel=axes_names[1])
        if len(names) <= len(KINDS):
            _legend(figure)
        return to_svg(figure, f"answers by {axes_names[0]} and {axes_names[1]}")


def _border(axes: Axes, points: Array, margin: Array) -> None:
    """The line on which a margin is zero, by triangles between the examples."""
    from matplotlib.tri import Triangulation

    if margin.min() >= 0 or margin.max() <= 0:
        return
    try:
        triangles = Triangulation(points[:, 0], points[:, 1])
    except (RuntimeError, ValueError):
        return  # fewer than three points, or all on one line
    axes.tricontour(triangles, margin, levels=[0.0], colors=INK, linewidths=1.4)


def rates(curve: Mapping[str, Sequence[float]], words: tuple[str, str], label: str, chance: bool = False) -> Markup:
    """One rate against another, as a ROC curve; with the line of chance where there is one."""
    with canvas(5.6, 4.2) as (figure, axes):
        if chance:
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="chance")
            _legend(figure)
        axes.plot(curve["x"], curve["y"], color=MAIN, linewidth=1.8)
        axes.set(xlabel=words[0], ylabel=words[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        return to_svg(figure, label)


def calibration(bins: Sequence[Mapping[str, Any]], label: str) -> Markup:
    """How often answers of each confidence are right; a larger point stands for more examples."""
    filled = [one for one in bins if one["examples"]]
    most = max((one["examples"] for one in filled), default=1)
    with canvas(5.6, 4.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="as sure as right")
        x, y = [one["confidence"] for one in filled], [one["accuracy"] for one in filled]
        axes.plot(x, y, color=MAIN, linewidth=1.4)
        axes.scatter(x, y, s=[12 + 90 * one["examples"] / most for one in filled], color=MAIN, linewidths=0)
        low = min([0.5, *x, *y]) if filled else 0
        axes.set(xlabel="confidence of the answer", ylabel="share that is right")
        axes.set(xlim=(low - 0.02, 1.02), ylim=(low - 0.02, 1.02))
        _legend(figure)
        return to_svg(figure, label)


# ---------------------------------------------------------------------------------------------- forecasting


def forecast(truth: Array, predicted: Array, label: str) -> Markup:
    """What was forecast for the steps to come, and what came, both (steps,)."""
    with canvas(4.6, 2.6) as (figure, axes):
        steps = range(1, len(truth) + 1)
        axes.plot(steps, truth, color=MAIN, linewidth=1.6, label="truth")
        axes.plot(steps, predicted, color=ACCENT, linewidth=1.6, label="forecast")
        axes.set(xlabel="step")
        _whole_numbers(axes)
        _legend(figure)
        return to_svg(figure, label)


def along(truth: Array, predicted: Array, target: str) -> Markup:
    """Truth and forecasts of one step each in their order, both (examples,)."""
    with canvas(5.6, 3.2) as (figure, axes):
        axes.plot(truth, color=MAIN, linewidth=1.4, label="truth")
        axes.plot(predicted, color=ACCENT, linewidth=1.2, label="forecast")
        axes.set(xlabel="test example", ylabel=target)
        _legend(figure)
        return to_svg(figure, f"forecasts and truth in order: {target}")


def horizon(errors: Sequence[float], words: str) -> Markup:
    """The mean error of each step that is forecast."""
    with canvas() as (figure, axes):
        axes.plot(range(1, len(errors) + 1), errors, color=MAIN, linewidth=1.8, marker="o", markersize=3)
        axes.set(xlabel="step", ylabel=words)
        axes.set_ylim(bottom=0)
        _whole_numbers(axes)
        return to_svg(figure, f"error by step: {words}")


# ------------------------------------------------------------------------------------------------- fan-outs


def ranking(cells: Sequence[Mapping[str, Any]], metric: str) -> Markup:
    """The value of each cell of a study with its interval, the best on top."""
    with canvas(5.6, 1.2 + 0.26 * len(cells)) as (figure, axes):
        for place, cell in enumerate(reversed(cells)):
            for value in cell["values"].values():
                axes.plot([value], [place], marker="|", color=ACCENT, markersize=6, alpha=0.7)
            low, high = cell["interval"] or (cell["value"], cell["value"])
            axes.plot([low, high], [place, place], color=MAIN, linewidth=1.4)
            axes.plot([cell["value"]], [place], marker="o", color=MAIN, markersize=4.5)
        axes.set_yticks(range(len(cells)), [cell["cell"] for cell in reversed(cells)])
        axes.set(xlabel=metric)
        return to_svg(figure, f"{metric} of each cell")


def curves(cells: Sequence[Mapping[str, Any]]) -> Markup:
    """The curves of all cells of a study over each other, a colour and a dash for each cell."""
    dashes = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
    with canvas(5.6, 4.2) as (figure, axes):
        drawn: list[float] = []
        for place, cell in enumerate(cells):
            style: dict[str, Any] = {
                "color": KINDS[place % len(KINDS)],
                "linestyle": dashes[place // len(KINDS) % len(dashes)],
            }
            for number, curve in enumerate(cell["curves"].values()):
                skip = min(skipped(curve), len(curve) - 1)
                label = cell["cell"] if number == 0 else None
                draw_line(axes, curve, skip, **style, linewidth=1.4, alpha=0.9, label=label)
                drawn += curve[max(skip, len(curve) // 10) :]
        low, high = min(drawn), max(drawn)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)
        names = list(dict.fromkeys(cell["curve"] for cell in cells))
        axes.set(xlabel="epoch", ylabel=" / ".join(names))
        _whole_numbers(axes)
        _legend(figure, 8)
        return to_svg(figure, f"{' / '.join(names)} of all cells by epoch")


def progress(trials: Sequence[tuple[int, float]], objective: str, mode: str) -> Markup:
    """The objective of each trial (its number, its value), and the best one so far; the mode is `min` or `max`."""
    better = min if mode == "min" else max
    best = [better(value for _, value in trials[: count + 1]) for count in range(len(trials))]
    with canvas() as (figure, axes):
        axes.plot([number for number, _ in trials], [value for _, value in trials], "o", color=MAIN, markersize=4)
        axes.step(
            [number for number, _ in trials], best, where="post", color=ACCENT, linewidth=1.8, label="best so far"
        )
        axes.set(xlabel="trial", ylabel=objective)
        _whole_numbers(axes)
        _legend(figure)
        return to_svg(figure, f"{objective} of each trial")


def parallel(columns: Mapping[str, Sequence[Any]], mode: str) -> Markup:
    """Parallel coordinates: an upright axis for each setting, and the last one for the objective.

    Args:
        columns: Name → a value of each trial, numbers or words.
        mode: Whether `min` or `max` of the last column is best: the better, the darker a line.
    """
    import numpy as np

    from headrace.showing.pages import number

    objective = list(columns.values())[-1]
    with canvas(5.6, 3.8) as (figure, axes):
        heights = []
        for place, values in enumerate(columns.values()):
            ticks, marks, scaled = _axis(values)
            heights.append(scaled)
            axes.axvline(place, color=FAINT, linewidth=0.8)
            for tick, mark in zip(ticks, marks, strict=True):
                axes.annotate(number(tick), (place, mark), xytext=(3, 0), textcoords="offset points", fontsize=7.5)
        ranks = np.argsort(np.argsort(objective)) / max(len(objective) - 1, 1)
        quality = 1 - ranks if mode == "min" else ranks
        for line, good in zip(zip(*heights, strict=True), quality, strict=True):
            axes.plot(range(len(columns)), line, color=MAIN, alpha=0.15 + 0.85 * float(good), linewidth=1.3)
        axes.set_xticks(range(len(columns)), [name.rpartition(".")[2] for name in columns])
        axes.set_yticks([])
        axes.grid(visible=False)
        return to_svg(figure, f"settings and {list(columns)[-1]} of each trial")


def _axis(values: Sequence[Any]) -> tuple[list[Any], list[float], list[float]]:
    """An upright axis: what is written beside it, where, and where each value lies, from 0 to 1."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values, default=0), max(values, default=0)

        def height(value: float) -> float:
            return (value - low) / (high - low) if high > low else 0.5

        ticks = sorted(set(values))
        ticks = [low, high] if len(ticks) > 5 else ticks
        return ticks, [height(value) for value in ticks], [height(value) for value in values]
    words = list(dict.fromkeys(map(str, values)))
    marks = [place / (len(words) - 1) if len(words) > 1 else 0.5 for place in range(len(words))]
    return words, marks, [marks[words.index(str(value))] for value in values]
