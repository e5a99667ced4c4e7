"""Arrays of NumPy's archives: numbers, lists and texts; no pickle in one of them can run code."""

from __future__ import annotations

import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from headrace.errors import DataError
from headrace.readers.arrays import read_arrays, read_features
from headrace.spec import Feature

Write = Callable[..., Path]


@pytest.fixture
def archive(tmp_path: Path) -> Write:
    def write(**arrays: Any) -> Path:
        random = np.random.default_rng(0)
        defaults = {"x": random.random((20, 3)), "y": random.random(20)}
        path = tmp_path / "houses.npz"
        np.savez(path, **{name: values for name, values in (defaults | arrays).items() if values is not None})
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_arrays(path, {"x": 2, "y": 1})
    return str(caught.value)


def test_are_read_as_they_were_written(archive: Write) -> None:
    x = np.arange(6.0).reshape(3, 2)
    arrays = read_arrays(archive(x=x, y=np.arange(3), z=np.ones(9)), {"x": 2, "y": 1})

    assert list(arrays) == ["x", "y"]
    np.testing.assert_array_equal(arrays["x"], x)
    np.testing.assert_array_equal(arrays["y"], [0, 1, 2])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_archive_is_refused(archive: Write, share: float) -> None:
    path = archive()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    said = refusal(path)
    assert said.startswith("houses.npz can't be read: it is truncated or damaged.")
    assert f"put a sound {path.name} where this one came from" in said


def test_no_altered_byte_gives_anything_but_the_arrays_or_a_clear_error(archive: Write) -> None:
    """Zip, zlib and the header's parser raise errors of many kinds; none of them reaches a person."""
    path = archive()
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x11]) + whole[position + 1 :])
        try:
            read_arrays(path, {"x": 2, "y": 1})
        except DataError:
            refused += 1
    assert refused > 150


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.npz").startswith(f"There is no file {tmp_path / 'no.npz'}.")


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "houses.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    assert "a single array" in refusal(path)


def test_all_that_is_wrong_is_told_at_once(archive: Write) -> None:
    said = refusal(archive(x=np.array(["a", "b"]), y=None, price=np.ones(2)))

    assert "there is no array `y`: there is `price`, `x`" in said
    assert "`x` holds no numbers but <U1" in said
    assert "`x` has 1 dimensions (2,), not 2" in said


def test_unequal_lengths_are_told(archive: Write) -> None:
    assert "the arrays differ in length: `x` 20, `y` 19" in refusal(archive(y=np.ones(19)))


def test_arrays_without_examples_are_refused(archive: Write) -> None:
    assert "`x` is empty: its shape is (0, 3)" in refusal(archive(x=np.ones((0, 3))))


def objects(*items: Any) -> np.ndarray:
    """An array of objects."""
    array = np.empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = item
    return array


def pickled(path: Path, data: bytes, rows: int = 2) -> Path:
    """An archive whose array `x` announces so many objects and holds this pickle."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        npy.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (rows,)})
        file.write(data)
    return path


class TestLists:
    @pytest.mark.parametrize("protocol", [2, 3, 4])
    @pytest.mark.parametrize(
        "lists",
        [
            [[1, 2, 3], [], [2**40]],
            [np.array([1, 2, 3]), np.array([], np.int64), np.array([2**40])],
            [[np.int64(1), 2, np.int64(3)], [], [np.int64(2**40)]],
        ],
        ids=["lists", "arrays", "numbers of numpy"],
    )
    def test_become_ragged(self, tmp_path: Path, lists: list[Any], protocol: int) -> None:
        path = pickled(tmp_path / "x.npz", pickle.dumps(objects(*lists), protocol), 3)
        x = read_arrays(path, {"x": "lists"})["x"]
        assert [one.tolist() for one in x] == [[1, 2, 3], [], [2**40]]
        assert x.dtype == np.int64

    def test_are_read_as_numpy_writes_them(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", x=objects([1, 2], [3]), y=np.array([0, 1]))
        arrays = read_arrays(tmp_path / "x.npz", {"x": "lists", "y": 1})
        assert [one.tolist() for one in arrays["x"]] == [[1, 2], [3]]

    def test_of_equal_length_may_be_a_plain_array(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", x=np.array([[1, 2], [3, 4]]))
        assert [one.tolist() for one in read_arrays(tmp_path / "x.npz", {"x": "lists"})["x"]] == [[1, 2], [3, 4]]

    @pytest.mark.parametrize("items", [["a", "b"], [[1], ["b"]], [[[1], [2, 3]], [1]], [1, 2], [[1], None]])
    def test_of_anything_but_numbers_are_refused(self, tmp_path: Path, items: list[Any]) -> None:
        np.savez(tmp_path / "x.npz", x=objects(*items))
        with pytest.raises(DataError, match="x"):
            read_arrays(tmp_path / "x.npz", {"x": "lists"})

    def test_of_another_number_than_announced_are_refused(self, tmp_path: Path) -> None:
        path = pickled(tmp_path / "x.npz", pickle.dumps(objects([1], [2], [3])), 2)
        with pytest.raises(DataError, match=r"an array of 3 objects, announced as one of shape \(2,\)"):
            read_arrays(path, {"x": "lists"})


def test_bytes_behind_an_array_are_no_sound_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("x.npy", "w") as file:
        npy.write_array(file, np.ones(3))
        file.write(b"more")
    with pytest.raises(DataError, match="more bytes than the array has"):
        read_arrays(tmp_path / "x.npz", {"x": 1})


class TestTexts:
    def test_become_bytes(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", a=np.array(["ä", "b"]), b=np.array([b"c", b"d"]), c=objects("e", None))
        held: Any = dict.fromkeys("abc", "texts")
        arrays = read_arrays(tmp_path / "x.npz", held)
        assert {name: values.tolist() for name, values in arrays.items()} == {
            "a": ["ä".encode(), b"b"],
            "b": [b"c", b"d"],
            "c": [b"e", None],
        }

    def test_are_no_numbers(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", x=np.ones(2))
        with pytest.raises(DataError, match="`x` holds no text but float64"):
            read_arrays(tmp_path / "x.npz", {"x": "texts"})


class Evil:
    """Runs a program when it is read by an ordinary reader of pickles."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return subprocess.call, (["touch", str(self.mark)],)


class TestPickles:
    @pytest.mark.parametrize("what", [1, "lists", "texts"])
    def test_never_run_code(self, tmp_path: Path, what: Any) -> None:
        data = pickle.dumps(objects([1], Evil(tmp_path / "mark")))
        with pytest.raises(DataError, match="can't be read"):
            read_arrays(pickled(tmp_path / "x.npz", data), {"x": what})
        assert not (tmp_path / "mark").exists()

        pickle.loads(data)
        assert (tmp_path / "mark").exists(), "an ordinary reader would have run it"

    @pytest.mark.parametrize(
        "code",
        [
            b"cos\nsystem\n(S'true'\ntR.",
            b"cbuiltins\neval\n(S'1'\ntR.",
            b"cnumpy\nload\n(S'x'\ntR.",
            # State given to what stands for numpy's own types, and not to an object of theirs.
            b"cnumpy\ndtype\n(dS'__init__'\nI1\nsb.",
            b"cnumpy\ndtype\n(N(dS'given'\nI1\nstb.",
            b"cnumpy._core.multiarray\nscalar\n(N(dS'__new__'\nI1\nstb.",
            b"\x80\x02N.",
            b"",
        ],
    )
    def test_that_ask_for_anything_else_are_refused(self, tmp_path: Path, code: bytes) -> None:
        good = pickle.dumps(objects([1], [2]))
        with pytest.raises(DataError, match="can't be read"):
            read_arrays(pickled(tmp_path / "x.npz", code), {"x": "lists"})
        # … and leave no trace in what reads the next one.
        assert len(read_arrays(pickled(tmp_path / "y.npz", good), {"x": "lists"})["x"]) == 2

    def test_with_an_altered_byte_give_lists_or_a_clear_error(self, tmp_path: Path) -> None:
        whole = pickle.dumps(objects([1, 2], np.array([3.5]), [4]))
        for position in range(len(whole)):
            data = whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :]
            try:
                read_arrays(pickled(tmp_path / "x.npz", data, 3), {"x": "lists"})
            except DataError:
                continue


class TestFeatures:
    FEATURES = {  # noqa: RUF012
        "image": Feature(shape=(2, 2, 1), dtype="uint8"),
        "words": Feature(shape=(None,), dtype="int64"),
        "town": Feature(dtype="string"),
        "price": Feature(shape=(1,), role="target"),
    }

    def write(self, tmp_path: Path, **changes: Any) -> Path:
        arrays = {
            "image": np.arange(8).reshape(2, 2, 2),
            "words": objects([1, 2], []),
            "town": np.array(["Ulm", "Aachen"]),
            "price": np.array([1, 2]),
        }
        np.savez(tmp_path / "own.npz", **{n: v for n, v in (arrays | changes).items() if v is not None})
        return tmp_path / "own.npz"

    def test_get_arrays_of_their_shapes_and_types(self, tmp_path: Path) -> None:
        arrays = read_features(self.write(tmp_path), self.FEATURES)
        assert arrays["image"].shape == (2, 2, 2, 1)
        assert arrays["image"].dtype == np.uint8
        assert arrays["words"].splits.tolist() == [0, 2, 2]
        assert arrays["price"].shape == (2, 1)
        assert arrays["price"].dtype == np.float32

    def test_that_do_not_fit_are_all_named(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, image=np.full((2, 3, 2), 7), words=objects([1.5], [2]), price=np.ones((2, 2)))
        with pytest.raises(DataError) as caught:
            read_features(path, self.FEATURES)
        assert "`image` holds examples of shape (3, 2), not (2, 2, 1)" in str(caught.value)
        assert "`words` holds 1 numbers that int64 can't hold" in str(caught.value)
        assert "`price` holds examples of shape (2,), not (1,)" in str(caught.value)

    @pytest.mark.parametrize("wrong", [300, -1])
    def test_are_never_wrapped_into_another_number(self, tmp_path: Path, wrong: int) -> None:
        with pytest.raises(DataError, match="`image` holds 8 numbers that uint8 can't hold"):
            read_features(self.write(tmp_path, image=np.full((2, 2, 2), wrong)), self.FEATURES)

    def test_need_no_targets_where_they_are_not_known_yet(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, price=None)
        assert list(read_features(path, self.FEATURES, targets_required=False)) == ["image", "words", "town"]
        with pytest.raises(DataError, match="there is no array `price`"):
            read_features(path, self.FEATURES)
