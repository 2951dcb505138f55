"""Time of the rasteriser, forward and forward + backward: native against the PyTorch reference, interleaved in one run.

    python benchmarks/rasterise.py [--threads 2] [--repeats 15] [--reference]
    python benchmarks/rasterise.py --prototype PATH/splat.cpp    # another C++ rasteriser with the interface below, same scenes

Prints the median and the quartiles in milliseconds, and how many times longer than native each took.
"""

import ctypes
import datetime
import math
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.native import native_level
from splatsense.render import native, reference

SIZES = ((4096, 128, 128, 0), (4096, 224, 224, 0), (20_000, 256, 256, 0), (100_000, 640, 480, 16))  # N, width, height, features


@dataclass(frozen=True)
class Arguments:
    """Benchmark of the rasteriser."""

    threads: int = 2
    """Threads of every contestant."""
    repeats: int = 15
    """Timed runs of each contestant, after two to warm up."""
    reference: bool = False
    """Time the PyTorch reference as well, which takes a minute."""
    prototype: Path | None = None
    """C++ source of another rasteriser to time, compiled on the fly."""


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


def images_with(rasterise: Callable[..., tuple[Tensor, ...]]) -> Callable[[Scene], list[Tensor]]:
    """A contestant: the images of a scene by one of our backends."""

    def images(scene: Scene) -> list[Tensor]:
        return list(rasterise(*scene.leaves()[:6], scene.cameras))

    return images


def prototype_images(source: Path, threads: int) -> Callable[[Scene], list[Tensor]]:
    """A contestant: `gs_forward`, `gs_backward` and `gs_free` of a C++ file, one image of all channels, depth and alpha."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "prototype.so"
        flags = "-O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -ffp-contract=fast -fopenmp"
        subprocess.run(["g++", *flags.split(), "-w", "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
        library = ctypes.CDLL(str(target))
    library.gs_forward.restype = ctypes.c_void_p
    library.gs_threads(threads)

    def address(tensor: Tensor) -> ctypes.c_void_p:
        return ctypes.c_void_p(tensor.data_ptr())

    class State:
        def __init__(self, pointer: int) -> None:
            self.pointer = ctypes.c_void_p(pointer)

        def __del__(self) -> None:
            library.gs_free(self.pointer)

    class Rasterise(torch.autograd.Function):
        @staticmethod
        def forward(ctx, means, quats, scales, opacities, colors, view, K, width, height):
            image = torch.empty(height, width, colors.shape[1] + 2)
            inputs = [*map(address, (means, quats, scales, opacities, colors))]
            channels = colors.shape[1]
            ctx.state = State(
                library.gs_forward(len(means), *inputs, channels, address(view), address(K), width, height, address(image), 0)
            )
            ctx.save_for_backward(means, quats, scales, opacities, view, K, image, colors)
            return image

        @staticmethod
        def backward(ctx, gradient):
            *inputs, image, colors = ctx.saved_tensors
            results = [torch.empty_like(tensor) for tensor in (*inputs[:4], colors)]
            tensors = [*inputs, image, gradient.contiguous(), *results]
            library.gs_backward(ctx.state.pointer, *map(address, tensors))
            return *results, None, None, None, None

    def images(scene: Scene) -> list[Tensor]:
        K = scene.cameras.K[0][[0, 1, 0, 1], [0, 1, 2, 2]]
        return [
            Rasterise.apply(
                *scene.leaves()[:4],
                scene.channels,
                scene.cameras.world_to_camera[0],
                K,
                scene.cameras.width,
                scene.cameras.height,
            )
        ]

    return images


def measure(
    contestants: dict[str, Callable[[Scene], list[Tensor]]], scene: Scene, repeats: int, backward: bool
) -> dict[str, list[float]]:
    """Milliseconds of each contestant, run in turns."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    gradients: dict[str, list[Tensor]] = {}
    for leaf in scene.leaves():
        leaf.requires_grad_(backward)
    for turn in range(repeats + 2):
        for name, images in contestants.items():
            for leaf in scene.leaves():
                leaf.grad = None
            start = time.perf_counter()
            result = images(scene)
            seconds = time.perf_counter() - start
            if backward:
                kept = gradients.setdefault(name, [torch.randn(image.shape) for image in result])
                start = time.perf_counter()
                torch.autograd.backward(result, kept)
                seconds += time.perf_counter() - start
            if turn >= 2:
                times[name].append(seconds * 1e3)
            del result  # freeing the graph is not the next contestant's business
    return times


def cpu_name() -> str:
    """The processor's name and its number of cores."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    contestants = {"native": images_with(native.rasterise)}
    if arguments.prototype:
        contestants["prototype"] = prototype_images(arguments.prototype, arguments.threads)
    if arguments.reference:
        contestants["reference"] = images_with(reference.rasterise)
    print(f"{cpu_name()}, native build {native_level()}, {datetime.date.today()}")
    print(f"{'scene':30} {'pass':8} {'backend':10} {'median ms':>10} {'quartiles':>17} {'ratio':>7}")
    for n, width, height, channels in SIZES:
        scene = Scene.random(n, width, height, channels)
        for backward in (False, True):
            times = measure(contestants, scene, arguments.repeats, backward)
            for name, values in times.items():
                low, median, high = statistics.quantiles(values, n=4)
                ratio = median / statistics.median(times["native"])
                title, kind = f"{n} @ {width}x{height} + {channels}", "fwd+bwd" if backward else "fwd"
                print(f"{title:30} {kind:8} {name:10} {median:10.2f} {low:8.2f} {high:8.2f} {ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
