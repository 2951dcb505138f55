"""InfoNCE over matched points (PointContrast, arXiv 2007.10985, section 3.2.2)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


class Matching(NamedTuple):
    """How well points find their matches.

    Attributes:
        loss: mean cross-entropy of both directions.
        found: share of the first points whose match is the most similar one; without gradient.
    """

    loss: Float[Tensor, ""]
    found: Float[Tensor, ""]


def point_info_nce(first: Float[Tensor, "p c"], second: Float[Tensor, "p c"], temperature: float) -> Matching:
    """Each point has to find its match among all matches, in both directions.

    Args:
        first: features of points in one view; their length does not matter.
        second: of the matching points in the other.
        temperature: cosines are divided by it.
    """
    logits = normalize(first, dim=1) @ normalize(second, dim=1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    found = (logits.detach().argmax(1) == own).float().mean()
    return Matching((cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2, found)
