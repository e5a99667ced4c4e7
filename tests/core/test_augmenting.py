"""Images and masks that are changed at random together, in training only, and the same again after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import training
from headrace.artifacts import Artifact
from headrace.chain import Stages
from headrace.jobs import resolve
from headrace.training import train
from tests.core.cutting import cut_off

if TYPE_CHECKING:
    from headrace.augmenting import Together

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

SIDE = 32


def together(*changes: Any) -> Together:
    """A network that paints nothing, with changes; by default those of the workload of pets."""
    import keras

    from headrace.augmenting import Together
    from pipelines.pets_segmentation import augmentation

    given = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    answers = keras.layers.Conv2D(3, 1, activation="softmax")(keras.layers.Rescaling(1 / 255)(given))
    return Together(given, answers, changes or augmentation(0.1, 0.2))


def boxes(count: int = 24) -> tuple[Any, Any]:
    """White boxes on black, and their masks: class 0 inside, 1 outside."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    inside = np.zeros((count, SIDE, SIDE, 1), bool)
    for one in inside:
        row, column = random.integers(2, SIDE - 14, 2)
        one[row : row + 12, column : column + 12] = True
    return tf.constant(np.repeat(inside * 255, 3, axis=3), tf.uint8), tf.constant(1 - inside, tf.uint8)


class TestChanges:
    def test_are_the_same_for_an_image_and_its_mask(self) -> None:
        images, masks = boxes()
        changed, with_them = (np.asarray(part) for part in together().changed(images, masks))
        assert (changed.dtype, with_them.dtype) == (np.uint8, np.uint8)
        assert set(np.unique(with_them)) == {0, 1}
        agreement = ((changed[..., 0] > 127) == (with_them[..., 0] == 0)).mean(axis=(1, 2))
        assert agreement.min() > 0.97
        moved = (with_them != np.asarray(masks)).mean(axis=(1, 2, 3))
        assert (moved > 0.02).sum() > 20

    def test_differ_from_batch_to_batch_and_from_image_to_image(self) -> None:
        model, (images, masks) = together(), boxes(1)
        images, masks = (np.repeat(part, 8, axis=0) for part in (images, masks))
        import tensorflow as tf

        first, second = (np.asarray(model.changed(tf.constant(images), tf.constant(masks))[1]) for _ in range(2))
        assert len({one.tobytes() for one in (*first, *second)}) > 12

    def test_happen_in_training_only(self) -> None:
        from headrace.augmenting import unchanged

        model, (images, _) = together(), boxes(2)
        alone = unchanged(model)["model"]
        np.testing.assert_array_equal(model(images, training=False), alone(images, training=False))
        assert not any("random" in layer.name for layer in alone.layers)
        assert alone.count_params() == model.count_params()

    def test_draw_from_generators_that_are_part_of_the_model(self) -> None:
        """Which is what a checkpoint keeps."""
        model = together()
        kept = {variable.path for variable in model.variables}
        for change in model.changes:
            assert {variable.path for variable in change.variables} <= kept
            assert change.variables


@pytest.mark.slow
def test_a_training_that_is_cut_off_goes_on_with_the_changes_that_were_due(
    headrace_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = {"preprocess.size": 16, "model.filters": [2, 2, 2], "train.epochs": 3, "train.steps_per_execution": 4}
    job = resolve("pets_segmentation", variant="augmented", profile="smoke", data="synthetic", overrides=over)
    stages = Stages.plain()
    records = stages.preprocess(job, stages.download(job))

    def trained(home: str) -> Artifact:
        monkeypatch.setenv("HEADRACE_HOME", str(headrace_home.parent / home))
        training._programs.clear()
        return train(job, records)

    expected = trained("whole")
    cut_off(lambda: trained("cut"), monkeypatch)
    again = trained("cut")
    assert again.json("training.json")["resumed_from_step"] > 0
    assert again.digest == expected.digest
