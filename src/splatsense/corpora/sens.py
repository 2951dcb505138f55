"""ScanNet's `.sens` recordings (version 4): a header, then frames of a camera-to-world matrix, colour and depth, then IMU data.

Design
- The file is walked, never read whole: `SensFile` notes where each frame lies and what its matrix is, and reads a frame's
  images when asked to. Sizes are checked against the file: one that is cut off is an error that names frame and offset.
- Frames whose matrix is not finite are those where tracking was lost; `tracked` leaves them out.
- Colour is JPEG, PNG or raw; depth zlib or raw 16-bit. What inflates is capped at the size of the image.
- Colour is brought to the pixels of the depth camera, whose matrix the file gives, as ScanNet's own reader joins them.

All numbers are little-endian. Header: uint32 version, uint64 length and bytes of the sensor's name, four row-major 4x4 float32
(intrinsics and extrinsics of colour, then depth), int32 colour and depth compression, uint32 width and height of colour, then
of depth, float32 depth units per metre, uint64 frames. Frame: 16 float32, uint64 time of colour and of depth, uint64 bytes of
colour and of depth, then those.
"""

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from scipy.ndimage import map_coordinates
from torch import Tensor

from splatsense.errors import DataError, FormatError
from splatsense.files import open_to_read
from splatsense.frames import DAMAGES, LONGEST_SIDE

VERSION = 4
LONGEST_NAME = 4096
LARGEST_HEADER = 1 << 16  # bytes that a compressed image may have beyond those of its pixels
COLOR_RAW, COLOR_PNG, COLOR_JPEG = 0, 1, 2
DEPTH_RAW, DEPTH_ZLIB = 0, 1
TAIL = struct.Struct("<iiIIIIfQ")
FRAME = struct.Struct("<16f4Q")
MATRICES = 4 * 64


@dataclass(frozen=True, eq=False)
class SensFrame:
    """Where a frame lies in its file.

    Attributes:
        number: of the frame, from 0.
        camera_to_world: (4, 4) float32, not finite where tracking was lost.
        offset: of the colour's first byte.
        color_size: bytes of colour; depth follows.
        depth_size: bytes of depth.
    """

    number: int
    camera_to_world: Float32[np.ndarray, "4 4"]
    offset: int
    color_size: int
    depth_size: int


class SensFile:
    """An open recording; a context manager.

    Args:
        path: the `.sens` file.

    Raises:
        FormatError: it is missing, not a `.sens` file of version 4, damaged or cut off.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._handle = open_to_read(path)
        try:
            self._size = os.fstat(self._handle.fileno()).st_size
            self._read_header()
            self.frames = self._find_frames()
        except BaseException:
            self._handle.close()
            raise

    def __enter__(self) -> "SensFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    @property
    def tracked(self) -> list[SensFrame]:
        """The frames whose camera is known."""
        return [frame for frame in self.frames if np.isfinite(frame.camera_to_world).all()]

    @property
    def K(self) -> Float[Tensor, "3 3"]:
        """Intrinsics of the depth camera for pixel centres at +0.5; the file counts from the first pixel's centre."""
        K = torch.from_numpy(self.depth_intrinsics[:3, :3].copy())
        K[:2, 2] += 0.5
        return K

    def read(self, frame: SensFrame) -> tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
        """Colour, as the depth camera would see it, and depth in metres, 0 for none.

        Raises:
            FormatError: an image is damaged or of another size than the header says.
        """
        where = f"{self.path}: frame {frame.number} at byte {frame.offset}"
        self._handle.seek(frame.offset)
        color = self._color(self._handle.read(frame.color_size), where)
        depth = self._depth(self._handle.read(frame.depth_size), where)
        return self._registered(color, depth), depth

    def _read_header(self) -> None:
        version, length = struct.unpack("<IQ", self._bytes(12, "the header"))
        if version != VERSION:
            raise FormatError(f"{self.path}: is of version {version}, not a .sens file of version {VERSION}.")
        if length > LONGEST_NAME:
            raise FormatError(f"{self.path}: damaged: the name of its sensor has {length} bytes; download it again.")
        self.sensor = self._bytes(length, "the header").decode("utf-8", "replace")
        matrices = np.frombuffer(self._bytes(MATRICES, "the header"), "<f4").reshape(4, 4, 4)
        self.color_intrinsics, self.color_extrinsics, self.depth_intrinsics, self.depth_extrinsics = matrices
        (
            self._color_kind, self._depth_kind, self._color_width, self._color_height, self.width, self.height,
            self.units_per_metre, self._count,
        ) = TAIL.unpack(self._bytes(TAIL.size, "the header"))  # fmt: skip
        sides = (self._color_width, self._color_height, self.width, self.height)
        if not 1 <= min(sides) <= max(sides) <= LONGEST_SIDE:
            raise FormatError(f"{self.path}: damaged: its images have the sides {sides}; download it again.")
        if self._color_kind not in (COLOR_RAW, COLOR_PNG, COLOR_JPEG) or self._depth_kind not in (DEPTH_RAW, DEPTH_ZLIB):
            raise FormatError(
                f"{self.path}: colour is stored in form {self._color_kind}, depth in form {self._depth_kind}; only colour 0 "
                "(raw), 1 (PNG), 2 (JPEG) and depth 0 (raw), 1 (zlib) are read."
            )
        focal = [matrix[i, i] for matrix in (self.color_intrinsics, self.depth_intrinsics) for i in (0, 1)]
        if not (np.isfinite(matrices).all() and min(focal) > 0 and 0 < self.units_per_metre < float("inf")):
            raise FormatError(f"{self.path}: its header has no usable intrinsics or depth unit; download it again.")

    def _find_frames(self) -> list[SensFrame]:
        frames = []
        for number in range(self._count):
            start = self._handle.tell()
            what = f"frame {number} of {self._count}"
            *matrix, _, _, color_size, depth_size = FRAME.unpack(self._bytes(FRAME.size, what))
            offset = start + FRAME.size
            if max(color_size - LARGEST_HEADER, 0) > 3 * self._color_width * self._color_height or (
                max(depth_size - LARGEST_HEADER, 0) > 2 * self.width * self.height
            ):
                raise FormatError(
                    f"{self.path}: damaged: {what} at byte {start} declares {color_size} bytes of colour and {depth_size} of "
                    "depth, more than such images have; download it again."
                )
            if offset + color_size + depth_size > self._size:
                raise self._cut_off(what, start)
            camera_to_world = np.array(matrix, np.float32).reshape(4, 4)
            frames.append(SensFrame(number, camera_to_world, offset, color_size, depth_size))
            self._handle.seek(offset + color_size + depth_size)
        return frames

    def _bytes(self, count: int, what: str) -> bytes:
        start = self._handle.tell()
        data = self._handle.read(count)
        if len(data) < count:
            raise self._cut_off(what, start)
        return data

    def _cut_off(self, what: str, start: int) -> FormatError:
        return FormatError(
            f"{self.path}: is cut off: {what} begins at byte {start} and reaches past the end at {self._size}; "
            "download it again."
        )

    def _color(self, data: bytes, where: str) -> np.ndarray:
        size = (self._color_width, self._color_height)
        if self._color_kind == COLOR_RAW:
            if len(data) != size[0] * size[1] * 3:
                raise FormatError(f"{where}: {len(data)} bytes of raw colour do not make {size[0]} x {size[1]} pixels.")
            return np.frombuffer(data, np.uint8).reshape(size[1], size[0], 3)
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.size != size:
                    raise FormatError(f"{where}: its colour has {image.width} x {image.height} pixels, the header {size}.")
                return np.asarray(image.convert("RGB"))
        except DAMAGES as error:
            raise FormatError(f"{where}: its colour image is damaged ({error}); download the file again.") from error

    def _depth(self, data: bytes, where: str) -> np.ndarray:
        expected = 2 * self.width * self.height
        if self._depth_kind == DEPTH_ZLIB:
            try:
                data = zlib.decompressobj().decompress(data, expected + 1)
            except zlib.error as error:
                raise FormatError(f"{where}: its depth image is damaged ({error}); download the file again.") from error
        if len(data) != expected:
            raise FormatError(f"{where}: its depth is not {self.width} x {self.height} pixels of 16 bits.")
        values = np.frombuffer(data, "<u2").reshape(self.height, self.width)
        depth = values.astype(np.float32) / np.float32(self.units_per_metre)
        depth[values == np.iinfo(np.uint16).max] = 0
        return depth

    def _registered(self, color: np.ndarray, depth: np.ndarray) -> np.ndarray:
        return register_color(color, self.color_intrinsics, depth, self.depth_intrinsics, self.depth_extrinsics)


def register_color(
    color: UInt8[np.ndarray, "hc wc 3"],
    color_intrinsics: Float32[np.ndarray, "4 4"],
    depth: Float32[np.ndarray, "h w"],
    depth_intrinsics: Float32[np.ndarray, "4 4"],
    depth_to_color: Float32[np.ndarray, "4 4"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The colours that the pixels of a depth image see, by bilinear interpolation; black outside of the colour image.

    Args:
        color_intrinsics: with pixel centres at whole numbers, as are `depth_intrinsics`.
        depth_to_color: from the axes of the depth camera to those of the colour camera. Where it shifts, pixels without
            depth are taken to lie at the median.
    """
    height, width = depth.shape
    known = depth > 0
    z = np.where(known, depth, np.median(depth[known]) if known.any() else 1.0)
    x = (np.arange(width) - depth_intrinsics[0, 2]) / depth_intrinsics[0, 0] * z
    y = (np.arange(height)[:, None] - depth_intrinsics[1, 2]) / depth_intrinsics[1, 1] * z
    px, py, pz = np.einsum("ij,jhw->ihw", depth_to_color[:3, :3], np.stack([x, y, z])) + depth_to_color[:3, 3, None, None]
    if not (pz > 0).all():
        raise DataError("register_color: the colour camera looks away from what the depth camera sees; check the extrinsics.")
    # a finer colour image is averaged first, or pixels between the samples would be lost
    factor = max(1, int(color_intrinsics[0, 0] / depth_intrinsics[0, 0]))
    reduced = np.asarray(Image.fromarray(color).reduce(factor), np.float32)
    columns = (color_intrinsics[0, 0] * px / pz + color_intrinsics[0, 2] + 0.5) / factor - 0.5
    rows = (color_intrinsics[1, 1] * py / pz + color_intrinsics[1, 2] + 0.5) / factor - 0.5
    channels = [map_coordinates(reduced[..., c], [rows, columns], order=1, mode="nearest") for c in range(3)]
    seen = np.stack(channels, axis=-1).round().clip(0, 255).astype(np.uint8)
    inside = (np.abs(rows + 0.5 - len(reduced) / 2) <= len(reduced) / 2) & (
        np.abs(columns + 0.5 - reduced.shape[1] / 2) <= reduced.shape[1] / 2
    )
    return seen * inside[..., None]
