"""SparseTensor and voxelize: what they hold and what they refuse."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splatsense.errors import DataError
from splatsense.sparse import SparseTensor, tensor, voxelize
from splatsense.sparse.morton import BATCHES, LIMIT


def test_maps_are_shared_and_orders_are_inverse():
    cells = torch.tensor([[1, 0, 0, 5], [0, 3, -2, 1], [0, -4, 0, 0]], dtype=torch.int32)
    tensor = SparseTensor(cells, torch.arange(3.0)[:, None])
    other = tensor.with_features(torch.zeros(3, 7))
    assert other.level.submanifold(3) is tensor.level.submanifold(3)
    assert other.level.coarser.submanifold(3) is tensor.level.coarser.submanifold(3)
    assert torch.equal(tensor.order[tensor.inverse_order], torch.arange(3))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 3]], r"rows 0 and 2 are the same voxel \[0, 1, 2, 3\]"),
        ([[0, LIMIT + 1, 0, 0]], f"within {LIMIT} voxels"),
        ([[0, 0, -LIMIT - 1, 0]], f"within {LIMIT} voxels"),
        ([[0, 2**31 - 1, 0, 0]], f"within {LIMIT} voxels"),
        ([[-1, 0, 0, 0]], "batch indices"),
        ([[BATCHES, 0, 0, 0]], "batch indices"),
    ],
)
def test_bad_coordinates(cells, message):
    with pytest.raises(DataError, match=message):
        SparseTensor(torch.tensor(cells, dtype=torch.int32), torch.zeros(len(cells), 1))


def test_empty():
    with pytest.raises(DataError, match="no voxels"):
        SparseTensor(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0, 3))
    with pytest.raises(DataError, match="no points"):
        voxelize(torch.zeros(0, 3), 0.02, torch.zeros(0, 3))


def test_voxelize_refuses():
    for bad in (float("nan"), float("inf"), 1e6):
        with pytest.raises(DataError, match="not finite, or over"):
            voxelize(torch.tensor([[0.0, bad, 0.0]]), 0.02, torch.zeros(1, 1))
    for size in (0.0, -1.0, float("nan")):
        with pytest.raises(DataError, match="grid_size"):
            voxelize(torch.zeros(1, 3), size, torch.zeros(1, 1))


@given(st.integers(1, 200), st.integers(0, 99))
def test_voxelize_takes_means(count, seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=generator) * 0.2 - 0.1
    features = torch.randn(count, 2, generator=generator, requires_grad=True)
    batch = torch.randint(0, 2, (count,), generator=generator)
    tensor, voxel = voxelize(points, 0.05, features, batch)
    cells = torch.cat([batch[:, None], (points.double() / 0.05).floor().long()], dim=1)
    assert torch.equal(tensor.coordinates[voxel].long(), cells)
    assert len(tensor) == len(cells.unique(dim=0))
    for row in range(len(tensor)):
        torch.testing.assert_close(tensor.features[row], features[voxel == row].mean(0))
    tensor.features.sum().backward()
    assert features.grad is not None


def test_voxelize_in_slices_is_voxelize_at_once(monkeypatch):
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    features, batch = points.clone().requires_grad_(), torch.arange(500) % 2
    whole, row = voxelize(points, 0.1, features, batch)
    whole.features.square().sum().backward()
    gradient, features.grad = features.grad, None
    monkeypatch.setattr(tensor, "SLICE", 64)
    sliced, sliced_row = voxelize(points, 0.1, features, batch)
    sliced.features.square().sum().backward()
    assert torch.equal(sliced.coordinates, whole.coordinates)
    assert torch.equal(sliced.features, whole.features)
    assert torch.equal(sliced_row, row)
    assert torch.equal(features.grad, gradient)


def test_result_of_voxelize_is_what_the_constructor_makes():
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    tensor, _ = voxelize(points, 0.5, points)
    again = SparseTensor(tensor.coordinates, tensor.features)
    assert torch.equal(tensor.level.keys, again.level.keys)
    assert torch.equal(tensor.order, again.order)
