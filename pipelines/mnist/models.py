"""The networks that are built of Keras layers: dense, convolutional, recurrent.

All of them take images as records hold them, uint8 from 0 to 255, and bring them to 0 to 1 by themselves: every variant
shares the same records, and what is served takes images as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from headrace import Feature

if TYPE_CHECKING:
    import keras

CLASSES = 10


def mlp(
    inputs: Mapping[str, Feature],
    units: int | tuple[int, ...] = 512,
    activation: Literal["relu", "linear"] = "relu",
    dropout: float = 0.0,
    l2: float = 0.0,
) -> keras.Model:
    """Hidden layers on the pixels one after the other (407,050 parameters), and on any columns that stand beside them.

    Args:
        inputs: The image (28, 28, 1), and perhaps more columns.
        units: Of the hidden layer, or of each of them; none at all for a logistic regression.
        activation: Of the hidden layers.
        dropout: Share that is dropped after each hidden layer.
        l2: Penalty on the weights of the hidden layers.
    """
    given, x = flat(inputs)
    return ended(given, hidden(x, units, activation, dropout, l2))


def flat(inputs: Mapping[str, Feature]) -> tuple[dict[str, Any], Any]:
    """The inputs of a model by name, and all their numbers, from 0 to 1, as one vector."""
    import keras

    given = {
        name: keras.Input(feature.shape, dtype=feature.dtype, name=name) for name, feature in sorted(inputs.items())
    }
    parts = [keras.layers.Rescaling(1 / 255)(keras.layers.Flatten()(part)) for part in given.values()]
    return given, keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]


def hidden(
    x: Any, units: int | tuple[int, ...], activation: str = "relu", dropout: float = 0.0, l2: float = 0.0
) -> Any:
    """Dense layers, each with its dropout."""
    import keras

    for size in [units] if isinstance(units, int) else units:
        penalty = keras.regularizers.L2(l2) if l2 else None
        x = keras.layers.Dense(size, activation=activation, kernel_regularizer=penalty)(x)
        x = keras.layers.Dropout(dropout)(x) if dropout else x
    return x


def ended(given: Mapping[str, Any], x: Any, kind: Any = None) -> keras.Model:
    """A model that answers with the probability of each digit."""
    import keras

    answers = keras.layers.Dense(CLASSES, activation="softmax", name="label")(x)
    single = next(iter(given.values())) if len(given) == 1 else dict(given)
    return (kind or keras.Model)(single, answers)


def mlp_sequential(inputs: Mapping[str, Feature], units: int = 100) -> keras.Model:
    """One hidden layer of 100 units (79,510 parameters), as a list of layers; the softmax is a layer of its own."""
    import keras

    return keras.Sequential(
        [
            keras.Input(inputs["image"].shape, dtype="uint8", name="image"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(CLASSES),
            keras.layers.Softmax(name="label"),
        ]
    )


def mlp_functional(inputs: Mapping[str, Feature], units: int = 100) -> keras.Model:
    """The same as a graph of layers."""
    import keras

    given, x = flat(inputs)
    scores = keras.layers.Dense(CLASSES)(hidden(x, units))
    return keras.Model(given["image"], keras.layers.Softmax(name="label")(scores))


def convnet(
    inputs: Mapping[str, Feature],
    filters: tuple[int, ...] = (32, 64, 128),
    pooling: bool = True,
    dropout: float = 0.0,
) -> keras.Model:
    """Convolutions of 3 × 3 with max pooling between them (104,202 parameters).

    Args:
        inputs: The image (28, 28, 1).
        filters: Of each convolution.
        pooling: Whether to pool; without it the last layer sees 61,952 numbers.
        dropout: Share that is dropped before the last layer.
    """
    import keras

    given = keras.Input(inputs["image"].shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(given)
    for place, count in enumerate(filters):
        if place and pooling:
            x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.Conv2D(count, 3, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return ended({"image": given}, keras.layers.Dropout(dropout)(x) if dropout else x)


def rnn(
    inputs: Mapping[str, Feature],
    units: int = 256,
    cell: Literal["simple", "lstm", "gru"] = "simple",
    bidirectional: bool = False,
    dropout: float = 0.2,
) -> keras.Model:
    """The rows of an image read from top to bottom, 28 steps of 28 pixels (75,530 parameters).

    Args:
        inputs: The image (28, 28, 1).
        units: Of the recurrent layer.
        cell: Its kind.
        bidirectional: Whether a second layer reads from bottom to top.
        dropout: Share of the pixels that is dropped in each step.
    """
    import keras

    rows, *columns = inputs["image"].shape
    given = keras.Input((rows, *columns), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(keras.layers.Reshape((rows, -1))(given))
    kinds = {"simple": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
    layer = kinds[cell](units, dropout=dropout)
    return ended({"image": given}, (keras.layers.Bidirectional(layer) if bidirectional else layer)(x))


# ------------------------------------------------------------------------------------ networks that are classes

# Keras' classes are in modules of their own: to name a variant must not cost the import of TensorFlow.


def mlp_subclassed(inputs: Mapping[str, Feature], units: int = 100) -> keras.Model:
    """One hidden layer of 100 units (79,510 parameters), as a class."""
    from pipelines.mnist.subclassed import Mlp

    return Mlp(inputs["image"].shape, units, CLASSES)


def cnn_subclassed(inputs: Mapping[str, Feature]) -> keras.Model:
    """Two convolutions of 5 × 5, and a hidden layer of 1,024 units (3,274,634 parameters), as a class."""
    from pipelines.mnist.subclassed import Cnn

    return Cnn(inputs["image"].shape, CLASSES)


def mlp_own_step(inputs: Mapping[str, Feature], units: int = 512, dropout: float = 0.5) -> keras.Model:
    """A network whose class trains it with a loss of its own."""
    from pipelines.mnist.steps import OwnLoss

    given, x = flat(inputs)
    return ended(given, hidden(x, units, dropout=dropout), OwnLoss)


def mlp_compiled_step(inputs: Mapping[str, Feature], units: int = 512, dropout: float = 0.5) -> keras.Model:
    """A network whose class trains it with the loss and the metrics that it was compiled with."""
    from pipelines.mnist.steps import CompiledLoss

    given, x = flat(inputs)
    return ended(given, hidden(x, units, dropout=dropout), CompiledLoss)


def as_layers(model: Any) -> Mapping[str, keras.Model]:
    """A network of a class of its own as a graph of Keras' layers, which loads without that class; the same weights."""
    import keras

    given = keras.Input(model.given, dtype="uint8", name="image")
    return {"model": keras.Model(given, model.call(given, training=False))}
