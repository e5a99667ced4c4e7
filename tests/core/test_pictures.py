"""Small pictures: right colours, whole pixels, equal bytes, and nothing that a damaged file could stop."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headrace.looking.pictures import COLOURS, LINES, POINTS, SIDE, background, is_small, lines, overlay, sheet, tile
from tests.core.making import picture

RED = np.zeros((6, 4, 3), np.uint8)
RED[:, :, 0] = 200


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}


class TestTiles:
    def test_are_small_images_enlarged_in_whole_steps(self) -> None:
        image = tile(RED)
        assert image.size == (4 * 16, 6 * 16)
        assert colours(image) == {(200, 0, 0)}

    def test_are_large_images_shrunk(self) -> None:
        assert tile(np.zeros((300, 600, 3), np.uint8)).size == (SIDE, SIDE // 2)

    @pytest.mark.parametrize(
        "pixels",
        [
            np.full((4, 4), 255, np.uint8),
            np.full((4, 4, 1), 255, np.uint8),
            np.full((4, 4), 1.0, np.float32),
            np.full((4, 4, 1), 255.0, np.float32),
            np.stack([np.full((4, 4), 1.0), np.full((4, 4), -1.0)], axis=2)[:, :, :1],
        ],
    )
    def test_of_any_range_of_numbers_are_as_bright_as_they_mean(self, pixels: np.ndarray) -> None:
        assert colours(tile(pixels)) == {(255, 255, 255)}

    def test_of_negative_numbers_put_zero_in_the_middle(self) -> None:
        image = tile(np.array([[-1.0, 0.0, 1.0]], np.float32))
        assert colours(image) == {(0, 0, 0), (127, 127, 127), (255, 255, 255)}

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
    def test_are_made_of_files(self, kind: str) -> None:
        image = tile(picture(np.full((10, 10, 3), 128), kind))
        assert image.size == (90, 90)
        assert all(abs(channel - 128) < 4 for colour in colours(image) for channel in colour)

    def test_show_what_is_transparent_as_paper(self) -> None:
        clear = np.zeros((4, 4, 4), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(clear).save(buffer, "PNG")
        assert colours(tile(buffer.getvalue())) == {(255, 255, 255)}
        assert colours(tile(clear)) == {(255, 255, 255)}

    @pytest.mark.parametrize("file", [b"", b"no image", picture(RED)[:40], b"\xff\xd8\xff" + bytes(50)])
    def test_of_damaged_files_are_crossed_out(self, file: bytes) -> None:
        image = tile(file)
        assert image.size == (SIDE, SIDE)
        assert len(colours(image)) == 2


class TestMasks:
    MASK = np.array([[0, 0], [1, 2]], np.uint8)

    def test_colour_each_class_but_the_first(self) -> None:
        pair = overlay(np.full((2, 2, 3), 100, np.uint8), self.MASK)
        assert pair.size == (2 * SIDE, SIDE)
        covered = np.asarray(pair.crop((SIDE, 0, 2 * SIDE, SIDE)))
        assert covered[10, 10].tolist() == [100, 100, 100]
        expected = [[round(45 + 0.55 * c) for c in colour] for colour in COLOURS[:2]]
        found = [covered[SIDE - 10, 10].tolist(), covered[SIDE - 10, SIDE - 10].tolist()]
        np.testing.assert_allclose(found, expected, atol=1)

    def test_leave_the_class_clear_that_is_called_background(self) -> None:
        clear = background(("Pet", "Background", "contour"))
        assert (clear, background(("ground", "cat"))) == (1, 0)
        covered = np.asarray(overlay(np.full((2, 2, 3), 100, np.uint8), self.MASK, clear=clear))[:, SIDE:]
        assert covered[SIDE - 10, 10].tolist() == [100, 100, 100]
        expected = [[round(45 + 0.55 * c) for c in colour] for colour in COLOURS[:2]]
        np.testing.assert_allclose([covered[10, 10], covered[SIDE - 10, SIDE - 10]], expected, atol=1)

    def test_lie_side_by_side_where_there_are_several(self) -> None:
        image = np.full((2, 2, 3), 100, np.uint8)
        found = overlay(image, self.MASK, 1 - self.MASK.clip(0, 1))
        assert found.size == (3 * SIDE, SIDE)
        np.testing.assert_array_equal(np.asarray(found)[:, : 2 * SIDE], np.asarray(overlay(image, self.MASK)))
        assert overlay(image, self.MASK, b"no image").size == (SIDE, SIDE)

    def test_stand_for_themselves_where_there_is_no_image(self) -> None:
        assert colours(overlay(None, self.MASK)) >= {COLOURS[0], COLOURS[1]}

    def test_are_the_same_as_arrays_and_as_files(self) -> None:
        expected = np.asarray(overlay(None, self.MASK))
        np.testing.assert_array_equal(np.asarray(overlay(None, picture(self.MASK))), expected)
        np.testing.assert_array_equal(np.asarray(overlay(None, self.MASK[:, :, None].astype(np.int64))), expected)

    def test_are_numbers_of_a_palette_and_not_its_colours(self) -> None:
        image = Image.fromarray(self.MASK, "P")
        image.putpalette([0, 0, 0, 9, 9, 9, 200, 200, 200])
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        np.testing.assert_array_equal(
            np.asarray(overlay(None, buffer.getvalue())), np.asarray(overlay(None, self.MASK))
        )

    def test_of_another_size_fit_their_image(self) -> None:
        assert overlay(np.zeros((200, 100, 3), np.uint8), self.MASK).size == (SIDE, SIDE)

    def test_that_are_damaged_are_crossed_out(self) -> None:
        assert overlay(RED, b"no image").size == (SIDE, SIDE)


class TestSheets:
    def test_have_lines_of_equal_height(self) -> None:
        found = sheet([[tile(RED)] * 3, [tile(RED)]], sharp=True)
        image = Image.open(io.BytesIO(found.data))
        assert (image.format, image.size) == ("PNG", (found.width, found.height))
        assert found.height % 2 == 0
        pixels = np.asarray(image)
        half = found.height // 2
        np.testing.assert_array_equal(pixels[:half, :60], pixels[half:, :60])

    @pytest.mark.parametrize("sharp", [True, False])
    def test_are_equal_bytes_for_equal_tiles(self, sharp: bool, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
        found = [sheet([[tile(noise)]], sharp) for _ in range(2)]
        assert found[0].data == found[1].data
        assert found[0].suffix == (".png" if sharp else ".jpg")

    def test_of_photographs_are_small(self) -> None:
        random = np.random.default_rng(0)
        rows = [
            [tile(random.normal(0, 2, (100, 100, 1)).cumsum(0).cumsum(1).repeat(3, 2) / 9 + 128) for _ in range(8)]
            for _ in range(3)
        ]
        assert len(sheet(rows, sharp=False).data) < len(sheet(rows, sharp=True).data) / 3

    def test_keep_every_pixel_of_small_originals_only(self) -> None:
        assert is_small(RED)
        assert is_small(picture(RED))
        assert not is_small(picture(RED, "JPEG"))
        assert not is_small(np.zeros((300, 20), np.uint8))
        assert not is_small(b"no image")


class TestSeries:
    def test_are_lines_from_the_left_to_the_right_and_from_low_to_high(self) -> None:
        (points,) = lines(np.array([0.0, 5.0, 10.0]))
        assert points == "0.0,29.0 50.0,15.0 100.0,1.0"

    def test_have_a_line_for_each_of_a_few_channels(self) -> None:
        assert len(lines(np.zeros((9, 20)))) == LINES

    def test_that_are_long_are_thinned_out_to_both_ends(self) -> None:
        (points,) = lines(np.arange(10_000.0))
        assert len(points.split()) == POINTS
        assert points.startswith("0.0,29.0")
        assert points.endswith("100.0,1.0")

    def test_leave_gaps_out(self) -> None:
        assert lines(np.array([1.0, np.nan, 3.0])) == ["0.0,29.0 100.0,1.0"]

    def test_that_never_change_lie_in_the_middle(self) -> None:
        assert lines(np.array([4.0, 4.0])) == ["0.0,15.0 100.0,15.0"]

    @pytest.mark.parametrize("series", [np.empty((0, 2)), np.full(3, np.nan)])
    def test_of_nothing_are_empty(self, series: np.ndarray) -> None:
        assert set(lines(series)) <= {""}
