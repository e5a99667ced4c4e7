"""The versions that a server holds, and how another one takes a place: loaded beside it, then put in its stead."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, nearest
from headrace.serving.batching import Batcher, Limits
from headrace.serving.bundles import Bundle, pointed
from headrace.serving.loading import Loaded, first_line
from headrace.serving.payloads import Refused

if TYPE_CHECKING:
    from headrace.spec import Feature

log = logging.getLogger(__name__)

RETRY = 30.0
"""Seconds after which a version that could not be loaded is tried again."""


@dataclass(eq=False)
class Served:
    """A version at work."""

    bundle: Bundle
    model: Loaded
    features: Mapping[str, Feature]
    """Its inputs, as declared or as the signature has them."""
    batcher: Batcher

    @property
    def optional(self) -> frozenset[str]:
        """Inputs whose numbers may be missing."""
        return frozenset(name for name, feature in self.features.items() if feature.optional)


class Shelf:
    """Which version answers, by name and number.

    Args:
        find: Name or number of a version → its bundle, checked.
        wanted: Names or numbers of the versions to hold; the first one answers where none is named.
        line: The line of the registry in which names are looked up again and again; None: nothing ever changes.
        limits: How requests are put together.
        told: Called with the number of examples of each batch.

    Raises:
        HeadraceError: One of the versions can't be found or loaded.
    """

    def __init__(
        self,
        find: Callable[[str], Bundle],
        wanted: tuple[str, ...],
        line: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        told: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._find = find
        self._line = line
        self._limits = limits
        self._told = told
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._failed: dict[str, tuple[int, float]] = {}
        """Name → the version that could not be loaded, and when."""
        self._leaving: set[asyncio.Task[None]] = set()
        self.swaps = 0
        self.failures = 0
        self._served: dict[str, Served] = {}
        for name in wanted:
            self._served[name] = self._fetched(name)

    def _fetched(self, name: str) -> Served:
        return self._loaded(self._find(name))

    def _loaded(self, bundle: Bundle) -> Served:
        """A bundle at work; the same as before, if it is there under another name."""
        known = next((one for one in self._served.values() if one.bundle.version == bundle.version), None)
        if known:
            return known
        model = Loaded(bundle.path)
        model.warm_up()
        features = model.features(bundle.features)
        return Served(bundle, model, features, Batcher(model.ask, self._thread, self._limits, self._told))

    @property
    def name(self) -> str:
        """What the model is called in addresses."""
        return self.usual.bundle.name

    @property
    def usual(self) -> Served:
        """What answers where no version is named."""
        return next(iter(self._served.values()))

    @property
    def all(self) -> dict[int, Served]:
        """The versions by number."""
        return {one.bundle.version: one for one in self._served.values()}

    @property
    def waiting(self) -> int:
        """Examples that wait for an answer."""
        return sum(one.batcher.waiting for one in self.all.values())

    def chosen(self, version: str | None = None, label: str | None = None) -> Served:
        """The version that a request asks for.

        Raises:
            Refused: It is not here (404).
        """
        if label is not None:
            if label in self._served:
                return self._served[label]
            number = pointed(self._line, label) if self._line else None
            version = None if number is None else str(number)
            if version is None:
                raise Refused(404, f"There is no label `{label}`: {nearest(label, self._served)}")
        if version is None:
            return self.usual
        found = self.all
        if not version.isdecimal() or int(version) not in found:
            raise Refused(404, f"Version {version} of {self.name} is not served: there is {_listed(found)}.")
        return found[int(version)]

    # ------------------------------------------------------------------------------------------- as time goes by

    async def watch(self, seconds: float) -> None:
        """Look where the names point, again and again, and put versions in place as they move."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except Exception:  # whatever it is, the next look may succeed
                log.exception("looking for new versions of %s failed", self.name)

    async def look(self) -> None:
        """Put every name's version in place; what can't be loaded changes nothing."""
        if self._line is None:
            return
        for name, now in list(self._served.items()):
            number = None if name.isdecimal() else pointed(self._line, name)
            if number is None or number == now.bundle.version:
                continue
            before = self._failed.get(name)
            if before and before[0] == number and time.monotonic() - before[1] < RETRY:
                continue
            try:
                loop = asyncio.get_running_loop()
                fresh = await loop.run_in_executor(self._loader, self._fetched, name)
            except Exception as error:
                self._failed[name] = (number, time.monotonic())
                self.failures += 1
                told = str(error) if isinstance(error, HeadraceError) else first_line(error)
                log.error("%s stays: version %d can't be loaded: %s", now.bundle.title, number, told)
                continue
            self._served[name] = fresh
            self.swaps += 1
            log.info("%s is served in place of version %d", fresh.bundle.title, now.bundle.version)
            if now not in self._served.values():
                # Those who came in time are still answered by it.
                task = asyncio.create_task(now.batcher.close())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Answer what is waiting, then end."""
        await asyncio.gather(*self._leaving, *(one.batcher.close() for one in self.all.values()))
        self._thread.shutdown()
        self._loader.shutdown()


def _listed(versions: Mapping[int, Served]) -> str:
    return ", ".join(map(str, sorted(versions)))
