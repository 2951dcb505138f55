"""Uni3D weights: names and shapes of the public code for every published size, and the same function of small ones.

The reference below is written from the public code's architecture alone: timm's EVA blocks without rotary embedding behind
Uni3D's patch encoder.
"""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import batch_norm, conv1d, gelu, layer_norm, linear, normalize, silu

from splatsense.clip_gs.encoder import EncoderConfig, GaussianEncoder, encoder_config
from splatsense.clip_gs.patches import group_patches
from splatsense.clip_gs.tokenizer import GaussianBatch
from splatsense.clip_gs.uni3d import from_uni3d, load_uni3d
from splatsense.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]


def layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def norm(name: str, width: int, statistics: bool = False) -> Shapes:
    extra = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()}
    return layer(name, width) | (extra if statistics else {})


def block_shapes(width: int, mlp: str) -> Shapes:
    """timm's `EvaBlock`: q, k and v apart and a norm in the SwiGLU for EVA-02 B and L, joined maps otherwise."""
    shapes = norm("norm1", width) | norm("norm2", width) | layer("attn.proj", width, width)
    if mlp == "swiglu_norm":
        hidden = int(width * 4 * 2 / 3)
        shapes |= layer("attn.q_proj", width, width) | layer("attn.v_proj", width, width)
        shapes |= {"attn.k_proj.weight": (width, width)}
        shapes |= layer("mlp.fc1_g", hidden, width) | layer("mlp.fc1_x", hidden, width) | norm("mlp.norm", hidden)
    else:
        hidden = int(width * 4 * 2 / 3) if mlp == "swiglu" else int(width * (6144 / 1408))
        shapes |= {"attn.q_bias": (width,), "attn.v_bias": (width,), "attn.qkv.weight": (3 * width, width)}
        shapes |= layer("mlp.fc1", hidden * (2 if mlp == "swiglu" else 1), width)
    return shapes | layer("mlp.fc2", width, hidden)


def checkpoint_shapes(width: int, depth: int, mlp: str, image_tokens: int) -> Shapes:
    shapes = norm("encoder.first_conv.1", 128, True) | norm("encoder.second_conv.1", 512, True)
    for name, *shape in (
        ("encoder.first_conv.0", 128, 6, 1),
        ("encoder.first_conv.3", 256, 128, 1),
        ("encoder.second_conv.0", 512, 512, 1),
        ("encoder.second_conv.3", 512, 512, 1),
        ("encoder2trans", width, 512),
        ("trans2embed", 1024, width),
        ("pos_embed.0", 128, 3),
        ("pos_embed.2", width, 128),
        ("visual.patch_embed.proj", width, 3, 14, 14),
        ("visual.head", 1000, width),
    ):
        shapes |= layer(name, *shape)
    shapes |= dict.fromkeys(("cls_token", "cls_pos", "visual.cls_token"), (1, 1, width))
    shapes |= {"visual.pos_embed": (1, image_tokens, width)} | norm("visual.fc_norm", width)
    for index in range(depth):
        shapes |= {f"visual.blocks.{index}.{name}": shape for name, shape in block_shapes(width, mlp).items()}
    return {f"point_encoder.{name}": shape for name, shape in shapes.items()} | {"logit_scale": ()}


# Width, depth and kind of eva02_base_patch14_448, eva02_large_patch14_448 and eva_giant_patch14_560, and Uni3D's parameters.
PUBLISHED = {
    "base": (768, 12, "swiglu_norm", 1025, 88.96e6),
    "large": (1024, 24, "swiglu_norm", 1025, 307.35e6),
    "giant": (1408, 40, "gelu", 1601, 1017.36e6),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_weight_of_a_published_size_finds_its_place(size):
    *shape, parameters = PUBLISHED[size]
    shapes = checkpoint_shapes(*shape)
    learned = [torch.Size(s).numel() for name, s in shapes.items() if "running" not in name and "tracked" not in name]
    assert sum(learned) == pytest.approx(parameters, rel=1e-4)
    state = {name: torch.empty(s, device="meta") for name, s in shapes.items()}
    config = replace(encoder_config(size, 1024), attributes="position_color")
    with torch.device("meta"):
        own = GaussianEncoder(config).state_dict()
    found = from_uni3d(state, config, "checkpoint")
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in own.items() if n != "center"}


def small(mlp: str, **changed) -> EncoderConfig:
    width = {"swiglu_norm": 48, "swiglu": 48, "gelu": 44}[mlp]
    return EncoderConfig(
        **{
            "gaussians": 150,
            "patches": 12,
            "patch_size": 10,
            "width": width,
            "depth": 2,
            "heads": 4,
            "mlp": mlp,
            "norm_eps": 1e-6,
            "point_widths": (128, 256, 512),
            "point_dim": 512,
            "attributes": "position_color",
            "embed_dim": 1024,
        }
        | changed
    )


def random_checkpoint(config: EncoderConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in checkpoint_shapes(config.width, config.depth, config.mlp, 5).items():
        fan_in = torch.Size(shape[1:]).numel()
        value = torch.randn(shape, generator=generator) * (fan_in**-0.5 if len(shape) > 1 else 0.2)
        if "running_var" in name:
            value = value.abs() + 0.5
        elif name.endswith("weight") and len(shape) == 1:
            value = value + 1
        state[name] = torch.tensor(7) if name.endswith("tracked") else value
    return state


def reference_block(x, w, mlp, heads):
    """Pre-norm, attention without rotary embedding, and the MLP of the kind."""
    width = x.shape[-1]
    y = layer_norm(x, (width,), w["norm1.weight"], w["norm1.bias"], 1e-6)
    if mlp == "swiglu_norm":
        q, k, v = (linear(y, w[f"attn.{part}_proj.weight"], w.get(f"attn.{part}_proj.bias")) for part in "qkv")
    else:
        q, k, v = linear(y, w["attn.qkv.weight"]).chunk(3, -1)
        q, v = q + w["attn.q_bias"], v + w["attn.v_bias"]
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    scores = (q @ k.transpose(-1, -2) * (width // heads) ** -0.5).softmax(-1)
    x = x + linear((scores @ v).transpose(1, 2).flatten(2), w["attn.proj.weight"], w["attn.proj.bias"])
    y = layer_norm(x, (width,), w["norm2.weight"], w["norm2.bias"], 1e-6)
    if mlp == "swiglu_norm":
        y = silu(linear(y, w["mlp.fc1_g.weight"], w["mlp.fc1_g.bias"])) * linear(y, w["mlp.fc1_x.weight"], w["mlp.fc1_x.bias"])
        y = layer_norm(y, y.shape[-1:], w["mlp.norm.weight"], w["mlp.norm.bias"], 1e-6)
    else:
        y = linear(y, w["mlp.fc1.weight"], w["mlp.fc1.bias"])
        y = silu(y.chunk(2, -1)[0]) * y.chunk(2, -1)[1] if mlp == "swiglu" else gelu(y)
    return x + linear(y, w["mlp.fc2.weight"], w["mlp.fc2.bias"])


def under(state, prefix):
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def reference_embedding(state, points, centers, mlp, depth, heads):
    """Uni3D's embedding of patches (B, P, S, 6) of relative positions and colours, before normalisation."""
    w = under(state, "point_encoder.")

    def conv(x, name):
        return conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm_relu(x, name):
        n = under(w, name + ".")
        return batch_norm(x, n["running_mean"], n["running_var"], n["weight"], n["bias"]).relu()

    batch, patches, size, _ = points.shape
    x = points.flatten(0, 1).transpose(1, 2)
    x = conv(norm_relu(conv(x, "encoder.first_conv.0"), "encoder.first_conv.1"), "encoder.first_conv.3")
    x = torch.cat([x.amax(2, keepdim=True).expand(-1, -1, size), x], 1)
    x = conv(norm_relu(conv(x, "encoder.second_conv.0"), "encoder.second_conv.1"), "encoder.second_conv.3")
    tokens = linear(x.amax(2).view(batch, patches, -1), w["encoder2trans.weight"], w["encoder2trans.bias"])
    position = gelu(linear(centers, w["pos_embed.0.weight"], w["pos_embed.0.bias"]))
    position = linear(position, w["pos_embed.2.weight"], w["pos_embed.2.bias"])
    x = torch.cat([w["cls_token"].expand(batch, -1, -1), tokens], 1)
    x = x + torch.cat([w["cls_pos"].expand(batch, -1, -1), position], 1)
    for index in range(depth):
        x = reference_block(x, under(w, f"visual.blocks.{index}."), mlp, heads)
    x = layer_norm(x[:, 0], x.shape[-1:], w["visual.fc_norm.weight"], w["visual.fc_norm.bias"], 1e-6)
    return linear(x, w["trans2embed.weight"], w["trans2embed.bias"])


def random_batch(config: EncoderConfig) -> GaussianBatch:
    g = torch.Generator().manual_seed(1)
    n = config.gaussians
    rotations = torch.linalg.qr(torch.randn(3, n, 3, 3, generator=g))[0]
    return GaussianBatch(
        torch.randn(3, n, 3, generator=g),
        rotations,
        torch.rand(3, n, 3, generator=g),
        torch.rand(3, n, generator=g),
        torch.rand(3, n, 3, generator=g),
    )


@pytest.mark.parametrize("mlp", ["swiglu_norm", "swiglu", "gelu"])
def test_loaded_weights_compute_what_uni3d_computes(mlp, tmp_path):
    config = small(mlp)
    state, batch = random_checkpoint(config), random_batch(config)
    save_file({f"module.{name}": value for name, value in state.items()}, tmp_path / "uni3d.safetensors")
    encoder = GaussianEncoder(config).eval()
    copied = load_uni3d(encoder, tmp_path / "uni3d.safetensors")
    assert set(encoder.state_dict()) - copied == {"center"}
    indices = group_patches(batch.means, config.patches, config.patch_size)
    rows = torch.arange(3)[:, None]
    centers, pick = batch.means[rows, indices.centers], (rows[..., None], indices.members[:, 0])
    points = torch.cat([batch.means[pick] - centers[:, :, None], batch.rgb[pick]], -1)
    expected = normalize(reference_embedding(state, points, centers, mlp, config.depth, config.heads), dim=-1)
    with torch.no_grad():
        found = encoder(batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-2  # so the tolerance tells objects apart


def test_what_uni3d_has_not_stays_new(tmp_path):
    config = small("swiglu", attributes="all", embed_dim=32)
    save_file(random_checkpoint(config), tmp_path / "uni3d.safetensors")
    encoder = GaussianEncoder(config)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    copied = load_uni3d(encoder, tmp_path / "uni3d.safetensors")
    new = {name for name in before if name.split(".")[0] in ("head", "center") or "attribute_branch" in name}
    assert set(before) - copied == new
    assert all(torch.equal(encoder.state_dict()[name], before[name]) for name in new)


def test_channels_that_uni3d_has_not_start_at_zero_without_the_gs_tokenizer(tmp_path):
    """So all attributes without the tokenizer start from the function of the point cloud."""
    points = small("swiglu_norm")
    save_file(random_checkpoint(points), tmp_path / "uni3d.safetensors")
    encoders = [GaussianEncoder(config).eval() for config in (points, replace(points, attributes="all", refinement=False))]
    for encoder in encoders:
        load_uni3d(encoder, tmp_path / "uni3d.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(*(encoder(random_batch(points)) for encoder in encoders), rtol=0, atol=1e-6)


def test_other_checkpoints_are_refused_with_what_is_wrong(tmp_path):
    config, path = small("swiglu_norm"), tmp_path / "uni3d.safetensors"
    state = random_checkpoint(config)

    def refused(changed: dict, match: str, like: EncoderConfig = config) -> None:
        save_file(changed, path)
        encoder = GaussianEncoder(like)
        before = encoder.cls_token.clone()
        with pytest.raises(CheckpointError, match=match):
            load_uni3d(encoder, path)
        assert torch.equal(encoder.cls_token, before)

    refused({k: v for k, v in state.items() if "pos_embed.2.bias" not in k}, r"lacks point_encoder\.pos_embed\.2\.bias")
    refused(state | {"point_encoder.extra": torch.zeros(1)}, r"also has point_encoder\.extra")
    refused(state, r"lacks point_encoder\.visual\.blocks\.2.* and \d+ more", replace(config, depth=3))
    refused(state, r"also has point_encoder\.visual\.blocks\.1", replace(config, depth=1))
    refused(state, "mlp 'gelu'", replace(config, mlp="gelu"))
    refused(state, r"of another size: cls_token is \(1, 1, 48\) instead of \(1, 1, 96\)", replace(config, width=96))
    broken = state | {"point_encoder.visual.blocks.0.attn.k_proj.weight": torch.zeros(48, 47)}
    refused(broken, "do not fit together")
    path.write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_uni3d(GaussianEncoder(config), path)
    with pytest.raises(CheckpointError, match=r"only safetensors are read"):
        load_uni3d(GaussianEncoder(config), tmp_path / "model.pt")
