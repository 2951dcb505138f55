"""GaussianCross pre-training (arXiv 2508.02172): `splatsense train gaussian-cross`, also under `torchrun`.

Design
- Every step draws its scenes, views, turns and masks from (seed, step) alone, and a scene's draws do not depend on its
  neighbours in the batch. So a run that was interrupted goes on bit for bit on a CPU, and n processes take the steps of one up
  to the order of sums.
- The teacher runs once an image: its features are kept on disk (`teachers.feature_cache`).
- Nothing is chosen by looking at `--validation`; it is for the report.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from splatsense.errors import DataError
from splatsense.frame_files import CAMERAS, load_frames
from splatsense.gaussian_cross.dataset import SceneSet, TrainingBatch
from splatsense.gaussian_cross.find_scenes import find_scenes
from splatsense.gaussian_cross.model import save_backbone
from splatsense.gaussian_cross.pretrain_config import PretrainConfig
from splatsense.gaussian_cross.pretrain_model import GaussianCross
from splatsense.gaussian_cross.report import Evaluation
from splatsense.teachers.dense import load_dense_teacher
from splatsense.teachers.feature_cache import FeatureCache
from splatsense.training.launch import Training, train_and_save
from splatsense.training.metrics import last_metrics
from splatsense.training.optimizer import parameter_groups, update
from splatsense.training.order import generator_at, row_at
from splatsense.training.processes import Processes
from splatsense.training.schedules import WarmupCosine
from splatsense.training.shares import Share

LABEL = "gaussian-cross"
CENTERED_OVER = 32  # training images whose mean feature is subtracted


def pretrain(config: PretrainConfig) -> Path:
    """Train GaussianCross on posed RGB-D frames, without labels, or go on training, and save the backbone.

    Returns:
        The folder of the saved model, `<out>/model`.

    Raises:
        DataError, FormatError, CheckpointError: what is wrong with settings, scenes or an existing run.
    """
    return train_and_save(config, lambda processes: _prepare(config, processes))


def _prepare(config: PretrainConfig, processes: Processes) -> Training:
    out = Path(config.out)
    with processes.one_first():
        data, held_out = open_scenes(config)
        center = mean_features(data) if config.center_features else None
    run = PretrainRun(config, data, center, processes)
    evaluation = Evaluation(run.model, held_out, out) if held_out and processes.is_first else None

    def save(folder: Path) -> None:
        card = {"training": config.settings(), "scenes": len(data), "metrics": last_metrics(out)}
        if evaluation is not None:
            card["controls"] = evaluation.controls
            evaluation.write_report(config.batch_size)
        save_backbone(folder, run.model.backbone, config.name or f"gaussian-cross-{config.size}", data.config.voxel, card)

    return Training(run, LABEL, _fingerprint(data), save, evaluation)


def open_scenes(config: PretrainConfig) -> tuple[SceneSet, SceneSet | None]:
    """The scenes that are trained on, and those of the report.

    Raises:
        DataError: a scene is in both.
        FormatError: there are none.
    """
    out, sample = Path(config.out), config.recipe().sample
    teacher = None
    if config.teacher != "none" and config.semantic_weight > 0:
        limit = int(config.cache_gigabytes * (1 << 30))
        teacher = FeatureCache(load_dense_teacher(config.teacher), config.cache or out / "features", limit)
    folders = find_scenes(config.scenes, "train", out / "scenes", config.intrinsics)
    data = SceneSet(folders, sample, teacher)
    if not config.validation:
        return data, None
    others = find_scenes(config.validation, "val", out / "scenes", config.intrinsics)
    both = {folder.resolve() for folder in folders} & {folder.resolve() for folder in others}
    if both:
        raise DataError(f"{min(both)}: is in --scenes and in --validation; a scene is either trained on or measured on.")
    count = min(config.validation_scenes, len(others))
    chosen = [others[(2 * index + 1) * len(others) // (2 * count)] for index in range(count)]
    return data, SceneSet(chosen, sample, teacher)


def mean_features(data: SceneSet) -> Tensor | None:
    """(d,) mean of the teacher's features over an image of each of up to 32 scenes, evenly spaced; None without a teacher."""
    if data.teacher is None:
        return None
    count = min(CENTERED_OVER, len(data))
    total = torch.zeros(data.teacher.teacher.dim, dtype=torch.float64)
    for index in range(count):
        frames = load_frames(data.folders[(2 * index + 1) * len(data) // (2 * count)] / CAMERAS)
        color = torch.from_numpy(frames.frame(len(frames) // 2)[0])
        total += data.teacher.features([color]).double().flatten(0, -2).mean(0)
    return (total / count).float()


def _fingerprint(data: SceneSet) -> str:
    """Changes when a run is resumed with other scenes or another teacher."""
    teacher = "" if data.teacher is None else data.teacher.teacher.hash
    return hashlib.sha256("\n".join([teacher, *(folder.name for folder in data.folders)]).encode()).hexdigest()[:16]


class PretrainRun:
    """The moving parts of a run: network, optimiser and schedule. See `training.loop.Run`."""

    def __init__(
        self, config: PretrainConfig, data: SceneSet, center: Tensor | None = None, processes: Processes | None = None
    ) -> None:
        self.config, self.data, self.processes = config, data, processes or Processes()
        self.device = self.processes.device
        self.batch_size, self.steps = config.batch_size, config.steps
        self.share = self.processes.share_of(Share.whole(self.batch_size))
        self.schedule = WarmupCosine(self.steps, config.warmup)
        sizes = config.recipe()
        self.height = sizes.decoder.height
        if data.teacher is not None and center is None:
            center = torch.zeros(data.teacher.teacher.dim)
        torch.manual_seed(config.seed)
        self.model = GaussianCross(sizes.backbone, sizes.decoder, config.weights(), center).to(self.device)
        self.modules: dict[str, nn.Module] = {"model": self.model}
        groups = parameter_groups(self.model.named_parameters(), lambda name: config.learning_rate, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.parallel = self.processes.data_parallel(self.model)

    def load(self, step: int) -> TrainingBatch:
        """This process's scenes of a step."""
        rows = range(self.share.start, self.share.stop)
        return self.data.batch([self._sample(step, row) for row in rows], self.height)

    def step(self, step: int, batch: TrainingBatch) -> dict[str, float]:
        """One update; its losses."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.parallel(batch.to(self.device))
        losses["loss"].backward()
        updated = update(self.optimizer, self.schedule, step, self.model.parameters(), self.config.clip_gradient)
        return {name: float(value.detach()) for name, value in losses.items()} | updated

    def _sample(self, step: int, position: int) -> tuple[int, torch.Generator]:
        """The scene at a position of the batch of a step, and the generator of its draws."""
        place = step * self.batch_size + position
        return row_at(place, len(self.data), self.config.seed), generator_at(place, self.config.seed)
