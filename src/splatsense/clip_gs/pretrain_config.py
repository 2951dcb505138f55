"""Settings of CLIP-GS pre-training: `PretrainConfig`."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from splatsense.clip_gs.augment import AugmentConfig
from splatsense.clip_gs.encoder import EncoderConfig, encoder_config
from splatsense.clip_gs.loss import Voting
from splatsense.clip_gs.patches import PatchOrder
from splatsense.errors import DataError
from splatsense.training.settings import RunSettings


@dataclass(frozen=True)
class PretrainConfig(RunSettings):
    """Settings of a CLIP-GS run."""

    HOW_IT_RUNS: ClassVar[tuple[str, ...]] = (*RunSettings.HOW_IT_RUNS, "checkpointing")

    triplets: tuple[str, ...]
    """folders made by `splatsense triplets`; objects whose split is "train" are used"""
    out: str
    """folder of the run: checkpoints, metrics.jsonl and at the end the model"""
    size: Literal["tiny", "small", "base", "large", "giant"] = "tiny"
    """of the network"""
    tokenizer: Literal["points", "attributes", "refinement"] = "refinement"
    """rows of the paper's ablation: position and colour alone, all attributes, or these with the GS tokenizer's refinement"""
    orders: tuple[PatchOrder, ...] = ()
    """serial orders of the Gaussians inside a patch; none given means the size's own"""
    gaussians: int = 0
    """Gaussians per object that enter the network; 0 is the size's own number"""
    patches: int = 0
    """tokens per object; 0 is the size's own number"""
    patch_size: int = 0
    """Gaussians per token; 0 is the size's own number"""
    teacher: str = "mini"
    """frozen image and text towers"""
    name: str = ""
    """written into the saved model; by default clip-gs-SIZE"""
    init: str = ""
    """model folder or bundled name whose weights to start from; the paper starts from a point-cloud model's"""
    holdout: str = ""
    """leave out train objects whose key starts with this, and evaluate on them, to make choices on"""
    evaluate_every: int = 0
    """steps between evaluations on --holdout; 0 evaluates at the end"""
    weights: tuple[float, ...] = ()
    """how often objects of each triplets folder are drawn, 0 to 1; by default all are drawn once an epoch"""
    epochs: int = 60
    """passes over the objects"""
    batch_size: int = 32
    """objects per step, of all processes together; each is the others' negative"""
    accumulate: int = 1
    """parts that a batch goes through the network in, to save memory; negatives are those of the whole batch all the same"""
    views: int = 5
    """K, pictures per object and step"""
    voting: Voting = "softmax"
    """how views are weighed: none, raw or softmax"""
    voting_temperature: float = 0.1
    """of the softmax over the views; smaller votes more sharply"""
    image_map: float = 0.0
    """weight of image targets fitted to the captions beside the teacher's own, see image_targets; 0 is the paper"""
    image_weight: float = 1.0
    """factor on the image loss; 0 trains on captions alone"""
    temperature: float = 0.07
    """of the loss, to start from; it is learned and stays at 1/100 or more"""
    fixed_temperature: bool = False
    """keep the temperature as it is instead of learning it"""
    learning_rate: float = 1e-3
    """peak of new parts, reached after the warm-up"""
    pretrained_learning_rate: float = 1e-4
    """peak of parts that come from --init"""
    layer_decay: float = 0.95
    """factor on the rate of parts that come from --init, from one layer to the one below"""
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
    """steps between checkpoints, from which an interrupted run goes on"""
    log_every: int = 10
    """steps between lines of metrics.jsonl"""
    tensorboard: bool = False
    """also write TensorBoard's events; needs the extra `train`"""
    checkpointing: bool = False
    """compute activations again on the way back instead of keeping them: less memory for a third more time"""
    prefetch: int = 1
    """batches made ahead in the background; 0 makes each when it is needed"""
    seed: int = 0
    """of weights, data order, augmentation and dropout"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """ranges of the augmentation"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("epochs", "views", "accumulate")
        self.not_negative("gaussians", "patches", "patch_size", "image_map", "image_weight")
        self.above_zero("voting_temperature", "temperature", "pretrained_learning_rate")
        self.below_one("warmup", "patch_dropout", "drop_path", "ema")
        self.up_to_one("centering")
        if not 0 < self.layer_decay <= 1:
            raise DataError(f"--layer-decay: must lie in (0, 1], got {self.layer_decay}.")
        if self.evaluate_every and not self.holdout:
            raise DataError("--evaluate-every: needs --holdout, whose objects are evaluated on.")
        if self.weights and len(self.weights) != len(self.triplets):
            raise DataError(f"--weights: needs one number for each of the {len(self.triplets)} triplets folders.")
        if not all(0 < weight <= 1 for weight in self.weights):
            raise DataError("--weights: each must lie in (0, 1].")

    @property
    def model_name(self) -> str:
        """What the saved model is called."""
        return self.name or f"clip-gs-{self.size}"

    def settings(self) -> dict[str, Any]:
        """As `RunSettings.settings`, with the name that the model gets."""
        return super().settings() | {"name": self.model_name}

    def encoder(self, dim: int) -> EncoderConfig:
        """The network, with embeddings of `dim` numbers."""
        changed = {
            name: getattr(self, name) for name in ("gaussians", "patches", "patch_size", "orders") if getattr(self, name)
        }
        attributes = "position_color" if self.tokenizer == "points" else "all"
        refinement = self.tokenizer == "refinement"
        return replace(encoder_config(self.size, dim), attributes=attributes, refinement=refinement, **changed)

    def is_used(self, key: str, info: dict[str, Any]) -> bool:
        """Whether an object is trained on."""
        return info["split"] == "train" and not self.is_held_out(key, info)

    def is_held_out(self, key: str, info: dict[str, Any]) -> bool:
        """Whether a training object is left out to make choices on."""
        return info["split"] == "train" and bool(self.holdout) and key.startswith(self.holdout)
