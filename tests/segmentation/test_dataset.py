from dataclasses import replace

import pytest
import torch

from segmentation_scenes import write_rooms
from splatsense.errors import DataError, FormatError
from splatsense.segmentation.augment import AugmentConfig
from splatsense.segmentation.config import SegmentationConfig
from splatsense.segmentation.dataset import SeedOf, TrainingScenes, batch_of_step, collate, sphere_crop
from splatsense.segmentation.points import NONE, sample_grid, voxel_means


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_rooms(tmp_path_factory.mktemp("rooms"), (("train", 3),))


def config(root, **changes):
    return SegmentationConfig(str(root), "unused", **({"voxel": 0.1, "batch_size": 2, "crop_points": 600} | changes))


def test_a_batch_is_a_function_of_seed_and_step(root):
    scenes = TrainingScenes(config(root))
    batches = [batch_of_step(scenes, [0, 2], step, range(2), SeedOf(seed)) for step, seed in ((4, 0), (4, 0), (5, 0), (4, 1))]
    assert torch.equal(batches[0].features, batches[1].features)
    assert torch.equal(batches[0].coordinates, batches[1].coordinates)
    for other in batches[2:]:
        assert other.features.shape != batches[0].features.shape or not torch.equal(other.features, batches[0].features)


def test_a_process_makes_its_part_of_the_batch(root):
    scenes = TrainingScenes(config(root, mix=0.0))
    whole = batch_of_step(scenes, [0, 1, 2, 0], 3, range(4), SeedOf(0))
    part = batch_of_step(scenes, [0, 1, 2, 0], 3, range(2, 4), SeedOf(0))
    rows = whole.coordinates[:, 0] >= 2
    assert torch.equal(whole.features[rows], part.features)
    with pytest.raises(DataError, match="--mix"):
        batch_of_step(TrainingScenes(config(root)), [0, 1], 0, range(1), SeedOf(0))


def test_training_sees_means_of_voxels_as_predictions_do(root):
    still = AugmentConfig(
        dropout_chance=0, turn_chance=0, tilt_chance=0, scale=(1, 1), flip_chance=0, jitter=0, elastic_chance=0,
        contrast_chance=0, color_shift_chance=0, color_jitter_chance=0,
    )  # fmt: skip
    scenes = TrainingScenes(config(root, augment=still, crop_points=0))
    sample, expected = scenes.sample(0, SeedOf(0)(0, 0)), voxel_means(scenes.points(0).centered(), 0.1, 20)
    assert torch.equal(sample.features, expected.features)
    assert torch.equal(sample.semantic, expected.semantic)


def test_crops_are_the_nearest_points(root):
    points = TrainingScenes(config(root)).points(0)
    crop = sphere_crop(points, 500, torch.Generator().manual_seed(1))
    center = points.coord[int(torch.randint(len(points), (), generator=torch.Generator().manual_seed(1)))]
    inside = (crop.coord - center).norm(dim=1).max()
    assert len(crop) == 500
    assert ((points.coord - center).norm(dim=1) < inside - 1e-6).sum() <= 500
    assert sphere_crop(points, len(points), torch.Generator()) is points


def one_per_voxel(points, voxel=0.1):
    return points[sample_grid(points.coord, voxel).chosen].centered(step=voxel)


def cells(points, voxel=0.1):
    return set(map(tuple, (points.coord.double() / voxel).floor().long().tolist()))


def test_mixing_lays_pairs_over_each_other_and_the_first_wins(root):
    scenes = TrainingScenes(config(root))
    samples = [one_per_voxel(scenes.points(row)) for row in range(3)]
    apart, mixed = collate(samples, 0.1, mixed=False), collate(samples, 0.1, mixed=True)
    assert apart.coordinates[:, 0].unique().tolist() == [0, 1, 2]
    assert mixed.coordinates[:, 0].unique().tolist() == [0, 1]
    assert int((mixed.coordinates[:, 0] == 0).sum()) == len(cells(samples[0]) | cells(samples[1]))
    assert int((mixed.coordinates[:, 0] == 1).sum()) == len(samples[2])
    gray = replace(samples[0], color=samples[0].color * 0)
    first, alone = collate([samples[0], gray], 0.1, mixed=True), collate([samples[0]], 0.1, mixed=False)
    assert torch.equal(first.features, alone.features)
    assert len(mixed.coordinates.unique(dim=0)) == len(mixed.coordinates)


def test_offsets_lead_to_the_centroids(root):
    points = one_per_voxel(TrainingScenes(config(root, task="instance")).points(0))
    batch = collate([points], 0.1, mixed=False)
    points = points[sample_grid(points.coord, 0.1).chosen]  # in the order of the batch
    assert torch.equal(batch.counted, points.instance != NONE)
    for number in range(3):
        own = points.instance == number
        target = points.coord[own] + batch.offsets[own]
        assert torch.allclose(target, points.coord[own].mean(0).expand_as(target), atol=1e-5)


def test_instances_of_left_out_classes_do_not_count(root):
    config_ = config(root, task="instance", leave_out=("wall", "floor", "table"))
    points = TrainingScenes(config_).points(0)
    assert points.instance.unique().tolist() == [-1, 0, 1]


def test_limited_annotations_survive_augmentation_and_sampling(root):
    scenes = TrainingScenes(config(root, points=20, crop_points=0, voxel=0.3))
    assert int((scenes.points(0).semantic != NONE).sum()) == 20
    still = replace(scenes.config.augment, elastic_chance=0.0, dropout_chance=1.0, dropout=0.9)
    scenes.config = replace(scenes.config, augment=still)
    sample = scenes.sample(0, torch.Generator().manual_seed(0))
    # every voxel with an annotated point shows one of them
    assert 10 <= int((sample.semantic != NONE).sum()) <= 20


def test_limited_scenes(root, tmp_path):
    assert len(TrainingScenes(config(root, scene_share=0.34))) == 1
    (tmp_path / "list.txt").write_text("train_0001\n")
    scenes = TrainingScenes(config(root, scene_list=str(tmp_path / "list.txt")))
    assert [folder.name for folder in scenes.folders] == ["train_0001"]


def test_bad_folders(root):
    with pytest.raises(FormatError, match="holds no scene"):
        TrainingScenes(config(root, train_splits=("tran",)))
    with pytest.raises(DataError, match="no labels of scannet200"):
        TrainingScenes(config(root, labels="scannet200")).points(0)
