"""Serial orders of point clouds: sorted by x then y then z, along a Z-order curve, or along a Hilbert curve.

Points are put into a cubic grid of 2^bits cells a side over their bounding box, cells get a key, and keys are sorted; points
of one cell keep their order.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from splatsense.errors import DataError
from splatsense.geometry.point_checks import check_points

MAX_BITS = 20  # three coordinates in one int64


def serial_order(
    points: Float[Tensor, "*batch n 3"], order: Literal["xyz", "hilbert", "z"], bits: int = 10
) -> Int64[Tensor, "*batch n"]:
    """The permutation that puts points in a serial order: `points[serial_order(points, "hilbert")]` for one cloud.

    Args:
        points: (N, 3) or (B, N, 3), finite.
        order: "xyz" (cells sorted by x, then y, then z), "z" (Morton 1966) or "hilbert" (Skilling 2004).
        bits: the grid has 2^bits cells along the longest side of the cloud, 1 to 20.

    Raises:
        DataError: `points` is empty or not finite, or `order` or `bits` is not one of the above.
    """
    check_points(points, "serial_order: points")
    keys = {"xyz": row_major_key, "z": morton_key, "hilbert": hilbert_key}
    if order not in keys:
        raise DataError(f"serial_order: order must be one of {', '.join(keys)}, got {order!r}.")
    if not 1 <= bits <= MAX_BITS:
        raise DataError(f"serial_order: bits must be 1 to {MAX_BITS}, got {bits}.")
    from_corner = points.double() - points.double().amin(-2, keepdim=True)
    side = from_corner.amax((-2, -1), keepdim=True)
    unit = from_corner / torch.where(side > 0, side, 1)
    cells = (unit * 2**bits).long().clamp(max=2**bits - 1)
    return keys[order](cells, bits).argsort(dim=-1, stable=True)


def row_major_key(cells: Int64[Tensor, "*n 3"], bits: int) -> Int64[Tensor, "*n"]:
    """Position of grid cells, coordinates in [0, 2^bits), when sorted by x, then y, then z."""
    x, y, z = cells.unbind(-1)
    return x << 2 * bits | y << bits | z


def morton_key(cells: Int64[Tensor, "*n 3"], bits: int) -> Int64[Tensor, "*n"]:
    """Position of grid cells along the Z-order curve: the bits of x, y and z interleaved, x highest."""
    x, y, z = cells.unbind(-1)
    key = torch.zeros_like(x)
    for bit in range(bits - 1, -1, -1):
        for coordinate in (x, y, z):
            key = key << 1 | coordinate >> bit & 1
    return key


def hilbert_key(cells: Int64[Tensor, "*n 3"], bits: int) -> Int64[Tensor, "*n"]:
    """Position of grid cells along the Hilbert curve.

    `AxestoTranspose` of J. Skilling, "Programming the Hilbert curve", AIP Conference Proceedings 707, 381 (2004), for all
    cells at once.
    """
    x = list(cells.unbind(-1))
    for bit in range(bits - 1, 0, -1):  # undo the rotations of the subcubes, largest first
        below = (1 << bit) - 1
        for axis in range(3):
            is_set = (x[axis] >> bit & 1).bool()
            swapped = (x[0] ^ x[axis]) & below
            x[0] = torch.where(is_set, x[0] ^ below, x[0] ^ swapped)
            if axis:
                x[axis] = torch.where(is_set, x[axis], x[axis] ^ swapped)
    x[1] = x[1] ^ x[0]  # Gray encode
    x[2] = x[2] ^ x[1]
    flip = torch.zeros_like(x[0])
    for bit in range(bits - 1, 0, -1):
        flip = torch.where((x[2] >> bit & 1).bool(), flip ^ ((1 << bit) - 1), flip)
    return morton_key(torch.stack([axis ^ flip for axis in x], dim=-1), bits)
