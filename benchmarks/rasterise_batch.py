"""Time of many small objects drawn by one call of `render_batch` against a loop of `render`, interleaved in one run.

    python benchmarks/rasterise_batch.py [--threads 2] [--repeats 9]

Prints the median and the quartiles in milliseconds of forward and forward + backward, and loop over batch.
"""

import datetime
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import tyro
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.cameras import Cameras
from splatsense.gaussians import Gaussians
from splatsense.native import native_level
from splatsense.render import render, render_batch

SIZES = ((64, 4096, 1, 128), (64, 4096, 4, 64), (256, 1024, 1, 64), (8, 20_000, 2, 256))  # objects, Gaussians, views, pixels


@dataclass(frozen=True)
class Arguments:
    """Benchmark of batches."""

    threads: int = 2
    """Threads of both contestants."""
    repeats: int = 9
    """Timed runs of each contestant, after two to warm up."""


def shell(n: int, generator: torch.Generator) -> Gaussians:
    """Flat Gaussians on a lumpy sphere: an object that fills its image."""
    normals = normalize(torch.randn(n, 3, generator=generator), dim=-1)
    radius = 0.8 + 0.1 * torch.sin(4 * normals[:, :1]) + 0.02 * torch.randn(n, 1, generator=generator)
    scales = torch.tensor([1.0, 0.6, 0.1]) * n**-0.5 * torch.exp(0.4 * torch.randn(n, 1, generator=generator))
    quats = normalize(torch.randn(n, 4, generator=generator), dim=-1)
    opacities = torch.sigmoid(1 + 2 * torch.randn(n, generator=generator)).clamp(0.01, 0.999)
    return Gaussians.from_rgb(normals * radius, quats, scales, opacities, torch.rand(n, 3, generator=generator))


def together(gaussians: list[Gaussians], cameras: list[Cameras]) -> list[Tensor]:
    result = render_batch(gaussians, cameras)
    return [result.color, result.depth]


def one_by_one(gaussians: list[Gaussians], cameras: list[Cameras]) -> list[Tensor]:
    results = [render(*each) for each in zip(gaussians, cameras, strict=True)]
    return [torch.cat([each.color for each in results]), torch.cat([each.depth for each in results])]


def measure(draw: Callable[..., list[Tensor]], gaussians: list[Gaussians], cameras: list[Cameras], backward: bool) -> float:
    leaves = [getattr(each, field.name).requires_grad_(backward) for each in gaussians for field in fields(each)]
    for leaf in leaves:
        leaf.grad = None
    start = time.perf_counter()
    images = draw(gaussians, cameras)
    if backward:
        torch.autograd.backward(images, [torch.ones(image.shape) for image in images])
    return (time.perf_counter() - start) * 1e3


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    print(f"{os.cpu_count()} cores, {arguments.threads} threads, native build {native_level()}, {datetime.date.today()}")
    print(f"{'objects':32} {'pass':8} {'':6} {'median ms':>10} {'quartiles':>17} {'loop / batch':>13}")
    contestants = {"batch": together, "loop": one_by_one}
    for objects, n, views, size in SIZES:
        generator = torch.Generator().manual_seed(0)
        gaussians = [shell(n, generator) for _ in range(objects)]
        cameras = [Cameras.orbit(views, size, azimuth=float(b)) for b in range(objects)]
        for backward in (False, True):
            times: dict[str, list[float]] = {name: [] for name in contestants}
            for turn in range(arguments.repeats + 2):
                for name, draw in contestants.items():
                    milliseconds = measure(draw, gaussians, cameras, backward)
                    if turn >= 2:
                        times[name].append(milliseconds)
            ratio = statistics.median(times["loop"]) / statistics.median(times["batch"])
            for name, values in times.items():
                low, median, high = statistics.quantiles(values, n=4)
                title, kind = f"{objects} x {n}, {views} x {size}x{size}", "fwd+bwd" if backward else "fwd"
                print(f"{title:32} {kind:8} {name:6} {median:10.2f} {low:8.2f} {high:8.2f} {ratio:13.2f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
