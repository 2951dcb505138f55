"""Palettes for formats that store indices instead of numbers: k-means of single values and a tree over vectors.

Both are deterministic, and exact wherever there are no more different values than entries.
"""

import numpy as np

LLOYD_STEPS = 16


def value_codebook(values: np.ndarray, entries: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Few numbers that stand for many.

    One-dimensional k-means (Lloyd 1982) on the sorted values, where a step costs `entries` binary searches. It starts from
    equal steps over the range, from quantiles, and from the density^(1/3) that is best for many entries (Panter and Dite
    1951), and the best end wins. A step never makes the error larger, so the root mean square error is at most half of one
    of `entries - 1` equal steps over the range.

    Args:
        values: finite float32 of any shape.
        entries: how many numbers, up to 256.

    Returns:
        The codebook (entries,) float32, ascending, and for each value the uint8 index of its nearest entry.
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    distinct = ordered[np.append(True, ordered[1:] > ordered[:-1])]
    if len(distinct) <= entries:
        codebook = np.append(distinct, np.full(entries - len(distinct), distinct[-1]))
    else:
        sums = np.append(0.0, np.cumsum(ordered - ordered[0]))
        squares = np.append(0.0, np.cumsum((ordered - ordered[0]) ** 2))
        even, gaps = np.linspace(0, 1, entries), np.cumsum(np.diff(ordered, prepend=ordered[0]) ** (2 / 3))
        starts = (
            ordered[0] + even * (ordered[-1] - ordered[0]),
            np.quantile(ordered, even),
            np.interp(even * gaps[-1], gaps, ordered),
        )
        ends = [_lloyd(ordered, sums, squares, start) for start in starts]
        codebook = min(ends, key=lambda end: end[1])[0]
    codebook = codebook.astype(np.float32)
    borders = (codebook[1:] + codebook[:-1]) / 2
    return codebook, np.searchsorted(borders, values).astype(np.uint8)


def _lloyd(ordered: np.ndarray, sums: np.ndarray, squares: np.ndarray, codebook: np.ndarray) -> tuple[np.ndarray, float]:
    """The codebook after `LLOYD_STEPS`, and its squared error; `sums` and `squares` are running totals from `ordered[0]`."""
    error = np.inf
    for _ in range(LLOYD_STEPS):
        edges = np.concatenate([[0], np.searchsorted(ordered, (codebook[1:] + codebook[:-1]) / 2), [len(ordered)]])
        count = np.diff(edges)
        mean = np.diff(sums[edges]) / np.maximum(count, 1)
        error = float((np.diff(squares[edges]) - count * mean**2).sum())
        codebook = np.where(count > 0, ordered[0] + mean, codebook)
    return codebook, error


def vector_palette(vectors: np.ndarray, entries: int) -> tuple[np.ndarray, np.ndarray]:
    """Few vectors that stand for many: the mean of each leaf of a k-d tree.

    Every node is split at the median along the axis of its largest variance until there are `entries` leaves, one level
    for all nodes at a time: k-means among 65,536 centres would take days where this takes seconds. Equal vectors share
    an entry, and up to `entries` different ones are kept exactly.

    Args:
        vectors: (N, D) finite float32.
        entries: most vectors of the palette; a power of two.

    Returns:
        The palette (P, D) float32, P <= entries, and for each vector the int64 index of its entry.
    """
    distinct, label = np.unique(vectors, axis=0, return_inverse=True)
    label = label.reshape(-1)
    if len(distinct) <= entries:
        return distinct, label
    rows, order = vectors.astype(np.float32), np.arange(len(vectors))
    edges = np.array([0, len(vectors)])
    while 2 * (len(edges) - 1) <= entries:
        starts, count = edges[:-1], np.diff(edges)
        variance = _mean(rows * rows, edges) - _mean(rows, edges) ** 2
        node = np.repeat(np.arange(len(count)), count)
        along = np.take_along_axis(rows, variance.argmax(1)[node][:, None], 1)[:, 0]
        turn = np.lexsort((along, node))
        rows, order = rows[turn], order[turn]
        edges = np.unique(np.concatenate([edges, starts + count // 2]))
    palette, count = _mean(rows, edges), np.diff(edges)
    label = np.empty(len(vectors), np.int64)
    label[order] = np.repeat(np.arange(len(count)), count)
    return palette, label


def _mean(rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(P, D) float32 means of the rows between one edge and the next."""
    return np.add.reduceat(rows, edges[:-1], axis=0) / np.diff(edges).astype(np.float32)[:, None]
