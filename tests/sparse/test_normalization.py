"""VoxelNorm against PyTorch's batch normalisation in float64."""

import inspect

import pytest
import torch

from splatsense.sparse import VoxelNorm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activate", [True, False])
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(("rows", "channels"), [(1500, 37), (2, 16), (257, 96)])
def test_equals_float64(training, activate, beside, rows, channels):
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(rows, channels, generator=generator) for _ in range(3)]
    drawn[0] = (drawn[0] * 24).round() / 8 + 20.0625  # far from where ReLU has its corner, in any precision
    results = []
    for dtype in (torch.float32, torch.float64):
        norm = VoxelNorm(channels).to(dtype).train(training)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(-1, 2, channels))
            norm.bias.copy_(torch.linspace(1, -1, channels))
            norm.running_mean.fill_(20)
            norm.running_var.fill_(8)
        x, residual, gradient = (tensor.to(dtype, copy=True) for tensor in drawn)
        x.requires_grad_(), residual.requires_grad_()
        output = norm(x, residual if beside else None, activate)
        output.backward(gradient)
        of_residual = [residual.grad] if beside else []
        results.append([output, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers(), *of_residual])
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), exact.double(), rtol=1e-4, atol=1e-4 * float(exact.detach().abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_voxel_gets_the_running_statistics(dtype):
    norm = VoxelNorm(3).to(dtype)
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=dtype)
    torch.testing.assert_close(norm(x), x / (1 + 1e-3) ** 0.5)
    assert torch.equal(norm.running_mean, torch.zeros(3, dtype=dtype))
    assert norm.num_batches_tracked == 0


def test_channels_and_types_that_do_not_fit_raise_as_in_pytorch():
    unchecked = inspect.unwrap(VoxelNorm.forward)
    with pytest.raises(RuntimeError, match="should contain 64 elements not 4"):
        unchecked(VoxelNorm(4).eval(), torch.zeros(10, 64))
    with pytest.raises(RuntimeError, match="type"):
        unchecked(VoxelNorm(4).double().eval(), torch.zeros(10, 4))
    with pytest.raises(RuntimeError, match="size of tensor"):
        unchecked(VoxelNorm(4).eval(), torch.zeros(10, 4), torch.zeros(9, 4))


def test_a_residual_of_another_type_or_size_is_added_as_in_pytorch():
    unchecked, norm, x = inspect.unwrap(VoxelNorm.forward), VoxelNorm(4).eval(), torch.linspace(-2, 2, 40).view(10, 4)
    for residual in (x.bfloat16(), x.double(), x[:1]):
        torch.testing.assert_close(unchecked(norm, x, residual), norm(x) + residual)


def test_nan_stays_nan():
    norm = VoxelNorm(2)
    x = torch.ones(3, 2)
    x[1, 0] = torch.nan
    assert norm(x, activate=True).isnan()[:, 0].all()
