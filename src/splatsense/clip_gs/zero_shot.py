"""Zero-shot classification (CLIP-GS, section 4; protocol of CLIP, arXiv 2103.00020): objects against class names."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.clip_gs.bootstrap import Interval, class_mean_interval, mean_interval
from splatsense.clip_gs.ranking import hits_at
from splatsense.errors import DataError

TOP = (1, 3, 5)


@dataclass(frozen=True)
class ClassificationResult:
    """Accuracies in [0, 1]; objects whose classes tie count with the probability of a random choice.

    Attributes:
        top1: fraction of objects whose class comes first.
        top3: ... among the first three.
        top5: ... among the first five.
        class_mean: mean of top1 within each class that has objects.
        top1_interval: 95 % bootstrap interval of top1.
        class_mean_interval: 95 % bootstrap interval of class_mean.
        by_class: (correct, objects) by name of every class that has objects.
    """

    top1: float
    top3: float
    top5: float
    class_mean: float
    top1_interval: Interval
    class_mean_interval: Interval
    by_class: dict[str, tuple[float, int]]


def zero_shot(
    embeddings: Float[Tensor, "n d"], classes: Float[Tensor, "c d"], labels: Sequence[str], names: Sequence[str]
) -> ClassificationResult:
    """Classify by the nearest class embedding.

    Args:
        embeddings: unit length, of the objects.
        classes: unit length, of the classes `names`.
        labels: true class of each object.
        names: of the classes; those without objects can still be chosen.

    Raises:
        DataError: a label is not among the names, or there are no objects.
    """
    return classification(embeddings @ classes.T, labels, names)


def classification(scores: Float[Tensor, "n c"], labels: Sequence[str], names: Sequence[str]) -> ClassificationResult:
    """Accuracies of any classifier's scores; the largest wins. Arguments and errors as of `zero_shot`."""
    number = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(labels) - number.keys())
    if unknown or not labels:
        raise DataError(f"classification: no objects, or labels that are not among the classes: {unknown}.")
    truth = torch.tensor([number[label] for label in labels])
    found = hits_at(scores, truth[:, None] == torch.arange(len(names)), TOP)
    correct = found[:, 0]
    objects = torch.bincount(truth, minlength=len(names)).tolist()
    right = torch.bincount(truth, correct, minlength=len(names)).tolist()
    by_class = {name: (right[i], objects[i]) for i, name in enumerate(names) if objects[i]}
    top1, top3, top5 = found.mean(0).tolist()
    return ClassificationResult(
        top1=top1,
        top3=top3,
        top5=top5,
        class_mean=sum(hits / count for hits, count in by_class.values()) / len(by_class),
        top1_interval=mean_interval(correct),
        class_mean_interval=class_mean_interval(correct, truth),
        by_class=by_class,
    )


def chance(labels: Sequence[str], names: Sequence[str]) -> ClassificationResult:
    """What guessing gives: all scores equal."""
    return classification(torch.zeros(len(labels), len(names)), labels, names)


def majority(train_labels: Sequence[str], labels: Sequence[str]) -> ClassificationResult:
    """What the frequencies of the training classes give without a look at the objects."""
    names = sorted(set(train_labels))
    counts = torch.tensor([float(list(train_labels).count(name)) for name in names])
    return classification(counts.expand(len(labels), -1), labels, names)
