"""3D Gaussians fitted to views of an object by optimisation (paper, section 3.1; 3DGS, Kerbl et al. 2023).

Design
- The start is close already (`io.surface`): each Gaussian takes the mean colour of the pixels it shows, those that no picture
  shows are relocated, and a few hundred steps do the rest, first with pictures of half the size.
- Loss (1 - w) l1 + w (1 - SSIM) as 3DGS, over a random background in each step, so that alpha is learnt; Adam with higher
  rates than 3DGS's, which all fall exponentially, because the schedule is a hundred times shorter.
- The number of Gaussians is a fixed budget: transparent and hidden ones are relocated (`relocation.py`), never added; those
  transparent in the end are left out of the result.
- A batch of objects is packed: one rasteriser call and one optimiser step for all. Every object draws from a generator of its
  own, so it comes out as it would alone.
- Raw parameters (`log_scales`, `logit_opacities`) live in `fit_optimiser.py` only. Colours are of SH degree 0.

Differs from 3DGS as MCMC: no noise on the centres and no penalties on opacity and scale, as nothing has to be explored from so
close a start; and see `relocation.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.clip_gs.fit_config import FitConfig
from splatsense.clip_gs.fit_optimiser import FitOptimiser
from splatsense.clip_gs.fit_scores import measure
from splatsense.clip_gs.fit_views import FitViews
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians

__all__ = ["Fit", "FitConfig", "default_held_out", "fit_batch", "fit_gaussians"]


@dataclass(frozen=True, eq=False)
class Fit:
    """Fitted Gaussians and how well they show the views. PSNR is of RGB over white, whole pictures, unless said otherwise."""

    gaussians: Gaussians
    """SH degree 0; at most the budget, as transparent ones are left out."""
    psnr: float
    """dB, mean over the held-out views; NaN if there are none."""
    ssim: float
    """Mean over the held-out views; NaN if there are none."""
    foreground_psnr: float
    """dB over the pixels that the object covers, mean over the held-out views; NaN if there are none."""
    train_psnr: float
    """dB, mean over the views that were fitted to."""
    seconds: float
    """Time it took, without measuring; of a batch, an equal share."""
    curve: list[tuple[float, float]] = field(default_factory=list)
    """(seconds, held-out PSNR) every `FitConfig.curve_every` steps."""


DEFAULT = FitConfig()


def default_held_out(views: int) -> tuple[int, ...]:
    """Two of `views` views, on about opposite sides of an orbit and of unlike parity; none of fewer than four."""
    return (views // 4, (views // 4 + views // 2 + 1) % views) if views >= 4 else ()


def fit_gaussians(
    start: Gaussians,
    cameras: Cameras,
    images: Float[Tensor, "v h w 4"],
    config: FitConfig = DEFAULT,
    held_out: Sequence[int] | None = None,
) -> Fit:
    """Optimise Gaussians until they look like the views.

    Args:
        start: what to begin with, for example `io.surface.mesh_to_gaussians`. Of higher spherical harmonics only DC is used.
        cameras: V cameras.
        images: RGBA in [0, 1], alpha not premultiplied.
        config: how to fit.
        held_out: views that are not fitted to but measured; by default `default_held_out`.

    Raises:
        DataError: inputs are empty, do not fit together, are not finite or lie on different devices; no view is left to fit to;
            or the pictures show nothing.
    """
    return fit_batch([start], [cameras], [images], config, None if held_out is None else [held_out])[0]


def fit_batch(
    starts: Sequence[Gaussians],
    cameras: Sequence[Cameras],
    images: Sequence[Float[Tensor, "_ h w 4"]],
    config: FitConfig = DEFAULT,
    held_out: Sequence[Sequence[int]] | None = None,
) -> list[Fit]:
    """`fit_gaussians` of B objects at once: the same results but for rounding, and on a GPU far faster than a loop.

    Args:
        starts: of each object.
        cameras: of each object; pictures are of one size throughout, views may differ in number.
        images: of each object.
        config: how to fit.
        held_out: of each object.

    Raises:
        DataError: as in `fit_gaussians`, or the sequences are empty or differ in length, or picture sizes differ.
    """
    counts = [len(starts), len(cameras), len(images), len(starts if held_out is None else held_out)]
    if min(counts) == 0 or len(set(counts)) > 1:
        raise DataError(f"fit_batch: got {counts} starts, cameras, images and held_out; equally many are needed, at least one.")
    device = starts[0].means.device
    begin = _now(device)
    objects = []
    for index, (start, each, pictures) in enumerate(zip(starts, cameras, images, strict=True)):
        name = f"fit_batch: object {index}" if len(starts) > 1 else "fit_gaussians"
        _check_start(name, start, each, pictures, device)
        views = default_held_out(len(each)) if held_out is None else held_out[index]
        objects.append(FitViews(name, each, pictures, views, config.seed))
    optimiser = FitOptimiser(starts, objects, config)
    curves: list[list[tuple[float, float]]] = [[] for _ in objects]
    for step in range(sum(config.steps)):
        optimiser.step(step)
        if config.curve_every and (step + 1) % config.curve_every == 0:
            stopped = _now(device)
            for index, (views, curve) in enumerate(zip(objects, curves, strict=True)):
                curve.append(
                    ((stopped - begin) / len(objects), measure(optimiser.one(index), *views.take(views.held_out)).psnr)
                )
            begin += _now(device) - stopped
    results = [optimiser.result(index) for index in range(len(objects))]
    seconds = (_now(device) - begin) / len(objects)
    fits = []
    for views, gaussians, curve in zip(objects, results, curves, strict=True):
        unseen, seen = (measure(gaussians, *views.take(which)) for which in (views.held_out, views.train))
        fits.append(Fit(gaussians, unseen.psnr, unseen.ssim, unseen.foreground_psnr, seen.psnr, seconds, curve))
    return fits


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _check_start(name: str, start: Gaussians, cameras: Cameras, images: Tensor, device: torch.device) -> None:
    if len(start) == 0:
        raise DataError(f"{name}: the start holds no Gaussians.")
    for part in ("means", "quats", "scales", "opacities", "sh"):
        if not bool(getattr(start, part).isfinite().all()):
            raise DataError(f"{name}: start.{part} holds NaN or infinity.")
    devices = {str(each) for each in (device, start.means.device, cameras.K.device, images.device)}
    if len(devices) > 1:
        raise DataError(f"{name}: start, cameras and images lie on {', '.join(sorted(devices))}; move them with .to(device).")
