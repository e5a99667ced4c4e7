"""What all pages share: templates, numbers and sizes in words. A page opens from disk and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent.parent / "templates"

EXAMINATION, DATA = "examination.json", "data.html"
"""What stage `examine` writes: its findings, and the page that shows them."""


VOUCHED = {
    "origin": "the digest that its publisher gives",
    "mirror": "the mirror, in its own list of digests: packed anew, so that the publisher's digest can't match",
    "twin": "nobody: made up by the workload's twin",
    "workload": "nobody: made by the workload itself, as its data are by definition",
    "user": "the user who gave the file",
    "nobody": "nobody",
}
"""Who vouches for a file."""


def render(name: str, **values: Any) -> str:
    """A page of a template; what is put in is escaped.

    Args:
        name: The file in `templates/`.
        values: What the template speaks of; anything that it misses is an error.
    """
    return _environment(TEMPLATES).get_template(name).render(**values, vouched=VOUCHED)


def plain(template: str, /, **values: Any) -> str:
    """A text of a template that is no page (code, YAML): what is put in must be safe by itself, nothing is escaped."""
    return _environment(TEMPLATES, False).get_template(template).render(**values)


@cache
def _environment(folder: Path, escaped: bool = True) -> jinja2.Environment:
    """The templates of a folder; compiling them takes longer than filling them in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=not escaped,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "size": size, "ticks": ticks}
    environment.filters["uri"] = lambda made: picture(made.data, made.suffix)
    return environment


def ticks(text: str) -> Any:
    """Words for people as HTML: what stands between backticks as code, the rest escaped."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def look() -> str:
    """The digest of all templates of pages: a page depends on them as on its data."""
    files = sorted(TEMPLATES.glob("*.html.j2"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def picture(data: bytes, suffix: str) -> str:
    """A picture in the place of its address, so that a page needs no file beside it."""
    kind = "jpeg" if suffix == ".jpg" else suffix.removeprefix(".")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def number(value: object) -> str:
    """A number in four digits; several things one after the other; other things as they are."""
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value)) or "none"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def percent(share: float | None) -> str:
    """A share in per cent, with as many digits as tell it from nothing and from all."""
    if share is None:
        return "–"
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.1 <= share <= 0.9 else f"{100 * share:.3g} %"


def size(count: float | None) -> str:
    """Bytes in the unit that a person would use."""
    if count is None:
        return "–"
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
