import itertools

import pytest
import torch

from splatsense.segmentation.lovasz import lovasz_softmax


def jaccard_loss(wrong, truth):
    """1 - |truth without wrong| / |truth or wrong|: the set function of Berman et al."""
    union = (truth | wrong).sum()
    return 1 - (truth & ~wrong).sum() / union if union else torch.tensor(0.0)


def extension(errors, truth):
    """Equation 8: errors in falling order, weighted by how much each further wrong point adds to the set function."""
    value, wrong, before = 0.0, torch.zeros(len(errors), dtype=torch.bool), 0.0
    for i in sorted(range(len(errors)), key=lambda i: -float(errors[i])):
        wrong[i] = True
        after = float(jaccard_loss(wrong, truth))
        value += float(errors[i]) * (after - before)
        before = after
    return value


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(40, 5, generator=generator), torch.randint(-1, 4, (40,), generator=generator)
    kept = labels >= 0
    probabilities, truth = logits[kept].softmax(1), labels[kept]
    expected = [extension(torch.where(truth == c, 1 - probabilities[:, c], probabilities[:, c]), truth == c)
                for c in truth.unique().tolist()]  # fmt: skip
    assert float(lovasz_softmax(logits, labels)) == pytest.approx(sum(expected) / len(expected), abs=1e-6)


def test_of_certain_predictions_it_is_one_minus_the_mean_iou():
    for predicted in itertools.product(range(3), repeat=4):
        labels = torch.tensor([0, 0, 1, 2])
        logits = torch.full((4, 3), -1e4).scatter(1, torch.tensor(predicted)[:, None], 1e4)
        guess = torch.tensor(predicted)
        iou = [((guess == c) & (labels == c)).sum() / ((guess == c) | (labels == c)).sum() for c in range(3)]
        assert float(lovasz_softmax(logits, labels)) == pytest.approx(1 - float(sum(iou)) / 3, abs=1e-6)


def test_gradient():
    logits = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.tensor([0, 1, 2, -1] * 3)
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x, labels), (logits,))


def test_nothing_labelled_costs_nothing_and_has_a_gradient():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = lovasz_softmax(logits, torch.full((4,), -1))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()
