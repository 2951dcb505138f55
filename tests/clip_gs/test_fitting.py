"""Fitting: pictures get closer by far, held-out views stay out of it, and a batch is a loop."""

from dataclasses import fields, replace

import pytest
import torch

from clip_gs.conftest import make_box
from splatsense.cameras import Cameras
from splatsense.clip_gs.fit_optimiser import FitOptimiser
from splatsense.clip_gs.fit_scores import MAX_PSNR, measure
from splatsense.clip_gs.fit_views import FitViews
from splatsense.clip_gs.fitting import FitConfig, default_held_out, fit_batch, fit_gaussians
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians
from splatsense.io.surface import mesh_to_gaussians
from splatsense.native import load_native
from splatsense.render import render
from splatsense.render.mesh import render_mesh

needs_native = pytest.mark.skipif(load_native() is None, reason="the plain PyTorch rasteriser takes minutes for this")
SHORT = FitConfig(gaussians=160, steps=(12, 8), relocate_every=5)
TINY = FitConfig(gaussians=24, steps=(3, 2), relocate_every=3)


def views_of(mesh, views=8, size=32):
    """Cameras and RGBA pictures of a mesh in straight alpha."""
    cameras = Cameras.orbit(views, size=size, elevation=25)
    images = render_mesh(mesh, cameras, supersample=3, shading=0.5)
    color = images.color / images.alpha.clamp_min(1e-6)[..., None]
    return cameras, torch.cat([color.clamp(0, 1), images.alpha[..., None]], dim=-1)


def task(extents=(2, 1, 1), color=(0.8, 0.3, 0.1), count=150, **size):
    mesh = make_box(extents, color).normalized()
    return mesh_to_gaussians(mesh, count), *views_of(mesh, **size)


@pytest.fixture(scope="module")
def box():
    return task()


@pytest.fixture(scope="module")
def small():
    return task(count=24, views=5, size=12)


def premultiplied(images):
    return torch.cat([images[..., :3] * images[..., 3:], images[..., 3:]], dim=-1)


def same(first: Gaussians, second: Gaussians, **tolerance):
    for each in fields(first):
        one, two = getattr(first, each.name), getattr(second, each.name)
        assert torch.allclose(one, two, **tolerance) if tolerance else torch.equal(one, two), each.name


@needs_native
def test_fits_far_above_its_start():
    start, cameras, images = task(count=300, size=48, views=20)
    fit = fit_gaussians(start, cameras, images, FitConfig(gaussians=300, steps=(80, 80)))
    begun = measure(start, cameras, premultiplied(images))
    assert fit.psnr > begun.psnr + 10
    assert fit.psnr > 27
    assert fit.foreground_psnr > begun.foreground_psnr + 6
    assert fit.ssim > begun.ssim + 0.05
    assert fit.train_psnr > begun.psnr + 10
    assert fit.seconds > 0


@needs_native
def test_result_is_what_other_code_expects(box):
    fit = fit_gaussians(*box, SHORT)
    gaussians = fit.gaussians
    assert 0 < len(gaussians) <= SHORT.gaussians
    assert gaussians.sh_degree == 0
    assert torch.allclose(gaussians.quats.norm(dim=1), torch.ones(len(gaussians)))
    assert (gaussians.scales > 0).all()
    assert ((gaussians.opacities >= SHORT.min_opacity) & (gaussians.opacities <= 1)).all()
    assert not any(getattr(gaussians, each.name).requires_grad for each in fields(gaussians))


@needs_native
def test_scores_are_those_of_the_result(box):
    _, cameras, images = box
    fit = fit_gaussians(*box, SHORT, held_out=[1, 6])
    color = render(fit.gaussians, cameras, background=torch.ones(3)).color.clamp(0, 1)
    wanted = images[..., :3] * images[..., 3:] + 1 - images[..., 3:]
    psnr = -10 * (color - wanted).square().mean((1, 2, 3)).log10()
    assert fit.psnr == pytest.approx(psnr[[1, 6]].mean().item(), abs=1e-3)
    assert fit.train_psnr == pytest.approx(psnr[[0, 2, 3, 4, 5, 7]].mean().item(), abs=1e-3)


@needs_native
def test_alpha_is_learnt():
    """A white box on a white background shows only in alpha, which only changing backgrounds can teach."""
    start, cameras, images = task(color=(1, 1, 1), extents=(1.5, 1, 1), count=300, size=48)
    wide = replace(start, scales=start.scales * 2)
    fit = fit_gaussians(wide, cameras, images, FitConfig(gaussians=300, steps=(60, 50)))
    errors = [(render(each, cameras).alpha - images[..., 3]).abs().mean() for each in (wide, fit.gaussians)]
    assert errors[1] < 0.35 * errors[0]


@needs_native
def test_same_seed_same_result(box):
    first, second, other = (fit_gaussians(*box, replace(SHORT, seed=seed)) for seed in (3, 3, 4))
    same(first.gaussians, second.gaussians)
    assert not torch.equal(first.gaussians.means, other.gaussians.means)


@needs_native
def test_held_out_views_never_enter(box):
    start, cameras, images = box
    held_out = [2, 5]
    spoilt = images.clone()
    spoilt[held_out] = torch.rand(spoilt[held_out].shape, generator=torch.Generator().manual_seed(0))
    clean, other = (fit_gaussians(start, cameras, each, SHORT, held_out) for each in (images, spoilt))
    same(clean.gaussians, other.gaussians)
    assert other.psnr < clean.psnr
    assert other.train_psnr == clean.train_psnr


@needs_native
@pytest.mark.parametrize("count", [60, 400])
def test_budget_is_kept_from_shorter_and_longer_starts(count):
    start, cameras, images = task(count=count)
    fit = fit_gaussians(start, cameras, images, replace(SHORT, steps=(30, 0)))
    assert 0.9 * SHORT.gaussians < len(fit.gaussians) <= SHORT.gaussians


@needs_native
def test_relocation_keeps_the_picture_and_the_budget():
    start, cameras, images = task(count=400, size=48)
    config = FitConfig(gaussians=400)
    optimiser = FitOptimiser([start], [FitViews("test", cameras, images, [], seed=0)], config)
    with torch.no_grad():
        optimiser.logit_opacities[::8] = -9
    now = optimiser.one(0)
    before = Gaussians(*(getattr(now, each.name).clone() for each in fields(now)))
    optimiser.relocate(0)
    after = optimiser.one(0)
    assert len(after) == 400
    assert (before.opacities < config.min_opacity).sum() == 50
    assert (after.opacities >= config.min_opacity).all()
    moved = (after.means != before.means).any(1)
    assert moved[::8].all()
    first, second = (render(each, cameras) for each in (before, after))
    assert (first.color - second.color).square().mean() < 1e-3  # 30 dB
    assert (first.alpha - second.alpha).square().mean() < 1e-3


@needs_native
def test_hidden_gaussians_are_relocated(box):
    """Half of the start lies deep inside the box, where no picture shows it; nearly all of it is on the surface in the end."""
    start, cameras, images = box
    inside = replace(start, means=torch.where(torch.arange(len(start))[:, None] % 2 == 0, start.means * 0.05, start.means))
    fit = fit_gaussians(inside, cameras, images, SHORT)
    deep = (fit.gaussians.means.abs() < 0.2).all(1)
    assert deep.sum() < 0.1 * len(start)


@needs_native
def test_batch_equals_loop():
    tasks = [task(), task((1, 2, 0.5), (0.1, 0.5, 0.9), count=100, views=6), task((1, 1, 1), (0.5, 0.5, 0.5), count=200)]
    starts, cameras, images = zip(*tasks, strict=True)
    together = fit_batch(starts, cameras, images, SHORT, [[0], [1, 2], []])
    alone = [fit_gaussians(*each, SHORT, views) for each, views in zip(tasks, ([0], [1, 2], []), strict=True)]
    for one, other in zip(together, alone, strict=True):
        same(one.gaussians, other.gaussians, rtol=1e-3, atol=1e-4)
        assert one.train_psnr == pytest.approx(other.train_psnr, abs=0.05)


@needs_native
def test_curve(box):
    fit = fit_gaussians(*box, replace(SHORT, curve_every=5))
    seconds, psnr = zip(*fit.curve, strict=True)
    assert len(psnr) == sum(SHORT.steps) // 5
    assert list(seconds) == sorted(seconds)
    assert psnr[-1] == pytest.approx(fit.psnr, abs=0.2)
    assert psnr[-1] > psnr[0]


def test_plain_pytorch_fits_as_well(small, monkeypatch):
    """Without the native library the same happens, more slowly."""
    fit = fit_gaussians(*small, TINY)
    monkeypatch.setattr("splatsense.render.backends.load_native", lambda: None)
    monkeypatch.setattr("splatsense.render.photometric.load_native", lambda: None)
    plain = fit_gaussians(*small, TINY)
    assert plain.psnr == pytest.approx(fit.psnr, abs=0.05)
    assert plain.train_psnr == pytest.approx(fit.train_psnr, abs=0.05)
    assert torch.allclose(plain.gaussians.means, fit.gaussians.means, atol=1e-3)


def test_no_view_held_out(small):
    fit = fit_gaussians(*small, TINY, held_out=[])
    assert fit.psnr != fit.psnr  # NaN
    assert fit.train_psnr > 10


@pytest.mark.parametrize("views", [1, 3, 4, 5, 12, 36])
def test_default_held_out(views):
    held_out = default_held_out(views)
    assert len(set(held_out)) == (2 if views >= 4 else 0)
    assert all(0 <= view < views for view in held_out)


def test_equal_pictures_have_the_largest_psnr(small):
    start, cameras, _ = small
    images = render(start, cameras)
    scores = measure(start, cameras, torch.cat([images.color, images.alpha[..., None]], dim=-1))
    assert scores.psnr == pytest.approx(MAX_PSNR)
    assert scores.ssim == pytest.approx(1)


def test_bad_input(small):
    start, cameras, images = small
    with pytest.raises(DataError, match="start holds no Gaussians"):
        fit_gaussians(start[:0], cameras, images, TINY)
    with pytest.raises(DataError, match=r"start\.scales holds NaN"):
        fit_gaussians(replace(start, scales=start.scales * torch.nan), cameras, images, TINY)
    with pytest.raises(DataError, match="4 images of 12 x 12, but 5 cameras of 12 x 12"):
        fit_gaussians(start, cameras, images[:4], TINY)
    with pytest.raises(DataError, match="5 images of 10 x 12, but 5 cameras"):
        fit_gaussians(start, cameras, images[:, :, :10], TINY)
    with pytest.raises(DataError, match="0 views and 0 are held out"):
        fit_gaussians(start, cameras[:0], images[:0], TINY)
    with pytest.raises(DataError, match="none is left to fit to"):
        fit_gaussians(start, cameras, images, TINY, held_out=range(5))
    with pytest.raises(DataError, match="indices of the 5 views"):
        fit_gaussians(start, cameras, images, TINY, held_out=[5])
    with pytest.raises(DataError, match="show nothing"):
        fit_gaussians(start, cameras, images * 0, TINY)
    for value in (torch.nan, torch.inf, 1.5, -0.1):
        broken = images.clone()
        broken[3, 2, 2, 1] = value
        with pytest.raises(DataError, match="image 3 holds values"):
            fit_gaussians(start, cameras, broken, TINY)
    with pytest.raises(DataError, match="fit_batch: got"):
        fit_batch([], [], [], TINY)
    with pytest.raises(DataError, match="fit_batch: got"):
        fit_batch([start], [cameras, cameras], [images], TINY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gaussians": 0}, {"steps": (1, -1)}, {"views_per_step": 0}, {"lr_means": float("nan")}, {"ssim_weight": 1.5},
        {"relocate_every": 0}, {"min_opacity": -1.0}, {"curve_every": -1},
    ],
)  # fmt: skip
def test_config_is_checked(wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        FitConfig(**wrong)
