"""Where weights come from that a model doesn't draw: files, ImageNet's, the registry; found, verified, told by digests.

Nothing here decides what a stage computes: what it finds stands in the stage's key by its digest.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from headrace import projects, registry
from headrace.artifacts import file_digest
from headrace.engine.backbones import file_of
from headrace.errors import ConfigError, DataError, unknown
from headrace.jobs import Job, resolve
from headrace.spec import Train


def origins(settings: Train) -> dict[str, dict[str, str]]:
    """Where the weights come from at this moment: path of a layer → the words of the spec, and a digest.

    Those of another variant are left out: they are an artifact of their own.

    Raises:
        ConfigError: There is no such backbone, file, line of the registry or version.
    """
    found = {}
    for path, source in settings.weights.items():
        kind, _, rest = source.partition(":")
        if kind == "imagenet":
            found[path] = {"from": source, "digest": _imagenet_digest(path.rpartition("/")[2])}
        elif kind == "file":
            found[path] = {"from": source, "digest": f"sha256 {file_digest(file(rest))}"}
        elif kind == "registry":
            line, version = _version(rest)
            digest = registry.show(line, version)["digest"]
            found[path] = {"from": f"registry:{line}@{version}", "digest": f"content {digest}"}
    return found


def base(job: Job) -> Job | None:
    """The job whose trained model this one begins with (`variant:NAME`), if there is one: as that variant stands.

    Overrides belong to the job that was asked for; its workload, data, seed and profile are those of both.

    Raises:
        ConfigError: There is no such variant, or it would have to begin with itself.
    """
    name = job.settings.train.base
    if name is None:
        return None
    variants = job.pipeline.variants
    seen, following = [job.variant], name
    while following:
        if following not in variants:
            raise unknown("variant", following, variants)
        if following in seen:
            raise ConfigError(f"A variant can't begin with itself: {' ← '.join([*seen, following])}")
        seen.append(following)
        following = variants[following].train.base or ""
    return resolve(
        job.workload, variant=name, profile=job.profile, data=job.data, source=job.source, seed=job.seed
    ).model_copy(update={"cell": f"from {name}"})


def file(name: str) -> Path:
    """A file of weights; a relative path is one of the project's.

    Raises:
        ConfigError: There is no such file.
    """
    path = Path(name).expanduser()
    path = path if path.is_absolute() else projects.root() / path
    if not path.is_file():
        raise ConfigError(f"train.weights: there is no file {name}.", received=str(path))
    return path


def _version(text: str) -> tuple[str, int]:
    """The line, and the number that a word stands for."""
    line, _, word = text.partition("@")
    if line not in registry.lines():
        raise unknown("line in the registry", line, registry.lines())
    if word.isdecimal():
        return line, int(registry.show(line, int(word))["version"])
    number = registry.pointed(line, word)
    if number is None:
        raise ConfigError(
            f"train.weights: no version of {line} is {word}.",
            received=f"versions {', '.join(map(str, registry.versions(line)))}",
            remedy=f"registry:{line}@NUMBER, or publish and bless one first",
        )
    return line, number


def published(origin: str) -> Path:
    """The model of a version as `origins` tells it, whose workload's file has been loaded for layers of its own.

    Raises:
        DataError: The version is damaged.
    """
    line, version = _version(origin.partition(":")[2])
    about = registry.show(line, version)
    trouble = registry.trouble(line, version, about["bundle"])
    if trouble:
        raise DataError(f"The weights of {line} can't be used: {trouble}.", remedy="take another version")
    workload = about.get("lineage", {}).get("request", {}).get("workload")
    if workload in projects.names():
        projects.load(workload)
    return registry.held(line, version) / registry.EXTRA / "model.keras"


def imagenet(name: str, *, top: bool = False) -> Path:
    """The file of a network's ImageNet weights, verified, in the cache.

    Args:
        name: One of `headrace.engine.backbones.CATALOGUE`.
        top: With the layers that tell the classes.

    Raises:
        ConfigError: There is no such network, or it has no top.
        Unavailable: The file is nowhere near, and its origin can't be reached.
        DataError: It has other bytes than those that are pinned.
    """
    from headrace.getting.fetching import fetch

    wanted, md5 = file_of(name, top=top)
    (held,) = fetch([wanted])
    if md5:
        with held.path.open("rb") as opened:
            found = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5:
            raise DataError(
                f"The weights {wanted.name} are not those of Keras.",
                expected=f"MD5 {md5}",
                received=f"MD5 {found}, from {held.place}",
                remedy=f"delete {held.path}, and what the mirror holds under this name",
            )
    return held.path


def _imagenet_digest(name: str) -> str:
    """What tells the weights of a network from others, without downloading anything."""
    from headrace.getting.fetching import bytes_in_force

    wanted, md5 = file_of(name)
    return f"md5 {md5}" if md5 else bytes_in_force(wanted)
