"""TFRecord files of `tf.train.Example` that somebody else has written, as batches of examples.

Whether files are packed (gzip or zlib), their first bytes say. Each record is held against its checksums; the first
damaged one is named with its position. Our own records and what TFDS has prepared are folders of such files.
"""

from __future__ import annotations

import io
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import DataError, nearest
from headrace.readers.batches import Array, Restartable
from headrace.readers.cells import Bad, Findings, first_line, unusable, wrong
from headrace.readers.columns import is_binary, is_list, packed, settled
from headrace.readers.folders import SPLITS
from headrace.readers.splits import A_FIFTH, SEED, Shares, split_batches
from headrace.records.framing import FRAME, HEAD, checksums, heads
from headrace.records.positions import Fault
from headrace.spec import Feature

if TYPE_CHECKING:
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

_CHUNK = 1 << 22
"""Bytes of records that are decoded at a time, unless a single one is larger."""
_STEP = 1 << 16
"""Bytes that are unpacked at a time: what is sound before a damage is not lost with it."""
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
"""First bytes of image files."""
_LOOK = 1_000
"""Records from which features are inferred."""
_NAME = re.compile(r"(?:.+-)?(?P<split>\w+)\.tfrecords?(-\d+-of-\d+)?(\.gz)?", re.IGNORECASE)

Places = Path | Sequence[Path]


def read_records(
    places: Places,
    features: Mapping[str, Feature],
    *,
    names: Mapping[str, str] | None = None,
    bad: Bad = "refuse",
    targets_required: bool = True,
) -> Restartable:
    """Read TFRecord files of `tf.train.Example`.

    Numbers may be stored in another type than the declared one, as long as nothing is lost. An image of type `uint8`
    may be stored as its pixels, or as a PNG or JPEG file; a category by its number or its name.

    Args:
        places: A file, a folder of them, read in the order of their names, or a list.
        features: What to read; other features of the records are ignored.
        names: Feature → what it is called in the records, where that differs: `{"digit": "label"}`.
        bad: As in `tables.read_table`.
        targets_required: Whether the records must have the targets.

    Returns:
        Batches in the order of the files, any number of times.

    Raises:
        DataError: There are no such files, or no records in them, or a feature is in none of the first. While batches
            are read: a record is damaged or cut off, or values are missing or are not what is declared.
    """
    files = _files(places)
    first = _first(files)
    known = first.schema.names
    called = {name: (names or {}).get(name, name) for name in features}
    if not targets_required:
        called = {n: name for n, name in called.items() if name in known or features[n].role != "target"}
    missing = [f"there is no feature `{name}`: {nearest(name, known)}" for name in called.values() if name not in known]
    if missing:
        raise unusable(files[0], missing, f"the features {', '.join(called.values())}")
    read = {name: features[name] for name in called}
    return Restartable(partial(_read, files, read, called, _decoder(first.schema, called.values()), bad))


def record_splits(
    folder: Path,
    features: Mapping[str, Feature],
    *,
    names: Mapping[str, str] | None = None,
    shares: Shares = A_FIFTH,
    seed: int = SEED,
    bad: Bad = "refuse",
) -> dict[str, Restartable]:
    """The splits in a folder of TFRecord files, as these are called: `mnist-train.tfrecord-00000-of-00002`.

    Args:
        folder: Of records; or a single file.
        features: As in `read_records`.
        names: As in `read_records`.
        shares: If no name says `test`: the shares by which all examples are dealt out.
        seed: Of that.
        bad: As in `read_records`.

    Returns:
        Split → batches, any number of times.

    Raises:
        DataError: As in `read_records`.
    """
    files = _files(folder)
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(SPLITS.get(_split(file), "train"), []).append(file)
    if "test" in splits:
        return {name: read_records(splits[name], features, names=names, bad=bad) for name in splits}
    return split_batches(read_records(files, features, names=names, bad=bad), shares, seed, folder.name)


def inferred(places: Places) -> dict[str, Feature]:
    """What features records seem to have, judged by the first thousand of them.

    One that has as many values in each record gets that shape, else it is ragged; one that some records lack is
    optional, where its type allows it. All are inputs.

    Raises:
        DataError: As in `read_records`.
    """
    found = {}
    for name, column in zip((first := _first(_files(places))).schema.names, first.columns, strict=True):
        lengths = pc.unique(pc.fill_null(pc.list_value_length(column), 0).filter(column.is_valid())).to_pylist()
        shape = () if lengths == [1] else (lengths[0],) if len(lengths) == 1 and lengths[0] else (None,)
        kind = column.type.value_type
        dtype: Any = "string" if is_binary(kind) else "float32" if pa.types.is_floating(kind) else "int64"
        image = shape == () and dtype == "string" and column.flatten()[0].as_py().startswith(_IMAGES)
        optional = bool(column.null_count) and dtype != "int64" and None not in shape
        found[name] = Feature(shape=shape, dtype=dtype, content="image" if image else None, optional=optional)
    return found


# -------------------------------------------------------------------------------------------------- files


def record_files(place: Path) -> list[Path]:
    """The TFRecord files in a folder, in the order of their names; a file that is called like one."""
    found = sorted(place.iterdir()) if place.is_dir() else [place]
    return [file for file in found if _NAME.fullmatch(file.name) and file.is_file()]


def _files(places: Places) -> list[Path]:
    listed = [places] if isinstance(places, Path) else list(places)
    files = [file for place in listed for file in (record_files(place) if place.is_dir() else [place])]
    absent = [place for place in listed if not place.exists()] or ([] if files else listed)
    if absent:
        raise DataError(
            f"There is no {'TFRecord file in' if absent[0].exists() else 'file'} {absent[0]}.",
            expected="files that are called like `train.tfrecord-00000-of-00002`",
        )
    return files


def _split(file: Path) -> str:
    match = _NAME.fullmatch(file.name)
    return match["split"].casefold() if match else ""


# ------------------------------------------------------------------------------------------------- records


@dataclass(frozen=True)
class _Some:
    """Some records of a file that lie one after the other."""

    path: Path
    first: int
    """Position of the first one in the file."""
    offsets: Array
    """Bytes at which they begin (records,), in the contents if the file is packed."""
    serialised: list[bytes]

    def fault(self, place: int, what: str) -> DataError:
        """The error for one of them."""
        return _damaged(Fault(self.path, what, self.first + place, int(self.offsets[place])))


def _damaged(fault: Fault) -> DataError:
    return DataError(f"{fault.path.parent} holds damaged records: {fault}.", remedy=f"get a sound {fault.path.name}")


def _records(path: Path) -> Iterator[_Some]:
    """The records of a file, each held against its checksums."""
    begin = count = 0
    rest = b""
    try:
        with path.open("rb") as file:
            chunks = _chunks(file)
            more = True
            while more:
                trouble = ""
                try:
                    chunk = next(chunks, None)
                except zlib.error as error:
                    chunk, trouble = None, f" ({first_line(error)})"
                more = chunk is not None
                data = rest + (chunk or b"")
                bounds = _bounds(data)
                some = _held_against(path, data, bounds, begin, count)
                if some.serialised:
                    yield some
                count, begin, rest = count + len(some.serialised), begin + bounds[-1], data[bounds[-1] :]
                if len(rest) >= HEAD and not _is_head(rest[:HEAD]):
                    # Found here, since a wrong length would have the rest of the file read in vain.
                    raise _damaged(Fault(path, _wrong_length(count), count, begin))
            if rest or trouble:
                what = f"is cut off: the file ends at byte {begin + len(rest):,}{trouble}"
                raise _damaged(Fault(path, what, count, begin))
    except OSError as error:
        raise DataError(f"{path} can't be read.", received=error.strerror) from error


def _bounds(data: bytes) -> list[int]:
    """Where each record that is there as a whole begins, and where the last one ends."""
    bounds, end = [0], 0
    while len(data) - end >= FRAME:
        end += FRAME + int.from_bytes(data[end : end + 8], "little")
        if end > len(data):
            break
        bounds.append(end)
    return bounds


def _held_against(path: Path, data: bytes, bounds: list[int], begin: int, count: int) -> _Some:
    """Records as they are framed, without their frames."""
    tail = FRAME - HEAD
    serialised = [data[start + HEAD : end - tail] for start, end in pairwise(bounds)]
    starts = np.array(bounds)
    some = _Some(path, count, begin + starts[:-1], serialised)
    if serialised:
        view = np.frombuffer(data, np.uint8)
        bad_heads = (view[starts[:-1, None] + np.arange(HEAD)] != heads(np.diff(starts) - FRAME)).any(1)
        bad_tails = (view[starts[1:, None] - np.arange(tail, 0, -1)] != checksums(serialised)).any(1)
        for place in np.flatnonzero(bad_heads | bad_tails)[:1].tolist():
            wrong_length = _wrong_length(count + place) if bad_heads[place] else ""
            raise some.fault(place, wrong_length or "does not match its checksum")
    return some


def _wrong_length(record: int) -> str:
    return "has a damaged length" + (", or the file is no TFRecord file" if record == 0 else "")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """The contents of a file, unpacked if it is packed by gzip or zlib."""
    head = file.read(HEAD)
    file.seek(0)
    # The length of a first record may look like the beginning of a packed file.
    if _is_head(head) or not (head.startswith(b"\x1f\x8b") or _is_zlib(head)):
        yield from iter(partial(file.read, _CHUNK), b"")
        return
    unpacker, data = zlib.decompressobj(wbits=47), file.read(_STEP)
    while data:
        if unpacker.eof:  # files of gzip may stand one after the other
            unpacker = zlib.decompressobj(wbits=47)
        yield unpacker.decompress(data, _CHUNK)
        data = unpacker.unconsumed_tail or unpacker.unused_data or file.read(_STEP)
    yield unpacker.flush()
    if not unpacker.eof:
        raise zlib.error("it is packed, and its end is missing")


def _is_head(head: bytes) -> bool:
    """Whether bytes are a length and its checksum."""
    return head == heads(np.frombuffer(head[:8].ljust(8), "<u8").astype(np.int64)).tobytes()


def _is_zlib(head: bytes) -> bool:
    return head[:1] == b"\x78" and int.from_bytes(head[:2], "big") % 31 == 0


# ------------------------------------------------------------------------------------------ what they hold


def _first(files: Sequence[Path]) -> pa.RecordBatch:
    """The first records, with all their features."""
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    for file in files:
        for some in _records(file):
            some = replace(some, serialised=some.serialised[:_LOOK])
            batch = _decoded(some, decoder)
            # A feature without any value in the records looked at has no type.
            return batch.select([n for n in batch.schema.names if is_list(batch.schema.field(n).type)])
    raise DataError(f"{files[0]} holds no records.", expected="at least one example")


def _decoder(schema: pa.Schema, names: Iterable[str]) -> ExamplesToRecordBatchDecoder:
    """A decoder of these features alone, in the types that the records have."""
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    wanted = schema_pb2.Schema()
    for name in dict.fromkeys(names):
        kind = schema.field(name).type.value_type
        wanted.feature.add(
            name=name,
            type=schema_pb2.BYTES
            if is_binary(kind)
            else schema_pb2.FLOAT
            if pa.types.is_floating(kind)
            else schema_pb2.INT,
        )
    return ExamplesToRecordBatchDecoder(wanted.SerializeToString())


def _decoded(some: _Some, decoder: ExamplesToRecordBatchDecoder) -> pa.RecordBatch:
    def trouble(count: int) -> str:
        try:
            decoder.DecodeBatch(some.serialised[:count])
        except RuntimeError as error:
            return str(error)
        return ""

    try:
        return decoder.DecodeBatch(some.serialised)
    except RuntimeError as error:
        place = bisect_left(range(len(some.serialised)), True, key=lambda place: bool(trouble(place + 1)))
        other = re.search("Feature had wrong type, (.*)", trouble(place + 1))
        what = f"is of another type than those before: {other[1]}" if other else "is no tf.train.Example"
        raise some.fault(place, what) from error


def _read(
    files: Sequence[Path],
    features: Mapping[str, Feature],
    called: Mapping[str, str],
    decoder: ExamplesToRecordBatchDecoder,
    bad: Bad,
) -> Iterator[pa.RecordBatch]:
    for file in files:
        for some in _records(file):
            lists = _lists(_decoded(some, decoder), features, called)
            columns = {name: _settled(column, features[name]) for name, column in lists.items()}
            if bad == "refuse" and not all(usable for _, usable in columns.values()):
                problems = _problems(file, features, called, decoder)
                raise unusable(file, problems, "records with the declared features", f"correct {file.name}")
            yield pa.RecordBatch.from_pydict({name: column for name, (column, _) in columns.items()})


def _lists(batch: pa.RecordBatch, features: Mapping[str, Feature], called: Mapping[str, str]) -> dict[str, pa.Array]:
    """Feature → a list of its values for each record; null if there are none, and there must be some."""
    lists = {}
    for name, feature in features.items():
        column = batch.column(called[name])
        if feature.dtype == "uint8" and is_binary(column.type.value_type):
            column = _pixels(column, feature)
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        if feature.ragged:
            # An example without the feature is one without steps.
            ends = np.concatenate([[0], np.cumsum(lengths.to_numpy())])
            column = pa.LargeListArray.from_arrays(pa.array(ends), column.flatten())
        else:
            column = pc.if_else(pc.equal(lengths, 0), pa.scalar(None, column.type), column)
        lists[name] = column
    return lists


def _settled(column: pa.Array, feature: Feature) -> tuple[pa.Array, bool]:
    if feature.ragged or feature.size > 1:
        return settled(column, feature, in_lists=True)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    single = column.flatten()
    if (lengths != 1).any():
        # The first of several values would be one that nobody meant.
        places = np.cumsum(lengths) - 1
        single = single.take(pa.array(places, mask=lengths != 1))
    kept, usable = settled(single, feature)
    return packed([kept], feature), usable and not (lengths > 1).any()


def _pixels(column: pa.Array, feature: Feature) -> pa.Array:
    """The pixels of each image, stored as such or as an image file; the bytes of what is neither."""
    images = [_image(b"".join(cell or ()), feature) for cell in column.to_pylist()]
    lengths = np.array([len(image) for image in images])
    ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]))
    return pa.LargeListArray.from_arrays(ends, pa.array(np.concatenate(images)))


def _image(data: bytes, feature: Feature) -> Array:
    if len(data) == feature.size or not data:
        return np.frombuffer(data, np.uint8)
    from PIL import Image

    channels = feature.shape[2] if len(feature.shape) == 3 else 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert({1: "L", 4: "RGBA"}.get(channels or 1, "RGB"))).reshape(-1)
    except (OSError, ValueError):  # PIL's own error is an OSError
        return np.frombuffer(data, np.uint8)


def _problems(
    file: Path, features: Mapping[str, Feature], called: Mapping[str, str], decoder: ExamplesToRecordBatchDecoder
) -> list[str]:
    """What is wrong with the values of a file, found record by record."""
    findings = Findings("record", features)
    for some in _records(file):
        for name, column in _lists(_decoded(some, decoder), features, called).items():
            for place, cell in enumerate(column.to_pylist()):
                what = wrong(cell, features[name], in_lists=True)
                if what:
                    findings.add(name, what, some.first + place)
    return findings.lines()
