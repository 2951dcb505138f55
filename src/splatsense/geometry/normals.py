"""Normals of a point cloud by principal components of each point's neighbours (Hoppe et al. 1992).

A dense cloud is first averaged in voxels, so that time and memory follow the surface and not the number of points; a point has
the normal of its voxel. Signs cannot be known from points alone: normals are turned towards given places, such as the camera.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from scipy.spatial import KDTree

from splatsense.errors import DataError
from splatsense.geometry.voxels import voxel_groups, voxel_sum

QUERIES_PER_BLOCK = 1 << 17
OUTLIERS = 0.005  # of the points at both ends of an axis do not count for where the middle is
LOOKED_AT = 200_000  # points that tell it
LINE_LIKE = 1e-6  # second variance over the first below which neighbours lie on a line


def estimate_normals(
    points: Float32[np.ndarray, "n 3"],
    toward: Float[np.ndarray, "n 3"] | Float[np.ndarray, "3"],
    neighbours: int = 16,
    voxel: float = 0.02,
) -> Float32[np.ndarray, "n 3"]:
    """Unit normals of points, zero where all neighbours lie on a line or in one place.

    Args:
        points: (N, 3), finite.
        toward: a place on the outer side of the surface: one for all points, or one for each.
        neighbours: how many voxels a plane is fitted to, the own one included; at least 3.
        voxel: side of the voxels in the units of `points`.

    Raises:
        DataError: there are no points, or `neighbours` or `voxel` is out of range.
    """
    if neighbours < 3 or not voxel > 0 or not len(points):
        raise DataError(
            f"estimate_normals: needs a point, neighbours >= 3 and voxel > 0; got {len(points)}, {neighbours}, {voxel}."
        )
    group, count = voxel_groups(points, voxel)
    sizes = np.bincount(group, minlength=count)[:, None]
    centers = (voxel_sum(points, group, count) / sizes).astype(np.float32)
    if toward.ndim == 2:
        toward = voxel_sum(toward, group, count) / sizes
    normals, flat = _planes(centers, min(neighbours, count))
    behind = np.einsum("nc,nc->n", normals, toward - centers) < 0
    normals[behind] *= -1
    normals[~flat] = 0
    return normals.astype(np.float32)[group]


def normals_towards_middle(points: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Estimated normals of a scan, turned to the middle of the box that holds nearly all of its points.

    A stray point far below the floor, as reflections make, would move the middle of all points there, and turn the floor round.
    """
    low, high = np.quantile(points[:: -(-len(points) // LOOKED_AT)], [OUTLIERS, 1 - OUTLIERS], axis=0)
    return estimate_normals(points, (low + high) / 2)


def _planes(points: Float32[np.ndarray, "n 3"], neighbours: int) -> tuple[Float64[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
    """The direction of least variance of each point's neighbours, and whether they span a plane."""
    tree = KDTree(points)  # and not k_nearest_neighbours, whose plain form takes the square of the number of points
    normals, flat = np.empty((len(points), 3)), np.empty(len(points), bool)
    for start in range(0, len(points), QUERIES_PER_BLOCK):
        block = slice(start, start + QUERIES_PER_BLOCK)
        nearest = tree.query(points[block], neighbours)[1].reshape(-1, neighbours)
        around = points[nearest].astype(np.float64)
        around -= around.mean(1, keepdims=True)
        covariance = np.einsum("nki,nkj->nij", around, around)
        values, vectors = np.linalg.eigh(covariance)
        normals[block] = vectors[:, :, 0]
        flat[block] = values[:, 1] > LINE_LIKE * np.maximum(values[:, 2], 1e-12)
    return normals, flat
