"""`RasterSettings`: each against the dense oracle in every backend and build, by hand, and in what it is for."""

import math
from functools import partial

import pytest
import torch

from render.scenes import assert_matches_oracle, random_scene
from splatsense.cameras import Cameras
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians
from splatsense.native import load_native
from splatsense.render import RasterSettings, render

SETTINGS = [
    RasterSettings(antialiased=True),
    RasterSettings(depth="median"),
    RasterSettings(near_plane=2.4, far_plane=3.1),
    RasterSettings(radius_clip=9.5),
    RasterSettings(eps2d=2.0),
    RasterSettings(antialiased=True, depth="median", near_plane=2.0, far_plane=3.3, radius_clip=6, eps2d=0.6),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reference_matches_the_dense_oracle(settings, dtype):
    gaussians, feature, cameras = random_scene(70, 2, 2, 35, 27, 1, seed=8)
    assert_matches_oracle(gaussians, feature, cameras, partial(render, backend="reference"), dtype, settings=settings)


@pytest.mark.skipif(load_native() is None, reason="the native library is not built (make native)")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("n", "features", "views"), [(70, 2, 2), (120, 40, 1)])
@pytest.mark.usefixtures("level")
def test_native_matches_the_dense_oracle(settings, n, features, views):
    gaussians, feature, cameras = random_scene(n, features, views, 35, 27, 1, seed=8)
    assert_matches_oracle(gaussians, feature, cameras, partial(render, backend="native"), torch.float32, settings=settings)


def test_each_setting_matters():
    """The scene of the tests above has something to drop, to fade and to tell apart for every setting."""
    gaussians, _, cameras = random_scene(70, 2, 2, 35, 27, 1, seed=8)
    plain = render(gaussians, cameras)
    for settings in SETTINGS:
        changed = render(gaussians, cameras, settings=settings)
        image = "depth" if settings == RasterSettings(depth="median") else "color"
        assert not torch.allclose(getattr(changed, image), getattr(plain, image), atol=1e-2)
        assert bool(changed.alpha.any())


def column(z: list[float], opacities: list[float], scale: float = 0.2) -> tuple[Gaussians, Cameras]:
    """Gaussians behind one another on the axis of a camera whose middle pixel they all cover."""
    n = len(z)
    means = torch.tensor([[0.0, 0.0, depth] for depth in z])
    quats, rgb = torch.tensor([[1.0, 0, 0, 0]]).expand(n, 4), torch.ones(n, 3)
    cameras = Cameras(torch.eye(4)[None], torch.tensor([[[20.0, 0, 8.5], [0, 20.0, 8.5], [0, 0, 1]]]), 17, 17)
    return Gaussians.from_rgb(means, quats, torch.full((n, 3), scale), torch.tensor(opacities), rgb), cameras


def test_antialiasing_by_hand(backend):
    """An isotropic Gaussian of variance s2 px^2 fades by s2 / (s2 + eps2d)."""
    gaussians, cameras = column([2.0], [0.8], scale=0.05)
    sharp = render(gaussians, cameras, settings=RasterSettings(eps2d=0.7), backend=backend)
    faded = render(gaussians, cameras, settings=RasterSettings(eps2d=0.7, antialiased=True), backend=backend)
    variance = (20 * 0.05 / 2) ** 2
    assert sharp.alpha[0, 8, 8].item() == pytest.approx(0.8, abs=1e-6)
    assert faded.alpha[0, 8, 8].item() == pytest.approx(0.8 * variance / (variance + 0.7), abs=1e-6)


def test_antialiasing_keeps_brightness_at_low_resolution(backend):
    """A Gaussian much smaller than a pixel adds up to the same, however coarse the pixels are; without, it grows with them."""
    gaussians, _ = column([2.0], [0.5], scale=0.05)

    def total(size: int, antialiased: bool) -> float:
        K = torch.tensor([[[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1]]])
        cameras = Cameras(torch.eye(4)[None], K, size, size)
        result = render(gaussians, cameras, settings=RasterSettings(antialiased=antialiased), backend=backend)
        return result.alpha.sum().item() / size**2

    assert total(24, antialiased=True) == pytest.approx(total(384, antialiased=True), rel=0.05)
    assert total(24, antialiased=False) > 1.5 * total(384, antialiased=False)


@pytest.mark.parametrize(("opacities", "want"), [([0.4, 0.4, 0.4], 3.0), ([0.6, 0.9, 0.1], 2.0), ([0.2, 0.2, 0.2], 0.0)])
def test_median_depth_by_hand(backend, opacities, want):
    gaussians, cameras = column([2.0, 3.0, 4.0], opacities)
    gaussians = gaussians[torch.tensor([2, 0, 1])]  # the order in memory does not matter
    gaussians.means.requires_grad_()
    depth = render(gaussians, cameras, settings=RasterSettings(depth="median"), backend=backend).depth[0]
    assert depth[8, 8].item() == want
    assert depth[0, 0].item() == 0
    depth[8, 8].backward()
    expected = torch.zeros(3, 3)
    expected[:, 2] = (gaussians.means[:, 2] == want).float()
    assert torch.equal(gaussians.means.grad, expected)


def test_planes_include_their_own_depth(backend):
    gaussians, cameras = column([2.0], [0.5])
    for near, far, drawn in [(2.0, 3.0, True), (1.0, 2.0, True), (2.001, 3.0, False), (1.0, 1.999, False)]:
        settings = RasterSettings(near_plane=near, far_plane=far)
        assert bool(render(gaussians, cameras, settings=settings, backend=backend).alpha.any()) == drawn


def test_radius_clip_counts_whole_pixels(backend):
    """Reach: sqrt(2 ln(255 * 0.8) * (4 + 0.3)) = 6.76 px, 7 whole ones."""
    gaussians, cameras = column([2.0], [0.8])
    assert math.sqrt(2 * math.log(255 * 0.8) * 4.3) == pytest.approx(6.76, abs=0.01)
    for clip, drawn in [(6.0, True), (6.99, True), (7.0, False), (8.0, False)]:
        result = render(gaussians, cameras, settings=RasterSettings(radius_clip=clip), backend=backend)
        assert bool(result.alpha.any()) == drawn


def test_edge_on_disc_vanishes_when_antialiased(backend):
    """A disc seen edge on covers nothing: det(cov) = 0, so it is not drawn and its gradients are 0, not NaN."""
    gaussians, cameras = column([2.0], [0.8])
    flat = Gaussians(*(value.clone().requires_grad_() for value in vars(gaussians).values()))
    with torch.no_grad():
        flat.scales[0, 0] = 0
    result = render(flat, cameras, settings=RasterSettings(antialiased=True), backend=backend)
    assert not result.alpha.any()
    result.color.sum().backward()
    assert not flat.scales.grad.any()
    assert bool(render(flat, cameras, backend=backend).alpha.any())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"near_plane": 0.0}, "0 < near_plane < far_plane"),
        ({"near_plane": 2.0, "far_plane": 1.0}, "0 < near_plane < far_plane"),
        ({"far_plane": math.nan}, "0 < near_plane < far_plane"),
        ({"radius_clip": -1.0}, "radius_clip must be finite and at least 0"),
        ({"eps2d": math.inf}, "eps2d must be finite and at least 0"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(DataError, match=message):
        RasterSettings(**changes)


def test_settings_that_native_cannot_hold():
    """Values that float32 rounds away must not turn into others."""
    gaussians, cameras = column([2.0], [0.8])
    everything = RasterSettings(near_plane=1e-60, far_plane=1e60, radius_clip=0.0, eps2d=0.3)
    assert torch.equal(render(gaussians, cameras, settings=everything).alpha, render(gaussians, cameras).alpha)
