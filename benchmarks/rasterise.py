"""Time of the rasteriser, forward and forward + backward; contestants take turns in one run.

    python benchmarks/rasterise.py [--threads 2] [--repeats 31]    # native, its builds, one thread, a busy neighbour
    python benchmarks/rasterise.py --reference                     # and the PyTorch reference
    python benchmarks/rasterise.py --prototype PATH/splat.cpp      # and another C++ rasteriser, see rasteriser/contestants.py

Prints the median and the quartiles in milliseconds, how many times longer than native each took, millions of blended
pairs (of a pixel and a Gaussian) per second, and their arithmetic as a fraction of the rate at which PyTorch multiplies
matrices with as many threads; then the figures that have a target, beside it.
"""

import datetime
import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rasteriser.contestants import (
    Contestant,
    build_images,
    busy_processes,
    cpu_name,
    images_with,
    measure,
    prototype_images,
    with_threads,
)
from rasteriser.scene import Scene, blended_pairs, flops_per_pair, matmul_flops
from shared.targets import judged

from splatsense.native import LEVELS, load_native, native_level
from splatsense.render import native, reference

SIZES = ((4096, 128, 128, 0), (4096, 224, 224, 0), (20_000, 256, 256, 0), (100_000, 640, 480, 16))  # N, width, height, features
JUDGED = SIZES[2:]  # the sizes that targets are about, forward + backward
Figures = dict[tuple[str, str], float]  # milliseconds by scene and contestant


@dataclass(frozen=True)
class Arguments:
    """Benchmark of the rasteriser."""

    threads: int = 2
    """Threads of every contestant."""
    repeats: int = 31
    """Timed runs of each contestant, after two to warm up."""
    builds: bool = True
    """Time every build of the native library that this CPU can run."""
    neighbours: int = 1
    """Time native again beside this many busy processes; 0 for no such run."""
    reference: bool = False
    """Time the PyTorch reference as well, which takes a minute."""
    prototype: Path | None = None
    """C++ source of another rasteriser to time, compiled on the fly."""


@dataclass(frozen=True)
class Target:
    """How many times longer than another one a contestant may take, or at least must."""

    what: str
    contestant: str
    over: str
    limit: float
    at_least: bool = False

    def line(self, title: str, times: Figures) -> str:
        """The figure of a scene beside the target; empty where one of the two did not run."""
        if (title, self.contestant) not in times or (title, self.over) not in times:
            return ""
        ratio = times[title, self.contestant] / times[title, self.over]
        return judged(f"{title:26} {self.what}", ratio, "x", self.limit, self.at_least)


TARGETS = (
    Target("prototype / native", "prototype", "native", 2.0, at_least=True),
    Target("AVX2 build / AVX-512 build", "avx2", "avx512", 2.5),
    Target("one thread / all threads", "1 thread", "native", 2.2),
    Target("beside busy neighbours / quiet", "neighbour", "native", 2.0),
)


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


def title_of(size: tuple[int, int, int, int]) -> str:
    n, width, height, features = size
    return f"{n} @ {width}x{height} + {features}"


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    contestants = contestants_of(arguments)
    peak = matmul_flops()
    print(f"{cpu_name()}, matmul {peak / 1e9:.0f} Gflop/s, native build {native_level()}, {datetime.date.today()}")
    print(
        f"{'scene':26} {'pass':8} {'backend':10} {'median ms':>9} {'quartiles':>17} {'ratio':>6} {'Mpairs/s':>8} {'of mm':>6}"
    )
    both: Figures = {}
    scenes = [(size, scene := Scene.random(*size), blended_pairs(scene)) for size in SIZES]
    for (size, scene, pairs), backward in itertools.product(scenes, (False, True)):
        times = measure(contestants, scene, arguments.repeats, backward)
        if arguments.neighbours:
            with busy_processes(arguments.neighbours):
                times["neighbour"] = measure({"native": contestants["native"]}, scene, arguments.repeats, backward)["native"]
        for name, values in times.items():
            low, median, high = statistics.quantiles(values, n=4)
            ratio = median / statistics.median(times["native"])
            rate = pairs / median * 1e3
            fraction = rate * flops_per_pair(4 + size[3], backward) / peak
            figures = f"{median:9.2f} {low:8.2f} {high:8.2f} {ratio:6.2f} {rate / 1e6:8.1f} {fraction:6.1%}"
            print(f"{title_of(size):26} {'fwd+bwd' if backward else 'fwd':8} {name:10} {figures}", flush=True)
            if backward:
                both[title_of(size), name] = median
    print(f"\nForward + backward, {arguments.threads} threads, {arguments.neighbours} busy neighbours:")
    for target, size in itertools.product(TARGETS, JUDGED):
        if line := target.line(title_of(size), both):
            print(line)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
