"""What is compared, searched and averaged."""

from __future__ import annotations

from typing import Any

from headrace import Choice, Ensemble, Finding, Study, Tuning

BOOK, GRIDS = "Chollet, section {}", "Atienza, table {}"


def dense(optimizer: str, units: list[int], **arguments: Any) -> dict[str, Any]:
    """A row of the table of dense networks: hidden layers, and what is done against overfitting."""
    return {
        "train.optimizer": optimizer,
        "model.units": units,
        **{f"model.{name}": value for name, value in ({"dropout": 0.0} | arguments).items()},
    }


TWO = [256, 256]

MLP_GRID = {
    "sgd linear": dense("sgd", TWO, activation="linear"),
    "sgd l2 0.001": dense("sgd", TWO, l2=0.001),
    "sgd l2 0.01": dense("sgd", TWO, l2=0.01),
    "sgd": dense("sgd", TWO),
    "sgd dropout 0.4": dense("sgd", TWO, dropout=0.4),
    "sgd dropout 0.45": dense("sgd", TWO, dropout=0.45),
    "sgd dropout 0.5": dense("sgd", TWO, dropout=0.5),
    "sgd dropout 0.6": dense("sgd", TWO, dropout=0.6),
    "sgd 256-512-256 dropout 0.45": dense("sgd", [256, 512, 256], dropout=0.45),
    "sgd 512 dropout 0.2": dense("sgd", [512, 512], dropout=0.2),
    "sgd 512 dropout 0.4": dense("sgd", [512, 512], dropout=0.4),
    "sgd 512-1024-512 dropout 0.45": dense("sgd", [512, 1024, 512], dropout=0.45),
    "sgd 1024 dropout 0.4": dense("sgd", [1024, 1024], dropout=0.4),
    "adam dropout 0.6": dense("adam", TWO, dropout=0.6),
    "adam dropout 0.55": dense("adam", TWO, dropout=0.55),
    "adam dropout 0.45": dense("adam", TWO, dropout=0.45),
    "rmsprop dropout 0.45": dense("rmsprop", TWO, dropout=0.45),
    "adam 128 dropout 0.45": dense("adam", [128, 128], dropout=0.45),
}
"""The 18 rows of the book's table. It calls a row 256-256-256 whose listing has two hidden layers (269,322 parameters);
where the number in the middle is another one, three layers are taken at their word."""

STUDIES = {
    "noise": Study(
        description="What 784 columns of noise cost, against 784 zeros",
        variants=("noise", "zeros"),
        on="validation",
        metric="val_accuracy",
        seeds=5,
        findings=(Finding(cell="zeros", beats="noise", source=BOOK.format("5.1.1")),),
    ),
    "learning_rate": Study(
        description="A learning rate of 1, and a reasonable one",
        variants=("lr_1", "lr_001"),
        on="validation",
        metric="val_accuracy",
        seeds=5,
        findings=(
            Finding(cell="lr_1", at_most=0.6, book=0.4, source=BOOK.format("5.3.1")),
            Finding(cell="lr_001", beats="lr_1", source=BOOK.format("5.3.1")),
        ),
    ),
    "capacity": Study(
        description="A network too small for the task, and one that can overfit",
        variants=("logistic", "mlp_96"),
        on="validation",
        metric="val_loss",
        seeds=5,
        findings=(
            Finding(cell="logistic", at_least=0.24, at_most=0.30, book=0.26, source=BOOK.format("5.3.3")),
            Finding(cell="mlp_96", beats="logistic", source=BOOK.format("5.3.3")),
        ),
    ),
    "mlp_grid": Study(
        description="Dense networks by optimizer, width and regularisation, 20 epochs each",
        variant="mlp_256",
        cells=MLP_GRID,
        findings=(
            Finding(at_least=0.982, book=0.985, source=GRIDS.format("3.1")),
            Finding(cell="sgd", beats="sgd linear", book=0.98, source=GRIDS.format("3.1")),
        ),
    ),
    "cnn_grid": Study(
        description="Three convolutions of 64 filters by optimizer and dropout; 10 epochs, which the book leaves open",
        variant="cnn_64",
        cells={
            "sgd dropout 0.2": {"train.optimizer": "sgd", "model.dropout": 0.2},
            "rmsprop dropout 0.2": {"train.optimizer": "rmsprop", "model.dropout": 0.2},
            "adam dropout 0.2": {"train.optimizer": "adam", "model.dropout": 0.2},
            "adam dropout 0.4": {"train.optimizer": "adam", "model.dropout": 0.4},
        },
        findings=(Finding(at_least=0.991, book=0.994, source=GRIDS.format("3.2")),),
    ),
    "rnn_grid": Study(
        description=(
            "256 simple recurrent units by optimizer, and the layers that the book names in their place. Its table "
            "holds the row of SGD twice, with 0.980 and 0.983: two seeds of one cell"
        ),
        variant="rnn",
        cells={
            "sgd": {"train.optimizer": "sgd"},
            "rmsprop": {"train.optimizer": "rmsprop"},
            "adam": {"train.optimizer": "adam"},
            "lstm": {"model.cell": "lstm", "train.optimizer": "adam"},
            "gru": {"model.cell": "gru", "train.optimizer": "adam"},
            "bidirectional": {"model.bidirectional": True, "train.optimizer": "adam"},
        },
        findings=(Finding(at_least=0.97, book=0.983, source=GRIDS.format("3.3")),),
    ),
}

TUNINGS = {
    "width": Tuning(
        description="Width and optimizer, judged on the last 10,000 training examples",
        variant="mlp",
        settings={
            "train.epochs": 100,
            "train.validation_split": 1 / 6,
            "train.early_stopping": {"monitor": "val_loss", "patience": 5},
            # That of `mlp` is made for 512 units.
            "promises": [],
        },
        space={
            "model.units": Choice(values=(16, 32, 48, 64)),
            "train.optimizer": Choice(values=("rmsprop", "adam")),
        },
        tuner="grid",
        objective="val_accuracy",
        top=4,
    ),
}

FAMILIES: dict[str, Any] = {
    "variants": ("convnet", "rnn", "mlp_256", "logistic"),
    "settings": {"train.validation_split": 1 / 6},
}
"""Networks that see an image each in its own way: their errors are not the same."""

ENSEMBLES = {
    "equal": Ensemble(description="Four kinds of networks, each with a weight of 0.25", weights="equal", **FAMILIES),
    "searched": Ensemble(
        description="Four kinds of networks, with weights that are best on held-out examples",
        weights="searched",
        **FAMILIES,
    ),
}
