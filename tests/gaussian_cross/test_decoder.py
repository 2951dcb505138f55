from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv3d

from splatsense.errors import DataError
from splatsense.gaussian_cross.cuboid import BOTTOM
from splatsense.gaussian_cross.decoder import DecoderConfig, GaussianDecoder
from splatsense.gaussian_cross.dense_unet import DenseUNet

CONFIG = DecoderConfig(
    grid=(8, 8, 4), height=0.5, volume_channels=6, base_maps=4, levels=2, refined_channels=8, hidden=8, feature_channels=3
)


def decoder_of(config=CONFIG, channels=6):
    torch.manual_seed(0)
    return GaussianDecoder(channels, config).eval()


def voxels(count=60, scenes=2, channels=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    positions = torch.rand(count, 3, generator=g) - 0.5
    positions[:, 2] = -0.5 + 0.5 * torch.rand(count, generator=g)
    return torch.randn(count, channels, generator=g), positions, torch.arange(count) * scenes // count, scenes


def test_cells_average_what_lies_in_them():
    decoder = decoder_of()
    features, positions, scene, scenes = voxels(500)
    volume, occupied = decoder.pool(features, decoder.cells(positions, scene), scenes)
    assert volume.shape == (2, 6, 8, 8, 4)
    for b, x, y, z in torch.randint(4, (30, 4), generator=torch.Generator().manual_seed(1)).tolist():
        b %= 2
        low = torch.tensor([x / 8 - 0.5, y / 8 - 0.5, BOTTOM + z / 8])
        inside = (scene == b) & ((positions >= low) & (positions < low + 1 / 8)).all(1)
        expected = features[inside].mean(0) if bool(inside.any()) else torch.zeros(6)
        assert torch.allclose(volume[b, :, x, y, z], expected, atol=1e-5)
        assert bool(occupied[b, x, y, z]) == bool(inside.any())


def test_positions_on_the_border_belong_to_the_last_cell():
    decoder = decoder_of()
    corner = torch.tensor([[0.5, 0.5, 0.0], [-0.5, -0.5, -0.5]])
    assert decoder.cells(corner, torch.zeros(2, dtype=torch.long)).tolist() == [8 * 8 * 4 - 1, 0]


def test_anchors_near_occupied_cells_are_a_dilation():
    decoder = decoder_of(replace(CONFIG, reach=1))
    occupied = torch.rand(2, 8, 8, 4, generator=torch.Generator().manual_seed(0)) < 0.03
    expected = conv3d(occupied.float()[:, None], torch.ones(1, 1, 3, 3, 3), padding=1)[:, 0] > 0
    assert torch.equal(decoder.anchors(occupied), expected)
    assert torch.equal(decoder_of(replace(CONFIG, reach=0)).anchors(occupied), occupied)
    assert bool(decoder_of(replace(CONFIG, anchors="all")).anchors(occupied).all())


@torch.no_grad()
def test_all_anchors_give_the_same_gaussians_as_those_near_wherever_both_have_some():
    """The restriction leaves anchors out and changes none that it keeps."""
    inputs = voxels()
    near, every = (decoder_of(replace(CONFIG, anchors=kind))(*inputs) for kind in ("occupied", "all"))
    for some, more in zip(near, every, strict=True):
        assert some.anchors < more.anchors == 8 * 8 * 4
        distance = (some.gaussians.means[:, None] - more.gaussians.means).abs().amax(2)
        match = distance.argmin(1)
        assert float(distance.amin(1).max()) < 1e-6
        for name in ("quats", "scales", "opacities", "sh"):
            ours, theirs = getattr(some.gaussians, name), getattr(more.gaussians, name)[match]
            assert torch.allclose(ours, theirs, atol=1e-6)


@torch.no_grad()
def test_gaussians_stay_within_their_bounds_and_begin_near_their_anchors():
    for one in decoder_of()(*voxels(200)):
        gaussians = one.gaussians
        assert len(gaussians) == one.anchors  # before training every anchor is above the threshold
        assert torch.allclose(gaussians.quats.norm(dim=1), torch.ones(len(gaussians)), atol=1e-5)
        assert float(gaussians.scales.min()) > 0
        assert float(gaussians.scales.max()) <= CONFIG.largest_scale / 8 + 1e-6
        nearest = torch.cartesian_prod(*[(torch.arange(8) + 0.5) / 8 - 0.5] * 2, BOTTOM + (torch.arange(4) + 0.5) / 8)
        offsets = (gaussians.means[:, None] - nearest).abs().amax(2).amin(1)
        assert float(offsets.max()) <= CONFIG.offset / 8 + 1e-6
        assert one.features.shape == (len(gaussians), 3)


@torch.no_grad()
def test_faint_anchors_are_pruned_and_a_scene_keeps_its_best():
    decoder = decoder_of(replace(CONFIG, threshold=0.3))
    inputs = voxels(300)
    every = torch.cat([one.gaussians.opacities for one in decoder(*inputs)]).logit()
    decoder.heads["opacity"][2].bias += torch.tensor(0.3).logit() - every.median()
    for one in decoder(*inputs):
        assert 1 < len(one.gaussians) < one.anchors
        assert float(one.gaussians.opacities.min()) > 0.3
    decoder.heads["opacity"][2].bias.fill_(-50)
    assert [len(one.gaussians) for one in decoder(*inputs)] == [1, 1]


@torch.no_grad()
def test_a_scene_does_not_depend_on_its_neighbours():
    decoder = decoder_of()
    features, positions, scene, _ = voxels(200)
    both = decoder(features, positions, scene, 2)
    second = scene == 1
    alone = decoder(features[second], positions[second], torch.zeros(int(second.sum()), dtype=torch.long), 1)[0]
    assert torch.allclose(both[1].gaussians.means, alone.gaussians.means, atol=1e-6)
    assert torch.allclose(both[1].features, alone.features, atol=1e-6)


def test_gradients_reach_every_parameter_and_are_right():
    decoder = decoder_of().double()
    features, positions, scene, scenes = voxels(30)
    features, positions = features.double().requires_grad_(), positions.double()

    def gaussians(features):
        parts = decoder(features, positions, scene, scenes)
        return tuple(
            torch.cat([getattr(one.gaussians, name).flatten() for one in parts]) for name in ("means", "quats", "scales", "sh")
        )

    torch.autograd.gradcheck(gaussians, features, atol=1e-5, fast_mode=True)
    total = sum(
        one.features.sum() + sum(getattr(one.gaussians, n).square().sum() for n in ("means", "scales", "opacities", "sh"))
        + one.gaussians.quats[:, 0].sum()
        for one in decoder(features, positions, scene, scenes)
    )  # fmt: skip
    total.backward()
    assert all(value.grad is not None and bool((value.grad != 0).any()) for value in decoder.parameters())


@torch.no_grad()
def test_a_narrower_volume_is_the_first_factor_of_the_average():
    """Mapping before pooling equals pooling before mapping."""
    decoder = decoder_of(replace(CONFIG, volume_channels=4))
    features, positions, scene, scenes = voxels(200)
    cells = decoder.cells(positions, scene)
    early, _ = decoder.pool(decoder.reduce(features), cells, scenes)
    late, _ = decoder.pool(features, cells, scenes)
    assert torch.allclose(early, decoder.reduce(late.movedim(1, -1)).movedim(-1, 1), atol=1e-5)


def test_grids_that_do_not_halve_are_refused():
    with pytest.raises(DataError, match="--grid"):
        replace(CONFIG, grid=(7, 8, 4))
    with pytest.raises(DataError, match="multiples of 2"):
        DenseUNet(3, 4, 2)(torch.zeros(1, 3, 5, 4, 4))
    with pytest.raises(DataError, match="threshold"):
        replace(CONFIG, threshold=0.9)


@torch.no_grad()
def test_without_a_unet_a_gaussian_depends_on_its_own_cell_alone():
    decoder = decoder_of(replace(CONFIG, levels=0, reach=0))
    features, positions, scene, scenes = voxels(40)
    before = torch.cat([one.features for one in decoder(features, positions, scene, scenes)])
    changed = features.clone()
    changed[0] += 1
    after = torch.cat([one.features for one in decoder(changed, positions, scene, scenes)])
    assert int((before != after).any(1).sum()) == 1
    with pytest.raises(DataError, match="--reach 0"):
        replace(CONFIG, levels=0, reach=1)
