"""The scene that is drawn, and how much arithmetic that takes at least."""

import math
import time
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.render import reference


@dataclass(frozen=True)
class Scene:
    """Flat Gaussians on three wavy sheets that fill the view. The prototype takes `channels`, colours and features in one."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    features: Tensor
    channels: Tensor
    cameras: Cameras

    @classmethod
    def random(cls, n: int, width: int, height: int, channels: int) -> "Scene":
        """The same scene every time."""
        generator = torch.Generator().manual_seed(0)
        uniform = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
        normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        focal = 0.9 * width
        u, v = (uniform(n) * 1.1 - 0.05) * width, (uniform(n) * 1.1 - 0.05) * height
        sheet = torch.randint(0, 3, (n,), generator=generator)
        z = 2 + 0.5 * sheet + 0.3 * torch.sin(u / width * 5) * torch.cos(v / height * 4) + 0.03 * normal(n)
        means = torch.stack([(u - width / 2) / focal * z, (v - height / 2) / focal * z, z], dim=-1)
        sigma = 0.8 * math.sqrt(width * height / n) * torch.exp(0.5 * normal(n)) / focal * z
        scales = sigma[:, None] * torch.stack([torch.ones(n), 0.3 + 0.7 * uniform(n), 0.1 * torch.ones(n)], dim=-1)
        K = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]])
        cameras = Cameras(torch.eye(4)[None], K, width, height)
        opacities = torch.sigmoid(0.5 + 2 * normal(n)).clamp(0.01, 0.9999)
        values = uniform(n, 3 + channels)
        colors, features = values[None, :, :3].contiguous(), values[:, 3:].contiguous()
        return cls(means, normal(n, 4), scales, opacities, colors, features, values, cameras)

    def leaves(self) -> list[Tensor]:
        """Everything with a gradient."""
        return [self.means, self.quats, self.scales, self.opacities, self.colors, self.features, self.channels]


def blended_pairs(scene: Scene) -> int:
    """How many pairs of a pixel and a Gaussian have a weight, by the reference."""
    count, composite = 0, reference.composite

    def counting(pixels: Tensor, splats: Tensor, channels: Tensor, median: bool) -> Tensor:
        nonlocal count
        each = torch.eye(splats.shape[1]).expand(len(splats), -1, -1)
        count += int(composite(pixels, splats, each, median).count_nonzero())
        return channels.new_zeros(len(splats), pixels.shape[1], channels.shape[2])

    with torch.no_grad(), mock.patch.object(reference, "composite", counting):
        reference.rasterise(*scene.leaves()[:6], scene.cameras)
    return count


def flops_per_pair(channels: int, backward: bool) -> int:
    """Additions and multiplications of one blended pair: alpha takes 25, its gradient 15, each moment and channel sum 2."""
    forward = 25 + 2 * (channels + 1)
    return forward + backward * (forward + 15 + 2 * (6 + channels))


def matmul_flops() -> float:
    """Floating-point operations per second of a large matrix product, the best of fifty."""
    a, b = torch.rand(2, 512, 512)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * 512**3 / min(times)
