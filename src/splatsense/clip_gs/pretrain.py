"""CLIP-GS pre-training (arXiv 2412.19142): `splatsense train clip-gs`.

Design
- The towers of the teacher are frozen, so their embeddings come from `triplets.embed_shard`, once.
- Every step draws its data, augmentation and dropout from (seed, step) alone: a run that was interrupted and resumed
  takes the same steps as one that was not, bit for bit on a CPU.
- An exponential moving average of the weights is what is evaluated and saved.
- The best model is not picked by looking at a test split: `--holdout` leaves train objects out to make choices on.
"""

import copy
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from splatsense.clip_gs.augment import AugmentConfig, augment
from splatsense.clip_gs.dataset import TripletSet
from splatsense.clip_gs.encoder import GaussianEncoder, encoder_config
from splatsense.clip_gs.loss import ClipGSLoss, Voting
from splatsense.clip_gs.model import load_model, save_model
from splatsense.errors import CheckpointError, DataError
from splatsense.teachers import load_teacher
from splatsense.training.checkpoint import load_checkpoint, save_checkpoint
from splatsense.training.metrics import MetricsLog
from splatsense.training.progress import Progress


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of a CLIP-GS run."""

    triplets: tuple[str, ...]
    """folders made by `splatsense triplets`; objects whose split is "train" are used"""
    out: str
    """folder of the run: checkpoints, metrics.jsonl and at the end the model"""
    size: Literal["tiny", "small", "base", "large", "giant"] = "tiny"
    """of the network"""
    teacher: str = "mini"
    """frozen image and text towers"""
    name: str = "clip-gs-tiny"
    """name written into the saved model"""
    init: str = ""
    """model folder or bundled name whose weights to start from; the paper starts from a point-cloud model's"""
    holdout: str = ""
    """leave out train objects whose key starts with this, to make choices on"""
    weights: tuple[float, ...] = ()
    """how often objects of each triplets folder are drawn, 0 to 1; by default all are drawn once an epoch"""
    epochs: int = 60
    """passes over the objects"""
    batch_size: int = 32
    """objects per step; each is the others' negative"""
    views: int = 5
    """K, pictures per object and step"""
    voting: Voting = "softmax"
    """how views are weighed: none, raw or softmax"""
    image_map: float = 0.0
    """weight of image targets fitted to the captions beside the teacher's own, see image_targets; 0 is the paper"""
    image_weight: float = 1.0
    """factor on the image loss; 0 trains on captions alone"""
    learning_rate: float = 1e-3
    """peak, reached after the warm-up; all parts are new"""
    weight_decay: float = 0.1
    """of AdamW, on matrices only"""
    warmup: float = 0.1
    """fraction of the steps"""
    clip_gradient: float = 5.0
    """norm that gradients are clipped to"""
    patch_dropout: float = 0.75
    """fraction of tokens left out"""
    drop_path: float = 0.1
    """stochastic depth of the last block"""
    centering: float = 0.5
    """fraction of the mean embedding that is subtracted from the saved model's embeddings, of Gaussians and of text"""
    ema: float = 0.998
    """decay of the moving average of the weights per step"""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """of matrix products in training"""
    checkpoint_every: int = 100
    """steps"""
    seed: int = 0
    """of weights, data order, augmentation and dropout"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """ranges of the augmentation"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "views", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise DataError(f"--{name.replace('_', '-')}: must be at least 1, got {getattr(self, name)}.")
        if self.image_map < 0:
            raise DataError(f"--image-map: must be at least 0, got {self.image_map}.")
        if self.weights and len(self.weights) != len(self.triplets):
            raise DataError(f"--weights: needs one number for each of the {len(self.triplets)} triplets folders.")
        if not all(0 < weight <= 1 for weight in self.weights):
            raise DataError("--weights: each must lie in (0, 1].")
        if not 0 <= self.patch_dropout < 1 or not 0 <= self.drop_path < 1 or not 0 <= self.ema < 1:
            raise DataError("--patch-dropout, --drop-path and --ema must lie in [0, 1).")


def pretrain(config: PretrainConfig) -> Path:
    """Train, or go on training, and save the model.

    Returns:
        The folder of the saved model, `<out>/model`.

    Raises:
        DataError, FormatError, CheckpointError: what is wrong with settings, triplets or an existing run.
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    data = TripletSet(config.triplets, load_teacher(config.teacher), lambda key, info: _is_used(config, key, info))
    run = _Run(config, data)
    saved = load_checkpoint(out, run.modules, run.optimizer)
    if saved and saved["config"] != _plain(config):
        changed = [name for name, value in _plain(config).items() if saved["config"].get(name) != value]
        raise DataError(f"{out}: holds a run with other settings ({', '.join(changed)}); use another --out.")
    step = saved["step"] if saved else 0
    metrics = MetricsLog(out, step)
    progress = Progress("clip-gs", run.steps, step)
    while step < run.steps:
        values = run.step(step)
        step += 1
        if step % 10 == 0 or step == run.steps:
            metrics.write(step, **values)
        if step % config.checkpoint_every == 0 or step == run.steps:
            save_checkpoint(out, run.modules, run.optimizer, {"step": step, "config": _plain(config)})
        progress.advance(1, f"loss {values['loss']:.3f} (text {values['text']:.3f}, image {values['image']:.3f})")
    progress.close()
    card = {"training": _plain(config), "objects": len(data), "steps": run.steps}
    text_center = config.centering * run.center()
    save_model(out / "model", run.average, config.name, config.teacher, card, text_center)
    return out / "model"


def _is_used(config: PretrainConfig, key: str, info: dict[str, Any]) -> bool:
    return info["split"] == "train" and not (config.holdout and key.startswith(config.holdout))


def _plain(config: PretrainConfig) -> dict[str, Any]:
    plain = asdict(config)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items() if name != "out"}


def start_from(encoder: GaussianEncoder, model: str) -> None:
    """Copy the weights of a saved model into an encoder. Raises CheckpointError when it is of another shape."""
    try:
        encoder.load_state_dict(load_model(model).encoder.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"--init {model}: of another size or configuration ({error}).") from error


class _Run:
    """The moving parts of a run: network, its average, loss, optimiser and the schedule."""

    def __init__(self, config: PretrainConfig, data: TripletSet) -> None:
        self.config, self.data = config, data
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        weights = torch.tensor(config.weights or [1.0] * len(config.triplets))
        self.chances = weights[data.folders]
        if config.image_map > 0:
            data.map_images(config.image_map, self.chances)
        self.per_epoch = max(1, int(self.chances.sum()) // config.batch_size)
        self.steps = config.epochs * self.per_epoch
        torch.manual_seed(config.seed)
        network = encoder_config(config.size, load_teacher(config.teacher).dim)
        self.encoder = GaussianEncoder(network, config.drop_path, config.patch_dropout).to(self.device)
        if config.init:
            start_from(self.encoder, config.init)
        self.average = copy.deepcopy(self.encoder).eval().requires_grad_(False)
        self.loss = ClipGSLoss(config.voting, image_weight=config.image_weight).to(self.device)
        self.modules: dict[str, nn.Module] = {"encoder": self.encoder, "average": self.average, "loss": self.loss}
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.learning_rate, betas=(0.9, 0.98))

    def _groups(self) -> list[dict[str, Any]]:
        matrices = [p for p in self.encoder.parameters() if p.ndim >= 2 and p is not self.encoder.cls_token]
        chosen = {id(p) for p in matrices}
        others = [p for p in (*self.encoder.parameters(), *self.loss.parameters()) if id(p) not in chosen]
        return [{"params": matrices, "weight_decay": self.config.weight_decay}, {"params": others, "weight_decay": 0.0}]

    def step(self, step: int) -> dict[str, float]:
        """One update; its losses."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        torch.manual_seed(config.seed * 1_000_003 + step)
        batch = self.data.batch(self._rows(step), self.encoder.config.gaussians, config.views, generator)
        gaussians = augment(batch.gaussians, config.augment, generator).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * self._schedule(step)
        with torch.autocast(self.device, torch.bfloat16, enabled=config.precision == "bfloat16"):
            embedded = self.encoder(gaussians)
        targets = [value.to(self.device) for value in (batch.text, batch.images, batch.names)]
        losses = self.loss(embedded.float(), *targets)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.encoder.parameters(), config.clip_gradient)
        if not bool(torch.isfinite(norm)):
            raise DataError(f"training diverged at step {step}: the gradient is not finite; lower --learning-rate.")
        self.optimizer.step()
        self._update_average(step)
        extra = {"learning_rate": self.optimizer.param_groups[0]["lr"], "gradient_norm": float(norm)}
        return {name: float(value.detach()) for name, value in losses.items()} | extra

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

    def _rows(self, step: int) -> Tensor:
        epoch, position = divmod(step, self.per_epoch)
        generator = torch.Generator().manual_seed(self.config.seed * 7919 + epoch)
        order = torch.multinomial(self.chances, len(self.data), generator=generator)
        size = min(self.config.batch_size, len(order))
        return order[position * size : (position + 1) * size]

    def _schedule(self, step: int) -> float:
        warmup = max(1, round(self.config.warmup * self.steps))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))

    def _update_average(self, step: int) -> None:
        decay = min(self.config.ema, (1 + step) / (10 + step))
        current = self.encoder.state_dict()
        with torch.no_grad():
            for name, value in self.average.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(current[name], 1 - decay)
                else:
                    value.copy_(current[name])
