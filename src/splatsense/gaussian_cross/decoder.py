"""From sparse features to Gaussians with a feature field (GaussianCross, arXiv 2508.02172, sections 3.2 and 3.3).

Design
- Features of voxels are averaged in the cells of a dense volume over the unit cuboid, which a 3D U-Net refines. Every cell's
  centre is an anchor, the coarse mean nu of a Gaussian. The U-Net understands a room by itself, and what it does the backbone
  need not learn; `levels=0` leaves it out, and only cells that hold voxels are ever computed.
- One MLP for each attribute: offset `delta = tanh(head) * Delta`, quaternion, scale, colour, opacity sigma and the semantic
  embedding f. `mean = nu + delta`. Delta and scales are in cells.
- Anchors with `sigma <= threshold` are pruned. Opacity is decoded first and all else for what is left, which gives the same
  Gaussians for less. A scene whose anchors all fall below keeps its most opaque one, so that it still has a gradient.
- `anchors="occupied"` makes anchors only of cells within `reach` cells of one that holds a voxel.

Differs from the paper: `volume_channels` may be fewer than the backbone's. A linear map then comes before the average; the two
commute, so it is a factor of the first convolution, and the cheaper the fewer cells hold voxels. Which activations bound scale
and colour is not stated; here both are sigmoids.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import max_pool3d, normalize

from splatsense.errors import DataError
from splatsense.gaussian_cross.cuboid import BOTTOM
from splatsense.gaussian_cross.dense_unet import DenseUNet
from splatsense.gaussians import Gaussians

Anchors = Literal["occupied", "all"]
FIRST_SCALE = 0.5  # of a Gaussian before training, in cells
FIRST_OPACITY = 0.6  # above the threshold, so that all anchors begin as Gaussians
LAST_LAYER_GAIN = 0.5  # of the heads: Gaussians begin alike, but not so much that hues, which differ least, are learned late


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the decoder."""

    grid: tuple[int, int, int] = (128, 128, 32)
    """cells of the dense volume along x, y and z"""
    height: float = 1.0
    """of the unit cuboid that the volume covers; 1 is the paper's cube"""
    volume_channels: int = 96
    """of the dense volume; the backbone's own number is the paper's"""
    base_maps: int = 32
    """channels of the 3D U-Net's finest level, if there is one"""
    levels: int = 4
    """of the 3D U-Net; 0 leaves it out"""
    refined_channels: int = 128
    """of the refined volume"""
    hidden: int = 128
    """width of the heads"""
    feature_channels: int = 16
    """of the semantic embedding that is rendered"""
    offset: float = 1.0
    """Delta, the farthest that a mean moves from its anchor along an axis, in cells"""
    largest_scale: float = 2.0
    """of a Gaussian, in cells"""
    threshold: float = 0.3
    """tau, the opacity up to which anchors are pruned"""
    anchors: Anchors = "occupied"
    """which cells may become Gaussians"""
    reach: int = 1
    """how many cells from an occupied one anchors are made, for anchors = occupied"""

    def __post_init__(self) -> None:
        if min(self.grid) < 1 or min(self.base_maps, self.hidden, self.feature_channels) < 1:
            raise DataError(f"DecoderConfig: sizes must be at least 1, got {self}.")
        if min(self.levels, self.reach) < 0:
            raise DataError(f"--levels and --reach must not be negative, got {self.levels} and {self.reach}.")
        if not self.levels and (self.reach or self.anchors == "all"):
            raise DataError("--levels 0: without a 3D U-Net empty cells know nothing; add --anchors occupied --reach 0.")
        halved = 1 << max(self.levels - 1, 0)
        if any(side % halved for side in self.grid):
            raise DataError(f"--grid: {self.grid} must be multiples of {halved} for --levels {self.levels}.")
        if not 0 < self.height <= 1 or not 0 <= self.threshold < FIRST_OPACITY:
            raise DataError(f"DecoderConfig: height must lie in (0, 1] and threshold in [0, {FIRST_OPACITY}), got {self}.")
        if not self.offset > 0 or not self.largest_scale > FIRST_SCALE:
            raise DataError(f"DecoderConfig: offset must be above 0, largest_scale above {FIRST_SCALE}; got {self}.")

    @property
    def cell(self) -> tuple[float, float, float]:
        """Sides of a cell in normalised units."""
        x, y, z = self.grid
        return 1 / x, 1 / y, self.height / z


class Decoded(NamedTuple):
    """Gaussians of one scene in its unit cuboid.

    Attributes:
        gaussians: N Gaussians, SH degree 0.
        features: (N, f) semantic embedding.
        anchors: how many anchors there were before pruning.
    """

    gaussians: Gaussians
    features: Float[Tensor, "n f"]
    anchors: int


class GaussianDecoder(nn.Module):
    """Sparse features to the Gaussians of each scene of a batch.

    Args:
        in_channels: of the backbone's features.
        config: shape.
    """

    def __init__(self, in_channels: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        same = config.volume_channels == in_channels
        self.reduce = nn.Identity() if same else nn.Linear(in_channels, config.volume_channels, bias=False)
        self.refine = DenseUNet(config.volume_channels, config.base_maps, config.levels) if config.levels else None
        channels = config.base_maps if config.levels else config.volume_channels
        self.refined = nn.Linear(channels, config.refined_channels)  # the U-Net's last layer, at the anchors only
        widths = {"offset": 3, "quaternion": 4, "scale": 3, "color": 3, "opacity": 1, "feature": config.feature_channels}
        self.heads = nn.ModuleDict({name: _head(config.refined_channels, config.hidden, n) for name, n in widths.items()})
        with torch.no_grad():
            self._bias("opacity").fill_(_logit(FIRST_OPACITY))
            self._bias("scale").fill_(_logit(FIRST_SCALE / config.largest_scale))
            self._bias("quaternion").copy_(torch.tensor([1.0, 0, 0, 0]))

    def _bias(self, name: str) -> Tensor:
        return self.heads[name][2].bias  # pyright: ignore[reportIndexIssue]

    def forward(
        self, features: Float[Tensor, "m c"], positions: Float[Tensor, "m 3"], scene: Int64[Tensor, " m"], scenes: int
    ) -> list[Decoded]:
        """Gaussians of every scene.

        Args:
            features: of the voxels of all scenes.
            positions: of the voxels in their scene's unit cuboid.
            scene: which scene each belongs to, 0 to `scenes` - 1.
            scenes: how many there are.
        """
        cells = self.cells(positions, scene)
        if self.refine is not None:
            volume, occupied = self.pool(self.reduce(features), cells, scenes)
            anchors = self.anchors(occupied).nonzero()  # (A, 4): scene, x, y, z
            rows = self.refined(self.refine(volume).movedim(1, -1)[anchors.unbind(1)])
        else:
            found, row = cells.unique(return_inverse=True)
            anchors = torch.stack(torch.unravel_index(found, (scenes, *self.config.grid)), dim=1)
            rows = self.refined(_means(self.reduce(features), row, len(found)))
        return self.decode(rows, anchors, scenes)

    def cells(self, positions: Float[Tensor, "m 3"], scene: Int64[Tensor, " m"]) -> Int64[Tensor, " m"]:
        """The flat index, over (scene, x, y, z), of the cell that holds each position."""
        grid = torch.tensor(self.config.grid, device=positions.device)
        low = positions.new_tensor([-0.5, -0.5, BOTTOM])
        index = ((positions - low) / positions.new_tensor(self.config.cell)).long()
        x, y, z = index.clamp_min(0).minimum(grid - 1).unbind(1)
        return ((scene * grid[0] + x) * grid[1] + y) * grid[2] + z

    def pool(
        self, features: Float[Tensor, "m c"], cells: Int64[Tensor, " m"], scenes: int
    ) -> tuple[Float[Tensor, "b c x y z"], Bool[Tensor, "b x y z"]]:
        """F_v: mean features of each cell, zero where it is empty; and which cells are not."""
        shape = (scenes, *self.config.grid)
        occupied = torch.bincount(cells, minlength=math.prod(shape)).view(shape) > 0
        return _means(features, cells, occupied.numel()).unflatten(0, shape).movedim(-1, 1).contiguous(), occupied

    def anchors(self, occupied: Bool[Tensor, "b x y z"]) -> Bool[Tensor, "b x y z"]:
        """Cells that may become Gaussians."""
        if self.config.anchors == "all":
            return torch.ones_like(occupied)
        if not self.config.reach:
            return occupied
        reach = self.config.reach
        return max_pool3d(occupied.float()[:, None], 2 * reach + 1, 1, reach)[:, 0] > 0

    def decode(self, rows: Float[Tensor, "a c"], anchors: Int64[Tensor, "a 4"], scenes: int) -> list[Decoded]:
        """Gaussians of anchors: their refined features and (scene, x, y, z), ordered by scene."""
        config, heads = self.config, self.heads
        opacity = heads["opacity"](rows)[:, 0].sigmoid()
        kept = self._kept(opacity.detach(), anchors[:, 0], scenes)
        rows, opacity, places = rows[kept], opacity[kept], anchors[kept]
        cell = rows.new_tensor(config.cell)
        nu = rows.new_tensor([-0.5, -0.5, BOTTOM]) + (places[:, 1:] + 0.5) * cell
        gaussians = Gaussians.from_rgb(
            nu + heads["offset"](rows).tanh() * config.offset * cell,
            normalize(heads["quaternion"](rows), dim=-1),
            heads["scale"](rows).sigmoid() * config.largest_scale * cell.prod() ** (1 / 3),
            opacity,
            heads["color"](rows).sigmoid(),
        )
        features = heads["feature"](rows)
        counts = torch.bincount(places[:, 0], minlength=scenes).tolist()
        before = torch.bincount(anchors[:, 0], minlength=scenes).tolist()
        parts, start = [], 0
        for count, total in zip(counts, before, strict=True):
            parts.append(Decoded(gaussians[start : start + count], features[start : start + count], total))
            start += count
        return parts

    def _kept(self, opacity: Float[Tensor, " a"], scene: Int64[Tensor, " a"], scenes: int) -> Bool[Tensor, " a"]:
        kept, start = opacity > self.config.threshold, 0
        for part in opacity.split(torch.bincount(scene, minlength=scenes).tolist()):
            kept[start + int(part.argmax())] = True
            start += len(part)
        return kept


def _means(features: Float[Tensor, "m c"], group: Int64[Tensor, " m"], groups: int) -> Float[Tensor, "g c"]:
    """Mean features of each group, zero of one that is empty."""
    summed = features.new_zeros(groups, features.shape[1]).index_add(0, group, features)
    return summed / torch.bincount(group, minlength=groups).clamp_min(1)[:, None].to(features.dtype)


def _head(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    last = nn.Linear(hidden, out_channels)
    nn.init.xavier_uniform_(last.weight, LAST_LAYER_GAIN)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(inplace=True), last)


def _logit(value: float) -> float:
    return math.log(value / (1 - value))
