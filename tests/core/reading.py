"""A page read back: what a browser would make of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags, ids and visible text of a page; tags that are not closed rightly are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "link", "img", "path", "rect", "use"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "rect", "use"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def ids(self) -> set[str]:
        return {attributes["id"] or "" for _, attributes in self.tags if "id" in attributes}

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def loads(self) -> list[str]:
        """What the page would fetch from somewhere else; links that a person may follow are no part of it."""
        found = [tag for tag, _ in self.tags if tag in ("script", "link", "iframe", "object")]
        for tag, attributes in self.tags:
            for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                value = attributes.get(name) or "#"
                follows = tag == "a" and not value.startswith("http")
                if not (value.startswith(("#", "data:image/")) or follows):
                    found.append(f"{tag} {name}={value}")
        return found + re.findall(r"url\((?!#)|@import", self.source)
