"""Studies: what is trained, what is kept, and what is said of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import projects, running, studying
from headrace.artifacts import Artifact, write_json
from headrace.chain import Stages, standard, studied
from headrace.errors import ConfigError, Diverged, StageFailed
from headrace.jobs import Job, resolve
from headrace.measuring.tasks import Measures, of
from headrace.measuring.words import numbers
from headrace.running import fan_out_summary
from headrace.spec import Feature, Study
from headrace.stages import Room, stage
from headrace.studying import Measured, clearly_better, difference, ranked
from tests.core.pretending import pretending, write_workload

Headrace = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def tiny(project: Path) -> Path:
    write_workload(project)
    return project / "pipelines" / "tiny.py"


@pytest.fixture(autouse=True)
def no_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    if request.cls is not TestPages:
        monkeypatch.setattr(studying, "_page", lambda job, found: "")


@pytest.fixture
def pretended(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> Stages:
    """Stages whose results follow from the settings; the command line uses them, too."""
    used = pretending(stages)
    monkeypatch.setattr(Stages, "plain", lambda: used)
    return used


def study(name: str, stages: Stages, **request: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """What `study.json` says, and the state of each node."""
    plan = studying.plan("tiny", name, **request)
    made = studied(plan)(plan.job, stages)
    return made[-1].json("study.json"), {artifact.node: artifact.state for artifact in made}


def declared(**changes: Any) -> tuple[studying.Cell, ...]:
    """The cells of a study of `tiny`; state only what it says."""
    pipeline = projects.load("tiny")
    return studying.spread_out(pipeline, "new", Study(**changes))[1]


class TestCells:
    def test_are_all_combinations_of_the_axes(self) -> None:
        cells = declared(axes={"train.optimizer": ("sgd", "adam"), "model.units": (8, 16)})
        assert [cell.name for cell in cells] == ["sgd-8", "sgd-16", "adam-8", "adam-16"]
        assert cells[3].settings == {"train.optimizer": "adam", "model.units": 16}
        settings = cells[3].jobs[0].settings
        assert (settings.model["units"], settings.train.epochs) == (16, 5)

    def test_of_one_axis_of_numbers_say_of_what(self) -> None:
        cells = declared(axes={"train.learning_rate": (1.0, 0.001)})
        assert [cell.name for cell in cells] == ["learning_rate 1", "learning_rate 0.001"]

    def test_are_variants_and_lists_of_settings_as_well(self) -> None:
        cells = declared(variants=("plain", "folded"), cells={"wide": {"model.units": 99}}, variant="folded")
        assert [(cell.name, cell.jobs[0].variant) for cell in cells] == [
            ("plain", "plain"),
            ("folded", "folded"),
            ("wide", "folded"),
        ]

    def test_have_a_job_for_each_seed(self) -> None:
        jobs = declared(cells={"wide": {"model.units": 99}}, seeds=3)[0].jobs
        assert [(job.seed, job.label) for job in jobs] == [(0, "wide"), (1, "wide · seed 1"), (2, "wide · seed 2")]

    def test_of_a_smoke_run_are_small_though_the_study_says_otherwise(self) -> None:
        study = Study(settings={"train.epochs": 90}, axes={"model.units": (2, 4)})
        _, cells = studying.spread_out(projects.load("tiny"), "new", study, profile="smoke")
        assert {cell.jobs[0].settings.train.epochs for cell in cells} == {1}
        along = Study(axes={"train.epochs": (2, 4)})
        _, cells = studying.spread_out(projects.load("tiny"), "new", along, profile="smoke")
        assert [cell.jobs[0].settings.train.epochs for cell in cells] == [2, 4]

    def test_obey_the_command_line_before_all_else(self) -> None:
        study = Study(settings={"train.epochs": 90}, axes={"model.units": (2, 4)})
        _, cells = studying.spread_out(projects.load("tiny"), "new", study, overrides={"train.epochs": 7})
        assert {cell.jobs[0].settings.train.epochs for cell in cells} == {7}

    def test_that_are_wrong_are_told_all_at_once(self) -> None:
        with pytest.raises(ConfigError) as raised:
            declared(axes={"model.unit": (2, 4, 8), "train.epochs": (-1, 5)}, settings={"train.optimiser": "sgd"})
        for words in ("takes no `unit`", "train.epochs", "did you mean `optimizer`", "and 3 more"):
            assert words in str(raised.value)

    def test_with_one_name_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="Two cells are called"):
            declared(axes={"train.optimizer": ("sgd", "sgd")})


class TestPlans:
    def test_are_refused_for_a_study_that_is_not_there(self) -> None:
        with pytest.raises(ConfigError, match="did you mean `widths`"):
            studying.plan("tiny", "width")

    @pytest.mark.parametrize(
        ("old", "new", "answer"),
        [
            ('cell="units 8"', 'cell="units 9"', "there is no cell `units 9`: did you mean `units 8`"),
            ('settings={"train.validation_split": 0.2},\n            on=', "on=", "nothing is held out"),
        ],
    )
    def test_are_refused_for_what_can_not_be_measured(self, edit: Any, old: str, new: str, answer: str) -> None:
        edit(old, new)
        name = "watched" if "held out" in answer else "widths"
        with pytest.raises(ConfigError, match=re.escape(answer)):
            studying.plan("tiny", name)

    def test_know_the_direction_of_a_metric_by_its_name(self) -> None:
        assert studying.plan("tiny", "watched").mode == "min"
        with pytest.MonkeyPatch.context() as patch:
            watched = projects.load("tiny").studies["watched"].model_copy(update={"metric": "val_accuracy"})
            patch.setitem(projects.load("tiny").studies, "watched", watched)
            assert studying.plan("tiny", "watched").mode == "max"


class TestRuns:
    def test_train_every_cell_with_every_seed_and_share_the_data(self, pretended: Stages) -> None:
        found, states = study("widths", pretended)
        nodes = [f"{stage}/units {units}{seed}" for units in (2, 4, 8) for seed in ("", " · seed 1") for stage in "te"]
        expected = [node.replace("t/", "train/").replace("e/", "evaluate/") for node in nodes]
        assert list(states) == ["download", "preprocess", *expected, "study/widths"]
        assert [cell["cell"] for cell in found["cells"]] == ["units 8", "units 4", "units 2"]
        best = found["cells"][0]
        assert (best["settings"], best["parameters"], best["seconds"]) == ({"model.units": 8}, 80, 1.0)
        assert sorted(best["values"]) == ["0", "1"]
        assert best["interval"][0] < best["value"] < best["interval"][1]

    def test_skip_everything_the_second_time(self, pretended: Stages) -> None:
        first, _ = study("widths", pretended)
        again, states = study("widths", pretended)
        assert set(states.values()) == {"skipped"}
        assert again == first

    def test_train_only_the_cells_that_are_new(self, pretended: Stages, edit: Any) -> None:
        study("widths", pretended)
        edit('axes={"model.units": (2, 4, 8)}', 'axes={"model.units": (2, 5, 8)}')
        _, states = study("widths", pretended)
        ran = {node for node, state in states.items() if state == "run"}
        new = {f"{stage}/units 5{seed}" for stage in ("train", "evaluate") for seed in ("", " · seed 1")}
        assert ran == new | {"study/widths"}

    def test_do_not_train_again_what_another_name_or_a_run_has_trained(self, pretended: Stages, edit: Any) -> None:
        standard(resolve("tiny"), pretended)
        edit("studies={", 'studies={"all": Study(variants=("plain",), cells={"same": {}}),')
        _, states = study("all", pretended)
        assert [node for node, state in states.items() if state == "run"] == ["study/all"]

    def test_tell_a_cell_that_diverges_and_go_on(self, pretended: Stages, tiny: Path) -> None:
        found, states = study("rates", pretended)
        assert [cell["cell"] for cell in found["cells"]] == ["learning_rate 0.001", "learning_rate 1"]
        failed = found["cells"][1]
        assert (failed["rank"], failed["value"]) == (None, None)
        assert failed["problem"] == "The loss is nan in epoch 1."
        assert "train/learning_rate 1" not in states

    def test_that_finish_no_cell_fail(self, pretended: Stages) -> None:
        with pytest.raises(StageFailed, match="No cell of `rates` could be finished"):
            study("rates", pretended, overrides={"model.units": 3, "train.learning_rate": 2.0})

    def test_that_are_interrupted_go_on_where_they_were(self, pretended: Stages) -> None:
        begun: list[str] = []

        def interrupted(job: Any, *others: Any, **named: Any) -> Artifact:
            begun.append(job.label)
            if len(begun) == 4:
                raise KeyboardInterrupt
            return pretended.train(job, *others, **named)

        with pytest.raises(KeyboardInterrupt):
            study("widths", replace(pretended, train=interrupted))
        _, states = study("widths", pretended)
        assert [states[f"train/{label}"] for label in begun] == ["skipped"] * 3 + ["run"]

    def test_that_measure_on_held_out_examples_never_test(self, pretended: Stages) -> None:
        def forbidden(*_: Any, **__: Any) -> Artifact:
            raise AssertionError("the test split was read")

        found, _ = study("watched", replace(pretended, evaluate=forbidden))
        assert [cell["cell"] for cell in found["cells"]] == ["b", "a"]
        assert found["cells"][0]["value"] == pytest.approx(2.0)  # the best epoch, not the last
        assert found["cells"][0]["training"]["val_mae"] == pytest.approx(2.3)

    @pytest.mark.parametrize(("at", "value"), [("last", 2.3), ("since_best", 0.3)])
    def test_of_later_epochs_tell_how_far_a_network_has_overfitted(
        self, pretended: Stages, at: str, value: float
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            late = projects.load("tiny").studies["watched"].model_copy(update={"at": at})
            patch.setitem(projects.load("tiny").studies, "watched", late)
            found, _ = study("watched", pretended)
        assert {cell["cell"]: cell["value"] for cell in found["cells"]}["b"] == pytest.approx(value)
        assert found["measure"].startswith("val_mae")
        with pytest.raises(ValueError, match="only a study on validation knows of epochs, not one on test"):
            Study(cells={"a": {}}, at="last")

    def test_that_measure_overfitting_rank_the_least_of_it_first_even_where_larger_values_are_better(
        self, pretended: Stages
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            late = projects.load("tiny").studies["watched"].model_copy(update={"at": "since_best", "mode": "max"})
            patch.setitem(projects.load("tiny").studies, "watched", late)
            found, _ = study("watched", pretended)
        values = [cell["value"] for cell in found["cells"]]
        assert values == sorted(values)
        assert values[0] >= 0

    def test_by_cross_validation_train_the_folds_and_nothing_else(self, pretended: Stages) -> None:
        found, states = study("folds", pretended)
        assert [node for node in states if "units 2" in node] == [
            *[f"train/units 2/fold {fold}" for fold in (1, 2, 3)],
            "cross_validate/units 2",
        ]
        assert [(cell["cell"], cell["rank"]) for cell in found["cells"]] == [("units 8", 1), ("units 2", 2)]

    def test_for_a_metric_that_was_not_measured_name_the_nearest(self, pretended: Stages, edit: Any) -> None:
        edit('metric="val_mae"', 'metric="val_mea"')
        with pytest.raises(ConfigError, match="did you mean `val_mae`"):
            study("watched", pretended)

    def test_are_kept_as_a_run_with_verdict_and_page(self, pretended: Stages) -> None:
        plan = studying.plan("tiny", "widths", data="real")
        record = running.execute(plan.job, pretended, studied(plan), told=fan_out_summary)
        assert (record["state"], record["verdict"], record["cell"]) == ("completed", "pass", "widths")
        assert record["report"].endswith("study.html")
        assert [gate["passed"] for gate in record["gates"]] == [True, True]


@stage(settings=("model",), facts=lambda job: {"seed": job.seed})
def evaluate(
    job: Job, room: Room, records: Artifact, model: Artifact, *, cross_validation: Artifact | None = None
) -> None:
    """Answers of one of three classes, or of two: the wider the model, the more of them are right."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 3, 300)
    noise = random.gamma(1, 2.0 / job.settings.model["units"], (300, 3))
    shares = np.eye(3)[kinds] + noise
    shares /= shares.sum(axis=1, keepdims=True)
    number = Feature(role="target", dtype="int64")
    several = isinstance(job.task, dict)
    names = {"kind": "multiclass", "y": "binary"} if several else {"y": job.task}
    measures = Measures({name: of(task, number) for name, task in names.items()})
    truths = {name: kinds if task == "multiclass" else kinds > 0 for name, task in names.items()}
    answers = {name: shares if task == "multiclass" else 1 - shares[:, :1] for name, task in names.items()}
    facts = measures.facts(truths, answers)
    np.savez(room.output / "facts.npz", **facts)
    outputs = {name: {"task": task, "target": number.model_dump(mode="json")} for name, task in names.items()}
    metrics = numbers(measures.measure(facts))
    write_json(room.output / "evaluation.json", {"outputs": outputs, "metrics": metrics, "gates": []})


class TestClasses:
    @pytest.mark.parametrize(
        ("task", "metric", "mode"),
        [
            ("binary", "accuracy", "max"),
            ("multiclass", "accuracy", "max"),
            ({"kind": "multiclass", "y": "binary"}, "kind_accuracy", "max"),
        ],
    )
    def test_are_ranked_by_accuracy_the_largest_first(
        self, pretended: Stages, edit: Any, task: Any, metric: str, mode: str
    ) -> None:
        edit('task="regression"', f"task={task!r}")
        found, _ = study("widths", replace(pretended, evaluate=evaluate))
        assert (found["metric"], found["mode"], found["best"]) == (metric, mode, "units 8")
        assert [cell["rank"] for cell in found["cells"]] == [1, 2, 3]
        assert found["findings"][0]["reason"].startswith(f"{metric} of units 8 is")
        low, high = found["cells"][0]["interval"]
        assert low < found["cells"][0]["value"] < high

    def test_can_be_ranked_by_another_metric_of_another_output(self, pretended: Stages, edit: Any) -> None:
        edit('task="regression"', 'task={"kind": "multiclass", "y": "binary"}')
        edit('axes={"model.units": (2, 4, 8)},', 'axes={"model.units": (2, 4, 8)}, metric="y_log_loss",')
        found, _ = study("widths", replace(pretended, evaluate=evaluate))
        assert (found["metric"], found["mode"], found["best"]) == ("y_log_loss", "min", "units 8")


class TestFindings:
    def test_hold_or_do_not_with_the_numbers(self, pretended: Stages, edit: Any) -> None:
        edit("Finding(at_most=2.5)", 'Finding(at_most=1.5, book=1.2), Finding(cell="units 2", beats="units 4")')
        found, _ = study("widths", pretended, data="real")
        assert [finding["passed"] for finding in found["findings"]] == [True, False, False]
        reasons = [finding["reason"] for finding in found["findings"]]
        assert "better than" in reasons[0]
        assert "(clearly)" in reasons[0]
        assert "expected at most 1.5 (the book: 1.2)" in reasons[1]
        assert "not better than" in reasons[2]

    @pytest.mark.parametrize("request_", [{"data": "synthetic"}, {"data": "real", "profile": "smoke"}])
    def test_are_not_judged_by_made_up_data_or_smoke_runs(self, pretended: Stages, request_: dict[str, str]) -> None:
        found, _ = study("widths", pretended, **request_)
        assert {finding["passed"] for finding in found["findings"]} == {None}
        assert "not judged" in found["findings"][0]["reason"]

    def test_about_a_cell_that_failed_do_not_hold(self, pretended: Stages, edit: Any) -> None:
        finding = 'findings=(Finding(cell="learning_rate 1", at_most=9.0),)'
        edit('"rates": Study(', f'"rates": Study({finding}, ')
        found, _ = study("rates", pretended, data="real")
        assert found["findings"][0]["passed"] is False
        assert "could not be finished" in found["findings"][0]["reason"]


def measured(*values: float, shared: Any = None, resamples: bool = True) -> Measured:
    return Measured(values, None if shared is None else np.asarray(shared, float), resamples)


class TestChance:
    def test_by_seeds_is_that_of_two_samples(self) -> None:
        from scipy import stats

        one, other = (1.0, 1.2, 1.1), (1.5, 1.9, 1.6, 1.8)
        expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
        assert difference(measured(*one), measured(*other)) == pytest.approx([expected.low, expected.high])

    def test_by_folds_is_that_of_pairs(self) -> None:
        from scipy import stats

        one, other = [1.0, 2.0, 3.0], [1.1, 2.3, 3.2]
        expected = stats.ttest_rel(one, other).confidence_interval()
        found = difference(measured(2.0, shared=one, resamples=False), measured(2.2, shared=other, resamples=False))
        assert found == pytest.approx([expected.low, expected.high])

    def test_that_both_cells_share_does_not_count(self) -> None:
        """Their own intervals overlap by far, and yet one is clearly better: what is hard is hard for both."""
        draw = np.random.default_rng(0).normal(0, 1, 1000)
        one, other = measured(5.0, shared=5.0 + draw), measured(5.2, shared=5.2 + draw)
        assert one.interval is not None
        assert one.interval[1] > 6
        assert clearly_better(one, other, sign=1)
        assert not clearly_better(other, one, sign=1)
        assert clearly_better(other, one, sign=-1)

    def test_lets_cells_share_a_rank(self) -> None:
        random = np.random.default_rng(0)
        done = {
            name: measured(mean, shared=mean + random.normal(0, 0.1, 1000))
            for name, mean in {"a": 1.0, "b": 1.1, "c": 2.0, "d": 2.1, "e": 9.0}.items()
        }
        assert ranked(done, list("abcde"), 1) == {"a": 1, "b": 1, "c": 3, "d": 3, "e": 5}

    def test_of_single_values_can_not_be_told(self) -> None:
        one, other = measured(1.0), measured(2.0)
        assert one.interval is None
        assert difference(one, other) is None
        assert ranked({"a": one, "b": other}, ["a", "b"], 1) == {"a": 1, "b": 2}


class TestPages:
    def test_stand_alone_and_name_every_cell(self, pretended: Stages, edit: Any) -> None:
        edit('"b": {"model.units": 8}', '"<b>&": {"model.units": 8}')
        plan = studying.plan("tiny", "watched")
        page = (studied(plan)(plan.job, pretended)[-1].path / "study.html").read_text()
        assert "&lt;b&gt;&amp;" in page
        assert "<b>&" not in page
        assert page.count("<svg") == 2
        assert not re.findall(r'(?:src|href)="(?!#)', page)
        assert "<script" not in page


class TestCommands:
    @pytest.fixture(autouse=True)
    def used(self, pretended: Stages) -> None:
        """The command line carries out these stages."""

    def test_tell_ranking_findings_and_page(self, headrace: Headrace) -> None:
        result = headrace("study", "tiny", "widths", "--seeds", "1")
        assert result.code == 0, result.err
        for words in ("units 8", "rank", "not judged", "One seed each", "study.html"):
            assert words in result.out
        assert Path(headrace("report", "tiny").out.strip()).name == "study.html"

    def test_exit_with_1_if_a_finding_does_not_hold(self, headrace: Headrace, edit: Any) -> None:
        edit("Finding(at_most=2.5)", "Finding(at_most=1.0)")
        result = headrace("study", "tiny", "widths", "--data", "real", "--json")
        assert (result.code, result.json["verdict"]) == (1, "fail")
        assert result.json["study"]["best"] == "units 8"

    def test_plan_without_a_trace(self, headrace: Headrace, headrace_home: Path) -> None:
        result = headrace("study", "tiny", "widths", "--plan", "--json")
        assert [stage["state"] for stage in result.json["stages"][:3]] == ["run", "unknown", "unknown"]
        assert not headrace_home.exists()
        headrace("study", "tiny", "widths", "--seeds", "1")
        planned = headrace("study", "tiny", "widths", "--plan", "--json").json["stages"]
        states = {stage["node"]: stage["state"] for stage in planned}
        assert states["train/units 2"] == "skip"
        assert states["train/units 2 · seed 1"] == "run"

    def test_refuse_what_is_not_there(self, headrace: Headrace) -> None:
        assert "did you mean `widths`" in headrace("study", "tiny", "width").err
        several = headrace("study", "tiny")
        assert (several.code, "widths, watched, folds, rates" in several.err) == (2, True)
        mistakes = headrace("study", "tiny", "widths", "--set", "train.epoch=3", "--set", "x")
        assert mistakes.code == 2
        assert "`epochs`" in mistakes.err
        assert "names no value" in mistakes.err


def test_a_problem_of_the_data_ends_a_study(pretended: Stages) -> None:
    from headrace.errors import DataError

    def broken(*_: Any, **__: Any) -> Artifact:
        raise DataError("Column `RM` is missing.")

    with pytest.raises(DataError):
        study("widths", replace(pretended, train=broken))


def test_some_seeds_that_fail_are_told_beside_the_others(pretended: Stages) -> None:
    def unlucky(job: Any, *others: Any, **named: Any) -> Artifact:
        if job.label == "units 8 · seed 1":
            raise Diverged("The loss is nan in epoch 3.")
        return pretended.train(job, *others, **named)

    found, _ = study("widths", replace(pretended, train=unlucky))
    best = found["cells"][0]
    assert (best["cell"], list(best["values"]), best["problem"]) == ("units 8", ["0"], "The loss is nan in epoch 3.")


@pytest.mark.slow
class TestRealStages:
    """House prices' twin, from the download on."""

    REQUEST = ("--profile", "smoke", "--data", "synthetic", "--seeds", "2", "--json")

    @pytest.fixture(autouse=True)
    def small(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A study of three sizes, trained for two epochs each."""
        text = (ROOT / "pipelines" / "house_prices.py").read_text()
        start = text.index('        "capacity": Study(')
        small = 'settings={"model.layers": 1, "train.epochs": 2, "train.jit_compile": False}'
        text = text[:start] + f'        "sizes": Study(axes={{"model.units": (2, 4, 8)}}, {small}),\n' + text[start:]
        (tiny.parent / "house_prices.py").write_text(text)

    def test_keep_what_is_finished_and_train_what_is_new(self, headrace: Headrace, tiny: Path) -> None:
        first = headrace("study", "house_prices", "sizes", *self.REQUEST).json
        assert [stage["state"] for stage in first["stages"]] == ["run"] * 15
        assert first["study"]["on"] == "test"
        assert {len(cell["values"]) for cell in first["study"]["cells"]} == {2}
        again = headrace("study", "house_prices", "sizes", *self.REQUEST).json
        assert {stage["state"] for stage in again["stages"]} == {"skipped"}
        assert again["study"] == first["study"]
