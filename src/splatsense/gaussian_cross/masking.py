"""What is hidden from the backbone during pre-training (GaussianCross, arXiv 2508.02172, section 3.1).

Two ways, which may be combined:
- **Blocks of voxels**: the scene is cut into cubes of a few voxels a side, and those drawn lose their colour and normal, for
  which a learned token stands (as PonderV2, arXiv 2310.08586). Where the voxels are stays known.
- **Point dropout**: points drawn one by one are taken out before voxels are made.

The paper states the ratio, 50 %, and not which of the two; blocks are the default here.
"""

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor, nn

from splatsense.errors import DataError


def mask_blocks(
    coordinates: Int32[Tensor, "m 3"], ratio: float, side: int, generator: torch.Generator | None = None
) -> Bool[Tensor, " m"]:
    """Which voxels are hidden: those of a random part of the blocks.

    Args:
        coordinates: of the voxels of one scene.
        ratio: part of the blocks that is hidden, in [0, 1), rounded to whole blocks.
        side: of a block, in voxels. Blocks lie on a grid with a random origin.
        generator: of the draw.

    Raises:
        DataError: `ratio` or `side` is out of range.
    """
    if not 0 <= ratio < 1 or side < 1:
        raise DataError(f"mask_blocks: needs a ratio in [0, 1) and a side of at least 1 voxel, got {ratio} and {side}.")
    shift = torch.randint(side, (3,), generator=generator, dtype=coordinates.dtype)
    blocks = torch.div(coordinates + shift, side, rounding_mode="floor")
    found, block = torch.unique(blocks, dim=0, return_inverse=True)
    hidden = torch.zeros(len(found), dtype=torch.bool)
    hidden[torch.randperm(len(found), generator=generator)[: round(ratio * len(found))]] = True
    return hidden[block]


def drop_points(count: int, ratio: float, generator: torch.Generator | None = None) -> Bool[Tensor, " n"]:
    """Which of `count` points are kept: each is dropped with the probability `ratio`, and one is always kept.

    Raises:
        DataError: `ratio` is out of range.
    """
    if not 0 <= ratio < 1:
        raise DataError(f"drop_points: needs a ratio in [0, 1), got {ratio}.")
    draws = torch.rand(count, generator=generator)
    return (draws >= ratio) | (draws == draws.max())


class MaskToken(nn.Module):
    """A learned value for every input channel, which stands where the value is hidden or was never known."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Float[Tensor, "m c"], hidden: Bool[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        """`features`, with the token wherever `hidden`."""
        return torch.where(hidden, self.token, features)
