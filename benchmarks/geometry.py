"""Point geometry: native against PyTorch (and SciPy) in one run.

python benchmarks/geometry.py
"""

import time
from collections.abc import Callable

import torch
from scipy.spatial import cKDTree

from splatsense.geometry.neighbours import k_nearest_neighbours, k_nearest_neighbours_reference
from splatsense.geometry.sampling import farthest_point_sampling, farthest_point_sampling_reference
from splatsense.geometry.serialize import serial_order
from splatsense.native import native_level


def best_of(repeats: int, function: Callable[[], object]) -> float:
    """Shortest time in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def report(job: str, ours: float, other: float, name: str = "PyTorch") -> None:
    print(f"{job:58s} {ours:8.2f} ms, {name} {other:8.1f} ms: {other / ours:6.1f} times as fast")


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    print(f"native library: {native_level()}, {torch.get_num_threads()} threads")
    for batch, n, count, k in ((8, 4096, 128, 32), (1, 10_000, 512, 64)):
        points = torch.rand(batch, n, 3, generator=generator)
        centers = points[torch.arange(batch)[:, None], farthest_point_sampling(points, count)]
        report(
            f"farthest point sampling, {batch} x {n} points, {count} picks",
            best_of(5, lambda: farthest_point_sampling(points, count)),  # noqa: B023
            best_of(1, lambda: farthest_point_sampling_reference(points, count)),  # noqa: B023
        )
        report(
            f"neighbours, {batch} x {n} points, {count} queries, k = {k}",
            best_of(5, lambda: k_nearest_neighbours(points, centers, k)),  # noqa: B023
            best_of(1, lambda: k_nearest_neighbours_reference(points, centers, k)),  # noqa: B023
        )
    scene = torch.rand(100_000, 3, generator=generator)
    report(
        "neighbours, 100000 points, 100000 queries, k = 3",
        best_of(2, lambda: k_nearest_neighbours(scene, scene, 3)),
        best_of(1, lambda: cKDTree(scene.numpy()).query(scene.numpy(), 3)),
        "SciPy",
    )
    print(f"{'Hilbert order, 100000 points':58s} {best_of(2, lambda: serial_order(scene, 'hilbert')):8.2f} ms (PyTorch)")


if __name__ == "__main__":
    main()
