"""InfoNCE over matched points (PointContrast, arXiv 2007.10985, section 3.2.2)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def point_info_nce(first: Float[Tensor, "p c"], second: Float[Tensor, "p c"], temperature: float) -> Float[Tensor, ""]:
    """Each point has to find its match among all matches, in both directions; the mean of the two.

    Args:
        first: features of points in one view; their length does not matter.
        second: of the matching points in the other.
        temperature: cosines are divided by it.
    """
    logits = normalize(first, dim=1) @ normalize(second, dim=1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
