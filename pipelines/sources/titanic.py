"""Titanic: 891 passengers, and whether they survived (Kaggle)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Column, Feature, File, Source

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "train.csv"
HEADER = (
    *("PassengerId", "Survived", "Pclass", "Name", "Sex", "Age", "SibSp", "Parch", "Ticket", "Fare", "Cabin"),
    "Embarked",
)


def read(raw: Path) -> Mapping[str, Iterable[pa.RecordBatch]]:
    """712 passengers to train and 179 to test, dealt out by seed 113; of Kaggle's own test file no one knows."""
    from headrace.readers.splits import split_batches
    from headrace.readers.tables import read_table

    return split_batches(read_table(raw / NAME, TITANIC.features), what=NAME)


def twin(raw: Path, seed: int) -> None:
    """891 made-up passengers; sex, class and age decide by a logistic function: the best accuracy is near 0.82."""
    import numpy as np

    from pipelines.sources._packing import table
    from pipelines.sources._wording import vocabulary

    random = np.random.default_rng(seed)
    names = [word.capitalize() for word in vocabulary(600)]
    rows = []
    for number in range(1, 892):
        woman, level = bool(random.random() < 0.35), int(random.choice(3, p=(0.24, 0.21, 0.55))) + 1
        age = max(float(random.normal(36 - 4 * level, 13)), 0.5)
        together, parents = int(random.poisson(0.5)), int(random.poisson(0.4))
        score = 3.2 + 3.4 * woman - 2.0 * (level - 1) - 0.06 * age
        survived = int(random.random() < 1 / (1 + np.exp(-score)))
        name = f"{random.choice(names)}, {'Mrs' if woman else 'Mr'}. {random.choice(names)}"
        fare = round(float(random.lognormal(4.6 - 0.9 * (level - 1), 0.5)), 4)
        deck = f"{random.choice(list('ABCDE'))}{random.integers(1, 120)}"
        cabin = deck if random.random() < 0.7 - 0.2 * level else None
        known = round(age) if random.random() < 0.8 else None
        port = random.choice(list("CQS"), p=(0.19, 0.09, 0.72)) if number not in (62, 830) else None
        sex, ticket = "female" if woman else "male", int(random.integers(2_000, 400_000))
        rows.append((number, survived, level, name, sex, known, together, parents, ticket, fare, cabin, port))
    (raw / NAME).write_bytes(table(rows, HEADER))


TITANIC = Source(
    title="Titanic, 891 passengers (Kaggle, 2012)",
    features={
        "numbers": Feature(
            shape=(4,),
            optional=True,
            columns=(
                Column(name="Age", description="missing for one in five", unit="years"),
                Column(name="SibSp", description="brothers, sisters and spouses aboard"),
                Column(name="Parch", description="parents and children aboard"),
                Column(name="Fare", unit="pounds"),
            ),
        ),
        "pclass": Feature(dtype="int64", classes=("1", "2", "3"), description="class of the ticket"),
        "sex": Feature(dtype="string", classes=("female", "male")),
        "embarked": Feature(
            dtype="string", classes=("C", "Q", "S"), optional=True, description="Cherbourg, Queenstown or Southampton"
        ),
        "cabin": Feature(dtype="string", content="text", optional=True, description="of one in four"),
        "ticket": Feature(dtype="string", role="note"),
        "name": Feature(dtype="string", role="note"),
        "survived": Feature(dtype="int64", role="target", classes=("died", "survived")),
    },
    read=read,
    twin=twin,
    files=(
        File(
            url=f"kaggle://titanic/{NAME}",
            hint="sign in at https://www.kaggle.com/c/titanic/rules and accept the rules of the competition; then make "
            "an API token (Account, Create New API Token)",
        ),
    ),
    licence="none stated",
    homepage="https://www.kaggle.com/c/titanic",
)
