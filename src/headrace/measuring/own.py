"""What a workload measures by itself, where nothing is right or wrong example by example: images made, games played.

```python
def measure(trial: Trial) -> Own:
    returns = np.array([play(trial.models["model"], seed) for seed in range(trial.trials(100))])
    random = np.array([play(None, seed) for seed in range(trial.trials(100))])
    return Own({"return": returns}, larger_is_better={"return"}, naive={"random actions": {"return": random}})
```

Nothing is compared pair by pair: the units of two models (games, images) are others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.artifacts import Artifact
from headrace.errors import ConfigError, StageFailed, nearest
from headrace.jobs import Job
from headrace.measuring.resampling import Array, interval, resampled
from headrace.measuring.words import short, spread, title
from headrace.spec import Feature, Variant

if TYPE_CHECKING:
    import keras

    from headrace.describing.described import Statistics
    from headrace.evaluating import Batches, Gate

Units = Array | float
"""One number for each unit that was tried (units,): an episode, an image, an example. Or one number for all of them,
which has no interval."""


@dataclass(frozen=True)
class Trial:
    """What a workload's `measure` is given, and its `decode`."""

    job: Job
    records: Artifact
    models: Mapping[str, keras.Model]
    """The model that is served (`model`), and whatever else `keep` has saved beside it; loaded when asked for."""
    results: Mapping[str, Array]
    """What a hand-written loop has left in `results.npz`."""
    features: Mapping[str, Feature]
    """The features of the records."""
    statistics: Statistics
    """Of the raw training split."""
    learned: Mapping[str, Array]
    """What the workload's `learn` gave."""
    training: Artifact | None = None
    """Output of `train`."""

    @property
    def history(self) -> Mapping[str, list[float]]:
        """Metric of the training → its value in each epoch."""
        found: Mapping[str, list[float]] = self.training.json("history.json")["metrics"] if self.training else {}
        return found

    def sampled(self, name: str) -> dict[int, Array]:
        """The pictures that `sample` has left under a name: epoch → (height, width[, channels]), uint8."""
        from PIL import Image

        if self.training is None:
            return {}
        paths = sorted((self.training.path / "samples").glob(f"*-{name}.png"))
        return {int(path.name.partition("-")[0]): np.asarray(Image.open(path)) for path in paths}

    @property
    def settings(self) -> Variant:
        """Of the variant, with everything that was asked for."""
        return self.job.settings

    @property
    def seed(self) -> int:
        """The job's: the same for all that is drawn in one run."""
        return self.job.seed

    def trials(self, usually: int) -> int:
        """How many units to try: `evaluate.trials`, where it is set (a smoke run sets it low)."""
        return self.settings.evaluate.trials or usually

    def batches(self, split: str = "test") -> Batches:
        """The examples of a split in stored order, some at a time, as often as they are asked for."""
        from headrace.evaluating import batches
        from headrace.records.inputs import read_info

        return batches(self.records, read_info(self.records.path), split)

    def first(self, count: int, split: str = "test") -> dict[str, Array]:
        """The first examples of a split: name of a feature → (at most `count`, *shape)."""
        parts: list[Mapping[str, Array]] = []
        for batch in self.batches(split):
            parts.append({name: values[:count] for name, values in batch.items()})
            count -= len(next(iter(batch.values())))
            if count <= 0:
                break
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Own:
    """What a workload's `measure` returns."""

    metrics: Mapping[str, Units]
    """Metric → the value of each unit, whose mean is the metric; or one number."""
    larger_is_better: Collection[str] = ()
    """Metrics of which larger values are better."""
    primary: str = ""
    """The metric that decides where no promise names one; default: the first."""
    naive: Mapping[str, Mapping[str, Units]] = field(default_factory=dict)
    """Name of something that needs no training → its metrics, in the same form: the model has to beat it."""
    samples: Mapping[str, Any] = field(default_factory=dict)
    """Name → what people shall look at: an image (height, width[, channels]; uint8, or floats from 0 to 1), the bytes
    of an animation (GIF), or text."""

    @property
    def decisive(self) -> str:
        """The metric that decides where no promise names one."""
        return self.primary or next(iter(self.metrics))


def trial_of(job: Job, records: Artifact, model: Artifact) -> Trial:
    """What the workload's `measure` is to be given."""
    from headrace.records.inputs import read_info

    results: dict[str, Array] = {}
    if (model.path / "results.npz").is_file():
        with np.load(model.path / "results.npz", allow_pickle=False) as file:
            results = {name: file[name] for name in file.files}
    statistics, *learned = learned_of(job, records)
    features = read_info(records.path).features
    return Trial(job, records, Models(model), results, features, statistics, learned[0] if learned else {}, model)


def learned_of(job: Job, records: Artifact) -> tuple[Any, ...]:
    """The statistics of the training split and, if the workload has a `learn`, what that gave."""
    from headrace.describing.described import Statistics
    from headrace.preprocessing import learned_arrays

    statistics = records.path / "statistics.json"
    found: list[Any] = [Statistics.from_json(records.json("statistics.json"))] if statistics.is_file() else [{}]
    if job.function("learn"):
        found.append(learned_arrays(records))
    return tuple(found)


class Models(Mapping[str, Any]):
    """The models of a training by the names of their files, each loaded once, when it is asked for."""

    def __init__(self, folder: Artifact) -> None:
        self._folder = folder
        self.loaded: dict[str, Any] = {}
        """Those that were asked for."""

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self._folder.path.glob("*.keras")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Any:
        from headrace.models import load

        if name not in self.loaded:
            if name not in list(self):
                raise StageFailed(
                    f"The training has left no model `{name}`: {nearest(name, self)}",
                    remedy="see `keep` in the workload's file",
                )
            self.loaded[name] = load(self._folder, name)
        return self.loaded[name]


def measured(job: Job, trial: Trial) -> Own:
    """What the workload's `measure` finds.

    Raises:
        ConfigError: It has none.
        StageFailed: It returns something else than numbers.
    """
    measure = job.function("measure")
    if measure is None:
        raise ConfigError(
            f"The task of {job.workload} is `own`, but nothing measures it.",
            expected="a function `measure`",
            remedy="see `headrace.measuring.own`",
        )
    found = measure(trial)
    if not isinstance(found, Own) or not found.metrics:
        raise StageFailed(
            f"`measure` of {job.workload} returns no metrics.",
            expected='headrace.measuring.own.Own, such as Own({"return": returns})',
            received=type(found).__name__,
        )
    unknown = [name for name in (found.decisive, *found.larger_is_better) if name not in found.metrics]
    unknown += [name for theirs in found.naive.values() for name in theirs if name not in found.metrics]
    if unknown:
        raise StageFailed(
            f"`measure` of {job.workload} speaks of a metric that it does not measure: {unknown[0]}",
            expected=", ".join(found.metrics),
        )
    for of_whom, metrics in {"": found.metrics, **found.naive}.items():
        for name, units in metrics.items():
            _must_be_sound(name, np.asarray(units), f" of {of_whom}" if of_whom else "")
    return found


def _must_be_sound(name: str, units: Array, of_whom: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise StageFailed(f"`measure` calls a metric {name!r}.", expected="small letters, digits and _")
    if units.ndim > 1 or not units.size or not np.isfinite(units.astype(np.float64)).all():
        raise StageFailed(
            f"`measure` gives no numbers for `{name}`{of_whom}.",
            expected="a finite number for each unit (units,), or one for all",
            received=f"shape {units.shape}, {(~np.isfinite(units.astype(np.float64))).sum()} of them not finite",
        )


# ------------------------------------------------------------------------------------------- what it comes to


def values(metrics: Mapping[str, Units]) -> dict[str, float]:
    """Metric → the mean over its units."""
    return {name: float(np.mean(units)) for name, units in metrics.items()}


def counts(metrics: Mapping[str, Units]) -> dict[str, int | None]:
    """Metric → how many units it was measured on; None for a single number."""
    return {name: len(np.ravel(units)) if np.ndim(units) else None for name, units in metrics.items()}


def intervals(metrics: Mapping[str, Units]) -> dict[str, list[float] | None]:
    """Metric → the 95 % interval of its mean; None for a single number."""
    drawn = {name: means(units) for name, units in metrics.items()}
    return {name: None if values is None else interval(values) for name, values in drawn.items()}


def means(units: Units, *, again: bool = False) -> Array | None:
    """The mean on each resample of the units (resamples,); None for a single number.

    Args:
        units: (units,), or a number.
        again: Draw others than for equally many units before: what is not paired must not be drawn alike.
    """
    flat = np.asarray(units, np.float64)
    if not flat.ndim:
        return None
    found = resampled(lambda drawn: {"mean": drawn @ flat / len(flat)}, len(flat))["mean"]
    # The resamples themselves are those of any other metric; in another order they no longer go with these.
    return np.random.default_rng(0).permutation(found) if again else found


def facts(own: Own) -> dict[str, Any]:
    """The units, to be kept: `own/<metric>`, and `naive/<name>/<metric>`."""
    kept = {f"own/{name}": np.asarray(units, np.float64) for name, units in own.metrics.items()}
    for who, metrics in own.naive.items():
        kept |= {f"naive/{who}/{name}": np.asarray(units, np.float64) for name, units in metrics.items()}
    return kept


def resamples(evaluation: Artifact, metric: str) -> Array | None:
    """A metric of a finished evaluation on each resample of its units; None for a single number."""
    with np.load(evaluation.path / "facts.npz", allow_pickle=False) as file:
        return means(file[f"own/{metric}"])


def baseline_gate(own: Own, metric: str) -> Gate:
    """Whether the model is better than the best of what needs no training, by more than chance explains.

    The units are not paired. Single numbers are compared as they are.
    """
    sign = 1 if metric in own.larger_is_better else -1
    theirs = {name: metrics[metric] for name, metrics in own.naive.items() if metric in metrics}
    if not theirs:
        reason = f"`measure` names nothing naive to beat in {title(metric)}"
        return {"gate": "baseline", "passed": None, "reason": reason}
    units = own.metrics[metric]
    ours, known = values({metric: units})[metric], values(theirs)
    best = max(known, key=lambda name: sign * known[name])
    better = sign * (ours - known[best])
    drawn, others = means(units), means(theirs[best], again=True)
    if drawn is None and others is None:
        passed, doubt = better > 0, "single numbers, without an interval"
    else:
        gains = sign * ((ours if drawn is None else drawn) - (known[best] if others is None else others))
        bounds = interval(np.asarray(gains))
        passed, doubt = bounds is not None and bounds[0] > 0, spread(bounds)
    return {
        "gate": "baseline",
        "passed": bool(passed),
        "reason": (
            f"{title(metric)} {short(ours)} {'beats' if passed else 'does not clearly beat'} {short(known[best])} of "
            f"the best naive answer, the {best}: better by {short(better)} {doubt}"
        ),
    }


def blessed_gate(now: Mapping[str, Any], before: Mapping[str, Any], version: int) -> Gate:
    """The gate that compares with the blessed version, by what the two evaluations say.

    Args:
        now: Contents of `evaluation.json`.
        before: Of the blessed version.
        version: Its number.
    """
    metric = now["primary"]
    sides = [(found["metrics"].get(metric), found["intervals"].get(metric)) for found in (now, before)]
    if any(value is None or bounds is None for value, bounds in sides):
        why = f"{title(metric)} has no interval in both evaluations"
        return {
            "gate": "blessed",
            "passed": None,
            "reason": f"not comparable with the blessed version {version}: {why}",
        }
    (ours, mine), (theirs, its) = sides
    sign = 1 if metric in now["larger_is_better"] else -1
    worse = sign * (theirs - ours)
    # Independent units: the squares of the half widths add up.
    half = float(np.hypot(mine[1] - mine[0], its[1] - its[0])) / 2
    failed = worse - half > 0
    return {
        "gate": "blessed",
        "passed": not failed,
        "reason": (
            f"{title(metric)} {short(ours)}, of the blessed version {version} {short(theirs)}, each on its own units: "
            f"{'worse' if failed else 'not clearly worse'} (by {short(worse)} {spread([worse - half, worse + half])})"
        ),
    }


def write_samples(own: Own, folder: Path) -> list[dict[str, str]]:
    """Write what people shall look at into a folder of its own, as PNG, GIF or text.

    Returns:
        [{"name": …, "file": path within the folder above}]
    """
    from headrace.engine.journals import to_png

    written = []
    for name, value in own.samples.items():
        kind = "txt" if isinstance(value, str) else "gif" if isinstance(value, bytes) else "png"
        path = folder / "samples" / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.{kind}"
        path.parent.mkdir(exist_ok=True)
        if isinstance(value, str):
            path.write_text(value, encoding="utf-8")
        elif isinstance(value, bytes):
            path.write_bytes(value)
        else:
            path.write_bytes(to_png(np.asarray(value)))
        written.append({"name": name, "file": f"samples/{path.name}"})
    return written
