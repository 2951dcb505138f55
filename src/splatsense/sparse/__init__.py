"""Sparse 3D convolution: voxels that hold something, their neighbour maps, and convolutions along them (docs/sparse.md)."""

from splatsense.sparse.convolution import SparseConv3d, sparse_convolution
from splatsense.sparse.kernel_map import KernelMap
from splatsense.sparse.levels import VoxelLevel
from splatsense.sparse.normalization import VoxelNorm
from splatsense.sparse.tensor import SparseTensor, voxelize

__all__ = ["KernelMap", "SparseConv3d", "SparseTensor", "VoxelLevel", "VoxelNorm", "sparse_convolution", "voxelize"]
