"""Sparse convolution on a CUDA device and by spconv, against float64 on a CPU.

spconv also runs on a CPU, so its adapter is tested there where it is installed (`pip install spconv`).
"""

import importlib
import importlib.util
import sys

import pytest
import torch

from gaussian_cross.spunet_golden import CONFIG, draw_gradient, draw_scene, draw_weights
from splatsense.errors import DataError, SplatSenseError
from splatsense.gaussian_cross.unet import SpUNet
from splatsense.sparse import SparseTensor, VoxelLevel, sparse_convolution, spconv_backend, voxelize

needs_gpu = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
needs_spconv = pytest.mark.skipif(importlib.util.find_spec("spconv") is None, reason="spconv is not installed")


@pytest.fixture(
    params=[
        pytest.param(("", "cuda"), id="torch-cuda", marks=needs_gpu),
        pytest.param(("spconv", "cuda"), id="spconv-cuda", marks=[*needs_gpu, needs_spconv]),
        pytest.param(("spconv", "cpu"), id="spconv-cpu", marks=needs_spconv),
    ]
)
def device(request, monkeypatch) -> torch.device:
    """Where to compute; the backend is chosen as a user does."""
    backend, name = request.param
    monkeypatch.setenv(spconv_backend.VARIABLE, backend)
    if backend:
        importlib.import_module("gaussian_cross.spconv_unet")  # lets spconv's CPU build run beside a torch without CUDA
    return torch.device(name)


def draw_level(device: torch.device) -> VoxelLevel:
    coordinates, features = draw_scene(1, 700, seed=3)
    return SparseTensor(coordinates.to(device), features.to(device)).level


def maps(level: VoxelLevel) -> dict:
    return {
        "point": level.submanifold(1),
        "submanifold": level.submanifold(3),
        "stem": level.submanifold(5),
        "strided": level.strided,
        "inverse": level.strided.inverse,
    }


def close(ours: torch.Tensor, exact: torch.Tensor) -> None:
    exact = exact.detach()
    torch.testing.assert_close(ours.detach().cpu().double(), exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))


@pytest.mark.parametrize("name", ["point", "submanifold", "stem", "strided", "inverse"])
@pytest.mark.parametrize("channels", [(6, 32), (32, 6)])
def test_convolutions_and_their_gradients(device, name, channels):
    exact_map, own_map = maps(draw_level(torch.device("cpu")))[name], maps(draw_level(device))[name]
    assert own_map.inputs.device.type == device.type
    for part in ("inputs", "outputs", "starts"):
        assert torch.equal(getattr(own_map, part).cpu(), getattr(exact_map, part))
    generator = torch.Generator().manual_seed(0)
    kernel = round(exact_map.volume ** (1 / 3))
    shapes = (exact_map.input_count, channels[0]), (channels[1], *3 * [kernel], channels[0])
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    upstream = torch.randn(exact_map.output_count, channels[1], generator=generator)
    exact = [value.double().requires_grad_() for value in drawn]
    ours = [value.to(device).requires_grad_() for value in drawn]
    expected, found = sparse_convolution(*exact, exact_map), sparse_convolution(*ours, own_map)
    expected.backward(upstream.double())
    found.backward(upstream.to(device))
    assert found.device.type == device.type
    close(found, expected)
    for mine, theirs in zip(ours, exact, strict=True):
        close(mine.grad, theirs.grad)


@pytest.mark.parametrize("training", [False, True])
def test_the_backbone(device, training):
    coordinates, features = draw_scene(CONFIG.in_channels, 800, seed=2)
    upstream, results = draw_gradient(len(features), CONFIG.channels[-1], seed=3), []
    for place, dtype in ((device, torch.float32), (torch.device("cpu"), torch.float64)):
        unet = SpUNet(CONFIG)
        unet.load_state_dict(draw_weights(unet, seed=1))
        unet.to(place, dtype).train(training)
        entering = features.to(place, dtype, copy=True).requires_grad_()
        output = unet(SparseTensor(coordinates.to(place), entering))
        output.backward(upstream.to(place, dtype))
        results.append((output, entering.grad))
    for ours, exact in zip(*results, strict=True):
        close(ours, exact)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_voxels_of_points_on_a_gpu_are_those_of_a_cpu():
    generator = torch.Generator().manual_seed(0)
    points, features = torch.rand(5000, 3, generator=generator), torch.randn(5000, 2, generator=generator)
    (ours, row), (expected, expected_row) = voxelize(points.cuda(), 0.05, features.cuda()), voxelize(points, 0.05, features)
    assert torch.equal(ours.coordinates.cpu(), expected.coordinates)
    assert torch.equal(row.cpu(), expected_row)
    torch.testing.assert_close(ours.features.cpu(), expected.features)


def test_spconv_is_imported_when_it_is_asked_for_and_not_before(monkeypatch):
    monkeypatch.setitem(sys.modules, "spconv", None)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", None)
    kernel_map = draw_level(torch.device("cpu")).submanifold(3)
    arguments = torch.randn(kernel_map.input_count, 3), torch.randn(4, 3, 3, 3, 3), kernel_map
    monkeypatch.delenv(spconv_backend.VARIABLE, raising=False)
    assert sparse_convolution(*arguments).shape == (kernel_map.output_count, 4)
    spconv_backend._spconv.cache_clear()
    monkeypatch.setenv(spconv_backend.VARIABLE, "spconv")
    with pytest.raises(SplatSenseError, match=r"splatsense\[spconv\]"):
        sparse_convolution(*arguments)
    monkeypatch.setenv(spconv_backend.VARIABLE, "triton")
    with pytest.raises(DataError, match="no such backend"):
        sparse_convolution(*arguments)


def test_types_that_spconv_does_not_take_are_left_to_our_code_and_said_once(monkeypatch, caplog):
    spconv_backend._say_once.cache_clear()
    monkeypatch.setenv(spconv_backend.VARIABLE, "spconv")
    kernel_map = draw_level(torch.device("cpu")).submanifold(3)
    features, weight = (torch.randn(shape).bfloat16() for shape in ((kernel_map.input_count, 3), (4, 3, 3, 3, 3)))
    for _ in range(2):
        assert sparse_convolution(features, weight, kernel_map).dtype == torch.bfloat16
    assert caplog.text.count("does not take torch.bfloat16; our own convolutions take its place") == 1
