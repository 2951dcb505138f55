"""Inputs of the comparison of our SpUNet with one made of spconv's layers, all drawn from NumPy's seeded, frozen generator.

`spunet_golden.npz` holds what spconv-cu126 2.3.8 computed of them on a CPU with algo=Native: `spconv_unet.py` makes it.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splatsense.gaussian_cross.unet import SpUNet, UNetConfig

GOLDEN = Path(__file__).with_name("spunet_golden.npz")
CONFIG = UNetConfig(in_channels=5, stem_channels=8, channels=(12, 16, 16, 12), layers=(1, 2, 2, 1))


def draw_scene(channels: int, voxels: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two floors with walls, as int32 (batch, x, y, z) in no order, and features."""
    random = np.random.RandomState(seed)
    side = int((voxels / 2 / 1.6) ** 0.5)
    cells = random.randint(0, side, (4 * voxels, 4))
    cells[:, 0] %= 2
    wall = random.rand(len(cells)) < 0.4
    cells[:, 3] //= 3
    cells[wall, 1] = 3
    cells[~wall, 3] = 2
    cells = np.unique(cells, axis=0)
    cells = cells[random.permutation(len(cells))[:voxels]].astype(np.int32)
    features = random.standard_normal((len(cells), channels)).astype(np.float32)
    return torch.from_numpy(cells), torch.from_numpy(features)


def draw_weights(unet: SpUNet, seed: int) -> dict[str, Tensor]:
    """A state dict that keeps activations near 1, statistics of the normalisations included."""
    random, state = np.random.RandomState(seed), {}
    for name, value in sorted(unet.state_dict().items()):
        drawn = random.standard_normal(value.shape)
        if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            drawn = 1 + 0.2 * np.abs(drawn)
        elif value.ndim == 5:
            drawn *= (8 / value[0].numel()) ** 0.5
        else:
            drawn *= 0.2
        state[name] = torch.zeros_like(value) if value.ndim == 0 else torch.from_numpy(drawn.astype(np.float32))
    return state


def draw_gradient(voxels: int, channels: int, seed: int) -> Tensor:
    """A gradient of the output."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((voxels, channels)).astype(np.float32))
