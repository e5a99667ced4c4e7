"""Penguins: three species by the measures of their bodies (Gorman, Williams and Fraser, 2014), in two editions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Column, Feature, File, Source

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from headrace.readers.batches import Array

TFX = "https://raw.githubusercontent.com/tensorflow/tfx/58435d68d561e9ba6c657a0ec111adba5176ee98/tfx/examples/penguin/data"
SPECIES = ("Adelie", "Chinstrap", "Gentoo")
ISLANDS = ("Biscoe", "Dream", "Torgersen")
PROCESSED_NAME, PALMER_NAME, UNLABELLED_NAME = "penguins_processed.csv", "penguins.csv", "penguins_unlabelled.csv"

PROCESSED = {
    "measures": Feature(
        shape=(4,),
        columns=(
            Column(name="culmen_length_mm", description="length of the bill, from the least (0) to the most (1)"),
            Column(name="culmen_depth_mm", description="depth of the bill, from the least (0) to the most (1)"),
            Column(name="flipper_length_mm", description="length of the flipper, from the least (0) to the most (1)"),
            Column(name="body_mass_g", description="weight, from the least (0) to the most (1)"),
        ),
    ),
    "species": Feature(dtype="int64", role="target", classes=SPECIES),
}
PALMER_FEATURES = {
    "measures": Feature(
        shape=(4,),
        optional=True,
        columns=(
            Column(name="bill_length_mm", unit="mm"),
            Column(name="bill_depth_mm", unit="mm"),
            Column(name="flipper_length_mm", unit="mm"),
            Column(name="body_mass_g", unit="g"),
        ),
    ),
    "island": Feature(dtype="string", classes=ISLANDS),
    "sex": Feature(dtype="string", classes=("female", "male"), optional=True),
    "year": Feature(dtype="int64", role="note"),
    "species": Feature(dtype="int64", role="target", classes=SPECIES),
}
UNLABELLED = File(
    url=f"{TFX}/unlabelled/{UNLABELLED_NAME}",
    sha256="24a043a8c1e129b4339603a91d09a56a70e3df8990b2996b056a9c52f015573c",
)
"""Ten penguins of the processed edition whose species is not told: new data to predict, no source of examples."""
HOMEPAGE = "https://allisonhorst.github.io/palmerpenguins/"


def read_processed(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """334 penguins with all their measures, scaled to 0 to 1: 267 to train and 67 to test, dealt out by seed 113."""
    from headrace.readers.splits import split_batches
    from headrace.readers.tables import read_table

    return split_batches(read_table(raw / PROCESSED_NAME, PROCESSED), what=PROCESSED_NAME)


def read_palmer(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """344 penguins, some measures of which are missing: 275 to train and 69 to test, dealt out by seed 113."""
    from headrace.readers.splits import split_batches
    from headrace.readers.tables import read_table

    return split_batches(read_table(raw / PALMER_NAME, PALMER_FEATURES), what=PALMER_NAME)


_LOOKS = ((38.8, 18.3, 190, 3700), (48.8, 18.4, 196, 3730), (47.5, 15.0, 217, 5080))
_SPREADS = (2.7, 1.1, 6.5, 430)
"""Averages of each species and deviations of the real measures."""


def _drawn(random: np.random.Generator, count: int) -> tuple[Array, Array]:
    import numpy as np

    species = random.choice(3, count, p=(0.44, 0.2, 0.36))
    return species, np.array(_LOOKS)[species] + random.normal(0, 1, (count, 4)) * _SPREADS


def twin_labelled(raw: Path, seed: int) -> None:
    """334 penguins, each species around its real averages with normal deviations: the best accuracy is near 0.98."""
    import numpy as np

    from pipelines.sources._packing import table

    species, measures = _drawn(np.random.default_rng(seed), 334)
    low, high = measures.min(axis=0), measures.max(axis=0)
    rows = [(kind, *row) for kind, row in zip(species, (measures - low) / (high - low), strict=True)]
    header = ("species", *(column.name for column in PROCESSED["measures"].columns))
    (raw / PROCESSED_NAME).write_bytes(table(rows, header))


def twin_skewed(raw: Path, seed: int) -> None:
    """As `twin_labelled`, but a bill of length -1 stands in the second row."""
    twin_labelled(raw, seed)
    lines = (raw / PROCESSED_NAME).read_text().splitlines(keepends=True)
    species, _, rest = lines[2].split(",", 2)
    lines[2] = f"{species},-1,{rest}"
    (raw / PROCESSED_NAME).write_text("".join(lines))


def twin_palmer(raw: Path, seed: int) -> None:
    """344 penguins as in `twin_labelled`, two of them without measures and some without a sex.

    Chinstraps live on Dream and Gentoos on Biscoe, which makes the best accuracy 0.99.
    """
    import numpy as np

    from pipelines.sources._packing import table

    random = np.random.default_rng(seed)
    species, measures = _drawn(random, 344)
    without = random.choice(344, 11, replace=False)
    rows = []
    for k, (kind, row) in enumerate(zip(species, measures, strict=True)):
        island = {1: "Dream", 2: "Biscoe"}.get(int(kind)) or random.choice(ISLANDS)
        known = ["NA"] * 4 if k in without[:2] else [round(row[0], 1), round(row[1], 1), round(row[2]), round(row[3])]
        sex = "NA" if k in without else random.choice(["female", "male"])
        rows.append((SPECIES[kind], island, *known, sex, random.integers(2007, 2010)))
    columns = (column.name for column in PALMER_FEATURES["measures"].columns)
    (raw / PALMER_NAME).write_bytes(table(rows, ("species", "island", *columns, "sex", "year")))


LABELLED = Source(
    title="Penguins, 334 of three species, their measures scaled to 0 to 1 (palmerpenguins, by way of TFX)",
    features=PROCESSED,
    read=read_processed,
    twin=twin_labelled,
    files=(
        File(
            url=f"https://storage.googleapis.com/download.tensorflow.org/data/palmer_penguins/{PROCESSED_NAME}",
            sha256="d9e034c8d8905e19b5528a9c195091ceba4b14df6c095c050d89c5f106dd50ba",
            size=25_648,
        ),
    ),
    licence="CC0",
    homepage=HOMEPAGE,
)
SKEWED = Source(
    title="Penguins with a fault, 334 of three species (palmerpenguins, by way of TFX)",
    features=PROCESSED,
    read=read_processed,
    twin=twin_skewed,
    files=(
        File(
            url=f"{TFX}/skewed/{PROCESSED_NAME}",
            sha256="5b32dd3b7c8c5e61c3079314ce0a360ee47f30b591c7910557a9fd629b69d858",
        ),
    ),
    licence="CC0",
    homepage=HOMEPAGE,
    note="Made to be found faulty: a measure that should lie between 0 and 1 is -1.",
)
PALMER = Source(
    title="Palmer penguins, 344 of three species, some measures missing (Horst, Hill and Gorman, 2020)",
    features=PALMER_FEATURES,
    read=read_palmer,
    twin=twin_palmer,
    files=(
        File(
            url="https://raw.githubusercontent.com/allisonhorst/palmerpenguins/"
            f"8957207b78d6ccd1b4654a9dd9c9041b657478ab/inst/extdata/{PALMER_NAME}",
            sha256="f204db2c753b0937caac3cb35258562c14f073e4bbc76be24b4c51ce22767a93",
            size=15_241,
        ),
    ),
    licence="CC0",
    homepage=HOMEPAGE,
    note="Each species has its islands: the island alone is right in 71 of 100.",
)
