"""Augmentation of batches of Gaussians. Every change moves rotations and scales of the Gaussians along with the means."""

import math
import sys
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.clip_gs.tokenizer import GaussianBatch
from splatsense.errors import DataError

GREY = 0.4  # what Uni3D replaces colours with
PROBABILITIES = ("any_turn", "mirror", "drop_color")


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the augmentation; 0 switches a part off.

    Attributes:
        turn: rotate about the up axis (y) by up to this many degrees. Catalogues show objects from the front, which helps to
            recognise them, so it is small.
        any_turn: probability of any angle instead, for the files that face somewhere else.
        tilt: rotate about a random axis by up to this many degrees.
        scale: factor drawn from [1 / (1 + scale), 1 + scale], the same for all axes.
        stretch: further factor of the same form, drawn for every axis.
        shift: move by up to this along every axis.
        mirror: probability of mirroring left and right.
        drop_color: probability of replacing all colours by 0.4 grey.
        color_jitter: brightness and tint change of every channel, up to this.
        splat_scale: factor on the sizes of the Gaussians alone, of the form of `scale`; files differ in it.
    """

    turn: float = 20.0
    any_turn: float = 0.2
    tilt: float = 10.0
    scale: float = 0.25
    stretch: float = 0.25
    shift: float = 0.1
    mirror: float = 0.5
    drop_color: float = 0.3
    color_jitter: float = 0.2
    splat_scale: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, is_probability = getattr(self, field.name), field.name in PROBABILITIES
            if not 0 <= value <= (1 if is_probability else sys.float_info.max):  # NaN is not good
                must = "lie in [0, 1]" if is_probability else "be finite and not negative"
                raise DataError(f"--{field.name.replace('_', '-')}: must {must}, got {value}.")


def augment(
    batch: GaussianBatch, config: AugmentConfig, generator: torch.Generator, own: Tensor | None = None, total: int | None = None
) -> GaussianBatch:
    """A randomly changed copy of the batch; the same generator state gives the same change.

    Args:
        batch: n objects.
        config: ranges of the change.
        generator: of all numbers, which are drawn for the whole batch.
        own: (n,) positions of the objects in the whole batch; by default they are all of it.
        total: objects of the whole batch.
    """
    count = len(batch) if total is None else total
    own = torch.arange(count) if own is None else own

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)[own]

    def signed(*shape: int) -> Tensor:
        return uniform(*shape) * 2 - 1

    def factor(spread: float, *shape: int) -> Tensor:
        return torch.exp(signed(*shape) * math.log(1 + spread))

    limit = torch.where(uniform() < config.any_turn, 180.0, config.turn)
    turn = axis_angle(torch.tensor([0.0, 1.0, 0.0]).expand(len(batch), 3), signed() * limit.deg2rad())
    axis = normalize(torch.randn(count, 3, generator=generator)[own], dim=-1)
    tilt = axis_angle(axis, signed() * math.radians(config.tilt))
    mirror = torch.where(uniform() < config.mirror, -1.0, 1.0)
    stretch = factor(config.stretch, 3) * factor(config.scale, 1)
    stretch = torch.cat([stretch[:, :1] * mirror[:, None], stretch[:, 1:]], dim=1)
    batch = linear_map(batch, tilt @ turn @ torch.diag_embed(stretch))
    means = batch.means + signed(1, 3) * config.shift
    rgb = (batch.rgb * (1 + signed(1, 3) * config.color_jitter) + signed(1, 1) * config.color_jitter).clamp(0, 1)
    rgb = torch.where(uniform(1, 1) < config.drop_color, torch.full_like(rgb, GREY), rgb)
    return replace(batch, means=means, rgb=rgb, scales=batch.scales * factor(config.splat_scale, 1, 1))


def linear_map(batch: GaussianBatch, matrices: Tensor) -> GaussianBatch:
    """Apply one invertible linear map (B, 3, 3) per object.

    The first two axes of every Gaussian are mapped and made orthogonal again, the third is their normal, so a flat
    Gaussian whose third axis is the thin one stays on its surface. Exact for similarities; for a stretch the small
    shear inside the surface is dropped.
    """
    x, y, z = torch.einsum("bij,bnjk->kbni", matrices, batch.rotations).contiguous()  # columns apart: norms of rows are fast
    lengths = torch.stack([column.norm(dim=-1) for column in (x, y, z)], dim=-1)
    first = normalize(x, dim=-1)
    second = normalize(y - (first * y).sum(-1, keepdim=True) * first, dim=-1)
    rotations = torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)
    return replace(batch, means=batch.means @ matrices.transpose(1, 2), rotations=rotations, scales=batch.scales * lengths)


def axis_angle(axes: Tensor, angles: Tensor) -> Tensor:
    """(B, 3, 3) rotations about unit axes (B, 3) by angles (B,) in radians (Rodrigues)."""
    x, y, z = axes.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    sine, cosine = angles.sin()[:, None, None], angles.cos()[:, None, None]
    return torch.eye(3) + sine * skew + (1 - cosine) * (skew @ skew)
