"""Serial orders of point clouds: sorted by x then y then z, along a Z-order curve, or along a Hilbert curve.

Points are put into a cubic grid of 2^bits cells a side over their bounding box, cells get a key, and keys are sorted; points
of one cell keep their order. The native path gives the same indices as plain PyTorch.
"""

import ctypes
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from splatsense.errors import DataError, LimitError
from splatsense.geometry.point_checks import check_points
from splatsense.native import load_native, pointer

MAX_BITS = 20  # three coordinates in one int64
SerialOrder = Literal["xyz", "z", "hilbert"]
_NATIVE_ORDERS = ("xyz", "z", "hilbert")  # in the order of their numbers in native/splatsense.h


def serial_order(points: Float[Tensor, "*batch n 3"], order: SerialOrder, bits: int = 10) -> Int64[Tensor, "*batch n"]:
    """The permutation that puts points in a serial order: `points[serial_order(points, "hilbert")]` for one cloud.

    Args:
        points: (N, 3) or (B, N, 3), finite.
        order: "xyz" (cells sorted by x, then y, then z), "z" (Morton 1966) or "hilbert" (Skilling 2004).
        bits: the grid has 2^bits cells along the longest side of the cloud, 1 to 20.

    Raises:
        DataError: `points` is empty or not finite, or `order` or `bits` is not one of the above.
        LimitError: out of memory.
    """
    n = check_points(points, "serial_order: points")
    if order not in _NATIVE_ORDERS:
        raise DataError(f"serial_order: order must be one of {', '.join(_NATIVE_ORDERS)}, got {order!r}.")
    if not 1 <= bits <= MAX_BITS:
        raise DataError(f"serial_order: bits must be 1 to {MAX_BITS}, got {bits}.")
    native = load_native() if points.device.type == "cpu" and points.dtype == torch.float32 else None
    if native is None:
        return serial_order_reference(points, order, bits)
    function = native.ss_serial_order
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_int32] * 4, ctypes.c_void_p]
    clouds = points.detach().reshape(-1, n, 3).contiguous()
    permutation = torch.empty(len(clouds), n, dtype=torch.int64)
    if function(pointer(clouds), len(clouds), n, _NATIVE_ORDERS.index(order), bits, pointer(permutation)):
        raise LimitError(f"serial_order: out of memory for {len(clouds)} x {n} points.")
    return permutation.reshape(points.shape[:-1])


def serial_order_reference(points: Float[Tensor, "*batch n 3"], order: SerialOrder, bits: int) -> Int64[Tensor, "*batch n"]:
    """What `serial_order` computes, in plain PyTorch, on any device."""
    keys = {"xyz": row_major_key, "z": morton_key, "hilbert": hilbert_key}
    from_corner = points.double() - points.double().amin(-2, keepdim=True)
    side = from_corner.amax((-2, -1), keepdim=True)
    unit = from_corner / torch.where(side > 0, side, 1)
    cells = (unit * 2**bits).long().clamp(max=2**bits - 1)
    return keys[order](cells, bits).argsort(dim=-1, stable=True)


def sort_lists(permutation: Int64[Tensor, "b n"], lists: Int64[Tensor, "b m k"]) -> Int64[Tensor, "b m k"]:
    """Lists of point indices, each sorted by the place its points have in the permutation of their cloud.

    Args:
        permutation: of each cloud's points, as `serial_order` gives it.
        lists: M lists of K indices for each cloud.

    Raises:
        DataError: an index in `lists` or `permutation` is none of the cloud's points, or they are not as said above.
        LimitError: out of memory.
    """
    if permutation.ndim != 2 or lists.ndim != 3 or len(permutation) != len(lists):
        shapes = f"{tuple(permutation.shape)} and {tuple(lists.shape)}"
        raise DataError(f"sort_lists: permutation and lists must have shapes (B, N) and (B, M, K), got {shapes}.")
    if permutation.dtype != torch.int64 or lists.dtype != torch.int64:
        raise DataError(f"sort_lists: permutation and lists must be int64, got {permutation.dtype} and {lists.dtype}.")
    (batch, n), (_, count, size) = permutation.shape, lists.shape
    if permutation.numel() and (int(permutation.min()) < 0 or int(permutation.max()) >= n):
        raise DataError(f"sort_lists: permutation must hold the indices 0 to {n - 1} of a cloud's points, each once.")
    if lists.numel() and (int(lists.min()) < 0 or int(lists.max()) >= n):
        raise DataError(f"sort_lists: lists must hold indices of 0 to {n - 1}, got {int(lists.min())} to {int(lists.max())}.")
    native = load_native() if lists.device.type == "cpu" else None
    if native is None:
        return sort_lists_reference(permutation, lists)
    function = native.ss_sort_lists
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int32] * 4, ctypes.c_void_p]
    permutation, lists = permutation.contiguous(), lists.contiguous()
    result = torch.empty_like(lists)
    if function(pointer(permutation), pointer(lists), batch, n, count, size, pointer(result)):
        raise LimitError(f"sort_lists: out of memory for {batch} x {n} points.")
    return result


def sort_lists_reference(permutation: Int64[Tensor, "b n"], lists: Int64[Tensor, "b m k"]) -> Int64[Tensor, "b m k"]:
    """What `sort_lists` computes, in plain PyTorch, on any device."""
    places = torch.arange(permutation.shape[1], device=permutation.device).expand_as(permutation)
    place = torch.empty_like(permutation).scatter_(1, permutation, places)
    sorted_places = place.gather(1, lists.flatten(1)).view_as(lists).sort(-1).values
    return permutation.gather(1, sorted_places.flatten(1)).view_as(lists)


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
