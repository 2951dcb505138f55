"""`splatsense train segmentation` and `train s3dis-folds`: a recipe, with what is given on the command line in its place."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from splatsense.errors import DataError, FormatError
from splatsense.files import atomic_write
from splatsense.gaussian_cross.model import load_backbone
from splatsense.segmentation.config import SegmentationConfig, Task
from splatsense.segmentation.confusion import SemanticReport, percent
from splatsense.segmentation.evaluate import score_scenes
from splatsense.segmentation.model import load_segmentation_model
from splatsense.segmentation.predict import Views
from splatsense.segmentation.recipes import RECIPES, S3DIS_AREAS, Limits, RecipeName, protocol_of
from splatsense.segmentation.train import train_segmentation
from splatsense.tables import table

FOLD = "fold.json"  # settings and confusion matrix of one of S3DIS's six folds

OVERRIDES = (
    "labels", "size", "steps", "epochs", "batch_size", "learning_rate", "backbone_rate", "crop_points", "voxel", "mix",
    "precision", "val_split", "name", "seed", "evaluate_every", "checkpoint_every",
)  # fmt: skip


@dataclass(frozen=True)
class TrainOptions:
    """A recipe and what replaces its settings; None keeps the recipe's."""

    scenes: str
    """folder of splits of labelled scenes (docs/scenes.md)"""
    out: str
    """folder of the run; the model is saved in its sub-folder `model`"""
    recipe: RecipeName = "rooms20"
    """settings to start from"""
    task: Task = "semantic"
    """classes of points, or instances by PointGroup"""
    backbone: str = ""
    """model to fine-tune, with its heads where classes and task are the same; or random:SIZE, to probe; none: from scratch"""
    probe: bool = False
    """train a linear layer on the frozen backbone only"""
    cached: bool = False
    """with --probe: on features of the scenes as they are, computed once, instead of augmented ones"""
    area: int = 5
    """of S3DIS that is tested on"""
    labels: str | None = None
    """label set instead of the recipe's: scannet20, scannet200, s3dis, or a JSON file of classes of your own"""
    size: str | None = None
    """of a backbone that is trained from scratch: tiny, small or base"""
    steps: int | None = None
    """length of the run in steps; 0 goes by epochs"""
    epochs: int | None = None
    """length of the run in passes over the scenes"""
    batch_size: int | None = None
    """scenes per step, of all processes together"""
    learning_rate: float | None = None
    """peak of the one-cycle schedule"""
    backbone_rate: float | None = None
    """learning rate of a pre-trained backbone, as a factor of that of its heads"""
    crop_points: int | None = None
    """voxels of a scene that are trained on at once"""
    voxel: float | None = None
    """side of a voxel in metres; by default that of the pre-trained backbone, or the recipe's"""
    mix: float | None = None
    """chance of Mix3D"""
    precision: str | None = None
    """float32 or bfloat16"""
    val_split: str | None = None
    """split whose scores go into the metrics"""
    name: str | None = None
    """written into the saved model"""
    seed: int | None = None
    """of weights, data order and augmentation"""
    evaluate_every: int | None = None
    """steps between evaluations"""
    checkpoint_every: int | None = None
    """steps between checkpoints"""
    tensorboard: bool = False
    """also write TensorBoard's events; needs the extra `train`"""
    limits: Limits = field(default_factory=Limits)
    """limited data"""

    def config(self) -> SegmentationConfig:
        """The settings of the run. Raises DataError when some are out of range or contradict each other."""
        if self.precision not in (None, "float32", "bfloat16"):
            raise DataError(f"--precision {self.precision}: choose float32 or bfloat16.")
        if self.backbone and self.size is not None:
            raise DataError("--size: a pre-trained backbone has its own; leave it out.")
        own = {"area": self.area} if self.recipe == "s3dis" else {}
        protocol = protocol_of(self.backbone, self.probe)
        config = RECIPES[self.recipe](
            self.scenes, self.out, self.task, self.limits, backbone=self.backbone, protocol=protocol, cached=self.cached, **own
        )
        given: dict[str, Any] = {} if config.starts_random else {"voxel": load_backbone(self.backbone).voxel}
        given |= {name: getattr(self, name) for name in OVERRIDES if getattr(self, name) is not None}
        given["tensorboard"] = self.tensorboard
        if self.epochs is not None and self.steps is None:
            given["steps"] = 0
        return replace(config, **given)


def train_command(run: TrainOptions) -> str:
    """Train a segmentation model on labelled scenes: from scratch, from a pre-trained backbone, or as a linear probe.

    A run that was interrupted goes on with the same command.

    Args:
        run: A recipe and changes to it; what is left at none is as the recipe says.
    """
    return f"saved {train_segmentation(run.config())}"


def train_s3dis_folds(run: TrainOptions, views: Views = "all") -> str:
    """S3DIS's 6-fold protocol: six models, each tested on the area it was not trained on, scored together.

    Folds that are done with the same settings are passed over. The points of all areas go into one confusion matrix, as usual.

    Args:
        run: Settings of every fold; the recipe is s3dis.
        views: One pass or all test-time augmentations in the tests.
    """
    reports: dict[str, SemanticReport] = {}
    for area, name in enumerate(S3DIS_AREAS, 1):
        out = Path(run.out) / name
        config = replace(run, recipe="s3dis", area=area, out=str(out)).config()
        settings = config.settings() | {"views": views}
        matrix = _read_fold(out / FOLD, settings)
        if matrix is None:
            model = train_segmentation(config)
            matrix = score_scenes(load_segmentation_model(model), run.scenes, name, views, progress=True).matrix
            with atomic_write(out / FOLD) as temporary:
                temporary.write_text(json.dumps({"settings": settings, "matrix": matrix.tolist()}) + "\n", "utf-8")
        reports[name] = SemanticReport(config.label_set, matrix)
    report = SemanticReport(reports["Area_1"].labels, np.sum([one.matrix for one in reports.values()], axis=0))
    figures = [(name, percent(one.mean_iou), percent(one.mean_accuracy)) for name, one in {**reports, "6-fold": report}.items()]
    rows = [("area", "mean IoU", "mean accuracy"), *figures]
    with atomic_write(Path(run.out) / "6-fold.json") as temporary:
        temporary.write_text(json.dumps(report.figures(), indent=1) + "\n", "utf-8")
    return f"{table(rows, '<>>')}\n\n{report}"


def _read_fold(path: Path, settings: dict[str, Any]) -> np.ndarray | None:
    """The confusion matrix of a fold that was done with these settings, or None."""
    if not path.is_file():
        return None
    try:
        done = json.loads(path.read_text("utf-8"))
        return np.array(done["matrix"], np.int64) if done["settings"] == settings else None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: is damaged ({error}); delete it, and the fold is scored again.") from error
