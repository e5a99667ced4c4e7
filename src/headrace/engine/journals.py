"""What a training writes for people while it goes on: metrics, TensorBoard's logs, samples."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.artifacts import write_atomically
from headrace.spec import Feature

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moment:
    """What a workload's `sample` function is given beside the model."""

    epoch: int
    """Epochs done."""
    seed: int
    """Another one for each epoch."""
    examples: Mapping[str, Any]
    """The first examples of the training split, by the names of features; weights and notes left out."""
    features: Mapping[str, Feature]
    learned: Mapping[str, Any] = field(default_factory=dict)
    """What the workload's `learn` gave: a vocabulary, for instance."""


class Journal:
    """Writes `metrics.jsonl`, TensorBoard's `logs/` and `samples/`; what another attempt has written is replaced.

    Args:
        folder: Where all that goes.
        model: A model whose structure TensorBoard shall draw, or None.
        kept: Where samples outlive this attempt: a model that was trained further can't give those of earlier epochs.
    """

    def __init__(self, folder: Path, model: keras.Model | None = None, kept: Path | None = None) -> None:
        self._folder, self._kept = folder, kept
        shutil.rmtree(folder / "logs", ignore_errors=True)
        if kept and kept.is_dir():
            shutil.copytree(kept, folder / "samples", ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
        self._lines = (folder / "metrics.jsonl").open("w")
        self._events: dict[str, tf.io.TFRecordWriter] = {}
        if model is not None:
            self._draw(model)

    def write(self, history: Mapping[str, list[float]], first: int, last: int) -> None:
        """Write the epochs from `first` (counted from 0) to before `last`."""
        from tensorflow.core.framework.summary_pb2 import Summary

        for epoch in range(first, last):
            row = {name: values[epoch] for name, values in history.items()}
            self._lines.write(json.dumps({"epoch": epoch + 1, "time": round(time.time(), 3), **row}) + "\n")
            # The tags and folders of `keras.callbacks.TensorBoard`, so that both can be laid over each other.
            for side, prefix in (("train", ""), ("validation", "val_")):
                values = [
                    Summary.Value(tag=f"epoch_{name.removeprefix('val_')}", simple_value=value)
                    for name, value in row.items()
                    if name.startswith("val_") == bool(prefix)
                ]
                if values:
                    self._event(side, step=epoch, summary=Summary(value=values))
        self._lines.flush()
        for writer in self._events.values():
            writer.flush()

    def samples(self, found: Mapping[str, Any], epoch: int) -> None:
        """Keep images (height, width[, channels]; uint8, or floats from 0 to 1) and texts, as files and in the logs."""
        from tensorflow.core.framework.summary_pb2 import Summary

        for name, value in found.items():
            # A name may hold a dot, as "temperature 0.5" does: it is no suffix.
            kind = "txt" if isinstance(value, str) else "png"
            path = self._folder / "samples" / f"{epoch:05d}-{name}.{kind}"
            path.parent.mkdir(exist_ok=True)
            if isinstance(value, str):
                path.write_text(value, encoding="utf-8")
                summary = Summary.Value(tag=name, metadata=_plugin("text"), tensor=_strings([value]))
            else:
                pixels = np.asarray(value)
                png, (height, width) = to_png(pixels), pixels.shape[:2]
                path.write_bytes(png)
                image = Summary.Image(height=height, width=width, encoded_image_string=png)
                summary = Summary.Value(tag=name, image=image)
            self._event("train", step=epoch - 1, summary=Summary(value=[summary]))
            if self._kept:
                write_atomically(self._kept / path.name, path.read_bytes())

    def _draw(self, model: keras.Model) -> None:
        """The structure of the model, as TensorBoard's page of graphs reads it."""
        from tensorflow.core.framework.summary_pb2 import Summary

        try:
            description = model.to_json()
        except Exception:
            log.debug("%s can't be described as JSON: TensorBoard will not draw it", model.name)
            return
        value = Summary.Value(tag="keras", metadata=_plugin("graph_keras_model", b"1"), tensor=_strings([description]))
        self._event("train", step=0, summary=Summary(value=[value]))

    def _event(self, side: str, **fields: Any) -> None:
        import tensorflow as tf
        from tensorflow.core.util.event_pb2 import Event

        if side not in self._events:
            (self._folder / "logs" / side).mkdir(parents=True)
            path = self._folder / "logs" / side / f"events.out.tfevents.{int(time.time())}.headrace"
            self._events[side] = tf.io.TFRecordWriter(str(path))
            self._events[side].write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        self._events[side].write(Event(wall_time=time.time(), **fields).SerializeToString())

    def close(self) -> None:
        """Finish the files."""
        self._lines.close()
        for writer in self._events.values():
            writer.close()


def _plugin(name: str, content: bytes = b"") -> Any:
    from tensorflow.core.framework.summary_pb2 import SummaryMetadata

    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=name, content=content))


def _strings(values: list[str]) -> Any:
    import tensorflow as tf

    return tf.make_tensor_proto(values, tf.string)


def to_png(pixels: Any) -> bytes:
    """An image file of an array (height, width) or (height, width, channels)."""
    import io

    from PIL import Image

    if pixels.dtype != np.uint8:
        pixels = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()
