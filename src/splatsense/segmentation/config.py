"""Settings of downstream training: `SegmentationConfig`; `recipes.py` has those of the benchmarks."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from splatsense.errors import DataError
from splatsense.gaussian_cross.unet import UNET_SIZES, UNetConfig
from splatsense.label_files import as_json, label_set
from splatsense.labels import LABEL_SETS, LabelSet
from splatsense.segmentation.augment import AugmentConfig
from splatsense.training.settings import RunSettings

Task = Literal["semantic", "instance"]
Protocol = Literal["scratch", "finetune", "probe"]

RANDOM = "random:"  # before the size of a backbone with random weights


@dataclass(frozen=True)
class ClusterConfig:
    """How offsets become instances (PointGroup, arXiv 2004.01658, section 4, with the settings of the released configs)."""

    radius: float = 1.5
    """points are joined up to that far apart after they moved, in voxels"""
    least: int = 50
    """points of a cluster"""
    least_proposal: int = 100
    """a cluster becomes a proposal when it has more points"""

    def __post_init__(self) -> None:
        if not self.radius > 0 or self.least < 1 or self.least_proposal < 0:
            raise DataError("ClusterConfig: needs radius > 0, least >= 1 and least_proposal >= 0.")


@dataclass(frozen=True)
class SegmentationConfig(RunSettings):
    """Settings of a run."""

    scenes: str
    """folder of splits of scenes (docs/scenes.md)"""
    out: str
    """folder of the run: checkpoints, metrics.jsonl and at the end the model"""
    labels: str = "scannet20"
    """label set: scannet20, scannet200, s3dis, or a JSON file of classes (docs/segmentation.md)"""
    task: Task = "semantic"
    """classes of points, or instances by PointGroup"""
    protocol: Protocol = "scratch"
    """train everything from random weights; everything from a pre-trained backbone; or a linear layer on a frozen one"""
    backbone: str = ""
    """pre-trained backbone: the folder of a model; needed to fine-tune and to probe. random:SIZE probes an untrained one.
    Fine-tuning of a segmentation model keeps its head of classes where these are the same, and that of offsets"""
    cached: bool = False
    """probe features of the scenes as they are, computed once, instead of those of augmented scenes at every step"""
    size: str = "tiny"
    """of a backbone that is trained from scratch"""
    name: str = "segmentation"
    """name written into the saved model"""
    train_splits: tuple[str, ...] = ("train",)
    """splits that are trained on"""
    val_split: str = "val"
    """split whose scores go into the metrics, or none; never choose by the one you report on"""
    leave_out: tuple[str, ...] | None = None
    """classes that are no instances; None for those that the label set says"""
    voxel: float = 0.02
    """side of a voxel in metres"""
    crop_points: int = 102_400
    """of more voxels, those nearest to a random one are trained on; 0 keeps all"""
    crop_share: float = 0.0
    """instead of that, the share of voxels nearest to a random one; 0 for none"""
    mix: float = 0.8
    """chance that the scenes of a batch are laid over each other in pairs (Mix3D, arXiv 2110.02210)"""
    lovasz: float = 1.0
    """weight of the Lovasz loss beside cross-entropy; semantic segmentation only"""
    epochs: int = 800
    """passes over the scenes"""
    steps: int = 0
    """length of the run in steps instead of epochs; 0 goes by epochs"""
    batch_size: int = 32
    """scenes per step, of all processes together"""
    learning_rate: float = 5e-3
    """peak of the one-cycle schedule"""
    backbone_rate: float = 1.0
    """learning rate of a pre-trained backbone, as a factor of that of its heads"""
    weight_decay: float = 0.05
    """of AdamW, on matrices only"""
    clip_gradient: float = 10.0
    """norm that gradients are clipped to"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of matrix products in training"""
    scene_share: float = 1.0
    """share of the training scenes that are used, drawn by --limit-seed"""
    scene_list: str = ""
    """file that names the training scenes that are used, one a line"""
    points: int = 0
    """annotated points of each scene that keep their labels, drawn by --limit-seed; 0 keeps all labels"""
    point_lists: str = ""
    """folder of .npy files, or .npz, with the annotated points of each scene"""
    limit_seed: int = 0
    """of the draws of limited data; the same data for every --seed"""
    checkpoint_every: int = 100
    """steps between checkpoints, from which an interrupted run goes on"""
    log_every: int = 10
    """steps between lines of metrics.jsonl"""
    evaluate_every: int = 0
    """steps between evaluations on --val-split; 0 evaluates at the end"""
    tensorboard: bool = False
    """also write TensorBoard's events; needs the extra `train`"""
    prefetch: int = 1
    """batches made ahead in the background; 0 makes each when it is needed"""
    seed: int = 0
    """of weights, data order and augmentation"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """chances and ranges of augmentation"""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """how instances are found"""

    def __post_init__(self) -> None:
        super().__post_init__()
        len(self.label_set)  # read now, so that what is wrong with it is said first
        if self.size not in UNET_SIZES:
            raise DataError(f"--size {self.size}: no size of the backbone; choose one of {', '.join(UNET_SIZES)}.")
        self.at_least_one("epochs")
        self.not_negative("steps", "crop_points", "points", "lovasz")
        self.above_zero("voxel", "backbone_rate", "scene_share")
        self.up_to_one("mix", "crop_share", "scene_share")
        if (self.protocol == "scratch") == bool(self.backbone):
            raise DataError(
                f"--protocol {self.protocol}: "
                + ("starts from random weights; leave out --backbone." if self.backbone else "needs --backbone.")
            )
        if self.protocol == "probe" and self.task == "instance":
            raise DataError("--probe: is a linear layer for semantic segmentation; use --task semantic.")
        if self.backbone.startswith(RANDOM) and self.protocol != "probe":
            raise DataError(f"--backbone {self.backbone}: can only be probed; to train it, leave out --backbone.")
        if self.backbone.startswith(RANDOM) and self.backbone.removeprefix(RANDOM) not in UNET_SIZES:
            raise DataError(f"--backbone {self.backbone}: choose one of {', '.join(RANDOM + size for size in UNET_SIZES)}.")
        if self.cached and self.protocol != "probe":
            raise DataError("--cached: features stay the same only while the backbone is frozen; use it with --probe.")
        if self.points and self.point_lists:
            raise DataError("--points and --point-lists: give one of them.")
        if self.scene_list and self.scene_share < 1:
            raise DataError("--scene-share and --scene-list: give one of them.")

    @cached_property
    def label_set(self) -> LabelSet:
        """The classes."""
        labels = label_set(self.labels)
        return labels if self.leave_out is None else replace(labels, leave_out=self.leave_out)

    def settings(self) -> dict[str, Any]:
        """See `RunSettings`: of a label set from a file what is in it, wherever it lies."""
        known = self.label_set.name in LABEL_SETS
        return super().settings() | {
            "labels": self.labels if known else as_json(self.label_set), "leave_out": list(self.label_set.leave_out),
        }  # fmt: skip

    @property
    def network(self) -> UNetConfig:
        """Of a backbone that starts from random weights."""
        return UNET_SIZES[self.backbone.removeprefix(RANDOM) if self.starts_random and self.backbone else self.size]

    @property
    def starts_random(self) -> bool:
        """Whether the backbone's first weights are random."""
        return not self.backbone or self.backbone.startswith(RANDOM)
