"""What counts for a key: the code that is used, and not how it is written."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import fingerprints
from headrace.fingerprints import changes, core_code, digest, function_code, leaves, versions

WORKLOAD = '''
"""A workload."""
import math
from typing import TYPE_CHECKING

import common

if TYPE_CHECKING:
    from elsewhere import Batch

FACTOR = 2
TABLE = {}
TABLE["a"] = 1
TABLE.update(b=2)
try:
    import fast as quick
except ImportError:
    quick = None


def helper(x):
    return x * FACTOR


def preprocess(statistics) -> "Batch":
    """Words."""

    def inner(batch: Batch):
        return helper(batch)  # why

    return inner


def read(raw):
    return TABLE, quick


def shared(raw):
    return common.load(raw)


class Thing:
    """Words."""

    size = 3


def sized():
    return Thing.size
'''


@pytest.fixture
def code(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The code of a function of the workload after changes to it: `code("read", ("old", "new"))`."""
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "common.py").write_text("from pipelines import deeper\ndef load(raw): return raw\n")
    (folder / "deeper.py").write_text("X = 1\n")
    path = folder / "workload.py"

    def fingerprint(name: str, *edits: tuple[str, str]) -> dict[str, str]:
        text = WORKLOAD
        for old, new in edits:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path.write_text(text)
        return function_code(_stand_in(name, path))

    return fingerprint


def _stand_in(name: str, path: Path) -> Any:
    """A function that says it comes from this file, so that the file need not be imported."""
    scope: dict[str, Any] = {}
    exec(compile(f"def {name}(): ...", str(path), "exec"), scope)
    return scope[name]


class TestFunctionCode:
    @pytest.mark.parametrize(
        "edit",
        [
            ("return helper(batch)", "return -helper(batch)"),
            ("return x * FACTOR", "return x + FACTOR"),
            ("FACTOR = 2", "FACTOR = 3"),
        ],
        ids=["the function inside", "a helper", "a constant that the helper uses"],
    )
    def test_changes_with_everything_that_the_function_uses(self, code: Any, edit: tuple[str, str]) -> None:
        assert code("preprocess") != code("preprocess", edit)

    @pytest.mark.parametrize(
        "edit",
        [
            ("  # why", "  # why not"),
            ('def preprocess(statistics) -> "Batch":\n    """Words."""', 'def preprocess(statistics) -> "Batch":'),
            ("helper(batch)  # why", "helper(\n            batch\n        )"),
            ("return TABLE, quick", "return quick"),
            ('"""A workload."""', '"""The workload."""'),
            ("    from elsewhere import Batch", "    from elsewhere import Batch, Other"),
        ],
        ids=["comment", "docstring", "layout", "another function", "module docstring", "type import"],
    )
    def test_stays_with_everything_else(self, code: Any, edit: tuple[str, str]) -> None:
        assert code("preprocess") == code("preprocess", edit)

    @pytest.mark.parametrize(
        "edit",
        [
            ("TABLE = {}", "TABLE = dict()"),
            ('TABLE["a"] = 1', 'TABLE["a"] = 9'),
            ("TABLE.update(b=2)", "TABLE.update(b=9)"),
            ("import fast as quick", "import faster as quick"),
            ("    quick = None", "    quick = 0"),
        ],
    )
    def test_sees_every_statement_that_alters_what_is_used(self, code: Any, edit: tuple[str, str]) -> None:
        assert code("read") != code("read", edit)

    def test_follows_a_class_by_its_body(self, code: Any) -> None:
        assert code("sized") != code("sized", ("size = 3", "size = 4"))
        assert code("sized") == code("sized", ('class Thing:\n    """Words."""\n', "class Thing:\n"))

    def test_counts_a_module_of_the_project_as_a_whole_with_what_it_imports(self, code: Any, tmp_path: Path) -> None:
        before = code("shared")
        assert {"pipelines/common.py", "pipelines/deeper.py"} <= before.keys()
        (tmp_path / "pipelines" / "deeper.py").write_text("X = 2\n")
        assert changes({"code": before}, {"code": code("shared")}) == ["pipelines/deeper.py was changed"]

    def test_counts_the_modules_of_the_core_that_the_function_imports(self, code: Any) -> None:
        found = code("read", ("    return TABLE, quick", "    from headrace.running import born\n    return born"))
        assert "headrace.running" in found

    def test_takes_the_whole_file_and_what_it_imports_where_the_function_has_no_name(self, code: Any) -> None:
        assert list(code("nameless")) == ["pipelines/workload.py", "pipelines/common.py", "pipelines/deeper.py"]

    def test_does_not_depend_on_where_the_project_lies(self, code: Any, tmp_path: Path) -> None:
        here = code("read")
        (tmp_path / "pipelines").rename(tmp_path / "moved")
        (tmp_path / "other").mkdir()
        (tmp_path / "moved").rename(tmp_path / "other" / "pipelines")
        assert function_code(_stand_in("read", tmp_path / "other" / "pipelines" / "workload.py")) == here


class TestCoreCode:
    def test_follows_what_a_module_imports(self) -> None:
        assert {"headrace.running", "headrace.chain"} <= core_code("headrace.running").keys()

    def test_leaves_out_what_only_asks_and_tells(self) -> None:
        assert not core_code("headrace.running").keys() & {"headrace.errors", "headrace.jobs", "headrace.artifacts"}

    def test_names_modules_that_exist(self) -> None:
        for name in fingerprints._NOT_IN_KEYS:
            assert importlib.util.find_spec(name), name

    def test_is_nothing_for_a_module_outside_of_the_core(self) -> None:
        assert core_code("json") == {}


class TestDigests:
    def test_do_not_depend_on_the_order_of_keys(self) -> None:
        assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
        assert digest({"a": 1}) != digest({"a": 1.5})


def test_leaves_are_values_with_the_way_to_them() -> None:
    assert list(leaves({"a": {"b": 1, "c": [2, 3]}, "d": {}})) == [(("a", "b"), 1), (("a", "c"), [2, 3]), (("d",), {})]


def test_versions_are_read_without_importing_the_packages() -> None:
    assert versions("trove-classifiers")["trove-classifiers"]
    assert "trove_classifiers" not in sys.modules


class TestChanges:
    @pytest.mark.parametrize(
        ("before", "after", "words"),
        [
            ({"settings": {"train": {"epochs": 5}}}, {"settings": {"train": {"epochs": 8}}}, "`train.epochs` 5 → 8"),
            ({"settings": {"train": {}}}, {"settings": {"train": {"jit": True}}}, "`train.jit` null → true"),
            ({"inputs": {"download": "a"}}, {"inputs": {"download": "b"}}, "download changed"),
            ({"code": {"p/w.py:read": "a"}}, {"code": {"p/w.py:read": "b"}}, "`read` in p/w.py was changed"),
            ({"code": {}}, {"code": {"p/w.py:read": "b"}}, "`read` in p/w.py is new"),
            ({"code": {"p/w.py:read": "b"}}, {"code": {}}, "`read` in p/w.py is gone"),
            ({"core": {"headrace.x": "a"}}, {"core": {"headrace.x": "b"}}, "headrace.x was changed"),
            ({"versions": {"keras": "3.1"}}, {"versions": {"keras": "3.2"}}, "keras 3.1 → 3.2"),
        ],
    )
    def test_are_told_in_words(self, before: Any, after: Any, words: str) -> None:
        assert changes(before, after) == [words]

    def test_come_with_the_inputs_first_and_the_versions_last(self) -> None:
        before = {"versions": {"keras": "1"}, "inputs": {"download": "a"}, "settings": {"seed": 0}}
        after = {"versions": {"keras": "2"}, "inputs": {"download": "b"}, "settings": {"seed": 1}}
        assert changes(before, after) == ["download changed", "`seed` 0 → 1", "keras 1 → 2"]

    def test_are_none_between_equal_ingredients(self) -> None:
        assert changes({"inputs": {}}, {"inputs": {}}) == []

    def test_shorten_a_long_value(self) -> None:
        (words,) = changes({"settings": {"note": "x" * 100}}, {"settings": {"note": "y"}})
        assert len(words) < 90


def test_a_change_within_a_list_names_the_item() -> None:
    before = {"settings": {"promises": [{"metric": "mae", "at_most": 3.0}], "metrics": ["mae"]}}
    after = {"settings": {"promises": [{"metric": "mae", "at_most": 2.5}], "metrics": ["mae", "mse"]}}

    assert fingerprints.changes(before, after) == ['`metrics.1` null → "mse"', "`promises.0.at_most` 3.0 → 2.5"]
