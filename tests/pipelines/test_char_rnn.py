"""The network that writes characters: its windows, its size, its twin of known entropy, and what it writes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature
from headrace.jobs import resolve
from pipelines import char_rnn
from pipelines.sources import texts

INPUTS = {"window": Feature(shape=(40,), dtype="uint8")}
LETTERS = [b"a", b"b", b" ", b"\n"]


def windows(folder: Path, text: str, split: str) -> tuple[list[bytes], list[bytes]]:
    """Windows of a text, and what follows them."""
    (folder / "nietzsche.txt").write_text(text, encoding="utf-8")
    batches = list(texts.read_windows(folder)[split])
    window, following = ([v for b in batches for v in b.column(name).to_pylist()] for name in ("window", "following"))
    return window, following


class TestWindows:
    def test_are_the_text_and_what_follows_in_lower_case(self, tmp_path: Path) -> None:
        text = "".join(f"Word {number} of Größe\n" for number in range(200))
        window, following = windows(tmp_path, text, "train")

        for number, (some, after) in enumerate(zip(window, following, strict=True)):
            assert some.decode() + after.decode() == text.lower()[3 * number : 3 * number + 41]

    def test_of_one_split_hold_no_character_of_the_other(self, tmp_path: Path) -> None:
        text = 900 * "a" + 100 * "b"
        train, after = windows(tmp_path, text, "train")
        test, _ = windows(tmp_path, text, "test")

        assert set(b"".join([*train, *after])) == set(b"a")
        assert set(b"".join(test)) == set(b"b")


class TestTheTwin:
    def test_has_the_entropy_that_is_written_down(self) -> None:
        """Each step of the chain has the entropy of its draw; words are as frequent as the chain comes to them."""
        from pipelines.sources._wording import successors, vocabulary

        size, shares = texts.TWIN_WORDS, np.array(texts.PLENTY)
        moves = np.zeros((size, size))
        np.put_along_axis(moves, successors(size, len(shares)), shares[None], axis=1)
        often = np.linalg.matrix_power(moves, 1_000)[0]
        np.testing.assert_allclose(often @ moves, often, atol=1e-12)
        characters = often @ np.array([len(word) + 1 for word in vocabulary(size)])

        assert shares.sum() == pytest.approx(1)
        assert -(shares * np.log(shares)).sum() / characters == pytest.approx(texts.LETTER_ENTROPY, abs=5e-5)

    def test_is_a_text_of_that_entropy(self, tmp_path: Path) -> None:
        """Who knows the chain is surprised by so much: −ln p of each word, and of nothing else."""
        from pipelines.sources._wording import successors, vocabulary

        texts.twin_windows(tmp_path, 3)
        text = (tmp_path / "nietzsche.txt").read_text()
        words = text.split()
        places = {word: place for place, word in enumerate(vocabulary(texts.TWIN_WORDS))}
        following = successors(texts.TWIN_WORDS, len(texts.PLENTY)).tolist()
        surprise = [
            -np.log(texts.PLENTY[following[places[before]].index(places[word])])
            for before, word in itertools.pairwise(words)
        ]

        assert text == "".join(word + ("\n" if word == "ba" else " ") for word in words)
        assert sum(surprise) / len(text) == pytest.approx(texts.LETTER_ENTROPY, abs=0.005)

    @pytest.mark.slow
    def test_is_learned_to_within_a_twentieth_of_its_perplexity(self, headrace_home: Path) -> None:
        from headrace.chain import Stages

        job = resolve("char_rnn", data="synthetic", overrides=LEARNS)
        stages = Stages.plain()
        records = stages.preprocess(job, stages.download(job))
        found = stages.evaluate(job, records, stages.train(job, records))

        # Windows begin anywhere: from their middle on whole words are known, which is all there is to know.
        with np.load(found.path / "predictions.npz") as kept:
            truth, answers = kept["truth/following"][:, 20:], kept["answer/following"][:, 20:]
        assert len(truth) == found.json("evaluation.json")["examples"]
        surprise = -np.log(np.take_along_axis(answers, truth[..., None], axis=-1))
        best = np.exp(texts.LETTER_ENTROPY)
        assert 0.97 * best < np.exp(surprise.mean()) < 1.05 * best


LEARNS = {
    "train.epochs": 12,
    "train.learning_rate": 0.01,
    "train.schedule": {"name": "cosine_decay", "decay_steps": 1_200},
    "model.units": 64,
}


class TestTheModel:
    def test_has_as_many_parameters_as_its_docstring_says(self) -> None:
        assert char_rnn.model(INPUTS).count_params() == 338_747
        # The book's: 57 characters, none of them unknown.
        assert char_rnn.model(INPUTS, letters=55).count_params() == 4 * 256 * (57 + 256 + 1) + 257 * 57

    def test_character_by_character_answers_what_it_answers_to_windows(self) -> None:
        import tensorflow as tf

        model = char_rnn.model(INPUTS, units=8, letters=4)
        window = np.random.default_rng(0).integers(2, 6, (3, 40))
        whole = np.asarray(model(window.astype(np.uint8)))
        step, begin = char_rnn.stepwise(model, 4)
        state = begin(3)
        for at in range(40):
            scores, state = step(tf.constant(window[:, at], tf.int32), at, state)
            np.testing.assert_allclose(np.exp(scores)[:, 2:], whole[:, at, 2:], rtol=1e-4)

    def test_writes_characters_that_it_knows(self) -> None:
        import tensorflow as tf

        from headrace.generation import Manner

        model = char_rnn.model(INPUTS, units=8)
        window = tf.fill([2, 40], 3)
        (first, again) = (
            char_rnn.write(model, tf.constant(LETTERS), window, [40, 2], [30, 9], Manner.of([1.0, 1.5], 4)).numpy()
            for _ in range(2)
        )

        assert [len(text) for text in first] == [30, 9]
        assert set(b"".join(first)) <= set(b"".join(LETTERS))
        assert first.tolist() == again.tolist()


@pytest.fixture(scope="module")
def served() -> Any:
    """The serving signature of an untrained model, and the characters it knows."""
    import keras

    from headrace.bundling.signatures import Given

    keras.utils.set_random_seed(0)
    learned = {"letters": np.array(LETTERS)}
    prepare = char_rnn.preprocess(None, learned)  # type: ignore[arg-type]
    models = {"model": char_rnn.model(INPUTS, units=8)}
    settings = resolve("char_rnn").settings
    return char_rnn.serve(Given(models, prepare, None, learned, {}, settings))["serving_default"]


def ask(signature: Any, **changed: Any) -> list[str]:
    """What is written after some prompts."""
    import tensorflow as tf

    given = {"prompt": ["ab"], "temperature": [1.0], "top_k": [0], "top_p": [1.0], "length": [20], "seed": [0]}
    given |= changed
    count = len(given["prompt"])
    inputs = {
        name: tf.constant(given[name] * (count // len(given[name])), feature.dtype)
        for name, feature in signature.inputs.items()
    }
    return [text.decode() for text in signature.call(inputs)["text"].numpy()]


class TestServing:
    def test_goes_on_behind_the_prompt(self, served: Any) -> None:
        (found,) = ask(served, prompt=["A, b: ä"])

        assert found.startswith("A, b: ä")
        assert len(found) == len("A, b: ä") + 20

    def test_reads_the_last_40_characters(self, served: Any) -> None:
        one, other = ask(served, prompt=["a" * 30 + "b" * 40, "b" * 40])

        assert one.removeprefix("a" * 30) == other

    def test_begins_a_line_without_a_prompt(self, served: Any) -> None:
        one, other = ask(served, prompt=["", "\n"])

        assert "\n" + one == other

    def test_at_temperature_0_is_the_same_for_each_seed(self, served: Any) -> None:
        found = ask(served, prompt=["ab"] * 3, temperature=[0.0], seed=[1, 2, 3])

        assert len(set(found)) == 1

    def test_repeats_itself_by_its_seed(self, served: Any) -> None:
        one, same, other = ask(served, prompt=["ab"] * 3, seed=[1, 1, 2])

        assert one == same != other
        assert ask(served, seed=[1]) == [one]

    def test_writes_no_more_than_is_allowed(self, served: Any) -> None:
        (found,) = ask(served, length=[-5])

        assert found == "ab"
