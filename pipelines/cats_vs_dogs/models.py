"""The networks that tell cats from dogs: a square photograph in colour, uint8, gives the score of a dog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from headrace import Feature


def photograph(inputs: Mapping[str, Feature], augmentation: bool = True) -> tuple[Any, Any]:
    """The input, and its numbers from 0 to 255; augmented in each epoch in another way, while it is trained on.

    Args:
        inputs: The image (height, width, 3).
        augmentation: Whether half of the photographs are mirrored, all turned by up to 36°, all scaled by up to 20 %.
    """
    import keras

    given = keras.Input(inputs["image"].shape, dtype="uint8", name="image")
    x = keras.ops.cast(given, "float32")
    if augmentation:
        x = keras.layers.RandomFlip("horizontal")(x)
        x = keras.layers.RandomRotation(0.1)(x)
        x = keras.layers.RandomZoom(0.2)(x)
    return given, x


def ended(given: Any, x: Any) -> keras.Model:
    """The model that ends in the score of a dog."""
    import keras

    return keras.Model(given, keras.layers.Dense(1, activation="sigmoid", name="label")(x))


def convnet(
    inputs: Mapping[str, Feature],
    filters: tuple[int, ...] = (32, 64, 128, 256, 256),
    augmentation: bool = False,
    dropout: float = 0.0,
) -> keras.Model:
    """Convolutions of 3 × 3 with max pooling between them (991,041 parameters, of photographs of 180 × 180).

    Args:
        inputs: The image (height, width, 3); five convolutions need sides of 78 pixels or more.
        filters: Of each convolution.
        augmentation: See `photograph`.
        dropout: Share that is dropped before the last layer.
    """
    import keras

    given, x = photograph(inputs, augmentation)
    x = keras.layers.Rescaling(1 / 255)(x)
    for place, count in enumerate(filters):
        if place:
            x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.Conv2D(count, 3, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return ended(given, keras.layers.Dropout(dropout)(x) if dropout else x)


def mini_xception(
    inputs: Mapping[str, Feature], filters: tuple[int, ...] = (32, 64, 128, 256, 512), augmentation: bool = True
) -> keras.Model:
    """Separable convolutions with batch normalisation and residual connections (721,857 parameters, 718,849 trained).

    Args:
        inputs: The image (height, width, 3), of any size.
        filters: Of the two convolutions of each block, which halves height and width.
        augmentation: See `photograph`.
    """
    import keras
    from keras import layers

    given, x = photograph(inputs, augmentation)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(filters[0], 5, use_bias=False)(x)
    for count in filters:
        before = x
        for _ in range(2):
            x = layers.Activation("relu")(layers.BatchNormalization()(x))
            x = layers.SeparableConv2D(count, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = keras.layers.add([x, layers.Conv2D(count, 1, strides=2, padding="same", use_bias=False)(before)])
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    return ended(given, x)


def residual(inputs: Mapping[str, Feature], filters: tuple[int, ...] = (32, 64, 128)) -> keras.Model:
    """Residual blocks of two convolutions each, all but the last with pooling (297,697 parameters).

    Args:
        inputs: The image (height, width, 3), 32 × 32 in the book.
        filters: Of each block.
    """
    import keras
    from keras import layers

    given, x = photograph(inputs, augmentation=False)
    x = layers.Rescaling(1 / 255)(x)
    for count in filters:
        before, pooled = x, count != filters[-1]
        for _ in range(2):
            x = layers.Conv2D(count, 3, activation="relu", padding="same")(x)
        if pooled:
            x = layers.MaxPooling2D(2, padding="same")(x)
        # The sum needs the same size and number of channels on both sides.
        x = keras.layers.add([x, layers.Conv2D(count, 1, strides=2 if pooled else 1)(before)])
    return ended(given, layers.GlobalAveragePooling2D()(x))


# --------------------------------------------------------------------------------- with what was learned elsewhere


def head(inputs: Mapping[str, Feature], units: int = 256, dropout: float = 0.5) -> keras.Model:
    """A dense network on the features of a backbone (3,277,313 parameters on VGG16's of 180 × 180).

    Its hidden layer has no activation: so it stands in the book.
    """
    import keras

    given = keras.Input(inputs["features"].shape, name="features")
    return ended(given, _dense(given, units, dropout))


def _dense(x: Any, units: int, dropout: float) -> Any:
    import keras

    x = keras.layers.Dense(units)(keras.layers.Flatten()(x))
    return keras.layers.Dropout(dropout)(x)


def on_backbone(
    inputs: Mapping[str, Feature],
    network: str = "vgg16",
    augmentation: bool = True,
    units: int = 256,
    dropout: float = 0.5,
) -> keras.Model:
    """A well-known network as a layer of its name, and a dense network on it.

    Args:
        inputs: The image (height, width, 3).
        network: One of `headrace.engine.backbones.CATALOGUE`.
        augmentation: See `photograph`.
        units: Of the hidden layer, which has no activation.
        dropout: Share of them that is dropped.
    """
    from headrace.engine.backbones import backbone, prepared

    given, x = photograph(inputs, augmentation)
    x = backbone(network, inputs["image"].shape)(prepared(network, x))
    return ended(given, _dense(x, units, dropout))


def encoder(shape: tuple[int | None, ...], filters: tuple[int, ...] = (32, 64, 128, 256)) -> keras.Model:
    """A small network that sees a photograph as a vector: the backbone that is learned here, the layer `encoder`."""
    import keras
    from keras import layers

    x = given = keras.Input(shape)
    for place, count in enumerate(filters):
        x = layers.MaxPooling2D(2)(x) if place else x
        x = layers.Conv2D(count, 3 if place else 5, 1 if place else 2, padding="same", use_bias=False)(x)
        # With Keras' 0.99 what serves lags a hundred steps behind what is trained: epochs, where photographs are few.
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(given, layers.GlobalAveragePooling2D()(x), name="encoder")


def on_encoder(
    inputs: Mapping[str, Feature],
    augmentation: bool = True,
    dropout: float = 0.5,
    filters: tuple[int, ...] = (32, 64, 128, 256),
) -> keras.Model:
    """The encoder, and one unit on it.

    Args:
        inputs: The image (height, width, 3).
        augmentation: See `photograph`.
        dropout: Share of what the encoder gives that is dropped.
        filters: Of the encoder's convolutions, each of which halves height and width.
    """
    import keras

    given, x = photograph(inputs, augmentation)
    x = encoder(inputs["image"].shape, filters)(keras.layers.Rescaling(1 / 255)(x))
    return ended(given, keras.layers.Dropout(dropout)(x))


def turns(inputs: Mapping[str, Feature], filters: tuple[int, ...] = (32, 64, 128, 256)) -> keras.Model:
    """The encoder, and a number for each of four ways round that a photograph may have been turned.

    Args:
        inputs: The image (side, side, 3).
        filters: Of the encoder's convolutions.
    """
    import keras

    from pipelines.cats_vs_dogs.turning import Turns

    given, x = photograph(inputs)
    x = encoder(inputs["image"].shape, filters)(keras.layers.Rescaling(1 / 255)(x))
    return Turns(given, keras.layers.Dense(4, activation="softmax", name="turn")(x))
