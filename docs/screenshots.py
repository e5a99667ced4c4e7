"""The pictures of docs/operating.md: the real pages of a real server, after real runs on made-up data.

Run: python -m docs.screenshots   (needs Chromium or Chrome; HEADRACE_BROWSER names another one)
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from headrace.artifacts import write_atomically
from headrace.projects import root
from tasks import operating, server
from tests.core.browsing import Browser, found

PICTURES = Path(__file__).parent / "pictures"
RUNS = (
    ("house_prices", "--variant", "kfold_100"),
    ("house_prices", "--variant", "final"),
    ("mnist", "--variant", "convnet", "--profile", "smoke"),
)
DEPLOYED = "house_prices/nightly"
WIDTH, HEIGHT, COLOURS = 1280, 900, 64
SECONDS, STILL = 60.0, 40.0


class Pages:
    """The pages of a server in a browser."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser = browser
        self._address = address

    def keep(
        self, name: str, path: str, wanted: str, height: int = HEIGHT, click: tuple[int, int] | None = None
    ) -> None:
        """Keep a page as a picture.

        Args:
            name: Of the picture.
            path: Of the page.
            wanted: What stands on it when it is there.
            height: Of the picture.
            click: Where to click when it is drawn.
        """
        size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._browser.ask("Emulation.setDeviceMetricsOverride", **size)
        self._browser.ask("Page.bringToFront")
        self._browser.ask("Page.navigate", url=f"{self._address}{path}")
        end = time.monotonic() + SECONDS
        while wanted not in (self._browser.run("document.body ? document.body.innerText : ''") or ""):
            if time.monotonic() > end:
                raise SystemExit(f"{path} shows no {wanted!r}, but:\n{self._browser.run('document.body.innerText')}")
            time.sleep(0.5)
        # What is drawn after it is written: charts, and the graph of a run, which moves into its place.
        time.sleep(STILL)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            x, y = click or (0, 0)
            self._browser.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            time.sleep(STILL / 8)
        image = Image.open(io.BytesIO(self._browser.picture())).convert("RGB").crop((0, 0, WIDTH, height))
        file = io.BytesIO()
        image.quantize(COLOURS, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
        write_atomically(PICTURES / f"{name}.png", file.getvalue())
        print(f"{name}.png: {len(file.getvalue()) / 1000:.0f} kB")


def take(browser: Browser) -> None:
    """Fill a server, and keep its pages."""
    from prefect import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    operating.run_prefect("deploy", "--name", DEPLOYED)
    for words in RUNS:
        command = [sys.executable, "-m", "headrace", "run", *words, "--data", "synthetic", "--engine", "prefect"]
        subprocess.run(command, cwd=root(), check=False)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=20)
        run = next(run for run in runs if run.name == "house_prices · kfold_100")
        form = next(one.id for known, one in operating.deployed(client) if known.name == DEPLOYED)
        shown = {one.key: one.latest_id for one in client.read_latest_artifacts(limit=200)}
    pages = Pages(browser, server.ui(os.environ["PREFECT_API_URL"]))
    pages.keep("runs", "/v2/runs", "kfold_100")
    # The button that brings the graph to the middle.
    pages.keep("graph", f"/v2/runs/flow-run/{run.id}", "Task Runs", click=(1149, 477))
    pages.keep("curve", f"/v2/artifacts/artifact/{shown['house-prices-curve']}", "Final fit")
    pages.keep("form", f"/v2/deployments/deployment/{form}/run", "variant", height=1200)


def main() -> None:
    """Take all pictures."""
    program = found()
    if not program:
        raise SystemExit("No browser here: install Chromium, or name one by HEADRACE_BROWSER.")
    with tempfile.TemporaryDirectory() as home:
        os.environ["HEADRACE_HOME"] = home
        server.ensure()
        try:
            operating.run_prefect("work-pool", "create", server.POOL, "--type", "process")
            with Browser(program) as browser:
                take(browser)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
