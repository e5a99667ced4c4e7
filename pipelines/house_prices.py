"""Prices of houses: a small dense network, judged by 4-fold cross-validation because the examples are few.

Book:    Chollet, Deep Learning with Python (2nd ed.), section 4.3.
Run:     headrace run house_prices                          the final fit, without a server
         headrace run house_prices --variant kfold_500      the book's evaluation from the folds to the test
         python -m flows.house_prices                       as a Prefect flow
Expect:  a test MAE of 2.2 to 3.0 (thousands of dollars; the book: 2.464) in under half a minute on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import (
    Choice,
    Column,
    CrossValidation,
    Deploy,
    Ensemble,
    Feature,
    File,
    Pipeline,
    Promise,
    Source,
    Study,
    Train,
    Tuning,
    Variant,
)

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

    from headrace.describing.summaries import Statistics
    from headrace.records.inputs import Batch

KERAS_DATASETS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"

BOSTON_COLUMNS = (
    Column(name="CRIM", description="crime rate by town", unit="crimes per head"),
    Column(name="ZN", description="residential land zoned for lots over 25,000 square feet", unit="%"),
    Column(name="INDUS", description="land of non-retail business", unit="%"),
    Column(name="CHAS", description="1 if the tract bounds the Charles River, else 0"),
    Column(name="NOX", description="nitric oxides", unit="parts per 10 million"),
    Column(name="RM", description="rooms per dwelling, on average"),
    Column(name="AGE", description="owner-occupied homes built before 1940", unit="%"),
    Column(name="DIS", description="weighted distance to five employment centres"),
    Column(name="RAD", description="accessibility of radial highways", unit="index"),
    Column(name="TAX", description="property tax", unit="dollars per 10,000"),
    Column(name="PTRATIO", description="pupils per teacher by town"),
    Column(name="B", description="1000 (share of Black residents − 0.63)²; see the note on this source"),
    Column(name="LSTAT", description="residents of lower status, as the authors defined it", unit="%"),
)
CALIFORNIA_COLUMNS = (
    Column(name="longitude", unit="°"),
    Column(name="latitude", unit="°"),
    Column(name="housing_median_age", description="median age of the houses in the block group", unit="years"),
    Column(name="total_rooms", description="rooms in the block group"),
    Column(name="total_bedrooms", description="bedrooms in the block group"),
    Column(name="population", description="people in the block group"),
    Column(name="households", description="households in the block group"),
    Column(name="median_income", description="median income of the households", unit="10,000 dollars"),
)


def features(columns: tuple[Column, ...], target: str) -> dict[str, Feature]:
    """The inputs as one vector, and the price to be predicted, in thousands of dollars."""
    return {
        "features": Feature(shape=(len(columns),), columns=columns),
        "price": Feature(
            shape=(1,),
            role="target",
            columns=(Column(name=target, description="median price of owner-occupied homes", unit="1,000 dollars"),),
        ),
    }


def read_boston(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 506 tracts, 404 to train and 102 to test, as Keras splits them."""
    return read_archive(raw / "boston_housing.npz", dollars_per_unit=1_000)


def read_california(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 20,640 block groups, 16,512 to train and 4,128 to test, as Keras splits them."""
    return read_archive(raw / "california_housing.npz", dollars_per_unit=1)


def read_archive(path: Path, dollars_per_unit: int) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """Read arrays `x` (examples, features) and `y` (examples,) and split them 80 to 20.

    The order is that of `keras.datasets`: one shuffle by the legacy generator with seed 113.
    """
    import numpy as np

    from headrace.readers.arrays import read_arrays
    from headrace.readers.batches import batches

    arrays = read_arrays(path, {"x": 2, "y": 1})
    order = np.arange(len(arrays["x"]))
    np.random.RandomState(113).shuffle(order)
    examples = {
        "features": arrays["x"][order],
        "price": arrays["y"][order, None] * dollars_per_unit / 1_000,
    }
    cut = int(len(order) * (1 - 0.2))
    return {
        "train": batches({name: values[:cut] for name, values in examples.items()}),
        "test": batches({name: values[cut:] for name, values in examples.items()}),
    }


def twin_boston(raw: Path, seed: int) -> None:
    """Made-up tracts in the format of the Boston file.

    The price is a smooth, partly non-linear function of five columns plus noise with a standard deviation of 1.5, so
    that the best possible MAE is 1.5·√(2/π) ≈ 1.20 (thousands of dollars).
    """
    import numpy as np

    random = np.random.default_rng(seed)
    n = 506
    x = np.column_stack(
        [
            random.lognormal(-1.0, 1.8, n),
            random.choice([0.0, 0.0, 0.0, 12.5, 25.0, 80.0], n),
            random.uniform(0.5, 28, n),
            (random.random(n) < 0.07).astype(float),
            random.uniform(0.38, 0.87, n),
            random.normal(6.3, 0.7, n),
            random.uniform(3, 100, n),
            random.lognormal(1.2, 0.5, n),
            random.choice([1.0, 2.0, 3.0, 4.0, 5.0, 24.0], n),
            random.uniform(187, 711, n),
            random.normal(18.5, 2.2, n),
            random.uniform(0.3, 397, n),
            random.lognormal(2.4, 0.5, n),
        ]
    )
    rooms, lower = (x[:, 5] - 6.3) / 0.7, np.log(x[:, 12]) - 2.4
    price = 22 + 4 * rooms + 1.5 * rooms**2 - 6 * lower - 8 * (x[:, 4] - 0.6) + 3 * x[:, 3] - 0.4 * (x[:, 10] - 18.5)
    write_archive(raw / "boston_housing.npz", x, price + random.normal(0, 1.5, n))


def twin_california(raw: Path, seed: int) -> None:
    """Made-up block groups in the format of the California file; noise of 20,000 dollars, so a best MAE of ≈ 16."""
    import numpy as np

    random = np.random.default_rng(seed)
    n = 2_000
    households = random.lognormal(6.0, 0.6, n)
    income = random.lognormal(1.2, 0.45, n)
    x = np.column_stack(
        [
            random.uniform(-124, -114, n),
            random.uniform(32.5, 42, n),
            random.integers(1, 53, n).astype(float),
            households * random.normal(5.3, 0.8, n),
            households * random.normal(1.1, 0.1, n),
            households * random.normal(2.9, 0.4, n),
            households,
            income,
        ]
    )
    price = 40_000 * income + 1_000 * x[:, 2] - 6_000 * (x[:, 1] - 35) + 50_000
    write_archive(raw / "california_housing.npz", x, price + random.normal(0, 20_000, n))


def write_archive(path: Path, x: Any, y: Any) -> None:
    """Write arrays as Keras packs them."""
    import numpy as np

    np.savez(path, x=x, y=y)


def preprocess(statistics: Statistics) -> Callable[[Batch], Batch]:
    """Standardise each feature by the mean and standard deviation of the training split."""
    import tensorflow as tf

    learned = statistics["features"]
    mean = tf.constant(learned.mean, tf.float32)
    scale = tf.constant(learned.scale, tf.float32)

    def standardise(batch: Batch) -> Batch:
        return {**batch, "features": (batch["features"] - mean) / scale}

    return standardise


def model(inputs: Mapping[str, Feature], units: int = 64, layers: int = 2) -> keras.Model:
    """Two hidden layers of 64 units and one linear output (5,121 parameters with the 13 Boston features)."""
    import keras

    x = given = keras.Input(inputs["features"].shape, name="features")
    for _ in range(layers):
        x = keras.layers.Dense(units, activation="relu")(x)
    return keras.Model(given, keras.layers.Dense(1, name="price")(x))


BASE = Train(
    epochs=130,
    batch_size=16,
    optimizer="rmsprop",
    loss="mse",
    metrics=("mae",),
    # Measured on two cores: an epoch of this network takes a tenth of the time when compiled (benchmarks/README.md).
    jit_compile=True,
)

PIPELINE = Pipeline(
    name="house_prices",
    title="Prices of houses from 13 facts about their neighbourhood",
    task="regression",
    book="Chollet, Deep Learning with Python (2nd ed.), 4.3",
    expect="test MAE 2.2 to 3.0 thousand dollars; under half a minute on two CPU cores",
    sources={
        "boston": Source(
            title="Boston housing, 506 census tracts of 1970 (Harrison and Rubinfeld, 1978)",
            features=features(BOSTON_COLUMNS, "MEDV"),
            read=read_boston,
            twin=twin_boston,
            files=(
                File(
                    url=f"{KERAS_DATASETS}/boston_housing.npz",
                    sha256="f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5",
                ),
            ),
            examples={"train": 404, "test": 102},
            licence="none stated; StatLib and UCI",
            homepage="https://lib.stat.cmu.edu/datasets/boston",
            note=(
                "Column B encodes the share of Black residents under the assumption that segregation raises prices. "
                "The column is kept because the book's figures include it. Don't use a model trained on these data to "
                "decide anything about people or homes; scikit-learn removed the data set for this reason."
            ),
        ),
        "california": Source(
            title="California housing, 20,640 block groups of 1990 (Pace and Barry, 1997)",
            features=features(CALIFORNIA_COLUMNS, "median_house_value"),
            read=read_california,
            twin=twin_california,
            files=(
                File(
                    url=f"{KERAS_DATASETS}/california_housing.npz",
                    sha256="1a2e3a52e0398de6463aebe6f4a8da34fb21fbb6b934cf88c3425e766f2a1a6f",
                ),
            ),
            examples={"train": 16_512, "test": 4_128},
            licence="none stated; StatLib",
            homepage="https://lib.stat.cmu.edu/datasets/houses.zip",
        ),
    },
    preprocess=preprocess,
    model=model,
    variants={
        "final": Variant(
            description="The final fit on the whole training split, tested once",
            train=BASE,
            promises=(Promise(metric="mae", at_most=3.0, book=2.464, source="section 4.3"),),
        ),
        "kfold_100": Variant(
            description="4 folds of 100 epochs, then a fit for as many epochs as the folds advise",
            train=BASE.model_copy(update={"epochs": 100}),
            cross_validation=CrossValidation(folds=4),
            promises=(
                Promise(
                    metric="val_mae",
                    on="cross_validation",
                    at_most=3.0,
                    book=2.567,
                    source="section 4.3.4",
                ),
            ),
        ),
        "kfold_500": Variant(
            description="4 folds of 500 epochs to see where overfitting starts, then a fit for that many epochs",
            train=BASE.model_copy(update={"epochs": 500}),
            cross_validation=CrossValidation(folds=4),
            promises=(Promise(metric="mae", at_most=3.0, book=2.464, source="section 4.3"),),
        ),
    },
    studies={
        "capacity": Study(
            description="Networks that are too small, as in the book, and too large, by 4 folds of 100 epochs",
            variant="kfold_100",
            axes={"model.units": (4, 64, 256)},
            on="cross_validation",
        ),
    },
    tunings={
        "width": Tuning(
            description="Width and optimizer, judged on a fifth of the training split",
            settings={"train.validation_split": 0.2, "train.early_stopping": {"patience": 10}},
            space={
                "model.units": Choice(values=(16, 32, 64, 128)),
                "train.optimizer": Choice(values=("rmsprop", "adam")),
            },
            tuner="grid",
            objective="val_mae",
            top=2,
        ),
    },
    ensembles={
        "widths": Ensemble(
            description="Narrow and deep, as in the book, wide and shallow",
            settings={"train.validation_split": 0.2},
            cells={
                "narrow": {"model.units": 32, "model.layers": 3},
                "book": {},
                "wide": {"model.units": 256, "model.layers": 1},
            },
            weights="searched",
        ),
    },
    smoke={"train.epochs": 25, "cross_validation.folds": 2, "export.examples": 16},
    deploy=Deploy(retrain="nightly", smoke="kfold_100"),
)
