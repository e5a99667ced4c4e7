"""What can be imported is what is said to be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import headrace

CORE = Path(headrace.__file__).parent
OF_KERAS = ("augmenting", "layers", "tensors")
"""Modules of classes that stem from those of Keras and TensorFlow: they are imported inside functions."""
MODULES = sorted(
    ".".join(path.relative_to(CORE).with_suffix("").parts)
    for path in CORE.rglob("*.py")
    if path.stem not in ("__init__", "__main__") and path.stem not in OF_KERAS
)
HEAVY = {"tensorflow", "keras", "prefect", "matplotlib", "tfx_bsl", "tensorflow_datasets"}


def test_all_names_exactly_what_is_imported() -> None:
    public = {name for name in vars(headrace) if not name.startswith("_")}
    public -= {module.partition(".")[0] for module in (*MODULES, *OF_KERAS)}

    assert public | {"__version__"} == set(headrace.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_heavy_package_when_it_is_imported(module: str) -> None:
    """Read from the source: an import inside a function, or for type checkers only, is fine."""
    tree = ast.parse(CORE.joinpath(*module.split(".")).with_suffix(".py").read_text())
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])

    assert not found & HEAVY


def test_the_whole_core_is_imported_without_tensorflow_and_prefect() -> None:
    code = f"""
import importlib, sys
for name in {MODULES!r}:
    importlib.import_module("headrace." + name)
print(sorted({HEAVY!r} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
