"""One bundle, asked in every way that people ask it: all of them give the numbers of Keras."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.artifacts import Artifact
from headrace.bundling.examples import examples_of
from tests.core import bundles
from tests.core.serving_models import Running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

ROWS = 3

LITERT = """
import json, sys
import numpy as np
try:
    import tensorflow
except ImportError:
    pass
else:
    sys.exit("TensorFlow is here")
from ai_edge_litert.interpreter import Interpreter
runner = Interpreter(model_path=sys.argv[1]).get_signature_runner("serving_default")
images = np.load(sys.argv[2])
print(json.dumps([runner(image=image[None])["label"][0].tolist() for image in images]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A convnet with augmentation and batch normalisation, from raw images to three classes."""
    return bundles.CONVNET.export(tmp_path_factory.mktemp("convnet"), formats=("saved_model", "tflite"))


@pytest.fixture(scope="module")
def images(bundle: Artifact) -> np.ndarray[Any, Any]:
    return examples_of(bundle)["image"][:ROWS]


@pytest.fixture(scope="module")
def expected(bundle: Artifact, images: np.ndarray[Any, Any]) -> Any:
    """What the Keras model in the bundle answers to what preprocessing makes of the images."""
    import keras

    model = keras.saving.load_model(bundle.path / "model.keras")
    return pytest.approx(model.predict(images.astype(np.float32) / 255, verbose=0), rel=1e-4, abs=1e-6)


def needed(package: str, seen: dict[str, None] | None = None) -> list[str]:
    """A package and all that it needs, by their names."""
    seen = {} if seen is None else seen
    if package not in seen:
        seen[package] = None
        for wanted in importlib.metadata.requires(package) or ():
            if ";" not in wanted:
                needed("".join(iter_name(wanted)), seen)
    return list(seen)


def iter_name(requirement: str) -> Iterator[str]:
    for letter in requirement:
        if not (letter.isalnum() or letter in "-_."):
            return
        yield letter


def test_litert_in_an_environment_without_tensorflow(
    bundle: Artifact, images: np.ndarray[Any, Any], expected: Any, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    for package in needed("ai-edge-litert"):
        distribution = importlib.metadata.distribution(package)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    np.save(tmp_path / "images.npy", images)
    command = [tmp_path / "env" / "bin" / "python", "-I", "-c", LITERT]

    done = subprocess.run(
        [*command, bundle.path / "model.tflite", tmp_path / "images.npy"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert np.array(json.loads(done.stdout)) == expected


def test_tensorflow_s_own_command(
    bundle: Artifact, images: np.ndarray[Any, Any], expected: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", images)
    command = [str(Path(sys.executable).with_name("saved_model_cli")), "run", "--dir", str(bundle.path / "saved_model")]
    how = ["--tag_set", "serve", "--signature_def", "serving_default", "--outdir", str(tmp_path)]

    subprocess.run([*command, *how, "--inputs", f"image={tmp_path / 'images.npy'}"], capture_output=True, check=True)

    assert np.load(tmp_path / "label.npy") == expected


def test_curl_in_the_words_of_tensorflow_serving(
    bundle: Artifact, images: np.ndarray[Any, Any], expected: Any, tmp_path: Path
) -> None:
    curl = shutil.which("curl")
    if not curl:
        pytest.skip("curl is not installed")
    (tmp_path / "body.json").write_text(json.dumps({"instances": images.tolist()}))
    with Running(tmp_path / "home", "--bundle", str(bundle.path)) as server:
        address = f"http://127.0.0.1:{server.port}{server.path}:predict"

        done = subprocess.run(
            [curl, "--silent", "--data", f"@{tmp_path / 'body.json'}", address], capture_output=True, check=True
        )

    assert np.array(json.loads(done.stdout)["predictions"]) == expected
