"""Windows of a series: which there are, how they are read, and that nothing leaks over the ends of splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Column, Feature, Records, Train, Windows
from headrace.errors import ConfigError, DataError
from headrace.records.inputs import arrays, at, dataset, fits_in_memory, read_info, stream, verify
from headrace.windows import Windowed, apart, count, counts, examples, over, tail
from tests.core.keeping import keep

LAYOUT = {
    "weather": Feature(shape=(3,)),
    "when": Feature(dtype="string", role="note"),
    "temperature": Feature(role="target"),
}
HOURS = Windows(length=5, every=2, ahead=3)
"""Five steps of two rows, and the target six rows after the last of them: 15 rows in all."""


def series(rows: int, first: int = 0) -> dict[str, Any]:
    """Rows in which every number says where it stands."""
    at = np.arange(first, first + rows)
    return {
        "weather": (at[:, None] + np.array([0.0, 0.25, 0.5])).astype(np.float32),
        "when": np.array([b"%d" % row for row in at], object),
        "temperature": at.astype(np.float32),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records of a series in several shards, to be read as windows."""
    keep(tmp_path, LAYOUT, Records(shard_bytes=2_000), windows=HOURS, train=series(90), test=series(40, first=90))
    assert len(read_info(tmp_path).shards["train"]) > 2
    return tmp_path


def by_hand(rows: int, first: int = 0, windows: Windows = HOURS) -> list[tuple[list[int], list[int]]]:
    """Rows of the inputs and of the targets of each window, worked out one by one."""
    found = []
    for begin in range(0, rows, windows.stride):
        steps = [begin + windows.every * k for k in range(windows.length)]
        targets = [step + windows.every * windows.ahead for step in steps]
        if max(targets) < rows:
            found.append(([first + step for step in steps], [first + step for step in targets]))
    return found


class TestWhichThereAre:
    @pytest.mark.parametrize("windows", [HOURS, Windows(length=4), Windows(length=3, every=2, ahead=1, stride=4)])
    def test_all_that_end_within_their_split(self, windows: Windows) -> None:
        for rows in range(windows.delay, windows.delay + 30):
            assert count(windows, rows) == len(by_hand(rows, windows=windows))

    def test_of_the_books_listing_as_many_as_keras_cuts(self) -> None:
        """`timeseries_dataset_from_array(data[:-delay], data[delay:], start_index, end_index)` (Chollet 10.2)."""
        import keras

        windows = HOURS.model_copy(update={"boundary": "beyond"})
        data, ends = np.arange(100.0), {"train": (0, 50), "validation": (50, 75), "test": (75, None)}
        theirs = {
            name: keras.utils.timeseries_dataset_from_array(
                data[: -windows.delay],
                data[windows.delay :],
                windows.length,
                sampling_rate=windows.every,
                start_index=begin,
                end_index=end,
                batch_size=100,
            )
            for name, (begin, end) in ends.items()
        }
        batches = {name: next(iter(found)) for name, found in theirs.items() if name != "test"}
        assert {name: len(found[0]) for name, found in batches.items()} == {"train": 42, "validation": 17}
        assert counts(windows, {"train": 50, "validation": 25, "test": 25 + 14}) == {
            "train": 42,
            "validation": 17,
            "test": 25 + 14 - 14 - 8,
        }
        steps, targets = batches["validation"]
        assert steps[0].numpy().tolist() == [50, 52, 54, 56, 58]
        assert targets[0] == 58 + 6

    def test_of_the_books_eight_years_as_many_as_it_has(self) -> None:
        """209,511, 104,398 and 103,542 of 420,451 rows."""
        windows = Windows(length=120, every=6, ahead=24, boundary="beyond")
        assert windows.delay == 858
        assert counts(windows, {"train": 210_225, "validation": 105_112, "test": 105_114}) == {
            "train": 209_511,
            "validation": 104_398,
            "test": 103_542,
        }
        assert tail(windows) == 144

    def test_a_split_that_is_too_short_is_told(self) -> None:
        assert counts(HOURS, {"train": 15}) == {"train": 1}
        with pytest.raises(DataError, match="too short for a window of 5 steps"):
            counts(HOURS, {"train": 15, "test": 14})


class TestInMemory:
    def test_each_is_made_of_its_rows(self, folder: Path) -> None:
        info, found = read_info(folder), arrays(folder, "train")
        due = by_hand(90)
        assert info.examples == {"train": len(due), "test": len(by_hand(40))}
        assert info.features["weather"].shape == (5, 3)
        assert info.features["temperature"].shape == ()
        np.testing.assert_array_equal(np.asarray(found["weather"])[..., 0], [steps for steps, _ in due])
        np.testing.assert_array_equal(found["temperature"], [targets[-1] for _, targets in due])
        assert found["when"].tolist() == [b"%d" % steps[-1] for steps, _ in due]

    def test_a_sequence_has_a_target_for_each_step(self, tmp_path: Path) -> None:
        windows = HOURS.model_copy(update={"target": "each"})
        keep(tmp_path, LAYOUT, windows=windows, train=series(40))
        assert read_info(tmp_path).features["temperature"].shape == (5,)
        found = arrays(tmp_path, "train")["temperature"]
        np.testing.assert_array_equal(np.asarray(found), [targets for _, targets in by_hand(40)])

    def test_a_path_has_the_targets_of_all_steps_to_come(self, tmp_path: Path) -> None:
        keep(tmp_path, LAYOUT, windows=HOURS.model_copy(update={"target": "path"}), train=series(40))
        assert read_info(tmp_path).features["temperature"].shape == (3,)
        found = arrays(tmp_path, "train")["temperature"]
        due = [[steps[-1] + 2, steps[-1] + 4, steps[-1] + 6] for steps, _ in by_hand(40)]
        np.testing.assert_array_equal(np.asarray(found), due)

    def test_210_000_of_them_are_no_copies(self) -> None:
        windows, rows = Windows(length=120, every=6, ahead=24), np.zeros((210_225, 14), np.float32)
        found = examples({"x": rows}, {"x": Feature(shape=(14,))}, windows, count(windows, len(rows)))["x"]
        assert found.shape == (209_367, 120, 14)
        assert found.nbytes < rows.nbytes + 900_000
        assert found[100_000:].values is rows
        assert np.shares_memory(found[::7].values, rows)

    def test_some_of_them_are_chosen_as_of_an_array(self) -> None:
        values = np.arange(24.0).reshape(12, 2)
        found = Windowed(values, np.arange(7, dtype=np.int32), np.array([0, 2, 4], np.int32))
        whole = np.asarray(found)
        assert whole.shape == found.shape
        for rows in (slice(2, 5), np.array([5, 0, 5]), np.arange(7) % 2 == 0):
            np.testing.assert_array_equal(np.asarray(found[rows]), whole[rows])
        np.testing.assert_array_equal(found[3], whole[3])
        np.testing.assert_array_equal(list(found), whole)

    def test_what_counts_is_the_size_of_the_rows(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from headrace.records import inputs

        monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 90 * 200}.__getitem__)
        monkeypatch.setattr(inputs, "MEMORY_SHARE", 1.0)
        assert fits_in_memory(read_info(folder), ["train"])


class TestReading:
    @pytest.mark.parametrize("target", ["last", "each", "path"])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_from_files_and_from_memory_is_the_same(self, tmp_path: Path, target: str, shuffle: bool) -> None:
        windows = HOURS.model_copy(update={"target": target})
        keep(tmp_path, LAYOUT, Records(shard_bytes=2_000), windows=windows, train=series(90))
        how: dict[str, Any] = {"batch_size": 16, "seed": 3, "epochs": 2, "shuffle": shuffle}
        sides = [list(stream(tmp_path, "train", in_memory=kept, **how)) for kept in (True, False)]
        assert [len(batch["temperature"]) for batch in sides[0]] == [16, 16, 16, 16, 12] * 2
        for one, other in zip(*sides, strict=True):
            for name in LAYOUT:
                assert one[name].shape == other[name].shape
                assert one[name].numpy().tobytes() == other[name].numpy().tobytes() or name == "when"

    def test_from_any_step_on_is_what_would_have_come(self, folder: Path) -> None:
        how: dict[str, Any] = {"batch_size": 16, "seed": 3, "epochs": 3}
        whole = list(stream(folder, "train", in_memory=False, **how))
        for kept in (True, False):
            later = list(stream(folder, "train", in_memory=kept, first_step=7, **how))
            assert len(later) == len(whole) - 7
            for one, other in zip(whole[7:], later, strict=True):
                np.testing.assert_array_equal(one["weather"], other["weather"])

    def test_in_stored_order_and_by_position(self, folder: Path) -> None:
        whole = np.asarray(arrays(folder, "test")["weather"])
        found = np.concatenate([batch["weather"] for batch in dataset(folder, "test", 7)])
        np.testing.assert_array_equal(found, whole)
        wanted = [20, 3, 3, 0]
        np.testing.assert_array_equal(at(folder, "test", wanted)["weather"], whole[wanted])
        rows = np.array([4, 2, 9])
        (batch,) = dataset(folder, "test", 7, rows)
        np.testing.assert_array_equal(batch["weather"], whole[rows])

    def test_a_damaged_row_is_named_as_the_record_that_it_is(self, folder: Path) -> None:
        path = sorted(folder.glob("train.tfrecord-*"))[0]
        data = bytearray(path.read_bytes())
        data[30] ^= 1
        path.write_bytes(data)
        (fault,) = verify(folder, "train")
        assert fault.record == 0
        with pytest.raises(DataError, match="record 0 from byte 0"):
            arrays(folder, "train")


class TestHoldingOut:
    def test_no_row_is_learned_from_and_watched(self) -> None:
        windows = Windows(length=3, every=2, ahead=1, stride=2)
        held = np.zeros(30, bool)
        held[10:15] = True
        left = apart(windows, ~held, held)
        rows = [{2 * i + k for k in range(windows.delay + 1)} for i in range(30)]
        watched = set().union(*(rows[i] for i in np.flatnonzero(held)))
        assert [i for i in range(30) if not rows[i] & watched] == np.flatnonzero(left).tolist()

    def test_cuts_the_end_of_a_split_off_with_a_gap(self, folder: Path) -> None:
        from headrace.training import _cut

        learn, held = _cut(read_info(folder), Train(epochs=1, validation_split=0.25), None, None, None, 0) or ((), ())
        first = int(np.flatnonzero(held)[0])
        assert first == 57
        assert np.flatnonzero(learn).max() + HOURS.delay < first
        assert not (learn & held).any()

    def test_in_drawn_folds_would_leave_nothing_to_learn_from(self, folder: Path) -> None:
        from headrace.training import _cut

        with pytest.raises(ConfigError, match="neighbouring windows overlap"):
            _cut(read_info(folder), Train(epochs=1), 1, 4, 1, 0)
        learn, held = _cut(read_info(folder), Train(epochs=1), 2, 4, None, 0) or ((), ())
        assert held.sum() == 19
        assert learn.sum() == 76 - 19 - 2 * HOURS.delay


class TestPredicting:
    """A model of windows answers for the rows of a table."""

    COLUMNS = (Column(name="a"), Column(name="b"))
    WINDOWS = Windows(length=3, every=2, ahead=1)

    def found(self, path: Path) -> list[Any]:
        from headrace.serving.rows import portions
        from headrace.windows import of_example

        features = {"weather": of_example(Feature(shape=(2,), columns=self.COLUMNS), self.WINDOWS)}
        notes = {"when": Feature(dtype="string", role="note")}
        return list(portions(path, features, notes, (), self.WINDOWS))

    def table(self, path: Path, rows: int, **cells: str) -> Path:
        lines = [f"{cells.get(f'a{k}', k)},{k + 0.5},at {k}" for k in range(rows)]
        path.write_text("\n".join(["a,b,when", *lines]) + "\n")
        return path

    def test_from_each_row_that_has_a_window_before_it(self, tmp_path: Path) -> None:
        (portion,) = self.found(self.table(tmp_path / "rows.csv", 9))
        assert portion.rows.tolist() == [4, 5, 6, 7, 8]
        values = portion.batch.column("weather").flatten().to_numpy().reshape(-1, 3, 2)
        np.testing.assert_array_equal(values[1], [[1, 1.5], [3, 3.5], [5, 5.5]])
        assert portion.batch.column("when").to_pylist() == ["at 4", "at 5", "at 6", "at 7", "at 8"]

    def test_but_not_from_a_row_that_cant_be_read(self, tmp_path: Path) -> None:
        (portion,) = self.found(self.table(tmp_path / "rows.csv", 9, a3="five"))
        assert portion.rows.tolist() == [4, 6, 8]
        assert [one.row for one in portion.bad] == [5, 7]
        assert "line 5" in portion.bad[0].in_words()
        assert "five" in portion.bad[0].in_words()

    def test_unless_the_table_is_too_short(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="too short for a window of 3 steps"):
            self.found(self.table(tmp_path / "rows.csv", 4))


def test_preprocessing_of_windows_is_that_of_their_rows() -> None:
    import tensorflow as tf

    def function(batch: Any) -> Any:
        return {"scaled": (batch["x"] - 3) / 2, "first": batch["x"][:, 0]}

    rows = np.arange(40.0, dtype=np.float32).reshape(20, 2)
    windows = Windows(length=4, every=2)
    cut = np.asarray(examples({"x": rows}, {"x": Feature(shape=(2,))}, windows, 5)["x"])
    found = over(function, windows)({"x": tf.constant(cut)})
    scaled = function({"x": tf.constant(rows)})["scaled"].numpy()
    for i, window in enumerate(found["scaled"].numpy()):
        assert window.tobytes() == scaled[i : i + 8 : 2].tobytes()
    assert found["first"].shape == (5, 4)
