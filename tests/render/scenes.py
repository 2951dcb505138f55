"""Random scenes for the tests of `render`, and the comparison with the dense oracle."""

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from render.dense_oracle import dense_images
from splatsense.cameras import Cameras
from splatsense.gaussians import Gaussians
from splatsense.render import RasterSettings, Rendering
from splatsense.render.settings import DEFAULT_SETTINGS


def random_scene(
    n: int, features: int, views: int, width: int, height: int, degree: int = 0, seed: int = 0
) -> tuple[Gaussians, Tensor, Cameras]:
    """Gaussians in a ball, a tenth of them behind the first camera; float64 values that float32 holds exactly."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    eyes = normalize(normal(views, 3), dim=-1) * (2.5 + uniform(views, 1))
    fov = float(25 + 60 * uniform(()))
    cameras = Cameras.look_at(eyes, 0.2 * normal(3), torch.tensor([0.0, 1.0, 0.0]), width, height, fov)
    K = cameras.K.clone()
    K[:, 0, 0] *= 0.8 + 0.4 * uniform(views)
    K[:, :2, 2] += 3 * normal(views, 2)
    means = normal(n, 3) * 0.6
    behind = uniform(n) < 0.1
    means[behind] += 2 * eyes[:1].expand(n, 3)[behind]
    scales = 0.15 * torch.exp(0.7 * normal(n, 3))
    values = (means, normal(n, 4), scales, uniform(n).clamp(0.02, 0.9995), 0.4 * normal(n, (degree + 1) ** 2, 3))
    return (
        Gaussians(*(value.double() for value in values)),
        normal(n, features).double(),
        Cameras(cameras.world_to_camera, K, width, height),
    )


def with_gradients(gaussians: Gaussians, features: Tensor, dtype: torch.dtype) -> tuple[Gaussians, dict[str, Tensor]]:
    """A copy whose tensors are leaves that record gradients, and those leaves by name."""
    leaves = {f.name: getattr(gaussians, f.name).to(dtype).clone().requires_grad_() for f in fields(gaussians)}
    copy = Gaussians(**leaves)
    return copy, leaves | {"features": features.to(dtype).clone().requires_grad_()}


def with_camera_gradients(cameras: Cameras, dtype: torch.dtype) -> tuple[Cameras, dict[str, Tensor]]:
    """As `with_gradients`, for `world_to_camera`."""
    leaf = cameras.world_to_camera.to(dtype).clone().requires_grad_()
    return replace(cameras, world_to_camera=leaf), {"world_to_camera": leaf}


def assert_matches_oracle(
    gaussians: Gaussians, features: Tensor, cameras: Cameras, draw: Callable[..., Rendering], dtype: torch.dtype,
    gradient_tolerance: float = 1e-4, settings: RasterSettings = DEFAULT_SETTINGS,
) -> None:  # fmt: skip
    """Images within 2e-5 and gradients within 1e-4 of the float64 oracle, away from pixels that a threshold splits."""
    exact, exact_leaves = with_gradients(gaussians, features, torch.float64)
    ours, leaves = with_gradients(gaussians, features, dtype)
    exact_cameras, exact_camera_leaves = with_camera_gradients(cameras, torch.float64)
    our_cameras, camera_leaves = with_camera_gradients(cameras, dtype)
    exact_leaves, leaves = exact_leaves | exact_camera_leaves, leaves | camera_leaves
    want = dense_images(exact, exact_cameras, exact_leaves["features"], settings)
    got = draw(ours, our_cameras, features=leaves["features"], settings=settings)
    steady = want.steady
    assert steady.double().mean() > 0.5, "the scene must leave something to compare"
    generator = torch.Generator().manual_seed(1)
    losses = []
    for name, tolerance in {"color": 2e-5, "features": 2e-4, "alpha": 2e-5, "depth": 2e-4}.items():
        mine, truth = getattr(got, name), getattr(want, name)
        error = (mine - truth).detach().abs()[steady]
        assert error.numel() == 0 or error.max() < tolerance, f"{name}: off by {error.max():.1e}"
        weight = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
        weight *= steady.reshape(*steady.shape, *[1] * (truth.ndim - 3))
        losses.append(((mine * weight.to(dtype)).sum(), (truth * weight).sum()))
    sum(mine for mine, _ in losses).backward()
    sum(truth for _, truth in losses).backward()
    for name, leaf in leaves.items():
        exact_leaf = exact_leaves[name]
        truth = torch.zeros_like(exact_leaf) if exact_leaf.grad is None else exact_leaf.grad
        if truth.numel() == 0:
            continue
        assert leaf.grad is not None, f"{name} got no gradient"
        error = leaf.grad.double() - truth
        assert error.norm() <= gradient_tolerance * truth.norm(), f"d{name}: relative error {error.norm() / truth.norm():.1e}"
        assert error.abs().max() <= gradient_tolerance * truth.abs().max(), (
            f"d{name}: largest error {error.abs().max() / truth.abs().max():.1e}"
        )
