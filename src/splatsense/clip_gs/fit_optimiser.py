"""`FitOptimiser`: the raw parameters of the Gaussians of many objects, optimised together, and their relocation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.clip_gs.fit_config import FitConfig
from splatsense.clip_gs.fit_views import FitViews
from splatsense.clip_gs.relocation import MAX_OPACITY, draw_sources, shared_out
from splatsense.gaussians import Gaussians
from splatsense.render import Rendering, render, render_batch
from splatsense.render.photometric import photometric_loss
from splatsense.spherical_harmonics import SH_C0

SHRINKS = (2, 1)  # of the pictures, stage by stage
VIEWS_AT_ONCE = 8  # drawn together where many views of an object are looked at
RELOCATION_VIEWS = 12  # looked at to decide what is dead and where the error is
MIN_WEIGHT = 1e-3  # pixels that a Gaussian has to make up to take its colour from them
MIN_OPACITY, MIN_SCALE = 1e-4, 1e-6  # a start is raised to these, so that its raw values are finite


class FitOptimiser:
    """Raw parameters of B objects, each of the budget's size, one after the other, and their optimiser."""

    def __init__(self, starts: Sequence[Gaussians], objects: Sequence[FitViews], config: FitConfig) -> None:
        """Colours the starts and relocates what is hidden."""
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
            self.relocate(index)

    def _gaussians(self) -> list[Gaussians]:
        fields = (self.means, self.quats, self.log_scales.exp(), self.logit_opacities.sigmoid(), self.sh)
        return [Gaussians(*parts) for parts in zip(*(each.split(self.budget) for each in fields), strict=True)]

    def one(self, index: int) -> Gaussians:
        """The Gaussians of one object as they are now; some of their memory is the optimiser's."""
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
                self.relocate(index)

    @torch.no_grad()
    def _take_colors(self, index: int) -> None:
        """Each Gaussian of an object takes the mean colour of the pixels it shows."""
        sums = self._sums(index, self.objects[index].train, 4, lambda images, targets: targets)
        shown = sums[:, 3] > MIN_WEIGHT
        color = ((sums[:, :3] / sums[:, 3:]) - 0.5) / SH_C0
        rows = self.sh[self._rows(index)]
        rows[shown, 0] = color[shown]

    @torch.no_grad()
    def relocate(self, index: int) -> None:
        """Replace the dead Gaussians of an object by copies of those at whose pixels the error is largest."""
        views = self.objects[index]
        looked_at = views.draw(min(RELOCATION_VIEWS, len(views.train)))
        sums = self._sums(index, looked_at, 2, _error_and_one) / len(looked_at)
        gaussians = self.one(index)
        dead = (gaussians.opacities < self.config.min_opacity) | (sums[:, 1] < self.config.min_pixels)
        rows, sources = draw_sources(dead, sums[:, 0], views.generator)
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

    def _sums(
        self, index: int, views: Int[Tensor, " v"], channels: int, values: Callable[[Rendering, Tensor], Tensor]
    ) -> Float[Tensor, "n c"]:
        """For each Gaussian of an object, pixel values times its compositing weights, summed over half-size views.

        That is the gradient of features which are composited, where that of their picture is the pixel values.
        """
        gaussians = self.one(index)
        total = gaussians.means.new_zeros(len(gaussians), channels)
        for part in views.split(VIEWS_AT_ONCE):
            cameras, targets = self.objects[index].take(part, 2)
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
