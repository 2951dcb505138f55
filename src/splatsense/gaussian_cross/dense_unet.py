"""The 3D U-Net that refines the dense volume (GaussianCross, arXiv 2508.02172, section 3.2: "a 3D CNN").

As in PonderV2 (arXiv 2310.08586) and 3D U-Net (Cicek et al. 2016): two convolutions of 3x3x3 a level, each after a group
normalisation and before a ReLU; maps double and sides halve from level to level; on the way up the finer maps are appended.
Group and not batch normalisation, so that a scene's result does not depend on its neighbours in the batch.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool3d

from splatsense.errors import DataError

GROUPS = 8


class DenseUNet(nn.Module):
    """(B, in, X, Y, Z) to (B, base_maps, X, Y, Z).

    The 1x1x1 convolution that ends a 3D U-Net is left to the caller, who may need its result in few cells only.

    Args:
        in_channels: of the volume.
        base_maps: channels of the finest level.
        levels: of resolution, the finest included.

    Raises:
        DataError: a number is below 1.
    """

    def __init__(self, in_channels: int, base_maps: int = 32, levels: int = 4) -> None:
        super().__init__()
        if min(in_channels, base_maps, levels) < 1:
            raise DataError("DenseUNet: channels, maps and levels must be at least 1.")
        self.levels = levels
        maps = [base_maps << level for level in range(levels)]
        self.down = nn.ModuleList(_double(before, after) for before, after in zip([in_channels, *maps], maps, strict=False))
        self.up = nn.ModuleList(_double(maps[level] + maps[level + 1], maps[level]) for level in range(levels - 1))

    def forward(self, volume: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b maps x y z"]:
        """Refined volume. Raises DataError when a side does not halve `levels - 1` times."""
        if any(side % (1 << (self.levels - 1)) for side in volume.shape[2:]):
            raise DataError(
                f"DenseUNet: sides {tuple(volume.shape[2:])} must be multiples of {1 << (self.levels - 1)}; "
                "change --grid or --levels."
            )
        skips: list[Tensor] = []
        for index, block in enumerate(self.down):
            volume = block(volume if index == 0 else max_pool3d(volume, 2))
            skips.append(volume)
        skips.pop()
        for block in reversed(self.up):
            volume = block(torch.cat([skips.pop(), interpolate(volume, scale_factor=2)], dim=1))
        return volume


def _double(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*_conv(in_channels, out_channels), *_conv(out_channels, out_channels))


def _conv(in_channels: int, out_channels: int) -> list[nn.Module]:
    groups = next(count for count in range(min(GROUPS, in_channels), 0, -1) if in_channels % count == 0)
    return [
        nn.GroupNorm(groups, in_channels),
        nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
    ]
