"""The flow of batch scoring, whole, through a real temporary server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flows
from headrace.errors import DataError
from tests.core.serving_models import publish_prices
from tests.harness import Server

pytestmark = [
    pytest.mark.harness,
    # Not ours: what TensorFlow warns of while it is imported and used in this process.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def server(prefect_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The temporary server, as if the user had named it."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    return prefect_server


def newest(server: Server) -> dict[str, Any]:
    """The newest run of a flow."""
    (run,) = server.ask("/flow_runs/filter", sort="START_TIME_DESC", limit=1)
    return run


def test_a_file_is_scored_and_rows_that_cant_be_used_make_the_run_fail_with_the_others_answered(
    server: Server, tmp_path: Path
) -> None:
    _, model = publish_prices(tmp_path, 1)
    given = np.ones((3, 13), np.float32)
    lines = [json.dumps({"features": row.tolist()}) for row in given]
    (tmp_path / "new.jsonl").write_text("\n".join(lines))
    asked = {"workload": "house_prices", "input": str(tmp_path / "new.jsonl"), "output": str(tmp_path / "out.jsonl")}
    found = flows.fan_out("predict", asked)
    run = newest(server)

    assert (run["name"], run["state"]["name"]) == ("house_prices · blessed · new.jsonl", "Completed")
    assert (found["answered"], found["quarantined"]) == (3, 0)
    answers = [json.loads(line)["price"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(answers, model(given).numpy()[:, 0], rtol=1e-5)
    assert [artifact["key"] for artifact in server.artifacts(run["id"])] == ["house-prices-predictions"]

    (tmp_path / "new.jsonl").write_text("\n".join([*lines, "nonsense"]))
    with pytest.raises(DataError, match="1 rows of"):
        flows.fan_out("predict", asked)
    assert newest(server)["state"]["name"] == "Quarantined"
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
