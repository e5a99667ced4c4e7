"""The first models, tickets, newswires and indexed reviews: sizes as printed, and what each family shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature, projects
from headrace.jobs import resolve
from headrace.texts import multi_hot

BAG = {"words": Feature(shape=(10_000,), dtype="uint8")}


def parameters(workload: str, variant: str, inputs: dict[str, Feature], **arguments: Any) -> int:
    """How many a variant's model has."""
    model = resolve(workload, variant=variant).the("model")(inputs, **arguments)
    return int(model.count_params())


@pytest.mark.parametrize(
    ("workload", "variant", "arguments", "printed"),
    [
        ("first_models", "line", {}, 4),
        ("first_models", "classifier", {}, 3),
        ("first_models", "switches", {}, 107),
        ("first_models", "branches", {}, 378),
        ("ticket_routing", "by_name", {}, 1_286_789),
        ("ticket_routing", "listed", {}, 1_286_789),
        ("ticket_routing", "subclassed", {}, 1_286_789),
        ("ticket_routing", "mixed", {}, 1_286_789),
        ("ticket_routing", "difficulty", {}, 1_286_984),
        ("newswire", "final", {}, 647_214),
        ("newswire", "bottleneck", {"narrow": 4}, 640_554),
        ("imdb_indexed", "final", {}, 160_305),
        ("imdb_indexed", "final", {"units": 4}, 40_029),
        ("imdb_indexed", "final", {"units": 512}, 5_383_681),
    ],
)
def test_a_model_has_as_many_parameters_as_printed(
    workload: str, variant: str, arguments: dict[str, Any], printed: int
) -> None:
    assert parameters(workload, variant, BAG, **arguments) == printed


def test_topics_as_vectors_or_as_numbers_are_one_loss() -> None:
    settings = {name: resolve("newswire", variant=name).settings for name in ("final", "one_hot")}
    assert settings["final"].preprocess == {}
    assert settings["one_hot"].preprocess == {"one_hot": True}
    assert settings["one_hot"].train == settings["final"].train.model_copy(update={"loss": "categorical_crossentropy"})


class TestBags:
    def test_hold_which_words_are_there_not_how_often_nor_where(self) -> None:
        import tensorflow as tf

        found = multi_hot(tf.ragged.constant([[1, 4, 4, 3], [5]], dtype=tf.int64), 6)
        np.testing.assert_array_equal(found, [[0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]])
        assert found.dtype == tf.uint8

    def test_are_the_same_of_texts_that_are_filled_up(self) -> None:
        import tensorflow as tf

        texts = tf.ragged.constant([[1, 4, 3], [5], [2, 9, 9, 1]], dtype=tf.int64)
        np.testing.assert_array_equal(multi_hot(texts, 6), multi_hot(texts.to_tensor(), 6))

    def test_take_rare_words_for_the_unknown_one(self) -> None:
        import tensorflow as tf

        found = multi_hot(tf.constant([[1, 99, 0]], tf.int64), 5)
        np.testing.assert_array_equal(found, [[0, 1, 1, 0, 0]])

    def test_of_no_words_are_empty(self) -> None:
        import tensorflow as tf

        found = multi_hot(tf.zeros((2, 0), tf.int64), 4)
        np.testing.assert_array_equal(found, np.zeros((2, 4)))


class TestMadeData:
    def test_are_the_data_themselves_and_no_twin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from headrace.downloading import download

        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
        for asked in ("real", "auto"):
            raw = download(resolve("first_models", data=asked))
            assert raw.json("data.json")["data"] == "real"
            assert raw.json("data.json")["files"]["made.npz"]["vouched_by"] == "workload"
        assert download(resolve("first_models", data="synthetic")).json("data.json")["data"] == "synthetic"

    def test_of_the_points_are_parted_by_the_line_between_their_means(self, tmp_path: Path) -> None:
        source = projects.load("first_models").sources["points"]
        assert source.make is not None
        source.make(tmp_path, 0)
        with np.load(tmp_path / "made.npz") as made:
            points, clouds = made["point_test"], made["cloud_test"][:, 0]
        assert np.mean((points[:, 0] > points[:, 1]) == clouds) > 0.995


def test_forty_steps_by_hand_come_to_the_printed_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The book: a loss of about 0.025."""
    from headrace.chain import Stages

    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    job, stages = resolve("first_models"), Stages.plain()
    model = stages.train(job, stages.preprocess(job, stages.download(job)))
    losses = model.json("history.json")["metrics"]["loss"]
    assert len(losses) == 40
    assert losses[-1] == pytest.approx(0.025, abs=0.01)
