import os
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from amgen.config import DataConfig
from amgen.core import decoding
from amgen.core.errors import UserError
from amgen.data import to_float, to_uint8
from amgen.data.images import prepare
from amgen.visualization.grids import image_grid


def test_round_trip_of_all_levels() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_float(levels).min() == -1
    assert to_float(levels).max() == 1


def test_rounds_to_nearest_and_clips() -> None:
    half = 0.49 / 127.5
    levels = to_float(torch.tensor([0, 100, 255], dtype=torch.uint8))
    assert to_uint8(levels + half).tolist() == [0, 100, 255]
    assert to_uint8(levels - half).tolist() == [0, 100, 255]
    assert to_uint8(torch.tensor([-3.0, 7.0])).tolist() == [0, 255]
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.tensor([float("nan")]))


def pixel(mode: str, value: object, size: int = 8) -> Image.Image:
    return Image.new(mode, (size, size), value)  # type: ignore[arg-type]


def keyed(mode: str, value: object) -> Image.Image:
    """Return an image of one colour, which is declared transparent."""
    image = pixel(mode, value)
    image.info["transparency"] = value
    return image


@pytest.mark.parametrize(
    ("image", "channels", "convert", "expected"),
    [
        (pixel("L", 7), 1, False, [7]),
        (pixel("RGB", (1, 2, 3)), 3, False, [1, 2, 3]),
        (pixel("L", 7), 3, True, [7, 7, 7]),
        (pixel("RGB", (10, 10, 10)), 1, True, [10]),
        (pixel("1", 1), 1, False, [255]),
        (pixel("RGBA", (200, 0, 0, 0)), 3, False, [255, 255, 255]),
        (pixel("RGBA", (200, 0, 0, 255)), 3, False, [200, 0, 0]),
        (pixel("LA", (50, 255)), 1, False, [50]),
        (pixel("RGB", (9, 8, 7)).convert("P", palette=Image.Palette.ADAPTIVE), 3, False, [9, 8, 7]),
        (pixel("RGB", (9, 9, 9)).convert("P", palette=Image.Palette.ADAPTIVE), 3, False, [9, 9, 9]),
        (pixel("RGB", (9, 9, 9)).convert("P", palette=Image.Palette.ADAPTIVE), 1, False, [9]),
        (pixel("RGBX", (9, 8, 7, 0)), 3, False, [9, 8, 7]),
        # Half of full red, multiplied by alpha, over white: 128 + 127 of red, 127 of the others.
        (pixel("RGBa", (128, 0, 0, 128)), 3, False, [255, 127, 127]),
        (pixel("La", (0, 128)), 1, False, [127]),
        (pixel("PA", (0, 0)), 3, False, [255, 255, 255]),
        (keyed("RGB", (9, 8, 7)), 3, False, [255, 255, 255]),
        (keyed("L", 9), 1, False, [255]),
        (keyed("1", 0), 1, False, [255]),
        # Without a profile by Pillow's rule: 255 - ink, less black.
        (pixel("CMYK", (255, 0, 0, 0)), 3, True, [0, 255, 255]),
        (pixel("CMYK", (0, 0, 0, 255)), 1, True, [0]),
        (pixel("YCbCr", (76, 85, 255)), 3, True, [254, 0, 0]),  # red by ITU-R 601
        (pixel("HSV", (0, 255, 255)), 3, True, [255, 0, 0]),
        (pixel("LAB", (255, 128, 128)), 1, True, [255]),  # L = 100; a = b = 0 are kept as 128
    ],
)
def test_modes(image: Image.Image, channels: int, convert: bool, expected: list[int]) -> None:
    options = DataConfig.model_validate({"channels": channels, "convert": convert})
    prepared = prepare(image, options, "x")
    assert prepared.dtype == torch.uint8
    assert prepared.shape == (channels, 8, 8)
    assert prepared[:, 3, 3].tolist() == expected


def test_background_shows_behind_transparency() -> None:
    prepared = prepare(pixel("RGBA", (200, 0, 0, 0)), DataConfig(channels=3, background=40), "x")
    assert prepared.unique().tolist() == [40]


def test_conversion_is_never_silent() -> None:
    gray, colour = DataConfig(), DataConfig(channels=3)
    with pytest.raises(UserError, match=r"pic is gray but data.channels=3 asks for RGB: set data.convert=true"):
        prepare(pixel("L", 0), colour, "pic")
    with pytest.raises(UserError, match=r"pic is RGB but data.channels=1 asks for gray"):
        prepare(pixel("RGB", 0), gray, "pic")
    with pytest.raises(UserError, match=r"pic is 9x9 pixels, expected 8x8: set data.resize=crop"):
        prepare(pixel("L", 0, 9), gray, "pic")


@pytest.mark.parametrize("convert", [False, True])
@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B", "I;16L"])
def test_more_than_eight_bits_are_never_reduced(mode: str, convert: bool) -> None:
    with pytest.raises(UserError, match=r"pic has more than 8 bits a channel \(mode .*\): convert it to 8-bit PNG first"):
        prepare(Image.new(mode, (8, 8)), DataConfig(convert=convert), "pic")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB"])
def test_other_colour_spaces_are_never_converted_silently(mode: str, channels: int) -> None:
    asked = {1: "gray", 3: "RGB"}[channels]
    with pytest.raises(UserError, match=f"pic is {mode} but data.channels={channels} asks for {asked}: set data.convert=true"):
        prepare(Image.new(mode, (8, 8)), DataConfig.model_validate({"channels": channels}), "pic")


def test_lab_is_converted_to_rgb() -> None:
    """Black, white and sRGB's own red, (53.2, 80.1, 67.2) in CIELAB (D50: 54.3, 80.8, 69.9), to the rounding of CIELAB in 8 bits."""
    for stored, expected in (((0, 128, 128), (0, 0, 0)), ((255, 128, 128), (255, 255, 255)), ((138, 209, 198), (255, 0, 0))):
        prepared = prepare(pixel("LAB", stored), DataConfig(channels=3, convert=True), "x")[:, 0, 0]
        assert (prepared.int() - torch.tensor(expected)).abs().max() <= 5


def test_a_damaged_colour_profile_is_named() -> None:
    image = pixel("CMYK", (1, 2, 3, 4))
    image.info["icc_profile"] = b"nonsense"
    with pytest.raises(UserError, match="pic cannot be converted from CMYK to RGB by its colour profile"):
        prepare(image, DataConfig(channels=3, convert=True), "pic")


@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 9), (8, 9), (801, 3)])
def test_any_shape_is_resized(size: tuple[int, int], resize: str) -> None:
    """An image of one colour keeps it, for any shape."""
    prepared = prepare(Image.new("RGB", size, (3, 100, 250)), DataConfig.model_validate({"channels": 3, "resize": resize}), "pic")
    assert prepared.shape == (3, 8, 8)
    assert [band.unique().tolist() for band in prepared] == [[3], [100], [250]]


@pytest.mark.parametrize(("resize", "left"), [("crop", 255), ("stretch", 0)])
def test_resizing(resize: str, left: int) -> None:
    """A 32x16 image with black margins of 8 pixels: the centre square is white, the stretched image has black sides."""
    wide = Image.new("L", (32, 16), 0)
    wide.paste(255, (8, 0, 24, 16))
    prepared = prepare(wide, DataConfig.model_validate({"resize": resize}), "x")
    assert prepared.shape == (1, 8, 8)
    assert prepared[0, 4, 4] == 255
    assert prepared[0, 4, 0] == left


def test_grid_places_images_row_by_row() -> None:
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 8, 8) * 60
    grid = np.asarray(image_grid(images))[::4, ::4, 0]  # 8-pixel images are enlarged four times
    assert [grid[5, 5], grid[5, 14], grid[14, 5], grid[14, 14]] == [0, 60, 120, 180]


def test_threads_that_discard_standard_error_restore_it() -> None:
    """A thread begins while another one has redirected the file descriptor; afterwards it is what it was."""
    before, begun = os.fstat(2), threading.Event()

    def first() -> None:
        with decoding._silenced():
            begun.set()
            time.sleep(0.05)

    def second() -> None:
        begun.wait()
        with decoding._silenced():
            time.sleep(0.1)

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.path.samestat(before, os.fstat(2))
