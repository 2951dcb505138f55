"""transforms.json, the cameras of NeRF, instant-ngp and nerfstudio.

Design
- `transform_matrix` is camera to world with OpenGL axes (x right, y up, z backwards); ours is world to camera with y down and
  z forwards. The world is left as the file has it.
- Intrinsics stand at the top or in a frame, which goes first: `fl_x fl_y cx cy w h`, or `camera_angle_x` for the focal length.
  Principal points count from the image's corner, as ours. A size that is not given is that of the image beside the file.
- nerfstudio turns a COLMAP world before it writes the file and notes that as `applied_transform`; `original=True` turns the
  cameras back, so that they fit Gaussians trained on the COLMAP model itself.
- Lens distortion other than 0 is an error that says to undistort.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from splatsense.cameras import Cameras
from splatsense.errors import DataError, FormatError
from splatsense.files import atomic_write, open_to_read
from splatsense.io._camera_parts import LARGEST_VALUE, View, cameras_of
from splatsense.io._images import DAMAGES
from splatsense.io._json import Json, number, objects, parse_object

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
IMAGE_SUFFIXES = ("", ".png", ".jpg", ".jpeg")


def read_transforms_json(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, original: bool = False
) -> tuple[Cameras, list[str]]:
    """The cameras of a transforms.json and the paths of their images as it has them, in its order.

    Args:
        path: the file.
        size: (width, height) of the images to take, needed when they differ.
        original: undo `applied_transform`, if there is one.

    Raises:
        FormatError: the file is missing or damaged, sizes differ, or a camera has distortion.
        DataError: no image has the size asked for.
    """
    path = Path(path)
    with open_to_read(path) as handle:
        data = handle.read()
    content = parse_object(data, str(path))
    if "frames" not in content:
        raise FormatError(f'{path}: has no list of "frames"; is it a transforms.json?')
    frames = objects(content, "frames", str(path))
    unturned = np.eye(4)
    if original and "applied_transform" in content:
        unturned = _matrix(path, "applied_transform", content["applied_transform"])
    return cameras_of(path, [_view(path, index, content | frame, unturned) for index, frame in enumerate(frames)], size)


def write_transforms_json(
    path: str | os.PathLike[str],
    cameras: Cameras,
    names: Sequence[str],
    frame_extras: Sequence[dict[str, Any]] = (),
    extras: dict[str, Any] | None = None,
) -> None:
    """Write cameras as a transforms.json that `read_transforms_json`, nerfstudio and instant-ngp read.

    Args:
        path: the file.
        cameras: V cameras.
        names: V paths of images, as seen from the file.
        frame_extras: V more entries each, such as `depth_file_path`.
        extras: more entries at the top.

    Raises:
        DataError: there are not as many names as cameras.
        FormatError: `path` cannot be written.
    """
    if len(names) != len(cameras) or len(frame_extras) not in (0, len(cameras)):
        raise DataError(f"{path}: {len(cameras)} cameras, but {len(names)} names and {len(frame_extras)} extras.")
    to_world = np.linalg.inv(cameras.world_to_camera.detach().double().cpu().numpy()) @ OPENGL_TO_OPENCV
    frames = []
    for index, name in enumerate(names):
        K = cameras.K[index].tolist()
        frame = {"file_path": name, "fl_x": K[0][0], "fl_y": K[1][1], "cx": K[0][2], "cy": K[1][2]}
        frame |= frame_extras[index] if frame_extras else {}
        frames.append(frame | {"transform_matrix": to_world[index].tolist()})
    content = {"camera_model": "PINHOLE", "w": cameras.width, "h": cameras.height, **(extras or {}), "frames": frames}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _view(path: Path, index: int, frame: Json, unturned: np.ndarray) -> View:
    """The view of one frame, whose entries are complete: its own, then those at the top of the file."""
    place = f"frame {index}"
    name = frame.get("file_path")
    if not isinstance(name, str):
        raise FormatError(f'{path}: {place} has no "file_path".')
    model = frame.get("camera_model", "PINHOLE")
    distorted = [key for key in DISTORTION if key in frame and number(frame, key, f"{path}: {place}") != 0]
    if model not in PINHOLES or frame.get("is_fisheye") or distorted:
        what = f"coefficients {', '.join(distorted)}" if distorted else f"model {model}"
        raise FormatError(
            f"{path}: {place} ({name}) has lens distortion ({what}). Undistort the images, for example with "
            "`colmap image_undistorter`, and write their cameras."
        )
    world_to_camera = OPENGL_TO_OPENCV @ _inverse(path, place, frame.get("transform_matrix")) @ unturned
    width, height = _size(path, place, frame, name)
    return View(name, world_to_camera, *_intrinsics(path, place, frame, width, height), (width, height))


def _intrinsics(
    path: Path, place: str, frame: Json, width: int, height: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Focal lengths and principal point."""
    focal: dict[str, float] = {}
    for axis, side in (("x", width), ("y", height)):
        if f"fl_{axis}" in frame:
            focal[axis] = number(frame, f"fl_{axis}", f"{path}: {place}")
        elif f"camera_angle_{axis}" in frame:
            angle = number(frame, f"camera_angle_{axis}", f"{path}: {place}")
            if not 0 < angle < math.pi:
                raise FormatError(f"{path}: {place} has camera_angle_{axis} {angle}; it must lie between 0 and pi.")
            focal[axis] = 0.5 * side / math.tan(0.5 * angle)
    if not focal:
        raise FormatError(f"{path}: {place} has no focal length: neither fl_x nor camera_angle_x.")
    fx = focal.get("x", focal.get("y", 0.0))
    cx = number(frame, "cx", f"{path}: {place}") if "cx" in frame else width / 2
    cy = number(frame, "cy", f"{path}: {place}") if "cy" in frame else height / 2
    return (fx, focal.get("y", fx)), (cx, cy)


def _size(path: Path, place: str, frame: Json, name: str) -> tuple[int, int]:
    """As the file says, or of the image beside it."""
    if "w" in frame and "h" in frame:
        width, height = number(frame, "w", f"{path}: {place}"), number(frame, "h", f"{path}: {place}")
        if width != round(width) or height != round(height):
            raise FormatError(f"{path}: {place} has the size {width} x {height} pixels.")
        return int(width), int(height)
    for suffix in IMAGE_SUFFIXES:
        image = path.parent / f"{name}{suffix}"
        if os.path.isfile(image):  # Path.is_file raises where a name is too long
            try:
                with Image.open(image) as opened:
                    return opened.size
            except (*DAMAGES, Image.DecompressionBombError) as error:
                raise FormatError(f"{image}: cannot be read as an image ({error}).") from error
    raise FormatError(f"{path}: {place} has no w and h, and its image {name!r} is not beside the file. Add w and h.")


def _inverse(path: Path, place: str, rows: Any) -> np.ndarray:
    try:
        return np.linalg.inv(_matrix(path, place, rows))
    except np.linalg.LinAlgError as error:
        raise FormatError(f"{path}: {place} has a transform_matrix that has no inverse.") from error


def _matrix(path: Path, place: str, rows: Any) -> np.ndarray:
    """(4, 4) float64 of 3 or 4 rows of 4 numbers."""
    try:
        matrix = np.array(rows, np.float64)
    except (ValueError, TypeError, OverflowError):
        matrix = np.zeros(0)
    if matrix.shape not in ((3, 4), (4, 4)) or not (np.abs(matrix) < LARGEST_VALUE).all():
        raise FormatError(f"{path}: {place} has no matrix of 3 or 4 rows of 4 finite numbers.")
    return np.concatenate([matrix[:3], [[0.0, 0.0, 0.0, 1.0]]])
