"""Arrays in NumPy's archives (.npz): numbers, texts, and the lists of numbers that Keras' own archives hold as objects.

Objects in an archive are pickled, and a pickle can run any code when it is read. Here it is read by a reader that knows
lists, numbers, texts and arrays, and can make nothing else.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy

from headrace.errors import DataError, nearest
from headrace.ragged import Ragged
from headrace.readers.batches import Array
from headrace.readers.cells import first_line, unusable
from headrace.spec import Feature

Held = int | Literal["numbers", "lists", "texts"]
"""What an array must be: numbers in so many dimensions (the examples included), or in any number of them; a list of
numbers for each example; a text for each example."""


def read_arrays(path: Path, held: Mapping[str, Held]) -> dict[str, Any]:
    """Read arrays of equal length from a NumPy archive (.npz).

    Only these are read, so that splits in one archive can be read one by one.

    Args:
        path: The archive.
        held: Name of each array that it must hold → what it must be.

    Returns:
        Name → array of shape `(examples, …)` in the archive's own type; `Ragged` of lists; of texts an array of `bytes`
        objects, None where one is missing.

    Raises:
        DataError: The archive is missing, truncated or altered; or an array is missing, is not what it must be, is
            empty, or is not as long as the others.
    """
    arrays: dict[str, Any] = {}
    problems: list[str] = []
    try:
        with _opened(path) as archive:
            known = [name.removesuffix(".npy") for name in archive.namelist()]
            for name in held:
                if name in known:
                    with archive.open(f"{name}.npy") as file:
                        arrays[name] = _read(file, held[name])
                else:
                    problems.append(f"there is no array `{name}`: {nearest(name, known)}")
    except Exception as error:
        # A damaged archive has no error of its own: the zip reader, zlib and the header's parser each raise theirs.
        missing = isinstance(error, FileNotFoundError)
        raise DataError(
            f"There is no file {path}." if missing else f"{path.name} can't be read: it is truncated or damaged.",
            expected=f"a NumPy archive (.npz) with {_listed(held)}",
            received=None if missing else f"{type(error).__name__}: {first_line(error)}",
            remedy=f"put a sound {path.name} where this one came from, and run again",
        ) from error
    for name, values in arrays.items():
        problems += _problems(name, values, held[name])
    lengths = {name: len(values) for name, values in arrays.items() if isinstance(values, Ragged) or values.ndim}
    if len(set(lengths.values())) > 1:
        problems.append(f"the arrays differ in length: {', '.join(f'`{k}` {n}' for k, n in lengths.items())}")
    if problems:
        raise unusable(path, problems, f"arrays with as many examples in each: {_listed(held)}")
    return arrays


def read_features(
    path: Path,
    features: Mapping[str, Feature],
    *,
    targets_required: bool = True,
    called: Mapping[str, str] | None = None,
) -> dict[str, Array | Ragged]:
    """Read an archive with one array for each feature.

    Numbers may be of another type, as long as nothing is lost, and dimensions of length 1 are not minded.

    Args:
        path: The archive.
        features: What to read.
        targets_required: Whether the targets must be there.
        called: Feature → its array, one of what `splits_of` gives; default: called like the feature, or `x` and `y`.

    Returns:
        Feature → array of shape `(examples, *shape)`, or `Ragged`, in the feature's type.

    Raises:
        DataError: As in `read_arrays`; or an array has another shape than its feature, or numbers that it can't hold.
    """
    known = _names(path)
    names = called or _called(features, known) or {name: name for name in features}
    wanted = {
        name: feature
        for name, feature in features.items()
        if targets_required or feature.role != "target" or names[name] in known
    }
    held: dict[str, Held] = {
        names[name]: "texts" if feature.dtype == "string" else "lists" if feature.ragged else "numbers"
        for name, feature in wanted.items()
    }
    arrays, problems, found = read_arrays(path, held), [], {}
    for name, feature in wanted.items():
        try:
            found[name] = _fitted(arrays[names[name]], feature)
        except ValueError as error:
            problems.append(f"`{names[name]}` holds {error}")
    if problems:
        raise unusable(path, problems, f"arrays that fit the features {', '.join(wanted)}")
    return found


def splits_of(path: Path, features: Mapping[str, Feature]) -> dict[str, dict[str, str]]:
    """The splits of an archive whose arrays are called by them: split → feature → array.

    An array is called by its feature and its split (`image_train`); where there are one input and one target also as
    Keras' own archives call them, `x_train` and `y_train`.

    Returns:
        Those of `train`, `test` and `validation` that are there; none if `train` or `test` is not.
    """
    known = _names(path)
    found = {split: _called(features, known, f"_{split}") for split in ("train", "test", "validation")}
    return {split: names for split, names in found.items() if names} if found["train"] and found["test"] else {}


def _called(features: Mapping[str, Feature], known: Collection[str], ending: str = "") -> dict[str, str]:
    """Feature → the array of an archive that holds it; nothing if an input has none."""
    roles = {role: [name for name, feature in features.items() if feature.role == role] for role in ("input", "target")}
    single = all(len(names) == 1 for names in roles.values()) and len(features) == 2
    for names in (
        {name: name for name in features},
        {roles["input"][0]: "x", roles["target"][0]: "y"} if single else {},
    ):
        ended = {name: array + ending for name, array in names.items()}
        if ended and all(ended[name] in known for name in roles["input"]):
            return ended
    return {}


def _fitted(values: Array | Ragged, feature: Feature) -> Array | Ragged:
    """Values in the shape and the type of a feature.

    Raises:
        ValueError: They have another shape, or can't be of that type; the message says what they are instead.
    """
    if isinstance(values, Ragged):
        if len(feature.shape) > 1:
            raise ValueError(f"lists of numbers, not of arrays of shape {feature.shape[1:]}")
        return Ragged(_cast(values.values, feature), values.splits)
    if [n for n in values.shape[1:] if n != 1] != [n for n in feature.shape if n != 1]:
        raise ValueError(f"examples of shape {values.shape[1:]}, not {feature.shape}")
    return _cast(values, feature).reshape(len(values), *feature.shape)


def _cast(values: Array, feature: Feature) -> Array:
    if feature.dtype == "string":
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        cast = values.astype(feature.dtype, copy=False)
    lost = int((cast != values).sum()) if feature.dtype != "float32" else 0
    if lost:
        raise ValueError(f"{lost:,} numbers that {feature.dtype} can't hold")
    return cast


def _names(path: Path) -> list[str]:
    """The arrays of an archive; none if it can't be read, which is told later."""
    with contextlib.suppress(OSError, zipfile.BadZipFile, ValueError), _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]
    return []


def _opened(path: Path) -> zipfile.ZipFile:
    with path.open("rb") as file:
        if file.read(6) == npy.MAGIC_PREFIX:
            raise ValueError("a single array, no archive of them")
    return zipfile.ZipFile(path)


def _problems(name: str, values: Any, what: Held) -> list[str]:
    """Why an array can't be used."""
    problems = []
    if not isinstance(values, Ragged):
        kind = "text" if what == "texts" else "numbers"
        dimensions = what if isinstance(what, int) else {"texts": 1, "lists": 2, "numbers": max(values.ndim, 1)}[what]
        if values.dtype.kind not in ("O" if what == "texts" else "biuf"):
            problems.append(f"`{name}` holds no {kind} but {values.dtype}")
        if values.ndim != dimensions:
            problems.append(f"`{name}` has {values.ndim} dimensions {values.shape}, not {dimensions}")
            return problems
    if not len(values):
        problems.append(f"`{name}` is empty: its shape is {(0, *values.shape[1:])}")
    return problems


def _listed(held: Mapping[str, Held]) -> str:
    return ", ".join(
        f"`{name}` ({f'{what} dimension' + 's' * (what > 1) if isinstance(what, int) else what})"
        for name, what in held.items()
    )


def _read(file: IO[bytes], what: Held) -> Array | Ragged:
    """An array of an archive, read to its end, where the archive has its checksum."""
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject and what in ("lists", "texts"):
        values: Any = _Reader(file, encoding="latin-1").load().items(shape)
    else:
        file.seek(0)
        values = npy.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("more bytes than the array has")
    return _ragged(values) if what == "lists" else _texts(values) if what == "texts" else values


# ----------------------------------------------------------------------------------------- lists and texts


def _ragged(lists: Any) -> Array | Ragged:
    """Lists of numbers one after the other; what is none, as it came."""
    try:
        parts = [np.asarray(one) for one in lists]
    except ValueError:  # lists of lists
        parts = [np.empty(())]
    if any(part.ndim != 1 or (part.size and part.dtype.kind not in "biuf") for part in parts):
        return lists if isinstance(lists, np.ndarray) else _objects(lists)
    # An empty list has no type of its own.
    dtypes = {part.dtype for part in parts if part.size} or {np.dtype(np.int64)}
    return Ragged.of(parts, np.result_type(*dtypes))


def _texts(values: Any) -> Array:
    """Texts as `bytes`; what is none, as it came."""
    if isinstance(values, np.ndarray) and (values.dtype.kind not in "US" or values.ndim != 1):
        return values
    return _objects(value.encode() if isinstance(value, str) else value for value in values)


def _objects(items: Iterable[Any]) -> Array:
    items = list(items)
    array = np.empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = item
    return array


# -------------------------------------------------------------------------------------------------- pickles


class _Part:
    """Something that a pickle describes; nothing is made of it before it was looked at."""

    def __init__(self, *given: Any) -> None:
        self.given = given
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype(_Part):
    @property
    def plain(self) -> np.dtype[Any]:
        """The type of numbers that is meant."""
        kind, order = str(self.given[0]), str(self.state[1]) if self.state else "="
        if not re.fullmatch("b1|[iuf][1248]", kind) or order not in "<>|=":
            raise pickle.UnpicklingError(f"an array of {kind}")
        return np.dtype(order + kind)


class _Array(_Part):
    def items(self, shape: tuple[int, ...]) -> list[Any]:
        """The objects of an array that must have this shape."""
        _, _, _, _, items = self.state
        if not isinstance(items, list) or (len(items),) != shape:
            raise pickle.UnpicklingError(f"an array of {len(items)} objects, announced as one of shape {shape}")
        return [item.numbers() if isinstance(item, _Array) else item for item in items]

    def numbers(self) -> Array:
        """The numbers of an array in one dimension."""
        _, shape, dtype, _, data = self.state
        values = np.frombuffer(data, dtype.plain)
        if shape != values.shape:
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(values)} numbers")
        return values


class _Number(_Part):
    def __new__(cls, dtype: _Dtype, data: bytes) -> Any:
        return np.frombuffer(data, dtype.plain)[0].item()


class _Encoded(_Part):
    """How older pickles keep bytes."""

    def __new__(cls, text: str = "", _encoding: str = "latin1") -> Any:
        return text.encode("latin-1")


_KNOWN = {
    **{
        (f"numpy.{core}.multiarray", name): kind
        for core in ("core", "_core")
        for name, kind in (("_reconstruct", _Array), ("scalar", _Number))
    },
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
    ("__builtin__", "bytes"): _Encoded,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Refuse every name but those that numpy's own arrays are made of."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array of lists needs") from None
