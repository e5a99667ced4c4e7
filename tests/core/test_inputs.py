"""Reading records back: everything, in any order, and loudly when something is damaged or gone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigError, DataError
from headrace.ragged import Ragged
from headrace.records import inputs
from headrace.records.framing import checksums
from headrace.records.inputs import arrays, damage_named, dataset, fits_in_memory, read_info, stream, verify
from headrace.records.orders import order
from headrace.spec import Column, Feature, Records
from tests.core.keeping import keep
from tests.core.kinds import EVERY, everything

ROWS = 50
LAYOUT = {"x": Feature(shape=(2, 3)), "label": Feature(dtype="int64", role="target")}


def examples(rows: int = ROWS) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "x": random.normal(size=(rows, 2, 3)).astype(np.float32),
        "label": np.arange(rows, dtype=np.int64),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records in several shards."""
    info = keep(tmp_path, LAYOUT, Records(shard_bytes=1000), rows=16, train=examples())
    assert len(info.shards["train"]) > 2
    return tmp_path


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("train.tfrecord-*"))


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def same(found: Any, expected: Any) -> None:
    """Arrays of any kind; what is missing equals what is missing."""
    if isinstance(expected, Ragged):
        np.testing.assert_array_equal(found.splits, expected.splits)
        found, expected = found.values, expected.values
    if expected.dtype == object:
        expected = np.array([value or b"" for value in expected], object)
    elif expected.dtype.kind in "fi":
        expected = expected.astype({"f": np.float32, "i": np.int64}[expected.dtype.kind])
    np.testing.assert_array_equal(found, expected, strict=True)


def plain(batch: Any) -> dict[str, Any]:
    """A batch of tensors as lists."""
    return {name: values.to_list() if hasattr(values, "to_list") else values.numpy() for name, values in batch.items()}


def equal(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two sequences of batches are the same."""
    pairs = zip(map(plain, some), map(plain, others), strict=True)
    return all(
        one.keys() == other.keys()
        and all(
            one[name] == other[name]
            if isinstance(one[name], list)
            else one[name].dtype == other[name].dtype
            and one[name].shape == other[name].shape
            and one[name].tobytes() == other[name].tobytes()
            if one[name].dtype != object
            else one[name].tolist() == other[name].tolist()
            for name in one
        )
        for one, other in pairs
    )


class TestWhole:
    @pytest.mark.parametrize(
        "kept",
        [
            Records(shard_bytes=5000),
            Records(images="png"),
            Records(compression="gzip", shard_bytes=5000),
        ],
        ids=["raw", "png", "gzip"],
    )
    def test_every_kind_is_read_back(self, tmp_path: Path, kept: Records) -> None:
        values = everything(70)
        keep(tmp_path, EVERY, kept, rows=13, train=values, test=everything(5, seed=1))
        found = arrays(tmp_path, "train")
        assert list(found) == list(EVERY)
        for name, expected in values.items():
            same(found[name], expected)
        assert list(verify(tmp_path, "train")) == []
        same(arrays(tmp_path, "test")["tokens"], everything(5, seed=1)["tokens"])

    def test_jpeg_is_read_back_nearly(self, tmp_path: Path) -> None:
        smooth = np.add.outer(np.arange(16) * 6, np.arange(16) * 5)[..., None].astype(np.uint8)
        values = {"image": np.stack([smooth, smooth + 50]), "mask": np.stack([smooth % 3, smooth % 5])}
        layout = {
            "image": Feature(shape=(16, 16, 1), dtype="uint8"),
            "mask": Feature(shape=(16, 16, 1), dtype="uint8", content="mask"),
        }
        keep(tmp_path, layout, Records(images="jpeg"), train=values)
        found = arrays(tmp_path, "train")
        assert 0 < np.abs(found["image"].astype(int) - values["image"]).max() < 10
        same(found["mask"], values["mask"])

    def test_is_the_same_whatever_is_parsed_at_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inputs, "ROWS", 7)
        for name, values in examples().items():
            same(arrays(folder, "train")[name], values)

    @settings(max_examples=8, deadline=None)
    @given(st.lists(st.lists(st.binary(max_size=5), max_size=3), min_size=1, max_size=6))
    def test_any_lists_of_strings_are_read_back(self, lists: list[list[bytes]]) -> None:
        import tempfile

        layout = {"words": Feature(shape=(None,), dtype="string"), "bytes": Feature(shape=(None,), dtype="uint8")}
        words = Ragged.of([np.array(words, object) for words in lists], object)
        joined = Ragged.of([np.frombuffer(b"".join(words), np.uint8) for words in lists], np.uint8)
        with tempfile.TemporaryDirectory() as name:
            keep(Path(name), layout, train={"words": words, "bytes": joined})
            found = arrays(Path(name), "train")
        assert [list(words) for words in found["words"]] == lists
        same(found["bytes"], joined)


class TestInfo:
    def test_says_what_was_written(self, tmp_path: Path) -> None:
        features = {
            "x": Feature(shape=(2,), columns=(Column(name="a"), Column(name="b")), optional=True),
            "image": Feature(shape=(4, 4, 1), dtype="uint8"),
            "label": Feature(dtype="int64", role="target", classes=("no", "yes")),
            "word": Feature(shape=(None,), dtype="string", content="category", classes=("a", "b"), role="note"),
        }
        values = {
            "x": np.zeros((3, 2)),
            "image": np.zeros((3, 4, 4, 1), np.uint8),
            "label": np.zeros(3, int),
            "word": Ragged.of([["a"], [], ["b"]], object),
        }
        about = {"workload": "w", "source": "s", "data": "real"}
        made = keep(tmp_path, features, Records(images="png"), about=about, train=values, test=values)
        assert read_info(tmp_path) == made
        assert (made.workload, made.source, made.data) == ("w", "s", "real")
        assert made.encodings == {"x": None, "image": "png", "label": None, "word": None}

    def test_tells_features_by_role(self, folder: Path) -> None:
        found = read_info(folder)
        assert found.examples == {"train": ROWS}
        assert list(found.named("input")) == ["x"]
        assert found.named("target")["label"].dtype == "int64"

    def test_is_the_same_bytes_wherever_it_is_written(self, tmp_path: Path) -> None:
        for name in ("one", "other"):
            keep(tmp_path / name, EVERY, train=everything(5))
        one, other = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "other"))
        assert one == other

    @pytest.mark.parametrize("text", [None, "", "[]", '{"version": 1}', '{"version": 3}'])
    def test_that_can_not_be_read_is_refused(self, folder: Path, text: str | None) -> None:
        (folder / "info.json").unlink()
        if text is not None:
            (folder / "info.json").write_text(text)
        with pytest.raises(DataError, match="holds no records"):
            read_info(folder)

    def test_answers_an_unknown_split_with_the_nearest(self, folder: Path) -> None:
        for read in (arrays, lambda *a: dataset(*a, 4), lambda *a: list(verify(*a))):
            with pytest.raises(DataError, match="no split `traim`: did you mean `train`"):
                read(folder, "traim")


class TestStoredOrder:
    def test_gives_batches(self, folder: Path) -> None:
        found = list(dataset(folder, "train", 16).as_numpy_iterator())
        assert [len(batch["x"]) for batch in found] == [16, 16, 16, 2]
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in found]), examples()["x"], strict=True)

    def test_knows_how_many_there_are(self, folder: Path) -> None:
        assert len(dataset(folder, "train", 16)) == 4


def rows_of(batches: Any) -> list[list[int]]:
    return [batch["label"].numpy().tolist() for batch in batches]


class TestStream:
    @pytest.mark.parametrize("in_memory", [True, False])
    @pytest.mark.parametrize("drop", [True, False])
    @pytest.mark.parametrize("batch", [7, 50])
    def test_follows_the_order_of_seed_and_epoch(self, folder: Path, batch: int, drop: bool, in_memory: bool) -> None:
        given = stream(folder, "train", batch_size=batch, seed=5, epochs=3, drop_remainder=drop, in_memory=in_memory)
        expected = []
        for epoch in range(3):
            rows = order(5, epoch, ROWS).tolist()
            expected += [rows[i : i + batch] for i in range(0, ROWS, batch) if not drop or i + batch <= ROWS]
        assert rows_of(given) == expected
        assert len(given) == len(expected)

    @pytest.mark.parametrize("in_memory", [True, False])
    def test_is_made_of_some_examples_only_if_asked(self, folder: Path, in_memory: bool) -> None:
        """All but a fold, in an order of their own, taken up again in the middle."""
        some = np.r_[0:10, 25:ROWS]
        orders = [some[order(5, epoch, len(some))] for epoch in range(2)]
        expected = [rows.tolist() for ordered in orders for rows in np.split(ordered, [16, 32])]
        settings: dict[str, Any] = {"batch_size": 16, "seed": 5, "epochs": 2, "in_memory": in_memory, "rows": some}

        assert rows_of(stream(folder, "train", **settings)) == expected
        assert rows_of(stream(folder, "train", **settings, first_step=4)) == expected[4:]
        assert rows_of(dataset(folder, "train", 99, np.arange(7, 12))) == [[7, 8, 9, 10, 11]]

    def test_is_the_same_from_memory_and_from_files(self, tmp_path: Path) -> None:
        keep(tmp_path, EVERY, Records(shard_bytes=5000, images="png"), train=everything(70))
        settings: dict[str, Any] = {"batch_size": 16, "seed": 1, "epochs": 2}
        kept, read = (stream(tmp_path, "train", **settings, in_memory=where) for where in (True, False))
        assert kept.element_spec == read.element_spec
        assert equal(list(kept), list(read))

    @pytest.mark.parametrize(("drop", "in_memory"), [(True, False), (False, True)])
    def test_goes_on_exactly_from_any_step(self, folder: Path, drop: bool, in_memory: bool) -> None:
        def made(first: int) -> list[Any]:
            return list(
                stream(
                    folder,
                    "train",
                    batch_size=16,
                    seed=2,
                    epochs=3,
                    first_step=first,
                    drop_remainder=drop,
                    in_memory=in_memory,
                )
            )

        whole = made(0)
        for first in (1, 4, len(whole)):
            assert equal(made(first), whole[first:])

    @pytest.mark.parametrize("in_memory", [True, False])
    @pytest.mark.parametrize(("batch", "workers"), [(16, 3), (7, 2), (49, 2)])
    def test_is_shared_out_among_workers(self, folder: Path, batch: int, workers: int, in_memory: bool) -> None:
        settings: dict[str, Any] = {"batch_size": batch, "seed": 3, "epochs": 2, "in_memory": in_memory}
        whole = rows_of(stream(folder, "train", **settings))
        shares = [rows_of(stream(folder, "train", **settings, shard=(i, workers))) for i in range(workers)]
        for i, share in enumerate(shares):
            assert share == [rows[i::workers] for rows in whole]

    def test_in_stored_order_repeats_itself(self, folder: Path) -> None:
        found = rows_of(stream(folder, "train", batch_size=25, seed=0, epochs=2, shuffle=False))
        assert found == 2 * [list(range(25)), list(range(25, 50))]

    @pytest.mark.parametrize("in_memory", [True, False])
    def test_has_known_shapes_where_all_batches_are_whole(self, tmp_path: Path, in_memory: bool) -> None:
        keep(tmp_path, EVERY, Records(images="png"), train=everything(40))
        settings: dict[str, Any] = {"batch_size": 16, "seed": 0, "epochs": 1, "in_memory": in_memory}
        spec = stream(tmp_path, "train", **settings, drop_remainder=True, shard=(0, 2)).element_spec
        assert spec["image"].shape == (8, 2, 2, 3)
        assert spec["text"].shape == (8,)
        open_ended = stream(tmp_path, "train", **settings).element_spec
        assert open_ended["image"].shape.as_list() == [None, 2, 2, 3]
        assert open_ended["curve"].shape.as_list() == [None, None, 2]

    def test_reads_what_does_not_fit_in_memory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []
        monkeypatch.setattr(inputs, "arrays", lambda folder, split: read.append(split) or arrays(folder, split))
        settings: dict[str, Any] = {"batch_size": 16, "seed": 0, "epochs": 1}
        kept = list(stream(folder, "train", **settings))
        assert read == ["train"]
        monkeypatch.setattr(inputs, "MEMORY_SHARE", 1e-9)
        assert equal(list(stream(folder, "train", **settings)), kept)
        assert read == ["train"]

    def test_of_compressed_records_comes_from_memory_or_in_stored_order(self, tmp_path: Path) -> None:
        keep(tmp_path, LAYOUT, Records(compression="gzip", shard_bytes=1000), train=examples())
        settings: dict[str, Any] = {"batch_size": 25, "seed": 4, "epochs": 1}
        (first, _) = rows_of(stream(tmp_path, "train", **settings))
        assert first == order(4, 0, ROWS)[:25].tolist()
        with pytest.raises(ConfigError, match="can't be read in a new order"):
            stream(tmp_path, "train", **settings, in_memory=False)
        found = rows_of(stream(tmp_path, "train", **settings, in_memory=False, shuffle=False))
        assert found == [list(range(25)), list(range(25, 50))]

    def test_of_batches_that_can_not_be_made_is_refused(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="at most 50 examples"):
            stream(folder, "train", batch_size=51, seed=0, epochs=1, drop_remainder=True)
        with pytest.raises(ConfigError, match="at least 4, one per worker"):
            stream(folder, "train", batch_size=3, seed=0, epochs=1, shard=(3, 4))

    def test_of_no_examples_is_refused(self, tmp_path: Path) -> None:
        keep(tmp_path, LAYOUT, train=examples(0))
        with pytest.raises(DataError, match="no examples"):
            arrays(tmp_path, "train")


def test_what_fits_in_memory_is_reckoned_by_what_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = {"x": Feature(shape=(1000,)), "text": Feature(dtype="string")}
    values = {"x": np.zeros((10, 1000)), "text": np.array([b"word" * 500] * 10, object)}
    info = keep(tmp_path, layout, train=values, test=values)
    memory = inputs.os.sysconf("SC_PAGE_SIZE") * inputs.os.sysconf("SC_PHYS_PAGES")
    for splits, needed in ((["train"], 10 * 4000 + info.splits["train"].bytes), (["train", "test"], 124_000 + 80_000)):
        monkeypatch.setattr(inputs, "MEMORY_SHARE", (needed + 1000) / memory)
        assert fits_in_memory(info, splits)
        monkeypatch.setattr(inputs, "MEMORY_SHARE", needed * 0.9 / memory)
        assert not fits_in_memory(info, splits)


# ------------------------------------------------------------------------------------------------- damage


def begins(path: Path) -> list[int]:
    """Where the records of a shard begin, found by walking from one to the next."""
    data, found = path.read_bytes(), [0]
    while found[-1] < len(data):
        found.append(found[-1] + 16 + struct.unpack_from("<Q", data, found[-1])[0])
    return found


def put(path: Path, record: int, change: Callable[[bytes], bytes]) -> None:
    """Change a record, but not its length, and give it the checksum that it then must have."""
    data, (start, end) = bytearray(path.read_bytes()), begins(path)[record : record + 2]
    changed = change(bytes(data[start + 12 : end - 4]))
    assert len(changed) == end - start - 16
    assert changed != data[start + 12 : end - 4]
    data[start + 12 : end - 4] = changed
    data[end - 4 : end] = checksums([changed])[0].tobytes()
    path.write_bytes(data)


def told(folder: Path) -> str:
    """What is said of the damage, which must be the same in whatever way the records are read."""
    (fault, *_) = verify(folder, "train")
    for read in (
        lambda: arrays(folder, "train"),
        lambda: list(stream(folder, "train", batch_size=16, seed=0, epochs=1, in_memory=False)),
    ):
        with pytest.raises(DataError, match="are damaged") as error, damage_named(folder, "train"):
            read()
        assert str(fault) in str(error.value)
    return str(fault)


class TestDamage:
    @pytest.mark.parametrize(
        ("where", "what"),
        [
            (0, "has a damaged length"),
            (7, "has a damaged length"),
            (9, "has a damaged checksum of its length"),
            (12, "does not match its checksum"),
            (40, "does not match its checksum"),
            (-1, "does not match its checksum"),
        ],
    )
    def test_of_a_flipped_bit_is_found_in_its_place(self, folder: Path, where: int, what: str) -> None:
        second = shards(folder)[1]
        starts = begins(second)
        flip(second, starts[4] + where if where >= 0 else starts[5] + where)
        assert told(folder) == f"{second.name}, record 4 from byte {starts[4]}, {what}"
        assert len(list(verify(folder, "train"))) == 1

    @settings(max_examples=200, deadline=None)
    @given(data=st.data())
    def test_of_any_flipped_bit_is_found(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        from headrace.records.positions import Reader

        folder = tmp_path_factory.mktemp("flipped")
        info = keep(folder, LAYOUT, Records(shard_bytes=1000), train=examples(20))
        path = data.draw(st.sampled_from(shards(folder)))
        whole = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        whole[bit // 8] ^= 1 << bit % 8
        starts = begins(path)
        path.write_bytes(whole)
        found, (fault,) = Reader(folder, "train", info.splits["train"]).look(np.arange(20))
        record = int(np.searchsorted(starts, bit // 8, side="right")) - 1
        assert (fault.path, fault.record, fault.offset) == (path, record, starts[record])
        assert [row for row, value in enumerate(found) if value is None] == [
            record + sum(info.splits["train"].lengths[: shards(folder).index(path)])
        ]

    def test_of_several_records_is_found_whole(self, folder: Path) -> None:
        first, second, *_ = shards(folder)
        starts = begins(first)
        flip(first, starts[2] + 30)
        put(first, 5, lambda record: b"\xff" * len(record))
        flip(second, 3)
        assert [(f.path, f.record) for f in verify(folder, "train")] == [(first, 2), (first, 5), (second, 0)]

    def test_of_a_file_that_ends_early_is_found(self, folder: Path) -> None:
        last = shards(folder)[-1]
        starts = begins(last)
        last.write_bytes(last.read_bytes()[:-5])
        record = len(starts) - 2
        end = starts[-1] - 5
        expected = f"{last.name}, record {record} from byte {starts[record]}, is cut off: the file ends at byte {end}"
        assert told(folder) == expected

    def test_of_a_file_that_ends_early_between_two_examples_is_found(self, folder: Path) -> None:
        first = shards(folder)[0]
        starts = begins(first)
        first.write_bytes(first.read_bytes()[: starts[6]])
        assert told(folder).startswith(f"{first.name}, record 6 from byte {starts[6]}, is cut off")
        assert len(list(verify(folder, "train"))) == len(starts) - 1 - 6

    def test_of_an_empty_file_is_found(self, folder: Path) -> None:
        first = shards(folder)[0]
        first.write_bytes(b"")
        assert told(folder) == f"{first.name}, record 0 from byte 0, is cut off: the file ends at byte 0"

    def test_of_a_file_that_goes_on_is_found(self, folder: Path) -> None:
        first = shards(folder)[0]
        size = first.stat().st_size
        first.write_bytes(first.read_bytes() * 2)
        assert told(folder) == f"{first.name} goes on behind its last record, from byte {size:,}"

    def test_of_a_missing_file_is_told_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inputs, "ROWS", 2)
        first = shards(folder)[0]
        first.unlink()
        assert told(folder) == f"{first.name} can't be read: No such file or directory"
        assert len(list(verify(folder, "train"))) == 1

    @pytest.mark.parametrize(
        "damage", [lambda data: data[: len(data) // 2], lambda data: data[:10] + b"\x07" + data[11:]]
    )
    def test_of_a_compressed_file_is_found(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        """One that ends early, and one whose first block is of a kind that there isn't."""
        info = keep(tmp_path, LAYOUT, Records(compression="gzip", shard_bytes=1000), train=examples())
        path = tmp_path / info.shards["train"][1]
        path.write_bytes(damage(path.read_bytes()))
        fault = next(verify(tmp_path, "train"))
        assert (fault.path, "is cut off" in fault.what) == (path, True)
        with pytest.raises(DataError, match=str(fault)):
            arrays(tmp_path, "train")

    def test_of_the_index_is_found(self, folder: Path) -> None:
        index = folder / "train.lengths"
        index.write_bytes(index.read_bytes()[:-1])
        for read in (arrays, lambda *a: list(verify(*a))):
            with pytest.raises(DataError, match=f"{index} is damaged"):
                read(folder, "train")
        index.unlink()
        with pytest.raises(DataError, match=f"{index} is missing"):
            arrays(folder, "train")

    def test_of_a_length_in_the_index_is_found(self, folder: Path) -> None:
        flip(folder / "train.lengths", 0)
        assert shards(folder)[0].name in told(folder)


class TestRecordsThatAreNone:
    """Sound frames, but what they hold is not what was written."""

    @pytest.mark.parametrize(
        ("old", "new", "what"),
        [
            (None, b"\xff", "is no tf.train.Example"),
            (b"\x01x", b"\x01q", "has no feature `x`"),
            (b"\x1a\x03\x0a\x01\x0a", b"\x0a\x03\x0a\x01\x0a", "holds `label` as bytes_list instead of int64_list"),
            (b"\x12\x1a\x0a\x18", b"\x12\x1a\x0a\x14", None),
        ],
    )
    def test_are_found(self, folder: Path, old: bytes | None, new: bytes, what: str | None) -> None:
        first = shards(folder)[0]
        # Record 10, whose label is 10.
        put(first, 10, lambda record: record.replace(old, new) if old else new * len(record))
        assert f"{first.name}, record 10 from byte {begins(first)[10]:,}, {what or 'is no tf.train.Example'}" == told(
            folder
        )

    @pytest.mark.parametrize(
        ("layout", "what"),
        [
            ({"x": Feature(shape=(5,))}, "holds 6 values of `x` instead of 5"),
            ({"x": Feature(shape=(None, 4))}, "holds 6 values of `x` instead of a multiple of 4"),
            ({"x": Feature(shape=(6,), dtype="int64")}, "holds `x` as float_list instead of int64_list"),
            ({"y": Feature()}, "has no feature `y`"),
            ({"raw": Feature(shape=(5,), dtype="uint8")}, "holds 4 bytes of `raw` instead of 5"),
            ({"raw": Feature(shape=(2,), dtype="uint8")}, "holds 4 bytes of `raw` instead of 2"),
            ({"raw": Feature(shape=(None, 3), dtype="uint8")}, "holds 4 bytes of `raw` instead of a multiple of 3"),
            ({"image": Feature(shape=(4, 4, 1), dtype="uint8")}, "holds an image of shape (8, 6, 1) in `image`"),
            ({"two": Feature(dtype="string")}, "holds 2 values of `two` instead of 1"),
        ],
    )
    def test_are_told_by_what_they_lack(self, tmp_path: Path, layout: dict[str, Feature], what: str) -> None:
        values = {
            "x": np.zeros((6, 6)),
            "raw": np.zeros((6, 4), np.uint8),
            "image": np.zeros((6, 8, 6, 1), np.uint8),
            "two": np.array([[b"a", b"b"]] * 6, object),
        }
        written = {
            "x": Feature(shape=(6,)),
            "raw": Feature(shape=(4,), dtype="uint8"),
            "image": Feature(shape=(8, 6, 1), dtype="uint8"),
            "two": Feature(shape=(2,), dtype="string"),
        }
        info = keep(tmp_path, written, Records(images="png"), train=values)
        encodings = {name: "png" if name == "image" else "raw" if name == "raw" else None for name in layout}
        changed: Any = {**vars(info), "features": layout, "encodings": encodings}
        inputs.write_info(tmp_path, inputs.Info(**changed))
        assert what in told(tmp_path)

    def test_are_told_if_they_hold_no_image(self, tmp_path: Path) -> None:
        values = {"image": np.zeros((3, 8, 6, 1), np.uint8)}
        info = keep(tmp_path, {"image": Feature(shape=(8, 6, 1), dtype="uint8")}, Records(images="png"), train=values)
        path = tmp_path / info.shards["train"][0]
        put(path, 1, lambda record: record.replace(b"\x89PNG", b"\x00PNG"))
        assert told(tmp_path) == f"{path.name}, record 1 from byte {begins(path)[1]}, holds no PNG image in `image`"


class TestWhatIsSaid:
    def test_is_said_inside_of_a_training(self, folder: Path) -> None:
        import keras

        flip(shards(folder)[1], 40)
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile(loss="mse")
        data = stream(folder, "train", batch_size=16, seed=0, epochs=1, in_memory=False)
        with pytest.raises(DataError, match=shards(folder)[1].name), damage_named(folder, "train"):
            model.fit(data.map(lambda batch: (batch["x"], batch["label"])), shuffle=False, verbose=0)

    def test_leaves_other_errors_as_they_are(self, folder: Path) -> None:
        import tensorflow as tf

        flip(shards(folder)[1], 40)
        with pytest.raises(tf.errors.InvalidArgumentError), damage_named(folder, "train"):
            tf.reshape(tf.zeros(3), (2, 2))
        with pytest.raises(ValueError, match="mine"), damage_named(folder, "train"):
            raise ValueError("mine")
