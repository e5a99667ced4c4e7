"""The temperature a day ahead: networks as printed, windows as counted, nothing leaked, and what the twin allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Feature
from headrace.artifacts import Artifact
from headrace.chain import Stages
from headrace.errors import DataError
from headrace.jobs import Job, resolve
from headrace.records.inputs import arrays, read_info
from headrace.windows import count, counts
from pipelines.sources import jena_climate as source

WINDOW = {"weather": Feature(shape=(120, 14))}


@pytest.mark.parametrize(
    ("variant", "printed"),
    [
        ("dense", 26_913),
        ("conv1d", 3_873),
        ("lstm", 2_001),
        ("lstm_dropout", 6_049),
        ("stacked_gru", 10_977),
        ("reversed", 2_001),
        ("bidirectional", 4_001),
        ("sequence", 2_001),
        ("path", 2_392),
    ],
)
def test_a_network_has_as_many_parameters_as_printed(variant: str, printed: int) -> None:
    job = resolve("jena_climate", variant=variant)
    assert job.the("model")(WINDOW, **job.settings.model).count_params() == printed


def made(variant: str, **overrides: Any) -> tuple[Job, Artifact, Artifact]:
    """The job with its raw files and records of the twin."""
    job = resolve("jena_climate", variant=variant, data="synthetic", overrides=overrides)
    stages = Stages.plain()
    raw = stages.download(job)
    return job, raw, stages.preprocess(job, raw)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def shared_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin is read once for all."""
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    monkeypatch.delenv("HEADRACE_MIRROR", raising=False)


class TestWindows:
    def test_are_those_of_the_book(self) -> None:
        """By its 420,451 rows, and by the year that the mirror has."""
        windows = resolve("jena_climate").settings.windows
        assert windows is not None
        rows = {"train": 210_225, "validation": 105_112, "test": 105_114}
        assert sum(rows.values()) == 420_451
        assert counts(windows, rows) == {"train": 209_511, "validation": 104_398, "test": 103_542}
        year = {"train": 26_348, "validation": 13_174, "test": 13_174}
        assert list(counts(windows, year).values()) == [25_634, 12_460, 11_602]
        strict = windows.model_copy(update={"boundary": "inside"})
        assert [count(strict, own) for own in rows.values()] == [209_367, 104_254, 104_256]

    @pytest.mark.parametrize("boundary", ["beyond", "inside"])
    def test_leak_nothing_over_the_boundaries(self, boundary: str) -> None:
        """Rows are numbered from the beginning of the series; a temperature tells the row that it is of."""
        job, raw, records = made("lstm", **{"windows.boundary": boundary})
        info, begin, seen, due = read_info(records.path), 0, {}, {}
        splits = job.origin.read(raw.path)
        temperatures = []
        for split, batches in splits.items():
            found = arrays(records.path, split)
            rows = sum(batch.num_rows for batch in batches)
            starts, offsets = found["weather"].starts.astype(int), found["weather"].offsets.astype(int)
            inputs = (begin + starts[:, None] + offsets).ravel()
            assert begin <= inputs.min() <= inputs.max() < begin + rows
            seen[split], due[split] = set(inputs.tolist()), (begin + starts + info.windows.delay)
            temperatures.append((found["temperature"][:, 0], due[split]))
            begin += rows
        assert not seen["train"] & seen["validation"]
        assert not seen["validation"] & seen["test"]
        learned = max(max(seen["train"]), due["train"].max())
        assert due["validation"].min() - learned == (715 if boundary == "beyond" else 859)
        assert due["test"].min() > max(max(seen["validation"]), due["validation"].max())
        whole = np.concatenate([to_rows(splits[split]) for split in splits])
        for values, rows_of in temperatures:
            np.testing.assert_array_equal(values, whole[rows_of, source.TEMPERATURE])

    def test_are_standardised_by_the_rows_of_the_training_split(self) -> None:
        job, raw, records = made("lstm")
        rows = to_rows(job.origin.read(raw.path)["train"]).astype(np.float64)
        found = arrays(records.path, "train")["weather"]
        window = np.asarray(found[1234])
        expected = (rows[1234 : 1234 + 720 : 6] - rows.mean(axis=0)) / rows.std(axis=0)
        np.testing.assert_allclose(window, expected, atol=2e-4)

    def test_of_a_sequence_have_the_temperature_a_day_after_each_step(self) -> None:
        _, _, records = made("sequence")
        one = read_info(made("lstm")[2].path)
        info = read_info(records.path)
        assert info.features["temperature"].shape == (120, 1)
        assert info.examples == one.examples
        several, single = (arrays(r.path, "test")["temperature"] for r in (records, made("lstm")[2]))
        np.testing.assert_array_equal(np.asarray(several)[:, -1], single)
        np.testing.assert_array_equal(np.asarray(several[900])[7], single[900 - 6 * 112])


def to_rows(batches: Any) -> np.ndarray:
    from headrace.readers.batches import whole

    found: np.ndarray = whole(batches, source.FEATURES)["weather"]
    return found


class TestTheNaiveForecast:
    def test_is_computed_exactly(self) -> None:
        """As a model, and as the baseline of every other one."""
        job, raw, records = made("naive", **{"train.epochs": 1, "export.formats": ["saved_model"]})
        stages = Stages.plain()
        model = stages.train(job, records)
        metrics = stages.evaluate(job, records, model).json("evaluation.json")["metrics"]
        rows = np.concatenate([to_rows(b) for b in job.origin.read(raw.path).values()])[:, source.TEMPERATURE]
        sizes = read_info(records.path).examples

        def mae(begin: int, examples: int) -> float:
            now = rows[begin + 714 : begin + 714 + examples]
            return float(np.abs(rows[begin + 858 : begin + 858 + examples] - now).mean())

        assert metrics["mae"] == pytest.approx(mae(30_000, sizes["test"]), rel=1e-5)
        watched = model.json("history.json")["metrics"]["val_mae"][0]
        assert watched == pytest.approx(mae(20_000, sizes["validation"]), rel=1e-5)

        other = resolve("jena_climate", variant="dense", data="synthetic", overrides={"train.epochs": 1})
        made_of = stages.preprocess(other, raw)
        judged = stages.evaluate(other, made_of, stages.train(other, made_of)).json("evaluation.json")
        assert judged["baselines"]["last temperature"]["mae"] == pytest.approx(metrics["mae"], rel=1e-5)
        expected = 1 - judged["metrics"]["mae"] / metrics["mae"]
        assert judged["metrics"]["skill"] == pytest.approx(expected, rel=1e-4)

    @pytest.mark.slow
    @pytest.mark.real_data
    def test_is_off_by_as_much_as_the_file_says(self, mirror: Path) -> None:
        """In 2020: 2.82 °C in summer, on which networks are watched, and 2.15 in autumn, on which they are tested."""
        job = resolve("jena_climate", variant="naive", source="year_2020", overrides={"train.epochs": 1})
        stages = Stages.plain()
        raw = stages.download(job)
        records = stages.preprocess(job, raw)
        model = stages.train(job, records)
        evaluation = stages.evaluate(job, records, model).json("evaluation.json")
        assert read_info(records.path).examples == {"train": 25_634, "validation": 12_460, "test": 11_602}
        assert model.json("history.json")["metrics"]["val_mae"][0] == pytest.approx(2.81964, abs=1e-4)
        assert evaluation["metrics"]["mae"] == pytest.approx(2.14610, abs=1e-4)


class TestTraining:
    def test_from_memory_and_from_files_ends_with_the_same_bytes(self) -> None:
        stages, models = Stages.plain(), []
        for feed in ("memory", "stream"):
            job, _, records = made(
                "dense", **{"train.epochs": 2, "train.feed": feed, "windows.stride": 5, "train.batch_size": 200}
            )
            model = stages.train(job, records)
            assert model.json("training.json")["feed"] == feed
            models.append((model.path / "model.keras").read_bytes())
        assert models[0] == models[1]

    @pytest.mark.slow
    def test_comes_near_to_the_best_that_the_twin_allows(self) -> None:
        """From a day of hours, and every fourth window: the series is short, and neighbours tell the same."""
        settings = {"train.epochs": 5, "train.learning_rate": 0.01, "windows.stride": 4, "windows.length": 24}
        job, raw, records = made("lstm", **settings)
        stages = Stages.plain()
        metrics = stages.evaluate(job, records, stages.train(job, records)).json("evaluation.json")["metrics"]
        rows = to_rows(job.origin.read(raw.path)["test"])[:, source.TEMPERATURE]
        turns = 2 * np.pi * (30_000 + np.arange(len(rows))) / 144
        cycles = 10 - 5 * np.cos(turns) - 4 * np.cos(turns / source.YEAR)
        best = np.abs(rows[144:] - cycles[144:] - 0.3 * (rows[:-144] - cycles[:-144])).mean()
        assert best == pytest.approx(2.28, rel=0.2)
        assert best < metrics["mae"] < 1.2 * best
        assert metrics["skill"] > 0.05


class TestTheSeries:
    def test_is_counted_for_what_is_irregular(self) -> None:
        times = [b"28.02.2020 23:50:00", b"29.02.2020 00:00:00", b"29.02.2020 00:00:00", b"29.02.2020 00:40:00"]
        found = source.irregular(times, unread=1)
        assert (found.missing, found.twice, found.back, found.unread) == (3, 1, 0, 1)
        assert source.irregular(times[::-1]).back == 2

    def test_stops_the_run_where_it_is_too_irregular(self) -> None:
        times = [b"01.01.2020 %02d:%02d:00" % divmod(20 * k, 60) for k in range(60)]
        with pytest.raises(DataError, match="59 steps of 10 minutes are missing"):
            source.inspected("weather.csv", times, 0)
        with pytest.raises(DataError, match="too irregular"):
            source.inspected("weather.csv", [b"01.01.2020 00:20:00", b"01.01.2020 00:10:00"], 0)
        with pytest.raises(DataError, match="can't be read"):
            source.inspected("weather.csv", [b"2020-01-01 00:20:00"], 0)

    @pytest.mark.real_data
    def test_of_2020_has_what_is_known_of_it(self, mirror: Path) -> None:
        """52,704 steps make the year: the file has 8 fewer, nine that are missing and one that is there twice."""
        from headrace.readers.batches import whole
        from headrace.readers.tables import read_table

        rows = whole(read_table(mirror / "jena_climate" / source.LATER, source.FEATURES), source.FEATURES)
        unread = int((rows["weather"] == source.NO_READING).any(axis=1).sum())
        assert source.inspected(source.LATER, rows["date_time"].tolist(), unread) == source.Irregular(
            steps=52_696, missing=9, twice=1, back=0, unread=1
        )
