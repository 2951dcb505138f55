"""Downstream training: `splatsense train segmentation`, on the loop that all runs share, also under torchrun.

Design
- Three protocols: from scratch, fine-tuning of a pre-trained backbone, and a linear probe of a frozen one. They differ in
  where the weights come from and what is trained, and in nothing else. Fine-tuning of a segmentation model keeps its heads
  where they fit: a probe's is a better start than random weights (LP-FT, arXiv 2202.10054).
- A step draws scenes, augmentation and crops from (seed, step): a resumed run equals an uninterrupted one, bit for bit on
  a CPU.
- The model of the last step is saved. Pointcept keeps the best on the validation split, which its tables then report.
"""

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from splatsense.errors import DataError
from splatsense.gaussian_cross.model import load_backbone
from splatsense.scenes import list_scenes
from splatsense.segmentation.cached_features import CachedFeatures, FeatureBatch
from splatsense.segmentation.config import SegmentationConfig
from splatsense.segmentation.dataset import SeedOf, TrainingScenes, VoxelBatch, batch_of_step, check_labelled
from splatsense.segmentation.evaluate import score_scenes
from splatsense.segmentation.model import KIND, SegmentationModel, load_segmentation_model, save_segmentation_model
from splatsense.segmentation.network import Segmenter, segmentation_loss, semantic_loss
from splatsense.training.launch import Training, train_and_save
from splatsense.training.optimizer import parameter_groups, update
from splatsense.training.order import row_at
from splatsense.training.processes import Processes, autocast_type
from splatsense.training.schedules import OneCycle
from splatsense.training.shares import Share

log = logging.getLogger("splatsense")


def train_segmentation(config: SegmentationConfig) -> Path:
    """Train, or go on training, and save the model.

    Returns:
        The folder of the saved model, `<out>/model`.

    Raises:
        DataError, FormatError, CheckpointError: what is wrong with settings, scenes, backbone or an existing run.
    """
    return train_and_save(config, lambda processes: _prepare(config, processes))


def _prepare(config: SegmentationConfig, processes: Processes) -> Training:
    run = SegmentationRun(config, processes)
    has_validation = (Path(config.scenes) / config.val_split).is_dir()
    if has_validation:
        check_labelled(list_scenes(config.scenes, config.val_split, config.label_set), config)
    elif config.evaluate_every:
        raise DataError(f"--evaluate-every: {config.scenes} has no split {config.val_split}; name one with --val-split.")
    elif config.val_split != "none" and processes.is_first:
        log.warning("%s has no split %s: nothing is validated; name one with --val-split.", config.scenes, config.val_split)

    def save(folder: Path) -> None:
        save_segmentation_model(folder, run.model())

    label = f"{config.task} {config.protocol}"
    return Training(run, label, run.fingerprint, save, run.validate if has_validation else None)


class SegmentationRun:
    """The moving parts of a run. See `training.loop.Run`."""

    def __init__(self, config: SegmentationConfig, processes: Processes | None = None) -> None:
        self.config, self.processes = config, processes or Processes()
        self.device = self.processes.device
        self.autocast = autocast_type(config.precision, self.device)
        self.scenes = TrainingScenes(config)
        self.batch_size = config.batch_size
        self.steps = config.steps or max(1, config.epochs * len(self.scenes) // config.batch_size)
        self.share = self.processes.share_of(Share.whole(self.batch_size))
        self.schedule = OneCycle(self.steps)
        self.generator_of = SeedOf(config.seed)
        torch.manual_seed(config.seed)
        self.network, backbone = _network(config)
        self.network.to(self.device)
        self.fingerprint = _fingerprint(self.scenes, backbone)
        self.modules: dict[str, nn.Module] = {"network": self.network}
        self.trained = [(name, value) for name, value in self.network.named_parameters() if value.requires_grad]
        slower = 1.0 if config.starts_random else config.backbone_rate
        rates = {name: config.learning_rate * (slower if name.startswith("backbone.") else 1) for name, _ in self.trained}
        groups = parameter_groups(self.trained, rates.__getitem__, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.features = CachedFeatures(self.scenes, self.network) if config.cached else None
        self.parallel = self.processes.data_parallel(self.network.classes if config.cached else self.network)

    def load(self, step: int) -> VoxelBatch | FeatureBatch:
        """This process's part of a batch."""
        own = range(self.share.start, self.share.stop)
        if self.features is not None:
            return self.features.batch(self._rows(step), step, own, self.generator_of)
        return batch_of_step(self.scenes, self._rows(step), step, own, self.generator_of)

    def step(self, step: int, batch: VoxelBatch | FeatureBatch) -> dict[str, float]:
        """One update; its losses."""
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            output = self.parallel(batch.features if isinstance(batch, FeatureBatch) else batch.voxels)
        if isinstance(batch, FeatureBatch):
            losses = semantic_loss(output, batch.semantic, self.lovasz)
        else:
            losses = segmentation_loss(output, batch.semantic, batch.offsets, batch.counted, self.lovasz)
        losses["loss"].backward()
        updated = update(self.optimizer, self.schedule, step, [value for _, value in self.trained], self.config.clip_gradient)
        return {name: float(value.detach()) for name, value in losses.items()} | updated

    @property
    def lovasz(self) -> float:
        """Weight of the Lovasz loss: PointGroup has none."""
        return self.config.lovasz if self.config.task == "semantic" else 0.0

    def model(self) -> SegmentationModel:
        """The network as it is, for use."""
        config = self.config
        card = {"name": config.name, "training": config.settings(), "scenes": len(self.scenes), "steps": self.steps}
        return SegmentationModel(self.network.plain(), config.label_set, config.voxel, config.cluster, card)

    def validate(self) -> dict[str, float]:
        """Scores on the validation split, from one pass over each scene."""
        was_training = self.network.training
        self.network.eval()
        report = score_scenes(self.model(), self.config.scenes, self.config.val_split)
        self.network.train(was_training)
        return {f"{self.config.val_split}_{name}": value for name, value in report.headline().items()}

    def _rows(self, step: int) -> list[int]:
        """Scenes of a step, for all processes."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [row_at(place, len(self.scenes), self.config.seed) for place in places]


def _network(config: SegmentationConfig) -> tuple[Segmenter, dict[str, Tensor]]:
    """The network at the start of a run, and the pre-trained weights in it."""
    start = None if config.starts_random else load_backbone(config.backbone)
    network_config = start.network.config if start else config.network
    network = Segmenter(network_config, len(config.label_set), config.task == "instance")
    weights: dict[str, Tensor] = {}
    if start:
        weights = {f"backbone.{name}": value for name, value in start.network.state_dict().items()}
        if config.protocol == "finetune" and start.card.get("kind") == KIND:
            weights |= _heads(config, network)
        network.load_state_dict(network.state_dict() | weights)
    if config.protocol == "probe":
        network.freeze_backbone()
    return network, weights


def _heads(config: SegmentationConfig, network: Segmenter) -> dict[str, Tensor]:
    """Weights of the heads of the segmentation model that is fine-tuned; none of a head with other classes."""
    model = load_segmentation_model(config.backbone)
    names = ("classes.", "offsets.") if model.labels.names == config.label_set.names else ("offsets.",)
    known = network.state_dict()
    return {name: value for name, value in model.network.state_dict().items() if name.startswith(names) and name in known}


def _fingerprint(scenes: TrainingScenes, backbone: dict[str, Tensor]) -> str:
    """Changes when a run is resumed with other scenes or another backbone."""
    digest = hashlib.sha256("\n".join(f"{folder.parent.name}/{folder.name}" for folder in scenes.folders).encode())
    for name in sorted(backbone):
        digest.update(name.encode() + backbone[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
