"""RADIOv2.5 (arXiv 2412.07679), GaussianCross's teacher, as a dense teacher: `radio:v2.5-b`, `radio:v2.5-l`, `radio:v2.5-h`.

Weights are those of nvidia/RADIO-* on the Hugging Face hub (NVIDIA's licence, for research), or a local file of theirs. The
network is transformers' `RadioModel`; nothing of the repository's own code is run. How many tokens precede the patches and how
large the table of positions is, the file says. The network normalises colours by its own constants. Heads for the models that
RADIO was distilled from are passed over. v2.5-g has another architecture, which transformers has not.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from splatsense.teachers.patch_features import Architecture, PatchTeacher, parse_name

PATCH = 16
SIZES = {  # width, layers, heads
    "v2.5-b": ("B", 768, 12, 12),
    "v2.5-l": ("L", 1024, 24, 16),
    "v2.5-h": ("H", 1280, 32, 16),
}
PREFIX = "radio_model."
GENERATOR = f"{PREFIX}model.patch_generator."
PASSED_OVER = (f"{PREFIX}adaptors.", f"{PREFIX}feature_normalizer.", f"{PREFIX}inter_feature_normalizer.")


def architecture(size: str) -> Architecture:
    """Of one of `SIZES`."""
    letter, width, layers, heads = SIZES[size]

    def settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
        tokens, positions = state[f"{GENERATOR}cls_token.token"], state[f"{GENERATOR}pos_embed"]
        chosen = state[f"{PREFIX}summary_idxs"].tolist()
        return {
            "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "patch_size": PATCH,
            "max_img_size": round(positions.shape[1] ** 0.5) * PATCH, "num_cls_tokens": len(tokens), "num_registers": 0,
            "summary_idxs": chosen,
        }  # fmt: skip

    return Architecture(f"nvidia/RADIO-{letter}", "RadioModel", width, PATCH, settings, _features, PASSED_OVER)


def _features(network: nn.Module, pixels: Tensor) -> Tensor:
    return network(pixels).features


ARCHITECTURES = {size: architecture(size) for size in SIZES}


def load_radio(name: str) -> PatchTeacher:
    """The teacher of a name such as "radio:v2.5-b" or "radio:v2.5-b:FILE.safetensors".

    Raises:
        CheckpointError: there is no such variant or file, or transformers is not installed.
    """
    variant, path = parse_name(name, ARCHITECTURES)
    return PatchTeacher(name, ARCHITECTURES[variant], path)
