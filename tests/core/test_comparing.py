"""A new model beside the blessed one: every kind of input and task, and what can't be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import exporting, registry
from headrace.artifacts import Artifact
from headrace.evaluating import measures_of
from headrace.jobs import Job
from headrace.judging.comparing import beside_the_blessed
from headrace.preprocessing import preprocess
from headrace.records.inputs import read_info
from tests.core import bundles
from tests.core.making import artifact

KINDS = {
    "table": bundles.DENSE,
    "image files": bundles.FILES,
    "masks": bundles.SEGMENTATION,
    "texts": bundles.TEXT,
    "tokens of any length": bundles.RAGGED,
    "several inputs and outputs": bundles.TICKETS,
}


class Rivals:
    """Models of one kind of workload, one of which is blessed."""

    def __init__(self, kind: bundles.Kind, folder: Path) -> None:
        self.folder, self.job = folder, kind.job()
        (folder / "raw").mkdir(parents=True)
        self.raw = artifact(folder / "raw", "download", data={"data": "synthetic", "source": "made", "files": {}})
        self.records = preprocess(self.job, self.raw)
        self.info = read_info(self.records.path)
        self.measures = measures_of(self.job, self.info)
        self._model = kind.model

    def bundle(self, name: str, seed: int) -> Artifact:
        """The export of an untrained model."""
        import keras

        keras.utils.set_random_seed(seed)
        model = self._model(self.info.named("input"))
        place = self.folder / name / "saved_model"
        exporting.write_saved_model(self.job, self.records, self.info, model, place)
        return artifact(self.folder / name, "export", bundle={"seed": seed})

    def evaluation(self) -> dict[str, Any]:
        """What `evaluate` says of either."""
        outputs = {
            name: {"task": self.job.task_of(name), "target": task.target.model_dump(mode="json")}
            for name, task in self.measures.tasks.items()
        }
        return {"primary": self.measures.primary, "outputs": outputs}

    def bless(self, bundle: Artifact, evaluation: dict[str, Any], records: str | None = None) -> int:
        """Publish a bundle, trained on these records."""
        lineage = {"stages": {"preprocess": {"digest": records or self.records.digest}}}
        return blessed("line", evaluation, lineage, bundle)

    def judge(self, bundle: Artifact, evaluation: dict[str, Any]) -> dict[str, Any]:
        """The gate of a bundle beside the blessed version."""
        made = evaluated(self.folder / f"evaluation-{bundle.path.name}", evaluation)
        version = registry.blessed("line")
        return beside_the_blessed(self.job, self.raw, self.records, made, bundle, "line", version)


def blessed(line: str, evaluation: dict[str, Any], lineage: dict[str, Any], bundle: Artifact | None = None) -> int:
    """Publish and bless a version of which this was said."""
    import json

    contents: dict[str, Path | bytes] = {
        "assets.extra/evaluation.json": json.dumps(evaluation).encode(),
        "assets.extra/lineage.json": json.dumps(lineage).encode(),
    }
    if bundle:
        contents |= {path.name: path for path in (bundle.path / "saved_model").iterdir()}
    version = registry.replace(
        line, contents, bundle=bundle.digest if bundle else "none", against=registry.blessed(line)
    )
    assert version
    return version


def evaluated(folder: Path, evaluation: dict[str, Any]) -> Artifact:
    folder.mkdir(parents=True)
    return artifact(folder, "evaluate", evaluation=evaluation)


class TestExampleByExample:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_of_workload_is_compared_on_the_same_raw_examples(self, kind: str, tmp_path: Path) -> None:
        rivals = Rivals(KINDS[kind], tmp_path)
        rivals.bless(rivals.bundle("old", 1), rivals.evaluation())
        gate = rivals.judge(rivals.bundle("new", 2), rivals.evaluation())
        assert gate["passed"] in (True, False), gate["reason"]
        assert "of the blessed version 1" in gate["reason"]
        assert "on the same 40 test examples" in gate["reason"]

    def test_a_metric_that_a_serving_signature_can_not_tell_gives_way_to_that_of_the_task(self, tmp_path: Path) -> None:
        rivals = Rivals(bundles.TRANSLATION, tmp_path)
        said = rivals.evaluation() | {"primary": "bleu"}
        rivals.bless(rivals.bundle("old", 1), said)
        gate = rivals.judge(rivals.bundle("new", 2), said)
        assert gate["passed"] in (True, False), gate["reason"]

    def test_classes_in_another_order_are_not_comparable(self, tmp_path: Path) -> None:
        rivals = Rivals(bundles.TICKETS, tmp_path)
        before = rivals.evaluation()
        before["outputs"]["department"]["target"]["classes"] = ["other", "sales", "repairs"]
        rivals.bless(rivals.bundle("old", 1), before)
        gate = rivals.judge(rivals.bundle("new", 2), rivals.evaluation())
        assert gate["passed"] is None
        assert "the classes of department are sales, repairs, other (before: other, sales, repairs)" in gate["reason"]

    def test_a_version_that_has_learned_from_other_records_is_told(self, tmp_path: Path) -> None:
        rivals = Rivals(bundles.DENSE, tmp_path)
        rivals.bless(rivals.bundle("old", 1), rivals.evaluation(), records="others")
        gate = rivals.judge(rivals.bundle("new", 2), rivals.evaluation())
        assert gate["passed"] is not None
        assert gate["reason"].endswith("learned from other records, and may have seen these examples")

    def test_a_version_from_before_there_were_these_facts_is_compared(self, tmp_path: Path) -> None:
        rivals = Rivals(bundles.DENSE, tmp_path)
        bundle = rivals.bundle("old", 1)
        contents: dict[str, Path | bytes] = {path.name: path for path in (bundle.path / "saved_model").iterdir()}
        registry.replace("line", contents, bundle="old", against=None)
        gate = rivals.judge(rivals.bundle("new", 2), rivals.evaluation())
        assert "on the same 40 test examples" in gate["reason"]


class TestByTheirOwnMeasures:
    """Task `own`: nothing is right or wrong example by example."""

    def judge(self, job: Job, folder: Path, before: float, now: float, data: str = "same") -> dict[str, Any]:
        def said(value: float) -> dict[str, Any]:
            return {
                "primary": "reward",
                "metrics": {"reward": value},
                "intervals": {"reward": [value - 1, value + 1]},
                "larger_is_better": ["reward"],
                "outputs": {},
            }

        folder.mkdir()
        np.savez(folder / "x.npz", x=np.zeros(1))
        records, bundle = (artifact(folder / name, name) for name in self._folders(folder))
        digest = records.digest if data == "same" else "others"
        blessed("games", said(before), {"stages": {"preprocess": {"digest": digest}}})
        evaluation = evaluated(folder / "evaluation", said(now))
        own = job.model_copy(update={"settings": job.settings.model_copy(update={"task": "own"})})
        return beside_the_blessed(own, records, records, evaluation, bundle, "games", 1)

    def _folders(self, folder: Path) -> list[str]:
        for name in ("preprocess", "export"):
            (folder / name).mkdir()
            (folder / name / "what").write_text(name)
        return ["preprocess", "export"]

    @pytest.mark.parametrize(("before", "now", "passed"), [(10, 20, True), (10, 9.5, True), (20, 10, False)])
    def test_are_compared_as_both_evaluations_say(
        self, job: Any, tmp_path: Path, before: float, now: float, passed: bool
    ) -> None:
        gate = self.judge(job(), tmp_path / "made", before, now)
        assert gate["passed"] is passed
        assert "of the blessed version 1" in gate["reason"]

    def test_on_other_data_are_not_comparable(self, job: Any, tmp_path: Path) -> None:
        gate = self.judge(job(), tmp_path / "made", 10, 20, data="others")
        assert gate["passed"] is None
        assert gate["reason"] == "not comparable with the blessed version 1: it was measured on other data"
