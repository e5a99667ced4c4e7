"""What every stage shares: a key from its ingredients, skip or run, a lock, a scratch folder, a manifest at the end.

A stage is written as a function that fills a folder:

```python
@stage(settings=("train", "model"), functions=("model",), versions=("tensorflow", "keras"))
def train(job: Job, room: Room, records: Artifact, *, fold: int | None = None) -> None: ...
```

and called as `train(job, records, fold=2) -> Artifact`. `train.plan(job, records, fold=2)` says what a call would do
and why, without doing it; an `Artifact` that does not exist yet has an empty digest.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec

from headrace import fingerprints
from headrace.artifacts import Artifact, Place, close, home, read_json, room, system_errors, write_json
from headrace.errors import HeadraceError
from headrace.jobs import Job
from headrace.placing import isolating
from headrace.spec import Spec
from headrace.storing import depots

P = ParamSpec("P")
Call = Callable[..., Artifact]
"""A stage, or something that is called like one."""


@dataclass(frozen=True)
class Room:
    """Where a stage works."""

    output: Path
    """An empty folder; what lies in it when the stage returns becomes the artifact."""
    scratch: Path
    """Kept if the attempt is killed, for the next attempt with the same key; removed when the stage is finished."""
    key: str
    """The digest of everything that the result depends on."""
    node: str
    """The stage, with its cell and fold if it has any: `train/adam-256 · seed 1`, `train/repeat 2/fold 3`."""


class Stage(Generic[P]):
    """A stage: callable, and able to say beforehand what a call would do."""

    def __init__(
        self,
        function: Callable[Concatenate[Job, Room, P], None],
        settings: Sequence[str],
        functions: Sequence[str],
        versions: Sequence[str],
        volatile: Sequence[str],
        facts: Callable[[Job], Any] | None,
        stands: Callable[[Artifact], str | None] | None,
        tensorflow: bool,
        resumes: bool,
        material: bool,
    ) -> None:
        self._function = function
        self._signature = inspect.signature(function)
        self._settings = settings
        self._functions = functions
        self._versions = versions
        self._volatile = volatile
        self._facts = facts
        self._stands = stands
        self._tensorflow = tensorflow
        self._resumes = resumes
        self._material = material
        self.name = function.__name__
        functools.update_wrapper(self, function)

    def __call__(self, job: Job, *args: P.args, **kwargs: P.kwargs) -> Artifact:
        """Return the finished artifact: found if nothing that it depends on has changed, made otherwise.

        Raises:
            HeadraceError: The stage failed; nothing half-written is left where anything would read it.
        """
        bound = self._bind(job, args, kwargs)
        ingredients = self._ingredients(job, bound)
        place = self._place(job, ingredients)
        node = self._node(job, bound)
        found, reason = self._look(job, node, place, ingredients)
        if found:
            return found
        if self._tensorflow and isolating.method():
            return isolating.carried_out(self, job, node, args, kwargs)
        begun = time.perf_counter()
        with room(place) as (output, scratch):
            # Another process may have finished the same work while this one waited for the lock.
            found, _ = self._look(job, node, place, ingredients)
            if found:
                return found
            depot = depots.depot()
            with system_errors(f"running stage `{node}`"):
                try:
                    args, kwargs = depots.at_hand(args), depots.at_hand(kwargs)
                    with depot.carrying(place, scratch) if depot and self._resumes else contextlib.nullcontext():
                        self._function(job, Room(output, scratch, place.key, node), *args, **kwargs)
                except HeadraceError as error:
                    error.add_note(f"in stage {node} of {job.title}")
                    raise
                seconds = round(time.perf_counter() - begun, 3)
                made = {
                    "node": node,
                    "job": job.title,
                    "seconds": seconds,
                    "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "ingredients": ingredients,
                }
                manifest = close(output, made, self._volatile)
                place.publish(output)
                shutil.rmtree(scratch, ignore_errors=True)
                write_json(self._index(job, node), {"key": place.key, "ingredients": ingredients})
                if depot:
                    self._keep(depot, place, manifest)
        return Artifact(place.finished, manifest["digest"], node, "run", reason, seconds)

    def plan(self, job: Job, *args: P.args, **kwargs: P.kwargs) -> Artifact:
        """What a call would do, with the reason, in `state` and `reason` of an artifact that may not exist yet."""
        bound = self._bind(job, args, kwargs)
        node = self._node(job, bound)
        pending = [a.node for a in artifacts_of(bound) if not a.digest]
        if pending:
            more = f" and {len(pending) - 3} more" if len(pending) > 3 else ""
            after = f"after {', '.join(pending[:3])}{more}: runs if that gives anything new"
            return Artifact(Path(), "", node, "unknown", after)
        ingredients = self._ingredients(job, bound)
        place = self._place(job, ingredients)
        found, reason = self._look(job, node, place, ingredients, planned=True)
        return found or Artifact(Path(), "", node, "run", reason)

    def _bind(self, job: Job, args: Any, kwargs: Any) -> dict[str, Any]:
        bound = self._signature.bind(job, None, *args, **kwargs)
        bound.apply_defaults()
        return dict(list(bound.arguments.items())[2:])

    def _node(self, job: Job, bound: dict[str, Any]) -> str:
        steps = [self.name, *([job.label] if job.label else [])]
        steps += [f"{name} {bound[name]}" for name in ("repeat", "fold") if bound.get(name) is not None]
        return "/".join(steps)

    def _ingredients(self, job: Job, bound: dict[str, Any]) -> dict[str, Any]:
        """Everything that the result depends on."""
        settings = job.settings.model_dump(mode="json")
        chosen: dict[str, Any] = {name: settings[name] for name in self._settings}
        chosen |= {
            name: value.model_dump(mode="json") if isinstance(value, Spec) else value
            for name, value in bound.items()
            if not isinstance(value, Artifact | list | tuple | dict)
        }
        if self._facts:
            chosen |= self._facts(job)
        code: dict[str, str] = {}
        for function in self._code(job):
            code |= fingerprints.function_code(function)
        return {
            "inputs": {_unlabelled(artifact.node, job): artifact.digest for artifact in artifacts_of(bound)},
            "settings": chosen,
            "code": code,
            "core": fingerprints.core_code(self._function.__module__),
            "versions": fingerprints.versions(*self._versions),
        }

    def _code(self, job: Job) -> Iterator[Callable[..., Any]]:
        """The workload's functions that the stage calls, by itself or through a model that it loads."""
        for name in self._functions:
            if name == "custom":
                yield from job.pipeline.code_of_objects
                continue
            of_source = name in type(job.origin).model_fields
            function = getattr(job.origin, name) if of_source else job.function(name)
            if function is not None:
                yield function

    def _place(self, job: Job, ingredients: dict[str, Any]) -> Place:
        """Where the result with these ingredients belongs."""
        return Place(job.workload, self.name, fingerprints.digest(ingredients)[:20])

    def _look(
        self, job: Job, node: str, place: Place, ingredients: dict[str, Any], *, planned: bool = False
    ) -> tuple[Artifact | None, str]:
        """The finished artifact if it is there and whole; else why the stage must run."""
        manifest, trouble = place.find()
        if manifest:
            trouble = self._trouble(place.finished, manifest)
        depot = depots.depot()
        if depot and manifest and not trouble and not depot.has(place, manifest):
            if planned:
                return None, f"finished on this machine, and not yet brought to {depot.url}"
            self._keep(depot, place, manifest)
        elif depot and (trouble or not manifest):
            there = depot.manifest(place)
            if there and there["digest"] != (manifest or {}).get("digest"):
                manifest, trouble = there, self._trouble_there(depot, place, there)
                if not trouble and not planned and not self._material:
                    trouble = depot.bring(place, there)
        if manifest and not trouble:
            reason = "nothing it depends on has changed"
            return Artifact(place.finished, manifest["digest"], node, "skipped", reason, manifest["seconds"]), reason
        if trouble:
            return None, f"made before, but {trouble}"
        last = (read_json(self._index(job, node)) or {}).get("ingredients")
        if not last:
            return None, "never made for this selection"
        changed = fingerprints.changes(last, ingredients)
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        return None, "; ".join(changed[:3]) + more if changed else f"its folder {place.key} is gone"

    def _keep(self, depot: depots.Depot, place: Place, manifest: dict[str, Any]) -> None:
        """Bring what is finished here to the depot; what was kept of the attempt is of no use then."""
        depot.keep(place, manifest)
        if self._resumes:
            depot.clear(place)

    def _trouble(self, folder: Path, manifest: dict[str, Any]) -> str | None:
        """Why a finished folder no longer stands; None if it does."""
        return self._stands(Artifact(folder, manifest["digest"])) if self._stands else None

    def _trouble_there(self, depot: depots.Depot, place: Place, manifest: dict[str, Any]) -> str | None:
        """The same of one that is not on this machine."""
        if not self._stands:
            return None
        with depot.peeked(place, manifest) as folder:
            return self._trouble(folder, manifest)

    def _index(self, job: Job, node: str) -> Path:
        """Where the last ingredients of this node are kept: what a change is told against."""
        selection = fingerprints.digest([job.variant, job.profile, job.source, job.data, job.seed, node])[:16]
        return home() / "artifacts" / job.workload / "index" / f"{selection}.json"


def _unlabelled(node: str, job: Job) -> str:
    """The name of a node without the job's own label: what a cell is called changes nothing that it computes."""
    return "/".join(step for step in node.split("/") if step != job.label)


def artifacts_of(bound: dict[str, Any]) -> list[Artifact]:
    """The artifacts among a stage's arguments (by their names), those in lists and mappings included."""
    found: list[Artifact] = []
    for value in bound.values():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        found += [item for item in items if isinstance(item, Artifact)]
    return found


def stage(
    *,
    settings: Sequence[str] = (),
    functions: Sequence[str] = (),
    versions: Sequence[str] = (),
    volatile: Sequence[str] = (),
    facts: Callable[[Job], Any] | None = None,
    stands: Callable[[Artifact], str | None] | None = None,
    tensorflow: bool = False,
    resumes: bool = False,
    material: bool = False,
) -> Callable[[Callable[Concatenate[Job, Room, P], None]], Stage[P]]:
    """Make a stage of a function that fills a folder.

    Args:
        settings: The parts of the variant that the result depends on.
        functions: The functions of the workload (or of its source) that it calls.
        versions: The packages whose version matters to the result.
        volatile: Patterns of files that differ between equal runs, such as logs.
        facts: Anything else of the job that the result depends on.
        stands: A check of a finished artifact against the world outside of it; what is wrong in words, or None.
        tensorflow: Whether it loads TensorFlow (for some sources at least), and so is carried out in a process of its
            own if that is asked for (`headrace.placing.isolating`).
        resumes: Whether what it keeps in its scratch folder is worth carrying to another machine, on which the next
            attempt may be made (`headrace.storing.depots`).
        material: Whether only stages that come to run read what it makes: where it lies on another machine, it is
            fetched for them, and not for a run in which they are skipped.
    """
    return lambda function: Stage(
        function, settings, functions, versions, volatile, facts, stands, tensorflow, resumes, material
    )
