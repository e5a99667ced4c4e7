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

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

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
    `headrace.getting.archives`."""
    hint: str = ""
    """How a person gets it: the account, the rules to accept, the page."""

    @property
    def name(self) -> str:
        """The original file name, under which a mirror holds it; where the address doesn't end in it: `…?id=3#NAME`."""
        return re.split("[/:#]", self.url)[-1]


class Source(Spec):
    """Where the examples come from and how they are read."""

    title: str
    features: dict[Name, Feature]
    """Every feature of an example as `read` gives it."""
    read: Read
    """Folder of raw files → batches of examples for each split (`train` and `test`), always in the same order."""
    files: tuple[File, ...] = ()
    tfds: str | None = None
    """A TensorFlow Datasets builder instead of files: `mnist`, `mnist:3.0.1`, `glue/sst2`. It is prepared by TFDS
    itself in the raw folder."""
    make: Twin | None = None
    """Folder and seed → the raw files themselves, instead of `files`, where the data are made by definition: points
    that are drawn, games that are played."""
    twin: Twin | None = None
    """Folder and seed → raw files of the same format with made-up, learnable contents; default: `make`."""
    own: Read | None = None
    """How data of the user's own are read where the common ways don't fit: file or folder → batches for each split."""
    words: Callable[[Path], Any] | None = None
    """Folder of raw files → the words that the numbers of `tokens` features stand for, for people to read."""
    quarantine: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each split's examples that may be unusable (a missing value, an image that isn't one): they are left out
    and listed with their reasons. More stop the run."""
    examples: dict[str, Annotated[int, Field(gt=0)]] = {}
    """How many examples the whole data set has in each split, where that is known: fewer are told to be a sample, by
    which no promise is judged."""
    stands_for: Name | None = None
    """Another source of the workload that has the same examples: promises made for that one hold for this one, too."""
    licence: str = ""
    homepage: str = ""
    note: str = ""
    """What a person must know before using a model trained on these data."""

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if bool(self.files) + bool(self.tfds) + bool(self.make) > 1:
            raise ValueError("a source has files, a builder of TensorFlow Datasets, or is made: only one of them")
        return self

    @property
    def stand_in(self) -> Twin | None:
        """What makes data up: the twin, or what makes the data anyway."""
        return self.twin or self.make

    def named(self, role: str) -> dict[str, Feature]:
        """The features that have this role, in their order."""
        return {name: feature for name, feature in self.features.items() if feature.role == role}


class Records(Spec):
    """How records are kept. But for roles and JPEG, what is said here changes speed and size, never what is read."""

    roles: dict[Name, Literal["input", "target", "weight", "note"]] = {}
    """Roles of features that `preprocess` makes and no source declares (the next words of a text, say); default:
    input."""

    images: Literal["raw", "png", "jpeg"] = "raw"
    """How images and masks that `preprocess` gives as uint8 (height, width, channels) are stored: as they are, fastest
    to read; or as PNG (a fraction of the size) or JPEG (smaller yet, and no longer exact; masks stay PNG), decoded
    when they are read."""
    compression: Literal["none", "gzip"] = "none"
    """Gzip is for archives: it makes writing 3 to 27 times slower, and a new order for each epoch needs all examples in
    memory."""
    shard_bytes: Annotated[int, Field(ge=1_000)] = 100 * 2**20
    """A shard is closed when it holds this much: large enough to be read in one sweep, small enough to share out."""


class Windows(Spec):
    """Examples that are cut out of a series when records are read.

    A record is one row of the series, in the order of time; an example is a window of rows, and what is to be forecast
    a row some steps later. Inputs get the shape `(length, *shape of a row)`; weights and notes are those of one row.
    Chollet's five days of hours, and the temperature a day later: `Windows(length=120, every=6, ahead=24)`.
    """

    length: Annotated[int, Field(ge=1)]
    """Steps of a window."""
    every: Annotated[int, Field(ge=1)] = 1
    """Rows from one step to the next: 6 for hours, where a row is ten minutes."""
    ahead: Annotated[int, Field(ge=0)] = 0
    """Steps from the last one of a window to that of its target."""
    stride: Annotated[int, Field(ge=1)] = 1
    """Rows from where one window begins to where the next one does."""
    target: Literal["last", "each", "path"] = "last"
    """`last`: that of `ahead` steps after the last one. `each`: one for each step of the window, that of `ahead` steps
    later, of shape `(length, *shape of a row)`. `path`: those of all the steps from the window's end to `ahead`, of
    shape `(ahead, *shape of a row)`: how the error grows with the distance."""
    boundary: Literal["inside", "beyond"] = "inside"
    """`inside`: a window and its target lie in one split. `beyond`: as Chollet's listings cut them; a window lies in
    its split, its target may lie in the first rows of the split that follows in time. The last split loses so many
    windows as `timeseries_dataset_from_array(data[:-delay], data[delay:], …)` loses there."""

    @model_validator(mode="after")
    def _looks_ahead(self) -> Self:
        if self.target == "path" and not self.ahead:
            raise ValueError("a path of targets needs `ahead`, the steps that it has")
        return self

    @property
    def span(self) -> int:
        """Rows from the first step of a window to its last."""
        return (self.length - 1) * self.every

    @property
    def delay(self) -> int:
        """Rows from the first step of a window to its (last) target."""
        return self.span + self.ahead * self.every


Named = str | dict[str, Any]
"""Something of Keras or of the workload's `custom` by its name; with arguments: `{"name": "adam", "clipnorm": 1.0}`."""


def _call(value: Any) -> Any:
    """Refuse in one sentence what pydantic would refuse once for each type that it could be."""
    if not isinstance(value, str) and not (isinstance(value, dict) and isinstance(value.get("name"), str)):
        raise ValueError('expected a name, or a name and arguments as in {"name": "adam", "clipnorm": 1.0}')
    return value


def _loss(value: Any) -> Any:
    if value is not None and not isinstance(value, str | dict):
        raise ValueError("expected a name, a name and arguments, or a loss for each output by its name")
    return value


def _each_output(value: Any) -> Any:
    if not isinstance(value, dict | list | tuple):
        raise ValueError("expected a list of metrics, or one for each output by its name")
    return value


def _weights(value: Any) -> Any:
    if value is not None and value != "balanced" and not isinstance(value, dict):
        raise ValueError("expected `balanced`, or the weight of each class by its number")
    return value


Call = Annotated[Named, BeforeValidator(_call)]


class Watch(Spec):
    """A metric that is watched from epoch to epoch."""

    monitor: str = "val_loss"
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether smaller or larger is better; `auto` knows it of Keras' metrics by their names."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """What counts as an improvement must be larger."""

    @property
    def sign(self) -> int:
        """1 if smaller is better, -1 if larger is."""
        rising = re.search(r"(^|_)(acc|auc|precision|recall|f1|fbeta|iou|r2|reward)", self.monitor)
        return -1 if self.mode == "max" or (self.mode == "auto" and rising) else 1


class EarlyStopping(Watch):
    """Stop when a metric no longer improves (the rules of `keras.callbacks.EarlyStopping`)."""

    patience: Annotated[int, Field(ge=0)] = 10
    """Epochs without improvement before training stops."""
    start_from_epoch: Annotated[int, Field(ge=0)] = 0
    """Epochs at the beginning that are not watched."""
    restore_best_weights: bool = True


class ReduceLROnPlateau(Watch):
    """Lower the learning rate when a metric no longer improves (the rules of `keras.callbacks.ReduceLROnPlateau`)."""

    min_delta: Annotated[float, Field(ge=0)] = 1e-4
    patience: Annotated[int, Field(ge=0)] = 10
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    cooldown: Annotated[int, Field(ge=0)] = 0
    """Epochs after a reduction that are not watched."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0


class ModelCheckpoint(Watch):
    """Keep the weights of the best epoch beside the last (`keras.callbacks.ModelCheckpoint(save_best_only=True)`)."""

    use: Literal["best", "last"] = "best"
    """Which of them becomes `model.keras`, which is evaluated and exported; the other is kept as `last.keras` or
    `best.keras`."""


REFUSED = {
    "parameter_server": "Keras 3 does not support it: `fit` fails, and hand-written loops hang",
    "central_storage": "Keras 3 trains something else under it: a loss of 13.06 where all others give 11.51",
}
"""Strategies of `tf.distribute` that are not offered, and why."""


def _origin(given: object) -> object:
    """Refuse what names no place where weights could come from."""
    if not isinstance(given, str) or not _ORIGIN.fullmatch(given):
        raise ValueError(
            "expected random, imagenet, file:PATH, variant:NAME or registry:LINE@VERSION, the version being blessed, "
            "previous, an alias or a number"
        )
    return given


_ORIGIN = re.compile(r"random|imagenet|file:.+|variant:[a-z][a-z0-9_]*|registry:[^@]+@([a-z][a-z0-9_-]*|[0-9]+)")


class Train(Spec):
    """How a model is trained. Batch sizes are global: several replicas share one."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    drop_remainder: bool = False
    """Leave a smaller last batch of an epoch out."""
    optimizer: Call = "rmsprop"
    """A Keras optimizer: `adam`, or with arguments (`clipnorm`, `weight_decay`, `gradient_accumulation_steps`, …)."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Default: the optimizer's own."""
    schedule: Call | None = None
    """One of Keras' schedules of the learning rate: `{"name": "exponential_decay", "decay_steps": 100, …}`. It begins
    with `learning_rate`, unless its arguments say otherwise."""
    loss: Annotated[Named | None, BeforeValidator(_loss)] = "mse"
    """A Keras loss, or one for each output: `{"priority": "mse", "department": "categorical_crossentropy"}`; none for a
    model that knows its own."""
    loss_weights: dict[str, float] = {}
    """How much the loss of each output counts; default: 1."""
    metrics: Annotated[tuple[Call, ...] | dict[str, tuple[Call, ...]], BeforeValidator(_each_output)] = ()
    """Keras metrics, or those of each output."""
    class_weight: Annotated[
        Literal["balanced"] | dict[int, Annotated[float, Field(ge=0)]] | None, BeforeValidator(_weights)
    ] = None
    """How much the examples of each class count in the loss; `balanced`: all classes the same in sum."""
    shuffle: bool = True
    """Draw a new order of the examples for each epoch, a pure function of seed and epoch."""
    weights: dict[str, Annotated[str, BeforeValidator(_origin)]] = {}
    """Path of a layer (`vgg16`, `encoder/block_1`; empty for the whole model) → where its weights come from that are
    not drawn: `imagenet` for one of `headrace.engine.backbones`; `variant:NAME` for what that variant of the workload
    has trained; `registry:LINE@blessed` (`previous`, an alias, a number); `file:PATH`, of a model or of weights. Of a
    model, the layer of the same path is taken."""
    frozen: tuple[str, ...] = ()
    """Layers that are not trained, with all within them, by patterns of their paths: `vgg16`, `vgg16/block[12]_*`.
    Batch normalisation among them keeps its means and variances."""
    unfrozen: tuple[str, ...] = ()
    """Exceptions from `frozen`, by patterns: `vgg16/block5_*`. Batch normalisation stays frozen in any case."""
    validation_split: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training split, its last examples, that is held out and watched."""
    validation: Name | None = None
    """Name of a split of the source that is watched instead (`validation`)."""
    early_stopping: EarlyStopping | None = None
    reduce_lr: ReduceLROnPlateau | None = None
    checkpoint: ModelCheckpoint | None = None
    on_divergence: Literal["stop", "lower_rate"] = "stop"
    """When the loss is no longer a finite number: stop, or go back to the last good state and on at a tenth of the
    learning rate, three times at most."""
    time_budget: Annotated[float, Field(gt=0)] | None = None
    """Seconds of training after which it ends with what it has by then."""
    sample_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two calls of the workload's `sample`."""
    feed: Literal["auto", "memory", "stream"] = "auto"
    """Where batches come from: arrays in memory, or records read while training goes on; `auto`: memory where they fit.
    Both give the same batches."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Keras' dtype policy: what layers compute in while they are trained. Weights are float32 in any case, and what is
    saved computes in float32."""
    seeds: Literal["off", "seeded", "strict"] = "seeded"
    """`strict` also forbids every operation whose result may differ between runs on the same machine; `off` draws a new
    seed for each training."""
    strategy: Literal["auto", "default", "one_device", "mirrored", "multi_worker", "tpu"] = "auto"
    """How `tf.distribute` spreads the work; `auto` takes a TPU, or mirrors over several accelerators, if there are any,
    and joins the other workers where TF_CONFIG names them."""
    steps_per_execution: Annotated[int, Field(ge=1)] | None = None
    """Most steps between two looks of Python at the training; default: about a second's worth."""
    jit_compile: bool = False
    """Compile the epoch with XLA: faster for tiny dense networks and LSTMs, slower for convolutions on a CPU. Left out
    with several replicas and with batch normalisation. Layers of your own must treat each row by itself."""

    @model_validator(mode="before")
    @classmethod
    def _takes_no_strategy_that_fails(cls, data: Any) -> Any:
        name = data.get("strategy") if isinstance(data, dict) else None
        if name in REFUSED:
            raise ValueError(f"strategy: {name}: {REFUSED[name]}; take mirrored or multi_worker")
        return data

    @property
    def base(self) -> str | None:
        """The variant whose trained weights this training begins with, if there is one."""
        names = [source.partition(":")[2] for source in self.weights.values() if source.startswith("variant:")]
        return names[0] if names else None

    @model_validator(mode="after")
    def _begins_with_one_variant(self) -> Self:
        named = sorted({source for source in self.weights.values() if source.startswith("variant:")})
        if len(named) > 1:
            raise ValueError(f"weights can come from one other variant, not from {' and '.join(named)}")
        if self.unfrozen and not self.frozen:
            raise ValueError("unfrozen names exceptions from frozen, and nothing is frozen")
        return self

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        watches = {"early_stopping": self.early_stopping, "reduce_lr": self.reduce_lr, "checkpoint": self.checkpoint}
        blind = [name for name, watch in watches.items() if watch and watch.monitor.startswith("val_")]
        if blind and not (self.validation_split or self.validation):
            watch = watches[blind[0]]
            raise ValueError(
                f"{blind[0]} watches `{watch.monitor if watch else ''}`, but nothing is held out: set validation_split "
                "above 0, or validation to the name of a split"
            )
        if self.validation_split and self.validation:
            raise ValueError("set validation_split or validation, not both")
        if self.schedule and (self.reduce_lr or self.on_divergence == "lower_rate"):
            raise ValueError("the rate of a schedule can't be lowered by reduce_lr or on_divergence as well")
        return self


class CrossValidation(Spec):
    """K-fold cross-validation on the training split (Chollet 4.3.4 and 5.2)."""

    folds: Annotated[int, Field(ge=2, le=100)] = 4
    metric: str = "val_mae"
    """The metric whose averaged curve is drawn, reported and smoothed."""
    mode: Literal["min", "max"] = "min"
    choose_epochs: bool = True
    """Train the final model for as many epochs as the averaged, smoothed curve says; else for `train.epochs`."""
    shuffle: bool = False
    """Cut the folds from the examples in a drawn order, a function of seed and repeat; else consecutive blocks."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """How often to draw the folds anew and train all of them: the score is the mean over all the models."""

    @model_validator(mode="after")
    def _repeats_differ(self) -> Self:
        if self.repeats > 1 and not self.shuffle:
            raise ValueError("repeated folds are all the same unless they are drawn: set shuffle")
        return self


Overrides = dict[str, Any]
"""Dotted path of a setting → value, as after `--set`: `{"train.epochs": 8, "model.units": 16}`."""

CellName = Annotated[str, Field(pattern=r"^[^/\n]{1,80}$")]


class Grid(Spec):
    """Several configurations of a workload, each a cell: variants, all combinations of some settings, or a list."""

    description: str = ""
    variant: Name | None = None
    """What the cells of `axes` and `cells` start from; default: the workload's first variant."""
    source: Name | None = None
    """The source of all cells, where none is asked for; default: that of each cell's variant."""
    settings: Overrides = {}
    """What all cells have in common."""
    variants: tuple[Name, ...] = ()
    """Variants that are cells as they are."""
    axes: dict[str, tuple[Any, ...]] = {}
    """Dotted path of a setting → its values; every combination is a cell."""
    cells: dict[CellName, Overrides] = {}
    """Name → settings, where the combinations of axes would be too many or too few."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """How often each cell is trained, each time with the next seed."""


class Finding(Spec):
    """What a study is expected to find: bounds on the value of a cell, or that a cell is better than another."""

    cell: CellName | None = None
    """Default: the best cell."""
    at_least: float | None = None
    at_most: float | None = None
    beats: CellName | None = None
    """A cell that has a worse value, on average over the seeds."""
    by: Annotated[float, Field(ge=0)] = 0.0
    """By how much of the metric at least; 0: by anything."""
    book: float | None = None
    source: str = ""
    """Where the figure, or the claim, stands."""

    @model_validator(mode="after")
    def _claims_something(self) -> Self:
        if self.at_least is None and self.at_most is None and self.beats is None:
            raise ValueError("a finding needs a bound or another cell: at_least, at_most, beats")
        if self.beats is not None and self.cell is None:
            raise ValueError("a finding with `beats` needs the cell that is better")
        return self


class Study(Grid):
    """Cells to be compared, trained alike and ranked by one metric."""

    on: Literal["test", "validation", "cross_validation"] = "test"
    """Where the metric is measured. `test`: as `evaluate` does, a table of results rather than a way to choose.
    `validation`: on what `train.validation_split` holds out. `cross_validation`: its mean."""
    at: Literal["best", "last", "since_best"] = "best"
    """What of a curve counts `on` validation: its best epoch, its last one, or how much worse the last one is than the
    best, which tells how far a network has overfitted by then."""
    metric: str | None = None
    """Default: the task's own, `val_loss`, or that of the cross-validation."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether smaller or larger is better; `auto` knows it of the task's metrics, and of Keras' by their names."""
    findings: tuple[Finding, ...] = ()

    @model_validator(mode="after")
    def _compares_something(self) -> Self:
        if not (self.variants or self.axes or self.cells):
            raise ValueError("a study needs something to compare: variants, axes or cells")
        if self.at != "best" and self.on != "validation":
            raise ValueError(f"only a study on validation knows of epochs, not one on {self.on}")
        return self


class Choice(Spec):
    """One of these values."""

    values: Annotated[tuple[bool | int | float | str, ...], Field(min_length=1)]
    ordered: bool | None = None
    """Whether values that stand side by side are alike; default: for numbers."""


class Int(Spec):
    """A whole number from low to high, both included."""

    low: int
    high: int
    step: Annotated[int, Field(ge=1)] | None = None
    """With logarithmic sampling the factor between neighbours."""
    sampling: Literal["linear", "log"] = "linear"


class Float(Spec):
    """A number from low to high."""

    low: float
    high: float
    step: Annotated[float, Field(gt=0)] | None = None
    """With logarithmic sampling the factor between neighbours."""
    sampling: Literal["linear", "log"] = "linear"


class Tuning(Spec):
    """A search for settings by KerasTuner, judged on held-out training examples; the test split is seen at the end.

    Then, as Chollet 13.1.1 does it: the best settings are trained again to find their best epoch, then on all training
    examples for a little longer, and tested, one by one and averaged.
    """

    description: str = ""
    variant: Name | None = None
    """What every trial starts from; default: the workload's first variant."""
    settings: Overrides = {}
    """What all trials have in common: `train.validation_split`, `train.early_stopping`, …"""
    space: Annotated[dict[str, Choice | Int | Float], Field(min_length=1)]
    """Dotted path of a setting → the values it may take."""
    tuner: Literal["random", "grid", "bayesian", "hyperband"] = "random"
    """`bayesian` needs scikit-learn. `hyperband` takes `train.epochs` for the longest training."""
    objective: str = "val_loss"
    """A metric of the history, taken in its best epoch."""
    mode: Literal["auto", "min", "max"] = "auto"
    max_trials: Annotated[int, Field(ge=1)] | None = None
    """Default: 10; the whole space for `grid`, what its brackets hold for `hyperband`."""
    executions: Annotated[int, Field(ge=1, le=100)] = 1
    """Trainings of one trial, each with the next seed; the objective is their mean."""
    top: Annotated[int, Field(ge=1, le=100)] = 1
    """How many of the best settings are trained to the end."""
    patience: Annotated[int, Field(ge=1)] = 10
    """Epochs without a better `val_loss` that end the search for the best epoch."""
    stretch: Annotated[float, Field(ge=1)] = 1.2
    """Epochs on all training examples, as a multiple of the best epoch."""


class Ensemble(Grid):
    """The average of what several models answer; its members are the cells, with each of the seeds."""

    weights: Literal["equal", "searched"] = "equal"
    """`searched`: those that are best on the held-out training examples, which needs a `train.validation_split`."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """Answers are raised to this power before they are averaged: above 1 confident members count more."""
    metric: str | None = None
    """A metric of the task, by which weights are searched; default: the task's own."""


TaskName = Literal[
    "regression",
    "binary",
    "multiclass",
    "multilabel",
    "segmentation",
    "forecasting",
    "sequence",
    "language_model",
    "own",
]
"""What a model answers. `regression`: numbers. `binary`: the score of one class against another. `multiclass`: one of
several classes. `multilabel`: any of several. `segmentation`: the class of each pixel. `forecasting`: numbers of later
moments. `sequence`: a sequence for a sequence, such as a translation. `language_model`: what comes next in a text.
`own`: nothing that is right or wrong example by example; the workload's `measure` says how good it is."""

Tasks = TaskName | dict[Name, TaskName]


def task_in_words(tasks: Tasks) -> str:
    """What a model is for, for people: "regression", "regression and multiclass"."""
    names = [tasks] if isinstance(tasks, str) else dict.fromkeys(tasks.values())
    return " and ".join(name.replace("_", " ") for name in names)


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


class Evaluate(Spec):
    """How the test split is looked at, where the task leaves a choice."""

    threshold: float = 0.5
    """The score from which on `binary` answers class 1, and `multilabel` a label."""
    slices: tuple[str, ...] | None = None
    """By what test examples are told apart: names of columns and features, `length of review` for a feature of texts,
    `class` (with several targets `class of kind`). Default: all that lend themselves to it."""
    small_slice: Annotated[int, Field(ge=1)] = 50
    """Fewer examples than this tell nothing reliable of a slice: it is shown, and not judged."""
    slice_gap: Annotated[float, Field(ge=0)] | None = None
    """By how much the deciding metric may be worse on a slice than on all test examples; default: slices are shown, and
    not judged."""
    beat: Literal["naive", "plain"] = "naive"
    """What a model must clearly beat: answers that need no model, or the plain learners of scikit-learn as well."""
    padding: int | None = 0
    """The token that fills up the targets of a `language_model` or a `sequence`, and is not to be guessed; none where
    every number is a token. The single next token of a text is never padding."""
    block: Annotated[int, Field(ge=1)] | None = None
    """Neighbouring examples of a `forecasting` that are drawn together for intervals, since their windows overlap: as
    many as it takes for errors to be independent. Default: the cube root of their number. Of a `language_model` the
    windows of one text; default: each example is a text of its own."""
    network: Name | None = None
    """Whose features images that are made are compared by: `drawn`, or one of `headrace.engine.backbones`. Default:
    what the workload's `measure` takes."""
    trials: Annotated[int, Field(ge=1)] | None = None
    """Most sentences that are decoded for BLEU (default: 1,000, spread over the split); and what the workload's
    `measure` is asked for, of episodes or images (default: its own number)."""


Format = Literal["saved_model", "tflite", "tflite_dynamic", "tflite_float16", "tflite_int8", "onnx"]
"""What a model can be exported as, beside `.keras`."""


class Export(Spec):
    """What leaves the training environment, and how closely it must agree with the Keras model."""

    formats: tuple[Format, ...] = ("saved_model", "tflite")
    """A SavedModel is made in any case. `tflite_dynamic` and `tflite_float16` store weights by 8 and 16 bits,
    `tflite_int8` computes by 8 bits too; `onnx` needs headrace[onnx]."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Largest difference from the Keras model, relative to the largest output, of formats that are not quantised."""
    max_metric_loss: Annotated[float, Field(ge=0)] = 0.02
    """How much worse a quantised format may be by the metric that decides, as a share of the Keras model's own."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Share of its decisions (the likeliest class, yes or no) that must be the Keras model's."""
    examples: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Test examples on which every format is compared."""
    representative: Annotated[int, Field(ge=1, le=10_000)] = 128
    """Training examples by which `tflite_int8` finds the range of each tensor."""
    prune: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of each kernel's weights, the smallest, that is set to 0 before a format is quantised."""
    cluster: Annotated[int, Field(ge=2, le=4096)] | None = None
    """Different weights that are left in each kernel before a format is quantised."""

    @model_validator(mode="after")
    def _compresses_something(self) -> Self:
        if (self.prune or self.cluster) and not any(name.startswith("tflite_") for name in self.formats):
            raise ValueError(
                "`prune` and `cluster` act on quantised formats: ask for tflite_dynamic, tflite_float16 or tflite_int8"
            )
        return self


class Waiver(Spec):
    """A person's word that a model may be published although a gate fails. The figures stay as they are."""

    by: str = ""
    """Who answers for it."""
    reason: str = ""

    @model_validator(mode="after")
    def _is_signed(self) -> Self:
        lacking = [what for what, text in (("name (by)", self.by), ("reason", self.reason)) if not text.strip()]
        if lacking:
            raise ValueError(f"a waiver needs a name and a reason; it has no {' and no '.join(lacking)}")
        return self


class Waivers(Spec):
    """Gates that may fail this time, each by a waiver. Parity is none of them: where it fails, what would be served is
    not the model that was measured, and no figure that a person could accept is known of it."""

    promise: Waiver | None = None
    baseline: Waiver | None = None
    blessed: Waiver | None = None
    slices: Waiver | None = None


GateName = Literal["promise", "baseline", "blessed", "slices", "parity"]
"""`promise`: the bounds of `promises`. `baseline`: better than naive answers. `blessed`: not worse than the version in
use. `slices`: no part of the data for which the model is much worse. `parity`: every exported format answers as the
Keras model does."""


class Publish(Spec):
    """What a model has to pass to be published, and what follows if it does not (see docs/registry.md)."""

    require: tuple[GateName, ...] = ()
    """Gates that have to pass: one that can't be judged (no promise, nothing blessed yet) fails. Default: it does not
    count."""
    bless: bool = True
    """Serve a version at once that passes; else a person does so: `headrace registry bless LINE VERSION`."""
    waivers: Waivers = Waivers()
    """Gates that may fail this time: `--waive promise --by NAME --reason TEXT`."""
    on_fail: Literal["fail", "go on"] = "fail"
    """What a verdict of *fail* makes of a run. `fail`: exit code 1, Prefect's state *Rejected*. `go on`: a run that is
    completed, with nothing published."""
    on_not_judged: Literal["fail", "go on"] = "go on"
    """The same of a verdict of *not judged*."""


class Monitor(Spec):
    """When new data count as drifted."""

    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of undrifted files that may be called drifted, over all columns together."""
    buckets: Annotated[int, Field(ge=2, le=100)] = 10
    """Quantile buckets into which each numeric column is cut."""


class Deploy(Spec):
    """How Prefect runs a workload by itself (see `headrace sync`)."""

    retrain: Literal["nightly", "weekly"] | None = "weekly"
    """How often it is trained anew; what has not changed is not done again. Each workload has a time of its own."""
    variant: Name | None = None
    """The variant that is trained; default: the workload's first."""
    data: Literal["real", "auto"] = "real"
    """`auto`: the twin where the real data can't be had."""
    smoke: Name | None = None
    """The variant by which deployment `smoke` tries every stage on made-up data; default: the same."""


class Functions(Spec):
    """The code of a workload: what the engine calls. A variant may bring its own in place of the pipeline's."""

    preprocess: Callable[..., Any] | None = None
    """Statistics of the training split (what `learn` gave, and the variant's `preprocess` arguments) → function from a
    batch of features to a batch of records. It must treat each example by itself, and run as TensorFlow's graph: it
    serves as well."""
    learn: Callable[..., Any] | None = None
    """What statistics can't tell, such as a vocabulary: batches of the training split (to be gone through any number of
    times) and its statistics → arrays by name, which `preprocess` gets as its second argument. An argument called `raw`
    is given the folder of raw files, for what is no example: vectors of words that others have learned."""
    model: Callable[..., Any] | None = None
    """Features of the records (and the variant's `model` arguments) → Keras model, not compiled, but every part of it
    built. A `train_step` of its own is used as it is. An argument called `learned` is given what `learn` gave."""
    compile: Callable[..., None] | None = None
    """Model and `Train` → nothing: compiles a model that has several optimizers or losses of its own. Default: by what
    `Train` says."""
    loop: Callable[..., Any] | None = None
    """`headrace.engine.loops.Start` (and the variant's `loop` arguments) → `headrace.engine.loops.Loop`: training by
    hand, for what no Keras model does by itself."""
    keep: Callable[..., Mapping[str, Any]] | None = None
    """Trained model → the Keras models to be saved: `model` (evaluated and exported) and others by their names.
    Default: the model itself."""
    sample: Callable[..., Mapping[str, Any]] | None = None
    """Model and `headrace.engine.journals.Moment` → images (height, width, channels) and texts by name, after each
    epoch."""
    naive: Callable[..., Mapping[str, Any]] | None = None
    """Statistics of the training split (and what `learn` gave) → answers that need no model, beside the task's own:
    name → function from the inputs of some examples (as records hold them) and their number to an answer for each, in
    the target's own unit. With several targets: name of a target → that."""
    decode: Callable[..., Any] | None = None
    """`headrace.measuring.own.Trial` → `headrace.measuring.sequences.Sentences`: how the examples of a `sequence` are
    turned into sentences, which BLEU compares."""
    serve: Callable[..., Mapping[str, Any]] | None = None
    """`headrace.bundling.signatures.Given` → `headrace.bundling.signatures.Signature`s by name: what is served where it
    isn't what was trained. `serving_default` takes the place of the model's own answer."""
    measure: Callable[..., Any] | None = None
    """`headrace.measuring.own.Trial` → `headrace.measuring.own.Own`: metrics of the workload's own, for what is not
    answered example by example: images that are generated, games that are played."""


class Variant(Spec):
    """One configuration of a workload. Every field can be overridden: `--set train.epochs=8`."""

    description: str = ""
    train: Train
    source: Name | None = None
    """The source of its examples, where none is asked for; default: the workload's first."""
    task: Tasks | None = None
    """Default: the workload's."""
    line: Name | None = None
    """Name of a line of the registry for its models alone, where comparing them with those of other variants makes no
    sense; default: the workload's line."""
    functions: Annotated[Functions, Field(exclude=True)] = Functions()
    """What it does by other code than the workload's; not to be set from outside."""
    windows: Windows | None = None
    """The examples are windows of a series, whose rows `read` gives in the order of time, split after split.
    `preprocess` sees rows."""
    preprocess: dict[str, Any] = {}
    """Arguments of the workload's `preprocess` and `learn` functions."""
    model: dict[str, Any] = {}
    """Arguments of the workload's `model` function."""
    loop: dict[str, Any] = {}
    """Arguments of the workload's `loop` function."""
    smoke: Annotated[dict[str, Any], Field(exclude=True)] = {}
    """Overrides of its own in a smoke run, beside the workload's: a small network in place of one to be downloaded."""
    cross_validation: CrossValidation | None = None
    promises: tuple[Promise, ...] = ()
    evaluate: Evaluate = Evaluate()
    export: Export = Export()
    publish: Publish = Publish()
    monitor: Monitor = Monitor()


class Pipeline(Functions):
    """A workload, whole: the one object that a file in `pipelines/` defines."""

    name: Name
    title: str
    task: Tasks
    """What the model is for, by which it is measured; for several targets that of each, by its name."""
    book: str
    """Book and section that the workload comes from."""
    expect: str
    """What to expect of a full run: metric, time, machine."""
    sources: dict[Name, Source]
    """The first one is the default."""
    records: Records = Records()
    custom: dict[str, Any] | Callable[[], Mapping[str, Any]] = {}
    """Losses, metrics, optimizers, layers and models of the workload's own by the names that `Train` and saved models
    call them; or a function that gives them, where they need Keras, which no workload's file imports at its top."""
    variants: dict[Name, Variant]
    """The first one is the default."""
    studies: dict[Name, Study] = {}
    """Configurations to be compared, for `headrace study`."""
    tunings: dict[Name, Tuning] = {}
    """Spaces of settings to be searched, for `headrace tune`."""
    ensembles: dict[Name, Ensemble] = {}
    """Models to be averaged, for `headrace ensemble`."""
    smoke: dict[str, Any] = {}
    """Overrides that make any variant run in seconds: `{"train.epochs": 20}`."""
    deploy: Deploy = Deploy()
    """When Prefect runs it."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.sources:
            raise ValueError("a pipeline needs at least one source")
        if not self.variants:
            raise ValueError("a pipeline needs at least one variant")
        for name, variant in self.variants.items():
            if variant.source is not None and variant.source not in self.sources:
                known = nearest(variant.source, self.sources)
                raise ValueError(f"variant {name}: there is no source `{variant.source}`: {known}")
            for function in ("preprocess", "model"):
                if not (getattr(variant.functions, function) or getattr(self, function)):
                    raise ValueError(f"variant {name} has no `{function}`, neither of its own nor the pipeline's")
        for setting in ("variant", "smoke"):
            name = getattr(self.deploy, setting)
            if name is not None and name not in self.variants:
                raise ValueError(f"deploy.{setting}: there is no variant `{name}`: {nearest(name, self.variants)}")
        return self

    @property
    def objects(self) -> dict[str, Any]:
        """What is the workload's own, by name (see `custom`)."""
        return dict(self.custom() if callable(self.custom) else self.custom)

    @property
    def code_of_objects(self) -> list[Callable[..., Any]]:
        """Where the code of what is the workload's own stands."""
        return [self.custom] if callable(self.custom) else list(self.custom.values())

    def function(self, name: str, variant: str) -> Callable[..., Any] | None:
        """The function of this name that a variant uses: its own, or the pipeline's; None if there is neither."""
        found: Callable[..., Any] | None = getattr(self.variants[variant].functions, name) or getattr(self, name)
        return found

    @property
    def default_source(self) -> str:
        """Name of the source that is used when none is asked for."""
        return next(iter(self.sources))

    def source_of(self, variant: str) -> str:
        """Name of the source that a variant takes when none is asked for."""
        return self.variants[variant].source or self.default_source

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
