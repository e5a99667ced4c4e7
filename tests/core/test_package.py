"""What is built and what is locked."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.conftest import PROJECT


def test_the_wheel_holds_the_core_only(tmp_path: Path) -> None:
    """`flows`, `tasks` and `pipelines` would claim three common names in every environment."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"headrace"}
    assert {"headrace/py.typed", "headrace/templates/report.html.j2"} <= set(names)


def test_the_lock_has_a_hash_for_everything_and_no_address() -> None:
    text = (PROJECT / "requirements.lock").read_text()
    lines = text.splitlines()
    packages = [(line, after) for line, after in itertools.pairwise(lines) if line[:1].isalnum()]

    assert "://" not in text
    assert len(packages) > 200
    for line, after in packages:
        assert "==" in line
        assert after.startswith("    --hash=sha256:")


def test_every_direct_dependency_is_locked() -> None:
    facts = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    extras = facts["project"]["optional-dependencies"].values()
    wanted = [*facts["project"]["dependencies"], *(one for extra in extras for one in extra)]
    wanted += facts["dependency-groups"]["dev"]
    locked = {line.split("==")[0] for line in (PROJECT / "requirements.lock").read_text().splitlines() if "==" in line}

    for requirement in wanted:
        name = requirement.split("[")[0].split("=")[0].split(">")[0].split("<")[0].strip()
        assert name.replace("_", "-") in locked
