"""A sequence for a sequence: the next token under teacher forcing, and decoded sentences by BLEU and chrF.

```python
def decode(trial: Trial) -> Sentences:
    words = trial.learned["spanish"].astype(str)
    translate = trial.models["translator"]
    return Sentences(
        answer=lambda batch: [text.decode() for text in translate(batch["english"]).numpy()],
        truth=lambda batch: [" ".join(words[row[(row > 0) & (row != END)]]) for row in batch["following"]],
    )
```

BLEU and chrF are sacrebleu's: of a whole corpus, they depend on nothing but sums over its sentences, which are facts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headrace.errors import StageFailed
from headrace.measuring.language import LanguageModel
from headrace.measuring.resampling import Array
from headrace.measuring.tasks import Facts

if TYPE_CHECKING:
    from headrace.measuring.own import Trial

TRIALS = 1_000
"""Sentences that are decoded, where `evaluate.trials` does not say otherwise."""
ORDERS, CHARACTERS, BETA = 4, 6, 2
"""Longest n-grams of words in BLEU and of characters in chrF, and the weight of recall there, as sacrebleu has them."""

Decoder = Callable[[Mapping[str, Array]], Sequence[str]]
"""Examples, by the names of all features of their records → a sentence for each."""


@dataclass(frozen=True)
class Sentences:
    """How examples become sentences; what a workload's `decode` returns."""

    answer: Decoder
    """What the model says by itself, without seeing the target."""
    truth: Decoder
    """What was to be said."""
    source: Decoder | None = None
    """What it was made of, if a copy of that can be compared with the truth."""


class Sequence2Sequence(LanguageModel):
    """The next token of a sequence that belongs to another one, and how good whole decoded sentences are."""

    primary: ClassVar[str] = "accuracy"
    larger_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy", "bleu", "chrf"})

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """As of a language model; BLEU and chrF (0 to 100) where sentences were decoded."""
        found = dict(super().measure(facts, weights)) if "counted" in facts else {}
        if "bleu" in facts:
            found["bleu"] = bleu(weights @ facts["bleu"])
            found["chrf"] = chrf(weights @ facts["chrf"])
        return found

    def about(self, facts: Facts) -> Mapping[str, Any]:
        """How many sentences were decoded, and how BLEU was computed."""
        if "bleu" not in facts:
            return {}
        metric = _bleu(effective_order=False)
        metric.corpus_score(["one"], [["one"]])  # it knows its signature only when it has been used
        return {"decoded": int(facts["decoded"].sum()), "bleu": str(metric.get_signature())}


def sentence_facts(answers: Sequence[str], truths: Sequence[str]) -> dict[str, Array]:
    """What BLEU and chrF of a corpus are made of.

    Returns:
        `bleu` (sentences, 2 + 2 × 4): lengths of answer and truth, n-grams in common, n-grams of the answer;
        `chrf` (sentences, 3 × 6): for each length those of the answer, of the truth, in common.
    """
    # sacrebleu wants single sentences scored so; what is taken from it, the sums, is the same either way.
    metric = _bleu(effective_order=True)
    words, characters = [], []
    for answer, truth in zip(answers, truths, strict=True):
        score = metric.sentence_score(answer, [truth])
        words.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
        characters.append(_characters_in_common(answer, truth))
    return {
        "bleu": np.array(words, np.float64).reshape(-1, 2 + 2 * ORDERS),
        "chrf": np.array(characters, np.float64).reshape(-1, 3 * CHARACTERS),
    }


def _bleu(*, effective_order: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=effective_order)


def _characters_in_common(answer: str, truth: str) -> list[int]:
    found = []
    said, wanted = ("".join(text.split()) for text in (answer, truth))
    for length in range(1, CHARACTERS + 1):
        theirs, ours = (_grams(text, length) for text in (said, wanted))
        # As sacrebleu has it: what is too short to be compared does not count against the answer.
        found += [theirs.total() if ours else 0, ours.total(), (theirs & ours).total()]
    return found


def _grams(text: str, length: int) -> Counter[str]:
    return Counter(text[start : start + length] for start in range(len(text) - length + 1))


def bleu(sums: Array) -> Array:
    """BLEU (0 to 100) of a corpus, with sacrebleu's exponential smoothing; NaN where there is nothing to be said.

    Args:
        sums: The facts `bleu`, summed over sentences (…, 10).
    """
    said, wanted = sums[..., 0], sums[..., 1]
    counts, totals = sums[..., 2 : 2 + ORDERS], sums[..., 2 + ORDERS :]
    safe = np.where(totals > 0, totals, 1)
    # The first length without a common n-gram counts half of one, the next a quarter …
    halved = 0.5 ** np.cumsum(counts == 0, axis=-1)
    precisions = np.where(counts > 0, counts, halved) / safe
    known = (totals > 0).all(axis=-1) & (counts > 0).any(axis=-1)
    brevity = np.minimum(1, np.exp(1 - wanted / np.where(said > 0, said, 1)))
    score = 100 * brevity * np.exp(np.log(np.where(precisions > 0, precisions, 1)).mean(axis=-1))
    return np.where(wanted > 0, np.where(known, score, 0), np.nan)


def chrf(sums: Array) -> Array:
    """chrF2 (0 to 100) of a corpus; NaN where there is nothing to be said.

    Args:
        sums: The facts `chrf`, summed over sentences (…, 18).
    """
    said, wanted, common = (sums[..., which::3] for which in range(3))
    usable = (said > 0) & (wanted > 0)
    orders = np.maximum(usable.sum(axis=-1), 1)
    precision, recall = (
        np.where(usable, common / np.where(usable, whole, 1), 0).sum(axis=-1) / orders for whole in (said, wanted)
    )
    weighed = BETA**2 * precision + recall
    score = 100 * (1 + BETA**2) * precision * recall / np.where(weighed > 0, weighed, 1)
    return np.where(wanted[..., 0] > 0, score, np.nan)


# ------------------------------------------------------------------------------------------------ decoding


@dataclass(frozen=True)
class Decoded:
    """What came of decoding."""

    facts: dict[str, Array]
    """Of the model's sentences, for all test examples: those that were not decoded count nothing."""
    naive: dict[str, dict[str, Array]]
    """Name of a naive answer → its facts."""
    sentences: list[dict[str, Any]]
    """[{"example": row in the test split, "source": … if it is known, "truth": …, "answer": …}]"""


def decoded(trial: Trial, sentences: Sentences) -> Decoded:
    """Decode test examples, as many as were asked for, spread evenly over the split."""
    most, told = trial.trials(TRIALS), _Told()
    kept: list[dict[str, Any]] = []
    count = sum(len(next(iter(batch.values()))) for batch in trial.batches("test"))
    usual = _most_frequent(sentences, trial)
    naive: dict[str, _Told] = {"most frequent sentence": _Told()}
    if sentences.source:
        naive["copy of the source"] = _Told()
    first = 0
    for batch in trial.batches("test"):
        rows = len(next(iter(batch.values())))
        places = np.arange(first, first + rows)
        chosen = (places + 1) * most // count > places * most // count if count > most else np.ones(rows, bool)
        part = {name: values[chosen] for name, values in batch.items()}
        if chosen.any():
            said = {"truth": _said("truth", sentences.truth, part), "answer": _said("answer", sentences.answer, part)}
            told.add(chosen, said["answer"], said["truth"])
            naive["most frequent sentence"].add(chosen, [usual] * len(said["truth"]), said["truth"])
            if sentences.source:
                said = {"source": _said("source", sentences.source, part), **said}
                naive["copy of the source"].add(chosen, said["source"], said["truth"])
            rows_of_them = (int(place) for place in places[chosen])
            kept += [
                {"example": row, **dict(zip(said, texts, strict=True))}
                for row, texts in zip(rows_of_them, zip(*said.values(), strict=True), strict=True)
            ]
        else:
            for each in (told, *naive.values()):
                each.add(chosen, [], [])
        first += rows
    return Decoded(told.facts(), {name: theirs.facts() for name, theirs in naive.items()}, kept)


class _Told:
    """Takes in sentences batch by batch."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Array]] = []

    def add(self, chosen: Array, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Take in the sentences of the examples that were chosen (examples,), bool."""
        part = {"decoded": chosen.astype(np.float64)}
        for name, values in sentence_facts(answers, truths).items():
            part[name] = np.zeros((len(chosen), values.shape[1]))
            part[name][chosen] = values
        self._parts.append(part)

    def facts(self) -> dict[str, Array]:
        """Of all examples."""
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}


def _said(what: str, decoder: Decoder, batch: Mapping[str, Array]) -> list[str]:
    found, rows = list(decoder(batch)), len(next(iter(batch.values())))
    if len(found) != rows or not all(isinstance(sentence, str) for sentence in found):
        raise StageFailed(
            f"`decode` of the workload gives no sentence for each example: {what}",
            expected=f"{rows} strings",
            received=f"{len(found)} of type {', '.join(sorted({type(sentence).__name__ for sentence in found}))}",
        )
    return found


def _most_frequent(sentences: Sentences, trial: Trial) -> str:
    """What is to be said most often in the training split."""
    tally = Counter(_all_truths(sentences, trial))
    most = max(tally.values(), default=0)
    # Of several that are equally frequent, always the same one.
    return min((sentence for sentence, count in tally.items() if count == most), default="")


def _all_truths(sentences: Sentences, trial: Trial) -> Iterator[str]:
    for batch in trial.batches("train"):
        yield from _said("truth", sentences.truth, batch)
