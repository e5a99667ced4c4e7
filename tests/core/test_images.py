"""Image files in the graph: decoded, brought to one size, and kept whole numbers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headrace.images import decode, decode_masks

SIZE = (4, 6)


def file(pixels: np.ndarray[Any, Any], form: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, form, **options)
    return data.getvalue()


def blocks(height: int = 8, width: int = 12) -> np.ndarray[Any, Any]:
    """Left half red, right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 250
    pixels[:, width // 2 :, 2] = 200
    return pixels


def test_files_of_several_forms_and_sizes_become_one_batch() -> None:
    files = [file(blocks()), file(blocks(20, 30), "JPEG", quality=95), file(blocks(5, 5), "BMP")]
    found = decode(np.array(files, object), SIZE).numpy()
    assert (found.shape, found.dtype) == ((3, *SIZE, 3), np.uint8)
    assert np.abs(found[:, :, 0].astype(int) - [250, 0, 0]).max() < 12
    assert np.abs(found[:, :, -1].astype(int) - [0, 0, 200]).max() < 12


def test_the_interpolation_is_that_of_keras_rounded_to_whole_numbers() -> None:
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    expected = keras.ops.image.resize(pixels.astype(np.float32), SIZE).numpy()
    np.testing.assert_array_equal(decode([file(pixels)], SIZE).numpy()[0], np.round(expected))


@pytest.mark.parametrize(("mode", "channels"), [("L", 3), ("RGBA", 3), ("RGB", 1), ("P", 3), ("RGB", 4)])
def test_colours_are_converted(mode: str, channels: int) -> None:
    data = io.BytesIO()
    Image.fromarray(blocks()).convert(mode).save(data, "PNG")
    assert decode([data.getvalue()], SIZE, channels).shape == (1, *SIZE, channels)


def test_cropping_keeps_the_centre_in_its_proportions() -> None:
    wide = np.zeros((4, 20, 3), np.uint8)
    wide[:, 7:13] = 255
    assert (decode([file(wide)], SIZE, fit="crop").numpy() == 255).all()


def test_padding_keeps_everything() -> None:
    found = decode([file(np.full((6, 6, 3), 255, np.uint8))], SIZE, fit="pad").numpy()[0, :, :, 0]
    assert (found[:, [0, -1]] == 0).all()
    assert (found[:, 1:-1] == 255).all()


def test_a_mask_keeps_its_classes() -> None:
    classes = np.random.default_rng(0).integers(1, 4, (13, 17), np.uint8)
    found = decode_masks([file(classes)], SIZE).numpy()
    assert found.shape == (1, *SIZE, 1)
    assert set(np.unique(found)) == {1, 2, 3}


def test_a_batch_without_files_is_a_batch_without_images() -> None:
    assert decode(np.array([], object), SIZE).shape == (0, *SIZE, 3)
