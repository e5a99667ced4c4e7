"""`interpret`: what a published image model sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace.cli.engines import engine_option
from headrace.cli.process import quiet_libraries
from headrace.cli.shared import application, show_json, verbosity
from headrace.errors import EXIT_OK


@click.command()
@click.argument("model")
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path),
    help="An image, or a folder of images; default: test examples that were recorded with the version.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    help="Whose activations and patterns are shown; repeatable. Default: all activations, patterns of three layers.",
)
@click.option("--map-layer", help="Whose maps heat maps weight; default: the last one with places that is no pooling.")
@click.option("--images", type=click.IntRange(1, 64), default=4, show_default=True, help="Images, at most.")
@click.option(
    "--filters", type=click.IntRange(0, 512), default=16, show_default=True, help="Patterns of each layer; 0 for none."
)
@click.option("--top", type=click.IntRange(1, 20), default=3, show_default=True, help="Classes of each image.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of the noise.")
@click.option("--open", "opened", is_flag=True, help="Open the page in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also for a failure.")
@engine_option("local", "prefect")
@verbosity
def interpret(
    model: str,
    source: Path | None,
    layers: tuple[str, ...],
    map_layer: str | None,
    images: int,
    filters: int,
    top: int,
    seed: int,
    opened: bool,
    as_json: bool,
    engine: str,
) -> int:
    """Show what an image model sees: activations, what its filters look for, what its decisions rest on.

    MODEL is LINE or LINE@VERSION of the registry, backbone:NAME with the weights of ImageNet, or a .keras file.

    \b
    headrace interpret mnist-convnet
    headrace interpret cats_vs_dogs@2 --input cat.jpg --layer conv2d_3
    headrace interpret backbone:xception --input elephant.jpg --filters 64
    """
    asked: dict[str, Any] = {
        "model": str(Path(model).absolute()) if model.endswith(".keras") else model,
        "layers": list(layers),
        "map_layer": map_layer,
        "images": images,
        "filters": filters,
        "top": top,
        "seed": seed,
    }
    with quiet_libraries():
        if engine == "prefect":
            given = {"input": str(source.absolute()) if source else None}
            found = application("flows").fan_out("interpretation", {**asked, **given})
        else:
            from headrace.interpreting import Request, interpret

            found = interpret(Request(**{**asked, "layers": layers}, input=source))
    if as_json:
        show_json(found)
    else:
        _show(found)
    if opened:
        click.launch(found["page"])
    return EXIT_OK


def _show(found: dict[str, Any]) -> None:
    """The likeliest class of each image, how far filters were raised, and where the page is."""
    for image in found["images"]:
        classes = ", ".join(f"{one['class']} {one['score']:.3g}" for one in image.get("classes", ()))
        click.echo(f"{image['name']}: {classes or 'no classes'}")
    for layer in found["patterns"]:
        click.echo(f"{layer['path']}: {layer['raised']} of {len(layer['filters'])} filters raised ten-fold")
    click.echo(found["page"])
