import pytest
import torch
import torch.nn.functional as F

from splatsense.errors import DataError
from splatsense.teachers.efficientnet import BATCH_NORM_EPS, SameConv2d, fold_batch_norm, load_efficientnet_lite2

# Every 100th ImageNet logit of the pooled features and of one location beside the corner, for `wave()`: computed by timm
# 1.0.31, tf_efficientnet_lite2(output_stride=...), from the same weights. The odd image size makes every padding uneven.
TIMM = {
    32: (
        (4, 5),
        [-1.55599, -0.69939, -0.49866, -0.68088, -1.97599, -0.09119, 1.16717, 1.32936, -0.35153, 0.77691],
        [-1.23651, -1.71568, -0.65998, -0.72466, -2.96563, 0.02523, 1.14748, 2.30921, 0.83975, 1.37418],
    ),
    16: (
        (7, 9),
        [-1.86194, -1.08834, -0.2692, -0.84948, -1.37258, -0.10817, 1.0074, 1.09099, -0.60369, 1.20626],
        [-0.75476, -0.66638, -0.30566, -0.30984, -0.66252, -0.0847, 1.37188, 0.93089, -0.33476, 0.0487],
    ),
    8: (
        (13, 17),
        [-1.80925, -1.15048, -0.33336, -1.03849, -0.99517, -0.24576, 1.43217, 0.77025, -0.22329, 0.8974],
        [-0.49213, -0.72523, -0.01308, -0.34467, -0.75935, -0.09412, 1.05734, 0.78781, -0.09371, -0.38372],
    ),
}


@pytest.fixture(scope="module")
def network():
    return load_efficientnet_lite2()


def wave():
    return 1.5 * torch.sin(torch.arange(3 * 97 * 131, dtype=torch.float64) * 0.37).float().reshape(1, 3, 97, 131)


@pytest.mark.parametrize("output_stride", TIMM)
def test_activations_equal_timm(network, output_stride):
    size, pooled, beside_corner = TIMM[output_stride]
    features = network.feature_map(wave(), output_stride)
    assert features.shape == (1, 1280, *size)
    torch.testing.assert_close(network.classifier(features.mean((2, 3)))[0, ::100], torch.tensor(pooled), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        network.classifier(features[0, :, -1, -2])[::100], torch.tensor(beside_corner), atol=1e-4, rtol=0
    )


def test_forward_pools_the_feature_map(network):
    torch.testing.assert_close(network(wave()), network.feature_map(wave()).mean((2, 3)))


def test_weights_are_frozen(network):
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_another_output_stride_is_refused(network):
    with pytest.raises(DataError, match="expected 8, 16 or 32"):
        network.feature_map(wave(), 4)


def test_folding_equals_convolution_then_batch_norm():
    generator = torch.Generator().manual_seed(0)
    state = {
        "conv.weight": torch.randn(5, 3, 3, 3, generator=generator),
        "norm.weight": torch.randn(5, generator=generator),
        "norm.bias": torch.randn(5, generator=generator),
        "norm.running_mean": torch.randn(5, generator=generator),
        "norm.running_var": torch.rand(5, generator=generator),
    }
    x = torch.randn(2, 3, 8, 9, generator=generator)
    expected = F.batch_norm(
        F.conv2d(x, state["conv.weight"]), state["norm.running_mean"], state["norm.running_var"],
        state["norm.weight"], state["norm.bias"], eps=BATCH_NORM_EPS,
    )  # fmt: skip
    weight, bias = fold_batch_norm(state, "conv", "norm")
    torch.testing.assert_close(F.conv2d(x, weight, bias), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "first_tap"), [(8, 0), (7, -1)])
def test_same_padding_puts_the_odd_pixel_at_the_end(size, first_tap):
    """Stride 2, kernel 3: an even side is padded by 0 + 1, an odd one by 1 + 1, as TensorFlow does."""
    convolution = SameConv2d(1, 1, kernel=3)
    convolution.weight.data = torch.tensor([1.0, 0, 0]).expand(1, 1, 3, 3) / 3  # reads the left column of its window
    convolution.bias.data = torch.zeros(1)
    columns = torch.arange(1.0, size + 1).expand(1, 1, size, size)
    output = convolution(columns, stride=2)
    assert output.shape[-2:] == (4, 4)
    expected = [max(column + 1, 0) for column in range(first_tap, size, 2)][:4]
    torch.testing.assert_close(output[0, 0, 1], torch.tensor(expected, dtype=torch.float32))
