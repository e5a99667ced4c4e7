"""Small models published by hand, so that tests of serving depend on no training."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from headrace import registry
from tests.conftest import PROJECT

LINE = "house_prices"


def prices(seed: int) -> Any:
    """A Keras model of the shape of house prices, with weights of its own for each seed."""
    import keras

    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    given = keras.Input((13,), name="features")
    hidden = keras.layers.Dense(8, activation="relu")(given)
    return keras.Model(given, keras.layers.Dense(1, name="price")(hidden))


def save_prices(folder: Path, model: Any) -> Path:
    """A SavedModel of a Keras model of prices."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    spec = {"features": tf.TensorSpec((None, 13), tf.float32, name="features")}
    serve = tf.function(lambda batch: {"price": model(batch["features"])}, input_signature=[spec], autograph=False)
    module.serve = serve.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def publish_prices(folder: Path, seed: int, line: str = LINE) -> tuple[int, Any]:
    """Publish and bless a model of prices; its number and the Keras model."""
    model = prices(seed)
    return publish(save_prices(folder / f"prices-{seed}", model), f"prices-{seed}", line), model


def publish(saved: Path, digest: str, line: str = LINE, workload: str = "house_prices", **evaluation: Any) -> int:
    """Publish and bless a SavedModel."""
    contents: dict[str, Path | bytes] = {path.name: path for path in sorted(saved.iterdir())}
    request = {"workload": workload, "variant": "final", "source": "boston"}
    contents[f"{registry.EXTRA}/lineage.json"] = json.dumps({"request": request}).encode()
    contents[f"{registry.EXTRA}/evaluation.json"] = json.dumps({"metrics": {}, **evaluation}).encode()
    version = registry.publish(line, contents, bundle=digest)
    registry.bless(line, version)
    return version


def save_letters(folder: Path, slow: int = 0) -> Path:
    """A SavedModel that counts letters: a text in, its length, itself, whether it is long, and two scores out.

    A text that begins with "slow" keeps it at work for a while; one that begins with "fail" makes it fail.
    """
    import tensorflow as tf

    class Letters(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
        def serve(self, text: Any) -> Any:
            bad = tf.reduce_any(tf.strings.regex_full_match(text, "fail.*"))
            with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(bad), ["a text that fails"])]):
                length = tf.strings.length(text)
            rounds = tf.where(tf.reduce_any(tf.strings.regex_full_match(text, "slow.*")), slow, 0)
            matrix = tf.ones((300, 300)) / 300
            worn = tf.while_loop(
                lambda i, x: i < rounds, lambda i, x: (i + 1, tf.matmul(x, matrix)), [tf.constant(0), matrix]
            )[1]
            score = tf.cast(length, tf.float32) / 100 + 0 * worn[0, 0]
            return {
                "length": length,
                "text_bytes": tf.identity(text),
                "text_again": tf.identity(text),
                "long": length > 3,
                "scores": tf.stack([score, 1 - score], axis=1),
            }

    module = Letters()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


class Running:
    """`headrace serve` as a process of its own."""

    def __init__(self, home: Path, *words: str, line: str = LINE) -> None:
        environment = {**os.environ, "HEADRACE_HOME": str(home), "CUDA_VISIBLE_DEVICES": "-1"}
        command = [sys.executable, "-m", "headrace", "serve", "house_prices", "--port", "0", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=PROJECT)
        self.said: list[str] = []
        assert self.process.stderr
        for text in self.process.stderr:
            self.said.append(text)
            if text.startswith("serving"):
                break
        else:
            raise AssertionError(f"the server did not begin: {''.join(self.said)}")
        self.port = int(re.findall(r":(\d+)/", text)[0])
        self.path = f"/v1/models/{line}"
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True)
        self._reader.start()

    def connection(self) -> http.client.HTTPConnection:
        """A connection that stays open."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(
        self,
        path: str = ":predict",
        body: Any = None,
        *,
        connection: http.client.HTTPConnection | None = None,
        method: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, Any]:
        """Status, body (read as JSON if it is) and headers."""
        own = connection or self.connection()
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        whole = path.startswith(("/v1/", "/v2/", "/healthz", "/readyz", "/metrics"))
        place = path if whole else f"{self.path}{path}"
        own.request(method or ("GET" if data is None else "POST"), place, data, headers or {})
        response = own.getresponse()
        text = response.read()
        if connection is None:
            own.close()
        is_json = response.headers.get("content-type") == "application/json"
        return response.status, json.loads(text) if is_json else text.decode(), response.headers

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        if self.process.stderr:
            self.process.stderr.close()
