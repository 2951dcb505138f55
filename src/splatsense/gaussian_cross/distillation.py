"""Tri-attribute adaptive distillation splatting (GaussianCross, arXiv 2508.02172, section 3.3).

Colour, depth and features of all views of all scenes are rendered in one packed pass (`render_batch`) and compared with the
real images, their measured depth, and a frozen 2D model's features of them:

    L = l1 * |C - C*| + l2 * |D - D*| where D* is valid + l3 * (1 - cos(P_psi(F), F*))

Design
- Rendered features are averaged over the pixels of each of the teacher's locations before the projection head P_psi lifts them,
  so that the wide features exist once a location and not once a pixel. Averaging the teacher's up instead would cost more and
  could not add information.
- Every view weighs the same, however few of its depths are valid, so that processes may share a batch out.
- What no Gaussian covers shows one learned background colour: panes of windows have a colour and no depth. Opacities get no
  gradient from it, or a Gaussian of a wrong colour would rather be pruned than corrected.
- Depth in the loss is the sum of z over the compositing weights, not their mean: it says that something must be there. A pixel
  that lost all its Gaussians to pruning has no gradient that could bring them back.

Differs from the paper: its weights are not public. The teacher's features may be centred by their mean, see `teacher_center`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity

from splatsense.cameras import Cameras
from splatsense.errors import DataError
from splatsense.gaussian_cross.decoder import Decoded
from splatsense.render import RasterSettings, Rendering, render_batch

NEAR_PLANE = 0.02  # in normalised units


@dataclass(frozen=True)
class LossWeights:
    """Factors on the three losses."""

    color: float = 10.0
    """l1, on the colours"""
    depth: float = 10.0
    """l2, on the depths in units of the cuboid"""
    semantic: float = 10.0
    """l3, on the features; 0 needs no teacher"""

    def __post_init__(self) -> None:
        values = (self.color, self.depth, self.semantic)
        if not all(value >= 0 for value in values) or not any(values):
            raise DataError(f"loss weights must be at least 0 and not all 0, got {self}.")


@dataclass(frozen=True, eq=False)
class Targets:
    """What V views should show.

    Attributes:
        color: (V, H, W, 3) sRGB in [0, 1].
        depth: (V, H, W) in normalised units, 0 where it was not measured.
        features: (V, h, w, d) of the teacher, or None.
    """

    color: Float[Tensor, "v h w 3"]
    depth: Float[Tensor, "v h w"]
    features: Float[Tensor, "v h2 w2 d"] | None

    def to(self, device: torch.device) -> "Targets":
        """The same on another device."""
        features = None if self.features is None else self.features.to(device)
        return Targets(self.color.to(device), self.depth.to(device), features)


class ProjectionHead(nn.Module):
    """P_psi: rendered features to the teacher's.

    Args:
        in_channels: of what is rendered.
        out_channels: of the teacher.
        hidden: width between.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_channels, hidden), nn.GELU(), nn.Linear(hidden, out_channels))

    def forward(self, rendered: Float[Tensor, "v h w c"], size: tuple[int, int]) -> Float[Tensor, "v h2 w2 d"]:
        """Features at `size` (h, w) locations; each is that of the mean over its pixels."""
        pooled = adaptive_avg_pool2d(rendered.movedim(-1, 1), size).movedim(1, -1)
        return self.layers(pooled)


def render_views(decoded: Sequence[Decoded], cameras: Sequence[Cameras], background: Float[Tensor, "3"]) -> Rendering:
    """Colour, depth and features of every scene's views, in one pass."""
    gaussians, features = [one.gaussians for one in decoded], [one.features for one in decoded]
    rendering = render_batch(gaussians, cameras, features=features, settings=RasterSettings(near_plane=NEAR_PLANE))
    seen_through = (1 - rendering.alpha.detach())[..., None]
    return replace(rendering, color=rendering.color + seen_through * background)


def color_loss(color: Float[Tensor, "v h w 3"], target: Float[Tensor, "v h w 3"]) -> Float[Tensor, ""]:
    """L_img: mean absolute difference."""
    return (color - target).abs().mean()


def depth_loss(depth: Float[Tensor, "v h w"], target: Float[Tensor, "v h w"]) -> Float[Tensor, ""]:
    """L_dep: mean over views of the mean absolute difference where the target is valid; 0 of a view without any."""
    valid = target > 0
    error = torch.where(valid, (depth - target).abs(), 0).flatten(1).sum(1)
    return (error / valid.flatten(1).sum(1).clamp_min(1)).mean()


def semantic_loss(features: Float[Tensor, "v h w d"], target: Float[Tensor, "v h w d"]) -> Float[Tensor, ""]:
    """L_sem: one minus the mean cosine between lifted and teacher's features."""
    return 1 - cosine_similarity(features, target, dim=-1).mean()
