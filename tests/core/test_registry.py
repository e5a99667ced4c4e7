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
from typing import Any

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

    def test_a_damaged_version_is_not_blessed(self) -> None:
        publish_blessed("a")
        version = publish("b")
        (registry.folder("houses", version) / "saved_model.pb").write_bytes(b"altered")
        with pytest.raises(ConfigError, match=r"version 2 can't be blessed: saved_model.pb was altered"):
            registry.bless("houses", 2)
        assert registry.blessed("houses") == 1

    def test_moves_are_remembered_with_what_was_said(self) -> None:
        publish_blessed("a")
        waiver = {"waivers": [{"gate": "promise", "by": "Ada", "reason": "known"}]}
        assert registry.replace("houses", CONTENTS, bundle="b", against=1, facts=waiver) == 2
        registry.rollback("houses")
        said = [(move["what"], move["version"], move["before"]) for move in registry.moves("houses")]
        assert said == [("blessed", 1, None), ("blessed", 2, 1), ("rolled back", 1, 2)]
        assert registry.moves("houses")[1]["waivers"] == waiver["waivers"]
        assert registry.show("houses", 2)["waivers"] == waiver["waivers"]

    def test_only_the_last_moves_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "MOVES", 3)
        publish_blessed("a")
        publish_blessed("b")
        for _ in range(4):
            registry.rollback("houses")
        assert [move["version"] for move in registry.moves("houses")] == [2, 1, 2]

    def test_of_a_registry_from_before_there_were_aliases_can_be_read_and_moved(self) -> None:
        publish("a")
        publish("b")
        (registry.folder("houses") / "pointers.json").write_text('{"blessed": 2, "previous": 1}')
        assert (registry.blessed("houses"), registry.aliases("houses"), registry.moves("houses")) == (2, {}, [])
        assert registry.rollback("houses") == (2, 1)
        registry.alias("houses", "canary", 2)
        assert (registry.blessed("houses"), registry.pointed("houses", "canary")) == (1, 2)


class TestReplacing:
    def test_publishes_and_blesses_what_was_compared_with_the_blessed_version(self) -> None:
        assert registry.replace("houses", CONTENTS, bundle="a", against=None) == 1
        assert registry.replace("houses", CONTENTS, bundle="b", against=1) == 2
        assert (registry.blessed("houses"), registry.pointed("houses", "previous")) == (2, 1)

    def test_does_nothing_if_another_version_is_blessed_by_now(self) -> None:
        registry.replace("houses", CONTENTS, bundle="a", against=None)
        registry.replace("houses", CONTENTS, bundle="b", against=1)
        assert registry.replace("houses", CONTENTS, bundle="c", against=1) is None
        assert (registry.versions("houses"), registry.blessed("houses")) == ([1, 2], 2)

    def test_by_the_blessed_version_itself_keeps_the_way_back(self) -> None:
        registry.replace("houses", CONTENTS, bundle="a", against=None)
        registry.replace("houses", CONTENTS, bundle="b", against=1)
        assert registry.replace("houses", CONTENTS, bundle="b", against=2) == 2
        assert registry.rollback("houses") == (2, 1)


class TestAliases:
    def test_stand_at_a_version_until_they_are_moved_or_taken_away(self) -> None:
        publish("a")
        publish("b")
        assert registry.alias("houses", "canary", 1) is None
        assert registry.alias("houses", "canary", 2) == 1
        assert registry.aliases("houses") == {"canary": 2}
        assert (registry.number("houses", "canary"), registry.show("houses", 2)["aliases"]) == (2, ["canary"])
        assert registry.alias("houses", "canary", None) == 2
        assert registry.aliases("houses") == {}

    @pytest.mark.parametrize("name", ["blessed", "previous", "7", "Canary", "a/b", ""])
    def test_have_names_that_are_no_number_and_no_pointer(self, name: str) -> None:
        publish("a")
        with pytest.raises(ConfigError, match="can't be an alias"):
            registry.alias("houses", name, 1)

    def test_do_not_stand_at_what_is_not_there_or_not_whole(self) -> None:
        publish("a")
        with pytest.raises(ConfigError, match="houses has no version 3"):
            registry.alias("houses", "canary", 3)
        (registry.folder("houses", 1) / "saved_model.pb").unlink()
        with pytest.raises(ConfigError, match=r"canary can't stand at version 1 of houses: saved_model.pb is missing"):
            registry.alias("houses", "canary", 1)
        with pytest.raises(ConfigError, match="There is no alias of houses `canary`"):
            registry.alias("houses", "canary", None)

    def test_an_unknown_word_is_answered_with_the_nearest(self) -> None:
        publish_blessed("a")
        registry.alias("houses", "canary", 1)
        with pytest.raises(ConfigError, match="houses has no version `canari`: did you mean `canary`"):
            registry.number("houses", "canari")


class TestPruning:
    def test_keeps_the_newest_and_every_version_that_a_pointer_stands_at(self) -> None:
        for bundle in "abcdefg":
            publish(bundle)
        registry.bless("houses", 2)
        registry.bless("houses", 3)
        registry.alias("houses", "canary", 5)
        assert registry.prune("houses", 1, dry=True) == [1, 4, 6]
        assert registry.versions("houses") == [1, 2, 3, 4, 5, 6, 7]
        assert registry.prune("houses", 1) == [1, 4, 6]
        assert registry.versions("houses") == [2, 3, 5, 7]
        assert (registry.verify("houses"), registry.prune("houses", 1)) == ({}, [])
        assert publish("h") == 8

    def test_of_everything_is_refused(self) -> None:
        publish("a")
        with pytest.raises(ConfigError, match="expected: to keep 1 at least"):
            registry.prune("houses", 0)

    def test_that_was_killed_is_finished_by_the_next_writer(self) -> None:
        publish("a")
        (registry.folder("houses") / ".removing-killed" / "7").mkdir(parents=True)
        publish("b")
        assert list(registry.folder("houses").glob(".removing-*")) == []


class TestModelServer:
    def test_is_to_serve_the_blessed_version_of_each_line(self) -> None:
        publish_blessed("a")
        publish_blessed("b")
        publish("c")
        publish("a", line="flats")
        found = parsed((registry.folder("houses").parent / "models.config").read_text())
        assert found == [("houses", str(registry.folder("houses")), "tensorflow", [2], {"blessed": 2})]
        registry.rollback("houses")
        registry.bless("flats", 1)
        found = parsed((registry.folder("houses").parent / "models.config").read_text())
        assert [(name, versions) for name, _, _, versions, _ in found] == [("flats", [1]), ("houses", [1])]

    def test_has_what_has_a_name_under_another_one_so_that_it_never_answers_for_the_blessed_version(self) -> None:
        publish_blessed("a")
        publish_blessed("b")
        publish("c")
        registry.alias("houses", "canary", 3)
        plain, named = parsed(registry.config("/models/"))
        assert plain == ("houses", "/models/houses", "tensorflow", [2], {"blessed": 2})
        labels = {"blessed": 2, "canary": 3, "previous": 1}
        assert named == ("houses.named", "/models/houses", "tensorflow", [1, 2, 3], labels)

    def test_is_never_told_to_serve_what_is_pruned(self) -> None:
        for bundle in "abc":
            publish_blessed(bundle)
        stale = "  versions: 1"
        (registry.folder("houses").parent / "models.config").write_text(stale)
        assert registry.prune("houses", 1) == [1]
        assert parsed((registry.folder("houses").parent / "models.config").read_text())[0][3] == [3]

    def test_is_told_again_by_the_next_move_after_a_kill(self) -> None:
        publish_blessed("a")
        (registry.folder("houses").parent / "models.config").unlink()
        publish_blessed("b")
        assert parsed((registry.folder("houses").parent / "models.config").read_text())[0][3] == [2]

    def test_paths_may_hold_quotes(self) -> None:
        publish_blessed("a")
        assert parsed(registry.config('/a "b"\\c'))[0][1] == '/a "b"\\c/houses'


def parsed(text: str) -> list[tuple[str, str, str, list[int], dict[str, int]]]:
    """What protobuf reads: name, base_path, model_platform, versions and version_labels of each model.

    The messages are those of TensorFlow Serving's model_server_config.proto and file_system_storage_path_source.proto,
    as far as they are used here.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="t", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, str, bool]) -> Any:
        made = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in ("string", "int64"):
                plain = kinds.TYPE_STRING if kind == "string" else kinds.TYPE_INT64
                made.field.add(name=field, number=number, label=label, type=plain)
            else:
                made.field.add(name=field, number=number, label=label, type=kinds.TYPE_MESSAGE, type_name=f".t.{kind}")
        return made

    message("Specific", ("versions", 1, "int64", True))
    message("Policy", ("specific", 102, "Specific", False))
    model = message(
        "Model",
        ("name", 1, "string", False),
        ("base_path", 2, "string", False),
        ("model_platform", 4, "string", False),
        ("model_version_policy", 7, "Policy", False),
        ("version_labels", 8, "Model.VersionLabelsEntry", True),
    )
    entry = model.nested_type.add(name="VersionLabelsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
    entry.field.add(name="value", number=2, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_INT64)
    message("List", ("config", 1, "Model", True))
    message("Config", ("model_config_list", 1, "List", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = text_format.Parse(
        text, message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Config"))()
    ).model_config_list.config
    return [
        (
            one.name,
            one.base_path,
            one.model_platform,
            list(one.model_version_policy.specific.versions),
            dict(one.version_labels),
        )
        for one in config
    ]


# ------------------------------------------------------------------------------------------- object stores


@pytest.fixture(params=["bucket", "mounted"])
def object_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An object store that speaks S3, or a folder that is used as one; the path of the registry."""
    if request.param == "mounted":
        monkeypatch.setenv("HEADRACE_REGISTRY", f"file://{tmp_path / 'mounted'}")
        return tmp_path / "mounted"
    place = request.getfixturevalue("bucket") / "models"
    monkeypatch.setenv("HEADRACE_REGISTRY", str(place))
    return place


class TestObjectStore:
    def test_holds_versions_pointers_and_the_config_as_a_folder_does(self, object_store: Any, tmp_path: Path) -> None:
        (tmp_path / "variables").mkdir()
        (tmp_path / "variables" / "variables.index").write_bytes(b"index")
        contents = {**CONTENTS, "variables": tmp_path / "variables"}
        assert registry.replace("houses", contents, bundle="a", against=None) == 1
        assert registry.publish("houses", contents, bundle="a") == 1
        assert registry.replace("houses", CONTENTS, bundle="b", against=1) == 2
        assert registry.replace("houses", CONTENTS, bundle="c", against=1) is None
        assert (registry.lines(), registry.versions("houses"), registry.verify("houses")) == (["houses"], [1, 2], {})
        assert (object_store / "houses" / "1" / "variables" / "variables.index").read_bytes() == b"index"
        assert registry.show("houses", 2)["lineage"] == {"a": 1}
        assert registry.rollback("houses") == (2, 1)
        registry.alias("houses", "canary", 2)
        found = parsed((object_store / "models.config").read_text())
        assert found[0][:2] == ("houses", f"{object_store}/houses")
        claims = object_store / "houses" / "claims"
        assert not (claims.exists() and list(claims.iterdir()))

    def test_a_version_is_none_before_its_manifest_is_there(self, object_store: Any) -> None:
        publish_blessed("a")
        (object_store / "houses" / "2").mkdir(parents=True, exist_ok=True)
        (object_store / "houses" / "2" / "saved_model.pb").write_bytes(b"half")
        assert registry.versions("houses") == [1]
        assert publish("b") == 3, "another machine may still be filling version 2"
        assert registry.versions("houses") == [1, 3]

    def test_damage_is_found(self, object_store: Any) -> None:
        publish_blessed("a")
        publish_blessed("b")
        (object_store / "houses" / "1" / "saved_model.pb").write_bytes(b"other")
        (object_store / "houses" / "2" / "saved_model.pb").unlink()
        assert registry.verify("houses") == {
            1: "saved_model.pb was altered after it was finished",
            2: "saved_model.pb is missing",
        }
        with pytest.raises(ConfigError, match="can't be rolled back to version 1"):
            registry.rollback("houses")

    def test_a_version_is_held_as_a_verified_copy(self, object_store: Any, headrace_home: Path) -> None:
        publish_blessed("a")
        place = registry.held("houses", 1)
        assert place.is_relative_to(headrace_home / "cache" / "registry")
        assert (place / "variables" / "variables.data").read_bytes() == b"a"
        (place / "variables" / "variables.data").write_bytes(b"z")
        assert (registry.held("houses", 1) / "variables" / "variables.data").read_bytes() == b"a"
        (object_store / "houses" / "1" / "saved_model.pb").write_bytes(b"other")
        shutil.rmtree(place)
        with pytest.raises(SystemTrouble, match=r"(?s)can't be fetched.*saved_model.pb was altered"):
            registry.held("houses", 1)

    def test_pruning_removes_versions_and_what_was_left_by_the_killed(
        self, object_store: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for bundle in "abc":
            publish(bundle)
        (object_store / "houses" / "4").mkdir(parents=True, exist_ok=True)
        (object_store / "houses" / "4" / "saved_model.pb").write_bytes(b"half")
        (object_store / "houses" / "claims" / "4-abc").write_text(json.dumps({"time": time.time()}))
        assert registry.prune("houses", 2) == [1]
        assert (object_store / "houses" / "4" / "saved_model.pb").exists(), "it may be going on"
        (object_store / "houses" / "claims" / "4-abc").write_text(json.dumps({"time": 0}))
        assert registry.prune("houses", 2) == []
        assert not (object_store / "houses" / "4" / "saved_model.pb").exists()
        assert registry.versions("houses") == [2, 3]

    def test_that_has_no_such_bucket_is_told_and_does_not_make_it(
        self, bucket: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADRACE_REGISTRY", "s3://no-such-bucket/models")
        for look in (registry.lines, lambda: publish("a")):
            with pytest.raises(SystemTrouble, match=r"(?s)s3://no-such-bucket/models can't be reached.*no bucket"):
                look()


class TestPlace:
    def test_is_a_folder_that_the_environment_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HEADRACE_REGISTRY", str(tmp_path / "shared"))
        publish_blessed("a")
        assert registry.folder("houses", 1) == tmp_path / "shared" / "houses" / "1"
        assert (registry.blessed("houses"), registry.held("houses", 1)) == (1, tmp_path / "shared" / "houses" / "1")


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


KILLED = """
import builtins, io, json, os, re, signal, shutil, sys
from pathlib import Path
from headrace import registry

# Let the n-th call of anything that changes the disk be the last thing that the process does, before or after it.
calls = 0

def deadly(module, name, at, after):
    call = getattr(module, name)

    def counted(*args, **named):
        global calls
        if name == "open" and not set("wx") & set(str([*args[1:2], *named.values()])):
            return call(*args, **named)
        calls += 1
        this = calls
        if this == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call(*args, **named)
        finally:
            if this == at and after:
                os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, counted)

contents = {"saved_model.pb": b"graph", "variables": Path(sys.argv[1]), "assets.extra/a.json": b"{}"}

def attempt(at, after):
    for module, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "mkdir"), (shutil, "copyfile"),
                         (Path, "rename"), (Path, "write_bytes"), (Path, "unlink"), (io, "open"), (builtins, "open")):
        deadly(module, name, at, after)
    registry.replace("houses", contents, bundle=f"{at}-{after}", against=registry.blessed("houses"))
    os._exit(0)

registry.replace("houses", contents, bundle="first", against=None)
killed = finished = 0
told = []
for after in (False, True):
    for at in range(1, 400):
        before = (registry.versions("houses"), registry.blessed("houses"))
        child = os.fork()
        if not child:
            attempt(at, after)
        status = os.waitpid(child, 0)[1]
        now = (registry.versions("houses"), registry.blessed("houses"))
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, "the publisher failed by itself"
            assert now[0][-1] == now[1] != before[1]
            assert (registry.folder("houses").parent / "models.config").read_text() == registry.config()
            finished += 1
            break
        killed += 1
        # A claim to a number outlives its publisher on an object store: the next number is larger.
        assert now[0][:-1] == before[0] or now[0] == before[0], (at, after, before, now)
        assert now[1] in (before[1], now[0][-1]), (at, after, before, now)
        told.append((now[0] != before[0], now[1] != before[1]))
        assert registry.verify("houses") == {}, (at, after)
        config = (registry.folder("houses").parent / "models.config").read_text()
        served = int(re.search("versions: ([0-9]+)", config)[1])
        assert served in now[0], (at, after, served, now)
        json.loads((registry.folder("houses") / "pointers.json").read_text())
print(json.dumps({"killed": killed, "finished": finished, "seen": sorted(set(told))}))
"""


class TestProcesses:
    @pytest.mark.parametrize("kind", ["folder", "object store"])
    def test_a_publisher_killed_at_any_step_leaves_the_old_or_the_new_version(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if kind == "object store":
            monkeypatch.setenv("HEADRACE_REGISTRY", f"file://{tmp_path / 'mounted'}")
        (tmp_path / "variables").mkdir()
        for name in ("index", "data"):
            (tmp_path / "variables" / name).write_bytes(name.encode())
        done = subprocess.run(
            [sys.executable, "-c", KILLED, tmp_path / "variables"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["finished"] == 2, "it was never let through to the end"
        assert told["killed"] > 40
        # Killed before the version stood, between version and pointer, and after the pointer was moved.
        assert told["seen"] == [[False, False], [True, False], [True, True]]
        assert drafts() == [] or kind == "folder"

    @pytest.mark.parametrize("object_store", ["mounted", pytest.param("bucket", marks=pytest.mark.slow)], indirect=True)
    def test_machines_on_one_object_store_get_versions_of_their_own(
        self, object_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "variables").mkdir()
        for number in range(3):
            (tmp_path / "variables" / f"part-{number}").write_bytes(os.urandom(20_000))
        publishers = []
        for name in ("left", "right", "middle"):
            # Nothing but the store is shared: locks lie in the home.
            monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / name))
            publishers.append(start(name, 3, tmp_path / "variables"))
        given = [int(line) for p in publishers for line in p.communicate(timeout=120)[0].split()[1:]]
        assert len(set(given)) == len(given) == 9
        assert sorted(given) == registry.versions("houses")
        assert registry.verify("houses") == {}
        assert registry.blessed("houses") in given

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
