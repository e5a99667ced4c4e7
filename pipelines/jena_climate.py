"""The temperature a day ahead, from five days of weather: dense, convolutional and recurrent networks.

A row is ten minutes of 14 readings, an example a window of 120 hours; what is forecast is the temperature 24 hours
after its end. Records hold the rows, of which windows are cut when they are read (`headrace.Windows`).

Book:    Chollet, Deep Learning with Python (2nd ed.), chapter 10; `sequence` after 12.1.4.
Run:     headrace run jena_climate                            an LSTM of 16 units on 2009 to 2016
         headrace run jena_climate --source year_2020         on another year of the same station
         headrace run jena_climate --variant naive            the last temperature as the forecast
         headrace study jena_climate book                     all the book compares, by seeds
         headrace run jena_climate --variant path             all the next 24 hours, and the error of each
         headrace study jena_climate horizon                  how the error grows with the hours ahead
Expect:  on eight years a test MAE of 2.5 to 2.6 °C of `lstm`, 2.4 to 2.5 of `lstm_dropout` and `stacked_gru`; the naive
         forecast is off by 2.62 °C. Minutes for an epoch of the recurrent networks on two CPU cores. Of the twin the
         best MAE there is is 2.28 °C, that of its naive forecast 2.86 °C.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from headrace import (
    Deploy,
    Evaluate,
    Export,
    Feature,
    Finding,
    Functions,
    ModelCheckpoint,
    Pipeline,
    Promise,
    Publish,
    Records,
    Study,
    Train,
    Variant,
    Windows,
)
from pipelines.sources.jena_climate import JENA, JENA_2020, TEMPERATURE

if TYPE_CHECKING:
    import keras
    import numpy as np

    from headrace.describing.summaries import Statistics
    from headrace.engine.loops import Loop, Start
    from headrace.measuring.tasks import Naive
    from headrace.records.inputs import Batch

DAY = 144
"""Rows of a day."""


def preprocess(statistics: Statistics, standardised: bool = True) -> Callable[[Batch], Batch]:
    """Readings are brought to mean 0 and standard deviation 1 of the training rows; the temperature stays in °C."""
    import numpy as np

    weather = statistics["weather"]
    mean, scale = weather.mean.astype(np.float32), weather.scale.astype(np.float32)

    def prepare(batch: Batch) -> Batch:
        readings = batch["weather"]
        found = {**batch, "temperature": readings[:, TEMPERATURE : TEMPERATURE + 1]}
        return {**found, "weather": (readings - mean) / scale} if standardised else found

    return prepare


# ------------------------------------------------------------------------------------------------ networks


def dense(inputs: Mapping[str, Feature], units: int = 16) -> keras.Model:
    """All readings as one vector, and a hidden layer (26,913 parameters)."""
    import keras

    given, x = _given(inputs)
    x = keras.layers.Dense(units, activation="relu")(keras.layers.Flatten()(x))
    return _ended(given, x)


def conv1d(inputs: Mapping[str, Feature], filters: int = 8, widths: tuple[int, ...] = (24, 12, 6)) -> keras.Model:
    """Convolutions over a day, and over what is left of one after halving the steps (3,873 parameters)."""
    import keras

    given, x = _given(inputs)
    for place, width in enumerate(widths):
        x = keras.layers.MaxPooling1D(2)(x) if place else x
        x = keras.layers.Conv1D(filters, width, activation="relu")(x)
    return _ended(given, keras.layers.GlobalAveragePooling1D()(x))


def recurrent(
    inputs: Mapping[str, Feature],
    cell: Literal["lstm", "gru"] = "lstm",
    units: int | tuple[int, ...] = 16,
    recurrent_dropout: float = 0.0,
    dropout: float = 0.0,
    reverse: bool = False,
    bidirectional: bool = False,
    sequence: bool = False,
    ahead: int = 0,
    unroll: bool = False,
) -> keras.Model:
    """Recurrent layers on top of each other (an LSTM of 16 units: 2,001 parameters).

    Args:
        inputs: The window (steps, 14).
        cell: Kind of the layers.
        units: Of the layer, or of each of them.
        recurrent_dropout: Share of a layer's own state that is dropped from step to step.
        dropout: Share that is dropped before the last layer.
        reverse: Read a window from its end.
        bidirectional: Read it from both ends.
        sequence: Answer at each step.
        ahead: Answer with so many temperatures instead of one.
        unroll: Write the steps out one by one, where they are up to a hundred: a larger graph without a loop.
    """
    import keras

    given, x = _given(inputs)
    layers = [units] if isinstance(units, int) else list(units)
    kind = keras.layers.LSTM if cell == "lstm" else keras.layers.GRU
    for place, size in enumerate(layers):
        several = sequence or place < len(layers) - 1
        layer = kind(
            size,
            recurrent_dropout=recurrent_dropout,
            return_sequences=several,
            go_backwards=reverse,
            unroll=unroll,
        )
        x = (keras.layers.Bidirectional(layer) if bidirectional else layer)(x)
    x = keras.layers.Dropout(dropout)(x) if dropout else x
    if ahead:
        answers = keras.layers.Dense(ahead)(x)
        return keras.Model(given, keras.layers.Reshape((ahead, 1), name="temperature")(answers))
    return _ended(given, x)


def last_temperature(inputs: Mapping[str, Feature]) -> keras.Model:
    """The temperature at the last step, as readings in °C hold it; nothing to be learned."""
    import keras
    import numpy as np

    steps, columns = inputs["weather"].shape
    assert steps is not None and columns is not None  # noqa: S101, PT018 (a window has a length)
    given = keras.Input((steps, columns), name="weather")
    last = keras.layers.Flatten()(keras.layers.Cropping1D((steps - 1, 0))(given))
    chosen = keras.layers.Dense(1, use_bias=False, name="temperature")
    model = keras.Model(given, chosen(last))
    chosen.set_weights([np.eye(columns, dtype=np.float32)[:, TEMPERATURE : TEMPERATURE + 1]])
    chosen.trainable = False
    return model


def _given(inputs: Mapping[str, Feature]) -> tuple[Any, Any]:
    import keras

    given = keras.Input(inputs["weather"].shape, name="weather")
    return given, given


def _ended(given: Any, x: Any) -> keras.Model:
    import keras

    return keras.Model(given, keras.layers.Dense(1, name="temperature")(x))


def untrained(start: Start) -> Loop:
    """Nothing is learned; what is watched is measured once an epoch."""
    from headrace.engine.loops import Loop

    class Untrained(Loop):
        def __init__(self) -> None:
            self.model = start.model

        def advance(self, step: int) -> dict[str, float]:
            found = {}
            for prefix, split in (("", start.train), ("val_", start.held)):
                if split is not None:
                    errors = _errors(start.model, split)
                    found[f"{prefix}loss"] = float((errors**2).mean())
                    found[f"{prefix}mae"] = float(abs(errors).mean())
            return found

    return Untrained()


def _errors(model: keras.Model, split: Any, size: int = 4096) -> np.ndarray[Any, Any]:
    """Forecast minus truth (examples, 1)."""
    import numpy as np

    windows, truth = split.inputs["weather"], split.targets["temperature"]
    parts = [
        np.asarray(model(np.asarray(windows[first : first + size]), training=False)) - truth[first : first + size]
        for first in range(0, len(truth), size)
    ]
    return np.concatenate(parts)


# ---------------------------------------------------------------------------------------- naive forecasts


def naive(statistics: Statistics) -> Mapping[str, Naive]:
    """The last temperature, as that of a day later."""
    weather = statistics["weather"]
    mean, scale = float(weather.mean[TEMPERATURE]), float(weather.scale[TEMPERATURE])

    def last(inputs: Mapping[str, Any], count: int) -> np.ndarray[Any, Any]:
        return inputs["weather"][:, -1, TEMPERATURE, None].astype("float64") * scale + mean

    return {"last temperature": last}


def naive_at_each_step(statistics: Statistics) -> Mapping[str, Naive]:
    """The temperature of each step, as that of a day later."""
    weather = statistics["weather"]
    mean, scale = float(weather.mean[TEMPERATURE]), float(weather.scale[TEMPERATURE])

    def last(inputs: Mapping[str, Any], count: int) -> np.ndarray[Any, Any]:
        return inputs["weather"][:, :, TEMPERATURE, None].astype("float64") * scale + mean

    return {"last temperature": last}


def naive_on_the_way(statistics: Statistics) -> Mapping[str, Naive]:
    """The last temperature, as that of each hour of the next day."""
    import numpy as np

    last = naive(statistics)["last temperature"]
    return {"last temperature": lambda inputs, count: np.repeat(last(inputs, count)[:, None], 24, axis=1)}


def no_other(statistics: Statistics) -> Mapping[str, Naive]:
    """None but the task's own, for the naive forecast itself: it would be compared with itself."""
    return {}


# ------------------------------------------------------------------------------------------------ workload

WINDOWS = Windows(length=120, every=6, ahead=24, boundary="beyond")
"""Five days of hours, and the temperature a day after their end. Split as the book does: 209,511, 104,398 and 103,542
windows. See docs/decisions on windows for what lies at the boundaries."""


def trained(epochs: int = 10, **others: Any) -> Train:
    """How a variant is trained, unless it says otherwise."""
    usual: dict[str, Any] = {"metrics": ("mae",), "validation": "validation", "checkpoint": ModelCheckpoint()}
    return Train(epochs=epochs, batch_size=256, **(usual | others))


def variant(description: str, train: Train | None = None, **others: Any) -> Variant:
    """A variant that forecasts one temperature."""
    usual: dict[str, Any] = {
        "windows": WINDOWS,
        # Errors of neighbouring windows are alike: intervals draw whole days.
        "evaluate": Evaluate(block=DAY, slices=()),
    }
    return Variant(description=description, train=train or trained(), **(usual | others))


def promised(at_least: float, at_most: float, book: float, section: str) -> tuple[Promise, ...]:
    """The test MAE that the book prints, and what is expected here."""
    return (Promise(metric="mae", at_least=at_least, at_most=at_most, book=book, source=f"section {section}"),)


SHOWN = Publish(on_fail="go on")
"""For networks of which the book itself says that they don't beat the naive forecast: a run that says so has done what
it should."""

PIPELINE = Pipeline(
    name="jena_climate",
    title="The temperature a day ahead",
    task="forecasting",
    book="Chollet, Deep Learning with Python (2nd ed.), chapter 10",
    expect="test MAE 2.5 to 2.6 °C (naive: 2.62); minutes for an epoch on two CPU cores",
    sources={"eight_years": JENA, "year_2020": JENA_2020},
    records=Records(roles={"temperature": "target"}),
    preprocess=preprocess,
    model=recurrent,
    naive=naive,
    variants={
        "lstm": variant(
            "An LSTM of 16 units: the first network that beats the naive forecast",
            promises=promised(2.4, 2.62, 2.55, "10.2.5"),
        ),
        "naive": variant(
            "The last temperature as the forecast: a baseline as a model, with nothing to learn",
            # Two epochs, in which nothing happens: what is watched is measured.
            trained(2, checkpoint=None),
            preprocess={"standardised": False},
            functions=Functions(model=last_temperature, loop=untrained, naive=no_other),
            promises=promised(2.61, 2.63, 2.62, "10.2.2"),
            line="naive",
        ),
        "dense": variant(
            "A hidden layer on all readings at once, close to the naive forecast",
            functions=Functions(model=dense),
            publish=SHOWN,
        ),
        "conv1d": variant(
            "Convolutions, to which it makes no difference when something was: worse than naive",
            functions=Functions(model=conv1d),
            promises=(Promise(metric="mae", at_least=2.62, book=2.9, source="section 10.2.4, on validation"),),
            publish=SHOWN,
        ),
        "lstm_dropout": variant(
            "An LSTM of 32 units with dropout, within the layer from step to step and after it",
            trained(50),
            model={"units": 32, "recurrent_dropout": 0.25, "dropout": 0.5},
            promises=promised(2.3, 2.53, 2.45, "10.4.1"),
        ),
        "stacked_gru": variant(
            "Two GRUs of 32 units on top of each other, with dropout",
            trained(50),
            model={"cell": "gru", "units": (32, 32), "recurrent_dropout": 0.5, "dropout": 0.5},
            promises=promised(2.3, 2.48, 2.39, "10.4.2"),
        ),
        "reversed": variant(
            "The LSTM of 16 units on windows from their end: what is nearest has to be remembered longest",
            model={"reverse": True},
            publish=SHOWN,
        ),
        "bidirectional": variant(
            "An LSTM of 16 units from either end; the last epoch is taken",
            trained(checkpoint=None),
            model={"bidirectional": True},
            publish=SHOWN,
        ),
        "sequence": variant(
            "The LSTM of 16 units answers at each of the 120 steps with the temperature a day later",
            windows=WINDOWS.model_copy(update={"target": "each"}),
            model={"sequence": True},
            functions=Functions(naive=naive_at_each_step),
            line="sequence",
            publish=SHOWN,
        ),
        "path": variant(
            "The LSTM of 16 units answers with the temperatures of all the next 24 hours: the error by the hours ahead",
            windows=WINDOWS.model_copy(update={"target": "path"}),
            model={"ahead": 24},
            functions=Functions(naive=naive_on_the_way),
            line="path",
            publish=SHOWN,
        ),
        "unrolled": variant(
            "An LSTM of 32 units with recurrent dropout on four days, its steps written out: a graph without a loop",
            windows=WINDOWS.model_copy(update={"length": 96}),
            model={"units": 32, "recurrent_dropout": 0.2, "unroll": True},
            export=Export(formats=("saved_model", "tflite", "tflite_int8"), max_metric_loss=0.05),
            line="unrolled",
            smoke={"windows.length": 8, "windows.ahead": 24},
        ),
    },
    studies={
        "book": Study(
            description="What the book compares, with the orders that it finds",
            variants=("naive", "dense", "conv1d", "lstm", "lstm_dropout", "stacked_gru", "reversed", "bidirectional"),
            findings=(
                Finding(cell="lstm", beats="naive", book=2.55, source="section 10.2.5"),
                Finding(cell="lstm", beats="dense", source="section 10.2.5"),
                Finding(cell="lstm", beats="conv1d", source="section 10.2.4"),
                Finding(cell="lstm_dropout", beats="lstm", book=2.45, source="section 10.4.1"),
                Finding(cell="stacked_gru", beats="lstm_dropout", book=2.39, source="section 10.4.2"),
                Finding(cell="naive", beats="reversed", source="section 10.4.3"),
                Finding(cell="lstm", beats="bidirectional", source="section 10.4.3"),
            ),
        ),
        "orders": Study(
            description="The orders that a single year shows, with 12 epochs for each network",
            variants=("naive", "dense", "conv1d", "lstm", "lstm_dropout", "reversed"),
            settings={"train.epochs": 12},
            seeds=3,
            findings=(
                Finding(cell="lstm", beats="dense", source="section 10.2.5"),
                Finding(cell="lstm", beats="conv1d", source="section 10.2.4"),
                Finding(cell="lstm_dropout", beats="lstm", source="section 10.4.1"),
                Finding(cell="naive", beats="reversed", source="section 10.4.3"),
            ),
        ),
        "horizon": Study(
            description="How the error grows with the hours ahead",
            variant="lstm",
            axes={"windows.ahead": (1, 3, 6, 12, 24, 48)},
            settings={"promises": ()},
        ),
        "window": Study(
            description="Shorter windows, and other steps",
            variant="lstm",
            cells={
                "a day": {"windows.length": 24},
                "two days": {"windows.length": 48},
                "five days": {},
                "five days by three hours": {"windows.length": 40, "windows.every": 18, "windows.ahead": 8},
            },
            settings={"promises": ()},
        ),
    },
    smoke={"train.epochs": 1, "windows.stride": 16, "export.examples": 16},
    deploy=Deploy(smoke="dense"),
)
