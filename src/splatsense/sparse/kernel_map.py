"""Which voxel meets which along a kernel (the rulebook of a sparse convolution).

A convolution is, for each of the kernel's K offsets, a list of pairs: input voxel, output voxel. An output meets an offset at
most once. Lists are sorted by output, so that sums have one order; those of a strided map by input as well, because voxels
and the voxels they lie in have the same order of keys.
"""

from ctypes import c_int32, c_int64
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int32, Int64
from torch import Tensor

from splatsense.errors import LimitError
from splatsense.native import load_native, pointer
from splatsense.sparse.morton import stepped

TILE = 512  # outputs that the native convolution sums at a time


@dataclass(frozen=True, eq=False)
class KernelMap:
    """Pairs of voxels of all offsets of a kernel, one offset after the other.

    Attributes:
        inputs: row of each pair's input voxel.
        outputs: row of each pair's output voxel; ascending within an offset.
        starts: (K + 1) where the pairs of each offset begin, on the CPU.
        input_count: input voxels.
        output_count: output voxels.
        submanifold: outputs are the inputs; then offset k reversed is offset K - 1 - k, and the middle one pairs each voxel
            with itself.
        known_bounds: `bounds`, where they came with the pairs.
        kept: the pairs as other backends have them, by their name.
    """

    inputs: Int32[Tensor, " pairs"]
    outputs: Int32[Tensor, " pairs"]
    starts: Int64[Tensor, " bounds"]
    input_count: int
    output_count: int
    submanifold: bool
    known_bounds: Int64[Tensor, " tiles"] | None = None
    kept: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def volume(self) -> int:
        """Offsets of the kernel."""
        return len(self.starts) - 1

    @cached_property
    def bounds(self) -> Int64[Tensor, " bounds"]:
        """Where the pairs of each offset and each tile of outputs begin, for the native convolution."""
        if self.known_bounds is not None:
            return self.known_bounds
        tiles = -(-self.output_count // TILE)
        offset = torch.arange(self.volume).repeat_interleave(self.starts.diff())
        begin = torch.arange(self.volume)[:, None] * self.output_count + torch.arange(tiles) * TILE
        bounds = torch.searchsorted(offset * self.output_count + self.outputs, begin.flatten())
        return torch.cat([bounds, self.starts[-1:]])

    @cached_property
    def inverse(self) -> "KernelMap":
        """Of a strided map: the same pairs with inputs and outputs exchanged, as the inverse convolution has them."""
        return KernelMap(self.outputs, self.inputs, self.starts, self.output_count, self.input_count, False)


def submanifold_map(keys: Int64[Tensor, " m"], kernel: int) -> KernelMap:
    """Pairs of voxels that are at most kernel // 2 apart along each axis: output o meets input o + offset.

    Args:
        keys: ascending and distinct, of one level.
        kernel: odd side of the kernel, in voxels; at most 7.

    Raises:
        LimitError: out of memory.
    """
    library = load_native() if keys.device.type == "cpu" else None
    if library is None:
        return submanifold_map_reference(keys, kernel)
    count, tiles = len(keys), -(-len(keys) // TILE)
    bounds = torch.empty(kernel**3 * tiles + 1, dtype=torch.int64)
    pairs = torch.empty(2, 0, dtype=torch.int32)
    for fill in (False, True):  # how many pairs there are, then the pairs
        sizes = c_int64(count), c_int32(kernel), c_int64(TILE), c_int32(torch.get_num_threads())
        arrays = (pointer(array if fill else None) for array in pairs)
        if library.ss_submanifold_map(pointer(keys), *sizes, pointer(bounds), *arrays):
            raise LimitError(f"neighbour map: out of memory for {count} voxels and a kernel of {kernel}.")
        if not fill:
            pairs = torch.empty(2, int(bounds[-1]), dtype=torch.int32)
    inputs, outputs = pairs
    starts = bounds[::tiles].clone() if tiles else _starts([0] * kernel**3)
    return KernelMap(inputs, outputs, starts, count, count, True, bounds)


def submanifold_map_reference(keys: Int64[Tensor, " m"], kernel: int) -> KernelMap:
    """`submanifold_map` by binary search, in plain PyTorch on any device."""
    count, reach = len(keys), kernel // 2
    x, y, z = ([stepped(keys, axis, step) for step in range(-reach, reach + 1)] for axis in range(3))
    own = torch.arange(count, dtype=torch.int32, device=keys.device)
    pairs = {kernel**3 // 2: (own, own)}
    for offset in range(kernel**3 // 2):
        wanted = x[offset // kernel**2] | y[offset // kernel % kernel] | z[offset % kernel]
        found = torch.searchsorted(keys, wanted).clamp_max(count - 1)
        outputs = (keys[found] == wanted).nonzero()[:, 0]
        inputs = found[outputs]
        back = inputs.argsort()
        pairs[offset] = inputs.int(), outputs.int()
        pairs[kernel**3 - 1 - offset] = outputs[back].int(), inputs[back].int()
    lists = [pairs[offset] for offset in range(kernel**3)]
    return KernelMap(
        torch.cat([inputs for inputs, _ in lists]),
        torch.cat([outputs for _, outputs in lists]),
        _starts([len(inputs) for inputs, _ in lists]),
        count,
        count,
        True,
    )


def strided_map(keys: Int64[Tensor, " m"]) -> tuple[Int64[Tensor, " parents"], KernelMap]:
    """Keys of the voxels of twice the size, and pairs of each voxel with the one it lies in (kernel 2, stride 2)."""
    library = load_native() if keys.device.type == "cpu" else None
    if library is None:
        return strided_map_reference(keys)
    count, parents, starts = len(keys), torch.empty_like(keys), torch.empty(9, dtype=torch.int64)
    inputs, outputs = torch.empty(2, count, dtype=torch.int32)
    function = library.ss_strided_map
    function.restype = c_int64
    arrays = map(pointer, (parents, inputs, outputs, starts))
    parents = parents[: function(pointer(keys), c_int64(count), *arrays)].clone()
    return parents, KernelMap(inputs, outputs, starts, count, len(parents), False)


def strided_map_reference(keys: Int64[Tensor, " m"]) -> tuple[Int64[Tensor, " parents"], KernelMap]:
    """`strided_map` in plain PyTorch on any device."""
    parents, parent = torch.unique_consecutive(keys >> 3, return_inverse=True)
    offset = keys & 7
    inputs = offset.argsort(stable=True)
    starts = _starts(torch.bincount(offset, minlength=8).tolist())
    return parents, KernelMap(inputs.int(), parent[inputs].int(), starts, len(keys), len(parents), False)


def _starts(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)
