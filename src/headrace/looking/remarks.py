"""What is remarkable about data, in words with numbers: judged from what `observing` and `summaries` have gathered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headrace.looking.duplicates import Contradictions, Repeats
from headrace.looking.leaking import SUSPICIOUS, Clue
from headrace.looking.observing import Observer, Target

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

NAMED = 5
"""Columns that one remark names; it counts the others."""
OFTEN_MISSING = 0.2
"""Share of missing values from which a column needs a decision, and not only a default."""
DOMINANT = 0.8
"""Share of the largest class from which accuracy says little."""
UNEQUAL = 20
"""How many times as often the largest class must occur as the smallest for the balance to be worth a warning."""
RARE = 10
"""Examples below which a class can hardly be learned."""
SMALL = 100
"""Examples below which a split gives figures with wide margins."""
REPEATED = 0.01
"""Share of repeated examples from which they are worth a warning."""
UNIQUE = 0.5
"""Share of distinct values from which a category is a name rather than a property."""
SEQUENCES = 1_500
"""Training examples for each word of the average text from which models of sequences are better than bags."""
RISES = 20
"""How often a column must rise, and never fall, to count as sorted."""
ALIKE = 0.5
"""Correlation of a target with that of the example before from which the examples count as ordered."""


@dataclass(frozen=True)
class Remark:
    """Something a person should know before trusting a model trained on these data."""

    severity: Severity
    """`error`: figures will mislead. `warning`: needs a look, or a decision. `info`: good to know."""
    check: str
    """What was looked for: "missing values", "duplicates" …"""
    text: str
    feature: str = ""
    column: str = ""
    split: str = ""


def percent(share: float) -> str:
    """A share in words: "3.4%", "<0.1%"."""
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


# ------------------------------------------------------------------------------------------ single columns


def of_columns(features: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
    """Missing values, constant columns, categories that tell every example apart.

    Args:
        features: As they are described in `examination.json`: of the training split.
    """
    for feature in features:
        name, columns = feature["name"], feature["columns"]
        missing = {c["name"]: c["missing_share"] for c in columns if c["missing_share"]}
        if missing:
            worst = max(missing.values())
            where = "" if set(missing) == {name} else f" in {_named(list(missing))}"
            shares = percent(worst) if len(missing) == 1 else f"up to {percent(worst)}"
            yield Remark(
                "warning" if worst >= OFTEN_MISSING else "info",
                "missing values",
                f"`{name}`: {shares} of the values are missing{where}",
                name,
            )
        constant = [c["name"] for c in columns if c["constant"]]
        if constant:
            words = (
                f"`{name}` has the same value in every example"
                if constant == [name]
                else f"`{name}`: {len(constant)} of {len(columns)} columns never change: {_named(constant)}"
            )
            # The margins of images hardly ever change: nothing is wrong with them.
            yield Remark("warning" if feature["named"] else "info", "constant columns", words, name)
        unique = next((tally["unique"] for tally in feature["tallies"] if tally["of"] == "values"), 0)
        if feature["role"] == "input" and feature["kind"] == "category" and feature["shape"] in ([], [1]):
            if unique > max(RISES, UNIQUE * feature["rows"]):
                text = f"`{name}` has {unique:,} different values in {feature['rows']:,} examples: rather a name"
                yield Remark("warning", "identifiers", f"{text} than a property", name)
            elif unique == 1 and not missing:
                yield Remark("warning", "constant columns", f"`{name}` has the same value in every example", name)
        if feature["broken"]:
            what = "files that can't be read as images" if feature["kind"] in ("image", "mask") else "no UTF-8"
            text = f"`{name}`: {feature['broken']:,} values are {what}"
            yield Remark("warning", "encoding", text, name)


# ------------------------------------------------------------------------------------------------- target


def of_classes(target: Target, counts: Mapping[str, Mapping[Any, int]]) -> Iterator[Remark]:
    """How equally the classes occur, and which do in one split only.

    Args:
        target: The target.
        counts: Split → class → how often it occurs; `train` first.
    """
    name, train = target.name, counts["train"]
    total = sum(train.values())
    largest = max(train, key=lambda value: (train[value], str(value)))
    least = min(train, key=lambda value: (train[value], str(value)))
    majority = "; ".join(
        f"{percent(found.get(largest, 0) / max(sum(found.values()), 1))} of {split}" for split, found in counts.items()
    )
    unequal = train[largest] >= DOMINANT * total or train[largest] >= UNEQUAL * train[least]
    yield Remark(
        "warning" if unequal and len(train) > 1 else "info",
        "class balance",
        f"`{name}`: {len(train)} classes, from {train[least]:,} examples (`{target.label(least)}`) to "
        f"{train[largest]:,} (`{target.label(largest)}`); always answering the latter is right for {majority}",
        name,
    )
    if len(train) == 1:
        text = f"`{name}`: every training example is of class `{target.label(largest)}`: there is nothing to learn"
        yield Remark("error", "class balance", text, name, split="train")
    for split, found in counts.items():
        unseen = sorted(set(found) - set(train), key=str)
        if unseen:
            labels = _named([target.label(value) for value in unseen])
            share = percent(sum(found[value] for value in unseen) / sum(found.values()))
            text = f"`{name}`: {labels} occur in {split} ({share} of it) but never in training"
            yield Remark("error", "unseen classes", text, name, split=split)
    rare = sorted((value for value, count in train.items() if count < RARE), key=str)
    if rare and total >= RARE * len(train):
        labels = _named([target.label(value) for value in rare])
        text = f"`{name}`: {labels}: fewer than {RARE} training examples"
        yield Remark("warning", "class balance", text, name, split="train")
    absent = [label for i, label in enumerate(target.feature.classes) if not {float(i), label.encode()} & set(train)]
    if absent:
        text = f"`{name}`: {_named(absent)}: declared, but without a training example"
        yield Remark("warning", "class balance", text, name, split="train")


def of_texts(features: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
    """Which kind of model suits texts that are to be classified: pairs of words, or words in their order.

    Chollet's rule of thumb (11.4.4): by the number of training examples for each word of the average text.

    Args:
        features: As they are described in `examination.json`: of the training split.
    """
    inputs = [feature for feature in features if feature["role"] == "input"]
    if len(inputs) != 1 or inputs[0]["kind"] not in ("text", "tokens"):
        return
    (feature,) = inputs
    means = [measure["mean"] for measure in feature["measures"] if measure["name"] in ("words", "length")]
    if not means or not means[0]:
        return
    ratio = feature["rows"] / means[0]
    few = ratio < SEQUENCES
    kind = "a bag of words and pairs of words" if few else "a model of sequences"
    text = (
        f"`{feature['name']}`: {feature['rows']:,} training examples for {means[0]:,.0f} words on average, a ratio of "
        f"{ratio:,.0f}: {'below' if few else 'from'} {SEQUENCES:,}{'' if few else ' on'}, {kind} tends to be best"
    )
    yield Remark("info", "model for texts", text, feature["name"])


def of_leaks(clues: Sequence[Clue], target: str) -> Iterator[Remark]:
    """Columns that give the target away by themselves."""
    for clue in clues:
        place = f"`{clue.column}`" + (f" of `{clue.feature}`" if clue.column != clue.feature else "")
        if clue.equal:
            text = f"{place} is equal to the target `{target}` in every example looked at"
            yield Remark("error", "leaking features", text, clue.feature, clue.column)
        elif clue.skill >= SUSPICIOUS:
            text = (
                f"{place} by itself gives `{target}` away (skill {clue.skill:.3f} of 1, on examples not learned from): "
                "is it known before the target is?"
            )
            yield Remark("warning", "leaking features", text, clue.feature, clue.column)


# --------------------------------------------------------------------------------------------- duplicates


def of_repeats(inside: Mapping[str, Repeats], between: Mapping[tuple[str, str], Repeats]) -> Iterator[Remark]:
    """Examples that occur more than once.

    Args:
        inside: Split → repeats within it.
        between: (known split, other split) → examples of the other that occur in the known one.
    """
    for split, found in inside.items():
        if found.count:
            rows = ", ".join(f"{row} (as {first})" for row, first in found.first)
            text = f"{found.count:,} examples of {split} ({percent(found.share)}) repeat an earlier one: {rows}"
            yield Remark(_weight(found), "duplicates", _more(text, found), split=split)
    for (known, other), found in between.items():
        if found.count:
            rows = ", ".join(f"{row} (in {known}: {first})" for row, first in found.first)
            text = (
                f"{found.count:,} examples of {other} ({percent(found.share)}) are in {known}, too, so that a model "
                f"may remember them: {rows}"
            )
            yield Remark(_weight(found), "duplicates across splits", _more(text, found), split=other)


def _weight(found: Repeats) -> Severity:
    return "warning" if found.share >= REPEATED else "info"


def _more(text: str, found: Repeats) -> str:
    return text + (" …" if found.count > len(found.first) else "")


def of_contradictions(found: Contradictions, is_class: bool) -> Iterator[Remark]:
    """Equal inputs with different targets."""
    if found.count:
        pairs = ", ".join(f"{a[0]} {a[1]} and {b[0]} {b[1]}" for a, b in found.first)
        text = (
            f"{found.count:,} examples ({percent(found.share)}) have the inputs of another one but not its target, in "
            f"{found.groups:,} groups: {pairs}{' …' if found.groups > len(found.first) else ''}"
        )
        yield Remark("warning" if is_class and found.share >= REPEATED else "info", "contradictory labels", text)


# -------------------------------------------------------------------------------------------------- order


def of_order(train: Observer, target: Target | None) -> Iterator[Remark]:
    """An order of the training examples that matters when they are shuffled, or the last of them held out."""
    order = train.order
    for feature, column in [place for place, rises in order.ascending.items() if rises >= RISES][:NAMED]:
        place = f"`{column}`" + (f" of `{feature}`" if column != feature else "")
        text = (
            f"the training examples are in ascending order of {place}: if that is time, hold out the last of them, "
            "since a random choice would look into the future"
        )
        yield Remark("info", "order", text, feature, column, "train")
    if target is None or train.rows < RISES:
        return
    if target.is_class and len(train.classes) > 1:
        expected = 1 - sum((count / train.rows) ** 2 for count in train.classes.values())
        changes = order.changes / (train.rows - 1)
        if changes < expected / 2 and (expected - changes) * math.sqrt(train.rows) > 3:
            how = "are sorted by class" if order.changes < 2 * len(train.classes) else "come in runs of one class"
            text = (
                f"the training examples {how} (it changes {order.changes:,} times, by chance it would "
                f"{expected * (train.rows - 1):,.0f} times): shuffle them, and don't hold out the last ones"
            )
            yield Remark("warning", "order", text, target.name, split="train")
    elif order.likeness > ALIKE and train.rows >= SMALL:
        text = (
            f"`{target.name}` is much like that of the example before (correlation {order.likeness:.2f}): the training "
            "examples are in an order, and neighbours in different splits would give each other away"
        )
        yield Remark("warning", "order", text, target.name, split="train")


# ------------------------------------------------------------------------------------- splits, quarantine


def of_splits(examples: Mapping[str, int], drifted: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Remark]:
    """Splits that are small, or unlike the training split.

    Args:
        examples: Split → number of its examples.
        drifted: Split → columns that have moved, as `monitoring.moved` gives them.
    """
    for split, count in examples.items():
        if count < SMALL:
            text = f"{split} has {count:,} examples only: figures come with wide margins"
            yield Remark("info", "size of splits", text, split=split)
    for split, columns in drifted.items():
        if columns:
            worst = sorted(columns, key=lambda column: -column["distance"])
            names = _named([column["column"] for column in worst])
            text = (
                f"{split} is not like train in {names}: further apart than chance explains at this number of examples"
            )
            yield Remark("warning", "representative splits", text, split=split)


def of_quarantine(lines: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
    """Examples that were left out because they can't be used, and images of another kind than the others.

    Args:
        lines: Of `quarantine.jsonl`.
    """
    for line in lines:
        total, split = line.get("total"), line["split"]
        if total and total["left_out"]:
            share = percent(total["left_out"] / total["examples"])
            text = f"{total['left_out']:,} examples of {split} ({share}) were left out: {'; '.join(total['problems'])}"
            yield Remark("warning", "quarantine", text, split=split)
        for remark in total["remarks"] if total else ():
            yield Remark("info", "quarantine", f"{split}: {remark}", split=split)
