"""The training set of GaussianCross: scene folders, and batches of points, posed images and teacher features drawn from them.

A sample depends on (row, generator) alone, so that a resumed run equals an uninterrupted one; what is kept in memory or on disk
only saves time.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.cameras import Cameras
from splatsense.errors import DataError
from splatsense.gaussian_cross.cuboid import Cuboid
from splatsense.gaussian_cross.distillation import Targets
from splatsense.gaussian_cross.masking import drop_points, mask_blocks
from splatsense.gaussian_cross.scene_points import ScenePoints, check_frames, load_points
from splatsense.gaussian_cross.view_images import ViewImages, draw_views, read_views
from splatsense.sparse import voxelize
from splatsense.teachers.feature_cache import FeatureCache

INPUT_CHANNELS = 6  # colour and normal
KEPT_BYTES = 1 << 30  # of points that stay in memory


@dataclass(frozen=True)
class SampleConfig:
    """What one sample of a scene is."""

    voxel: float = 0.02
    """side of the backbone's voxels in metres"""
    most_voxels: int = 200_000
    """of a sample; of more, random ones are dropped"""
    views: int = 5
    """M, frames that are rendered"""
    width: int = 640
    """of the rendered images"""
    height: int = 480
    """of the rendered images"""
    mask_ratio: float = 0.5
    """part of the blocks of voxels whose colour and normal are hidden"""
    mask_side: int = 8
    """of a block in voxels"""
    dropout: float = 0.0
    """part of the points that are taken out"""
    rotate: float = 180.0
    """scenes are turned about the vertical by up to so many degrees either way"""
    cuboid_side: float | None = None
    """metres that the volume is wide for every scene, instead of being fitted to each (an ablation)"""

    def __post_init__(self) -> None:
        if min(self.views, self.width, self.height, self.mask_side, self.most_voxels) < 1 or not self.voxel > 0:
            raise DataError("--views, --width, --height, --mask-side, --most-voxels and --voxel must be above 0.")
        if self.cuboid_side is not None and not self.cuboid_side > 0:
            raise DataError(f"--cuboid-side: must be above 0, got {self.cuboid_side}.")
        if not 0 <= self.mask_ratio < 1 or not 0 <= self.dropout < 1:
            raise DataError("--mask-ratio and --dropout must lie in [0, 1).")


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Scenes with their views, in normalised units.

    Attributes:
        coordinates: (m, 4) scene, x, y, z of each voxel.
        features: (m, 6) colour in [-1, 1] and normal.
        hidden: (m, 6) where the mask token stands instead.
        positions: (m, 3) mean of each voxel's points in the unit cuboid.
        cameras: of all V views, scene after scene, in the unit cuboid.
        views: how many each scene has.
        targets: what the views should show.
        names: of the scenes.
    """

    coordinates: Int[Tensor, "m 4"]
    features: Float[Tensor, "m 6"]
    hidden: Bool[Tensor, "m 6"]
    positions: Float[Tensor, "m 3"]
    cameras: Cameras
    views: list[int]
    targets: Targets
    names: list[str]

    def scene_cameras(self) -> list[Cameras]:
        """Of each scene."""
        K, to_camera = (part.split(self.views) for part in (self.cameras.K, self.cameras.world_to_camera))
        size = self.cameras.width, self.cameras.height
        return [Cameras(*pair, *size) for pair in zip(to_camera, K, strict=True)]

    def to(self, device: torch.device) -> "TrainingBatch":
        """The same batch on another device."""
        names = ("coordinates", "features", "hidden", "positions", "cameras", "targets")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass
class SceneSet:
    """Scenes that are trained on, or looked at.

    Attributes:
        folders: of the scenes.
        config: of a sample.
        teacher: the frozen 2D model with its cache; None trains without features.

    Raises:
        DataError: there are no scenes, or one has no frames.
    """

    folders: Sequence[Path]
    config: SampleConfig
    teacher: FeatureCache | None = None
    _kept: "OrderedDict[Path, ScenePoints]" = field(default_factory=OrderedDict, repr=False)

    def __post_init__(self) -> None:
        if not self.folders:
            raise DataError("SceneSet: no scenes.")
        for folder in self.folders:
            check_frames(folder)  # now, and not when its turn comes

    def __len__(self) -> int:
        return len(self.folders)

    def points(self, row: int) -> ScenePoints:
        """Points of a scene, from memory if they were used lately."""
        folder = self.folders[row]
        if folder not in self._kept:
            self._kept[folder] = load_points(folder, self.config.voxel)
            while len(self._kept) > 1 and sum(points.bytes for points in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(folder)
        return self._kept[folder]

    def batch(self, samples: Sequence[tuple[int, torch.Generator]], height: float) -> TrainingBatch:
        """Random samples of scenes.

        Args:
            samples: row of a scene and the generator of its draws, each.
            height: of the unit cuboid.
        """
        return collate([self.sample(row, generator, height) for row, generator in samples])

    def sample(self, row: int, generator: torch.Generator, height: float) -> TrainingBatch:
        """A random sample of one scene: turned, masked, with random frames."""
        points, config = self.points(row), self.config
        angle = math.radians(config.rotate) * (2 * float(torch.rand((), generator=generator)) - 1)
        kept = drop_points(len(points.coord), config.dropout, generator) if config.dropout else None
        size = (config.width, config.height)
        views = draw_views(points.frames, config.views, size, points.name, generator)
        return self._assemble(points, views, height, angle, kept, config.mask_ratio, generator)

    def fixed_sample(self, row: int, height: float, mask_ratio: float | None = None) -> TrainingBatch:
        """The scene as it is, with evenly spaced frames; the same each time.

        Args:
            row: of the scene.
            height: of the unit cuboid.
            mask_ratio: other than the configuration's.
        """
        points, config = self.points(row), self.config
        count, total = config.views, len(points.frames)
        order = [(2 * view + 1) * total // (2 * count) for view in range(count)]
        order += [index for index in range(total) if index not in order]
        views = read_views(points.frames, order, count, (config.width, config.height), points.name)
        ratio = config.mask_ratio if mask_ratio is None else mask_ratio
        return self._assemble(points, views, height, 0.0, None, ratio, torch.Generator().manual_seed(row))

    def _assemble(
        self, points: ScenePoints, views: ViewImages, height: float, angle: float, kept: Tensor | None, ratio: float,
        generator: torch.Generator,
    ) -> TrainingBatch:  # fmt: skip
        config, turn = self.config, _about_z(angle)
        coord, features = points.coord @ turn.T, points.features
        if kept is not None:
            coord, features = coord[kept], features[kept]
        corner = coord.amin(0)
        coord, normals = coord - corner, features[:, 3:] @ turn.T
        voxels, _ = voxelize(coord, config.voxel, torch.cat([coord, features[:, :3], normals], dim=1))
        coordinates, rows = voxels.coordinates, voxels.features
        if len(rows) > config.most_voxels:
            chosen = torch.randperm(len(rows), generator=generator)[: config.most_voxels].sort().values
            coordinates, rows = coordinates[chosen], rows[chosen]
        hidden = mask_blocks(coordinates[:, 1:], ratio, config.mask_side, generator)[:, None].repeat(1, INPUT_CHANNELS)
        if not points.has_color:
            hidden[:, :3] = True
        cuboid = Cuboid.around(rows[:, :3], height, config.cuboid_side)
        cameras = cuboid.cameras(_moved(views.cameras, turn, corner))
        found = None if self.teacher is None else self.teacher.features(views.full)
        return TrainingBatch(
            coordinates,
            torch.cat([rows[:, 3:6], normalize(rows[:, 6:], dim=1)], dim=1),
            hidden,
            cuboid.points(rows[:, :3]),
            cameras,
            [len(cameras)],
            Targets(views.color, cuboid.depth(views.depth), found),
            [points.name],
        )


def collate(samples: Sequence[TrainingBatch]) -> TrainingBatch:
    """Several scenes as one batch.

    Raises:
        DataError: their teacher features differ in size, because their images do.
    """
    coordinates = []
    for index, sample in enumerate(samples):
        moved = sample.coordinates.clone()
        moved[:, 0] = index
        coordinates.append(moved)
    given = [sample.targets.features for sample in samples if sample.targets.features is not None]
    sizes = sorted({tuple(part.shape[1:3]) for part in given})
    if len(sizes) > 1:
        raise DataError(
            f"scenes {', '.join(sample.names[0] for sample in samples)} have images of several sizes, to which the teacher "
            f"gives {sizes} features; train with --batch-size 1 or bring the frames to one size."
        )
    first = samples[0].cameras
    cameras = Cameras(
        torch.cat([sample.cameras.world_to_camera for sample in samples]),
        torch.cat([sample.cameras.K for sample in samples]), first.width, first.height,
    )  # fmt: skip
    targets = Targets(
        torch.cat([sample.targets.color for sample in samples]),
        torch.cat([sample.targets.depth for sample in samples]),
        torch.cat(given) if given else None,
    )
    return TrainingBatch(
        torch.cat(coordinates),
        torch.cat([sample.features for sample in samples]),
        torch.cat([sample.hidden for sample in samples]),
        torch.cat([sample.positions for sample in samples]),
        cameras,
        [count for sample in samples for count in sample.views],
        targets,
        [name for sample in samples for name in sample.names],
    )


def _about_z(angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _moved(cameras: Cameras, turn: Tensor, corner: Tensor) -> Cameras:
    """Cameras that see in the world `turn @ x - corner` what they saw at x."""
    to_camera = cameras.world_to_camera.clone()
    rotation = cameras.world_to_camera[:, :3, :3] @ turn.T
    to_camera[:, :3, :3] = rotation
    to_camera[:, :3, 3] = cameras.world_to_camera[:, :3, 3] + rotation @ corner
    return Cameras(to_camera, cameras.K, cameras.width, cameras.height)
