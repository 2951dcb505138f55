import pytest
import torch

from splatsense.gaussians import Gaussians


def make_gaussians(count: int, degree: int = 0, seed: int = 0) -> Gaussians:
    random = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=random),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=random), dim=1),
        scales=torch.rand(count, 3, generator=random) * 0.1 + 1e-4,
        opacities=torch.rand(count, generator=random),
        sh=torch.randn(count, (degree + 1) ** 2, 3, generator=random),
    )


@pytest.fixture
def gaussians() -> Gaussians:
    return make_gaussians(20, degree=1)
