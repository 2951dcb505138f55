"""What a teacher accepts as an image, turned into 8-bit RGB on a white background, the background of this project's renders."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from splatsense.errors import DataError, FormatError

DEEP_GREYS = {"I": 65535, "F": 1}  # white, by the first letter of Pillow's modes that it would clip to 8 bits
ImageLike = Image.Image | np.ndarray | Tensor | Path | str


def open_on_white(image: ImageLike) -> Image.Image:
    """`image` as mode RGB, composited onto white where it is transparent, turned upright by its EXIF tag.

    Args:
        image: A PIL image, the path of an image file (both also of 16-bit greys, or of float greys in [0, 1]), or an
            (H, W, 3 or 4) array or tensor: uint8, or float sRGB and opacity in [0, 1].

    Raises:
        FormatError: The file cannot be read as an image, or has greys outside [0, 1].
        DataError: The array has another shape or type, or values outside [0, 1].
    """
    if isinstance(image, (Path, str)):
        try:
            with Image.open(image) as opened:
                return _on_white(opened)
        except (OSError, SyntaxError, ValueError, DataError, Image.DecompressionBombError) as error:
            raise FormatError(f"{image}: cannot be read as an image ({error}).") from error
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    return _on_white(image if isinstance(image, Image.Image) else _from_array(image))


def _on_white(image: Image.Image) -> Image.Image:
    if not all(image.size):
        raise DataError(f"An image is {image.width} x {image.height} pixels.")
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in DEEP_GREYS:
        image = _in_8_bits(np.asarray(image, np.float64) / DEEP_GREYS[image.mode[0]])
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        raise DataError(f"An image array has shape {array.shape}, expected (H, W, 3) or (H, W, 4).")
    if np.issubdtype(array.dtype, np.floating):
        return _in_8_bits(array)
    if array.dtype != np.uint8:
        raise DataError(f"An image array is {array.dtype}, expected uint8 or a float type.")
    return Image.fromarray(array)


def _in_8_bits(array: np.ndarray) -> Image.Image:
    if not (array.min() >= 0 and array.max() <= 1):  # also catches NaN
        raise DataError(f"A float image spans [{array.min()}, {array.max()}], expected [0, 1]; clamp or divide it.")
    return Image.fromarray((array * 255).round().astype(np.uint8))
