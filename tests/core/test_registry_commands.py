"""`headrace registry …`, and the options of a waiver."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import registry
from headrace.artifacts import write_json

Headrace = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("project")


def put(*bundles: str) -> None:
    for bundle in bundles:
        evaluation = json.dumps({"metrics": {"mae": 2.5}}).encode()
        contents = {"assets.extra/evaluation.json": evaluation, "assets.extra/model_card.md": f"# {bundle}".encode()}
        waived = {"waivers": [{"gate": "promise", "by": "Ada", "reason": "known"}]} if bundle == "b" else {}
        registry.replace("tiny", contents, bundle=bundle, against=registry.blessed("tiny"), facts=waived)


class TestVersions:
    def test_are_shown_by_number_or_name_with_their_waivers(self, headrace: Headrace) -> None:
        put("a", "b")
        registry.alias("tiny", "canary", 2)
        assert headrace("registry", "show", "tiny").out.startswith("tiny version 2 (blessed, canary)\n")
        assert "  waived: promise, by Ada: known" in headrace("registry", "show", "tiny", "canary").out
        assert headrace("registry", "show", "tiny", "previous").out.startswith("tiny version 1 (previous)\n")
        assert headrace("registry", "show", "tiny", "1", "--card").out == "# a\n"
        assert headrace("registry", "show", "tiny", "7").code == 2

    def test_are_blessed_and_named(self, headrace: Headrace) -> None:
        put("a", "b")
        assert headrace("registry", "bless", "tiny", "1").out == "tiny: version 1 is blessed, in place of 2\n"
        assert headrace("registry", "bless", "tiny", "1").out == "tiny: version 1 is the blessed one already\n"
        assert headrace("registry", "alias", "tiny", "canary", "2").out == "tiny: canary stands at version 2\n"
        moved = headrace("registry", "alias", "tiny", "canary", "previous")
        assert moved.out == "tiny: canary stands at version 2\n"
        assert "canary 2" in headrace("registry", "list").out
        taken = headrace("registry", "alias", "tiny", "canary", "--delete")
        assert taken.out == "tiny: canary no longer stands at version 2\n"
        assert headrace("registry", "alias", "tiny", "canary").code == 2

    def test_moves_are_told(self, headrace: Headrace) -> None:
        put("a", "b")
        headrace("registry", "rollback", "tiny")
        told = headrace("registry", "moves", "tiny").out
        assert [line.split()[1] for line in told.splitlines()[2:] if line] == ["blessed", "blessed", "rolled"]
        assert "promise, Ada: known" in told

    def test_that_are_old_are_pruned(self, headrace: Headrace) -> None:
        put(*"abcd")
        words = ("registry", "prune", "tiny", "--keep", "1")
        assert headrace(*words, "--dry-run").out == "tiny: would be removed: 1, 2; kept: 3, 4\n"
        assert registry.versions("tiny") == [1, 2, 3, 4]
        assert headrace(*words).out == "tiny: removed: 1, 2; kept: 3, 4\n"
        assert headrace(*words[:-1], "0").code == 2

    def test_are_verified(self, headrace: Headrace) -> None:
        put("a", "b")
        assert headrace("registry", "verify").out == "2 versions, all whole\n"
        (registry.folder("tiny", 1) / "assets.extra" / "model_card.md").write_text("altered")
        result = headrace("registry", "verify", "tiny")
        assert (result.code, result.out) == (3, "")
        assert "tiny version 1: assets.extra/model_card.md was altered after it was finished" in result.err
        assert headrace("registry", "verify", "tin").code == 2

    def test_for_a_model_server_are_printed_and_written(self, headrace: Headrace) -> None:
        put("a")
        config = registry.folder("tiny").parent / "models.config"
        config.unlink()
        assert 'base_path: "/models/tiny"' in headrace("registry", "config", "--base", "/models").out
        assert not config.exists()
        assert headrace("registry", "config").out == config.read_text()


@pytest.mark.usefixtures("standing_in")
class TestWaivers:
    def asked(self, home: Path) -> Any:
        """What the newest run was asked for."""
        (path,) = home.glob("runs/tiny/*/run.json")
        return json.loads(path.read_text())["settings"]["publish"]["waivers"]

    def test_are_asked_for_by_name_and_reason(self, headrace: Headrace, headrace_home: Path) -> None:
        waiver = {"by": "Ada Lovelace", "reason": 'a "known" fault: issue 12'}
        options = ("--by", waiver["by"], "--reason", waiver["reason"])
        assert headrace("run", "tiny", "--waive", "promise", "--waive", "slices", *options).code == 0
        asked = self.asked(headrace_home)
        assert (asked["promise"], asked["slices"], asked["baseline"]) == (waiver, waiver, None)

    def test_may_stand_in_a_configuration(self, headrace: Headrace, headrace_home: Path) -> None:
        waiver = {"by": "Ada", "reason": "known"}
        write_json(Path("asked.yaml"), {"publish": {"waivers": {"promise": waiver}}})
        assert headrace("run", "tiny", "--config", "asked.yaml").code == 0
        assert self.asked(headrace_home)["promise"] == waiver

    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (("--waive", "promise"), "a waiver needs a name and a reason; it has no name (by) and no reason"),
            (("--waive", "promise", "--by", "Ada"), "it has no reason"),
            (("--by", "Ada"), "--by and --reason say nothing without a gate"),
            (("--waive", "parity", "--by", "A", "--reason", "b"), "The gate `parity` can't be waived"),
            (("--waive", "promises", "--by", "A", "--reason", "b"), "did you mean `promise`?"),
        ],
    )
    def test_that_say_too_little_are_refused(
        self, headrace: Headrace, headrace_home: Path, words: tuple[str, ...], answer: str
    ) -> None:
        result = headrace("run", "tiny", *words)
        assert result.code == 2
        assert answer in result.err
        assert not (headrace_home / "runs").exists()
