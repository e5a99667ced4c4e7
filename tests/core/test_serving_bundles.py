"""What is meant by a workload, a line, a version, a name or a folder; and what can't be served."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import registry
from headrace.errors import ConfigError, DataError, SystemTrouble
from headrace.serving import bundles, server
from tests.core.serving_models import LINE, publish

LABELS = {"outputs": {"animal": {"task": "multiclass", "classes": ["cat", "dog"], "target": {}}}}


def empty(folder: Path) -> Path:
    """What looks like a SavedModel, and is none."""
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    return folder


@pytest.fixture
def published(tmp_path: Path) -> list[int]:
    """Three versions of which nothing is loaded; the last is blessed."""
    found = []
    for number in (1, 2, 3):
        folder = tmp_path / str(number)
        (folder / "assets").mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(bytes([number]))
        (folder / "assets" / "labels_fur.txt").write_text("short\nlong\n")
        found.append(publish(folder, f"bundle {number}", **LABELS))
    return found


@pytest.mark.usefixtures("published")
class TestPublished:
    @pytest.mark.parametrize(("wanted", "version"), [("blessed", 3), ("previous", 2), ("1", 1)])
    def test_a_version_is_found_by_name_and_number(self, wanted: str, version: int) -> None:
        found = bundles.published("house_prices", wanted)

        assert (found.name, found.version) == (LINE, version)
        assert found.path == registry.folder(LINE, version)

    def test_features_and_classes_are_what_was_trained_on(self) -> None:
        found = bundles.published("house_prices")

        assert found.features["features"].shape == (13,)
        assert found.targets["price"].task == "regression"
        assert found.targets["animal"] == bundles.Target("multiclass", ("cat", "dog"))
        assert found.targets["fur"].classes == ("short", "long")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("house_price",), "did you mean `house_prices`?"),
            (("house_prices", "7"), "has no version 7"),
            (("house_prices", "canary"), "No version of house_prices is called `canary`"),
            (("house_prices", "blessed", "house_prices-smoke"), "did you mean `house_prices`?"),
        ],
    )
    def test_what_there_is_none_of_is_told_with_what_there_is(self, words: tuple[str, ...], said: str) -> None:
        with pytest.raises(ConfigError) as caught:
            bundles.published(*words)
        assert said in str(caught.value)

    def test_a_damaged_version_is_not_served(self) -> None:
        (registry.folder(LINE, 3) / "saved_model.pb").write_bytes(b"other")

        with pytest.raises(DataError, match="altered"):
            bundles.published("house_prices")

    def test_a_line_of_another_workload_is_none_of_this_one(self, tmp_path: Path) -> None:
        publish(empty(tmp_path / "other"), "other", line="digits", workload="digits")

        with pytest.raises(ConfigError, match="digits is no line of house_prices"):
            bundles.published("house_prices", "blessed", "digits")


def test_models_of_made_up_data_are_never_served_unless_their_line_is_named(tmp_path: Path) -> None:
    publish(empty(tmp_path / "smoke"), "smoke", line="house_prices-synthetic-smoke")

    with pytest.raises(ConfigError, match="choose one: --line house_prices-synthetic-smoke"):
        bundles.published("house_prices")
    assert bundles.published("house_prices", line="house_prices-synthetic-smoke").version == 1


def test_a_folder_must_hold_a_saved_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no SavedModel"):
        bundles.in_folder("house_prices", tmp_path)
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "saved_model.pb").write_bytes(b"")

    found = bundles.in_folder("house_prices", tmp_path)

    assert (found.name, found.version, found.path) == ("house_prices", 1, tmp_path / "saved_model")


class TestServer:
    def test_without_its_packages_it_says_how_to_get_them(
        self, monkeypatch: pytest.MonkeyPatch, headrace: Callable[..., Any]
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        result = headrace("serve", "house_prices")

        assert result.code == SystemTrouble.exit_code
        assert "starlette and uvicorn are not installed here" in result.err
        assert 'pip install "headrace[serve]"' in result.err

    @pytest.mark.usefixtures("published")
    def test_a_port_that_is_taken_is_told_before_anything_is_loaded(self, headrace: Callable[..., Any]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            result = headrace("serve", "house_prices", "--port", str(taken.getsockname()[1]))

        assert result.code == SystemTrouble.exit_code
        assert "--port 0 takes a free port" in result.err

    @pytest.mark.usefixtures("published")
    def test_what_can_not_be_loaded_is_told_without_a_traceback(self, headrace: Callable[..., Any]) -> None:
        result = headrace("serve", "house_prices", "--port", "0")

        assert result.code == DataError.exit_code
        assert "can't be loaded" in result.err
        assert "Traceback" not in result.err

    def test_an_address_that_others_can_reach_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        server.listening("127.0.0.1", 0).close()
        assert not caplog.messages
        server.listening("0.0.0.0", 0).close()
        assert "can be reached from other machines" in caplog.text
