"""Sparse 3D convolution along a neighbour map: native for float32 on a CPU, otherwise gather, matrix product and scatter.

spconv takes their place where it is asked for (`spconv_backend.py`).

Design
- Submanifold, strided and inverse convolution differ in their `KernelMap` only.
- A weight has spconv's layout, (out, kx, ky, kz, in), so state dicts of spconv 2.x fit as they are.
- Within an offset an output occurs once, and offsets follow one another: sums have one order on every device.
- Backward keeps the input where the weight needs a gradient, the weight where the input needs one, and nothing else. spconv
  computes both gradients together, so it keeps both.
"""

import ctypes
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from splatsense.errors import DataError
from splatsense.native import load_native
from splatsense.sparse import native, spconv_backend
from splatsense.sparse.kernel_map import KernelMap


def sparse_convolution(
    features: Float[Tensor, "m c"], weight: Float[Tensor, "d kx ky kz c2"], kernel_map: KernelMap
) -> Float[Tensor, "n d"]:
    """Sum over a kernel's offsets of each output's neighbour times that offset's weight; differentiable in both.

    Args:
        features: of the map's input voxels.
        weight: spconv's layout, outputs first, inputs last.
        kernel_map: `VoxelLevel.submanifold(kernel)`, `VoxelLevel.strided`, or the latter's `inverse`.

    Raises:
        DataError: features, weight and map do not fit together.
    """
    if features.shape[0] != kernel_map.input_count:
        raise DataError(f"sparse_convolution: features of {len(features)} voxels, the map is for {kernel_map.input_count}.")
    if features.shape[1] != weight.shape[-1]:
        raise DataError(f"sparse_convolution: features have {features.shape[1]} channels, the weight takes {weight.shape[-1]}.")
    if math.prod(weight.shape[1:4]) != kernel_map.volume:
        raise DataError(
            f"sparse_convolution: a kernel of {tuple(weight.shape[1:4])} has not the map's {kernel_map.volume} offsets."
        )
    device = features.device.type
    if torch.is_autocast_enabled(device) and device != "cpu":
        dtype = torch.get_autocast_dtype(device)
        features, weight = features.to(dtype), weight.to(dtype)
    with torch.autocast(device, enabled=False):
        return _Convolution.apply(features.to(weight.dtype), weight.flatten(1, 3), kernel_map)


class _Convolution(torch.autograd.Function):
    """Weights come as (out, K, in)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.kernel_map = kernel_map
        of_features, of_weight = ctx.needs_input_grad[:2]
        ctx.spconv = spconv_backend.is_chosen(features.dtype)
        if ctx.spconv:
            ctx.save_for_backward(features, weight)
            return spconv_backend.convolve(features, weight, kernel_map)
        ctx.save_for_backward(features if of_weight else None, weight if of_features else None)
        library = _library(features)
        if library is None:
            return convolve_reference(features, weight, kernel_map)
        return native.convolve(library, features, weight, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        features, weight = ctx.saved_tensors
        if ctx.spconv:
            both = spconv_backend.gradients(features, gradient, weight, ctx.kernel_map)
            return *(one if wanted else None for one, wanted in zip(both, ctx.needs_input_grad[:2], strict=True)), None
        library, kernel_map = _library(gradient), ctx.kernel_map
        of_features = of_weight = None
        if library is None:
            if weight is not None:
                of_features = input_gradient_reference(gradient, weight, kernel_map)
            if features is not None:
                of_weight = weight_gradient_reference(features, gradient, kernel_map)
        else:
            if weight is not None:
                of_features = native.input_gradient(library, gradient, weight, kernel_map)
            if features is not None:
                of_weight = native.weight_gradient(library, features, gradient, kernel_map)
        return of_features, of_weight, None


def _library(tensor: Tensor) -> ctypes.CDLL | None:
    return load_native() if tensor.device.type == "cpu" and tensor.dtype == torch.float32 else None


def convolve_reference(
    features: Float[Tensor, "m c"], weight: Float[Tensor, "d k c"], kernel_map: KernelMap
) -> Float[Tensor, "n d"]:
    """`sparse_convolution` by gathering, multiplying and scattering, an offset at a time."""
    return _gather_scatter(features, weight.permute(1, 2, 0), kernel_map)


def input_gradient_reference(
    gradient: Float[Tensor, "n d"], weight: Float[Tensor, "d k c"], kernel_map: KernelMap
) -> Float[Tensor, "m c"]:
    """Gradient of the features: the convolution back. In a submanifold map, offset k is offset K - 1 - k of the way back."""
    by_offset = weight.transpose(0, 1)
    if kernel_map.submanifold:
        return _gather_scatter(gradient, by_offset.flip(0), kernel_map)
    return _gather_scatter(gradient, by_offset, kernel_map.inverse)


def weight_gradient_reference(
    features: Float[Tensor, "m c"], gradient: Float[Tensor, "n d"], kernel_map: KernelMap
) -> Float[Tensor, "d k c"]:
    """Gradient of the weight: for each offset, the products of its pairs."""
    starts, volume = kernel_map.starts.tolist(), kernel_map.volume
    result = features.new_zeros(gradient.shape[1], volume, features.shape[1])
    for offset in range(volume):
        pairs = slice(starts[offset], starts[offset + 1])
        outputs = gradient.index_select(0, kernel_map.outputs[pairs])
        result[:, offset] = outputs.T @ features.index_select(0, kernel_map.inputs[pairs])
    return result


def _gather_scatter(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Weights (K, in, out). Numbers of half precision are summed in float32."""
    starts, volume = kernel_map.starts.tolist(), kernel_map.volume
    dtype = torch.float32 if features.dtype in (torch.float16, torch.bfloat16) else features.dtype
    if kernel_map.submanifold:
        result = (features @ weight[volume // 2]).to(dtype)
    else:
        result = features.new_zeros(kernel_map.output_count, weight.shape[2], dtype=dtype)
    for offset in range(volume):
        pairs = slice(starts[offset], starts[offset + 1])
        if pairs.start == pairs.stop or (kernel_map.submanifold and offset == volume // 2):
            continue
        products = features.index_select(0, kernel_map.inputs[pairs]) @ weight[offset]
        result.index_add_(0, kernel_map.outputs[pairs], products.to(dtype))
    return result.to(features.dtype)


class SparseConv3d(nn.Module):
    """A convolution's weight; which convolution it is, the map says.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of the kernel, in voxels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, kernel, kernel, kernel, in_channels))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, features: Float[Tensor, "m c"], kernel_map: KernelMap) -> Float[Tensor, "n d"]:
        """Features of the map's output voxels.

        Of kernel 1, spconv 2.x takes the weight's memory for (in, out) whatever its shape says, and so do we: its checkpoints
        were trained that way.
        """
        weight = self.weight
        if weight[0, ..., 0].numel() == 1:
            weight = weight.reshape(weight.shape[-1], -1).T.reshape(weight.shape)
        return sparse_convolution(features, weight, kernel_map)
