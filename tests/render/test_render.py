"""`render`: the reference against the dense oracle, what both backends promise, and the errors."""

import dataclasses
from functools import partial

import pytest
import torch

from render.scenes import assert_matches_oracle, random_scene
from splatsense.cameras import Cameras
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians
from splatsense.render import RasterSettings, reference, render


def floats(gaussians: Gaussians) -> Gaussians:
    return Gaussians(*(tensor.float() for tensor in vars(gaussians).values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n", "features", "views", "width", "height", "degree"), [(80, 0, 1, 40, 30, 0), (40, 5, 2, 19, 23, 3), (1, 2, 1, 9, 9, 1)]
)
def test_reference_matches_the_dense_oracle(n, features, views, width, height, degree, dtype):
    gaussians, feature, cameras = random_scene(n, features, views, width, height, degree, seed=n)
    assert_matches_oracle(gaussians, feature, cameras, partial(render, backend="reference"), dtype)


def test_reference_in_small_batches_is_the_same(monkeypatch):
    gaussians, feature, cameras = random_scene(80, 1, 1, 40, 30)
    whole = render(gaussians, cameras, features=feature, backend="reference")
    monkeypatch.setattr(reference, "BATCH_PAIRS", 1)
    parts = render(gaussians, cameras, features=feature, backend="reference")
    torch.testing.assert_close(parts.color, whole.color)


@pytest.mark.parametrize("degree", [0, 3])
@pytest.mark.parametrize("settings", [RasterSettings(), RasterSettings(antialiased=True, depth="median", eps2d=0.5)], ids=str)
def test_reference_gradcheck(degree, settings):
    """Every differentiable input against finite differences; the cameras' centres and the means steer the colours, too."""
    gaussians, feature, cameras = random_scene(5, 2, 2, 9, 7, degree, seed=4)
    gaussians = dataclasses.replace(gaussians, scales=gaussians.scales * 3)

    def images(*tensors):
        views = dataclasses.replace(cameras, world_to_camera=tensors[7])
        result = render(
            Gaussians(*tensors[:5]), views, features=tensors[5], background=tensors[6], settings=settings, backend="reference"
        )
        return result.color, result.features, result.depth, result.alpha

    background = torch.tensor([[0.2, 0.5, 0.9], [0.1, 0.0, 1.0]], dtype=torch.float64)
    inputs = (*vars(gaussians).values(), feature, background, cameras.world_to_camera.double())
    assert torch.autograd.gradcheck(images, [tensor.clone().requires_grad_() for tensor in inputs], fast_mode=True)


def test_one_gaussian_by_hand(backend):
    """At the pixel of its mean alpha is the opacity; elsewhere exp(-r^2 / 2 sigma^2), sigma^2 = (f s / z)^2 + 0.3."""
    cameras = Cameras(torch.eye(4)[None], torch.tensor([[[20.0, 0, 8.5], [0, 20.0, 8.5], [0, 0, 1]]]), 17, 17)
    gaussian = Gaussians.from_rgb(
        torch.tensor([[0.0, 0, 2]]),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1, 3), 0.2),
        torch.tensor([0.8]),
        torch.tensor([[1.0, 0.5, 0.25]]),
    )
    result = render(gaussian, cameras, background=torch.tensor([0.0, 0.0, 1.0]), backend=backend)
    assert result.alpha[0, 8, 8].item() == pytest.approx(0.8, abs=1e-6)
    assert result.alpha[0, 8, 11].item() == pytest.approx(0.8 * torch.exp(torch.tensor(-9 / 2 / (4 + 0.3))).item(), abs=1e-6)
    assert result.depth[0, 8, 8].item() == pytest.approx(2, abs=1e-6)
    assert result.depth[0, 0, 0].item() == 0
    assert result.color[0, 8, 8].tolist() == pytest.approx([0.8, 0.4, 0.8 * 0.25 + 0.2], abs=1e-6)
    assert result.color[0, 0, 0].tolist() == [0, 0, 1]


def test_nothing_to_draw(backend):
    gaussians, feature, cameras = random_scene(12, 2, 2, 10, 8)
    gaussians, feature = floats(gaussians), feature.float()
    away = dataclasses.replace(gaussians, means=gaussians.means + 1000 * cameras.centers[0])
    for nothing in (gaussians[:0], away):
        leaf = nothing.means.clone().requires_grad_()
        result = render(
            dataclasses.replace(nothing, means=leaf), cameras[:1], features=feature[: len(nothing)], backend=backend
        )
        assert result.color.shape == (1, 8, 10, 3)
        assert not result.color.any()
        assert not result.depth.any()
        assert not result.alpha.any()
        result.color.sum().backward()
        assert leaf.grad is not None
        assert not leaf.grad.any()
    leaf = gaussians.scales.clone().requires_grad_()
    no_views = render(dataclasses.replace(gaussians, scales=leaf), cameras[:0], features=feature, backend=backend)
    assert no_views.features.shape == (0, 8, 10, 2)
    if no_views.color.requires_grad:
        no_views.color.sum().backward()
        assert not leaf.grad.any()


def test_views_are_independent(backend):
    gaussians, feature, cameras = random_scene(60, 2, 3, 20, 20, degree=2)
    together = render(floats(gaussians), cameras, features=feature.float(), backend=backend)
    for v in range(3):
        alone = render(floats(gaussians), cameras[v : v + 1], features=feature.float(), backend=backend)
        torch.testing.assert_close(alone.color[0], together.color[v])
        torch.testing.assert_close(alone.depth[0], together.depth[v])


def test_strided_tensors(backend):
    gaussians, feature, cameras = random_scene(30, 4, 1, 16, 16)
    strided = Gaussians(*(torch.stack([t.float()] * 2, dim=-1)[..., 0] for t in vars(gaussians).values()))
    assert not strided.means.is_contiguous()
    want = render(floats(gaussians), cameras, features=feature.float(), backend=backend)
    got = render(strided, cameras, features=feature.float().T.contiguous().T, backend=backend)
    assert torch.equal(got.color, want.color)
    assert torch.equal(got.features, want.features)


def test_auto_takes_what_fits():
    gaussians, _, cameras = random_scene(10, 0, 1, 8, 8)
    assert render(gaussians, cameras).color.dtype == torch.float64
    assert render(floats(gaussians), cameras).color.dtype == torch.float32


def test_errors_name_what_is_wrong():
    gaussians, feature, cameras = random_scene(4, 2, 1, 8, 8)
    gaussians_float64, gaussians, feature = gaussians, floats(gaussians), feature.float()

    def broken_camera(**changes):
        return dataclasses.replace(cameras, **changes)

    nan = cameras.world_to_camera.clone()
    nan[0, 0, 3] = float("nan")
    skewed, flipped = cameras.K.clone(), cameras.K.clone()
    skewed[0, 0, 1] = 1.0
    flipped[0, 0, 0] = -1.0
    K = cameras.K.clone().requires_grad_()
    cases = {
        r"features has shape \(3, 2\), expected \(4, C\)": lambda: render(gaussians, cameras, features=feature[:3]),
        r"background has shape \(1,\)": lambda: render(gaussians, cameras, background=torch.zeros(1)),
        r"features is torch.float64": lambda: render(gaussians, cameras, features=feature.double()),
        r"Gaussians.scales is torch.float64": lambda: render(
            dataclasses.replace(gaussians, scales=gaussians.scales.double()), cameras
        ),
        r"Gaussians.means is torch.int64": lambda: render(
            dataclasses.replace(gaussians, means=gaussians.means.long()), cameras
        ),
        r"NaN or infinity": lambda: render(gaussians, broken_camera(world_to_camera=nan)),
        r"no skew": lambda: render(gaussians, broken_camera(K=skewed)),
        r"positive focal": lambda: render(gaussians, broken_camera(K=flipped)),
        r"K get no gradient": lambda: render(gaussians, broken_camera(K=K)),
        r"at most 65535 pixels": lambda: render(gaussians, broken_camera(width=65536)),
        r"on meta": lambda: render(gaussians.to("meta"), cameras),
        r"takes float32 on CPU": lambda: render(gaussians_float64, cameras, backend="native"),
    }
    for message, call in cases.items():
        with pytest.raises(DataError, match=message):
            call()
