import pytest
import torch

from splatsense.clip_gs.encoder import EncoderConfig
from splatsense.clip_gs.patches import group_patches
from splatsense.clip_gs.tokenizer import (
    CHANNELS,
    ConvolutionBranch,
    GaussianBatch,
    GaussianTokenizer,
    convolve_by_product,
    sigmoid_of_log,
)
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
    modes = {("all", True): set(names), ("all", False): set(names), ("position_color", True): {"means", "rgb"}}
    for (attributes, refinement), expected in modes.items():
        tokenizer = GaussianTokenizer(24, (8, 8, 12), (8, 12, 16), 0, attributes, refinement)
        assert (tokenizer.attribute_branch is not None) == (attributes == "all" and refinement)
        inputs = {name: getattr(batch, name).clone().requires_grad_() for name in names}
        tokens, _ = tokenizer(GaussianBatch(**inputs), indices)
        grads = torch.autograd.grad((tokens * torch.randn_like(tokens)).sum(), list(inputs.values()), allow_unused=True)
        reached = {name for name, grad in zip(names, grads, strict=True) if grad is not None and bool(grad.abs().sum() > 0)}
        assert reached == expected


def reference_tokens(tokenizer: GaussianTokenizer, batch: GaussianBatch, indices) -> torch.Tensor:
    """The refinement block of one patch after another, with the layers of `tokenizer`: two branches, summed."""
    point, tokens = tokenizer.point_branch, []
    for b, p in torch.cartesian_prod(torch.arange(len(batch)), torch.arange(indices.centers.shape[1])).tolist():
        pooled = []
        for members in indices.members[b, :, p]:
            offsets = batch.means[b, members] - batch.means[b, indices.centers[b, p]]
            sigmoid_scales = torch.sigmoid(batch.scales[b, members].log())
            columns = [offsets, batch.rgb[b, members], batch.opacities[b, members][:, None], sigmoid_scales]
            x = torch.cat([*columns, batch.rotations[b, members].flatten(1)], 1)
            y = x.T[None]
            for layer in tokenizer.attribute_branch or ():
                y = layer(y)
            pooled.append(y[0].amax(-1))
        local = point.point_layers(x[:, :6])
        joined = point.join(torch.cat([local.amax(0).expand_as(local), local], 1))
        tokens.append(tokenizer.point_to_width(point.patch_layers(joined).amax(0)) + torch.stack(pooled).amax(0))
    return torch.stack(tokens).unflatten(0, indices.centers.shape)


@pytest.mark.parametrize("orders", [("hilbert",), ("xyz", "hilbert", "z")])
@pytest.mark.parametrize("point_dim", [0, 20])
def test_the_refinement_block_is_the_sum_of_its_branches(orders, point_dim):
    torch.manual_seed(0)
    batch = GaussianBatch.stack([random_gaussians(60, seed) for seed in range(2)], 60)
    indices = group_patches(batch.means, 4, 9, orders)
    tokenizer = GaussianTokenizer(24, (8, 8, 12), (8, 12, 16), point_dim)
    for norm in (m for m in tokenizer.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    with torch.no_grad():
        found, centers = tokenizer.eval()(batch, indices)
        torch.testing.assert_close(found, reference_tokens(tokenizer, batch, indices), rtol=1e-4, atol=1e-5)
    assert torch.equal(centers[1, 2], batch.means[1, indices.centers[1, 2]])


def test_more_orders_change_the_tokens_but_which_comes_first_does_not():
    torch.manual_seed(0)
    batch = GaussianBatch.stack([random_gaussians(100)], 100)
    tokenizer = GaussianTokenizer(24, (8, 8, 12), (8, 12, 16)).eval()
    with torch.no_grad():
        one, two, turned = (
            tokenizer(batch, group_patches(batch.means, 6, 12, orders))[0] for orders in (("xyz",), ("xyz", "z"), ("z", "xyz"))
        )
    torch.testing.assert_close(two, turned, rtol=0, atol=1e-6)
    assert float((one - two).abs().max()) > 1e-3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("length", [1, 6, 7])
def test_a_convolution_by_product_is_a_convolution(stride, length):
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(5, length, 4, generator=g, dtype=torch.float64).requires_grad_()
    weight = torch.randn(3, 4, 3, generator=g, dtype=torch.float64).requires_grad_()
    ours = convolve_by_product(rows, weight, stride)
    theirs = torch.nn.functional.conv1d(rows.transpose(1, 2), weight, stride=stride, padding=1).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(y.square().sum(), (rows, weight)) for y in (ours, theirs)]
    for pair in zip(*gradients, strict=True):
        torch.testing.assert_close(*pair)


def test_the_branch_of_convolutions_is_the_same_in_training_and_out_of_it():
    """With and without gradients it takes different paths on a CPU; batch statistics and results agree."""
    torch.manual_seed(0)
    branches = [ConvolutionBranch((5, 8, 8, 12, 16)) for _ in range(2)]
    branches[1].load_state_dict(branches[0].state_dict())
    patches = torch.randn(6, 11, 5)
    with torch.no_grad():
        plain = branches[0].train()(patches)
    torch.testing.assert_close(branches[1].train()(patches).detach(), plain, rtol=1e-4, atol=1e-5)
    for name, value in branches[0].state_dict().items():
        torch.testing.assert_close(branches[1].state_dict()[name], value, rtol=1e-4, atol=1e-6)
