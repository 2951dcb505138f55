"""`render` and `render_batch`: differentiable images of Gaussians, on any device.

Design
- One definition, `reference.py` in plain PyTorch; two fast implementations, `native.py` over C++ for CPUs and `cuda.py` over
  gsplat for CUDA devices; `backends.py` picks one.
- A batch of objects is packed, one after the other (`packed.py`); a single object is a batch of one.
- Spherical harmonics become colours first (`colors.py`), so that backends see plain colours and autograd does the rest. The
  background is laid under the images here.
- Everything but the intrinsics gets gradients: `Gaussians`, `features`, `background` and `world_to_camera`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians
from splatsense.render.backends import Backend, rasteriser
from splatsense.render.colors import view_colors
from splatsense.render.packed import Layout, Packed
from splatsense.render.settings import DEFAULT_SETTINGS, DepthKind, RasterSettings
from splatsense.spherical_harmonics import sh_to_rgb

__all__ = ["DepthKind", "RasterSettings", "Rendering", "render", "render_batch"]

MAX_SIZE = 65535  # pixels along a side


@dataclass(frozen=True, eq=False)
class Rendering:
    """Images of V cameras.

    Attributes:
        color: (V, H, W, 3) sRGB, over the background if there is one and over black otherwise; may exceed 1 where colours do.
        depth: (V, H, W) z in world units, expected or median as `RasterSettings.depth` says; 0 where there is none.
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
    background: Float[Tensor, "*v rgb"] | None = None,
    settings: RasterSettings = DEFAULT_SETTINGS,
    backend: Backend = "auto",
) -> Rendering:
    """Images of Gaussians seen by cameras, differentiable in everything but the intrinsics `cameras.K`.

    What is computed is stated in `splatsense.render.reference`.

    Args:
        features: (N, C) more channels to composite, of any number.
        background: sRGB colour behind the Gaussians, (3,) or one for each view, (V, 3).
        settings: antialiasing, the kind of depth, near and far plane, and the like.
        backend: "native" takes float32 on a CPU; "gsplat" takes float32 on a CUDA device, if the extra `gpu` is installed;
            "reference" takes any floating-point type and device; "auto" takes the first of these that fits. Native results
            are the same to the last bit from run to run and for any number of threads.

    Raises:
        DataError: a shape, type or device does not fit, a camera is not finite, or there is no such backend.
        LimitError: memory ran out.
        SplatSenseError: `backend` is not installed.
    """
    return render_batch(
        [gaussians], [cameras], features=None if features is None else [features], background=background, settings=settings,
        backend=backend,
    )  # fmt: skip


def render_batch(
    gaussians: Sequence[Gaussians],
    cameras: Sequence[Cameras],
    *,
    features: Sequence[Float[Tensor, "_ c"]] | None = None,
    background: Float[Tensor, "*v rgb"] | None = None,
    settings: RasterSettings = DEFAULT_SETTINGS,
    backend: Backend = "auto",
) -> Rendering:
    """`render` of B objects at once, each seen by its own cameras: the same images and gradients, to the last bit on a CPU.

    Threads share the objects out, so many small objects take less time together than one by one.

    Args:
        gaussians: B objects of any sizes.
        cameras: the cameras of each; images are of one size throughout, views may differ in number.
        features: (N, C) of each object, of the same C.
        background: (3,), or one for each of all V views, (V, 3).
        settings: as in `render`.
        backend: as in `render`.

    Returns:
        The images of all V views, object after object; `.color.unflatten(0, (B, -1))` tells objects apart if each has
        equally many views.

    Raises:
        DataError: as in `render`, or the sequences differ in length or are empty, or image sizes differ.
        LimitError: memory ran out.
        SplatSenseError: `backend` is not installed.
    """
    _check_batch(gaussians, cameras, features)
    means = gaussians[0].means
    for one, camera in zip(gaussians, cameras, strict=True):
        _check_gaussians(one, means)
        _check_devices(camera, means.device)
    for one, feature in zip(gaussians, features or (), strict=features is not None):
        _check_features(feature, len(one), means)
    packed = _pack(gaussians, cameras, features)
    _check_cameras(packed)
    _check_background(background, len(packed.K), means)
    color, feature, depth, alpha = rasteriser(backend, means, settings)(packed, settings)
    if background is not None:
        color = color + (1 - alpha)[..., None] * background.expand(len(packed.K), 3)[:, None, None]
    return Rendering(color, depth, alpha, feature)


def _pack(gaussians: Sequence[Gaussians], cameras: Sequence[Cameras], features: Sequence[Tensor] | None) -> Packed:
    means, quats, scales, opacities = (
        _cat([getattr(each, name) for each in gaussians]) for name in ("means", "quats", "scales", "opacities")
    )
    dtype, counts = means.dtype, tuple(map(len, gaussians))
    cameras = [Cameras(each.world_to_camera.to(dtype), each.K.to(dtype), each.width, each.height) for each in cameras]
    if all(each.sh_degree == 0 for each in gaussians):
        colors, color_rows = sh_to_rgb(_cat([each.sh for each in gaussians]), means.detach()), counts
    else:
        parts = [_colors(*each) for each in zip(gaussians, cameras, strict=True)]
        colors, color_rows = _cat(parts), tuple(map(len, parts))
    return Packed(
        means, quats, scales, opacities, colors,
        means.new_empty(len(means), 0) if features is None else _cat(features),
        _cat([each.world_to_camera for each in cameras]), _cat([each.K for each in cameras]),
        Layout(cameras[0].width, cameras[0].height, counts, tuple(map(len, cameras)), color_rows),
    )  # fmt: skip


def _cat(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))  # torch.cat copies even one


def _colors(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """(N, 3), or (V N, 3) if colours depend on the view."""
    if gaussians.sh_degree == 0:
        return sh_to_rgb(gaussians.sh, gaussians.means.detach())
    return view_colors(gaussians.sh, gaussians.means - cameras.centers[:, None]).flatten(0, 1)


def _check_batch(gaussians: Sequence[Gaussians], cameras: Sequence[Cameras], features: Sequence[Tensor] | None) -> None:
    counts = {"Gaussians": len(gaussians), "Cameras": len(cameras)} | ({} if features is None else {"features": len(features)})
    if min(counts.values()) == 0 or len(set(counts.values())) > 1:
        raise DataError(
            f"render_batch: got {', '.join(f'{count} {name}' for name, count in counts.items())}; "
            "one of each is needed for every object, and at least one object."
        )
    sizes = sorted({(each.width, each.height) for each in cameras})
    if len(sizes) > 1:
        raise DataError(f"render_batch: all cameras need one image size, got {', '.join(f'{w} x {h}' for w, h in sizes)}.")
    channels = sorted({tuple(each.shape[1:]) for each in features or ()})
    if len(channels) > 1:
        raise DataError(f"render_batch: features differ in their channels: {channels}.")


def _check_gaussians(gaussians: Gaussians, like: Tensor) -> None:
    if not like.is_floating_point():
        raise DataError(f"render: Gaussians.means is {like.dtype}; floating-point tensors are needed.")
    for name in ("means", "quats", "scales", "opacities", "sh"):
        _check_like(f"Gaussians.{name}", getattr(gaussians, name), like)


def _check_features(features: Tensor, count: int, like: Tensor) -> None:
    if features.ndim != 2 or len(features) != count:
        raise DataError(f"render: features has shape {tuple(features.shape)}, expected ({count}, C).")
    _check_like("features", features, like)


def _check_background(background: Tensor | None, views: int, like: Tensor) -> None:
    if background is None:
        return
    if tuple(background.shape) not in ((3,), (views, 3)):
        raise DataError(f"render: background has shape {tuple(background.shape)}, expected (3,) or ({views}, 3).")
    _check_like("background", background, like)


def _check_like(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.dtype != like.dtype or tensor.device != like.device:
        raise DataError(
            f"render: {name} is {tensor.dtype} on {tensor.device}, but Gaussians.means is {like.dtype} on {like.device}."
        )


def _check_devices(cameras: Cameras, device: torch.device) -> None:
    transforms, K = cameras.world_to_camera, cameras.K
    if transforms.device != device or K.device != device:
        raise DataError(
            f"render: the cameras are on {transforms.device}, the Gaussians on {device}; move one with .to(device)."
        )


def _check_cameras(packed: Packed) -> None:
    K = packed.K
    if K.requires_grad:
        raise DataError("render: the intrinsics K get no gradient; detach them.")
    if packed.layout.width > MAX_SIZE or packed.layout.height > MAX_SIZE:
        raise DataError(
            f"render: images of {packed.layout.width} x {packed.layout.height}; at most {MAX_SIZE} pixels a side are supported."
        )
    if not bool(packed.world_to_camera.isfinite().all() & K.isfinite().all()):
        raise DataError("render: world_to_camera or K holds NaN or infinity.")
    if not bool((K[:, [0, 1], [0, 1]] > 0).all() & (K[:, 0, 1] == 0).all()):
        raise DataError("render: K needs positive focal lengths and no skew.")


class _CallableModule(ModuleType):
    """Makes `splatsense.render(...)` work: importing this package binds its name there to the package, not the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Rendering:
        return render(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
