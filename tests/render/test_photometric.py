"""The native loss equals its definition, and the definition equals an independent SSIM."""

import inspect
from ctypes import c_float, c_int32, c_int64

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from splatsense.errors import DataError
from splatsense.native import load_native, pointer
from splatsense.render.photometric import photometric_loss, photometric_loss_reference, ssim

needs_native = pytest.mark.skipif(load_native() is None, reason="the native library is not installed")


def pictures(views, height, width, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((views, height, width, 3), (views, height, width), (views, height, width, 4), (views, 3))
    return [torch.rand(shape, generator=g) for shape in shapes]


def loss_and_gradients(function, inputs, weight):
    color, alpha, *rest = inputs
    color, alpha = color.clone().requires_grad_(), alpha.clone().requires_grad_()
    loss = function(color, alpha, *rest, weight)
    (loss * torch.arange(1, len(loss) + 1).to(loss)).sum().backward()
    return loss.detach(), color.grad, alpha.grad


def close(ours, reference):
    assert (ours - reference).abs().max() <= 1e-4 * reference.abs().max() + 1e-9


@needs_native
@pytest.mark.parametrize("size", [(2, 33, 47), (1, 8, 9), (1, 1, 1), (3, 16, 64), (1, 5, 130)])
@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_native_equals_reference(size, weight):
    inputs = pictures(*size)
    ours = loss_and_gradients(photometric_loss, inputs, weight)
    reference = loss_and_gradients(photometric_loss_reference, [each.double() for each in inputs], weight)
    for value, expected in zip(ours, reference, strict=True):
        close(value, expected)


@needs_native
@pytest.mark.parametrize("rows", [slice(20, 23), slice(0, 3), slice(61, 64)])
@pytest.mark.parametrize("columns", [slice(30, 34), slice(0, 1), slice(70, 80)])
def test_native_looks_only_at_what_differs(rows, columns):
    """Gradients reach two windows' radius beyond the last pixel that differs, at any edge of the picture."""
    color, alpha, target, background = pictures(1, 64, 80)
    color[:], alpha[:] = target[..., :3], target[..., 3]
    color[:, rows, columns] += 0.1
    ours = loss_and_gradients(photometric_loss, (color, alpha, target, background), 0.5)
    inputs = [each.double() for each in (color, alpha, target, background)]
    for value, expected in zip(ours, loss_and_gradients(photometric_loss_reference, inputs, 0.5), strict=True):
        close(value, expected)


@needs_native
def test_equal_pictures_lose_nothing():
    _, _, target, background = pictures(2, 20, 30)
    color, alpha = target[..., :3].contiguous(), target[..., 3].contiguous()
    for value in loss_and_gradients(photometric_loss, (color, alpha, target, background), 0.2):
        assert not value.any()


@needs_native
def test_nan_is_not_hidden():
    color, alpha, target, background = pictures(1, 20, 30)
    color[0, 10, 10, 1] = torch.nan
    assert photometric_loss(color, alpha, target, background, 0.2).isnan().all()


@needs_native
def test_any_number_of_threads():
    inputs, threads = pictures(5, 40, 40), torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(loss_and_gradients(photometric_loss, inputs, 0.2))
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


@needs_native
def test_rows_that_found_no_memory_are_not_taken_for_there():
    zeros = torch.zeros(4)
    library, array = load_native(), pointer(zeros)
    sizes = c_int64(1), c_int64(1), c_int64(1 << 55)
    for _ in range(4):
        assert library.ss_photometric_loss(*[array] * 4, *sizes, c_float(0.2), c_int32(1), *[array] * 3) == 1


@pytest.mark.parametrize("wrong", range(4))
def test_shapes_that_do_not_fit(wrong):
    inputs = pictures(2, 8, 9)
    inputs[wrong] = inputs[wrong][0]
    with pytest.raises(DataError, match=r"expected \(V, H, W, 3\), \(V, H, W\), \(V, H, W, 4\) and \(V, 3\), got \("):
        inspect.unwrap(photometric_loss)(*inputs)


def test_what_is_not_all_float32_is_left_to_pytorch():
    inputs = pictures(2, 8, 9)
    expected = photometric_loss(*inputs, 0.0)
    inputs[2] = inputs[2].double()
    torch.testing.assert_close(photometric_loss(*inputs, 0.0), expected.double())


def test_reference_gradient():
    inputs = [each.double() for each in pictures(1, 6, 7)]
    color, alpha = (each.requires_grad_() for each in inputs[:2])
    assert torch.autograd.gradcheck(lambda c, a: photometric_loss_reference(c, a, *inputs[2:], 0.3), (color, alpha))


def test_ssim_equals_scipy():
    """Wang et al. 2004, with SciPy's Gaussian filter cut off at the same window."""
    first, second = (each[..., :3].double() for each in (pictures(1, 30, 40)[0], pictures(1, 30, 40, seed=1)[0]))

    def blur(image):
        return gaussian_filter(image, 1.5, mode="constant", radius=5, axes=(0, 1))

    x, y = first[0].numpy(), second[0].numpy()
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    expected = ((2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))).mean()
    assert ssim(first, second).item() == pytest.approx(expected, abs=1e-12)
    assert np.isfinite(expected)
    assert ssim(first, first).item() == pytest.approx(1)
