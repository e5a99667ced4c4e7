"""The words in which a workload file says what it is. Frozen, validated when written, all errors at once.

Nothing here imports TensorFlow: a spec is read by `list`, `show`, `plan`, a deployment and a worker's poll.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headrace.errors import nearest

if TYPE_CHECKING:
    import pyarrow as pa

    Read = Callable[[Path], Mapping[str, Iterable[pa.RecordBatch]]]
else:
    # Pydantic checks that it can be called, and need not import pyarrow for that.
    Read = Callable[[Path], Any]

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
"""A workload, source, variant or feature: lower case, so that it can be a file, a flow and a column."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Twin = Callable[[Path, int], None]


class Spec(BaseModel):
    """Base of every spec: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Column(Spec):
    """One column of a table that becomes one position of a vector feature."""

    name: str
    description: str = ""
    unit: str = ""


class Feature(Spec):
    """What one feature of an example is: as `read` gives it, or as a record holds it after preprocessing.

    A table's columns are packed into one vector feature (`columns` names its positions): it is read and written three
    times as fast as a feature for each column.
    """

    shape: tuple[Annotated[int, Field(ge=1)] | None, ...] = ()
    """Shape of one example, without the batch: `()` for a scalar, `(13,)` for a vector, `(28, 28, 1)` for an image.
    `None` in the first place is a length that differs from example to example: `(None,)` for a sequence of numbers."""
    dtype: Literal["float32", "int64", "uint8", "string"] = "float32"
    role: Literal["input", "target", "weight", "note"] = "input"
    """`weight`: how much an example counts in the loss. `note`: for people only (a file name, a date), never seen by
    the model."""
    content: Literal["number", "category", "text", "tokens", "image", "mask"] | None = None
    """What the values mean, by which they are described, drawn and watched; default: what dtype and shape suggest (see
    `kind`). A `string` that is an image or a mask holds the bytes of a JPEG, PNG, GIF or BMP file."""
    classes: tuple[str, ...] = ()
    """Names of the categories: of a class number from 0 (`int64`), of the pixels of a mask, or the strings allowed."""
    columns: tuple[Column, ...] = ()
    """Names of the positions of a vector, or of the last dimension of anything with more of them."""
    optional: bool = False
    """Whether the value may be missing: NaN in a tensor of numbers, an empty string in one of strings."""
    description: str = ""
    unit: str = ""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if None in self.shape[1:]:
            raise ValueError(f"only the first dimension may differ from example to example, not that of {self.shape}")
        if self.columns and (not self.shape or len(self.columns) != self.shape[-1]):
            raise ValueError(
                f"a feature of shape {self.shape} has {self.shape[-1] if self.shape else 1} positions in its last "
                f"dimension, but {len(self.columns)} columns"
            )
        if self.optional and (self.dtype in ("int64", "uint8") or self.ragged):
            raise ValueError(
                f"a missing value of shape {self.shape} and type {self.dtype} can't be told from others: read it as "
                "float32 (NaN) or string (empty), or fill it in while reading"
            )
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")
        return self

    @property
    def ragged(self) -> bool:
        """Whether the length differs from example to example."""
        return self.shape[:1] == (None,)

    @property
    def size(self) -> int:
        """Numbers (or strings) in one example; of one step, where the length differs from example to example."""
        return math.prod(length for length in self.shape if length is not None)

    @property
    def kind(self) -> Literal["number", "category", "text", "tokens", "image", "mask"]:
        """What the values mean: `content`, or what dtype and shape suggest."""
        if self.content:
            return self.content
        if self.classes:
            return "category"
        if self.dtype == "string":
            return "text"
        if self.dtype == "int64" and self.ragged:
            return "tokens"
        return "image" if self.dtype == "uint8" and len(self.shape) == 3 and self.shape[2] in (1, 3, 4) else "number"


class File(Spec):
    """A file to be downloaded, pinned by the digest that its publisher gives."""

    url: str
    """Where it comes from: `https://…`, `kaggle://COMPETITION/FILE` (needs an account), `gdrive://ID/FILE`, or
    `manual:FILE` for what a person has to fetch."""
    sha256: Sha256 | None = None
    """Unknown where no publisher gives one: the digest of the first download is kept, and holds from then on."""
    size: Annotated[int, Field(gt=0)] | None = None
    """Bytes; unknown where the publisher gives a digest only."""
    unpack: bool = False
    """Unpack the archive (zip, tar, tar.gz, gz …) into a folder beside it. Reading an archive does not need that: see
    `headrace.archives`."""
    hint: str = ""
    """How a person gets it: the account, the rules to accept, the page."""

    @property
    def name(self) -> str:
        """The original file name, under which a mirror holds it."""
        return re.split("[/:]", self.url)[-1]


class Source(Spec):
    """Where the examples come from and how they are read."""

    title: str
    features: dict[Name, Feature]
    """Every feature of an example as `read` gives it."""
    read: Read
    """Folder of raw files → batches of examples for each split (`train` and `test`), always in the same order."""
    files: tuple[File, ...] = ()
    tfds: str | None = None
    """A TensorFlow Datasets builder instead of files: `mnist`, `mnist:3.0.1`, `glue/sst2`. It is prepared by TFDS itself
    in the raw folder."""
    twin: Twin | None = None
    """Folder and seed → raw files of the same format with made-up, learnable contents."""
    quarantine: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each split's examples that may be unusable (a missing value, an image that isn't one): they are left out
    and listed with their reasons. More stop the run."""
    licence: str = ""
    homepage: str = ""
    note: str = ""
    """What a person must know before using a model trained on these data."""

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if self.files and self.tfds:
            raise ValueError("a source has files, or a builder of TensorFlow Datasets, not both")
        return self

    def named(self, role: str) -> dict[str, Feature]:
        """The features that have this role, in their order."""
        return {name: feature for name, feature in self.features.items() if feature.role == role}


class Records(Spec):
    """How records are kept. What is said here changes speed and size, never what is read back (JPEG excepted)."""

    images: Literal["raw", "png", "jpeg"] = "raw"
    """How images and masks that `preprocess` gives as uint8 (height, width, channels) are stored: as they are, fastest to
    read; or as PNG (a fraction of the size) or JPEG (smaller yet, and no longer exact; masks stay PNG), decoded when
    they are read."""
    compression: Literal["none", "gzip"] = "none"
    """Gzip is for archives: it makes writing 3 to 27 times slower, and a new order for each epoch needs all examples in
    memory."""
    shard_bytes: Annotated[int, Field(ge=1_000)] = 100 * 2**20
    """A shard is closed when it holds this much: large enough to be read in one sweep, small enough to share out."""


class EarlyStopping(Spec):
    """Stop when a metric no longer improves (the rules of `keras.callbacks.EarlyStopping`)."""

    monitor: str = "val_loss"
    patience: Annotated[int, Field(ge=0)] = 10
    """Epochs without improvement before training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    mode: Literal["min", "max"] = "min"
    restore_best_weights: bool = True


class Train(Spec):
    """How a model is trained. Batch sizes are global: several replicas share one."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    optimizer: str = "rmsprop"
    """Name of a Keras optimizer."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Default: the optimizer's own."""
    loss: str = "mse"
    """Name of a Keras loss."""
    metrics: tuple[str, ...] = ()
    """Names of Keras metrics."""
    shuffle: bool = True
    """Draw a new order of the examples for each epoch, a pure function of seed and epoch."""
    validation_split: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training split, its last examples, that is held out and watched."""
    early_stopping: EarlyStopping | None = None
    strategy: Literal["auto", "default", "one_device", "mirrored"] = "auto"
    """How `tf.distribute` spreads the work; `auto` mirrors over the accelerators, if there is more than one."""
    jit_compile: bool = False
    """Compile the epoch with XLA: faster for tiny dense networks and LSTMs, slower for convolutions on a CPU. Left out
    with several replicas and with batch normalisation. Layers of your own must treat each row by itself."""

    @model_validator(mode="after")
    def _early_stopping_needs_something_to_watch(self) -> Self:
        watched = self.early_stopping
        if watched and watched.monitor.startswith("val_") and not self.validation_split:
            raise ValueError(
                f"early_stopping watches `{watched.monitor}`, but nothing is held out: set validation_split above 0"
            )
        return self


class CrossValidation(Spec):
    """K-fold cross-validation on the training split (Chollet 4.3.4 and 5.2)."""

    folds: Annotated[int, Field(ge=2, le=100)] = 4
    metric: str = "val_mae"
    """The metric whose averaged curve is drawn, reported and smoothed."""
    mode: Literal["min", "max"] = "min"
    choose_epochs: bool = True
    """Train the final model for as many epochs as the averaged, smoothed curve says; else for `train.epochs`."""


class Promise(Spec):
    """What a workload holds itself to, beside the figure that its book reports."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    on: Literal["test", "cross_validation"] = "test"
    book: float | None = None
    source: str = ""
    """Where the figure stands."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a promise needs a bound: at_least, at_most or both")
        return self

    def holds(self, value: float) -> bool:
        """Whether the value lies within the bounds."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def bounds(self) -> str:
        """The bounds in words: "2.2 to 3", "at most 3"."""
        if self.at_least is None:
            return f"at most {self.at_most:g}"
        if self.at_most is None:
            return f"at least {self.at_least:g}"
        return f"{self.at_least:g} to {self.at_most:g}"


class Export(Spec):
    """What leaves the training environment, and how closely it must agree with the Keras model."""

    formats: tuple[Literal["saved_model", "tflite"], ...] = ("saved_model", "tflite")
    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Largest difference from the Keras model, relative to the largest output."""
    examples: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Test examples on which every format is compared."""


class Monitor(Spec):
    """When new data count as drifted."""

    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of undrifted files that may be called drifted, over all columns together."""
    buckets: Annotated[int, Field(ge=2, le=100)] = 10
    """Quantile buckets into which each numeric column is cut."""


class Variant(Spec):
    """One configuration of a workload. Every field can be overridden: `--set train.epochs=8`."""

    description: str = ""
    train: Train
    model: dict[str, Any] = {}
    """Arguments of the workload's `model` function."""
    cross_validation: CrossValidation | None = None
    promises: tuple[Promise, ...] = ()
    export: Export = Export()
    monitor: Monitor = Monitor()


class Pipeline(Spec):
    """A workload, whole: the one object that a file in `pipelines/` defines."""

    name: Name
    title: str
    task: Literal["regression"]
    book: str
    """Book and section that the workload comes from."""
    expect: str
    """What to expect of a full run: metric, time, machine."""
    sources: dict[Name, Source]
    """The first one is the default."""
    preprocess: Callable[..., Any]
    """Statistics of the training split → function from a batch of features to a batch of records."""
    records: Records = Records()
    model: Callable[..., Any]
    """Features of the records (and the variant's `model` arguments) → Keras model, not compiled."""
    variants: dict[Name, Variant]
    """The first one is the default."""
    smoke: dict[str, Any] = {}
    """Overrides that make any variant run in seconds: `{"train.epochs": 20}`."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.sources:
            raise ValueError("a pipeline needs at least one source")
        if not self.variants:
            raise ValueError("a pipeline needs at least one variant")
        return self

    @property
    def default_source(self) -> str:
        """Name of the source that is used when none is asked for."""
        return next(iter(self.sources))

    @property
    def default_variant(self) -> str:
        """Name of the variant that is run when none is asked for."""
        return next(iter(self.variants))


# ------------------------------------------------------------------------------------ what is wrong with a spec


def spec_of(model: type[BaseModel] | None, name: str) -> type[BaseModel] | None:
    """The spec class of a field, if it holds one (`CrossValidation | None` does)."""
    if model is None:
        return None
    annotation = model.model_fields[name].annotation
    for candidate in (annotation, *get_args(annotation)):
        if inspect.isclass(candidate) and issubclass(candidate, BaseModel):
            return candidate
    return None


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> list[str]:
    """Pydantic's findings in our words, one line each: path, what is wrong, what was received, the nearest name."""
    lines = []
    for finding in error.errors():
        path = ".".join(str(step) for step in finding["loc"])
        message = finding["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        if finding["type"] == "extra_forbidden":
            owner = model
            for step in finding["loc"][:-1]:
                owner = spec_of(owner, str(step)) if owner and str(step) in owner.model_fields else None
            known = list(owner.model_fields) if owner else []
            message = f"there is no such setting: {nearest(str(finding['loc'][-1]), known)}"
        received = "" if isinstance(finding["input"], dict) else f"; received {finding['input']!r}"
        lines.append(f"{path or 'settings'}: {message}{received}")
    return lines
