"""A published model watched: what came to it, held against what it was made of; and the way back when it decays.

What is held against what:

- the features, against the statistics of the training split that the version carries (`headrace.monitoring`); where
  requests are windows of a series, the newest row of each
- the model's answers, where they were kept beside the requests, against its answers to the test examples
- a sample of the same requests, asked again: a different answer is skew between what was judged and what is served
- the metric, where the targets are there, against what it was on the test split; and the previous version's

Nothing here knows Prefect: `flows/monitor.py` says the same as an event, `headrace monitor` as an exit code.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from headrace import monitoring, registry
from headrace.artifacts import MANIFEST, Artifact, home, read_json, system_errors, write_json
from headrace.errors import ConfigError, DataError
from headrace.jobs import Job
from headrace.serving import bundles, logs
from headrace.spec import Feature, Monitor, explain

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from headrace.monitoring import Score

    Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)

DRIFTED = "headrace.drift.detected"
ROLLED_BACK = "headrace.model.rolled_back"
"""Events, for those who listen (see `prefect.yaml`)."""

ASKED_AGAIN = 256
"""Requests that are asked a second time, to find skew."""
WIDEST = 64
"""Numbers in an answer that are compared one by one; larger ones (pictures, masks) are not compared."""

Found = dict[str, Any]
"""What `look` has seen, as one JSON object."""
Window = Literal["new", "all"]
"""Of what was kept: what came since the last look, or everything."""


def resource(workload: str) -> str:
    """What events of a workload are about."""
    return f"headrace.workload.{workload}"


# ---------------------------------------------------------------------------------------- what is watched


@dataclass(frozen=True)
class Watched:
    """A version of the registry with what new data are held against."""

    line: str
    version: int
    job: Job
    """What it was trained by."""
    folder: Path
    """The SavedModel, with what the version says of itself in `assets.extra`."""

    def said(self, name: str) -> Any:
        """A JSON file that was published with it, {} if there is none."""
        return read_json(self.folder / registry.EXTRA / f"{name}.json") or {}

    def made(self, stage: str) -> Artifact | None:
        """The finished folder of a stage that it came from, if this home still has it."""
        digest = self.said("lineage").get("stages", {}).get(stage, {}).get("digest")
        for path in (home() / "artifacts" / self.job.workload / stage).glob(f"*/{MANIFEST}"):
            if digest and (read_json(path) or {}).get("digest") == digest:
                return Artifact(path.parent, digest, stage)
        return None

    @cached_property
    def score(self) -> Score | None:
        """What scores it on new data; None where that can't be done here."""
        records = self.made("preprocess")
        return monitoring.scored(self.job, records, self.folder) if records else None


def watched(workload: str, wanted: str = bundles.BLESSED, line: str | None = None) -> Watched:
    """A published model to be watched.

    Args:
        workload: The workload.
        wanted: The number of a version, or a name that points to one.
        line: Line of the registry; default: the workload's own.

    Raises:
        ConfigError: There is no such workload, line or version.
        DataError: The version is damaged, or does not say what it came from.
    """
    bundle = bundles.published(workload, wanted, line)
    request = (read_json(bundle.path / registry.EXTRA / "lineage.json") or {}).get("request") or {}
    try:
        job = Job.model_validate(request)
    except ValidationError as error:
        raise DataError(
            f"{bundle.title} can't be watched: what it was trained by is not what this version of Headrace knows.",
            received="; ".join(explain(error, Job)),
            remedy="train and publish it anew",
        ) from error
    return Watched(bundle.name, bundle.version, job, bundle.path)


def served() -> dict[str, str]:
    """The lines to which requests came that were kept → their workloads; those that have a blessed version."""
    found = {}
    for folder in sorted(path for path in logs.folder("").glob("*") if path.is_dir()):
        version = registry.blessed(folder.name)
        if version is not None:
            lineage = read_json(registry.held(folder.name, version) / registry.EXTRA / "lineage.json") or {}
            found[folder.name] = lineage.get("request", {}).get("workload") or folder.name.partition("-")[0]
    return found


# ----------------------------------------------------------------------------------------------- looking


def look(
    model: Watched,
    given: Path | None = None,
    *,
    window: Window = "new",
    least_rows: int = 1,
    settings: Monitor | None = None,
) -> Found | None:
    """Hold new data against what a model was made of.

    Args:
        model: The model.
        given: New data in any form that `--source` takes; targets may be missing. None: the requests that were kept.
        window: Which of the requests that were kept; `new` ones are looked at once.
        least_rows: So many of them have to be there; fewer wait for the next look.
        settings: How closely to look; default: as the model's own settings say.

    Returns:
        As `monitoring.compare`, with workload, line, version, request (what a retrain has to ask for), input, answers
        (columns, as for the features), skew, metric and decay. None if there were too few rows to look at.

    Raises:
        DataError: The data can't be read, or the version carries no statistics.
    """
    settings = settings or model.job.settings.monitor
    if given is not None:
        return _look(model, given, _tables(given), settings)
    seen = set((read_json(_ledger(model.line)) or {}).get("seen", ())) if window == "new" else set()
    kept = sorted(logs.folder(model.line).glob("*/*.parquet"))
    new = [path for path in kept if _name(path) not in seen]
    rows = _rows(new)
    if rows < max(least_rows, 1):
        log.info("monitor: %s: %d new rows, %d are needed", model.line, rows, least_rows)
        return None
    found = _look(model, new, new, settings)
    if window == "new":
        with system_errors("remembering what was looked at"):
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            write_json(_ledger(model.line), {"looked": at, "seen": [_name(path) for path in kept]})
    return found


def _look(model: Watched, given: Path | Sequence[Path], tables: Sequence[Path], settings: Monitor) -> Found:
    from headrace.describing.summaries import Statistics
    from headrace.readers.own_data import read_own

    job = model.job
    known = model.said("statistics")
    if not known:
        raise DataError(f"{model.line} version {model.version} carries no statistics to compare with.")
    features = job.origin.features
    batches: Iterable[pa.RecordBatch] = (
        read_own(given, features, targets_required=False) if isinstance(given, Path) else _asked(model, given)
    )
    # What was asked of a server has no targets: nothing to be scored.
    scored = model.score if isinstance(given, Path) else None
    before = _previous(model) if scored else None
    for score in (scored, before.score if before else None):
        if score:
            batches = score.watching(batches)
    found = monitoring.compare(batches, features, Statistics.from_json(known), settings, job.seed)
    answers = _answers(model, tables, settings)
    decay = _decay(model, before) if scored else None
    found |= {
        "workload": job.workload,
        "line": model.line,
        "version": model.version,
        "request": {name: getattr(job, name) for name in ("variant", "profile", "data", "source")},
        "input": str(given) if isinstance(given, Path) else "kept requests",
        "answers": answers,
        "skew": _skew(model, tables),
        "metric": scored.result if scored else None,
        "decay": decay,
    }
    # A metric that fell without the features having moved is drift as well: of what they mean.
    changed = bool(decay and decay["decayed"] and not decay["rollback"])
    found["drifted"] = changed or any(column["drifted"] for column in (*found["columns"], *answers))
    log.info("monitor: %s", in_words(found))
    return found


def _asked(model: Watched, paths: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """The requests that were kept as rows like those of the training split: of a window, its newest one.

    A window's other rows were the newest ones of windows before it, and would be counted as often as they were sent.
    """
    import numpy as np

    from headrace.readers.batches import batches, to_arrays
    from headrace.readers.tables import read_table

    job = model.job
    if not job.settings.windows:
        yield from read_table(paths, job.origin.features, targets_required=False)
        return
    # Only rows have a column for each of their numbers.
    windows = {name: feature.model_copy(update={"columns": ()}) for name, feature in job.inputs.items()}
    for batch in read_table(paths, windows):
        newest = {name: np.asarray(values)[:, -1] for name, values in to_arrays(batch, windows).items()}
        yield from batches(newest)


def in_words(found: Found) -> str:
    """What was seen, in a few sentences."""
    told = f"{found['line']} version {found['version']}: {monitoring.in_words(found)}"
    answers = [column["column"] for column in found["answers"] if column["drifted"]]
    if answers:
        told += f"; answers drifted: {', '.join(answers)}"
    if found["skew"] and found["skew"]["differing"]:
        told += f"; {found['skew']['differing']} of {found['skew']['rows']} answers differ from those given then"
    if found["decay"]:
        told += f"; {found['decay']['reason']}"
    return told


def _tables(path: Path) -> list[Path]:
    """The Parquet files among new data, which may hold answers."""
    inside = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    return [file for file in inside if file.suffix == ".parquet"]


def _rows(paths: Sequence[Path]) -> int:
    from pyarrow import parquet

    return sum(parquet.read_metadata(path).num_rows for path in paths)


def _name(path: Path) -> str:
    """A file of requests, as it is remembered."""
    return f"{path.parent.name}/{path.name}"


def _ledger(line: str) -> Path:
    return home() / "watch" / f"{line}.json"


# ----------------------------------------------------------------------------------------------- answers


def _answers(model: Watched, tables: Sequence[Path], settings: Monitor) -> list[dict[str, Any]]:
    """How far the answers of this version that were kept lie from those to the test examples."""
    import numpy as np

    from headrace.describing.summaries import summarise
    from headrace.readers.batches import batches

    parts = [answers for path in tables if (answers := _kept(path, model.version)[1])]
    found: list[dict[str, Any]] = []
    for target, known in _reference(model).items():
        now = [part[target] for part in parts if target in part and part[target].shape[1:] == known.shape[1:]]
        then = _comparable(model.job, target, known)
        if now and then:
            feature, values = then
            new = _comparable(model.job, target, np.concatenate(now))
            assert new is not None  # noqa: S101 (of the same shape)
            old = summarise(batches({target: values}), {target: feature})
            current = summarise(batches({target: new[1]}), {target: feature}, like=old)
            found += monitoring.moved(current, old, settings, model.job.seed)
    return found


def _reference(model: Watched) -> dict[str, Array]:
    """The version's answers to test examples: to all of them, or to those that were recorded with it."""
    import numpy as np

    evaluation = model.made("evaluate")
    places = [(evaluation.path / "predictions.npz", "answer/")] if evaluation else []
    for path, prefix in [*places, (model.folder / registry.EXTRA / "examples.npz", "output/")]:
        if path.is_file():
            with np.load(path) as arrays:
                return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}
    return {}


def _comparable(job: Job, target: str, values: Array) -> tuple[Feature, Array] | None:
    """Answers as a feature of their own: a number, a class, some numbers; None if they are none of these."""
    flat = values.reshape(len(values), -1)
    if values.dtype.kind not in "fiu" or flat.shape[1] > WIDEST:
        return None
    declared = job.origin.features.get(target)
    if flat.shape[1] == 1:
        return Feature(), flat[:, 0].astype("float32")
    if declared is not None and declared.kind == "category":
        return Feature(dtype="int64", classes=tuple(map(str, range(flat.shape[1])))), flat.argmax(1)
    return Feature(shape=(flat.shape[1],)), flat.astype("float32")


def _kept(path: Path, version: int) -> tuple[Array, dict[str, Array]]:
    """Which rows of a file of requests this version answered, and its answers to them."""
    import numpy as np
    from pyarrow import parquet

    names = parquet.read_schema(path).names
    outputs = [name for name in names if name.startswith("answer/")]
    if "served/version" not in names or not outputs:
        return np.zeros(0, np.int64), {}
    table = parquet.read_table(path, columns=["served/version", *outputs])
    rows = np.flatnonzero(table["served/version"].to_numpy() == version)
    found = {}
    for name in outputs if len(rows) else ():
        column = table[name].take(rows).combine_chunks()
        # A cell holds one number, or all numbers of an answer.
        values = column.flatten() if hasattr(column, "flatten") and column.type.num_fields else column
        array = values.to_numpy(zero_copy_only=False)
        if array.dtype.kind in "fiu":
            found[name.removeprefix("answer/")] = array.reshape(len(rows), -1)
    return rows, found


def _skew(model: Watched, tables: Sequence[Path]) -> dict[str, Any] | None:
    """Some requests asked again: how many answers differ from those that were given; None if there are none."""
    import numpy as np
    import tensorflow as tf

    from headrace.bundling.examples import sent
    from headrace.bundling.signatures import DEFAULT
    from headrace.readers.batches import whole
    from headrace.readers.tables import read_table

    inputs = model.job.origin.named("input")
    if any(feature.ragged for feature in inputs.values()) or model.job.settings.windows:
        return None
    for path in reversed(tables):
        rows, answers = _kept(path, model.version)
        if not answers:
            continue
        chosen = rows[:ASKED_AGAIN]
        given = whole(read_table(path, inputs), inputs)
        given = sent({name: values[chosen] for name, values in given.items()})
        # The signature does not keep what it belongs to alive.
        loaded = tf.saved_model.load(str(model.folder))
        serve = loaded.signatures[DEFAULT]
        if serve.structured_input_signature[1].keys() != given.keys():
            return None
        again = serve(**{name: tf.constant(values) for name, values in given.items()})
        differing = np.zeros(len(chosen), bool)
        largest = 0.0
        for name in answers.keys() & again.keys():
            then = answers[name][: len(chosen)].astype(np.float64)
            now = again[name].numpy().reshape(then.shape).astype(np.float64)
            apart = np.abs(then - now).max(axis=1) / max(float(np.abs(now).max()), 1e-12)
            differing |= apart > model.job.settings.export.tolerance
            largest = max(largest, float(apart.max()))
        return {"rows": len(chosen), "differing": int(differing.sum()), "largest": largest}
    return None


# ------------------------------------------------------------------------------------------------- decay


def _previous(model: Watched) -> Watched | None:
    """The version that would be served after a rollback, if this one is the blessed one and there is a sound one."""
    before = registry.pointed(model.line, "previous")
    if before is None or registry.blessed(model.line) != model.version:
        return None
    try:
        found = watched(model.job.workload, str(before), model.line)
    except (ConfigError, DataError) as error:
        log.warning("the previous version can't be compared: %s", error.problem)
        return None
    return found if found.job.origin.features == model.job.origin.features else None


def _decay(model: Watched, before: Watched | None) -> dict[str, Any] | None:
    """Whether the metric has fallen since the evaluation, and whether going back would help; None without targets.

    A metric has fallen if its 95 % interval on the new data lies beyond that of the evaluation, on the worse side; by
    fewer rows than `evaluate.small_slice` that is not judged. A rollback helps if the previous version's has not, and
    if it is better than this one by more than chance explains, on the same rows. Where both have fallen the data have
    changed, and going back is no answer to that.
    """
    from headrace.measuring.words import short, spread, title

    mine = _standing(model)
    if mine is None:
        return None
    metric = mine["metric"]
    words = f"{title(metric)} {short(mine['value'])} {spread(mine['interval'])} on {mine['rows']:,} rows with targets"
    if mine["fallen"] is None:
        # By a handful of rows, or beside an evaluation without interval, nothing can be judged.
        return {**mine, "decayed": None, "previous": None, "rollback": False, "reason": words}
    words += f" ({short(mine['evaluated'])} {spread(mine['evaluated_interval'])} when it was evaluated)"
    theirs = _standing(before) if before else None
    better = None
    if before and before.score and model.score and theirs and theirs["metric"] == metric:
        better = _better(before.score, model.score)
        theirs |= {"version": before.version, "better": better}
    rollback = bool(mine["fallen"] and theirs and theirs["fallen"] is False and better)
    if mine["fallen"]:
        words += ": decayed"
    if rollback and theirs:
        words += f", and version {theirs['version']} has not ({short(theirs['value'])})"
    return {**mine, "decayed": mine["fallen"], "previous": theirs, "rollback": rollback, "reason": words}


def _standing(model: Watched) -> dict[str, Any] | None:
    """The deciding metric on the rows that have passed, beside the evaluation's."""
    from headrace.measuring.resampling import intervals
    from headrace.measuring.tasks import examples

    facts = model.score.facts if model.score else None
    if facts is None or model.score is None:
        return None
    measures, metric, rows = model.score.measures, model.score.measures.primary, examples(facts)
    now = intervals(lambda weights: {metric: measures.measure(facts, weights)[metric]}, rows, measures.groups(rows))
    evaluation = model.said("evaluation")
    new, old = now[metric], (evaluation.get("intervals") or {}).get(metric)
    fallen = None
    if new and old and rows >= model.job.settings.evaluate.small_slice:
        fallen = new[1] < old[0] if metric in measures.larger_is_better else new[0] > old[1]
    return {
        "metric": metric,
        "value": float(measures.measure(facts)[metric]),
        "interval": new,
        "rows": rows,
        "evaluated": (evaluation.get("metrics") or {}).get(metric),
        "evaluated_interval": old,
        "fallen": fallen,
    }


def _better(one: Score, other: Score) -> bool:
    """Whether one model is better than another on the same rows, by more than chance explains."""
    from headrace.measuring.resampling import intervals
    from headrace.measuring.tasks import examples

    ours, theirs = one.facts, other.facts
    if ours is None or theirs is None or examples(ours) != examples(theirs):
        return False
    measures, metric, rows = one.measures, one.measures.primary, examples(ours)

    def gain(weights: Array) -> dict[str, Any]:
        values = (measures.measure(facts, weights)[metric] for facts in (ours, theirs))
        return {"gain": measures.gain(metric, *values)}

    interval = intervals(gain, rows, measures.groups(rows))["gain"]
    return interval is not None and interval[0] > 0


def roll_back(found: Found) -> int | None:
    """Serve the previous version again, if that is what was found to help and nobody has moved the pointer since.

    Returns:
        The version that is blessed now; None if nothing was done.
    """
    decay = found["decay"]
    if not decay or not decay["rollback"] or registry.blessed(found["line"]) != found["version"]:
        return None
    if registry.pointed(found["line"], "previous") != decay["previous"]["version"]:
        return None
    before, now = registry.rollback(found["line"])
    log.warning("%s: version %d is blessed again, in place of %d: %s", found["line"], now, before, decay["reason"])
    return now
