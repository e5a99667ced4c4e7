"""What a model is compared with: naive answers, and plain learners of scikit-learn where inputs are vectors.

Plain learners have a bounded cost: they learn from as many training examples, drawn by a fixed seed, as a few seconds
on one core allow, and are left out, with the reason, where that is too few to mean anything. One thread does it, since
several that share a busy machine spin more than they work.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.measuring.resampling import Array, intervals
from headrace.measuring.tasks import Facts, Measures, Task, examples
from headrace.measuring.words import short, spread, title
from headrace.ragged import Ragged

if TYPE_CHECKING:
    from headrace.records.inputs import Info

    Batches = Iterable[Mapping[str, Any]]

log = logging.getLogger(__name__)

LINEAR, BOOSTED = "linear model", "boosted trees"
PLAIN = (LINEAR, BOOSTED)
RANDOM = "random labels"

COST = {LINEAR: 5e9, BOOSTED: 4e8}
"""Most steps that learning may take: multiplications of a linear model (0.4 ns each), and of boosted trees what they
look at (5 ns each): two seconds of one core."""
ROUNDS = {LINEAR: 20, BOOSTED: 100}
"""Iterations of the solver, at most, and trees for each class."""
LEAVES, BUCKETS = 31, 256
"""Of a tree; and of a histogram."""
FEW = 1_000
"""Examples below which a part of the training split is too small to learn from."""
COLUMNS = 20_000
"""Most columns of all inputs together."""
SPARSE = 0.1
"""Inputs of which fewer numbers than this share differ from zero are kept as sparse ones."""
_CATEGORIES = 50
_SEED = 20_260

Known = dict[str, dict[str, Facts]]
"""Name of a baseline → target → the facts of its answers to all test examples."""


# ------------------------------------------------------------------------------------------------ comparing


@dataclass(frozen=True)
class Compared:
    """By how much a model is better than one baseline."""

    name: str
    value: float
    """Of the metric that decides."""
    gain: float
    interval: list[float] | None

    def json(self, metric: str) -> dict[str, Any]:
        """As it stands in `evaluation.json`."""
        return {
            "baseline": self.name,
            "kind": "plain" if self.name in PLAIN else "naive",
            "metric": metric,
            "value": self.value,
            "gain": self.gain,
            "interval": self.interval,
        }


def compared(measures: Measures, metric: str, facts: Facts, known: Known) -> list[Compared]:
    """A model beside each baseline, on the same test examples.

    Args:
        measures: How answers are measured.
        metric: The one that decides.
        facts: Of the model.
        known: The baselines; those that say nothing of the metric's target are left out.
    """
    target = measures.target_of(metric)
    task = measures.tasks[target]
    own = metric if len(measures.tasks) == 1 else metric.removeprefix(f"{target}_")
    theirs = {name: found[target] for name, found in known.items() if target in found}
    once = np.ones(examples(facts))
    values = {name: task.measure(found, once) for name, found in theirs.items()}
    theirs = {name: found for name, found in theirs.items() if own in values[name] and np.isfinite(values[name][own])}
    ours = float(measures.measure(facts)[metric])
    if not theirs or not np.isfinite(ours):
        return []
    expected = {RANDOM: task.chance(theirs[RANDOM])[own].value} if _is_expected(task, theirs, own) else {}

    def value_of(name: str, weights: Array) -> Any:
        return expected[name] if name in expected else task.measure(theirs[name], weights)[own]

    def gains(weights: Array) -> dict[str, Array]:
        mine = measures.measure(facts, weights)[metric]
        return {name: measures.gain(metric, mine, value_of(name, weights)) for name in theirs}

    bounds = intervals(gains, examples(facts), measures.groups(examples(facts)))
    found = []
    for name in theirs:
        value = float(value_of(name, once))
        found.append(Compared(name, value, float(measures.gain(metric, ours, value)), bounds[name]))
    return found


def _is_expected(task: Task, theirs: Mapping[str, Facts], metric: str) -> bool:
    """Whether it is known what drawn labels come to on average, so that one draw need not stand for all."""
    return RANDOM in theirs and metric in task.chance(theirs[RANDOM])


def metrics(measures: Measures, name: str, theirs: Mapping[str, Facts]) -> dict[str, Any]:
    """The metrics of a baseline, for the targets that it says something of."""
    found: dict[str, Any] = {}
    for target, facts in theirs.items():
        task = measures.tasks[target]
        own = dict(task.measure(facts, np.ones(examples(facts))))
        if name == RANDOM:  # what is expected, rather than what one draw has come to
            own |= {metric: np.asarray(expected.value) for metric, expected in task.chance(facts).items()}
        found |= {measures.named(target, metric): value for metric, value in own.items()}
    return found


def gate(metric: str, ours: float | None, found: Sequence[Compared], beat: str) -> dict[str, Any]:
    """Whether the model is better than the best baseline by more than the draw of the test examples explains.

    Args:
        metric: The one that decides.
        ours: Its value for the model.
        found: What `compared` gave.
        beat: `naive`, or `plain` for the plain learners as well.
    """
    counted = [one for one in found if beat == "plain" or one.name not in PLAIN]
    if ours is None:
        reason = f"{title(metric)} is undefined on this test split, so that nothing can be compared"
        return {"gate": "baseline", "passed": None, "reason": reason}
    if not counted:
        reason = f"there is no naive answer to measure {title(metric)} of"
        return {"gate": "baseline", "passed": None, "reason": reason}
    best = min(counted, key=lambda one: one.gain)
    passed = best.interval is not None and best.interval[0] > 0
    kind = "plain learner" if best.name in PLAIN else "naive answer"
    verb = "beats" if passed else "does not clearly beat"
    return {
        "gate": "baseline",
        "passed": passed,
        "reason": (
            f"{title(metric)} {short(ours)} {verb} {short(best.value)} of the best "
            f"{kind}, the {best.name}: better by {short(best.gain)} {spread(best.interval)}"
        ),
    }


# ------------------------------------------------------------------------------------------- plain learners


@dataclass(frozen=True)
class Plain:
    """What plain learners came to."""

    known: Known = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why there is nothing of a learner."""
    learned_from: dict[str, int] = field(default_factory=dict)
    """Training examples of each learner."""


_made: dict[Any, Plain] = {}
"""What was learned in this process: the models of a fan-out are compared with the same learners."""


def plain(digest: str, measures: Measures, info: Info, train: Batches, test: Batches) -> Plain:
    """What plain learners answer to the test examples.

    Args:
        digest: Of the records.
        measures: How answers are measured.
        info: Of the records.
        train: The training examples.
        test: The test examples.
    """
    named = tuple((name, type(task).__name__, task.how.threshold) for name, task in measures.tasks.items())
    if (digest, named) not in _made:
        while len(_made) > 3:
            del _made[next(iter(_made))]
        _made[digest, named] = _plain(measures, info, train, test)
    return _made[digest, named]


def _plain(measures: Measures, info: Info, train: Batches, test: Batches) -> Plain:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    tasks = {name: task for name, task in measures.tasks.items() if task.learned_as}
    if not tasks:
        return Plain()
    obstacle = why_no_vectors(info)
    if obstacle:
        return Plain(left_out=dict.fromkeys(PLAIN, obstacle))
    first = _table(next(iter(train)), info)
    if first.shape[1] > COLUMNS:
        return Plain(left_out=dict.fromkeys(PLAIN, f"{first.shape[1]:,} columns are too many"))
    numbers = _whole_numbers(next(iter(train)), info)
    if numbers:
        obstacle = f"the numbers of `{numbers}` are names of something, and no quantities"
        return Plain(left_out=dict.fromkeys(PLAIN, obstacle))
    found = Plain()
    truth = {name: np.concatenate([batch[name] for batch in test]) for name in tasks}
    asked = _joined([_table(batch, info) for batch in test])
    for learner in PLAIN:
        for name, task in tasks.items():
            total = info.examples["train"]
            rows, obstacle = affordable(learner, total, first, outputs(task, train, name))
            if obstacle is None:
                table, targets = _some(train, info, name, rows, total)
                with threadpool_limits(1), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a solver that was stopped early is good enough to be beaten
                    try:
                        answers = _LEARN[task.learned_as or ""](learner, task, table, targets, asked)
                    except ValueError as error:
                        obstacle = str(error).partition("\n")[0]
            if obstacle is None:
                found.known.setdefault(learner, {})[name] = task.facts(truth[name], answers)
                found.learned_from[learner] = rows
            else:
                found.left_out[learner] = obstacle if len(tasks) == 1 else f"{name}: {obstacle}"
    return found


def why_no_vectors(info: Info) -> str | None:
    """Why nothing plain can learn from these inputs; None if it can."""
    for name, feature in info.named("input").items():
        if feature.dtype == "string" or feature.ragged or len(feature.shape) > 1:
            shape = feature.shape or "()"
            return f"the inputs are no vectors: `{name}` is {feature.kind} of type {feature.dtype} and shape {shape}"
        if feature.kind == "tokens":
            return f"the inputs are no vectors: `{name}` is a sequence of tokens"
    return None


def _whole_numbers(batch: Mapping[str, Any], info: Info) -> str | None:
    """An input that is a sequence of numbers of words or the like; None if there is none."""
    for name, feature in info.named("input").items():
        if feature.dtype == "int64" and feature.size > 1 and feature.content != "number" and batch[name].max() > 1:
            return name
    return None


def outputs(task: Task, train: Batches, target: str) -> int:
    """Numbers that a learner must give for each example."""
    if task.learned_as == "classes":
        numbers = getattr(task, "numbers", None)
        if numbers is None:
            return 1
        return int(max(numbers(batch[target]).max() for batch in train)) + 1
    return task.target.size


def affordable(learner: str, examples: int, first: Any, outputs: int) -> tuple[int, str | None]:
    """From how many examples a learner may learn, and why not at all.

    Args:
        learner: Its name.
        examples: How many there are.
        first: The inputs of some of them (rows, columns).
        outputs: Numbers that it must give for each.
    """
    columns = first.shape[1]
    if learner == LINEAR:
        # A sparse number costs as much as eight dense ones.
        each = columns if isinstance(first, np.ndarray) else 8 * first.nnz / first.shape[0] + 1
        rows = COST[LINEAR] / (each * outputs * ROUNDS[LINEAR])
    else:
        if not isinstance(first, np.ndarray):
            return 0, f"{columns:,} columns, most of them 0, are too many"
        trees = ROUNDS[BOOSTED] * outputs
        rows = (COST[BOOSTED] / (trees * columns) - LEAVES * BUCKETS) / math.log2(LEAVES + 1)
    rows = min(examples, int(rows))
    if rows < min(examples, FEW):
        return 0, f"{examples:,} examples of {columns:,} columns and {outputs:,} outputs would take too long"
    return rows, None


def _table(batch: Mapping[str, Any], info: Info) -> Any:
    """The inputs of some examples side by side (examples, columns), dense or sparse."""
    from scipy import sparse

    parts: list[Array] = []
    for name, feature in info.named("input").items():
        values = batch[name]
        assert not isinstance(values, Ragged)  # noqa: S101 (`why_no_vectors`)
        if feature.classes and feature.dtype == "int64" and feature.size == 1 and len(feature.classes) <= _CATEGORIES:
            values = values.reshape(-1, 1) == np.arange(len(feature.classes))
        parts.append(values.reshape(len(values), -1).astype(np.float32, copy=False))
    table = np.hstack(parts) if len(parts) > 1 else parts[0]
    rows, columns = table.shape
    if columns <= 100:
        return table
    filled = np.flatnonzero(table)
    if len(filled) >= SPARSE * table.size:
        return table
    ends = np.searchsorted(filled, columns * np.arange(rows + 1))
    return sparse.csr_matrix((table.ravel()[filled], filled % columns, ends), shape=(rows, columns))


def _joined(parts: Sequence[Any]) -> Any:
    from scipy import sparse

    if all(isinstance(part, np.ndarray) for part in parts):
        return np.vstack(parts)
    return sparse.csr_matrix(sparse.vstack([sparse.csr_matrix(part) for part in parts]))


def _some(train: Batches, info: Info, target: str, rows: int, total: int) -> tuple[Any, Array]:
    """Inputs and targets of so many training examples, drawn by a fixed seed."""
    chosen = np.sort(np.random.default_rng(_SEED).choice(total, rows, replace=False))
    tables, targets, before = [], [], 0
    for batch in train:
        count = len(batch[target])
        own = chosen[(chosen >= before) & (chosen < before + count)] - before
        if len(own):
            tables.append(_table({name: batch[name][own] for name in info.named("input")}, info))
            targets.append(batch[target][own])
        before += count
    return _joined(tables), np.concatenate(targets)


# ---------------------------------------------------------------------------------------------- scikit-learn


def _prepared(estimator: Any, table: Any) -> Any:
    """A linear estimator with its inputs brought to one scale, and what is missing filled in."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler

    if not isinstance(table, np.ndarray):
        return make_pipeline(MaxAbsScaler(), estimator)
    filled = [SimpleImputer(keep_empty_features=True)] if not np.isfinite(table).all() else []
    bounded = table.shape[1] > 100 or bool((np.nan_to_num(table) >= 0).all() and np.nanmax(table, initial=0) <= 1)
    return make_pipeline(*filled, MaxAbsScaler() if bounded else StandardScaler(), estimator)


def _numbers(learner: str, task: Task, table: Any, targets: Array, asked: Any) -> Array:
    rows = targets.reshape(len(targets), -1).astype(np.float64)
    if learner == LINEAR:
        from sklearn.linear_model import Ridge

        found = _prepared(Ridge(), table).fit(table, rows).predict(asked)
    else:
        from sklearn.ensemble import HistGradientBoostingRegressor

        def boosted(column: Array) -> Array:
            trees = HistGradientBoostingRegressor(early_stopping=False, max_iter=ROUNDS[BOOSTED], random_state=_SEED)
            answers: Array = trees.fit(table, column).predict(asked)
            return answers

        found = np.stack([boosted(column) for column in rows.T], axis=1)
    shape = tuple(length for length in task.target.shape if length is not None)
    return np.asarray(found).reshape(-1, *shape)


def _classifier(learner: str, table: Any) -> Any:
    if learner == LINEAR:
        from sklearn.linear_model import LogisticRegression

        return _prepared(LogisticRegression(max_iter=ROUNDS[LINEAR]), table)
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(early_stopping=False, max_iter=ROUNDS[BOOSTED], random_state=_SEED)


def _classes(learner: str, task: Task, table: Any, targets: Array, asked: Any) -> Array:
    from headrace.measuring.classification import Binary, MultiClass

    if isinstance(task, MultiClass):
        numbers = task.numbers(targets)
        size = task.size(numbers)
    else:
        numbers, size = (targets.reshape(len(targets)) == 1).astype(np.int64), 2
    fitted = _classifier(learner, table).fit(table, numbers)
    answers = np.zeros((asked.shape[0], size))
    answers[:, fitted.classes_] = fitted.predict_proba(asked)
    return task.as_scores(answers[:, 1:]) if isinstance(task, Binary) else answers


def _labels(learner: str, task: Task, table: Any, targets: Array, asked: Any) -> Array:
    from headrace.measuring.classification import MultiLabel

    assert isinstance(task, MultiLabel)  # noqa: S101
    rows = targets.reshape(len(targets), -1) == 1
    columns = []
    for column in rows.T:
        if column.all() or not column.any():
            columns.append(np.full(asked.shape[0], float(column[0])))
        else:
            columns.append(_classifier(learner, table).fit(table, column).predict_proba(asked)[:, 1])
    shape = tuple(length for length in task.target.shape if length is not None)
    return task.as_scores(np.stack(columns, axis=1)).reshape(-1, *shape)


_LEARN: dict[str, Callable[[str, Task, Any, Array, Any], Array]] = {
    "numbers": _numbers,
    "classes": _classes,
    "labels": _labels,
}
