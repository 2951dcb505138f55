"""The GS tokenizer of CLIP-GS (arXiv 2412.19142, section 3.2): patches of Gaussians in, tokens out.

Design
- A Gaussian is 19 numbers: position relative to the patch centre, colour, opacity, scale, rotation matrix.
- The refinement block sums two branches: 1x3 convolutions over all 19 channels along serial orders of the patch, and the
  point-cloud patch encoder of Uni3D (arXiv 2310.06773) over position and colour.
- Where there are several serial orders, the same convolutions run along each and one pooling takes the maximum over all.
  The paper names the orders (xyz, Hilbert, Z) but not how they are combined; so none is preferred, no weight is added, and
  weights trained with one order fit any number of them.
- Two simpler tokenizers exist for comparison: Uni3D's patch encoder over position and colour (the point-cloud mode), and the
  same over all 19 channels (all attributes without the GS tokenizer).

Differs from the paper: nothing known. Which numbers a serial order puts in a row is not public; here the Gaussians inside a
patch, since a pooled convolution along the patches would not leave one token for each.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from splatsense.clip_gs.patches import PatchIndices
from splatsense.gaussians import Gaussians, quaternion_to_matrix
from splatsense.training.batch_norm import BatchNorm1d

CHANNELS = 19
POINT_CHANNELS = 6  # of which position and colour are the first
Attributes = Literal["all", "position_color"]


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


class GaussianTokenizer(nn.Module):
    """Patches of Gaussians to tokens: the refinement block, or one of the two tokenizers it is compared with.

    Args:
        width: token width d.
        conv_widths: output channels of the four 1x3 convolutions but the last, which has `width`.
        point_widths: channels of the Uni3D patch encoder (paper: 128, 256, 512).
        point_dim: output channels of the Uni3D patch encoder, which a linear map takes to `width`; 0: no map, `width` itself.
        attributes: "all", or "position_color": the Uni3D patch encoder alone, over 6 channels.
        refinement: False leaves out the convolutions and feeds all attributes to the Uni3D patch encoder.
    """

    def __init__(
        self,
        width: int,
        conv_widths: tuple[int, int, int],
        point_widths: tuple[int, int, int],
        point_dim: int = 0,
        attributes: Attributes = "all",
        refinement: bool = True,
    ) -> None:
        super().__init__()
        refined = attributes == "all" and refinement
        self.point_channels = CHANNELS if attributes == "all" and not refinement else POINT_CHANNELS
        self.attribute_branch = ConvolutionBranch((CHANNELS, *conv_widths, width)) if refined else None
        self.point_branch = PointPatchEncoder(self.point_channels, point_widths, point_dim or width)
        self.point_to_width = nn.Linear(point_dim, width) if point_dim else nn.Identity()

    def forward(self, batch: GaussianBatch, indices: PatchIndices) -> tuple[Tensor, Tensor]:
        """Tokens (B, P, width) and the patch centres (B, P, 3) they stand for."""
        rows = torch.arange(len(batch), device=batch.means.device)[:, None]
        centers = batch.means[rows, indices.centers]
        gathered = _channels(batch)[rows[:, :, None, None], indices.members]  # (B, O, P, S, 19)
        offsets = gathered[..., :3] - centers[:, None, :, None]
        patches = torch.cat([offsets, gathered[..., 3:]], dim=-1)
        tokens = self.point_to_width(self.point_branch(patches[:, 0, ..., : self.point_channels]))
        if self.attribute_branch is not None:
            pooled = self.attribute_branch(patches.flatten(0, 2)).unflatten(0, patches.shape[:3])
            tokens = tokens + pooled.amax(1)
        return tokens, centers


def _channels(batch: GaussianBatch) -> Tensor:
    """(B, N, 19) what the network sees of each Gaussian, its position still absolute."""
    parts = [batch.means, batch.rgb, batch.opacities[..., None], sigmoid_of_log(batch.scales), batch.rotations.flatten(-2)]
    return torch.cat(parts, dim=-1)


class ConvolutionBranch(nn.Sequential):
    """Four 1x3 convolutions along patches, strides 1, 1, 2 and 2, each with batch norm and ReLU, and a maximum over the patch.

    For training on a CPU they are written as matrix products over windows of three: there, convolutions in bfloat16 take
    ten times as long on the way back.
    """

    def __init__(self, channels: tuple[int, int, int, int, int]) -> None:
        layers: list[nn.Module] = []
        for index, stride in enumerate((1, 1, 2, 2)):
            conv = nn.Conv1d(channels[index], channels[index + 1], 3, stride, padding=1, bias=False)
            layers += [conv, BatchNorm1d(channels[index + 1]), nn.ReLU()]
        super().__init__(*layers)

    def forward(self, input: Float[Tensor, "p s c"]) -> Float[Tensor, "p out"]:
        """Features of P patches of S Gaussians in a row."""
        if not (input.device.type == "cpu" and torch.is_grad_enabled()):
            return super().forward(input.transpose(1, 2)).amax(-1)
        for layer in self:
            if isinstance(layer, nn.Conv1d):
                input = convolve_by_product(input, layer.weight, layer.stride[0])
            elif isinstance(layer, nn.BatchNorm1d):
                input = layer(input.flatten(0, 1)).view_as(input)
            else:
                input = layer(input)
        return input.amax(1)


def convolve_by_product(
    rows: Float[Tensor, "p s c"], weight: Float[Tensor, "out c 3"], stride: int
) -> Float[Tensor, "p short out"]:
    """`conv1d` of kernel 3 and padding 1 over the middle axis, as one matrix product."""
    padded = pad(rows, (0, 0, 1, 1))
    last = padded.shape[1] - 2
    windows = torch.cat([padded[:, tap : tap + last : stride] for tap in range(3)], dim=-1)
    return linear(windows, weight.transpose(1, 2).flatten(1))


class PointPatchEncoder(nn.Module):
    """Uni3D's patch encoder: a mini PointNet, its maximum joined to every point, a second one, and a maximum."""

    def __init__(self, channels: int, widths: tuple[int, int, int], out_width: int) -> None:
        super().__init__()
        first, second, third = widths
        self.point_layers = nn.Sequential(nn.Linear(channels, first), BatchNorm1d(first), nn.ReLU(), nn.Linear(first, second))
        self.join = nn.Linear(2 * second, third)
        self.patch_layers = nn.Sequential(BatchNorm1d(third), nn.ReLU(), nn.Linear(third, out_width))

    def forward(self, points: Float[Tensor, "b p s c"]) -> Float[Tensor, "b p out"]:
        """Tokens of patches of S points: relative positions, colours and what else there is."""
        local = self.point_layers(points.flatten(0, -2)).unflatten(0, points.shape[:-1])
        # `join` takes [maximum, local]; its two halves apply apart, so the maximum's is done once a patch.
        for_maximum, for_local = self.join.weight.chunk(2, dim=1)
        mixed = linear(local, for_local, self.join.bias) + linear(local.amax(-2, keepdim=True), for_maximum)
        return self.patch_layers(mixed.flatten(0, -2)).unflatten(0, points.shape[:-1]).amax(-2)


def sigmoid_of_log(scales: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The paper's sigmoid of the raw (log) scale, written for linear scales: s / (1 + s)."""
    return scales / (1 + scales)
