"""The transformer of the CLIP-GS encoder: pre-norm blocks of EVA-02 (arXiv 2303.11331), as Uni3D uses them.

Uni3D (arXiv 2310.06773) takes its blocks from 2D models of three kinds, hence the setting `mlp`: EVA-02 Ti and S have a plain
SwiGLU, EVA-02 B and L one with a layer norm before its last map, and EVA-g (arXiv 2211.07636) an MLP with GELU. EVA-02's
rotary embedding is for pixels and is not applied to patches of points; neither here nor there.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention, silu

from splatsense.training.shares import rand_rows

Mlp = Literal["swiglu", "swiglu_norm", "gelu"]


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b t width"]) -> Float[Tensor, "b t width"]:
        """T tokens that look at each other."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # PyTorch's own takes twice to four times as long on the way back in this precision on a CPU.
        attend = attention_reference if q.dtype == torch.bfloat16 and q.device.type == "cpu" else scaled_dot_product_attention
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


def attention_reference(
    q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], v: Float[Tensor, "b h t d"]
) -> Float[Tensor, "b h t d"]:
    """softmax(q k^T / sqrt(d)) v, written out."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v


class SwiGLU(nn.Module):
    """Gated feed-forward layer of EVA-02, hidden width 8/3 of the width.

    Args:
        width: of the tokens.
        norm_eps: of a layer norm on the hidden values; None: no layer norm.
    """

    def __init__(self, width: int, norm_eps: float | None = None) -> None:
        super().__init__()
        hidden = int(width * 8 / 3)
        self.gate_and_value = nn.Linear(width, 2 * hidden)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(hidden, norm_eps)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Each token by itself."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(self.norm(silu(gate) * value))


class GeluMlp(nn.Module):
    """Feed-forward layer of EVA-g, hidden width 48/11 of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * 48 // 11
        self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Each token by itself."""
        return self.out(gelu(self.hidden(x)))


class Block(nn.Module):
    """Pre-norm transformer block; in training each sample skips a branch with probability `drop_path`.

    Args:
        width: of the tokens.
        heads: of the attention.
        mlp: kind of feed-forward layer.
        norm_eps: of the layer norms.
        drop_path: stochastic depth (arXiv 1603.09382).
    """

    def __init__(self, width: int, heads: int, mlp: Mlp = "swiglu", norm_eps: float = 1e-6, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.norm2 = nn.LayerNorm(width, norm_eps), nn.LayerNorm(width, norm_eps)
        self.attention = Attention(width, heads)
        self.mlp = GeluMlp(width) if mlp == "gelu" else SwiGLU(width, norm_eps if mlp == "swiglu_norm" else None)

    def forward(self, x: Float[Tensor, "b t width"]) -> Float[Tensor, "b t width"]:
        """Tokens to tokens."""
        x = x + self._drop(self.attention(self.norm1(x)))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = rand_rows(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * keep / (1 - self.drop_path)
