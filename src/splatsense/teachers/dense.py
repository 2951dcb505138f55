"""Frozen 2D models that give a feature for every place of an image. All share one small interface, `interface.DenseTeacher`.

`MiniDenseTeacher` is the mini teacher's EfficientNet-Lite2 at a finer output stride. Which of its layers teaches is a setting:
- "block": the 352 numbers of the last block, before the layer that widens them. The default, see docs/gaussian-cross.md.
- "head": the 1,280 non-negative numbers that ImageNet's classifier takes.
- "classes": 384 numbers, ConSE of every location, so that texts can be compared with them.
"""

import hashlib
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.errors import CheckpointError, DataError
from splatsense.teachers import efficientnet, minilm
from splatsense.teachers.interface import DenseTeacher
from splatsense.teachers.mini import MiniTeacher

LAYER_DIMS = {"block": efficientnet.BLOCK_DIM, "head": efficientnet.FEATURE_DIM, "classes": minilm.DIM}
STRIDES = (8, 16, 32)


class MiniDenseTeacher:
    """The mini teacher's image network, per location. Weights are read at the first image.

    Args:
        layer: which features.
        stride: 8, 16 or 32 pixels per location; at 8 an image takes five times as long as at 16.

    Raises:
        DataError: there is no such layer or stride.
    """

    def __init__(self, layer: str = "block", stride: int = 16) -> None:
        if layer not in LAYER_DIMS or stride not in STRIDES:
            raise DataError(f"mini:{layer}:{stride}: the layer must be block, head or classes, the stride 8, 16 or 32.")
        self.layer, self.stride = layer, stride
        self.name, self.dim = f"mini:{layer}:{stride}", LAYER_DIMS[layer]

    @property
    def hash(self) -> str:
        """Changes with the weights, the layer and the stride."""
        weights = self._mini.hash if self.layer == "classes" else efficientnet.WEIGHTS.sha256
        return hashlib.sha256(f"dense 1: (x - 127) / 128\n{self.name}\n{weights}".encode()).hexdigest()

    @torch.no_grad()
    def encode_dense(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n h2 w2 d"]:
        """(N, ceil(H / stride), ceil(W / stride), dim) of images at their own size."""
        if self.layer == "classes":
            return self._mini.dense_features(images, self.stride)
        network = self._network
        read = network.block_map if self.layer == "block" else network.feature_map
        maps = [read((image * 255 - 127).permute(0, 3, 1, 2) / 128, self.stride) for image in images.split(1)]
        return torch.cat(maps).movedim(1, -1).contiguous()

    @cached_property
    def _mini(self) -> MiniTeacher:
        return MiniTeacher()

    @cached_property
    def _network(self) -> efficientnet.EfficientNetLite2:
        return efficientnet.load_efficientnet_lite2()


def load_dense_teacher(name: str = "mini") -> DenseTeacher:
    """A dense teacher by name: "mini", "mini:LAYER:STRIDE", or one that `teachers.dinov2` or `teachers.radio` names.

    Its weights are read at first use.

    Raises:
        CheckpointError: there is no teacher of this name, or its package is not installed.
        DataError: there is no such layer or stride.
    """
    kind, *options = name.split(":")
    if kind == "dinov2":
        from splatsense.teachers.dinov2 import load_dinov2

        return load_dinov2(name)
    if kind == "radio":
        from splatsense.teachers.radio import load_radio

        return load_radio(name)
    if kind != "mini" or len(options) not in (0, 2) or (options and not options[1].isdecimal()):
        raise CheckpointError(
            f"There is no dense teacher {name!r}; choose mini, mini:LAYER:STRIDE such as mini:block:16, dinov2:VARIANT or "
            "radio:VARIANT."
        )
    return MiniDenseTeacher(options[0], int(options[1])) if options else MiniDenseTeacher()
