"""The GS tokenizer's grouping, stage by stage: native against plain PyTorch, for one object and for a batch.

python benchmarks/tokenizer.py [--gaussians 10000] [--patches 512] [--patch-size 64] [--batch 8]
"""

import argparse
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from shared.targets import judged
from torch import Tensor

from splatsense.clip_gs.patches import SERIAL_BITS, group_patches
from splatsense.geometry.neighbours import k_nearest_neighbours, k_nearest_neighbours_reference
from splatsense.geometry.sampling import farthest_point_sampling, farthest_point_sampling_reference
from splatsense.geometry.serialize import serial_order, serial_order_reference, sort_lists, sort_lists_reference
from splatsense.native import native_level

WANTED = 40  # ms for 10,000 Gaussians in 512 patches of 64, on 2 cores

ORDERS = ("xyz", "hilbert", "z")


def milliseconds(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and smallest time, after one call to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), min(times)


def surface(batch: int, count: int) -> Tensor:
    """Points on egg-shaped surfaces, which is how objects are: (batch, count, 3)."""
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(batch, count, 3, generator=generator), dim=-1)
    return points * (0.2 + 0.8 * torch.rand(batch, 1, 3, generator=generator))


def profile(points: Tensor, patches: int, size: int, repeats: int) -> None:
    rows = torch.arange(len(points))[:, None]
    picked = farthest_point_sampling(points, patches)
    centers = points[rows, picked]
    nearest = k_nearest_neighbours(points, centers, size)[1]
    permutation = serial_order(points, "hilbert", SERIAL_BITS)
    stages: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "farthest point sampling": (
            lambda: farthest_point_sampling(points, patches),
            lambda: farthest_point_sampling_reference(points, patches),
        ),
        "nearest neighbours": (
            lambda: k_nearest_neighbours(points, centers, size),
            lambda: k_nearest_neighbours_reference(points, centers, size),
        ),
        "three serial orders": (
            lambda: [serial_order(points, order, SERIAL_BITS) for order in ORDERS],
            lambda: [serial_order_reference(points, order, SERIAL_BITS) for order in ORDERS],
        ),
        "patches sorted, an order": (
            lambda: sort_lists(permutation, nearest),
            lambda: sort_lists_reference(permutation, nearest),
        ),
    }
    total = milliseconds(lambda: group_patches(points, patches, size, ORDERS), repeats)
    print(f"{len(points)} x {points.shape[1]} Gaussians, {patches} patches of {size}, orders {', '.join(ORDERS)}")
    for name, (ours, reference) in stages.items():
        median, least = milliseconds(ours, repeats)
        plain = milliseconds(reference, 1)[1]
        print(f"  {name:<26}{median:>8.2f} ms ({least:.2f} at best)   plain PyTorch {plain:>8.1f} ms")
    print(f"  {'all of it':<26}{total[0]:>8.2f} ms ({total[1]:.2f} at best)   {len(points) / total[0] * 1e3:,.0f} objects/s")
    if points.shape[:2] == (1, 10_000) and (patches, size) == (512, 64):
        print(judged("  grouping of one object, median", total[0], "ms", WANTED))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=10_000)
    parser.add_argument("--patches", type=int, default=512)
    parser.add_argument("--patch-size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    machine = platform.processor() or platform.machine()
    print(f"{datetime.date.today()}, {machine}, {torch.get_num_threads()} threads, native {native_level()}")
    for batch in (1, options.batch):
        profile(surface(batch, options.gaussians), options.patches, options.patch_size, options.repeats)


if __name__ == "__main__":
    main()
