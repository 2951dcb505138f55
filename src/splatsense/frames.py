"""`Frames`: posed colour and depth images of a scene, read from their files when asked for; `FrameWriter` makes such files.

Design
- Depth is a 16-bit PNG: `depth_scale` times a value is metres along the camera's z axis. 0 is no measurement, and so is 65535:
  recorders write it for "invalid" (7-Scenes) or "too far". Both read as 0.
- Colour and depth are of one size and seen by the same camera. Importers bring recordings to that form.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8
from PIL import Image
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.errors import DataError, FormatError

NO_DEPTH = (0, 65535)
DEPTH_MODES = ("I;16", "I;16B", "I;16L", "I")
ORTHONORMAL_TOLERANCE = 1e-3
SMALLEST_DETERMINANT = 1e-9
LONGEST_SIDE = 1 << 14
DAMAGES = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, Image.DecompressionBombError)


@dataclass(frozen=True, eq=False)
class Frames:
    """V posed RGB-D images.

    Attributes:
        cameras: V cameras, world in metres.
        color: V image files.
        depth: V 16-bit PNG files of the same size.
        depth_scale: metres in one unit of the depth files.

    Raises:
        DataError: numbers of files and cameras differ, a camera is mirrored, scaled or skewed, or a value is out of range.
    """

    cameras: Cameras
    color: tuple[Path, ...]
    depth: tuple[Path, ...]
    depth_scale: float = 0.001

    def __post_init__(self) -> None:
        if not len(self.cameras) == len(self.color) == len(self.depth) or not self.color:
            raise DataError(
                f"Frames: {len(self.cameras)} cameras, {len(self.color)} colour and {len(self.depth)} depth files; "
                "give at least one, and the same number of each."
            )
        if not 0 < self.depth_scale < float("inf"):
            raise DataError(f"Frames.depth_scale must be metres per unit, above 0; got {self.depth_scale}.")
        check_cameras(self.cameras, [path.name for path in self.color])

    def __len__(self) -> int:
        return len(self.color)

    def frame(self, index: int) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
        """Colour, sRGB in [0, 1], and depth in metres with 0 where there is none, of one frame.

        Raises:
            FormatError: a file is missing, damaged, or of another size or kind.
        """
        size = (self.cameras.width, self.cameras.height)
        color = read_color(self.color[index], size).astype(np.float32) / np.float32(255)
        return color, read_depth(self.depth[index], size, self.depth_scale)

    def select(self, indices: Sequence[int]) -> "Frames":
        """The frames with these indices, in that order."""
        return Frames(
            self.cameras[torch.tensor(indices, dtype=torch.int64)],
            tuple(self.color[index] for index in indices),
            tuple(self.depth[index] for index in indices),
            self.depth_scale,
        )


def check_cameras(cameras: Cameras, names: Sequence[str]) -> None:
    """Raise DataError when a camera is not a rigid transform with positive focal lengths; it names the image."""
    rotation = cameras.world_to_camera[:, :3, :3].double()
    finite = cameras.world_to_camera.isfinite().flatten(1).all(1) & cameras.K.isfinite().flatten(1).all(1)
    gram = rotation @ rotation.transpose(1, 2) - torch.eye(3, dtype=torch.float64)
    rigid = gram.abs().flatten(1).amax(1) < ORTHONORMAL_TOLERANCE
    last_row = (cameras.world_to_camera[:, 3] == torch.tensor([0.0, 0.0, 0.0, 1.0])).all(1)
    K, pinhole = cameras.K, torch.zeros_like(cameras.K)
    pinhole[:, [0, 1, 0, 1], [0, 1, 2, 2]] = K[:, [0, 1, 0, 1], [0, 1, 2, 2]]
    pinhole[:, 2, 2] = 1
    faults = {
        "holds values that are not finite": ~finite,
        "is scaled or sheared: its matrix is not a rotation and a shift. Check that it is camera to world or the reverse": (
            ~(rigid & last_row)
        ),
        "is mirrored (left-handed); flip one axis of its matrix": torch.linalg.det(rotation) < 0,
        "has no positive focal length": ~((K[:, 0, 0] > 0) & (K[:, 1, 1] > 0)),
        "is skewed, or its K is not that of a pinhole camera; undistort the images": (pinhole != K).flatten(1).any(1),
    }
    for fault, found in faults.items():
        if bool(found.any()):
            raise DataError(f"the camera of {names[int(found.nonzero()[0])]} {fault}.")


def invert_cameras(camera_to_world: Float64[np.ndarray, "v 4 4"], names: Sequence[str]) -> Float32[Tensor, "v 4 4"]:
    """World to camera of camera to world, in OpenCV axes.

    Args:
        names: of the images, for errors.

    Raises:
        DataError: a matrix has no inverse.
    """
    singular = np.abs(np.linalg.det(camera_to_world)) < SMALLEST_DETERMINANT
    if singular.any():
        raise DataError(f"the camera of {names[int(singular.argmax())]} has a matrix without inverse; export it again.")
    inverse = np.linalg.inv(camera_to_world)
    is_affine = np.abs(inverse[:, 3] - [0, 0, 0, 1]).max(1) < ORTHONORMAL_TOLERANCE
    inverse[is_affine, 3] = [0, 0, 0, 1]
    return torch.from_numpy(inverse).float()


def read_color(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as 8-bit sRGB.

    Args:
        size: (width, height) that it must have.

    Raises:
        FormatError: it is missing, damaged or of another size.
    """
    with _open_image(path, size) as image:
        return np.asarray(_decoded(path, image).convert("RGB"))


def read_depth(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, depth_scale: float = 0.001
) -> Float32[np.ndarray, "h w"]:
    """A 16-bit depth image in metres, 0 where there is no measurement.

    Args:
        size: (width, height) that it must have.
        depth_scale: metres in one unit of the file.

    Raises:
        FormatError: it is missing, damaged, of another size, or not 16-bit.
    """
    with _open_image(path, size) as image:
        if image.mode not in DEPTH_MODES:
            raise FormatError(f"{path}: has pixels of kind {image.mode}; depth must be a 16-bit grey PNG. Export it again.")
        values = np.asarray(_decoded(path, image))
    depth = values.astype(np.float32) * np.float32(depth_scale)
    depth[(values <= NO_DEPTH[0]) | (values >= NO_DEPTH[1])] = 0
    return depth


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) of an image file. Raises FormatError when it is missing or no image."""
    with _open_image(path, None) as image:
        return image.size


def _open_image(path: str | os.PathLike[str], size: tuple[int, int] | None) -> Image.Image:
    try:
        image = Image.open(path)
    except FileNotFoundError as error:
        raise FormatError(f"{path}: does not exist; copy it again, or take the frame out of the list.") from error
    except DAMAGES as error:
        raise FormatError(f"{path}: cannot be read as an image ({error}); copy it again.") from error
    if (size is not None and image.size != size) or max(image.size) > LONGEST_SIDE:
        found = f"{image.width} x {image.height}"
        image.close()
        expected = f"{size[0]} x {size[1]}" if size else f"at most {LONGEST_SIDE} a side"
        raise FormatError(f"{path}: has {found} pixels, expected {expected}.")
    return image


def _decoded(path: str | os.PathLike[str], image: Image.Image) -> Image.Image:
    try:
        image.load()
    except DAMAGES as error:
        raise FormatError(f"{path}: is cut off or damaged ({error}); copy it again.") from error
    return image


class FrameWriter:
    """Writes frames one after the other into a folder: `images/000000.png` (or .jpg) and `depth/000000.png`.

    Args:
        folder: exists and holds no frames yet.
        depth_scale: metres in one unit of the depth files.
        jpeg_quality: 1 to 95 for JPEG; 0 for PNG, which keeps every bit of the colours.
    """

    def __init__(self, folder: str | os.PathLike[str], depth_scale: float = 0.001, jpeg_quality: int = 0) -> None:
        self.folder, self.depth_scale, self.jpeg_quality = Path(folder), depth_scale, jpeg_quality
        self._color: list[Path] = []
        self._depth: list[Path] = []
        self._world_to_camera: list[Tensor] = []
        self._K: list[Tensor] = []
        self._size: tuple[int, int] | None = None
        for name in ("images", "depth"):
            (self.folder / name).mkdir(exist_ok=True)

    def __len__(self) -> int:
        return len(self._color)

    def add(
        self,
        color: UInt8[np.ndarray, "h w 3"],
        depth: Float[np.ndarray, "h w"],
        world_to_camera: Float[Tensor, "4 4"],
        K: Float[Tensor, "3 3"],
    ) -> None:
        """Write one frame: 8-bit sRGB, depth in metres with 0 for none (rounded to `depth_scale`), and its camera.

        Raises:
            DataError: its size is not that of the frames before.
        """
        size = (color.shape[1], color.shape[0])
        if self._size not in (None, size):
            raise DataError(f"{self.folder}: a frame of {size[0]} x {size[1]} pixels after some of {self._size}.")
        self._size = size
        number = f"{len(self):06d}"
        color_path = self.folder / "images" / f"{number}{'.jpg' if self.jpeg_quality else '.png'}"
        if self.jpeg_quality:
            Image.fromarray(color).save(color_path, quality=self.jpeg_quality, subsampling=0)
        else:
            Image.fromarray(color).save(color_path, compress_level=1)
        depth_path = self.folder / "depth" / f"{number}.png"
        units = np.nan_to_num(depth / self.depth_scale, nan=0.0, posinf=0.0, neginf=0.0).round()
        units = np.where((units > 0) & (units < NO_DEPTH[1]), units, 0)
        Image.fromarray(units.astype(np.uint16)).save(depth_path, compress_level=1)
        self._color.append(color_path)
        self._depth.append(depth_path)
        self._world_to_camera.append(world_to_camera.float())
        self._K.append(K.float())

    def frames(self) -> Frames:
        """All frames written. Raises DataError when there are none."""
        if self._size is None:
            raise DataError(f"{self.folder}: no frame was written.")
        cameras = Cameras(torch.stack(self._world_to_camera), torch.stack(self._K), *self._size)
        return Frames(cameras, tuple(self._color), tuple(self._depth), self.depth_scale)
