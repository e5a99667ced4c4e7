"""The platform on a real PostgreSQL, started for the test in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.artifacts import read_json
from tests.conftest import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def programs() -> Path | None:
    """The folder of the newest PostgreSQL that is installed: on the path, or where Debian puts it."""
    on_path = shutil.which("initdb")
    found = [Path(on_path)] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty database."""
    bin = programs()
    if not bin:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    # It refuses to run for root; Debian has an account for it. Its folder must be one that this account can reach.
    account = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    if account:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *words: str) -> None:
        command = [*account, str(bin / program), *words]
        with (folder / "told.txt").open("ab") as told:
            done = subprocess.run(command, cwd=folder, stdout=told, stderr=told, timeout=120, check=False)
        assert done.returncode == 0, (folder / "told.txt").read_text()

    (folder / "told.txt").touch()
    data, (name, password) = str(folder / "data"), ("headrace", "hush")
    (folder / "password").write_text(password)
    (folder / "password").chmod(0o644)
    try:
        secret = ["--auth", "scram-sha-256", "--pwfile", str(folder / "password")]
        run("initdb", "--pgdata", data, "--username", name, "--encoding", "UTF8", "--no-sync", *secret)
        options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='{folder}' -c fsync=off"
        run("pg_ctl", "--pgdata", data, "--wait", "--log", str(folder / "log"), "--options", options, "start")
        try:
            yield f"postgresql://{name}:{password}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "--pgdata", data, "--wait", "--mode", "fast", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def said(*words: str, code: int = 0) -> str:
    """What a command line prints; its settings are not those of the tests of flows."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    # A schedule whose time has come would take the only place of the worker.
    environment["PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED"] = "false"
    command = [sys.executable, "-m", "headrace", *words]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_platform_runs_on_postgresql_and_keeps_its_password_to_itself(database: str, headrace_home: Path) -> None:
    try:
        said("platform", "up", "--background", "--database", database)
        status = said("platform", "status")
        assert f", postgresql+asyncpg://127.0.0.1:{database.rpartition(':')[2]}" in status
        assert "PROBLEM" not in status

        url = read_json(headrace_home / "prefect" / "server.json")["url"]
        words = [sys.executable, "-m", "prefect", "deployment", "run", "house_prices/smoke", "--watch"]
        run = subprocess.run(words, env=os.environ | {"PREFECT_API_URL": url}, cwd=PROJECT, check=False)
        assert run.returncode == 0
        assert "Completed: house_prices" in said("platform", "status")

        told = [path for path in headrace_home.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]
        assert told == []
        assert not (headrace_home / "prefect" / "prefect.db").exists()
    finally:
        said("platform", "down")
