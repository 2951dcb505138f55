from dataclasses import replace

import numpy as np
import pytest
import torch

from segmentation_scenes import CHAIR, FLOOR, TABLE, room
from splatsense.labels import SCANNET20
from splatsense.segmentation.model import load_segmentation_model
from splatsense.segmentation.points import points_of_scene
from splatsense.segmentation.predict import VIEWS, View, _instances, _Pass, predict, tiles, voxel_features


@pytest.fixture(scope="module")
def points():
    return points_of_scene(room(), SCANNET20)


@pytest.fixture(scope="module")
def model(untrained):
    return load_segmentation_model(untrained["instance"])


def test_every_voxel_counts_in_one_tile_and_has_its_surroundings():
    cells = torch.randint(0, 60, (3000, 3), generator=torch.Generator().manual_seed(0)).unique(dim=0).int()
    coordinates = torch.cat([torch.zeros(len(cells), 1, dtype=torch.int32), cells], dim=1)
    seen = []
    for rows, core in tiles(coordinates, 400, margin=5):
        assert len(core) <= 400
        low, high = cells[rows[core]].amin(0) - 5, cells[rows[core]].amax(0) + 5
        assert ((cells >= low) & (cells <= high)).all(1).sum() == len(rows)
        seen.append(rows[core])
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(len(cells)))
    assert len(seen) > 5


def test_tiles_with_a_wide_margin_give_what_the_whole_gives(model, points):
    whole = predict(model, points)
    tiled = predict(model, points, tile_voxels=300)
    assert (whole.semantic == tiled.semantic).all()
    assert whole.confidence == pytest.approx(tiled.confidence, abs=1e-4)


def test_points_of_a_voxel_share_its_prediction_and_order_does_not_matter(model, points):
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    first, second = predict(model, points), predict(model, points[order])
    assert (first.semantic[order.numpy()] == second.semantic).all()
    _, inverse = voxel_features(model.network.backbone, points, model.voxel)
    for voxel in range(0, int(inverse.max()), 37):
        assert len(np.unique(first.semantic[(inverse == voxel).numpy()])) == 1


def test_views_are_twelve_and_a_mirrored_one():
    assert len(VIEWS["all"]) == 13
    for view in VIEWS["all"]:
        assert torch.allclose(view.matrix() @ view.matrix().T, view.scale**2 * torch.eye(3), atol=1e-6)
    assert torch.allclose(View(90).matrix() @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6)


def test_votes_are_the_mean_of_the_views(model, points, monkeypatch):
    single = []
    for degrees in (0.0, 90.0):
        turned = replace(points, coord=points.coord @ View(degrees).matrix().T, normal=points.normal @ View(degrees).matrix().T)
        single.append(predict(model, turned))
    monkeypatch.setitem(VIEWS, "all", (View(), View(90)))
    voted = predict(model, points, "all")
    agree = single[0].semantic == single[1].semantic
    assert agree.any()
    mean = (single[0].confidence + single[1].confidence) / 2
    assert voted.confidence[agree] == pytest.approx(mean[agree], abs=1e-4)
    assert (voted.semantic[agree] == single[0].semantic[agree]).all()


def test_exact_offsets_give_the_instances(model, points):
    """With the truth as the network's output, every piece of furniture is one instance with its class and score."""
    instance = points.instance
    targets = torch.stack([points.coord[instance == number].mean(0) for number in range(3)])
    offsets = torch.where((instance >= 0)[:, None], targets[instance] - points.coord, 0)
    probabilities = torch.full((len(points), 20), 0.01)
    probabilities[torch.arange(len(points)), points.semantic] = 0.81
    found, labels, scores = _instances(model, _Pass(points.coord, probabilities, offsets, torch.arange(len(points))))
    assert (found == instance.numpy()).all()
    assert labels.tolist() == [CHAIR, CHAIR, TABLE]
    assert scores == pytest.approx([0.81] * 3)


def test_floors_and_walls_are_no_instances_and_small_clusters_no_proposals(model, points):
    count = len(points)
    probabilities = torch.zeros(count, 20)
    probabilities[:, FLOOR] = 1
    rest = (points.coord, probabilities, torch.zeros(count, 3), torch.arange(count))
    assert len(_instances(model, _Pass(*rest))[1]) == 0
    probabilities[:10, FLOOR], probabilities[:10, CHAIR] = 0, 1  # ten voxels, and more than ten are needed
    assert len(_instances(model, _Pass(*rest))[1]) == 0
    probabilities[10, FLOOR], probabilities[10, CHAIR] = 0, 1
    assert _instances(model, _Pass(points.coord * 0, *rest[1:]))[1].tolist() == [CHAIR]


def test_one_point_is_a_scan(model, points):
    prediction = predict(model, points[torch.tensor([0])])
    assert prediction.semantic.shape == (1,)
    assert prediction.masks().shape == (0, 1)
