"""Whether one of the first k is a hit: what zero-shot accuracy and retrieval both count.

Equal scores have no order. Taking them as they come would reward whatever happens to stand first, so a query is given the
probability of a hit when ties are broken at random: it is 0 or 1 without ties, and a model that gives everything the same
embedding gets exactly chance.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splatsense.errors import DataError

ROWS = 1024  # queries at a time, which bounds the memory of a large gallery


def hits_at(scores: Float[Tensor, "q g"], hits: Bool[Tensor, "q g"], ks: Sequence[int]) -> Float[Tensor, "q k"]:
    """Probability that at least one of the k best of each row is a hit, float64.

    Args:
        scores: larger is better; infinities are allowed.
        hits: which entries count; a row without any is never found.
        ks: cut-offs, each at least 1.

    Raises:
        DataError: a score is not a number, a cut-off is below 1, or there is nothing to rank.
    """
    if scores.numel() == 0:
        raise DataError(f"there is nothing to rank: {scores.shape[0]} queries, {scores.shape[1]} candidates.")
    if min(ks) < 1:
        raise DataError(f"cut-offs must be at least 1, got {list(ks)}.")
    parts = [_hits_at(rows, marks, ks) for rows, marks in zip(scores.split(ROWS), hits.split(ROWS), strict=True)]
    return torch.cat(parts)


def _hits_at(scores: Tensor, hits: Tensor, ks: Sequence[int]) -> Tensor:
    if bool(scores.isnan().any()):
        raise DataError("scores hold NaN; look for embeddings that are not finite.")
    best = scores.masked_fill(~hits, -torch.inf).amax(1, keepdim=True)
    above = (scores > best).sum(1)  # no hit among them
    tied = scores == best
    ties, tied_hits = tied.sum(1), (tied & hits).sum(1)
    columns = []
    for k in ks:
        drawn = (k - above).clamp(min=0).minimum(ties)
        columns.append(torch.where(tied_hits > 0, 1 - _miss_probability(ties, tied_hits, drawn), 0.0))
    return torch.stack(columns, dim=1)


def _miss_probability(total: Tensor, hits: Tensor, drawn: Tensor) -> Tensor:
    """That `drawn` of `total` entries hold none of `hits`: one factor for each draw."""
    missed = torch.ones(len(total), dtype=torch.float64)
    for draw in range(int(drawn.max())):
        factor = (total - hits - draw).clamp(min=0).double() / (total - draw).clamp(min=1)
        missed = torch.where(draw < drawn, missed * factor, missed)
    return missed
