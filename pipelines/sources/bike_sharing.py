"""Bike sharing: how many bicycles were hired in each hour of 2011 and 2012 (Fanaee-T and Gama, 2013)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Column, Feature, File, Source
from pipelines.sources._reading import cut, each_by_itself

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.readers.batches import Arrays

NAME = "Bike-Sharing-Dataset.zip"
SHARES = {"train": 0.8, "test": 0.2}
HEADER = (
    *("instant", "dteday", "season", "yr", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit"),
    *("temp", "atemp", "hum", "windspeed", "casual", "registered", "cnt"),
)


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 17,379 hours in their order, 13,903 to train and the 3,476 after them to test: neighbours are alike."""

    def split(name: str) -> Arrays:
        from headrace.readers.batches import whole
        from headrace.readers.tables import read_table

        features = BIKE_SHARING.features
        return cut(whole(read_table(raw / NAME, features, member="*hour.csv"), features), name, **SHARES)

    return each_by_itself(tuple(SHARES), split)


def twin(raw: Path, seed: int) -> None:
    """3,000 made-up hours from hour, kind of day, temperature and weather, with the noise of counting (Poisson).

    The best MAE is near 6.2 bicycles: of a Poisson number with mean m it is about 0.8·√m.
    """
    from datetime import datetime, timedelta

    import numpy as np

    from pipelines.sources._packing import table, zipped

    random = np.random.default_rng(seed)
    rows = []
    for number in range(3_000):
        when = datetime(2011, 10, 15) + timedelta(hours=number)
        holiday = (when.month, when.day) in ((12, 26), (1, 2))
        work = when.weekday() < 5 and not holiday
        weather = int(random.choice(3, p=(0.65, 0.26, 0.09))) + 1
        daily, slowly = np.sin(2 * np.pi * (when.hour - 8) / 24), np.sin(number / 200)
        warm = 0.5 + 0.15 * daily + 0.1 * slowly + random.normal(0, 0.04)
        rush = np.exp(-((when.hour - 8) ** 2) / 4) + 1.3 * np.exp(-((when.hour - 17.5) ** 2) / 6)
        noon = np.exp(-((when.hour - 14) ** 2) / 18)
        count = int(random.poisson((10 + 260 * (rush if work else noon)) * (0.3 + warm) / weather**0.5))
        casual = int(count * (0.1 if work else 0.35))
        facts = (number + 1, f"{when:%Y-%m-%d}", 1 + (when.month % 12) // 3, when.year - 2011, when.month, when.hour)
        day = (int(holiday), (when.weekday() + 1) % 7, int(work), weather)
        humid, windy = round(random.uniform(0.3, 1), 2), round(random.uniform(0, 0.5), 4)
        air = (round(warm, 2), round(warm * 0.95, 4), humid, windy)
        rows.append((*facts, *day, *air, casual, count - casual, count))
    zipped(raw / NAME, {"Readme.txt": b"Made up.\n", "day.csv": b"instant\n1\n", "hour.csv": table(rows, HEADER)})


BIKE_SHARING = Source(
    title="Bike sharing in Washington, 17,379 hours of 2011 and 2012 (Fanaee-T and Gama, 2013)",
    features={
        "weather": Feature(
            shape=(4,),
            columns=(
                Column(name="temp", description="temperature, as a share of the highest", unit="41 °C"),
                Column(name="atemp", description="temperature as it feels, as a share of the highest", unit="50 °C"),
                Column(name="hum", description="humidity, from 0 to 1"),
                Column(name="windspeed", description="speed of the wind, as a share of the highest", unit="67 km/h"),
            ),
        ),
        "weathersit": Feature(
            dtype="int64", classes=("1", "2", "3", "4"), description="clear, mist, light rain, heavy rain"
        ),
        "season": Feature(dtype="int64", classes=("1", "2", "3", "4"), description="from winter on"),
        "yr": Feature(dtype="int64", classes=("0", "1"), description="2011 or 2012"),
        "mnth": Feature(dtype="int64", classes=tuple(str(month) for month in range(1, 13))),
        "hr": Feature(dtype="int64", classes=tuple(str(hour) for hour in range(24))),
        "weekday": Feature(dtype="int64", classes=tuple("0123456"), description="from Sunday on"),
        "holiday": Feature(dtype="int64", classes=("0", "1")),
        "workingday": Feature(dtype="int64", classes=("0", "1"), description="neither weekend nor holiday"),
        "dteday": Feature(dtype="string", role="note", description="the day"),
        "cnt": Feature(
            shape=(1,), role="target", columns=(Column(name="cnt", description="bicycles hired", unit="per hour"),)
        ),
    },
    read=read,
    twin=twin,
    files=(File(url=f"https://archive.ics.uci.edu/ml/machine-learning-databases/00275/{NAME}"),),
    licence="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/275/bike+sharing+dataset",
    note="The columns casual and registered make up the answer, and are not read. Demand grew by two thirds in 2012.",
)
