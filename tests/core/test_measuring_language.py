from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import StageFailed
from headrace.measuring.language import LanguageModel
from headrace.measuring.tasks import joined
from headrace.spec import Evaluate, Feature
from tests.core.judging import gate, judged, metrics, request

Array = np.ndarray[Any, Any]

WORDS = 7
TEXT = Feature(shape=(5,), dtype="int64", role="target")
NEXT = Feature(dtype="int64", role="target")


def texts(count: int, seed: int = 0) -> Array:
    """Sequences of tokens 1 to 6, the first more often than others, filled up with 0."""
    random = np.random.default_rng(seed)
    found = random.choice(np.arange(1, WORDS), (count, 5), p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    return np.where(np.arange(5) < random.integers(1, 6, count)[:, None], found, 0)


def guesses(shape: tuple[int, ...], seed: int = 1) -> Array:
    return np.random.default_rng(seed).dirichlet(np.ones(WORDS), shape)


def by_hand(truth: Array, answers: Array, padding: int | None = 0) -> tuple[float, float]:
    """Accuracy and perplexity, token by token."""
    right, surprise = [], []
    for true, given_ in zip(truth.reshape(-1), answers.reshape(-1, WORDS), strict=True):
        if true != padding:
            right.append(given_.argmax() == true)
            surprise.append(-np.log(given_[true]))
    return float(np.mean(right)), float(np.exp(np.mean(surprise)))


class TestLanguageModel:
    @pytest.mark.parametrize("padding", [0, None, 3])
    def test_it_is_measured_over_all_tokens_that_count(self, padding: int | None) -> None:
        truth, answers = texts(30), guesses((30, 5))
        accuracy, perplexity = by_hand(truth, answers, padding)
        found = metrics(LanguageModel(TEXT, Evaluate(padding=padding)), truth, answers)
        assert found == {"accuracy": pytest.approx(accuracy), "perplexity": pytest.approx(perplexity)}

    def test_the_one_token_that_follows_is_never_padding(self) -> None:
        truth, answers = np.array([0, 2, 6, 0]), guesses((4,))
        accuracy, perplexity = by_hand(truth, answers, None)
        expected = {"accuracy": pytest.approx(accuracy), "perplexity": pytest.approx(perplexity)}
        assert metrics(LanguageModel(NEXT), truth, answers) == expected
        of_shape_one = LanguageModel(Feature(shape=(1,), dtype="int64", role="target"))
        assert metrics(of_shape_one, truth[:, None], answers) == expected

    @pytest.mark.parametrize("above", [0, 40], ids=["around 0", "all above 0"])
    def test_logits_are_measured_as_their_probabilities_are(self, above: float) -> None:
        truth, answers = texts(30), guesses((30, 5))
        logits = (np.log(answers) + np.random.default_rng(2).normal(above, 3, (30, 5, 1))).astype(np.float32)
        task = LanguageModel(TEXT)
        assert metrics(task, truth, logits) == pytest.approx(metrics(task, truth, answers), rel=1e-4)

    def test_a_token_beyond_the_vocabulary_is_surprising_and_stops_nothing(self) -> None:
        found = metrics(LanguageModel(NEXT), np.array([9]), guesses((1,)))
        assert found["accuracy"] == 0
        assert found["perplexity"] == pytest.approx(1e7)

    def test_texts_without_a_token_are_undefined(self) -> None:
        found = metrics(LanguageModel(TEXT), np.zeros((2, 5), np.int64), guesses((2, 5)))
        assert found == {"accuracy": None, "perplexity": None}

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 2**31), st.lists(st.integers(0, 3), min_size=6, max_size=6))
    def test_a_text_of_weight_two_counts_as_two_in_batches_of_any_size(self, seed: int, weights: list[int]) -> None:
        truth, answers, task = texts(6, seed), guesses((6, 5), seed), LanguageModel(TEXT)
        twice = np.repeat(np.arange(6), weights)
        parts = joined(task.facts(truth[i : i + 2], answers[i : i + 2]) for i in (0, 2, 4))
        weighted = task.measure(parts, np.array(weights, float))
        if twice.size:
            for name, value in metrics(task, truth[twice], answers[twice]).items():
                assert float(weighted[name]) == pytest.approx(value)

    @pytest.mark.parametrize(
        ("target", "shape", "fits"),
        [
            (TEXT, (5, 7), True),
            (TEXT, (4, 7), False),
            (TEXT, (7,), False),
            (NEXT, (7,), True),
            (NEXT, (1,), False),
            (Feature(shape=(5,), dtype="int64", role="target", classes=tuple("abc")), (5, 7), False),
        ],
    )
    def test_it_wants_a_score_of_every_token_at_every_step(
        self, target: Feature, shape: tuple[int, ...], fits: bool
    ) -> None:
        assert LanguageModel(target).fits(shape) is fits


class TestTokenFrequencies:
    @pytest.mark.parametrize("target", [TEXT, NEXT], ids=["texts", "one token"])
    def test_they_are_those_of_the_training_split_without_padding(self, target: Feature) -> None:
        learned, test = texts(400), texts(50, seed=3)
        if target is NEXT:
            learned, test = learned[:, 0], test[:, 0]
        task = LanguageModel(target)
        always = task.naive(task.learned([learned[:150], learned[150:]]))["token frequencies"]
        answers = always({}, 50)
        assert task.fits(answers.shape[1:])
        counts = np.bincount(learned[learned > 0], minlength=WORDS) + 1
        assert answers.reshape(-1, WORDS)[0] == pytest.approx(counts / counts.sum())
        # Looked at once, or token by token: the same.
        assert metrics(task, test, answers) == pytest.approx(metrics(task, test, np.ascontiguousarray(answers)))
        assert metrics(task, test, answers)["accuracy"] == pytest.approx((test[test > 0] == 1).mean())

    def test_a_large_vocabulary_takes_no_room(self) -> None:
        task = LanguageModel(Feature(shape=(100,), dtype="int64", role="target"))
        learned = np.zeros(20_000, np.int64)
        learned[5] = 9
        # A thousand texts of a hundred steps: 16 GB, if each step had its own answer.
        answers = task.naive(learned)["token frequencies"]({}, 1_000)
        facts = task.facts(np.full((1_000, 100), 5), answers)
        assert facts["correct"].sum() == 100_000


class TestEvaluation:
    def test_a_model_that_has_learned_beats_the_frequencies(self, tmp_path: Path) -> None:
        truth = texts(60, seed=3)
        answers = 0.5 * np.eye(WORDS)[truth] + 0.5 * guesses((60, 5))
        found = judged(tmp_path, request("language_model"), TEXT, truth, answers, texts(100)).json("evaluation.json")
        assert (found["primary"], found["larger_is_better"]) == ("perplexity", ["accuracy"])
        assert found["metrics"]["perplexity"] == pytest.approx(by_hand(truth, answers)[1], rel=1e-4)
        assert list(found["baselines"]) == ["token frequencies"]
        assert gate(found, "baseline")["passed"] is True
        assert "the token frequencies" in gate(found, "baseline")["reason"]

    def test_one_that_guesses_does_not(self, tmp_path: Path) -> None:
        made = judged(tmp_path, request("language_model"), TEXT, texts(60, 3), guesses((60, 5)), texts(100))
        assert gate(made.json("evaluation.json"), "baseline")["passed"] is False

    def test_answers_without_a_score_for_each_step_stop_it(self, tmp_path: Path) -> None:
        with pytest.raises(StageFailed, match=r"expected: \(examples, 5, vocabulary\): the probability of each token"):
            judged(tmp_path, request("language_model"), TEXT, texts(9), guesses((9,)), texts(9))
