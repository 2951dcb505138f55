"""Clusters of points by class and distance, which become instances (PointGroup, arXiv 2004.01658, section 4).

Two points are joined when they have the same class and lie at most a radius apart; clusters are the connected components, which
is what a breadth-first search over ball queries finds. Native code finds them among cells rather than points; the reference is
that search.

Differs from the paper: a ball holds any number of points. The released code keeps 300 of each ball because its GPU kernel
needs a bound, and which 300 depends on the order of the points; without it the result does not.
"""

import ctypes
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int32
from scipy.spatial import KDTree

from splatsense.errors import DataError, LimitError
from splatsense.native import load_native, pointer

FRONTIER = 256  # points whose balls are looked up together
NONE = -1


def cluster_points(
    points: Float32[np.ndarray, "n 3"], labels: Int32[np.ndarray, " n"], radius: float, least: int = 1
) -> Int32[np.ndarray, " n"]:
    """The cluster of each point, numbered from 0 in order of their first points; -1 in clusters of fewer than `least` points.

    Args:
        points: finite.
        labels: of any values; points of different labels are never joined.
        radius: in the units of `points`, above 0; points exactly that far apart are joined.
        least: points of a cluster, at least 1.

    Raises:
        DataError: a setting is out of range, a point is not finite, or there are not as many labels as points.
        LimitError: out of memory, or the points span over a million radii.
    """
    if not (0 < radius < float("inf") and least >= 1) or not np.isfinite(points).all():
        raise DataError(f"cluster_points: needs finite points, radius > 0 and least >= 1; got {radius} and {least}.")
    if points.shape != (len(labels), 3) or labels.ndim != 1:
        raise DataError(f"cluster_points: needs (N, 3) points and N labels, got {points.shape} and {labels.shape}.")
    library = load_native()
    if library is None:
        return cluster_points_reference(points, labels, radius, least)
    points, labels = np.ascontiguousarray(points, np.float32), np.ascontiguousarray(labels, np.int32)
    clusters, found = np.empty(len(points), np.int32), ctypes.c_int32()
    status = library.ss_cluster_points(
        pointer(points), pointer(labels), ctypes.c_int32(len(points)),
        ctypes.c_double(radius), ctypes.c_int32(least), pointer(clusters), ctypes.byref(found),
    )  # fmt: skip
    if status:
        reason = "out of memory" if status == 1 else f"the points span too far for a radius of {radius}"
        raise LimitError(f"cluster_points: {reason} ({len(points)} points).")
    return clusters


def cluster_points_reference(
    points: Float32[np.ndarray, "n 3"], labels: Int32[np.ndarray, " n"], radius: float, least: int = 1
) -> Int32[np.ndarray, " n"]:
    """What `cluster_points` computes, by breadth-first search; slow where balls hold many points."""
    first_rows: list[np.ndarray] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        first_rows += [rows[members] for members in _components(points[rows].astype(np.float64), radius)]
    kept = sorted((rows for rows in first_rows if len(rows) >= least), key=lambda rows: rows.min())
    clusters = np.full(len(points), NONE, np.int32)
    for index, rows in enumerate(kept):
        clusters[rows] = index
    return clusters


def _components(points: np.ndarray, radius: float) -> Iterator[np.ndarray]:
    tree, reached = KDTree(points), np.zeros(len(points), bool)
    for seed in range(len(points)):
        if reached[seed]:
            continue
        reached[seed] = True
        members, frontier = [seed], [seed]
        while frontier:
            balls = tree.query_ball_point(points[frontier[:FRONTIER]], radius)
            near = np.unique(np.concatenate([np.asarray(ball, np.int64) for ball in balls]))
            new = near[~reached[near]].tolist()
            reached[new] = True
            members += new
            frontier = frontier[FRONTIER:] + new
        yield np.array(members)
