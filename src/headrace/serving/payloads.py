"""Requests and answers in the JSON of TensorFlow Serving's predict API: by rows (`instances`) or columns (`inputs`).

NaN and Infinity are tokens of their own, as TensorFlow Serving has them; bytes are `{"b64": "…"}`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import nearest
from headrace.serving.loading import Loaded, Signature, Tensor

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

try:
    import orjson
except ImportError:  # a few times as fast, where something else has brought it
    orjson = None  # type: ignore[assignment]


class Refused(Exception):
    """A request that is not carried out.

    Args:
        status: Of the answer.
        problem: What its `error` says.
        wait: Seconds after which it is worth another try, if it is.
    """

    def __init__(self, status: int, problem: str, wait: int | None = None) -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem
        self.wait = wait


@dataclass(frozen=True)
class Question:
    """A request, understood."""

    signature: str
    inputs: dict[str, Array]
    rows: int | None
    """Examples in it; None if it can't be told, since inputs differ in their first dimension."""
    by_columns: bool


def read(body: bytes, model: Loaded, optional: frozenset[str] = frozenset()) -> Question:
    """Understand the body of a request.

    Args:
        body: JSON.
        model: The model that is asked.
        optional: Inputs whose numbers may be missing: null then stands for NaN.

    Raises:
        Refused: It is none, or does not fit the signature (400).
    """
    said = _parsed(body)
    if not isinstance(said, dict):
        raise Refused(400, f"Expected a JSON object with `instances` or `inputs`, received {_kind(said)}.")
    unknown = [name for name in said if name not in ("signature_name", "instances", "inputs")]
    if unknown:
        raise Refused(
            400, f"There is no field `{unknown[0]}`: {nearest(unknown[0], ('signature_name', 'instances', 'inputs'))}"
        )
    # An empty name is the usual one, as in protobuf.
    name = said.get("signature_name") or model.default_name
    if name not in model.signatures:
        raise Refused(400, f"There is no signature `{name}`: {nearest(str(name), model.signatures)}")
    if ("instances" in said) == ("inputs" in said):
        raise Refused(400, "Give either `instances` (by rows) or `inputs` (by columns).")
    signature = model.signatures[name]
    if "inputs" in said:
        columns, label = _columns(said["inputs"], signature), "inputs"
    else:
        columns, label = _rows(said["instances"], signature), "instances"
    inputs = {
        key: _array(columns[key], tensor, _Place(label, key, len(signature.inputs) > 1), key in optional)
        for key, tensor in signature.inputs.items()
    }
    lengths = {len(values) for values in inputs.values() if values.ndim}
    rows = lengths.pop() if len(lengths) == 1 and all(values.ndim for values in inputs.values()) else None
    if rows == 0:
        raise Refused(400, f"`{label}` is empty.")
    return Question(name, inputs, rows, "inputs" in said)


def _parsed(body: bytes) -> Any:
    if orjson is not None:
        try:
            return orjson.loads(body)
        except ValueError:
            pass  # it may be NaN, which the other one knows
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        told = str(error) if isinstance(error, json.JSONDecodeError) else "it is no UTF-8, or nested too deeply"
        raise Refused(400, f"The body is no JSON: {told}.") from None


# ------------------------------------------------------------------------------------------------ structure


def _rows(instances: Any, signature: Signature) -> dict[str, Any]:
    """Input → its values, example by example."""
    if not isinstance(instances, list):
        raise Refused(400, f"`instances` must be a list of examples, and is {_kind(instances)}.")
    if not instances:
        raise Refused(400, "`instances` is empty.")
    names = list(signature.inputs)
    by_name = _is_named(instances[0])
    if len(names) == 1 and not by_name:
        return {names[0]: instances}
    for number, example in enumerate(instances):
        if not _is_named(example):
            raise Refused(400, f"instances[{number}] must be an object with {_listed(names)}, and is {_kind(example)}.")
        if len(example) != len(names) or any(name not in example for name in names):
            _same_names(example, signature, f"instances[{number}]")
    return {name: [example[name] for example in instances] for name in names}


def _columns(inputs: Any, signature: Signature) -> dict[str, Any]:
    names = list(signature.inputs)
    if not _is_named(inputs):
        if len(names) == 1:
            return {names[0]: inputs}
        raise Refused(400, f"`inputs` must be an object with {_listed(names)}, and is {_kind(inputs)}.")
    _same_names(inputs, signature, "inputs")
    return dict(inputs)


def _is_named(value: Any) -> bool:
    """Whether something is an object of inputs by name, and not bytes."""
    return isinstance(value, dict) and set(value) != {"b64"}


def _same_names(given: Mapping[str, Any], signature: Signature, where: str) -> None:
    extra = [name for name in given if name not in signature.inputs]
    missing = [name for name in signature.inputs if name not in given]
    problems = [f"there is no input `{name}`: {nearest(name, signature.inputs)}" for name in extra]
    problems += [f"the input `{name}` is missing" for name in missing]
    if problems:
        raise Refused(400, f"In {where}, {'; '.join(problems)}. The model takes {signature}.")


def _listed(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


# --------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True)
class _Place:
    """Where the values of an input stand in a request."""

    label: str
    name: str
    named: bool

    def at(self, index: tuple[int, ...]) -> str:
        """In words: `instances[3].features[2]`."""
        inner = "".join(f"[{i}]" for i in index)
        if not self.named:
            return f"`{self.name}`, {self.label}{inner}"
        if self.label == "inputs":
            return f"inputs.{self.name}{inner}"
        first = f"[{index[0]}]" if index else ""
        return f"{self.label}{first}.{self.name}{inner[len(first) :]}"


def _array(values: Any, tensor: Tensor, place: _Place, optional: bool) -> Array:
    """Nested lists as an array of the input's type.

    Raises:
        Refused: They are no such array; the first place that is wrong is named.
    """
    try:
        depth = None if tensor.shape is None else len(tensor.shape)
        array = _strings(values) if tensor.dtype == "string" else _numbers(values, tensor.dtype, depth, optional)
    except (ValueError, TypeError, OverflowError):
        array = None
    if array is None or not _fits(array.shape, tensor.shape):
        fault = next(_faults(values, tensor, (), optional), None)
        where, what = fault or (
            (),
            f"expected {tensor}, received the shape {list(np.shape(array) if array is not None else ())}",
        )
        raise Refused(400, f"{place.at(where)}: {what}.")
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    return wanted is None or (
        len(shape) == len(wanted) and all(b is None or a == b for a, b in zip(shape, wanted, strict=True))
    )


_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}
"""Kind of an input → the kinds that numbers of JSON may come in."""


def _numbers(values: Any, dtype: str, depth: int | None, optional: bool) -> Array | None:
    wanted = np.dtype(dtype)
    array = _stacked(values, depth)
    if array.dtype == object and optional and wanted.kind == "f":
        array = np.asarray(_without_null(values))
    if array.size and array.dtype.kind not in _KINDS.get(wanted.kind, ""):
        return None
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            return None
    with np.errstate(over="ignore"):
        return array.astype(wanted, copy=False)


def _stacked(values: Any, depth: int | None) -> Array:
    """Nested lists as an array; half as long as NumPy needs for an image, whose innermost lists are single numbers.

    Raises:
        ValueError: Lists differ in their lengths.
    """
    if not depth or not isinstance(values, list):
        return np.asarray(values)
    flat, shape = values, [len(values)]
    for _ in range(depth - 1):
        lengths = set(map(len, flat))
        if len(lengths) != 1:
            raise ValueError("lists of different lengths")
        shape.append(lengths.pop())
        # Letters of a text come out as texts, which are no numbers either.
        flat = list(chain.from_iterable(flat))
    return np.asarray(flat).reshape(shape)


def _without_null(values: Any) -> Any:
    if isinstance(values, list):
        return [_without_null(value) for value in values]
    return float("nan") if values is None else values


def _strings(values: Any) -> Array:
    flat: list[bytes] = []
    shape = _flattened(values, flat)
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(shape)


def _flattened(values: Any, flat: list[bytes]) -> tuple[int, ...]:
    """Put all strings into a list; the shape in which they lay.

    Raises:
        ValueError: They lay in none, or are no strings.
    """
    if isinstance(values, str):
        flat.append(values.encode())
        return ()
    if isinstance(values, dict):
        flat.append(as_bytes(values))
        return ()
    if not isinstance(values, list):
        raise TypeError(values)
    shapes = {_flattened(value, flat) for value in values}
    if len(shapes) > 1:
        raise ValueError("lists of different lengths")
    return (len(values), *(shapes.pop() if shapes else ()))


def as_bytes(value: Mapping[str, Any]) -> bytes:
    """The bytes of `{"b64": "…"}`.

    Raises:
        ValueError: It is something else.
    """
    if set(value) != {"b64"} or not isinstance(value["b64"], str):
        raise ValueError("no bytes")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error


def _faults(
    value: Any, tensor: Tensor, index: tuple[int, ...], optional: bool
) -> Iterator[tuple[tuple[int, ...], str]]:
    """What is wrong in nested lists, place by place; searched for only when something is."""
    shape = tensor.shape
    depth = len(index)
    if isinstance(value, list):
        if shape is not None and depth >= len(shape):
            yield index, f"expected {_single(tensor)}, received a list"
            return
        wanted = shape[depth] if shape is not None else None
        if wanted is not None and len(value) != wanted:
            yield index, f"expected {wanted} values, received {len(value)}"
            return
        lengths = {len(item) if isinstance(item, list) else None for item in value}
        for number, item in enumerate(value):
            yield from _faults(item, tensor, (*index, number), optional)
        if len(lengths) > 1:
            yield index, "the lists in it differ in their lengths"
        return
    if shape is not None and depth < len(shape):
        inner = list(shape[depth:])
        yield index, f"expected a list of shape {str(inner).replace('None', 'any')}, received {_kind(value)}"
        return
    if (what := _wrong(value, tensor, optional)) is not None:
        yield index, what


def _wrong(value: Any, tensor: Tensor, optional: bool) -> str | None:
    expected = f"expected {_single(tensor)}, received {_kind(value)}"
    if tensor.dtype == "string":
        if isinstance(value, dict):
            try:
                as_bytes(value)
            except ValueError:
                return 'expected {"b64": "…"} with base64 in it'
            return None
        return None if isinstance(value, str) else expected
    if value is None:
        return None if optional and tensor.dtype.startswith("float") else expected
    if tensor.dtype == "bool":
        return None if isinstance(value, bool) else expected
    if isinstance(value, bool) or not isinstance(value, int | float):
        return expected
    if np.dtype(tensor.dtype).kind in "iu":
        limits = np.iinfo(tensor.dtype)
        if isinstance(value, float):
            return f"expected a whole number, received {value!r}"
        if not limits.min <= value <= limits.max:
            return f"expected a whole number from {limits.min} to {limits.max}, received {value}"
    return None


def _single(tensor: Tensor) -> str:
    if tensor.dtype == "string":
        return 'a text or {"b64": "…"}'
    return "true or false" if tensor.dtype == "bool" else "a number"


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f'the text "{value[:30]}{"…" * (len(value) > 30)}"'
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"the number {value}"


# -------------------------------------------------------------------------------------------------- answers


def written(question: Question, outputs: Mapping[str, Array]) -> bytes:
    """The body of an answer: `predictions` by rows, `outputs` by columns; of a single output without its name.

    Raises:
        Refused: The question came by rows, and the answer has none for each (400).
    """
    answers = {name: _plain(name, values) for name, values in outputs.items()}
    if question.by_columns:
        return _dumped({"outputs": answers if len(answers) > 1 else next(iter(answers.values()))}, outputs)
    odd = [name for name, values in outputs.items() if values.ndim == 0 or len(values) != question.rows]
    if odd:
        raise Refused(400, f"The output `{odd[0]}` has no value for each example: ask by columns, with `inputs`.")
    if len(answers) == 1:
        return _dumped({"predictions": next(iter(answers.values()))}, outputs)
    names = list(answers)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*answers.values(), strict=True)]
    return _dumped({"predictions": rows}, outputs)


def _plain(name: str, values: Array) -> Any:
    if values.dtype == object:
        return _texts(values.tolist(), name.endswith("_bytes"))
    # Finite float32 comes out in as few digits as tell it from its neighbours, and fast.
    fast = orjson is not None and values.ndim and values.dtype != np.float16
    return np.ascontiguousarray(values) if fast else values.tolist()


def _texts(value: Any, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_texts(item, as_bytes) for item in value]
    if not as_bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(value).decode()}


def _dumped(answer: Any, outputs: Mapping[str, Array]) -> bytes:
    finite = all(values.dtype.kind != "f" or np.isfinite(values).all() for values in outputs.values())
    if orjson is not None and finite:
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(answer, default=_listing, ensure_ascii=False).encode()


def _listing(value: Any) -> Any:
    return value.tolist()
