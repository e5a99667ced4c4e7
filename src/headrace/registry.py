"""The registry: numbered versions of exported bundles, in the layout that TensorFlow Serving reads.

```
$HEADRACE_HOME/registry/               or what HEADRACE_REGISTRY names, an object store among others
├── models.config                      what a model server is to serve: the blessed version of each line
└── <line>/
    ├── 1/, 2/ …                       saved_model.pb, variables/, assets.extra/ (other formats, card …), manifest.json
    └── pointers.json                  {"blessed": 2, "previous": 1, "aliases": {"canary": 3}, "moves": […]}
```

Whenever a publisher is killed, the line holds whole versions only, and pointers that stand at the old or the new one
(see `headrace.storing.stores`). `docs/registry.md` says how it is used, and what an object store can't promise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.artifacts import as_json, read_json, system_errors
from headrace.errors import ConfigError, nearest, unknown
from headrace.storing.stores import Contents, Store, store

POINTERS = "pointers.json"
CONFIG = "models.config"
EXTRA = "assets.extra"
"""The folder of a SavedModel that TensorFlow leaves to others."""

MOVES = 100
"""How many of the last moves of its pointers a line remembers."""

_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,59}")
_OWN = ("blessed", "previous")


# ------------------------------------------------------------------------------------------------- looking


def folder(line: str, version: int | None = None) -> Path:
    """The folder of a line, or of one of its versions; on an object store a path of `etils.epath`."""
    return store().folder(line, version)


def held(line: str, version: int) -> Path:
    """A folder of this machine with the files of a version: the version itself, or a copy of it in the cache.

    Raises:
        SystemTrouble: It is on an object store, and what came from there is not what was published.
    """
    return store().held(line, version)


def lines() -> list[str]:
    """The lines that have versions, sorted."""
    return store().lines()


def versions(line: str) -> list[int]:
    """The versions of a line, ascending; empty if there is no such line."""
    return store().versions(line)


def blessed(line: str) -> int | None:
    """The version that is to be served, if there is one."""
    return pointed(line, "blessed")


def pointed(line: str, pointer: str) -> int | None:
    """The version that a pointer stands at, if it does at any: `blessed`, `previous`, or an alias."""
    found = _pointers(line)
    number: int | None = found[pointer] if pointer in _OWN else found["aliases"].get(pointer)
    return number


def aliases(line: str) -> dict[str, int]:
    """The aliases of a line, sorted, and the versions that they stand at."""
    return dict(sorted(_pointers(line)["aliases"].items()))


def moves(line: str) -> list[dict[str, Any]]:
    """The last moves of the pointers of a line, oldest first: at, what, version, before, and what else was said."""
    return list(_pointers(line)["moves"])


def number(line: str, word: str | int | None = None) -> int:
    """The version that a word stands for.

    Args:
        line: Name of the line.
        word: A number, `blessed`, `previous` or an alias; default: the blessed version, or else the newest.

    Raises:
        ConfigError: There is no such line, or no such version.
    """
    _line_must_exist(line)
    if word is None:
        return blessed(line) or versions(line)[-1]
    if not str(word).isdecimal():
        found = pointed(line, str(word))
        if found is None:
            known = [*(name for name in _OWN if pointed(line, name)), *aliases(line), *map(str, versions(line))]
            raise ConfigError(f"{line} has no version `{word}`: {nearest(str(word), known)}")
        word = found
    _must_exist(line, int(word))
    return int(word)


def find(line: str, bundle: str) -> int | None:
    """The newest whole version that was made of this bundle."""
    on = store()
    for version in reversed(on.versions(line)):
        if on.manifest(line, version).get("bundle") == bundle and not on.trouble(line, version):
            return version
    return None


def show(line: str, version: int | None = None) -> dict[str, Any]:
    """What is known of a version.

    Args:
        line: Name of the line.
        version: Its number; default: the blessed one, or else the newest.

    Returns:
        line, version, path, blessed and previous (bool), aliases, made, bundle, digest, files, and the contents of the
        other JSON files in `assets.extra` by their names: evaluation, lineage, parity, statistics, verdict.

    Raises:
        ConfigError: There is no such line or version.
    """
    version = number(line, version)
    on, pointers = store(), _pointers(line)
    path = on.folder(line, version)
    manifest = on.manifest(line, version)
    extra = [Path(name) for name in manifest.get("files", {}) if re.fullmatch(rf"{EXTRA}/[^/]+\.json", name)]
    return {
        **{name.stem: read_json(path / name) for name in sorted(extra)},
        "line": line,
        "version": version,
        "path": str(path),
        **{name: pointers[name] == version for name in _OWN},
        "aliases": sorted(name for name, number in pointers["aliases"].items() if number == version),
        # What the version says of itself counts: `bundle` is a digest, not the file of this name.
        **manifest,
    }


def verify(line: str) -> dict[int, str]:
    """What is wrong with the versions of a line: missing or altered files, and pointers to versions that are gone."""
    on = store()
    found = {version: on.trouble(line, version) for version in sorted({*on.versions(line), *_kept(line)})}
    return {version: trouble for version, trouble in found.items() if trouble}


def trouble(line: str, version: int, bundle: str) -> str | None:
    """Why a version is no longer what was published from this bundle; None if it is."""
    on = store()
    if version not in on.versions(line):
        return f"version {version} is no longer in the registry"
    if on.manifest(line, version).get("bundle") != bundle:
        return f"version {version} in the registry is another bundle by now"
    damaged = on.trouble(line, version)
    return damaged and f"version {version} in the registry is damaged: {damaged}"


# ---------------------------------------------------------------------------------------------- publishing


def publish(line: str, contents: Contents, *, bundle: str, facts: Mapping[str, Any] | None = None) -> int:
    """Add a version, whole or not at all.

    Args:
        line: Name of the line; it is begun if there is none.
        contents: Name in the version ("variables", "assets.extra/model.keras") → a file, a folder, or the bytes.
        bundle: Digest of the bundle. One bundle makes one version: if the line has it already, that is the answer.
        facts: What the version's manifest shall say beside that: waivers.

    Returns:
        The number of the version.

    Raises:
        SystemTrouble: The disk is full, or the registry can't be written.
    """
    on = store()
    with system_errors(f"publishing to {on.folder(line)}"), on.alone(line):
        return _added(on, line, contents, bundle, facts or {})


def replace(
    line: str,
    contents: Contents,
    *,
    bundle: str,
    against: int | None,
    facts: Mapping[str, Any] | None = None,
) -> int | None:
    """Publish and bless in one step, if the version that the new one was compared with is still the blessed one.

    So that of two models which are published at the same time the second is compared with the first.

    Args:
        line: Name of the line.
        contents: As for `publish`.
        bundle: As for `publish`.
        against: The version that was blessed when they were compared; None if none was.
        facts: As for `publish`; the move of the pointer says it, too.

    Returns:
        The number of the version; None if another one is blessed by now, and nothing was done.

    Raises:
        SystemTrouble: The disk is full, or the registry can't be written.
    """
    on = store()
    with system_errors(f"publishing to {on.folder(line)}"), on.alone(line):
        if _pointers(line)["blessed"] != against:
            return None
        version = _added(on, line, contents, bundle, facts or {})
        if version != against:
            _move(on, line, "blessed", facts, blessed=version, previous=against)
    return version


def _added(on: Store, line: str, contents: Contents, bundle: str, facts: Mapping[str, Any]) -> int:
    known = find(line, bundle)
    if known is not None:
        return known
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # A number that pointers still mention is not given to something else, even if its folder was deleted.
    least = max([0, *_kept(line)]) + 1
    return on.add(line, contents, {"line": line, "bundle": bundle, "made": made, **facts}, least)


# ------------------------------------------------------------------------------------------------ pointers


def bless(line: str, version: int) -> None:
    """Make a version the one to be served; the one before stays ready for a rollback.

    Raises:
        ConfigError: There is no such version, or it is damaged.
    """
    _line_must_exist(line)
    on = store()
    with system_errors(f"blessing a version of {line}"), on.alone(line):
        _must_be_whole(on, line, version, f"{line} version {version} can't be blessed")
        before = _pointers(line)["blessed"]
        if before != version:
            _move(on, line, "blessed", blessed=version, previous=before)


def rollback(line: str) -> tuple[int, int]:
    """Serve the previous version again; a second rollback takes the first one back.

    Returns:
        The version blessed until now, and the one blessed from now on.

    Raises:
        ConfigError: There is no such line, no previous version, or its folder is gone or damaged.
    """
    _line_must_exist(line)
    on = store()
    with system_errors(f"rolling {line} back"), on.alone(line):
        pointers = _pointers(line)
        now, previous = pointers["blessed"], pointers["previous"]
        if now is None or previous is None:
            raise ConfigError(
                f"{line} can't be rolled back: no version was blessed before the present one.",
                received=f"blessed: {now or 'none'}, previous: none; versions: {versions(line)}",
            )
        _must_be_whole(on, line, previous, f"{line} can't be rolled back to version {previous}")
        _move(on, line, "rolled back", blessed=previous, previous=now)
    return now, previous


def alias(line: str, name: str, version: int | None) -> int | None:
    """Let a name of your own (`canary`) stand at a version.

    Args:
        line: Name of the line.
        name: Lower case; letters, digits, `_` and `-`.
        version: The version; None takes the alias away.

    Returns:
        The version that it stood at until now, if it did at any.

    Raises:
        ConfigError: The name can't be one, there is no such version (or alias to take away), or it is damaged.
    """
    _line_must_exist(line)
    if not _ALIAS.fullmatch(name) or name in _OWN:
        raise ConfigError(
            f"`{name}` can't be an alias.",
            expected="a lower-case name of letters, digits, _ and -, other than blessed and previous",
            remedy=f"headrace registry bless {line} VERSION, or rollback, move those" if name in _OWN else None,
        )
    on = store()
    with system_errors(f"naming a version of {line}"), on.alone(line):
        named = _pointers(line)["aliases"]
        before: int | None = named.get(name)
        if version is None:
            if before is None:
                raise unknown(f"alias of {line}", name, named)
            named = {key: value for key, value in named.items() if key != name}
        else:
            _must_be_whole(on, line, version, f"{name} can't stand at version {version} of {line}")
            named = {**named, name: version}
        if version != before:
            what = f"{name} {'taken away' if version is None else 'named'}"
            _move(on, line, what, aliases=named, said={"version": version, "before": before})
    return before


def prune(line: str, keep: int, *, dry: bool = False) -> list[int]:
    """Remove all but the newest versions of a line. Those that a pointer stands at stay in any case.

    On an object store, uploads that were killed more than a day ago go, too.

    Args:
        line: Name of the line.
        keep: How many of the newest to keep, 1 at least: the newest number is never given away again.
        dry: Only say what would go.

    Returns:
        The versions that are gone, or would be.

    Raises:
        ConfigError: There is no such line, or nothing would be kept.
    """
    if keep < 1:
        raise ConfigError(f"All versions of {line} but {keep} can't be removed.", expected="to keep 1 at least")
    _line_must_exist(line)
    on = store()
    with system_errors(f"pruning {line}"), on.alone(line):
        gone = [version for version in on.versions(line)[:-keep] if version not in _kept(line)]
        if not dry:
            # A model server may still be told to serve one of them, if whoever moved the pointers was killed.
            write_config()
            for version in gone:
                on.remove(line, version)
            for left in on.unfinished(line):
                _discard(left)
    return gone


def _discard(path: Any) -> None:
    path.rmtree() if path.is_dir() else path.unlink()


def _pointers(line: str) -> dict[str, Any]:
    """Where the pointers stand; those who wrote them before there were aliases knew two of them."""
    found = read_json(store().folder(line) / POINTERS) or {}
    return {
        "blessed": found.get("blessed"),
        "previous": found.get("previous"),
        "aliases": found.get("aliases", {}),
        "moves": found.get("moves", []),
    }


def _kept(line: str) -> set[int]:
    """The versions that a pointer stands at."""
    pointers = _pointers(line)
    named = (pointers["blessed"], pointers["previous"], *pointers["aliases"].values())
    return {number for number in named if number is not None}


def _move(
    on: Store,
    line: str,
    what: str,
    facts: Mapping[str, Any] | None = None,
    *,
    said: Mapping[str, Any] | None = None,
    **changed: Any,
) -> None:
    """Set pointers in one step, remember that, and tell the model server."""
    before = _pointers(line)
    said = said or {"version": changed["blessed"], "before": before["blessed"]}
    entry = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "what": what, **said, **(facts or {})}
    pointers = {**before, **changed, "moves": [*before["moves"], entry][-MOVES:]}
    on.write(on.folder(line) / POINTERS, as_json(pointers))
    write_config()


# -------------------------------------------------------------------------------------------- model server


def write_config() -> Path:
    """Write `models.config` anew, as the pointers of all lines stand; where it is."""
    on = store()
    # A server's file of all lines: whoever comes last has read what all others have moved before.
    with on.alone():
        on.write(on.root / CONFIG, config().encode())
    return on.root / CONFIG


def config(base: str | None = None) -> str:
    """What `tensorflow_model_server --model_config_file` reads: every line that has a blessed version.

    The model `<line>` is the blessed version alone: a request that names no version would get the largest number
    among several. What has a name is to be had as `<line>.named`, by the label of its pointer.

    Args:
        base: Where the server finds the registry, if it is not this path (a mounted volume).
    """
    root = base or str(store().root)
    entries = []
    for line in lines():
        pointers = _pointers(line)
        if pointers["blessed"] is None:
            continue
        path = f"{root.rstrip('/')}/{line}"
        entries.append(_entry(line, path, {"blessed": pointers["blessed"]}))
        if pointers["aliases"]:
            named = {name: pointers[name] for name in _OWN if pointers[name] is not None} | pointers["aliases"]
            entries.append(_entry(f"{line}.named", path, named))
    return "\n".join(["model_config_list {", *entries, "}", ""])


def _entry(name: str, path: str, labels: Mapping[str, int]) -> str:
    chosen = [f"      versions: {version}" for version in sorted(set(labels.values()))]
    named = [f"    version_labels {{ key: {_quoted(key)} value: {value} }}" for key, value in sorted(labels.items())]
    return "\n".join(
        [
            "  config {",
            f"    name: {_quoted(name)}",
            f"    base_path: {_quoted(path)}",
            '    model_platform: "tensorflow"',
            "    model_version_policy { specific {",
            *chosen,
            "    } }",
            *named,
            "  }",
        ]
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


# ------------------------------------------------------------------------------------------------- details


def _line_must_exist(line: str) -> None:
    if not versions(line):
        raise unknown("line in the registry", line, lines())


def _must_exist(line: str, version: int) -> None:
    if version not in versions(line):
        raise ConfigError(f"{line} has no version {version}: {nearest(str(version), map(str, versions(line)))}")


def _must_be_whole(on: Store, line: str, version: int, problem: str) -> None:
    # A pointer may stand at a version whose folder is gone; a number that was never given is a slip of the pen.
    if version not in _kept(line):
        _must_exist(line, version)
    wrong = on.trouble(line, version)
    if wrong:
        others = ", ".join(str(other) for other in versions(line) if other != version)
        raise ConfigError(f"{problem}: {wrong}.", remedy=f"take another version: {others or 'there is none'}")
