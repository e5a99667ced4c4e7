"""Translations: sizes as printed, words as networks see them, and sentences written step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace import Feature
from headrace.chain import Stages
from headrace.jobs import resolve

TOKENS = Feature(shape=(20,), dtype="int64")
PAIR = {"source": TOKENS, "previous": TOKENS}
START, END = 2, 3


def built(architecture: str, length: int = 8, **arguments: Any) -> Any:
    """A small untrained network, whose answers differ from step to step."""
    import keras

    from pipelines.translation.models import model

    keras.utils.set_random_seed(5)
    feature = Feature(shape=(length,), dtype="int64")
    small = {"vocabulary": 50, "width": 16, "units": 16, "heads": 2, "size": 8, **arguments}
    made = model({"source": feature, "previous": feature}, architecture=architecture, **small)  # type: ignore[arg-type]
    words = made.get_layer("following")
    # The likeliest words are clearly so, and the end comes now and then.
    words.kernel.assign(words.kernel * 12)
    words.bias.assign(np.where(np.arange(50) == END, 3.0, 0.0))
    if architecture == "rnn":
        for name in ("source_words", "previous_words"):
            made.get_layer(name).embeddings.assign(made.get_layer(name).embeddings * 40)
    return made


def answers(made: Any, source: Any, previous: Any) -> Any:
    """Probabilities of all words at each step."""
    import tensorflow as tf

    return made([tf.constant(source), tf.constant(previous)], training=False).numpy()


def sentences(rows: int = 12, length: int = 8) -> Any:
    """Tokens of sentences of all lengths, from none on."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    tokens = random.integers(4, 50, (rows, length))
    return tf.constant(np.where(np.arange(length) < np.arange(rows)[:, None] % (length + 1), tokens, 0))


@pytest.mark.parametrize(
    ("variant", "printed"), [("transformer", 19_960_216), ("rnn", 34_869_912), ("naive_lstm", 2_435_608)]
)
def test_a_network_has_as_many_parameters_as_printed(variant: str, printed: int) -> None:
    job = resolve("translation", variant=variant)

    made = job.the("model")(PAIR, **job.settings.model)

    assert made.count_params() == printed


@pytest.fixture(scope="module")
def batch() -> Any:
    """Some pairs of the twin as records hold them."""
    import tensorflow as tf

    from pipelines.translation import learn, preprocess

    raw = {
        "english": tf.constant(["The cat sees the house.", "Does the boy want it?"]),
        "spanish": tf.constant(["El gato ve la casa.", "¿El niño lo quiere?"]),
    }
    learned = learn([raw], None, 30)  # type: ignore[arg-type]
    numbers = {word: number for number, word in enumerate(learned["spanish"].tolist(), 2)}
    return {**preprocess(None, learned, 30, 12)(raw), "marks": (numbers["[start]"], numbers["[end]"])}  # type: ignore[arg-type]


class TestWords:
    def test_are_small_without_punctuation_but_brackets_stay(self) -> None:
        from pipelines.translation import marked, plain

        said = plain(marked(np.array(["¿Dónde está EL niño?", "¡Él, no!"], object))).numpy()

        assert [text.decode() for text in said] == ["[start] dónde está el niño [end]", "[start] ¡él no [end]"]

    def test_each_step_is_to_give_the_word_after_the_one_it_is_given(self, batch: dict[str, Any]) -> None:
        previous, following = batch["previous"].numpy(), batch["following"].numpy()

        start, end = batch["marks"]
        assert (previous[:, 0] == start).all()
        assert (previous[:, 1:] == following[:, :-1]).all()
        assert (following == end).sum(axis=1).tolist() == [1, 1]

    def test_what_was_meant_stays_beside_for_people(self, batch: dict[str, Any]) -> None:
        assert batch["wanted"].numpy().tolist() == [b"el gato ve la casa", "el niño lo quiere".encode()]


class TestWriting:
    @pytest.mark.parametrize("width", [1, 3])
    @pytest.mark.parametrize("architecture", ["transformer", "rnn"])
    def test_with_what_is_remembered_is_as_all_over_again(self, architecture: str, width: int) -> None:
        from pipelines.translation.writing import all_over, begun, written

        made, source = built(architecture), sentences()

        remembered = written(made, source, START, END, width, begun).numpy()
        book = written(made, source, START, END, width, all_over).numpy()

        assert remembered.tolist() == book.tolist()
        assert len({tuple(row) for row in remembered.tolist()}) > 6, "sentences have answers of their own"
        assert (remembered == END).any()

    def test_the_likeliest_words_are_those_of_the_book_s_loop(self) -> None:
        from pipelines.translation.writing import written

        made, source = built("transformer"), sentences(4)
        found = written(made, source, START, END).numpy()

        for row in range(4):
            said = [START]
            while len(said) <= 8 and said[-1] != END:
                previous = np.array([said + [0] * (8 - len(said))])
                said.append(int(answers(made, source[row : row + 1], previous)[0, len(said) - 1].argmax()))
            assert found[row][found[row] > 0].tolist() == said[1:]

    def test_a_beam_finds_what_is_at_least_as_likely(self) -> None:
        from headrace.decoding import beam, greedy
        from pipelines.translation.writing import begun

        made, source = built("transformer"), sentences()
        first = np.full(12, START)

        def likelihood(tokens: Any) -> Any:
            previous = np.concatenate([first[:, None], tokens[:, :-1]], axis=1)
            scores = np.log(answers(made, source, previous))
            each = np.take_along_axis(scores, tokens[:, :, None], axis=2)[:, :, 0]
            return (each * (tokens > 0)).sum(axis=1)

        usual = greedy(*begun(made, source), first, END, 8).numpy()
        best = beam(*begun(made, source, 6), first, END, 8, 6, penalty=0.0).numpy()
        single = beam(*begun(made, source, 1), first, END, 8, 1).numpy()

        assert single.tolist() == usual.tolist()
        assert likelihood(best).sum() > likelihood(usual).sum()

    def test_a_sentence_is_translated_alike_alone_and_beside_longer_ones(self) -> None:
        from pipelines.translation.writing import written

        made, source = built("transformer"), sentences()

        together = written(made, source, START, END, 3).numpy()
        alone = [written(made, source[row : row + 1], START, END, 3).numpy()[0] for row in range(len(source))]

        assert np.array_equal(together, alone)

    def test_a_decoder_that_ignores_its_mask_would_differ(self) -> None:
        """Padding of the source must not be looked at: what stands there changes nothing."""
        made, source = built("transformer"), sentences()
        layer = made.get_layer("source_words")
        previous = np.full((12, 8), 7)
        before = answers(made, source, previous)

        layer.tokens.embeddings.assign(np.where(np.arange(50)[:, None] == 0, 9.0, layer.tokens.embeddings.numpy()))

        rows = (source.numpy() > 0).any(axis=1)
        np.testing.assert_allclose(answers(made, source, previous)[rows], before[rows], atol=1e-6)


def test_words_come_back_as_a_sentence() -> None:
    from pipelines.translation.writing import text

    words = np.array(["", "[UNK]", "[start]", "[end]", "el", "niño"], object)

    assert text(np.array([[4, 5, 3, 0], [1, 4, 4, 4], [3, 0, 0, 0]]), words).numpy().tolist() == [
        "el niño".encode(),
        b"[UNK] el el el",
        b"",
    ]


def test_only_words_count_for_the_accuracy_while_training() -> None:
    from pipelines.translation.steps import WordAccuracy

    metric = WordAccuracy()
    metric.update_state(np.array([[1, 2, 0, 0]]), np.eye(3)[[[1, 1, 0, 0]]])

    assert float(metric.result()) == 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_twins_exact_translations_are_learned() -> None:
    overrides = {
        "train.epochs": 30,
        "train.optimizer": "adam",
        "train.validation": None,
        "train.batch_size": 32,
        "model.width": 64,
        "model.units": 128,
        "model.dropout": 0.1,
        "evaluate.trials": 100,
    }
    job = resolve("translation", variant="transformer", profile="smoke", data="synthetic", overrides=overrides)
    stages = Stages.plain()
    records = stages.preprocess(job, stages.download(job))

    metrics = stages.evaluate(job, records, stages.train(job, records)).json("evaluation.json")["metrics"]

    assert metrics["accuracy"] >= 0.99
    assert metrics["bleu"] >= 95
