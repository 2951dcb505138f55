"""`fuse_depth(frames, voxel=0.02) -> FusedCloud(coord, color, normal, ids)`: posed depth images to one point cloud.

Design
- Every pixel with depth becomes a point; a voxel's points are averaged, coordinates and colours alike. That is a scan's
  density, and as incomplete as what the cameras saw.
- Flying pixels, the ones between a near and a far surface, are left out: where depth jumps to a neighbour by more than
  `jump` of itself, both pixels go. Voxels that fewer than `least` pixels hit are dropped.
- Normals are those of planes through neighbouring voxels (`geometry.normals`), turned towards the cameras that saw them.
- Frames are added one after the other into a sorted table of voxels, so memory follows the surface, not the recording.
- `ids` gives per-pixel labels, such as the instance of a rendered frame; a voxel takes the most frequent one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from splatsense.cameras import Cameras
from splatsense.errors import DataError
from splatsense.geometry.normals import estimate_normals
from splatsense.geometry.voxels import voxel_keys, voxel_sum

Image = Float32[np.ndarray, "h w"]
SMALLEST_DEPTH = 1e-6
PENDING_ROWS = 1 << 20  # voxels of single frames that are kept before they are merged


@runtime_checkable
class PosedFrames(Protocol):
    """What fusion needs of frames; `splatsense.scenes.Frames` has it."""

    @property
    def cameras(self) -> Cameras:
        """V cameras."""
        ...

    def frame(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) float32 colour in [0, 1] and (H, W) float32 depth in metres, 0 for none."""
        ...


@dataclass(frozen=True, eq=False)
class FusedCloud:
    """A point cloud, one point for each voxel that was seen, in order of their voxels.

    Attributes:
        coord: (N, 3) float32 metres.
        color: (N, 3) uint8 sRGB.
        normal: (N, 3) float32 of unit length towards the cameras, zero where unknown.
        ids: (N,) int32 the most frequent id of the pixels, -1 where most had none; None when no ids were given.
        pixels: (N,) int64 how many pixels were averaged.
    """

    coord: Float32[np.ndarray, "n 3"]
    color: UInt8[np.ndarray, "n 3"]
    normal: Float32[np.ndarray, "n 3"]
    ids: Int32[np.ndarray, " n"] | None
    pixels: Int64[np.ndarray, " n"]


def fuse_depth(
    frames: PosedFrames,
    voxel: float = 0.02,
    *,
    farthest: float = 10.0,
    jump: float = 0.05,
    least: int = 1,
    ids: Callable[[int], np.ndarray] | None = None,
) -> FusedCloud:
    """One point cloud of all frames.

    Args:
        frames: posed colour and depth, such as `scenes.Frames`.
        voxel: side of a voxel in metres.
        farthest: depth beyond this is left out, in metres.
        jump: relative difference in depth to a neighbouring pixel from which both are left out; infinity keeps all.
        least: pixels that a voxel needs.
        ids: gives the (H, W) integer ids of a frame's pixels, -1 for none.

    Raises:
        DataError: a setting is out of range, or no pixel of any frame has usable depth.
        FormatError: a frame's file is missing or damaged.
    """
    if not (voxel > 0 and farthest > 0 and jump > 0 and least >= 1):
        raise DataError(
            f"fuse_depth: voxel, farthest, jump > 0 and least >= 1 needed; got {voxel}, {farthest}, {jump}, {least}."
        )
    sums, votes = _VoxelSums(9), _VoxelVotes()
    K, world_to_camera = frames.cameras.K.double().numpy(), frames.cameras.world_to_camera.double().numpy()
    for index in range(len(frames.cameras)):
        color, depth = frames.frame(index)
        used = usable_depth(depth, farthest, jump)
        if not used.any():
            continue
        points = unproject(depth, K[index], world_to_camera[index])[used]
        keys = voxel_keys(points, voxel)
        to_camera = -world_to_camera[index, :3, :3].T @ world_to_camera[index, :3, 3] - points
        to_camera /= np.linalg.norm(to_camera, axis=1, keepdims=True)
        sums.add(keys, np.concatenate([points, color[used], to_camera], axis=1))
        if ids is not None:
            votes.add(keys, ids(index)[used])
    keys, total, pixels = sums.result()
    kept = pixels >= least
    if not kept.any():
        raise DataError(
            f"fuse_depth: none of {len(frames.cameras)} frames has usable depth within {farthest} m. Check the depth files "
            "and their scale."
        )
    keys, mean, pixels = keys[kept], total[kept] / pixels[kept, None], pixels[kept]
    coord = mean[:, :3].astype(np.float32)
    return FusedCloud(
        coord,
        (mean[:, 3:6] * 255).round().clip(0, 255).astype(np.uint8),
        estimate_normals(coord, mean[:, :3] + mean[:, 6:], voxel=voxel),
        votes.winners(keys) if ids is not None else None,
        pixels,
    )


def usable_depth(depth: Image, farthest: float = 10.0, jump: float = 0.05) -> Bool[np.ndarray, "h w"]:
    """The pixels that have depth up to `farthest` and lie on no jump to a neighbour beyond `jump` of their own depth."""
    used = (depth > 0) & (depth <= farthest)
    for axis in (0, 1):
        near, far = (np.take(depth, range(start, depth.shape[axis] - 1 + start), axis) for start in (0, 1))
        nearer = np.minimum(near, far)
        jumps = (nearer > 0) & (np.abs(near - far) > jump * np.maximum(nearer, SMALLEST_DEPTH))
        padding = [(0, 0), (0, 0)]
        for before in (0, 1):
            padding[axis] = (before, 1 - before)
            used &= ~np.pad(jumps, padding)
    return used


def unproject(
    depth: Image, K: Float64[np.ndarray, "3 3"], world_to_camera: Float64[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "h w 3"]:
    """World coordinates of every pixel's centre at its depth along z."""
    height, width = depth.shape
    x = (np.arange(width) + 0.5 - K[0, 2]) / K[0, 0]
    y = (np.arange(height)[:, None] + 0.5 - K[1, 2]) / K[1, 1]
    in_camera = np.stack([x * depth, y * depth, depth], axis=-1, dtype=np.float64)
    return (in_camera - world_to_camera[:3, 3]) @ world_to_camera[:3, :3]


class _VoxelSums:
    """Sums of rows by voxel over many frames: a sorted table, and what was added since it was last merged."""

    def __init__(self, columns: int) -> None:
        self._parts = [(np.empty(0, np.int64), np.empty((0, columns)), np.empty(0, np.int64))]
        self._merged = 0

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        self._parts.append(_summed(keys, values, np.ones(len(keys), np.int64)))
        if sum(len(part[0]) for part in self._parts) > PENDING_ROWS + 2 * self._merged:
            self._parts = [self.result()]
            self._merged = len(self._parts[0][0])

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sorted keys, sums, and how many rows each is of."""
        keys, values, counts = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return _summed(keys, values, counts)


def _summed(keys: np.ndarray, values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found, group = np.unique(keys, return_inverse=True)
    total = np.zeros(len(found), np.int64)
    np.add.at(total, group, counts)
    return found, voxel_sum(values, group, len(found)), total


class _VoxelVotes:
    """How often each id was seen in each voxel."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []  # (M, 3) key, id, count

    def add(self, keys: np.ndarray, ids: np.ndarray) -> None:
        self._parts.append(_counted(np.stack([keys, ids.astype(np.int64), np.ones_like(keys)], axis=1)))

    def winners(self, keys: np.ndarray) -> np.ndarray:
        """The most frequent id of each of the sorted `keys`; the lowest among equals."""
        votes = _counted(np.concatenate(self._parts))
        order = np.lexsort((votes[:, 1], -votes[:, 2], votes[:, 0]))
        votes = votes[order]
        first = votes[np.r_[True, votes[1:, 0] != votes[:-1, 0]]]
        return first[np.searchsorted(first[:, 0], keys), 1].astype(np.int32)


def _counted(votes: np.ndarray) -> np.ndarray:
    """Rows (key, id, count) with equal keys and ids added."""
    votes = votes[np.lexsort((votes[:, 1], votes[:, 0]))]
    starts = np.flatnonzero(np.r_[True, (votes[1:, :2] != votes[:-1, :2]).any(1)])
    return np.column_stack([votes[starts, :2], np.add.reduceat(votes[:, 2], starts)])
