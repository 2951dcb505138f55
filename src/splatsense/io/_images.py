"""Data stored as pixels: lossless WebP (or PNG) to and from RGBA bytes, with the dimensions checked before decoding.

Pillow decodes; before it sees a file, the size is read from the header here, because opening a WebP file with Pillow
already allocates its canvas.
"""

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image

from splatsense.errors import FormatError, LimitError

LONGEST_SIDE = 16383  # of a WebP image
DAMAGES = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, IndexError, TypeError, struct.error)

Check = Callable[[int, int], str | None]


def decode_rgba(data: bytes | bytearray, where: str, check: Check) -> np.ndarray:
    """(H, W, 4) bytes of a lossless image, alpha 255 where it has none.

    Args:
        data: the WebP or PNG file.
        where: names it in errors.
        check: given width and height, says what is wrong with them, or None. Called before anything is allocated.

    Raises:
        FormatError: it is neither format, lossy, animated, damaged, or of the wrong size.
        LimitError: it has more pixels than Pillow's `Image.MAX_IMAGE_PIXELS`.
    """
    width, height = _dimensions(data, where)
    fault = check(width, height)
    if fault:
        raise FormatError(f"{where}: has {width} x {height} pixels, {fault}. It does not belong to this file; export it again.")
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise LimitError(
            f"{where}: has {width} x {height} pixels, more than PIL.Image.MAX_IMAGE_PIXELS ({Image.MAX_IMAGE_PIXELS}). "
            "Raise that if you trust the file."
        )
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP", "PNG")) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise FormatError(f"{where}: has pixels of mode {image.mode}; 8-bit RGB or RGBA is needed. Export it again.")
            pixels = np.array(image.convert("RGBA"))
    except DAMAGES as error:
        raise FormatError(f"{where}: is damaged ({error}); copy or export the file again.") from error
    if pixels.shape != (height, width, 4):
        raise FormatError(f"{where}: its header says {width} x {height} pixels, its data otherwise; export it again.")
    return pixels


def encode_rgba(pixels: np.ndarray) -> bytes:
    """A lossless WebP file of (H, W, 4) bytes; colours under zero alpha are kept."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, exact=True, quality=75, method=4)
    return buffer.getvalue()


def _dimensions(data: bytes | bytearray, where: str) -> tuple[int, int]:
    """Width and height from the header of a still, lossless WebP or a PNG."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        return struct.unpack_from(">II", data, 16)
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise FormatError(f"{where}: is not a WebP or PNG image: it starts with {bytes(data[:12])!r}. Export the file again.")
    position, canvas = 12, None
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        body = bytes(data[position + 8 : position + 8 + min(length, 10)])
        if kind == b"VP8X" and len(body) == 10:
            if body[0] & 2:
                raise FormatError(f"{where}: is animated; a still image is needed. Export the file again.")
            canvas = (1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
        elif kind == b"VP8L" and len(body) >= 5:
            bits = int.from_bytes(body[1:5], "little")
            found = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
            if canvas not in (None, found):
                raise FormatError(f"{where}: its canvas is {canvas}, its picture {found}; it is damaged.")
            return found
        elif kind == b"VP8 ":
            raise FormatError(f"{where}: is a lossy WebP image, which garbles the data in it; export it as lossless WebP.")
        position += 8 + length + (length & 1)
    raise FormatError(f"{where}: is cut off: it holds no picture. Copy or export the file again.")
