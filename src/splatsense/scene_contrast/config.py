"""Settings of contrastive pre-training: `ContrastConfig`. Names and defaults are those of GaussianCross, where it has them."""

from dataclasses import dataclass
from typing import ClassVar

from splatsense.gaussian_cross.sizes import Size, recipe
from splatsense.gaussian_cross.unet import UNetConfig
from splatsense.scene_contrast.views import ViewConfig
from splatsense.training.settings import RunSettings


@dataclass(frozen=True)
class ContrastConfig(RunSettings):
    """Settings of a run. Voxels left at none are those of the size."""

    HOW_IT_RUNS: ClassVar[tuple[str, ...]] = (*RunSettings.HOW_IT_RUNS, "intrinsics")
    """Recordings are imported once, into the folder of the run."""

    scenes: tuple[str, ...]
    """corpora (their train split is used), folders of scenes, scenes, or posed RGB-D recordings, which are imported first"""
    out: str
    """folder of the run: checkpoints, metrics.jsonl and at the end the model"""
    size: Size = "tiny"
    """of the backbone"""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy of recordings that do not say it"""
    name: str = ""
    """written into the saved model; by default scene-contrast-SIZE"""
    steps: int = 2000
    """updates of the weights"""
    batch_size: int = 1
    """scenes per step, of all processes together"""
    voxel: float | None = None
    """side of the backbone's voxels in metres"""
    most_voxels: int | None = None
    """of a view; of more, random ones are dropped"""
    crop: float = 0.6
    """share of a scene's points in each of the two views"""
    pairs: int = 2048
    """matching points of a scene that are compared, at most; PointContrast has 4,096, at four times the cost"""
    temperature: float = 0.4
    """cosines are divided by it; that of PointContrast's released script"""
    hidden: int = 128
    """width inside the projection head"""
    dim: int = 64
    """of the features that are compared"""
    learning_rate: float = 1e-3
    """peak, reached after the warm-up"""
    weight_decay: float = 0.05
    """of AdamW, on matrices only"""
    warmup: float = 0.05
    """fraction of the steps"""
    clip_gradient: float = 5.0
    """norm that gradients are clipped to"""
    checkpoint_every: int = 100
    """steps between checkpoints, from which an interrupted run goes on"""
    log_every: int = 10
    """steps between lines of metrics.jsonl"""
    tensorboard: bool = False
    """also write TensorBoard's events; needs the extra `train`"""
    prefetch: int = 1
    """batches made ahead in the background; 0 makes each when it is needed"""
    seed: int = 0
    """of weights, scene order and views"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("steps", "hidden", "dim")
        self.above_zero("temperature")
        self.below_one("warmup")
        self.views()

    def views(self) -> ViewConfig:
        """How scenes are seen. Raises DataError when a number is out of range."""
        sample = recipe(self.size).sample
        voxel = sample.voxel if self.voxel is None else self.voxel
        most = sample.most_voxels if self.most_voxels is None else self.most_voxels
        return ViewConfig(voxel, most, self.crop, self.pairs)

    def backbone(self) -> UNetConfig:
        """That of the size."""
        return recipe(self.size).backbone
