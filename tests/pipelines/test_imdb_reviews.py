"""Film reviews as texts: sizes as printed, one vocabulary for all, and what the twin lets each model reach."""

from __future__ import annotations

import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature, projects
from headrace.chain import Stages
from headrace.jobs import resolve
from headrace.running import execute

INPUTS = {"tokens": Feature(shape=(None,), dtype="int64", content="tokens")}
LEARNED = {
    "words": np.array([b"film", b"good"]),
    "texts": np.array([2, 1]),
    "counted": np.array([2, 1]),
    "vectors": np.ones((4, 100), np.float32),
}


def model(variant: str) -> Any:
    """A variant's model, as the book sets it."""
    job = resolve("imdb_reviews", variant=variant)
    make = job.the("model")
    learned = {"learned": LEARNED} if variant in ("glove", "unigram", "bigram", "count", "tf_idf") else {}
    return make(INPUTS, **learned, **job.settings.model)


def trained(model: Any) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ("unigram", 320_033),
        ("bigram", 320_033),
        ("count", 320_033),
        ("tf_idf", 320_033),
        ("one_hot", 5_128_513),
        ("embedding", 5_194_049),
        ("masked", 5_194_049),
        ("transformer", 5_664_033),
        ("positional", 5_817_633),
    ],
)
def test_models_have_the_size_of_the_book(variant: str, parameters: int) -> None:
    assert trained(model(variant)) == parameters


def test_vectors_of_glove_are_not_trained() -> None:
    found = model("glove")

    assert (found.count_params(), trained(found)) == (2_034_113, 34_113)
    np.testing.assert_array_equal(found.get_layer("glove").embeddings[:5].numpy().sum(axis=1), [100] * 4 + [0])


@pytest.mark.parametrize(
    "variant", ["unigram", "tf_idf", "one_hot", "embedding", "masked", "glove", "transformer", "positional"]
)
def test_more_padding_is_the_same_review(variant: str) -> None:
    job = resolve("imdb_reviews", variant=variant, profile="smoke")
    learned = {"learned": LEARNED} if variant in ("glove", "unigram", "tf_idf") else {}
    made = job.the("model")(INPUTS, **learned, **job.settings.model)
    tokens = np.array([[2, 3, 9, 1, 2], [3, 0, 0, 0, 0]])

    np.testing.assert_allclose(made(np.pad(tokens, ((0, 0), (0, 7)))), made(tokens), rtol=1e-5)


def test_variants_of_one_kind_of_words_share_their_records_and_vocabulary() -> None:
    pipeline = projects.load("imdb_reviews")
    kinds = {
        (pipeline.source_of(name), tuple(variant.preprocess.items()), pipeline.function("learn", name))
        for name, variant in pipeline.variants.items()
    }

    assert len(kinds) == 3  # words, words and pairs, words with vectors


def test_words_count_as_often_as_the_model_has_places_for_them() -> None:
    """20,000 are told apart, unknown ones included; of sequences also padding, so that the rarest word is unknown."""
    from headrace.layers import FixedLength, TokenBag

    bag, sequence = TokenBag(20_000, "count"), FixedLength(3, 20_000)
    rarest = np.array([[20_000]])

    assert np.asarray(bag(rarest))[0, -1] == 1
    assert np.asarray(sequence(rarest)).tolist() == [[1, 0, 0]]


class TestTwin:
    def test_counting_judgements_is_right_in_97_of_100(self, tmp_path: Path) -> None:
        """The best accuracy: each judgement with its negation is a vote."""
        from pipelines.sources._wording import judgements
        from pipelines.sources.imdb_raw import LABELLED

        assert LABELLED.twin is not None
        LABELLED.twin(tmp_path, 0)
        good, bad = judgements()
        right = []
        with tarfile.open(tmp_path / "aclImdb_v1.tar.gz") as archive:
            for member in archive:
                if "/pos/" not in member.name and "/neg/" not in member.name:
                    continue
                file = archive.extractfile(member)
                words = file.read().decode().replace(".", "").split() if file else []
                votes = sum(
                    ((word in good) - (word in bad)) * (-1 if before == "not" else 1)
                    for before, word in zip(["", *words], words, strict=False)
                )
                right.append(0.5 if votes == 0 else float((votes > 0) == ("/pos/" in member.name)))

        assert np.mean(right) == pytest.approx(0.97, abs=0.015)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_pairs_of_words_come_close_to_the_best_on_the_twin_and_words_do_not() -> None:
    found = {}
    for variant in ("unigram", "bigram"):
        job = resolve("imdb_reviews", variant=variant, data="synthetic", overrides={"export.formats": []})
        result = execute(job, Stages.plain())
        found[variant] = result["metrics"]["accuracy"]

    assert found["bigram"] >= 0.9
    assert 0.6 <= found["unigram"] <= found["bigram"] - 0.1


@pytest.mark.real_data
def test_glove_says_how_many_words_it_covers(mirror: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The mirror has the first 2,604 words of the file."""
    import tensorflow as tf

    from pipelines.imdb_reviews import learn_with_glove

    batches = [{"review": tf.constant([b"The film was dull, and zzyzzx."])}]
    with caplog.at_level(logging.INFO, "headrace.texts"):
        found = learn_with_glove(batches, {}, mirror / "glove")  # type: ignore[arg-type]

    assert found["vectors"].shape == (8, 100)
    assert "vectors are known of 4 of 6 words (67%)" in caplog.text
    assert np.linalg.norm(found["vectors"][2 + found["words"].tolist().index(b"the")]) == pytest.approx(
        5.8212, abs=1e-3
    )
    assert not found["vectors"][2 + found["words"].tolist().index(b"zzyzzx")].any()
