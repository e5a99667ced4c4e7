"""Which pixels are the pet: the book's network, masks that stay with their photographs, and what is learned of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from headrace import Feature
from headrace.artifacts import Artifact
from headrace.chain import Stages
from headrace.jobs import Job, resolve
from pipelines.sources import _drawing

Array = np.ndarray[Any, Any]

IMAGE = {"image": Feature(shape=(200, 200, 3), dtype="uint8")}


def job(variant: str = "book", profile: str = "smoke", **overrides: Any) -> Job:
    return resolve("pets_segmentation", variant=variant, profile=profile, data="synthetic", overrides=overrides)


class TestNetwork:
    @pytest.mark.parametrize("variant", ["book", "augmented"])
    def test_has_as_many_parameters_as_in_the_book(self, variant: str) -> None:
        model = resolve("pets_segmentation", variant=variant).the("model")(IMAGE)
        assert model.count_params() == 2_880_643
        assert model.output_shape == (None, 200, 200, 3)

    def test_goes_down_to_an_eighth(self) -> None:
        model = resolve("pets_segmentation").the("model")(IMAGE)
        sides = [layer.output.shape[1] for layer in model.layers]
        assert min(sides) == 25
        assert model.layers[sides.index(25) + 1].output.shape == (None, 25, 25, 256)


def drawn(random: np.random.Generator, colour: Any, *, pointed: bool) -> tuple[Image.Image, Image.Image]:
    """A white box on black, and the mask of that box: what shows whether they belong together."""
    size = tuple(int(side) for side in random.integers(90, 161, 2))
    photo, mask = Image.new("RGB", size), Image.new("L", size, 2)
    left, top = (int(random.integers(0, side - 40)) for side in size)
    for image, paint in ((photo, (255, 255, 255)), (mask, 1)):
        ImageDraw.Draw(image).rectangle((left, top, left + 39, top + 39), fill=paint)
    return photo, mask


@pytest.fixture
def boxes(headrace_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Artifact]:
    """The records of photographs whose pixels say which mask is theirs."""
    monkeypatch.setattr(_drawing, "pet", drawn)
    monkeypatch.delenv("HEADRACE_MIRROR", raising=False)

    def made() -> Artifact:
        stages = Stages.plain()
        return stages.preprocess(job(), stages.download(job()))

    return made


class TestPairs:
    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    def test_every_photograph_has_its_own_mask_at_its_own_place(
        self, boxes: Callable[[], Artifact], split: str
    ) -> None:
        from headrace.records.inputs import arrays

        found = arrays(boxes().path, split)
        inside = np.asarray(found["image"]).mean(axis=-1) > 127
        masks = np.asarray(found["mask"])[..., 0] == 0
        # Of each photograph (rows) and each mask (columns): the share of pixels in which they agree.
        agreement = (inside[:, None] == masks[None]).mean(axis=(2, 3))
        assert np.diagonal(agreement).min() > 0.96
        np.testing.assert_array_equal(agreement.argmax(axis=1), np.arange(len(inside)))

    def test_masks_are_counted_from_0_and_no_class_is_made_up(self) -> None:
        import tensorflow as tf

        make = job().the("preprocess")
        pixels = np.repeat(np.arange(1, 4, dtype=np.uint8), 30).reshape(9, 10)
        photo = Image.fromarray(np.zeros((9, 10, 3), np.uint8))
        files = {"image": _drawing.encoded(photo), "mask": _drawing.encoded(Image.fromarray(pixels), "PNG")}
        ready = make(None, size=24)({name: tf.constant([file]) for name, file in files.items()})
        assert (ready["image"].shape, ready["mask"].shape) == ((1, 24, 24, 3), (1, 24, 24, 1))
        assert sorted(np.unique(ready["mask"]).tolist()) == [0, 1, 2]

    def test_a_photograph_without_a_mask_is_prepared_as_well(self) -> None:
        """As it is when the model serves."""
        import tensorflow as tf

        photo = _drawing.encoded(Image.fromarray(np.zeros((9, 10, 3), np.uint8)))
        ready = job().the("preprocess")(None, size=24)({"image": tf.constant([photo])})
        assert set(ready) == {"image"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_masks_of_drawn_heads_are_learned(headrace_home: Path) -> None:
    """A mean IoU of 0.85, where the majority mask has about 0.53."""
    asked = job("small", "full", **{"preprocess.size": 64})
    stages = Stages.plain()
    records = stages.preprocess(asked, stages.download(asked))
    found = stages.evaluate(asked, records, stages.train(asked, records)).json("evaluation.json")
    assert found["metrics"]["mean_iou"] >= 0.85
    assert found["metrics"]["mean_iou"] > found["baselines"]["majority mask"]["mean_iou"] + 0.15
    assert {"iou_foreground", "iou_background", "iou_contour"} <= set(found["metrics"])
