"""`headrace serve` on loopback against calling the SavedModel in the same process, and 32 clients at once.

The model is a convnet of MNIST's shape (28 × 28 pixels, 3 convolutions, 10 classes) with drawn weights; beside it a
dense network of 13 inputs, whose own time is so short that it shows what HTTP and JSON cost. Both sides are asked in
turn within one run, one example at a time, the client over one connection that stays open. With 32 clients every answer
is held against the one that the model itself gives.

Run: python -m benchmarks.serving [--calls 300 --repeats 5 --clients 32]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep

TARGET = 2.0
"""Times the model's own, which an answer of one example over HTTP may take."""
ADDRESS = "/v1/models/house_prices:predict"


def models() -> dict[str, tuple[Any, Any]]:
    """Name → Keras model and one example."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    given = keras.Input((28, 28, 1), name="image", dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(given)
    for filters in (32, 64, 128):
        x = keras.layers.Conv2D(filters, 3, activation="relu")(x)
        x = keras.layers.MaxPooling2D(2)(x) if filters < 128 else keras.layers.Flatten()(x)
    convnet = keras.Model(given, keras.layers.Dense(10, activation="softmax", name="digit")(x))
    given = keras.Input((13,), name="features")
    x = given
    for _ in range(2):
        x = keras.layers.Dense(64, activation="relu")(x)
    dense = keras.Model(given, keras.layers.Dense(1, name="price")(x))
    random = np.random.default_rng(0)
    return {
        "convnet": (convnet, random.integers(0, 256, (1, 28, 28, 1), np.uint8)),
        "dense": (dense, random.random((1, 13), np.float32)),
    }


def save(model: Any, folder: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    given, output = model.inputs[0], model.output_names[0]
    spec = {given.name: tf.TensorSpec(given.shape, given.dtype, name=given.name)}
    module.serve = tf.function(
        lambda batch: {output: model(batch[given.name])}, input_signature=[spec], autograph=False
    ).get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """`headrace serve` as a process of its own; the port."""
    command = [sys.executable, "-m", "headrace", "serve", "house_prices", "--bundle", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr  # noqa: S101
        line = next(line for line in process.stderr if line.startswith("serving"))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield int(re.findall(r":(\d+)/", line)[0])
    finally:
        process.terminate()
        process.wait(30)


def timed(call: Callable[[], Any], calls: int) -> list[float]:
    found = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        found.append((time.perf_counter() - begun) * 1000)
    return found


def client(port: int, body: bytes) -> Callable[[], bytes]:
    """Asks once each time it is called, over a connection that stays open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask() -> bytes:
        connection.request("POST", ADDRESS, body)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {answer.decode()}")
        return answer

    return ask


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p50": round(statistics.median(ordered), 3), "p95": round(ordered[int(len(ordered) * 0.95)], 3)}


def measure(name: str, model: Any, example: Any, calls: int, repeats: int, clients: int) -> dict[str, Any]:
    import numpy as np
    import tensorflow as tf

    given, output = model.inputs[0].name, model.output_names[0]
    with tempfile.TemporaryDirectory() as place:
        os.environ["HEADRACE_HOME"] = str(Path(place) / "home")
        folder = Path(place) / "model"
        save(model, folder)
        loaded = tf.saved_model.load(str(folder))
        serve = loaded.signatures["serving_default"]

        def direct() -> Any:
            return serve(**{given: tf.constant(example)})[output].numpy()

        body = json.dumps({"instances": example.tolist()}).encode()
        expected = direct()
        with server(folder) as port:
            ask = client(port, body)
            answer = np.array(json.loads(ask())["predictions"])
            np.testing.assert_allclose(answer, expected, rtol=1e-6)
            for call in (direct, ask):
                timed(call, 50)
            times: dict[str, list[float]] = {"direct": [], "http": []}
            ratios = []
            for _ in range(repeats):
                one, other = timed(direct, calls), timed(ask, calls)
                times["direct"] += one
                times["http"] += other
                ratios.append(statistics.median(other) / statistics.median(one))
            result: dict[str, Any] = {
                "milliseconds": {side: spread(values) for side, values in times.items()},
                "http as a multiple of direct": {
                    "median": round(statistics.median(ratios), 2),
                    "all": [round(ratio, 2) for ratio in ratios],
                    "target": TARGET if name == "convnet" else None,
                },
                "clients": crowd(port, body, expected, calls, clients),
            }
            alone = 1000 / statistics.median(times["http"])
            result["clients"]["as a multiple of one client"] = round(
                result["clients"]["requests per second"] / alone, 2
            )
    print(name, json.dumps(result), flush=True)
    return result


def crowd(port: int, body: bytes, expected: Any, calls: int, clients: int) -> dict[str, Any]:
    """Many clients at once, each over a connection of its own."""
    import numpy as np

    right = [0] * clients
    begin = threading.Barrier(clients + 1)

    def go(number: int) -> None:
        ask = client(port, body)
        begin.wait()
        for _ in range(calls // 4):
            answer = np.array(json.loads(ask())["predictions"])
            right[number] += int(np.allclose(answer, expected, rtol=1e-4, atol=1e-6))

    threads = [threading.Thread(target=go, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    begin.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    asked = clients * (calls // 4)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    figures = dict(re.findall(r"^(headrace_batch\w+) (\d+)$", connection.getresponse().read().decode(), re.MULTILINE))
    return {
        "clients": clients,
        "asked": asked,
        "answered rightly": sum(right),
        "lost or wrong": asked - sum(right),
        "requests per second": round(asked / seconds),
        "examples in a batch, over all": round(
            int(figures["headrace_batched_examples_total"]) / int(figures["headrace_batches_total"]), 1
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "what": "one example over HTTP against the SavedModel in the same process; many clients at once",
        **{
            name: measure(name, model, example, options.calls, options.repeats, options.clients)
            for name, (model, example) in models().items()
        },
    }
    keep("serving", result, "tensorflow", "starlette", "uvicorn")


if __name__ == "__main__":
    main()
