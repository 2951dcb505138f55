"""COLMAP sparse models: cameras.bin + images.bin or cameras.txt + images.txt, and the points in points3D.

Design
- COLMAP's conventions are ours: OpenCV axes, world to camera, quaternions wxyz, pixel centres at +0.5. Nothing is converted.
- Cameras without distortion are exact: PINHOLE, SIMPLE_PINHOLE, and the radial and OpenCV models when every coefficient is 0.
  Others are an error that says how to undistort: a rasteriser of pinhole images cannot show them.
- Images are in the order of their names. Rigs and frames (COLMAP 3.12 and later) are not needed: images hold their poses.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatsense.cameras import Cameras
from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.io._camera_parts import LARGEST_VALUE, View, cameras_of
from splatsense.io._text_table import is_number
from splatsense.io.point_cloud import PointCloud


@dataclass(frozen=True)
class Model:
    """A camera model of COLMAP.

    Attributes:
        name: as in the text files.
        parameters: how many.
        focals: how many of them, the first, are focal lengths: 1 or 2. Two for the principal point follow.
        perspective: whether it is a pinhole camera when all other parameters are 0.
    """

    name: str
    parameters: int
    focals: int
    perspective: bool


MODELS = (
    Model("SIMPLE_PINHOLE", 3, 1, True), Model("PINHOLE", 4, 2, True), Model("SIMPLE_RADIAL", 4, 1, True),
    Model("RADIAL", 5, 1, True), Model("OPENCV", 8, 2, True), Model("OPENCV_FISHEYE", 8, 2, False),
    Model("FULL_OPENCV", 12, 2, True), Model("FOV", 5, 2, False), Model("SIMPLE_RADIAL_FISHEYE", 4, 1, False),
    Model("RADIAL_FISHEYE", 5, 1, False), Model("THIN_PRISM_FISHEYE", 12, 2, False),
    Model("RAD_TAN_THIN_PRISM_FISHEYE", 16, 2, False),
)  # fmt: skip
"""By the number that stands for it in binary files."""

UNDISTORT = "Run `colmap image_undistorter` and read the model it writes."
LONGEST_NAME = 4096


@dataclass(frozen=True)
class Intrinsics:
    """One line of cameras.txt: the model, the size in pixels and the model's parameters."""

    model: Model
    size: tuple[int, int]
    parameters: tuple[float, ...]


def read_colmap(folder: str | os.PathLike[str], size: tuple[int, int] | None = None) -> tuple[Cameras, list[str]]:
    """The cameras of a COLMAP model and the names of their images.

    Args:
        folder: with cameras and images as .bin or .txt, or one with such a folder as `sparse/0` or `sparse`.
        size: (width, height) of the images to take, needed when they differ.

    Raises:
        FormatError: files are missing, cut off or damaged, sizes differ, or a camera has distortion.
        DataError: no image has the size asked for.
    """
    path = find_model(Path(folder))
    binary = (path / "images.bin").is_file()
    suffix = ".bin" if binary else ".txt"
    intrinsics = dict((_cameras_bin if binary else _cameras_txt)(path / f"cameras{suffix}"))
    images = path / f"images{suffix}"
    views = []
    for name, camera, pose in (_images_bin if binary else _images_txt)(images):
        if camera not in intrinsics:
            raise FormatError(
                f"{images}: the image {name!r} was taken by camera {camera}, which cameras{suffix} does not hold."
            )
        views.append(_view(images, name, intrinsics[camera], pose))
    return cameras_of(images, sorted(views, key=lambda view: view.name), size)


def read_colmap_points(folder: str | os.PathLike[str]) -> PointCloud:
    """The points of a COLMAP model with their colours, in the frame of its cameras.

    Raises:
        FormatError: points3D is missing, cut off or damaged.
        DataError: no point is usable.
    """
    path = find_model(Path(folder))
    binary = (path / "points3D.bin").is_file()
    path /= "points3D.bin" if binary else "points3D.txt"
    rows = np.array(list((_points_bin if binary else _points_txt)(path)), np.float64).reshape(-1, 6)
    if not len(rows):
        raise FormatError(f"{path}: holds no points.")
    with np.errstate(over="ignore"):
        values = rows.astype(np.float32)  # as the cameras: float32, and not moved away from them
    return PointCloud.from_file(path, values[:, :3], values[:, 3:] / 255, None)


def find_model(folder: Path) -> Path:
    """The folder itself, or `sparse/0` or `sparse` in it, whichever holds a model. Raises FormatError when none does."""
    for candidate in (folder, folder / "sparse" / "0", folder / "sparse"):
        if any((candidate / f"images{suffix}").is_file() for suffix in (".bin", ".txt")):
            return candidate
    raise FormatError(f"{folder}: holds no COLMAP model: no images.bin or images.txt here or in sparse/0.")


def _view(path: Path, name: str, camera: Intrinsics, pose: tuple[float, ...]) -> View:
    model, values = camera.model, camera.parameters
    if not model.perspective or any(values[model.focals + 2 :]):
        raise FormatError(f"{path}: the image {name!r} has lens distortion (model {model.name}). {UNDISTORT}")
    focal = (values[0], values[model.focals - 1])
    center = (values[model.focals], values[model.focals + 1])
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = _rotation(path, name, np.array(pose[:4]))
    world_to_camera[:3, 3] = pose[4:]
    return View(name, world_to_camera, focal, center, camera.size)


def _rotation(path: Path, name: str, quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) float64 of a quaternion wxyz."""
    if not 1e-9 < np.abs(quaternion).max() < LARGEST_VALUE:
        raise FormatError(f"{path}: the image {name!r} has the quaternion {quaternion}, which is no rotation.")
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


class _Binary:
    """Reads little-endian values one after the other; the end of the file is an error that says where."""

    def __init__(self, path: Path) -> None:
        self.path, self.position = path, 0
        with open_to_read(path) as handle:
            self.data = handle.read()

    def take(self, layout: str) -> tuple:
        size = struct.calcsize(layout)
        self.skip(size)
        return struct.unpack_from(layout, self.data, self.position - size)

    def skip(self, size: int) -> None:
        self.position += size
        if self.position > len(self.data):
            raise FormatError(
                f"{self.path}: cut off: byte {self.position} is needed, but the file has {len(self.data)} bytes. Copy it again."
            )

    def count(self, smallest: int) -> int:
        """A number of things of at least `smallest` bytes each, which must fit the file."""
        (count,) = self.take("<Q")
        if count * smallest > len(self.data) - self.position:
            raise FormatError(
                f"{self.path}: cut off or damaged: byte {self.position - 8} promises {count} entries of at least {smallest} "
                f"bytes, but the file has {len(self.data)} bytes. Copy it again."
            )
        return count

    def text(self) -> str:
        end = self.data.find(b"\0", self.position, self.position + LONGEST_NAME)
        if end < 0:
            raise FormatError(f"{self.path}: cut off or damaged: no name ends after byte {self.position}. Copy it again.")
        name = self.data[self.position : end].decode("utf-8", "replace")
        self.position = end + 1
        return name


def _cameras_bin(path: Path) -> Iterator[tuple[int, Intrinsics]]:
    binary = _Binary(path)
    for _ in range(binary.count(smallest=24)):
        number, model, width, height = binary.take("<IiQQ")
        if not 0 <= model < len(MODELS):
            raise FormatError(f"{path}: camera {number} is of model {model}, which is not known.")
        yield number, Intrinsics(MODELS[model], (width, height), binary.take(f"<{MODELS[model].parameters}d"))


def _images_bin(path: Path) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    binary = _Binary(path)
    for _ in range(binary.count(smallest=73)):
        _, *pose, camera = binary.take("<I7dI")
        name = binary.text()
        binary.skip(24 * binary.count(smallest=24))
        yield name, camera, tuple(pose)


def _points_bin(path: Path) -> Iterator[tuple[float, ...]]:
    binary = _Binary(path)
    for _ in range(binary.count(smallest=51)):
        _, x, y, z, red, green, blue, _ = binary.take("<Q3d3Bd")
        binary.skip(8 * binary.count(smallest=8))
        yield x, y, z, red, green, blue


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with open_to_read(path) as handle:
        yield from enumerate(handle.read().decode("utf-8", "replace").splitlines(), 1)


def _numbers(path: Path, number: int, words: list[str], expected: int) -> tuple[float, ...]:
    if len(words) < expected or not all(map(is_number, words[:expected])):
        raise FormatError(f"{path}: line {number} is damaged: {expected} numbers expected, got {' '.join(words)[:80]!r}.")
    return tuple(map(float, words[:expected]))


def _cameras_txt(path: Path) -> Iterator[tuple[int, Intrinsics]]:
    models = {model.name: model for model in MODELS}
    for number, line in _lines(path):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 4 or words[1] not in models or not all(word.isdecimal() for word in (words[0], *words[2:4])):
            raise FormatError(f"{path}: line {number} is not a camera: {line[:80]!r}.")
        model = models[words[1]]
        size = (int(words[2][:18]), int(words[3][:18]))
        yield int(words[0]), Intrinsics(model, size, _numbers(path, number, words[4:], model.parameters))


def _images_txt(path: Path) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    lines = _lines(path)
    for number, line in lines:
        words = line.split(maxsplit=9)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 10 or not words[8].isdecimal():
            raise FormatError(
                f"{path}: line {number} is not an image: {line[:80]!r}. Each has ten values, and a line of points."
            )
        yield words[9], int(words[8]), _numbers(path, number, words[1:8], 7)
        next(lines, None)  # the points seen in it, possibly none


def _points_txt(path: Path) -> Iterator[tuple[float, ...]]:
    for number, line in _lines(path):
        words = line.split(maxsplit=8)
        if words and not words[0].startswith("#"):
            yield _numbers(path, number, words[1:], 6)
