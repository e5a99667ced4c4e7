"""What all pages share."""

from __future__ import annotations

import pytest

from headrace.showing import pages


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (2.46422, "2.464"),
        (1e-7, "1e-07"),
        (123456.7, "123,457"),
        (3, "3"),
        ("a", "a"),
        ([1, "a"], "1, a"),
        ([], "none"),
    ],
)
def test_numbers_are_short(value: object, words: str) -> None:
    assert pages.number(value) == words


@pytest.mark.parametrize(
    ("count", "words"), [(None, "–"), (0, "0 B"), (999, "999 B"), (57_100, "57.1 KB"), (2e9, "2.0 GB")]
)
def test_sizes_have_a_unit(count: float | None, words: str) -> None:
    assert pages.size(count) == words


@pytest.mark.parametrize(
    ("share", "words"),
    [(None, "–"), (0, "0 %"), (1, "100 %"), (0.5, "50 %"), (0.9951, "99.5 %"), (0.00012, "0.012 %")],
)
def test_shares_are_told_from_nothing_and_from_all(share: float | None, words: str) -> None:
    assert pages.percent(share) == words


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("`RM` and `<b>`", "<code>RM</code> and <code>&lt;b&gt;</code>"),
        ("it`s <i>", "it`s &lt;i&gt;"),
        ("plain", "plain"),
    ],
)
def test_words_between_backticks_are_code_and_nothing_is_markup(text: str, html: str) -> None:
    assert str(pages.ticks(text)) == html


def test_a_picture_stands_in_the_place_of_its_address() -> None:
    assert pages.picture(b"PNG", ".png") == "data:image/png;base64,UE5H"
    assert pages.picture(b"JPG", ".jpg").startswith("data:image/jpeg;base64,")


def test_a_template_that_misses_a_value_is_an_error() -> None:
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        pages.render("data.html.j2")
