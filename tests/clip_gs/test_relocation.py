"""Copies look like the Gaussian they were made from; dead ones are replaced by living ones."""

import math

import pytest
import torch

from splatsense.cameras import Cameras
from splatsense.clip_gs.relocation import MAX_COPIES, draw_sources, shared_out
from splatsense.gaussians import Gaussians
from splatsense.render import render


def paper_equation(opacity, copies):
    """New opacity and the factor on the scale, as equation (9) has them: with the double sum."""
    new = 1 - (1 - opacity) ** (1 / copies)
    total = sum(
        math.comb(i - 1, k) * (-1) ** k * new ** (k + 1) / math.sqrt(k + 1) for i in range(1, copies + 1) for k in range(i)
    )
    return new, opacity / total


@pytest.mark.parametrize("copies", [1, 2, 3, 7, MAX_COPIES])
@pytest.mark.parametrize("opacity", [0.01, 0.4, 0.9, 0.99])
def test_shared_out_is_equation_9(opacity, copies):
    scales = torch.tensor([[0.1, 0.2, 0.3]])
    opacities, shared = shared_out(torch.tensor([opacity]), scales, torch.tensor([copies]))
    new, factor = paper_equation(opacity, copies)
    assert opacities.item() == pytest.approx(new, rel=1e-5)
    assert torch.allclose(shared, scales * factor, rtol=1e-5)


def test_one_copy_changes_nothing():
    opacities, scales = torch.tensor([0.0, 0.3, 0.999]), torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    new_opacities, new_scales = shared_out(opacities, scales, torch.ones(3, dtype=torch.long))
    assert torch.allclose(new_opacities, opacities, atol=1e-6)
    assert torch.allclose(new_scales[1:], scales[1:], rtol=1e-5)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_keep_the_picture(copies):
    """The picture differs far less than it does with plain copies: exactly nothing at the centre, little around it."""
    one = Gaussians.from_rgb(
        torch.zeros(1, 3),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.tensor([[0.3, 0.2, 0.25]]),
        torch.tensor([0.7]),
        torch.ones(1, 3),
    )
    camera = Cameras.orbit(1, size=48, distance=3.0)
    opacities, scales = shared_out(one.opacities, one.scales, torch.tensor([copies]))
    same = [one.means, one.quats, scales, opacities, one.sh]
    shared = Gaussians(*(each.expand(copies, *each.shape[1:]) for each in same))
    plain = Gaussians(
        *(each.expand(copies, *each.shape[1:]) for each in (one.means, one.quats, one.scales, one.opacities, one.sh))
    )
    before, after, careless = (render(each, camera).alpha[0] for each in (one, shared, plain))
    assert after[23:25, 23:25].mean().item() == pytest.approx(before[23:25, 23:25].mean().item(), abs=0.01)
    assert (after - before).abs().mean() < 0.1 * (careless - before).abs().mean()
    assert after.sum().item() == pytest.approx(before.sum().item(), rel=0.15)


def test_sources_are_alive_and_weighted():
    dead = torch.tensor([True, False, False, True, False, True])
    weights = torch.tensor([9.0, 1.0, 0.0, 9.0, 3.0, 9.0])
    counts = torch.zeros(6)
    for seed in range(200):
        rows, sources = draw_sources(dead, weights, torch.Generator().manual_seed(seed))
        assert rows.tolist() == [0, 3, 5]
        counts += sources.bincount(minlength=6)
    assert counts[[0, 2, 3, 5]].sum() == 0
    assert 2 < counts[4] / counts[1] < 4


def test_no_source_is_copied_too_often():
    dead = torch.arange(60) > 1
    rows, sources = draw_sources(dead, torch.ones(60), torch.Generator().manual_seed(0))
    assert sources.bincount().max() == MAX_COPIES - 1
    assert len(rows) == len(sources) == len(rows.unique()) <= 2 * (MAX_COPIES - 1)


@pytest.mark.parametrize(("dead", "weight"), [(False, 1.0), (True, 1.0), (False, 0.0)])
def test_nothing_to_do(dead, weight):
    rows, sources = draw_sources(torch.full((4,), dead), torch.full((4,), weight), torch.Generator())
    assert len(rows) == len(sources) == 0
