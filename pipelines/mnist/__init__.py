"""Handwritten digits: dense, convolutional and recurrent networks, and what can go wrong with them.

Book:    Chollet, Deep Learning with Python (2nd ed.): 2.1 and 2.5 (`mlp`, `from_scratch`), 5.1 and 5.3 (`noise`,
         `zeros`, `random_labels`, `lr_1`, `lr_001`, `logistic`, `mlp_96`), 7.3 and 7.4 (`workflow_…`), 8.1 (`convnet`),
         13.1 (the tuning `width`, the ensembles). Atienza, Advanced Deep Learning with Keras, chapter 1 (`mlp_256`,
         `cnn_64`, `rnn` and the studies of them). The TensorFlow handbook, on building and training models
         (`mlp_50_…`, `mlp_subclassed`, `cnn_subclassed`).
Run:     headrace run mnist                             the dense network of chapter 2
         headrace run mnist --variant convnet           the convolutions of chapter 8
         headrace run mnist --source ./fashion.npz      other images of 28 × 28 in 10 classes: x_train, y_train, x_test,
                                                        y_test
         headrace study mnist mlp_grid                  18 dense networks, ranked
         headrace tune mnist width
         headrace ensemble mnist searched
Expect:  test accuracy 0.975 or more of `mlp` (the book: 0.9785) in a quarter of a minute on two CPU cores, 0.989 or
         more of `convnet` (0.991) in three minutes. Of the studies, `mlp_grid` takes half an hour, `rnn_grid` hours.
         The twin's digits are made of dots, and each can be told from the others: the best accuracy there is is 1.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace import Deploy, EarlyStopping, Functions, ModelCheckpoint, Pipeline, Promise, Train, Variant
from pipelines.mnist import models, training
from pipelines.mnist.sources import SOURCES
from pipelines.mnist.studies import ENSEMBLES, STUDIES, TUNINGS

if TYPE_CHECKING:
    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch

HELD = 1 / 6
"""10,000 of 60,000 examples, the last ones; chapter 7 holds out the first ones."""


def preprocess(statistics: Statistics) -> Callable[[Batch], Batch]:
    """Nothing: records keep images as they are, in one byte for each pixel, and every network scales them by itself."""
    return lambda batch: {**batch}


def trained(epochs: int, batch_size: int = 128, optimizer: str = "rmsprop", **others: Any) -> Train:
    """How a variant is trained, unless it says otherwise."""
    usual = {"loss": "sparse_categorical_crossentropy", "metrics": ("accuracy",)}
    return Train(**{"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer, **usual, **others})


def accuracy(source: str, book: float | None = None, **bounds: float) -> tuple[Promise, ...]:
    """A promise of test accuracy."""
    return (Promise(metric="accuracy", book=book, source=source, **bounds),)


CHAPTER_2 = {
    "mlp": Variant(
        description="A hidden layer of 512 units, 5 epochs",
        train=trained(5),
        promises=accuracy("section 2.1", book=0.9785, at_least=0.975),
    ),
    "from_scratch": Variant(
        description="The same network of layers, gradients and updates of our own, from kernels uniform from 0 to 0.1",
        functions=Functions(loop=training.from_scratch),
        train=trained(10, optimizer="sgd", learning_rate=1e-3, shuffle=False),
        promises=accuracy("section 2.5, which prints no figure", at_least=0.75),
    ),
}

CHAPTER_5 = {
    "noise": Variant(
        description="784 columns of noise beside the pixels: what is learned of them is wrong",
        source="noise",
        train=trained(10, validation_split=0.2),
    ),
    "zeros": Variant(
        description="784 zeros beside the pixels, to be compared with noise",
        source="zeros",
        train=trained(10, validation_split=0.2),
    ),
    "random_labels": Variant(
        description="Labels that mean nothing: learned by heart, and never right but by chance",
        source="random_labels",
        train=trained(100, validation_split=0.2),
        promises=accuracy("section 5.1.2, on held-out examples", book=0.10, at_least=0.05, at_most=0.15),
    ),
    "lr_1": Variant(
        description="A learning rate of 1: the updates overshoot, and training gets stuck",
        train=trained(10, learning_rate=1.0, validation_split=0.2),
        promises=accuracy("section 5.3.1: 30 to 40 % of held-out examples", book=0.4, at_most=0.6),
    ),
    "lr_001": Variant(
        description="A learning rate of 0.01, with which the same network learns",
        train=trained(10, learning_rate=0.01, validation_split=0.2),
    ),
    "logistic": Variant(
        description="No hidden layer: too small to overfit",
        model={"units": []},
        train=trained(20, validation_split=0.2),
    ),
    "mlp_96": Variant(
        description="Two hidden layers of 96 units, which overfit after some epochs",
        model={"units": [96, 96]},
        train=trained(20, validation_split=0.2),
    ),
}

CHAPTER_7 = {
    "workflow_fit": Variant(
        description="A hidden layer of 512 units with dropout, 10,000 examples held out",
        model={"dropout": 0.5},
        train=trained(3, 32, validation_split=HELD),
    ),
    "workflow_metric": Variant(
        description="With a metric of our own, the root of the mean squared error of the probabilities",
        model={"dropout": 0.5},
        train=trained(3, 32, validation_split=HELD, metrics=("accuracy", "rmse")),
    ),
    "workflow_callbacks": Variant(
        description=(
            "Stopped early by the accuracy on held-out examples, the epoch of the least loss kept. What the book's "
            "callback for losses and the one for TensorBoard write, every training writes: metrics.jsonl, logs/"
        ),
        model={"dropout": 0.5},
        train=trained(
            10,
            32,
            validation_split=HELD,
            early_stopping=EarlyStopping(monitor="val_accuracy", patience=2, restore_best_weights=False),
            checkpoint=ModelCheckpoint(monitor="val_loss"),
        ),
    ),
    "workflow_loop": Variant(
        description="A loop of our own around the model, each step compiled",
        model={"dropout": 0.5},
        functions=Functions(loop=training.by_hand),
        train=trained(3, 32),
    ),
    "workflow_step": Variant(
        description="A model with a step of its own, and a loss of its own in it",
        functions=Functions(model=models.mlp_own_step, keep=models.as_layers),
        train=trained(3, 32, loss=None, metrics=()),
    ),
    "workflow_compiled_step": Variant(
        description="A model with a step of its own that takes the loss and the metrics it was compiled with",
        functions=Functions(model=models.mlp_compiled_step, keep=models.as_layers),
        train=trained(3, 32),
    ),
}

CHAPTER_8 = {
    "convnet": Variant(
        description="Three convolutions with pooling between them",
        functions=Functions(model=models.convnet),
        train=trained(5, 64),
        promises=accuracy("section 8.1", book=0.991, at_least=0.989),
    ),
    "convnet_no_pooling": Variant(
        description="The same without pooling: a mistake, of seven times as many parameters",
        functions=Functions(model=models.convnet),
        model={"pooling": False},
        train=trained(5, 64),
    ),
}

HANDBOOK = {
    "mlp_subclassed": Variant(
        description="A hidden layer of 100 units as a class, trained on 6,000 batches of 50 that are drawn",
        functions=Functions(model=models.mlp_subclassed, loop=training.drawn, keep=models.as_layers),
        train=trained(5, 50, "adam"),
        promises=accuracy("on building and training models", book=0.9479, at_least=0.9479),
    ),
    "mlp_50_sequential": Variant(
        description="The same network as a list of layers, 5 epochs in batches of 50",
        functions=Functions(model=models.mlp_sequential),
        train=trained(5, 50, "adam"),
    ),
    "mlp_50_functional": Variant(
        description="The same network as a graph of layers, 5 epochs in batches of 50",
        functions=Functions(model=models.mlp_functional),
        train=trained(5, 50, "adam"),
    ),
    "cnn_subclassed": Variant(
        description="Two convolutions of 5 × 5 as a class, trained on 6,000 batches of 50 that are drawn",
        functions=Functions(model=models.cnn_subclassed, loop=training.drawn, keep=models.as_layers),
        train=trained(5, 50, "adam"),
        promises=accuracy("on building and training models", book=0.9881, at_least=0.986),
    ),
}

ATIENZA = {
    "mlp_256": Variant(
        description="Two hidden layers of 256 units with dropout: the best row of the study `mlp_grid`",
        model={"units": [256, 256], "dropout": 0.45},
        train=trained(20, optimizer="adam"),
        promises=accuracy("Atienza, table 3.1", book=0.985, at_least=0.98),
    ),
    "cnn_64": Variant(
        description="Three convolutions of 64 filters with dropout: the best row of the study `cnn_grid`",
        functions=Functions(model=models.convnet),
        model={"filters": [64, 64, 64], "dropout": 0.2},
        train=trained(10, optimizer="adam"),
        promises=accuracy("Atienza, table 3.2", book=0.994, at_least=0.99),
    ),
    "rnn": Variant(
        description="256 simple recurrent units that read the rows of an image: the best row of the study `rnn_grid`",
        functions=Functions(model=models.rnn),
        train=trained(20, optimizer="sgd"),
        promises=accuracy("Atienza, table 3.3", book=0.983, at_least=0.97),
    ),
}


def apart(variants: dict[str, Variant]) -> dict[str, Variant]:
    """Each in a line of its own of the registry: a small network is not a worse version of a large one."""
    lines = {name: variant.model_copy(update={"line": name}) for name, variant in variants.items()}
    # The first one has that of the workload; models of other data have lines of their own anyway.
    return {name: one if name == "mlp" or one.source else lines[name] for name, one in variants.items()}


PIPELINE = Pipeline(
    name="mnist",
    title="Handwritten digits",
    task="multiclass",
    book="Chollet, Deep Learning with Python (2nd ed.), 2.1, 5.1, 5.3, 7.3, 7.4, 8.1 and 13.1; Atienza, chapter 1",
    expect="test accuracy 0.975 or more of `mlp`, 0.989 or more of `convnet`",
    sources=SOURCES,
    preprocess=preprocess,
    model=models.mlp,
    custom=training.own,
    variants=apart(CHAPTER_2 | CHAPTER_5 | CHAPTER_7 | CHAPTER_8 | HANDBOOK | ATIENZA),
    studies=STUDIES,
    tunings=TUNINGS,
    ensembles=ENSEMBLES,
    smoke={"train.epochs": 2, "train.batch_size": 32, "export.examples": 16},
    deploy=Deploy(variant="convnet", smoke="mlp"),
)
