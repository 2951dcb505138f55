"""Serial orders: permutations, and the defining properties of the curves on full grids."""

import inspect

import pytest
import torch

from splatsense.errors import DataError
from splatsense.geometry.serialize import (
    hilbert_key,
    morton_key,
    serial_order,
    serial_order_reference,
    sort_lists,
    sort_lists_reference,
)
from splatsense.native import load_native

ORDERS = ("xyz", "hilbert", "z")


def full_grid(bits: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(2**bits)] * 3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [1, 10, 20])
def test_is_a_permutation_and_repeatable(order, bits):
    points = torch.randn(3, 500, 3, generator=torch.Generator().manual_seed(bits))
    permutation = serial_order(points, order, bits)
    assert torch.equal(permutation.sort(dim=-1).values, torch.arange(500).expand(3, 500))
    assert torch.equal(serial_order(points[1], order, bits), permutation[1])


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_hilbert_curve_steps_to_an_adjacent_cell(bits):
    cells = full_grid(bits)
    path = cells[serial_order(cells.float(), "hilbert", bits)]
    assert torch.equal(path[0], torch.zeros(3, dtype=torch.int64))
    assert bool((path.diff(dim=0).abs().sum(1) == 1).all())


@pytest.mark.parametrize("key", [hilbert_key, morton_key])
def test_curves_fill_every_octant_before_the_next(key):
    """A curve over 2^b cells a side, seen at 2^(b-1), is the coarser curve; its keys are 0 ... 8^b - 1."""
    cells = full_grid(4)
    keys = key(cells, 4)
    assert torch.equal(keys.sort().values, torch.arange(8**4))
    if key is morton_key:
        assert torch.equal(keys >> 3, key(cells >> 1, 3))
    coarse = (cells >> 1)[keys.argsort()].reshape(-1, 8, 3)
    assert bool((coarse == coarse[:, :1]).all())


def test_morton_interleaves_bits():
    cells = torch.tensor([[0b10, 0b01, 0b11], [0b01, 0b00, 0b00]])
    assert morton_key(cells, 2).tolist() == [0b101_011, 0b000_100]
    assert int(morton_key(torch.tensor([2**20 - 1] * 3), 20)) == 2**60 - 1


def test_xyz_sorts_by_x_then_y_then_z():
    cells = full_grid(3)
    shuffled = cells[torch.randperm(512, generator=torch.Generator().manual_seed(0))]
    assert torch.equal(shuffled[serial_order(shuffled.float(), "xyz", 3)], cells)


@pytest.mark.parametrize("order", ORDERS)
def test_does_not_depend_on_place_and_size(order):
    points = torch.randint(0, 1024, (300, 3), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(serial_order(points, order), serial_order(points * 4 - 512, order))


@pytest.mark.parametrize("order", ORDERS)
def test_points_of_one_cell_keep_their_order(order):
    assert serial_order(torch.ones(5, 3), order).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("order", ["hilbert", "z"])
def test_curves_keep_neighbours_together(order):
    """Consecutive points are far closer than in the given order."""
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    step = points[serial_order(points, order)].diff(dim=0).norm(dim=1).mean()
    assert float(step) < 0.2 * float(points.diff(dim=0).norm(dim=1).mean())


@pytest.mark.skipif(load_native() is None, reason="the native library is not installed")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [1, 2, 8, 10, 20])
@pytest.mark.parametrize("n", [1, 2, 17, 3000])
def test_equals_the_reference(order, bits, n):
    generator = torch.Generator().manual_seed(n)
    points = torch.randn(5, n, 3, generator=generator)
    points[1] = points[1].round()  # many in one cell
    points[2] = 7  # all in one place
    points[3] *= 1e30
    points[4, :, 1] = 0
    permutation = serial_order(points, order, bits)
    assert torch.equal(permutation, serial_order_reference(points, order, bits))
    lists = torch.randint(0, n, (5, 6, 9), generator=generator)  # some hold a point twice
    assert torch.equal(sort_lists(permutation, lists), sort_lists_reference(permutation, lists))


def test_sorted_lists_by_hand():
    permutation = torch.tensor([[3, 0, 2, 1]])
    lists = torch.tensor([[[0, 1, 2], [1, 3, 1]]])
    assert sort_lists(permutation, lists).tolist() == [[[0, 2, 1], [3, 1, 1]]]
    assert sort_lists_reference(permutation, lists).tolist() == [[[0, 2, 1], [3, 1, 1]]]
    with pytest.raises(DataError, match="indices of 0 to 3, got 1 to 4"):
        sort_lists(permutation, torch.tensor([[[1, 4]]]))
    with pytest.raises(DataError, match="permutation must hold the indices 0 to 3"):
        sort_lists(permutation + 1, lists)


def test_lists_of_another_type_or_shape_than_native_code_takes():
    unchecked, permutation = inspect.unwrap(sort_lists), torch.tensor([[3, 0, 2, 1]])
    with pytest.raises(DataError, match=r"must be int64, got torch.int64 and torch.int32"):
        unchecked(permutation, torch.zeros(1, 3, 4, dtype=torch.int32))
    for lists in (torch.zeros(2, 3, 4), torch.zeros(3, 4)):
        with pytest.raises(DataError, match=r"must have shapes \(B, N\) and \(B, M, K\), got \(1, 4\)"):
            unchecked(permutation, lists.long())


@pytest.mark.skipif(load_native() is None, reason="the native library is not installed")
def test_large_batches_run_in_parallel_with_the_same_result():
    points = torch.randn(6, 9000, 3, generator=torch.Generator().manual_seed(0))
    permutation = serial_order(points, "hilbert", 8)
    assert torch.equal(permutation, torch.stack([serial_order(cloud, "hilbert", 8) for cloud in points]))
    lists = torch.rand(6, 200, 9000, generator=torch.Generator().manual_seed(1)).topk(40, dim=-1).indices
    assert torch.equal(sort_lists(permutation, lists), sort_lists_reference(permutation, lists))


def test_bad_input_is_named():
    with pytest.raises(DataError, match="bits must be 1 to 20, got 21"):
        serial_order(torch.rand(4, 3), "z", 21)
    with pytest.raises(DataError, match="serial_order: points must hold 1 to"):
        serial_order(torch.rand(0, 3), "z")
    with pytest.raises(DataError, match=r"serial_order: points\[1\] is not finite"):
        serial_order(torch.tensor([[0.0, 0, 0], [0, torch.inf, 0]]), "xyz")
