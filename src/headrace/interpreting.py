"""What a published image model sees: activations, patterns of filters and heat maps, as figures and as one page.

A model is a version of the registry, a backbone with ImageNet's weights, or a `.keras` file. Nothing is trained; what
is found is a finished folder like that of any stage, and is found again as long as model, images and request stay.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import fingerprints
from headrace.artifacts import Place, close, read_json, room, system_errors, write_json
from headrace.console import progress
from headrace.showing import pages

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from headrace.looking.pictures import Picture
    from headrace.seeing.activations import Activation
    from headrace.seeing.networks import Network
    from headrace.seeing.patterns import Pattern
    from headrace.seeing.subjects import Example, Subject

    Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)

FIGURES, PAGE = "interpretation.json", "interpretation.html"
CHANNELS = 64
"""Channels of a layer that are drawn; all of them are measured."""
SIDE, ROW = 48, 16
"""Pixels of a drawn channel, and how many stand in a row."""
LAYERS = 3
"""Convolutions whose filters' patterns are made, from the first to the last, where none is named."""


@dataclass(frozen=True)
class Request:
    """What is to be looked at."""

    model: str
    """`LINE`, `LINE@VERSION`, `backbone:NAME`, or the path of a `.keras` file."""
    input: Path | None = None
    """An image, or a folder of images; default: the test examples that were recorded with the version."""
    layers: tuple[str, ...] = ()
    """Whose activations and patterns are shown; default: the activations of every convolution and pooling, and the
    patterns of three convolutions."""
    map_layer: str | None = None
    """Whose maps a heat map weights; default: the last one that has places, and is no pooling."""
    images: int = 4
    """Images at most."""
    filters: int = 16
    """Patterns of each layer, of its first filters; none with 0."""
    top: int = 3
    """Classes of each image."""
    seed: int = 0
    """Of the noise that patterns begin with."""


def interpret(request: Request) -> dict[str, Any]:
    """Look into a model, or find what was found before.

    Writes `interpretation.json` and `interpretation.html` into
    `$HEADRACE_HOME/artifacts/<line>/interpret/<key>/`.

    Returns:
        model, state (`run` or `skipped`), path, page, and the figures.

    Raises:
        ConfigError: There is no such model, image or layer, or the model takes no image, or has no convolution.
        DataError: The model or an image is damaged, or weights can't be had.
    """
    from headrace.seeing import subjects

    subject = subjects.subject(request.model)
    examples = subjects.images(request.input, request.images) if request.input else []
    place = Place(subject.folder, "interpret", fingerprints.digest(_ingredients(request, subject, examples))[:20])
    state = "skipped"
    manifest, _ = place.find()
    if not manifest:
        state = "run"
        with room(place) as (output, scratch), system_errors(f"interpreting {subject.title}"):
            begun = time.perf_counter()
            _write(request, subject, examples, output)
            made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            close(output, {"node": "interpret", "made": made, "seconds": round(time.perf_counter() - begun, 3)})
            place.publish(output)
            shutil.rmtree(scratch, ignore_errors=True)
    page = place.finished / PAGE
    log.info("%s: %s", subject.title, page)
    return {
        "model": subject.title,
        "state": state,
        "path": str(place.finished),
        "page": str(page),
        **(read_json(place.finished / FIGURES) or {}),
    }


def _ingredients(request: Request, subject: Subject, examples: Sequence[Example]) -> dict[str, Any]:
    """Everything that the result depends on."""
    asked = {name: value for name, value in asdict(request).items() if name not in ("model", "input")}
    return {
        "request": asked,
        "model": [subject.title, subject.digest],
        "images": [[example.name, fingerprints.digest(example.raw.hex())] for example in examples],
        "core": fingerprints.core_code(__name__),
        "look": pages.look(),
        "versions": fingerprints.versions("tensorflow", "keras", "numpy", "matplotlib", "pillow"),
    }


def _write(request: Request, subject: Subject, examples: Sequence[Example], output: Path) -> None:
    """Fill the folder."""
    import numpy as np

    from headrace.seeing.networks import Network

    model = subject.load()
    examples = examples or subject.examples()[: request.images]
    given = (getattr(model, "inputs", None) or [None])[0]
    pixels = None
    if examples and given is not None and len(given.shape) == 4:
        pixels = np.asarray(subject.prepare(examples, given), np.float32)
    span = subject.span
    if span is None and pixels is not None and np.dtype(given.dtype).kind == "f":
        span = (float(pixels.min()), float(pixels.max()))
    network = Network(model, subject.title, span)
    made = _Interpretation(request, subject, network, examples, pixels)
    figures, sections = made.found()
    write_json(output / FIGURES, figures)
    text = pages.render(
        "interpretation.html.j2", title=subject.title, figures=figures, sections=sections, channels=CHANNELS
    )
    (output / PAGE).write_text(text, encoding="utf-8")


class _Interpretation:
    """One look into a network."""

    def __init__(
        self,
        request: Request,
        subject: Subject,
        network: Network,
        examples: Sequence[Example],
        pixels: Array | None,
    ) -> None:
        self.request, self.subject, self.network = request, subject, network
        self.examples, self.pixels = examples, pixels
        for path in request.layers:
            network.known(path)
        if request.map_layer:
            network.known(request.map_layer)

    def found(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The figures, and the pictures of the page by what they show."""
        layers, shown = self._activations()
        images, maps, refused = self._heat_maps()
        patterns, drawn = self._patterns()
        figures = {
            "images": images,
            "no_heat_maps": refused,
            "layers": layers,
            "patterns": patterns,
        }
        return figures, {"activations": shown, "heat_maps": maps, "patterns": drawn}

    def _picture(self, row: int) -> Array:
        """An image as the model gets it, as pixels of 0 to 255."""
        import numpy as np

        assert self.pixels is not None  # noqa: S101 (asked for where there are images only)
        low, high = self.network.span
        pixels: Array = ((self.pixels[row] - low) / max(high - low, 1e-9) * 255).clip(0, 255).astype(np.uint8)
        return pixels

    # ------------------------------------------------------------------------------------------- activations

    def _activations(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What each layer answers: figures over all images, and the channels for the first image."""
        from headrace.seeing.activations import activations

        if self.pixels is None:
            return [self._layer(seen.path, []) for seen in self.network.maps("convolution", "pooling")], []
        import tensorflow as tf

        each = [
            activations(self.network, tf.constant(self.pixels[row : row + 1]), self.request.layers)
            for row in range(len(self.pixels))
        ]
        layers = [self._layer(of_layer[0].layer.path, of_layer) for of_layer in zip(*each, strict=True)]
        shown = [
            {
                "path": one.layer.path,
                "picture": channels(one.maps),
                "words": f"{min(one.maps.shape[2], CHANNELS)} of {one.maps.shape[2]} channels, "
                f"{one.maps.shape[0]} × {one.maps.shape[1]}",
            }
            for one in each[0]
        ]
        return layers, shown

    def _layer(self, path: str, found: Sequence[Activation]) -> dict[str, Any]:
        seen = self.network.layers[path]
        return {
            "path": path,
            "kind": seen.kind,
            "shape": list(seen.shape),
            "zeros": sum(one.zeros for one in found) / len(found) if found else None,
            "silent": sum(one.silent for one in found) / len(found) if found else None,
        }

    # --------------------------------------------------------------------------------------------- heat maps

    def _heat_maps(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
        """The likeliest classes of each image, what speaks for them, and why that is not told if it isn't."""
        from headrace.seeing import heatmaps

        if self.pixels is None:
            return [], [], "no image was given, and none came with the model"
        refused = heatmaps.why_not(self.network)
        if self.subject.task in ("regression", "forecasting"):
            refused = f"it answers with numbers ({self.subject.task}), not with classes"
        if refused:
            return [{"name": example.name} for example in self.examples], [], refused
        import tensorflow as tf

        names = self.subject.classes()
        layer = self.network.known(self.request.map_layer) if self.request.map_layer else None
        layer = layer or heatmaps.last_map(self.network)
        figures, shown = [], []
        for row, example in enumerate(self.examples):
            image, picture = tf.constant(self.pixels[row : row + 1]), self._picture(row)
            found = heatmaps.heat_maps(self.network, image, top=self.request.top, path=layer.path)
            classes = [
                {
                    "class": names[one.number] if one.number < len(names) else str(one.number),
                    "number": one.number,
                    "score": one.score,
                    "peak": list(one.peak((picture.shape[0], picture.shape[1]))),
                }
                for one in found
            ]
            figures.append({"name": example.name, "layer": layer.path, "classes": classes})
            tiles = [_framed(picture), *(_framed(heatmaps.overlaid(picture, one.map)) for one in found)]
            shown.append({"name": example.name, "classes": classes, "picture": _sheet([tiles], picture)})
        return figures, shown, ""

    # ---------------------------------------------------------------------------------------------- patterns

    def _patterns(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Images that filters answer strongly to."""
        from headrace.seeing.patterns import patterns

        figures: list[dict[str, Any]] = []
        shown: list[dict[str, Any]] = []
        paths = self._chosen() if self.request.filters else []
        with progress("patterns", len(paths)) as advance:
            for place, path in enumerate(paths, 1):
                count = min(self.network.known(path).shape[2], self.request.filters)
                found = patterns(self.network, path, range(count), seed=self.request.seed)
                figures.append(_raised(found))
                rows = [found[start : start + 8] for start in range(0, len(found), 8)]
                tiles = [[_framed(one.image) for one in row] for row in rows]
                shown.append({**_raised(found), "picture": _sheet(tiles, found[0].image)})
                advance(place, path)
        return figures, shown

    def _chosen(self) -> list[str]:
        """The layers whose filters are asked."""
        import numpy as np

        if self.request.layers:
            named = [self.network.known(path) for path in self.request.layers]
            return [seen.path for seen in named if seen.is_map and seen.kind == "convolution"]
        all_of_them = self.network.maps("convolution")
        places = np.linspace(0, len(all_of_them) - 1, min(LAYERS, len(all_of_them))).round().astype(int)
        return [all_of_them[place].path for place in places]


def _raised(found: Sequence[Pattern]) -> dict[str, Any]:
    """Figures of the patterns of a layer."""
    return {
        "path": found[0].path,
        "raised": sum(one.raised for one in found),
        "filters": [
            {
                "filter": one.filter,
                "start": one.start,
                "end": one.end,
                "ratio": one.ratio,
                "iterations": one.iterations,
                "raised": one.raised,
            }
            for one in found
        ],
    }


def channels(maps: Array) -> Picture:
    """The channels of a layer (height, width, channels) side by side, 16 in a row, up to `CHANNELS`."""
    from PIL import Image

    from headrace.looking.pictures import sheet
    from headrace.seeing.activations import visible

    grey = visible(maps)
    height, width = grey.shape[:2]
    longer = max(height, width)
    size = (max(width * SIDE // longer, 1), max(height * SIDE // longer, 1))
    how = Image.Resampling.NEAREST if longer <= SIDE else Image.Resampling.LANCZOS
    tiles: list[Any] = [
        Image.fromarray(grey[..., channel]).resize(size, how).convert("RGB")
        for channel in range(min(grey.shape[2], CHANNELS))
    ]
    return sheet([tiles[start : start + ROW] for start in range(0, len(tiles), ROW)], sharp=False)


def _framed(pixels: Array) -> Image:
    """A picture in about its own size: small ones enlarged in whole steps, large ones shrunk."""
    from PIL import Image as Images

    image = Images.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]).convert("RGB")
    longer = max(image.size)
    if longer * 2 <= 160:
        factor = 160 // longer
        return image.resize((image.width * factor, image.height * factor), Images.Resampling.NEAREST)
    size = (max(image.width * 160 // longer, 1), max(image.height * 160 // longer, 1))
    return image.resize(size, Images.Resampling.LANCZOS)


def _sheet(rows: Sequence[Sequence[Image]], original: Array) -> Picture:
    from headrace.looking.pictures import is_small, sheet

    return sheet(rows, sharp=is_small(original))
