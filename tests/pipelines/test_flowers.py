"""Flowers: the network of the book, the one beside it, and data that can be learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature
from headrace.chain import Stages
from headrace.evaluating import why_not_judged
from headrace.jobs import resolve


def built(variant: str, size: int = 224, **changes: Any) -> Any:
    """The network of a variant, with initial weights."""
    inputs = {"image": Feature(shape=(size, size, 3), dtype="uint8")}
    return resolve("flowers", variant=variant).the("model")(inputs, **changes)


def test_mobilenet_v2_has_as_many_parameters_as_derived() -> None:
    network = built("mobilenet_v2")

    assert network.count_params() == 2_264_389
    assert sum(weight.numpy().size for weight in network.trainable_weights) == 2_230_277


@pytest.mark.parametrize(("variant", "changes"), [("mobilenet_v2", {"network": "squeezenet"}), ("small", {})])
def test_a_network_gives_the_probability_of_each_kind(variant: str, changes: dict[str, Any]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    answers = np.asarray(built(variant, 48, **changes)(images))

    assert answers.shape == (3, 5)
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)


def test_the_settings_of_mobilenet_v2_are_those_of_the_book() -> None:
    job = resolve("flowers")
    train = job.settings.train

    assert (job.variant, train.epochs, train.batch_size, train.optimizer) == ("mobilenet_v2", 5, 50, "adam")
    assert train.learning_rate == 1e-3
    # Random weights: nothing is borrowed.
    assert not train.weights


def test_a_sample_is_told_from_the_whole_set() -> None:
    job = resolve("flowers", variant="small")

    assert why_not_judged(job, "real", {"train": 2_936, "test": 734}) is None
    assert "a sample, 320 of 2,936 train" in str(why_not_judged(job, "real", {"train": 320, "test": 80}))


@pytest.mark.slow
def test_the_twin_can_be_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    settings = {"preprocess.size": 64, "train.epochs": 8, "train.learning_rate": 0.003}
    job, stages = resolve("flowers", variant="small", data="synthetic", overrides=settings), Stages.plain()
    records = stages.preprocess(job, stages.download(job))

    evaluation = stages.evaluate(job, records, stages.train(job, records))

    assert evaluation.json("evaluation.json")["metrics"]["accuracy"] >= 0.95
