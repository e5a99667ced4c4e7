"""Drawn faces whose looks are known numbers, and how these are found again in pictures of such faces."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray[Any, Any]

FACTORS = {
    "background": (20, 90),
    "skin": (140, 235),
    "hair": (15, 110),
    "width": (0.44, 0.72),
    "mouth": (0.03, 0.15),
}
"""What differs from face to face, each between two bounds and independent of the others: the brightness (0 to 255) of
background, skin and hair, and as shares of the picture the width of the face and the height of its open mouth."""

TINTS = {"background": (0.9, 1.0, 1.1), "skin": (1.08, 0.97, 0.95), "hair": (1.15, 1.0, 0.85)}
"""Red, green and blue of a brightness; their mean is 1."""

_OVER = 4
"""Pixels are drawn so many times smaller, and then averaged: edges are soft, and sizes not rounded."""


def factors(random: np.random.Generator, count: int) -> Array:
    """Looks that are drawn (count, 5), in the order of `FACTORS`."""
    low, high = np.array(list(FACTORS.values())).T
    return np.asarray(random.uniform(low, high, (count, len(FACTORS))))


def face(looks: Array, size: tuple[int, int] = (64, 64), *, grey: bool = False) -> Image.Image:
    """A face in the middle of a picture.

    Args:
        looks: One number for each of `FACTORS`.
        size: Width and height; the face takes the largest square in the middle.
        grey: Without colours.
    """
    background, skin, hair, width, mouth = (float(value) for value in looks)
    across, down = size
    side = min(size) * _OVER
    left, top = (across * _OVER - side) / 2, (down * _OVER - side) / 2
    image = Image.new("RGB", (across * _OVER, down * _OVER), _colour("background", background))
    draw = ImageDraw.Draw(image)

    def ellipse(x: float, y: float, a: float, b: float, colour: Any) -> None:
        box = (x - a, y - b, x + a, y + b)
        draw.ellipse([place * side + begin for place, begin in zip(box, (left, top) * 2, strict=True)], fill=colour)

    half = width / 2
    ellipse(0.5, 0.42, half * 1.1, 0.36, _colour("hair", hair))
    ellipse(0.5, 0.56, half, 0.38, _colour("skin", skin))
    for where in (-1, 1):
        ellipse(0.5 + where * 0.45 * half, 0.46, 0.2 * half, 0.04, (245, 245, 245))
        ellipse(0.5 + where * 0.45 * half, 0.46, 0.09 * half, 0.035, (30, 30, 40))
    ellipse(0.5, 0.76, 0.45 * half, mouth / 2, (70, 20, 20))
    image = image.resize(size, Image.Resampling.BOX)
    return image.convert("L") if grey else image


def _colour(part: str, brightness: float) -> tuple[int, ...]:
    return tuple(round(min(brightness * tint, 255)) for tint in TINTS[part])


def measured(images: Array) -> Array:
    """The looks of faces as they are found in their pictures (examples, 5), in the order of `FACTORS`.

    Brightnesses are means over places where nothing else is drawn; sizes are how much of a row or column is nearer to
    one brightness than to another one. Of pictures that show no such face they are numbers that mean little.

    Args:
        images: Squares (examples, side, side, channels), uint8.
    """
    pixels = images.astype(np.float64).mean(axis=-1)
    side = pixels.shape[1]

    def part(rows: tuple[float, float], columns: tuple[float, float]) -> Array:
        (top, bottom), (left, right) = (
            (round(a * side), max(round(b * side), round(a * side) + 1)) for a, b in (rows, columns)
        )
        return pixels[:, top:bottom, left:right]

    def mean(*place: tuple[float, float]) -> Array:
        return np.asarray(part(*place).mean(axis=(1, 2)))

    background = (mean((0.3, 0.9), (0.0, 0.08)) + mean((0.3, 0.9), (0.92, 1.0))) / 2
    skin, hair = mean((0.54, 0.64), (0.4, 0.6)), mean((0.09, 0.15), (0.45, 0.55))
    # Below the hair, between eyes and mouth; a pixel on the edge counts by how much of it is skin.
    row = part((0.58, 0.62), (0.0, 1.0)).mean(axis=1)
    width = _share(row, background, skin).mean(axis=1)
    column = part((0.66, 0.88), (0.47, 0.53)).mean(axis=2)
    dark = np.full(len(pixels), 110 / 3)
    mouth = _share(column, skin, dark).mean(axis=1) * column.shape[1] / side
    return np.stack([background, skin, hair, width, mouth], axis=1)


def _share(values: Array, none: Array, all_of_it: Array) -> Array:
    """How far each value lies on the way from one brightness to another, 0 to 1."""
    way = all_of_it - none
    return np.clip((values - none[:, None]) / np.where(np.abs(way) < 1, 1, way)[:, None], 0, 1)
