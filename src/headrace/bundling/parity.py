"""How well each format agrees with the Keras model, and the gate that stands on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError
from headrace.jobs import Job
from headrace.spec import Export

if TYPE_CHECKING:
    from headrace.bundling.examples import Arrays
    from headrace.measuring.tasks import Measures
    from headrace.records.inputs import Info

FLOAT = ("saved_model", "tflite", "onnx")
"""Formats that compute as Keras does; the others store weights by fewer bits, and are judged by what they decide."""
APART = 0.1
"""Mean difference allowed of a quantised format where nothing is decided, as a share of the largest output: what is
further off is another model, even if it happens to do better by a metric."""

_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("passed", "problem", "remark", "repeatable", "max_difference", "relative_difference")),
    **dict.fromkeys(
        ("mean_difference", "relative_mean_difference", "agreement", "metric", "metric_loss", "bytes", "zipped_bytes")
    ),
    **dict.fromkeys(("milliseconds", "milliseconds_p95", "milliseconds_together", "milliseconds_loading")),
    **dict.fromkeys(("peak_bytes", "accepts_wrong_types", "inputs", "batch")),
    "passed": False,
}


@dataclass(frozen=True)
class Expected:
    """What the Keras model answers to the recorded examples, and how that is judged."""

    together: Arrays
    """Target → its answers to all examples at once."""
    alone: Mapping[str, Arrays]
    """`raw` or `prepared` inputs → its answers to the first examples, one at a time."""
    truth: Arrays
    """Target → what the records hold."""
    tasks: Mapping[str, str]
    """Target → what it is for."""
    measures: Measures | None = None
    """How answers are measured; none for tasks whose answers are not, one by one."""
    primary: str = ""

    def metric(self, answers: Arrays) -> float | None:
        """The metric of some answers that decides; None where it has no value."""
        import numpy as np

        if self.measures is None:
            return None
        value = self.measures.measure(self.measures.facts(self.truth, answers)).get(self.primary)
        return float(value) if value is not None and np.isfinite(value) else None


def measures(job: Job, info: Info) -> tuple[Measures | None, str]:
    """How the answers of a job's models are measured, and the metric that decides; none if they can't be by records."""
    from headrace.evaluating import measures_of

    try:
        found = measures_of(job, info)
    except (HeadraceError, KeyError):
        return None, ""
    return found, promised(job) or found.primary


def promised(job: Job) -> str | None:
    """The first metric that is promised of the test split, if there is one: it decides."""
    return next((promise.metric for promise in job.settings.promises if promise.on == "test"), None)


def compared(
    name: str, found: Mapping[str, Any], answers: Path, expected: Expected, settings: Export
) -> dict[str, Any]:
    """What was found of a format with the differences of its answers from the expected ones.

    Args:
        name: The format.
        found: What `headrace.serving_check` found.
        answers: The file of its answers.
        expected: What they should be.
        settings: Tolerances.
    """
    entry = {**_NOTHING, **found}
    if entry["problem"]:
        return entry
    from headrace.serving_check import read

    given = {way: read(str(answers), way) for way in ("together", "again", "alone")}
    due = {"together": expected.together, "again": expected.together, "alone": expected.alone[entry["inputs"]]}
    problem = _shapes(given, due)
    return entry | ({"problem": problem} if problem else _judged(name, entry, given, due, expected, settings))


def same(found: Mapping[str, Any], answers: Path, due: Arrays, settings: Export) -> dict[str, Any]:
    """What was found of a signature that is no model's own answer, with how far its answers are from those expected.

    Args:
        found: What `headrace.serving_check` found.
        answers: The file of its answers.
        due: What they should be: numbers within the tolerance, all else the very same.
        settings: Tolerances.
    """
    entry = {**dict.fromkeys(("examples", "relative_difference", "milliseconds")), **found, "passed": False}
    if entry["problem"]:
        return entry
    import numpy as np

    from headrace.serving_check import read

    ways = {way: read(str(answers), way) for way in ("together", "again", "alone")}
    largest, different = 0.0, []
    for way, given in ways.items():
        for name, values in due.items():
            got = given.get(name)
            wanted = values[: len(got)] if got is not None and way == "alone" else values
            if got is not None and way == "alone":
                # Alone an answer may be shorter than with longer ones beside it.
                got, wanted = _alike(got, wanted)
            if got is None or got.shape != wanted.shape or (got.dtype.kind in "OSU") != (wanted.dtype.kind in "OSU"):
                shape = "none" if got is None else f"shape {got.shape} of {got.dtype}"
                problem = (
                    f"the answers for `{name}` should have shape {wanted.shape} of {wanted.dtype}, and have {shape}"
                )
                return entry | {"problem": problem}
            if wanted.dtype.kind == "f":
                scale = float(np.abs(wanted).max(initial=0)) or 1.0
                difference = np.abs(got.astype(np.float64) - wanted).max(initial=0) / scale
                # NaN is the largest difference there is, and must not get lost on the way.
                largest = float(np.max([largest, difference]))
            elif not np.array_equal(got, wanted):
                different.append(f"`{name}` {_WAYS[way]}")
    entry |= {"examples": len(next(iter(due.values()))), "relative_difference": _finite(largest)}
    if different:
        return entry | {"problem": f"it answers otherwise than here: {', '.join(different)}"}
    if not largest <= settings.tolerance:
        return entry | {"problem": f"its answers differ by {_power(_finite(largest))} of the largest"}
    if entry["accepts_wrong_types"]:
        return entry | {"problem": f"it takes values of a wrong type for {', '.join(entry['accepts_wrong_types'])}"}
    return entry | {"passed": True}


_WAYS = {
    "together": "in a fresh process",
    "again": "when it is asked again",
    "alone": "when each example is asked alone",
}


def _alike(one: Any, other: Any) -> tuple[Any, Any]:
    """Two arrays filled up to the same length with zeros, or empty strings."""
    import numpy as np

    if one.ndim != other.ndim:
        return one, other
    most = np.maximum(one.shape, other.shape)[1:]

    def filled(values: Any) -> Any:
        missing = [(0, 0), *((0, int(size)) for size in most - values.shape[1:])]
        return np.pad(values, missing, constant_values=b"" if values.dtype == object else 0)

    return filled(one), filled(other)


def _shapes(given: Mapping[str, Arrays], due: Mapping[str, Arrays]) -> str | None:
    for way, answers in due.items():
        for name, values in answers.items():
            got = given[way].get(name)
            if got is None or got.shape != values.shape:
                shape = "none" if got is None else f"shape {got.shape}"
                return f"the answers for `{name}` should have shape {values.shape}, and have {shape}"
    return None


def _judged(
    name: str,
    entry: Mapping[str, Any],
    given: Mapping[str, Arrays],
    due: Mapping[str, Arrays],
    expected: Expected,
    settings: Export,
) -> dict[str, Any]:
    import numpy as np

    repeatable = all(np.array_equal(given["together"][t], given["again"][t], equal_nan=True) for t in expected.together)
    largest = total = scale = 0.0
    for target, values in expected.together.items():
        differences = [
            np.abs(given[way][target].astype(np.float64) - due[way][target]) for way in ("together", "again", "alone")
        ]
        # NaN is the largest difference there is, and must not get lost on the way.
        largest = float(np.max([largest, *(difference.max(initial=0) for difference in differences)]))
        total += float(differences[0].mean())
        scale = max(scale, float(np.abs(values).max(initial=0)))
    relative, mean = largest / (scale or 1.0), total / len(expected.together)
    agreement = _agreement(given["together"], expected)
    metric = expected.metric(given["together"])
    loss = _loss(metric, expected)
    sound = repeatable and not entry["accepts_wrong_types"]
    if name in FLOAT:
        sound = sound and relative <= settings.tolerance
    else:
        close = mean / (scale or 1.0) <= APART if agreement is None else agreement >= settings.min_agreement
        sound = sound and close and (loss is None or loss <= settings.max_metric_loss)
    return {
        "passed": bool(sound),
        "repeatable": repeatable,
        "max_difference": _finite(largest),
        "relative_difference": _finite(relative),
        "mean_difference": _finite(mean),
        "relative_mean_difference": _finite(mean / (scale or 1.0)),
        "agreement": agreement,
        "metric": metric,
        "metric_loss": None if loss is None else _finite(loss),
    }


def _agreement(answers: Arrays, expected: Expected) -> float | None:
    """The share of decisions that are the same; None where answers decide nothing."""
    import numpy as np

    same = []
    for target, task in expected.tasks.items():
        decide = _DECISIONS.get(task)
        if decide:
            same.append((decide(answers[target]) == decide(expected.together[target])).reshape(-1))
    return float(np.concatenate(same).mean()) if same else None


def _largest(answers: Any) -> Any:
    return answers.argmax(axis=-1)


def _likely(answers: Any) -> Any:
    return answers >= 0.5


_DECISIONS = {
    **dict.fromkeys(("multiclass", "segmentation", "sequence", "language_model"), _largest),
    **dict.fromkeys(("binary", "multilabel"), _likely),
}


def _loss(metric: float | None, expected: Expected) -> float | None:
    """What is lost of the metric, as a share of the Keras model's own; infinite if it is no longer defined."""
    ours = expected.metric(expected.together)
    if ours is None or expected.measures is None:
        return None
    if metric is None:
        return float("inf")
    lost = -float(expected.measures.gain(expected.primary, metric, ours))
    return lost / abs(ours) if ours else lost


def _finite(value: float) -> float | None:
    """As JSON, which has neither NaN nor infinity."""
    return value if abs(value) < float("inf") else None


# ------------------------------------------------------------------------------------------------- gate


def gate(
    found: Mapping[str, Mapping[str, Any]],
    expected: Expected,
    settings: Export,
    signatures: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Passed if the SavedModel was made and no format that was made differs; what can't be made is said, not hidden.

    What the SavedModel can be asked besides (`signatures`) must answer as it does here, every one of them.
    """
    made = {name: entry for name, entry in found.items() if not entry["problem"]}
    count = len(next(iter(expected.together.values())))
    floats = [f"{name} {_power(e['relative_difference'])}" for name, e in made.items() if name in FLOAT]
    said = []
    if floats:
        said.append(
            f"largest difference from the Keras model on {count} test examples, as a share of the largest output: "
            f"{', '.join(floats)} (allowed: {settings.tolerance:g})"
        )
    quantised = [_in_words(name, e, expected) for name, e in made.items() if name not in FLOAT]
    if quantised:
        bounds = _bounds([e for name, e in made.items() if name not in FLOAT], settings)
        said.append(f"quantised: {', '.join(quantised)} ({bounds})")
    problems: dict[str, list[str]] = {}
    for name, entry in found.items():
        if entry["problem"]:
            problems.setdefault(entry["problem"], []).append(name)
    said += [f"{' and '.join(names)} can't be made: {problem}" for problem, names in problems.items()]
    for name, entry in made.items():
        if not entry["repeatable"]:
            said.append(f"{name} gives two answers to the same examples: something random is left in it")
        if entry["accepts_wrong_types"]:
            said.append(f"{name} takes values of a wrong type for {', '.join(entry['accepts_wrong_types'])}")
    for name, entry in signatures.items():
        if entry["passed"]:
            said.append(f"signature {name} answers {entry['examples']} examples in a fresh process as it does here")
        else:
            said.append(f"signature {name} can't be used: {entry['problem']}")
    passed = found["saved_model"]["passed"] and all(entry["passed"] or entry["problem"] for entry in found.values())
    passed = passed and all(entry["passed"] for entry in signatures.values())
    return {"gate": "parity", "passed": passed, "reason": "; ".join(said)}


def _power(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.1e}"


def _in_words(name: str, entry: Mapping[str, Any], expected: Expected) -> str:
    from headrace.measuring.words import short, title

    words = []
    if entry["agreement"] is None:
        words.append(f"a mean difference of {_power(entry['relative_mean_difference'])}")
    else:
        words.append(f"{entry['agreement']:.1%} of decisions the same")
    if entry["metric_loss"] is not None or entry["metric"] is not None:
        ours = expected.metric(expected.together)
        words.append(f"{title(expected.primary)} {short(entry['metric'])} where Keras has {short(ours)}")
    return f"{name} {' and '.join(words)}"


def _bounds(entries: list[Mapping[str, Any]], settings: Export) -> str:
    words = []
    if any(entry["agreement"] is not None for entry in entries):
        words.append(f"at least {settings.min_agreement:.0%} the same")
    else:
        words.append(f"at most {APART:g} of the largest output apart")
    if any(entry["metric"] is not None for entry in entries):
        words.append(f"at most {settings.max_metric_loss:.0%} worse")
    return ", ".join(words)
