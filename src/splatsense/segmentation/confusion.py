"""Confusion matrices and what semantic segmentation is judged by: IoU of each class, their mean, accuracies.

Design
- One matrix over all points of all scenes, as ScanNet's and S3DIS's evaluations have it; points without a label do not count.
- A class that neither occurs nor is predicted has no IoU and does not enter the mean. One that is predicted but does not occur
  has an IoU of 0 and does: `mean_iou` is the benchmark's. Pointcept counts a class that is nowhere as 0 too; its figure, where
  all classes occur, is the same.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Int64

from splatsense.errors import DataError
from splatsense.labels import LabelSet
from splatsense.tables import table

GROUPS = ("head", "common", "tail")


def confusion_matrix(
    truth: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " m"], classes: int
) -> Int64[np.ndarray, "{classes} {classes}"]:
    """How many points of each class (rows) were given each class (columns).

    Args:
        truth: in 0 to `classes` - 1; points below 0 do not count.
        predicted: in 0 to `classes` - 1.

    Raises:
        DataError: labels are out of range, or the arrays differ in length.
    """
    if truth.shape != predicted.shape:
        raise DataError(f"confusion_matrix: {len(truth)} labels but {len(predicted)} predictions.")
    counted = truth >= 0
    truth, predicted = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for name, values in (("label", truth), ("prediction", predicted)):
        if len(values) and not (values.min() >= 0 and values.max() < classes):
            raise DataError(f"confusion_matrix: a {name} is outside 0 to {classes - 1}; it is of another label set.")
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True, eq=False)
class SemanticReport:
    """Scores of semantic segmentation.

    Attributes:
        labels: the classes.
        matrix: (C, C) points by true (rows) and predicted class.
    """

    labels: LabelSet
    matrix: Int64[np.ndarray, "c c"]

    @property
    def iou(self) -> Float64[np.ndarray, " c"]:
        """Of each class, in [0, 1]; NaN where it neither occurs nor is predicted."""
        right = np.diag(self.matrix).astype(np.float64)
        union = self.matrix.sum(0) + self.matrix.sum(1) - right
        return np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)

    @property
    def accuracy(self) -> Float64[np.ndarray, " c"]:
        """Share of the points of each class that were right; NaN where it does not occur."""
        right, total = np.diag(self.matrix).astype(np.float64), self.matrix.sum(1)
        return np.divide(right, total, out=np.full(len(right), np.nan), where=total > 0)

    @property
    def mean_iou(self) -> float:
        """Over classes; NaN when nothing was evaluated."""
        return known_mean(self.iou)

    @property
    def present_iou(self) -> float:
        """Mean IoU over the classes that occur, for scenes that lack classes of the label set; NaN when none does."""
        return known_mean(self.iou[self.matrix.sum(1) > 0])

    @property
    def mean_accuracy(self) -> float:
        """Class-balanced accuracy: the mean over classes that occur."""
        return known_mean(self.accuracy)

    @property
    def overall_accuracy(self) -> float:
        """Share of all points that were right."""
        total = self.matrix.sum()
        return float(np.trace(self.matrix) / total) if total else float("nan")

    def group_iou(self) -> dict[str, float]:
        """Mean IoU of head, common and tail classes, where the label set has such groups (ScanNet200)."""
        frequencies = np.array([label.frequency for label in self.labels.labels])
        return {group: known_mean(self.iou[frequencies == group]) for group in GROUPS if (frequencies == group).any()}

    def figures(self) -> dict[str, Any]:
        """JSON-able; NaN is None."""
        return {
            "mean_iou": json_number(self.mean_iou),
            "present_iou": json_number(self.present_iou),
            "mean_accuracy": json_number(self.mean_accuracy),
            "overall_accuracy": json_number(self.overall_accuracy),
            **{f"{group}_iou": json_number(value) for group, value in self.group_iou().items()},
            "points": int(self.matrix.sum()),
            "iou": {name: json_number(value) for name, value in zip(self.labels.names, self.iou, strict=True)},
        }

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("class", "IoU", "accuracy", "points")]
        points = self.matrix.sum(1)
        for name, iou, accuracy, count in zip(self.labels.names, self.iou, self.accuracy, points, strict=True):
            if count or np.isfinite(iou):
                rows.append((name, percent(iou), percent(accuracy), f"{count:,}"))
        rows.append(("mean over classes", percent(self.mean_iou), percent(self.mean_accuracy), f"{points.sum():,}"))
        if self.present_iou < self.mean_iou or self.present_iou > self.mean_iou:
            rows.append(("classes that occur", percent(self.present_iou), percent(self.mean_accuracy), ""))
        rows += [(f"{group} classes", percent(value), "", "") for group, value in self.group_iou().items()]
        rows.append(("all points", "", percent(self.overall_accuracy), ""))
        return table(rows, "<>>>")


def percent(value: float) -> str:
    """A share as "12.3", or "-" for NaN."""
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


def known_mean(values: Float64[np.ndarray, " c"]) -> float:
    """Mean of the values that are not NaN; NaN when there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def json_number(value: float) -> float | None:
    """None for NaN, which JSON has not."""
    return None if np.isnan(value) else float(value)
