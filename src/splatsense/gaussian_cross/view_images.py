"""Real images of a scene at the size that is rendered (GaussianCross, arXiv 2508.02172, section 3.3).

Colour is averaged over the pixels that fall into one; depth too, but a pixel whose depths lie on two surfaces gets none, since
their mean lies on neither. Intrinsics follow the size, for width and height apart.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from splatsense.cameras import Cameras
from splatsense.errors import DataError
from splatsense.frames import Frames

SAME_SURFACE = 0.05  # relative standard deviation of depths within a pixel
LEAST_VALID = 0.01  # part of a frame's depths below which it is passed over


@dataclass(frozen=True, eq=False)
class ViewImages:
    """V frames at one size.

    Attributes:
        cameras: of that size, in metres.
        color: (V, H, W, 3) sRGB in [0, 1].
        depth: (V, H, W) metres, 0 for none.
        full: (V, H', W', 3) colour as it was recorded, for a teacher.
    """

    cameras: Cameras
    color: Float[Tensor, "v h w 3"]
    depth: Float[Tensor, "v h w"]
    full: list[Float[Tensor, "h2 w2 3"]]


def draw_views(frames: Frames, count: int, size: tuple[int, int], name: str, generator: torch.Generator) -> ViewImages:
    """`count` random frames with measured depth, at `size` (width, height); some twice if there are too few.

    Raises:
        FormatError: an image is missing or damaged.
        DataError: no frame has measured depth.
    """
    order = torch.randperm(len(frames), generator=generator).tolist()
    return read_views(frames, order, count, size, name)


def read_views(frames: Frames, order: list[int], count: int, size: tuple[int, int], name: str) -> ViewImages:
    """The first `count` frames of `order` that have measured depth; the first again if there are too few."""
    indices: list[int] = []
    images: list[tuple[Tensor, Tensor, Tensor]] = []
    for index in order:
        color, depth = map(torch.from_numpy, frames.frame(index))
        if float((depth > 0).float().mean()) < LEAST_VALID:
            continue
        indices.append(index)
        images.append((resize_color(color, size), resize_depth(depth, size), color))
        if len(indices) == count:
            break
    if not indices:
        raise DataError(f"scene {name}: none of its {len(frames)} frames has measured depth; leave the scene out.")
    rows = [row % len(indices) for row in range(count)]
    cameras = resize_cameras(frames.cameras[torch.tensor([indices[row] for row in rows])], size)
    color, depth = (torch.stack([images[row][part] for row in rows]) for part in (0, 1))
    return ViewImages(cameras, color, depth, [images[row][2] for row in rows])


def resize_cameras(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """The same cameras with images of `size` (width, height)."""
    factor = torch.tensor([size[0] / cameras.width, size[1] / cameras.height, 1.0])
    return Cameras(cameras.world_to_camera, cameras.K * factor[:, None], *size)


def resize_color(color: Float[Tensor, "h w 3"], size: tuple[int, int]) -> Float[Tensor, "h2 w2 3"]:
    """Mean colours at `size` (width, height)."""
    return _mean(color.movedim(-1, 0), size).movedim(0, -1).contiguous()


def resize_depth(depth: Float[Tensor, "h w"], size: tuple[int, int]) -> Float[Tensor, "h2 w2"]:
    """Mean of the valid depths of each pixel, 0 where there are none or where they lie on several surfaces."""
    stacked = torch.stack([(depth > 0).double(), depth.double(), depth.double().square()])
    valid, mean, square = _mean(stacked, size)
    mean, square = mean / valid.clamp_min(1e-12), square / valid.clamp_min(1e-12)
    one_surface = (square - mean.square()).clamp_min(0).sqrt() <= SAME_SURFACE * mean
    return torch.where((valid > 0) & one_surface, mean, 0).to(depth.dtype)


def _mean(images: Tensor, size: tuple[int, int]) -> Tensor:
    return adaptive_avg_pool2d(images[None], (size[1], size[0]))[0]


def to_bytes(images: Float[Tensor, "*v h w 3"]) -> np.ndarray:
    """8-bit sRGB."""
    return (images.clamp(0, 1) * 255).round().byte().numpy()
