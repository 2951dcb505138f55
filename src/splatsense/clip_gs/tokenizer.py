"""The GS tokenizer of CLIP-GS (arXiv 2412.19142, section 3.2): Gaussians in, patch tokens out.

Design
- Farthest point sampling picks `patches` centres, k nearest neighbours gather `patch_size` Gaussians for each.
- A Gaussian is 19 numbers: position relative to the patch centre, colour, opacity, scale, rotation matrix.
- The refinement block sums two branches: 1x3 convolutions over all 19 channels along a serial order of the patch,
  and the point-cloud patch encoder of Uni3D (arXiv 2310.06773) over position and colour.
- Grouping picks indices without gradients; `GaussianBatch` and `PatchIndices` say what moves between the two steps.

Differs from the paper: one serial order inside each patch instead of several orders of the patches; a setting.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from splatsense.gaussians import Gaussians, quaternion_to_matrix
from splatsense.geometry.neighbours import k_nearest_neighbours
from splatsense.geometry.sampling import farthest_point_sampling
from splatsense.geometry.serialize import serial_order
from splatsense.training.batch_norm import BatchNorm1d
from splatsense.training.shares import rand_rows

CHANNELS = 19
PatchOrder = Literal["distance", "xyz", "hilbert", "z"]
SERIAL_BITS = 8  # cells per axis of the serial curve: 2^8, finer than any patch


@dataclass(frozen=True)
class GaussianBatch:
    """B objects of N Gaussians each, in the frame models expect (centred, longest half-extent 1).

    Attributes:
        means: (B, N, 3).
        rotations: (B, N, 3, 3) rotation matrices.
        scales: (B, N, 3) linear.
        opacities: (B, N) in [0, 1].
        rgb: (B, N, 3) sRGB in [0, 1].
    """

    means: Tensor
    rotations: Tensor
    scales: Tensor
    opacities: Tensor
    rgb: Tensor

    def __len__(self) -> int:
        return self.means.shape[0]

    def to(self, device: torch.device | str) -> "GaussianBatch":
        """The same batch on another device."""
        return GaussianBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @staticmethod
    def stack(objects: list[Gaussians], count: int, seed: int = 0) -> "GaussianBatch":
        """Objects brought to `count` Gaussians each: a random subset, or all of them and some again.

        The caller normalises; this only picks. The same seed picks the same Gaussians.
        """
        picked = [gaussians[_pick(len(gaussians), count, seed)] for gaussians in objects]
        stacked = {
            name: torch.stack([getattr(g, name) for g in picked]) for name in ("means", "quats", "scales", "opacities", "rgb")
        }
        return GaussianBatch(rotations=quaternion_to_matrix(stacked.pop("quats")), **stacked)


def _pick(available: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(available, generator=generator)
    return order.repeat(-(-count // available))[:count]


@dataclass(frozen=True)
class PatchIndices:
    """Which Gaussians make up the patches.

    Attributes:
        centers: (B, P) index of each patch's centre.
        members: (B, P, S) indices of its Gaussians along the serial order.
    """

    centers: Tensor
    members: Tensor


def group_patches(means: Tensor, patches: int, patch_size: int, order: PatchOrder = "hilbert") -> PatchIndices:
    """Choose patches of Gaussians by farthest point sampling and nearest neighbours.

    Args:
        means: (B, N, 3).
        patches: centres per object, at most N.
        patch_size: Gaussians per patch, at most N.
        order: of the Gaussians inside a patch: "distance" from the centre, or along the "xyz", "hilbert" or "z" curve.
    """
    batch = torch.arange(len(means), device=means.device)[:, None]
    centers = farthest_point_sampling(means, patches)
    _, members = k_nearest_neighbours(means, means[batch, centers], patch_size)
    if order != "distance":
        permutation = serial_order(means, order, bits=SERIAL_BITS)
        rank = torch.empty_like(permutation).scatter_(
            1, permutation, torch.arange(means.shape[1], device=means.device).expand_as(permutation)
        )
        by_rank = rank[batch[..., None], members].argsort(-1)
        members = members.gather(-1, by_rank)
    return PatchIndices(centers, members)


def drop_patches(indices: PatchIndices, fraction: float) -> PatchIndices:
    """Leave out a random `fraction` of each object's patches, at most all but one (patch dropout of the CLIP-GS recipe).

    Before the tokenizer rather than after it as in Uni3D: the same tokens enter the transformer, and those left out
    cost nothing.
    """
    patches = indices.centers.shape[1]
    keep = max(1, round(patches * (1 - fraction)))
    chosen = rand_rows(*indices.centers.shape, device=indices.centers.device).topk(keep).indices
    members = indices.members.gather(1, chosen[..., None].expand(-1, -1, indices.members.shape[-1]))
    return PatchIndices(indices.centers.gather(1, chosen), members)


class GaussianTokenizer(nn.Module):
    """Patches of Gaussians to tokens: the refinement block.

    Args:
        width: token width d.
        conv_widths: output channels of the four 1x3 convolutions but the last, which has `width`.
        point_widths: channels of the Uni3D patch encoder (paper: 128, 256, 512).
        use_attributes: False keeps position and colour only, the point-cloud mode that is the Uni3D baseline.
    """

    def __init__(
        self, width: int, conv_widths: tuple[int, int, int], point_widths: tuple[int, int, int], use_attributes: bool = True
    ) -> None:
        super().__init__()
        a, b, c = conv_widths
        self.attribute_branch = None
        if use_attributes:
            channels, strides = (CHANNELS, a, b, c, width), (1, 1, 2, 2)
            layers: list[nn.Module] = []
            for index, stride in enumerate(strides):
                conv = nn.Conv1d(channels[index], channels[index + 1], 3, stride, padding=1, bias=False)
                layers += [conv, BatchNorm1d(channels[index + 1]), nn.ReLU()]
            self.attribute_branch = nn.Sequential(*layers)
        self.point_branch = PointPatchEncoder(point_widths, width)

    def forward(self, batch: GaussianBatch, indices: PatchIndices) -> tuple[Tensor, Tensor]:
        """Tokens (B, P, width) and the patch centres (B, P, 3) they stand for."""
        rows = torch.arange(len(batch), device=batch.means.device)[:, None]
        centers = batch.means[rows, indices.centers]
        pick = rows[..., None], indices.members
        offsets, rgb = batch.means[pick] - centers[:, :, None], batch.rgb[pick]
        tokens = self.point_branch(torch.cat([offsets, rgb], dim=-1))
        if self.attribute_branch is not None:
            channels = torch.cat(
                [
                    offsets,
                    rgb,
                    batch.opacities[pick][..., None],
                    sigmoid_of_log(batch.scales[pick]),
                    batch.rotations[pick].flatten(-2),
                ],
                dim=-1,
            )
            convolved = self.attribute_branch(channels.flatten(0, 1).transpose(1, 2))
            tokens = tokens + convolved.amax(-1).unflatten(0, tokens.shape[:2])
        return tokens, centers


class PointPatchEncoder(nn.Module):
    """Uni3D's patch encoder: a mini PointNet, its maximum joined to every point, a second one, and a maximum."""

    def __init__(self, widths: tuple[int, int, int], out_width: int) -> None:
        super().__init__()
        first, second, third = widths
        self.point_layers = nn.Sequential(nn.Linear(6, first), _BatchNorm(first), nn.ReLU(), nn.Linear(first, second))
        self.join = nn.Linear(2 * second, third)
        self.patch_layers = nn.Sequential(_BatchNorm(third), nn.ReLU(), nn.Linear(third, out_width))

    def forward(self, points: Tensor) -> Tensor:
        """(B, P, out_width) tokens of patches (B, P, S, 6) of relative positions and colours."""
        local = self.point_layers(points)
        # `join` takes [maximum, local]; its two halves apply apart, so the maximum's is done once a patch.
        for_maximum, for_local = self.join.weight.chunk(2, dim=1)
        mixed = linear(local, for_local, self.join.bias) + linear(local.amax(-2, keepdim=True), for_maximum)
        return self.patch_layers(mixed).amax(-2)


class _BatchNorm(BatchNorm1d):
    """Batch normalisation over every axis but the last, which holds the channels."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, -2)).view_as(input)


def sigmoid_of_log(scales: Tensor) -> Tensor:
    """The paper's sigmoid of the raw (log) scale, written for linear scales: s / (1 + s)."""
    return scales / (1 + scales)
