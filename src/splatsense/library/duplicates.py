"""Duplicates in a library: files of the same content, and assets that look the same to the model.

Near duplicates are groups of assets in which each has a neighbour at least `threshold` close: the same object in another
format, resaved, or thinned out. The pairs are found exactly, block by block, which takes time with the square of the library:
a second for 10,000 assets, two minutes for 100,000.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatsense.errors import DataError
from splatsense.library.index import VectorIndex
from splatsense.library.records import Asset
from splatsense.library.store import Store

THRESHOLD = 0.96
BLOCK = 2048


@dataclass(frozen=True)
class Duplicates:
    """Assets that are the same.

    Attributes:
        exact: files of one content each, at least two, that exist now.
        near: assets that look the same, at least two, each with the cosine between it and the first.
    """

    exact: list[list[Path]]
    near: list[list[tuple[Asset, float]]]


def find_duplicates(store: Store, index: VectorIndex, threshold: float = THRESHOLD) -> Duplicates:
    """The duplicates of a library.

    Args:
        store: of the library.
        index: all embeddings of a model.
        threshold: smallest cosine of near duplicates, above 0 and at most 1.

    Raises:
        DataError: the threshold is out of its range.
    """
    if not 0 < threshold <= 1:
        raise DataError(f"--threshold {threshold}: must be above 0 and at most 1.")
    places: dict[int, list[Path]] = {}
    for asset_id, file in store.files():
        if os.path.lexists(file.path):
            places.setdefault(asset_id, []).append(file.path)
    groups = near_groups(index.vectors, threshold)
    found = store.find_assets([int(index.ids[row]) for group in groups for row in group])
    groups = [[row for row in group if int(index.ids[row]) in found] for group in groups]
    near = [
        [(found[int(index.ids[row])], float(index.vectors[row] @ index.vectors[group[0]])) for row in group]
        for group in groups
        if len(group) > 1
    ]
    return Duplicates([files for files in places.values() if len(files) > 1], near)


def near_groups(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Rows of unit-length `vectors` (N, dim) joined by cosines of at least `threshold`: ascending rows, in ascending groups."""
    parent = np.arange(len(vectors))
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        for other in range(start, len(vectors), BLOCK):
            rows, columns = np.nonzero(block @ vectors[other : other + BLOCK].T >= threshold)
            for a, b in zip((rows + start).tolist(), (columns + other).tolist(), strict=True):
                if a < b:
                    first, second = sorted((_root(parent, a), _root(parent, b)))
                    parent[second] = first
    groups: dict[int, list[int]] = {}
    for row in range(len(vectors)):
        groups.setdefault(_root(parent, row), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _root(parent: np.ndarray, row: int) -> int:
    """The representative of a row's group; the way there is shortened."""
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int(parent[row])
    return int(row)
