"""A training step in bfloat16 beside the same step in float32."""

import pytest
import torch

from segmentation.test_train import config
from splatsense.segmentation import train
from splatsense.segmentation.train import SegmentationRun


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_bfloat16_is_near_float32(rooms, tmp_path, task, monkeypatch):
    found = []
    monkeypatch.setattr(train, "update", lambda *_: {})  # the gradient stays as it is
    for precision in ("float32", "bfloat16"):
        run = SegmentationRun(config(rooms, tmp_path, task=task, precision=precision))
        losses = run.step(0, run.load(0))
        found.append((losses["loss"], torch.cat([value.grad.flatten() for _, value in run.trained])))
    (loss, exact), (near, ours) = found
    assert near == pytest.approx(loss, rel=0.02)
    assert bool(ours.isfinite().all())
    assert float(torch.cosine_similarity(ours, exact, dim=0)) > 0.98
