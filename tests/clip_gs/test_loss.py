import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from splatsense.clip_gs.loss import ClipGSLoss, contrastive, view_votes


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_text_loss_is_symmetric_cross_entropy():
    g, t, names = unit(6, 8), unit(6, 8, seed=1), torch.arange(6)
    loss = ClipGSLoss(image_weight=0.0).double()
    found = loss(g, t, unit(6, 2, 8, seed=2), names)
    logits = g @ t.T / 0.07
    expected = (cross_entropy(logits, names) + cross_entropy(logits.T, names)) / 2
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("voting", ["none", "raw", "softmax"])
def test_image_loss_weighs_views_by_their_votes(voting):
    g, t, images, names = unit(5, 8), unit(5, 8, seed=1), unit(5, 3, 8, seed=2), torch.arange(5)
    found = ClipGSLoss(voting=voting, voting_temperature=0.5).double()(g, t, images, names)
    similarity = (t[:, None] * images).sum(-1)
    votes = {
        "none": torch.full_like(similarity, 1 / 3),
        "raw": similarity.clamp_min(0),
        "softmax": (similarity / 0.5).softmax(1),
    }[voting]
    expected = torch.zeros((), dtype=torch.float64)
    for k in range(3):
        logits = g @ images[:, k].T / 0.07
        each = cross_entropy(logits, names, reduction="none") + cross_entropy(logits.T, names, reduction="none")
        expected = expected + (votes[:, k] * each).mean() / 2
    assert found["image"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert found["loss"].item() == pytest.approx((found["text"] + found["image"]).item())


def test_objects_of_the_same_name_are_not_negatives():
    g = unit(1, 8).repeat(2, 1)
    t = unit(1, 8, seed=1).repeat(2, 1)
    scale, ones = torch.tensor(10.0, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    shared = torch.full((2, 2), 0.5, dtype=torch.float64)
    assert contrastive(g, t, scale, shared, ones).item() == pytest.approx(math.log(2))
    gradient_free = ClipGSLoss(image_weight=0.0).double()(g, t, unit(2, 1, 8), torch.tensor([4, 4]))
    assert gradient_free["loss"].item() == pytest.approx(math.log(2))


def test_gradients_by_finite_differences():
    loss = ClipGSLoss().double()
    t, images, names = unit(4, 6, seed=1), unit(4, 2, 6, seed=2), torch.tensor([0, 1, 1, 2])
    g = unit(4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, t, images, names)["loss"], g)


def test_votes_prefer_the_view_that_shows_what_the_text_names():
    t = torch.eye(2)[:1]
    images = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    votes = view_votes(t, images, "softmax", 0.1)
    assert votes[0, 0] > 0.99
    assert votes.sum().item() == pytest.approx(1.0)


def test_the_temperature_learns_and_is_bounded():
    loss = ClipGSLoss()
    loss.logit_scale.data.fill_(10.0)
    found = loss(unit(3, 4).float(), unit(3, 4).float(), unit(3, 1, 4).float(), torch.arange(3))
    assert torch.isfinite(found["loss"])
    loss.logit_scale.data.fill_(1.0)
    loss(unit(3, 4).float(), unit(3, 4, seed=3).float(), unit(3, 1, 4).float(), torch.arange(3))["loss"].backward()
    assert loss.logit_scale.grad is not None
    assert loss.logit_scale.grad.abs() > 0
