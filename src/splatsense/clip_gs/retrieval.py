"""Cross-modal retrieval (CLIP-GS, table 1): R@k of finding an object for a text or picture, and the other way round.

A candidate is a hit when it carries the query's name, since catalogues hold many a "Chair" and no text can tell them apart.
Queries and gallery are any number each, so an object may have several texts or pictures. Scores come as a matrix, so that
whatever changes scores before they are ranked fits between: a prompt ensemble, or a correction for hubs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.clip_gs.bootstrap import Interval, mean_interval
from splatsense.clip_gs.ranking import hits_at
from splatsense.errors import DataError

KS = (1, 5, 10)


@dataclass(frozen=True)
class RecallResult:
    """Fractions of queries in [0, 1].

    Attributes:
        recall: R@k by k.
        interval: 95 % bootstrap interval of the first of them.
    """

    recall: Mapping[int, float]
    interval: Interval


def recall(
    scores: Float[Tensor, "q g"],
    query_names: Sequence[str],
    gallery_names: Sequence[str] | None = None,
    ks: Sequence[int] = KS,
    owners: Sequence[int] | None = None,
) -> RecallResult:
    """R@k: the fraction of queries with a hit among the k candidates of the largest scores; ties are broken at random.

    Args:
        scores: of Q queries against G candidates, such as `queries @ gallery.T`.
        query_names: of the Q queries.
        gallery_names: of the G candidates; by default those of the queries. Equal names are hits.
        ks: cut-offs.
        owners: number of the object each query belongs to, for the interval; by default each is its own.

    Raises:
        DataError: the names do not fit the scores, or no candidate bears the name of a query.
    """
    gallery_names = query_names if gallery_names is None else gallery_names
    if (len(query_names), len(gallery_names)) != tuple(scores.shape) or (owners and len(owners) != len(query_names)):
        raise DataError(f"recall: {len(query_names)} and {len(gallery_names)} names for scores of shape {tuple(scores.shape)}.")
    lost = set(query_names) - set(gallery_names)
    if lost:
        raise DataError(f"recall: no candidate is named {sorted(lost)[0]!r}, as a query is; {len(lost)} such names.")
    found = hits_at(scores, same_name(query_names, gallery_names), ks)
    interval = mean_interval(found[:, 0], None if owners is None else torch.tensor(owners))
    return RecallResult(dict(zip(ks, found.mean(0).tolist(), strict=True)), interval)


def chance_recall(
    query_names: Sequence[str], gallery_names: Sequence[str] | None = None, ks: Sequence[int] = KS
) -> RecallResult:
    """What a random order gives: all scores equal."""
    candidates = len(query_names if gallery_names is None else gallery_names)
    return recall(torch.zeros(len(query_names), candidates), query_names, gallery_names, ks)


def same_name(queries: Sequence[str], gallery: Sequence[str]) -> Tensor:
    """(Q, G) True where a query and a candidate bear the same name."""
    numbers = {name: index for index, name in enumerate(dict.fromkeys([*queries, *gallery]))}
    left, right = (torch.tensor([numbers[name] for name in names]) for names in (queries, gallery))
    return left[:, None] == right[None]
