"""Training scenes and batches of voxels: augmentation, means of voxels, sphere crop, Mix3D.

A sample is a function of (seed, step, row), so a run that is resumed sees what one that was not interrupted sees.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float32, Int32, Int64
from torch import Tensor

from splatsense.errors import DataError
from splatsense.scenes import list_scenes, load_scene
from splatsense.segmentation.augment import augment
from splatsense.segmentation.config import SegmentationConfig
from splatsense.segmentation.limited import PointLists, draw_points, draw_scenes, listed_scenes, only_points
from splatsense.segmentation.points import NONE, Points, points_of_scene, sample_grid, voxel_means
from splatsense.sparse import SparseTensor

KEPT_POINTS = 20_000_000  # of scenes that stay in memory, about 50 bytes each


@dataclass(frozen=True, eq=False)
class VoxelBatch:
    """Voxels of several scenes.

    Attributes:
        coordinates: (M, 4) scene, x, y, z.
        features: (M, 6).
        semantic: (M,) class, -1 for none.
        offsets: (M, 3) metres to the centroid of the instance.
        counted: (M,) whether the voxel is of an instance.
    """

    coordinates: Int32[Tensor, "m 4"]
    features: Float32[Tensor, "m 6"]
    semantic: Int64[Tensor, " m"]
    offsets: Float32[Tensor, "m 3"]
    counted: Bool[Tensor, " m"]

    def to(self, device: torch.device) -> "VoxelBatch":
        """The same batch on another device."""
        return VoxelBatch(**{name: value.to(device) for name, value in vars(self).items()})

    @property
    def voxels(self) -> SparseTensor:
        """The network's input."""
        return SparseTensor(self.coordinates, self.features)


class TrainingScenes:
    """The scenes of a run, with the labels that limited data leaves them.

    Raises:
        FormatError: there are no scenes.
        DataError: a list names scenes that are not there, or a scene has no labels or is of another label set.
    """

    def __init__(self, config: SegmentationConfig) -> None:
        self.config = config
        folders = [folder for split in config.train_splits for folder in list_scenes(config.scenes, split, config.label_set)]
        names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
        if config.scene_list:
            chosen = set(listed_scenes([folder.name for folder in folders], Path(config.scene_list)))
            self.folders = [folder for folder in folders if folder.name in chosen]
        else:
            drawn = set(draw_scenes(names, config.scene_share, config.limit_seed))
            self.folders = [folder for folder, name in zip(folders, names, strict=True) if name in drawn]
        check_labelled(self.folders, config)
        self.is_limited = bool(config.points or config.point_lists)
        self._lists = PointLists(Path(config.point_lists)) if config.point_lists else None
        self._kept: OrderedDict[int, Points] = OrderedDict()

    def __len__(self) -> int:
        return len(self.folders)

    def points(self, row: int) -> Points:
        """A scene with its labels; those used lately stay in memory."""
        if row not in self._kept:
            self._kept[row] = self._read(row)
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > KEPT_POINTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(row)
        return self._kept[row]

    def _read(self, row: int) -> Points:
        config, folder = self.config, self.folders[row]
        scene = load_scene(folder, config.label_set)
        points = points_of_scene(scene, config.label_set)
        if config.task == "instance":
            points = replace(points, instance=only_counted(points, config))
        if not self.is_limited:
            return points
        labels = points.semantic.numpy()
        if self._lists is not None:
            rows, where = self._lists[folder.name], str(self._lists.path)
        else:
            rows, where = draw_points(labels, config.points, folder.name, config.limit_seed), str(folder)
        kept = torch.from_numpy(only_points(labels, rows, where))
        return replace(points, semantic=kept, instance=torch.where(kept == NONE, NONE, points.instance))

    def sample(self, row: int, generator: torch.Generator) -> Points:
        """An augmented crop of a scene, the mean of the points in each voxel, as predictions see it."""
        config = self.config
        points = augment(self.points(row), config.augment, generator, self.is_limited)
        points = voxel_means(points, config.voxel, len(config.label_set))
        most = int(config.crop_share * len(points)) if config.crop_share else config.crop_points
        points = sphere_crop(points, most, generator) if most else points
        return points.centered(vertically=False, step=config.voxel)


def check_labelled(folders: Sequence[Path], config: SegmentationConfig) -> None:
    """Raise DataError when a scene lacks its labels, or instances that are to be learned, or no point of all has a label."""
    labels = config.label_set
    for folder in folders:
        if not (folder / f"{labels.array}.npy").is_file():
            load_scene(folder, labels)  # says what it has instead
        if config.task == "instance" and not (folder / "instance.npy").is_file():
            raise DataError(f"{folder}: has no instances (instance.npy); train classes alone with --task semantic.")
    if folders and not any((load_scene(folder, labels).labels_of(labels) >= 0).any() for folder in folders):
        example = f"such as {folders[0].name}/{labels.array}.npy"
        raise DataError(f"{config.scenes}: none of {len(folders)} scenes, {example}, has a labelled point.")


def only_counted(points: Points, config: SegmentationConfig) -> Int64[Tensor, " n"]:
    """Instances of the classes that are instances; -1 elsewhere."""
    labels = config.label_set
    counted = torch.tensor([*(name not in labels.leave_out for name in labels.names), False])  # the last is for -1
    return torch.where(counted[points.semantic], points.instance, NONE)


def sphere_crop(points: Points, most: int, generator: torch.Generator) -> Points:
    """Of more than `most` points, those nearest to a random one, in their order."""
    if len(points) <= most:
        return points
    center = points.coord[int(torch.randint(len(points), (), generator=generator))]
    nearest = (points.coord - center).square().sum(1).topk(max(1, most), largest=False).indices
    return points[nearest.sort().values]


def collate(samples: Sequence[Points], voxel: float, mixed: bool) -> VoxelBatch:
    """Samples as one batch; `mixed` lays them over each other in pairs, the first with the second and so on.

    Where two points share a voxel, the first one stays.

    Args:
        samples: one point for each voxel.
        voxel: side of a voxel.
        mixed: Mix3D (Nekrasov et al. 2021, arXiv 2110.02210).
    """
    parts = []
    groups = [list(samples[at : at + 2]) for at in range(0, len(samples), 2)] if mixed else [[sample] for sample in samples]
    for index, group in enumerate(groups):
        offsets, counted = zip(*(_to_centroids(points) for points in group), strict=True)
        joined = Points(*(torch.cat([getattr(p, name) for p in group]) for name in vars(group[0])))
        grid = sample_grid(joined.coord, voxel)
        coordinates = torch.cat([torch.full((len(grid.chosen), 1), index, dtype=torch.int32), grid.cells], dim=1)
        kept = joined[grid.chosen]
        parts.append(
            (coordinates, kept.features, kept.semantic, torch.cat(offsets)[grid.chosen], torch.cat(counted)[grid.chosen])
        )
    return VoxelBatch(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _to_centroids(points: Points) -> tuple[Tensor, Tensor]:
    """The way from each point to the mean of its instance's points, and which points have an instance."""
    counted = points.instance != NONE
    _, group = points.instance.unique(return_inverse=True)
    size = torch.bincount(group).clamp_min(1)
    total = torch.zeros(len(size), 3, dtype=torch.float64).index_add(0, group, points.coord.double())
    return ((total / size[:, None])[group] - points.coord.double()).float(), counted


def batch_of_step(scenes: TrainingScenes, rows: Sequence[int], step: int, own: range, generator_of: "SeedOf") -> VoxelBatch:
    """One process's part of a batch.

    Args:
        scenes: of the run.
        rows: of all processes' scenes of the step.
        step: whose batch it is.
        own: places in `rows` of this process.
        generator_of: random numbers of a place.

    Raises:
        DataError: pairs that are mixed would belong to two processes.
    """
    mixed = bool(torch.rand((), generator=generator_of(step, -1)) < scenes.config.mix)
    if scenes.config.mix > 0 and len(own) != len(rows) and (own.start % 2 or len(own) % 2):
        raise DataError("--mix lays scenes over each other in pairs: every process needs an even number; change --batch-size.")
    samples = [scenes.sample(rows[place], generator_of(step, place)) for place in own]
    return collate(samples, scenes.config.voxel, mixed)


class SeedOf:
    """Generators of random numbers by (step, place), for one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, step: int, place: int) -> torch.Generator:
        """Its numbers depend on seed, step and place alone."""
        mixed = (self.seed * 1_000_003 + step) * 4_099 + place + 1
        return torch.Generator().manual_seed(mixed % (1 << 63))
