"""What a split looks like in numbers: one streaming pass over Arrow batches, mergeable over parts of the data."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.describing.described import (
    ARRAYS,
    POSITIONS,
    Aligned,
    FeatureStatistics,
    Statistics,
    aligned,
    position_names,
    positions,
    series_names,
)
from headrace.describing.distributions import Array, Column, Distribution, Series, distinct, summed
from headrace.describing.tallies import Counter, Tally
from headrace.placing.dividing import divided, in_threads, processors
from headrace.spec import Feature

__all__ = [
    "Aligned",
    "Distribution",
    "FeatureStatistics",
    "Series",
    "Statistics",
    "Summary",
    "Tally",
    "aligned",
    "position_names",
    "summarise",
]

Job = Callable[[], None]

ALL_BINS, MOST_BINS, LEAST_BINS = 2**20, 2**15, 2**12
"""Distinct numbers that are told apart at all positions of all features together (12 MB), and at most and at least at
one of them."""
ALL_VALUES, MOST_VALUES, LEAST_VALUES = 2**18, 2**14, 2**10
"""Distinct strings that are counted exactly (numbers of classes and tokens: 8 times as many): in all tallies together,
and at most and at least in one of them."""
CHUNK = 16 * 2**20
"""Bytes of batches that are counted at once: large enough that sorting them in is worth its while."""
ROWS = 2**17
"""… and rows."""
PIXELS = 64
"""Image files whose pixels are looked at."""
SIDE = 512
"""Image files that are larger are looked at in a reduced size, where their format can do that."""
HASHED = 2**15
"""Strings that are counted at once: as long as they stay in the processor's cache, this takes half the time."""
LAST_ASCII = 127
"""The last byte that is a character by itself."""
BLOCK = 2**20
"""Numbers that are held in double precision at once."""


# ------------------------------------------------------------------------------------------ one kind each


class _Part:
    """What is known so far of a feature of any kind.

    Args:
        name: The feature's.
        feature: Its declaration.
        like: Statistics of a reference, in whose places everything is counted.
    """

    def __init__(self, name: str, feature: Feature, like: FeatureStatistics | None) -> None:
        self.name, self.feature, self.like = name, feature, like
        self.rows = self.absent = self.empty = self.broken = 0
        self.columns: list[Column] = []
        self.counters: list[Counter] = []
        self.extra: dict[str, Counter] = {}
        self.measures: dict[str, Column] = {"length": self.measure("length")} if feature.ragged else {}

    def measure(self, name: str) -> Column:
        """A list of whole numbers, one for every example or string."""
        return Column("int64", LEAST_BINS, self.like.measures[name].distribution if self.like else None)

    def jobs(self, column: pa.Array) -> list[Job]:
        """Take in the next examples. The jobs that are given back do the work; they don't get in each other's way."""
        self.rows += len(column)
        self.absent += column.null_count
        if not _is_list(column.type):
            return self.count(column)
        if self.feature.ragged:
            lengths = pc.list_value_length(column).drop_null().to_numpy()
            self.measures["length"].add(lengths // self.feature.size)
        # What is null altogether has no values.
        return self.count(column.flatten())

    def count(self, values: pa.Array) -> list[Job]:
        """As `jobs`, of the values one after the other."""
        raise NotImplementedError

    def merge(self, other: _Part) -> None:
        """Take in what another part, begun alike, has taken in."""
        for name in ("rows", "absent", "empty", "broken"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in zip(self.columns, other.columns, strict=True):
            mine.merge(theirs)
        for counter, its in zip(self.counters, other.counters, strict=True):
            counter.merge(its)
        for name, counter in self.extra.items():
            counter.merge(other.extra[name])
        for name, measure in self.measures.items():
            measure.merge(other.measures[name])

    def finish(self) -> FeatureStatistics:
        """The statistics of all that was taken in."""
        tallies: dict[str, Any] = {name: counter.finish() for name, counter in self.extra.items()}
        return FeatureStatistics(
            kind=self.feature.kind,
            dtype=self.feature.dtype,
            shape=self.feature.shape,
            rows=self.rows,
            absent=self.absent,
            tallies=tuple(counter.finish() for counter in self.counters),
            measures={name: measure.finish() for name, measure in self.measures.items()},
            empty=self.empty,
            broken=self.broken,
            **tallies,
            **self.numbers(),
        )

    def numbers(self) -> dict[str, Any]:
        """The names and arrays of `FeatureStatistics`."""
        raise NotImplementedError


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _known(feature: Feature, tally: Tally | None) -> list[str]:
    """The values whose counts are asked for: the declared classes, and what a reference lists."""
    listed = tally.counts if tally else {}
    # What could not be written as text, or was cut, is found under no name again.
    return list(dict.fromkeys([*feature.classes, *(v for v in listed if "\ufffd" not in v and len(v.encode()) < 256)]))


class _Numbers(_Part):
    """Numbers, classes, tokens, and images as arrays of pixels."""

    def __init__(self, name: str, feature: Feature, like: FeatureStatistics | None, *, bins: int, values: int) -> None:
        super().__init__(name, feature, like)
        self.shape = positions(feature)
        self.size = math.prod(self.shape)
        self.moments = _Moments(self.size) if self.size > POSITIONS else None
        edges = like.distributions if like else (None,) * self.size
        self.columns = [Column(feature.dtype, bins, edges[i]) for i in range(1 if self.moments else self.size)]
        if feature.kind in ("category", "tokens", "mask"):
            tallies = len(self.columns) if feature.columns and not self.moments else 1
            self.counters = [self._counter(values, like.tallies[i] if like else None) for i in range(tallies)]
        if feature.kind == "mask":
            self.extra = {"examples": self._counter(values, like.examples if like else None)}

    def _counter(self, most: int, like: Tally | None) -> Counter:
        # Numbers take less room than strings.
        most *= 8
        number = {name: value for value, name in enumerate(self.feature.classes)}
        known = [number[text] if text in number else int(text) for text in _known(self.feature, like)]
        return Counter(most, known, self.feature.classes)

    def count(self, values: pa.Array) -> list[Job]:
        table = values.to_numpy(zero_copy_only=False).reshape(-1, self.size)
        jobs: list[Job] = [partial(self.moments.add, table)] if self.moments else []
        if len(self.columns) == len(self.counters) or not self.counters:
            each = [table.reshape(-1)] if self.moments else list(table.T)
            jobs += [partial(self._column, position, column) for position, column in enumerate(each)]
        else:
            jobs += [partial(self.columns[i].add, column) for i, column in enumerate(table.T)]
            jobs.append(lambda: self._tally(0, *distinct(table.reshape(-1))))
        if "examples" in self.extra:
            jobs.append(lambda: self._examples(table))
        return jobs

    def _column(self, position: int, values: Array) -> None:
        if not self.counters:
            self.columns[position].add(values)
            return
        found, counts = distinct(values)
        self.columns[position].take(found, counts, missing=len(values) - int(counts.sum()))
        self._tally(position, found, counts)

    def _tally(self, position: int, values: Array, counts: Array) -> None:
        # A class that may be missing is written as a float.
        whole = values == np.floor(values)
        self.counters[position].take(pa.array(values[whole].astype(np.int64)), counts[whole])

    def _examples(self, table: Array) -> None:
        """Count in how many masks each class (0 to 255) occurs."""
        masks = table.reshape(-1, self.feature.size)
        found = np.zeros(256, np.int64)
        step = max(BLOCK // self.feature.size, 1)
        for start in range(0, len(masks), step):
            block = masks[start : start + step]
            keys = np.where((block >= 0) & (block < 256), block, 256).astype(np.int64)
            keys += np.arange(len(block))[:, None] * 257
            there = np.bincount(keys.reshape(-1), minlength=len(block) * 257).reshape(-1, 257) > 0
            found += there[:, :256].sum(axis=0)
        classes = np.flatnonzero(found)
        self.extra["examples"].take(pa.array(classes), found[classes])

    def merge(self, other: _Part) -> None:
        super().merge(other)
        if self.moments:
            self.moments.merge(other.moments)  # type: ignore[attr-defined]  # both parts were begun alike

    def numbers(self) -> dict[str, Any]:
        series = [column.finish() for column in self.columns]
        if self.moments:
            arrays = self.moments.finish()
        else:
            arrays = {name: np.array([getattr(s, name) for s in series]).reshape(self.shape) for name in ARRAYS}
        if self.feature.shape:
            # The values of an example that is null altogether are missing, as many as there would have been.
            arrays["missing"] = arrays["missing"] + self.absent * (self.feature.size // self.size)
        return {
            "names": series_names(self.name, self.feature),
            **arrays,
            "distributions": tuple(s.distribution for s in series),
        }


class _Moments:
    """Moments and extremes of vectors with more positions than can have distributions of their own."""

    def __init__(self, size: int) -> None:
        self._count, self._missing, self._zeros = (np.zeros(size, np.int64) for _ in range(3))
        self._mean, self._squares = np.zeros(size), np.zeros(size)
        self._minimum, self._maximum = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, table: Array) -> None:
        """Take in the next examples (rows, size)."""
        step = max(BLOCK // table.shape[1], 1)
        for start in range(0, len(table), step):
            exact = table[start : start + step].astype(np.float64)
            there = np.isfinite(exact)
            count = there.sum(axis=0)
            known = np.where(there, exact, 0)
            mean = known.sum(axis=0) / np.maximum(count, 1)
            squares = (np.where(there, known - mean, 0) ** 2).sum(axis=0)
            self._missing += len(exact) - count
            self._zeros += (exact == 0).sum(axis=0)
            least, most = (np.where(there, exact, end) for end in (np.inf, -np.inf))
            self._take(count, mean, squares, least.min(axis=0), most.max(axis=0))

    def merge(self, other: _Moments) -> None:
        """Take in what another part has taken in."""
        self._missing += other._missing
        self._zeros += other._zeros
        self._take(other._count, other._mean, other._squares, other._minimum, other._maximum)

    def _take(self, count: Array, mean: Array, squares: Array, minimum: Array, maximum: Array) -> None:
        # As `Column`, of many at once.
        total = self._count + count
        share = count / np.maximum(total, 1)
        apart = mean - self._mean
        self._squares = self._squares + squares + apart**2 * self._count * share
        self._mean = self._mean + apart * share
        self._count = total
        self._minimum = np.minimum(self._minimum, minimum)
        self._maximum = np.maximum(self._maximum, maximum)

    def finish(self) -> dict[str, Array]:
        """The arrays of `FeatureStatistics`."""
        known = self._count > 0
        std = np.where(self._minimum < self._maximum, np.sqrt(self._squares / np.maximum(self._count, 1)), 0)
        floats = {"mean": self._mean, "std": std, "minimum": self._minimum, "maximum": self._maximum}
        return {
            "count": self._count,
            "missing": self._missing,
            "zeros": self._zeros,
            **{name: np.where(known, values, np.nan) for name, values in floats.items()},
        }


class _Strings(_Part):
    """Texts, categories and tokens that are strings, and notes."""

    def __init__(self, name: str, feature: Feature, like: FeatureStatistics | None, *, values: int) -> None:
        super().__init__(name, feature, like)
        named = feature.columns and len(feature.shape) == 1 and feature.size <= POSITIONS
        size = feature.size if named else 1
        self.present, self.missing = np.zeros(size, np.int64), np.zeros(size, np.int64)
        # Of notes it is enough to know how many there are.
        most = 0 if feature.role == "note" else values
        self.counters = [_counter(most, feature, like.tallies[i] if like else None) for i in range(size)]
        if most:
            self.measures["characters"] = self.measure("characters")
        if most and feature.kind == "text":
            self.measures["words"] = self.measure("words")
            self.extra = {"words": _counter(most, Feature(dtype="string"), like.words if like else None)}

    def count(self, values: pa.Array) -> list[Job]:
        size = len(self.counters)
        each = [values] if size == 1 else [values.take(pa.array(np.arange(i, len(values), size))) for i in range(size)]
        return [lambda: self._count_all(each)]

    def _count_all(self, columns: Sequence[pa.Array]) -> None:
        for position, column in enumerate(columns):
            for start in range(0, len(column), HASHED):
                self._count(position, column.slice(start, HASHED))

    def _count(self, position: int, column: pa.Array) -> None:
        self.missing[position] += column.null_count
        self.present[position] += len(column) - column.null_count
        found = pc.value_counts(column.drop_null().cast(pa.large_binary()))
        values, counts = found.field(0), found.field(1).to_numpy()
        self.counters[position].take(values, counts)
        sizes = pc.binary_length(values).to_numpy()
        self.empty += int(counts[sizes == 0].sum())
        if "characters" in self.measures:
            self._measure(values, counts, sizes)

    def _measure(self, values: pa.Array, counts: Array, sizes: Array) -> None:
        """Take in distinct strings, each so many times."""
        letters = _letters(values)
        if letters.max(initial=0) > LAST_ASCII:
            values, counts = self._sound(values, counts)
            sizes = pc.utf8_length(values.cast(pa.large_string())).to_numpy()
        _take_each(self.measures["characters"], sizes, counts)
        if "words" not in self.measures:
            return
        if letters.min(initial=LAST_ASCII) > ord(" "):
            _take_each(self.measures["words"], (sizes > 0).astype(np.int64), counts)
        else:
            self._words(values.cast(pa.large_string()), counts)

    def _sound(self, values: pa.Array, counts: Array) -> tuple[pa.Array, Array]:
        """The strings that are UTF-8; the others are counted."""
        try:
            values.cast(pa.large_string())
        except pa.ArrowInvalid:
            sound = np.array([_is_text(value) for value in values.to_pylist()])
            self.broken += int(counts[~sound].sum())
            return values.filter(pa.array(sound)), counts[sound]
        return values, counts

    def _words(self, texts: pa.Array, counts: Array) -> None:
        split = pc.ascii_split_whitespace(texts)
        # Blanks at either end are followed, or led, by a word of no length.
        there = pc.binary_length(split.values).to_numpy() > 0
        lengths = np.diff(np.concatenate([[0], np.cumsum(there)])[split.offsets.to_numpy()])
        _take_each(self.measures["words"], lengths, counts)
        # A text of one word is counted as such.
        several = lengths > 1
        if several.any():
            split, counts = split.filter(pa.array(several)), counts[several]
            words, often = _counted(split.flatten(), np.repeat(counts, pc.list_value_length(split).to_numpy()))
            words, often = _counted(pc.utf8_trim(pc.utf8_lower(words), _PUNCTUATION), often)
            some = pc.binary_length(words).to_numpy() > 0
            self.extra["words"].take(words.filter(pa.array(some)).cast(pa.large_binary()), often[some])

    def merge(self, other: _Part) -> None:
        super().merge(other)
        self.present = self.present + other.present  # type: ignore[attr-defined]  # both parts were begun alike
        self.missing = self.missing + other.missing  # type: ignore[attr-defined]

    def numbers(self) -> dict[str, Any]:
        names = series_names(self.name, self.feature) if len(self.counters) > 1 else (self.name,)
        lost = self.absent * (self.feature.size // len(self.counters)) if _is_fixed(self.feature) else 0
        return {"names": names, **_no_numbers(self.present, self.missing + lost)}


_PUNCTUATION = ".,;:!?\"'`()[]{}<>/\\|*_~-–—…“”‘’«»¿¡"


def _is_fixed(feature: Feature) -> bool:
    return bool(feature.shape) and not feature.ragged


def _counter(most: int, feature: Feature, like: Tally | None) -> Counter:
    return Counter(most, [text.encode() for text in _known(feature, like)])


def _counted(values: pa.Array, counts: Array) -> tuple[pa.Array, Array]:
    """Each value once, with the sum of its counts."""
    found = values.dictionary_encode()
    return found.dictionary, np.bincount(found.indices.to_numpy(), counts, len(found.dictionary)).astype(np.int64)


def _letters(values: pa.Array) -> Array:
    """The bytes of all strings (large_binary), one after the other."""
    _, offsets, data = values.buffers()
    first, last = np.frombuffer(offsets, np.int64)[[values.offset, values.offset + len(values)]]
    return np.frombuffer(data, np.uint8)[first:last] if data else np.empty(0, np.uint8)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _take_each(measure: Column, values: Array, counts: Array) -> None:
    """Take in whole numbers from 0, in any order, each so many times."""
    if values.max(initial=0) < BLOCK:
        often = np.bincount(values, counts).astype(np.int64)
        found = np.flatnonzero(often)
        measure.take(found, often[found])
    else:
        order = np.argsort(values)
        measure.take(*summed(values[order], counts[order]))


def _no_numbers(count: Array, missing: Array) -> dict[str, Array]:
    """The arrays of `FeatureStatistics` for what is no number."""
    none = np.empty(0)
    arrays = dict.fromkeys(ARRAYS, none)
    return {**arrays, "zeros": none.astype(np.int64), "count": count, "missing": missing}


_Sampled: TypeAlias = bytes | Array | None
"""An image file, or what `_levels` says of it."""


class _Pictures(_Part):
    """Image files: what their headers say, and the pixels of some of them.

    Which ones depends on their digests only, so that parts in any order give the same sample.
    """

    def __init__(self, name: str, feature: Feature, like: FeatureStatistics | None) -> None:
        super().__init__(name, feature, like)
        self.present = self.missing = 0
        self.counters = [Counter(0)]
        self.extra = {"formats": _counter(LEAST_VALUES, Feature(dtype="string"), like.formats if like else None)}
        self.measures |= {key: self.measure(key) for key in ("width", "height", "channels", "bytes")}
        self.sample: list[tuple[tuple[int, int], _Sampled]] = []

    def count(self, values: pa.Array) -> list[Job]:
        return [lambda: self._count(values)]

    def _count(self, values: pa.Array) -> None:
        files = values.drop_null().cast(pa.large_binary())
        self.present += len(files)
        self.missing += values.null_count
        self.counters[0].take(files, np.ones(len(files), np.int64))
        found: list[tuple[int, ...]] = []
        formats: dict[bytes, int] = {}
        sound: list[tuple[tuple[int, int], _Sampled]] = []
        for file in files.to_pylist():
            header = _header(file)
            if header:
                kind = header[0].encode()
                formats[kind] = formats.get(kind, 0) + 1
                found.append(header[1:])
                sound.append(((zlib.crc32(file), len(file)), file))
        self._choose(sound)
        self.broken += len(files) - len(found)
        for name, column in zip(
            ("width", "height", "channels"), np.array(found, np.int64).reshape(-1, 3).T, strict=True
        ):
            self.measures[name].add(column)
        self.measures["bytes"].add(pc.binary_length(files).to_numpy())
        self.extra["formats"].take(pa.array(list(formats), pa.large_binary()), np.array(list(formats.values())))

    def _choose(self, found: list[tuple[tuple[int, int], _Sampled]]) -> None:
        """Keep those with the smallest keys: as files while these are small, for most of them will make room later."""
        self.sample = sorted([*self.sample, *found], key=lambda kept: kept[0])[:PIXELS]
        if sum(len(held) for _, held in self.sample if isinstance(held, bytes)) > CHUNK:
            self.sample = [(key, _levels(held)) for key, held in self.sample]

    def merge(self, other: _Part) -> None:
        super().merge(other)
        self.present += other.present  # type: ignore[attr-defined]  # both parts were begun alike
        self.missing += other.missing  # type: ignore[attr-defined]
        self._choose(other.sample)  # type: ignore[attr-defined]

    def numbers(self) -> dict[str, Any]:
        pixels = {}
        files = (held for _, held in self.sample)
        levels = [counts for counts in in_threads(_levels, files) if counts is not None]
        if levels:
            counts = np.sum(levels, axis=0)
            for name, channel in zip(("red", "green", "blue"), counts, strict=True):
                column = Column("int64", LEAST_BINS)
                found = np.flatnonzero(channel)
                column.take(found, channel[found])
                pixels[name] = column.finish()
        arrays = _no_numbers(np.array([self.present]), np.array([self.missing]))
        return {"names": (self.name,), "pixels": pixels, **arrays}


def _header(file: bytes) -> tuple[str, int, int, int] | None:
    """Format, width, height and channels of an image file; None if its header can't be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file)) as image:
            kind, size, channels = str(image.format), image.size, len(image.getbands())
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    # A JPEG with a second, smaller picture behind the first one.
    return "JPEG" if kind == "MPO" else kind, *size, channels


def _levels(held: _Sampled) -> Array | None:
    """How often each level from 0 to 255 occurs in red, green and blue; None for a file whose pixels can't be read."""
    from PIL import Image

    if not isinstance(held, bytes):
        return held
    try:
        with Image.open(io.BytesIO(held)) as image:
            image.draft("RGB", (SIDE, SIDE))
            counts = image.convert("RGB").histogram()
    except (OSError, SyntaxError, ValueError):
        # Its header is sound, which is all that is asked here.
        return None
    return np.array(counts).reshape(3, 256)


# ------------------------------------------------------------------------------------------------- a split


class Summary:
    """What is known so far of a split. Parts that were summarised apart merge into what the whole would have given.

    Counts, extremes and distributions are equal whatever the parts; means and standard deviations to rounding. Only the
    most frequent values are not, where more than some thousand distinct ones occur (`Tally.short` bounds what is lost).
    It can be pickled, so that parts can be summarised elsewhere. Memory does not grow with the rows.

    Args:
        features: The features to summarise; other columns of a batch are passed over.
        like: Statistics of a reference split: values are then counted in its places, so that the two compare exactly
            (`aligned`).
    """

    def __init__(self, features: Mapping[str, Feature], like: Statistics | None = None) -> None:
        strings = {name for name, feature in features.items() if feature.dtype == "string"}
        sizes = [math.prod(positions(feature)) for name, feature in features.items() if name not in strings]
        width = sum(size if size <= POSITIONS else 1 for size in sizes)
        tallied = sum(max(len(feature.columns), 1) for feature in features.values())
        bins = min(max(ALL_BINS // max(width, 1), LEAST_BINS), MOST_BINS)
        values = min(max(ALL_VALUES // max(tallied, 1), LEAST_VALUES), MOST_VALUES)
        self._parts: dict[str, _Part] = {}
        for name, feature in features.items():
            reference = like[name] if like else None
            if name not in strings:
                self._parts[name] = _Numbers(name, feature, reference, bins=bins, values=values)
            elif feature.kind in ("image", "mask"):
                self._parts[name] = _Pictures(name, feature, reference)
            else:
                self._parts[name] = _Strings(name, feature, reference, values=values)

    def add(self, examples: pa.RecordBatch | pa.Table) -> None:
        """Take in some examples."""
        if not examples.num_rows:
            return
        table = pa.table(examples)
        jobs = [job for name, part in self._parts.items() for job in part.jobs(_joined(table[name]))]
        # Sorting and hashing leave Python's lock alone.
        with ThreadPoolExecutor(processors()) as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()

    def merge(self, other: Summary) -> None:
        """Take in another part of the same split, begun with the same features."""
        for name, part in self._parts.items():
            part.merge(other._parts[name])

    def finish(self) -> Statistics:
        """The statistics of all that was taken in."""
        return Statistics({name: part.finish() for name, part in self._parts.items()})


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def summarise(
    batches: Iterable[pa.RecordBatch], features: Mapping[str, Feature], like: Statistics | None = None
) -> Statistics:
    """The statistics of a split, in one pass and flat memory; arguments as for `Summary`.

    Chunks are summarised apart and merged in their order, by whoever they are summarised: so that means and deviations
    are the same to the last digit on one machine and on many.
    """
    whole = Summary(features, like)
    for part in divided(
        partial(_summaries, features, like), _chunks(batches, list(features)), lambda chunk: chunk.nbytes
    ):
        whole.merge(part)
    return whole.finish()


def _summaries(
    features: Mapping[str, Feature], like: Statistics | None, chunks: Iterable[pa.Table]
) -> Iterator[Summary]:
    """The summary of each chunk."""
    for chunk in chunks:
        summary = Summary(features, like)
        summary.add(chunk)
        yield summary


def _chunks(batches: Iterable[pa.RecordBatch], names: list[str]) -> Iterator[pa.Table]:
    """Batches gathered until there are enough to be counted."""
    waiting: list[pa.RecordBatch] = []
    held = rows = 0
    for batch in batches:
        batch = batch.select(names)
        full = held >= CHUNK or rows >= ROWS
        if waiting and (full or batch.schema != waiting[0].schema):
            yield pa.Table.from_batches(waiting)
            waiting, held, rows = [], 0, 0
        waiting.append(batch)
        held, rows = held + batch.nbytes, rows + batch.num_rows
    if waiting:
        yield pa.Table.from_batches(waiting)
