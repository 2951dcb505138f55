"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no state of theirs.

A schedule gives the factor on each parameter group's peak rate, and optionally the momentum of the step.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from splatsense.errors import DataError


@runtime_checkable
class Schedule(Protocol):
    """Learning rate, and momentum if it has one, of every step."""

    def factor(self, step: int) -> float:
        """Of the peak learning rate at `step`, counted from 0."""
        ...

    def momentum(self, step: int) -> float | None:
        """First momentum coefficient (Adam's beta 1) at `step`; None leaves it as it is."""
        ...


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine down to zero (as Uni3D, arXiv 2310.06773, and CLIP-GS, arXiv 2412.19142).

    Attributes:
        steps: of the run.
        warmup: fraction of the steps, at least one step.
    """

    steps: int
    warmup: float

    def __post_init__(self) -> None:
        _check(self.steps, self.warmup)

    def factor(self, step: int) -> float:
        """In (0, 1]."""
        warmup = max(1, round(self.warmup * self.steps))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))

    def momentum(self, step: int) -> None:
        """Left alone."""


@dataclass(frozen=True)
class OneCycle:
    """One cycle with cosine sides (Smith and Topin, arXiv 1708.07120), as `torch.optim.lr_scheduler.OneCycleLR`.

    The rate rises from peak / div to the peak, then falls to peak / (div * final_div); the momentum moves against it.
    The defaults are those of GaussianCross's released fine-tuning (arXiv 2508.02172).

    Attributes:
        steps: of the run.
        warmup: fraction of the steps until the peak.
        div: peak over the first rate.
        final_div: first over the last rate.
        momentum_range: momentum at the peak, and at both ends.
    """

    steps: int
    warmup: float = 0.05
    div: float = 10.0
    final_div: float = 1000.0
    momentum_range: tuple[float, float] = (0.85, 0.95)

    def __post_init__(self) -> None:
        _check(self.steps, self.warmup)

    def factor(self, step: int) -> float:
        """In (0, 1]."""
        return self._between(step, 1 / self.div, 1.0, 1 / (self.div * self.final_div))

    def momentum(self, step: int) -> float:
        """Lowest where the rate is highest."""
        low, high = self.momentum_range
        return self._between(step, high, low, high)

    def _between(self, step: int, first: float, peak: float, last: float) -> float:
        peak_at, end = max(0.0, self.warmup * self.steps - 1), self.steps - 1
        if step <= peak_at:
            return _cosine(first, peak, step / peak_at if peak_at > 0 else 1.0)
        return _cosine(peak, last, (step - peak_at) / (end - peak_at))


def apply_schedule(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Set the rate of every parameter group to its `peak_lr` times the schedule's factor, and the momentum."""
    factor, momentum = schedule.factor(step), schedule.momentum(step)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
        if momentum is not None:
            group["betas"] = (momentum, group["betas"][1])


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))


def _check(steps: int, warmup: float) -> None:
    if steps < 1 or not 0 <= warmup < 1:
        raise DataError(f"a schedule needs at least one step and a warm-up in [0, 1), got {steps} and {warmup}.")
