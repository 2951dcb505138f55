"""Two small rooms furnished with the demo's objects, for the models in the package."""

from importlib import resources
from pathlib import Path

import numpy as np
import torch

from splatsense.geometry.normals import estimate_normals
from splatsense.io import load

KINDS = ("floor", "wall", "chair", "sofa", "table", "cabinet")
ROOMS = (
    {"plasticChair": (2, 0.9), "sofa": (3, 2.1), "oakTable": (4, 1.4), "wardrobeWithSlidingDoors": (5, 2.0)},
    {"oakChair": (2, 1.0), "L_shaped_sofa": (3, 2.4), "desk": (4, 1.3), "cupboard": (5, 1.8)},
)
"""What stands in each: file, index of its kind, and longest side in metres."""
CORNERS = ((0.8, 2.6), (1.6, 0.9), (3.4, 2.6), (4.2, 0.6))
"""Where, in metres along the floor."""


def room(number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points in metres, 8-bit colours, normals and kinds: a floor, two walls, and four pieces of furniture along them.

    Floor and walls are as dense as scans of 2 cm.
    """
    draw = np.random.default_rng(number)
    flat = draw.random((50_000, 2)) * (5, 4)
    low, high = draw.random((31_000, 2)) * (5, 2.5), draw.random((25_000, 2)) * (4, 2.5)
    parts = [
        (np.c_[flat, np.zeros(len(flat))], (0.5, 0.35, 0.2), 0),
        (np.c_[low[:, 0], np.zeros(len(low)), low[:, 1]], (0.8, 0.8, 0.75), 1),
        (np.c_[np.zeros(len(high)), high], (0.8, 0.8, 0.75), 1),
    ]
    points, colors, kinds = [], [], []
    for place, color, kind in parts:
        points.append(place)
        colors.append(np.tile(color, (len(place), 1)))
        kinds.append(np.full(len(place), kind))
    objects = Path(str(resources.files("splatsense").joinpath("assets", "objects")))
    for (name, (kind, side)), corner in zip(
        ROOMS[number].items(), ((0.8, 2.6), (1.6, 0.9), (3.4, 2.6), (4.2, 0.6)), strict=True
    ):
        gaussians = load(objects / f"{name}.splat")
        means = gaussians.means.numpy()[:, [0, 2, 1]] * (1, -1, 1)  # y up to z up
        means = means / (means.max(0) - means.min(0)).max() * side
        points.append(means - [*(means.max(0) + means.min(0))[:2] / 2, means[:, 2].min()] + [*corner, 0])
        colors.append(gaussians.rgb.numpy())
        kinds.append(np.full(len(means), kind))
    cloud = np.concatenate(points).astype(np.float32)
    normals = estimate_normals(cloud, np.array([2.5, 2.0, 1.5]))
    color = torch.from_numpy((np.concatenate(colors).clip(0, 1) * 255).astype(np.uint8))
    return torch.from_numpy(cloud), color, torch.from_numpy(normals.astype(np.float32)), torch.from_numpy(np.concatenate(kinds))
