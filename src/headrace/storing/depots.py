"""A home on an object store: what must outlive this machine lies in its depot, and is brought here where it is needed.

```
HEADRACE_HOME=s3://bucket/prefix
├── artifacts/<workload>/<stage>/<key>/   <digest of a file>/<its name>, and manifest.json, written last
├── work/<workload>/<stage>/<key>/        the same of what an unfinished stage keeps for its next attempt
├── runs/<workload>/<run>/run.json        records of runs that have ended
└── registry/<line>/<version>/            published bundles (`headrace.storing.stores`)
```

This machine works in a folder of its own, `artifacts.home()`, as it does without a depot. A store knows no renames, so
that a folder is written there as objects named by their bytes, which nobody ever alters, and the manifest that makes
them one: whoever reads it finds all of an older folder or all of a newer one, also where two machines are at the same
work. They don't wait for each other, as a store knows no locks either; both come to the same, and the last one counts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from headrace.artifacts import (
    MANIFEST,
    Artifact,
    Place,
    as_json,
    content_digest,
    damage,
    file_digest,
    home,
    home_url,
    locked,
    read_json,
    system_errors,
    write_json,
)
from headrace.errors import ConfigError, SystemTrouble
from headrace.storing import buckets

VARIABLE = "HEADRACE_UPLOAD_SECONDS"
SECONDS = 30.0
"""How often what an unfinished stage keeps is uploaded, at most: what is lost with its machine."""

Manifest = dict[str, Any]
log = logging.getLogger(__name__)


def depot() -> Depot | None:
    """The depot of the home; None if the home is a folder.

    Raises:
        ConfigError: The URL is of a kind that is not known.
        SystemTrouble: The store can't be reached, or has no such bucket.
    """
    url = home_url()
    return Depot(url, buckets.reached(url)) if url else None


def at_hand(given: Any) -> Any:
    """The artifacts among a stage's arguments as this machine has them, those in lists and mappings included.

    What an artifact came from may be another machine, or a run in which nothing had to read it: it is fetched.

    Raises:
        SystemTrouble: One of them is not there any more, or damaged.
    """
    if isinstance(given, Artifact):
        where = depot() if given.digest and given.path.parts[-4:-3] == ("artifacts",) else None
        return where.given(given) if where else given
    if isinstance(given, dict):
        return {name: at_hand(item) for name, item in given.items()}
    return type(given)(map(at_hand, given)) if type(given) in (list, tuple) else given


def keep_record(path: Path) -> None:
    """Upload the record of a run that has ended; a run does not fail for it."""
    url = home_url()
    if url:
        try:
            with buckets.told(f"The record of a run can't be brought to {url}."):
                buckets.upload(path, buckets.reached(url) / path.relative_to(home()).as_posix())
        except SystemTrouble as error:
            log.warning("%s", error.problem)


@dataclass(frozen=True)
class Depot:
    """The part of a home that lies on an object store."""

    url: str
    root: Path

    # ------------------------------------------------------------------------------------ finished folders

    def manifest(self, place: Place) -> Manifest | None:
        """What the depot has of a stage with this key: its manifest, the only thing that is asked for."""
        with buckets.told(f"{self.url} can't be asked for stage `{place.stage}`."):
            found = _manifest(self._finished(place))
        sound = found and "digest" in found and content_digest(found["files"]) == found["digest"]
        return found if sound else None

    def has(self, place: Place, manifest: Manifest) -> bool:
        """Whether it has this very folder."""
        return (self.manifest(place) or {}).get("digest") == manifest["digest"]

    def keep(self, place: Place, manifest: Manifest) -> None:
        """Upload a folder that is finished here, its manifest last.

        Raises:
            SystemTrouble: The store refuses; the folder stays here.
        """
        remedy = "the same command uploads it, and goes on from there: it is finished on this machine"
        with buckets.told(f"Stage `{place.stage}` can't be brought to {self.url}.", remedy):
            target = self._finished(place)
            _put(place.finished, manifest["files"], target)
            _conclude(target, manifest)

    def bring(self, place: Place, manifest: Manifest) -> str | None:
        """Fetch a finished folder into its place, whole or not at all; what is wrong with it there, or None.

        Raises:
            SystemTrouble: The store can't be read.
        """
        drafts = home() / "fetched"
        with (
            system_errors(f"fetching stage `{place.stage}` into {home()}"),
            locked(drafts / f"{place.workload}-{place.stage}-{place.key}.lock"),
            tempfile.TemporaryDirectory(dir=drafts, ignore_cleanup_errors=True) as folder,
        ):
            present, _ = place.find()  # another process may have fetched it meanwhile
            if present and present["digest"] == manifest["digest"]:
                return None
            draft = Path(folder) / "draft"
            with buckets.told(f"Stage `{place.stage}` can't be fetched from {self.url}.", "the same command goes on"):
                _get(self._finished(place), manifest["files"], draft)
            wrong = damage(draft, manifest)
            if wrong:
                return f"{wrong} at {self._finished(place)}"
            write_json(draft / MANIFEST, manifest)
            place.publish(draft)
        return None

    @contextlib.contextmanager
    def peeked(self, place: Place, manifest: Manifest) -> Iterator[Path]:
        """A folder with the JSON files of a finished one, to be judged by; nothing stays of it."""
        files = {name: entry for name, entry in manifest["files"].items() if name.endswith(".json")}
        with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
            with buckets.told(f"Stage `{place.stage}` can't be looked at in {self.url}."):
                _get(self._finished(place), files, Path(folder))
            yield Path(folder)

    def given(self, artifact: Artifact) -> Artifact:
        """An artifact as this machine has it, fetched if need be."""
        place = Place(*artifact.path.parts[-3:])
        if (read_json(place.finished / MANIFEST) or {}).get("digest") != artifact.digest:
            manifest = self.manifest(place)
            known = manifest is not None and manifest["digest"] == artifact.digest
            wrong = self.bring(place, cast(Manifest, manifest)) if known else "there is none with this digest any more"
            if wrong:
                with buckets.told(f"{self._finished(place)} can't be removed."):
                    _remove(self._finished(place))
                raise SystemTrouble(
                    f"{artifact.node or place.stage} can't be fetched from {self.url}.",
                    expected=f"artifacts/{place.workload}/{place.stage}/{place.key} with the digest {artifact.digest}",
                    received=wrong,
                    remedy="the same command makes it anew",
                )
        return replace(artifact, path=place.finished)

    # ---------------------------------------------------------------------------------- unfinished stages

    @contextlib.contextmanager
    def carrying(self, place: Place, scratch: Path) -> Iterator[None]:
        """Keep what an attempt would leave for the next one, from time to time and beside the work.

        What another machine has left is fetched first, if it is newer than what is here.
        """
        every = _seconds()
        self._take_over(place, scratch)
        carrier = _Carrier(scratch, self._work(place))
        ended = threading.Event()

        def carry() -> None:
            while not ended.wait(every):
                carrier.carry()

        thread = threading.Thread(target=carry, name=f"uploads of {place.stage}", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            ended.set()  # not waited for: a store that does not answer is no reason to hold an error back
            raise
        ended.set()
        thread.join()

    def clear(self, place: Place) -> None:
        """Remove what was kept of a stage that is finished by now."""
        with buckets.told(f"What was kept of stage `{place.stage}` can't be removed from {self.url}."):
            _remove(self._work(place))

    def _take_over(self, place: Place, scratch: Path) -> None:
        """Fetch what another machine has kept of this stage, unless what is here is as new."""
        source = self._work(place)
        with buckets.told(f"What was kept of stage `{place.stage}` can't be fetched from {self.url}."):
            for _ in range(3):  # what is replaced while it is fetched by newer things is fetched anew
                manifest = _manifest(source)
                here = max((path.stat().st_mtime for path in _files(scratch)), default=0)
                if not manifest or manifest["saved"] <= here:
                    return
                with tempfile.TemporaryDirectory(dir=scratch.parent, ignore_cleanup_errors=True) as folder:
                    draft = Path(folder) / "scratch"
                    _get(source, manifest["files"], draft)
                    if damage(draft, manifest):
                        continue
                    for name, entry in manifest["files"].items():
                        os.utime(draft / name, (entry["saved"], entry["saved"]))
                    shutil.rmtree(scratch)
                    os.replace(draft, scratch)
                log.info("going on with what was kept of %s at %s", place.stage, source)
                return
        log.warning("what was kept of %s at %s is damaged: beginning anew", place.stage, source)

    def _finished(self, place: Place) -> Path:
        return self.root / "artifacts" / place.workload / place.stage / place.key

    def _work(self, place: Place) -> Path:
        return self.root / "work" / place.workload / place.stage / place.key


class _Carrier:
    """Uploads the files of a folder that goes on changing, as they were at one moment.

    Args:
        folder: Its files are replaced, never written over, and beginnings of files have names with a dot.
        target: Where they go.
    """

    def __init__(self, folder: Path, target: Path) -> None:
        self._folder, self._target = folder, target
        self._kept: dict[str, Any] = {}
        self._warned = False

    def carry(self) -> None:
        """Upload what is new, then the manifest, then remove what it no longer names."""
        try:
            with tempfile.TemporaryDirectory(dir=self._folder.parent, ignore_cleanup_errors=True) as folder:
                self._carry(Path(folder))
        except Exception as error:
            # A training does not end for it: the next attempt to upload may succeed, or the stage be finished.
            if not self._warned:
                log.warning("checkpoints can't be brought to %s for now: %s", self._target, error)
            self._warned = True

    def _carry(self, moment: Path) -> None:
        if not _linked(self._folder, moment):
            return  # it changed all the while; soon again
        files: dict[str, Any] = {}
        for path in _files(moment):
            name, facts = path.relative_to(moment).as_posix(), path.stat()
            known = self._kept.get(name)
            if known and (known["size"], known["saved"]) == (facts.st_size, facts.st_mtime):
                files[name] = known
            else:
                files[name] = {"size": facts.st_size, "sha256": file_digest(path), "saved": facts.st_mtime}
        if not files or files == self._kept:
            return
        _put(moment, {name: entry for name, entry in files.items() if self._kept.get(name) != entry}, self._target)
        _conclude(self._target, {"saved": max(entry["saved"] for entry in files.values()), "files": files})
        before, now = ({_object(*item) for item in entries.items()} for entries in (self._kept, files))
        self._kept, self._warned = files, False
        for gone in before - now:
            (self._target / gone).unlink(missing_ok=True)


def _linked(folder: Path, moment: Path) -> bool:
    """Have the files of a folder under other names, as they were at one moment; False if they kept changing."""

    def seen() -> dict[Path, tuple[int, int]]:
        return {path: ((facts := path.stat()).st_ino, facts.st_mtime_ns) for path in _files(folder)}

    for _ in range(10):
        shutil.rmtree(moment, ignore_errors=True)
        moment.mkdir()
        with contextlib.suppress(FileNotFoundError):  # one of them is gone since
            before = seen()
            for path in before:
                link = moment / path.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, link)
            if seen() == before:
                return True
    return False


def _files(folder: Path) -> list[Path]:
    """The files in a folder and below, without those that are just being written."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]


def _seconds() -> float:
    said = os.environ.get(VARIABLE, SECONDS)
    with contextlib.suppress(ValueError):
        if float(said) > 0:
            return float(said)
    raise ConfigError(f"{VARIABLE} can't be `{said}`.", expected="seconds, more than none")


# ----------------------------------------------------------------------------------------- folders as objects


def _object(name: str, entry: Mapping[str, Any]) -> str:
    return f"{entry['sha256'][:16]}/{name}"


def _put(folder: Path, files: Mapping[str, Any], target: Path) -> None:
    buckets.each(lambda item: buckets.upload(folder / item[0], target / _object(*item)), files.items())


def _get(source: Path, files: Mapping[str, Any], folder: Path) -> None:
    """Fetch files; one that is not there is left out."""

    def get(item: tuple[str, Mapping[str, Any]]) -> None:
        with contextlib.suppress(FileNotFoundError):
            buckets.download(source / _object(*item), folder / item[0])

    folder.mkdir(exist_ok=True)
    buckets.each(get, files.items())


def _conclude(target: Path, manifest: Manifest) -> None:
    buckets.replace(target / MANIFEST, as_json(manifest))


def _manifest(source: Path) -> Manifest | None:
    buckets.forget_listings(source)
    try:
        found = json.loads((source / MANIFEST).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None


def _remove(target: Path) -> None:
    """Take a folder away, its manifest first."""
    (target / MANIFEST).unlink(missing_ok=True)
    buckets.forget_listings(target)
    if target.is_dir():
        cast(Any, target).rmtree()
