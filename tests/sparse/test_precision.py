"""Sparse convolutions in half precision, as autocast has them on a GPU, by the code that runs there."""

import pytest
import torch

from gaussian_cross.spunet_golden import CONFIG, draw_scene, draw_weights
from sparse.test_devices import draw_level, maps
from splatsense.gaussian_cross.unet import SpUNet
from splatsense.sparse import SparseTensor, convolution, sparse_convolution


@pytest.fixture(autouse=True)
def without_native_code(monkeypatch):
    monkeypatch.setattr(convolution, "load_native", lambda: None)


def draw(name: str) -> tuple:
    """A map, and features and a weight whose values bfloat16 holds exactly."""
    generator = torch.Generator().manual_seed(0)
    kernel_map = maps(draw_level(torch.device("cpu")))[name]
    kernel = round(kernel_map.volume ** (1 / 3))
    shapes = (kernel_map.input_count, 32), (24, *3 * [kernel], 32)
    return kernel_map, [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]


@pytest.mark.parametrize("name", ["point", "submanifold", "stem", "strided", "inverse"])
def test_sums_over_the_kernel_are_rounded_once(name):
    kernel_map, drawn = draw(name)
    exact, ours = ([value.to(dtype).requires_grad_() for value in drawn] for dtype in (torch.float64, torch.bfloat16))
    expected, found = sparse_convolution(*exact, kernel_map), sparse_convolution(*ours, kernel_map)
    assert found.dtype == torch.bfloat16
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected.backward(upstream.double())
    found.backward(upstream)
    for mine, truth in ((found, expected), *((mine.grad, truth.grad) for mine, truth in zip(ours, exact, strict=True))):
        assert (mine.double() - truth).norm() <= 4e-3 * truth.norm()  # a number of bfloat16 is known to 1 part in 256 to 512


@pytest.mark.parametrize("name", ["submanifold", "strided"])
def test_autocast_on_a_cpu_leaves_them_as_they_are(name):
    kernel_map, drawn = draw(name)
    features, weight = (value.float() for value in drawn)
    expected = sparse_convolution(features, weight, kernel_map)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sparse_convolution(features, weight, kernel_map), expected)


def test_a_backbone_in_half_precision_is_near_the_exact_one():
    coordinates, features = draw_scene(CONFIG.in_channels, 800, seed=2)
    outputs = []
    for dtype in (torch.float64, torch.bfloat16):
        unet = SpUNet(CONFIG)
        unet.load_state_dict(draw_weights(unet, seed=1))
        outputs.append(unet.to(dtype).eval()(SparseTensor(coordinates, features.to(dtype))).double())
    exact, ours = outputs
    assert (ours - exact).norm() <= 0.05 * exact.norm()
