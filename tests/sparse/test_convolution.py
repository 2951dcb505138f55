"""Sparse convolutions: against dense ones, gradients, and native code against the reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import conv3d

from splatsense.errors import DataError
from splatsense.native import load_native
from splatsense.sparse import KernelMap, SparseTensor, VoxelLevel, sparse_convolution
from splatsense.sparse import native as native_convolution
from splatsense.sparse.convolution import convolve_reference, input_gradient_reference, weight_gradient_reference

needs_native = pytest.mark.skipif(load_native() is None, reason="the native library is not built or switched off")


def draw_level(voxels: int, side: int, seed: int = 0) -> tuple[torch.Tensor, VoxelLevel]:
    """Cells (m, 4) of two batches in the order of their keys, and their level."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, side, (voxels, 4), generator=generator)
    cells[:, 0] %= 2
    cells = cells.unique(dim=0)
    tensor = SparseTensor(cells.int(), torch.zeros(len(cells), 1))
    return cells[tensor.order], tensor.level


def dense(cells: torch.Tensor, features: torch.Tensor, side: int) -> torch.Tensor:
    volume = features.new_zeros(2, side, side, side, features.shape[1])
    return volume.index_put(tuple(cells.T), features).permute(0, 4, 1, 2, 3)


def maps(level: VoxelLevel) -> dict[str, KernelMap]:
    return {
        "point": level.submanifold(1),
        "submanifold": level.submanifold(3),
        "stem": level.submanifold(5),
        "strided": level.strided,
        "inverse": level.strided.inverse,
    }


def draw(kernel_map: KernelMap, inputs: int, outputs: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    shapes = (kernel_map.input_count, inputs), (outputs, kernel_map.volume, inputs), (kernel_map.output_count, outputs)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_submanifold_is_a_dense_convolution_read_at_the_voxels(kernel, dtype):
    cells, level = draw_level(300, 9)
    weight, features = torch.randn(7, kernel, kernel, kernel, 5, dtype=dtype), torch.randn(len(cells), 5, dtype=dtype)
    ours = sparse_convolution(features, weight, level.submanifold(kernel))
    volume = conv3d(dense(cells, features, 9), weight.permute(0, 4, 1, 2, 3), padding=kernel // 2)
    expected = volume.permute(0, 2, 3, 4, 1)[tuple(cells.T)]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strided_and_inverse_are_dense_convolutions(dtype):
    cells, level = draw_level(300, 10)
    weight, features = torch.randn(7, 2, 2, 2, 5, dtype=dtype), torch.randn(len(cells), 5, dtype=dtype)
    volume = conv3d(dense(cells, features, 10), weight.permute(0, 4, 1, 2, 3), stride=2)
    coarse = torch.cat([cells[:, :1], cells[:, 1:] // 2], dim=1)
    rows = level.strided.outputs[level.strided.inputs.argsort()]
    ours = sparse_convolution(features, weight, level.strided)
    torch.testing.assert_close(ours[rows], volume.permute(0, 2, 3, 4, 1)[tuple(coarse.T)], rtol=1e-4, atol=1e-4)

    back = torch.randn(5, 2, 2, 2, 7, dtype=dtype)
    volume = torch.nn.functional.conv_transpose3d(volume, back.permute(4, 0, 1, 2, 3), stride=2)
    expected = volume.permute(0, 2, 3, 4, 1)[tuple(cells.T)]
    torch.testing.assert_close(sparse_convolution(ours, back, level.strided.inverse), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["point", "submanifold", "strided", "inverse"])
def test_gradients_in_float64(name):
    kernel_map = maps(draw_level(14, 3)[1])[name]
    side = round(kernel_map.volume ** (1 / 3))
    features = torch.randn(kernel_map.input_count, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, side, side, side, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: sparse_convolution(x, w, kernel_map), (features, weight))


@needs_native
@pytest.mark.parametrize("name", ["point", "submanifold", "stem", "strided", "inverse"])
@pytest.mark.parametrize("channels", [(6, 32), (96, 48), (160, 20), (5, 7)])
def test_native_equals_reference(name, channels):
    kernel_map = maps(draw_level(4000, 14)[1])[name]
    features, weight, gradient = draw(kernel_map, *channels, torch.float32)
    library = load_native()
    assert library is not None
    for ours, reference, arguments in (
        (native_convolution.convolve, convolve_reference, (features, weight)),
        (native_convolution.input_gradient, input_gradient_reference, (gradient, weight)),
        (native_convolution.weight_gradient, weight_gradient_reference, (features, gradient)),
    ):
        expected = reference(*(tensor.double() for tensor in arguments), kernel_map)
        error = (ours(library, *arguments, kernel_map) - expected).norm() / expected.norm()
        assert error < 2e-6, ours.__name__


@needs_native
def test_native_is_the_same_to_the_last_bit_for_any_number_of_threads():
    kernel_map = draw_level(9000, 20)[1].submanifold(3)
    features, weight, gradient = draw(kernel_map, 48, 64, torch.float32)
    threads, results = torch.get_num_threads(), []
    library = load_native()
    assert library is not None
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            level = VoxelLevel(draw_level(9000, 20)[1].keys)
            made = native_convolution.convolve(library, features, weight, kernel_map)
            back = native_convolution.input_gradient(library, gradient, weight, kernel_map)
            of_weight = native_convolution.weight_gradient(library, features, gradient, kernel_map)
            results.append((made, back, of_weight, level.submanifold(3).inputs))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 99))
def test_any_few_voxels(voxels, side, seed):
    _, level = draw_level(voxels, side, seed)
    for kernel_map in maps(level).values():
        features, weight, gradient = draw(kernel_map, 3, 4, torch.float32)
        kernel = round(kernel_map.volume ** (1 / 3))
        features.requires_grad_()
        weight = weight.reshape(4, kernel, kernel, kernel, 3).requires_grad_()
        output = sparse_convolution(features, weight, kernel_map)
        output.backward(gradient)
        exact = convolve_reference(features.double(), weight.flatten(1, 3).double(), kernel_map)
        torch.testing.assert_close(output.double(), exact, rtol=1e-4, atol=1e-4)
        assert features.grad is not None
        assert weight.grad is not None


def test_backward_keeps_only_what_it_needs():
    kernel_map = draw_level(50, 4)[1].submanifold(3)
    features, weight = torch.randn(kernel_map.input_count, 3), torch.randn(4, 3, 3, 3, 3)

    def kept(of_features: bool, of_weight: bool) -> int:
        output = sparse_convolution(
            features.clone().requires_grad_(of_features), weight.clone().requires_grad_(of_weight), kernel_map
        )
        return 0 if output.grad_fn is None else sum(tensor is not None for tensor in output.grad_fn.saved_tensors)

    assert [kept(True, True), kept(True, False), kept(False, True), kept(False, False)] == [2, 1, 1, 0]


def test_wrong_shapes_are_named():
    level = draw_level(50, 4)[1]
    features = torch.randn(len(level), 3)
    with pytest.raises(DataError, match="3 channels, the weight takes 5"):
        sparse_convolution(features, torch.randn(4, 3, 3, 3, 5), level.submanifold(3))
    with pytest.raises(DataError, match="has not the map's 27 offsets"):
        sparse_convolution(features, torch.randn(4, 2, 2, 2, 3), level.submanifold(3))
    with pytest.raises(DataError, match="the map is for"):
        sparse_convolution(features[1:], torch.randn(4, 3, 3, 3, 3), level.submanifold(3))
    with pytest.raises(DataError, match="1, 3, 5 or 7"):
        level.submanifold(4)
