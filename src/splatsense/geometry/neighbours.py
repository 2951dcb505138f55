"""Exact k nearest neighbours: a native k-d tree, and the same result from plain PyTorch.

Both sum squared distances as dx*dx + dy*dy + dz*dz in float32 and break ties towards the lower index.
"""

import ctypes

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from splatsense.errors import DataError, LimitError
from splatsense.geometry.point_checks import check_points
from splatsense.native import load_native, pointer

PAIRS_PER_CHUNK = 4_000_000


def k_nearest_neighbours(
    points: Float[Tensor, "*batch n 3"], queries: Float[Tensor, "*batch m 3"], k: int
) -> tuple[Float[Tensor, "*batch m {k}"], Int64[Tensor, "*batch m {k}"]]:
    """The k points nearest to each query, nearest first.

    Args:
        points: (N, 3) or (B, N, 3), finite.
        queries: (M, 3) or (B, M, 3), finite; a query that is itself one of the points finds itself first.
        k: 1 to N.

    Returns:
        Squared distances (M, k) or (B, M, k) float32, and int64 indices into `points` of the same shape, without gradient.

    Raises:
        DataError: an argument is empty or not finite, or k is larger than N.
        LimitError: out of memory.
    """
    points, queries = points.detach().float(), queries.detach().float()
    n = check_points(points, "k_nearest_neighbours: points")
    m = check_points(queries, "k_nearest_neighbours: queries")
    if points.shape[:-2] != queries.shape[:-2]:
        raise DataError(
            f"k_nearest_neighbours: points {tuple(points.shape)} and queries {tuple(queries.shape)} differ in batch size."
        )
    if not 1 <= k <= n:
        raise DataError(f"k_nearest_neighbours: k must be 1 to {n} (the number of points), got {k}.")
    clouds, batched_queries = points.reshape(-1, n, 3), queries.reshape(-1, m, 3)
    native = load_native() if points.device.type == "cpu" else None
    if native is None:
        distances, indices = k_nearest_neighbours_reference(clouds, batched_queries, k)
    else:
        distances, indices = _native(native, clouds.contiguous(), batched_queries.contiguous(), k)
    shape = (*queries.shape[:-1], k)
    return distances.reshape(shape), indices.reshape(shape)


def k_nearest_neighbours_reference(
    points: Float[Tensor, "b n 3"], queries: Float[Tensor, "b m 3"], k: int
) -> tuple[Float[Tensor, "b m {k}"], Int64[Tensor, "b m {k}"]]:
    """What `k_nearest_neighbours` computes, by brute force in plain PyTorch, on any device."""
    batch, n, _ = points.shape
    index = torch.arange(n, device=points.device)
    keys = []
    for part in queries.split(max(1, PAIRS_PER_CHUNK // max(1, batch * n)), dim=1):
        dx, dy, dz = (part[:, :, None] - points[:, None]).unbind(-1)
        distances = dx * dx + dy * dy + dz * dz
        # The bits of floats >= 0 sort as integers do; with the index below them no two keys are equal.
        key = distances.view(torch.int32).long() << 32 | index
        keys.append(key.topk(k, dim=-1, largest=False, sorted=True).values)
    nearest = torch.cat(keys, dim=1)
    return (nearest >> 32).int().view(torch.float32), nearest & 0xFFFFFFFF


def _native(library: ctypes.CDLL, points: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    (batch, n, _), m = points.shape, queries.shape[1]
    function = library.ss_k_nearest_neighbours
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int32] * 4, ctypes.c_void_p, ctypes.c_void_p]
    distances, indices = torch.empty(batch, m, k), torch.empty(batch, m, k, dtype=torch.int64)
    if function(pointer(points), pointer(queries), batch, n, m, k, pointer(distances), pointer(indices)):
        raise LimitError(f"k_nearest_neighbours: out of memory for {batch} x {n} points.")
    return distances, indices
