"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193) as a dense teacher: `dinov2:vits14`, also with registers: `dinov2:vits14_reg`.

Variants have the names of Meta's releases; weights are those of facebook/dinov2-* on the Hugging Face hub (Apache-2.0), or a
local file of theirs. A feature is the last layer's, after its normalisation: what Meta's code calls `x_norm_patchtokens`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from splatsense.teachers.patch_features import Architecture, PatchTeacher, parse_name

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PATCH, IMAGE, REGISTERS = 14, 518, 4
SIZES = {  # width, layers, heads
    "vits14": ("small", 384, 12, 6),
    "vitb14": ("base", 768, 12, 12),
    "vitl14": ("large", 1024, 24, 16),
    "vitg14": ("giant", 1536, 40, 24),
}


def architecture(size: str, registers: int) -> Architecture:
    """Of one of `SIZES`."""
    word, width, layers, heads = SIZES[size]
    settings = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "patch_size": PATCH,
        "image_size": IMAGE, "use_swiglu_ffn": size == "vitg14",
    }  # fmt: skip
    if registers:
        settings["num_register_tokens"] = registers

    def features(network: nn.Module, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(value, device=pixels.device)[:, None, None] for value in (MEAN, STD))
        return network((pixels - mean) / std).last_hidden_state[:, 1 + registers :]

    def given(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return settings

    repository = f"facebook/dinov2-{'with-registers-' if registers else ''}{word}"
    return Architecture(repository, "Dinov2WithRegistersModel" if registers else "Dinov2Model", width, PATCH, given, features)


ARCHITECTURES = {size: architecture(size, 0) for size in SIZES} | {
    f"{size}_reg": architecture(size, REGISTERS) for size in SIZES
}


def load_dinov2(name: str) -> PatchTeacher:
    """The teacher of a name such as "dinov2:vits14" or "dinov2:vits14:FILE.safetensors".

    Raises:
        CheckpointError: there is no such variant or file, or transformers is not installed.
    """
    variant, path = parse_name(name, ARCHITECTURES)
    return PatchTeacher(name, ARCHITECTURES[variant], path)
