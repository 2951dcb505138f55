"""Grouping of Gaussians into patches, the first half of the GS tokenizer (CLIP-GS, arXiv 2412.19142, section 3.2).

Design
- Farthest point sampling picks centres, k nearest neighbours gather the Gaussians of each, and each patch is then put in one
  or several serial orders. All of it picks indices; no gradient flows.
- Dropped patches are dropped before their neighbours are looked for: the same tokens enter the transformer as when they are
  dropped behind the tokenizer, as Uni3D does, and those left out cost nothing.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from splatsense.geometry.neighbours import k_nearest_neighbours
from splatsense.geometry.sampling import farthest_point_sampling
from splatsense.geometry.serialize import serial_order, sort_lists
from splatsense.training.shares import rand_rows

PatchOrder = Literal["distance", "xyz", "hilbert", "z"]
SERIAL_BITS = 8  # cells per axis of the serial curve: 2^8, finer than any patch


@dataclass(frozen=True)
class PatchIndices:
    """Which Gaussians make up the patches.

    Attributes:
        centers: (B, P) index of each patch's centre.
        members: (B, O, P, S) indices of its S Gaussians, once for each of O orders.
    """

    centers: Int64[Tensor, "b p"]
    members: Int64[Tensor, "b o p s"]


def group_patches(
    means: Float[Tensor, "b n 3"],
    patches: int,
    patch_size: int,
    orders: tuple[PatchOrder, ...] = ("hilbert",),
    dropout: float = 0.0,
) -> PatchIndices:
    """Choose patches of Gaussians by farthest point sampling and nearest neighbours.

    Args:
        means: of B objects of N Gaussians.
        patches: centres per object, at most N.
        patch_size: Gaussians per patch, at most N.
        orders: of the Gaussians inside a patch: "distance" from the centre, or along the "xyz", "hilbert" or "z" curve.
        dropout: fraction of patches to leave out at random, in [0, 1).
    """
    centers = farthest_point_sampling(means, patches)
    if dropout > 0:
        centers = drop_centers(centers, dropout)
    batch = torch.arange(len(means), device=means.device)[:, None]
    _, nearest = k_nearest_neighbours(means, means[batch, centers], patch_size)
    members = [
        nearest if order == "distance" else sort_lists(serial_order(means, order, bits=SERIAL_BITS), nearest)
        for order in orders
    ]
    return PatchIndices(centers, torch.stack(members, dim=1))


def drop_centers(centers: Int64[Tensor, "b p"], fraction: float) -> Int64[Tensor, "b kept"]:
    """A random choice of each object's patches, at least one (patch dropout, arXiv 2212.00794; CLIP-GS recipe: 0.5)."""
    keep = max(1, round(centers.shape[1] * (1 - fraction)))
    chosen = rand_rows(*centers.shape, device=centers.device).topk(keep).indices
    return centers.gather(1, chosen)
