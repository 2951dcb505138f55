"""Which voxel meets which along a kernel (the rulebook of a sparse convolution), in plain PyTorch.

A convolution is, for each of the kernel's K offsets, a list of pairs: input voxel, output voxel. An output meets an offset at
most once. Lists are sorted by output, so that sums have one order; those of a strided map by input as well, because voxels
and the voxels they lie in have the same order of keys.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int32, Int64
from torch import Tensor

from splatsense.sparse.morton import spread

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
    """

    inputs: Int32[Tensor, " pairs"]
    outputs: Int32[Tensor, " pairs"]
    starts: Int64[Tensor, " bounds"]
    input_count: int
    output_count: int
    submanifold: bool

    @property
    def volume(self) -> int:
        """Offsets of the kernel."""
        return len(self.starts) - 1

    @cached_property
    def bounds(self) -> Int64[Tensor, " bounds"]:
        """Where the pairs of each offset and each tile of outputs begin, for the native convolution."""
        tiles = -(-self.output_count // TILE)
        offset = torch.arange(self.volume).repeat_interleave(self.starts.diff())
        begin = torch.arange(self.volume)[:, None] * self.output_count + torch.arange(tiles) * TILE
        bounds = torch.searchsorted(offset * self.output_count + self.outputs, begin.flatten())
        return torch.cat([bounds, self.starts[-1:]])

    @cached_property
    def inverse(self) -> "KernelMap":
        """Of a strided map: the same pairs with inputs and outputs exchanged, as the inverse convolution has them."""
        return KernelMap(self.outputs, self.inputs, self.starts, self.output_count, self.input_count, False)


def submanifold_map_reference(keys: Int64[Tensor, " m"], coordinates: Int64[Tensor, "m 4"], kernel: int) -> KernelMap:
    """Pairs of voxels that are at most kernel // 2 apart along each axis: output o meets input o + offset.

    Args:
        keys: ascending, of one level.
        coordinates: batch bits as they stand in the keys, and x, y and z, not negative, of the same voxels.
        kernel: odd side of the kernel, in voxels.
    """
    count, reach = len(keys), kernel // 2
    batch, *axes = coordinates.unbind(1)
    x, y, z = ([spread(axis + step) << 2 - place for step in range(-reach, reach + 1)] for place, axis in enumerate(axes))
    own = torch.arange(count, dtype=torch.int32, device=keys.device)
    pairs = {kernel**3 // 2: (own, own)}
    for offset in range(kernel**3 // 2):
        wanted = batch | x[offset // kernel**2] | y[offset // kernel % kernel] | z[offset % kernel]
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


def strided_map_reference(keys: Int64[Tensor, " m"]) -> tuple[Int64[Tensor, " parents"], KernelMap]:
    """Keys of the voxels of twice the size, and pairs of each voxel with the one it lies in (kernel 2, stride 2)."""
    parents, parent = torch.unique_consecutive(keys >> 3, return_inverse=True)
    offset = keys & 7
    inputs = offset.argsort(stable=True)
    starts = _starts(torch.bincount(offset, minlength=8).tolist())
    return parents, KernelMap(inputs.int(), parent[inputs].int(), starts, len(keys), len(parents), False)


def _starts(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)
