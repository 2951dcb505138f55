"""CLIP-GS pre-training (arXiv 2412.19142): `splatsense train clip-gs`, also under `torchrun` and `accelerate launch`.

Design
- The towers of the teacher are frozen, so their embeddings come from `shards.embed_shard`, once.
- Every step draws its data, augmentation and dropout from (seed, step) alone, for the whole batch: a run that was
  interrupted and resumed takes the same steps as one that was not, bit for bit on a CPU; and n processes take those of one
  up to the order of sums, since negatives and batch statistics are those of the whole batch too.
- `--accumulate` first embeds the parts of a batch without gradients, takes the loss over all, and embeds each part again
  for its gradient (GradCache, arXiv 2101.06983). Batch statistics are then those of a part.
- An exponential moving average of the weights is what is evaluated and saved.
- The best model is not picked by looking at a test split: `--holdout` leaves train objects out to make choices on.
"""

import contextlib
import copy
import hashlib
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from splatsense.clip_gs.augment import augment
from splatsense.clip_gs.dataset import TrainingBatch, TripletSet
from splatsense.clip_gs.encoder import GaussianEncoder
from splatsense.clip_gs.holdout import HoldoutEvaluation
from splatsense.clip_gs.loss import ClipGSLoss
from splatsense.clip_gs.model import load_model, save_model
from splatsense.clip_gs.pretrain_config import PretrainConfig
from splatsense.clip_gs.shards import fingerprint
from splatsense.clip_gs.tokenizer import GaussianBatch
from splatsense.clip_gs.uni3d import load_uni3d
from splatsense.errors import CheckpointError, DataError
from splatsense.teachers import Teacher, load_teacher
from splatsense.training.batch_norm import without_tracking
from splatsense.training.launch import Training, train_and_save
from splatsense.training.optimizer import layer_factor, parameter_groups, update
from splatsense.training.processes import Processes, autocast_type
from splatsense.training.schedules import WarmupCosine
from splatsense.training.shares import Share, working_on

NEW_BRANCH = "tokenizer.attribute_branch."  # what a point-cloud model lacks
FIRST_LAYER = "tokenizer.point_branch.point_layers.0.weight"  # whose inputs are the attributes


def pretrain(config: PretrainConfig) -> Path:
    """Train CLIP-GS on triplets of splats, pictures and captions, or go on training, and save the model.

    Returns:
        The folder of the saved model, `<out>/model`.

    Raises:
        DataError, FormatError, CheckpointError: what is wrong with settings, triplets or an existing run.
    """
    return train_and_save(config, lambda processes: _prepare(config, processes))


def _prepare(config: PretrainConfig, processes: Processes) -> Training:
    teacher = load_teacher(config.teacher)
    network = config.encoder(teacher.dim)
    if config.init:
        start_from(GaussianEncoder(network), config.init)  # what is wrong with it is said before a corpus is embedded
    with processes.one_first():
        data = TripletSet(config.triplets, teacher, config.is_used)
        held_out = TripletSet(config.triplets, teacher, config.is_held_out) if config.holdout else None
    run = _Run(config, data, processes)
    evaluation = HoldoutEvaluation(held_out, teacher, run.average, config.centering) if held_out else None

    def save(folder: Path) -> None:
        card = {"training": config.settings(), "objects": len(data), "steps": run.steps}
        text_center = config.centering * run.center()
        save_model(folder, run.average, config.model_name, teacher, card, text_center)

    return Training(run, "clip-gs", _fingerprint(config, data, teacher), save, evaluation)


def _fingerprint(config: PretrainConfig, data: TripletSet, teacher: Teacher) -> str:
    """Changes when a run is resumed with other objects, with shards of other content or with another teacher."""
    trained_on = [teacher.hash, fingerprint(config.triplets), *data.keys]
    return hashlib.sha256("\n".join(trained_on).encode()).hexdigest()[:16]


def start_from(encoder: GaussianEncoder, model: str) -> set[str]:
    """Copy the weights of a saved model, or of a published Uni3D model (a safetensors file), into an encoder.

    A point-cloud model also starts an encoder that sees all attributes: a refinement block stays as it is, and without one
    the weights of the attributes that are new to the patch encoder are zero.

    Returns:
        Names of the parameters that were copied.

    Raises:
        CheckpointError: the model is of another size or configuration.
    """
    if model.endswith(".safetensors"):
        return load_uni3d(encoder, model)
    source = load_model(model).encoder
    saved = {name: value for name, value in source.state_dict().items() if name != "center"}  # there is none in training
    own = {name: value for name, value in encoder.state_dict().items() if name != "center"}
    lacking = {name for name in own.keys() - saved.keys() if name.startswith(NEW_BRANCH)}
    if FIRST_LAYER in own and FIRST_LAYER in saved:
        saved[FIRST_LAYER] = pad(saved[FIRST_LAYER], (0, max(0, own[FIRST_LAYER].shape[1] - saved[FIRST_LAYER].shape[1])))
    shapes = [{name: value.shape for name, value in state.items() if name not in lacking} for state in (own, saved)]
    wrong = [name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name)]
    if wrong:
        shown = ", ".join(wrong[:4])
        raise CheckpointError(
            f"--init {model}: of another size or configuration; {len(wrong)} tensors differ, such as {shown}."
        )
    encoder.load_state_dict(saved, strict=False)
    return set(saved)


class _Run:
    """The moving parts of a run: network, its average, loss, optimiser and the schedule. See `training.loop.Run`."""

    def __init__(self, config: PretrainConfig, data: TripletSet, processes: Processes | None = None) -> None:
        self.config, self.data, self.processes = config, data, processes or Processes()
        self.device = self.processes.device
        self.autocast = autocast_type(config.precision, self.device)
        weights = torch.tensor(config.weights or [1.0] * len(config.triplets), dtype=torch.float64)
        self.rates = weights[data.folders]
        self.chances = self.rates.float()
        if config.image_map > 0:
            data.map_images(config.image_map, self.chances)
        if len(data) < 2:
            raise DataError(f"there is one object only to train on, {data.keys[0]}; a batch needs others to tell it from.")
        drawn = int(_in_millionths(self.rates.sum()))  # in each epoch, at least
        if drawn < 2:
            raise DataError(f"--weights: an epoch would draw {drawn} of {len(data)} objects; a batch needs two or more.")
        self.batch_size = min(config.batch_size, drawn)
        self.parts = [self.processes.share_of(part) for part in Share.whole(self.batch_size).split(config.accumulate, "parts")]
        self.per_epoch = max(1, drawn // config.batch_size)
        self.steps = config.epochs * self.per_epoch
        self.schedule = WarmupCosine(self.steps, config.warmup)
        torch.manual_seed(config.seed)
        network = config.encoder(load_teacher(config.teacher).dim)
        self.encoder = GaussianEncoder(network, config.drop_path, config.patch_dropout, config.checkpointing).to(self.device)
        copied = start_from(self.encoder, config.init) if config.init else set()
        self.average = copy.deepcopy(self.encoder).eval().requires_grad_(False)
        loss = ClipGSLoss(
            config.voting, config.voting_temperature, config.image_weight, config.temperature, not config.fixed_temperature
        )
        self.loss = loss.to(self.device)
        self.modules: dict[str, nn.Module] = {"encoder": self.encoder, "average": self.average, "loss": self.loss}
        self.optimizer = torch.optim.AdamW(self._groups(copied), lr=config.learning_rate, betas=(0.9, 0.98))
        self.parallel_encoder = self.processes.data_parallel(self.encoder)
        self.parallel_loss = self.processes.data_parallel(self.loss)

    def _groups(self, copied: set[str]) -> list[dict[str, object]]:
        config, depth = self.config, self.encoder.config.depth

        def peak(name: str) -> float:
            if name not in copied:
                return config.learning_rate
            return config.pretrained_learning_rate * layer_factor(name, depth, config.layer_decay)

        return parameter_groups([*self.encoder.named_parameters(), *self.loss.named_parameters()], peak, config.weight_decay)

    def load(self, step: int) -> TrainingBatch:
        """This process's part of a batch, augmented."""
        config = self.config
        generator = torch.Generator().manual_seed(self._seed(step))
        own = torch.cat([torch.arange(part.start, part.stop) for part in self.parts])
        batch = self.data.batch(self._rows(step), self.encoder.config.gaussians, config.views, generator, own)
        return replace(batch, gaussians=augment(batch.gaussians, config.augment, generator, own, self.batch_size))

    def step(self, step: int, batch: TrainingBatch) -> dict[str, float]:
        """One update; its losses."""
        self.optimizer.zero_grad(set_to_none=True)
        targets = [value.to(self.device) for value in (batch.text, batch.images, batch.names)]
        losses = self._backward(step, batch.gaussians.to(self.device), targets)
        updated = update(self.optimizer, self.schedule, step, self.encoder.parameters(), self.config.clip_gradient)
        self._update_average(step)
        return {name: float(value.detach()) for name, value in losses.items()} | updated

    def _backward(self, step: int, gaussians: GaussianBatch, targets: list[Tensor]) -> dict[str, Tensor]:
        """Losses of the whole batch, and their gradients in the parameters."""
        if len(self.parts) == 1:
            with working_on(self.parts[0]):
                losses = self._losses(self._embed(self.parallel_encoder, step, gaussians), targets)
                losses["loss"].backward()
            return losses
        sizes = [len(part) for part in self.parts]
        pieces = [
            GaussianBatch(*columns)
            for columns in zip(*(getattr(gaussians, f.name).split(sizes) for f in fields(gaussians)), strict=True)
        ]
        embedded = []
        with torch.no_grad(), without_tracking(self.encoder):
            for part, piece in zip(self.parts, pieces, strict=True):
                with working_on(part):
                    embedded.append(self._embed(self.encoder, step, piece))
        rows = torch.cat(embedded).requires_grad_()
        losses = self._losses(rows, targets)
        losses["loss"].backward()
        assert rows.grad is not None
        gradients = rows.grad.split(sizes)
        for part, piece, gradient in zip(self.parts, pieces, gradients, strict=True):
            is_last = part is self.parts[-1]
            averaging = contextlib.nullcontext() if is_last else self.processes.without_averaging(self.parallel_encoder)
            with working_on(part), averaging:
                self._embed(self.parallel_encoder, step, piece).backward(gradient)
        return losses

    def _embed(self, encoder: nn.Module, step: int, gaussians: GaussianBatch) -> Tensor:
        torch.manual_seed(self._seed(step))
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return encoder(gaussians).float()

    def _losses(self, embedded: Tensor, targets: list[Tensor]) -> dict[str, Tensor]:
        text, images, names = targets
        return self.parallel_loss(embedded, text, images, names)

    def center(self) -> Tensor:
        """Set the averaged encoder's `center` to `centering` times its mean embedding; the mean text embedding (d,).

        The means are weighted as the objects were drawn.
        """
        share = self.chances / self.chances.sum()
        generator = torch.Generator().manual_seed(self.config.seed)
        self.average.center.zero_()
        parts = []
        with torch.inference_mode():
            for rows in torch.arange(len(self.data)).split(self.config.batch_size):
                batch = self.data.batch(rows, self.encoder.config.gaussians, 1, generator)
                parts.append(self.average(batch.gaussians.to(self.device)).cpu())
        self.average.center.copy_(self.config.centering * share @ torch.cat(parts))
        return share @ self.data.mean_captions()

    def _seed(self, step: int) -> int:
        return self.config.seed * 1_000_003 + step

    def _rows(self, step: int) -> Tensor:
        epoch, position = divmod(step, self.per_epoch)
        generator = torch.Generator().manual_seed(self.config.seed * 7919 + epoch)
        order = draw_rows(self.rates, generator)
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def _update_average(self, step: int) -> None:
        decay = min(self.config.ema, (1 + step) / (10 + step))
        current = self.encoder.state_dict()
        with torch.no_grad():
            for name, value in self.average.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(current[name], 1 - decay)
                else:
                    value.copy_(current[name])


def draw_rows(rates: Tensor, generator: torch.Generator) -> Tensor:
    """Rows in random order, each at most once and with its probability in `rates`, float64 in (0, 1]: systematic sampling.

    Their number is the sum of the rates, rounded down or up.
    """
    order = torch.multinomial(torch.ones(len(rates)), len(rates), generator=generator)
    offset = torch.rand((), dtype=torch.float64, generator=generator)
    passed = (_in_millionths(rates[order].cumsum(0)) + offset).floor()
    return order[passed.diff(prepend=passed.new_zeros(1)) > 0]


def _in_millionths(value: Tensor) -> Tensor:
    """Without what adding up many rates leaves behind: 320 times 0.7 is 224 and not a little less."""
    return value.round(decimals=6)
