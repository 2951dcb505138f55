"""gsplat (Ye et al. 2024), version 1.5.3, as a backend for CUDA tensors. Imported only when it draws.

It computes what `reference.py` defines: pixel centres at +0.5, the same thresholds, clamps and culling rules, opacity-aware
radii, `eps2d` and the opacity compensation. Differences that remain:
- Sums over Gaussians are atomic, so gradients differ in their last bits from run to run.
- Its gradient of the compensation is off by a factor 1 / (1 + 1e-6 / compensation).
- It draws no median depth.
Colours come view-dependent already, background and expected depth are made here, so those are ours exactly.

Its kernels are compiled when they are imported for the first time. Processes that start together would delete each other's
builds, so one compiles while the others wait.
"""

import fcntl
import functools
import importlib
import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatsense.render.packed import Packed
from splatsense.render.reference import Images, expected_depth
from splatsense.render.settings import RasterSettings


@functools.cache
def problem() -> str | None:
    """Why gsplat cannot draw here, or None. Imports it, which the first time takes the minutes that its kernels compile."""
    if importlib.util.find_spec("gsplat") is None:
        return 'gsplat is missing; pip install "splatsense[gpu]".'
    cpp_extension = importlib.import_module("torch.utils.cpp_extension")
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / "splatsense-gsplat.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            backend = importlib.import_module("gsplat.cuda._backend")
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"gsplat cannot be loaded: {error}. Kernels compiled for another PyTorch can be removed from {root}."
    if backend._C is None:
        return (
            f"gsplat needs nvcc of CUDA {torch.version.cuda} to compile its kernels; install that toolkit and put it on PATH, "
            "or set CUDA_HOME."
        )
    return None


def rasterise_packed(packed: Packed, settings: RasterSettings) -> Images:
    """As `reference.rasterise_packed`, but for float32 tensors on a CUDA device; differentiable once.

    Objects of equal numbers of Gaussians and of views are drawn by one call, others one by one.
    """
    layout = packed.layout
    even = all(len(set(counts)) == 1 for counts in (layout.gaussians, layout.views, layout.color_rows))
    parts = [_rasterise_even(each, settings) for each in ([packed] if even else packed.objects())]
    color, feature, depth, alpha = (torch.cat(images) for images in zip(*parts, strict=True))
    return color, feature, depth, alpha


def _rasterise_even(packed: Packed, settings: RasterSettings) -> Images:
    if len(packed.means) == 0 or len(packed.K) == 0:
        return _empty(packed)
    from gsplat import rasterization  # pyright: ignore[reportMissingImports]

    images, alpha, _ = rasterization(**rasterization_arguments(packed, settings))
    images, alpha = images.flatten(0, 1), alpha.flatten(0, 1)[..., 0]
    color, feature, z = images.split([3, packed.features.shape[1], 1], dim=-1)
    return color, feature, expected_depth(z[..., 0], alpha), alpha


def rasterization_arguments(packed: Packed, settings: RasterSettings) -> dict[str, Any]:
    """What `gsplat.rasterization` takes, for objects of equal sizes: B objects of N Gaussians and C views each."""
    layout = packed.layout
    objects, gaussians, views = len(layout.views), layout.gaussians[0], layout.views[0]

    def each(tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (objects, -1))

    colors, features = each(packed.colors), each(packed.features)
    if layout.color_rows[0] != gaussians:
        colors = colors.unflatten(1, (views, gaussians))
        features = features[:, None].expand(-1, views, -1, -1)
    # gsplat draws a Gaussian of opacity NaN as opaque; one of opacity 0 is culled before anything else of it is read.
    values = torch.cat([*packed[:3], packed.opacities[:, None]], dim=-1)
    opacities = torch.where(values.isfinite().all(-1), packed.opacities, 0)
    return {
        "means": each(packed.means),
        "quats": each(packed.quats),
        "scales": each(packed.scales),
        "opacities": each(opacities),
        "colors": torch.cat([colors, features], dim=-1),
        "viewmats": each(packed.world_to_camera),
        "Ks": each(packed.K),
        "width": layout.width,
        "height": layout.height,
        "near_plane": settings.near_plane,
        "far_plane": settings.far_plane,
        "radius_clip": settings.radius_clip,
        "eps2d": settings.eps2d,
        "rasterize_mode": "antialiased" if settings.antialiased else "classic",
        "render_mode": "RGB+D",
        "packed": False,
    }


def _empty(packed: Packed) -> Images:
    """Images without Gaussians, or no images; part of the graph all the same."""
    size = (len(packed.K), packed.layout.height, packed.layout.width)
    nothing = sum((tensor[:0].sum() for tensor in packed[:7]), packed.means.new_zeros(()))
    blank = nothing + packed.means.new_zeros(*size, 3 + packed.features.shape[1])
    depth = nothing + packed.means.new_zeros(size)
    return blank[..., :3], blank[..., 3:], depth, depth.clone()
