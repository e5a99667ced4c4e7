"""Made-up pictures for the synthetic twins."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray[Any, Any]
Colour = tuple[int, ...]

_DIGITS = """
.###. ..#.. .###. .###. ...#. ##### .###. ##### .###. .###.
#...# .##.. #...# #...# ..##. #.... #.... ....# #...# #...#
#...# ..#.. ....# ....# .#.#. ####. #.... ...#. #...# #...#
#...# ..#.. ...#. ..##. #..#. ....# ####. ..#.. .###. .####
#...# ..#.. ..#.. ....# ##### ....# #...# ..#.. #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ....#
.###. .###. ##### .###. ...#. .###. .###. .#... .###. .###.
"""
"""The digits from 0 to 9, 7 rows of 5 dots."""


def digits(random: np.random.Generator, labels: Array, side: int = 28) -> Array:
    """Images of digits (examples, side, side), uint8, white on black: of changing size, place, slant and stroke."""
    rows = [line.split() for line in _DIGITS.split("\n") if line]
    glyphs = [
        Image.fromarray(np.array([[255 * (dot == "#") for dot in row[k]] for row in rows], np.uint8)) for k in range(10)
    ]
    images = np.empty((len(labels), side, side), np.uint8)
    for place, label in enumerate(labels):
        width, height = random.uniform(0.4, 0.6) * side, random.uniform(0.65, 0.8) * side
        left, top = (side - width) * random.uniform(0.3, 0.7), (side - height) * random.uniform(0.2, 0.8)
        slant = random.uniform(-0.2, 0.3)
        # From a place in the image to one in the glyph.
        across, down = 5 / width, 7 / height
        matrix = (across, across * slant, -across * (left + slant * (top + height / 2)), 0, down, -down * top)
        glyph = glyphs[label].transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        images[place] = np.clip(np.asarray(glyph) * random.uniform(0.9, 1.6) * (np.asarray(glyph) > 40), 0, 255)
    return images


def canvas(random: np.random.Generator, size: tuple[int, int], colour: Colour, noise: float = 12) -> Image.Image:
    """A background (width, height) of one colour with coarse noise."""
    width, height = size
    coarse = random.normal(0, noise, (height // 8 + 1, width // 8 + 1, 3)) + np.array(colour)
    small = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    return small.resize(size, Image.Resampling.BILINEAR)


def shade(random: np.random.Generator, colour: Colour, spread: int = 20) -> Colour:
    """A colour near another one."""
    return tuple(int(value) for value in np.clip(np.array(colour) + random.integers(-spread, spread + 1, 3), 0, 255))


def ellipse(image: Image.Image, centre: tuple[float, float], radii: tuple[float, float], colour: Any) -> None:
    """Draw a filled ellipse; centre and radii as (x, y) in pixels."""
    (x, y), (a, b) = centre, radii
    ImageDraw.Draw(image).ellipse((x - a, y - b, x + a, y + b), fill=colour)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return file.getvalue()


def pet(random: np.random.Generator, colour: Colour, *, pointed: bool) -> tuple[Image.Image, Image.Image]:
    """The head of a pet, its ears pointed (a cat's) or hanging (a dog's), and the mask of it.

    Returns:
        A photograph (RGB, sides of 90 to 160 pixels), and a mask (L) of the same size: 1 the pet, 2 the background, 3
        the contour, 7 pixels wide.
    """
    width, height = (int(side) for side in random.integers(90, 161, 2))
    photo = canvas(random, (width, height), shade(random, (110, 140, 110), 40))
    mask = Image.new("L", (width, height), 2)
    radius = min(width, height) * random.uniform(0.24, 0.3)
    x, y = width * random.uniform(0.42, 0.58), height * random.uniform(0.5, 0.6)
    fur = shade(random, colour)
    # The contour first, wider by its width; the pet is drawn over its inner part.
    for image, paint, more in ((mask, 3, 7.0), (mask, 1, 0.0), (photo, fur, 1.5)):
        draw = ImageDraw.Draw(image)
        ellipse(image, (x, y), (radius + more, radius + more), paint)
        for side in (-1, 1):
            if pointed:
                base, tip = y - 0.55 * radius, y - 1.6 * radius - more
                inner, outer = x + side * (0.1 * radius - more), x + side * (0.95 * radius + more)
                draw.polygon([(inner, base), (outer, base + more), (x + side * 0.75 * radius, tip)], fill=paint)
            else:
                ear = (0.3 * radius + more, 0.75 * radius + more)
                ellipse(image, (x + side * radius, y + 0.45 * radius), ear, paint)
    for side in (-1, 1):
        ellipse(photo, (x + side * 0.35 * radius, y - 0.2 * radius), (0.12 * radius, 0.12 * radius), (20, 20, 20))
    ellipse(photo, (x, y + 0.25 * radius), (0.15 * radius, 0.1 * radius), (60, 30, 30))
    return photo, mask


def flower(random: np.random.Generator, petals: int, colour: Colour, heart: Colour) -> Image.Image:
    """A flower of so many petals around a heart."""
    width, height = (int(side) for side in random.integers(90, 151, 2))
    image = canvas(random, (width, height), shade(random, (60, 120, 50), 30))
    radius = min(width, height) * random.uniform(0.3, 0.4)
    x, y, turn = width * random.uniform(0.45, 0.55), height * random.uniform(0.45, 0.55), random.uniform(0, 6.28)
    petal, inner = shade(random, colour), shade(random, heart)
    for k in range(petals):
        angle = turn + 2 * np.pi * k / petals
        wide = radius * min(0.4, 2.2 / petals)
        ellipse(image, (x + 0.6 * radius * np.cos(angle), y + 0.6 * radius * np.sin(angle)), (wide, wide), petal)
    ellipse(image, (x, y), (0.35 * radius, 0.35 * radius), inner)
    return image
