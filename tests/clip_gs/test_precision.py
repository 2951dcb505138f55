"""A training step in bfloat16 beside the same step in float32."""

from dataclasses import replace

import pytest
import torch

from clip_gs.test_pretrain import run_of
from splatsense.clip_gs import encoder as encoder_module


def gradient(config, teacher) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the first step."""
    run = run_of(config, teacher)
    batch = run.load(0)
    losses = run._backward(0, batch.gaussians, [batch.text, batch.images, batch.names])
    return float(losses["loss"].detach()), torch.cat([value.grad.flatten() for value in run.encoder.parameters()])


@pytest.mark.parametrize("mlp", ["swiglu", "swiglu_norm", "gelu"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_bfloat16_is_near_float32(setup, teacher, monkeypatch, mlp, accumulate):
    original = encoder_module.GaussianEncoder.__init__
    monkeypatch.setattr(
        encoder_module.GaussianEncoder, "__init__",
        lambda self, config, *rest: original(self, replace(config, mlp=mlp), *rest),
    )  # fmt: skip
    config = replace(setup, accumulate=accumulate)
    (loss, exact), (near, ours) = (gradient(replace(config, precision=p), teacher) for p in ("float32", "bfloat16"))
    assert near == pytest.approx(loss, rel=0.02)
    assert bool(ours.isfinite().all())
    assert float(torch.cosine_similarity(ours, exact, dim=0)) > 0.98
