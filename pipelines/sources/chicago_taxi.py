"""Chicago taxi: 15,002 trips, and whether the driver was given a good tip (City of Chicago, by way of TFX)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import Column, Feature, File, Source

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "data.csv"
FIFTH = 5
"""A tip is good if it is more than a fifth of the fare."""
PAYMENTS = ("Cash", "Credit Card", "Dispute", "No Charge", "Pcard", "Prcard", "Unknown")
HOURS, DAYS, MONTHS = (tuple(str(k) for k in range(*span)) for span in ((24,), (1, 8), (1, 13)))

INPUTS = {
    "numbers": Feature(
        shape=(7,),
        optional=True,
        columns=(
            Column(name="fare", unit="dollars"),
            Column(name="trip_miles", unit="miles"),
            Column(name="trip_seconds", unit="s"),
            Column(name="pickup_latitude", description="of the middle of the census tract or area", unit="°"),
            Column(name="pickup_longitude", unit="°"),
            Column(name="dropoff_latitude", unit="°"),
            Column(name="dropoff_longitude", unit="°"),
        ),
    ),
    "trip_start_hour": Feature(dtype="int64", classes=HOURS),
    "trip_start_day": Feature(dtype="int64", classes=DAYS, description="of the week, from Sunday on"),
    "trip_start_month": Feature(dtype="int64", classes=MONTHS),
    "payment_type": Feature(dtype="string", classes=PAYMENTS),
    "company": Feature(dtype="string", content="category", optional=True),
    "pickup_community_area": Feature(dtype="string", content="category", optional=True),
    "dropoff_community_area": Feature(dtype="string", content="category", optional=True),
    "pickup_census_tract": Feature(dtype="string", content="category", optional=True, description="of one trip only"),
    "dropoff_census_tract": Feature(dtype="string", content="category", optional=True),
    "trip_start_timestamp": Feature(dtype="int64", role="note", unit="s since 1970"),
    "tips": Feature(role="note", description="holds the answer, and is no input", unit="dollars"),
}
TARGET = {
    "big_tip": Feature(dtype="int64", role="target", classes=("no", "yes"), description="more than a fifth of the fare")
}


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """Two thirds of the trips (10,001) to train, as TFX deals them, the others to test; dealt out by seed 113."""
    from headrace.readers.splits import split_batches
    from headrace.readers.tables import read_table
    from pipelines.sources._reading import mapped

    trips = mapped(read_table(raw / NAME, INPUTS), _judged)
    return split_batches(trips, {"test": 1 / 3}, what=NAME)


def _judged(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """The columns, and whether the tip is a good one."""
    import numpy as np
    import pyarrow as pa

    numbers = columns["numbers"]
    fares = numbers.values.to_numpy(zero_copy_only=False).reshape(len(numbers), -1)[:, 0]
    tips = columns["tips"].to_numpy(zero_copy_only=False)
    # In cents, which are exact. A trip whose fare is missing has no good tip, as TFX has it.
    good = np.rint(100 * tips) * FIFTH > np.rint(100 * fares)
    return {**columns, "big_tip": pa.array(good.astype(np.int64))}


def twin(raw: Path, seed: int) -> None:
    """3,000 made-up trips: of those paid by card, the shorter ones have a good tip in 9 of 10, the longer in 3 of 10.

    Whoever pays cash gives none that is known of. The best accuracy is near 0.93.
    """
    import numpy as np

    from pipelines.sources._packing import table

    random = np.random.default_rng(seed)
    rows = []
    for _ in range(3_000):
        miles = round(float(random.lognormal(0.8, 0.9)), 1)
        paid = str(random.choice(["Cash", "Credit Card"], p=(0.6, 0.4)))
        fare = round(3.25 + 2.0 * miles, 2)
        good = paid != "Cash" and random.random() < (0.9 if miles < 3 else 0.3)
        tip = round(fare * random.uniform(0.22, 0.3), 2) if good else round(0.18 * fare * (paid != "Cash"), 2)
        start, end = (int(area) for area in random.integers(1, 78, 2))
        known = random.random() < 0.97
        rows.append(
            {
                "pickup_community_area": start,
                "fare": fare,
                "trip_start_month": random.integers(1, 13),
                "trip_start_hour": random.integers(0, 24),
                "trip_start_day": random.integers(1, 8),
                "trip_start_timestamp": 900 * random.integers(1_508_000, 1_600_000),
                "pickup_latitude": round(41.7 + start / 300, 9),
                "pickup_longitude": round(-87.6 - start / 300, 9),
                "dropoff_latitude": round(41.7 + end / 300, 9) if known else None,
                "dropoff_longitude": round(-87.6 - end / 300, 9) if known else None,
                "trip_miles": miles,
                "pickup_census_tract": None,
                "dropoff_census_tract": 17_031_000_000 + 100 * end if random.random() < 0.7 else None,
                "payment_type": paid,
                "company": random.choice(["Blue Cab", "Yellow Cab", "Green Cab"]) if random.random() < 0.65 else None,
                "trip_seconds": 60 * int(3 + 3 * miles),
                "dropoff_community_area": end if known else None,
                "tips": tip,
            }
        )
    (raw / NAME).write_bytes(table([tuple(row.values()) for row in rows], tuple(rows[0])))


CHICAGO_TAXI = Source(
    title="Chicago taxi, 15,002 trips of 2013 to 2016 (City of Chicago, by way of TFX)",
    features=INPUTS | TARGET,
    read=read,
    twin=twin,
    files=(
        File(
            url="https://raw.githubusercontent.com/tensorflow/tfx/58435d68d561e9ba6c657a0ec111adba5176ee98/"
            f"tfx/examples/chicago_taxi_pipeline/data/simple/{NAME}",
            sha256="cdaf0b5931442ef47693f408f25a37af710aca23fccb90a78f00930e89548805",
            size=1_922_812,
        ),
    ),
    licence="terms of the City of Chicago's data portal; the excerpt Apache-2.0",
    homepage="https://data.cityofchicago.org/Transportation/Taxi-Trips/wrvz-psew",
    note="Tips given in cash are not known: a trip paid in cash counts as one without a tip.",
)
