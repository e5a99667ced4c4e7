"""`headrace serve` as a real process, asked over HTTP."""

from __future__ import annotations

import base64
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import registry
from headrace.readers.batches import whole
from headrace.readers.own_data import read_own
from headrace.spec import Feature
from tests.core.serving_models import LINE, Running, publish, publish_prices, save_letters

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def models(place: Path) -> dict[int, Any]:
    """Version → its Keras model; both are published, the second one is blessed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(place / "home"))
        return dict(publish_prices(place, seed) for seed in (1, 2))


@pytest.fixture(scope="module")
def server(place: Path, models: dict[int, Any]) -> Iterator[Running]:
    with Running(place / "home", "--poll", "0.05", "--max-body", "0.2") as running:
        yield running


@pytest.fixture
def home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The server's home is this process's, too; afterwards the second version is blessed again."""
    monkeypatch.setenv("HEADRACE_HOME", str(place / "home"))
    yield place / "home"
    registry.bless(LINE, 2)


@pytest.fixture(scope="module")
def letters(place: Path) -> Path:
    return save_letters(place / "letters", slow=1500)


def examples(rows: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(rows, 13)).astype(np.float32)


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def version(server: Running) -> str:
    return server.ask("")[1]["model_version_status"][0]["version"]


class TestAnswers:
    def test_rows_and_columns_give_the_numbers_of_keras(self, server: Running, models: dict[int, Any]) -> None:
        given = examples(5)
        expected = models[2](given).numpy()

        by_rows = server.ask(body={"instances": given.tolist()})
        by_columns = server.ask(body={"inputs": {"features": given.tolist()}, "signature_name": "serving_default"})

        assert (by_rows[0], by_columns[0]) == (200, 200)
        np.testing.assert_allclose(by_rows[1]["predictions"], expected, rtol=1e-5)
        np.testing.assert_allclose(by_columns[1]["outputs"], expected, rtol=1e-5)

    def test_a_version_and_a_label_may_be_named(self, server: Running) -> None:
        body = {"instances": examples(1).tolist()}
        usual = server.ask(body=body)[1]

        assert server.ask("/versions/2:predict", body)[1] == usual
        assert server.ask("/labels/blessed:predict", body)[1] == usual

    def test_status_and_metadata_are_those_of_tensorflow_serving(self, server: Running) -> None:
        state = {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        code, found, _ = server.ask("/metadata")

        assert [server.ask(path)[1] for path in ("", "/versions/2", "/labels/blessed")] == 3 * [
            {"model_version_status": [state]}
        ]
        assert code == 200
        assert found["model_spec"] == {"name": LINE, "signature_name": "", "version": "2"}
        (name,) = found["metadata"]["signature_def"]["signature_def"]
        signature = found["metadata"]["signature_def"]["signature_def"][name]
        assert (name, signature["method_name"]) == ("serving_default", "tensorflow/serving/predict")
        assert signature["inputs"]["features"]["dtype"] == "DT_FLOAT"
        assert [d["size"] for d in signature["inputs"]["features"]["tensor_shape"]["dim"]] == ["-1", "13"]

    def test_every_one_of_32_clients_gets_its_own_answers(self, server: Running, models: dict[int, Any]) -> None:
        def client(number: int) -> int:
            connection, right = server.connection(), 0
            for turn in range(6):
                given = examples(1 + number % 3, seed=100 * number + turn)
                code, found, _ = server.ask(body={"instances": given.tolist()}, connection=connection)
                right += code == 200 and np.allclose(found["predictions"], expected[number, turn], rtol=1e-4, atol=1e-5)
            connection.close()
            return right

        expected = {
            (number, turn): models[2](examples(1 + number % 3, seed=100 * number + turn)).numpy()
            for number in range(32)
            for turn in range(6)
        }
        with ThreadPoolExecutor(32) as pool:
            assert list(pool.map(client, range(32))) == [6] * 32

    def test_it_tells_that_it_lives_and_what_it_has_done(self, server: Running) -> None:
        server.ask(body={"instances": examples(3).tolist()})
        figures = server.ask("/metrics")[1]

        assert (server.ask("/healthz")[:2], server.ask("/readyz")[:2]) == ((200, "ok\n"), (200, "ready\n"))
        assert 'headrace_requests_total{status="200"}' in figures
        assert "headrace_model_version 2\n" in figures


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "body", "code", "words"),
        [
            (":predict", {"instances": [[1, 2]]}, 400, "instances[0]: expected 13 values, received 2"),
            (":predict", {"inputs": {"feature": [[1] * 13]}}, 400, "did you mean `features`?"),
            (":predict", b"\xff", 400, "no JSON"),
            (":predict", {"instances": [[0.123456789] * 13] * 2000}, 413, "are allowed"),
            ("/v1/models/house_price:predict", {}, 404, "did you mean `house_prices`?"),
            ("/versions/1:predict", {}, 404, "Version 1 of house_prices is not served: there is 2"),
            ("/versions/two:predict", {}, 404, "Version two"),
            ("/labels/canary:predict", {}, 404, "no label `canary`"),
            (":classify", {}, 405, "POST to :predict"),
            (":predict", None, 405, "POST a request to it"),
            ("/v2/health", None, 404, "expected /v1/models/house_prices"),
        ],
    )
    def test_an_error_says_what_is_wrong_in_tensorflow_servings_form(
        self, server: Running, path: str, body: Any, code: int, words: str
    ) -> None:
        status, found, _ = server.ask(path, body)

        assert (status, list(found)) == (code, ["error"])
        assert words in found["error"]
        assert "Traceback" not in found["error"]

    def test_a_body_without_a_length_is_bounded_too(self, server: Running) -> None:
        connection = server.connection()
        parts = iter([b"[" * 100_000] * 3)
        connection.request("POST", f"{server.path}:predict", parts, encode_chunked=True)

        assert connection.getresponse().status == 413
        connection.close()

    def test_a_packed_body_is_refused(self, server: Running) -> None:
        assert server.ask(body=b"x", headers={"Content-Encoding": "gzip"})[0] == 415


class TestVersions:
    def test_another_version_takes_over_under_load_and_no_request_is_lost(
        self, server: Running, models: dict[int, Any], home: Path
    ) -> None:
        given = examples(2)
        expected = {number: model(given).numpy() for number, model in models.items()}
        codes: list[int] = []
        seen: list[int] = []
        end = threading.Event()

        def client() -> None:
            connection = server.connection()
            while not end.is_set():
                code, found, _ = server.ask(body={"instances": given.tolist()}, connection=connection)
                codes.append(code)
                seen.extend(n for n, y in expected.items() if np.allclose(found["predictions"], y, rtol=1e-4))
            connection.close()

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for number in (1, 2, 1):
                if number == 1:
                    registry.bless(LINE, 1)
                else:
                    registry.rollback(LINE)
                until(lambda number=number: version(server) == str(number))
        finally:
            end.set()
            for thread in threads:
                thread.join()

        assert set(codes) == {200}
        assert len(seen) == len(codes)
        assert set(seen) == {1, 2}
        np.testing.assert_allclose(server.ask(body={"instances": given.tolist()})[1]["predictions"], expected[1], 1e-4)

    def test_a_version_that_cant_be_loaded_changes_nothing(self, server: Running, home: Path, tmp_path: Path) -> None:
        until(lambda: version(server) == "2")
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "saved_model.pb").write_bytes(b"no model")
        number = publish(tmp_path / "broken", "no model")

        until(lambda: "headrace_version_failures_total 1\n" in server.ask("/metrics")[1])

        assert (version(server), server.ask(body={"instances": examples(1).tolist()})[0]) == ("2", 200)
        assert any(f"house_prices version 2 stays: version {number} can't be loaded" in line for line in server.said)


def test_texts_and_bytes_are_answered_and_one_that_fails_fails_alone(place: Path, letters: Path) -> None:
    """And a server that is told to end answers first what is under way, keeps it, and ends well."""
    home = place / "letters-home"
    with Running(home, "--bundle", str(letters)) as server:
        odd = {"b64": base64.b64encode(b"\xff").decode()}
        code, found, _ = server.ask(body={"instances": ["café", odd]})
        assert code == 200
        first, second = found["predictions"]
        assert (first["length"], first["long"], first["text_again"]) == (5, True, "café")
        assert (second["length"], second["text_bytes"], second["text_again"]) == (1, odd, odd)
        np.testing.assert_allclose(first["scores"], [0.05, 0.95], rtol=1e-5)

        with ThreadPoolExecutor(8) as pool:
            texts = ["slow start", *["fine"] * 6, "fail"]
            codes = list(pool.map(lambda text: server.ask(body={"inputs": [text]})[0], texts))
        assert codes == [200] * 7 + [400]
        assert "a text that fails" in server.ask(body={"instances": ["fail"]})[1]["error"]

        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(server.ask, ":predict", {"instances": ["slow end"]})
            until(lambda: "headrace_requests_under_way 1\n" in server.ask("/metrics")[1])
            exit_code = server.stop(signal.SIGTERM)
            assert under_way.result()[0] == 200
        assert exit_code == 0
        assert not any("Traceback" in line for line in server.said)

    (day,) = (home / "requests" / "house_prices").iterdir()
    kept = whole(read_own(day, {"text": Feature(dtype="string")}), {"text": Feature(dtype="string")})["text"]
    assert sorted(kept) == sorted(["café".encode(), b"\xff", b"slow start", *[b"fine"] * 6, b"slow end"])
    assert {path.stat().st_mode & 0o77 for path in (day.parent, *day.iterdir())} == {0}


def test_ctrl_c_ends_it_well_too_and_nothing_is_kept_if_nothing_shall_be(place: Path, models: Any) -> None:
    home = place / "home"
    before = sorted((home / "requests").rglob("*.parquet"))
    with Running(home, "--no-log", "--version", "1", "--version", "blessed") as server:
        assert [entry["version"] for entry in server.ask("")[1]["model_version_status"]] == ["2", "1"]
        body = {"instances": examples(1).tolist()}
        assert server.ask(body=body)[1] == server.ask("/versions/1:predict", body)[1]
        assert server.ask("/labels/blessed:predict", body)[1] == server.ask("/versions/2:predict", body)[1]
        assert server.stop(signal.SIGINT) == 0
    mine = [path for path in (home / "requests").rglob("*.parquet") if f"-{server.process.pid}-" in path.name]
    assert (mine, os.path.exists(home / "registry")) == ([], True)
    assert len(before) <= len(sorted((home / "requests").rglob("*.parquet")))
