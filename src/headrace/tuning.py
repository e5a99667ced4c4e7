"""Stage `tune`: settings proposed by KerasTuner's oracles, judged on held-out training examples, the best ones trained.

The oracle only proposes. Each trial is a training like any other, with a finished folder of its own: after a crash the
oracle is asked anew from the beginning, gets the results of what is finished at once, and so comes to the same state.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from headrace import projects
from headrace.artifacts import Artifact, write_json
from headrace.errors import ConfigError, StageFailed, SystemTrouble, nearest, unknown
from headrace.jobs import Job, resolve
from headrace.showing import charts, pages
from headrace.spec import Choice, Int, Overrides, Spec, Tuning, Watch
from headrace.stages import Room, stage
from headrace.studying import TEMPLATE, in_profile

if TYPE_CHECKING:
    import keras_tuner

SMOKE_TRIALS = 4
"""Trials of a smoke run at most, and its best two are trained to the end at most."""
TRIALS = 10
"""Trials where the tuning names no number and the tuner would go on for ever."""


class Trial(Spec):
    """One proposal, and what came of it."""

    number: int
    """From 1, in the order of the proposals."""
    values: Overrides
    epochs: int | None = None
    """The budget that Hyperband gives it."""
    value: float | None = None
    """The objective, the mean over the executions; None if the trial failed or is not done."""
    problem: str | None = None

    @property
    def name(self) -> str:
        """What its nodes are called."""
        return f"trial {self.number}"


class Finalist(Spec):
    """One of the best settings, on their way to a model."""

    place: int
    """1 for the best trial."""
    trial: int
    values: Overrides
    best_epoch: int | None = None
    epochs: int | None = None
    """Trained for on all training examples."""
    problem: str | None = None

    @property
    def name(self) -> str:
        """What its nodes are called."""
        return f"best {self.place}"


class Outcome(Spec):
    """Everything that a tuning has come to."""

    trials: tuple[Trial, ...]
    finalists: tuple[Finalist, ...] = ()


class Plan(Spec):
    """A tuning, checked and ready to be carried out."""

    name: str
    tuning: Tuning
    job: Job = Field(exclude=True)
    """What all its trials start from."""
    request: dict[str, Any] = Field(exclude=True)
    """How its jobs are resolved."""

    def jobs(self, trial: Trial) -> list[Job]:
        """The trainings of a trial, one for each execution."""
        budget = {} if trial.epochs is None else {"train.epochs": trial.epochs}
        return [self._job(trial.name, trial.values | budget, number) for number in range(self.tuning.executions)]

    def search(self, finalist: Finalist) -> Job:
        """The training that finds the best epoch."""
        watched = {"monitor": "val_loss", "patience": self.tuning.patience}
        return self._job(f"{finalist.name} · epochs", finalist.values | {"train.early_stopping": watched})

    def final(self, finalist: Finalist) -> Job:
        """The training on all training examples."""
        train = self.search(finalist).settings.train
        watching = {
            "early_stopping": train.early_stopping,
            "reduce_lr": train.reduce_lr,
            "checkpoint": train.checkpoint,
        }
        settings: Overrides = {
            f"train.{name}": None for name, watch in watching.items() if watch and watch.monitor.startswith("val_")
        }
        settings |= {"train.validation_split": 0.0, "train.validation": None, "train.epochs": finalist.epochs}
        return self._job(finalist.name, finalist.values | settings)

    def _job(self, cell: str, settings: Overrides, execution: int = 0) -> Job:
        given = self.request | {
            # Held-out examples are what trials are judged on; folds would be trained for nothing.
            "overrides": self.request["overrides"] | {"cross_validation": None} | settings,
            "seed": self.job.seed + execution,
        }
        return resolve(self.job.workload, **given).model_copy(update={"cell": cell})


def plan(
    workload: str,
    name: str,
    *,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    **request: Any,
) -> Plan:
    """A tuning of a workload, ready to be carried out.

    Args:
        workload: Name of a file in `pipelines/`.
        name: Name of one of its tunings.
        variant: What the trials start from; default: as the tuning says.
        overrides: Settings of all trials, stronger than those of the tuning.
        seed: Seed of the proposals and of the first execution of each trial.
        **request: Profile, data and source, as `resolve` takes them.

    Raises:
        ConfigError: There is no such tuning, or some values of its space are refused; the message names every mistake.
    """
    pipeline = projects.load(workload)
    if name not in pipeline.tunings:
        raise unknown(f"tuning of {workload}", name, pipeline.tunings)
    tuning = pipeline.tunings[name]
    request = {key: value for key, value in request.items() if value is not None}
    profile = request.get("profile", "full")
    if profile == "smoke":
        wanted = min(tuning.max_trials or SMOKE_TRIALS, SMOKE_TRIALS)
        tuning = tuning.model_copy(update={"max_trials": wanted, "top": min(tuning.top, 2)})
    request |= {
        "variant": variant or tuning.variant or pipeline.default_variant,
        "overrides": in_profile(pipeline, tuning.settings, profile) | dict(overrides or {}),
    }
    mistakes: list[str] = []
    for path, dimension in tuning.space.items():
        for value in dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high):
            try:
                resolve(workload, seed=seed, **request | {"overrides": request["overrides"] | {path: value}})
            except ConfigError as error:
                mistakes += [line for line in error.problem.splitlines()[1:] if line not in mistakes]
    if not mistakes:
        job = resolve(workload, seed=seed, **request).model_copy(update={"cell": name})
        if job.settings.train.validation_split or job.settings.train.validation:
            sign = Watch(monitor=tuning.objective, mode=tuning.mode).sign
            tuning = tuning.model_copy(update={"mode": "min" if sign > 0 else "max"})
            return Plan(name=name, tuning=tuning, job=job, request=request)
        mistakes = ["  - train.validation_split: trials are judged on held-out examples, and there are none"]
    raise ConfigError(
        f"The tuning `{name}` of {workload} can't run as asked:\n" + "\n".join(mistakes),
        remedy=f"see `tunings` in pipelines/{workload}.py, and `headrace show {workload}`",
    )


# ---------------------------------------------------------------------------------------------- the oracle


class Proposals:
    """KerasTuner's oracle without its tuner: asked for trials, told their results.

    The same results in the same order give the same proposals.

    Args:
        plan: The tuning.
        folder: Where the oracle may write; nothing is read from there.
    """

    def __init__(self, plan: Plan, folder: str) -> None:
        self._oracle = _oracle(plan)
        self._oracle.verbose = 0
        self._oracle._set_project_dir(folder, "oracle")
        self._names = {path: path for path in plan.tuning.space}
        self._asked: dict[int, Any] = {}

    def ask(self, most: int) -> list[Trial]:
        """The next trials, none when the search is over.

        Args:
            most: How many may be tried before the result of the first is known.
        """
        found: list[Trial] = []
        while len(found) < most:
            trial = self._oracle.create_trial(f"worker {len(found)}")
            if trial.status != "RUNNING":
                break
            number = len(self._asked) + 1
            self._asked[number] = trial
            values = trial.hyperparameters.values
            found.append(
                Trial(
                    number=number,
                    values={path: values[path] for path in self._names},
                    epochs=values.get("tuner/epochs"),
                )
            )
        return found

    def tell(self, trial: Trial) -> None:
        """Report what came of a trial."""
        asked = self._asked[trial.number]
        if trial.value is None:
            asked.status, asked.message = "FAILED", trial.problem
        else:
            self._oracle.update_trial(asked.trial_id, {self._oracle.objective.name: trial.value})
            asked.status = "COMPLETED"
        self._oracle.end_trial(asked)


@contextlib.contextmanager
def proposals(plan: Plan) -> Iterator[Proposals]:
    """An oracle that has proposed nothing yet."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder, warnings.catch_warnings():
        # KerasTuner asks Python for things by their old names.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield Proposals(plan, folder)


def _oracle(plan: Plan) -> keras_tuner.Oracle:
    import keras_tuner

    tuning = plan.tuning
    common = {
        "objective": keras_tuner.Objective(tuning.objective, tuning.mode),
        "hyperparameters": _space(tuning),
        # 0 would be taken for no seed.
        "seed": plan.job.seed + 1,
        "allow_new_entries": False,
        "tune_new_entries": False,
        # A failed trial is a row of the table, however many there are.
        "max_consecutive_failed_trials": 10**9,
    }
    if tuning.tuner == "random":
        return keras_tuner.oracles.RandomSearchOracle(max_trials=tuning.max_trials or TRIALS, **common)
    if tuning.tuner == "grid":
        return keras_tuner.oracles.GridSearchOracle(max_trials=tuning.max_trials, **common)
    if tuning.tuner == "hyperband":
        oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=plan.job.settings.train.epochs, **common)
        oracle.max_trials = tuning.max_trials
        return oracle
    try:
        return keras_tuner.oracles.BayesianOptimizationOracle(max_trials=tuning.max_trials or TRIALS, **common)
    except ImportError as error:
        raise SystemTrouble(
            "The tuner `bayesian` needs scikit-learn, which is not installed here.",
            remedy="install scikit-learn, or take another tuner: random, grid, hyperband",
        ) from error


def _space(tuning: Tuning) -> keras_tuner.HyperParameters:
    import keras_tuner

    space = keras_tuner.HyperParameters()
    for path, dimension in tuning.space.items():
        if isinstance(dimension, Choice):
            space.Choice(path, list(dimension.values), ordered=dimension.ordered)
        else:
            kind = space.Int if isinstance(dimension, Int) else space.Float
            kind(path, dimension.low, dimension.high, step=dimension.step, sampling=dimension.sampling)
    return space


# ------------------------------------------------------------------------------------ from trials to models


def scored(plan: Plan, trial: Trial, models: Sequence[Artifact], problem: str | None) -> Trial:
    """A trial with its result.

    Args:
        plan: The tuning.
        trial: The trial as it was proposed.
        models: Output of `train` for each execution.
        problem: Why an execution could not be finished.

    Raises:
        ConfigError: The objective is none of the metrics in the history.
    """
    if problem:
        return trial.model_copy(update={"problem": problem.splitlines()[0]})
    values = []
    for model in models:
        history = model.json("history.json")["metrics"]
        if plan.tuning.objective not in history:
            raise ConfigError(
                f"objective: there is no `{plan.tuning.objective}`: {nearest(plan.tuning.objective, history)}"
            )
        values.append((min if plan.tuning.mode == "min" else max)(history[plan.tuning.objective]))
    return trial.model_copy(update={"value": sum(values) / len(values)})


def in_words(plan: Plan, trial: Trial) -> str:
    """What came of a trial, for people."""
    settings = ", ".join(f"{path.rpartition('.')[2]} {pages.number(value)}" for path, value in trial.values.items())
    return f"{settings}: {trial.problem or f'{plan.tuning.objective} {pages.number(trial.value)}'}"


def finalists(plan: Plan, trials: Sequence[Trial]) -> list[Finalist]:
    """The best settings, each once: Hyperband tries some again for longer.

    Raises:
        StageFailed: No trial could be finished.
    """
    sign = 1 if plan.tuning.mode == "min" else -1
    done = sorted((t for t in trials if t.value is not None), key=lambda t: sign * (t.value or 0.0))
    if not done:
        problem = next((trial.problem for trial in trials if trial.problem), None)
        raise StageFailed(f"No trial of `{plan.name}` could be finished.", received=problem)
    found: list[Trial] = []
    for trial in done:
        if all(trial.values != other.values for other in found):
            found.append(trial)
    return [
        Finalist(place=place, trial=trial.number, values=trial.values)
        for place, trial in enumerate(found[: plan.tuning.top], 1)
    ]


def with_epochs(plan: Plan, finalist: Finalist, searched: Artifact) -> Finalist:
    """A finalist that knows for how long to train: its best epoch, stretched."""
    curve = searched.json("history.json")["metrics"]["val_loss"]
    best = curve.index(min(curve)) + 1
    return finalist.model_copy(update={"best_epoch": best, "epochs": int(best * plan.tuning.stretch)})


# ------------------------------------------------------------------------------------------------ the stage


@stage(
    versions=("keras-tuner", "matplotlib"),
    facts=lambda job: {"title": job.title, "task": job.task_in_words, "look": pages.look()},
)
def tune(job: Job, room: Room, records: Artifact, made: Sequence[Artifact], *, plan: Plan, outcome: Outcome) -> None:
    """Tell what a tuning has come to: `tuning.json`, and `tuning.html` for people.

    Args:
        job: The job that stands for the tuning.
        room: Where to work.
        records: Output of `preprocess`.
        made: Output of `train` for each trial, search of an epoch and finalist, of `evaluate` for each finalist, and of
            `ensemble`, if there are several.
        plan: What was asked for.
        outcome: Trials and finalists.
    """
    at = {artifact.node: artifact for artifact in made}
    trials = []
    for trial in outcome.trials:
        models = [at[node] for node in (f"train/{job.label}" for job in plan.jobs(trial)) if node in at]
        history = models[0].json("history.json") if models else None
        trials.append(
            {
                "trial": trial.number,
                **trial.model_dump(include={"values", "epochs", "value", "problem"}),
                "trained_epochs": history["epochs"] if history else None,
                "seconds": round(sum(model.json("training.json")["seconds"] for model in models), 2),
                "parameters": models[0].json("training.json")["parameters"] if models else None,
            }
        )
    found = {
        "tuning": plan.name,
        "description": plan.tuning.description,
        "workload": job.workload,
        "data": records.json("info.json")["data"],
        "profile": job.profile,
        "tuner": plan.tuning.tuner,
        "objective": plan.tuning.objective,
        "mode": plan.tuning.mode,
        "space": {path: dimension.model_dump() for path, dimension in plan.tuning.space.items()},
        "trials": trials,
        "best": outcome.finalists[0].trial if outcome.finalists else None,
        "finalists": [_tested(finalist, plan, at) for finalist in outcome.finalists],
        "ensemble": at["ensemble/" + job.label].json("ensemble.json") if f"ensemble/{job.label}" in at else None,
    }
    write_json(room.output / "tuning.json", found)
    (room.output / "tuning.html").write_text(_page(job, found), encoding="utf-8")


def _tested(finalist: Finalist, plan: Plan, at: Mapping[str, Artifact]) -> dict[str, Any]:
    entry: dict[str, Any] = finalist.model_dump() | {"metrics": None, "intervals": None, "gates": [], "model": None}
    label = plan.job.model_copy(update={"cell": finalist.name}).label
    if f"evaluate/{label}" in at:
        evaluation = at[f"evaluate/{label}"].json("evaluation.json")
        entry |= {name: evaluation[name] for name in ("metrics", "intervals", "gates")}
        entry["model"] = str(at[f"train/{label}"].path)
    return entry


# --------------------------------------------------------------------------------------------------- page


def _page(job: Job, found: Mapping[str, Any]) -> str:
    paths = list(found["space"])
    objective = found["objective"]
    best = [trial["trial"] for trial in found["finalists"]]
    trials = {
        "columns": ["trial", *paths, "budget", "epochs", objective, "parameters", "seconds", ""],
        "right": ["trial", "budget", "epochs", objective, "parameters", "seconds"],
        "rows": [
            [
                trial["trial"],
                *[pages.number(trial["values"][path]) for path in paths],
                trial["epochs"],
                trial["trained_epochs"],
                trial["value"],
                f"{trial['parameters']:,}" if trial["parameters"] else None,
                trial["seconds"],
                trial["problem"] or (f"best {best.index(trial['trial']) + 1}" if trial["trial"] in best else ""),
            ]
            for trial in found["trials"]
        ],
        "marked": [index for index, trial in enumerate(found["trials"]) if trial["problem"]],
    }
    metrics = list(dict.fromkeys(name for one in found["finalists"] for name in one["metrics"] or ()))
    rows = [
        [
            f"best {one['place']}",
            one["trial"],
            *[pages.number(one["values"][path]) for path in paths],
            one["best_epoch"],
            one["epochs"],
            *[(one["metrics"] or {}).get(name) for name in metrics],
            one["problem"] or "",
        ]
        for one in found["finalists"]
    ]
    if found["ensemble"]:
        average = found["ensemble"]["metrics"]
        rows.append(["average of all", None, *[""] * len(paths), None, None, *[average.get(m) for m in metrics], ""])
    finals = {
        "columns": ["", "trial", *paths, "best epoch", "trained epochs", *[f"test {name}" for name in metrics], " "],
        "right": ["trial", "best epoch", "trained epochs", *[f"test {name}" for name in metrics]],
        "rows": rows,
        "marked": [],
    }
    judged = [trial for trial in found["trials"] if trial["value"] is not None]
    done = [(trial["trial"], trial["value"]) for trial in judged]
    columns = {path: [trial["values"][path] for trial in judged] for path in paths}
    columns[objective] = [value for _, value in done]
    figures = [
        {
            "title": "Best so far",
            "svg": charts.progress(done, objective, found["mode"]),
            "words": "Each point is a trial.",
        },
        {
            "title": "Settings and objective",
            "svg": charts.parallel(columns, found["mode"]),
            "words": "Each line is a trial, from its settings to its objective; the darker, the better.",
        },
    ]
    sections = [
        {
            "title": "The best settings, trained on all training examples",
            "words": "Chosen on held-out training examples; the test split was seen once, by the finished models.",
            "table": finals,
        },
        {"title": "The search", "figures": figures},
        {"title": f"{len(found['trials'])} trials by {found['tuner']}", "table": trials},
    ]
    kind, called = "tuning", found["tuning"]
    return pages.render(TEMPLATE, job=job, kind=kind, called=called, found=found, gates=gates(found), sections=sections)


def gates(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The gates of the best settings' model."""
    return next((list(one["gates"]) for one in found["finalists"] if one["gates"]), [])
