"""Whether a backbone's features still differ from voxel to voxel: what is watched so that a collapse is seen.

Effective rank (Roy and Vetterli 2007): the exponential of the entropy of the normalised singular values of the centred
features. It is 1 when all features lie on a line, and the number of channels when they spread evenly.
"""

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def effective_rank(features: Float[Tensor, "m c"]) -> float:
    """In [1, c]; 1 for features that are all the same."""
    centered = features.double() - features.double().mean(0)
    values = torch.linalg.eigvalsh(centered.T @ centered).clamp_min(0).sqrt()
    total = float(values.sum())
    if total <= 1e-12:
        return 1.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


@torch.no_grad()
def feature_spread(features: Float[Tensor, "m c"]) -> float:
    """Mean over the channels of the standard deviation over voxels, in units of the root mean square of all features."""
    scale = features.square().mean().sqrt().clamp_min(1e-12)
    return float(features.std(0, correction=0).mean() / scale)
