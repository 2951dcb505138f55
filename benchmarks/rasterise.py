"""Time of the rasteriser, forward and forward + backward; contestants take turns in one run.

    python benchmarks/rasterise.py [--threads 2] [--repeats 15]    # native against itself with one thread
    python benchmarks/rasterise.py --reference --builds            # and the PyTorch reference, and every build for this CPU
    python benchmarks/rasterise.py --neighbours 1                  # and beside a process that never sleeps
    python benchmarks/rasterise.py --scaling                       # time against the number of blended pairs
    python benchmarks/rasterise.py --prototype PATH/splat.cpp      # another C++ rasteriser with the interface below

Prints the median and the quartiles in milliseconds, how many times longer than native each took, millions of blended
pairs (of a pixel and a Gaussian) per second, and their arithmetic as a fraction of the rate at which PyTorch multiplies
matrices with as many threads.
"""

import ctypes
import datetime
import itertools
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import tyro
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.native import LEVELS, LIBRARY_DIR, load_native, native_level
from splatsense.render import native, reference

SIZES = ((4096, 128, 128, 0), (4096, 224, 224, 0), (20_000, 256, 256, 0), (100_000, 640, 480, 16))  # N, width, height, features


SCALING = tuple((n, 256, 256, 0) for n in (2500, 5000, 10_000, 20_000, 40_000, 80_000))

Contestant = Callable[["Scene"], list[Tensor]]


@dataclass(frozen=True)
class Arguments:
    """Benchmark of the rasteriser."""

    threads: int = 2
    """Threads of every contestant."""
    repeats: int = 15
    """Timed runs of each contestant, after two to warm up."""
    reference: bool = False
    """Time the PyTorch reference as well, which takes a minute."""
    builds: bool = False
    """Time every build of the native library that this CPU can run."""
    neighbours: int = 0
    """Time native again beside this many busy processes."""
    cpu_time: bool = False
    """Measure the main thread's time on a processor instead of the clock: for one thread on a shared machine."""
    scaling: bool = False
    """Time 2,500 to 80,000 Gaussians in 256 x 256 pixels instead of the usual scenes."""
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


def images_with(rasterise: Callable[..., tuple[Tensor, ...]]) -> Contestant:
    """A contestant: the images of a scene by one of our backends."""

    def images(scene: Scene) -> list[Tensor]:
        return list(rasterise(*scene.leaves()[:6], scene.cameras))

    return images


def with_threads(contestant: Contestant, threads: int) -> Contestant:
    """The contestant with that many threads in its forward pass and the backward pass that follows."""

    def images(scene: Scene) -> list[Tensor]:
        torch.set_num_threads(threads)
        return contestant(scene)

    return images


def build_images(level: str) -> Contestant:
    """A contestant: one build of the native library."""
    library = ctypes.CDLL(str(LIBRARY_DIR / f"libsplatsense_{level}.so"))
    contestant = images_with(native.rasterise)

    def load() -> ctypes.CDLL:
        return library

    def images(scene: Scene) -> list[Tensor]:
        with mock.patch.object(native, "load_native", load):
            return contestant(scene)

    return images


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that never sleep, as long as the context lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


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


def prototype_images(source: Path, threads: int) -> Contestant:
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
        def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
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


def measure(contestants: dict[str, Contestant], scene: Scene, arguments: Arguments, backward: bool) -> dict[str, list[float]]:
    """Milliseconds of each contestant, run in turns."""
    clock = time.thread_time if arguments.cpu_time else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in contestants}
    gradients: dict[str, list[Tensor]] = {}
    for leaf in scene.leaves():
        leaf.requires_grad_(backward)
    for turn in range(arguments.repeats + 2):
        for name, images in contestants.items():
            for leaf in scene.leaves():
                leaf.grad = None
            start = clock()
            result = images(scene)
            seconds = clock() - start
            if backward:
                kept = gradients.setdefault(name, [torch.randn(image.shape) for image in result])
                start = clock()
                torch.autograd.backward(result, kept)
                seconds += clock() - start
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


def contestants_of(arguments: Arguments) -> dict[str, Contestant]:
    """Native first, then what was asked for."""
    every = {"native": images_with(native.rasterise)}
    if arguments.builds:
        library = load_native()
        runnable = LEVELS[: library.ss_cpu_level() + 1] if library else ()
        every |= {level: build_images(level) for level in runnable}
    if arguments.prototype:
        every["prototype"] = prototype_images(arguments.prototype, arguments.threads)
    if arguments.reference:
        every["reference"] = images_with(reference.rasterise)
    every = {name: with_threads(contestant, arguments.threads) for name, contestant in every.items()}
    if arguments.threads > 1:
        every["1 thread"] = with_threads(images_with(native.rasterise), 1)
    return every


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    contestants = contestants_of(arguments)
    peak = matmul_flops()
    print(f"{cpu_name()}, matmul {peak / 1e9:.0f} Gflop/s, native build {native_level()}, {datetime.date.today()}")
    print(
        f"{'scene':26} {'pass':8} {'backend':10} {'median ms':>9} {'quartiles':>17} {'ratio':>6} {'Mpairs/s':>8} {'of mm':>6}"
    )
    for size, backward in itertools.product(SCALING if arguments.scaling else SIZES, (False, True)):
        n, width, height, channels = size
        scene = Scene.random(n, width, height, channels)
        pairs = blended_pairs(scene)
        times = measure(contestants, scene, arguments, backward)
        if arguments.neighbours:
            with busy_processes(arguments.neighbours):
                times["neighbour"] = measure({"native": contestants["native"]}, scene, arguments, backward)["native"]
        title, kind = f"{n} @ {width}x{height} + {channels}", "fwd+bwd" if backward else "fwd"
        for name, values in times.items():
            low, median, high = statistics.quantiles(values, n=4)
            ratio = median / statistics.median(times["native"])
            rate = pairs / median * 1e3
            fraction = rate * flops_per_pair(4 + channels, backward) / peak
            figures = f"{median:9.2f} {low:8.2f} {high:8.2f} {ratio:6.2f} {rate / 1e6:8.1f} {fraction:6.1%}"
            print(f"{title:26} {kind:8} {name:10} {figures}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
