import numpy as np
import pytest
import torch
from PIL import Image

from splatsense.errors import DataError, FormatError
from splatsense.teachers.images import open_on_white

RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.fixture
def half_transparent():
    """Red on the left, nothing on the right; what is under the transparent half is black."""
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :3] = (*RED, 255)
    return pixels


def test_transparency_shows_white(half_transparent, tmp_path):
    image = Image.fromarray(half_transparent)
    image.save(tmp_path / "rgba.png")
    image.convert("LA").save(tmp_path / "grey.png")
    floats = half_transparent.astype(np.float32) / 255
    for given in (image, half_transparent, floats, torch.from_numpy(floats), tmp_path / "rgba.png", str(tmp_path / "rgba.png")):
        opened = open_on_white(given)
        assert (opened.mode, opened.size) == ("RGB", (6, 4))
        assert (opened.getpixel((0, 0)), opened.getpixel((5, 0))) == (RED, WHITE)
    assert open_on_white(tmp_path / "grey.png").getpixel((5, 0)) == WHITE


def test_half_opacity_is_half_way_to_white(half_transparent):
    half_transparent[..., 3] = 128
    red, green, _ = open_on_white(half_transparent).getpixel((0, 0))
    assert red == 255
    assert abs(green - 127) <= 1


def test_a_palette_with_a_transparent_colour(half_transparent, tmp_path):
    Image.fromarray(half_transparent).quantize(4).save(tmp_path / "palette.gif", transparency=0)
    opened = open_on_white(tmp_path / "palette.gif")
    assert WHITE in {opened.getpixel((0, 0)), opened.getpixel((5, 0))}


def test_exif_turns_the_image_upright(half_transparent, tmp_path):
    image = Image.fromarray(half_transparent[..., :3])
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show
    image.save(tmp_path / "turned.png", exif=exif)
    opened = open_on_white(tmp_path / "turned.png")
    assert opened.size == (4, 6)
    assert (opened.getpixel((0, 0)), opened.getpixel((0, 5))) == (RED, (0, 0, 0))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"broken\.png: cannot be read"):
        open_on_white(path)


def test_a_truncated_file_is_named(photographs, tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(photographs[0].read_bytes()[:5000])
    with pytest.raises(FormatError, match=r"cut\.jpg: cannot be read"):
        open_on_white(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"missing\.jpg: cannot be read"):
        open_on_white(tmp_path / "missing.jpg")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.full((4, 4, 3), 255.0), r"spans \[255\.0, 255\.0\]"),
        (np.full((4, 4, 3), np.nan, np.float32), r"spans \[nan, nan\]"),
    ],
)
def test_arrays_that_are_no_images(array, message):
    with pytest.raises(DataError, match=message):
        open_on_white(array)


def test_an_image_without_pixels():
    with pytest.raises(DataError, match="0 x 3"):
        open_on_white(Image.new("RGB", (0, 3)))


def test_deep_greys_keep_their_tones(tmp_path):
    """Pillow alone would show all but the darkest 255 tones of 65,536 as white, and floats as black."""
    tones = np.linspace(0, 1, 16).reshape(4, 4)
    Image.fromarray((tones * 65535).round().astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray((tones * 65535).round().astype(np.int32)).save(tmp_path / "whole.tif")
    Image.fromarray(tones.astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("deep.png", "whole.tif", "float.tif"):
        opened = np.asarray(open_on_white(tmp_path / name))
        np.testing.assert_allclose(opened, np.repeat(tones[..., None] * 255, 3, 2), atol=0.51)
    Image.fromarray(tones.astype(np.float32) * 3).save(tmp_path / "bright.tif")
    with pytest.raises(FormatError, match=r"bright\.tif.*spans \[0\.0, 3\.0\]"):
        open_on_white(tmp_path / "bright.tif")
