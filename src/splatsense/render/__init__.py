"""`render`: differentiable images of Gaussians, on any device.

Design
- One definition, `reference.py` in plain PyTorch, and one fast implementation, `native.py` over C++, for CPUs.
- Spherical harmonics become colours here, in PyTorch, so both see plain colours and autograd does the rest.
- Everything in `Gaussians` and `features` gets gradients. Cameras are constants.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.errors import DataError, SplatSenseError
from splatsense.gaussians import Gaussians
from splatsense.native import load_native
from splatsense.render import native, reference
from splatsense.spherical_harmonics import sh_to_rgb

__all__ = ["Rendering", "render"]

MAX_SIZE = 65535  # pixels along a side


@dataclass(frozen=True, eq=False)
class Rendering:
    """Images of V cameras.

    Attributes:
        color: (V, H, W, 3) sRGB, over the background if there is one and over black otherwise; may exceed 1 where colours do.
        depth: (V, H, W) mean z in world units under the compositing weights; 0 where nothing was composited (alpha < 1e-3).
        alpha: (V, H, W) in [0, 1].
        features: (V, H, W, C) sums of features over the compositing weights, not divided by alpha; C = 0 without features.
    """

    color: Float[Tensor, "v h w 3"]
    depth: Float[Tensor, "v h w"]
    alpha: Float[Tensor, "v h w"]
    features: Float[Tensor, "v h w c"]


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    features: Float[Tensor, "n c"] | None = None,
    background: Float[Tensor, " rgb"] | None = None,
    backend: Literal["auto", "native", "reference"] = "auto",
) -> Rendering:
    """Images of Gaussians seen by cameras, differentiable in everything but the cameras.

    What is computed is stated in `splatsense.render.reference`.

    Args:
        features: (N, C) more channels to composite, of any number.
        background: (3,) sRGB colour behind the Gaussians.
        backend: "native" takes float32 on a CPU; "reference" takes any floating-point type and device; "auto" takes native
            where it can. Native results are the same to the last bit for any number of threads.

    Raises:
        DataError: a shape, type or device does not fit, a camera is not finite, or `backend` is unknown.
        LimitError: memory ran out.
        SplatSenseError: `backend` is "native" and the native library is not installed.
    """
    means = gaussians.means
    if features is None:
        features = means.new_empty(len(gaussians), 0)
    _check_gaussians(gaussians, features, background)
    cameras = Cameras(_like(means, cameras.world_to_camera), _like(means, cameras.K), cameras.width, cameras.height)
    _check_cameras(cameras, means.device)
    rasterise = _rasteriser(backend, means)
    colors = _colors(gaussians, cameras)
    color, feature, depth, alpha = rasterise(
        means, gaussians.quats, gaussians.scales, gaussians.opacities, colors, features, cameras
    )
    if background is not None:
        color = color + (1 - alpha)[..., None] * background
    return Rendering(color, depth, alpha, feature)


def _colors(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """(1, N, 3) colours when they are the same from everywhere, else (V, N, 3)."""
    if gaussians.sh_degree == 0:
        return sh_to_rgb(gaussians.sh, gaussians.means.detach())[None]
    return sh_to_rgb(gaussians.sh, gaussians.means - cameras.centers[:, None])


def _like(means: Tensor, camera: Tensor) -> Tensor:
    if camera.requires_grad:
        raise DataError("render: cameras are constants and get no gradient; detach world_to_camera and K.")
    return camera.to(means.dtype)


def _check_gaussians(gaussians: Gaussians, features: Tensor, background: Tensor | None) -> None:
    means = gaussians.means
    if not means.is_floating_point():
        raise DataError(f"render: Gaussians.means is {means.dtype}; floating-point tensors are needed.")
    if features.ndim != 2 or len(features) != len(gaussians):
        raise DataError(f"render: features has shape {tuple(features.shape)}, expected ({len(gaussians)}, C).")
    if background is not None and tuple(background.shape) != (3,):
        raise DataError(f"render: background has shape {tuple(background.shape)}, expected (3,).")
    tensors = {"features": features, "background": background}
    tensors |= {f"Gaussians.{name}": getattr(gaussians, name) for name in ("quats", "scales", "opacities", "sh")}
    for name, tensor in tensors.items():
        if tensor is not None and (tensor.dtype != means.dtype or tensor.device != means.device):
            raise DataError(
                f"render: {name} is {tensor.dtype} on {tensor.device}, but Gaussians.means is {means.dtype} on {means.device}."
            )


def _check_cameras(cameras: Cameras, device: torch.device) -> None:
    transforms, K = cameras.world_to_camera, cameras.K
    if transforms.device != device or K.device != device:
        raise DataError(
            f"render: the cameras are on {transforms.device}, the Gaussians on {device}; move one with .to(device)."
        )
    if cameras.width > MAX_SIZE or cameras.height > MAX_SIZE:
        raise DataError(
            f"render: images of {cameras.width} x {cameras.height}; at most {MAX_SIZE} pixels a side are supported."
        )
    if not bool(transforms.isfinite().all() & K.isfinite().all()):
        raise DataError("render: world_to_camera or K holds NaN or infinity.")
    if not bool((K[:, [0, 1], [0, 1]] > 0).all() & (K[:, 0, 1] == 0).all()):
        raise DataError("render: K needs positive focal lengths and no skew.")


def _rasteriser(backend: str, means: Tensor) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    fits = means.device.type == "cpu" and means.dtype == torch.float32
    match backend:
        case "reference":
            return reference.rasterise
        case "auto":
            return native.rasterise if fits and load_native() is not None else reference.rasterise
        case "native" if not fits:
            raise DataError(f'render: backend="native" takes float32 on a CPU, got {means.dtype} on {means.device}.')
        case "native" if load_native() is None:
            raise SplatSenseError('render: backend="native", but splatsense was installed without its native library.')
        case "native":
            return native.rasterise
        case _:
            raise DataError(f'render: backend must be "auto", "native" or "reference", got {backend!r}.')


class _CallableModule(ModuleType):
    """Makes `splatsense.render(...)` work: importing this package binds its name there to the package, not the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Rendering:
        return render(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
