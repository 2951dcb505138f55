"""What `--size` fixes: the backbone, the decoder and what a sample of a scene is, in one dial."""

from dataclasses import dataclass
from typing import Literal

from splatsense.gaussian_cross.dataset import SampleConfig
from splatsense.gaussian_cross.decoder import DecoderConfig
from splatsense.gaussian_cross.unet import UNET_SIZES, UNetConfig

Size = Literal["tiny", "small", "base"]


@dataclass(frozen=True)
class Recipe:
    """Everything a size fixes.

    Attributes:
        backbone: the sparse U-Net.
        decoder: what turns its features into Gaussians.
        sample: voxels, views and masks.
    """

    backbone: UNetConfig
    decoder: DecoderConfig
    sample: SampleConfig


def recipe(size: Size) -> Recipe:
    """Settings of a size: "tiny" trains on a laptop's CPU, "small" on one GPU, "base" is the paper's."""
    if size == "tiny":
        decoder = DecoderConfig(
            grid=(64, 64, 32), height=0.5, volume_channels=48, levels=0, refined_channels=48, hidden=64, feature_channels=32,
            reach=0,
        )  # fmt: skip
        sample = SampleConfig(voxel=0.05, most_voxels=60_000, width=160, height=120)
    elif size == "small":
        decoder = DecoderConfig(grid=(96, 96, 48), height=0.5, volume_channels=64, base_maps=24, refined_channels=64, hidden=64)
        sample = SampleConfig(voxel=0.03, most_voxels=120_000, width=320, height=240)
    else:
        decoder, sample = DecoderConfig(), SampleConfig()
    return Recipe(UNET_SIZES[size], decoder, sample)
