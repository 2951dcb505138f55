"""The CLIP-GS encoder: a ViT of EVA-02 shape over patch tokens, and one unit-length embedding out.

Follows CLIP-GS (arXiv 2412.19142, section 3.2) and Uni3D (arXiv 2310.06773): a positional MLP on the patch centres,
a learned CLS token, EVA-02 blocks, a linear head on CLS. `EncoderConfig` fixes the network, `encoder_config` names sizes.

Differs from the paper: the CLS token has no position of its own, which would only be added to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize
from torch.utils.checkpoint import checkpoint

from splatsense.clip_gs.patches import PatchOrder, group_patches
from splatsense.clip_gs.tokenizer import Attributes, GaussianBatch, GaussianTokenizer
from splatsense.clip_gs.transformer import Block, Mlp
from splatsense.errors import CheckpointError, DataError


@dataclass(frozen=True)
class EncoderConfig:
    """Everything that fixes the network.

    The rows of the paper's ablation: attributes "position_color" is Uni3D's point cloud; refinement False is all attributes
    without the GS tokenizer; the default is with it.

    Attributes:
        gaussians: Gaussians per object that enter.
        patches: tokens per object.
        patch_size: Gaussians per token.
        orders: serial orders of the Gaussians inside a patch, see `group_patches`.
        width: of the transformer.
        depth: blocks.
        heads: per block.
        mlp: kind of the blocks' feed-forward layers, see `transformer`.
        norm_eps: of the transformer's layer norms.
        conv_widths: of the tokenizer's attribute branch.
        point_widths: of the tokenizer's point branch.
        point_dim: output of the point branch, which a linear map takes to `width`; 0: no map, `width` itself.
        attributes: "all", or "position_color", the point-cloud mode.
        refinement: whether all attributes go through the GS tokenizer's convolutions, or straight into the point branch.
        embed_dim: of the embedding; the teacher's.
    """

    gaussians: int = 2048
    patches: int = 64
    patch_size: int = 32
    orders: tuple[PatchOrder, ...] = ("hilbert",)
    width: int = 192
    depth: int = 6
    heads: int = 3
    mlp: Mlp = "swiglu"
    norm_eps: float = 1e-5
    conv_widths: tuple[int, int, int] = (32, 48, 64)
    point_widths: tuple[int, int, int] = (64, 96, 128)
    point_dim: int = 0
    attributes: Attributes = "all"
    refinement: bool = True
    embed_dim: int = 384

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise DataError(f"EncoderConfig: width {self.width} is not a multiple of heads {self.heads}.")
        if max(self.patches, self.patch_size) > self.gaussians:
            raise DataError(f"EncoderConfig: patches and patch_size must not exceed gaussians = {self.gaussians}.")
        if not self.orders or not set(self.orders) <= set(get_args(PatchOrder)):
            raise DataError(f"EncoderConfig: orders must be some of {', '.join(get_args(PatchOrder))}, got {self.orders}.")
        for name, kinds in (("mlp", Mlp), ("attributes", Attributes)):
            if getattr(self, name) not in get_args(kinds):
                raise DataError(f"EncoderConfig: {name} must be {' or '.join(get_args(kinds))}, got {getattr(self, name)!r}.")

    @classmethod
    def from_card(cls, values: Mapping[str, Any], source: str) -> "EncoderConfig":
        """The configuration in a model card, also of models saved before there were several orders.

        Args:
            values: field names and values, lists for tuples.
            source: the file, for errors.

        Raises:
            CheckpointError: a field is unknown or has an impossible value.
        """
        given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        if "order" in given:
            given["orders"] = (given.pop("order"),)
        if "use_attributes" in given:
            given["attributes"] = "all" if given.pop("use_attributes") else "position_color"
        unknown = sorted(set(given) - {field.name for field in fields(cls)})
        if unknown:
            raise CheckpointError(
                f"{source}: the encoder has settings this version does not know ({', '.join(unknown)}); update splatsense."
            )
        try:
            return cls(**given)
        except (DataError, TypeError) as error:
            raise CheckpointError(f"{source}: no such encoder can be built ({error}).") from error


def encoder_config(size: str, embed_dim: int = 384) -> EncoderConfig:
    """The recipe of a named size: `tiny` for a laptop's CPU, the others with EVA-02's shapes and Uni3D's patches.

    Transformer and patch encoder of base, large and giant are those of the published Uni3D models of these names.

    Raises:
        DataError: no such size.
    """
    paper = EncoderConfig(
        10_000,
        512,
        64,
        orders=("xyz", "hilbert", "z"),
        norm_eps=1e-6,
        conv_widths=(64, 128, 256),
        point_widths=(128, 256, 512),
        point_dim=512,
        embed_dim=embed_dim,
    )
    sizes = {
        "tiny": EncoderConfig(embed_dim=embed_dim),
        "small": replace(paper, width=384, depth=12, heads=6),
        "base": replace(paper, width=768, depth=12, heads=12, mlp="swiglu_norm"),
        "large": replace(paper, width=1024, depth=24, heads=16, mlp="swiglu_norm"),
        "giant": replace(paper, width=1408, depth=40, heads=16, mlp="gelu"),
    }
    if size not in sizes:
        raise DataError(f"--size {size}: expected one of {', '.join(sizes)}.")
    return sizes[size]


class GaussianEncoder(nn.Module):
    """Gaussians to unit-length embeddings.

    Args:
        config: the network.
        drop_path: stochastic depth of the last block in training; grows linearly from 0 (Uni3D: 0.2).
        patch_dropout: fraction of tokens left out in training (CLIP-GS recipe: 0.5).
        checkpointing: keep only each block's input in training and compute the rest again on the way back: less memory for
            a third more time, and the same gradients.
    """

    def __init__(
        self, config: EncoderConfig, drop_path: float = 0.0, patch_dropout: float = 0.0, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.center: Tensor
        self.patch_dropout = patch_dropout
        self.checkpointing = checkpointing
        width = config.width
        self.tokenizer = GaussianTokenizer(
            width, config.conv_widths, config.point_widths, config.point_dim, config.attributes, config.refinement
        )
        self.position = nn.ModuleList([nn.Linear(3, 128), nn.Linear(128, width)])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        rates = torch.linspace(0, drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp, config.norm_eps, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, config.norm_eps)
        self.head = nn.Linear(width, config.embed_dim)
        self.register_buffer("center", torch.zeros(config.embed_dim))
        self.apply(_initialise)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, batch: GaussianBatch) -> Float[Tensor, "b d"]:
        """Unit-length float32 embeddings of B objects of `config.gaussians` Gaussians each.

        They are centred by `center`, which is zero in training. Under autocast, positions and the sum that runs through the
        blocks stay in float32.
        """
        config = self.config
        dropout = self.patch_dropout if self.training else 0.0
        indices = group_patches(batch.means, config.patches, config.patch_size, config.orders, dropout)
        tokens, centers = self.tokenizer(batch, indices)
        with torch.autocast(centers.device.type, enabled=False):
            position = self.position[1](gelu(self.position[0](centers)))
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens + position], dim=1)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
        embedded = normalize(self.head(self.norm(x[:, 0])).float(), dim=-1)
        return normalize(embedded - self.center, dim=-1)

    def load_weights(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Take over weights of exactly this network.

        Args:
            weights: as `state_dict` gives them, in any precision.
            source: where they come from, for errors.

        Raises:
            CheckpointError: weights are missing, too many or of another shape; names them.
        """
        own = self.state_dict()
        missing, unexpected = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
        misshaped = [
            f"{name} is {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
            for name, value in own.items()
            if name in weights and weights[name].shape != value.shape
        ]
        problems = [
            f"{what} {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
            for what, names in (("missing:", missing), ("unexpected:", unexpected), ("of another size:", misshaped))
            if names
        ]
        if problems:
            raise CheckpointError(f"{source}: weights of another network ({'; '.join(problems)}).")
        self.load_state_dict({name: value.to(own[name].dtype) for name, value in weights.items()})


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
