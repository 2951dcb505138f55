"""Our SpUNet computes what the same network of spconv's layers computes, with the same state dict."""

import importlib.util

import numpy as np
import pytest
import torch

from gaussian_cross.spunet_golden import CONFIG, GOLDEN, draw_gradient, draw_scene, draw_weights
from splatsense.gaussian_cross.unet import UNET_SIZES, SpUNet
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


@pytest.mark.skipif(importlib.util.find_spec("spconv") is None, reason="spconv is not installed (pip install spconv-cu126)")
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_base_against_spconv(mode):
    from gaussian_cross.spconv_unet import SpconvUNet

    ours, theirs = SpUNet(UNET_SIZES["base"]), SpconvUNet(UNET_SIZES["base"])
    state = draw_weights(ours, seed=4)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    coordinates, features = draw_scene(6, 3000, seed=5)
    upstream, results = draw_gradient(len(features), 96, seed=6), []
    for unet, call in ((ours, lambda net, x: net(SparseTensor(coordinates, x))), (theirs, lambda net, x: net(coordinates, x))):
        entering = features.clone().requires_grad_()
        output = call(unet.train(mode == "train"), entering)
        output.backward(upstream)
        weights = dict(unet.named_parameters())
        of_weights = [weights[f"{name}.weight"].grad for name in ("conv_input.0", "down.2.0", "enc.3.block0.conv1", "up.0.0")]
        results.append((output.detach(), entering.grad, *of_weights))
    for mine, spconvs in zip(*results, strict=True):
        assert relative(mine, spconvs) < 1e-4
