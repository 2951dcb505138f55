"""SpUNet base of our layers against SpUNet base of spconv's on a CPU (every layer algo=Native), of the same random weights.

`pip install spconv` (the CPU build; any spconv 2.x serves), then `pytest -m slow -s tests/sparse/test_spconv_parity.py` prints
the figures of docs/sparse.md. In float64 everything agrees to rounding. In float32 a ReLU whose input is within rounding of 0
opens in one network and not in the other, which moves a gradient by a finite amount; so gradients are compared with every ReLU
doing what it does in float64.
"""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from gaussian_cross.spunet_golden import draw_gradient, draw_scene, draw_weights
from splatsense.gaussian_cross.unet import UNET_SIZES, SpUNet
from splatsense.sparse import SparseTensor, VoxelNorm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("spconv") is None, reason="spconv is not installed (pip install spconv)"),
]
CONFIG = UNET_SIZES["base"]
COORDINATES, FEATURES = draw_scene(CONFIG.in_channels, 3000, seed=5)
UPSTREAM = draw_gradient(len(FEATURES), CONFIG.channels[-1], seed=6)


class Results(NamedTuple):
    output: Tensor
    input_gradient: Tensor
    weight_gradients: Tensor


class Gates:
    """What every ReLU of a network lets through: recorded, then replayed."""

    def __init__(self) -> None:
        self.open: list[Tensor] = []
        self.replayed: int | None = None

    def relu(self, input: Tensor) -> Tensor:
        if self.replayed is None:
            self.open.append(input > 0)
            return input.relu()
        self.replayed += 1
        return input * self.open[self.replayed - 1]


def ours() -> nn.Module:
    return SpUNet(CONFIG)


def spconvs() -> nn.Module:
    from gaussian_cross.spconv_unet import SpconvUNet

    return SpconvUNet(CONFIG)


def run(make: Callable[[], nn.Module], dtype: torch.dtype, training: bool, gates: Gates | None = None) -> Results:
    """All in one precision; with `gates`, these take the place of ReLUs."""
    unet = make()
    unet.load_state_dict(draw_weights(SpUNet(CONFIG), seed=4))
    unet.to(dtype).train(training)
    entering = FEATURES.to(dtype, copy=True).requires_grad_()
    normalise = VoxelNorm.forward

    def gated(self: VoxelNorm, input: Tensor, residual: Tensor | None = None, activate: bool = False) -> Tensor:
        result = normalise(self, input, residual, False)
        return gates.relu(result) if activate and gates else result

    def call() -> Tensor:
        return unet(SparseTensor(COORDINATES, entering)) if isinstance(unet, SpUNet) else unet(COORDINATES, entering)

    if gates is None:
        output = call()
    else:
        with patch.object(VoxelNorm, "forward", gated), patch.object(nn.ReLU, "forward", lambda _, input: gates.relu(input)):
            output = call()
    output.backward(UPSTREAM.to(dtype))
    assert entering.grad is not None
    gradients = [parameter.grad.flatten() for _, parameter in sorted(unet.named_parameters()) if parameter.grad is not None]
    assert len(gradients) == len(list(unet.parameters()))
    return Results(*(part.detach().double() for part in (output, entering.grad, torch.cat(gradients))))


def error(result: Tensor, exact: Tensor) -> float:
    """Largest, relative to the largest value."""
    return float((result - exact).abs().max() / exact.abs().max())


def report(what: str, one: Results, other: Results) -> list[float]:
    errors = [error(mine, theirs) for mine, theirs in zip(one, other, strict=True)]
    print(f"{what:<44}" + "".join(f"  {name} {value:.1e}" for name, value in zip(Results._fields, errors, strict=True)))
    return errors


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_base_in_float64_and_float32(training):
    gates = {ours: Gates(), spconvs: Gates()}
    exact = {make: run(make, torch.float64, training, gates[make]) for make in gates}
    print(f"\n{'training' if training else 'evaluation'} mode, {len(FEATURES)} voxels, largest error by largest value")
    assert max(report("float64, ours against spconv", exact[ours], exact[spconvs])) < 1e-11
    single = {make: run(make, torch.float32, training) for make in gates}
    report("float32, ours against our float64", single[ours], exact[ours])
    report("float32, spconv against our float64", single[spconvs], exact[ours])
    assert report("float32, ours against spconv", single[ours], single[spconvs])[0] < 1e-4
    for recorded in gates.values():
        recorded.replayed = 0
    single = {make: run(make, torch.float32, training, gates[make]) for make in gates}
    report("float32, ReLUs as in float64, ours", single[ours], exact[ours])
    report("float32, ReLUs as in float64, spconv", single[spconvs], exact[ours])
    assert max(report("float32, ReLUs as in float64, ours against spconv", single[ours], single[spconvs])) < 1e-4
    assert all(recorded.replayed == len(recorded.open) > 20 for recorded in gates.values())
