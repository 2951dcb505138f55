"""Contrastive pre-training of scenes: `splatsense train scene-contrast`, the baseline that GaussianCross is compared with.

Design
- Same scenes, points, SpUNet, voxels, optimiser and number of steps as `train gaussian-cross`, without labels. It does not
  look at frames, but a scene without them is refused here too, so that both train on the same scenes.
- A step draws its scenes, crops and augmentation from (seed, step) alone: a resumed run equals an uninterrupted one, bit for
  bit on a CPU. Normalisation is over all processes and losses are means by scene, so n processes take the steps of one up to
  the order of sums.
- Our choices: crops of 60 % of a scene's points nearest to a random one; one-to-one matches; a projection head of two layers,
  dropped after training; negatives are the other matched points of the same scene. Temperature 0.4 is that of PointContrast's
  released script, which has 4,096 pairs, at four times the cost; the symmetric loss is MSC's (arXiv 2303.14191).
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from splatsense.gaussian_cross.collapse import effective_rank, feature_spread
from splatsense.gaussian_cross.dataset import SampleConfig, SceneSet
from splatsense.gaussian_cross.find_scenes import find_scenes
from splatsense.gaussian_cross.model import save_backbone
from splatsense.gaussian_cross.unet import SpUNet, UNetConfig
from splatsense.scene_contrast.config import ContrastConfig
from splatsense.scene_contrast.loss import point_info_nce
from splatsense.scene_contrast.views import PairBatch, View, collate, view_pair
from splatsense.sparse import SparseTensor
from splatsense.training.launch import Training, train_and_save
from splatsense.training.metrics import last_metrics
from splatsense.training.optimizer import parameter_groups, update
from splatsense.training.order import generator_at, row_at
from splatsense.training.processes import Processes
from splatsense.training.schedules import WarmupCosine
from splatsense.training.shares import Share

METHOD = "scene-contrast"
WATCHED = 4096  # voxels whose features are watched for a collapse


def pretrain_contrast(config: ContrastConfig) -> Path:
    """Train a backbone by contrast, the baseline of GaussianCross, or go on training, and save it.

    Returns:
        The folder of the saved model, `<out>/model`.

    Raises:
        DataError, FormatError, CheckpointError: what is wrong with settings, scenes or an existing run.
    """
    return train_and_save(config, lambda processes: _prepare(config, processes))


def _prepare(config: ContrastConfig, processes: Processes) -> Training:
    with processes.one_first():
        data = open_scenes(config)
    run = ContrastRun(config, data, processes)

    def save(folder: Path) -> None:
        metrics = last_metrics(Path(config.out))
        card = {"method": METHOD, "training": config.settings(), "scenes": len(data), "metrics": metrics}
        name = config.name or f"{METHOD}-{config.size}"
        save_backbone(folder, run.model.backbone, name, data.config.voxel, card)

    names = "\n".join(folder.name for folder in data.folders)
    return Training(run, METHOD, hashlib.sha256(names.encode()).hexdigest()[:16], save)


def open_scenes(config: ContrastConfig) -> SceneSet:
    """The scenes that are trained on. Raises FormatError when there are none."""
    folders = find_scenes(config.scenes, "train", Path(config.out) / "scenes", config.intrinsics or ())
    return SceneSet(folders, SampleConfig(voxel=config.views().voxel))


class SceneContrast(nn.Module):
    """Backbone and projection head.

    Args:
        backbone: shape of the sparse U-Net.
        hidden: width inside the head.
        dim: of what is compared.
        temperature: of the loss.
    """

    def __init__(self, backbone: UNetConfig, hidden: int, dim: int, temperature: float) -> None:
        super().__init__()
        self.backbone = SpUNet(backbone)
        self.head = nn.Sequential(nn.Linear(self.backbone.out_channels, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.temperature = temperature

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        """The loss; and without gradient, how often the nearest feature is the right one, and what tells a collapse."""
        features = self.backbone(SparseTensor(batch.coordinates, batch.features))
        first, second = (self.head(features[batch.pairs[:, side]]) for side in (0, 1))
        rows = [batch.scene == scene for scene in range(int(batch.scene.max()) + 1)]
        losses, found = zip(*(point_info_nce(first[own], second[own], self.temperature) for own in rows), strict=True)
        seen = features.detach()[:: max(1, len(features) // WATCHED)]
        watched = {"feature_std": feature_spread(seen), "effective_rank": effective_rank(seen)}
        known = {"found": torch.stack(found).mean(), "pairs": torch.tensor(float(len(batch.pairs)))}
        return {"loss": torch.stack(losses).mean(), **known, **{name: torch.tensor(value) for name, value in watched.items()}}


class ContrastRun:
    """The moving parts of a run. See `training.loop.Run`."""

    def __init__(self, config: ContrastConfig, data: SceneSet, processes: Processes | None = None) -> None:
        self.config, self.data, self.processes = config, data, processes or Processes()
        self.device = self.processes.device
        self.views = config.views()
        self.batch_size, self.steps = config.batch_size, config.steps
        self.share = self.processes.share_of(Share.whole(self.batch_size))
        self.schedule = WarmupCosine(self.steps, config.warmup)
        torch.manual_seed(config.seed)
        self.model = SceneContrast(config.backbone(), config.hidden, config.dim, config.temperature).to(self.device)
        self.modules: dict[str, nn.Module] = {"model": self.model}
        groups = parameter_groups(self.model.named_parameters(), lambda name: config.learning_rate, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.parallel = self.processes.data_parallel(self.model)

    def load(self, step: int) -> PairBatch:
        """This process's scenes of a step."""
        places = range(step * self.batch_size + self.share.start, step * self.batch_size + self.share.stop)
        return collate([self._sample(place) for place in places])

    def step(self, step: int, batch: PairBatch) -> dict[str, float]:
        """One update; its losses."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.parallel(batch.to(self.device))
        losses["loss"].backward()
        updated = update(self.optimizer, self.schedule, step, self.model.parameters(), self.config.clip_gradient)
        return {name: float(value.detach()) for name, value in losses.items()} | updated

    def _sample(self, place: int) -> tuple[View, View, Tensor]:
        row = row_at(place, len(self.data), self.config.seed)
        return view_pair(self.data.points(row), self.views, generator_at(place, self.config.seed))
