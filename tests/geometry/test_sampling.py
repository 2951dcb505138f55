"""Farthest point sampling: by hand, by definition, and native against PyTorch."""

import pytest
import torch

from splatsense.errors import DataError
from splatsense.geometry.sampling import farthest_point_sampling, farthest_point_sampling_reference
from splatsense.native import load_native


def test_by_hand():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [10, 0, 0], [4, 0, 0], [6, 0, 0]])
    assert farthest_point_sampling(points, 5).tolist() == [0, 2, 3, 4, 1]
    assert farthest_point_sampling(points, 3, start=3).tolist() == [3, 2, 0]


def test_ties_go_to_the_lower_index():
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert farthest_point_sampling(square, 5).tolist() == [0, 1, 2, 3, 4]
    assert farthest_point_sampling(torch.zeros(4, 3), 3).tolist() == [0, 0, 0]


@pytest.mark.skipif(load_native() is None, reason="the native library is not installed")
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 100, 1000])
def test_equals_the_reference(n):
    generator = torch.Generator().manual_seed(n)
    points = torch.randn(3, n, 3, generator=generator)
    points[1] = points[1].round()  # many ties
    start, count = n // 3, min(n, 64)
    expected = farthest_point_sampling_reference(points, count, start)
    assert torch.equal(farthest_point_sampling(points, count, start), expected)
    assert torch.equal(farthest_point_sampling(points[2], count, start), expected[2])


@pytest.mark.skipif(load_native() is None, reason="the native library is not installed")
@pytest.mark.parametrize("name", ["normal", "grid", "plane", "one point", "clusters", "huge", "tiny"])
@pytest.mark.parametrize("n", [4096, 5003])
def test_large_clouds_equal_the_reference(name, n):
    """They are cut into blocks, of which most are passed over."""
    generator = torch.Generator().manual_seed(n)
    points = torch.randn(2, n, 3, generator=generator)
    points = {
        "normal": points,
        "grid": (points * 3).round(),  # many ties and duplicates
        "plane": points * torch.tensor([1.0, 0.0, 1.0]),
        "one point": torch.full_like(points, 0.3),
        "clusters": points * 1e-4 + (torch.arange(n) % 5)[None, :, None],
        "huge": points * 1e25,  # squares overflow
        "tiny": points * 1e-25,  # squares vanish
    }[name]
    expected = farthest_point_sampling_reference(points, 300, n // 2)
    assert torch.equal(farthest_point_sampling(points, 300, n // 2), expected)


def test_each_pick_is_the_farthest_from_those_before():
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    picks = farthest_point_sampling(points, 20)
    for s in range(1, 20):
        to_picked = torch.cdist(points.double(), points[picks[:s]].double()).amin(1)
        assert float(to_picked[picks[s]]) == pytest.approx(float(to_picked.max()), abs=1e-6)


def test_large_batches_run_in_parallel_with_the_same_result():
    points = torch.rand(6, 20_000, 3, generator=torch.Generator().manual_seed(0))
    together = farthest_point_sampling(points, 256)
    assert torch.equal(together, torch.stack([farthest_point_sampling(cloud, 256) for cloud in points]))


def test_other_layouts_and_types_are_accepted():
    points = torch.rand(3, 50, generator=torch.Generator().manual_seed(0)).T
    expected = farthest_point_sampling(points.contiguous(), 10)
    assert torch.equal(farthest_point_sampling(points.requires_grad_(), 10), expected)
    assert torch.equal(farthest_point_sampling(points.detach().double(), 10), expected)


def test_bad_input_is_named():
    points = torch.rand(10, 3)
    with pytest.raises(DataError, match=r"count must be 1 to 10 \(the number of points\), got 11"):
        farthest_point_sampling(points, 11)
    with pytest.raises(DataError, match="count must be 1 to 10"):
        farthest_point_sampling(points, 0)
    with pytest.raises(DataError, match="start must be 0 to 9, got 10"):
        farthest_point_sampling(points, 2, start=10)
    with pytest.raises(DataError, match="points must hold 1 to"):
        farthest_point_sampling(points[:0], 1)
    points[4, 1] = float("nan")
    with pytest.raises(DataError, match=r"farthest_point_sampling: points\[4\] is not finite"):
        farthest_point_sampling(points, 2)
    with pytest.raises(DataError, match=r"points\[1, 4\] is not finite"):
        farthest_point_sampling(torch.stack([torch.zeros(10, 3), points]), 2)
    with pytest.raises(DataError, match=r"points\[1\] is not finite as torch.float32"):
        farthest_point_sampling(torch.tensor([[0.0, 0, 0], [0, 1e300, 0]], dtype=torch.float64), 2)
