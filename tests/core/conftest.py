"""A project of a test's own, so that workload files can be written and changed; stages that compute nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from headrace import projects
from headrace.__main__ import main
from headrace.artifacts import Artifact, write_json
from headrace.chain import Stages
from headrace.ensembling import ensemble
from headrace.jobs import Job
from headrace.stages import Room, stage
from headrace.storing import buckets
from headrace.studying import study
from headrace.tuning import tune

TINY = '''
"""A workload that is read and described, but never trained."""

from pathlib import Path

from headrace import CrossValidation, Feature, Pipeline, Source, Train, Variant

FACTOR = 2


def read(raw: Path):
    """Numbers."""
    return scaled(raw)


def scaled(raw):
    return {"train": [FACTOR], "test": []}


def preprocess(statistics):
    """Nothing to learn."""
    return lambda batch: batch


def model(inputs, units=4):
    raise NotImplementedError


PIPELINE = Pipeline(
    name="tiny",
    title="Tiny",
    task="regression",
    book="none",
    expect="nothing",
    sources={
        "numbers": Source(
            title="Numbers",
            features={"x": Feature(shape=(2,)), "y": Feature(shape=(1,), role="target")},
            read=read,
        ),
    },
    preprocess=preprocess,
    model=model,
    variants={
        "plain": Variant(train=Train(epochs=5)),
        "folded": Variant(train=Train(epochs=5), cross_validation=CrossValidation(folds=3)),
    },
    smoke={"train.epochs": 1, "cross_validation.folds": 2},
)
'''

Edit = Callable[[str, str], None]


def _forget_workloads() -> None:
    projects.root.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipelines"]:
        del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The root of a project with one workload, `tiny`; the current directory lies in it."""
    root = tmp_path / "project"
    (root / "pipelines").mkdir(parents=True)
    (root / "pipelines" / "__init__.py").write_text("")
    (root / "pipelines" / "tiny.py").write_text(TINY)
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(root)
    # A file that is changed within a second and keeps its size would be read from its old bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "pipelines"}
    _forget_workloads()
    yield root
    _forget_workloads()
    sys.modules.update(kept)


@pytest.fixture
def edit(project: Path) -> Edit:
    """Change the workload's file: `edit("FACTOR = 2", "FACTOR = 3")`."""

    def replace(old: str, new: str) -> None:
        path = project / "pipelines" / "tiny.py"
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the file"
        path.write_text(text.replace(old, new))
        _forget_workloads()

    return replace


@dataclass
class Result:
    """What a command line has come to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON object and nothing else."""
        return json.loads(self.out)


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run one command line in this process: `headrace("run", "tiny")`."""

    def call(*words: str) -> Result:
        capsys.readouterr()
        code = main(words)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    """From the call on, no file of this process can grow beyond 50 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


# ---------------------------------------------------------------------------------------------- stand-ins


@stage()
def download(job: Job, room: Room) -> None:
    data = "real" if job.data == "real" else "synthetic"
    (room.output / "numbers.csv").write_text("1,2\n")
    files = {"numbers.csv": {"sha256": "ab" * 32, "size": 4, "vouched_by": "twin"}}
    write_json(room.output / "data.json", {"data": data, "source": job.source, "files": files})


@stage(functions=("read", "preprocess"))
def preprocess(job: Job, room: Room, raw: Artifact) -> None:
    info = {
        "workload": job.workload,
        "source": job.source,
        "data": raw.json("data.json")["data"],
        "splits": {"train": {"examples": 404}, "test": {"examples": 102}},
    }
    write_json(room.output / "info.json", info)
    distribution = {"edges": [0.0, 1.0, 4.0], "counts": [1, 99, 304]}
    column = {"count": 404, "missing": 0, "zeros": 1, "mean": 1.5, "std": 0.5, "minimum": 0.0, "maximum": 4.0}
    feature = {
        "dtype": "float32",
        "shape": [2],
        "names": ["ROOMS", "<b>AGE"],
        **{name: [value, value] for name, value in column.items()},
        "distributions": [distribution, distribution],
        "unique": None,
        "top": [],
    }
    write_json(room.output / "statistics.json", {"x": feature})
    (room.output / "schema.pbtxt").write_text('feature {\n  name: "x"\n}\n')


@stage()
def examine(job: Job, room: Room, raw: Artifact, records: Artifact) -> None:
    numbers = {"mean": 1.5, "std": 0.5, "minimum": 0.0, "median": 1.0, "maximum": 4.0, "missing": 0}
    column = {
        **numbers,
        "missing_share": 0.0,
        "description": "",
        "unit": "",
        "bars": [0.2, 0.0, 1.0],
        "constant": False,
    }
    feature = {
        "name": "x",
        "role": "input",
        "kind": "number",
        "dtype": "float32",
        "shape": [2],
        "description": "",
        "unit": "",
        "columns": [{**column, "name": name} for name in ("ROOMS", "<b>AGE")],
        "measures": [],
        "tallies": [{"of": "values", "unique": 7, "total": 404, "top": [["<i>red", 3]]}],
        "more": 1,
    }
    sheet = {"kind": "images", "title": "x", "labels": ["<u>cat"], "picture": "samples-x.png", "width": 9, "height": 9}
    (room.output / "samples-x.png").write_bytes(b"PNG")
    (room.output / "data.html").write_text("<title>data</title>")
    write_json(
        room.output / "examination.json",
        {
            "title": "Numbers",
            "source": job.source,
            "data": raw.json("data.json")["data"],
            "splits": {"train": {"examples": 404}, "test": {"examples": 102}},
            "findings": [{"severity": "warning", "check": "duplicates", "text": "`x`: <s>3 examples</s> repeat"}],
            "target": None,
            "features": [feature],
            "sheets": [sheet],
        },
    )


@stage(settings=("train",), functions=("model",))
def train(
    job: Job,
    room: Room,
    records: Artifact,
    *,
    fold: int | None = None,
    folds: int | None = None,
    chosen: Artifact | None = None,
) -> None:
    curve = [10.0 / (epoch + (fold or 0)) for epoch in range(1, 1 + 10 * job.settings.train.epochs)]
    metrics = {"loss": [value**2 for value in curve], "mae": curve}
    if fold:
        metrics |= {"val_loss": [value**2 + 1 for value in curve], "val_mae": [value + 1 for value in curve]}
    write_json(room.output / "history.json", {"epochs": len(curve), "metrics": metrics, "stopped": None})


@stage(settings=("cross_validation",))
def cross_validate(job: Job, room: Room, folds: list[Artifact]) -> None:
    curves = [fold.json("history.json")["metrics"]["val_mae"] for fold in folds]
    mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
    entries = [{"fold": k, "last": c[-1], "best": min(c), "curve": c} for k, c in enumerate(curves, 1)]
    found = {"metric": "val_mae", "mode": "min", "folds": entries, "mean": mean[-1], "curve": mean, "smoothed": mean}
    write_json(room.output / "cross_validation.json", {**found, "best_epoch": len(mean)})


@stage(settings=("promises",))
def evaluate(
    job: Job, room: Room, records: Artifact, model: Artifact, *, cross_validation: Artifact | None = None
) -> None:
    import numpy as np

    truth = np.linspace(5, 50, 102, dtype="float32")[:, None]
    np.savez(room.output / "predictions.npz", **{"truth/y": truth, "answer/y": truth + np.sin(truth) * 2})
    gates = [
        {"gate": "promise", "passed": None, "reason": "MAE 2.5 not judged against at most 3: a smoke run"},
        {"gate": "baseline", "passed": True, "reason": "MAE 2.5 beats 6.5 of the best naive answer"},
    ]
    promise = {"metric": "mae", "on": "test", "bounds": "at most 3", "book": 2.464, "source": "listing <4.31>"}
    write_json(
        room.output / "evaluation.json",
        {
            "split": "test",
            "examples": 102,
            "outputs": {"y": {"task": "regression", "target": {"shape": [1], "role": "target"}}},
            "primary": "mae",
            "metrics": {"mae": 2.5, "rmse": 3.5, "r2": 0.85},
            "intervals": {"mae": [2.1, 2.9], "rmse": [3.0, 4.0], "r2": None},
            "baselines": {
                "mean": {"mae": 6.6, "rmse": 9.1, "r2": -0.01},
                "median": {"mae": 6.5, "rmse": 9.3, "r2": -0.1},
            },
            "gates": gates,
            "promises": [{**promise, "value": 2.5, "judged": False}],
            "not_judged": "a smoke run",
        },
    )


@stage(settings=("export",))
def export(job: Job, room: Room, raw: Artifact, records: Artifact, model: Artifact) -> None:
    agreement = {"max_difference": 1e-6, "relative_difference": 2e-8, "mean_difference": 1e-7, "milliseconds": 0.4}
    formats = {
        "saved_model": {"passed": True, **agreement, "bytes": 120_000, "problem": None},
        "tflite": {"passed": None, "problem": "an operation has no counterpart <there>"},
    }
    gate = {"gate": "parity", "passed": True, "reason": "saved_model agrees to 2e-08"}
    write_json(room.output / "parity.json", {"formats": formats, "gate": gate})


@stage()
def publish(
    job: Job,
    room: Room,
    raw: Artifact,
    records: Artifact,
    evaluation: Artifact,
    bundle: Artifact,
    *,
    model: Artifact | None = None,
) -> None:
    gates = [*evaluation.json("evaluation.json")["gates"], bundle.json("parity.json")["gate"]]
    found = {
        "verdict": "pass",
        "gates": gates,
        "line": job.workload,
        "version": 3,
        "blessed": True,
        "reason": "all pass",
    }
    write_json(room.output / "publication.json", found)


@stage(settings=("monitor",))
def monitor(job: Job, room: Room, raw: Artifact, records: Artifact, bundle: Artifact) -> None:
    moments = {"mean": 1.5, "std": 0.5, "outside": 0.0}
    column = {"feature": "x", "distance": 0.05, "threshold": 0.2, "drifted": False}
    columns = [{**column, "column": name, "reference": moments, "current": moments} for name in ("ROOMS", "<b>AGE")]
    columns[1] |= {"drifted": True, "distance": 0.4}
    write_json(room.output / "drift.json", {"rows": 102, "drifted": True, "columns": columns, "metric": None})


@stage()
def report(job: Job, room: Room, made: list[Artifact]) -> None:
    (room.output / "report.html").write_text("<title>stand-in</title>")


@pytest.fixture
def stages() -> Stages:
    """Stages that compute nothing, and finish folders of the agreed shapes at once."""
    return stand_ins()


@pytest.fixture
def standing_in(project: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let `run` and `plan` use stages that compute nothing; name those that shall be others."""

    def use(**others: Any) -> None:
        monkeypatch.setattr(Stages, "plain", lambda: replace(stages, **others))

    use()
    return use


def stand_ins() -> Stages:
    """What the fixture `stages` gives."""
    return Stages(
        download=download,
        preprocess=preprocess,
        examine=examine,
        train=train,
        cross_validate=cross_validate,
        evaluate=evaluate,
        export=export,
        publish=publish,
        monitor=monitor,
        report=report,
        study=study,
        tune=tune,
        ensemble=ensemble,
    )


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server on this machine that speaks S3."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket of the test's own, as a path of `etils.epath`, in the environment of somebody who uses it."""
    import boto3
    import s3fs
    from etils import epath

    name = f"b{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ours")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("EPATH_USE_TF", "false")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    boto3.client("s3").create_bucket(Bucket=name)
    forget_stores()
    buckets._without_tensorflow()
    yield epath.Path(f"s3://{name}")
    forget_stores()


def forget_stores() -> None:
    """Have object stores reached anew, by clients made anew, with the environment as it is."""
    from etils.epath import backend
    from fsspec.registry import _registry

    buckets.reached.cache_clear()
    backend.fsspec_backend._get_filesystem.cache_clear()
    if "s3" in _registry:
        _registry.pop("s3").clear_instance_cache()
