"""How well Gaussians show given views: PSNR and SSIM over white."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.gaussians import Gaussians
from splatsense.render import render
from splatsense.render.photometric import photometric_loss

MAX_PSNR = 100.0  # dB, of pictures without a difference
VIEWS_AT_ONCE = 8


class Scores(NamedTuple):
    """Means over views; NaN where there is no view."""

    psnr: float
    """dB, of RGB in [0, 1] over white, whole pictures."""
    foreground_psnr: float
    """dB, of RGB over white at the pixels that the object covers, be it in part."""
    ssim: float
    """Over white, whole pictures."""


@torch.no_grad()
def measure(gaussians: Gaussians, cameras: Cameras, targets: Float[Tensor, "v h w 4"]) -> Scores:
    """Compare pictures of Gaussians with premultiplied RGBA."""
    parts = [_measure(gaussians, cameras[part], targets[part]) for part in _parts(len(cameras))]
    psnr, foreground, ssim = torch.cat([torch.empty(3, 0), *parts], dim=1).mean(1).tolist()
    return Scores(psnr, foreground, ssim)


def _parts(views: int) -> list[slice]:
    return [slice(first, first + VIEWS_AT_ONCE) for first in range(0, views, VIEWS_AT_ONCE)]


def _measure(gaussians: Gaussians, cameras: Cameras, targets: Tensor) -> Tensor:
    """(3, V)"""
    white, opaque = torch.ones(len(targets), 3).to(targets), torch.ones_like(targets[..., 3:])
    color = render(gaussians, cameras, background=white).color.clamp(0, 1)
    wanted = targets[..., :3] + (1 - targets[..., 3:])
    covered = (targets[..., 3] > 0).to(targets)
    error = (color - wanted).square().mean(-1)
    whole, inside = error.mean((1, 2)), (error * covered).sum((1, 2)) / covered.sum((1, 2)).clamp_min(1)
    unlike = photometric_loss(color, opaque[..., 0], torch.cat([wanted, opaque], dim=-1), white, ssim_weight=1.0)
    return torch.stack([_decibels(whole), _decibels(inside), 1 - unlike]).cpu()


def _decibels(error: Tensor) -> Tensor:
    return -10 * error.clamp_min(10 ** (-MAX_PSNR / 10)).log10()
