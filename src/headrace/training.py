"""Train a model under a strategy, with callbacks, checkpoints, TensorBoard and a metrics log; resumed exactly.

A training that is killed goes on from its last checkpoint when the same command is given again, and ends with the same
weights, bit for bit, as one that was left alone: the order of the examples is a pure function of seed and epoch, and a
checkpoint holds every variable that a step reads.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import fingerprints
from headrace.artifacts import Artifact, write_json
from headrace.cross_validating import held_out, validation_rows
from headrace.engine import borrowing, transferring
from headrace.errors import ConfigError, StageFailed
from headrace.jobs import Job
from headrace.spec import Feature, Train
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import keras
    import numpy as np

    from headrace.engine.driving import Course, Outcome, Sampler
    from headrace.engine.epochs import Advance, Program
    from headrace.engine.feeding import Memory, Split, Stream
    from headrace.engine.journals import Journal
    from headrace.records.inputs import Info

log = logging.getLogger(__name__)


def _facts(job: Job) -> dict[str, Any]:
    """What a training depends on beside settings, functions and records."""
    weights = borrowing.origins(job.settings.train)
    return {
        "seed": job.seed,
        **({"weights": weights} if weights else {}),
    }


@stage(
    settings=("train", "model", "loop"),
    functions=("model", "compile", "loop", "keep", "sample", "custom"),
    versions=("tensorflow", "keras", "numpy"),
    volatile=("training.json", "metrics.jsonl", "logs/*"),
    facts=_facts,
    tensorflow=True,
    resumes=True,
)
def train(
    job: Job,
    room: Room,
    records: Artifact,
    *,
    fold: int | None = None,
    folds: int | None = None,
    repeat: int | None = None,
    chosen: Artifact | None = None,
    start: Artifact | None = None,
) -> None:
    """Train one model: on the whole training split, or on all folds but one.

    Args:
        job: The job.
        room: Where to work.
        records: Output of `preprocess`.
        fold: The fold (from 1) that is held out and watched; None to train on everything.
        folds: How many folds there are.
        repeat: The repeat (from 1) of a cross-validation whose folds are drawn; None for consecutive blocks.
        chosen: Output of `cross_validate`, whose number of epochs is taken if the settings say so.
        start: Output of this stage for the variant whose weights this training begins with, if the settings name one.

    Raises:
        Diverged: The loss became infinite or no number.
        ConfigError: A name of a loss, metric or optimizer means nothing, or a callback has nothing to watch.
    """
    from headrace.engine.strategies import choose
    from headrace.records.inputs import damage_named

    settings = job.settings.train
    # The first thing of all: other workers can be joined only by a process that has computed nothing yet.
    choose(settings.strategy)
    protocol = job.settings.cross_validation
    epochs = settings.epochs
    if chosen and protocol and protocol.choose_epochs:
        epochs = int(chosen.json("cross_validation.json")["best_epoch"])
    seed = _seed(settings, node_seed(job.seed, fold, repeat), room)
    feed = _feed(records, settings, fold, folds, repeat, job.seed, seed, epochs)
    splits = ["train", *([settings.validation] if settings.validation and fold is None else [])]
    with _quiet_keras(), _strictness(settings, seed), damage_named(records.path, *splits):
        if job.function("loop"):
            outcome, facts = _by_hand(job, room, records, feed, seed, epochs, start)
        else:
            outcome, facts = _compiled(job, room, records, feed, seed, epochs, start)
    write_json(
        room.output / "history.json",
        {
            "epochs": outcome.epochs,
            "metrics": outcome.history,
            "stopped": outcome.stopped,
            "best_epoch": facts.pop("best_epoch"),
            **({"lowered": outcome.lowered} if outcome.lowered else {}),
        },
    )
    write_json(
        room.output / "training.json",
        {
            "workload": job.workload,
            "custom": sorted(job.pipeline.objects),
            "seconds": round(outcome.seconds, 3),
            **facts,
            "examples": feed.examples,
            "steps": outcome.steps,
            "seed": seed,
            "resumed_from_epoch": outcome.resumed[0],
            "resumed_from_step": outcome.resumed[1],
            "checkpoints": outcome.checkpoints,
            "threads": _threads(),
        },
    )


def node_seed(seed: int, fold: int | None, repeat: int | None = None) -> int:
    """The seed of one training: the job's own for the final fit, and another one for each fold."""
    import numpy as np

    if fold is None:
        return seed
    parts = [seed, fold] if repeat is None else [seed, fold, repeat]
    return int(np.random.SeedSequence(parts).generate_state(1)[0] % 2**31)


def _seed(settings: Train, seed: int, room: Room) -> int:
    """The seed, or one that is drawn and kept for the next attempt."""
    if settings.seeds != "off":
        return seed
    import secrets

    path = room.scratch / "seed.json"
    if not path.is_file():
        write_json(path, secrets.randbelow(2**31))
    return int(json.loads(path.read_text()))


@contextmanager
def _strictness(settings: Train, seed: int) -> Iterator[None]:
    """Forbid what may differ between runs, for the time of the training, if it is to be strict."""
    if settings.seeds != "strict":
        yield
        return
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.config import disable_op_determinism

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        disable_op_determinism()


def _threads() -> dict[str, int]:
    """How many threads compute: with another number sums are taken in another order."""
    import os

    import tensorflow as tf

    return {"intra_op": tf.config.threading.get_intra_op_parallelism_threads(), "cores": os.cpu_count() or 1}


# -------------------------------------------------------------------------------------------------- feeds


def _feed(
    records: Artifact,
    settings: Train,
    fold: int | None,
    folds: int | None,
    repeat: int | None,
    job_seed: int,
    seed: int,
    epochs: int,
) -> Memory | Stream:
    """Where the batches come from."""
    import numpy as np

    from headrace.engine.feeding import Memory, Stream
    from headrace.records.inputs import fits_in_memory, read_info

    info = read_info(records.path)
    watched = settings.validation if fold is None else None
    if watched and watched not in info.examples:
        raise ConfigError(
            f"train.validation: the records have no split `{watched}`.", expected=", ".join(sorted(info.examples))
        )
    splits = ["train", *([watched] if watched else [])]
    if settings.feed == "memory" or (settings.feed == "auto" and fits_in_memory(info, splits)):
        learn, held = _splits(records, info, settings, fold, folds, repeat, job_seed)
        return Memory(learn, held, seed)
    rows = np.arange(info.examples["train"])
    cut = _cut(info, settings, fold, folds, repeat, job_seed)
    return Stream(
        records.path,
        "train" if cut else watched,
        seed,
        settings.batch_size,
        epochs,
        settings.shuffle,
        settings.drop_remainder,
        _worker(settings),
        *((rows[part] for part in cut) if cut else ()),
    )


@lru_cache(maxsize=2)
def _split(records: Artifact, name: str) -> Split:
    """The examples of a split in memory, read once for all folds."""
    from headrace.engine.feeding import Split
    from headrace.records.inputs import arrays, read_info

    return Split.of(arrays(records.path, name), read_info(records.path))


def _splits(
    records: Artifact, info: Info, settings: Train, fold: int | None, folds: int | None, repeat: int | None, seed: int
) -> tuple[Split, Split | None]:
    """The examples to learn from and those held out: a fold, the tail of the split, another split, or none."""
    whole = _split(records, "train")
    cut = _cut(info, settings, fold, folds, repeat, seed)
    if cut:
        return whole.take(cut[0]), whole.take(cut[1])
    return whole, _split(records, settings.validation) if settings.validation else None


def _cut(
    info: Info, settings: Train, fold: int | None, folds: int | None, repeat: int | None, seed: int
) -> tuple[Any, Any] | None:
    """Which examples of the training split are learned from and which are held out, if it is cut in two.

    Of windows those are left out of both that overlap with a held-out one: they would tell what is to be forecast.

    Raises:
        ConfigError: Windows are to be held out here and there in a series, where all the others overlap with them.
    """
    import numpy as np

    from headrace.windows import apart

    examples, windows = info.examples["train"], info.windows
    if fold is not None and folds is not None:
        if windows and repeat is not None:
            raise ConfigError(
                "Folds of a series can't be drawn: neighbouring windows overlap.",
                remedy="set cross_validation.shuffle to false",
            )
        inside = held_out(examples, fold, folds, repeat, seed)
        return apart(windows, ~inside, inside) if windows else ~inside, inside
    if settings.validation_split:
        tail = validation_rows(examples, settings.validation_split)
        if not windows:
            return slice(0, tail.start), tail
        inside = np.arange(examples) >= tail.start
        return apart(windows, ~inside, inside), inside
    return None


def _class_weights(feed: Memory | Stream, settings: Train) -> np.ndarray[Any, Any] | None:
    """How much the examples of each class count in the loss.

    Raises:
        ConfigError: There is more than one target, or it holds no class numbers.
    """
    import numpy as np

    wanted = settings.class_weight
    if wanted is None:
        return None
    counts = _class_counts(feed)
    if wanted == "balanced":
        return (counts.sum() / np.maximum(counts, 1) / max(np.count_nonzero(counts), 1)).astype(np.float32)
    unknown = sorted(number for number in wanted if not 0 <= number < len(counts))
    if unknown:
        raise ConfigError(
            f"train.class_weight: there is no class {', '.join(map(str, unknown))}.", expected=f"0 to {len(counts) - 1}"
        )
    return np.array([wanted.get(number, 1.0) for number in range(len(counts))], np.float32)


def _class_counts(feed: Memory | Stream) -> np.ndarray[Any, Any]:
    import numpy as np

    from headrace.engine.feeding import Memory
    from headrace.records.inputs import dataset

    def numbers(targets: Mapping[str, Any]) -> Any:
        if len(targets) != 1:
            raise ConfigError("train.class_weight needs one target.", received=", ".join(targets) or "none")
        (values,) = (np.asarray(value) for value in targets.values())
        if values.ndim > 1 and values.shape[-1] > 1:
            return values.argmax(-1).reshape(-1)
        if (values != values.astype(np.int64)).any() or (values < 0).any():
            raise ConfigError("train.class_weight needs a target that holds numbers of classes.", received=values[:3])
        return values.reshape(-1).astype(np.int64)

    if isinstance(feed, Memory):
        return np.bincount(numbers(feed.train.targets))
    names = feed.info.named("target")
    counts = np.zeros(0, np.int64)
    for batch in dataset(feed.folder, "train", 8192, feed.rows):
        found = np.bincount(numbers({name: batch[name] for name in names}), minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    return counts


# ----------------------------------------------------------------------------------------------- programs

_programs: dict[str, Program] = {}
_programs_lock = threading.Lock()


def _built(job: Job, records: Artifact, seed: int, scope: Any, policy: str | None = None) -> keras.Model:
    """The workload's model with initial weights of this seed, computing as the settings say, or by another policy."""
    import contextlib

    import keras

    from headrace.engine.compiling import precision
    from headrace.records.inputs import read_info

    features = read_info(records.path).named("input")
    # Names of layers count up in a process; the model of the fourth fold must be called as in a fresh process.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    try:
        with scope or contextlib.nullcontext(), precision(policy or job.settings.train.precision):
            return _model(job, records, features)
    except Exception as error:
        raise StageFailed(
            f"`model` of {job.workload} can't be built.",
            received=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy=f"see `model` in pipelines/{job.workload}.py, and model.* in `headrace show {job.workload}`",
        ) from error


def _model(job: Job, records: Artifact, features: Mapping[str, Feature]) -> keras.Model:
    from headrace.preprocessing import learned_arrays

    make = job.the("model")
    if "learned" not in inspect.signature(make).parameters:
        return make(features, **job.settings.model)
    return make(features, learned=learned_arrays(records), **job.settings.model)


@contextmanager
def _program(
    job: Job, room: Room, records: Artifact, feed: Memory | Stream, seed: int, start: Artifact | None
) -> Iterator[tuple[Program, keras.Model]]:
    """A program at the initial state of this seed, and an untrained copy of its model to be saved in the end.

    Tracing costs more than training a small network. A program is kept for the next training that differs from this
    one in data and seed only, such as the next fold; while it is in use nobody else gets it.
    """
    from headrace.engine.epochs import Program
    from headrace.engine.feeding import Stream
    from headrace.engine.steps import Step
    from headrace.engine.strategies import choose

    settings = job.settings.train
    streamed = isinstance(feed, Stream)
    sample = feed.sample(settings.batch_size) if isinstance(feed, Stream) else feed.train
    weights = _class_weights(feed, settings)
    traits = settings.model_dump(mode="json", exclude={"epochs"})
    functions = [job.function("model"), job.function("compile"), *job.pipeline.code_of_objects]
    key = fingerprints.digest(
        [
            records.digest,
            traits,
            streamed,
            None if weights is None else weights.tolist(),
            job.settings.model,
            [fingerprints.function_code(function) for function in functions if function],
        ]
    )
    with _programs_lock:
        program = _programs.pop(key, None)
    # Sixteen bits are for training: the weights have 32 all the time, and formats for other machines know no others.
    fresh = _built(job, records, seed, None, "float32")
    _call_once(fresh, sample)
    _begin(fresh, settings, room, start)
    if program is None:
        strategy = choose(settings.strategy)
        model = _built(job, records, seed, strategy.scope())
        if settings.frozen:
            with strategy.scope():
                _call_once(model, sample)
            transferring.freeze(model, settings)
        try:
            step = Step(
                model,
                settings,
                strategy,
                sample,
                custom=job.pipeline.objects,
                own_compile=job.function("compile"),
                class_weights=weights,
                streamed=streamed,
                worker=_worker(settings),
            )
            program = Program(step)
        except ValueError as error:
            raise ConfigError(
                f"Keras does not accept the training settings of {job.title}.",
                received=str(error).splitlines()[0],
                remedy="see train.optimizer, train.loss and train.metrics in `headrace show`",
            ) from error
    if len(program.model.variables) != len(fresh.variables):
        raise StageFailed(
            f"`model` of {job.workload} leaves parts of its model unbuilt, which can't be saved.",
            expected=f"{len(program.model.variables)} variables, as the training has them",
            received=len(fresh.variables),
            remedy="build them in `model`: keras.Input in a Sequential, or one call of the layer",
        )
    program.restart([variable.numpy() for variable in fresh.variables])
    yield program, fresh
    # A failed training drops its program: nobody knows in what state it is.
    program.forget()
    with _programs_lock:
        _programs.clear()
        _programs[key] = program


def _call_once(model: keras.Model, sample: Split) -> None:
    """Let a subclassed model create its weights, as it will when it is trained."""
    if not model.built:
        from headrace.engine.steps import first_call

        first_call(model, sample)


def _begin(model: keras.Model, settings: Train, room: Room, start: Artifact | None) -> None:
    """Freeze what is to stay as it is, and load the weights that are not drawn."""
    if settings.frozen:
        transferring.freeze(model, settings)
    if settings.weights:
        write_json(room.output / "weights.json", transferring.load(model, settings, start))


def _compiled(
    job: Job,
    room: Room,
    records: Artifact,
    feed: Memory | Stream,
    seed: int,
    epochs: int,
    start: Artifact | None,
) -> tuple[Outcome, dict[str, Any]]:
    """Train the workload's Keras model, and save what it leaves."""
    with _program(job, room, records, feed, seed, start) as (program, fresh):
        program.prepare(feed)
        course = _Fit(program, feed)
        outcome = _driven(job, room, course, epochs, _sampler(job, program.model, feed, records, seed), fresh)
        for name, values in program.finals().items():
            for variable, value in zip(fresh.variables, values, strict=True):
                variable.assign(value)
            _save(job, room, fresh, name)
        facts = {
            "strategy": type(program.strategy).__name__,
            "replicas": program.replicas,
            "parameters": fresh.count_params(),
            "feed": type(feed).__name__.lower(),
            "best_epoch": program.best_epoch,
        }
        if facts["feed"] == "stream":
            facts["share of time spent waiting for input"] = round(float(program.waited.numpy()) / outcome.seconds, 4)
        return outcome, facts


def _driven(
    job: Job, room: Room, course: Course, epochs: int, sampler: Sampler | None, drawn: keras.Model | None
) -> Outcome:
    """Drive a course to its end, together with the other workers if there are any."""
    from headrace.engine.driving import deserted, drive
    from headrace.engine.journals import Journal
    from headrace.engine.strategies import choose, from_chief

    settings = job.settings.train
    number, workers = _worker(settings)
    journal = Journal(room.output, drawn, room.scratch / "samples")
    try:
        if workers == 1:
            return drive(course, settings, epochs, room, journal, sampler=sampler)
        strategy = choose(settings.strategy)
        return drive(
            course,
            settings,
            epochs,
            room,
            journal,
            sampler=sampler,
            told=lambda message: from_chief(strategy, message),
            chief=number == 0,
        )
    except Exception as error:
        trouble = deserted(error) if workers > 1 else None
        if trouble:
            raise trouble from error
        raise
    finally:
        journal.close()


def _worker(settings: Train) -> tuple[int, int]:
    """The number of this process, and how many train together."""
    from headrace.engine.strategies import worker

    return worker() if settings.strategy in ("auto", "multi_worker") else (0, 1)


def _by_hand(
    job: Job,
    room: Room,
    records: Artifact,
    feed: Memory | Stream,
    seed: int,
    epochs: int,
    start: Artifact | None,
) -> tuple[Outcome, dict[str, Any]]:
    """Train by the workload's own loop, and save what it leaves."""
    import numpy as np

    from headrace.engine.feeding import Stream
    from headrace.engine.loops import ByHand, Start
    from headrace.records.inputs import read_info

    if isinstance(feed, Stream):
        raise ConfigError("A loop written by hand gets its examples in memory.", remedy="set train.feed to memory")
    make = job.the("loop")
    features = read_info(records.path).features
    model = _built(job, records, seed, None)
    _begin(model, job.settings.train, room, start)
    begin = Start(model, feed.train, feed.held, features, job.settings.train, seed, records.path)
    loop = make(begin, **job.settings.loop)
    course = ByHand(loop, job.settings.train)
    outcome = _driven(job, room, course, epochs, _sampler(job, loop.model, feed, records, seed), loop.model)
    # The model itself comes last, so that what follows finds its weights as they are to stay.
    for name, values in reversed(course.finals().items()):
        for variable, value in zip(loop.model.variables, values, strict=True):
            variable.assign(value)
        _save(job, room, loop.model, name)
    results = loop.results()
    if results:
        np.savez(room.output / "results.npz", **results)
    gathered = loop.gathered()
    if gathered:
        _keep_gathered(job, records, gathered, room.output / "gathered")
    return outcome, {
        "strategy": "by hand",
        "replicas": 1,
        "parameters": loop.model.count_params() if loop.model is not None else 0,
        "feed": "memory",
        "best_epoch": course.watchers.best_epoch,
    }


def _keep_gathered(job: Job, records: Artifact, gathered: Mapping[str, Any], folder: Path) -> None:
    """Write the examples that a training has come by as records like those that it was given."""
    from headrace.readers.batches import batches
    from headrace.records.inputs import Info, read_info, write_info
    from headrace.records.writing import stored, write

    like = read_info(records.path)
    layout = {name: like.features[name] for name in gathered}
    folder.mkdir()
    kept = job.pipeline.records
    written = {"train": write(folder, "train", batches(gathered), layout, kept)}
    info = Info(like.workload, like.source, like.data, layout, written, stored(layout, kept), kept.compression)
    write_info(folder, info)


def _save(job: Job, room: Room, model: keras.Model, name: str) -> None:
    """Save a model, or the parts that the workload keeps of it, beside each other."""
    keep = job.function("keep")
    parts = keep(model) if keep else {"model": model}
    if "model" not in parts:
        raise StageFailed(
            f"`keep` of {job.workload} names no `model`, which is evaluated and exported.",
            received=", ".join(parts) or "nothing",
        )
    for part, kept in parts.items():
        label = name if part == "model" else part if name == "model" else f"{name}-{part}"
        save_model(kept, room.output / f"{label}.keras")


def _sampler(job: Job, model: Any, feed: Memory | Stream, records: Artifact, seed: int) -> Sampler | None:
    """Calls the workload's `sample` after an epoch, and leaves the model as it was."""
    make = job.function("sample")
    if make is None:
        return None
    import numpy as np

    from headrace.engine.feeding import Memory
    from headrace.engine.journals import Moment
    from headrace.preprocessing import learned_arrays
    from headrace.records.inputs import read_info

    split = feed.train if isinstance(feed, Memory) else feed.sample(16)
    # Copies: what a workload does to them must not reach the examples, which tensors share.
    first = split.take(np.arange(min(16, len(split)))).dense()
    features = read_info(records.path).features
    learned = learned_arrays(records) if job.function("learn") else {}

    def sample(journal: Journal, epoch: int) -> None:
        # What draws random numbers must draw the same in the next epoch as if nobody had looked.
        variables = model.non_trainable_variables if model is not None else []
        kept = [(variable, variable.numpy()) for variable in variables]
        now = Moment(epoch, (seed + epoch) % 2**31, {**first.inputs, **first.targets}, features, learned)
        found = make(model, now)
        for variable, value in kept:
            variable.assign(value)
        journal.samples(found, epoch)

    return sample


class _Fit:
    """A program on a feed."""

    def __init__(self, program: Program, feed: Memory | Stream) -> None:
        self._program = program
        self._feed = feed
        self.per_epoch = program.steps(feed.examples)
        self.names = program.names
        self.losses = program.losses
        self.lower_rate = program.lower_rate
        self.restore = program.restore

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended it."""
        return self._program.stopped

    def state(self) -> list[np.ndarray[Any, Any]]:
        """Every value that the next step depends on."""
        return self._program.state

    def advance(self, epoch: int, step: int, steps: int) -> Advance:
        """Do some steps."""
        return self._program.advance(self._feed, epoch, step, steps)


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
