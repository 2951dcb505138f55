"""Linear probe: how much of the classes a linear classifier can read off frozen embeddings (train split -> test split).

The strength of the penalty is chosen by stratified cross-validation inside the train split; the test split is looked at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.clip_gs.logistic_regression import LogisticRegression
from splatsense.clip_gs.zero_shot import ClassificationResult, classification
from splatsense.errors import DataError


@dataclass(frozen=True)
class LinearProbeConfig:
    """The classifier."""

    train: str = "train"
    """split that it is fitted to"""
    folds: int = 5
    """of the cross-validation inside that split"""
    strengths: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    """candidates for C, the strength of the data against the penalty"""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise DataError(f"--folds: must be at least 2, got {self.folds}.")
        if not self.strengths or min(self.strengths) <= 0:
            raise DataError("--strengths: name at least one number above zero.")


@dataclass(frozen=True)
class LinearProbeResult:
    """Accuracies on the test split, and how the classifier was chosen.

    Attributes:
        test: on the test split.
        C: the strength that was chosen; the smallest of those that are equally good.
        validation: cross-validated accuracy in the train split by strength.
    """

    test: ClassificationResult
    C: float
    validation: dict[float, float]


def linear_probe(
    train: Float[Tensor, "n d"],
    train_labels: Sequence[str],
    test: Float[Tensor, "m d"],
    test_labels: Sequence[str],
    config: LinearProbeConfig | None = None,
    seed: int = 0,
) -> LinearProbeResult:
    """Fit on one split, measure on the other.

    Args:
        train: unit-length embeddings to fit to.
        train_labels: their classes.
        test: unit-length embeddings to measure on.
        test_labels: their classes, all of which occur in `train_labels`.
        config: candidates and folds.
        seed: of the folds.

    Raises:
        DataError: a test class has no training object, or there are fewer than two classes.
    """
    config = config or LinearProbeConfig()
    names = sorted(set(train_labels))
    missing = sorted(set(test_labels) - set(names))
    if missing:
        raise DataError(f"linear probe: no training object of {', '.join(missing)}; leave these classes out.")
    classes = np.array([names.index(label) for label in train_labels])
    features = train.double().numpy()
    folds = stratified_folds(classes, config.folds, seed)
    validation = _cross_validate(features, classes, folds, sorted(config.strengths), len(names))
    C = max(validation, key=lambda strength: (validation[strength], -strength))
    scores = LogisticRegression(features, classes, C, len(names)).scores(test.double().numpy())
    return LinearProbeResult(classification(torch.from_numpy(scores), test_labels, names), C, validation)


def stratified_folds(classes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) fold of each object: every class is dealt out evenly, its objects in random order."""
    random = np.random.default_rng(seed)
    dealt = np.empty(len(classes), np.int64)
    start = 0
    for index in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == index))
        dealt[rows] = (start + np.arange(len(rows))) % folds  # go on where the class before ended: folds of equal size
        start += len(rows)
    return dealt


def _cross_validate(
    features: np.ndarray, classes: np.ndarray, folds: np.ndarray, strengths: Sequence[float], count: int
) -> dict[float, float]:
    """Fraction classified right while held out, by strength."""
    right = dict.fromkeys(strengths, 0)
    for fold in np.unique(folds):
        held = folds == fold
        if held.all():
            raise DataError("linear probe: one training object is too few for cross-validation.")
        fitted = None
        for strength in strengths:
            fitted = LogisticRegression(features[~held], classes[~held], strength, count, start=fitted)
            right[strength] += int((fitted.scores(features[held]).argmax(1) == classes[held]).sum())
    return {strength: hits / len(classes) for strength, hits in right.items()}
