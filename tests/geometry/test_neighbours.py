"""Nearest neighbours: by hand, native against PyTorch to the last bit, and against SciPy's k-d tree."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from splatsense.errors import DataError
from splatsense.geometry.neighbours import k_nearest_neighbours, k_nearest_neighbours_reference
from splatsense.native import load_native


def test_by_hand():
    points = torch.tensor([[0.0, 0, 0], [3, 0, 0], [1, 0, 0], [0, 2, 0], [1, 0, 0]])
    distances, indices = k_nearest_neighbours(points, torch.tensor([[0.9, 0, 0], [3, 1, 0]]), 3)
    assert indices.tolist() == [[2, 4, 0], [1, 2, 4]]  # equal points in the order of their indices
    torch.testing.assert_close(distances, torch.tensor([[0.01, 0.01, 0.81], [1, 5, 5]]))


def clouds(name: str, n: int, generator: torch.Generator) -> torch.Tensor:
    points = torch.randn(2, n, 3, generator=generator)
    return {
        "normal": points,
        "grid": (points * 2).round(),  # many ties and duplicates
        "plane": points * torch.tensor([1.0, 1.0, 0.0]),
        "one point": torch.zeros(2, n, 3),
        "clusters": points * 1e-4 + (points[:, :1] * 10).repeat(1, n, 1) * (torch.arange(n) % 3)[None, :, None],
        "huge": points * 1e25,  # squares overflow
    }[name]


@pytest.mark.skipif(load_native() is None, reason="the native library is not installed")
@pytest.mark.parametrize("name", ["normal", "grid", "plane", "one point", "clusters", "huge"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 16), (33, 5), (513, 32), (3000, 9)])
def test_equals_the_reference(name, n, k):
    """One leaf for small clouds, a tree for large ones; queries on, near and far from the points."""
    generator = torch.Generator().manual_seed(n)
    points = clouds(name, n, generator)
    queries = torch.cat([points[:, :40], torch.randn(2, 40, 3, generator=generator), points[:, :3] * 50 + 1], dim=1)
    distances, indices = k_nearest_neighbours(points, queries, k)
    expected_distances, expected_indices = k_nearest_neighbours_reference(points, queries, k)
    assert torch.equal(distances, expected_distances)
    assert torch.equal(indices, expected_indices)
    assert bool((distances.diff(dim=-1).nan_to_num(0) >= 0).all())
    single = k_nearest_neighbours(points[1], queries[1], k)
    assert torch.equal(single[0], distances[1])
    assert torch.equal(single[1], indices[1])


def test_large_batches_run_in_parallel_with_the_same_result():
    points = torch.rand(4, 6000, 3, generator=torch.Generator().manual_seed(0))
    together = k_nearest_neighbours(points, points[:, :2000], 32)
    for cloud in range(4):
        alone = k_nearest_neighbours(points[cloud], points[cloud, :200], 32)
        assert torch.equal(together[0][cloud, :200], alone[0])
        assert torch.equal(together[1][cloud, :200], alone[1])


def test_equals_scipy():
    rng = np.random.default_rng(0)
    points, queries = rng.random((20_000, 3), np.float32), rng.random((500, 3), np.float32)
    distances, indices = k_nearest_neighbours(torch.from_numpy(points), torch.from_numpy(queries), 8)
    expected_distances, expected_indices = cKDTree(points).query(queries, 8)
    np.testing.assert_allclose(distances.sqrt().numpy(), expected_distances, rtol=1e-5)
    assert (indices.numpy() == expected_indices).mean() > 0.999


def test_bad_input_is_named():
    points = torch.rand(10, 3)
    with pytest.raises(DataError, match=r"k must be 1 to 10 \(the number of points\), got 11"):
        k_nearest_neighbours(points, points, 11)
    with pytest.raises(DataError, match="k must be 1 to 10"):
        k_nearest_neighbours(points, points, 0)
    with pytest.raises(DataError, match="k_nearest_neighbours: points must hold 1 to"):
        k_nearest_neighbours(points[:0], points, 1)
    with pytest.raises(DataError, match="k_nearest_neighbours: queries must hold 1 to"):
        k_nearest_neighbours(points, points[:0], 1)
    queries = points.clone()
    queries[7, 2] = float("inf")
    with pytest.raises(DataError, match=r"k_nearest_neighbours: queries\[7\] is not finite"):
        k_nearest_neighbours(points, queries, 1)
    with pytest.raises(DataError, match=r"points\[0\] is not finite as torch.float32"):
        k_nearest_neighbours(torch.tensor([[1e300, 0, 0]], dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64), 1)


def test_no_clouds_have_no_neighbours():
    for find in (k_nearest_neighbours, k_nearest_neighbours_reference):
        distances, indices = find(torch.zeros(0, 4, 3), torch.zeros(0, 2, 3), 3)
        assert tuple(distances.shape) == tuple(indices.shape) == (0, 2, 3)
