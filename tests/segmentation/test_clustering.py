import inspect

import numpy as np
import pytest

from splatsense.errors import DataError, LimitError
from splatsense.native import load_native
from splatsense.segmentation.clustering import cluster_points, cluster_points_reference

needs_native = pytest.mark.skipif(load_native() is None, reason="the native library is not built")


def cloud(seed, count=400, spread=1.0, labels=3):
    rng = np.random.default_rng(seed)
    blobs = rng.normal(size=(12, 3)) * spread
    points = blobs[rng.integers(12, size=count)] + rng.normal(size=(count, 3)) * 0.15
    return points.astype(np.float32), rng.integers(labels, size=count).astype(np.int32)


@needs_native
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("radius", [0.02, 0.1, 0.3])
def test_native_equals_the_search(seed, radius):
    points, labels = cloud(seed)
    for least in (1, 4):
        assert (cluster_points(points, labels, radius, least) == cluster_points_reference(points, labels, radius, least)).all()


@needs_native
def test_points_exactly_a_radius_apart_are_joined_by_both():
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 3).astype(np.float32) * np.float32(0.25)
    labels = np.zeros(len(grid), np.int32)
    for radius, clusters in ((0.25, 1), (0.2499, 125)):
        found = cluster_points(grid, labels, radius)
        assert found.max() + 1 == clusters
        assert (found == cluster_points_reference(grid, labels, radius)).all()


@needs_native
def test_the_order_of_points_changes_names_only():
    points, labels = cloud(3, 600)
    order = np.random.default_rng(0).permutation(len(points))
    first, second = cluster_points(points, labels, 0.08)[order], cluster_points(points[order], labels[order], 0.08)
    pairs = {(int(a), int(b)) for a, b in zip(first, second, strict=True)}
    assert len(pairs) == first.max() + 1 == second.max() + 1


@needs_native
def test_arrays_of_any_layout():
    """They are copied, and the copies have to last as long as native code reads them."""
    points, labels = cloud(5, 100_000, spread=20)
    expected = cluster_points(points, labels, 0.05)
    assert (cluster_points(np.asfortranarray(points), np.repeat(labels, 2)[::2], 0.05) == expected).all()


def test_a_chain_is_one_cluster_and_labels_part_it():
    chain = np.zeros((30, 3), np.float32)
    chain[:, 1] = np.arange(30) * 0.9
    assert cluster_points(chain, np.zeros(30, np.int32), 1.0).tolist() == [0] * 30
    labels = np.repeat([7, -3], 15).astype(np.int32)
    assert cluster_points(chain, labels, 1.0).tolist() == [0] * 15 + [1] * 15


def test_small_clusters_are_left_out_and_numbers_follow_the_points():
    points = np.array([[9, 0, 0], [0, 0, 0], [0.1, 0, 0], [5, 0, 0], [5.1, 0, 0], [5.2, 0, 0]], np.float32)
    zeros = np.zeros(6, np.int32)
    assert cluster_points(points, zeros, 0.5).tolist() == [0, 1, 1, 2, 2, 2]
    assert cluster_points(points, zeros, 0.5, least=2).tolist() == [-1, 0, 0, 1, 1, 1]
    assert cluster_points(points, zeros, 0.5, least=3).tolist() == [-1, -1, -1, 0, 0, 0]
    assert cluster_points(points[:0], zeros[:0], 0.5).tolist() == []


def test_points_that_coincide():
    points = np.zeros((500, 3), np.float32)
    assert cluster_points(points, np.zeros(500, np.int32), 1e-3, least=500).tolist() == [0] * 500


@pytest.mark.parametrize(("radius", "least"), [(0, 1), (float("nan"), 1), (float("inf"), 1), (0.1, 0)])
def test_settings_out_of_range(radius, least):
    with pytest.raises(DataError, match="radius > 0 and least >= 1"):
        cluster_points(np.zeros((2, 3), np.float32), np.zeros(2, np.int32), radius, least)


def test_points_that_are_not_finite():
    with pytest.raises(DataError, match="finite"):
        cluster_points(np.array([[0, np.nan, 0]], np.float32), np.zeros(1, np.int32), 1.0)


@pytest.mark.parametrize(("points", "labels"), [((4, 3), (3,)), ((3, 4), (3,)), ((3, 3), (3, 1))])
def test_shapes_that_do_not_fit(points, labels):
    with pytest.raises(DataError, match=r"needs \(N, 3\) points and N labels"):
        inspect.unwrap(cluster_points)(np.zeros(points, np.float32), np.zeros(labels, np.int32), 1.0)


@needs_native
def test_a_span_beyond_the_cells():
    with pytest.raises(LimitError, match="too far"):
        cluster_points(np.array([[0, 0, 0], [1e6, 0, 0]], np.float32), np.zeros(2, np.int32), 1e-3)
