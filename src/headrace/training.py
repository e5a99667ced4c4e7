"""Train a model under a strategy, with early stopping, checkpoints, TensorBoard and a metrics log; resumed exactly.

A training that is killed goes on from its last checkpoint when the same command is given again, and ends with the same
weights, bit for bit, as one that was left alone: the order of the examples is a pure function of seed and epoch, and a
checkpoint holds every variable that a step reads.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import fingerprints
from headrace.artifacts import Artifact, write_json
from headrace.console import progress
from headrace.errors import ConfigError, Diverged, StageFailed
from headrace.jobs import Job
from headrace.spec import Train
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from headrace.epochs import Program, Split

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 1.0
"""How much work a killed training loses at most, unless one epoch takes longer."""


@stage(
    settings=("train", "model"),
    functions=("model",),
    versions=("tensorflow", "keras", "numpy"),
    volatile=("training.json", "metrics.jsonl", "logs/*"),
    facts=lambda job: {"seed": job.seed},
)
def train(
    job: Job,
    room: Room,
    records: Artifact,
    *,
    fold: int | None = None,
    folds: int | None = None,
    chosen: Artifact | None = None,
) -> None:
    """Train one model: on the whole training split, or on all folds but one.

    Args:
        job: The job.
        room: Where to work.
        records: Output of `preprocess`.
        fold: The fold (from 1) that is held out and watched; None to train on everything.
        folds: How many folds there are.
        chosen: Output of `cross_validate`, whose number of epochs is taken if the settings say so.

    Raises:
        Diverged: The loss became infinite or no number.
        ConfigError: A name of a loss, metric or optimizer is unknown to Keras, or early stopping has nothing to watch.
    """
    settings = job.settings.train
    protocol = job.settings.cross_validation
    epochs = settings.epochs
    if chosen and protocol and protocol.choose_epochs:
        epochs = int(chosen.json("cross_validation.json")["best_epoch"])
    learn, held = _splits(records, settings, fold, folds)
    seed = node_seed(job.seed, fold)
    with _quiet_keras(), _program(job, records, settings, learn, seed) as (program, fresh):
        outcome = _fit(program, learn, held, seed, epochs, room)
        for variable, value in zip(fresh.variables, program.weights(), strict=True):
            variable.assign(value)
        save_model(fresh, room.output / "model.keras")
        best = program.best_epoch
    write_json(
        room.output / "history.json",
        {
            "epochs": outcome.done,
            "metrics": outcome.history,
            "stopped": "early stopping" if outcome.stopped else None,
            "best_epoch": best,
        },
    )
    write_json(
        room.output / "training.json",
        {
            "seconds": round(outcome.seconds, 3),
            "strategy": type(program.strategy).__name__,
            "replicas": program.replicas,
            "parameters": fresh.count_params(),
            "examples": len(learn),
            "steps": outcome.done * -(-len(learn) // settings.batch_size),
            "resumed_from_epoch": outcome.resumed,
        },
    )


def node_seed(seed: int, fold: int | None) -> int:
    """The seed of one training: the job's own for the final fit, and another one for each fold."""
    import numpy as np

    return seed if fold is None else int(np.random.SeedSequence([seed, fold]).generate_state(1)[0] % 2**31)


@lru_cache(maxsize=1)
def _training_split(records: Artifact) -> Split:
    """The examples of the training split in memory, read once for all folds."""
    from headrace.epochs import Split
    from headrace.inputs import arrays, read_info

    info = read_info(records.path)
    values = arrays(records.path, "train")
    inputs, targets = ({name: values[name] for name in info.named(role)} for role in ("input", "target"))
    return Split(inputs, targets)


def _splits(records: Artifact, settings: Train, fold: int | None, folds: int | None) -> tuple[Split, Split | None]:
    """The examples to learn from and those held out: a fold, the tail of the split, or none."""
    import numpy as np

    whole = _training_split(records)
    if fold is not None and folds is not None:
        size = len(whole) // folds
        if not size:
            raise ConfigError(
                f"The training split can't be cut into {folds} folds.",
                expected=f"at least {folds} examples",
                received=len(whole),
                remedy="set cross_validation.folds to a smaller number",
            )
        # Consecutive blocks, as the book cuts them; what is left over by the division is always learned from.
        inside = np.zeros(len(whole), bool)
        inside[(fold - 1) * size : fold * size] = True
        return whole.take(~inside), whole.take(inside)
    if settings.validation_split:
        cut = int(len(whole) * (1 - settings.validation_split))
        return whole.take(slice(0, cut)), whole.take(slice(cut, None))
    return whole, None


# ----------------------------------------------------------------------------------------------- programs

_programs: dict[str, Program] = {}
_programs_lock = threading.Lock()


@contextmanager
def _program(
    job: Job, records: Artifact, settings: Train, sample: Split, seed: int
) -> Iterator[tuple[Program, keras.Model]]:
    """A program at the initial state of this seed, and an untrained copy of its model to be saved in the end.

    Tracing costs more than training a small network. A program is kept for the next training that differs from this
    one in data and seed only, such as the next fold; while it is in use nobody else gets it.
    """
    import keras

    from headrace.epochs import Program
    from headrace.inputs import read_info
    from headrace.strategies import choose

    def build(scope: Any) -> keras.Model:
        # Names of layers count up in a process; the model of the fourth fold must be called as in a fresh process.
        keras.backend.clear_session(free_memory=False)
        keras.utils.set_random_seed(seed)
        try:
            with scope:
                return job.pipeline.model(features, **job.settings.model)
        except Exception as error:
            raise StageFailed(
                f"`model` of {job.workload} can't be built.",
                received=f"{type(error).__name__}: {error}".splitlines()[0],
                remedy=f"see `model` in pipelines/{job.workload}.py, and model.* in `headrace show {job.workload}`",
            ) from error

    features = read_info(records.path).named("input")
    traits = settings.model_dump(mode="json", exclude={"epochs"})
    key = fingerprints.digest(
        [records.digest, traits, job.settings.model, fingerprints.function_code(job.pipeline.model)]
    )
    with _programs_lock:
        program = _programs.pop(key, None)
    fresh = build(choose("default").scope())
    if program is None:
        strategy = choose(settings.strategy)
        try:
            program = Program(build(strategy.scope()), settings, strategy, sample)
        except ValueError as error:
            raise ConfigError(
                f"Keras does not accept the training settings of {job.title}.",
                received=str(error).splitlines()[0],
                remedy="see train.optimizer, train.loss and train.metrics in `headrace show`",
            ) from error
    program.restart([variable.numpy() for variable in fresh.variables])
    yield program, fresh
    # A failed training drops its program: nobody knows in what state it is.
    program.forget()
    with _programs_lock:
        _programs.clear()
        _programs[key] = program


# ------------------------------------------------------------------------------------------------ the fit


@dataclass
class _Outcome:
    done: int
    history: dict[str, list[float]]
    stopped: bool
    resumed: int
    seconds: float


def _fit(program: Program, learn: Split, held: Split | None, seed: int, epochs: int, room: Room) -> _Outcome:
    """Train in chunks of epochs, each followed by a checkpoint, a line for each epoch, and progress."""
    import numpy as np

    from headrace import checkpoints

    history: dict[str, list[float]] = {}
    done = 0
    found = checkpoints.newest(room.scratch)
    if found:
        program.restore(found.state)
        history, done = found.history, found.epoch
        log.info("%s: going on after epoch %d of %d", room.node, done, epochs)
    resumed = done
    journal = Journal(room.output)
    journal.write(history, 0, done)
    begun = time.perf_counter()
    pace = 1  # epochs to do at once
    with progress(room.node, epochs) as advance:
        while done < epochs and not program.stopped:
            started = time.perf_counter()
            count = min(pace, epochs - done, program.chunk(len(learn)))
            rows = program.run(learn, held, seed, done, count)
            if not np.isfinite(rows[:, 0]).all():
                raise _diverged(rows, done, settings=program.settings)
            for name, values in zip(program.names, rows.T, strict=True):
                history.setdefault(name, []).extend(float(value) for value in values)
            journal.write(history, done, done + len(rows))
            done += len(rows)
            spent = time.perf_counter() - started
            if done < epochs:
                checkpoints.save(room.scratch, checkpoints.Checkpoint(done, program.state, history))
            # The first chunk holds the tracing, so that its pace says nothing yet.
            pace = 10 if pace == 1 else max(1, int(len(rows) * min(CHECKPOINT_SECONDS / spent, 10)))
            advance(done, "  ".join(f"{name} {values[-1]:.4g}" for name, values in history.items()))
    journal.close()
    return _Outcome(done, history, program.stopped, resumed, time.perf_counter() - begun)


def _diverged(rows: np.ndarray[Any, Any], done: int, settings: Train) -> Diverged:
    import numpy as np

    epoch = done + int(np.argmin(np.isfinite(rows[:, 0]))) + 1
    rate = f" (now {settings.learning_rate:g})" if settings.learning_rate else ""
    return Diverged(
        f"The loss is {rows[-1, 0]} in epoch {epoch}.",
        expected="a finite number",
        received=f"optimizer {settings.optimizer}, loss {settings.loss}",
        remedy=f"lower train.learning_rate{rate}, or look for extreme values in the data",
    )


class Journal:
    """What a training writes for people while it goes on: `metrics.jsonl`, and TensorBoard's logs.

    Args:
        folder: Where `metrics.jsonl` and `logs/` go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines = (folder / "metrics.jsonl").open("a")
        self._events: dict[str, tf.io.TFRecordWriter] = {}

    def write(self, history: Mapping[str, list[float]], first: int, last: int) -> None:
        """Write the epochs from `first` (counted from 0) to before `last`."""
        from tensorflow.core.framework.summary_pb2 import Summary

        for epoch in range(first, last):
            row = {name: values[epoch] for name, values in history.items()}
            self._lines.write(json.dumps({"epoch": epoch + 1, "time": round(time.time(), 3), **row}) + "\n")
            # The tags and folders of `keras.callbacks.TensorBoard`, so that both can be laid over each other.
            for side, prefix in (("train", ""), ("validation", "val_")):
                values = [
                    Summary.Value(tag=f"epoch_{name.removeprefix('val_')}", simple_value=value)
                    for name, value in row.items()
                    if name.startswith("val_") == bool(prefix)
                ]
                if values:
                    self._event(side, step=epoch, summary=Summary(value=values))
        self._lines.flush()
        for writer in self._events.values():
            writer.flush()

    def _event(self, side: str, **fields: Any) -> None:
        import tensorflow as tf
        from tensorflow.core.util.event_pb2 import Event

        if side not in self._events:
            (self._folder / "logs" / side).mkdir(parents=True)
            path = self._folder / "logs" / side / f"events.out.tfevents.{int(time.time())}.headrace"
            self._events[side] = tf.io.TFRecordWriter(str(path))
            self._events[side].write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        self._events[side].write(Event(wall_time=time.time(), **fields).SerializeToString())

    def close(self) -> None:
        """Finish the files."""
        self._lines.close()
        for writer in self._events.values():
            writer.close()


# ----------------------------------------------------------------------------------------------- the model


def save_model(model: keras.Model, path: Path) -> None:
    """Save a model as `.keras` with equal bytes for equal models.

    Keras writes the time of day into the archive, and the memory addresses of objects that layers share.
    """
    import zipfile

    draft = path.with_name("draft.keras")
    model.save(draft)
    with zipfile.ZipFile(draft) as source, zipfile.ZipFile(path, "w") as target:
        for name in sorted(source.namelist()):
            data = source.read(name)
            if name == "metadata.json":
                facts = json.loads(data)
                facts.pop("date_saved", None)
                data = json.dumps(facts).encode()
            if name == "config.json":
                data = _numbered(data.decode()).encode()
            target.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    draft.unlink()


def _numbered(config: str) -> str:
    """The configuration with shared objects numbered 1, 2, … instead of named by their memory addresses."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'(?<="shared_object_id": )\d+', lambda found: str(numbers.setdefault(found[0], len(numbers) + 1)), config
    )


@contextmanager
def _quiet_keras() -> Iterator[None]:
    """Keep Keras' notes about names and types of inputs out of people's terminals."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="keras")
        yield
