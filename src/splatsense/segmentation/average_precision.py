"""Average precision of instances, exactly as the ScanNet benchmark counts it (Dai et al. 2017, arXiv 1702.04405).

What decides the figures, beyond the definition:
- AP is the mean over the IoU thresholds 0.50, 0.55 ... 0.90 (0.95 is not among them); AP50 and AP25 have one threshold each.
  An IoU must exceed its threshold.
- Predictions and true instances of fewer than 100 points do not exist: the former are dropped, the latter can neither be found
  nor missed.
- Points whose class is none, or is not counted (walls and floors), are void. A prediction that matches nothing is a false
  positive only if the share of it that is void, or on true instances of its class that are too small, is at most the threshold.
- A true instance takes the predictions that match it in their order. The first is a true positive; of each further one the
  lower of the two scores becomes a false positive. Only the first is used up.
- Precision is not made monotone; the area is that of the benchmark's convolution with (-0.5, 0, 0.5), from recall 0 and
  precision 1 on. Predictions of equal score enter the curve together.
- A class without true instances has no AP and does not enter the means; one with true instances and without predictions has 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from splatsense.errors import DataError
from splatsense.labels import LabelSet
from splatsense.segmentation.confusion import GROUPS, json_number, known_mean, percent
from splatsense.tables import table

SMALLEST = 100  # points
THRESHOLDS = (*np.arange(0.5, 0.95, 0.05).tolist(), 0.25)
AT_50, AT_25, AP = 0, len(THRESHOLDS) - 1, slice(0, len(THRESHOLDS) - 1)


@dataclass(frozen=True, eq=False)
class Proposals:
    """Instances that were predicted in a scene.

    Attributes:
        masks: (P, N) which points belong to each; they may overlap.
        labels: (P,) class of each.
        scores: (P,) confidence, higher is surer.
    """

    masks: Bool[np.ndarray, "p n"]
    labels: Int[np.ndarray, " p"]
    scores: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.masks) == len(self.labels) == len(self.scores):
            raise DataError(f"Proposals: {len(self.masks)} masks, {len(self.labels)} labels, {len(self.scores)} scores.")
        if not np.isfinite(self.scores).all():
            raise DataError("Proposals.scores must be finite.")


@dataclass
class _Prediction:
    score: float
    size: int
    void: int
    overlaps: Int64[np.ndarray, " t"]  # points shared with each true instance of the class


@dataclass
class _ClassMatches:
    """What a scene holds of a class."""

    sizes: Int64[np.ndarray, " t"]  # of all its true instances
    predictions: list[_Prediction] = field(default_factory=list)


class InstanceEvaluation:
    """Collects scenes, then scores them together.

    Args:
        labels: the classes.
        leave_out: names of classes that are not instances (walls, floors).
        smallest: points of the smallest instance that counts.

    Raises:
        DataError: a name to leave out is no class.
    """

    def __init__(self, labels: LabelSet, leave_out: Sequence[str] = (), smallest: int = SMALLEST) -> None:
        unknown = [name for name in leave_out if labels.index(name) < 0]
        if unknown:
            raise DataError(f"InstanceEvaluation: {unknown[0]} is no class of {labels.name}.")
        self.labels, self.smallest = labels, smallest
        self.counted = np.array([name not in leave_out for name in labels.names])
        self._scenes: list[dict[int, _ClassMatches]] = []

    def add(self, proposals: Proposals, semantic: Int[np.ndarray, " n"], instance: Int[np.ndarray, " n"]) -> None:
        """Match the proposals of a scene with its truth.

        Args:
            proposals: (P, N) masks over the scene's N points; those of classes that are not counted are passed over.
            semantic: class of each point, -1 for none.
            instance: instance of each point, -1 for none; points of one instance with two classes are two instances. A point
                of a counted class in no instance is void.

        Raises:
            DataError: lengths differ, or a label is out of range.
        """
        if not semantic.shape == instance.shape == proposals.masks.shape[1:]:
            raise DataError(
                f"InstanceEvaluation: masks of {proposals.masks.shape[1]} points, {len(semantic)} classes, {len(instance)} "
                "instances; give those of the same points."
            )
        for values in (semantic, proposals.labels):
            if len(values) and not (values.min() >= -1 and values.max() < len(self.labels)):
                raise DataError(f"InstanceEvaluation: a label is outside -1 to {len(self.labels) - 1}.")
        real = (semantic >= 0) & (instance >= 0)
        real[real] = self.counted[semantic[real]]
        keys = np.where(real, semantic.astype(np.int64) << 32 | instance.astype(np.int64), -1)
        found, index, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        classes = np.where(found >= 0, found >> 32, -1)
        scene = {label: _ClassMatches(sizes[classes == label]) for label in np.flatnonzero(self.counted).tolist()}
        for mask, label, score in zip(proposals.masks, proposals.labels.tolist(), proposals.scores.tolist(), strict=True):
            size = int(np.count_nonzero(mask))
            if label < 0 or not self.counted[label] or size < self.smallest:
                continue
            shared = np.bincount(index[mask], minlength=len(found))
            void = int(shared[classes == -1].sum())
            scene[label].predictions.append(_Prediction(score, size, void, shared[classes == label]))
        self._scenes.append(scene)

    def report(self) -> "InstanceReport":
        """Scores of all scenes added."""
        ap = np.full((len(self.labels), len(THRESHOLDS)), np.nan)
        counts = np.zeros(len(self.labels), np.int64)
        for label in np.flatnonzero(self.counted).tolist():
            scenes = [scene[label] for scene in self._scenes]
            counts[label] = sum(int((scene.sizes >= self.smallest).sum()) for scene in scenes)
            for column, threshold in enumerate(THRESHOLDS):
                ap[label, column] = self._average_precision(scenes, threshold)
        return InstanceReport(self.labels, ap, counts)

    def _average_precision(self, scenes: list[_ClassMatches], threshold: float) -> float:
        has_truth = any((scene.sizes >= self.smallest).any() for scene in scenes)
        has_predictions = any(scene.predictions for scene in scenes)
        if not has_truth:
            return float("nan")
        if not has_predictions:
            return 0.0
        positives: list[float] = []
        negatives: list[float] = []
        missed = 0
        for scene in scenes:
            hits, wrong, lost = self._match(scene, threshold)
            positives += hits
            negatives += wrong
            missed += lost
        return area_under_curve(np.array(positives), np.array(negatives), missed)

    def _match(self, scene: _ClassMatches, threshold: float) -> tuple[list[float], list[float], int]:
        """Scores of true and false positives, and how many true instances were missed."""
        used = [False] * len(scene.predictions)
        matches = [
            prediction.overlaps / (scene.sizes + prediction.size - prediction.overlaps) > threshold
            for prediction in scene.predictions
        ]
        hits: list[float] = []
        wrong: list[float] = []
        missed = 0
        for truth in np.flatnonzero(scene.sizes >= self.smallest).tolist():
            best: float | None = None
            for row, prediction in enumerate(scene.predictions):
                if used[row] or not matches[row][truth]:
                    continue
                if best is None:
                    best, used[row] = prediction.score, True
                else:
                    wrong.append(min(best, prediction.score))
                    best = max(best, prediction.score)
            if best is None:
                missed += 1
            else:
                hits.append(best)
        for prediction, match in zip(scene.predictions, matches, strict=True):
            ignored = prediction.void + int(prediction.overlaps[scene.sizes < self.smallest].sum())
            if not match.any() and ignored / prediction.size <= threshold:
                wrong.append(prediction.score)
        return hits, wrong, missed


def area_under_curve(positives: Float64[np.ndarray, " p"], negatives: Float64[np.ndarray, " q"], missed: int) -> float:
    """The benchmark's average precision from the scores of true and false positives and the number of missed instances."""
    scores = np.concatenate([positives, negatives])
    steps = np.unique(scores)  # from the lowest, at which everything is predicted
    true = (positives >= steps[:, None]).sum(1).astype(np.float64)
    precision = np.append(true / (scores >= steps[:, None]).sum(1), 1.0)
    recall = np.append(true / max(1, len(positives) + missed), 0.0)
    ends = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (0.5 * (ends[:-2] - ends[2:])))


@dataclass(frozen=True, eq=False)
class InstanceReport:
    """Scores of instance segmentation.

    Attributes:
        labels: the classes.
        table: (C, T) average precision by class and by `THRESHOLDS`; NaN for classes without true instances.
        counts: (C,) true instances that count.
    """

    labels: LabelSet
    table: Float64[np.ndarray, "c t"]
    counts: Int64[np.ndarray, " c"]

    @property
    def by_class(self) -> Float64[np.ndarray, "c 3"]:
        """AP, AP50 and AP25 of each class."""
        return np.stack([self.table[:, AP].mean(1), self.table[:, AT_50], self.table[:, AT_25]], axis=1)

    @property
    def ap(self) -> float:
        """Mean over classes and thresholds 0.50 to 0.90."""
        return known_mean(self.by_class[:, 0])

    @property
    def ap50(self) -> float:
        """Mean over classes at 0.5."""
        return known_mean(self.by_class[:, 1])

    @property
    def ap25(self) -> float:
        """Mean over classes at 0.25."""
        return known_mean(self.by_class[:, 2])

    def group_ap(self) -> dict[str, list[float]]:
        """AP, AP50 and AP25 of head, common and tail classes, where the label set has such groups."""
        frequencies = np.array([label.frequency for label in self.labels.labels])
        groups = [group for group in GROUPS if (frequencies == group).any()]
        return {group: [known_mean(column) for column in self.by_class[frequencies == group].T] for group in groups}

    def figures(self) -> dict[str, Any]:
        """JSON-able; NaN is None."""
        columns = ("ap", "ap50", "ap25")
        return {
            **{name: json_number(getattr(self, name)) for name in columns},
            **{f"{group}_{name}": json_number(value) for group, values in self.group_ap().items()
               for name, value in zip(columns, values, strict=True)},
            "instances": int(self.counts.sum()),
            "classes": {name: dict(zip(columns, map(json_number, row), strict=True))
                        for name, row in zip(self.labels.names, self.by_class.tolist(), strict=True)},
        }  # fmt: skip

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("class", "AP", "AP50", "AP25", "instances")]
        for name, values, count in zip(self.labels.names, self.by_class.tolist(), self.counts, strict=True):
            if count:
                rows.append((name, *map(percent, values), f"{count:,}"))
        rows.append(("mean over classes", *map(percent, (self.ap, self.ap50, self.ap25)), f"{self.counts.sum():,}"))
        rows += [(f"{group} classes", *map(percent, values), "") for group, values in self.group_ap().items()]
        return table(rows, "<>>>>")
