"""How any training is driven: calls of about a second, and between them checkpoints, the journal, progress."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headrace.console import progress
from headrace.engine import checkpoints
from headrace.engine.checkpoints import Checkpoint
from headrace.engine.journals import Journal
from headrace.errors import Deserted, Diverged
from headrace.spec import Train
from headrace.stages import Room

if TYPE_CHECKING:
    from headrace.engine.epochs import Advance

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How long one call takes, about."""

TOGETHER = 100
"""Steps of a call where several workers must make the same ones."""

LOWER = 0.1
"""What the learning rate is multiplied by when the loss has left the finite numbers."""

BLOWN_UP = 1e3
"""How many times the best epoch's a loss may be before it counts as blown up, if it is above the first epoch's, too."""

RETRIES = 3
"""How often it is lowered before the training fails."""

State = list[np.ndarray[Any, Any]]


class Course(Protocol):
    """What is driven: a compiled model on its feed, or a loop written by hand."""

    per_epoch: int
    """Steps of an epoch."""

    @property
    def names(self) -> list[str]:
        """The columns of a row of metrics."""

    @property
    def losses(self) -> list[int]:
        """Which of them must be finite."""

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended it."""

    def state(self) -> State:
        """Every value that the next step depends on."""

    def restore(self, state: State) -> None:
        """Put a state back."""

    def advance(self, epoch: int, step: int, steps: int) -> Advance:
        """Do some steps."""

    def lower_rate(self, factor: float) -> None:
        """Multiply every learning rate."""


@dataclass
class Outcome:
    """How far a training has come."""

    epochs: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done of the epoch that isn't."""
    history: dict[str, list[float]] = field(default_factory=dict)
    stopped: str | None = None
    """What has ended it before its time."""
    lowered: int = 0
    """How often the learning rate was lowered because the loss was no finite number."""
    steps: int = 0
    """Steps done in all."""
    seconds: float = 0.0
    """Of all attempts."""
    resumed: tuple[int, int] = (0, 0)
    """Epochs and steps that an earlier attempt had done."""
    checkpoints: dict[str, float] = field(default_factory=dict)
    """How many were written, in how many seconds, and their share of the time."""


Sampler = Callable[[Journal, int], None]
"""Takes samples after an epoch."""

Told = Callable[[bytes], bytes]
"""What the first worker says, told to all."""


def drive(
    course: Course,
    settings: Train,
    epochs: int,
    room: Room,
    journal: Journal,
    *,
    sampler: Sampler | None = None,
    told: Told | None = None,
    chief: bool = True,
) -> Outcome:
    """Train to the end, from the last checkpoint if there is one.

    Args:
        course: What is trained.
        settings: How.
        epochs: How many epochs in all.
        room: Where to work: checkpoints lie in its scratch folder.
        journal: What is written for people.
        sampler: Takes samples after an epoch.
        told: For several workers: how the first one tells the others where to go on.
        chief: Whether this is the first worker, which writes the checkpoints.

    Raises:
        Diverged: The loss is no finite number, and lowering the rate hasn't helped, or wasn't asked for. One that blows
            up, but is finite, is only warned of if the rate shall not be lowered: many a training has come back.
    """
    at = Outcome()
    found = checkpoints.newest(room.scratch)
    if told:
        message = told(checkpoints.packed(found) if found else b"")
        found = checkpoints.unpacked(io.BytesIO(message))[1] if message else None
    if found:
        course.restore(found.state)
        at = Outcome(found.epoch, found.step, found.history, lowered=found.facts["lowered"])
        at.resumed, at.seconds = (found.epoch, found.step), found.facts["seconds"]
        log.info("%s: going on after epoch %d of %d, step %d", room.node, at.epochs, epochs, at.step)
    # Where all workers must agree, or go back together to the end of an epoch, nothing is kept in the middle of one.
    careful = settings.on_divergence == "lower_rate"
    whole = careful or told is not None
    good = (course.state(), at.epochs, at.lowered) if careful else None
    keeper = checkpoints.Keeper(room.scratch)
    journal.write(at.history, 0, at.epochs)
    before, begun, pace = at.seconds, time.perf_counter(), 10
    guard, warned = _Guard(at.history), False
    with progress(room.node, epochs) as show:
        while at.epochs < epochs and not course.stopped:
            started = time.perf_counter()
            at.seconds = before + started - begun
            if settings.time_budget and _agreed(at.seconds >= settings.time_budget, told):
                at.stopped = "time budget"
                log.warning("%s: %g s are over after epoch %d", room.node, settings.time_budget, at.epochs)
                break
            done = course.advance(at.epochs, at.step, _steps(at, course, settings, epochs, pace, whole, sampler))
            lost = _lost(done, course, at.epochs)
            blown = None if lost else guard.blown_up(done.rows, course, at.epochs)
            if careful:
                lost = lost or blown
            elif blown and not warned:
                warned = True
                log.warning("%s: the loss is %s in epoch %d; train.on_divergence could go back", room.node, *blown)
            if lost:
                if good is None or at.lowered == RETRIES:
                    raise _diverged(*lost, settings, at.lowered)
                at.lowered += 1
                log.warning("%s: the loss is %s in epoch %d: on at a lower learning rate", room.node, *lost)
                course.restore(good[0])
                course.lower_rate(LOWER ** (at.lowered - good[2]))
                at.epochs, at.step = good[1], 0
                continue
            for name, values in zip(course.names, done.rows.T, strict=True):
                at.history.setdefault(name, []).extend(float(value) for value in values)
            journal.write(at.history, at.epochs, at.epochs + len(done.rows))
            at.epochs, at.step = at.epochs + len(done.rows), (at.step + done.steps) % course.per_epoch
            if good and len(done.rows):
                good = course.state(), at.epochs, at.lowered
            if sampler and len(done.rows) and (at.epochs % settings.sample_every == 0 or at.epochs == epochs):
                sampler(journal, at.epochs)
            now = time.perf_counter()
            if chief and keeper.due() and at.epochs < epochs and not course.stopped and not (whole and at.step):
                facts = {"seconds": before + now - begun, "lowered": at.lowered}
                keeper.save(Checkpoint(at.epochs, course.state(), at.history, at.step, facts), now)
            # The first call holds the tracing, so that its pace is less than that of the next ones.
            pace = TOGETHER if told else max(1, int(done.steps * min(LOOK_SECONDS / (now - started), 10)))
            latest = done.latest if done.latest is not None else [values[-1] for values in at.history.values()]
            if len(done.rows) > 1:
                show(at.epochs - len(done.rows) + 1, _in_words(course.names, done.rows[0]))
            show(at.epochs + at.step / course.per_epoch, _in_words(course.names, latest))
    if course.stopped:
        at.stopped = "early stopping"
    spent = time.perf_counter() - begun
    at.steps, at.seconds = at.epochs * course.per_epoch + at.step, before + spent
    at.checkpoints = {
        "written": keeper.written,
        "seconds": round(keeper.seconds, 3),
        "share": round(keeper.seconds / spent, 4),
    }
    return at


def _steps(
    at: Outcome, course: Course, settings: Train, epochs: int, pace: int, whole: bool, sampler: Sampler | None
) -> int:
    """Steps of the next call: to the end of an epoch, where something must be done there."""
    end = epochs
    if sampler:
        end = min(epochs, (at.epochs // settings.sample_every + 1) * settings.sample_every)
    if whole:
        end = at.epochs + 1
    left = (end - at.epochs) * course.per_epoch - at.step
    return min(pace, left, settings.steps_per_execution or left)


def _in_words(names: Sequence[str], row: Iterable[float]) -> str:
    """Metrics in one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in zip(names, row, strict=False))


def _agreed(answer: bool, told: Told | None) -> bool:
    """The answer of the first worker: the clocks of the others may say otherwise, and all must do the same steps."""
    return told(b"yes" if answer else b"no") == b"yes" if told else answer


def _lost(done: Advance, course: Course, epochs: int) -> tuple[str, int] | None:
    """The loss that is no finite number, and its epoch (from 1)."""
    rows = [*done.rows, *([] if done.latest is None else [done.latest])]
    for number, row in enumerate(rows, epochs + 1):
        losses = np.asarray(row)[course.losses]
        if not np.isfinite(losses).all():
            return " and ".join(str(value) for value in losses), number
    return None


class _Guard:
    """Sees a loss that is finite, and yet far above everything before.

    Args:
        history: Metrics of the epochs done before.
    """

    def __init__(self, history: Mapping[str, list[float]]) -> None:
        self._first = {name: values[0] for name, values in history.items() if values}
        self._best = {name: min(values) for name, values in history.items() if values}

    def blown_up(self, rows: Any, course: Course, epochs: int) -> tuple[str, int] | None:
        """The loss that has blown up in one of these epochs, in words, and which epoch (from 1)."""
        found = None
        for column in course.losses if len(rows) else []:
            name, losses = course.names[column], rows[:, column]
            first = self._first.setdefault(name, float(losses[0]))
            best = np.minimum.accumulate([self._best.get(name, losses[0]), *losses])
            self._best[name] = float(best[-1])
            high = np.flatnonzero((best[:-1] > 0) & (losses > np.maximum(BLOWN_UP * best[:-1], first)))
            if high.size and found is None:
                found = f"{losses[high[0]]:.4g}, after {best[high[0]]:.4g} at best,", epochs + int(high[0]) + 1
        return found


def _diverged(loss: str, epoch: int, settings: Train, lowered: int) -> Diverged:
    rate = f" (now {settings.learning_rate:g})" if settings.learning_rate else ""
    tried = f", the rate lowered {lowered} times" if lowered else ""
    return Diverged(
        f"The loss is {loss} in epoch {epoch}.",
        expected="a finite number" + f", below {BLOWN_UP:,.0f} times the best one" * (settings.on_divergence != "stop"),
        received=f"optimizer {settings.optimizer}, loss {settings.loss}{tried}",
        remedy=f"lower train.learning_rate{rate}, or look for extreme values in the data",
    )


def deserted(error: Exception) -> Deserted | None:
    """What to tell of an error that several workers meet when one of them is gone."""
    import tensorflow as tf

    if not isinstance(error, tf.errors.OpError):
        return None
    return Deserted(
        "Another worker is gone.",
        received=error.message.strip().splitlines()[0],
        remedy="start all workers again: they go on from the last checkpoint of the first one",
    )
