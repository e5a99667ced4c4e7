"""The command line: what it prints, what it refuses, what it exits with, and what it does not load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from headrace.artifacts import home, read_json, write_json
from headrace.chain import Stages
from headrace.errors import DataError, Diverged, SystemTrouble

Headrace = Callable[..., Any]
"""`headrace("run", "tiny")` gives code, out, err and, of what must be one JSON object, json."""


def failing(error: BaseException) -> Callable[..., Any]:
    def stage(*_: Any, **__: Any) -> Any:
        raise error

    return stage


class TestList:
    def test_shows_every_workload_with_its_variants(self, headrace: Headrace) -> None:
        result = headrace("list")
        assert result.code == 0
        for word in ("house_prices", "regression", "Chollet", "kfold_500"):
            assert word in result.out

    def test_shows_the_others_beside_a_broken_file(self, headrace: Headrace, project: Path) -> None:
        (project / "pipelines" / "broken.py").write_text("import nothing_of_this_name\n")
        result = headrace("list")
        assert result.code == 2
        assert "tiny" in result.out
        assert "pipelines/broken.py can't be loaded, because of line 1" in result.err


class TestShow:
    def test_tells_everything_that_can_be_chosen(self, headrace: Headrace) -> None:
        result = headrace("show", "house_prices")
        assert result.code == 0
        for words in (
            "boston (default)",
            "NOTE: Column B encodes the share of Black residents",
            "licence: none stated",
            "crimes per head",
            "median price of owner-occupied homes",
            "train.epochs",
            "cross_validation.folds",
            "at most 3",
            "2.464",
        ):
            assert words in result.out

    def test_writes_settings_as_they_are_set(self, headrace: Headrace, project: Path) -> None:
        lines = {
            line.split()[0]: line.split()[1:] for line in headrace("show", "tiny").out.splitlines() if line.strip()
        }
        assert lines["train.epochs"] == ["5", "1"]
        assert lines["model.units"] == ["4"]

    def test_tells_of_other_variants_what_they_set_otherwise(self, headrace: Headrace, project: Path) -> None:
        text = headrace("show", "tiny").out
        plain, _, folded = text.partition("Variant folded")
        assert "cross_validation.folds" not in plain
        assert "\n  cross_validation.folds=3\n" in folded
        assert "train.epochs=" not in folded


class TestPlan:
    def test_tells_each_stage_with_the_reason(self, headrace: Headrace, standing_in: Any) -> None:
        result = headrace("plan", "tiny")
        assert result.code == 0
        first, *others = [line for line in result.out.splitlines() if "never made" in line or "after " in line]
        assert first.split()[:2] == ["download", "run"]
        assert all("unknown" in line for line in others)

    def test_is_one_json_object_when_asked(self, headrace: Headrace, standing_in: Any) -> None:
        plan = headrace("plan", "tiny", "--variant", "folded", "--seed", "3", "--json").json
        assert (plan["workload"], plan["variant"], plan["seed"]) == ("tiny", "folded", 3)
        assert plan["stages"][0] == {"node": "download", "state": "run", "reason": "never made for this selection"}

    def test_names_the_cause_of_a_rerun(self, headrace: Headrace, standing_in: Any, edit: Any) -> None:
        headrace("run", "tiny")
        after_setting = headrace("plan", "tiny", "--set", "train.epochs=8", "--json").json["stages"]
        states = {stage["node"]: (stage["state"], stage["reason"]) for stage in after_setting}
        assert states["preprocess"] == ("skip", "nothing it depends on has changed")
        assert states["train"] == ("run", "`train.epochs` 5 → 8")
        edit("return lambda batch: batch", "return lambda batch: -batch")
        after_code = headrace("plan", "tiny", "--json").json["stages"]
        assert after_code[0]["state"] == "skip"
        assert after_code[1]["reason"] == "`preprocess` in pipelines/tiny.py was changed"
        assert after_code[2]["state"] == "unknown"

    def test_leaves_no_trace(self, headrace: Headrace, standing_in: Any) -> None:
        headrace("plan", "tiny")
        assert not home().exists()


class TestRun:
    def test_tells_stages_metrics_gates_and_report(self, headrace: Headrace, standing_in: Any) -> None:
        result = headrace("run", "tiny")
        assert result.code == 0
        for words in (
            "SYNTHETIC DATA",
            "never made for this selection",
            "2.1 to 2.9",
            "not judged",
            "saved_model agrees to 2e-08",
            "verdict: pass · version 3",
        ):
            assert words in result.out
        path = result.out.splitlines()[-1].removeprefix("report: ")
        assert Path(path).is_file()

    def test_gives_one_json_object_when_asked(self, headrace: Headrace, standing_in: Any) -> None:
        summary = headrace("run", "tiny", "--json").json
        required = {"workload", "variant", "data", "seed", "verdict", "metrics", "stages", "artifacts", "report"}
        assert required <= summary.keys()
        assert {stage["state"] for stage in headrace("run", "tiny", "--json").json["stages"]} == {"skipped"}

    def test_keeps_what_libraries_print_out_of_standard_output(
        self, headrace: Headrace, standing_in: Any, stages: Stages
    ) -> None:
        def chatty(*arguments: Any, **others: Any) -> Any:
            print("Saved artifact at …")
            return stages.export(*arguments, **others)

        standing_in(export=chatty)
        result = headrace("run", "tiny", "--json")
        assert result.json["state"] == "completed"
        assert "Saved artifact at …" in result.err

    def test_exits_with_1_if_the_verdict_is_fail(
        self, headrace: Headrace, standing_in: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from headrace import running

        monkeypatch.setattr(running, "execute", lambda *given: {"verdict": "fail"})
        result = headrace("run", "tiny", "--json")
        assert (result.code, result.json) == (1, {"verdict": "fail"})

    def test_says_no_synthetic_data_of_real_ones(self, headrace: Headrace, standing_in: Any) -> None:
        assert "SYNTHETIC" not in headrace("run", "tiny", "--data", "real").out

    def test_writes_what_was_measured_into_the_documents(
        self, headrace: Headrace, standing_in: Any, project: Path
    ) -> None:
        result = headrace("run", "tiny", "--data", "real", "--seed", "3", "--write")
        path = project / "docs" / "results.json"
        assert (result.code, result.err.splitlines()[-1]) == (0, f"wrote {path}")
        (kept,) = json.loads(path.read_text())["tiny"]["plain"].values()
        assert (kept["values"], kept["not judged"]) == ({"3": 2.5}, "a smoke run")

    def test_writes_nothing_of_made_up_data(self, headrace: Headrace, standing_in: Any, project: Path) -> None:
        result = headrace("run", "tiny", "--write")
        assert (result.code, (project / "docs").exists()) == (0, False)
        assert "the data are made up" in result.err

    def test_that_is_to_be_written_has_to_be_the_variant_as_it_is(
        self, headrace: Headrace, standing_in: Any, project: Path
    ) -> None:
        result = headrace("run", "tiny", "--set", "train.epochs=2", "--write")
        assert result.code == 2
        assert "received: --set train.epochs" in result.err
        assert not (home() / "runs").exists()

    def test_ends_dead_runs_first(self, headrace: Headrace, standing_in: Any) -> None:
        process = {"host": os.uname().nodename, "pid": 2**22 + 1, "born": "1"}
        path = home() / "runs" / "tiny" / "20200101-000000-aaaaaa" / "run.json"
        write_json(path, {"state": "running", "process": process})
        result = headrace("run", "tiny")
        assert read_json(path)["state"] == "crashed"
        assert "run 20200101-000000-aaaaaa had ended without a word" in result.err

    def test_hands_everything_to_the_flow_with_the_other_engine(
        self, headrace: Headrace, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []

        def run(workload: str, parameters: dict[str, Any]) -> dict[str, Any]:
            asked.append((workload, parameters))
            return {"verdict": "pass"}

        monkeypatch.setitem(sys.modules, "flows", SimpleNamespace(run=run))
        words = ("--engine", "prefect", "--variant", "folded", "--seed", "3", "--set", "train.epochs=8", "--json")
        assert headrace("run", "tiny", *words).code == 0
        parameters = {"variant": "folded", "profile": "full", "data": "auto", "source": "numbers", "seed": 3}
        assert asked == [("tiny", {**parameters, "overrides": {"train.epochs": 8}})]

    def test_tells_that_prefect_is_missing(
        self, headrace: Headrace, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "prefect", None)
        result = headrace("run", "tiny", "--engine", "prefect")
        assert result.code == 4
        assert "Prefect is not installed here.\n  to go on: `make setup`" in result.err


class TestRequests:
    def test_take_the_command_line_over_the_file(self, headrace: Headrace, standing_in: Any, tmp_path: Path) -> None:
        config = tmp_path / "run.yaml"
        config.write_text("variant: folded\nseed: 3\ntrain: {epochs: 7, batch_size: 8}\n")
        summary = headrace(
            "run", "tiny", "--config", str(config), "--seed", "4", "--set", "train.epochs=9", "--json"
        ).json
        assert (summary["variant"], summary["seed"]) == ("folded", 4)
        assert (summary["settings"]["train"]["epochs"], summary["settings"]["train"]["batch_size"]) == (9, 8)

    def test_tell_all_mistakes_at_once(self, headrace: Headrace, project: Path) -> None:
        result = headrace(
            *("run", "tiny", "--variant", "plane", "--profile", "smok", "--data", "rael", "--seed", "one"),
            *("--set", "train.epcohs=8", "--set", "train.batch_size=0", "--set", "nothing", "--config", "nowhere.yaml"),
        )
        assert result.code == 2
        assert result.out == ""
        for words in (
            "did you mean `plain`?",
            "did you mean `smoke`?",
            "did you mean `real`?",
            "received 'one'",
            "did you mean `epochs`?",
            "train.batch_size: input should be greater than or equal to 1; received 0",
            "`--set nothing` names no value",
            "nowhere.yaml can't be read",
        ):
            assert words in result.err, result.err

    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (("rnu", "tiny"), "There is no command `rnu`: did you mean `run`?"),
            (("registry", "lst"), "There is no command `lst`: did you mean `list`"),
            (("run",), "Missing argument 'WORKLOAD'"),
            (("run", "tiny", "--sed", "3"), "No such option '--sed'"),
            (("run", "tiny", "--engine", "dask"), "Invalid value for '--engine': 'dask' is not one of"),
            (("run", "tinny"), "There is no workload `tinny`: did you mean `tiny`?"),
            (("plan", "tinny"), "There is no workload `tinny`: did you mean `tiny`?"),
            (("show", "tinny"), "There is no workload `tinny`: did you mean `tiny`?"),
            (("report", "tinny"), "There is no workload `tinny`: did you mean `tiny`?"),
            (("monitor", "tiny"), "There is no line `tiny` in the registry"),
            (("registry", "show", "tiny"), "There is no line in the registry `tiny`"),
            (("registry", "rollback", "tiny"), "There is no line in the registry `tiny`"),
        ],
    )
    def test_that_make_no_sense_are_answered(
        self, headrace: Headrace, project: Path, words: tuple[str, ...], answer: str
    ) -> None:
        result = headrace(*words)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"headrace: error: {answer}")
        assert "Traceback" not in result.err


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "code"), [(DataError("bad data"), 3), (SystemTrouble("no room"), 4), (Diverged("not finite"), 5)]
    )
    def test_exit_with_the_code_of_their_kind(
        self, headrace: Headrace, standing_in: Any, error: Exception, code: int
    ) -> None:
        standing_in(train=failing(error))
        result = headrace("run", "tiny")
        assert result.code == code
        assert f"headrace: error: {error}" in result.err
        assert "Traceback" not in result.err

    def test_say_in_which_stage(self, headrace: Headrace, standing_in: Any) -> None:
        error = DataError("bad data")
        error.add_note("in stage train of tiny")
        standing_in(train=failing(error))
        assert "bad data\n  (in stage train of tiny)" in headrace("run", "tiny").err

    def test_are_one_json_object_when_json_was_asked_for(self, headrace: Headrace, standing_in: Any) -> None:
        standing_in(train=failing(DataError("bad data")))
        assert headrace("run", "tiny", "--json").json == {"state": "failed", "error": "bad data", "exit_code": 3}
        assert headrace("run", "--json").json["exit_code"] == 2

    def test_that_nobody_foresaw_leave_their_traceback_in_a_file(self, headrace: Headrace, standing_in: Any) -> None:
        standing_in(train=failing(ZeroDivisionError("division by zero\nmore")))
        result = headrace("run", "tiny")
        assert result.code == 70
        first, second = result.err.splitlines()[-2:]
        assert first == "headrace: error: ZeroDivisionError: division by zero"
        path = Path(second.rpartition(" ")[2])
        assert path.parent == home() / "logs"
        assert "Traceback" in path.read_text()

    def test_leave_it_elsewhere_where_home_can_not_be_written(
        self, headrace: Headrace, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from headrace import projects

        monkeypatch.setenv("HEADRACE_HOME", "/sys/headrace")
        monkeypatch.setattr(projects, "names", failing(ZeroDivisionError("odd")))
        result = headrace("list")
        path = Path(result.err.rpartition(" ")[2].strip())
        assert "ZeroDivisionError" in path.read_text()
        path.unlink()

    def test_show_their_traceback_when_debugging(
        self, headrace: Headrace, standing_in: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADRACE_DEBUG", "1")
        standing_in(train=failing(DataError("bad data")))
        assert "Traceback" in headrace("run", "tiny").err

    def test_of_a_home_that_can_not_be_written_are_told(
        self, headrace: Headrace, standing_in: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADRACE_HOME", "/sys/headrace")
        result = headrace("run", "tiny")
        assert result.code == 4
        assert result.err.startswith("headrace: error: Not allowed to write while starting a run in /sys/headrace")
        assert len(result.err.splitlines()) == 3

    def test_are_kept_in_the_record_and_do_not_hinder_the_next_run(self, headrace: Headrace, standing_in: Any) -> None:
        standing_in(train=failing(SystemTrouble("No room left")))
        headrace("run", "tiny")
        (record,) = home().glob("runs/tiny/*/run.json")
        assert (read_json(record)["state"], read_json(record)["error"]) == ("failed", "No room left")
        standing_in()
        states = {stage["node"]: stage["state"] for stage in headrace("run", "tiny", "--json").json["stages"]}
        assert (states["preprocess"], states["train"]) == ("skipped", "run")

    def test_by_an_interruption_say_how_to_go_on(self, headrace: Headrace, standing_in: Any) -> None:
        standing_in(train=failing(KeyboardInterrupt()))
        result = headrace("run", "tiny", "--json")
        assert result.code == 130
        assert "interrupted; the same command goes on where this one stopped" in result.err
        assert result.json["state"] == "interrupted"


class TestReport:
    def test_is_that_of_the_newest_run(self, headrace: Headrace, standing_in: Any) -> None:
        headrace("run", "tiny")
        first = headrace("report", "tiny").out.strip()
        time.sleep(1.1)  # the names of runs have a resolution of one second
        headrace("run", "tiny", "--set", "train.epochs=6")
        newest = headrace("report").out.strip()
        assert Path(newest).is_file()
        assert newest != first

    def test_is_passed_over_where_its_file_is_gone(self, headrace: Headrace, standing_in: Any) -> None:
        Path(headrace("run", "tiny", "--json").json["report"]).unlink()
        result = headrace("report", "tiny")
        assert result.code == 2
        assert "1 runs, none that is completed and still has its files" in result.err

    def test_is_missed_with_the_command_that_makes_one(self, headrace: Headrace, project: Path) -> None:
        result = headrace("report", "tiny")
        assert (result.code, result.out) == (2, "")
        assert "There is no finished run of tiny" in result.err
        assert "headrace run tiny" in result.err

    def test_opens_in_a_browser(self, headrace: Headrace, standing_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[str] = []
        monkeypatch.setattr(click, "launch", opened.append)
        headrace("run", "tiny")
        path = headrace("report", "--open").out.strip()
        assert opened == [Path(path).as_uri()]


class TestMonitor:
    @pytest.fixture
    def checked(self, standing_in: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What was asked of the check, which finds one column drifted."""
        from headrace import monitoring

        asked: list[Any] = []
        moments = {"mean": 1.5, "std": 0.5}
        column = {"column": "ROOMS", "distance": 0.4, "threshold": 0.2, "because": ["values"]}
        column |= {"reference": moments, "current": moments}
        anomaly = {"severity": "warning", "text": "AGE has values out of range"}
        found = {"rows": 9, "anomalies": [anomaly], "metric": {"metric": "mae", "value": 2.25, "rows": 9}}

        def check(job: Any, path: Path, records: Any, bundle: Any) -> dict[str, Any]:
            asked.append((job, path, records, bundle))
            drifted = path.stem == "moved"
            return {**found, "drifted": drifted, "columns": [{**column, "drifted": drifted}]}

        monkeypatch.setattr(monitoring, "check_file", check)
        return asked

    def test_holds_a_file_against_the_newest_run(self, headrace: Headrace, checked: list[Any]) -> None:
        summary = headrace("run", "tiny", "--seed", "3", "--json").json
        result = headrace("monitor", "tiny", "--input", "same.csv")
        (job, path, records, bundle) = checked[0]
        assert (job.seed, path) == (3, Path("same.csv"))
        assert str(records.path) == summary["artifacts"]["preprocess"]
        assert str(bundle.path) == summary["artifacts"]["export"]
        assert result.code == 0
        assert "9 rows, no drift" in result.out
        assert "mae 2.25 on 9 rows" in result.out

    def test_exits_with_1_for_drift(self, headrace: Headrace, checked: list[Any]) -> None:
        headrace("run", "tiny")
        result = headrace("monitor", "tiny", "--input", "moved.csv")
        assert result.code == 1
        assert "drifted: ROOMS" in result.out
        assert "warning: AGE has values out of range" in result.out
        assert headrace("monitor", "tiny", "--input", "moved.csv", "--json").json["drifted"] is True

    def test_can_be_bound_to_a_variant(self, headrace: Headrace, checked: list[Any]) -> None:
        headrace("run", "tiny")
        result = headrace("monitor", "tiny", "--input", "a.csv", "--variant", "folded")
        assert result.code == 2
        assert "no finished run of tiny" in result.err


class TestRegistry:
    @pytest.fixture
    def line(self) -> str:
        from headrace import registry

        for bundle in ("a", "b"):
            evaluation = json.dumps({"metrics": {"mae": 2.5}}).encode()
            version = registry.publish("tiny", {"assets.extra/evaluation.json": evaluation}, bundle=bundle)
            registry.bless("tiny", version)
        return "tiny"

    def test_lists_lines(self, headrace: Headrace, line: str) -> None:
        assert headrace("registry", "list").out.split()[-4:] == ["tiny", "2", "2,", "1"]

    def test_lists_nothing_where_nothing_is_published(self, headrace: Headrace) -> None:
        assert headrace("registry", "list").out == "nothing is published yet\n"

    def test_shows_the_blessed_version_or_another(self, headrace: Headrace, line: str) -> None:
        assert headrace("registry", "show", line).out.startswith("tiny version 2 (blessed)")
        assert "mae: 2.5" in headrace("registry", "show", line).out
        assert headrace("registry", "show", line, "1").out.startswith("tiny version 1 (previous)")
        assert headrace("registry", "show", line, "1", "--json").json["version"] == 1

    def test_rolls_back(self, headrace: Headrace, line: str) -> None:
        assert headrace("registry", "rollback", line).out == "tiny: version 1 is blessed again, in place of 2\n"
        assert headrace("registry", "show", line).out.startswith("tiny version 1 (blessed)")


class TestVerbosity:
    @pytest.mark.parametrize("words", [("-q", "run", "tiny"), ("run", "tiny", "-q")])
    def test_can_be_lowered_before_and_after_the_command(
        self, headrace: Headrace, standing_in: Any, stages: Stages, words: tuple[str, ...]
    ) -> None:
        import logging

        def talking(*arguments: Any, **others: Any) -> Any:
            logging.getLogger("headrace.test").info("one of many")
            logging.getLogger("headrace.test").warning("look")
            return stages.train(*arguments, **others)

        standing_in(train=talking)
        loud, quiet = headrace("run", "tiny"), headrace(*words)
        assert "one of many" in loud.err
        assert "one of many" not in quiet.err
        assert "look" in quiet.err


HEAVY = "[name for name in ('tensorflow', 'keras', 'prefect', 'matplotlib', 'pyarrow', 'numpy') if name in sys.modules]"


def process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own that ends by printing the heavy modules it has loaded."""
    script = (
        f"import sys; from headrace.__main__ import main; code = main({list(words)!r}); "
        f"print('LOADED', {HEAVY}, file=sys.stderr); sys.exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=280,
    )


class TestProcesses:
    @pytest.mark.parametrize(
        "words",
        [("--help",), ("--version",), ("list",), ("show", "house_prices"), ("run", "--help"), ("plan", "house_prices")],
    )
    def test_load_nothing_heavy(self, words: tuple[str, ...]) -> None:
        done = process(*words)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == "LOADED []"

    def test_whose_reader_has_gone_end_well(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "headrace", "show", "house_prices"]
        done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, "")

    def test_send_what_native_code_writes_to_a_file(self, project: Path) -> None:
        script = (
            "import os, sys\n"
            "from headrace.cli.process import quiet_libraries\n"
            "with quiet_libraries():\n"
            "    os.write(2, b'I0000 00:00:17 native\\n'); os.write(1, b'native too\\n')\n"
            "    print('from Python'); print('an error', file=sys.stderr)\n"
            "print('result'); os.write(2, b'after\\n')\n"
        )
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        assert done.stdout == "result\n"
        assert done.stderr == "from Python\nan error\nafter\n"
        assert (home() / "logs" / "native.log").read_text() == "I0000 00:00:17 native\nnative too\n"

    def test_that_are_interrupted_say_so(self, project: Path) -> None:
        script = (
            "import signal, sys, time\n"
            # A shell that runs the tests in the background has them ignore Ctrl-C.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from headrace import __main__, running\n"
            "def execute(*given):\n"
            "    print('ready', file=sys.stderr, flush=True); time.sleep(60)\n"
            "running.execute = execute\n"
            "from headrace.chain import Stages\n"
            "Stages.plain = classmethod(lambda cls: Stages(**dict.fromkeys(Stages.__dataclass_fields__)))\n"
            "sys.exit(__main__.main(['run', 'tiny']))\n"
        )
        running = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        with running:
            assert running.stderr.readline() == "ready\n"
            running.send_signal(signal.SIGINT)
            words = running.stderr.read()
        assert running.returncode == 130
        assert words.strip() == "headrace: interrupted; the same command goes on where this one stopped"


def test_what_is_written_of_a_fan_out_names_the_command_that_gives_it_again() -> None:
    from headrace.cli.fanouts import _command

    given = {"members": ["plain", "folded"], "weights": None, "seeds": 2, "data": "real"}
    assert _command("ensemble", "tiny", None, given, ("train.epochs=2",)) == (
        "headrace ensemble tiny --members plain,folded --seeds 2 --data real --set train.epochs=2"
    )
    assert _command("tune", "tiny", "width", {"data": None}, ()) == "headrace tune tiny width"
