"""`splatsense evaluate semantic` and `evaluate instance`: scores of a model, or of predictions on disk, on labelled scenes.

Truth and predictions are those of the scenes' own points, before any voxels. Make choices on a validation split.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from splatsense import __version__
from splatsense.errors import DataError
from splatsense.files import atomic_write
from splatsense.label_files import label_set
from splatsense.labels import LabelSet
from splatsense.scenes import Scene, list_scenes, load_scene
from splatsense.segmentation.average_precision import InstanceEvaluation, InstanceReport, Proposals
from splatsense.segmentation.confusion import SemanticReport, confusion_matrix
from splatsense.segmentation.export import load_prediction, save_prediction
from splatsense.segmentation.model import SegmentationModel, load_segmentation_model
from splatsense.segmentation.points import points_of_scene
from splatsense.segmentation.predict import Prediction, Views, predict
from splatsense.tables import counted
from splatsense.training.progress import Progress


@dataclass(frozen=True)
class EvaluateConfig:
    """What is evaluated."""

    scenes: Path
    """folder of splits of labelled scenes"""
    split: str = "test"
    """which of them"""
    model: str = ""
    """folder of a segmentation model, or the name of a bundled one"""
    views: Views = "one"
    """one pass, or the votes of all test-time augmentations"""
    predictions: Path | None = None
    """score the predictions in this folder, <scene>.npz, instead of running a model; with --model: keep them there"""
    labels: str = ""
    """label set of predictions without a model: a name, or a JSON file of classes"""
    leave_out: tuple[str, ...] | None = None
    """classes that are no instances, of predictions without a model; by default those that the label set says"""
    json: Path | None = None
    """also write the figures to this file"""


@dataclass
class Scores:
    """Collected over scenes.

    Attributes:
        labels: the classes.
        matrix: points by true and predicted class.
        instances: matched instances; None when only classes are scored.
    """

    labels: LabelSet
    matrix: np.ndarray
    instances: InstanceEvaluation | None

    @classmethod
    def empty(cls, labels: LabelSet, instances: bool) -> "Scores":
        """Nothing yet; `instances` says whether they are scored too."""
        evaluation = InstanceEvaluation(labels, labels.leave_out) if instances else None
        return cls(labels, np.zeros((len(labels), len(labels)), np.int64), evaluation)

    def add(self, scene: Scene, prediction: Prediction) -> None:
        """One scene. Raises DataError when it lacks labels, or the prediction is of other points or classes."""
        truth = scene.labels_of(self.labels)
        if len(prediction.semantic) != len(scene):
            raise DataError(f"scene {scene.name}: has {len(scene)} points, its prediction {len(prediction.semantic)}.")
        self.matrix += confusion_matrix(truth, prediction.semantic, len(self.matrix))
        if self.instances is not None:
            if scene.instance is None:
                raise DataError(f"scene {scene.name}: has no instances (instance.npy).")
            proposals = Proposals(prediction.masks(), prediction.instance_labels, prediction.instance_scores)
            self.instances.add(proposals, truth, scene.instance)

    @property
    def semantic(self) -> SemanticReport:
        """Scores of the classes."""
        return SemanticReport(self.labels, self.matrix)

    @property
    def instance(self) -> InstanceReport | None:
        """Scores of the instances."""
        return None if self.instances is None else self.instances.report()

    def headline(self) -> dict[str, float]:
        """The figures that go into a run's metrics."""
        values = {"mean_iou": self.semantic.mean_iou, "mean_accuracy": self.semantic.mean_accuracy}
        report = self.instance
        if report is not None:
            values |= {"ap": report.ap, "ap50": report.ap50, "ap25": report.ap25}
        return {name: value for name, value in values.items() if not np.isnan(value)}


def score_scenes(
    model: SegmentationModel, scenes: str | Path, split: str, views: Views = "one", keep: Path | None = None,
    progress: bool = False, instances: bool = True,
) -> Scores:  # fmt: skip
    """Run a model over a split.

    Args:
        model: in evaluation mode.
        scenes: folder of splits.
        split: which of them.
        views: one pass or all.
        keep: folder for the predictions.
        progress: show it on stderr.
        instances: score them too, where the model has them.

    Raises:
        FormatError, DataError: scenes are missing, damaged, or lack the model's labels.
    """
    folders = list_scenes(scenes, split, model.labels)
    scores = Scores.empty(model.labels, instances and model.has_instances)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    shown = Progress("evaluating", len(folders)) if progress else None
    try:
        for folder in folders:
            scene = load_scene(folder, model.labels)
            prediction = predict(model, points_of_scene(scene, model.labels), views)
            scores.add(scene, prediction)
            if keep is not None:
                save_prediction(keep / f"{scene.name}.npz", prediction, model.labels)
            if shown:
                shown.advance(1, f"mean IoU {scores.semantic.mean_iou:.3f}")
    finally:
        if shown:
            shown.close()
    return scores


def score_predictions(folder: Path, scenes: Path, split: str, labels: LabelSet, instances: bool) -> Scores:
    """Score predictions on disk, one `<scene>.npz` for every scene of a split.

    Raises:
        FormatError, DataError: a scene or its prediction is missing, damaged, or of another label set.
    """
    scores = Scores.empty(labels, instances)
    for path in list_scenes(scenes, split, labels):
        prediction = load_prediction(folder / f"{path.name}.npz", labels)
        scores.add(load_scene(path, labels), prediction)
    return scores


def evaluate_semantic(config: EvaluateConfig) -> str:
    """Score classes of points: IoU and accuracy by class, their means, head, common and tail where the label set has them.

    Args:
        config: What to evaluate.
    """
    scores = _scores(config, instances=False)
    return _report(config, scores.semantic.figures(), str(scores.semantic))


def evaluate_instance(config: EvaluateConfig) -> str:
    """Score instances by ScanNet's AP, AP50 and AP25.

    Args:
        config: What to evaluate.
    """
    scores = _scores(config, instances=True)
    report = scores.instance
    assert report is not None
    return _report(config, report.figures(), str(report))


def _scores(config: EvaluateConfig, instances: bool) -> Scores:
    if config.model and (config.labels or config.leave_out is not None):
        given = "--labels" if config.labels else "--leave-out"
        raise DataError(f"{given}: is for predictions without a model; a model has its own classes, so leave out {given}.")
    if config.model:
        model = load_segmentation_model(config.model)
        if instances and not model.has_instances:
            raise DataError(f"--model {config.model}: predicts classes only; train one with --task instance.")
        kept = config.predictions
        return score_scenes(model, config.scenes, config.split, config.views, kept, progress=True, instances=instances)
    if config.predictions is None:
        raise DataError("evaluate: give --model, or --predictions with --labels.")
    if config.views != "one":
        raise DataError("--views: is for a model; predictions are scored as they are, so leave out --views.")
    if not config.labels:
        raise DataError("--predictions: give --labels too, the label set they are of.")
    labels = label_set(config.labels)
    labels = labels if config.leave_out is None else replace(labels, leave_out=config.leave_out)
    return score_predictions(config.predictions, config.scenes, config.split, labels, instances)


def _report(config: EvaluateConfig, figures: dict[str, Any], text: str) -> str:
    scenes = len(list_scenes(config.scenes, config.split))
    if config.json:
        about = {"version": __version__, "scenes": str(config.scenes), "split": config.split, "count": scenes}
        source = {"model": config.model} if config.model else {"predictions": str(config.predictions)}
        with atomic_write(config.json) as temporary:
            temporary.write_text(json.dumps({**about, **source, "views": config.views, **figures}, indent=1) + "\n", "utf-8")
    return f"{counted(scenes, 'scene')} of {config.split}\n{text}"
