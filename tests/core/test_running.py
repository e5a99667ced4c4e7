"""A run keeps a record of itself, also when it ends badly or without a word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace import running
from headrace.artifacts import home, read_json, write_json
from headrace.chain import Stages
from headrace.errors import StageFailed, SystemTrouble
from headrace.jobs import Job, resolve

pytestmark = pytest.mark.usefixtures("project")


def records() -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted((home() / "runs").glob("*/*/run.json"))]


class TestExecute:
    def test_gives_the_summary_that_it_keeps(self, stages: Stages) -> None:
        summary = running.execute(resolve("tiny", seed=3), stages)
        assert records() == [json.loads(json.dumps(summary))]
        assert (summary["workload"], summary["variant"], summary["seed"]) == ("tiny", "plain", 3)
        assert (summary["state"], summary["data"], summary["verdict"]) == ("completed", "synthetic", "pass")
        assert summary["metrics"]["mae"] == 2.5
        assert Path(summary["report"]).is_file()

    def test_lists_every_stage_with_its_reason(self, stages: Stages) -> None:
        summary = running.execute(resolve("tiny", variant="folded"), stages)
        nodes = [stage["node"] for stage in summary["stages"]]
        assert nodes[3:8] == ["train/fold 1", "train/fold 2", "train/fold 3", "cross_validate", "train"]
        assert {stage["state"] for stage in summary["stages"]} == {"run"}
        again = running.execute(resolve("tiny", variant="folded"), stages)
        assert {stage["state"] for stage in again["stages"]} == {"skipped"}
        assert again["run"] != summary["run"]

    @pytest.mark.parametrize(
        ("error", "state", "words"),
        [
            (StageFailed("too wet"), "failed", "too wet"),
            (ValueError("odd"), "failed", "ValueError: odd"),
            (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt: "),
        ],
    )
    def test_records_how_it_failed(self, stages: Stages, error: BaseException, state: str, words: str) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise error

        with pytest.raises(type(error)):
            running.execute(resolve("tiny"), replace(stages, train=broken))
        (record,) = records()
        assert (record["state"], record["error"]) == (state, words)

    def test_tells_a_home_that_can_not_be_written(self, stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HEADRACE_HOME", "/sys/headrace")
        with pytest.raises(SystemTrouble, match="Not allowed to write while starting a run"):
            running.execute(resolve("tiny"), stages)

    @pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("not judged", 0), ("fail", 1)])
    def test_has_an_exit_code_for_each_verdict(self, verdict: str, code: int) -> None:
        assert running.exit_code({"verdict": verdict}) == code

    @pytest.mark.parametrize(
        ("policy", "verdict", "code"),
        [
            ({"on_fail": "go on"}, "fail", 0),
            ({"on_not_judged": "fail"}, "not judged", 1),
            ({"on_not_judged": "fail"}, "pass", 0),
            ({"on_fail": "go on", "on_not_judged": "fail"}, "fail", 0),
        ],
    )
    def test_ends_as_the_policy_of_the_variant_says(self, policy: dict[str, str], verdict: str, code: int) -> None:
        assert running.exit_code({"verdict": verdict, "settings": {"publish": policy}}) == code

    def test_ends_as_the_policy_of_the_variant_says_in_the_whole(self, stages: Stages) -> None:
        refused = {"gate": "promise", "passed": False, "reason": "MAE 9"}

        def failing(*inputs: Any, **named: Any) -> Any:
            made = stages.publish(*inputs, **named)
            said = made.json("publication.json") | {"verdict": "fail", "gates": [refused], "version": None}
            write_json(made.path / "publication.json", said)
            return made

        strict = running.execute(resolve("tiny"), replace(stages, publish=failing))
        patient = resolve("tiny", overrides={"publish.on_fail": "go on"})
        assert running.exit_code(strict) == 1
        assert running.exit_code(running.execute(patient, replace(stages, publish=failing))) == 0


class TestDeadRuns:
    def test_are_those_whose_process_is_gone(self, project: Path) -> None:
        script = project / "die.py"
        script.write_text(
            "import os, signal\n"
            "from headrace import running\n"
            "from headrace.jobs import resolve\n"
            "running.execute(resolve('tiny'), None, lambda job, stages: os.kill(os.getpid(), signal.SIGKILL))\n"
        )
        assert subprocess.run([sys.executable, script], check=False).returncode == -9
        (path,) = running.dead_runs()
        running.bury(path)
        assert records()[0]["state"] == "crashed"
        assert "without a word" in records()[0]["error"]
        assert running.dead_runs() == []

    def test_are_not_those_that_live(self, stages: Stages) -> None:
        seen: list[list[Path]] = []

        def order(job: Job, stages: Stages) -> Any:
            seen.append(running.dead_runs())
            raise StageFailed("enough")

        with pytest.raises(StageFailed):
            running.execute(resolve("tiny"), stages, order)
        assert seen == [[]]

    def test_are_told_from_another_process_with_the_same_number(self) -> None:
        process = {"host": os.uname().nodename, "pid": os.getpid(), "born": "1"}
        write_json(home() / "runs" / "tiny" / "a" / "run.json", {"state": "running", "process": process})
        assert len(running.dead_runs()) == 1

    def test_on_another_machine_are_not_ours_to_judge(self) -> None:
        process = {"host": "elsewhere", "pid": os.getpid(), "born": "1"}
        write_json(home() / "runs" / "tiny" / "a" / "run.json", {"state": "running", "process": process})
        assert running.dead_runs() == []

    def test_are_not_records_that_can_not_be_read(self) -> None:
        (home() / "runs" / "tiny" / "a").mkdir(parents=True)
        (home() / "runs" / "tiny" / "a" / "run.json").write_text("{")
        assert running.dead_runs() == []
