"""Whatever is wrong with a request, the data or the machine: a few clear lines, a code, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import projects
from headrace.artifacts import MANIFEST, file_digest, home

COLUMNS = [column.name for column in projects.load("house_prices").sources["boston"].features["features"].columns]

Headrace = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def refused(headrace: Headrace) -> Refused:
    """The message with which `headrace run house_prices …` ends, after checking what holds for every failure."""

    def run(*words: str, code: int) -> str:
        result = headrace("run", "house_prices", "--profile", "smoke", *words)
        assert result.code == code, result.err
        assert result.out == ""
        message = str(result.err[result.err.index("headrace: error: ") :])
        assert "Traceback" not in result.err
        assert len(message.splitlines()) <= 12, message
        nothing_half_written()
        return message

    return run


def nothing_half_written() -> None:
    """Every folder that something could read is finished, no attempt has left its output, nothing is published."""
    for folder in home().glob("artifacts/*/*/*/"):
        assert (folder / MANIFEST).is_file(), folder
    assert not list(home().glob("work/*/*/*/output"))
    assert not list(home().glob("registry/*/*/"))
    assert {json.loads(path.read_text())["state"] for path in home().glob("runs/*/*/run.json")} <= {"failed"}


def table(path: Path, *edits: Callable[[list[list[str]]], Any], rows: int = 40) -> Path:
    """A CSV file as `house_prices` takes it, after some edits; line 1 holds the names."""
    random = np.random.default_rng(0)
    lines = [[*COLUMNS, "MEDV"], *([f"{value:.3f}" for value in random.uniform(1, 9, 14)] for _ in range(rows))]
    for edit in edits:
        edit(lines)
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return path


class TestRequests:
    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (["--variant", "kfold_10"], "there is no `kfold_10`: did you mean `kfold_100`"),
            (["--set", "train.epoch=8"], "`train` has no setting `epoch`: did you mean `epochs`?"),
            (["--set", "train.epochs=eight"], "train.epochs: input should be a valid integer"),
            (["--set", "train.epochs=-1"], "train.epochs: input should be greater than or equal to 1; received -1"),
            (["--set", "train.validation_split=1"], "train.validation_split: input should be less than 1"),
            (["--set", "model.depth=3"], "takes no `depth`"),
            (["--seed", "1.5"], "seed: expected a whole number"),
            (["--config", "missing.yaml"], "missing.yaml can't be read"),
            (["--source", "missing.csv"], "There is no file or folder missing.csv"),
            (["--source", "data.xlsx"], "the path of a table (.csv, .tsv, .parquet)"),
        ],
    )
    def test_that_are_wrong_start_nothing(self, refused: Refused, words: list[str], answer: str) -> None:
        assert answer in refused(*words, code=2)
        assert not home().exists()

    def test_for_a_metric_that_keras_has_not_name_it(self, refused: Refused) -> None:
        message = refused("--data", "synthetic", "--set", "train.metrics=[accurcy]", code=2)
        assert "accurcy" in message


class TestTables:
    """A table of the user's own, with something wrong in it."""

    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            (lambda lines: [line.pop(4) for line in lines], ["there is no column `NOX`"]),
            (lambda lines: lines[6].__setitem__(3, "many"), ["CHAS", "line 7", "many"]),
            (lambda lines: lines[8].__setitem__(13, "nan"), ["MEDV", "line 9"]),
            (lambda lines: lines[8].__setitem__(13, ""), ["MEDV", "line 9"]),
            (lambda lines: lines[8].__setitem__(0, "inf"), ["CRIM", "line 9"]),
            (lambda lines: lines.__delitem__(slice(1, None)), ["no rows"]),
            (lambda lines: lines[0].__setitem__(1, "CRIM"), ["CRIM"]),
        ],
        ids=["missing column", "text in a number", "NaN target", "empty target", "infinite", "no rows", "column twice"],
    )
    def test_is_refused_with_the_place(
        self, refused: Refused, tmp_path: Path, edit: Callable[[list[list[str]]], Any], words: list[str]
    ) -> None:
        message = refused("--source", str(table(tmp_path / "own.csv", edit)), code=3)
        for word in words:
            assert word in message, message

    def test_is_refused_for_all_mistakes_at_once(self, refused: Refused, tmp_path: Path) -> None:
        def two(lines: list[list[str]]) -> None:
            lines[6][3] = "many"
            lines[9][5] = "few"

        message = refused("--source", str(table(tmp_path / "own.csv", two)), code=3)
        assert "many" in message
        assert "few" in message

    def test_that_is_empty_is_refused(self, refused: Refused, tmp_path: Path) -> None:
        (tmp_path / "own.csv").write_text("")
        assert "own.csv" in refused("--source", str(tmp_path / "own.csv"), code=3)


class TestArchives:
    """A mirror with something wrong in it."""

    @pytest.fixture
    def archive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Made-up examples in the mirror, under the name of the real ones; the mirror vouches for them."""
        folder = tmp_path / "mirror"
        folder.mkdir()
        random = np.random.default_rng(0)
        path = folder / "boston_housing.npz"
        np.savez(path, x=random.uniform(1, 9, (60, 13)), y=random.uniform(5, 50, 60))
        monkeypatch.setenv("HEADRACE_MIRROR", str(folder))
        self.vouch(path)
        return path

    def vouch(self, path: Path) -> None:
        words = {"file": path.name, "sha256": file_digest(path), "bytes": path.stat().st_size}
        (path.parent / "MANIFEST.json").write_text(json.dumps([words]))

    def test_with_the_wrong_checksum_is_refused(self, refused: Refused, archive: Path) -> None:
        data = bytearray(archive.read_bytes())
        data[1000] ^= 1
        archive.write_bytes(data)
        message = refused("--data", "real", code=3)
        assert "boston_housing.npz" in message
        assert file_digest(archive)[:12] in message

    def test_that_is_truncated_is_refused(self, refused: Refused, archive: Path) -> None:
        archive.write_bytes(archive.read_bytes()[:3000])
        self.vouch(archive)
        assert "boston_housing.npz can't be read: it is truncated or damaged" in refused("--data", "real", code=3)

    def test_that_lacks_an_array_is_refused(self, refused: Refused, archive: Path) -> None:
        np.savez(archive, x=np.ones((60, 13)))
        self.vouch(archive)
        assert "there is no array `y`" in refused("--data", "real", code=3)

    def test_with_a_target_that_is_no_number_is_refused(self, refused: Refused, archive: Path) -> None:
        y = np.ones(60)
        y[7] = np.nan
        np.savez(archive, x=np.ones((60, 13)), y=y)
        self.vouch(archive)
        message = refused("--data", "real", code=3)
        assert "MEDV" in message
        assert "nan" in message.lower()


class TestMachines:
    def test_with_a_full_disk_are_told(self, refused: Refused, full_disk: Callable[[], None], tmp_path: Path) -> None:
        path = table(tmp_path / "own.csv", rows=900)
        assert path.stat().st_size > 50_000
        full_disk()
        message = refused("--source", str(path), code=4)
        assert "No room left while running stage `download`" in message
        assert "HEADRACE_HOME" in message

    def test_with_a_home_that_can_not_be_written_are_told(
        self, refused: Refused, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADRACE_HOME", "/sys/headrace")
        message = refused("--data", "synthetic", code=4)
        assert "Not allowed to write" in message
        assert "HEADRACE_HOME" in message

    def test_without_network_and_data_say_what_is_missing(
        self, refused: Refused, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTPS_PROXY", "https_proxy"):
            # A proxy that nobody runs: no network, wherever this test does.
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        message = refused("--data", "real", code=3)
        for words in ("boston_housing.npz", "HEADRACE_MIRROR", "--data synthetic"):
            assert words in message
