"""Texts written in the graph: what is drawn, held against NumPy's arithmetic, and the loop that draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.generation import NEVER, Manner, chosen, likeliest, scores, uniforms, written

Array = np.ndarray[Any, Any]


def manner(temperature: float = 1, top_k: int = 0, top_p: float = 1, seed: int = 0, count: int = 1) -> Manner:
    return Manner.of([temperature] * count, seed, top_k, top_p)


def by_hand(logits: Array, temperature: float, top_k: int, top_p: float, uniform: float) -> tuple[int, Array]:
    """The token that is drawn, and the probability of each token."""
    order = np.argsort(-logits, kind="stable")
    if temperature < 1e-3:
        return int(order[0]), np.eye(len(logits))[order[0]]
    kept = np.exp((logits[order] - logits.max()) / temperature)
    if top_k > 0:
        kept[top_k:] = 0
    kept /= kept.sum()
    before = np.cumsum(kept) - kept
    kept[(before >= top_p) & (np.arange(len(kept)) > 0)] = 0
    kept /= kept.sum()
    probabilities = np.zeros(len(logits))
    probabilities[order] = kept
    return int(order[np.searchsorted(np.cumsum(kept), uniform, side="right")]), probabilities


class TestDrawing:
    @settings(max_examples=60, deadline=None)
    @given(
        logits=st.lists(st.integers(-40, 40), min_size=1, max_size=12),
        temperature=st.sampled_from([0.0, 0.2, 0.7, 1.0, 1.5]),
        top_k=st.integers(0, 14),
        top_p=st.sampled_from([0.0, 0.31, 0.77, 0.93, 1.0]),
        uniform=st.floats(0, 0.999),
    )
    def test_is_what_numpy_comes_to(
        self, logits: list[int], temperature: float, top_k: int, top_p: float, uniform: float
    ) -> None:
        drawn = np.array(logits) / 8
        due, probabilities = by_hand(drawn, temperature, top_k, np.float32(top_p), uniform)
        how = manner(temperature, top_k, top_p)

        order, found = likeliest(tf.constant(drawn[None]), how)
        token = int(chosen(tf.constant(drawn[None]), how, tf.constant([uniform], tf.float64))[0])

        np.testing.assert_allclose(found[0], probabilities[order[0].numpy()], atol=1e-6)
        edges = np.cumsum(found[0].numpy())
        assert token == due or np.abs(edges - uniform).min() < 1e-6

    def test_at_temperature_0_is_greedy_whatever_the_number(self) -> None:
        logits = tf.constant([[0.1, 3, 2, 3]] * 3)
        uniform = tf.constant([0, 0.5, 0.999999], tf.float64)

        assert chosen(logits, manner(0, count=3), uniform).numpy().tolist() == [1, 1, 1]

    def test_keeps_the_k_likeliest(self) -> None:
        _, found = likeliest(tf.math.log([[0.1, 0.4, 0.2, 0.3]]), manner(top_k=2))

        np.testing.assert_allclose(found[0], [4 / 7, 3 / 7, 0, 0], atol=1e-6)

    @pytest.mark.parametrize(("top_p", "kept"), [(0.0, 1), (0.39, 1), (0.41, 2), (0.71, 3), (0.95, 4), (1.0, 4)])
    def test_keeps_as_few_as_have_the_probability_together(self, top_p: float, kept: int) -> None:
        _, found = likeliest(tf.math.log([[0.1, 0.4, 0.2, 0.3]]), manner(top_p=top_p))

        assert np.count_nonzero(found[0]) == kept
        assert found[0].numpy().sum() == pytest.approx(1)

    def test_gives_each_token_its_share(self) -> None:
        shares = np.array([0.1, 0.4, 0.2, 0.3])
        count = 20_000
        logits = tf.tile(tf.math.log(shares[None]), [count, 1])

        tokens = chosen(logits, manner(count=count), uniforms(tf.constant([7]), count)[0])

        # Four standard errors of a share.
        np.testing.assert_allclose(np.bincount(tokens, minlength=4) / count, shares, atol=4 * 0.5 / count**0.5)

    def test_never_gives_padding_what_is_unknown_or_not_in_the_vocabulary(self) -> None:
        logits = scores(tf.constant([[0.5, 0.3, 0.1, 0.05, 0.05]]), known=4)

        assert np.isneginf(logits[0]).tolist() == [True, True, False, False, True]
        assert np.isneginf(logits[0].numpy()[list(NEVER)]).all()

    @pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
    def test_never_gives_what_has_no_probability(self, uniform: float) -> None:
        logits = tf.constant([[float("-inf"), 0.3, 0.2, float("-inf"), 0.1]])

        assert int(chosen(logits, manner(), tf.constant([uniform], tf.float64))[0]) in (1, 2, 4)


class TestSeeds:
    def test_repeat(self) -> None:
        again = [uniforms(tf.constant([3, 4, 3]), 5).numpy() for _ in range(2)]

        np.testing.assert_array_equal(*again)
        np.testing.assert_array_equal(again[0][0], again[0][2])
        assert (again[0][0] != again[0][1]).all()

    def test_begin_alike_however_many_numbers_are_drawn(self) -> None:
        np.testing.assert_array_equal(uniforms(tf.constant([3]), 5), uniforms(tf.constant([3]), 9)[:, :5])


def counting(size: int) -> Any:
    """A model that knows what it has read: the likeliest next token is the sum of all before, modulo the size."""

    def step(token: Any, at: Any, total: Any) -> Any:
        total = total + token
        return 3 * tf.one_hot(total % size, size), total

    return step


def text(prompts: list[list[int]], lengths: list[int], how: Manner, size: int = 10) -> list[list[int]]:
    padded = tf.ragged.constant(prompts).to_tensor()
    begun = tf.zeros([len(prompts)], tf.int32)
    known = [len(prompt) for prompt in prompts]
    return written(counting(size), begun, padded, tf.constant(known), tf.constant(lengths), how).to_list()


class TestWriting:
    def test_goes_on_from_each_prompt_by_itself(self) -> None:
        assert text([[1], [2, 3, 4]], [3, 2], manner(0, count=2)) == [[1, 2, 4], [9, 8]]

    def test_writes_nothing_where_nothing_is_asked_for(self) -> None:
        assert text([[1, 2], [5]], [0, 1], manner(0, count=2)) == [[], [5]]

    def test_of_a_text_does_not_depend_on_the_others(self) -> None:
        how = Manner(*(tf.constant(values) for values in ([1.0, 0.7], [0, 5], [1.0, 0.9], [11, 12])))
        alone = [
            text([prompt], [length], Manner(*(values[row : row + 1] for values in how)))[0]
            for row, (prompt, length) in enumerate([([1, 2, 3], 6), ([4], 20)])
        ]

        assert text([[1, 2, 3], [4]], [6, 20], how) == alone

    def test_a_longer_text_begins_with_the_shorter_one(self) -> None:
        short, long = (text([[1, 2]], [length], manner(seed=5))[0] for length in (6, 15))

        assert long[:6] == short

    def test_another_seed_gives_another_text(self) -> None:
        assert text([[1, 2]], [12], manner(seed=5)) != text([[1, 2]], [12], manner(seed=6))

    def test_is_the_same_as_a_graph(self) -> None:
        how = manner(seed=5, count=2)
        graph = tf.function(lambda known: written(counting(10), tf.zeros([2], tf.int32), PROMPTS, known, [4, 9], how))

        assert graph(tf.constant([1, 2])).to_list() == text([[1], [2, 3]], [4, 9], how)


PROMPTS = tf.constant([[1, 0], [2, 3]])
