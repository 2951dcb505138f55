"""The encoder as a whole: invariances, sizes, dropout, checkpointing, precision, and weights of other networks."""

from dataclasses import asdict, replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from clip_gs.test_tokenizer import SMALL, random_gaussians
from splatsense.clip_gs.encoder import EncoderConfig, GaussianEncoder, encoder_config
from splatsense.clip_gs.tokenizer import GaussianBatch
from splatsense.clip_gs.transformer import attention_reference
from splatsense.errors import CheckpointError, DataError

ROWS = {  # of the paper's ablation
    "point cloud": {"attributes": "position_color"},
    "all attributes without tokenizer": {"refinement": False},
    "with tokenizer": {"orders": ("xyz", "hilbert", "z"), "point_dim": 20},
}


def test_the_order_of_the_gaussians_in_the_file_does_not_matter():
    torch.manual_seed(0)
    encoder = GaussianEncoder(SMALL).eval()
    batch = GaussianBatch.stack([random_gaussians(128)], 128)
    shuffle = torch.cat([torch.zeros(1, dtype=torch.long), torch.randperm(127, generator=torch.Generator().manual_seed(1)) + 1])
    shuffled = GaussianBatch(*(getattr(batch, n)[:, shuffle] for n in ("means", "rotations", "scales", "opacities", "rgb")))
    with torch.no_grad():
        assert torch.allclose(encoder(batch), encoder(shuffled), atol=1e-5)


def test_embeddings_are_unit_length_and_independent_of_the_batch():
    torch.manual_seed(0)
    encoder = GaussianEncoder(SMALL).eval()
    objects = [random_gaussians(200, seed) for seed in range(3)]
    with torch.no_grad():
        together = encoder(GaussianBatch.stack(objects, 128))
        alone = torch.cat([encoder(GaussianBatch.stack([g], 128)) for g in objects])
    assert torch.allclose(together.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert torch.allclose(together, alone, atol=1e-5)


def test_dropout_only_in_training():
    torch.manual_seed(0)
    encoder = GaussianEncoder(SMALL, drop_path=0.5, patch_dropout=0.5)
    batch = GaussianBatch.stack([random_gaussians(128)] * 4, 128)
    with torch.no_grad():
        assert not torch.allclose(encoder(batch), encoder(batch), atol=1e-4)
        encoder.eval()
        assert torch.equal(encoder(batch), encoder(batch))


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("mlp", ["swiglu", "swiglu_norm", "gelu"])
def test_every_kind_of_encoder_learns(row, mlp):
    """One batch of four objects is told apart after a few steps, and all weights get a gradient."""
    torch.manual_seed(0)
    encoder = GaussianEncoder(replace(SMALL, mlp=mlp, width=22, **ROWS[row]))
    batch = GaussianBatch.stack([random_gaussians(128, seed) for seed in range(4)], 128)
    batch.means.mul_(torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0.1, 0.1], [0.1, 1, 1.5]])[:, None])
    batch.rgb.mul_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])[:, None])
    optimizer, losses = torch.optim.AdamW(encoder.parameters(), lr=3e-3), []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(10 * encoder(batch)[:, :4], torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        assert [n for n, p in encoder.named_parameters() if p.grad is None or not bool(p.grad.any())] == []
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_checkpointing_changes_neither_the_embedding_nor_a_gradient():
    batch = GaussianBatch.stack([random_gaussians(128, seed) for seed in range(4)], 128)
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = GaussianEncoder(SMALL, drop_path=0.5, patch_dropout=0.5, checkpointing=checkpointing)
        torch.manual_seed(1)
        embedded = encoder(batch)
        embedded.square().cumsum(1).sum().backward()
        results.append([embedded.detach(), *(p.grad for p in encoder.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.equal(plain, checkpointed)


def test_bfloat16_stays_near_float32_and_its_positions_are_exact():
    torch.manual_seed(0)
    encoder = GaussianEncoder(SMALL)
    batch = GaussianBatch.stack([random_gaussians(128, seed) for seed in range(4)], 128)
    exact = encoder(batch)
    carried = []
    encoder.blocks[1].register_forward_pre_hook(lambda _, inputs: carried.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(batch)
    assert carried == [torch.float32]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0, atol=0.03)
    half.square().cumsum(1).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in encoder.parameters() if p.grad is not None)


def test_attention_written_out_is_pytorchs():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8, generator=g, dtype=torch.float64) for _ in range(3))
    torch.testing.assert_close(attention_reference(q, k, v), scaled_dot_product_attention(q, k, v))


def test_sizes_and_their_errors():
    """Widths are EVA-02's; Uni3D-B is said to have 88 million parameters, with a classifier and pixels it does not use."""
    with torch.device("meta"):
        counts = {
            size: sum(p.numel() for p in GaussianEncoder(encoder_config(size, 1024)).parameters()) / 1e6
            for size in ("tiny", "small", "base", "large", "giant")
        }
    assert counts == pytest.approx({"tiny": 3.0, "small": 22.9, "base": 87.7, "large": 305.6, "giant": 1014.1}, rel=2e-3)
    assert counts["tiny"] * 2 < 16  # MB in half precision
    with pytest.raises(DataError, match="expected one of tiny"):
        encoder_config("huge")
    for changes, message in (
        ({"width": 10, "heads": 3}, "multiple of heads"),
        ({"orders": ()}, "orders must be some of"),
        ({"patches": 4096}, "must not exceed gaussians"),
    ):
        with pytest.raises(DataError, match=message):
            EncoderConfig(**changes)


def test_cards_of_earlier_models_are_understood_and_those_of_later_ones_refused():
    config = replace(SMALL, orders=("z",), attributes="position_color")
    written = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    assert EncoderConfig.from_card(written, "card") == config
    earlier = {name: value for name, value in written.items() if name not in ("orders", "attributes", "refinement", "mlp")}
    assert EncoderConfig.from_card(earlier | {"order": "z", "use_attributes": False}, "card") == config
    with pytest.raises(CheckpointError, match=r"card: .*does not know \(wings\)"):
        EncoderConfig.from_card(written | {"wings": 2}, "card")
    for impossible in ({"heads": 5}, {"orders": ["peano"]}, {"mlp": "relu"}, {"attributes": "color"}, {"depth": None}):
        with pytest.raises(CheckpointError, match="card: no such encoder can be built"):
            EncoderConfig.from_card(written | impossible, "card")


def test_weights_of_another_network_are_named():
    encoder, other = GaussianEncoder(SMALL), GaussianEncoder(replace(SMALL, width=48, depth=3)).state_dict()
    with pytest.raises(CheckpointError, match=r"somewhere: weights of another network \(unexpected: blocks\.2\."):
        encoder.load_weights(other, "somewhere")
    own = encoder.state_dict()
    with pytest.raises(CheckpointError, match=r"missing: cls_token"):
        encoder.load_weights({name: value for name, value in own.items() if name != "cls_token"}, "somewhere")
    with pytest.raises(CheckpointError, match=r"of another size: head\.bias is \(3,\) instead of \(384,\)"):
        encoder.load_weights(own | {"head.bias": torch.zeros(3)}, "somewhere")
