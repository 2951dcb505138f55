"""Pictures of objects: a camera that frames them, light that shows their shape, images of colour, depth and alpha.

Design
- An object is drawn in the common frame (`Gaussians.normalized`), so that a part measured in millimetres and a house in metres
  look alike. A few floaters do not count for its size.
- A first small rendering finds where the object is seen; the cameras then zoom to fill the picture with it, all by the same
  amount, so that a turntable does not breathe.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.cameras import Cameras
from splatsense.gaussians import Gaussians, quaternion_to_matrix

OUTLIER_FRACTION = 0.002  # of the means at both ends of every axis, which do not count for the object's size
LIGHT = (-0.35, -0.8, -0.5)  # towards the light, in the camera's axes: left, above, behind the camera
AMBIENT = 0.7
PROBE_SIZE, PROBE_FIELD, VISIBLE = 96, 1.5, 0.1  # a first small, wider picture finds the object: pixels of at least this alpha
FILL = 0.9  # of the picture's side that the object's larger side takes


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of an object.

    Attributes:
        color: (H, W, 3) float32 sRGB in [0, 1], over black.
        alpha: (H, W) in [0, 1].
        depth: (H, W) along the camera's z axis, 0 where nothing is.
    """

    color: Float[Tensor, "h w 3"]
    alpha: Float[Tensor, "h w"]
    depth: Float[Tensor, "h w"]

    def over(self, background: tuple[int, int, int] | None) -> np.ndarray:
        """(H, W, 3) uint8 over an 8-bit colour, or (H, W, 4) with straight alpha where `background` is None."""
        if background is None:
            color = (self.color / self.alpha[..., None].clamp(min=1e-6)).clamp(0, 1)
            return _to_bytes(torch.cat([color, self.alpha[..., None]], dim=-1))
        behind = torch.tensor(background, dtype=torch.float32) / 255
        return _to_bytes((self.color + (1 - self.alpha)[..., None] * behind).clamp(0, 1))


def draw(gaussians: Gaussians, camera: Cameras, shaded: bool = False, ambient: float = AMBIENT) -> Picture:
    """The picture that the first of `camera` takes.

    Args:
        gaussians: in the frame of the camera.
        camera: one camera.
        shaded: with light from above the camera's left shoulder, which shows the shape of an object of one colour.
        ambient: how bright a surface is that this light does not reach, 0 to 1.
    """
    from splatsense.render import render

    features = _normals(gaussians, camera.centers[0]) if shaded else None
    rendering = render(gaussians, camera[:1], features=features)
    color = rendering.color[0]
    if shaded:
        light = camera.world_to_camera[0, :3, :3].to(color).T @ normalize(torch.tensor(LIGHT), dim=0)
        facing = (normalize(rendering.features[0], dim=-1) @ light).clamp(min=0)
        color = color * (ambient + (1 - ambient) * facing)[..., None]
    return Picture(color, rendering.alpha[0], rendering.depth[0])


def zoomed(gaussians: Gaussians, cameras: Cameras) -> Cameras:
    """Square cameras with the same positions that fill their pictures with the object, by one zoom and shift for all."""
    from splatsense.render import render

    size = cameras.width
    K = cameras.K.clone()
    K[:, :2, :2] *= PROBE_SIZE / size / PROBE_FIELD
    K[:, :2, 2] *= PROBE_SIZE / size
    probe = render(gaussians, Cameras(cameras.world_to_camera, K, PROBE_SIZE, PROBE_SIZE))
    center, zoom = _frame((probe.alpha.amax(0) > VISIBLE).numpy())
    center, zoom = 0.5 + (center - 0.5) * PROBE_FIELD, zoom / PROBE_FIELD  # as the given cameras see it
    K = cameras.K.clone()
    K[:, :2, :2] *= zoom
    K[:, :2, 2] = size * (torch.from_numpy(0.5 - center) * zoom + 0.5)
    return Cameras(cameras.world_to_camera, K, size, size)


def _normals(gaussians: Gaussians, eye: Float[Tensor, "3"]) -> Float[Tensor, "n 3"]:
    """The shortest axis of each Gaussian, on the side of the eye: about the normal of the surface it lies on."""
    axes = quaternion_to_matrix(gaussians.quats)
    shortest = gaussians.scales.argmin(1)[:, None, None].expand(-1, 3, 1)
    normals = axes.gather(2, shortest)[:, :, 0]
    away = (normals * (eye - gaussians.means)).sum(1, keepdim=True) < 0
    return torch.where(away, -normals, normals)


def _frame(visible: np.ndarray) -> tuple[np.ndarray, float]:
    """The centre (x, y) of what is visible in a square picture, in sides of it, and the zoom that makes it fill the picture."""
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    if len(rows) == 0:
        return np.full(2, 0.5, np.float32), 1.0
    low = np.array([columns[0], rows[0]]) / len(visible)
    high = np.array([columns[-1] + 1, rows[-1] + 1]) / len(visible)
    return ((low + high) / 2).astype(np.float32), float(FILL / (high - low).max())


def _to_bytes(values: Tensor) -> np.ndarray:
    return (values * 255).round().byte().numpy()
