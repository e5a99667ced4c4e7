"""The transformer that writes reviews: its size, its twin of known entropy, and what it writes with kept keys."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature
from headrace.jobs import resolve
from pipelines import text_generation
from pipelines.sources import texts

WORDS = [b"ba", b"ca", b"da", b"fa", b"ga"]


def inputs(steps: int) -> dict[str, Feature]:
    return {"words": Feature(shape=(steps,), dtype="int64")}


def learned(reviews: list[bytes], words: int = 9) -> dict[str, Any]:
    import tensorflow as tf

    return text_generation.learn([{"review": tf.constant(reviews)}], None, words)  # type: ignore[arg-type]


def small(steps: int = 11, words: int = 9) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return text_generation.model(inputs(steps), words=words, width=8, inner=16)


class TestRecords:
    def test_are_words_and_those_that_follow(self) -> None:
        import tensorflow as tf

        known = learned([b"Da, da; da!", b"ba<br /><br />ba ca"])
        ready = text_generation.preprocess(None, known, length=5)({"review": tf.constant(["ba da<br />what CA"])})  # type: ignore[arg-type]

        assert known["words"].tolist() == [b"da", b"ba", b"ca"]
        assert ready["words"].numpy().tolist() == [[3, 2, 1, 4]]
        assert ready["following"].numpy().tolist() == [[2, 1, 4, 0]]
        assert set(ready) == {"words", "following"}


class TestTheTwin:
    def test_has_the_entropy_that_is_written_down(self) -> None:
        from pipelines.sources._wording import FOLLOWERS

        assert -sum(share * np.log(share) for share in FOLLOWERS) == pytest.approx(texts.WORD_ENTROPY, abs=5e-5)

    def test_is_reviews_of_that_entropy(self, tmp_path: Path) -> None:
        """Who knows the chain is surprised by so much: −ln p of each word, given the one before."""
        from pipelines.sources._wording import FOLLOWERS, successors, vocabulary

        texts.twin_chains(tmp_path, 3)
        places = {word: place for place, word in enumerate(vocabulary(60))}
        following = successors(60, len(FOLLOWERS)).tolist()
        surprise = []
        for batch in texts.CHAINS.read(tmp_path)["train"]:
            for review in batch.column("review").to_pylist():
                words = review.decode().replace("<br />", " ").split()
                for before, word in itertools.pairwise(words):
                    surprise.append(-np.log(FOLLOWERS[following[places[before]].index(places[word])]))

        assert np.mean(surprise) == pytest.approx(texts.WORD_ENTROPY, abs=0.015)

    @pytest.mark.slow
    def test_is_learned_to_within_a_twentieth_of_its_perplexity(self, headrace_home: Path) -> None:
        from headrace.chain import Stages

        job = resolve("text_generation", profile="smoke", data="synthetic", overrides=LEARNS)
        stages = Stages.plain()
        records = stages.preprocess(job, stages.download(job))
        found = stages.evaluate(job, records, stages.train(job, records)).json("evaluation.json")["metrics"]

        best = np.exp(texts.WORD_ENTROPY)
        assert 0.99 * best < found["perplexity"] < 1.05 * best


LEARNS = {
    "preprocess.length": 81,
    "train.batch_size": 16,
    "train.epochs": 3,
    "train.optimizer": "adam",
    "train.learning_rate": 0.01,
    "train.schedule": {"name": "cosine_decay", "decay_steps": 675},
}


class TestTheModel:
    def test_has_the_parameters_of_the_book(self) -> None:
        assert text_generation.model(inputs(99)).count_params() == 9_825_176

    def test_does_not_see_the_words_that_it_is_to_guess(self) -> None:
        model = small()
        words = np.random.default_rng(0).integers(2, 7, (1, 11))
        changed = np.where(np.arange(11) < 6, words, 2)

        np.testing.assert_allclose(model(words)[:, :6], model(changed)[:, :6], rtol=1e-5)
        assert not np.allclose(model(words)[:, 6:], model(changed)[:, 6:], rtol=1e-5)

    def test_word_by_word_answers_what_it_answers_to_whole_texts(self) -> None:
        import tensorflow as tf

        model = small()
        words = np.random.default_rng(0).integers(2, 7, (3, 11))
        whole = np.asarray(model(words))
        step, begin = text_generation.stepwise(model, 9)
        cache = begin(3)
        for at in range(11):
            scores, cache = step(tf.constant(words[:, at], tf.int32), at, cache)
            np.testing.assert_allclose(np.exp(scores)[:, 2:], whole[:, at, 2:], rtol=1e-4)


@pytest.fixture(scope="module")
def served() -> Any:
    """The serving signature of an untrained model that reads 11 words."""
    from headrace.bundling.signatures import Given

    known = learned([b" ".join(WORDS)], 7)
    prepare = text_generation.preprocess(None, known, length=12)  # type: ignore[arg-type]
    settings = resolve("text_generation").settings
    given = Given({"model": small()}, prepare, None, known, {}, settings)
    return text_generation.serve(given)["serving_default"]


def ask(signature: Any, **changed: Any) -> list[str]:
    """What is written after some prompts."""
    import tensorflow as tf

    given = {"prompt": ["ba ca"], "temperature": [1.0], "top_k": [0], "top_p": [1.0], "length": [6], "seed": [0]}
    given |= changed
    count = max(map(len, given.values()))
    tensors = {
        name: tf.constant(given[name] * (count // len(given[name])), feature.dtype)
        for name, feature in signature.inputs.items()
    }
    return [text.decode() for text in signature.call(tensors)["text"].numpy()]


class TestServing:
    def test_goes_on_behind_the_prompt(self, served: Any) -> None:
        (found,) = ask(served, prompt=["Ba, what?"])

        assert found.startswith("Ba, what? ")
        assert len(found.split()) == 2 + 6
        assert {word.encode() for word in found.split()[2:]} <= set(WORDS)

    def test_writes_from_nothing(self, served: Any) -> None:
        (found,) = ask(served, prompt=[""])

        assert len(found.split()) == 6
        assert not found.startswith(" ")

    def test_of_a_long_prompt_reads_the_last_words_that_leave_room(self, served: Any) -> None:
        one, other = ask(served, prompt=["da da da ba ca ba ca ba", "ba ca ba ca ba"], temperature=[0.0])

        assert one.removeprefix("da da da ") == other

    def test_writes_no_more_than_the_model_can_read(self, served: Any) -> None:
        (found,) = ask(served, length=[99])

        assert len(found.split()) == 2 + 10

    def test_at_temperature_0_is_the_same_for_each_seed(self, served: Any) -> None:
        assert len(set(ask(served, temperature=[0.0], seed=[1, 2, 3]))) == 1

    def test_repeats_itself_by_its_seed(self, served: Any) -> None:
        one, same, other = ask(served, seed=[1, 1, 2])

        assert one == same != other
        assert ask(served, seed=[1]) == [one]

    def test_with_top_k_1_is_greedy(self, served: Any) -> None:
        assert ask(served, top_k=[1]) == ask(served, temperature=[0.0])


def test_the_exported_model_writes_the_same_in_a_fresh_process(tmp_path: Path, served: Any) -> None:
    """Without project code: what a server does."""
    import json
    import subprocess
    import sys

    import tensorflow as tf

    from headrace.bundling.graphs import resources
    from headrace.bundling.signatures import traced

    module = tf.Module()
    module.serve = traced("serving_default", served)
    module.held = [*module.serve.graph.variables, *resources([served.call])]
    tf.saved_model.save(module, str(tmp_path / "saved"), {"serving_default": module.serve})
    code = (
        "import sys, json, tensorflow as tf\n"
        "serve = tf.saved_model.load(sys.argv[1]).signatures['serving_default']\n"
        "given = dict(prompt=tf.constant(['ba ca', 'da']), temperature=tf.constant([1.0, 0.7]),\n"
        "             top_k=tf.constant([0, 3], tf.int64), top_p=tf.constant([0.9, 1.0]),\n"
        "             length=tf.constant([6, 8], tf.int64), seed=tf.constant([5, 6], tf.int64))\n"
        "print(json.dumps([text.decode() for text in serve(**given)['text'].numpy()]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "saved")],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=True,
    )

    here = ask(
        served,
        prompt=["ba ca", "da"],
        temperature=[1.0, 0.7],
        top_k=[0, 3],
        top_p=[0.9, 1.0],
        length=[6, 8],
        seed=[5, 6],
    )
    assert json.loads(run.stdout.splitlines()[-1]) == here
