"""What TensorFlow Datasets needs to read our records, in its own words: `features.json` and `dataset_info.json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.spec import Feature

if TYPE_CHECKING:
    from headrace.records.inputs import Info
    from headrace.records.writing import Stored


def write_metadata(folder: Path, info: Info) -> None:
    """Write the files by which `tfds.builder_from_directory(folder)` reads finished records.

    Nothing is written for compressed records, which TensorFlow Datasets can't read. A split without examples is left
    out. Where examples are windows, what it reads is the rows that they are cut out of.

    Args:
        folder: The folder with all shards in place.
        info: What they hold. An example of TensorFlow Datasets has the same features, as we read them.
    """
    import tensorflow_datasets as tfds

    splits = {split: written for split, written in info.splits.items() if written.examples}
    if info.compression != "none" or not splits:
        return
    names = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        template="{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name=info.workload,
        filetype_suffix="tfrecord",
    )
    facts = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=list(written.lengths),
            num_bytes=written.bytes,
            filename_template=names.replace(split=split),
        )
        for split, written in splits.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features={name: _feature(feature, info.encodings[name]) for name, feature in info.rows.features.items()},
        split_infos=facts,
        version="1.0.0",
        filename_template=names,
        check_data=False,
        description=f"Records of {info.workload}, source {info.source} ({info.data} data).",
    )


def _feature(feature: Feature, encoding: Stored) -> Any:
    """What TensorFlow Datasets calls a feature that is stored as ours."""
    import numpy as np
    from tensorflow_datasets import features

    if encoding in ("png", "jpeg"):
        return features.Image(shape=feature.shape, encoding_format=encoding)
    if feature.classes and (feature.shape, feature.dtype) == ((), "int64"):
        return features.ClassLabel(names=list(feature.classes))
    if feature.kind == "text" and feature.shape == ():
        return features.Text()
    dtype = {"float32": np.float32, "int64": np.int64, "uint8": np.uint8, "string": np.object_}[feature.dtype]
    how = features.Encoding.BYTES if encoding == "raw" else features.Encoding.NONE
    return features.Tensor(shape=feature.shape, dtype=dtype, encoding=how)
