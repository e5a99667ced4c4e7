"""What travels beside a graph: names of classes and vocabularies as text, and requests to warm a server up with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import read_json, write_json
from headrace.bundling import text
from headrace.bundling.graphs import reached
from headrace.bundling.signatures import Signature
from headrace.spec import Feature

if TYPE_CHECKING:
    from headrace.bundling.examples import Array, Arrays

WARM_UP = "assets.extra/tf_serving_warmup_requests"
"""Of a SavedModel: where TensorFlow Serving looks for requests before it lets a version serve."""
SIGNATURES = "assets.extra/signatures.json"
"""Of a SavedModel: what its other signatures than the model's own answer take, as a workload declares it."""
WARM_BATCH = 32
"""Examples of the larger request."""


def labels(folder: Path, targets: Mapping[str, Feature]) -> list[Path]:
    """Write `labels_<target>.txt` of each target that has classes, one name in each line, in the order of numbers."""
    paths = []
    for name, feature in targets.items():
        if feature.classes:
            path = folder / f"labels_{name}.txt"
            path.write_text("".join(f"{label}\n" for label in feature.classes), encoding="utf-8")
            paths.append(path)
    return paths


# -------------------------------------------------------------------------------------------- vocabularies


@dataclass
class Texts:
    """The vocabularies in a preprocessing function."""

    files: list[Path] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    """The prepared inputs that `headrace.bundling.text` can make of raw text, as recorded examples prove."""
    without: dict[str, str] = field(default_factory=dict)
    """Vocabulary → why there is no reader that uses it."""


def vocabularies(folder: Path, prepare: Callable[..., Any], raw: Arrays, prepared: Arrays) -> Texts:
    """Write the vocabularies that preprocessing uses, and for readers without TensorFlow what is done with them.

    Which raw feature a `TextVectorization` is for, and which prepared input it gives, is found by trying: on the
    recorded examples the layer, and the reader made of it, must give the very numbers that the records hold.

    Args:
        folder: Where to write.
        prepare: The function from raw features to records.
        raw: Recorded examples, as a server is sent them.
        prepared: Their records.
    """
    import keras

    found, recipes, count = Texts(), dict[str, text.Recipe](), 0
    inner: list[Any] = []
    for layer in reached([prepare]):
        if any(layer is one for one in inner):
            continue
        if isinstance(layer, keras.layers.TextVectorization):
            matches = list(_matches(layer, raw, prepared))
            inner += layer._flatten_layers(include_self=False)
        elif isinstance(layer, keras.layers.StringLookup):
            matches = []
        else:
            continue
        count += 1
        tokens = [token.encode() for token in map(str, layer.get_vocabulary(include_special_tokens=False))]
        name = f"{matches[0][1]}_vocabulary.txt" if matches else f"vocabulary_{count}.txt"
        why = "no prepared input is what its layer gives by itself"
        for source, target, cut in matches:
            recipe, why = _recipe(layer, source, name, tokens, cut)
            if recipe and text.TextReader(recipe, tokens).agrees(list(raw[source]), prepared[target].tolist()):
                recipes[target], why = recipe, ""
            elif recipe:
                why = "on the recorded examples the reader gives other numbers"
        plain = text.Recipe(source="", vocabulary=name, escaped=_escaped(tokens))
        found.files.append(text.write(folder, plain, tokens))
        if why:
            found.without[name] = why
    if recipes:
        found.files.append(text.write_settings(folder, recipes))
        found.readers = list(recipes)
    return found


def _matches(layer: Any, raw: Arrays, prepared: Arrays) -> Iterator[tuple[str, str, int | None]]:
    """Raw feature and prepared input between which the layer stands; and to how many numbers its rows are cut."""
    import numpy as np
    import tensorflow as tf

    for source, values in raw.items():
        if values.dtype != object or values.ndim != 1:
            continue
        given = layer(tf.constant(values))
        if isinstance(given, tf.RaggedTensor):
            given = given.to_tensor()
        made = np.asarray(given)
        for target, due in prepared.items():
            if due.dtype == object or due.ndim != made.ndim or due.ndim != 2 or due.shape[1] > made.shape[1]:
                continue
            if np.array_equal(made[:, : due.shape[1]], due):
                yield source, target, due.shape[1]


def _recipe(
    layer: Any, source: str, vocabulary: str, tokens: list[bytes], cut: int | None
) -> tuple[text.Recipe | None, str]:
    """How a `TextVectorization` reads text; or why only TensorFlow can do it."""
    said = layer.get_config()
    for setting, known in (
        ("standardize", ("lower_and_strip_punctuation", "lower", "strip_punctuation", None)),
        ("split", ("whitespace", "character")),
        ("output_mode", ("int", "multi_hot", "count", "tf_idf")),
    ):
        if said[setting] not in known:
            own = "a function of the workload's own" if callable(said[setting]) else said[setting]
            return None, f"its `{setting}` is {own}"
    ngrams = said["ngrams"] or ()
    weights: tuple[float, ...] = ()
    if said["output_mode"] == "tf_idf":
        given = layer._lookup_layer.idf_weights
        weights = tuple(map(float, given))
        weights += (0.0,) * ((cut or 0) - len(weights))
    whole = said["output_mode"] == "int"
    recipe = text.Recipe(
        source=source,
        vocabulary=vocabulary,
        standardize=said["standardize"],
        split=said["split"],
        ngrams=tuple(range(1, ngrams + 1)) if isinstance(ngrams, int) else tuple(ngrams),
        output_mode=said["output_mode"],
        length=None if whole and said["output_sequence_length"] is None else cut if whole else None,
        size=None if whole else cut,
        weights=weights,
        escaped=_escaped(tokens),
    )
    return recipe, ""


def _escaped(tokens: list[bytes]) -> bool:
    return any(b"\n" in token or b"\r" in token for token in tokens)


# ---------------------------------------------------------------------------------------------- signatures


def write_signatures(saved_model: Path, given: Mapping[str, Signature]) -> None:
    """Write what the inputs of signatures are: a string of bytes may be a text or an image."""
    said = {
        name: {key: feature.model_dump(mode="json", exclude_defaults=True) for key, feature in signature.inputs.items()}
        for name, signature in given.items()
    }
    path = saved_model / SIGNATURES
    path.parent.mkdir(exist_ok=True)
    write_json(path, said)


def declared_inputs(saved_model: Path, signature: str) -> dict[str, Feature]:
    """The inputs of a signature as `write_signatures` has kept them; nothing if it has not."""
    said = read_json(saved_model / SIGNATURES) or {}
    return {name: Feature.model_validate(feature) for name, feature in said.get(signature, {}).items()}


# ----------------------------------------------------------------------------------------------- warm-up


def write_warm_up(saved_model: Path, name: str, examples: Arrays) -> None:
    """Write requests that TensorFlow Serving answers before it lets a version serve: for one example, and for several.

    Args:
        saved_model: The folder of the SavedModel.
        name: Of the model.
        examples: Inputs of the serving signature.
    """
    import tensorflow as tf

    path = saved_model / WARM_UP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for count in sorted({1, min(WARM_BATCH, len(next(iter(examples.values()))))}):
            writer.write(prediction_log(name, {key: values[:count] for key, values in examples.items()}))


def prediction_log(name: str, inputs: Mapping[str, Array]) -> bytes:
    """A `tensorflow.serving.PredictionLog` of one request for the signature `serving_default`, serialised.

    Its classes are in tensorflow-serving-api, which brings a gRPC server along: five small messages are written here by
    the rules of protocol buffers instead.
    """
    import tensorflow as tf

    model = _field(1, name.encode()) + _field(3, b"serving_default")
    request = _field(1, model)
    for key, values in sorted(inputs.items()):
        tensor = tf.make_tensor_proto(values).SerializeToString(deterministic=True)
        request += _field(2, _field(1, key.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number: int, data: bytes) -> bytes:
    """A field of a message, of bytes or another message."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
