"""Small pictures of assets, drawn by our own rasteriser and kept in the library's folder under the content's hash."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.cameras import Cameras
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians, quaternion_to_matrix

FOLDER = "thumbnails"
SIZE = 256
ELEVATION, AZIMUTH = 20.0, 30.0
OUTLIER_FRACTION = 0.002  # of the means at both ends of every axis, which do not count for the object's size
LIGHT = (-0.35, -0.8, -0.5)  # towards the light, in the camera's axes: left, above, behind the camera
AMBIENT = 0.7  # how bright a surface is that the light does not reach
PROBE_SIZE, VISIBLE = 64, 0.1  # a first small picture finds the object: pixels of at least this alpha
FILL = 0.9  # of the picture's side that the object's larger side takes


def thumbnail_path(library: Path, sha256: str) -> Path:
    """Where the thumbnail of a content lies, whether or not it has been drawn."""
    return library / FOLDER / f"{sha256[:32]}.webp"


def draw(gaussians: Gaussians, size: int = SIZE) -> Image.Image:
    """A (size, size) picture of an object, y up, on white, from 20 degrees above and 30 to the right of its front.

    Light from above the camera's left shoulder shows the shape of an object that has one colour. Raises DataError when
    there are no Gaussians.
    """
    from splatsense.render import render

    normalized = gaussians.normalized(OUTLIER_FRACTION)
    probe = render(normalized, Cameras.orbit(1, PROBE_SIZE, ELEVATION, AZIMUTH))
    center, zoom = _frame(probe.alpha[0].numpy() > VISIBLE)
    cameras = Cameras.orbit(1, size, ELEVATION, AZIMUTH)
    cameras.K[:, :2, :2] *= zoom
    cameras.K[:, :2, 2] = size * (torch.from_numpy(0.5 - center) * zoom + 0.5)
    rendering = render(normalized, cameras, features=_normals(normalized, cameras.centers[0]))
    light = cameras.world_to_camera[0, :3, :3].T @ normalize(torch.tensor(LIGHT), dim=0)
    facing = (normalize(rendering.features[0], dim=-1) @ light).clamp(min=0)
    shaded = rendering.color[0] * (AMBIENT + (1 - AMBIENT) * facing)[..., None] + 1 - rendering.alpha[0][..., None]
    return Image.fromarray((shaded.clamp(0, 1) * 255).round().byte().numpy())


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


def write(gaussians: Gaussians, path: Path) -> None:
    """Draw an object into a WebP file; its folder is made if need be."""
    path.parent.mkdir(exist_ok=True)
    picture = draw(gaussians)
    with atomic_write(path) as temporary:
        picture.save(temporary, "WEBP", quality=90, method=4)
