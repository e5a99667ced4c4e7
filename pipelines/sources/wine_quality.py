"""Red wine: 1,599 wines of Portugal, their chemistry and how tasters judged them (Cortez et al., 2009)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Column, Feature, File, Source

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "winequality-red.csv"
COLUMNS = (
    Column(name="fixed acidity", unit="g/dm³ of tartaric acid"),
    Column(name="volatile acidity", unit="g/dm³ of acetic acid"),
    Column(name="citric acid", unit="g/dm³"),
    Column(name="residual sugar", unit="g/dm³"),
    Column(name="chlorides", unit="g/dm³ of sodium chloride"),
    Column(name="free sulfur dioxide", unit="mg/dm³"),
    Column(name="total sulfur dioxide", unit="mg/dm³"),
    Column(name="density", unit="g/cm³"),
    Column(name="pH"),
    Column(name="sulphates", unit="g/dm³ of potassium sulphate"),
    Column(name="alcohol", unit="% by volume"),
)


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """1,279 wines to train and 320 to test, dealt out by seed 113. The file has no header."""
    from headrace.readers.splits import split_batches
    from headrace.readers.tables import read_table

    names = [*(column.name for column in COLUMNS), "quality"]
    return split_batches(read_table(raw / NAME, WINE.features, names=names), what=NAME)


def twin(raw: Path, seed: int) -> None:
    """1,599 made-up wines; four columns and noise of 0.5 make the mark, which is rounded: the best MAE is near 0.40."""
    import numpy as np

    from pipelines.sources._packing import table

    random = np.random.default_rng(seed)
    means = np.array([8.3, 0.53, 0.27, 2.5, 0.087, 16, 46, 0.9967, 3.31, 0.66, 10.4])
    spreads = np.array([1.7, 0.18, 0.19, 1.4, 0.047, 10, 33, 0.0019, 0.15, 0.17, 1.07])
    deviations = random.normal(0, 1, (1_599, len(means)))
    quality = 5.6 + deviations[:, [1, 6, 9, 10]] @ [-0.35, -0.15, 0.3, 0.5] + random.normal(0, 0.5, 1_599)
    x = np.round(np.maximum(means + deviations * spreads, 0.01 * means), 5)
    rows = [(*row, int(np.clip(round(mark), 3, 8))) for row, mark in zip(x, quality, strict=True)]
    (raw / NAME).write_bytes(table(rows))


WINE = Source(
    title="Red wine, 1,599 of Portugal (Cortez, Cerdeira, Almeida, Matos and Reis, 2009)",
    features={
        "chemistry": Feature(shape=(11,), columns=COLUMNS),
        "quality": Feature(
            shape=(1,),
            role="target",
            columns=(Column(name="quality", description="the median of three tasters", unit="marks, 0 to 10"),),
        ),
    },
    read=read,
    twin=twin,
    files=(
        File(
            url=f"https://raw.githubusercontent.com/jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f/{NAME}",
            sha256="c9614512e980f1cbd221c796daa97f00c4898c3cd1716863abac60f6cd1a522e",
            size=84_028,
        ),
    ),
    licence="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/186/wine+quality",
    note="240 wines repeat an earlier one, so that some lie in both splits.",
)
