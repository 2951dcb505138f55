"""Two views of a scene and which of their voxels match (PointContrast, arXiv 2007.10985; MSC, arXiv 2303.14191).

Design
- A view is a crop, the points nearest to a random one, then augmented and cut in voxels on its own. A crop has more than half
  of the points, so that two always overlap.
- Voxels match that are each other's nearest by where their points lay before augmentation, up to a voxel's side apart. So
  matches are one to one, and no voxel is a negative of its own place.

Differs from the papers: PointContrast's views are depth frames, MSC's matches are up to eight for a point.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import DataError
from splatsense.gaussian_cross.scene_points import ScenePoints
from splatsense.geometry.neighbours import k_nearest_neighbours
from splatsense.segmentation.augment import AugmentConfig, augment
from splatsense.segmentation.dataset import sphere_crop
from splatsense.segmentation.points import NONE, Points
from splatsense.sparse import voxelize

AUGMENT = AugmentConfig(
    dropout=0.2, dropout_chance=1.0, turn_chance=1.0, elastic_chance=0.0, scale=(0.8, 1.2), color_shift=0.1,
    color_shift_chance=0.95, contrast_chance=0.2, color_jitter=0.05,
)  # fmt: skip


@dataclass(frozen=True)
class ViewConfig:
    """How scenes are seen.

    Attributes:
        voxel: side in metres.
        most_voxels: of a view; of more, random ones are dropped.
        crop: share of the points in a view, above one half.
        pairs: matches of a scene that are compared, at most.
        augment: of each view.
    """

    voxel: float
    most_voxels: int
    crop: float = 0.6
    pairs: int = 2048
    augment: AugmentConfig = AUGMENT

    def __post_init__(self) -> None:
        if not self.voxel > 0 or self.most_voxels < 1 or self.pairs < 2:
            raise DataError("--voxel and --most-voxels must be above 0, and --pairs at least 2.")
        if not 0.5 < self.crop <= 1:
            raise DataError(f"--crop: must lie in (0.5, 1], so that two views overlap, got {self.crop}.")


@dataclass(frozen=True, eq=False)
class View:
    """Voxels of one view.

    Attributes:
        coordinates: (m, 3) of each voxel.
        features: (m, 6) colour in [-1, 1] and normal.
        origin: (m, 3) mean of its points in the scene, before augmentation.
    """

    coordinates: Int[Tensor, "m 3"]
    features: Float[Tensor, "m 6"]
    origin: Float[Tensor, "m 3"]


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pairs of views of several scenes.

    Attributes:
        coordinates: (m, 4) of all views: 2 i and 2 i + 1 are those of scene i.
        features: (m, 6).
        pairs: (p, 2) rows of matching voxels.
        scene: (p,) of each pair.
    """

    coordinates: Int[Tensor, "m 4"]
    features: Float[Tensor, "m 6"]
    pairs: Int64[Tensor, "p 2"]
    scene: Int64[Tensor, " p"]

    def to(self, device: torch.device) -> "PairBatch":
        """The same batch on another device."""
        return PairBatch(**{name: value.to(device) for name, value in vars(self).items()})


def view_pair(points: ScenePoints, config: ViewConfig, generator: torch.Generator) -> tuple[View, View, Int64[Tensor, "p 2"]]:
    """Two views of a scene, and rows of voxels of the first and the second that match.

    Raises:
        DataError: nothing matches, because the scene is tiny.
    """
    first, second = (draw_view(points, config, generator) for _ in range(2))
    pairs = match(first.origin, second.origin, config.voxel)
    if len(pairs) < 2:
        raise DataError(f"scene {points.name}: two crops of it have {len(pairs)} voxels in common; leave it out.")
    chosen = torch.randperm(len(pairs), generator=generator)[: config.pairs]
    return first, second, pairs[chosen]


def draw_view(points: ScenePoints, config: ViewConfig, generator: torch.Generator) -> View:
    """A random crop of a scene, augmented, in voxels."""
    count = len(points.coord)
    color, normal = points.features.split(3, dim=1)
    rows = torch.arange(count)  # augmentation leaves points out: instances tell which are left
    whole = Points(points.coord, (color + 1) / 2, normal, torch.full((count,), NONE), rows)
    seen = augment(sphere_crop(whole, round(config.crop * count), generator), config.augment, generator)
    origin = points.coord[seen.instance]
    color = seen.color * 2 - 1 if points.has_color else torch.zeros_like(seen.color)
    columns = torch.cat([color, seen.normal, origin], dim=1)
    voxels, _ = voxelize(seen.coord - seen.coord.amin(0), config.voxel, columns)
    chosen = torch.randperm(len(voxels), generator=generator)[: config.most_voxels].sort().values
    color, normal, origin = voxels.features[chosen].split(3, dim=1)
    return View(voxels.coordinates[chosen, 1:], torch.cat([color, normalize(normal, dim=1)], dim=1), origin)


def match(first: Float32[Tensor, "m 3"], second: Float32[Tensor, "k 3"], radius: float) -> Int64[Tensor, "p 2"]:
    """Rows of points that are each other's nearest and at most `radius` apart, in the order of the first."""
    squared, there = (column[:, 0] for column in k_nearest_neighbours(second, first, 1))
    back = k_nearest_neighbours(first, second, 1)[1][:, 0]
    rows = torch.arange(len(first))
    kept = (back[there] == rows) & (squared <= radius * radius)
    return torch.stack([rows, there], dim=1)[kept]


def collate(samples: list[tuple[View, View, Tensor]]) -> PairBatch:
    """Pairs of views as one batch."""
    coordinates, features, pairs, scenes, start = [], [], [], [], 0
    for index, (first, second, matches) in enumerate(samples):
        for side, view in enumerate((first, second)):
            number = torch.full((len(view.features), 1), 2 * index + side, dtype=view.coordinates.dtype)
            coordinates.append(torch.cat([number, view.coordinates], dim=1))
            features.append(view.features)
        pairs.append(matches + torch.tensor([start, start + len(first.features)]))
        scenes.append(torch.full((len(matches),), index))
        start += len(first.features) + len(second.features)
    return PairBatch(*(torch.cat(column) for column in (coordinates, features, pairs, scenes)))
