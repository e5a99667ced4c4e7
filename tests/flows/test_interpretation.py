"""The flow that looks into a model, whole, through a real temporary server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import flows
from headrace.errors import ConfigError
from tests.core.test_interpreting import published
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
    [run] = server.ask("/flow_runs/filter", sort="START_TIME_DESC", limit=1)
    return run


def test_a_model_is_looked_into_and_its_figures_stand_beside_the_run(server: Server, tmp_path: Path) -> None:
    published(tmp_path / "made")
    found = flows.fan_out("interpretation", {"model": "mnist-convnet", "images": 1, "filters": 2})
    run = newest(server)

    assert (run["name"], run["state"]["name"]) == ("mnist-convnet", "Completed")
    assert Path(found["page"]).is_file()
    assert "mnist-convnet-interpretation" in {artifact["key"] for artifact in server.artifacts(run["id"])}

    with pytest.raises(ConfigError, match="no line in the registry"):
        flows.fan_out("interpretation", {"model": "mnist-convnt"})
    assert newest(server)["state"]["type"] == "FAILED"
