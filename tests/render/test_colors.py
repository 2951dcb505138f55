"""Native sums of spherical harmonics against PyTorch's."""

import pytest
import torch

from splatsense.native import load_native
from splatsense.render.colors import view_colors
from splatsense.spherical_harmonics import sh_to_rgb


@pytest.mark.skipif(load_native() is None, reason="the native library is not built (make native)")
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize(("views", "n"), [(1, 50), (3, 17), (0, 5), (2, 0)])
def test_native_matches_pytorch(degree, views, n):
    generator = torch.Generator().manual_seed(degree)
    sh = torch.randn(n, (degree + 1) ** 2, 3, generator=generator, dtype=torch.float64)
    directions = torch.randn(views, n, 3, generator=generator, dtype=torch.float64)
    weights = torch.randn(views, n, 3, generator=generator, dtype=torch.float64)
    exact = [tensor.clone().requires_grad_() for tensor in (sh, directions)]
    ours = [tensor.float().requires_grad_() for tensor in (sh, directions)]
    want, got = sh_to_rgb(*exact), view_colors(*ours)
    torch.testing.assert_close(got, want.float(), rtol=1e-5, atol=1e-5)
    want.backward(weights)
    got.backward(weights.float())
    for mine, truth in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.grad, truth.grad.float(), rtol=1e-4, atol=1e-4)
