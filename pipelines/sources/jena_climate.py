"""Jena climate: 14 readings of a weather station, every 10 minutes (Max Planck Institute for Biogeochemistry)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import Column, Feature, File, Source
from pipelines.sources._reading import cut, each_by_itself

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.readers.batches import Array, Arrays

log = logging.getLogger(f"headrace.{__name__}")

COLUMNS = (
    Column(name="p (mbar)", description="air pressure", unit="mbar"),
    Column(name="T (degC)", description="temperature", unit="°C"),
    Column(name="Tpot (K)", description="potential temperature", unit="K"),
    Column(name="Tdew (degC)", description="dew point", unit="°C"),
    Column(name="rh (%)", description="relative humidity", unit="%"),
    Column(name="VPmax (mbar)", description="saturation vapour pressure", unit="mbar"),
    Column(name="VPact (mbar)", description="vapour pressure", unit="mbar"),
    Column(name="VPdef (mbar)", description="vapour pressure deficit", unit="mbar"),
    Column(name="sh (g/kg)", description="specific humidity", unit="g/kg"),
    Column(name="H2OC (mmol/mol)", description="concentration of water vapour", unit="mmol/mol"),
    Column(name="rho (g/m**3)", description="density of the air", unit="g/m³"),
    Column(name="wv (m/s)", description="wind speed", unit="m/s"),
    Column(name="max. wv (m/s)", description="highest wind speed", unit="m/s"),
    Column(name="wd (deg)", description="direction of the wind", unit="°"),
)
TEMPERATURE = 1
"""Position of the temperature among the readings."""
NO_READING = -9999.0
YEAR = 30
"""Days of a year of the twin."""
SHARES = {"train": 0.5, "validation": 0.25, "test": 0.25}
"""Of the time, one after the other (section 10.2)."""

BOOK, LATER = "jena_climate_2009_2016.csv.zip", "jena_climate_2020.csv.zip"
FEATURES = {
    "weather": Feature(shape=(14,), columns=COLUMNS, description="the readings of one time step"),
    "date_time": Feature(dtype="string", role="note", description="day.month.year hour:minute:second, the step's end"),
}
LICENCE = "free use; the institute asks to be named"
HOMEPAGE = "https://www.bgc-jena.mpg.de/wetter/"
NOTE = (
    "A row is one time step; windows are cut out of a split. Steps are passed on as the file has them: a few are "
    "there twice, a few are missing, so that 144 steps are nearly always a day; `date_time` tells. Where an instrument "
    "gave no reading (-9999), the one before it stands. All of these are counted; more than one in 500 stops the run."
)
TOLERATED = 1 / 500
"""Share of the steps that may be there twice, missing, or without some reading: beyond that so many windows would be
out of step that the series should be mended."""


def read_book(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 420,451 steps of 2009 to 2016 in their order: 210,225 to train, 105,112 to validate, 105,114 to test."""
    return _series(raw / BOOK)


def read_later(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """The 52,696 steps of 2020 in their order: 26,348 to train, 13,174 to validate, 13,174 to test."""
    return _series(raw / LATER)


def _series(path: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    def split(name: str) -> Arrays:
        stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
        return cut(_rows(path, *stamp), name, **SHARES)

    return each_by_itself(tuple(SHARES), split)


@lru_cache(maxsize=1)
def _rows(path: Path, _time: int, _size: int) -> dict[str, Any]:
    """All rows of a file, parsed once as long as it doesn't change: three splits are cut out of them, and each is gone
    through several times."""
    from headrace.readers.batches import whole
    from headrace.readers.tables import read_table

    rows = whole(read_table(path, FEATURES), FEATURES)
    weather = rows["weather"]
    inspected(path.name, rows["date_time"].tolist(), int((weather == NO_READING).any(axis=1).sum()))
    return rows | {"weather": last_reading(weather)}


@dataclass(frozen=True)
class Irregular:
    """What is wrong with the steps of a series."""

    steps: int
    missing: int
    """Steps of ten minutes that are left out."""
    twice: int
    """Steps whose time is that of the one before."""
    back: int
    """Steps that are earlier than the one before."""
    unread: int
    """Steps in which some instrument gave no reading."""

    @property
    def most(self) -> int:
        """The largest of these numbers, but for steps back, of which there may be none."""
        return max(self.missing, self.twice, self.unread)

    def __str__(self) -> str:
        return (
            f"{self.missing} steps of 10 minutes are missing, {self.twice} are there twice, "
            f"{self.unread} lack a reading" + (f", {self.back} go back in time" if self.back else "")
        )


def irregular(times: Sequence[bytes], unread: int = 0) -> Irregular:
    """Hold the times of a series (day.month.year hour:minute:second) against steps of ten minutes.

    Args:
        times: In the order of the file.
        unread: Steps in which some instrument gave no reading.
    """
    import numpy as np

    text = np.array(times, "S19").view("S1").reshape(-1, 19)
    parts = [text[:, part].tobytes().decode() for part in (slice(6, 10), slice(3, 5), slice(0, 2), slice(11, 19))]
    widths = (4, 2, 2, 8)
    year, month, day, clock = (
        [part[start : start + width] for start in range(0, len(part), width)]
        for part, width in zip(parts, widths, strict=True)
    )
    moments = np.array([f"{y}-{m}-{d}T{c}" for y, m, d, c in zip(year, month, day, clock, strict=True)], "M8[s]")
    apart = np.diff(moments).astype(np.int64) // 600
    return Irregular(
        steps=len(moments),
        missing=int((apart[apart > 1] - 1).sum()),
        twice=int((apart == 0).sum()),
        back=int((apart < 0).sum()),
        unread=unread,
    )


def inspected(name: str, times: Sequence[bytes], unread: int) -> Irregular:
    """Look at a series, tell what is irregular about it, and stop where that is too much.

    Raises:
        DataError: Steps go back in time, or too many are missing, there twice, or without a reading.
    """
    from headrace.errors import DataError

    try:
        found = irregular(times, unread)
    except ValueError as error:
        raise DataError(
            f"The times of {name} can't be read.", expected="day.month.year hour:minute:second", received=str(error)
        ) from error
    if found.back or found.most > max(TOLERATED * found.steps, 10):
        raise DataError(
            f"The steps of {name} are too irregular for windows: {found}.",
            expected=f"steps of ten minutes in the order of time, at most {max(TOLERATED * found.steps, 10):.0f} of "
            f"{found.steps:,} irregular in each way",
            remedy="mend the file: sort it, leave out steps that are there twice, fill in what is missing",
        )
    log.info("%s: %d steps; %s", name, found.steps, found)
    return found


def last_reading(values: Array) -> Array:
    """Readings (steps, columns), each that is missing (-9999) replaced by the one before in its column.

    Before the first reading there is none: there the first one stands.
    """
    import numpy as np

    missing = values == NO_READING
    steps = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(missing, -1, steps), axis=0)
    last = np.where(last < 0, (~missing).argmax(axis=0), last)
    return np.take_along_axis(values, last, axis=0)


def twin_book(raw: Path, seed: int) -> None:
    """40,000 steps of a made-up climate, of one step twice, ten that are missing, and three without a wind reading.

    The temperature is a cycle of a day (5 °C), one of a year (4 °C; a year has 30 days here, so that the training split
    sees four of them, and pressure and humidity tell which time of the year it is), and a deviation that forgets: of
    what it is now, 0.3 is left a day later, and its standard deviation is 3 °C. So the best forecast for a day later
    has an MAE of 3·√(1 − 0.3²)·√(2/π) ≈ 2.28 °C; today's temperature as tomorrow's is off by the deviations of both and
    by what the year has moved on, √(2·(1 − 0.3)·3² + 2·(4·sin(π/30))²)·√(2/π) ≈ 2.86 °C.
    """
    _write(raw / BOOK, seed, year=2009)


def twin_later(raw: Path, seed: int) -> None:
    """The same as `twin_book`, in the year 2020."""
    _write(raw / LATER, seed, year=2020)


def _write(path: Path, seed: int, year: int) -> None:
    from datetime import datetime, timedelta
    from itertools import accumulate

    import numpy as np

    from pipelines.sources._packing import table, zipped

    random = np.random.default_rng(seed)
    steps, day = 40_000, 144

    def wandering(left: float, scale: float) -> Array:
        """A deviation of which so much is left a day later."""
        keep = left ** (1 / day)
        noise = random.normal(0, scale * np.sqrt(1 - keep**2), steps)
        noise[0] = random.normal(0, scale)
        return np.array(list(accumulate(noise, lambda before, new: keep * before + new)))

    hours = 2 * np.pi * np.arange(steps) / day
    season = hours / YEAR
    t = 10 - 5 * np.cos(hours) - 4 * np.cos(season) + wandering(0.3, 3)
    p = 989 + 8 * np.sin(season) + wandering(0.6, 2)
    rh = np.clip(70 + 12 * np.cos(hours) + 8 * np.cos(season) + wandering(0.3, 3), 15, 100)
    most = 6.11 * np.exp(17.62 * t / (243.1 + t))
    vapour = most * rh / 100
    logarithm = np.log(vapour / 6.11)
    wind = np.abs(wandering(0.1, 2)) + 0.1
    values = np.column_stack(
        [
            *(p, t, (t + 273.15) * (1000 / p) ** 0.286, 243.1 * logarithm / (17.62 - logarithm), rh, most, vapour),
            *(most - vapour, 622 * vapour / p, 1000 * vapour / p, 100_000 * p / (287.05 * (t + 273.15))),
            *(wind, wind * random.uniform(1.2, 2.2, steps), random.uniform(0, 360, steps)),
        ]
    )
    values[random.choice(np.arange(1, steps), 3, replace=False), 11] = NO_READING
    gap, twice = (int(step) for step in random.choice(np.arange(100, steps - 100), 2, replace=False))
    begin = datetime(year, 1, 1, 0, 10)
    times = [begin + timedelta(minutes=10 * (k + 10 * (k > gap))) for k in range(steps)]
    times[twice] = times[twice - 1]
    readings = np.round(values, 2).tolist()
    rows = [(f"{when:%d.%m.%Y %H:%M:%S}", *row) for when, row in zip(times, readings, strict=True)]
    header = ("Date Time", *(column.name for column in COLUMNS))
    name = path.name.removesuffix(".zip")
    zipped(path, {name: table(rows, header, quote_header=True)})


JENA = Source(
    title="Jena climate 2009 to 2016, 420,451 steps of 10 minutes (Max Planck Institute for Biogeochemistry)",
    features=FEATURES,
    read=read_book,
    twin=twin_book,
    files=(File(url=f"https://s3.amazonaws.com/keras-datasets/{BOOK}"),),
    licence=LICENCE,
    homepage=HOMEPAGE,
    note=NOTE,
)
JENA_2020 = Source(
    title="Jena climate of 2020, 52,696 steps of 10 minutes (Max Planck Institute for Biogeochemistry)",
    features=FEATURES,
    read=read_later,
    twin=twin_later,
    files=(
        File(
            url=f"manual:{LATER}",
            hint=f"get mpi_roof_2020a.zip and mpi_roof_2020b.zip from {HOMEPAGE}, and pack those of their columns that "
            "the book's file has as one jena_climate_2020.csv",
        ),
    ),
    licence=LICENCE,
    homepage=HOMEPAGE,
    note=NOTE,
)
