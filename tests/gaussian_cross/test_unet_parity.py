"""Our SpUNet computes what the same network of spconv's layers computed, with the same state dict.

Where spconv is installed, `tests/sparse/test_spconv_parity.py` compares size base, weight gradients included."""

import numpy as np
import pytest
import torch

from gaussian_cross.spunet_golden import CONFIG, GOLDEN, draw_gradient, draw_scene, draw_weights
from splatsense.gaussian_cross.unet import SpUNet
from splatsense.sparse import SparseTensor


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.detach() - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden_of_spconv(mode):
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN).items()}
    unet = SpUNet(CONFIG)
    unet.load_state_dict(draw_weights(unet, seed=1))
    coordinates, features = draw_scene(CONFIG.in_channels, 800, seed=2)
    features.requires_grad_()
    output = unet.train(mode == "train")(SparseTensor(coordinates, features))
    output.backward(draw_gradient(len(features), CONFIG.channels[-1], seed=3))
    assert features.grad is not None
    assert relative(output, golden[f"{mode}_output"]) < 1e-4
    assert relative(features.grad, golden[f"{mode}_input_gradient"]) < 1e-4
