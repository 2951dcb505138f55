from dataclasses import replace

import pytest
import torch

from segmentation_scenes import room
from splatsense.errors import DataError
from splatsense.labels import SCANNET20
from splatsense.segmentation.augment import AugmentConfig, augment, elastic_distortion, rotation
from splatsense.segmentation.points import points_of_scene

NOTHING = AugmentConfig(dropout_chance=0, turn_chance=0, tilt_chance=0, scale=(1, 1), flip_chance=0, jitter=0, elastic_chance=0,
                        contrast_chance=0, color_shift_chance=0, color_jitter_chance=0)  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def points():
    return points_of_scene(room(), SCANNET20)


def test_nothing_but_centring(points):
    result = augment(points, NOTHING, generator())
    assert torch.equal(result.coord, points.centered().coord)
    for name in ("color", "normal", "semantic", "instance"):
        assert torch.equal(getattr(result, name), getattr(points, name))


def test_same_generator_same_result(points):
    first, second, other = (augment(points, AugmentConfig(), generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))
    assert not torch.equal(first.coord[:100], other.coord[:100])


@pytest.mark.parametrize("change", [{"turn_chance": 1}, {"tilt_chance": 1}, {"flip_chance": 1}])
def test_normals_move_with_the_points(points, change):
    """A normal is perpendicular to its plane before and after, on the same side, and lengths stay."""
    result = augment(points, replace(NOTHING, **change), generator(3))
    floor, chair = points.semantic == 1, points.instance == 0
    across = result.coord[floor] - result.coord[floor].mean(0)
    assert (across @ result.normal[floor][0]).abs().max() < 1e-4
    outward = result.coord[chair] - result.coord[chair].mean(0)
    assert ((outward * result.normal[chair]).sum(1) > 0).all()
    assert torch.allclose(
        torch.cdist(result.coord[::97], result.coord[::97]), torch.cdist(points.coord[::97], points.coord[::97]), atol=2e-3
    )
    assert not torch.allclose(result.normal, points.normal)


@pytest.mark.parametrize("axis", range(3))
def test_rotations_are_right_handed(axis):
    turn = rotation(axis, 90)
    assert torch.allclose(turn @ torch.eye(3)[(axis + 1) % 3], torch.eye(3)[(axis + 2) % 3], atol=1e-6)
    assert float(torch.linalg.det(turn)) == pytest.approx(1)


def test_thinning_keeps_shares_between_all_and_the_least(points):
    config = replace(NOTHING, thin=0.25)
    shares = [len(augment(points, config, generator(seed))) / len(points) for seed in range(40)]
    assert 0.25 <= min(shares) < 0.35
    assert 0.8 < max(shares) <= 1
    assert 0.4 < sorted(shares)[20] < 0.6  # the median of a log-uniform draw is 0.5


def test_dropout_keeps_a_share_and_what_is_labelled(points):
    config = replace(NOTHING, dropout_chance=1, dropout=0.7)
    assert len(augment(points, config, generator())) == int(len(points) * 0.3)
    few = replace(points, semantic=torch.where(torch.arange(len(points)) % 500 == 0, points.semantic, -1))
    kept = augment(few, config, generator(), keep_labelled=True)
    assert (kept.semantic != -1).sum() == (few.semantic != -1).sum()


def test_jitter_is_bounded_and_scale_in_its_range(points):
    moved = augment(points, replace(NOTHING, jitter=0.01, jitter_clip=0.015), generator())
    away = (moved.coord - points.centered().coord).abs()
    assert 0.005 < float(away.mean()) < 0.01
    assert float(away.max()) <= 0.015 + 1e-5
    scaled = augment(points, replace(NOTHING, scale=(1.2, 1.2)), generator())
    assert torch.allclose(scaled.coord, points.centered().coord * 1.2)


def test_colours_stay_in_range_and_a_stretched_contrast_widens_them(points):
    result = augment(
        points, replace(NOTHING, color_shift_chance=1, color_shift=0.6, color_jitter_chance=1, color_jitter=0.3), generator()
    )
    assert float(result.color.min()) >= 0
    assert float(result.color.max()) <= 1
    stretched = augment(points, replace(NOTHING, contrast_chance=1), generator(5)).color
    assert (stretched.amax(0) - stretched.amin(0) > points.color.amax(0) - points.color.amin(0)).all()


def test_elastic_distortion_is_smooth_and_follows_its_strength(points):
    still = elastic_distortion(points.coord, 0.2, 0.0, generator())
    assert torch.equal(still, points.coord)
    one, two = (elastic_distortion(points.coord, 0.2, strength, generator()) - points.coord for strength in (0.4, 0.8))
    assert torch.allclose(two, 2 * one, atol=1e-5)
    assert 0.005 < float(one.abs().mean()) < 0.2
    beside = torch.cdist(points.coord[:400], points.coord[:400]).fill_diagonal_(9).argmin(1)
    assert (one[:400] - one[:400][beside]).norm(dim=1).mean() < 0.5 * one.norm(dim=1).mean()


def test_elastic_field_is_interpolated_between_nodes():
    """Points on a line between two nodes move as the mean of these says."""
    coord = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0], [3.0, 2.0, 1.0]])
    moved = elastic_distortion(coord, 1.0, 1.0, generator()) - coord
    assert torch.allclose(moved[1], (moved[0] + moved[2]) / 2, atol=1e-6)


def test_settings_out_of_range():
    with pytest.raises(DataError, match="turn_chance: must lie in"):
        AugmentConfig(turn_chance=1.5)
    with pytest.raises(DataError, match="scale"):
        AugmentConfig(scale=(1.1, 0.9))
