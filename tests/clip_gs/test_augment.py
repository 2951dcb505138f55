from dataclasses import replace

import pytest
import torch

from clip_gs.test_tokenizer import random_gaussians
from splatsense.clip_gs.augment import AugmentConfig, augment, axis_angle, linear_map
from splatsense.clip_gs.tokenizer import GaussianBatch
from splatsense.errors import DataError

NOT_AUGMENTED = AugmentConfig(
    turn=0.0,
    any_turn=0.0,
    tilt=0.0,
    scale=0.0,
    stretch=0.0,
    shift=0.0,
    mirror=0.0,
    drop_color=0.0,
    color_jitter=0.0,
    splat_scale=0.0,
)


def covariances(batch: GaussianBatch) -> torch.Tensor:
    half = batch.rotations * batch.scales[..., None, :]
    return half @ half.transpose(-1, -2)


def batch_of(count: int = 3) -> GaussianBatch:
    return GaussianBatch.stack([random_gaussians(40, seed) for seed in range(count)], 40)


@pytest.mark.parametrize("mirrored", [False, True])
def test_similarities_and_mirrors_move_covariances_exactly(mirrored):
    batch = batch_of()
    angles = torch.tensor([0.3, 1.2, -2.0])
    matrices = 1.7 * axis_angle(
        torch.nn.functional.normalize(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), dim=-1), angles
    )
    if mirrored:
        matrices = matrices @ torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    moved = linear_map(batch, matrices)
    expected = matrices[:, None] @ covariances(batch) @ matrices[:, None].transpose(-1, -2)
    assert torch.allclose(covariances(moved), expected, atol=1e-5)
    assert torch.allclose(torch.linalg.det(moved.rotations), torch.ones(3, 40), atol=1e-4)


def test_a_stretch_keeps_flat_gaussians_on_their_surface():
    batch = replace(batch_of(), scales=torch.tensor([0.1, 0.1, 0.0]).expand(3, 40, 3))
    matrices = torch.diag_embed(torch.tensor([[1.0, 2.0, 0.5]] * 3))
    moved = linear_map(batch, matrices)
    normals = torch.nn.functional.normalize(batch.rotations[..., 2] @ torch.linalg.inv(matrices), dim=-1)
    assert torch.allclose((normals * moved.rotations[..., 2]).sum(-1).abs(), torch.ones(3, 40), atol=1e-4)


def test_switched_off_it_changes_nothing_and_the_seed_decides():
    batch = batch_of()
    same = augment(batch, NOT_AUGMENTED, torch.Generator().manual_seed(0))
    for name in ("means", "scales", "rgb", "opacities"):
        assert torch.allclose(getattr(same, name), getattr(batch, name), atol=1e-6)
    assert torch.allclose(covariances(same), covariances(batch), atol=1e-6)
    first, again, other = (augment(batch, AugmentConfig(), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.means, again.means)
    assert not torch.equal(first.means, other.means)
    assert 0 <= first.rgb.min() <= first.rgb.max() <= 1


def test_most_objects_turn_a_little_and_some_by_any_angle():
    batch = GaussianBatch.stack([random_gaussians(4)] * 2000, 4)
    turned = augment(batch, replace(NOT_AUGMENTED, turn=20.0, any_turn=0.25), torch.Generator().manual_seed(0))
    x, z = turned.means[:, 0, 0], turned.means[:, 0, 2]
    before = torch.atan2(batch.means[:, 0, 0], batch.means[:, 0, 2])
    angles = (torch.atan2(x, z) - before + torch.pi).remainder(2 * torch.pi) - torch.pi
    far = (angles.abs() > torch.deg2rad(torch.tensor(20.01))).float().mean()
    assert far == pytest.approx(0.25 * (1 - 20 / 180), abs=0.03)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("scale", -1.0, "--scale: must be finite and not negative, got -1.0"),
        ("splat_scale", float("inf"), "--splat-scale: must be finite and not negative, got inf"),
        ("any_turn", 1.5, r"--any-turn: must lie in \[0, 1\], got 1.5"),
        ("mirror", float("nan"), r"--mirror: must lie in \[0, 1\], got nan"),
    ],
)
def test_ranges_that_cannot_be(name, wrong, message):
    with pytest.raises(DataError, match=message):
        AugmentConfig(**{name: wrong})
