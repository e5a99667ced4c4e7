from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigError, StageFailed
from headrace.evaluating import measured
from headrace.measuring.own import Trial
from headrace.measuring.sequences import Sentences, Sequence2Sequence, bleu, chrf, sentence_facts
from headrace.spec import Feature
from tests.core.judging import gate, judged, request

Array = np.ndarray[Any, Any]

VOCABULARY = ("", "el", "perro", "come", "la", "casa", "grande", "duerme")
FOLLOWING = Feature(shape=(6,), dtype="int64", role="target")

words = st.lists(st.sampled_from(["el", "perro", "come", "la", "casa,", "grande.", "¿qué?", "x"]), max_size=8)
sentence = words.map(" ".join)
corpora = st.lists(st.tuples(sentence, sentence), min_size=1, max_size=6)


class TestBleuAndChrf:
    @settings(max_examples=300, deadline=None)
    @given(corpora)
    def test_they_are_those_of_sacrebleu(self, pairs: list[tuple[str, str]]) -> None:
        import sacrebleu

        said, wanted = (list(side) for side in zip(*pairs, strict=True))
        facts = {name: values.sum(axis=0) for name, values in sentence_facts(said, wanted).items()}
        found = [float(bleu(facts["bleu"])), float(chrf(facts["chrf"]))]
        reference = [sacrebleu.corpus_bleu(said, [wanted]).score, sacrebleu.corpus_chrf(said, [wanted]).score]
        expected = reference if any(wanted) else [np.nan, np.nan]
        assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)

    @settings(max_examples=50, deadline=None)
    @given(corpora, st.data())
    def test_a_sentence_of_weight_two_counts_as_two(self, pairs: list[tuple[str, str]], data: st.DataObject) -> None:
        import sacrebleu

        weights = [data.draw(st.integers(0, 3)) for _ in pairs]
        repeated = [pair for pair, weight in zip(pairs, weights, strict=True) for _ in range(weight)]
        if not any(wanted for _, wanted in repeated):
            return
        facts = sentence_facts(*(list(side) for side in zip(*pairs, strict=True)))
        said, wanted = (list(side) for side in zip(*repeated, strict=True))
        drawn = np.array([weights, weights], float)
        for found, reference in (
            (bleu(drawn @ facts["bleu"]), sacrebleu.corpus_bleu(said, [wanted])),
            (chrf(drawn @ facts["chrf"]), sacrebleu.corpus_chrf(said, [wanted])),
        ):
            assert found == pytest.approx([reference.score] * 2, abs=1e-9)

    def test_a_perfect_translation_has_a_hundred_of_both(self) -> None:
        facts = sentence_facts(["el perro come la casa"], ["el perro come la casa"])
        assert bleu(facts["bleu"].sum(axis=0)) == pytest.approx(100)
        assert chrf(facts["chrf"].sum(axis=0)) == pytest.approx(100)


# ---------------------------------------------------------------------------------------------- evaluation


def text(tokens: Array) -> str:
    return " ".join(VOCABULARY[token] for token in tokens if token)


def pairs(count: int, seed: int = 0) -> tuple[Array, Array]:
    """What is to be said, and answers that spoil a tenth of the tokens."""
    random = np.random.default_rng(seed)
    truth = random.integers(1, 8, (count, 6))
    truth = np.where(np.arange(6) < random.integers(4, 7, count)[:, None], truth, 0)
    truth[: count // 10] = [1, 2, 3, 4, 5, 0]
    said = np.where((random.random(truth.shape) < 0.1) & (truth > 0), random.integers(1, 8, truth.shape), truth)
    return truth, np.eye(8)[said] * 0.8 + 0.025


def translate(trial: Trial) -> Sentences:
    model = trial.models["model"]
    return Sentences(
        answer=lambda batch: [text(np.asarray(row).argmax(-1)) for row in model(batch["x"])],
        truth=lambda batch: [text(row) for row in batch["y"]],
        source=lambda batch: ["the dog eats"] * len(batch["y"]),
    )


def too_few(trial: Trial) -> Sentences:
    return Sentences(answer=lambda batch: ["el perro"], truth=lambda batch: [text(row) for row in batch["y"]])


def run(folder: Path, truth: Array, answers: Array, **variant: Any) -> Mapping[str, Any]:
    job = request("sequence", variant, decode=translate)
    return judged(folder, job, FOLLOWING, truth, answers, pairs(50, seed=1)[0]).json("evaluation.json")


class TestEvaluation:
    def test_a_translation_is_judged_by_tokens_and_by_sentences(self, tmp_path: Path) -> None:
        import sacrebleu

        truth, answers = pairs(80)
        found = run(tmp_path, truth, answers, promises=[{"metric": "bleu", "at_least": 30}])
        said, wanted = ([text(row) for row in rows] for rows in (answers.argmax(-1), truth))
        assert found["metrics"]["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, [wanted]).score)
        assert found["metrics"]["chrf"] == pytest.approx(sacrebleu.corpus_chrf(said, [wanted]).score)
        assert found["metrics"]["accuracy"] == pytest.approx((answers.argmax(-1) == truth)[truth > 0].mean())
        low, high = found["intervals"]["bleu"]
        assert low < found["metrics"]["bleu"] < high
        assert set(found["baselines"]) == {"token frequencies", "most frequent sentence", "copy of the source"}
        assert set(found["baselines"]["copy of the source"]) == {"bleu", "chrf"}
        assert set(found["baselines"]["token frequencies"]) == {"accuracy", "perplexity"}
        assert found["baselines"]["most frequent sentence"]["bleu"] > found["baselines"]["copy of the source"]["bleu"]
        assert gate(found, "baseline")["passed"] is True
        assert "the most frequent sentence" in gate(found, "baseline")["reason"]
        assert found["outputs"]["y"]["decoded"] == 80
        assert found["outputs"]["y"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp")

    def test_as_many_are_decoded_as_were_asked_for_from_all_over_the_split(self, tmp_path: Path) -> None:
        truth, answers = pairs(80)
        job = request("sequence", {"evaluate": {"trials": 20}}, decode=translate)
        made = judged(tmp_path, job, FOLLOWING, truth, answers, truth)
        _, facts = measured(made)
        assert facts["y/decoded"].sum() == 20
        assert facts["y/decoded"].reshape(4, 20).sum(axis=1).tolist() == [5, 5, 5, 5]
        assert made.json("evaluation.json")["outputs"]["y"]["decoded"] == 20
        sentences = made.json("sentences.json")
        assert [entry["example"] for entry in sentences] == list(range(3, 80, 4))
        assert sentences[4] == {
            "example": 19,
            "source": "the dog eats",
            "truth": text(truth[19]),
            "answer": text(answers[19].argmax(-1)),
        }

    def test_without_decode_only_tokens_are_measured(self, tmp_path: Path) -> None:
        truth, answers = pairs(30)
        made = judged(tmp_path, request("sequence"), FOLLOWING, truth, answers, truth)
        assert set(made.json("evaluation.json")["metrics"]) == {"accuracy", "perplexity"}

    def test_a_decoder_that_loses_examples_stops_it(self, tmp_path: Path) -> None:
        truth, answers = pairs(30)
        with pytest.raises(StageFailed, match=r"for each example: answer\n  expected: 30 strings\n  received: 1 of"):
            judged(tmp_path, request("sequence", decode=too_few), FOLLOWING, truth, answers, truth)

    def test_a_decoder_without_a_sequence_stops_it(self, tmp_path: Path) -> None:
        truth, answers = pairs(30)
        with pytest.raises(ConfigError, match="no target whose task is `sequence`"):
            judged(tmp_path, request("language_model", decode=translate), FOLLOWING, truth, answers, truth)


def test_naive_answers_of_one_kind_only_are_measured_by_what_they_have() -> None:
    task = Sequence2Sequence(FOLLOWING)
    facts = {"decoded": np.ones(1), **sentence_facts(["el perro"], ["el perro"])}
    assert set(task.measure(facts, np.ones(1))) == {"bleu", "chrf"}
