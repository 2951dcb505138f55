"""Cross-modal retrieval (CLIP-GS, table 1): R@k of finding the object for a text or picture, and the other way round.

An object is a hit when it is the one the query belongs to or carries the same name, since catalogues hold many a
"Chair" and no text can tell them apart.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

KS = (1, 5, 10)


def recall(queries: Tensor, gallery: Tensor, names: Sequence[str], ks: Sequence[int] = KS) -> dict[int, float]:
    """R@k in [0, 1]: the fraction of queries with a hit among the k nearest.

    Args:
        queries: (N, d) unit-length; query i belongs to gallery entry i.
        gallery: (N, d) unit-length.
        names: of the N entries; equal names count as hits for each other.
        ks: cut-offs.
    """
    hit = _same(names).gather(1, (queries @ gallery.T).argsort(dim=1, descending=True, stable=True))
    first = hit.int().argmax(1)
    return {k: float((first < k).double().mean()) for k in ks}


def chance_recall(names: Sequence[str], ks: Sequence[int] = KS) -> dict[int, float]:
    """Expected R@k of a random order: one minus the probability that k draws miss all hits."""
    total = len(names)
    hits = _same(names).sum(1).double()
    result = {}
    for k in ks:
        missed = torch.ones_like(hits)
        for draw in range(min(k, total)):
            missed *= ((total - hits - draw) / (total - draw)).clamp_min(0)
        result[k] = float((1 - missed).mean())
    return result


def _same(names: Sequence[str]) -> Tensor:
    numbering = {name: index for index, name in enumerate(dict.fromkeys(names))}
    ids = torch.tensor([numbering[name] for name in names])
    return ids[:, None] == ids[None]
