"""What an image model sees: activations, patterns of filters, heat maps, of any version of the registry or a backbone.

python -m flows.interpretation LINE --input photographs/
python -m flows.interpretation backbone:xception --input elephant.jpg
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from pydantic import Field

from headrace.console import shown_by
from headrace.interpreting import Request
from headrace.interpreting import interpret as look
from tasks.policies import hear_the_core, meter, optional


def run_name() -> str:
    """The name of a flow run: the model, and what it is shown."""
    given = flow_run.parameters
    return " · ".join([given["model"], *([Path(given["input"]).name] if given.get("input") else [])])


@flow(name="interpretation", flow_run_name=run_name, persist_result=False)
def interpretation(
    model: str,
    input: str | None = None,
    layers: list[str] | None = None,
    map_layer: str | None = None,
    images: Annotated[int, Field(ge=1, le=64)] = 4,
    filters: Annotated[int, Field(ge=0, le=512)] = 16,
    top: Annotated[int, Field(ge=1, le=20)] = 3,
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
) -> dict[str, Any]:
    """Look into an image model.

    Args:
        model: `LINE` or `LINE@VERSION` of the registry, `backbone:NAME` with ImageNet's weights, or a `.keras` file.
        input: An image, or a folder of images, as the worker sees it; default: test examples recorded with the version.
        layers: Whose activations and patterns are shown; default: all activations, and the patterns of three layers.
        map_layer: Whose maps heat maps weight; default: the last one with places that is no pooling.
        images: Images, at most.
        filters: Patterns of each layer; 0 for none.
        top: Classes of each image.
        seed: Of the noise that patterns begin with.
    """
    hear_the_core()
    request = Request(
        model=model,
        input=Path(input) if input else None,
        layers=tuple(layers or ()),
        map_layer=map_layer,
        images=images,
        filters=filters,
        top=top,
        seed=seed,
    )
    with shown_by(meter):
        found = look(request)
    with optional("what was found"):
        key = f"{Path(found['path']).parent.parent.name}-interpretation".replace("_", "-")
        create_markdown_artifact(_in_words(found), key=key, description=f"What {found['model']} sees")
    return found


def _in_words(found: dict[str, Any]) -> str:
    """The figures as a page of Prefect's."""
    lines = [f"Page: `{found['page']}`", ""]
    for image in found["images"]:
        classes = ", ".join(f"{one['class']} {one['score']:.3g}" for one in image.get("classes", ()))
        lines.append(f"- {image['name']}: {classes or found['no_heat_maps']}")
    lines += [
        f"- `{layer['path']}`: {layer['raised']} of {len(layer['filters'])} filters raised ten-fold"
        for layer in found["patterns"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    from headrace.__main__ import main

    sys.exit(main(["interpret", *sys.argv[1:], "--engine", "prefect"]))
