"""Images inside TensorFlow's graph: what a workload's `preprocess` does with the bytes of image files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import tensorflow as tf

Fit = Literal["stretch", "crop", "pad"]


def decode(files: tf.Tensor, size: tuple[int, int], channels: int = 3, fit: Fit = "stretch") -> tf.Tensor:
    """Decode image files and bring them to one size.

    Args:
        files: Bytes of JPEG, PNG, GIF (its first frame) or BMP files, shape (batch,), string.
        size: Height and width in pixels.
        channels: 1 for grey, 3 for red, green and blue, 4 with opacity, which is dropped where it isn't asked for.
        fit: `stretch` to the size (as `keras.utils.image_dataset_from_directory` does), `crop` what sticks out around
            the centre, or `pad` with black.

    Returns:
        (batch, height, width, channels), uint8, by bilinear interpolation.
    """
    return _each(files, size, channels, fit, "bilinear")


def decode_masks(files: tf.Tensor, size: tuple[int, int], fit: Fit = "stretch") -> tf.Tensor:
    """Decode files whose pixels are class numbers; none is invented in between.

    Args:
        files: Bytes of PNG, BMP or GIF files, shape (batch,), string.
        size: Height and width in pixels.
        fit: As the images' own.

    Returns:
        (batch, height, width, 1), uint8, by the nearest neighbour.
    """
    return _each(files, size, 1, fit, "nearest")


def _each(files: tf.Tensor, size: tuple[int, int], channels: int, fit: Fit, method: str) -> tf.Tensor:
    import tensorflow as tf

    def one(file: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(file, channels=channels, expand_animations=False)
        pixels.set_shape((None, None, channels))
        if fit == "pad":
            return _whole(tf.image.resize_with_pad(pixels, *size, method=method))
        if fit == "crop":
            pixels = _centre(pixels, size)
        return _whole(tf.image.resize(pixels, size, method=method))

    return tf.map_fn(one, tf.convert_to_tensor(files), fn_output_signature=tf.TensorSpec((*size, channels), tf.uint8))


def _centre(pixels: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The largest part around the centre that has the proportions of a size."""
    import tensorflow as tf

    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    most_high = tf.maximum(tf.minimum(height, width * size[0] // size[1]), 1)
    most_wide = tf.maximum(tf.minimum(width, height * size[1] // size[0]), 1)
    top, left = (height - most_high) // 2, (width - most_wide) // 2
    return pixels[top : top + most_high, left : left + most_wide]


def _whole(pixels: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.cast(tf.clip_by_value(tf.round(tf.cast(pixels, tf.float32)), 0, 255), tf.uint8)
