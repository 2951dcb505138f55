"""SpUNet, the sparse U-Net of SparseConvNet in the form GaussianCross uses (Section 3; Pointcept's SpUNet-v1m1).

Design
- A stem on the finest level, then stages that halve the resolution, then as many that double it again; every stage is one
  strided or inverse convolution and some residual blocks. Skips are concatenated.
- Parts, names and weight layout are those of Pointcept on spconv 2.x, so its state dicts fit as they are (`unet_weights.py`).
- Rows are computed in the order of `VoxelLevel`, so the order of the input's voxels does not change what each of them gets.
- Differs from Pointcept: no classifier at the end, and a level of a single voxel is normalised by running statistics, because
  one voxel has no variance.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from splatsense.errors import CheckpointError, DataError
from splatsense.sparse import KernelMap, SparseConv3d, SparseTensor, VoxelLevel, VoxelNorm


@dataclass(frozen=True)
class UNetConfig:
    """Everything that fixes the network.

    Attributes:
        in_channels: of the input features; the paper's six are colour and normal.
        stem_channels: after the stem.
        stem_kernel: side of the stem's kernel, in voxels.
        channels: after each stage, those that halve the resolution first, then those that double it.
        layers: residual blocks of each stage.
    """

    in_channels: int = 6
    stem_channels: int = 32
    stem_kernel: int = 5
    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 128, 96, 96)
    layers: tuple[int, ...] = (2, 3, 4, 6, 2, 2, 2, 2)

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.layers) or len(self.channels) % 2 or not self.channels:
            raise DataError(
                f"UNetConfig: channels and layers need one entry for each stage down and up again, "
                f"got {len(self.channels)} and {len(self.layers)}."
            )
        if len(self.channels) > 16:
            raise DataError(f"UNetConfig: at most 8 stages down, got {len(self.channels) // 2}.")
        if min(self.in_channels, self.stem_channels, *self.channels) < 1 or min(self.layers) < 1:
            raise DataError("UNetConfig: in_channels, stem_channels, channels and layers must be positive.")
        if self.stem_kernel not in (1, 3, 5, 7):
            raise DataError(f"UNetConfig: stem_kernel must be 1, 3, 5 or 7, got {self.stem_kernel}.")

    @classmethod
    def from_card(cls, entry: dict[str, Any], where: str | Path) -> "UNetConfig":
        """From a model card, `where`. Raises CheckpointError when it does not fit this version."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
        try:
            return cls(**values)
        except (TypeError, AttributeError, DataError) as error:
            known = ", ".join(sorted(field.name for field in fields(cls)))
            raise CheckpointError(f"{where}: its backbone has other settings than {known} ({error}).") from error


UNET_SIZES: dict[str, UNetConfig] = {
    "tiny": UNetConfig(channels=(32, 48, 64, 96, 96, 64, 48, 48), layers=(1, 1, 1, 1, 1, 1, 1, 1)),
    "small": UNetConfig(channels=(32, 64, 96, 128, 128, 96, 64, 64), layers=(2, 2, 3, 3, 2, 2, 2, 2)),
    "base": UNetConfig(),
}


class ConvNormRelu(nn.Sequential):
    """A convolution, normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__(SparseConv3d(in_channels, out_channels, kernel), VoxelNorm(out_channels))

    def forward(self, input: Tensor, kernel_map: KernelMap) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Features of the map's output voxels."""
        convolution, norm = self
        return norm(convolution(input, kernel_map), activate=True)


class ResidualBlock(nn.Module):
    """Two convolutions of kernel 3 beside the identity, or beside a map to other channels."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        same = in_channels == out_channels
        self.proj = None if same else nn.Sequential(SparseConv3d(in_channels, out_channels, 1), VoxelNorm(out_channels))
        self.conv1 = SparseConv3d(in_channels, out_channels, 3)
        self.bn1 = VoxelNorm(out_channels)
        self.conv2 = SparseConv3d(out_channels, out_channels, 3)
        self.bn2 = VoxelNorm(out_channels)

    def forward(self, features: Tensor, level: VoxelLevel) -> Tensor:
        """Features of the same voxels."""
        beside = features
        if self.proj is not None:
            convolution, norm = self.proj
            beside = norm(convolution(features, level.submanifold(1)))
        features = self.bn1(self.conv1(features, level.submanifold(3)), activate=True)
        return self.bn2(self.conv2(features, level.submanifold(3)), beside, activate=True)


class SpUNet(nn.Module):
    """The backbone: a feature for every input voxel.

    Args:
        config: `UNET_SIZES` has those we name; "base" is the paper's.

    Attributes:
        out_channels: of the features that come out (96 of "base").
        total_stride: voxels that become one on the coarsest level, along each axis; moving the input by a multiple of it moves
            the output and nothing else.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        stages = len(config.channels) // 2
        self.out_channels = config.channels[-1]
        self.total_stride = 2**stages
        self.conv_input = ConvNormRelu(config.in_channels, config.stem_channels, config.stem_kernel)
        down_channels = (config.stem_channels, *config.channels[:stages])
        self.down, self.enc, self.up, self.dec = (nn.ModuleList() for _ in range(4))
        for stage in range(stages):  # `up` and `dec` are numbered by the level they lead to
            below = config.channels[-stage - 2]
            skip, out = down_channels[stage], config.channels[-stage - 1]
            self.down.append(ConvNormRelu(skip, down_channels[stage + 1], 2))
            self.enc.append(_blocks(down_channels[stage + 1], down_channels[stage + 1], config.layers[stage]))
            self.up.append(ConvNormRelu(below, out, 2))
            self.dec.append(_blocks(out + skip, out, config.layers[-stage - 1]))

    def forward(self, voxels: SparseTensor) -> Float[Tensor, "m c"]:
        """Features of the input's voxels, in their order.

        Raises:
            DataError: the input has another number of channels.
        """
        if voxels.features.shape[1] != self.config.in_channels:
            raise DataError(
                f"SpUNet: the input has {voxels.features.shape[1]} channels, the network takes {self.config.in_channels}."
            )
        levels = [voxels.level]
        for _ in self.down:
            levels.append(levels[-1].coarser)
        features = self.conv_input(voxels.features[voxels.order], levels[0].submanifold(self.config.stem_kernel))
        skips = []
        for stage, (down, blocks) in enumerate(zip(self.down, self.enc, strict=True)):
            skips.append(features)
            features = _run(blocks, down(features, levels[stage].strided), levels[stage + 1])
        for stage in reversed(range(len(self.up))):
            features = self.up[stage](features, levels[stage].strided.inverse)
            features = _run(self.dec[stage], torch.cat([features, skips.pop()], dim=1), levels[stage])
        return features[voxels.inverse_order]


def _blocks(in_channels: int, out_channels: int, count: int) -> nn.ModuleDict:
    return nn.ModuleDict({f"block{i}": ResidualBlock(out_channels if i else in_channels, out_channels) for i in range(count)})


def _run(blocks: nn.Module, features: Tensor, level: VoxelLevel) -> Tensor:
    for block in blocks.children():
        features = block(features, level)
    return features
