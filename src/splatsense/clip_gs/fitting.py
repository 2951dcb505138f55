"""3D Gaussians fitted to views of an object by optimisation (paper, section 3.1; 3DGS, Kerbl et al. 2023).

Design
- The start is close already (`io.surface`): each Gaussian takes the mean colour of the pixels it shows, those that no picture
  shows are relocated, and a few hundred steps do the rest, from small pictures to full ones.
- Loss (1 - w) l1 + w (1 - SSIM) as 3DGS, over a random background in each step, so that alpha is learnt; Adam with higher
  rates than 3DGS's, which all fall exponentially, because the schedule is a hundred times shorter.
- The number of Gaussians is a fixed budget: transparent and hidden ones are relocated (`relocation.py`), never added; those
  transparent in the end are left out of the result.
- A batch of objects is packed: one rasteriser call and one optimiser step for all. Every object draws from a generator of its
  own, so it comes out as it would alone.
- Raw parameters (`log_scales`, `logit_opacities`) live here only. Colours are of SH degree 0.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.cameras import Cameras
from splatsense.clip_gs.fit_scores import measure
from splatsense.clip_gs.fit_views import FitViews
from splatsense.clip_gs.relocation import MAX_OPACITY, draw_sources, shared_out
from splatsense.errors import DataError
from splatsense.gaussians import Gaussians
from splatsense.render import Rendering, render, render_batch
from splatsense.render.photometric import photometric_loss
from splatsense.spherical_harmonics import SH_C0

SHRINKS = (4, 2, 1)  # of the pictures, stage by stage
VIEWS_AT_ONCE = 8  # drawn together where all views of an object are looked at
MIN_WEIGHT = 1e-3  # pixels that a Gaussian has to make up to take its colour from them
MIN_OPACITY, MIN_SCALE = 1e-4, 1e-6  # a start is raised to these, so that its raw values are finite


@dataclass(frozen=True)
class FitConfig:
    """How Gaussians are fitted. Learning rates are those of the first step."""

    gaussians: int = 4096
    """Budget of Gaussians. A longer start is thinned out, a shorter one filled up by copies."""
    steps: tuple[int, int, int] = (60, 120, 200)
    """Steps with pictures of a quarter, half and the full size."""
    views_per_step: int = 1
    """Views compared in each step."""
    lr_means: float = 4e-3
    """Learning rate of the centres, world units."""
    lr_scales: float = 8e-2
    """Learning rate of the logarithms of the scales."""
    lr_quats: float = 1e-2
    """Learning rate of the quaternions."""
    lr_opacities: float = 5e-2
    """Learning rate of the logits of the opacities."""
    lr_sh: float = 2e-2
    """Learning rate of the colour coefficients."""
    lr_end: float = 0.1
    """Learning rates of the last step relative to the first; exponential in between."""
    ssim_weight: float = 0.2
    """Share of 1 - SSIM in the loss, 0 to 1; the rest is l1."""
    relocate_every: int = 50
    """Steps between two relocations; there is always one before the first step."""
    relocate_until: float = 0.7
    """Share of all steps after which nothing is relocated any more."""
    min_opacity: float = 0.005
    """Gaussians less opaque are dead."""
    min_pixels: float = 2.0
    """Gaussians that make up fewer pixels than this in all half-size views together are dead."""
    curve_every: int = 0
    """Steps between two entries of `Fit.curve`; 0 leaves it empty."""
    seed: int = 0
    """Of the order of views, backgrounds and relocation."""

    def __post_init__(self) -> None:
        for name in ("gaussians", "views_per_step", "relocate_every"):
            if getattr(self, name) < 1:
                raise DataError(f"FitConfig.{name} must be at least 1, got {getattr(self, name)}.")
        if min(self.steps) < 0 or self.curve_every < 0:
            raise DataError(f"FitConfig: steps and curve_every must not be negative, got {self.steps} and {self.curve_every}.")
        for name in ("lr_means", "lr_scales", "lr_quats", "lr_opacities", "lr_sh", "min_pixels"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise DataError(f"FitConfig.{name} must be finite and at least 0, got {getattr(self, name)}.")
        for name in ("ssim_weight", "relocate_until", "lr_end", "min_opacity"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"FitConfig.{name} must lie in [0, 1], got {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class Fit:
    """Fitted Gaussians and how well they show the views. PSNR is of RGB over white, whole pictures, unless said otherwise."""

    gaussians: Gaussians
    """SH degree 0; at most the budget, as transparent ones are left out."""
    psnr: float
    """dB, mean over the held-out views; NaN if there are none."""
    ssim: float
    """Mean over the held-out views; NaN if there are none."""
    foreground_psnr: float
    """dB over the pixels that the object covers, mean over the held-out views; NaN if there are none."""
    train_psnr: float
    """dB, mean over the views that were fitted to."""
    seconds: float
    """Time it took, without measuring; of a batch, an equal share."""
    curve: list[tuple[float, float]] = field(default_factory=list)
    """(seconds, held-out PSNR) every `FitConfig.curve_every` steps."""


DEFAULT = FitConfig()


def default_held_out(views: int) -> tuple[int, ...]:
    """Two of `views` views, on about opposite sides of an orbit and of unlike parity; none of fewer than four."""
    return (views // 4, (views // 4 + views // 2 + 1) % views) if views >= 4 else ()


def fit_gaussians(
    start: Gaussians,
    cameras: Cameras,
    images: Float[Tensor, "v h w 4"],
    config: FitConfig = DEFAULT,
    held_out: Sequence[int] | None = None,
) -> Fit:
    """Optimise Gaussians until they look like the views.

    Args:
        start: what to begin with, for example `io.surface.mesh_to_gaussians`. Of higher spherical harmonics only DC is used.
        cameras: V cameras.
        images: RGBA in [0, 1], alpha not premultiplied.
        config: how to fit.
        held_out: views that are not fitted to but measured; by default `default_held_out`.

    Raises:
        DataError: inputs are empty, do not fit together, are not finite or lie on different devices; no view is left to fit to;
            or the pictures show nothing.
    """
    return fit_batch([start], [cameras], [images], config, None if held_out is None else [held_out])[0]


def fit_batch(
    starts: Sequence[Gaussians],
    cameras: Sequence[Cameras],
    images: Sequence[Float[Tensor, "_ h w 4"]],
    config: FitConfig = DEFAULT,
    held_out: Sequence[Sequence[int]] | None = None,
) -> list[Fit]:
    """`fit_gaussians` of B objects at once: the same results but for rounding, and on a GPU far faster than a loop.

    Args:
        starts: of each object.
        cameras: of each object; pictures are of one size throughout, views may differ in number.
        images: of each object.
        config: how to fit.
        held_out: of each object.

    Raises:
        DataError: as in `fit_gaussians`, or the sequences are empty or differ in length, or picture sizes differ.
    """
    counts = [len(starts), len(cameras), len(images), len(starts if held_out is None else held_out)]
    if min(counts) == 0 or len(set(counts)) > 1:
        raise DataError(f"fit_batch: got {counts} starts, cameras, images and held_out; equally many are needed, at least one.")
    device = starts[0].means.device
    begin = _now(device)
    objects = []
    for index, (start, each, pictures) in enumerate(zip(starts, cameras, images, strict=True)):
        name = f"fit_batch: object {index}" if len(starts) > 1 else "fit_gaussians"
        _check_start(name, start, each, pictures, device)
        views = default_held_out(len(each)) if held_out is None else held_out[index]
        objects.append(FitViews(name, each, pictures, views, config.seed))
    fitting = _Fitting(starts, objects, config)
    curves: list[list[tuple[float, float]]] = [[] for _ in objects]
    for step in range(sum(config.steps)):
        fitting.step(step)
        if config.curve_every and (step + 1) % config.curve_every == 0:
            stopped = _now(device)
            for index, (views, curve) in enumerate(zip(objects, curves, strict=True)):
                curve.append(((stopped - begin) / len(objects), measure(fitting.one(index), *views.take(views.held_out)).psnr))
            begin += _now(device) - stopped
    results = [fitting.result(index) for index in range(len(objects))]
    seconds = (_now(device) - begin) / len(objects)
    fits = []
    for views, gaussians, curve in zip(objects, results, curves, strict=True):
        unseen, seen = (measure(gaussians, *views.take(which)) for which in (views.held_out, views.train))
        fits.append(Fit(gaussians, unseen.psnr, unseen.ssim, unseen.foreground_psnr, seen.psnr, seconds, curve))
    return fits


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _check_start(name: str, start: Gaussians, cameras: Cameras, images: Tensor, device: torch.device) -> None:
    if len(start) == 0:
        raise DataError(f"{name}: the start holds no Gaussians.")
    for part in ("means", "quats", "scales", "opacities", "sh"):
        if not bool(getattr(start, part).isfinite().all()):
            raise DataError(f"{name}: start.{part} holds NaN or infinity.")
    devices = {str(each) for each in (device, start.means.device, cameras.K.device, images.device)}
    if len(devices) > 1:
        raise DataError(f"{name}: start, cameras and images lie on {', '.join(sorted(devices))}; move them with .to(device).")


class _Fitting:
    """Raw parameters of B objects, each of the budget's size, one after the other, and their optimiser."""

    def __init__(self, starts: Sequence[Gaussians], objects: Sequence[FitViews], config: FitConfig) -> None:
        self.config, self.objects, self.budget = config, objects, config.gaussians
        begun = Gaussians.cat([_within_budget(start, config) for start in starts])
        self.means = begun.means.requires_grad_()
        self.log_scales = begun.scales.clamp_min(MIN_SCALE).log().requires_grad_()
        self.quats = normalize(begun.quats, dim=-1).requires_grad_()
        self.logit_opacities = begun.opacities.clamp(MIN_OPACITY, MAX_OPACITY).logit().requires_grad_()
        self.sh = begun.sh.requires_grad_()
        rates = {"means": config.lr_means, "log_scales": config.lr_scales, "quats": config.lr_quats}
        self.rates = rates | {"logit_opacities": config.lr_opacities, "sh": config.lr_sh}
        groups = [{"params": [getattr(self, name)], "name": name} for name in self.rates]
        self.optimiser = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-8, fused=True)
        for index in range(len(objects)):
            self._take_colors(index)
            self._relocate(index)

    def _gaussians(self) -> list[Gaussians]:
        fields = (self.means, self.quats, self.log_scales.exp(), self.logit_opacities.sigmoid(), self.sh)
        return [Gaussians(*parts) for parts in zip(*(each.split(self.budget) for each in fields), strict=True)]

    def one(self, index: int) -> Gaussians:
        """The Gaussians of one object as they are now."""
        now = self._gaussians()[index]
        return Gaussians(*(each.detach() for each in (now.means, now.quats, now.scales, now.opacities, now.sh)))

    @torch.no_grad()
    def result(self, index: int) -> Gaussians:
        """The Gaussians of one object that are not transparent, with unit quaternions."""
        gaussians = self.one(index)
        gaussians = gaussians[gaussians.opacities >= self.config.min_opacity]
        return replace(gaussians, quats=normalize(gaussians.quats, dim=-1))

    def step(self, step: int) -> None:
        """One step of all objects, and relocation when it is due."""
        config, count = self.config, self.config.views_per_step
        progress = step / sum(config.steps)
        shrink = next(shrink for shrink, end in zip(SHRINKS, accumulate(config.steps), strict=True) if step < end)
        taken = [views.take(views.draw(count), shrink) for views in self.objects]
        cameras, targets = [each for each, _ in taken], torch.cat([target for _, target in taken])
        background = torch.cat([torch.rand(count, 3, generator=views.generator) for views in self.objects]).to(targets)
        images = render_batch(self._gaussians(), cameras)
        loss = photometric_loss(images.color, images.alpha, targets, background, config.ssim_weight)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rates[group["name"]] * config.lr_end**progress
        self.optimiser.zero_grad()
        (loss.sum() / count).backward()
        self.optimiser.step()
        done = step + 1
        if done % config.relocate_every == 0 and done <= config.relocate_until * sum(config.steps):
            for index in range(len(self.objects)):
                self._relocate(index)

    @torch.no_grad()
    def _take_colors(self, index: int) -> None:
        """Each Gaussian of an object takes the mean colour of the pixels it shows."""
        sums = self._sums(index, 4, lambda images, targets: targets)
        shown = sums[:, 3] > MIN_WEIGHT
        color = ((sums[:, :3] / sums[:, 3:]) - 0.5) / SH_C0
        rows = self.sh[self._rows(index)]
        rows[shown, 0] = color[shown]

    @torch.no_grad()
    def _relocate(self, index: int) -> None:
        """Replace the dead Gaussians of an object by copies of those at whose pixels the error is largest."""
        sums = self._sums(index, 2, _error_and_one)
        gaussians = self.one(index)
        dead = (gaussians.opacities < self.config.min_opacity) | (sums[:, 1] < self.config.min_pixels)
        rows, sources = draw_sources(dead, sums[:, 0], self.objects[index].generator)
        copies = 1 + sources.bincount(minlength=self.budget)
        opacities, scales = shared_out(gaussians.opacities, gaussians.scales, copies)
        copied = copies > 1
        of_object = self._rows(index)
        self.logit_opacities[of_object][copied] = opacities[copied].clamp(MIN_OPACITY, MAX_OPACITY).logit()
        self.log_scales[of_object][copied] = scales[copied].clamp_min(MIN_SCALE).log()
        for name in self.rates:
            values = getattr(self, name)
            values[of_object][rows] = values[of_object][sources]
            for moments in (state for state in self.optimiser.state[values].values() if state.shape == values.shape):
                moments[of_object][rows] = 0
                moments[of_object][copied] = 0

    def _sums(self, index: int, channels: int, values: Callable[[Rendering, Tensor], Tensor]) -> Float[Tensor, "n c"]:
        """For each Gaussian of an object, pixel values times its compositing weights, summed over all views that are fitted to.

        That is the gradient of features which are composited, where that of their picture is the pixel values. The views are
        taken at half size.
        """
        gaussians, views = self.one(index), self.objects[index]
        total = gaussians.means.new_zeros(len(gaussians), channels)
        for part in views.train.split(VIEWS_AT_ONCE):
            cameras, targets = views.take(part, 2)
            features = torch.zeros_like(total, requires_grad=True)
            with torch.enable_grad():
                images = render(gaussians, cameras, features=features)
            total += torch.autograd.grad(images.features, features, values(images, targets))[0]
        return total

    def _rows(self, index: int) -> slice:
        return slice(index * self.budget, (index + 1) * self.budget)


def _error_and_one(images: Rendering, targets: Tensor) -> Tensor:
    """(V, H, W, 2) the sum of absolute differences in premultiplied RGBA, and 1."""
    error = (torch.cat([images.color, images.alpha[..., None]], dim=-1) - targets).abs().sum(-1)
    return torch.stack([error, torch.ones_like(error)], dim=-1)


def _within_budget(start: Gaussians, config: FitConfig) -> Gaussians:
    """As many Gaussians of SH degree 0 as the budget has: thinned out, or filled up with transparent ones to be relocated."""
    start = start.subsample(config.gaussians, config.seed)
    missing = config.gaussians - len(start)
    blank = start[torch.zeros(missing, dtype=torch.long, device=start.means.device)]
    whole = Gaussians.cat([start, replace(blank, opacities=torch.zeros_like(blank.opacities))])
    return Gaussians(
        *(each.detach().float() for each in (whole.means, whole.quats, whole.scales, whole.opacities, whole.sh[:, :1]))
    )
