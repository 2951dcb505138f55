"""Who draws the scene: native in its builds and thread counts, and others; and how they are timed, in turns."""

import ctypes
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from rasteriser.scene import Scene
from splatsense.native import LIBRARY_DIR
from splatsense.render import native

Contestant = Callable[[Scene], list[Tensor]]
Clock = Callable[[], float]


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


def measure(
    contestants: dict[str, Contestant], scene: Scene, repeats: int, backward: bool, clock: Clock = time.perf_counter
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
