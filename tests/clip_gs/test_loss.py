import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, normalize

from clip_gs import loss_processes
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
    assert contrastive((g, t), (g, t), scale, shared, ones).item() == pytest.approx(math.log(2))
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


def test_the_temperature_learns_and_comes_back_from_its_bound():
    loss = ClipGSLoss()
    assert loss.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    loss.logit_scale.data.fill_(10.0)
    wrong = loss(unit(3, 4).float(), unit(3, 4, seed=3).float(), unit(3, 1, 4).float(), torch.arange(3))["loss"]
    assert torch.isfinite(wrong)
    assert loss.logit_scale.item() == pytest.approx(math.log(100))
    wrong.backward()
    assert loss.logit_scale.grad is not None
    assert loss.logit_scale.grad > 0  # a step down the gradient leaves the bound again
    assert ClipGSLoss(temperature=0.5).logit_scale.item() == pytest.approx(math.log(2))


def test_plain_text_loss_is_the_formula_of_open_clip():
    """Independent of how ours is written: logits both ways, labels on the diagonal, mean of the two cross-entropies."""
    g, t = unit(7, 5), unit(7, 5, seed=1)
    g.requires_grad_()
    loss = ClipGSLoss(image_weight=0.0).double()
    ours = loss(g, t, unit(7, 2, 5, seed=2), torch.arange(7))["loss"]
    logit_scale = torch.tensor(1 / 0.07, dtype=torch.float64)
    logits_per_shape, logits_per_text, labels = logit_scale * g @ t.T, logit_scale * t @ g.T, torch.arange(7)
    theirs = (cross_entropy(logits_per_shape, labels) + cross_entropy(logits_per_text, labels)) / 2
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-7)
    torch.testing.assert_close(*(torch.autograd.grad(value, g)[0] for value in (ours, theirs)), rtol=1e-6, atol=1e-9)


def test_half_precision_embeddings_are_not_scored_in_half_precision():
    """Autocast around the loss changes nothing."""
    loss, parts = ClipGSLoss(), (unit(6, 8).float(), unit(6, 8, seed=1).float(), unit(6, 3, 8, seed=2).float())
    with torch.autocast("cpu", torch.bfloat16):
        within = loss(*parts, torch.arange(6))["loss"]
    assert torch.equal(within, loss(*parts, torch.arange(6))["loss"])


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")
def test_two_processes_give_the_loss_and_the_gradients_of_one(tmp_path):
    torch.multiprocessing.spawn(loss_processes.run, (2, str(tmp_path)), nprocs=2)
    alone = loss_processes.losses_and_gradients()
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert set(first) == set(second) == set(alone)
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name])
        if name.endswith(".gradient"):
            torch.testing.assert_close(first[name], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
            assert float(expected.abs().max()) > 1e-3
        else:
            assert first[name].item() == pytest.approx(expected.item(), abs=1e-5)
