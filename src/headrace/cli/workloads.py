"""`list`, `show`, `new` and `sync`: what there is to run, more of it, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from headrace import projects
from headrace.cli.shared import show_table
from headrace.errors import EXIT_OK, EXIT_VERDICT, HeadraceError
from headrace.fingerprints import leaves
from headrace.jobs import arguments
from headrace.spec import task_in_words

if TYPE_CHECKING:
    from headrace.spec import Pipeline, Source


@click.command("list")
def list_workloads() -> int:
    """List the workloads of the project."""
    pipelines: list[Pipeline] = []
    problems: list[HeadraceError] = []
    for name in projects.names():
        try:
            pipelines.append(projects.load(name))
        except HeadraceError as error:
            problems.append(error)
    rows = [(p.name, p.title, task_in_words(p.task), p.book, _few(list(p.variants))) for p in pipelines]
    show_table(("workload", "title", "task", "book", "variants"), rows)
    # One broken file doesn't hide the others.
    for problem in problems:
        click.echo(f"headrace: error: {problem}", err=True)
    return problems[0].exit_code if problems else EXIT_OK


def _few(variants: list[str]) -> str:
    """The variants, or the first ones of many."""
    shown = variants if len(variants) <= SHOWN else [*variants[: SHOWN - 1], f"and {len(variants) - SHOWN + 1} more"]
    return ", ".join(shown)


SHOWN = 6
"""Variants that `list` names."""


@click.command()
@click.argument("workload")
def show(workload: str) -> None:
    """Show a workload's sources, settings, promises."""
    pipeline = projects.load(workload)
    click.echo(f"{pipeline.name}: {pipeline.title}\n{pipeline.book} · {task_in_words(pipeline.task)}")
    click.echo(f"Expect: {pipeline.expect}\n")
    for name, source in pipeline.sources.items():
        default = " (default)" if name == pipeline.default_source else ""
        click.echo(f"Source {name}{default}: {source.title}")
        facts = {
            "files": ", ".join(file.name for file in source.files),
            "licence": source.licence,
            "homepage": source.homepage,
            "synthetic twin": "yes" if source.stand_in else "no",
            "NOTE": source.note,
        }
        for fact, value in facts.items():
            if value:
                click.echo(f"  {fact}: {value}")
        show_table(("feature", "role", "column", "what it is", "unit"), list(_columns(source)))
    usual = _settings(pipeline, pipeline.default_variant)
    for name, variant in pipeline.variants.items():
        default = " (default)" if name == pipeline.default_variant else ""
        click.echo(f"Variant {name}{default}: {variant.description}")
        click.echo(
            "".join(f"  {path}={value}\n" for path, value in _differing(usual, _settings(pipeline, name))), nl=False
        )
    columns = ("setting", pipeline.default_variant, "smoke")
    show_table(
        columns,
        [(path, usual.get(path), pipeline.smoke.get(path)) for path in dict.fromkeys([*usual, *pipeline.smoke])],
        right=columns[1:],
    )
    promises = [
        (name, promise.metric, promise.on.replace("_", "-"), promise.bounds, promise.book, promise.source)
        for name, variant in pipeline.variants.items()
        for promise in variant.promises
    ]
    if promises:
        show_table(("variant", "promised", "on", "bounds", "book", "where"), promises, right=("book",))
    fan_outs = [("study", name, study.description) for name, study in pipeline.studies.items()]
    fan_outs += [("tune", name, tuning.description) for name, tuning in pipeline.tunings.items()]
    fan_outs += [("ensemble", name, ensemble.description) for name, ensemble in pipeline.ensembles.items()]
    for command, name, description in fan_outs:
        click.echo(f"headrace {command} {pipeline.name} {name}: {description}")


def _differing(usual: Mapping[str, str], own: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What a variant sets otherwise than the default one; what it does without is null."""
    for path in dict.fromkeys([*own, *usual]):
        value = own.get(path, "null")
        # Of a part that isn't there at all, one line says so.
        above = path.partition(".")[0]
        if value != usual.get(path, "null") and not (path not in own and above in own):
            yield path, value


def _columns(source: Source) -> Iterator[tuple[str, ...]]:
    """A row for each column of each feature, or for the feature itself where it has no columns."""
    for name, feature in source.features.items():
        for column in feature.columns:
            yield name, feature.role, column.name, column.description, column.unit
        if not feature.columns:
            yield name, feature.role, "", feature.description, feature.unit


def _settings(pipeline: Pipeline, variant: str) -> dict[str, str]:
    """Dotted path → value as it is written after `--set path=`; what the functions take by default included."""
    tree = pipeline.variants[variant].model_dump(mode="json", exclude={"description", "promises"})
    for setting in ("preprocess", "model", "loop"):
        parameters = [parameter for _, parameter in arguments(pipeline, variant, setting).values()]
        defaults = {taken.name: taken.default for taken in parameters if taken.default is not taken.empty}
        tree[setting] = defaults | tree[setting]
    return {
        ".".join(path): value if isinstance(value, str) else json.dumps(value, default=str)
        for path, value in leaves(tree)
        if value != {}
    }


@click.command()
@click.argument("name")
def new(name: str) -> None:
    """Write a new workload, complete and ready to run.

    Writes pipelines/NAME.py, which is yours to change, flows/NAME.py, and a deployment in prefect.yaml.
    """
    from headrace.upkeep import scaffolding

    for path in scaffolding.scaffold(name, projects.root()):
        click.echo(f"wrote {path}")
    click.echo(f"try it:  headrace run {name} --profile smoke --data synthetic\nthen:    grep -rn 'TODO({name})' .")


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if something would change.")
def sync(check: bool) -> int:
    """Bring flows, deployments and tables of results up to date with the workloads.

    Writes flows/NAME.py of each workload, the deployments in prefect.yaml and, where the README has a place for it, its
    table and docs/results.md.
    """
    from headrace.upkeep import syncing

    root = projects.root()
    changed = list(syncing.stale(root)) if check else syncing.sync(root)
    for path in changed:
        click.echo(f"{'would write' if check else 'wrote'} {path.relative_to(root)}")
    if not changed:
        click.echo("everything is up to date")
    return EXIT_VERDICT if check and changed else EXIT_OK
