"""Neighbour maps: native code against the reference, and both against what they are for."""

import pytest
import torch

from splatsense.native import load_native
from splatsense.sparse import SparseTensor
from splatsense.sparse.kernel_map import (
    TILE,
    KernelMap,
    strided_map,
    strided_map_reference,
    submanifold_map,
    submanifold_map_reference,
)
from splatsense.sparse.morton import BATCHES, LIMIT, voxel_keys


def draw_keys(corner: int, seed: int = 0) -> torch.Tensor:
    """Keys of clustered voxels of the first and the last batch, from one corner of what coordinates may be."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, 24, (3000, 4), generator=generator)
    cells[:, 0] = cells[:, 0] % 2 * (BATCHES - 1)
    cells[:, 3] //= 6
    cells[:, 1:] = cells[:, 1:] + corner if corner <= 0 else corner - cells[:, 1:]
    return voxel_keys(cells.unique(dim=0)).sort().values


def same(ours: KernelMap, theirs: KernelMap) -> bool:
    return all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ("inputs", "outputs", "starts", "bounds"))


@pytest.mark.skipif(load_native() is None, reason="the native library is not built or switched off")
@pytest.mark.parametrize("corner", [0, -7, -LIMIT, LIMIT])
def test_native_equals_reference_at_every_level(corner):
    keys = draw_keys(corner)
    for _ in range(8):
        for kernel in (1, 3, 5, 7):
            assert same(submanifold_map(keys, kernel), submanifold_map_reference(keys, kernel))
        parents, ours = strided_map(keys)
        expected, theirs = strided_map_reference(keys)
        assert torch.equal(parents, expected)
        assert same(ours, theirs)
        keys = parents


def test_pairs_are_neighbours_and_all_of_them():
    cells = torch.randint(-6, 6, (600, 4), generator=torch.Generator().manual_seed(1))
    cells[:, 0] = cells[:, 0].abs() % 3
    cells = cells.unique(dim=0)
    tensor = SparseTensor(cells.int(), torch.zeros(len(cells), 1))
    cells, kernel_map = cells[tensor.order], tensor.level.submanifold(3)
    offset = torch.arange(27).repeat_interleave(kernel_map.starts.diff())
    steps = torch.stack([torch.zeros_like(offset), offset // 9 - 1, offset // 3 % 3 - 1, offset % 3 - 1], dim=1)
    assert torch.equal(cells[kernel_map.inputs], cells[kernel_map.outputs] + steps)
    apart = (cells[:, None] - cells[None]).abs()
    assert len(offset) == int(((apart[..., 0] == 0) & (apart[..., 1:].amax(-1) <= 1)).sum())


def test_bounds_cut_lists_at_tiles():
    keys = draw_keys(0)
    assert len(keys) > 2 * TILE
    kernel_map = submanifold_map_reference(keys, 3)
    tiles, bounds = -(-len(keys) // TILE), kernel_map.bounds
    for offset in range(27):
        for tile in range(tiles):
            rows = kernel_map.outputs[bounds[offset * tiles + tile] : bounds[offset * tiles + tile + 1]]
            assert torch.equal(rows // TILE, torch.full_like(rows, tile))
    assert bounds[-1] == len(kernel_map.outputs)


def test_no_voxels():
    keys = torch.empty(0, dtype=torch.int64)
    for kernel in (1, 3):
        assert same(submanifold_map(keys, kernel), submanifold_map_reference(keys, kernel))
