import pytest
import torch

from splatsense.clip_gs.encoder import EncoderConfig, GaussianEncoder, encoder_config
from splatsense.clip_gs.tokenizer import (
    CHANNELS,
    GaussianBatch,
    GaussianTokenizer,
    PatchIndices,
    drop_patches,
    group_patches,
    sigmoid_of_log,
)
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians

SMALL = EncoderConfig(
    gaussians=128, patches=8, patch_size=16, width=24, depth=2, heads=2, conv_widths=(8, 8, 12), point_widths=(8, 12, 16)
)


def random_gaussians(count: int, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=-1)
    return Gaussians.from_rgb(
        torch.randn(count, 3, generator=g),
        quats,
        torch.rand(count, 3, generator=g) * 0.1,
        torch.rand(count, generator=g),
        torch.rand(count, 3, generator=g),
    )


@pytest.mark.parametrize("order", ["distance", "xyz", "hilbert", "z"])
def test_patches_hold_the_nearest_gaussians_in_any_order(order):
    means = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(1))
    found = group_patches(means, patches=10, patch_size=12, order=order)
    assert found.centers.shape == (2, 10)
    assert found.members.shape == (2, 10, 12)
    for b in range(2):
        distance = torch.cdist(means[b, found.centers[b]], means[b])
        nearest = distance.topk(12, largest=False).indices.sort(-1).values
        assert torch.equal(found.members[b].sort(-1).values, nearest)


def test_serial_order_inside_a_patch_follows_the_curve():
    means = torch.randn(1, 64, 3, generator=torch.Generator().manual_seed(2))
    members = group_patches(means, patches=4, patch_size=16, order="xyz").members[0]
    x = means[0, members, 0]
    cell = (means[0, :, 0].max() - means[0, :, 0].min()) / 2**8
    assert bool((x.diff(dim=-1) >= -2 * cell).all())


def test_stack_repeats_when_there_are_too_few_and_is_the_same_for_the_same_seed():
    batch = GaussianBatch.stack([random_gaussians(50), random_gaussians(500)], 128, seed=3)
    assert batch.means.shape == (2, 128, 3)
    assert len(torch.unique(batch.means[0], dim=0)) == 50
    assert len(torch.unique(batch.means[1], dim=0)) == 128
    assert torch.equal(batch.means, GaussianBatch.stack([random_gaussians(50), random_gaussians(500)], 128, seed=3).means)


def test_paper_sigmoid_of_the_raw_scale():
    log_scales = torch.linspace(-8, 2, 11)
    assert torch.allclose(sigmoid_of_log(log_scales.exp()), torch.sigmoid(log_scales), atol=1e-6)


def test_every_channel_reaches_the_tokens_and_the_point_mode_sees_only_position_and_color():
    batch = GaussianBatch.stack([random_gaussians(64)], 64)
    indices = group_patches(batch.means, 4, 16)
    names = ("means", "rotations", "scales", "opacities", "rgb")
    assert (
        sum(
            v.numel()
            for v in (batch.means[0, 0], batch.rotations[0, 0], batch.scales[0, 0], batch.opacities[0, 0], batch.rgb[0, 0])
        )
        == CHANNELS
    )
    for use_attributes, expected in ((True, dict.fromkeys(names, True)), (False, {n: n in ("means", "rgb") for n in names})):
        tokenizer = GaussianTokenizer(24, (8, 8, 12), (8, 12, 16), use_attributes)
        inputs = {name: getattr(batch, name).clone().requires_grad_() for name in names}
        tokens, _ = tokenizer(GaussianBatch(**inputs), indices)
        grads = torch.autograd.grad((tokens * torch.randn_like(tokens)).sum(), list(inputs.values()), allow_unused=True)
        reached = {name: grad is not None and bool(grad.abs().sum() > 0) for name, grad in zip(names, grads, strict=True)}
        assert reached == expected


def test_the_order_of_the_gaussians_in_the_file_does_not_matter():
    torch.manual_seed(0)
    encoder = GaussianEncoder(SMALL).eval()
    batch = GaussianBatch.stack([random_gaussians(128)], 128)
    shuffle = torch.cat([torch.zeros(1, dtype=torch.long), torch.randperm(127, generator=torch.Generator().manual_seed(1)) + 1])
    shuffled = GaussianBatch(*(getattr(batch, n)[:, shuffle] for n in ("means", "rotations", "scales", "opacities", "rgb")))
    with torch.no_grad():
        assert torch.allclose(encoder(batch), encoder(shuffled), atol=1e-5)


def test_embeddings_are_unit_length_and_independent_of_the_batch():
    torch.manual_seed(0)
    encoder = GaussianEncoder(SMALL).eval()
    objects = [random_gaussians(200, seed) for seed in range(3)]
    with torch.no_grad():
        together = encoder(GaussianBatch.stack(objects, 128))
        alone = torch.cat([encoder(GaussianBatch.stack([g], 128)) for g in objects])
    assert torch.allclose(together.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert torch.allclose(together, alone, atol=1e-5)


def test_dropout_only_in_training():
    torch.manual_seed(0)
    encoder = GaussianEncoder(SMALL, drop_path=0.5, patch_dropout=0.5)
    batch = GaussianBatch.stack([random_gaussians(128)] * 4, 128)
    with torch.no_grad():
        assert not torch.allclose(encoder(batch), encoder(batch), atol=1e-4)
        encoder.eval()
        assert torch.equal(encoder(batch), encoder(batch))


def test_sizes_and_their_errors():
    assert encoder_config("base").width == 768
    assert sum(p.numel() for p in GaussianEncoder(encoder_config("tiny")).parameters()) * 2 < 16e6
    with pytest.raises(DataError, match="expected one of tiny"):
        encoder_config("huge")
    with pytest.raises(DataError, match="multiple of heads"):
        EncoderConfig(width=10, heads=3)


def test_drop_patches_keeps_centres_with_their_members() -> None:
    indices = PatchIndices(torch.arange(8).repeat(3, 1), torch.arange(8)[:, None].repeat(3, 1, 5))
    kept = drop_patches(indices, 0.5)
    assert kept.centers.shape == (3, 4)
    assert kept.members.shape == (3, 4, 5)
    assert torch.equal(kept.members, kept.centers[..., None].expand(-1, -1, 5))
    assert all(len(row.unique()) == 4 for row in kept.centers)


def test_drop_patches_leaves_at_least_one() -> None:
    indices = PatchIndices(torch.arange(4)[None], torch.arange(12).view(1, 4, 3))
    assert drop_patches(indices, 0.99).centers.shape == (1, 1)
