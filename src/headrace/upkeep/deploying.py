"""What Prefect needs of each workload, written from its file: the flow with its form, and the deployments.

Prefect finds a flow by its text and makes the form from its signature, so a flow is literal and names every variant;
written by hand it would say again what the workload's file says. `headrace sync` writes it, a test holds it equal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from headrace import projects, watching
from headrace.errors import ConfigError
from headrace.showing.pages import plain
from headrace.spec import Pipeline

BEGIN = "  # Written by `headrace sync` from the files in pipelines/, down to the next such line.\n"
END = "  # Here ends what `headrace sync` writes.\n"

FIRST, APART = 60, 20
"""Minutes after midnight of the first scheduled run, and between the starts of two workloads."""

WIDTH = 120
"""Of a line of code in this project."""

POOL = "  pool: &pool\n    name: headrace\n"
"""Where `prefect.yaml` says in which work pool all deployments are."""
KUBERNETES = Path("deploy", "kubernetes", "prefect.yaml")
KUBERNETES_POOL = "  pool: &pool\n    name: headrace-kubernetes\n"
KUBERNETES_HEAD = """\
# Written by `headrace sync` from prefect.yaml: the same deployments, carried out in Kubernetes (docs/kubernetes.md).
#   prefect deploy --all --prefect-file deploy/kubernetes/prefect.yaml
name: headrace

# Where the project lies in the image.
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: /srv/headrace

definitions:
"""


def flow_of(pipeline: Pipeline) -> str:
    """The file `flows/NAME.py` of a workload."""
    name, variants = pipeline.name, [_quoted(variant) for variant in pipeline.variants]
    sources = [f"`{source}`" for source in pipeline.sources]
    named = " or ".join([", ".join(sources[:-1]), sources[-1]] if sources[1:] else sources)
    source = f"{named}, or the path of data of one's own; default: that of the variant."
    arguments = ("variant", "profile", "data", "source", "seed", "overrides")
    call = [f'"{name}"', *(f"{argument}={argument}" for argument in arguments)]
    return plain(
        "flow.py.j2",
        name=name,
        title=pipeline.title,
        file=projects.file(name),
        deployment=pipeline.deploy.retrain or "smoke",
        variants=_written("variant: Literal[", variants, "]", f" = {_quoted(pipeline.default_variant)},"),
        source="\n            ".join(textwrap.wrap(f"source: {source}", WIDTH - 12)),
        call=_written("job = resolve(", call, ")", ""),
    )


def deployments_of(pipelines: Sequence[Pipeline]) -> str:
    """The deployments of all workloads, as entries of the list in `prefect.yaml`.

    Every workload has a place in the night, so that no two scheduled runs begin at the same time.
    """
    entries = []
    for place, pipeline in enumerate(pipelines):
        deploy = pipeline.deploy
        hour, minute = divmod(FIRST + APART * place, 60)
        entries.append(
            plain(
                "deployments.yaml.j2",
                name=pipeline.name,
                title=pipeline.title,
                resource=watching.resource(pipeline.name),
                retrain=deploy.retrain,
                when={"nightly": "night", "weekly": "week"}.get(deploy.retrain or ""),
                cron=f"{minute} {hour % 24} * * {'*' if deploy.retrain == 'nightly' else '0'}",
                variant=deploy.variant or pipeline.default_variant,
                data=deploy.data,
                trial=deploy.smoke or deploy.variant or pipeline.default_variant,
            )
        )
    return "\n".join(entries)


def with_deployments(text: str, entries: str) -> str:
    """The text of a `prefect.yaml` with these entries; whatever stands outside of their place stays as it was.

    Raises:
        ConfigError: There is no place for them.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(
            "prefect.yaml has no place for deployments.",
            expected=f"below `deployments:` these two lines:\n{BEGIN}{END}".rstrip(),
        )
    return f"{before}{BEGIN}\n{entries}\n{END}{after}"


def for_kubernetes(text: str) -> str:
    """The text of a `prefect.yaml` with the same deployments in the pool of Kubernetes, and the project in an image.

    Raises:
        ConfigError: It does not say in one place in which pool they are.
    """
    _, definitions, rest = text.partition("\ndefinitions:\n")
    before, pool, after = rest.partition(POOL)
    if not definitions or not pool:
        raise ConfigError(
            "prefect.yaml names no pool that Kubernetes could take the place of.",
            expected=f"these lines, and `work_pool: *pool` in deployments:\ndefinitions:\n{POOL}".rstrip(),
        )
    return f"{KUBERNETES_HEAD}{before}{KUBERNETES_POOL}{after}"


def texts(root: Path) -> dict[Path, str]:
    """Every file that follows from the workloads of a project → what it is to hold.

    Raises:
        ConfigError: A workload's file can't be loaded, or `prefect.yaml` has no place for deployments.
    """
    pipelines = [projects.load(name) for name in projects.names()]
    deployments = root / "prefect.yaml"
    try:
        before = deployments.read_text()
    except OSError as error:
        raise ConfigError(
            "prefect.yaml can't be read.",
            expected="a project with pipelines/, flows/ and prefect.yaml",
            received=error.strerror,
        ) from error
    flows = {root / "flows" / f"{pipeline.name}.py": flow_of(pipeline) for pipeline in pipelines}
    text = with_deployments(before, deployments_of(pipelines))
    # A project without this folder has no use for Kubernetes.
    copies = {root / KUBERNETES: for_kubernetes(text)} if (root / KUBERNETES).parent.is_dir() else {}
    return {**flows, deployments: text, **copies}


def _quoted(name: str) -> str:
    return f'"{name}"'


def _written(head: str, items: Sequence[str], tail: str, after: str) -> str:
    """A call or a subscript as the project's formatter writes it: in one line, in three, or an item to a line."""

    def lines() -> Iterator[str]:
        together = ", ".join(items)
        if len(f"    {head}{together}{tail}{after}") <= WIDTH:
            yield f"{head}{together}{tail}{after}"
            return
        yield head
        if len(f"        {together}") <= WIDTH:
            yield f"        {together}"
        else:
            yield from (f"        {item}," for item in items)
        yield f"    {tail}{after}"

    return "\n".join(lines())
