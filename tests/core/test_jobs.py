"""Requests: completed, checked, every mistake told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headrace import projects
from headrace.errors import ConfigError
from headrace.jobs import Job, parse_override, read_config, resolve


def refused(**request: Any) -> str:
    """The message with which a request to house_prices is refused."""
    with pytest.raises(ConfigError) as caught:
        resolve("house_prices", **request)
    return str(caught.value)


class TestResolve:
    def test_completes_a_request_from_the_workload(self) -> None:
        job = resolve("house_prices")
        assert (job.variant, job.source, job.profile, job.data, job.seed) == ("final", "boston", "full", "auto", 0)
        assert job.settings.train.epochs == 130

    def test_applies_the_profile_and_then_the_overrides(self) -> None:
        job = resolve("house_prices", profile="smoke", overrides={"train.batch_size": 8})
        assert (job.settings.train.epochs, job.settings.train.batch_size) == (25, 8)
        assert resolve("house_prices", profile="smoke", overrides={"train.epochs": 3}).settings.train.epochs == 3

    def test_ignores_what_the_profile_says_of_parts_that_the_variant_lacks(self) -> None:
        assert resolve("house_prices", variant="final", profile="smoke").settings.cross_validation is None
        folded = resolve("house_prices", variant="kfold_100", profile="smoke").settings.cross_validation
        assert folded is not None
        assert folded.folds == 2

    def test_can_give_a_variant_a_part_that_it_lacks(self) -> None:
        settings = resolve("house_prices", overrides={"cross_validation.folds": 3}).settings
        assert settings.cross_validation is not None
        assert settings.cross_validation.folds == 3

    def test_passes_arguments_to_the_model(self) -> None:
        assert resolve("house_prices", overrides={"model.units": 32}).settings.model == {"units": 32}

    def test_travels_as_json(self) -> None:
        job = resolve("house_prices", variant="kfold_100", overrides={"train.epochs": 3})
        assert Job.model_validate_json(job.model_dump_json()) == job

    def test_can_not_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            resolve("house_prices").seed = 1


class TestMistakes:
    @pytest.mark.parametrize(
        ("request_", "words"),
        [
            ({"variant": "fnal"}, "variant: there is no `fnal`: did you mean `final`?"),
            ({"variant": ["final"]}, "variant: there is no `['final']`"),
            ({"profile": "smok"}, "profile: there is no `smok`: did you mean `smoke`?"),
            ({"data": "fake"}, "data: there is no `fake`: there is `auto`, `real`, `synthetic`"),
            ({"source": "bostn"}, "house_prices has no source `bostn`: did you mean `boston`?"),
            ({"source": 3}, "house_prices has no source `3`"),
            ({"seed": -1}, "seed: expected a whole number from 0 to 2147483647; received -1"),
            ({"seed": "x"}, "received 'x'"),
            ({"seed": True}, "received True"),
            ({"seed": 2**31}, "received 2147483648"),
            ({"overrides": {"train.epcohs": 8}}, "`train` has no setting `epcohs`: did you mean `epochs`?"),
            ({"overrides": {"tarin.epochs": 8}}, "there is no setting `tarin`: did you mean `train`?"),
            ({"overrides": {"train.epochs": "many"}}, "train.epochs: input should be a valid integer"),
            (
                {"overrides": {"train.epochs": 0}},
                "train.epochs: input should be greater than or equal to 1; received 0",
            ),
            ({"overrides": {"train.epochs": None}}, "train.epochs: input should be a valid integer"),
            ({"overrides": {"train.epochs.first": 8}}, "`train.epochs` is a single value, it has no `first`"),
            ({"overrides": {"train": 8}}, "train: input should be a valid dictionary"),
            (
                {"overrides": {"train.learning_rate": float("inf")}},
                "train.learning_rate: input should be a finite number",
            ),
            ({"overrides": {"train.learning_rate": float("nan")}}, "train.learning_rate: input should be"),
            ({"overrides": {"model.unit": 8}}, "takes no `unit`: did you mean `units`?"),
            ({"overrides": {"train.early_stopping.patience": 3}}, "nothing is held out: set validation_split above 0"),
            (
                {"overrides": {"export.formats": ["onix"]}},
                "export.formats.0: input should be 'saved_model', 'tflite', 'tflite_dynamic', 'tflite_float16', "
                "'tflite_int8' or 'onnx'",
            ),
            ({"overrides": {"": 8}}, "there is no setting ``"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else "",
    )
    def test_name_what_was_received_and_what_is_nearest(self, request_: dict[str, Any], words: str) -> None:
        assert words in refused(**request_)

    def test_are_told_all_at_once(self) -> None:
        text = refused(
            variant="fnal",
            profile="smok",
            data="rael",
            source="bostn",
            seed=-1,
            overrides={"train.epochs": 0, "train.epcohs": 8, "model.unit": 1},
        )
        for word in ("fnal", "smok", "rael", "bostn", "seed", "train.epochs", "epcohs"):
            assert word in text
        assert "headrace show house_prices" in text

    def test_in_the_name_of_a_workload_are_answered_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"There is no workload `house_price`: did you mean `house_prices`\?"):
            resolve("house_price")


class TestTitle:
    def test_says_only_what_differs_from_the_default(self) -> None:
        assert resolve("house_prices").title == "house_prices · final"
        other = resolve("house_prices", variant="kfold_100", source="california", profile="smoke", seed=3)
        assert other.title == "house_prices · kfold_100 · california · smoke · seed 3"


class TestOverridesAsText:
    @pytest.mark.parametrize(
        ("text", "path", "value"),
        [
            ("train.epochs=8", "train.epochs", 8),
            ("train.learning_rate=1e-3", "train.learning_rate", 0.001),
            ("train.shuffle=false", "train.shuffle", False),
            ("train.optimizer=adam", "train.optimizer", "adam"),
            ("cross_validation=null", "cross_validation", None),
            ("export.formats=[tflite]", "export.formats", ["tflite"]),
            ("model.name=a=b", "model.name", "a=b"),
            (" train.epochs = 8", "train.epochs", 8),
        ],
    )
    def test_are_read_as_yaml(self, text: str, path: str, value: object) -> None:
        assert parse_override(text) == (path, value)

    @pytest.mark.parametrize("text", ["train.epochs", "=8", "train.epochs=[1", ""])
    def test_are_refused_without_path_or_value(self, text: str) -> None:
        with pytest.raises(ConfigError, match="--set"):
            parse_override(text)


class TestConfigurationFiles:
    def test_hold_options_and_settings(self, tmp_path: Path) -> None:
        path = tmp_path / "run.yaml"
        path.write_text("variant: kfold_100\nseed: 3\ntrain: {epochs: 50, learning_rate: 1e-3}\nmodel.units: 8\n")
        options, overrides = read_config(path)
        assert options == {"variant": "kfold_100", "seed": 3}
        assert overrides == {"train.epochs": 50, "train.learning_rate": 0.001, "model.units": 8}

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty or no mapping"),
            (b"- a\n- b\n", "is empty or no mapping"),
            (b"train: [1\n", "is not YAML"),
            (b"\xff\xfe\x00", "is not YAML"),
        ],
    )
    def test_are_refused_if_they_are_no_mapping(self, tmp_path: Path, content: bytes, words: str) -> None:
        (tmp_path / "run.yaml").write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            read_config(tmp_path / "run.yaml")

    def test_are_refused_if_they_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"run\.yaml can't be read"):
            read_config(tmp_path / "run.yaml")


class TestProjects:
    def test_are_found_from_a_folder_below(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (project / "a" / "b").mkdir(parents=True)
        monkeypatch.chdir(project / "a" / "b")
        projects.root.cache_clear()
        assert projects.root() == project

    def test_list_files_and_folders_and_nothing_private(self, project: Path) -> None:
        (project / "pipelines" / "_shared.py").write_text("")
        (project / "pipelines" / "notes.txt").write_text("")
        (project / "pipelines" / "big").mkdir()
        (project / "pipelines" / "big" / "__init__.py").write_text("")
        assert projects.names() == ["big", "tiny"]

    def test_tell_a_workload_under_another_name(self, edit: Any) -> None:
        edit('name="tiny"', 'name="other"')
        with pytest.raises(ConfigError, match=r"pipelines/tiny\.py does not define its workload"):
            projects.load("tiny")

    def test_tell_the_line_that_keeps_a_file_from_loading(self, edit: Any) -> None:
        edit("FACTOR = 2", "FACTOR = 2 / 0")
        with pytest.raises(ConfigError, match=r"because of line 8\.\n  received: ZeroDivisionError"):
            projects.load("tiny")

    def test_tell_a_file_that_is_no_python(self, edit: Any) -> None:
        edit("FACTOR = 2", "FACTOR = (")
        with pytest.raises(ConfigError, match=r"tiny\.py can't be loaded.*\n  received: SyntaxError"):
            projects.load("tiny")

    def test_tell_every_mistake_in_a_description(self, edit: Any) -> None:
        edit("Train(epochs=5)),", "Train(epochs=0, bach_size=1)),")
        with pytest.raises(ConfigError) as caught:
            projects.load("tiny")
        assert "epochs: input should be greater than or equal to 1; received 0" in str(caught.value)
        assert "bach_size: there is no such setting" in str(caught.value)
        assert "batch_size" in str(caught.value)
