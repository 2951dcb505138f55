"""Multinomial logistic regression with an l2 penalty: the linear classifier of few-shot and linear-probe evaluation.

Minimises C * sum of cross-entropies + |W|^2 / 2 with a free intercept, in float64 by L-BFGS, so a fit has one solution and
needs no learning rate. This is what scikit-learn's `LogisticRegression(C=C)` minimises; the tests compare the two. The features
are centred meanwhile, which changes the intercept alone and takes L-BFGS far fewer steps.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from splatsense.errors import DataError

TOLERANCE = 1e-6  # largest entry of the gradient, per object and divided by C, at which a fit is done
MAX_STEPS = 2000


class LogisticRegression:
    """A linear classifier.

    Args:
        features: (n, d).
        labels: (n,) classes 0 to `classes` - 1; one that does not occur gets the scores that the penalty leaves it.
        classes: how many there are; by default as many as the labels name.
        C: strength of the data against the penalty.
        start: a classifier of the same shape to start from, such as that of a neighbouring C.

    Attributes:
        weights: (classes, d).
        intercept: (classes,).

    Raises:
        DataError: fewer than two classes, features that are not finite, or C not above zero.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        C: float,
        classes: int | None = None,
        start: "LogisticRegression | None" = None,
    ) -> None:
        features, labels = np.asarray(features, np.float64), np.asarray(labels)
        count = int(labels.max(initial=-1)) + 1 if classes is None else classes
        if count < 2 or len(features) != len(labels) or not len(labels):
            raise DataError(f"a linear classifier needs objects of two classes or more, got {len(labels)} of {count}.")
        if not np.isfinite(features).all() or not C > 0:
            raise DataError(f"a linear classifier needs finite features and C above zero, got C = {C}.")
        shape, mean = (count, features.shape[1] + 1), features.mean(0)
        ones = np.column_stack([features - mean, np.ones(len(features))])
        first = np.zeros(shape) if start is None else np.column_stack([start.weights, start.scores(mean)])
        options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "gtol": TOLERANCE, "ftol": 0.0, "maxcor": 20}
        solved = minimize(_loss, first.ravel(), (ones, labels, C * len(labels), shape), "L-BFGS-B", jac=True, options=options)
        solution = solved.x.reshape(shape)
        self.weights = solution[:, :-1]
        self.intercept = solution[:, -1] - self.weights @ mean

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(n, classes) logits."""
        return np.asarray(features, np.float64) @ self.weights.T + self.intercept


def _loss(
    flat: np.ndarray, ones: np.ndarray, labels: np.ndarray, strength: float, shape: tuple[int, int]
) -> tuple[float, np.ndarray]:
    """The objective divided by `strength` (C times the objects) and its gradient; the last of `ones` is the intercept's."""
    weights, rows = flat.reshape(shape), np.arange(len(labels))
    log_probabilities = log_softmax(ones @ weights.T, axis=1)
    residual = np.exp(log_probabilities)
    residual[rows, labels] -= 1
    penalised = weights / strength
    penalised[:, -1] = 0
    loss = 0.5 * (penalised * weights).sum() - log_probabilities[rows, labels].mean()
    return float(loss), (residual.T @ ones / len(labels) + penalised).ravel()
