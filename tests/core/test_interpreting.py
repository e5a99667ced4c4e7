"""A model that is looked into: by what it is called, which images it is shown, and what stands in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from headrace import registry
from headrace.artifacts import read_json
from headrace.describing.summaries import Statistics
from headrace.errors import ConfigError, DataError
from headrace.interpreting import FIGURES, PAGE, Request, interpret
from headrace.seeing import subjects
from tests.core.seeing import SIDE, convnet, shapes, trained

if TYPE_CHECKING:
    import keras

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def photographs(folder: Path, count: int = 2) -> Path:
    """A folder of images of shapes, and something else."""
    folder.mkdir()
    for k, pixels in enumerate(shapes(count, seed=3)[0]):
        Image.fromarray(pixels).save(folder / f"{k}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "Shapes of mine.keras"
    trained().save(path)
    return path


def digits(*, seed: int = 0) -> keras.Model:
    """The convnet of the workload `mnist`, as it was drawn."""
    import keras

    from headrace import Feature
    from headrace.jobs import resolve

    keras.utils.set_random_seed(seed)
    made: keras.Model = resolve("mnist", variant="convnet").the("model")(
        {"image": Feature(shape=(28, 28, 1), dtype="uint8")}
    )
    return made


def published(folder: Path, line: str = "mnist-convnet", workload: str = "mnist") -> int:
    """A version of digits, without what serving needs."""
    folder.mkdir()
    digits().save(folder / "model.keras")
    np.savez(folder / "examples.npz", **{"raw/image": np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28, 1)})
    request = {"workload": workload, "variant": "convnet", "source": "mnist", "settings": {"preprocess": {}}}
    classes = [str(number) for number in range(10)]
    return publish(line, folder, request, {"label": {"task": "multiclass", "classes": classes}})


def publish(line: str, folder: Path, request: dict[str, Any], outputs: dict[str, Any]) -> int:
    """Publish and bless what lies in a folder."""
    said = {
        "lineage": {"request": request},
        "statistics": Statistics({}).to_json(),
        "evaluation": {"outputs": outputs},
    }
    contents: dict[str, Path | bytes] = {"saved_model.pb": b"not asked for"}
    contents |= {f"{registry.EXTRA}/{name}.json": json.dumps(value).encode() for name, value in said.items()}
    contents |= {f"{registry.EXTRA}/{path.name}": path for path in folder.iterdir()}
    version = registry.publish(line, contents, bundle=line)
    registry.bless(line, version)
    return version


class TestFiles:
    def test_give_figures_and_a_page_that_loads_nothing(self, saved: Path, tmp_path: Path) -> None:
        found = interpret(Request(str(saved), photographs(tmp_path / "in"), filters=3, top=2))
        folder = Path(found["path"])
        assert folder.parent.parent.name == "file-shapes-of-mine"
        assert found["state"] == "run"
        assert [image["name"] for image in found["images"]] == ["0.png", "1.png"]
        for image, label in zip(found["images"], shapes(2, seed=3)[1].tolist(), strict=True):
            assert [one["number"] for one in image["classes"]] == [label, 1 - label]
            assert all(0 <= place < SIDE for one in image["classes"] for place in one["peak"])
        assert [layer["path"] for layer in found["layers"] if layer["kind"] == "convolution"] == [
            "conv0",
            "conv1",
            "conv2",
        ]
        assert [(one["path"], len(one["filters"]), one["raised"]) for one in found["patterns"]] == [
            ("conv0", 3, 3),
            ("conv1", 3, 3),
            ("conv2", 3, 3),
        ]
        page = (folder / PAGE).read_text()
        assert page.count("data:image/") == 2 + 3 + 5
        assert "http" not in page.replace("http://www.w3.org", "")
        assert read_json(folder / FIGURES)["images"] == found["images"]

    def test_are_not_looked_into_twice(self, saved: Path, tmp_path: Path) -> None:
        asked = Request(str(saved), photographs(tmp_path / "in", 1), filters=0)
        first, second = interpret(asked), interpret(asked)
        assert (first["state"], second["state"]) == ("run", "skipped")
        assert {**first, "state": ""} == {**second, "state": ""}
        assert interpret(Request(str(saved), tmp_path / "in", filters=0, top=1))["state"] == "run"

    def test_without_images_show_their_filters_only(self, saved: Path) -> None:
        found = interpret(Request(str(saved), layers=("conv1",), filters=2))
        assert (found["images"], found["no_heat_maps"]) == ([], "no image was given, and none came with the model")
        assert [one["path"] for one in found["patterns"]] == ["conv1"]

    def test_with_layers_show_those_only(self, saved: Path, tmp_path: Path) -> None:
        asked = Request(str(saved), photographs(tmp_path / "in", 1), layers=("conv2",), map_layer="conv0", filters=0)
        found = interpret(asked)
        assert [layer["path"] for layer in found["layers"]] == ["conv2"]
        assert found["images"][0]["layer"] == "conv0"
        with pytest.raises(ConfigError, match="has no layer `conv9`"):
            interpret(Request(str(saved), layers=("conv9",)))

    def test_with_batch_normalisation_stay_in_inference(self, tmp_path: Path) -> None:
        import keras

        path = tmp_path / "normal.keras"
        model = convnet(normalised=True)
        model.save(path)
        interpret(Request(str(path), photographs(tmp_path / "in", 1), filters=2))
        before = model.get_weights()
        for one, other in zip(keras.saving.load_model(path).get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_that_are_no_models_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="There is no file"):
            interpret(Request(str(tmp_path / "none.keras")))
        (tmp_path / "bad.keras").write_bytes(b"no model")
        with pytest.raises(DataError, match="can't load"):
            interpret(Request(str(tmp_path / "bad.keras")))


class TestVersions:
    def test_are_shown_the_examples_that_came_with_them(self, tmp_path: Path) -> None:
        version = published(tmp_path / "made")
        found = interpret(Request("mnist-convnet", images=2, filters=0))
        assert found["model"] == f"mnist-convnet version {version}"
        assert Path(found["path"]).parent.parent.name == "mnist-convnet"
        assert [image["name"] for image in found["images"]] == ["test example 0", "test example 1"]
        assert {one["class"] for one in found["images"][0]["classes"]} <= {str(number) for number in range(10)}
        kinds = [layer["kind"] for layer in found["layers"]]
        assert kinds == ["convolution", "pooling", "convolution", "pooling", "convolution"]
        assert interpret(Request(f"mnist-convnet@{version}", images=2, filters=0))["state"] == "skipped"

    def test_are_shown_files_as_their_workload_prepares_them(self, tmp_path: Path) -> None:
        import tensorflow as tf

        published(tmp_path / "made")
        Image.fromarray(np.full((56, 56), 200, np.uint8)).save(tmp_path / "grey.png")
        found = interpret(Request("mnist-convnet@blessed", tmp_path / "grey.png", filters=0, top=10))
        expected = digits()(tf.fill((1, 28, 28, 1), 200.0)).numpy()[0]
        scores = {one["number"]: one["score"] for one in found["images"][0]["classes"]}
        np.testing.assert_allclose([scores[number] for number in range(10)], expected, atol=1e-5)

    def test_of_photographs_are_shown_the_files_that_came_with_them(self, tmp_path: Path) -> None:
        """A network that answers with masks has no heat maps; all else is shown."""
        from headrace import Feature
        from headrace.jobs import resolve
        from headrace.serving_check import packed

        make = resolve("pets_segmentation").the("model")
        folder = photographs(tmp_path / "in", 3)
        files = np.array([path.read_bytes() for path in sorted(folder.glob("*.png"))], object)
        (tmp_path / "made").mkdir()
        make({"image": Feature(shape=(24, 24, 3), dtype="uint8")}, (4, 4, 4)).save(tmp_path / "made" / "model.keras")
        np.savez(tmp_path / "made" / "examples.npz", **packed("raw", {"image": files}))
        request = {"workload": "pets_segmentation", "variant": "book", "settings": {"preprocess": {"size": 24}}}
        publish("pets_segmentation", tmp_path / "made", request, {"mask": {"task": "segmentation"}})
        found = interpret(Request("pets_segmentation", images=2, filters=0))
        assert found["images"] == [{"name": "test example 0"}, {"name": "test example 1"}]
        assert found["no_heat_maps"].endswith(
            "answers with shape (24, 24, 3): a heat map needs a number for each class"
        )
        assert len(found["layers"]) == 13
        assert all(0 < layer["zeros"] < 1 for layer in found["layers"][:-1])

    def test_that_there_are_none_of_are_told_with_the_nearest(self, tmp_path: Path) -> None:
        published(tmp_path / "made")
        with pytest.raises(ConfigError, match=r"no line in the registry `mnist-convent`(.|\n)*mnist-convnet"):
            interpret(Request("mnist-convent"))
        with pytest.raises(ConfigError, match=r"interpret mnist-convnet"):
            interpret(Request("mnist"))
        with pytest.raises(ConfigError, match="has no version 7"):
            interpret(Request("mnist-convnet@7"))

    def test_of_a_workload_that_is_gone_are_told(self, tmp_path: Path) -> None:
        published(tmp_path / "made", line="lost", workload="lost_one")
        with pytest.raises(ConfigError, match=r"without the file of its workload(.|\n)*lost_one\.py"):
            interpret(Request("lost"))


class TestBackbones:
    def test_are_known_by_name(self) -> None:
        with pytest.raises(ConfigError, match=r"no backbone `squeezent`(.|\n)*squeezenet"):
            interpret(Request("backbone:squeezent"))

    @pytest.mark.real_data
    @pytest.mark.slow
    def test_show_what_imagenet_has_taught_their_filters(self, mirror: Path, tmp_path: Path) -> None:
        found = interpret(Request("backbone:squeezenet", photographs(tmp_path / "in", 1), filters=8))
        assert [(one["raised"], len(one["filters"])) for one in found["patterns"]] == [(8, 8)] * 3
        assert found["no_heat_maps"].startswith("squeezenet of ImageNet, without its top answers with shape")


class TestImages:
    def test_of_a_folder_are_the_first_by_name(self, tmp_path: Path) -> None:
        folder = photographs(tmp_path / "in", 3)
        assert [one.name for one in subjects.images(folder, 2)] == ["0.png", "1.png"]

    @pytest.mark.parametrize("received", ["a folder without any", "no such file or folder"])
    def test_that_there_are_none_of_are_told(self, tmp_path: Path, received: str) -> None:
        folder = tmp_path / "in"
        if "folder without" in received:
            folder.mkdir()
        with pytest.raises(ConfigError, match=received):
            subjects.images(folder, 2)

    def test_that_are_damaged_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "bad.png").write_bytes(b"no image")
        with pytest.raises(DataError, match=r"bad\.png is no image"):
            subjects.images(tmp_path / "bad.png", 1)


def test_the_command_prints_the_likeliest_classes_and_where_the_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from headrace.__main__ import main

    published(tmp_path / "made")
    told: list[Any] = []
    for words in ([], ["--json"]):
        assert main(["interpret", "mnist-convnet", "--images", "1", "--filters", "0", *words]) == 0
        told.append(capsys.readouterr().out)
    assert told[0].startswith("test example 0: ")
    assert told[0].strip().endswith(PAGE)
    assert json.loads(told[1])["state"] == "skipped"
    assert main(["interpret", "mnist-convnt", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2
