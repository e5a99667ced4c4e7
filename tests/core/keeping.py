"""Finished records, written without a workload."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.readers.batches import batches
from headrace.records.inputs import Info, write_info
from headrace.records.writing import stored, write
from headrace.spec import Feature, Records, Windows
from headrace.windows import counts, of_example


def keep(
    folder: Path,
    layout: Mapping[str, Feature],
    kept: Records | None = None,
    rows: int | None = None,
    about: Mapping[str, str] | None = None,
    windows: Windows | None = None,
    **splits: Mapping[str, Any],
) -> Info:
    """Write records as `preprocess` does.

    Args:
        folder: Made, if it is not there.
        layout: The features.
        kept: How they are stored.
        rows: Examples in the batches that are written.
        about: What the records say of their workload, source and data, where it matters.
        windows: How examples are cut out of the rows that are written.
        splits: Split → values of each feature.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = kept or Records()
    written = {split: write(folder, split, batches(values, rows), layout, kept) for split, values in splits.items()}
    names = {"workload": "toy", "source": "made", "data": "synthetic", **(about or {})}
    info = Info(
        **names,
        features={name: of_example(row, windows) for name, row in layout.items()} if windows else layout,
        splits=written,
        encodings=stored(layout, kept),
        compression=kept.compression,
        windows=windows,
        cut=counts(windows, {split: one.examples for split, one in written.items()}) if windows else {},
    )
    write_info(folder, info)
    return info
