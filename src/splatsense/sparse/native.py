"""The native twins of this package: `native/sparse.cpp` behind the references' signatures, for contiguous float32 on a CPU."""

import ctypes
from ctypes import c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from splatsense.errors import LimitError
from splatsense.native import pointer
from splatsense.sparse.kernel_map import TILE, KernelMap


class _Convolution(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("features", "weight", "inputs", "outputs", "bounds")),
        *((name, c_int64) for name in ("in_channels", "out_channels", "offsets", "output_count", "tile")),
        *((name, c_int32) for name in ("transposed", "reversed", "threads")),
    ]


def convolve(library: ctypes.CDLL, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """`convolve_reference`."""
    return _convolve(library, features, weight, kernel_map, weight.shape[0], transposed=False, flipped=False)


def input_gradient(library: ctypes.CDLL, gradient: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """`input_gradient_reference`."""
    flipped = kernel_map.submanifold
    pairs = kernel_map if flipped else kernel_map.inverse
    return _convolve(library, gradient, weight, pairs, weight.shape[2], transposed=True, flipped=flipped)


def weight_gradient(library: ctypes.CDLL, features: Tensor, gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    """`weight_gradient_reference`."""
    channels, features, gradient = gradient.shape[1], features.contiguous(), gradient.contiguous()
    result = torch.empty(channels, kernel_map.volume, features.shape[1])
    arguments = _arguments(features, None, kernel_map, channels)
    if library.ss_sparse_weight_gradient(ctypes.byref(arguments), pointer(gradient), pointer(result)):
        raise LimitError(f"sparse convolution: out of memory for the gradient of a weight {tuple(result.shape)}.")
    return result


def _convolve(
    library: ctypes.CDLL, features: Tensor, weight: Tensor, pairs: KernelMap, channels: int, transposed: bool, flipped: bool
) -> Tensor:
    features, weight = features.contiguous(), weight.contiguous()
    result = torch.empty(pairs.output_count, channels)
    arguments = _arguments(features, weight, pairs, channels)
    arguments.transposed, arguments.reversed = transposed, flipped
    if library.ss_sparse_convolution(ctypes.byref(arguments), pointer(result)):
        raise LimitError(f"sparse convolution: out of memory for a weight {tuple(weight.shape)}.")
    return result


def _arguments(features: Tensor, weight: Tensor | None, pairs: KernelMap, channels: int) -> _Convolution:
    arrays = (features, weight, pairs.inputs, pairs.outputs, pairs.bounds)
    sizes = (features.shape[1], channels, pairs.volume, pairs.output_count, TILE)
    return _Convolution(*map(pointer, arrays), *sizes, 0, 0, torch.get_num_threads())
