"""Small pictures of examples: images as they are, masks laid over them, series as lines. Equal data, equal bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.ragged import Array

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 96
"""Pixels of the longer side of a tile."""
GAP = 4
SHARP = 64
"""Originals up to this size are enlarged in whole steps and kept without loss; photographs become JPEG."""
QUALITY = 82

GREY = (128, 132, 140)
"""Between the tiles: visible on light and on dark paper."""
COLOURS = (
    *((31, 111, 178), (217, 115, 26), (26, 127, 75), (180, 35, 24), (124, 82, 173)),
    *((138, 97, 0), (214, 90, 160), (0, 140, 150), (110, 120, 30), (90, 90, 100)),
)
"""Of the classes of a mask in their order, but for the one that stays clear."""


# -------------------------------------------------------------------------------------------------- tiles


def tile(value: Array | bytes) -> Image:
    """One image as a small picture of three colours.

    Args:
        value: Pixels (height, width) or (height, width, channels), uint8 or numbers (up to 1, or up to 255; negative
            ones mean −1 to 1); or the bytes of an image file. A file that is no image becomes a crossed-out tile.
    """
    from PIL import Image

    image = _opened(value) if isinstance(value, bytes) else Image.fromarray(_pixels(value))
    if image is None:
        return _crossed_out()
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, image)
    return _fitted(image.convert("RGB"), Image.Resampling.LANCZOS)


def background(classes: Sequence[str]) -> int:
    """The class of a mask that stays clear: the one of that name, or else the first, which most often is it."""
    return next((number for number, name in enumerate(classes) if name.lower() == "background"), 0)


def overlay(value: Array | bytes | None, *masks: Array | bytes, clear: int = 0) -> Image:
    """An image beside itself under each mask, whose classes are coloured; the coloured masks if there is no image.

    Args:
        value: The image, as `tile` takes it.
        masks: The class of each pixel, as an array or as an image file.
        clear: The class that is not coloured.
    """
    from PIL import Image

    found = [classes for mask in masks if (classes := _classes(mask)) is not None]
    if len(found) < len(masks):
        return _crossed_out()
    plain = None if value is None else tile(value)
    parts = [] if plain is None else [plain]
    for classes in found:
        painted = Image.fromarray(np.array([GREY, *COLOURS], np.uint8)[_colours(classes, clear)])
        if plain is None:
            parts.append(_fitted(painted, Image.Resampling.NEAREST))
            continue
        painted = painted.resize(plain.size, Image.Resampling.NEAREST)
        bare = Image.fromarray((classes == clear).astype(np.uint8) * 255).resize(plain.size, Image.Resampling.NEAREST)
        parts.append(Image.composite(plain, Image.blend(plain, painted, 0.55), bare))
    row = Image.new("RGB", (sum(part.width for part in parts), parts[0].height), GREY)
    for place, part in enumerate(parts):
        row.paste(part, (sum(part.width for part in parts[:place]), 0))
    return row


def _colours(classes: Array, clear: int) -> Array:
    """The place of each pixel's colour: 0 for what stays clear."""
    return np.where(classes != clear, (classes - (classes > clear)) % len(COLOURS) + 1, 0)


def _opened(file: bytes) -> Image | None:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(file))
        # Read small at once where the format can: a photograph of 12 megapixels takes a tenth of the time.
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        image.load()
    except Exception:
        # What a damaged file raises is as various as the formats are.
        return None
    return image


def _pixels(values: Array) -> Array:
    """As bytes (height, width) or (height, width, 3 or 4)."""
    if values.ndim == 3 and values.shape[2] not in (3, 4):
        values = values[:, :, 0]
    if values.dtype != np.uint8:
        finite = np.nan_to_num(values.astype(np.float64))
        low, high = finite.min(initial=0), finite.max(initial=0)
        scaled = (finite + 1) * 127.5 if low < 0 else finite * 255 if high <= 1 else finite
        values = scaled.clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(values)


def _classes(mask: Array | bytes) -> Array | None:
    """The class of each pixel (height, width)."""
    if isinstance(mask, bytes):
        image = _opened(mask)
        # A palette's numbers are the classes; its colours mean nothing.
        return (
            None if image is None else np.asarray(image if image.mode in ("P", "L", "1") else image.convert("L"), int)
        )
    return mask.reshape(mask.shape[:2]).astype(int)


def _fitted(image: Image, smooth: int) -> Image:
    """Brought to the size of a tile: small ones enlarged in whole steps, large ones shrunk."""
    from PIL import Image as Images

    longer = max(image.size)
    if longer <= SHARP:
        factor = max(SIDE // longer, 1)
        return image.resize((image.width * factor, image.height * factor), Images.Resampling.NEAREST)
    size = (max(round(side * SIDE / longer), 1) for side in image.size)
    return image.resize(tuple(size), Images.Resampling(smooth))  # type: ignore[arg-type]


def _crossed_out() -> Image:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE, SIDE), GREY)
    draw = ImageDraw.Draw(image)
    for line in ((0, 0, SIDE, SIDE), (0, SIDE, SIDE, 0)):
        draw.line(line, fill=(180, 35, 24), width=3)
    return image


# ------------------------------------------------------------------------------------------------- sheets


@dataclass(frozen=True)
class Picture:
    """A picture as a file."""

    data: bytes
    suffix: str
    """`.png` or `.jpg`."""
    width: int
    height: int


def sheet(rows: Sequence[Sequence[Image]], sharp: bool) -> Picture:
    """Tiles as one picture, a line for each row, all lines equally high.

    Args:
        rows: The tiles; at least one.
        sharp: Whether to keep every pixel (PNG), as of digits and masks, or to save space (JPEG).
    """
    from PIL import Image

    width = max(max((tile.width for tile in row), default=1) for row in rows)
    height = max(max((tile.height for tile in row), default=1) for row in rows)
    columns = max(map(len, rows))
    whole = Image.new("RGB", (columns * (width + GAP) - GAP, len(rows) * (height + GAP)), GREY)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            left, top = (width - image.width) // 2, (height - image.height) // 2
            whole.paste(image, (x * (width + GAP) + left, y * (height + GAP) + GAP // 2 + top))
    buffer = io.BytesIO()
    if sharp:
        whole.save(buffer, "PNG", optimize=True)
    else:
        whole.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return Picture(buffer.getvalue(), ".png" if sharp else ".jpg", *whole.size)


def is_small(value: Array | bytes) -> bool:
    """Whether an image is so small that its sheet should keep every pixel."""
    if isinstance(value, bytes):
        image = _opened(value)
        return image is not None and image.format != "JPEG" and max(image.size) <= SHARP
    return max(value.shape[:2]) <= SHARP


# ------------------------------------------------------------------------------------------------- series

POINTS = 160
"""Points of a line; of a longer series every n-th step is drawn."""
LINES = 4
"""Channels that are drawn."""


def lines(series: Array) -> list[str]:
    """The channels of a series (steps, …) as lines of SVG in a box of 100 by 30, each in its own range.

    Returns:
        The `points` of a polyline for each channel, up to `LINES`; steps that are missing are left out.
    """
    steps = series.reshape(len(series), math.prod(series.shape[1:])).astype(np.float64)
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), POINTS)).round().astype(int))
    found = []
    for channel in steps[chosen].T[:LINES]:
        there = np.isfinite(channel)
        low, high = (channel[there].min(), channel[there].max()) if there.any() else (0.0, 0.0)
        x = chosen[there] / max(len(steps) - 1, 1) * 100
        y = 29 - (channel[there] - low) / (high - low) * 28 if high > low else np.full(there.sum(), 15.0)
        found.append(" ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)))
    return found
