"""`headrace sync`: what follows from the workloads' files is written, and nothing else is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from headrace import projects
from headrace.__main__ import main
from headrace.errors import ConfigError
from headrace.spec import Deploy, Pipeline
from headrace.upkeep import syncing
from headrace.upkeep.deploying import BEGIN, END, KUBERNETES, deployments_of, flow_of, for_kubernetes, with_deployments
from headrace.upkeep.syncing import stale, sync

ROOT = Path(__file__).resolve().parents[2]
ANCHORS = "definitions:\n  pool: &pool {}\n  in_turn: &in_turn {}\n  smoke: &smoke {}\n  drift: &drift {within: 7}\n"
FRAME = f"# mine\n{ANCHORS}deployments:\n{BEGIN}old\n{END}end: 1\n"


@pytest.fixture
def application(project: Path) -> Path:
    """A project with a folder for flows and a place for deployments."""
    (project / "flows").mkdir()
    (project / "prefect.yaml").write_text(FRAME)
    return project


def with_variants(pipeline: Pipeline, names: list[str]) -> Pipeline:
    variant = next(iter(pipeline.variants.values()))
    return pipeline.model_copy(update={"variants": dict.fromkeys(names, variant)})


def test_what_is_committed_is_what_the_workloads_say() -> None:
    assert projects.root() == ROOT
    assert [path.relative_to(ROOT).as_posix() for path in stale(ROOT)] == [], "run `headrace sync`"


def test_everything_outside_of_the_place_stays_as_it_was(application: Path) -> None:
    sync(application)
    text = (application / "prefect.yaml").read_text()
    before, after = FRAME.split(f"{BEGIN}old\n{END}")
    assert text.startswith(before + BEGIN)
    assert text.endswith(END + after)
    assert [one["name"] for one in yaml.safe_load(text)["deployments"]] == ["weekly", "on-drift", "smoke"]


def test_a_second_time_nothing_is_written(application: Path) -> None:
    assert [path.name for path in sync(application)] == ["tiny.py", "prefect.yaml"]
    assert sync(application) == []


def test_a_new_variant_changes_the_form_of_the_flow(project: Path) -> None:
    pipeline = projects.load("tiny")
    assert 'variant: Literal["a", "b"] = "a",' in flow_of(with_variants(pipeline, ["a", "b"]))


@pytest.mark.parametrize("count", [1, 3, 8, 20])
def test_a_flow_is_in_the_project_s_own_style_however_many_variants(project: Path, count: int) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed beside this Python")
    file = project / "tiny.py"
    file.write_text(flow_of(with_variants(projects.load("tiny"), [f"variant_{i:02}" for i in range(count)])))
    command = [ruff, "format", "--check", "--config", str(ROOT / "pyproject.toml"), "--no-cache", file]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + file.read_text()


def test_a_workload_is_retrained_as_its_file_says(project: Path) -> None:
    pipeline = projects.load("tiny")
    plans = [Deploy(retrain="nightly", data="auto"), Deploy(), Deploy(retrain=None)]
    text = deployments_of([pipeline.model_copy(update={"deploy": deploy}) for deploy in plans])
    found = yaml.safe_load(FRAME.replace("old\n", text))["deployments"]
    names = ["nightly", "on-drift", "smoke", "weekly", "on-drift", "smoke", "on-drift", "smoke"]
    assert [one["name"] for one in found] == names
    assert [one["schedules"][0]["cron"] for one in found if "schedules" in one] == ["0 1 * * *", "20 1 * * 0"]
    assert [one["parameters"].get("data") for one in found if "schedules" in one] == ["auto", "real"]


def test_a_workload_is_retrained_when_its_own_data_have_drifted(project: Path) -> None:
    text = deployments_of([projects.load("tiny")])
    found = yaml.safe_load(FRAME.replace("old\n", text))["deployments"]
    (one,) = [one for one in found if "triggers" in one]
    (trigger,) = one["triggers"]
    assert (one["name"], one["parameters"]) == ("on-drift", {"variant": "plain", "data": "real"})
    assert trigger["match"] == {"prefect.resource.id": "headrace.workload.tiny"}
    assert trigger["within"] == 7, "the cool-down stands in one place for all"


def test_a_variant_that_is_not_there_is_refused(project: Path) -> None:
    fields = {name: getattr(projects.load("tiny"), name) for name in Pipeline.model_fields}
    with pytest.raises(ValueError, match=r"deploy\.smoke: there is no variant `plan`"):
        Pipeline(**fields | {"deploy": Deploy(smoke="plan")})


def test_a_file_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no place for deployments"):
        with_deployments("deployments:\n", "")


def test_a_project_with_a_folder_for_kubernetes_gets_its_deployments_there_too(application: Path) -> None:
    in_place = (application / "prefect.yaml").read_text().replace("pool: &pool {}", "pool: &pool\n    name: headrace")
    (application / "prefect.yaml").write_text(in_place)
    (application / KUBERNETES).parent.mkdir(parents=True)

    sync(application)

    here, there = (yaml.safe_load((application / path).read_text()) for path in ("prefect.yaml", KUBERNETES))
    assert [one["work_pool"] for one in here["deployments"]] == [{"name": "headrace"}] * 3
    assert [one["work_pool"] for one in there["deployments"]] == [{"name": "headrace-kubernetes"}] * 3
    assert there["end"] == 1, "what a person has written is there as well"
    assert sync(application) == []


def test_deployments_without_a_pool_in_one_place_are_not_moved_to_kubernetes() -> None:
    with pytest.raises(ConfigError, match="names no pool that Kubernetes could take the place of"):
        for_kubernetes(FRAME)


def test_a_write_that_fails_puts_back_what_was_written(application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (application / "flows" / "tiny.py").write_text("before")
    real = syncing.write_atomically

    def failing(path: Path, data: bytes) -> None:
        if path.name == "prefect.yaml":
            raise RuntimeError("no")
        real(path, data)

    monkeypatch.setattr(syncing, "write_atomically", failing)
    with pytest.raises(RuntimeError):
        sync(application)
    assert (application / "flows" / "tiny.py").read_text() == "before"
    assert (application / "prefect.yaml").read_text() == FRAME


def test_the_command_says_what_it_would_write_and_then_writes_it(
    application: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sync", "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == ["would write flows/tiny.py", "would write prefect.yaml"]
    assert not (application / "flows" / "tiny.py").exists()
    assert main(["sync"]) == 0
    assert capsys.readouterr().out.splitlines() == ["wrote flows/tiny.py", "wrote prefect.yaml"]
    assert main(["sync", "--check"]) == 0
