"""Keys of voxels: batch, then the bits of x, y and z interleaved (Morton 1966), x highest.

In order of these keys a voxel's eight children are neighbours, in the order in which a 2x2x2 kernel numbers them, and the keys
of the parents are those of the children without the last three bits.
"""

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from splatsense.errors import DataError

BITS = 18  # of each coordinate
CENTER = 1 << (BITS - 1)
MARGIN = 1 << 12  # so that neighbours keep their bits on the ten finest levels
LIMIT = CENTER - MARGIN  # of a coordinate
BATCHES = 1 << (63 - 3 * BITS)
SPREAD = (
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def voxel_keys(coordinates: Int[Tensor, "m 4"]) -> Int64[Tensor, " m"]:
    """Keys of voxels (batch, x, y, z).

    Raises:
        DataError: no voxels, or a batch or coordinate out of range.
    """
    if len(coordinates) == 0:
        raise DataError("coordinates: no voxels; a sparse tensor needs at least one.")
    low, high = coordinates.amin(0).tolist(), coordinates.amax(0).tolist()
    if low[0] < 0 or high[0] >= BATCHES:
        raise DataError(f"coordinates: batch indices must be 0 to {BATCHES - 1}, got {low[0]} to {high[0]}.")
    if min(low[1:]) < -LIMIT or max(high[1:]) > LIMIT:
        raise DataError(
            f"coordinates: x, y and z must be within {LIMIT} voxels of 0, got {min(low[1:])} to {max(high[1:])}; "
            "move the scene to the origin or take larger voxels."
        )
    batch, x, y, z = coordinates.long().unbind(1)
    x, y, z = (spread(axis + CENTER) for axis in (x, y, z))
    return batch << 3 * BITS | x << 2 | y << 1 | z


def spread(values: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    """Bit i of each value in [0, 2^21) at bit 3 i."""
    for shift, mask in SPREAD:
        values = (values | values << shift) & mask
    return values


def stepped(keys: Int64[Tensor, "*n"], axis: int, step: int) -> Int64[Tensor, "*n"]:
    """One axis's bits of keys, `step` voxels on (at most 7 either way). The other axes' bits are 0.

    The bits between are filled, so that a carry passes them; what keys hold above the coordinates stays.
    """
    mask = SPREAD[-1][1] << 2 - axis
    distance = int(spread(torch.tensor(abs(step)))) << 2 - axis
    return ((keys | ~mask) + distance) & mask if step > 0 else ((keys & mask) - distance) & mask
