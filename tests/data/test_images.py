import numpy as np
import pytest
import torch
from PIL import Image

from amgen.config import DataConfig
from amgen.data import make_grid, to_float, to_uint8
from amgen.data.images import prepare
from amgen.errors import UserError


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
    with pytest.raises(UserError, match="more than 8 bits a channel"):
        prepare(Image.fromarray(np.zeros((8, 8), dtype=np.uint16)), gray, "pic")


@pytest.mark.parametrize(("resize", "left"), [("crop", 255), ("stretch", 0)])
def test_resizing(resize: str, left: int) -> None:
    """A 32x16 image with black margins of 8 pixels: the centre square is white, the stretched picture has black sides."""
    wide = Image.new("L", (32, 16), 0)
    wide.paste(255, (8, 0, 24, 16))
    prepared = prepare(wide, DataConfig.model_validate({"resize": resize}), "x")
    assert prepared.shape == (1, 8, 8)
    assert prepared[0, 4, 4] == 255
    assert prepared[0, 4, 0] == left


def test_grid_places_images_row_by_row() -> None:
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 8, 8) * 60
    grid = np.asarray(make_grid(images))[::4, ::4, 0]  # 8-pixel images are enlarged four times
    assert [grid[5, 5], grid[5, 14], grid[14, 5], grid[14, 14]] == [0, 60, 120, 180]
