"""Requests that are kept for monitoring: in a form that its reader takes, bounded, private, and whole."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from headrace.readers.batches import whole
from headrace.readers.own_data import read_own
from headrace.serving import logs
from headrace.serving.logs import Kept, RequestLog, Sample, folder, write_entries
from headrace.spec import Column, Feature

TARGET = Feature(role="target", shape=(1,))
KINDS: dict[str, tuple[Feature, Any]] = {
    "vector": (
        Feature(shape=(2,), columns=(Column(name="ROOMS"), Column(name="AGE (years)"))),
        np.array([[1.5, 2], [3, 4]], np.float32),
    ),
    "single": (Feature(shape=(1,)), np.array([[1], [2]], np.float32)),
    "scalar": (Feature(dtype="int64", classes=("a", "b")), np.array([1, 0])),
    "image": (Feature(shape=(2, 2, 1), dtype="uint8"), np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)),
    "text": (Feature(dtype="string"), np.array([b"one", "zwei ü".encode()], object)),
    "window": (Feature(shape=(2, 2)), np.arange(8, dtype=np.float32).reshape(2, 2, 2)),
    "missing": (Feature(optional=True), np.array([np.nan, 2], np.float32)),
    "tokens": (Feature(shape=(None,), dtype="int64"), np.array([[1, 2, 3], [4, 5, 6]])),
}


def entry(features: dict[str, Feature], inputs: dict[str, Any], version: int = 3, at: float | None = None) -> Any:
    rows = len(next(iter(inputs.values())))
    answers = {"price": np.arange(rows, dtype=np.float32)[:, None]}
    return logs._Entry(inputs, answers, version, time.time() if at is None else at, features)


def numbers(rows: int, start: int = 0) -> dict[str, Any]:
    return {"x": np.arange(start, start + rows, dtype=np.float32)}


X = {"x": Feature()}


def kept(line: str = "line") -> list[float]:
    return [x for path in sorted(folder(line).rglob("*.parquet")) for x in parquet.read_table(path)["x"].to_pylist()]


class TestFiles:
    @pytest.mark.parametrize("kind", list(KINDS))
    def test_what_is_kept_is_read_back_by_the_reader_of_monitoring(self, kind: str) -> None:
        feature, values = KINDS[kind]
        features = {kind: feature}
        assert write_entries(folder("line"), "serve", [entry(features, {kind: values})], 10**9) == 2
        (day,) = folder("line").iterdir()

        read = read_own(day, {**features, "price": TARGET}, targets_required=False)
        found = whole(read, features)
        (file,) = day.iterdir()

        assert [batch.schema.names for batch in read] == [[kind]], "answers are taken for targets"
        if kind == "tokens":
            assert [list(steps) for steps in found[kind]] == values.tolist()
        else:
            np.testing.assert_array_equal(found[kind], values)
        table = parquet.read_table(file)
        assert table["answer/price"].to_pylist() == [0.0, 1.0]
        assert table["served/version"].to_pylist() == [3, 3]

    def test_what_no_reader_could_use_is_noted_beside(self) -> None:
        features = {"x": Feature(shape=(2,), columns=(Column(name="ROOMS"), Column(name="AGE")))}
        given = {"x": np.array([[1, 2], [np.nan, 4], [5, np.inf]], np.float32)}

        assert write_entries(folder("line"), "serve", [entry(features, given)], 10**9) == 1
        (day,) = folder("line").iterdir()

        notes = [json.loads(line) for line in (day / "unusable.jsonl").read_text().splitlines()]
        told = [(p["column"], p["reason"]) for note in notes for p in note["problems"]]
        assert told == [("ROOMS", "is missing"), ("AGE", "is infinite")]
        assert whole(read_own(day, features), features)["x"].tolist() == [[1, 2]]

    def test_only_their_owner_may_see_them(self) -> None:
        write_entries(folder("line"), "serve", [entry(X, numbers(2))], 10**9)

        for path in (folder("line"), *folder("line").rglob("*")):
            assert path.stat().st_mode & 0o77 == 0, path

    def test_the_oldest_go_when_all_together_are_too_large(self) -> None:
        for day in range(5):
            write_entries(folder("line"), "serve", [entry(X, numbers(10, 10 * day), at=86_400.0 * day)], 10**9)
        size = max(path.stat().st_size for path in folder("line").rglob("*.parquet"))
        write_entries(folder("line"), "serve", [entry(X, numbers(10, 50), at=86_400.0 * 5)], int(2.5 * size))

        assert kept() == list(range(40, 60))
        assert sorted(path.name for path in folder("line").iterdir()) == ["1970-01-05", "1970-01-06"]


class TestRequestLog:
    def test_it_keeps_everything_in_order_and_closes_a_file_when_it_is_full(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "SHARD_ROWS", 10)
        log = RequestLog("line")
        for i in range(25):
            log.add(numbers(1, i), {"y": np.zeros(1)}, 1, X)
        log.close()

        assert kept() == list(range(25))
        assert (log.written, log.lost) == (25, 0)
        assert len(list(folder("line").rglob("*.parquet"))) == 3

    def test_a_file_is_closed_when_it_has_been_open_for_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logs, "SHARD_SECONDS", 0.05)
        monkeypatch.setattr(logs, "LOOK_SECONDS", 0.02)
        log = RequestLog("line")
        log.add(numbers(1), {"y": np.zeros(1)}, 1, X)
        end = time.monotonic() + 20
        while not log.written and time.monotonic() < end:
            time.sleep(0.01)
        found = kept()
        log.close()

        assert found == [0]

    def test_a_share_of_the_requests_is_drawn(self) -> None:
        log = RequestLog("line", Kept(share=0.3))
        for i in range(1000):
            log.add(numbers(1, i), {"y": np.zeros(1)}, 1, X)
        log.close()

        assert 200 < len(kept()) < 400

    def test_what_comes_faster_than_it_can_be_written_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logs, "WAITING_BYTES", 100)
        log = RequestLog("line")
        log.add(numbers(1000), {"y": np.zeros(1)}, 1, X)
        log.close()

        assert (log.written, log.lost) == (0, 1000)

    def test_a_disk_that_refuses_ends_no_service(self, monkeypatch: pytest.MonkeyPatch, headrace_home: Path) -> None:
        headrace_home.mkdir()
        (headrace_home / "requests").write_text("no folder")
        log = RequestLog("line")
        log.add(numbers(3), {"y": np.zeros(1)}, 1, X)
        log.close()

        assert (log.written, log.lost) == (0, 3)

    def test_nothing_half_written_is_ever_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any) -> None:
            raise OSError("killed")

        monkeypatch.setattr(os, "replace", broken)
        with pytest.raises(OSError, match="killed"):
            write_entries(folder("line"), "serve", [entry(X, numbers(3))], 10**9)

        assert [path for path in folder("line").rglob("*") if path.is_file()] == []


class TestSample:
    def test_few_examples_are_all_kept(self) -> None:
        sample = Sample("line")
        sample.add(numbers(5), {"y": np.zeros(5)}, 1, X)

        assert sample.write() == 5
        assert kept() == list(range(5))

    def test_of_many_each_has_the_same_chance(self) -> None:
        sample = Sample("line", most_rows=1000)
        for start in range(0, 20_000, 500):
            sample.add(numbers(500, start), {"y": np.zeros(500)}, 1, X)
        sample.write()
        found = np.array(kept())

        assert 400 < len(found) <= 1000
        halves = [(found < 10_000).mean(), (found % 2 == 0).mean()]
        assert all(0.4 < share < 0.6 for share in halves)
        assert len(set(found)) == len(found)


def test_a_request_of_very_many_examples_is_looked_at_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PART", 100)
    given = {"x": np.where(np.arange(1000) % 2, np.nan, 1).astype(np.float32)}

    assert write_entries(folder("line"), "serve", [entry(X, given)], 10**9) == 500
    (day,) = folder("line").iterdir()
    assert len((day / "unusable.jsonl").read_text().splitlines()) == 500
