"""The CLIP-GS encoder: a ViT of EVA-02 shape over patch tokens, and one unit-length embedding out.

Follows CLIP-GS (arXiv 2412.19142, section 3.2) and Uni3D (arXiv 2310.06773): a positional MLP on the patch centres,
a learned CLS token, pre-norm blocks with SwiGLU as in EVA-02 (arXiv 2303.11331), a linear head on CLS.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention, silu

from splatsense.clip_gs.tokenizer import GaussianBatch, GaussianTokenizer, PatchOrder, drop_patches, group_patches
from splatsense.errors import DataError
from splatsense.training.shares import rand_rows


@dataclass(frozen=True)
class EncoderConfig:
    """Everything that fixes the network.

    Attributes:
        gaussians: Gaussians per object that enter.
        patches: tokens per object.
        patch_size: Gaussians per token.
        order: of the Gaussians inside a patch, see `group_patches`.
        width: of the transformer.
        depth: blocks.
        heads: per block.
        conv_widths: of the tokenizer's attribute branch.
        point_widths: of the tokenizer's point branch.
        use_attributes: False is the point-cloud mode (position and colour only).
        embed_dim: of the embedding; the teacher's.
    """

    gaussians: int = 2048
    patches: int = 64
    patch_size: int = 32
    order: PatchOrder = "hilbert"
    width: int = 192
    depth: int = 6
    heads: int = 3
    conv_widths: tuple[int, int, int] = (32, 48, 64)
    point_widths: tuple[int, int, int] = (64, 96, 128)
    use_attributes: bool = True
    embed_dim: int = 384

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise DataError(f"EncoderConfig: width {self.width} is not a multiple of heads {self.heads}.")
        if max(self.patches, self.patch_size) > self.gaussians:
            raise DataError(f"EncoderConfig: patches and patch_size must not exceed gaussians = {self.gaussians}.")


def encoder_config(size: str, embed_dim: int = 384) -> EncoderConfig:
    """The recipe of a named size: `tiny` for a laptop's CPU, the others with EVA-02 widths and the papers' patches.

    Raises:
        DataError: no such size.
    """
    paper = EncoderConfig(10_000, 512, 64, conv_widths=(64, 128, 256), point_widths=(128, 256, 512), embed_dim=embed_dim)
    sizes = {
        "tiny": EncoderConfig(embed_dim=embed_dim),
        "small": replace(paper, width=384, depth=12, heads=6),
        "base": replace(paper, width=768, depth=12, heads=12),
        "large": replace(paper, width=1024, depth=24, heads=16),
        "giant": replace(paper, width=1408, depth=40, heads=16),
    }
    if size not in sizes:
        raise DataError(f"--size {size}: expected one of {', '.join(sizes)}.")
    return sizes[size]


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """Gated feed-forward layer of EVA-02, hidden width 8/3 of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = int(width * 8 / 3)
        self.gate_and_value = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same shape."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(silu(gate) * value)


class Block(nn.Module):
    """Pre-norm transformer block; in training each sample skips a branch with probability `drop_path`."""

    def __init__(self, width: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = Attention(width, heads), SwiGLU(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same shape."""
        x = x + self._drop(self.attention(self.norm1(x)))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = rand_rows(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * keep / (1 - self.drop_path)


class GaussianEncoder(nn.Module):
    """Gaussians to unit-length embeddings.

    Args:
        config: the network.
        drop_path: stochastic depth of the last block in training; grows linearly from 0 (Uni3D: 0.2).
        patch_dropout: fraction of tokens left out in training (CLIP-GS recipe: 0.5).
    """

    def __init__(self, config: EncoderConfig, drop_path: float = 0.0, patch_dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.center: Tensor
        self.patch_dropout = patch_dropout
        width = config.width
        self.tokenizer = GaussianTokenizer(width, config.conv_widths, config.point_widths, config.use_attributes)
        self.position = nn.ModuleList([nn.Linear(3, 128), nn.Linear(128, width)])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        rates = torch.linspace(0, drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList(Block(width, config.heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.embed_dim)
        self.register_buffer("center", torch.zeros(config.embed_dim))
        self.apply(_initialise)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, batch: GaussianBatch) -> Tensor:
        """(B, embed_dim) unit-length float32 embeddings of B objects of `config.gaussians` Gaussians each.

        They are centred by `center`, which is zero in training.
        """
        config = self.config
        indices = group_patches(batch.means, config.patches, config.patch_size, config.order)
        if self.training and self.patch_dropout > 0:
            indices = drop_patches(indices, self.patch_dropout)
        tokens, centers = self.tokenizer(batch, indices)
        tokens = tokens + self.position[1](gelu(self.position[0](centers)))
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        embedded = normalize(self.head(self.norm(x[:, 0])).float(), dim=-1)
        return normalize(embedded - self.center, dim=-1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
