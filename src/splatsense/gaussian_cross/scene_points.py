"""The points of a scene as the backbone is to see them: thinned, with colours in [-1, 1] and normals.

Design
- Points are averaged in voxels half as large as the backbone's, once a scene, and of more than four million every so-manieth is
  kept: a step costs as much for a scan of 20 million points as for one that was sampled.
- A scene without normals gets estimated ones, turned to its cameras; one without colours has none: GaussianCross's
  learned token stands for them, grey in contrastive training. Both are said in the log.
- Cameras and depth are checked against the points once: wrong units and swapped matrices are found before they are trained on.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.corpora import fusion
from splatsense.errors import DataError
from splatsense.frames import Frames
from splatsense.geometry.normals import estimate_normals
from splatsense.scenes import CAMERAS, Scene, load_scene
from splatsense.sparse import voxelize

FINER = 2  # kept points lie in voxels so many times finer than the backbone's
MOST_POINTS = 4_000_000  # that are kept; a sample has at most some hundred thousand voxels, of which more are dropped anyway
LEAST_VOXELS = 64  # fewer say nothing, and the coarsest levels would have no statistics
LEAST_INSIDE = 0.5  # part of the measured depth that must fall into the box of the points
SLACK = 0.25  # metres around that box
CHECKED_FRAMES, CHECKED_PIXELS = 5, 2000

log = logging.getLogger("splatsense")


@dataclass(frozen=True, eq=False)
class ScenePoints:
    """Points of one scene and its frames.

    Attributes:
        name: of the scene.
        coord: (N, 3) metres.
        features: (N, 6) colour in [-1, 1] and normal.
        has_color: whether the colours mean anything.
        frames: of the scene.
    """

    name: str
    coord: Float[Tensor, "n 3"]
    features: Float[Tensor, "n 6"]
    has_color: bool
    frames: Frames

    @property
    def bytes(self) -> int:
        """Of memory that it takes."""
        return self.coord.nbytes + self.features.nbytes


def load_points(folder: Path, voxel: float) -> ScenePoints:
    """Points of a scene folder for a backbone with voxels of `voxel` metres.

    Raises:
        FormatError: the folder cannot be read.
        DataError: it has no frames, too few voxels, or depth that does not belong to the points.
    """
    check_frames(folder)
    scene = load_scene(folder)
    frames = scene.frames
    assert frames is not None
    coord = torch.from_numpy(scene.coord)
    columns = torch.cat([coord, _colors(scene), torch.from_numpy(_normals(scene, frames))], dim=1)
    thinned, _ = voxelize(coord, voxel / FINER, columns)
    del columns
    every = -(-len(thinned) // MOST_POINTS)
    if every > 1:
        log.warning("scene %s: %s points after thinning; one in %d is kept.", scene.name, f"{len(thinned):,}", every)
    position, features = thinned.features[::every, :3].contiguous(), thinned.features[::every, 3:].contiguous()
    del thinned
    count = len(voxelize(position, voxel, position[:, :1])[0])
    if count < LEAST_VOXELS:
        raise DataError(
            f"{folder}: its {len(scene):,} points fill {count} voxels of {voxel} m; at least {LEAST_VOXELS} are needed. Leave "
            "the scene out, or check that its coordinates are metres."
        )
    _check_depth(folder, scene, frames)
    return ScenePoints(scene.name, position, features, scene.color is not None, frames)


def check_frames(folder: Path) -> None:
    """Raise DataError when a scene has no frames."""
    if not (folder / CAMERAS).is_file():
        raise DataError(
            f"{folder}: has no frames ({CAMERAS} with colour and depth), which pre-training renders. Import the "
            "recording with `splatsense scenes`, or leave the scene out."
        )


def _colors(scene: Scene) -> Tensor:
    if scene.color is None:
        log.warning("scene %s: has no colours; the backbone sees none.", scene.name)
        return torch.zeros(len(scene), 3)
    return torch.from_numpy(scene.color).float() / 127.5 - 1


def _normals(scene: Scene, frames: Frames) -> np.ndarray:
    if scene.normal is not None:
        return scene.normal
    log.warning("scene %s: has no normals; they are estimated from neighbouring points.", scene.name)
    return estimate_normals(scene.coord, frames.cameras.centers.mean(0).numpy())


def _check_depth(folder: Path, scene: Scene, frames: Frames) -> None:
    """Raises DataError when most of the measured depth lies outside of the points, or when there is none."""
    low, high = scene.coord.min(0) - SLACK, scene.coord.max(0) + SLACK
    inside, total = 0, 0
    for index in np.linspace(0, len(frames) - 1, min(len(frames), CHECKED_FRAMES)).astype(int).tolist():
        points = unproject(frames, index)
        points = points[:: max(1, len(points) // CHECKED_PIXELS)]
        inside += int(((points >= low) & (points <= high)).all(1).sum())
        total += len(points)
    if total and inside < LEAST_INSIDE * total:
        raise DataError(
            f"{folder}: only {inside / total:.0%} of the depth of its frames falls where its points are. Check "
            "depth_unit_scale_factor in transforms.json (metres per unit), and that the cameras are of this scene."
        )


def unproject(frames: Frames, index: int) -> np.ndarray:
    """(n, 3) points in the world of the valid depths of a frame."""
    depth = frames.frame(index)[1]
    K = frames.cameras.K[index].double().numpy()
    to_camera = frames.cameras.world_to_camera[index].double().numpy()
    return fusion.unproject(depth, K, to_camera)[depth > 0]
