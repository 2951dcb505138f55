"""The golden embedding: what a model makes of one fixed object, kept in its card and computed again when it loads.

The card holds its first 32 numbers; two networks do not agree in those by chance.
The object is a formula, not random numbers, which other versions of PyTorch may draw otherwise.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from splatsense.clip_gs.tokenizer import GaussianBatch
from splatsense.errors import CheckpointError
from splatsense.gaussians import quaternion_to_matrix

if TYPE_CHECKING:
    from splatsense.clip_gs.encoder import GaussianEncoder

NUMBERS = 32
TOLERANCE = 5e-4  # of each number of the embedding; builds and machines differ by 1e-5 or less, another network by 1e-1


def golden_object(count: int) -> GaussianBatch:
    """One object of `count` Gaussians on a spiral around an egg, no two alike in place, size, direction, opacity or colour."""
    step = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    angle, height = step * count * math.pi * (3 - math.sqrt(5)), 1 - 2 * step
    around = (1 - height.square()).sqrt() * (0.5 + 0.2 * height)
    quats = torch.stack([angle.cos(), 0.6 * angle.sin(), 0.8 * angle.sin(), torch.zeros_like(angle)], dim=1)
    return GaussianBatch(
        means=torch.stack([around * angle.cos(), height, around * angle.sin()], dim=1).float()[None],
        rotations=quaternion_to_matrix(quats).float()[None],
        scales=(0.02 + 0.01 * torch.stack([step.sin(), height.cos(), (7 * step).sin()], dim=1)).float()[None],
        opacities=(0.6 + 0.3 * (11 * step).sin()).float()[None],
        rgb=(0.5 + 0.4 * torch.stack([(5 * step).sin(), (3 * height).cos(), (2 * angle).sin()], dim=1)).float()[None],
    )


def golden_embedding(encoder: "GaussianEncoder") -> list[float]:
    """The first numbers of the golden object's embedding by an encoder in evaluation mode, to five digits."""
    return [round(value, 5) for value in _embed(encoder).tolist()]


def check_golden(encoder: "GaussianEncoder", expected: Sequence[float], source: str) -> None:
    """Compare an encoder's embedding of the golden object with the one in its card.

    Raises:
        CheckpointError: they differ by more than `TOLERANCE`.
    """
    found = _embed(encoder)
    if len(expected) != len(found):
        raise CheckpointError(f"{source}: the golden embedding has {len(expected)} numbers, the encoder gives {len(found)}.")
    difference = float((found - torch.tensor(expected)).abs().max())
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"{source}: gives other embeddings than when it was saved (by {difference:.2g}, {TOLERANCE:g} is allowed). "
            "The weights are damaged or of another version of splatsense; get them again, or use the version named in the card."
        )


def _embed(encoder: "GaussianEncoder") -> Tensor:
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        return encoder(golden_object(encoder.config.gaussians).to(device))[0, :NUMBERS].cpu()
