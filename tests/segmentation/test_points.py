from collections import Counter

import numpy as np
import pytest
import torch

from segmentation_scenes import room
from splatsense.errors import DataError
from splatsense.labels import S3DIS, SCANNET20
from splatsense.segmentation.points import NONE, points_of_scene, sample_grid, voxel_classes, voxel_means


def test_features_are_colour_around_zero_and_normal():
    scene = room()
    points = points_of_scene(scene, SCANNET20)
    assert points.features[:, :3].numpy() == pytest.approx(scene.color / 127.5 - 1, abs=1e-6)
    assert torch.equal(points.features[:, 3:], torch.from_numpy(scene.normal))
    assert (points.semantic.numpy() == scene.semantic20).all()


def test_a_scene_without_these_labels_says_which_it_has():
    with pytest.raises(DataError, match=r"no labels of s3dis \(segment.npy\); it has segment20.npy"):
        points_of_scene(room(), S3DIS)


def test_missing_colours_are_grey_and_missing_normals_estimated():
    scene = room()
    bare = type(scene)("bare", scene.coord)
    points = points_of_scene(bare)
    assert (points.color == 0.5).all()
    assert (points.semantic == -1).all()
    floor = (scene.coord[:, 2] < 0.03) & (scene.coord[:, :2] > 0.3).all(1)
    assert np.median(np.abs(points.normal.numpy()[floor, 2])) > 0.99


def test_each_voxel_has_one_point_and_each_point_its_voxel():
    coord = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = sample_grid(coord, 0.3)
    cells = (coord.double() / 0.3).floor().long()
    cells -= cells.amin(0)
    assert torch.equal(grid.cells[grid.inverse].long(), cells)
    assert torch.equal(grid.cells.unique(dim=0).long(), cells.unique(dim=0))
    assert len(grid.cells) == len(cells.unique(dim=0))
    assert torch.equal(grid.inverse[grid.chosen], torch.arange(len(grid.chosen)))
    for voxel in range(len(grid.chosen)):
        assert int(grid.chosen[voxel]) == int((grid.inverse == voxel).nonzero()[0])  # the first without priorities


def test_the_highest_priority_is_chosen():
    coord, priority = torch.zeros(5, 3), torch.tensor([0.1, 0.2, 0.9, 0.3, 0.9])
    assert sample_grid(coord, 1.0, priority).chosen.tolist() == [2]


def test_the_class_of_a_voxel_is_the_most_frequent_of_its_points():
    generator = torch.Generator().manual_seed(0)
    semantic, voxel = torch.randint(-1, 3, (200,), generator=generator), torch.randint(0, 40, (200,), generator=generator)
    found = voxel_classes(semantic, voxel, 41, 3)
    for number in range(41):
        votes = Counter(label for label in semantic[voxel == number].tolist() if label >= 0)
        best = min((label for label in votes if votes[label] == max(votes.values())), default=-1)
        assert found[number] == best


def test_a_voxel_is_the_mean_of_its_points():
    """Its class is the most frequent one, its instance that of a point of this class."""
    points = points_of_scene(room(), SCANNET20)
    means, grid = voxel_means(points, 0.2, 20), sample_grid(points.coord, 0.2)
    classes = voxel_classes(points.semantic, grid.inverse, len(grid.chosen), 20)
    assert torch.equal(means.semantic, classes)
    assert len(means) < len(points) / 3
    for voxel in range(0, len(means), 7):
        own = points[grid.inverse == voxel]
        assert torch.allclose(means.coord[voxel], own.coord.mean(0), atol=1e-5)
        assert torch.allclose(means.color[voxel], own.color.mean(0), atol=1e-6)
        assert float(torch.cosine_similarity(means.normal[voxel], own.normal.sum(0), dim=0)) > 1 - 1e-5
        assert int(means.instance[voxel]) in own.instance[own.semantic == classes[voxel]].tolist()


def test_few_labels_win_over_none():
    points = points_of_scene(room(), SCANNET20)
    few = points.semantic.clone()
    few[torch.arange(len(few)) % 50 != 0] = NONE
    means = voxel_means(type(points)(points.coord, points.color, points.normal, few, points.instance), 0.5, 20)
    labelled = sample_grid(points.coord, 0.5).inverse[few != NONE].unique()
    assert (means.semantic != NONE).nonzero().flatten().tolist() == labelled.tolist()


def test_a_scan_in_millimetres_is_refused():
    with pytest.raises(DataError, match="--unit"):
        sample_grid(torch.tensor([[0.0, 0, 0], [1e5, 0, 0]]), 0.02)


def test_centred():
    points = points_of_scene(room())
    low, high = points.centered().coord.amin(0), points.centered().coord.amax(0)
    assert (low + high)[:2].abs().max() < 1e-5
    assert float(low[2]) == 0
    assert torch.equal(points.centered(vertically=False).coord[:, 2], points.coord[:, 2])
    kept = points[sample_grid(points.coord, 0.1).chosen].centered(step=0.1)
    assert len(sample_grid(kept.coord, 0.1).chosen) == len(kept)  # none has come into another's voxel
