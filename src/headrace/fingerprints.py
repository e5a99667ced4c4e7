"""What a result depends on, written down: settings, code, inputs, versions. Two equal lists give the same key.

Code is followed as it is used. Of a workload's file only the functions that a stage calls count, with everything at
the top of the file that they mention (so that a line in `preprocess` does not train again what reads equal records);
of the core, every module that the stage's module imports.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

Ingredients = Mapping[str, Any]


def digest(value: Any) -> str:
    """The digest of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of these packages, read without importing them."""
    return {package: importlib.metadata.version(package) for package in packages}


# ----------------------------------------------------------------------------------- code of the workload


@cache
def _parsed(path: Path, _stamp: tuple[int, int]) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def _parse(path: Path) -> ast.Module:
    stat = path.stat()
    return _parsed(path, (stat.st_mtime_ns, stat.st_size))


def _defined(tree: ast.Module) -> dict[str, ast.stmt]:
    """What the top level of a module defines: name → statement."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                found[(alias.asname or alias.name).split(".")[0]] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        found[name.id] = node
    return found


def _without_docstrings(node: ast.AST) -> str:
    """A statement as text that changes with its meaning only: no comments, no positions, no docstrings."""
    copy = ast.parse(ast.unparse(node))
    for inner in ast.walk(copy):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = inner.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                inner.body = inner.body[1:] or [ast.Pass()]
    return ast.dump(copy)


def function_code(function: Callable[..., Any]) -> dict[str, str]:
    """The digests of a function and of everything at the top of its file that it mentions, directly or not.

    A module of the project that it imports counts as a whole.

    Args:
        function: A function defined at the top level of a file.

    Returns:
        "file:name" → digest.
    """
    path = Path(inspect.getsourcefile(function) or "")
    if not path.is_file():
        raise ValueError(f"{function!r} has no source file")
    defined = _defined(_parse(path))
    place = f"{path.parent.name}/{path.name}"
    if function.__name__ not in defined:
        return {place: hashlib.sha256(path.read_bytes()).hexdigest()}
    codes: dict[str, str] = {}
    waiting, seen = [function.__name__], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = defined[name]
        codes[f"{place}:{name}"] = hashlib.sha256(_without_docstrings(node).encode()).hexdigest()
        for module in _imported(node, ""):
            codes.update(_project_module(module, path))
        waiting += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in defined]
    return codes


def _project_module(module: str, beside: Path) -> dict[str, str]:
    """The digest of a module that lies in the project (in the folder of the file or its parent); else nothing."""
    for base in (beside.parent.parent, beside.parent):
        path = base.joinpath(*module.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file() and candidate != beside:
                codes = {f"{candidate.parent.name}/{candidate.name}": hashlib.sha256(candidate.read_bytes()).hexdigest()}
                return codes
    return {}


# ----------------------------------------------------------------------------------------- code of the core


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The modules that a piece of code imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or package
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def core_code(module: str) -> dict[str, str]:
    """The digests of a core module and of every core module that it imports, directly or not."""
    folder = Path(__file__).parent
    codes: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = folder.joinpath(*name.split(".")[1:]).with_suffix(".py")
        if name in codes or not path.is_file() or name in _NOT_IN_KEYS:
            continue
        codes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        waiting += [found for found in _imported(_parse(path), "headrace") if found.startswith("headrace.")]
    return codes


_NOT_IN_KEYS = {
    "headrace.errors",
    "headrace.projects",
    "headrace.stages",
    "headrace.fingerprints",
    "headrace.artifacts",
    "headrace.console",
    "headrace.spec",
    "headrace.jobs",
}
"""Modules that decide what is asked, told and kept, but never what a stage computes: the values they pass on are in
the key themselves, so that a better error message does not train every model again."""


# ------------------------------------------------------------------------------------------------- reasons


def changes(before: Ingredients, after: Ingredients) -> list[str]:
    """What differs between two lists of ingredients, in words: "`train.epochs` 5 → 8", "`preprocess` was changed"."""
    old, new = dict(_flat(before)), dict(_flat(after))
    found = []
    for path in sorted(old.keys() | new.keys(), key=lambda p: (_ORDER.get(p[0], 9), p)):
        if old.get(path) == new.get(path):
            continue
        found.append(_in_words(path, old.get(path), new.get(path)))
    return found


_ORDER = {"inputs": 0, "settings": 1, "code": 2, "core": 3, "versions": 4}


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, (*path, str(key)))
    else:
        yield path, value


def _in_words(path: tuple[str, ...], old: Any, new: Any) -> str:
    kind, *rest = path
    name = ".".join(rest)
    if kind == "inputs":
        return f"{name} changed"
    if kind == "code":
        file, _, function = name.rpartition(":")
        what = f"`{function}` in {file}" if file else name
        return f"{what} is new" if old is None else f"{what} is gone" if new is None else f"{what} was changed"
    if kind == "core":
        return f"{name} was changed"
    if kind == "versions":
        return f"{name} {old} → {new}"
    return f"`{name}` {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
