"""The Lovasz-softmax loss (Berman, Rannen Triki and Blaschko 2018, arXiv 1705.08790): a surrogate of 1 - mean IoU.

The IoU loss of a class is a set function of the points that are wrong; its Lovasz extension (equations 8 and 9) makes it convex
in the errors. Mean over the classes that occur, as in the released GaussianCross configs.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def lovasz_softmax(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], ignore: int = -1) -> Float[Tensor, ""]:
    """Mean over the classes that occur of the Lovasz extension of 1 - IoU at the errors of the softmax.

    Args:
        logits: of N points.
        labels: in 0 to C - 1, or `ignore`.
        ignore: label of points that do not count.

    Returns:
        A scalar in [0, 1]; 0 when no point counts.
    """
    counted = labels != ignore
    probabilities, labels = logits[counted].softmax(1), labels[counted]
    losses = []
    for label in labels.unique().tolist():
        truth = (labels == label).to(probabilities)
        errors, order = (truth - probabilities[:, label]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_gradient(truth[order]))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def _jaccard_gradient(truth: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """How much 1 - IoU grows with each further point that is wrong, for points in order of falling errors (equation 9)."""
    total = truth.sum()
    intersection = total - truth.cumsum(0)
    union = total + (1 - truth).cumsum(0)
    loss = 1 - intersection / union
    return torch.cat([loss[:1], loss[1:] - loss[:-1]])
