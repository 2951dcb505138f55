"""What files of cameras share: one image size out of several, and checks with errors that name the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from splatsense.cameras import Cameras
from splatsense.errors import DataError, FormatError

LARGEST_SIDE = 1 << 20  # pixels
LARGEST_VALUE = 1e15  # of coordinates and focal lengths: their squares stay finite in float32
ORTHONORMAL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class View:
    """One image of a file of cameras.

    Attributes:
        name: of the image.
        world_to_camera: (4, 4) float64, OpenCV axes.
        focal: (fx, fy) in pixels.
        center: (cx, cy) in pixels, pixel centres at +0.5.
        size: (width, height) in pixels.
    """

    name: str
    world_to_camera: np.ndarray
    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]


def cameras_of(path: Path, views: Sequence[View], size: tuple[int, int] | None) -> tuple[Cameras, list[str]]:
    """One batch of cameras and the names of their images, in order.

    Args:
        path: what errors call the file.
        views: of all sizes.
        size: (width, height); only images of this size are taken. None when all are of one size.

    Raises:
        FormatError: there are no images, several sizes and none was asked for, or a camera is damaged.
        DataError: no image has the size asked for.
    """
    if not views:
        raise FormatError(f"{path}: holds no images.")
    for view in views:
        _check(path, view)
    counts = {found: sum(view.size == found for view in views) for found in sorted({view.size for view in views})}
    listed = ", ".join(f"{count} of {width} x {height}" for (width, height), count in counts.items())
    if size is None and len(counts) > 1:
        raise FormatError(
            f"{path}: its images differ in size: {listed}. One batch of cameras has one size; read each with "
            "size=(width, height)."
        )
    width, height = size or views[0].size
    chosen = [view for view in views if view.size == (width, height)]
    if not chosen:
        raise DataError(f"{path}: no image is {width} x {height}; there are {listed}.")
    K = np.zeros((len(chosen), 3, 3))
    K[:, [0, 1], [0, 1]] = [view.focal for view in chosen]
    K[:, :2, 2] = [view.center for view in chosen]
    K[:, 2, 2] = 1
    world_to_camera = torch.from_numpy(np.stack([view.world_to_camera for view in chosen])).float()
    return Cameras(world_to_camera, torch.from_numpy(K).float(), width, height), [view.name for view in chosen]


def _check(path: Path, view: View) -> None:
    rotation = view.world_to_camera[:3, :3]
    values = [*view.world_to_camera.flat, *view.focal, *view.center]
    if not (np.abs(values) < LARGEST_VALUE).all():
        raise FormatError(f"{path}: the camera of {view.name!r} has values that are not finite, or beyond {LARGEST_VALUE:g}.")
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=ORTHONORMAL_TOLERANCE) or np.linalg.det(rotation) < 0:
        raise FormatError(f"{path}: the camera of {view.name!r} is mirrored or scaled: its matrix is not a rotation.")
    if not min(view.focal) > 0:
        raise FormatError(f"{path}: the camera of {view.name!r} has focal lengths {view.focal}; they must be positive.")
    if not 1 <= min(view.size) <= max(view.size) <= LARGEST_SIDE:
        raise FormatError(f"{path}: the image {view.name!r} has the size {view.size[0]} x {view.size[1]} pixels.")
