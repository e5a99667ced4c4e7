"""Stage `monitor`, and the same for a file: have the data moved away from those the model was trained on?"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import Artifact, write_json
from headrace.bundling.signatures import own_answer
from headrace.distances import divergence, kolmogorov_smirnov, largest_share, stability_index, wasserstein
from headrace.errors import DataError, StageFailed
from headrace.jobs import Job
from headrace.preprocessing import declared, raw_batches
from headrace.spec import Feature, Monitor
from headrace.stages import Room, stage

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from headrace.describing.described import Aligned, FeatureStatistics, Statistics
    from headrace.measuring.tasks import Facts, Measures
    from headrace.records.inputs import Info

log = logging.getLogger(__name__)

DRAWS = 2_000
"""Pairs of samples from which a threshold is learned."""
VALUES = 100
"""The most frequent values that are compared one by one; the others count together."""
ROUNDING = 1e-6
"""Distances up to this one are nothing but rounding: the least threshold."""
RARE_DRAWS = 20_000
"""Samples from which counts of rare values are learned: they are whole numbers, so that their tails can't be fitted."""


@stage(
    settings=("monitor",),
    functions=("read",),
    versions=("numpy", "tensorflow"),
    facts=lambda job: {"seed": job.seed, **declared(job)},
    tensorflow=True,
)
def monitor(job: Job, room: Room, raw: Artifact, records: Artifact, bundle: Artifact) -> None:
    """Hold the raw test split against the training split: the first check, and what later files are seen beside.

    Writes `drift.json`.
    """
    write_json(room.output / "drift.json", _check(job, raw_batches(job, raw.path, "test"), records, bundle))


def check_file(job: Job, path: Path, records: Artifact, bundle: Artifact | None = None) -> dict[str, Any]:
    """Hold a file of new data against the training split.

    Args:
        job: Names the features and how closely to look (`settings.monitor`).
        path: New data in any form that `--source` takes. Targets may be missing.
        records: The finished folder of `preprocess`, which holds the statistics of the training split.
        bundle: The finished folder of `export`; with it, and where the targets are there, the metric is computed.

    Returns:
        As `compare`, with `metric`.

    Raises:
        DataError: The file can't be read, or lacks a column.
    """
    from headrace.readers.own_data import read_own

    return _check(job, read_own(path, job.origin.features, targets_required=False), records, bundle)


def _check(job: Job, batches: Iterable[pa.RecordBatch], records: Artifact, bundle: Artifact | None) -> dict[str, Any]:
    from headrace.describing.summaries import Statistics

    statistics = Statistics.from_json(records.json("statistics.json"))
    features = job.origin.features
    score = scored(job, records, bundle.path / "saved_model") if bundle else None
    if score:
        batches = score.watching(batches)
    found = compare(batches, features, statistics, job.settings.monitor, job.seed)
    found["metric"] = score.result if score else None
    log.info("monitor: %s", in_words(found))
    return found


def in_words(found: Mapping[str, Any]) -> str:
    """A comparison in a sentence."""
    moved = [column["column"] for column in found["columns"] if column["drifted"]]
    return f"{found['rows']} rows, " + (f"drifted: {', '.join(moved)}" if moved else "no drift")


# ---------------------------------------------------------------------------------------------- comparison


def compare(
    batches: Iterable[pa.RecordBatch],
    features: Mapping[str, Feature],
    statistics: Statistics,
    settings: Monitor,
    seed: int,
) -> dict[str, Any]:
    """Compare new data with the training split, column by column.

    The distance is that of Jensen and Shannon (0: equal, 1: nothing in common), over the quantile buckets of the
    training split; where a column has few distinct values, over these. A column counts as drifted if the distance is
    larger than chance explains for two samples of these sizes from one distribution, or a single category has become
    more or less frequent, or if more values are out of the training split's range, or more or fewer are missing.
    Chance is bounded over all columns together (`settings.false_alarms`).

    Args:
        batches: New data, read once. Features that are not there are not compared (and reported, unless targets);
            features of strings are not compared.
        features: The declared features.
        statistics: Statistics of the training split.
        settings: How closely to look.
        seed: Seed of the draws that thresholds are learned from.

    Returns:
        rows, drifted, columns (feature, column, distance, threshold, drifted, because: in what, distances: the same by
        other formulas, and of reference and current the mean, standard deviation, share of values out of range and
        share of missing ones), anomalies (severity, feature, column, text).

    Raises:
        DataError: There are no rows.
    """
    from headrace.describing.summaries import summarise
    from headrace.validation.inspecting import Inspection
    from headrace.validation.schema import infer

    remaining = iter(batches)
    first = next(remaining, None)
    if first is None:
        raise DataError("There is nothing to compare.", expected="at least one row", received="none")
    present = {name: feature for name, feature in features.items() if name in first.schema.names}
    inspection = Inspection(infer(features, statistics), present)
    current = summarise(inspection.watching(itertools.chain([first], remaining)), present, like=statistics)
    columns = moved(current, statistics, settings, seed)
    return {
        "rows": current.rows,
        "drifted": any(column["drifted"] for column in columns),
        "columns": columns,
        "anomalies": [asdict(anomaly) for anomaly in inspection.anomalies()],
    }


def moved(current: Statistics, statistics: Statistics, settings: Monitor, seed: int) -> list[dict[str, Any]]:
    """How far each column of new data lies from the training split's, by the rule of `compare`.

    Args:
        current: Statistics of the new data, counted between the edges of the old ones.
        statistics: Statistics of the training split.
        settings: How closely to look.
        seed: Seed of the draws that thresholds are learned from.

    Returns:
        The columns, as in the result of `compare`.
    """
    import numpy as np

    from headrace.describing.described import aligned

    random = np.random.default_rng(seed)
    aspects = [
        (name, aspect)
        for name, new in current.items()
        for aspect in aligned(statistics[name], new)
        # Numbers of classes are compared one by one, not by their size.
        if not (aspect.numbers and new.tallies and aspect.what not in new.measures)
    ]
    # Four tests for each; none of them may cry wolf, all together, more often than was asked for.
    chance = settings.false_alarms / max(len(aspects), 1) / 4
    most_outside = _most_outside(random, statistics.rows, current.rows, chance)
    columns = []
    for name, aspect in aspects:
        old, new = statistics[name], current[name]
        then, now = int(aspect.then.sum()), int(aspect.now.sum())
        shares = _shares(aspect, settings.buckets)
        # Of many values from one example each tells less than one from another: they count as one.
        distance, threshold = _distance(random, *shares, min(then, old.rows), min(now, new.rows), chance)
        outside = _outside(aspect) if aspect.numbers and then <= old.rows else 0
        gaps = [_gaps(found, aspect.what) for found in (old, new)]
        found = {
            "values": distance > threshold,
            "one value": not aspect.numbers and _one_moved(*shares, min(then, old.rows), min(now, new.rows), chance),
            "range": outside > most_outside,
            "missing": _unlike(random, gaps[0], old.rows, gaps[1], new.rows, chance),
        }
        columns.append(
            {
                "feature": name,
                "column": _label(name, aspect.what, old),
                "distance": distance,
                "threshold": threshold,
                "drifted": any(found.values()),
                "because": [what for what, moved in found.items() if moved],
                "distances": {"jensen_shannon": distance, **_others(aspect, *shares)},
                "reference": _moments(old, aspect.what, 0.0, gaps[0]),
                "current": _moments(new, aspect.what, outside / max(now, 1), gaps[1]),
            }
        )
    return columns


def _label(name: str, what: str, found: FeatureStatistics) -> str:
    """What is compared, as a person would call it."""
    if what in found.names:
        return what
    return name if what in ("values", "all positions") else f"{what} of {name}"


def _moments(found: FeatureStatistics, what: str, outside: float, gaps: float) -> dict[str, float | None]:
    series = found.series.get(what) or found.measures.get(what)
    if what == "all positions":
        series = found.whole
    values = {"mean": series.mean, "std": series.std} if series else {"mean": math.nan, "std": math.nan}
    values |= {"outside": outside, "missing": gaps}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _gaps(found: FeatureStatistics, what: str) -> float:
    """The share of values that are missing, of a column or of all positions together."""
    at = found.names.index(what) if what in found.names and len(found.names) == found.missing.size else slice(None)
    missing = int(found.missing.reshape(-1)[at].sum())
    return missing / max(missing + int(found.count.reshape(-1)[at].sum()), 1)


def _unlike(random: np.random.Generator, then: float, known: int, now: float, new: int, chance: float) -> bool:
    """Whether two shares, of so many rows each, differ by more than chance explains."""
    import numpy as np

    if then == now:
        return False
    # What the share may truly be, as far as the known rows tell (Jeffreys); and how many are to be expected then.
    share = random.beta(then * known + 0.5, (1 - then) * known + 0.5, RARE_DRAWS)
    few, many = np.quantile(random.binomial(new, share), [chance / 2, 1 - chance / 2], method="nearest")
    return not few <= now * new <= many


def _shares(aspect: Aligned, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """The parts of both splits that fall into each bucket: quantiles of the reference, or single values if few."""
    import numpy as np

    from headrace.describing.distributions import Distribution

    known = aspect.then > 0
    then, now = aspect.then, aspect.now
    if aspect.numbers:
        ends = np.flatnonzero(known)[:-1]
        if known.sum() > buckets:
            found = Distribution(np.asarray(aspect.places), then)
            cuts = np.unique([found.quantile(round(100 * k / buckets)) for k in range(1, buckets + 1)])[:-1]
            ends = np.searchsorted(found.edges, cuts)
        then, now = (np.diff(np.cumsum(c)[ends], prepend=0, append=c.sum()) for c in (then, now))
    else:
        # The last place is that of all others. Where none was seen yet, they are as likely as those that were seen once
        # (Good and Turing).
        often = np.argsort(-then[:-1], kind="stable")
        unseen = max(float((then[:-1] == 1).sum()), 0.5)
        then, now = (np.append(c[often[:VALUES]], c[often[VALUES:]].sum() + c[-1]) for c in (then, now))
        then = np.append(then[:-1], then[-1] or unseen)
    return then / max(then.sum(), 1), now / max(now.sum(), 1)


def _one_moved(expected: np.ndarray, found: np.ndarray, then: int, now: int, chance: float) -> bool:
    """Whether a single value has become more or less frequent than chance explains: of many, the distance sees it late.

    Of all rows that have a value each is one of the new ones with the same probability.
    """
    import numpy as np
    from scipy.special import bdtr, bdtrc

    # The last place is that of all others: what was never seen before is the distance's business.
    before, after = (np.rint(s[:-1] * rows).astype(np.int64) for s, rows in ((expected, then), (found, now)))
    if not len(before) or not now:
        return False
    part = now / max(then + now, 1)
    rare = np.minimum(bdtr(after, before + after, part), bdtrc(after - 1, before + after, part))
    return float(rare.min()) < chance / len(before) / 2


def _others(aspect: Aligned, expected: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """The distance by other formulas, for those who know their values: of buckets, and of numbers place by place."""
    import numpy as np

    told = {"stability_index": stability_index(expected, found), "l_infinity": largest_share(expected, found)}
    then, now = aspect.then.sum(), aspect.now.sum()
    if aspect.numbers and then and now:
        p, q = aspect.then / then, aspect.now / now
        told["kolmogorov_smirnov"] = kolmogorov_smirnov(p, q)
        told["wasserstein"] = wasserstein(p, q, np.asarray(aspect.places))
    return {name: float(value) for name, value in told.items()}


def _outside(aspect: Aligned) -> int:
    """How many of the new values lie below or above all known ones."""
    import numpy as np

    known = np.flatnonzero(aspect.then)
    return int(aspect.now[: known[0]].sum() + aspect.now[known[-1] + 1 :].sum()) if len(known) else 0


def _distance(
    random: np.random.Generator, expected: np.ndarray, found: np.ndarray, then: int, now: int, chance: float
) -> tuple[float, float]:
    """The distance between two distributions, and how large it may be by chance if so many values were counted."""
    import numpy as np

    drawn = divergence(
        random.multinomial(max(then, 1), expected, DRAWS) / max(then, 1),
        random.multinomial(max(now, 1), expected, DRAWS) / max(now, 1),
    )
    threshold = max(math.sqrt(_upper_quantile(drawn, chance)), ROUNDING)
    # Where every value is missing nothing is left in common.
    return float(np.sqrt(divergence(expected, found))) if now else 1.0, threshold


def _upper_quantile(drawn: np.ndarray, chance: float) -> float:
    """The value that is exceeded with this probability, also far out where hardly a draw has been.

    Under no drift the divergence is a sum of squares of nearly normal numbers, whose distribution a gamma with the same
    mean and variance follows closely (Satterthwaite); its quantile is that of Wilson and Hilferty. Samples of a few
    rows take a few values only, which no curve follows: there the draws themselves say more.
    """
    from statistics import NormalDist

    import numpy as np

    mean, variance = float(drawn.mean()), float(drawn.var())
    fitted = 0.0
    if variance:
        ninth = variance / (9 * mean**2)
        fitted = mean * max(1 - ninth + NormalDist().inv_cdf(1 - chance) * math.sqrt(ninth), 0) ** 3
    return min(max(fitted, float(np.quantile(drawn, 1 - chance, method="higher"))), 1.0)


def _most_outside(random: np.random.Generator, known: int, new: int, chance: float) -> float:
    """How many of the new values may lie outside the range of the known ones by chance.

    Of continuous values the part that lies outside of the extremes of `known` others has the distribution
    Beta(2, known − 1), whatever the distribution of the values.
    """
    import numpy as np

    outside = random.binomial(new, random.beta(2, max(known - 1, 1), RARE_DRAWS))
    return float(np.quantile(outside, 1 - chance, method="higher"))


# -------------------------------------------------------------------------------------------------- metric


def scored(job: Job, records: Artifact, model: Path) -> Score | None:
    """What scores an exported model; None where nothing of it can be right or wrong.

    Args:
        job: What it was trained by.
        records: The finished folder of `preprocess`.
        model: The folder of the SavedModel.
    """
    from headrace.evaluating import measures_of
    from headrace.preprocessing import learned_function
    from headrace.records.inputs import read_info

    info = read_info(records.path)
    if job.task == "own" or not info.named("target") or not model.is_dir():
        return None
    prepare = learned_function(job, records, of_rows=True)
    return Score(model, job.origin.features, measures_of(job, info), prepare, info)


class Score:
    """The metric that decides, of the exported model on raw features, where the targets are there.

    Args:
        folder: The SavedModel.
        features: The declared features.
        measures: How answers are measured.
        prepare: The workload's preprocessing, by which targets become what answers are held against.
        info: What records are: whether examples are windows of the rows that pass, in whose targets they end.
    """

    def __init__(
        self,
        folder: Path,
        features: Mapping[str, Feature],
        measures: Measures,
        prepare: Callable[[Any], Any],
        info: Info,
    ) -> None:
        import tensorflow as tf

        # The signature does not keep what it belongs to alive.
        self._model = tf.saved_model.load(str(folder))
        self._serve = self._model.signatures[own_answer(self._model.signatures)]
        self.measures = measures
        self._features, self._prepare = features, prepare
        self._info = info
        self._rows: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._facts: list[Facts] = []
        lacking = [name for name in measures.tasks if name not in self._serve.structured_outputs]
        if lacking:
            raise StageFailed(
                f"The exported model gives no `{lacking[0]}`, so that it can't be held against the target.",
                expected=", ".join(measures.tasks),
                received=", ".join(self._serve.structured_outputs),
            )

    def watching(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, scored as they pass."""
        targets = [name for name, feature in self._features.items() if feature.role == "target"]
        for batch in batches:
            if all(name in batch.schema.names for name in targets):
                self._add(batch)
            yield batch

    def _add(self, batch: pa.RecordBatch) -> None:
        import tensorflow as tf

        from headrace.bundling.examples import sent
        from headrace.ragged import to_tensor
        from headrace.readers.batches import to_arrays

        values = to_arrays(batch, self._features)
        given = {name: values[name] for name, feature in self._features.items() if feature.role == "input"}
        prepared = self._prepare({name: to_tensor(found) for name, found in values.items()})
        truth = {name: prepared[name].numpy() for name in self.measures.tasks}
        if self._info.windows:
            # A window may begin in one batch and end in another.
            self._rows.append((given, truth))
            return
        answers = self._serve(**{name: tf.constant(array) for name, array in sent(given).items()})
        self._facts.append(self.measures.facts(truth, {name: answers[name].numpy() for name in truth}))

    def _cut(self) -> None:
        """Ask for a forecast from each window of the rows that have passed."""
        import numpy as np
        import tensorflow as tf

        from headrace.windows import CUT, count, examples

        windows, rows = self._info.windows, self._rows
        self._rows = []
        if not windows or not rows:
            return
        given, truth = ({name: np.concatenate([r[k][name] for r in rows]) for name in rows[0][k]} for k in (0, 1))
        # All rows are of one series here: a target lies among them, too.
        inside = windows.model_copy(update={"boundary": "inside"})
        number = count(inside, len(next(iter(given.values()))))
        inputs = examples(given, self._features, windows, number)
        targets = examples(truth, self._info.features, windows, number)
        for first in range(0, number, CUT):
            some = slice(first, first + CUT)
            answers = self._serve(**{name: tf.constant(np.asarray(v[some])) for name, v in inputs.items()})
            told = {name: np.asarray(values[some]) for name, values in targets.items()}
            self._facts.append(self.measures.facts(told, {name: answers[name].numpy() for name in told}))

    @property
    def facts(self) -> Facts | None:
        """What the metrics are made of, example by example, or None if no targets were there."""
        from headrace.measuring.tasks import joined

        self._cut()
        return joined(self._facts) if self._facts else None

    @property
    def result(self) -> dict[str, Any] | None:
        """The metric, or None if no targets were there."""
        from headrace.measuring.tasks import examples

        facts = self.facts
        if facts is None:
            return None
        metric = self.measures.primary
        return {"metric": metric, "value": float(self.measures.measure(facts)[metric]), "rows": examples(facts)}
