"""Vocabularies as Keras learns them, without TensorFlow; and texts as the numbers of their words."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from headrace.texts import FIRST, Vocabulary, counts, strings

TEXTS = [b"A quiet film. Quiet!", b"a loud FILM", b"", b"a film; a film", "l\u2019\u00e9t\u00e9 quiet".encode()]


def layer(**settings: Any) -> Any:
    import keras

    return keras.layers.TextVectorization(**settings)


class TestVocabulary:
    def test_it_holds_the_most_frequent_words_first(self) -> None:
        found = Vocabulary.of(TEXTS, 3)

        assert found.words == (b"a", b"film", b"quiet")
        assert found.texts.tolist() == [3, 3, 2]
        assert found.count == 5

    def test_equally_frequent_words_come_in_the_order_of_their_bytes(self) -> None:
        assert Vocabulary.of([b"c b a", b"b"], 3).words == (b"b", b"a", b"c")

    @pytest.mark.parametrize("ngrams", [1, 2])
    def test_it_is_that_of_keras(self, ngrams: int) -> None:
        import tensorflow as tf

        theirs = layer(ngrams=ngrams if ngrams > 1 else None)
        theirs.adapt(tf.data.Dataset.from_tensor_slices(TEXTS).batch(2))

        ours = Vocabulary.of(TEXTS, 100, ngrams)

        assert {word.decode() for word in ours.words} == set(theirs.get_vocabulary(include_special_tokens=False))

    def test_words_weigh_what_they_weigh_with_keras(self) -> None:
        import tensorflow as tf

        theirs = layer(output_mode="tf_idf", ngrams=2)
        theirs.adapt(tf.data.Dataset.from_tensor_slices(TEXTS).batch(2))
        due = dict(zip(theirs.get_vocabulary(), np.asarray(theirs._lookup_layer.idf_weights), strict=True))
        ours = Vocabulary.of(TEXTS, 100, 2)

        weights = ours.weights()

        assert weights[0] == 0
        assert weights[1] == pytest.approx(due["[UNK]"])
        assert weights[FIRST:] == pytest.approx([due[word.decode()] for word in ours.words])

    @pytest.mark.parametrize("ngrams", [1, 2])
    def test_numbers_are_those_of_keras(self, ngrams: int) -> None:
        import tensorflow as tf

        ours = Vocabulary.of(TEXTS, 6, ngrams)
        theirs = layer(ngrams=ngrams, vocabulary=[word.decode() for word in ours.words])
        texts = tf.constant([*TEXTS, b"nothing known"])

        found = Vocabulary.from_arrays(ours.arrays()).vectorise()(texts)

        np.testing.assert_array_equal(found.to_tensor(), theirs(texts))
        assert found.row_lengths().numpy()[2] == 0

    def test_it_comes_back_from_its_arrays(self) -> None:
        one = Vocabulary.of(TEXTS, 4, 2)

        again = Vocabulary.from_arrays(one.arrays())

        assert (again.words, again.count, again.ngrams) == (one.words, one.count, one.ngrams)
        assert again.texts.tolist() == one.texts.tolist()

    def test_words_that_would_not_come_back_are_unknown(self) -> None:
        found = Vocabulary.of([b"ros\xe9 nul\x00 nul \x00in"], 9)

        assert found.words == (b"\x00in", b"nul")
        assert Vocabulary.from_arrays(found.arrays()).words == found.words

    def test_of_no_words_is_empty(self) -> None:
        found = Vocabulary.of([b"", b"..."], 5)

        assert found.words == ()
        assert found.weights().tolist() == [0, 0]

    def test_vectors_of_others_stand_at_the_numbers_of_words(self, caplog: pytest.LogCaptureFixture) -> None:
        found = Vocabulary.of(TEXTS, 3)

        with caplog.at_level(logging.INFO, "headrace.texts"):
            rows = found.rows({"film": np.ones(4, np.float32), "other": np.ones(4, np.float32)}, 4)

        assert rows.sum(axis=1).tolist() == [0, 0, 0, 4, 0]
        assert "vectors are known of 1 of 3 words (33%)" in caplog.text

    def test_learn_is_given_batches_of_texts(self) -> None:
        import tensorflow as tf

        batches = [{"review": tf.constant(TEXTS[:2])}, {"review": tf.constant(TEXTS[2:])}]

        assert list(strings(batches, "review")) == TEXTS


class TestCounts:
    def test_tokens_are_counted_and_padding_is_none(self) -> None:
        import tensorflow as tf

        found = counts(tf.constant([[3, 1, 3, 0], [9, 9, 4, 2], [0, 0, 0, 0]], tf.int64), 5, unknown=1)

        assert found.numpy().tolist() == [[0, 1, 0, 2, 0], [0, 2, 1, 0, 1], [0, 0, 0, 0, 0]]

    def test_of_texts_of_any_length(self) -> None:
        import tensorflow as tf

        texts = tf.ragged.constant([[3, 1, 3], [], [2]], dtype=tf.int64)

        np.testing.assert_array_equal(counts(texts, 4), counts(texts.to_tensor(), 4))


class TestLayers:
    """`headrace.layers`: what a model makes of the numbers."""

    @pytest.mark.parametrize("mode", ["multi_hot", "count", "tf_idf"])
    @pytest.mark.parametrize("ngrams", [1, 2])
    def test_bags_are_those_of_keras(self, mode: Any, ngrams: int) -> None:
        import tensorflow as tf

        from headrace.layers import TokenBag

        vocabulary, size = Vocabulary.of(TEXTS, 5, ngrams), 6
        texts = tf.constant([*TEXTS, b"a word not known"])
        weighed = {"idf_weights": vocabulary.weights()[FIRST:]} if mode == "tf_idf" else {}
        theirs = layer(
            output_mode=mode, ngrams=ngrams, vocabulary=[word.decode() for word in vocabulary.words], **weighed
        )
        bag = TokenBag(size, mode)
        bag.build((None, None))
        if mode == "tf_idf":
            bag.weight.assign(vocabulary.weights()[1:])

        np.testing.assert_allclose(bag(vocabulary.vectorise()(texts).to_tensor()), theirs(texts), rtol=1e-6)

    def test_a_bag_counts_tokens_beyond_its_size_as_unknown(self) -> None:
        from headrace.layers import TokenBag

        assert np.asarray(TokenBag(3, "count")(np.array([[2, 3, 4, 5, 0]]))).tolist() == [[2, 1, 1]]

    def test_sequences_are_cut_or_filled_up(self) -> None:
        from headrace.layers import FixedLength

        fixed = FixedLength(4, vocabulary=9)

        assert np.asarray(fixed(np.array([[2, 9, 8]]))).tolist() == [[2, 1, 8, 0]]
        assert np.asarray(fixed(np.array([[2, 3, 4, 5, 6]]))).tolist() == [[2, 3, 4, 5]]
        assert np.asarray(fixed(np.zeros((2, 0), np.int64))).tolist() == [[0, 0, 0, 0]] * 2

    def test_the_largest_of_steps_leaves_padding_out(self) -> None:
        from headrace.layers import LargestOfSteps

        x = np.array([[[1.0, -5.0], [7.0, -9.0]], [[1.0, 2.0], [3.0, 4.0]]])
        there = np.array([[True, False], [False, False]])

        assert np.asarray(LargestOfSteps()(x)).tolist() == [[7, -5], [3, 4]]
        assert np.asarray(LargestOfSteps()(x, mask=there)).tolist() == [[1, -5], [0, 0]]

    @pytest.mark.parametrize("backwards", [False, True])
    def test_rows_that_are_looked_up_are_an_lstm_on_one_hot_vectors(self, backwards: bool) -> None:
        import keras

        from headrace.layers import LookedUpLSTMCell

        tokens = np.random.default_rng(0).integers(0, 7, (2, 5))
        theirs = keras.layers.LSTM(3, go_backwards=backwards)
        due = theirs(np.eye(7, dtype=np.float32)[tokens])
        kernel, recurrent, bias = theirs.get_weights()
        rows, cell = keras.layers.Embedding(7, 12), LookedUpLSTMCell(3)
        ours = keras.layers.RNN(cell, go_backwards=backwards)
        ours(rows(tokens))
        # What to forget begins with a bias of 1, as with Keras.
        np.testing.assert_array_equal(cell.bias, bias)
        rows.set_weights([kernel])
        ours.set_weights([recurrent, bias])

        np.testing.assert_allclose(ours(rows(tokens)), due, rtol=1e-5, atol=1e-6)


class TestRuleOfThumb:
    """Chollet's advice: training examples for each word of the average text tell bags from sequences."""

    @staticmethod
    def said(rows: int, mean: float, kind: str = "text", others: int = 0) -> list[str]:
        from headrace.looking import remarks

        measure = "length" if kind == "tokens" else "words"
        feature = {
            "name": "review",
            "role": "input",
            "kind": kind,
            "rows": rows,
            "measures": [{"name": "characters", "mean": 9.9}, {"name": measure, "mean": mean}],
        }
        return [remark.text for remark in remarks.of_texts([feature] * (1 + others) + [{"role": "target"}])]

    @pytest.mark.parametrize(
        ("rows", "mean", "ratio", "kind"),
        [
            (100_000, 1_000, "100: below 1,500", "a bag of words and pairs of words"),
            (50_000, 40, "1,250: below 1,500", "a bag of words and pairs of words"),
            (500_000, 40, "12,500: from 1,500 on", "a model of sequences"),
            (20_000, 233, "86: below 1,500", "a bag of words and pairs of words"),
        ],
    )
    def test_the_cases_of_the_book(self, rows: int, mean: float, ratio: str, kind: str) -> None:
        (text,) = self.said(rows, mean)

        assert text == (
            f"`review`: {rows:,} training examples for {mean:,.0f} words on average, a ratio of {ratio}, {kind} tends "
            "to be best"
        )

    def test_tokens_are_words_and_other_inputs_are_no_texts(self) -> None:
        assert self.said(20_000, 233, kind="tokens") == self.said(20_000, 233)
        assert self.said(20_000, 233, kind="number") == []
        assert self.said(20_000, 233, others=1) == []
        assert self.said(20_000, 0) == []
