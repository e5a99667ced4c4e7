"""`registry`: published versions, which of them is served, and the way back."""

from __future__ import annotations

import click

from headrace.cli.groups import Commands
from headrace.cli.shared import number, show_json, show_table


@click.group(cls=Commands)
def registry() -> None:
    """Look at published versions, or go back.

    HEADRACE_REGISTRY says where they stand: a folder (default: registry in the home), or an object store (gs://…,
    s3://…). See docs/registry.md.
    """


@registry.command("list")
def list_lines() -> None:
    """List the lines with their versions."""
    from headrace import registry as published

    rows = [
        (
            line,
            published.blessed(line) or "none",
            ", ".join(map(str, reversed(published.versions(line)))),
            ", ".join(f"{name} {version}" for name, version in published.aliases(line).items()),
        )
        for line in published.lines()
    ]
    if rows:
        show_table(("line", "blessed", "versions", "aliases"), rows)
    else:
        click.echo("nothing is published yet")


@registry.command("show")
@click.argument("line")
@click.argument("version", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with evaluation, lineage and parity.")
@click.option("--card", is_flag=True, help="Print the model card, in Markdown.")
def show_version(line: str, version: str | None, as_json: bool, card: bool) -> None:
    """Show a version of a line, by its number or name; without one the blessed one, or else the newest."""
    from headrace import registry as published

    found = published.show(line, published.number(line, version))
    if as_json:
        show_json(found)
        return
    if card:
        path = published.folder(line, found["version"]) / published.EXTRA / "model_card.md"
        click.echo(path.read_text() if path.exists() else "this version has no model card")
        return
    words = ", ".join([*(name for name in ("blessed", "previous") if found[name]), *found["aliases"]])
    click.echo(f"{line} version {found['version']}{f' ({words})' if words else ''}")
    for name in ("made", "path", "bundle"):
        click.echo(f"  {name}: {found.get(name)}")
    for name, value in (found.get("evaluation") or {}).get("metrics", {}).items():
        click.echo(f"  {name}: {number(value)}")
    for waiver in found.get("waivers") or ():
        click.echo(f"  waived: {waiver['gate']}, by {waiver['by']}: {waiver['reason']}")


@registry.command("moves")
@click.argument("line")
def show_moves(line: str) -> None:
    """Tell when the pointers of a line were moved, and by what waivers; the newest last."""
    from headrace import registry as published

    published.number(line)
    rows = [
        (
            move["at"],
            move["what"],
            move["version"],
            move["before"],
            "; ".join(f"{w['gate']}, {w['by']}: {w['reason']}" for w in move.get("waivers") or ()),
        )
        for move in published.moves(line)
    ]
    if rows:
        show_table(("at", "what", "version", "before", "waived"), rows)
    else:
        click.echo("no move is remembered")


@registry.command()
@click.argument("line")
@click.argument("version")
def bless(line: str, version: str) -> None:
    """Serve a version, by its number or name; a rollback goes back to the one before."""
    from headrace import registry as published

    before, now = published.blessed(line), published.number(line, version)
    published.bless(line, now)
    if before == now:
        click.echo(f"{line}: version {now} is the blessed one already")
    else:
        click.echo(f"{line}: version {now} is blessed" + (f", in place of {before}" if before else ""))


@registry.command()
@click.argument("line")
def rollback(line: str) -> None:
    """Serve the version that was blessed before; a second rollback takes the first one back."""
    from headrace import registry as published

    before, now = published.rollback(line)
    click.echo(f"{line}: version {now} is blessed again, in place of {before}")


@registry.command()
@click.argument("line")
@click.argument("name")
@click.argument("version", required=False)
@click.option("--delete", is_flag=True, help="Take the alias away; the version stays.")
def alias(line: str, name: str, version: str | None, delete: bool) -> None:
    """Give a version a name of your own.

    \b
    headrace registry alias house_prices canary 7
    headrace registry alias house_prices canary --delete
    """
    from headrace import registry as published

    if delete == (version is not None):
        raise click.UsageError("give a version, or --delete")
    now = None if version is None else published.number(line, version)
    before = published.alias(line, name, now)
    where = f"no longer stands at version {before}" if now is None else f"stands at version {now}"
    click.echo(f"{line}: {name} {where}" + (f" (before: {before})" if now and before not in (None, now) else ""))


@registry.command()
@click.argument("line")
@click.option("--keep", type=click.IntRange(min=1), required=True, help="How many of the newest versions to keep.")
@click.option("--dry-run", is_flag=True, help="Tell what would go, and change nothing.")
def prune(line: str, keep: int, dry_run: bool) -> None:
    """Remove old versions of a line; never the blessed one, the previous one, or one with an alias."""
    from headrace import registry as published

    gone = published.prune(line, keep, dry=dry_run)
    left = [version for version in published.versions(line) if version not in gone]
    would = "would be removed" if dry_run else "removed"
    click.echo(f"{line}: {would}: {', '.join(map(str, gone)) or 'nothing'}; kept: {', '.join(map(str, left))}")


@registry.command()
@click.argument("line", required=False)
def verify(line: str | None) -> None:
    """Compare every file of every version with its digest.

    Exits with 3 if a version is damaged.
    """
    from headrace import registry as published
    from headrace.errors import DataError, unknown

    known = published.lines()
    if line is not None and line not in known:
        raise unknown("line in the registry", line, known)
    wrong, count = [], 0
    for name in known if line is None else [line]:
        count += len(published.versions(name))
        wrong += [f"{name} version {version}: {trouble}" for version, trouble in published.verify(name).items()]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {count} versions are not what was published:\n" + "\n".join(f"  - {w}" for w in wrong),
            remedy="bless another version, and publish anew: the run makes what is missing",
        )
    click.echo(f"{count} versions, all whole")


@registry.command()
@click.option("--base", metavar="PATH", help="Where the model server finds the registry, if it is another path there.")
def config(base: str | None) -> None:
    """Print what a TensorFlow model server is to serve, and write it to models.config.

    \b
    tensorflow_model_server --model_config_file=…/registry/models.config --model_config_file_poll_wait_seconds=60

    With --base nothing is written.
    """
    from headrace import registry as published

    if base is None:
        published.write_config()
    click.echo(published.config(base), nl=False)
