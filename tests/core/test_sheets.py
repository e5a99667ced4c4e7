"""Sample sheets: each kind of feature in the form in which people can look at it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.looking.sampling import ROW
from headrace.looking.sheets import TEXTS, TILES, UNGROUPED, excerpt, sheets
from headrace.ragged import Ragged
from headrace.spec import Feature
from tests.core.making import KINDS, files, images, masks, numbers, table, text, tokens

LONG = "word " * 400


def samples(kind: Any, groups: int = 2, rows: int = 10) -> tuple[list[tuple[str, Any]], dict[str, Feature]]:
    """Examples of a kind in groups, with their features."""
    features, arrays = kind(rows * groups)
    parts = [slice(rows * k, rows * (k + 1)) for k in range(groups)]
    kept = [{**{name: v[part] for name, v in arrays.items()}, ROW: np.arange(part.start, part.stop)} for part in parts]
    return [(f"group {k}", one) for k, one in enumerate(kept)], features


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("numbers", ["table"]),
        ("table", ["table"]),
        ("images", ["images"]),
        ("files", ["images"]),
        ("masks", ["images"]),
        ("text", ["text"]),
        ("tokens", ["text"]),
        ("series", ["series"]),
        ("sequences", ["series"]),
    ],
)
def test_each_kind_has_its_form(kind: str, expected: list[str]) -> None:
    found, _ = sheets(*samples(KINDS[kind]))
    assert [sheet["kind"] for sheet in found] == expected


def test_nothing_is_shown_of_nothing() -> None:
    assert sheets([], {"x": Feature()}) == ([], {})


class TestImages:
    def test_have_a_line_of_tiles_for_each_group(self) -> None:
        (found,), pictures = sheets(*samples(images))
        assert found["labels"] == ["group 0", "group 1"]
        assert [example["row"] for example in found["examples"]] == [*range(TILES), *range(10, 10 + TILES)]
        assert list(pictures) == [found["picture"]] == ["samples-image.png"]

    def test_have_several_lines_where_there_is_one_group(self) -> None:
        (found,), _ = sheets(*samples(images, groups=1, rows=100))
        assert found["labels"] == ["group 0", *[""] * (UNGROUPED - 1)]

    def test_of_photographs_name_their_files(self) -> None:
        (found,), pictures = sheets(*samples(files))
        assert found["examples"][0]["note"] == "photo_0.jpg"
        assert list(pictures) == ["samples-image.jpg"]

    def test_are_shown_under_their_masks(self) -> None:
        (found,), pictures = sheets(*samples(masks, groups=1))
        assert (found["title"], list(pictures)) == ("image and mask", ["samples-mask.png"])

    def test_that_are_missing_are_crossed_out(self) -> None:
        given, features = samples(files)
        given[0][1]["image"][0] = b""
        assert sheets(given, features)[1]["samples-image.jpg"].data


class TestTables:
    def test_show_what_is_to_be_predicted_first(self) -> None:
        (found,), _ = sheets(*samples(numbers))
        assert [column["name"] for column in found["columns"]] == ["price", "rooms", "age"]
        assert [row[0] for row in found["rows"]] == [0, 1, 10, 11]

    def test_show_names_of_classes_and_what_is_missing(self) -> None:
        given, features = samples(table)
        given[0][1]["fare"][0], given[0][1]["label"][0] = np.nan, 2
        (found,), _ = sheets(given, features)
        row = dict(zip([column["name"] for column in found["columns"]], found["rows"][0][1:], strict=True))
        assert (row["label"], row["fare"], row["name"]) == ("odd", "missing", "person 0")

    def test_leave_out_what_has_too_many_columns(self) -> None:
        given, features = samples(numbers)
        wide = np.zeros((10, 40), np.float32)
        given = [(label, {**arrays, "wide": wide}) for label, arrays in given]
        found, _ = sheets(given, {**features, "wide": Feature(shape=(40,))})
        assert [(sheet["kind"], sheet["title"]) for sheet in found] == [("table", "Examples"), ("series", "wide")]

    def test_hold_short_text_and_leave_long_text_to_itself(self) -> None:
        given, features = samples(table)
        given[0][1]["name"][3] = LONG.encode()
        found, _ = sheets(given, features)
        assert [sheet["kind"] for sheet in found] == ["table", "text"]


class TestText:
    def test_is_shown_with_its_group_and_place(self) -> None:
        (found,), _ = sheets(*samples(text))
        assert [(item["label"], item["row"]) for item in found["items"]][: TEXTS + 1] == [
            ("group 0", 0),
            ("group 0", 1),
            ("group 1", 10),
        ]

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (b"short", "short"),
            ("two  words\n\tand\x00more", "two words and more"),
            (b"\xff\xfe", "��"),
            ("Straße ☕", "Straße ☕"),
            ("", ""),
        ],
    )
    def test_is_brought_into_a_line(self, given: bytes | str, expected: str) -> None:
        assert excerpt(given) == expected

    def test_is_cut_after_a_word(self) -> None:
        found = excerpt("some words of different lengths", 16)
        assert found == "some words of …"
        assert excerpt("x" * 50, 10) == "x" * 10 + "…"
        assert excerpt("some words", 10) == "some words"

    def test_that_is_a_book_is_only_looked_at_in_its_beginning(self) -> None:
        assert excerpt(LONG, 12) == "word word …"
        assert excerpt(" " * 5_000 + "far away", 10).endswith("…")


class TestTokens:
    def test_are_numbers(self) -> None:
        given, features = samples(tokens, groups=1)
        (found,), _ = sheets(given, features)
        assert found["items"][0]["text"] == ""
        assert found["items"][1]["text"].split()[0] == str(list(given[0][1]["tokens"])[1][0])

    def test_are_words_where_the_feature_names_them(self) -> None:
        features = {"tokens": Feature(shape=(None,), dtype="int64", content="tokens", classes=("the", "cat"))}
        arrays = {"tokens": Ragged.of([[0, 1, 7]], np.int64), ROW: np.arange(1)}
        (found,), _ = sheets([("", arrays)], features)
        assert found["items"][0]["text"] == "the cat 7"

    def test_are_cut_and_counted(self) -> None:
        features = {"tokens": Feature(shape=(None,), dtype="int64")}
        arrays = {"tokens": Ragged.of([np.zeros(5000)], np.int64), ROW: np.arange(1)}
        (found,), _ = sheets([("", arrays)], features)
        assert found["items"][0]["text"].endswith("0 … (5,000 in all)")
