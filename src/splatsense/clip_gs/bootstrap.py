"""Percentile bootstrap (Efron 1979): how far a figure would move if the test objects had been drawn anew."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from splatsense.errors import DataError

RESAMPLES = 2000
LEVEL = 0.95
CHUNK = 5_000_000  # counts held at a time

Interval = tuple[float, float]


def mean_interval(values: Float[Tensor, " n"], clusters: Int[Tensor, " n"] | None = None, seed: int = 0) -> Interval:
    """95 % interval of the mean of `values`.

    Args:
        values: one per query.
        clusters: queries that stand or fall together, such as the views of one object, share a number and are drawn as one;
            by default each query is drawn alone.
        seed: of the resampling.

    Raises:
        DataError: there are no values.
    """
    _check(values)
    sums, counts = values.double(), torch.ones(len(values), dtype=torch.float64)
    if clusters is not None:
        _, numbers = torch.unique(clusters, return_inverse=True)
        sums, counts = (torch.bincount(numbers, weights) for weights in (sums, counts))
    drawn = _resampled_sums(torch.stack([sums, counts], dim=1).numpy(), np.random.default_rng(seed))
    return _percentiles(drawn[:, 0] / drawn[:, 1])


def class_mean_interval(values: Float[Tensor, " n"], classes: Int[Tensor, " n"], seed: int = 0) -> Interval:
    """95 % interval of the mean over classes of the mean within the class; objects are drawn anew within their classes.

    Raises:
        DataError: there are no values.
    """
    _check(values)
    random = np.random.default_rng(seed)
    groups = [values[classes == index].double().numpy() for index in classes.unique().tolist()]
    means = [_resampled_sums(group[:, None], random)[:, 0] / len(group) for group in groups]
    return _percentiles(np.mean(means, axis=0))


def _check(values: Tensor) -> None:
    if len(values) == 0:
        raise DataError("an interval needs at least one value.")


def _resampled_sums(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, k) sums of as many rows of (n, k) as there are, drawn with replacement."""
    count = len(rows)
    at_a_time = max(1, CHUNK // count)
    parts = []
    for start in range(0, RESAMPLES, at_a_time):
        size = min(at_a_time, RESAMPLES - start)
        parts.append(random.multinomial(count, np.full(count, 1 / count), size=size) @ rows)
    return np.concatenate(parts)


def _percentiles(statistics: np.ndarray) -> Interval:
    low, high = np.quantile(statistics, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
