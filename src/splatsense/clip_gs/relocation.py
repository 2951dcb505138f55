"""Relocation of Gaussians that show nothing to where more are needed (3DGS as MCMC, Kheradmand et al. 2024, section 3.3).

A budget of Gaussians stays as it is: a dead one becomes a copy of a living one, and all copies together look like the one
they came from, because opacity and scale are corrected by the paper's equation (9).

Differs from the paper: the living are drawn by the error of the pixels they show and not by opacity, which after a start from
opaque surface samples tells nothing; and a Gaussian that no picture shows is as dead as a transparent one.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_COPIES = 16
MAX_OPACITY = 0.999  # as the rasteriser clamps; the equation has no use for 1


def shared_out(
    opacities: Float[Tensor, " n"], scales: Float[Tensor, "n 3"], copies: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Opacity and scale of each of `copies` Gaussians that lie in one place and look like one, equation (9).

    With o' = 1 - (1 - o)^(1/N), the scale falls by the factor o / sum_{k=1..N} C(N, k) (-1)^(k-1) o'^k / sqrt(k), which is the
    paper's double sum with its inner sums of binomials taken. At the centre the opacity is the same exactly; along a line
    through the centre the integral of the opacity is.

    Args:
        opacities: in [0, 1].
        scales: standard deviations.
        copies: N of each, 1 to `MAX_COPIES`.
    """
    old = opacities.double().clamp(max=MAX_OPACITY)
    count = copies.double()
    new = 1 - (1 - old) ** (1 / count)
    integral = torch.zeros_like(old)
    binomial = torch.ones_like(old)
    for k in range(1, MAX_COPIES + 1):
        binomial = binomial * (count - k + 1) / k  # C(N, k), and 0 beyond N
        integral += binomial * (-1) ** (k - 1) * new**k / k**0.5
    return new.to(opacities), scales * (old / integral).to(scales)[:, None]


def draw_sources(
    dead: Bool[Tensor, " n"], weights: Float[Tensor, " n"], generator: torch.Generator
) -> tuple[Int[Tensor, " dead"], Int[Tensor, " dead"]]:
    """Which Gaussians are to be replaced, and which living one each of them shall become a copy of.

    Args:
        dead: those to be replaced.
        weights: chance of each living one to be drawn, >= 0; none is drawn more than `MAX_COPIES` - 1 times.
        generator: on the CPU, so that every device draws the same.

    Returns:
        Rows to be replaced and rows to copy; empty if nothing is dead or nothing can be copied. Where the dead outnumber what
        may be copied, those left over stay as they are.
    """
    weights = weights.masked_fill(dead, 0).double().cpu()
    rows = dead.nonzero()[:, 0].cpu()
    if not len(rows) or not bool((weights > 0).any()):
        return rows[:0].to(dead.device), rows[:0].to(dead.device)
    sources = torch.multinomial(weights, len(rows), replacement=True, generator=generator)
    order = sources.argsort(stable=True)
    ordered = sources[order]
    first = torch.searchsorted(ordered, ordered)  # where the run of equal sources begins
    keep = order[torch.arange(len(order)) - first < MAX_COPIES - 1].sort().values
    return rows[keep].to(dead.device), sources[keep].to(dead.device)
