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
import re
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


def _defined(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """What the top level of a module defines: name → the statements that define or alter it."""
    found: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            for name in _names(node):
                found.setdefault(name, []).append(node)
    return found


def _names(node: ast.AST) -> Iterator[str]:
    """The names that a statement defines or alters."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
    elif isinstance(node, ast.Expr):
        # `TABLE.update(…)` alters what it is called on.
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
            yield from (name.id for name in ast.walk(node.value.func) if isinstance(name, ast.Name))
    else:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.stmt | ast.ExceptHandler):
                yield from _names(inner)


def _without_docstrings(node: ast.AST) -> str:
    """A statement as text that changes with its meaning only: no comments, no positions, no docstrings."""
    copy = ast.parse(ast.unparse(node))
    for inner in ast.walk(copy):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = inner.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                inner.body = inner.body[1:] or [ast.Pass()]
    return ast.dump(copy)


def function_code(function: Callable[..., Any]) -> dict[str, str]:
    """The digests of a function and of everything at the top of its file that it mentions, directly or not.

    A module of the project or of the core that it imports counts as a whole, with what that imports.

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
    codes: dict[str, str] = {}
    if function.__name__ not in defined:
        codes[place] = hashlib.sha256(path.read_bytes()).hexdigest()
        for module in _imported(_parse(path), ""):
            _add_module(module, path, codes)
        return codes
    waiting, seen = [function.__name__], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        text = "\n".join(_without_docstrings(node) for node in defined[name])
        codes[f"{place}:{name}"] = hashlib.sha256(text.encode()).hexdigest()
        for node in defined[name]:
            for module in _imported(node, ""):
                _add_module(module, path, codes)
            waiting += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in defined]
    return codes


def _add_module(module: str, beside: Path, codes: dict[str, str]) -> None:
    """Add a module and what it imports, if it is of the core, or lies in a folder of a file or in one of two above."""
    if module.startswith("headrace."):
        codes |= core_code(module)
        return
    for base in list(beside.parents)[:3]:
        path = base.joinpath(*module.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            name = f"{candidate.parent.name}/{candidate.name}"
            if candidate.is_file() and candidate != beside and name not in codes:
                codes[name] = hashlib.sha256(candidate.read_bytes()).hexdigest()
                for inner in _imported(_parse(candidate), ""):
                    _add_module(inner, candidate, codes)
                return


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
        waiting += _imported_by(path)
    return codes


@cache
def _imported_by(path: Path) -> list[str]:
    """The modules of the core that a core module imports."""
    # Not by its syntax tree, which takes ten times as long; what a docstring shows being imported counts, too.
    found = _IMPORT.finditer(path.read_text())
    names = [(match[1] or "headrace", re.findall(r"[\w.]+", match[2])) for match in found]
    return [
        name
        for base, parts in names
        for name in (base, *(f"{base}.{part}" for part in parts), *parts)
        if name.startswith("headrace.")
    ]


_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+)?import[ \t]+(\([^)]*\)|.*)", re.MULTILINE)


_NOT_IN_KEYS = {
    "headrace.errors",
    "headrace.projects",
    "headrace.stages",
    "headrace.fingerprints",
    "headrace.artifacts",
    "headrace.storing.depots",
    "headrace.storing.buckets",
    "headrace.console",
    "headrace.spec",
    "headrace.jobs",
    "headrace.engine.borrowing",
}
"""Modules that decide what is asked, told and kept, but never what a stage computes: the values they pass on are in
the key themselves, so that a better error message does not train every model again."""


# ------------------------------------------------------------------------------------------------- reasons


def changes(before: Ingredients, after: Ingredients) -> list[str]:
    """What differs between two lists of ingredients, in words: "`train.epochs` 5 → 8", "`preprocess` was changed"."""
    old, new = ({path: value for path, value in leaves(tree, lists=True) if value != {}} for tree in (before, after))
    found = []
    for path in sorted(old.keys() | new.keys(), key=lambda p: (_ORDER.get(p[0], 9), p)):
        if old.get(path) == new.get(path):
            continue
        found.append(_in_words(path, old.get(path), new.get(path)))
    return found


_ORDER = {"inputs": 0, "settings": 1, "code": 2, "core": 3, "versions": 4}


def leaves(value: Any, path: tuple[str, ...] = (), *, lists: bool = False) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a tree of mappings with the way to it; a list, or an empty mapping, is a value.

    With `lists`, the items of a list are values of their own.
    """
    if lists and isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, str(key)), lists=lists)
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
