"""View-dependent colours of Gaussians: spherical harmonics in PyTorch, but for the sum over their terms.

That sum is native for float32 on a CPU, where PyTorch's takes as long at degree 3 as rasterising.
"""

from ctypes import c_int64
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from splatsense.native import load_native, pointer
from splatsense.spherical_harmonics import sh_basis, sh_to_rgb


class _Sum(torch.autograd.Function):
    """(V, N, 3) sums over K of a basis (V, N, K) and coefficients (N, K, 3)."""

    @staticmethod
    def forward(ctx: Any, library: Any, *inputs: Tensor) -> Tensor:
        basis, sh = (tensor.contiguous() for tensor in inputs)
        ctx.library = library
        ctx.save_for_backward(basis, sh)
        colors = basis.new_empty(*basis.shape[:2], 3)
        library.ss_sh_sum(pointer(basis), pointer(sh), *map(c_int64, basis.shape), pointer(colors))
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        basis, sh = ctx.saved_tensors
        basis_gradient = torch.empty_like(basis)
        sh_gradient = torch.empty_like(sh) if len(basis) else torch.zeros_like(sh)
        gradient = gradient.contiguous()
        inputs = (pointer(basis), pointer(sh), pointer(gradient), *map(c_int64, basis.shape))
        ctx.library.ss_sh_sum_backward(*inputs, pointer(basis_gradient), pointer(sh_gradient))
        return None, basis_gradient, sh_gradient


def view_colors(sh: Float[Tensor, "n k 3"], directions: Float[Tensor, "v n 3"]) -> Float[Tensor, "v n 3"]:
    """`sh_to_rgb` of N Gaussians seen from V cameras."""
    library = load_native() if sh.device.type == "cpu" and sh.dtype == torch.float32 else None
    if library is None:
        return sh_to_rgb(sh, directions)
    degree = round(sh.shape[1] ** 0.5) - 1
    return (_Sum.apply(library, sh_basis(degree, normalize(directions, dim=-1)), sh) + 0.5).clamp_min(0)
