"""SpUNet of spconv's layers, an oracle: `PYTHONPATH=src:tests python -m gaussian_cross.spconv_unet` writes `spunet_golden.npz`.

Needs spconv 2.3.8 (or any spconv 2.x, such as spconv-cu126) beside the package; runs on a CPU.
"""

import warnings
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import spconv.pytorch as spconv
    from spconv.pytorch import ops
from gaussian_cross.spunet_golden import CONFIG, GOLDEN, draw_gradient, draw_scene, draw_weights
from splatsense.gaussian_cross.unet import SpUNet, UNetConfig

NATIVE = spconv.ConvAlgo.Native
if not torch.cuda.is_available():
    ops.get_current_stream = lambda: 0  # which backward asks for before it looks where its tensors are


def norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)


def submanifold(inputs: int, outputs: int, kernel: int, key: str) -> nn.Module:
    return spconv.SubMConv3d(inputs, outputs, kernel, bias=False, indice_key=key, algo=NATIVE)


class Block(spconv.SparseModule):
    def __init__(self, inputs: int, outputs: int, level: int):
        super().__init__()
        if inputs != outputs:
            self.proj = spconv.SparseSequential(submanifold(inputs, outputs, 1, f"point{level}"), norm(outputs))
        self.conv1, self.bn1 = submanifold(inputs, outputs, 3, f"subm{level}"), norm(outputs)
        self.conv2, self.bn2 = submanifold(outputs, outputs, 3, f"subm{level}"), norm(outputs)
        self.relu = nn.ReLU()

    def forward(self, x):
        beside = self.proj(x) if hasattr(self, "proj") else x
        y = self.conv1(x)
        y = self.conv2(y.replace_feature(self.relu(self.bn1(y.features))))
        return y.replace_feature(self.relu(self.bn2(y.features) + beside.features))


class SpconvUNet(nn.Module):
    def __init__(self, config: UNetConfig):
        super().__init__()
        stages, widths, skips = len(config.channels) // 2, config.channels, (config.stem_channels, *config.channels)

        def layer(convolution: nn.Module, channels: int) -> nn.Module:
            return spconv.SparseSequential(convolution, norm(channels), nn.ReLU())

        def blocks(inputs: int, outputs: int, count: int, level: int) -> nn.Module:
            made = {f"block{i}": Block(outputs if i else inputs, outputs, level) for i in range(count)}
            return spconv.SparseSequential(OrderedDict(made))

        stem = submanifold(config.in_channels, config.stem_channels, config.stem_kernel, "stem")
        self.conv_input = layer(stem, config.stem_channels)
        self.down, self.enc, self.up, self.dec = (nn.ModuleList() for _ in range(4))
        for s in range(stages):
            out, up_in, up_out = widths[s], widths[-s - 2], widths[-s - 1]
            options = {"bias": False, "indice_key": f"down{s}", "algo": NATIVE}
            self.down.append(layer(spconv.SparseConv3d(skips[s], out, 2, stride=2, **options), out))
            self.enc.append(blocks(out, out, config.layers[s], s + 1))
            self.up.append(layer(spconv.SparseInverseConv3d(up_in, up_out, 2, **options), up_out))
            self.dec.append(blocks(up_out + skips[s], up_out, config.layers[-s - 1], s))

    def forward(self, coordinates: Tensor, features: Tensor) -> Tensor:
        shape = (coordinates[:, 1:].amax(0) + 96).tolist()
        x = self.conv_input(spconv.SparseConvTensor(features, coordinates, shape, int(coordinates[:, 0].max()) + 1))
        skips = []
        for down, enc in zip(self.down, self.enc, strict=True):
            skips.append(x)
            x = enc(down(x))
        for up, dec in zip(reversed(self.up), reversed(self.dec), strict=True):
            x = up(x)
            x = dec(x.replace_feature(torch.cat([x.features, skips.pop().features], dim=1)))
        return x.features


def main() -> None:
    unet = SpconvUNet(CONFIG)
    unet.load_state_dict(draw_weights(SpUNet(CONFIG), seed=1))
    coordinates, features = draw_scene(CONFIG.in_channels, 800, seed=2)
    upstream, arrays = draw_gradient(len(features), CONFIG.channels[-1], seed=3), {}
    for mode in ("eval", "train"):
        entering = features.clone().requires_grad_()
        output = unet.train(mode == "train")(coordinates, entering)
        output.backward(upstream)
        arrays |= {f"{mode}_output": output.detach().numpy(), f"{mode}_input_gradient": entering.grad.numpy()}
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{GOLDEN}: {len(features)} voxels, {GOLDEN.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
