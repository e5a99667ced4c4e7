"""Finished records, written without a workload."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.readers.batches import batches
from headrace.records.inputs import Info, write_info
from headrace.records.writing import stored, write
from headrace.spec import Feature, Records


def keep(
    folder: Path,
    layout: Mapping[str, Feature],
    kept: Records | None = None,
    rows: int | None = None,
    about: Mapping[str, str] | None = None,
    **splits: Mapping[str, Any],
) -> Info:
    """Write records as `preprocess` does.

    Args:
        folder: Made, if it is not there.
        layout: The features.
        kept: How they are stored.
        rows: Examples in the batches that are written.
        about: What the records say of their workload, source and data, where it matters.
        splits: Split → values of each feature.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = kept or Records()
    written = {split: write(folder, split, batches(values, rows), layout, kept) for split, values in splits.items()}
    names = {"workload": "toy", "source": "made", "data": "synthetic", **(about or {})}
    info = Info(**names, features=layout, splits=written, encodings=stored(layout, kept), compression=kept.compression)
    write_info(folder, info)
    return info
