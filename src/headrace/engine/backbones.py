"""Well-known image networks by name, with the preparation of their inputs and, where asked for, ImageNet's weights.

The weights come through `headrace.getting.fetching`: from the cache or a mirror where they are, from where Keras keeps
them otherwise, and with our messages where they can't be had. A workload's `model` calls

```python
x = prepared("vgg16", images)                     # images of 0 to 255
x = backbone("vgg16", (180, 180, 3))(x)           # a layer called `vgg16`
```

and its variants say `Train(weights={"vgg16": "imagenet"}, frozen=("vgg16",))`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.errors import ConfigError, DataError, unknown
from headrace.spec import File

if TYPE_CHECKING:
    import keras

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_SQUEEZENET = (
    "https://raw.githubusercontent.com/DeepCognition/keras-squeezenet/a73d4339aa4d37c51a0b3ba044bed55477abec73"
)


@dataclass(frozen=True)
class Known:
    """A network, and where its weights are: those of the whole network, and those without the classifying top."""

    module: str
    """Of `keras.applications`."""
    maker: str
    whole: File | None
    notop: File
    whole_md5: str | None = None
    notop_md5: str | None = None
    """What Keras pins; SHA-256 digests of these files are published by nobody."""


def _known(
    module: str, maker: str, files: str, md5: tuple[str, str] | None, notop: str = "notop", folder: str = ""
) -> Known:
    address = f"{_KERAS}/{folder or module}/{files}"
    whole, without = (File(url=f"{address}{end}.h5") for end in ("", f"_{notop}"))
    return Known(module, maker, whole, without, *(md5 or (None, None)))


_KERNELS = "weights_tf_dim_ordering_tf_kernels"
CATALOGUE: dict[str, Known] = {
    "vgg16": _known(
        "vgg16",
        "VGG16",
        f"vgg16_{_KERNELS}",
        ("64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc"),
    ),
    "vgg19": _known(
        "vgg19",
        "VGG19",
        f"vgg19_{_KERNELS}",
        ("cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6"),
    ),
    "xception": _known(
        "xception",
        "Xception",
        f"xception_{_KERNELS}",
        ("0a58e3b7378bc2990ea3b43d5981f1f6", "b0042744bf5b25fce3cb969f33bebb97"),
    ),
    "inception_v3": _known(
        "inception_v3",
        "InceptionV3",
        f"inception_v3_{_KERNELS}",
        ("9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63"),
    ),
    "resnet50": _known(
        "resnet",
        "ResNet50",
        f"resnet50_{_KERNELS}",
        ("2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"),
    ),
    "densenet121": _known(
        "densenet",
        "DenseNet121",
        f"densenet121_{_KERNELS}",
        ("9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738"),
    ),
    # Keras pins no digest of this one.
    "mobilenet_v2": _known("mobilenet_v2", "MobileNetV2", f"mobilenet_v2_{_KERNELS}_1.0_224", None, notop="no_top"),
    "squeezenet": Known(
        "imagenet_utils",
        "",
        None,
        File(
            url=f"{_SQUEEZENET}/squeezenet_{_KERNELS}_notop.h5",
            sha256="17154246284f555591549ac2c83e127abfbf4307dc4b0060fdaa2931d0fa38da",
            size=3_002_560,
        ),
    ),
}
"""Name → network. Those of Keras that put a preparation into the network only if they fetch the weights themselves
(EfficientNet) are not among them: their weights don't fit the same network made without."""


def file_of(name: str, *, top: bool = False) -> tuple[File, str | None]:
    """The file of a network's weights, and the MD5 digest that Keras pins, if it does.

    Raises:
        ConfigError: There is no such network, or it has no top.
    """
    entry = known(name)
    if not top:
        return entry.notop, entry.notop_md5
    if entry.whole is None:
        raise ConfigError(f"The backbone {name} is known without its top only.")
    return entry.whole, entry.whole_md5


def known(name: str) -> Known:
    """The network of this name.

    Raises:
        ConfigError: There is none, with the nearest names.
    """
    if name not in CATALOGUE:
        raise unknown("backbone", name, CATALOGUE)
    return CATALOGUE[name]


def backbone(
    name: str,
    shape: tuple[int | None, ...] | None = None,
    *,
    weights: Literal["imagenet", "random"] | None = None,
    top: bool = False,
    pooling: Literal["avg", "max"] | None = None,
) -> keras.Model:
    """A network as a Keras model of this name, to be called as a layer.

    Args:
        name: One of `CATALOGUE`.
        shape: Shape of an image (height, width, 3), None for any; default: any, and with a top the network's own.
        weights: Fetch what was learned on ImageNet, or draw them, always the same; default: drawn by Keras. In a
            workload's `model`, `Train.weights` says so for each variant; this is for a backbone outside of a training,
            such as in `preprocess`.
        top: Keep the layers that tell ImageNet's 1000 classes.
        pooling: Average or maximum over height and width, so that the output is a vector; default: the whole map.

    Raises:
        ConfigError: There is no such network, or it has no top.
        DataError: The weights can't be had, or are not what Keras pins.
    """
    import keras

    entry = known(name)
    file_of(name, top=top)
    if name == "squeezenet":
        model = _squeezenet(shape or (None, None, 3), pooling)
    else:
        make = getattr(getattr(keras.applications, entry.module), entry.maker)
        model = make(weights=None, include_top=top, input_shape=shape, pooling=pooling, name=name)
    if weights == "imagenet":
        from headrace.engine.borrowing import imagenet

        load(model, imagenet(name, top=top))
    elif weights == "random":
        for number, weight in enumerate(model.trainable_weights):
            if len(weight.shape) > 1:
                weight.assign(keras.initializers.HeNormal(seed=number)(weight.shape))
    return model


def prepared(name: str, images: Any) -> Any:
    """What a network expects, of images (…, height, width, 3) in RGB with values from 0 to 255.

    Args:
        name: One of `CATALOGUE`.
        images: Float tensor, also a symbolic one of a functional model.
    """
    import keras

    return getattr(keras.applications, known(name).module).preprocess_input(images)


# ------------------------------------------------------------------------------------------------- weights


def load(model: keras.Model, path: Path) -> None:
    """Load a file of weights, as Keras has written it at any time, into a model of the same layers.

    Raises:
        DataError: They don't fit.
    """
    try:
        with warnings.catch_warnings():
            # Keras would go on with layers that it found nothing for.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        raise DataError(
            f"The weights in {path.name} don't fit `{model.name}`.",
            received=str(error).strip().partition("\n")[0],
            remedy="see whether the file is whole, and was written for the same layers",
        ) from error


def _squeezenet(shape: tuple[int | None, ...], pooling: str | None) -> keras.Model:
    """SqueezeNet 1.1 (Iandola et al. 2016) without its top: 722,496 parameters, 512 channels at a sixteenth."""
    import keras
    from keras import layers

    def convolved(x: Any, filters: int, size: int, name: str, **how: Any) -> Any:
        return layers.Conv2D(filters, size, activation="relu", name=name, **how)(x)

    def fire(x: Any, number: int, squeeze: int, expand: int) -> Any:
        x = convolved(x, squeeze, 1, f"fire{number}_squeeze1x1")
        sides = [convolved(x, expand, size, f"fire{number}_expand{size}x{size}", padding="same") for size in (1, 3)]
        return layers.Concatenate(name=f"fire{number}_concat")(sides)

    inputs = keras.Input(shape)
    x = convolved(inputs, 64, 3, "conv1", strides=2)
    for pool, fires in (
        (1, ((2, 16, 64), (3, 16, 64))),
        (3, ((4, 32, 128), (5, 32, 128))),
        (5, ((6, 48, 192), (7, 48, 192), (8, 64, 256), (9, 64, 256))),
    ):
        x = layers.MaxPooling2D(3, 2, name=f"pool{pool}")(x)
        for number, squeeze, expand in fires:
            x = fire(x, number, squeeze, expand)
    if pooling:
        x = (layers.GlobalAveragePooling2D if pooling == "avg" else layers.GlobalMaxPooling2D)(name="pooled")(x)
    return keras.Model(inputs, x, name="squeezenet")
