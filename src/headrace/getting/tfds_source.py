"""Data sets of TensorFlow Datasets: prepared by TFDS itself, from files that `fetching` brings.

TFDS decides what it needs and what its records hold; downloads go through cache, hand, mirror and origin like all
others, so that what can't be had is told at once (TFDS alone tries for minutes), and never in its Parquet format, which
loses examples.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.artifacts import home
from headrace.errors import ConfigError, DataError, HeadraceError, Unavailable, nearest
from headrace.getting.fetching import Held, copy_file
from headrace.spec import File

Bring = Callable[[Sequence[File]], list[Held]]


def prepare(name: str, folder: Path, scratch: Path, bring: Bring) -> str:
    """Let TFDS make a data set's records.

    Args:
        name: A builder as TFDS names it: `mnist`, `mnist:3.0.1`, `glue/sst2`.
        folder: Where the records go, as `<name>/<config>/<version>`; stays empty if that fails.
        scratch: Where archives are unpacked.
        bring: Brings the files that the builder asks for.

    Returns:
        Name, configuration and version of what was prepared.

    Raises:
        ConfigError: There is no such builder, configuration or version.
        DataError: TFDS can't make anything of the files.
        Unavailable: Files can't be had, or only by hand.
    """
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = _builder(name, folder)
    manual = _manual_folder(builder.name)
    make = builder._make_download_manager

    def manager(**options: Any) -> Any:
        return _brought_by(bring, make(**options), builder.url_infos or {})

    builder._make_download_manager = manager
    config = tfds.download.DownloadConfig(extract_dir=scratch / "unpacked", manual_dir=manual, try_download_gcs=False)
    try:
        # It says on standard output what it is about to do, where only results belong.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_dir=scratch / "downloads", download_config=config, file_format=tfds.core.FileFormat.TFRECORD
            )
    except Exception as error:
        for left in folder.iterdir():
            shutil.rmtree(left)
        raise _in_our_words(error, builder, manual) from error
    return str(builder.info.full_name)


def _builder(name: str, folder: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=folder)
    except tfds.core.registered.DatasetNotFoundError as error:
        wanted = re.split("[:/]", name)[0]
        # The community's names lie on an object store, whose client may not be there.
        known = tfds.list_builders(with_community_datasets=False)
        raise ConfigError(
            f"TensorFlow Datasets has no builder `{name}`: {_near(wanted, known)}",
            expected="a name as in `mnist`, `mnist:3.0.1` or `glue/sst2`",
        ) from error
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"TensorFlow Datasets can't give `{name}`.", received=_first_line(error)) from error
    except ImportError as error:
        raise ConfigError(
            f"The builder `{name}` needs a package that is not installed.", received=_first_line(error)
        ) from error


def _near(name: str, names: Sequence[str]) -> str:
    """The nearest names, but not all of the hundreds there are."""
    said = nearest(name, names)
    return said if said.startswith("did") else "`tfds.list_builders()` lists them"


def _manual_folder(name: str) -> Path:
    """Where a person has put what TFDS can't download."""
    by_hand = home() / "manual" / name
    mirror = Path(os.environ.get("HEADRACE_MIRROR") or os.devnull, name)
    return mirror if mirror.is_dir() and not by_hand.is_dir() else by_hand


def _brought_by(bring: Bring, manager: Any, known: Mapping[str, Any]) -> Any:
    """Let a download manager of TFDS get its files from us."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    Resource = tfds.download.Resource  # noqa: N806 (a class)

    def download(wanted: Any) -> Any:
        urls = [item.url if isinstance(item, Resource) else item for item in tf.nest.flatten(wanted)]
        files = {url: _file(url, known.get(url)) for url in urls}
        held = dict(zip(files, bring(list(files.values())), strict=True))
        return tf.nest.pack_sequence_as(wanted, [_linked(held[url], Path(manager.download_dir)) for url in urls])

    def download_and_extract(wanted: Any) -> Any:
        methods = [item._extract_method if isinstance(item, Resource) else None for item in tf.nest.flatten(wanted)]
        paths = tf.nest.flatten(download(wanted))
        packed = [Resource(path=path, extract_method=method) for path, method in zip(paths, methods, strict=True)]
        return manager.extract(tf.nest.pack_sequence_as(wanted, packed))

    manager.download = download
    manager.download_and_extract = download_and_extract
    return manager


def _file(url: str, known: Any) -> File:
    """A download of TFDS as a file of ours; `known` is what TFDS has registered of it."""
    name = getattr(known, "filename", None)
    on_drive = re.match(r"https://drive\.google\.com/\w+\?(?:.*&)?id=([\w-]+)", url)
    if on_drive:
        url = f"gdrive://{on_drive[1]}/{name or on_drive[1]}"
    elif name and File(url=url).name != name:
        url = f"{url}#{name}"
    return File(url=url, sha256=getattr(known, "checksum", None), size=int(known.size) or None if known else None)


def _linked(held: Held, folder: Path) -> Any:
    """A file of the cache under a name that no other one has: TFDS unpacks it into a folder of that name."""
    import tensorflow_datasets as tfds

    path = folder / f"{held.path.parent.name[:16]}.{held.path.name}"
    if not path.exists():
        copy_file(held.path, path, link=True)
    return tfds.core.Path(path)


def _in_our_words(error: BaseException, builder: Any, manual: Path) -> Exception:
    """What went wrong while TFDS was preparing: an error of ours that it has wrapped, or one about its own."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, HeadraceError):
            return cause
        cause = cause.__cause__ or cause.__context__
    instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if isinstance(error, AssertionError) and "manual dir" in str(error).lower():
        return Unavailable(
            f"TensorFlow Datasets can't download what `{builder.name}` needs; a person must.",
            expected=" ".join(str(instructions).split()),
            remedy=f"put it into {manual}, or into a folder {builder.name} of the mirror; or use made-up data: --data "
            "synthetic",
        )
    if isinstance(error, ImportError):
        return ConfigError(f"The builder `{builder.name}` needs a package.", received=_first_line(error))
    return DataError(
        f"TensorFlow Datasets can't prepare `{builder.info.full_name}`.",
        received=f"{type(error).__name__}: {_first_line(error)}",
        remedy="see whether the files in the mirror are the original ones",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
