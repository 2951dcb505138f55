"""Points grouped by the cubic voxels that hold them, in NumPy: what fusion, normals and import share."""

import numpy as np
from jaxtyping import Float, Float64, Int64

from splatsense.errors import DataError

BITS = 21  # of each coordinate of a voxel in one int64 key
HALF = 1 << (BITS - 1)


def voxel_keys(points: Float[np.ndarray, "n 3"], voxel: float) -> Int64[np.ndarray, " n"]:
    """One number for the voxel of each point; voxels are counted from the origin, so keys of several clouds fit.

    Raises:
        DataError: a point is not finite or more than a million voxels from the origin.
    """
    cells = np.floor(points.astype(np.float64) / voxel)
    if not (np.abs(cells) < HALF).all():
        raise DataError(
            f"voxel_keys: a point is not finite, or over {HALF} voxels of {voxel} from the origin; move it there."
        )
    x, y, z = (cells.astype(np.int64) + HALF).T
    return x << 2 * BITS | y << BITS | z


def voxel_groups(points: Float[np.ndarray, "n 3"], voxel: float) -> tuple[Int64[np.ndarray, " n"], int]:
    """The row of each point's voxel among all voxels that hold a point, in order of their keys, and how many there are."""
    found, group = np.unique(voxel_keys(points, voxel), return_inverse=True)
    return group, len(found)


def voxel_sum(values: Float[np.ndarray, "n c"], group: Int64[np.ndarray, " n"], count: int) -> Float64[np.ndarray, "{count} c"]:
    """Sums of rows by group, in float64."""
    return np.stack([np.bincount(group, column, count) for column in values.T], axis=1).astype(np.float64)
