"""`photometric_loss`: l1 and SSIM between pictures of Gaussians and RGBA targets, as in 3DGS (Kerbl et al. 2023, eq. 7).

Design
- Both are laid over the same background, so that a background which changes from step to step makes alpha count.
- `photometric_loss_reference` states what is computed in plain PyTorch; `native/photometric.cpp` computes loss and gradient in
  one pass for float32 on a CPU, where PyTorch's convolutions would take several times as long as rasterising.
"""

from ctypes import c_float, c_int32, c_int64
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d

from splatsense.errors import DataError, LimitError
from splatsense.native import load_native, pointer

RADIUS, SIGMA = 5, 1.5  # of the SSIM window, in pixels
C1, C2 = 0.01**2, 0.03**2


def ssim(first: Float[Tensor, "v h w 3"], second: Float[Tensor, "v h w 3"]) -> Float[Tensor, " v"]:
    """Structural similarity (Wang et al. 2004) of pictures in [0, 1], averaged over pixels and channels.

    The window is a Gaussian of 11 x 11 pixels and sigma 1.5; beyond the picture both are 0.
    """
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window = (window / window.sum()).to(first)
    x, y = first.permute(0, 3, 1, 2), second.permute(0, 3, 1, 2)
    moments = torch.stack([x, y, x * x + y * y, x * y]).flatten(0, 2)[:, None]
    moments = conv2d(
        conv2d(moments, window.view(1, 1, -1, 1), padding=(RADIUS, 0)), window.view(1, 1, 1, -1), padding=(0, RADIUS)
    )
    mean_x, mean_y, squares, products = moments.unflatten(0, (4, *x.shape[:2]))
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * (products - mean_x * mean_y) + C2) / (squares - mean_x**2 - mean_y**2 + C2)
    return (luminance * structure).flatten(1).mean(1)


def photometric_loss_reference(
    color: Float[Tensor, "v h w 3"],
    alpha: Float[Tensor, "v h w"],
    target: Float[Tensor, "v h w 4"],
    background: Float[Tensor, "v 3"],
    ssim_weight: float,
) -> Float[Tensor, " v"]:
    """`photometric_loss` in plain PyTorch, for any floating-point type and device."""
    behind = background[:, None, None]
    rendered = color + (1 - alpha)[..., None] * behind
    wanted = target[..., :3] + (1 - target[..., 3:]) * behind
    loss = (1 - ssim_weight) * (rendered - wanted).abs().flatten(1).mean(1)
    return loss + ssim_weight * (1 - ssim(rendered, wanted)) if ssim_weight else loss


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, library: Any, ssim_weight: float, color: Tensor, alpha: Tensor, target: Tensor, background: Tensor
    ) -> Tensor:
        inputs = [tensor.contiguous() for tensor in (color, alpha, target, background)]
        outputs = [color.new_empty(len(color)), torch.empty_like(inputs[0]), torch.empty_like(inputs[1])]
        sizes = map(c_int64, alpha.shape)
        weight, threads = c_float(ssim_weight), c_int32(torch.get_num_threads())
        if library.ss_photometric_loss(*map(pointer, inputs), *sizes, weight, threads, *map(pointer, outputs)):
            raise LimitError(f"Out of memory comparing {len(color)} pictures of {color.shape[2]} x {color.shape[1]}.")
        ctx.save_for_backward(*outputs[1:])
        return outputs[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        of_color, of_alpha = ctx.saved_tensors
        scale = gradient[:, None, None]
        return None, None, of_color * scale[..., None], of_alpha * scale, None, None


def photometric_loss(
    color: Float[Tensor, "v h w 3"],
    alpha: Float[Tensor, "v h w"],
    target: Float[Tensor, "v h w 4"],
    background: Float[Tensor, "v 3"],
    ssim_weight: float = 0.2,
) -> Float[Tensor, " v"]:
    """(1 - ssim_weight) * l1 + ssim_weight * (1 - SSIM) of each view; differentiable in `color` and `alpha`.

    Args:
        color: of `Rendering`, without a background.
        alpha: of `Rendering`.
        target: premultiplied colour and alpha in [0, 1].
        background: sRGB laid behind both.
        ssim_weight: 0 to 1.

    Raises:
        DataError: the shapes do not fit together.
        LimitError: memory ran out.
    """
    pictures = alpha.shape
    expected = (*pictures, 3), pictures, (*pictures, 4), (*pictures[:1], 3)
    tensors = color, alpha, target, background
    if len(pictures) != 3 or any(tensor.shape != shape for tensor, shape in zip(tensors, expected, strict=True)):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise DataError(f"photometric_loss: expected (V, H, W, 3), (V, H, W), (V, H, W, 4) and (V, 3), got {shapes}.")
    is_native = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    library = load_native() if is_native else None
    if library is None:
        return photometric_loss_reference(color, alpha, target, background, ssim_weight)
    return _Loss.apply(library, ssim_weight, color, alpha, target, background)
