"""What can be looked into: a published version, a backbone by its name, a file; and images as it takes them."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import projects, registry
from headrace.artifacts import file_digest
from headrace.errors import ConfigError, DataError, unknown
from headrace.spec import Feature, File

if TYPE_CHECKING:
    import keras
    import numpy as np

    Array = np.ndarray[Any, Any]

BACKBONE = "backbone:"
IMAGENET_CLASSES = File(
    url="https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json", size=35_363
)
"""Number of each of ImageNet's classes → its WordNet number and its name."""


@dataclass(frozen=True)
class Example:
    """An image, raw."""

    name: str
    raw: Any
    """The bytes of an image file, or pixels as the source of a workload has them."""


@dataclass(frozen=True)
class Subject:
    """A model that is to be looked into; nothing is loaded yet."""

    title: str
    """For people: "mnist-convnet version 3"."""
    folder: str
    """Under which what is found of it is kept."""
    digest: str
    """Of its weights, and of what prepares images for it."""
    load: Callable[[], keras.Model]
    prepare: Callable[[Sequence[Example], Any], Array]
    """Examples and the model's input (a Keras tensor) → pixels as the model takes them (examples, height, width, …)."""
    examples: Callable[[], list[Example]] = list
    """Those that came with it, if any did."""
    task: str = ""
    classes: Callable[[], Sequence[str]] = tuple
    span: tuple[float, float] | None = field(default=None)
    """Of pixels as the model takes them, if that is known."""


def subject(model: str) -> Subject:
    """What a word stands for.

    Args:
        model: `LINE` or `LINE@VERSION` of the registry, `backbone:NAME`, or the path of a `.keras` file.

    Raises:
        ConfigError: There is no such line, version, backbone or file.
        DataError: The version is damaged, or ImageNet's weights can't be had.
    """
    if model.startswith(BACKBONE):
        return _backbone(model.removeprefix(BACKBONE))
    if model.endswith(".keras"):
        return _file(Path(model).expanduser())
    return _published(model)


# --------------------------------------------------------------------------------------------- of the registry


def _published(model: str) -> Subject:
    from headrace.serving import bundles

    line, _, wanted = model.partition("@")
    if line not in registry.lines():
        others = [name for name in registry.lines() if name.partition("-")[0] == line]
        remedy = f"headrace interpret {others[0]}" if others else "headrace run WORKLOAD, or backbone:NAME"
        raise ConfigError(str(unknown("line in the registry", line, registry.lines())), remedy=remedy)
    version = bundles.version_of(line, wanted or bundles.BLESSED)
    about = registry.show(line, version)
    request = (about.get("lineage") or {}).get("request") or {}
    workload = str(request.get("workload", ""))
    if workload not in projects.names():
        raise ConfigError(
            f"{line} version {version} can't be looked into without the file of its workload.",
            expected=f"pipelines/{workload or 'WORKLOAD'}.py, which prepares its images",
        )
    bundle = bundles.published(workload, str(version), line)
    [target, *_] = [*bundle.targets.values(), bundles.Target("")]
    features = {name: feature for name, feature in bundle.features.items() if feature.role == "input"}
    path = registry.held(line, version) / registry.EXTRA
    return Subject(
        title=bundle.title,
        folder=line,
        digest=str(about["digest"]),
        load=lambda: _loaded(path / "model.keras", projects.load(workload).objects),
        prepare=lambda examples, given: _by_workload(workload, request, path, features, examples, given),
        examples=lambda: _recorded(path, features),
        task=target.task,
        classes=lambda: target.classes,
    )


def _loaded(path: Path, custom: Mapping[str, Any]) -> keras.Model:
    import keras

    try:
        return keras.saving.load_model(path, compile=False, custom_objects=dict(custom))
    except (TypeError, ValueError, OSError) as error:
        raise DataError(
            f"Keras can't load the model {path}.", received=str(error).strip().partition("\n")[0]
        ) from error


def _by_workload(
    workload: str,
    request: Mapping[str, Any],
    path: Path,
    features: Mapping[str, Feature],
    examples: Sequence[Example],
    given: Any,
) -> Array:
    """Images as the workload's own `preprocess` makes them of raw ones."""
    import numpy as np
    import tensorflow as tf

    from headrace.describing.summaries import Statistics
    from headrace.jobs import taken

    pipeline = projects.load(workload)
    variant = str(request.get("variant"))
    if variant not in pipeline.variants:
        raise unknown(f"variant of {workload}, which this version was made by,", variant, pipeline.variants)
    make = pipeline.function("preprocess", variant)
    if len(features) != 1 or make is None or pipeline.function("learn", variant):
        raise ConfigError(
            f"{workload} takes more than one image, or prepares it by what it has learned of the data.",
            expected="one image as the only input",
            received=", ".join(features),
        )
    [(name, feature)] = features.items()
    raw = [_as_feature(example, name, feature) for example in examples]
    batch = {name: tf.constant(raw if feature.dtype == "string" else np.stack(raw))}
    statistics = Statistics.from_json(json.loads((path / "statistics.json").read_text()))
    settings = (request.get("settings") or {}).get("preprocess") or {}
    prepared = make(statistics, **taken(make, settings))(batch)
    if given.name not in prepared:
        raise ConfigError(f"The model takes `{given.name}`, which `preprocess` of {workload} does not give.")
    pixels: Array = np.asarray(prepared[given.name])
    return pixels


def _as_feature(example: Example, name: str, feature: Feature) -> Any:
    """A raw value of the feature: what it is already, or the pixels of a file in the feature's own shape."""
    import numpy as np

    if feature.dtype == "string" or not isinstance(example.raw, bytes):
        return example.raw
    if len(feature.shape) not in (2, 3):
        raise ConfigError(f"No image can be given for `{name}`.", expected=f"values of shape {feature.shape}")
    channels = feature.shape[2] if len(feature.shape) == 3 else 1
    pixels = _decoded(example, (feature.shape[0] or 1, feature.shape[1] or 1), channels or 1)
    return pixels.reshape([length or 1 for length in feature.shape]).astype(np.dtype(feature.dtype))


def _recorded(path: Path, features: Mapping[str, Feature]) -> list[Example]:
    """The test examples on which the exported formats were compared; none if the version came without."""
    from headrace.bundling.examples import EXAMPLES
    from headrace.serving_check import read

    if not (path / EXAMPLES).is_file():
        return []
    held = read(str(path / EXAMPLES), "raw")
    [name, *others] = features
    return [] if others else [Example(f"test example {row}", raw) for row, raw in enumerate(held.get(name, ()))]


# ------------------------------------------------------------------------------------- backbones, and any file


def _backbone(name: str) -> Subject:
    from headrace.engine.backbones import file_of, known
    from headrace.engine.borrowing import imagenet
    from headrace.getting.fetching import digest_in_force, fetch

    entry = known(name)
    # With the layers that tell the classes, unless only those without them are near.
    top = entry.whole is not None and (bool(digest_in_force(entry.whole)) or not digest_in_force(entry.notop))
    path = imagenet(name, top=top)

    def load() -> keras.Model:
        import keras

        from headrace.engine import backbones

        inner = backbones.backbone(name, top=top)
        backbones.load(inner, path)
        given = keras.Input((*inner.inputs[0].shape[1:3], 3), name="image")
        return keras.Model(given, inner(backbones.prepared(name, given)))

    def classes() -> Sequence[str]:
        with contextlib.suppress(DataError):
            [held] = fetch([IMAGENET_CLASSES])
            named = json.loads(held.path.read_text())
            return [str(named[str(number)][1]) for number in range(len(named))]
        return ()

    wanted, _ = file_of(name, top=top)
    return Subject(
        title=f"{name} of ImageNet{'' if top else ', without its top'}",
        folder=f"backbone-{name}",
        digest=f"{wanted.name} {file_digest(path)}",
        load=load,
        prepare=_decoded_all,
        task="multiclass" if top else "",
        classes=classes if top else tuple,
        span=(0.0, 255.0),
    )


def _file(path: Path) -> Subject:
    if not path.is_file():
        raise ConfigError(f"There is no file {path}.")
    name = re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower())
    return Subject(
        title=path.name,
        folder=f"file-{name}",
        digest=file_digest(path),
        load=lambda: _loaded(path, {}),
        prepare=_decoded_all,
        span=(0.0, 255.0),
    )


def _decoded_all(examples: Sequence[Example], given: Any) -> Array:
    """Pixels from 0 to 255, of the size that the model takes."""
    import numpy as np

    from headrace.seeing.networks import SIDE

    height, width, channels = given.shape[1:]
    return np.stack([_decoded(example, (height or SIDE, width or SIDE), channels) for example in examples])


def _decoded(example: Example, size: tuple[int, int], channels: int) -> Array:
    import tensorflow as tf

    from headrace.images import decode

    try:
        pixels: Array = decode(tf.constant([example.raw]), size, channels).numpy()[0]
    except tf.errors.InvalidArgumentError as error:
        raise DataError(f"{example.name} is no image that can be read.", expected="JPEG, PNG, GIF or BMP") from error
    return pixels


# ---------------------------------------------------------------------------------------------------- images


def images(path: Path, most: int) -> list[Example]:
    """The image files at a path: the file itself, or the first ones of a folder, by their names.

    Raises:
        ConfigError: There is no such path, or no image in the folder.
    """
    from PIL import Image, UnidentifiedImageError

    from headrace.readers.folders import IMAGES

    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())[:most]
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise ConfigError(
            f"There is no image at {path}.",
            expected=f"an image file, or a folder of them ({', '.join(IMAGES)})",
            received="a folder without any" if path.is_dir() else "no such file or folder",
        )
    found = []
    for file in files:
        content = file.read_bytes()
        try:
            Image.open(io.BytesIO(content)).verify()
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DataError(f"{file} is no image that can be read.", expected="JPEG, PNG, GIF or BMP") from error
        found.append(Example(file.name, content))
    return found
