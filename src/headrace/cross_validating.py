"""Cut the training split into folds; lay their curves over each other: the mean, and the epoch at which it is best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, write_json
from headrace.errors import ConfigError, nearest
from headrace.jobs import Job
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import numpy as np

SMOOTHING = 0.9
"""Weight of the epochs before in the smoothed curve: what is left are trends over some ten epochs."""


def held_out(examples: int, fold: int, folds: int, repeat: int | None, seed: int) -> np.ndarray[Any, Any]:
    """Which examples a fold holds out: equally many for each; what the division leaves over is always learned from.

    Args:
        examples: How many there are.
        fold: The fold, from 1.
        folds: How many folds there are.
        repeat: The repeat (from 1) for which the folds are drawn; None for consecutive blocks, as Chollet 4.3.4 cuts
            them.
        seed: Seed of the draw.

    Returns:
        A mask, shape (examples,), bool.

    Raises:
        ConfigError: There are fewer examples than folds.
    """
    import numpy as np

    size = examples // folds
    if not size:
        raise ConfigError(
            f"The training split can't be cut into {folds} folds.",
            expected=f"at least {folds} examples",
            received=examples,
            remedy="set cross_validation.folds to a smaller number",
        )
    order = np.arange(examples)
    if repeat is not None:
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, repeat]))).permutation(examples)
    mask = np.zeros(examples, bool)
    mask[order[(fold - 1) * size : fold * size]] = True
    return mask


def validation_rows(examples: int, share: float) -> slice:
    """The examples that `train.validation_split` holds out: the last ones, of which there is this share."""
    return slice(int(examples * (1 - share)), None)


@stage(settings=("cross_validation",), versions=("scipy",))
def cross_validate(job: Job, room: Room, folds: Sequence[Artifact]) -> None:
    """Average the curves of the folds (Chollet 4.3.4), over all repeats (5.2).

    Args:
        job: The job; its `cross_validation` says which metric counts.
        room: Where to work.
        folds: Output of `train` for each fold, repeat by repeat.

    Raises:
        ConfigError: The metric is none of those that the folds have measured.
    """
    protocol = job.settings.cross_validation
    assert protocol is not None  # noqa: S101 (the chain calls this stage for such variants only)
    histories = [fold.json("history.json")["metrics"] for fold in folds]
    if protocol.metric not in histories[0]:
        raise ConfigError(
            f"cross_validation.metric: the folds have no `{protocol.metric}`: {nearest(protocol.metric, histories[0])}"
        )
    curves: list[list[float]] = [history[protocol.metric] for history in histories]
    best = min if protocol.mode == "min" else max
    # Early stopping may end folds at different epochs: the mean goes as far as all of them do.
    curve = [sum(values) / len(values) for values in zip(*curves, strict=False)]
    smooth = smoothed(curve)
    last = [values[-1] for values in curves]
    repeats = [last[first : first + protocol.folds] for first in range(0, len(last), protocol.folds)]
    mean = sum(last) / len(last)
    write_json(
        room.output / "cross_validation.json",
        {
            "metric": protocol.metric,
            "mode": protocol.mode,
            "folds": [
                {
                    **({"repeat": number // protocol.folds + 1} if protocol.shuffle else {}),
                    "fold": number % protocol.folds + 1,
                    "last": values[-1],
                    "best": best(values),
                    "curve": values,
                }
                for number, values in enumerate(curves)
            ],
            "mean": mean,
            "spread": standard_deviation(last),
            "repeats": [sum(values) / len(values) for values in repeats],
            "interval": interval(last),
            "curve": curve,
            "smoothed": smooth,
            "best_epoch": smooth.index(best(smooth)) + 1,
        },
    )


def standard_deviation(values: Sequence[float]) -> float | None:
    """How far single values lie from their mean; None for fewer than two."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def interval(values: Sequence[float]) -> list[float] | None:
    """The 95 % interval of the mean by Student's t; None for fewer than two values.

    The folds share most of what they learn from, and repeats all of it, so that they vary less than fresh data would:
    the interval tells how far the draw of folds and seeds moves the mean, and is narrower than one for new examples.
    """
    from scipy.special import stdtrit

    deviation = standard_deviation(values)
    if deviation is None:
        return None
    mean = sum(values) / len(values)
    reach = float(stdtrit(len(values) - 1, 0.975)) * deviation / math.sqrt(len(values))
    return [mean - reach, mean + reach]


def smoothed(curve: Sequence[float]) -> list[float]:
    """The exponential moving average of a curve, free of the bias towards its beginning."""
    means: list[float] = []
    total = weight = 0.0
    for value in curve:
        total = SMOOTHING * total + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        means.append(total / weight)
    return means
