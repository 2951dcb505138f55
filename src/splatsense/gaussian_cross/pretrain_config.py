"""Settings of GaussianCross pre-training: `PretrainConfig`."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from splatsense.errors import DataError
from splatsense.gaussian_cross.decoder import Anchors
from splatsense.gaussian_cross.distillation import LossWeights
from splatsense.gaussian_cross.sizes import Recipe, Size, recipe
from splatsense.training.settings import RunSettings

DECODER = ("grid", "levels", "anchors", "reach", "threshold", "feature_channels")
SAMPLE = ("voxel", "most_voxels", "views", "width", "height", "mask_ratio", "mask_side", "dropout", "rotate", "cuboid_side")


@dataclass(frozen=True)
class PretrainConfig(RunSettings):
    """Settings of a GaussianCross run. A number left at its default of none is that of the size."""

    HOW_IT_RUNS: ClassVar[tuple[str, ...]] = (
        *RunSettings.HOW_IT_RUNS, "cache", "cache_gigabytes", "validation", "validation_scenes",
    )  # fmt: skip

    scenes: tuple[str, ...]
    """corpora (their train split is used), folders of scenes, scenes, or posed RGB-D recordings, which are imported first"""
    out: str
    """folder of the run: checkpoints, metrics.jsonl, report.html and at the end the model"""
    size: Size = "tiny"
    """of backbone, volume and images"""
    validation: tuple[str, ...] = ()
    """scenes that are never trained on, as for --scenes (of a corpus the val split): the report is drawn on them"""
    validation_scenes: int = 8
    """how many of them, evenly spaced"""
    teacher: str = "mini"
    """frozen 2D model: mini, with the extra `dense` dinov2:vits14 or radio:v2.5-b, or none; docs/gaussian-cross.md has more"""
    cache: str = ""
    """folder of the teacher's features; by default OUT/features"""
    cache_gigabytes: float = 4.0
    """bound on that folder"""
    intrinsics: tuple[float, ...] = ()
    """fx fy cx cy of recordings that do not say it"""
    name: str = ""
    """written into the saved model; by default gaussian-cross-SIZE"""
    steps: int = 2000
    """updates of the weights"""
    batch_size: int = 1
    """scenes per step, of all processes together"""
    voxel: float | None = None
    """side of the backbone's voxels in metres"""
    most_voxels: int | None = None
    """of a scene and step; of more, random ones are dropped"""
    views: int | None = None
    """M, frames of a scene that are rendered"""
    width: int | None = None
    """of the rendered images"""
    height: int | None = None
    """of the rendered images"""
    mask_ratio: float | None = None
    """part of the blocks of voxels whose colour and normal are hidden"""
    mask_side: int | None = None
    """of a block, in voxels"""
    dropout: float | None = None
    """part of the points that are taken out"""
    rotate: float | None = None
    """scenes are turned about the vertical by up to so many degrees either way"""
    cuboid_side: float | None = None
    """metres that the volume is wide for every scene, instead of being fitted to each: no normalisation of their size"""
    grid: tuple[int, int, int] | None = None
    """cells of the dense volume along x, y and z"""
    levels: int | None = None
    """of the 3D U-Net; 0 leaves it out, which needs --reach 0"""
    anchors: Anchors | None = None
    """which cells may become Gaussians: those near an occupied one, or all"""
    reach: int | None = None
    """how many cells near is, for --anchors occupied"""
    threshold: float | None = None
    """tau, the opacity up to which Gaussians are pruned"""
    feature_channels: int | None = None
    """of the features that are rendered"""
    color_weight: float = 10.0
    """factor on the colour loss"""
    depth_weight: float = 10.0
    """factor on the depth loss"""
    semantic_weight: float = 10.0
    """factor on the feature loss"""
    center_features: bool = True
    """subtract the mean of the teacher's features over a few training images; --no-center-features leaves them as they are"""
    learning_rate: float = 1e-3
    """peak, reached after the warm-up"""
    weight_decay: float = 0.05
    """of AdamW, on matrices only"""
    warmup: float = 0.05
    """fraction of the steps"""
    clip_gradient: float = 5.0
    """norm that gradients are clipped to"""
    evaluate_every: int = 0
    """steps between evaluations on --validation, each with pictures; 0 evaluates at the end"""
    checkpoint_every: int = 100
    """steps between checkpoints, from which an interrupted run goes on"""
    log_every: int = 10
    """steps between lines of metrics.jsonl"""
    tensorboard: bool = False
    """also write TensorBoard's events; needs the extra `train`"""
    prefetch: int = 1
    """batches made ahead in the background; 0 makes each when it is needed"""
    seed: int = 0
    """of weights, scene order, views and masks"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("steps", "validation_scenes")
        self.not_negative("cache_gigabytes")
        self.below_one("warmup")
        if len(self.intrinsics) not in (0, 4):
            raise DataError(f"--intrinsics: needs fx fy cx cy, got {len(self.intrinsics)} numbers.")
        if self.evaluate_every and not self.validation:
            raise DataError("--evaluate-every: needs --validation, whose scenes are evaluated on.")
        self.recipe()
        self.weights()

    def recipe(self) -> Recipe:
        """That of the size, with what was given. Raises DataError when a number is out of range."""
        base = recipe(self.size)
        return replace(
            base, decoder=replace(base.decoder, **self._given(DECODER)), sample=replace(base.sample, **self._given(SAMPLE))
        )

    def weights(self) -> LossWeights:
        """Of the losses."""
        return LossWeights(self.color_weight, self.depth_weight, self.semantic_weight if self.teacher != "none" else 0.0)

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
