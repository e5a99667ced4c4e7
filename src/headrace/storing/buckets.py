"""Object stores by `etils.epath`: reached or told why not, objects written and read, listings never stale.

A path of theirs has `pathlib`'s interface. `s3://` goes through s3fs, `gs://` through gcsfs where that is installed and
else through TensorFlow, and `file://` names the folder under which a bucket is mounted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, cast

from headrace.artifacts import write_atomically
from headrace.errors import ConfigError, HeadraceError, SystemTrouble

SCHEMES = ("s3", "gs", "file")
CHUNK = 2**20
AT_ONCE = 4
"""Objects that are on their way at the same time."""


def is_url(named: str) -> bool:
    """Whether this names an object store, and not a folder."""
    return "://" in named


@cache
def reached(url: str) -> Path:
    """The path of an object store that answers.

    Raises:
        ConfigError: The URL is of a kind that is not known.
        SystemTrouble: The store can't be reached, or has no such bucket.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or not rest.strip("/"):
        raise ConfigError(
            f"{url} is no object store.", expected=", ".join(f"{known}://…" for known in SCHEMES), received=url
        )
    with told(f"{url} can't be reached."):
        if _by_fsspec(scheme):
            _without_tensorflow()
        from etils import epath  # type: ignore[import-untyped]

        path = cast(Path, epath.Path(url.removeprefix("file://").rstrip("/")))
        there = path.exists() or scheme == "file" or epath.Path(f"{scheme}://{rest.partition('/')[0]}").exists()
    if not there:
        raise SystemTrouble(
            f"{url} can't be reached.",
            expected="a bucket that is there",
            received=f"no bucket `{rest.partition('/')[0]}`, or none that these credentials may list",
            remedy="make the bucket, or name another one; HEADRACE_HOME and HEADRACE_REGISTRY name them",
        )
    return path


def _by_fsspec(scheme: str) -> bool:
    return scheme == "s3" or (scheme == "gs" and importlib.util.find_spec("gcsfs") is not None)


def _without_tensorflow() -> None:
    """Let `etils.epath` go by fsspec: where TensorFlow is installed it would take that, which knows no `s3://`."""
    if os.environ.setdefault("EPATH_USE_TF", "false").lower() == "false":
        from etils.epath import gpath  # type: ignore[import-untyped]

        # The variable is read once, and something else may have asked for a path before.
        gpath._is_tf_installed.cache_clear()


@contextlib.contextmanager
def told(problem: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever the client of a store raises into a message; this machine's own troubles pass through.

    Args:
        problem: What could not be done.
        remedy: How to go on once the store answers again.
    """
    try:
        yield
    except HeadraceError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise SystemTrouble(
            problem,
            expected="an object store that this machine may read and write",
            received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            remedy="; ".join(filter(None, [_remedy(error), remedy])),
        ) from error


def _remedy(error: Exception) -> str:
    name, text = type(error).__name__, str(error)
    if isinstance(error, ImportError):
        return 'pip install "headrace[s3]" for s3://, gcsfs for gs://'
    if "Credential" in name or "Token" in name or isinstance(error, PermissionError):
        return (
            "give credentials that may read, write and list: for s3:// AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY; for gs:// GOOGLE_APPLICATION_CREDENTIALS"
        )
    if isinstance(error, FileNotFoundError) and "bucket" in text:
        return "make the bucket, or name another one"
    return "see whether the network is up, and AWS_ENDPOINT_URL right if the store is not Amazon's"


# ----------------------------------------------------------------------------------------------- objects


def upload(given: Path | bytes, target: Path) -> dict[str, Any]:
    """Write an object, and say its size and sha256 as a manifest does."""
    _make_folder(target)
    digest, size = hashlib.sha256(), 0
    with io.BytesIO(given) if isinstance(given, bytes) else given.open("rb") as source, target.open("wb") as taken:
        for chunk in iter(lambda: source.read(CHUNK), b""):
            digest.update(chunk)
            size += len(chunk)
            taken.write(chunk)
    return {"size": size, "sha256": digest.hexdigest()}


def download(source: Path, target: Path) -> None:
    """Copy an object to a file of this machine."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as given, target.open("wb") as taken:
        shutil.copyfileobj(given, taken, CHUNK)


def replace(path: Path, data: bytes) -> None:
    """Write an object so that a reader finds the old or the new content, which a store does by itself."""
    if is_mounted(path):
        write_atomically(Path(str(path)), data)
    else:
        path.write_bytes(data)


def each(do: Callable[[Any], object], items: Iterable[Any]) -> None:
    """Do something with every object, several at the same time; the first error ends it."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        doing = [threads.submit(do, item) for item in items]
        try:
            for one in doing:
                one.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def within(place: Path) -> list[Path]:
    """What lies in a folder; nothing if there is no such folder."""
    try:
        return list(place.iterdir()) if place.is_dir() else []
    except FileNotFoundError:  # gone since
        return []


def is_mounted(path: Path) -> bool:
    """Whether a path is one of this machine's file system."""
    return not is_url(str(path))


def forget_listings(path: Path) -> None:
    """Have folders listed anew: clients of object stores remember what they have seen."""
    if not is_mounted(path) and _by_fsspec(str(path).partition("://")[0]):
        from etils.epath import backend

        backend.fsspec_backend.fs(path).invalidate_cache()


def _make_folder(target: Path) -> None:
    # An object store needs none, and s3fs would make a bucket that is not there.
    if is_mounted(target):
        target.parent.mkdir(parents=True, exist_ok=True)
