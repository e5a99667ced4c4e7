"""Lay the curves of the folds over each other: their mean, and the epoch at which it is best."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.artifacts import Artifact, write_json
from headrace.errors import ConfigError, nearest
from headrace.jobs import Job
from headrace.stages import Room, stage

SMOOTHING = 0.9
"""Weight of the epochs before in the smoothed curve: what is left are trends over some ten epochs."""


@stage(settings=("cross_validation",))
def cross_validate(job: Job, room: Room, folds: Sequence[Artifact]) -> None:
    """Average the curves of the folds (Chollet 4.3.4).

    Args:
        job: The job; its `cross_validation` says which metric counts.
        room: Where to work.
        folds: Output of `train` for each fold.

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
    write_json(
        room.output / "cross_validation.json",
        {
            "metric": protocol.metric,
            "mode": protocol.mode,
            "folds": [
                {"fold": number, "last": values[-1], "best": best(values), "curve": values}
                for number, values in enumerate(curves, 1)
            ],
            "mean": sum(values[-1] for values in curves) / len(curves),
            "curve": curve,
            "smoothed": smooth,
            "best_epoch": smooth.index(best(smooth)) + 1,
        },
    )


def smoothed(curve: Sequence[float]) -> list[float]:
    """The exponential moving average of a curve, free of the bias towards its beginning."""
    means: list[float] = []
    total = weight = 0.0
    for value in curve:
        total = SMOOTHING * total + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        means.append(total / weight)
    return means
