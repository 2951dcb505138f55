"""`Points`: the points of a scene as tensors, with their labels, and what augmentation, crops and networks do with them.

The network sees mean colour and normal of the points in each voxel, six channels: colour / 127.5 - 1 of 8 bits, and the unit
normal (the input of SpUNet in GaussianCross, arXiv 2508.02172, and in Pointcept).
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import DataError
from splatsense.geometry.normals import normals_towards_middle
from splatsense.labels import LabelSet
from splatsense.scenes import Scene

CHANNELS = 6
GREY = 0.5
NONE = -1


@dataclass(frozen=True, eq=False)
class Points:
    """N points of a scene.

    Attributes:
        coord: (N, 3) metres, z up.
        color: (N, 3) sRGB in [0, 1].
        normal: (N, 3) of unit length, or zero where it is not known.
        semantic: (N,) class, -1 for none.
        instance: (N,) instance, -1 for none.
    """

    coord: Float32[Tensor, "n 3"]
    color: Float32[Tensor, "n 3"]
    normal: Float32[Tensor, "n 3"]
    semantic: Int64[Tensor, " n"]
    instance: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.coord)

    def __getitem__(self, index: Tensor) -> "Points":
        """The points of an index (M,) or a mask (N,)."""
        return Points(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @property
    def features(self) -> Float32[Tensor, "n 6"]:
        """What the network sees: colour in [-1, 1] and normal."""
        return torch.cat([self.color * 2 - 1, self.normal], dim=1)

    def centered(self, vertically: bool = True, step: float = 0.0) -> "Points":
        """Moved so that the box's centre is at x = y = 0 and, if `vertically`, its bottom at z = 0.

        Args:
            vertically: move along z too.
            step: move by multiples of it, so that points stay in voxels of that side.
        """
        low, high = self.coord.double().amin(0), self.coord.double().amax(0)
        shift = torch.stack([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2] * vertically])
        if step:
            shift = (shift / step).floor() * step
        return replace(self, coord=(self.coord - shift).float())


def points_of_scene(scene: Scene, labels: LabelSet | None = None) -> Points:
    """The points of a scene, with the labels of a set; without colours they are grey, normals are estimated.

    Args:
        scene: with them.
        labels: the label set; None when none are needed.

    Raises:
        DataError: the scene has no labels of that set, or some that it does not have.
    """
    count = len(scene)
    semantic = None if labels is None else scene.labels_of(labels)
    normal = scene.normal if scene.normal is not None else normals_towards_middle(scene.coord)
    color = torch.full((count, 3), GREY) if scene.color is None else torch.from_numpy(scene.color).float() / 255
    return Points(
        torch.from_numpy(scene.coord).clone(),
        color,
        torch.from_numpy(normal).clone(),
        _labels(semantic, count),
        _labels(scene.instance, count),
    )


def _labels(values: np.ndarray | None, count: int) -> Int64[Tensor, " n"]:
    return torch.full((count,), NONE) if values is None else torch.from_numpy(values.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Grid:
    """Points sampled one to a voxel.

    Attributes:
        chosen: (M,) the point that stands for each voxel.
        cells: (M, 3) its coordinates in voxels, from 0.
        inverse: (N,) the voxel of each point.
    """

    chosen: Int64[Tensor, " m"]
    cells: Int32[Tensor, "m 3"]
    inverse: Int64[Tensor, " n"]


def sample_grid(coord: Float32[Tensor, "n 3"], voxel: float, priority: Tensor | None = None) -> Grid:
    """One point for each voxel: the one of the highest priority; the first without priorities.

    Args:
        coord: in the units of `voxel`.
        voxel: side of a voxel.
        priority: (N,) numbers; random ones draw points at random.

    Raises:
        DataError: the points span more than two million voxels.
    """
    cells = (coord.double() / voxel).floor().long()
    cells -= cells.amin(0)
    if int(cells.max()) >= 1 << 21:
        raise DataError(f"the points span {int(cells.max()):,} voxels of {voxel} m; is the scan in millimetres? See --unit.")
    keys = cells[:, 0] << 42 | cells[:, 1] << 21 | cells[:, 2]
    order = torch.arange(len(keys)) if priority is None else priority.argsort(descending=True, stable=True)
    sorted_keys, by_key = keys[order].sort(stable=True)
    first = torch.ones(len(keys), dtype=torch.bool)
    first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    inverse = torch.empty_like(keys)
    inverse[order[by_key]] = first.cumsum(0) - 1
    chosen = order[by_key[first]]
    return Grid(chosen, cells[chosen].int(), inverse)


def voxel_classes(
    semantic: Int64[Tensor, " n"], voxel: Int64[Tensor, " n"], count: int, classes: int
) -> Int64[Tensor, " {count}"]:
    """The most frequent class of each voxel's points; -1 where none has a class.

    Args:
        semantic: class of each point, -1 for none.
        voxel: of each point, below `count`.
        count: of voxels.
        classes: how many there are.
    """
    known = semantic != NONE
    votes = torch.bincount(voxel[known] * classes + semantic[known], minlength=count * classes).view(count, classes)
    most, best = votes.max(1)
    return torch.where(most > 0, best, NONE)


def voxel_means(points: Points, voxel: float, classes: int) -> Points:
    """One point for each voxel: mean coordinates, colour and normal of its points, their most frequent class, and the instance
    of a point of that class.

    Args:
        points: in N rows.
        voxel: side of a voxel.
        classes: how many there are.
    """
    grid = sample_grid(points.coord, voxel)
    frequent = voxel_classes(points.semantic, grid.inverse, len(grid.chosen), classes)
    chosen = sample_grid(points.coord, voxel, (points.semantic == frequent[grid.inverse]).float()).chosen
    size = torch.bincount(grid.inverse).unsqueeze(1)
    values = torch.cat([points.coord, points.color, points.normal], dim=1)
    mean = torch.zeros(len(chosen), values.shape[1]).index_add_(0, grid.inverse, values) / size
    coord, color, normal = mean.split(3, dim=1)
    return replace(points[chosen], coord=coord, color=color, normal=normalize(normal, dim=1))
