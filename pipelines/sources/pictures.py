"""Single pictures that are painted over: a coast, San Francisco, and the Starry Night; or any others of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import Feature, File, Source
from pipelines.sources import flowers

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from PIL import Image

    Splits = Mapping[str, Iterable[pa.RecordBatch]]

COAST, CITY, PAINTING = "coast.jpg", "sf.jpg", "starry_night.jpg"
ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
IMAGE = Feature(dtype="string", content="image", description="a picture of any size, in colour")
ONE = {"image": IMAGE, "file": Feature(dtype="string", role="note")}
PAIR = {
    "image": IMAGE,
    "painting": IMAGE.model_copy(update={"role": "note", "description": "the picture whose style is taken"}),
    "file": Feature(dtype="string", role="note"),
}


def read_coast(raw: Path) -> Splits:
    """The coast is dreamt of; San Francisco stands for what nobody has seen."""
    return {split: _batches([raw / name]) for split, name in (("train", COAST), ("test", CITY))}


def read_pair(raw: Path) -> Splits:
    """San Francisco is painted like the Starry Night; the coast stands for what nobody has painted."""
    files = {"train": CITY, "test": COAST}
    return {split: _batches([raw / name], raw / PAINTING) for split, name in files.items()}


def read_flowers(raw: Path) -> Splits:
    """Photographs of flowers, four fifths to train, each beside the Starry Night."""
    from headrace.readers.batches import Restartable

    painting = _content(raw / PAINTING)

    def beside(batches: Iterable[pa.RecordBatch]) -> Restartable:
        return Restartable(lambda: (_batch(b["image"].to_pylist(), b["file"].to_pylist(), painting) for b in batches))

    return {split: beside(batches) for split, batches in flowers.read(raw).items()}


def own_pictures(place: Path) -> Splits:
    """Pictures of one's own: a file, or a folder of files. Of a folder a fifth is dealt to the test split.

    A single picture is what is painted over, and what stands for others.
    """
    return _own(place, ONE)


def own_pair(place: Path) -> Splits:
    """A folder of pictures of one's own with a file `painting` among them: painting.jpg."""
    return _own(place, PAIR)


def _own(place: Path, features: Mapping[str, Feature]) -> Splits:
    from headrace.errors import DataError
    from headrace.readers.splits import deal

    files = sorted(place.iterdir()) if place.is_dir() else [place]
    files = [file for file in files if file.suffix.lower() in ENDINGS and not file.name.startswith(".")]
    paintings = [file for file in files if file.stem.lower() == "painting"] if features is PAIR else []
    photographs = [file for file in files if file not in paintings]
    if not photographs or (features is PAIR and not paintings):
        wanted = (
            "a folder of pictures and one called painting" if features is PAIR else "a picture, or a folder of them"
        )
        raise DataError(
            f"{place.name} holds no pictures that can be used.",
            expected=f"{wanted}; {', '.join(ENDINGS)}",
            received=", ".join(file.name for file in files[:5]) or "no pictures",
        )
    painting = paintings[0] if paintings else None
    if len(photographs) == 1:
        return dict.fromkeys(("train", "test"), _batches(photographs, painting))
    dealt = deal(len(photographs), what=place.name)
    return {split: _batches([photographs[k] for k in rows], painting) for split, rows in dealt.items()}


def _batches(files: Sequence[Path], painting: Path | None = None) -> Iterable[pa.RecordBatch]:
    """The batches of a split, a picture each, read when they are asked for."""
    from headrace.readers.batches import Restartable

    def read() -> Iterable[pa.RecordBatch]:
        beside = _content(painting) if painting else None
        for file in files:
            yield _batch([_content(file)], [file.name], beside)

    return Restartable(lambda: iter(read()))


def _content(file: Path) -> bytes:
    from headrace.errors import DataError

    content = file.read_bytes() if file.is_file() else b""
    if not content:
        raise DataError(f"{file.name} {'is empty' if file.is_file() else 'is missing'}.", expected="a picture")
    return content


def _batch(images: Sequence[bytes], names: Sequence[str | bytes], painting: bytes | None) -> pa.RecordBatch:
    import pyarrow as pa

    columns = {"image": images, **({"painting": [painting] * len(images)} if painting else {}), "file": names}
    return pa.RecordBatch.from_pydict({name: pa.array(values, pa.large_binary()) for name, values in columns.items()})


# ------------------------------------------------------------------------------------------------- the twins


def twin_coast(raw: Path, seed: int) -> None:
    """Two drawn landscapes, 240 × 180 pixels."""
    _draw(raw, seed, COAST, CITY)


def twin_pair(raw: Path, seed: int) -> None:
    """Two drawn landscapes, and strokes of a brush in whirls."""
    _draw(raw, seed, COAST, CITY, PAINTING)


def twin_flowers(raw: Path, seed: int) -> None:
    """50 drawn flowers, and strokes of a brush in whirls."""
    flowers.twin(raw, seed, each=10)
    _draw(raw, seed, PAINTING)


def _draw(raw: Path, seed: int, *names: str) -> None:
    import numpy as np

    from pipelines.sources._drawing import encoded

    for number, name in enumerate(names):
        random = np.random.default_rng([seed, number])
        (raw / name).write_bytes(encoded((strokes if name == PAINTING else landscape)(random, (240, 180))))


def landscape(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A sky with a sun, and ranges of hills before it, the nearer the darker; (width, height) in pixels."""
    import numpy as np
    from PIL import ImageDraw

    from pipelines.sources._drawing import canvas, ellipse, shade

    width, height = size
    image = canvas(random, size, shade(random, (150, 190, 230)), 8)
    sun = (width * random.uniform(0.2, 0.8), height * random.uniform(0.12, 0.3))
    ellipse(image, sun, (0.07 * height, 0.07 * height), (250, 235, 170))
    draw, across = ImageDraw.Draw(image), np.arange(width)
    for depth in range(4):
        waves = [random.uniform(0.01, 0.05) * np.sin(across * k / 40 + random.uniform(0, 6.28)) for k in (1, 2, 5)]
        ridge = height * (0.45 + 0.14 * depth + np.sum(waves, axis=0))
        colour = shade(random, (140 - 30 * depth, 160 - 25 * depth, 120 - 22 * depth), 12)
        points = zip(across.tolist(), ridge.tolist(), strict=True)
        draw.polygon([(0, height), *points, (width, height)], fill=colour)
    return image


def strokes(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Short strokes of blue and yellow that follow whirls, as in a painting; (width, height) in pixels."""
    import numpy as np
    from PIL import ImageDraw

    from pipelines.sources._drawing import canvas, shade

    width, height = size
    image = canvas(random, size, (40, 60, 120), 20)
    draw = ImageDraw.Draw(image)
    whirls = random.uniform((0, 0), (width, height), (4, 2))
    palette = ((30, 50, 130), (70, 110, 190), (120, 160, 210), (235, 205, 90), (20, 30, 70))
    for _ in range(width * height // 25):
        x, y = random.uniform((0, 0), (width, height))
        away = np.array([x, y]) - whirls
        # Around each whirl, the nearer the stronger.
        pull = (away[:, ::-1] * (-1, 1) / (np.square(away).sum(axis=1, keepdims=True) + 100)).sum(axis=0)
        dx, dy = pull / (np.linalg.norm(pull) + 1e-9) * random.uniform(4, 9)
        colour = shade(random, palette[random.integers(len(palette))])
        draw.line([(x - dx, y - dy), (x + dx, y + dy)], fill=colour, width=2)
    return image


# ----------------------------------------------------------------------------------------------- the sources

_ADDRESS = "https://img-datasets.s3.amazonaws.com"
_PAGE = "https://github.com/fchollet/deep-learning-with-python-notebooks"
_LICENCE = "none stated for the photographs; the painting (van Gogh, 1889) is in the public domain"

COAST_PICTURE = Source(
    title="A photograph of a coast (Chollet)",
    features=ONE,
    read=read_coast,
    own=own_pictures,
    twin=twin_coast,
    files=tuple(File(url=f"{_ADDRESS}/{name}") for name in (COAST, CITY)),
    licence=_LICENCE,
    homepage=_PAGE,
)
PICTURES = Source(
    title="A photograph of San Francisco (Chollet) and the Starry Night (van Gogh, 1889)",
    features=PAIR,
    read=read_pair,
    own=own_pair,
    twin=twin_pair,
    files=tuple(File(url=f"{_ADDRESS}/{name}") for name in (CITY, COAST, PAINTING)),
    licence=_LICENCE,
    homepage=_PAGE,
)
FLOWERS_AND_PAINTING = Source(
    title="Photographs of flowers (The TensorFlow Team, 2019) and the Starry Night (van Gogh, 1889)",
    features=PAIR,
    read=read_flowers,
    own=own_pair,
    twin=twin_flowers,
    files=(*flowers.FLOWERS.files, File(url=f"{_ADDRESS}/{PAINTING}")),
    quarantine=flowers.FLOWERS.quarantine,
    licence=f"the flowers: {flowers.FLOWERS.licence}",
    homepage=flowers.FLOWERS.homepage,
)
