"""Published Uni3D weights (arXiv 2310.06773) for our encoder, by an explicit map of names.

What the public code computes, and what becomes of it here:
- `point_encoder.encoder` (1x1 convolutions over a patch) is the tokenizer's point branch, `encoder2trans` the map to its width.
- `point_encoder.visual` is a 2D model of timm of which only blocks and last norm are used: `eva02_base_patch14_448`,
  `eva02_large_patch14_448`, `eva_giant_patch14_560`. Its rotary embedding is not applied. Its keys have no bias; a bias there
  would add the same to all scores of a query, so ours is zero and does nothing.
- `cls_token` and `cls_pos` are only ever added, so ours is their sum.
- `trans2embed` is the head when embeddings have its 1024 numbers (EVA02-E-14-plus); for another teacher the head stays new.

So a point cloud in Uni3D's own frame (centred on its mean, in the unit ball, y up) gets Uni3D's own embedding, before
normalisation. With all attributes and no refinement, the weights of the 13 channels that Uni3D has not are zero.

Weights are read from safetensors only. The published `.pt` files are pickles; convert one where you trust it:

    import torch, safetensors.torch as s
    s.save_file({k: v.clone() for k, v in torch.load("model.pt", weights_only=True)["module"].items()}, "uni3d.safetensors")
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from splatsense.clip_gs.encoder import EncoderConfig, GaussianEncoder
from splatsense.clip_gs.tokenizer import CHANNELS, POINT_CHANNELS
from splatsense.errors import CheckpointError

POINTS, VISUAL = "point_encoder.", "point_encoder.visual."
EMBED_DIM = 1024
HEAD = {"head": "trans2embed"}
# Our layers and Uni3D's, weight and bias alike.
LAYERS = {
    "tokenizer.point_branch.point_layers.0": "encoder.first_conv.0",
    "tokenizer.point_branch.point_layers.3": "encoder.first_conv.3",
    "tokenizer.point_branch.join": "encoder.second_conv.0",
    "tokenizer.point_branch.patch_layers.2": "encoder.second_conv.3",
    "tokenizer.point_to_width": "encoder2trans",
    "position.0": "pos_embed.0",
    "position.1": "pos_embed.2",
    "norm": "visual.fc_norm",
}
BATCH_NORMS = {
    "tokenizer.point_branch.point_layers.1": "encoder.first_conv.1",
    "tokenizer.point_branch.patch_layers.0": "encoder.second_conv.1",
}
BLOCK_LAYERS = {"norm1": "norm1", "norm2": "norm2", "attention.proj": "attn.proj", "mlp.out": "mlp.fc2"}
# Parts of the 2D model that take no part, and the temperature of Uni3D's own loss.
UNUSED = {
    "logit_scale",
    *(f"{VISUAL}{name}" for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")),
    *(f"{VISUAL}{name}" for name in ("head.weight", "head.bias", "rope.bands", "rope.pos_embed")),
}


def load_uni3d(encoder: GaussianEncoder, path: str | Path) -> set[str]:
    """Copy the transformer and the patch encoder of a Uni3D checkpoint into an encoder of its size.

    Args:
        encoder: of `encoder_config("base")`, "large" or "giant", with any tokenizer.
        path: safetensors, with the names of the public code's state dict.

    Returns:
        Names of the encoder's weights that were copied; the others stay as they are.

    Raises:
        CheckpointError: the file cannot be read, or its weights are missing, unknown or of another size.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: only safetensors are read; the docstring of splatsense.clip_gs.uni3d converts a .pt file."
        )
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    copied = from_uni3d(state, encoder.config, str(path))
    encoder.load_weights(encoder.state_dict() | copied, str(path))
    return set(copied)


def from_uni3d(state: Mapping[str, Tensor], config: EncoderConfig, source: str) -> dict[str, Tensor]:
    """Weights of the public code under our names.

    Args:
        state: a state dict of the public code.
        config: of the encoder they are for.
        source: the file, for errors.

    Raises:
        CheckpointError: a weight is missing or unknown, or the checkpoint is for an encoder of another size.
    """
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    names = key_map(config)
    used = {theirs for parts in names.values() for theirs in parts if theirs}
    for what, wrong in (("lacks", used - set(state)), ("also has", set(state) - used - UNUSED)):
        if wrong:
            shown = ", ".join(sorted(wrong)[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            raise CheckpointError(
                f"{source}: no Uni3D checkpoint for {config.depth} blocks of width {config.width} with mlp {config.mlp!r}; "
                f"it {what} {shown}. Choose the encoder's size after the checkpoint's."
            )
    try:
        found = {ours: _joined(ours, [state[name] if name else None for name in parts]) for ours, parts in names.items()}
    except RuntimeError as error:
        raise CheckpointError(f"{source}: weights do not fit together ({error}).") from error
    if config.embed_dim != EMBED_DIM:
        found = {ours: value for ours, value in found.items() if ours.split(".")[0] not in HEAD}
    if config.attributes == "all" and not config.refinement:
        first = "tokenizer.point_branch.point_layers.0.weight"
        found[first] = pad(found[first], (0, CHANNELS - POINT_CHANNELS))
    return found


def key_map(config: EncoderConfig) -> dict[str, tuple[str | None, ...]]:
    """Each of our weights with the weights of Uni3D that make it up, one below the other; None stands for zeros."""
    names: dict[str, tuple[str | None, ...]] = {"cls_token": (f"{POINTS}cls_token", f"{POINTS}cls_pos")}
    for ours, theirs in (LAYERS | BATCH_NORMS | HEAD).items():
        parts = ("running_mean", "running_var", "num_batches_tracked") if ours in BATCH_NORMS else ()
        names |= {f"{ours}.{part}": (f"{POINTS}{theirs}.{part}",) for part in ("weight", "bias", *parts)}
    for index in range(config.depth):
        names |= _block_map(f"blocks.{index}.", f"{VISUAL}blocks.{index}.", config)
    return names


def _block_map(ours: str, theirs: str, config: EncoderConfig) -> dict[str, tuple[str | None, ...]]:
    layers: dict[str, tuple[str, ...]] = {name: (other,) for name, other in BLOCK_LAYERS.items()}
    if config.mlp == "swiglu_norm":  # EVA-02 B and L keep apart what the others have joined
        layers |= {"mlp.gate_and_value": ("mlp.fc1_g", "mlp.fc1_x"), "mlp.norm": ("mlp.norm",)}
        weights, biases = [f"{theirs}attn.{part}_proj.weight" for part in "qkv"], ("attn.q_proj.bias", "attn.v_proj.bias")
    else:
        layers["mlp.hidden" if config.mlp == "gelu" else "mlp.gate_and_value"] = ("mlp.fc1",)
        weights, biases = [f"{theirs}attn.qkv.weight"], ("attn.q_bias", "attn.v_bias")
    names: dict[str, tuple[str | None, ...]] = {
        f"{ours}{layer}.{kind}": tuple(f"{theirs}{part}.{kind}" for part in parts)
        for layer, parts in layers.items()
        for kind in ("weight", "bias")
    }
    names[f"{ours}attention.qkv.weight"] = tuple(weights)
    names[f"{ours}attention.qkv.bias"] = (theirs + biases[0], None, theirs + biases[1])
    return names


def _joined(ours: str, parts: list[Tensor | None]) -> Tensor:
    tensors = [torch.zeros_like(parts[0]) if part is None else part for part in parts if parts[0] is not None]
    if ours == "cls_token":
        return tensors[0] + tensors[1]
    joined = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    return joined.flatten(1) if joined.ndim == 3 else joined  # a convolution of kernel 1
