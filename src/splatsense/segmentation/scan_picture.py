"""Pictures of scans: the points from above one corner, without the ceiling, beside a key to their colours.

Design
- Points are thinned to one in a voxel and drawn as discs that close the gaps between them, with light from above.
- The camera looks down from a fixed side and zooms until the points that are drawn fill the picture beside the key.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.cameras import Cameras
from splatsense.files import atomic_write
from splatsense.geometry.voxels import voxel_keys
from splatsense.io.point_cloud import PointCloud, point_cloud_to_gaussians
from splatsense.pictures import draw
from splatsense.segmentation.points import Points

Key = Sequence[tuple[str, tuple[int, int, int]]]
"""What colours mean, from the top."""

DRAWN = 150_000  # points of a picture
WIDTH, HEIGHT, MARGIN = 960, 720, 30
KEY_WIDTH, LINE, FONT = 160, 24, 15  # pixels
FROM, AWAY = (-0.5, -0.65, 1.2), 2.6  # where the camera stands from the middle, and how far in radii
AMBIENT = 0.85  # how bright the darkest surface is; colours must still be told by the key
TOP = 0.8  # share of the height that is drawn, to look inside
DISC = 0.75  # standard deviation of a point's disc over the distance to its neighbours
CELLS, COARSER = 500, 1.3  # voxels along the longest side that points are thinned with at first, and how fast these grow


def draw_scan(
    path: Path, points: Points, colors: UInt8[np.ndarray, "n 3"], key: Key = (), title: str = "", mark: int | None = None
) -> None:
    """Write a picture of a scan as PNG.

    Args:
        path: of the picture.
        points: z up, metres.
        colors: of the points.
        key: what colours mean.
        title: above the key.
        mark: row of a point to draw a ring around.
    """
    coord = points.coord.numpy()
    shown = _shown(coord)
    gaussians = point_cloud_to_gaussians(
        PointCloud(coord[shown], colors[shown].astype(np.float32) / 255, points.normal.numpy()[shown]), size=DISC
    )
    room = WIDTH - (KEY_WIDTH if key else 0)
    camera = _camera(points.coord[shown], room)
    with torch.no_grad():
        picture = Image.fromarray(draw(gaussians, camera, shaded=True, ambient=AMBIENT).over((255, 255, 255)))
    pen = ImageDraw.Draw(picture)
    if mark is not None:
        x, y = _project(points.coord[mark : mark + 1], camera)[0].tolist()
        for radius, color in ((10, "white"), (9, "black"), (8, "black"), (7, "white")):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color)
    _draw_key(pen, room, key, title)
    with atomic_write(path) as temporary:
        picture.save(temporary, "PNG")


def _shown(coord: np.ndarray) -> np.ndarray:
    """Rows of the points to draw: below the ceiling, without the few that lie far out, and one in a voxel."""
    low, high = np.quantile(coord[:: max(1, len(coord) // DRAWN)], [0.002, 0.998], axis=0)
    inside = (coord[:, 2] <= low[2] + TOP * (high[2] - low[2])) & ((coord >= low) & (coord <= high)).all(1)
    shown = np.flatnonzero(inside) if inside.any() else np.arange(len(coord))
    points = coord[shown] - coord[shown].min(0)
    voxel, kept = float(points.max()) / CELLS, shown
    while len(kept) > DRAWN:
        kept = shown[np.unique(voxel_keys(points, voxel), return_index=True)[1]]
        voxel *= COARSER
    return np.sort(kept)


def _camera(coord: Tensor, room: int) -> Cameras:
    """A camera whose picture is filled by the points, in the `room` left of the key."""
    low, high = coord.amin(0), coord.amax(0)
    center, radius = (low + high) / 2, float((high - low).norm()) / 2 or 1.0
    eye = center + AWAY * radius * normalize(torch.tensor(FROM), dim=0)
    camera = Cameras.look_at(eye[None], center, torch.tensor([0.0, 0.0, 1.0]), WIDTH, HEIGHT, 40.0)
    at = _project(coord, camera)
    least, most = at.amin(0), at.amax(0)
    space = torch.tensor([room - 2.0 * MARGIN, HEIGHT - 2.0 * MARGIN])
    zoom = float((space / (most - least).clamp(min=1)).min())
    K = camera.K.clone()
    K[:, :2, :2] *= zoom
    K[:, :2, 2] = torch.tensor([room / 2, HEIGHT / 2]) + zoom * (K[0, :2, 2] - (least + most) / 2)
    return Cameras(camera.world_to_camera, K, WIDTH, HEIGHT)


def _project(coord: Tensor, camera: Cameras) -> Tensor:
    """(N, 2) pixels of points."""
    seen = (coord @ camera.world_to_camera[0, :3, :3].T + camera.world_to_camera[0, :3, 3]) @ camera.K[0].T
    return seen[:, :2] / seen[:, 2:]


def _draw_key(pen: ImageDraw.ImageDraw, left: int, key: Key, title: str) -> None:
    font = ImageFont.load_default(FONT)
    if title:
        pen.text((left, MARGIN), title, "black", font)
    top = MARGIN + (LINE if title else 0)
    for name, color in key:
        pen.rectangle((left, top, left + LINE, top + LINE - 1), color)
        pen.text((left + LINE + 8, top + 3), name, "black", font)
        top += LINE
