from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace import registry
from headrace.errors import ConfigError, SystemTrouble

CONTENTS = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets.extra/lineage.json": b'{"a": 1}'}


def publish(bundle: str, line: str = "houses") -> int:
    return registry.publish(line, {**CONTENTS, "variables/variables.data": bundle.encode()}, bundle=bundle)


def publish_blessed(bundle: str) -> int:
    version = publish(bundle)
    registry.bless("houses", version)
    return version


def drafts() -> list[Path]:
    return list(registry.folder("houses").glob(".publishing-*"))


class TestPublishing:
    def test_versions_count_up_from_one_in_each_line(self) -> None:
        assert [publish("a"), publish("b"), publish("a", line="flats")] == [1, 2, 1]
        assert registry.lines() == ["flats", "houses"]
        assert registry.versions("houses") == [1, 2]

    def test_a_version_has_the_layout_that_tensorflow_serving_reads(self, tmp_path: Path) -> None:
        (tmp_path / "variables").mkdir()
        (tmp_path / "variables" / "variables.index").write_bytes(b"index")
        (tmp_path / "model.tflite").write_bytes(b"lite")
        contents = {
            "saved_model.pb": b"graph",
            "variables": tmp_path / "variables",
            "assets.extra/model.tflite": tmp_path / "model.tflite",
        }
        registry.publish("houses", contents, bundle="a")
        found = {p.relative_to(registry.folder("houses")).as_posix() for p in registry.folder("houses").rglob("*.*")}
        assert found == {
            ".lock",
            "1/saved_model.pb",
            "1/variables/variables.index",
            "1/assets.extra",
            "1/assets.extra/model.tflite",
            "1/manifest.json",
        }
        assert os.stat(registry.folder("houses", 1)).st_mode & 0o777 == 0o755

    def test_one_bundle_makes_one_version(self) -> None:
        assert [publish("a"), publish("b"), publish("a")] == [1, 2, 1]

    def test_a_damaged_version_is_no_reason_not_to_publish_its_bundle_again(self) -> None:
        publish("a")
        (registry.folder("houses", 1) / "saved_model.pb").write_bytes(b"altered")
        assert publish("a") == 2

    def test_the_number_of_a_blessed_version_that_was_deleted_is_not_given_away(self) -> None:
        publish_blessed("a")
        shutil.rmtree(registry.folder("houses", 1))
        assert publish("b") == 2

    def test_a_publisher_that_fails_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            registry.publish("houses", {**CONTENTS, "model.tflite": tmp_path / "missing"}, bundle="a")
        assert registry.versions("houses") == []
        assert drafts() == []

    def test_a_full_disk_is_told_and_changes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        publish_blessed("a")
        (tmp_path / "model.tflite").write_bytes(b"lite")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfile", full)
        with pytest.raises(SystemTrouble, match="No room left while publishing"):
            registry.publish("houses", {"model.tflite": tmp_path / "model.tflite"}, bundle="b")
        assert registry.versions("houses") == [1]
        assert registry.blessed("houses") == 1
        assert drafts() == []

    def test_what_a_killed_publisher_left_is_cleaned_up_by_the_next(self) -> None:
        publish("a")
        (registry.folder("houses") / ".publishing-killed").mkdir()
        publish("b")
        assert drafts() == []


class TestPointers:
    def test_nothing_is_blessed_by_publishing_alone(self) -> None:
        publish("a")
        assert registry.blessed("houses") is None

    def test_rollback_goes_back_and_forth(self) -> None:
        publish_blessed("a")
        publish_blessed("b")
        assert registry.rollback("houses") == (2, 1)
        assert registry.blessed("houses") == 1
        assert registry.rollback("houses") == (1, 2)
        assert registry.blessed("houses") == 2

    def test_blessing_the_blessed_version_again_keeps_the_way_back(self) -> None:
        publish_blessed("a")
        publish_blessed("b")
        publish_blessed("b")
        assert registry.rollback("houses") == (2, 1)

    def test_there_is_no_way_back_from_the_first_version(self) -> None:
        publish_blessed("a")
        with pytest.raises(ConfigError, match="no version was blessed before"):
            registry.rollback("houses")

    def test_a_damaged_version_is_not_rolled_back_to(self) -> None:
        publish_blessed("a")
        publish_blessed("b")
        (registry.folder("houses", 1) / "saved_model.pb").unlink()
        with pytest.raises(ConfigError, match=r"version 1: saved_model.pb is missing"):
            registry.rollback("houses")
        assert registry.blessed("houses") == 2

    def test_a_version_that_does_not_exist_is_not_blessed(self) -> None:
        publish("a")
        with pytest.raises(ConfigError, match="houses has no version 7: there is `1`"):
            registry.bless("houses", 7)

    def test_an_unknown_line_is_answered_with_the_nearest(self) -> None:
        publish("a")
        with pytest.raises(ConfigError, match="did you mean `houses`"):
            registry.rollback("house")


class TestLooking:
    def test_show_tells_what_a_version_is_and_where_it_stands(self) -> None:
        publish_blessed("a")
        publish_blessed("b")
        shown = registry.show("houses", 1)
        assert (shown["version"], shown["bundle"], shown["blessed"], shown["previous"]) == (1, "a", False, True)
        assert shown["lineage"] == {"a": 1}
        assert shown["path"] == str(registry.folder("houses", 1))

    def test_show_takes_the_blessed_version_or_else_the_newest(self) -> None:
        publish("a")
        publish("b")
        assert registry.show("houses")["version"] == 2
        registry.bless("houses", 1)
        assert registry.show("houses")["version"] == 1

    def test_an_empty_home_has_no_lines(self) -> None:
        assert registry.lines() == []
        assert registry.versions("houses") == []
        assert registry.blessed("houses") is None

    def test_verify_names_the_damage_of_each_version(self) -> None:
        for bundle in "abcd":
            publish_blessed(bundle)
        (registry.folder("houses", 1) / "saved_model.pb").unlink()
        (registry.folder("houses", 2) / "variables" / "variables.data").write_bytes(b"z")
        (registry.folder("houses", 3) / "manifest.json").write_text("{}")
        shutil.rmtree(registry.folder("houses", 4))
        assert registry.verify("houses") == {
            1: "saved_model.pb is missing",
            2: "variables/variables.data was altered after it was finished",
            3: "manifest.json is missing or damaged",
            4: "its folder is gone",
        }

    def test_verify_finds_nothing_wrong_with_a_sound_line(self) -> None:
        publish_blessed("a")
        assert registry.verify("houses") == {}

    @pytest.mark.parametrize(
        ("version", "bundle", "reason"),
        [(1, "a", None), (2, "a", "version 2 is no longer in the registry"), (1, "b", "another bundle by now")],
    )
    def test_trouble_tells_why_a_version_is_not_what_was_published(
        self, version: int, bundle: str, reason: str | None
    ) -> None:
        publish("a")
        found = registry.trouble("houses", version, bundle)
        assert found is None if reason is None else reason in str(found)


# ----------------------------------------------------------------------------------------------- processes

PUBLISHER = """
import itertools, pathlib, sys
from headrace import registry

name, count, source = sys.argv[1:]
print("ready", flush=True)
for i in itertools.islice(itertools.count(), int(count) or None):
    contents = {"saved_model.pb": b"graph", "variables": pathlib.Path(source)}
    version = registry.publish("houses", contents, bundle=f"{name}-{i}")
    registry.bless("houses", version)
    print(version, flush=True)
"""


def start(name: str, count: int, source: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, name, str(count), source], stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def variables(tmp_path: Path) -> Path:
    folder = tmp_path / "variables"
    folder.mkdir()
    for i in range(40):
        (folder / f"part-{i}").write_bytes(os.urandom(20_000))
    return folder


class TestProcesses:
    def test_two_publishers_at_once_get_versions_of_their_own(self, variables: Path) -> None:
        publishers = [start(name, 5, variables) for name in ("left", "right")]
        given = [int(line) for p in publishers for line in p.communicate(timeout=120)[0].split()[1:]]
        assert sorted(given) == list(range(1, 11)) == registry.versions("houses")
        assert registry.verify("houses") == {}

    def test_a_publisher_killed_at_any_moment_leaves_the_old_or_the_new_version(self, variables: Path) -> None:
        chance = random.Random(7)
        interrupted = 0
        for attempt in range(12):
            publisher = start(str(attempt), 0, variables)
            assert publisher.stdout
            publisher.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.15))
            publisher.send_signal(signal.SIGKILL)
            told = [int(line) for line in publisher.communicate()[0].split()]
            interrupted += bool(drafts())
            versions = registry.versions("houses")
            assert versions == list(range(1, len(versions) + 1)), "a number is missing, or something else is there"
            assert set(told) <= set(versions), "a version that was told is not there"
            assert registry.verify("houses") == {}
            if told:
                assert registry.blessed("houses") in (told[-1], told[-1] + 1)
            if (registry.folder("houses") / "pointers.json").exists():
                json.loads((registry.folder("houses") / "pointers.json").read_text())
        assert interrupted, "no kill has hit a publisher at work: the test shows nothing"
        publish("at last")
        assert drafts() == []
