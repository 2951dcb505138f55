"""Voxels of one resolution in the order of their keys, with the neighbour maps that convolutions at this level share."""

from functools import cached_property

from jaxtyping import Int64
from torch import Tensor

from splatsense.errors import DataError
from splatsense.sparse.kernel_map import KernelMap, strided_map, submanifold_map


class VoxelLevel:
    """The voxels of one resolution, and every map made of them so far. Rows of features follow the keys.

    Args:
        keys: ascending and distinct, of `voxel_keys`, shifted by three bits for each coarser level.
    """

    def __init__(self, keys: Int64[Tensor, " m"]):
        self.keys = keys
        self._submanifold: dict[int, KernelMap] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def submanifold(self, kernel: int) -> KernelMap:
        """Map of a submanifold convolution of odd kernel size: outputs are this level's voxels (Graham et al. 2018).

        Raises:
            DataError: the kernel is not odd, or larger than 7.
        """
        if kernel not in (1, 3, 5, 7):
            raise DataError(f"submanifold convolution: the kernel must be 1, 3, 5 or 7 voxels wide, got {kernel}.")
        if kernel not in self._submanifold:
            self._submanifold[kernel] = submanifold_map(self.keys, kernel)
        return self._submanifold[kernel]

    @property
    def strided(self) -> KernelMap:
        """Map of a convolution of kernel 2 and stride 2 to the voxels of `coarser`; its `inverse` leads back."""
        return self._down[1]

    @property
    def coarser(self) -> "VoxelLevel":
        """The voxels of twice the size that hold a voxel of this level."""
        return self._down[0]

    @cached_property
    def _down(self) -> tuple["VoxelLevel", KernelMap]:
        keys, kernel_map = strided_map(self.keys)
        return VoxelLevel(keys), kernel_map
