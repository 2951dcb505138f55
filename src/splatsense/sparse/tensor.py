"""Features at voxels: `SparseTensor`, and `voxelize`, which makes one of points."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from splatsense.errors import DataError
from splatsense.sparse.levels import VoxelLevel
from splatsense.sparse.morton import LIMIT, voxel_keys

SLICE = 1 << 20  # points that become voxels at a time: of twenty million, float64 copies would take gigabytes


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features at distinct voxels, in any order.

    Neighbour maps are made when first asked for and kept in `level`, one for each resolution and kernel; tensors made by
    `with_features` share them.

    Attributes:
        coordinates: batch (0 to 511), x, y and z (within 126,976 of 0) of each voxel.
        features: one row for each voxel.

    Raises:
        DataError: no voxels, one twice, coordinates out of range, or features of another number.
    """

    coordinates: Int[Tensor, "m 4"]
    features: Float[Tensor, "m c"]
    _order: tuple[Tensor, VoxelLevel] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        coordinates, features = self.coordinates, self.features
        if coordinates.ndim != 2 or coordinates.shape[1] != 4 or coordinates.is_floating_point():
            raise DataError(
                f"coordinates: expected integers (m, 4) of batch, x, y, z, got {tuple(coordinates.shape)} {coordinates.dtype}."
            )
        if features.ndim != 2 or len(features) != len(coordinates) or not features.is_floating_point():
            raise DataError(
                f"features: expected floats ({len(coordinates)}, channels), got {tuple(features.shape)} {features.dtype}."
            )
        if features.device != coordinates.device:
            raise DataError(f"features are on {features.device}, coordinates on {coordinates.device}; move one of them.")
        if self._order is None:
            object.__setattr__(self, "_order", _sort(coordinates))

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def level(self) -> VoxelLevel:
        """The voxels in the order of their keys, with their neighbour maps."""
        assert self._order is not None
        return self._order[1]

    @property
    def order(self) -> Int64[Tensor, " m"]:
        """Rows of this tensor in the order of `level`."""
        assert self._order is not None
        return self._order[0]

    @cached_property
    def inverse_order(self) -> Int64[Tensor, " m"]:
        """Rows of `level` in the order of this tensor."""
        places = torch.arange(len(self), device=self.order.device)
        return torch.empty_like(self.order).index_copy_(0, self.order, places)

    def to(self, device: torch.device) -> "SparseTensor":
        """The same voxels on another device, where neighbour maps are made anew."""
        if self.features.device == device:
            return self
        return SparseTensor(self.coordinates.to(device), self.features.to(device))

    def with_features(self, features: Float[Tensor, "m _"]) -> "SparseTensor":
        """The same voxels with other features; neighbour maps are shared.

        Raises:
            DataError: not one row for each voxel.
        """
        return SparseTensor(self.coordinates, features, self._order)


def _sort(coordinates: Tensor) -> tuple[Tensor, VoxelLevel]:
    keys, order = voxel_keys(coordinates).sort(stable=True)
    twice = (keys[1:] == keys[:-1]).nonzero()
    if len(twice):
        place = int(twice[0])
        rows = order[place : place + 2].tolist()
        raise DataError(
            f"coordinates: rows {rows[0]} and {rows[1]} are the same voxel {coordinates[rows[0]].tolist()} (batch, x, y, z), "
            f"one of {len(twice)} that occur twice; merge them, as `voxelize` does."
        )
    return order, VoxelLevel(keys)


def voxelize(
    points: Float[Tensor, "n 3"],
    grid_size: float,
    features: Float[Tensor, "n c"],
    batch: Int[Tensor, " n"] | None = None,
) -> tuple[SparseTensor, Int64[Tensor, " n"]]:
    """Voxels that hold points, with the mean of the features of these.

    Args:
        points: in world units.
        grid_size: side of a voxel, in the same units; voxels are counted from the origin.
        features: of each point.
        batch: which scene each point belongs to, 0 to 511; one scene without it.

    Returns:
        The voxels, and for each point the row of its voxel.

    Raises:
        DataError: no points, points that are not finite or too far from the origin, or a grid size that is not positive.
    """
    if not grid_size > 0:
        raise DataError(f"voxelize: grid_size must be positive, got {grid_size}.")
    if len(points) == 0:
        raise DataError("voxelize: no points.")
    starts = range(0, len(points), SLICE)
    parts = [_cells(points[at : at + SLICE], grid_size, None if batch is None else batch[at : at + SLICE]) for at in starts]
    coordinates = torch.cat([cells for cells, _ in parts])
    keys, group = torch.unique(torch.cat([keys for _, keys in parts]), return_inverse=True)
    del parts
    count = torch.bincount(group, minlength=len(keys))
    voxels = torch.empty(len(keys), 4, dtype=torch.int32, device=points.device).index_copy_(0, group, coordinates)
    total = torch.zeros(len(keys), features.shape[1], dtype=torch.float64, device=points.device)
    for at in starts:
        total.index_add_(0, group[at : at + SLICE], features[at : at + SLICE].double())
    mean = total.div_(count[:, None]).to(features.dtype)
    order = torch.arange(len(keys), device=points.device)
    return SparseTensor(voxels, mean, (order, VoxelLevel(keys))), group


def _cells(points: Tensor, grid_size: float, batch: Tensor | None) -> tuple[Tensor, Tensor]:
    """Coordinates of the voxels that points lie in, and their keys."""
    cells = (points.detach().double() / grid_size).floor()
    if not bool((cells.abs() <= LIMIT).all()):
        raise DataError(
            f"voxelize: a point is not finite, or over {LIMIT} voxels of {grid_size} from the origin; move the scene there."
        )
    scene = torch.zeros_like(cells[:, 0]) if batch is None else batch.to(cells)
    coordinates = torch.cat([scene[:, None], cells], dim=1).int()
    return coordinates, voxel_keys(coordinates)
