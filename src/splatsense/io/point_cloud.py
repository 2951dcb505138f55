"""Point clouds, and Gaussians that show them: one small ball, or a disc where the normal is known, for each point.

Design
- Scanners measure in country-wide grids: millimetres at half a million metres, which float32 would round to centimetres.
  `PointCloud.from_file` takes float64 and moves a cloud that lies far from the origin to it, by whole units. The shift is
  kept in `PointCloud.origin` and said in the log; a cloud near the origin keeps its coordinates.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.spatial import KDTree

from splatsense.errors import DataError
from splatsense.gaussians import Gaussians

log = logging.getLogger("splatsense")

GREY = 0.5
LONE_POINT_SPACING = 0.02  # when all points coincide
LARGEST_SCALE = 10.0  # times the median: a stray point must not become a ball that hides the rest
FLATNESS = 0.1  # thickness of a disc over its radius
FAR = 8.0  # times its own size: a float64 cloud further from the origin than that is moved to it
MEASURED = 100_000  # points that tell where a cloud lies
LARGEST_COORDINATE = 1e30  # squares of coordinates must stay finite in float32's exponent range


@dataclass(frozen=True)
class PointCloud:
    """Points with optional colours and normals.

    Attributes:
        points: (N, 3) float32, finite, at least one.
        colors: (N, 3) float32 sRGB in [0, 1], or None.
        normals: (N, 3) float32, of any length, or None.
        origin: what was taken off the coordinates of the file: `points + origin`, in float64, is where they were.
        columns: further properties of the points that were asked for, (N,) float64 by their names.
    """

    points: np.ndarray
    colors: np.ndarray | None = None
    normals: np.ndarray | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.points), 3)
        for name in ("points", "colors", "normals"):
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise DataError(f"PointCloud.{name} has shape {value.shape}, expected {shape}.")
        if not len(self.points) or not np.isfinite(self.points).all():
            raise DataError("PointCloud.points must hold at least one point and only finite values.")

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        points: np.ndarray,
        colors: np.ndarray | None,
        normals: np.ndarray | None,
        columns: Mapping[str, np.ndarray] | None = None,
    ) -> "PointCloud":
        """The usable points of a file: those that are not finite, or whose colour is not, are dropped with a warning.

        Args:
            points: (N, 3) float32 as they are; or float64, which are moved to the origin when they lie far from it.

        Raises:
            DataError: none is left.
        """
        columns = columns or {}
        usable = (np.abs(points) < LARGEST_COORDINATE).all(1)
        if colors is not None:
            usable &= np.isfinite(colors).all(1)
        if not usable.any():
            raise DataError(f"{path}: none of its {len(points)} points is usable: they are not finite. Export the file again.")
        if not usable.all():
            log.warning("%s: left out %d of %d points that are not finite.", path, (~usable).sum(), len(points))
            points = points[usable]
            colors = None if colors is None else colors[usable]
            normals = None if normals is None else normals[usable]
            columns = {name: values[usable] for name, values in columns.items()}
        colors = None if colors is None else colors.clip(0, 1)
        if points.dtype != np.float64:
            return cls(points, colors, normals, columns=columns)
        origin = _origin(points)
        if origin.any():
            log.warning(
                "%s: moved by (%.0f, %.0f, %.0f): float32 would round coordinates that far from the origin.", path, *-origin
            )
        x, y, z = origin.tolist()
        return cls((points - origin).astype(np.float32), colors, normals, (x, y, z), columns)


def _origin(points: np.ndarray) -> np.ndarray:
    """(3,) whole units to take off float64 points; zeros when most of them lie within a few cloud sizes of the origin."""
    low, middle, high = np.quantile(points[:: max(1, len(points) // MEASURED)], [0.02, 0.5, 0.98], axis=0)
    return np.round(middle) if np.abs(middle).max() > FAR * (high - low).max() else np.zeros(3)


def point_cloud_to_gaussians(cloud: PointCloud, neighbors: int = 3, size: float = 0.5, opacity: float = 0.99) -> Gaussians:
    """One Gaussian for each point, large enough to close the gaps to its nearest neighbours.

    Args:
        cloud: without colours its Gaussians are grey; with normals they are discs, otherwise balls.
        neighbors: how many nearest neighbours to measure the mean distance to; coincident points do not count.
        size: standard deviation over that distance.
        opacity: of every Gaussian, in [0, 1].

    Raises:
        DataError: a setting is out of range.
    """
    if neighbors < 1 or not size > 0 or not 0 <= opacity <= 1:
        raise DataError(
            f"point_cloud_to_gaussians: need neighbors >= 1, size > 0, 0 <= opacity <= 1; got {neighbors}, {size}, {opacity}."
        )
    count = len(cloud.points)
    radii = torch.from_numpy(size * _spacing(cloud.points, neighbors)).float()
    scales = radii[:, None].repeat(1, 3)
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1)
    if cloud.normals is not None:
        quats, known = _turn_z_to(torch.from_numpy(cloud.normals).float())
        scales[known, 2] *= FLATNESS
    colors = np.full((count, 3), GREY, np.float32) if cloud.colors is None else cloud.colors
    return Gaussians.from_rgb(
        torch.from_numpy(cloud.points).float(),
        quats,
        scales,
        torch.full((count,), float(opacity)),
        torch.from_numpy(colors).float(),
    )


def _spacing(points: np.ndarray, neighbors: int) -> np.ndarray:
    """(N,) mean distance of each point to its nearest neighbours at other places, at most a few medians."""
    points = points.astype(np.float64)
    nearest = KDTree(points).query(points, k=min(neighbors + 1, len(points)))[0]
    distances = nearest.reshape(len(points), -1)[:, 1:]  # the first is the point itself
    apart = distances > 0
    mean = (distances * apart).sum(1) / np.maximum(apart.sum(1), 1)
    known = mean[mean > 0]
    if not len(known):
        return np.full(len(points), LONE_POINT_SPACING)
    median = np.median(known)
    return np.where(mean > 0, np.minimum(mean, LARGEST_SCALE * median), median)


def _turn_z_to(normals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quaternions (N, 4) that turn +z to `normals` the short way, and (N,) which normals were usable."""
    length = normals.norm(dim=1)
    known = torch.isfinite(length) & (length > 1e-12)
    x, y, z = (normals[known] / length[known, None]).unbind(1)
    turn = torch.stack([1 + z, -y, x, torch.zeros_like(x)], dim=1)
    turn[z < -0.999999] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(normals), 1)
    quats[known] = torch.nn.functional.normalize(turn, dim=1)
    return quats, known
