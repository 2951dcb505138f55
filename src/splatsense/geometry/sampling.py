"""Farthest point sampling: a native path, and the same indices from plain PyTorch.

Both sum squared distances as dx*dx + dy*dy + dz*dz in float32 and break ties towards the lower index.
"""

import ctypes

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from splatsense.errors import DataError, LimitError
from splatsense.geometry.point_checks import check_points
from splatsense.native import load_native, pointer


def farthest_point_sampling(points: Float[Tensor, "*batch n 3"], count: int, start: int = 0) -> Int64[Tensor, "*batch {count}"]:
    """Indices of `count` points, each the farthest from all the points before it (Eldar et al. 1997).

    Args:
        points: (N, 3) or (B, N, 3), finite.
        count: how many to pick, 1 to N. A cloud of fewer distinct points yields repeated positions.
        start: index of the first pick.

    Returns:
        (count,) or (B, count) int64 indices on the device of `points`, the same on every run and every build.

    Raises:
        DataError: `points` is empty or not finite, or `count` or `start` does not fit it.
        LimitError: out of memory.
    """
    points = points.detach().float()
    n = check_points(points, "farthest_point_sampling: points")
    if not 1 <= count <= n:
        raise DataError(f"farthest_point_sampling: count must be 1 to {n} (the number of points), got {count}.")
    if not 0 <= start < n:
        raise DataError(f"farthest_point_sampling: start must be 0 to {n - 1}, got {start}.")
    clouds = points.reshape(-1, n, 3)
    native = load_native() if points.device.type == "cpu" else None
    if native is None:
        indices = farthest_point_sampling_reference(clouds, count, start)
    else:
        indices = _native(native, clouds.contiguous(), count, start)
    return indices.reshape(*points.shape[:-2], count)


def farthest_point_sampling_reference(points: Float[Tensor, "b n 3"], count: int, start: int = 0) -> Int64[Tensor, "b {count}"]:
    """What `farthest_point_sampling` computes, in plain PyTorch, on any device."""
    x, y, z = points.unbind(-1)
    rows = torch.arange(len(points), device=points.device)
    indices = torch.full((len(points), count), start, dtype=torch.int64, device=points.device)
    distance = torch.full_like(x, torch.inf)
    for s in range(1, count):
        last = indices[:, s - 1]
        dx, dy, dz = (axis - axis[rows, last][:, None] for axis in (x, y, z))
        distance = torch.minimum(distance, dx * dx + dy * dy + dz * dz)
        is_farthest = distance == distance.amax(1, keepdim=True)
        indices[:, s] = is_farthest.byte().argmax(1)  # the first of equals
    return indices


def _native(library: ctypes.CDLL, points: Tensor, count: int, start: int) -> Tensor:
    batch, n, _ = points.shape
    function = library.ss_farthest_point_sampling
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_int32] * 4, ctypes.c_void_p]
    indices = torch.empty(batch, count, dtype=torch.int64)
    if function(pointer(points), batch, n, count, start, pointer(indices)):
        raise LimitError(f"farthest_point_sampling: out of memory for {batch} x {n} points.")
    return indices
