"""How fast and how leanly splat files are read and written.

    python benchmarks/io.py [--count 1000000] [--large 10000000] [--repeats 7] [--folder DIR]

Prints, for this machine: PLY reading from the page cache in MB of file a second, median and range, beside plyfile and
meshio where they are installed, taken in turn and doing the same job (activated float32 arrays); writing; every other
format that can be written; and the largest resident memory of reading, in a new process, as a multiple of the file.
Targets stand beside the figures they are about.
plyfile is GPL-3 and no dependency: install it beside the package to compare.
"""

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from shared.targets import judged

from splatsense import Gaussians
from splatsense.io import WRITERS, load, read_ply, save, write_ply

READ_TARGET = 500  # MB of PLY a second
MEMORY_TARGET, LARGE_TARGET = 2.0, 4.0  # times the file; GB for 10 million Gaussians

MEMORY_CODE = """
import pathlib, sys, time
from splatsense.io import load
def kilobytes(field):
    # not ru_maxrss, which starts at the size of the process that forked this one
    return int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1])
load(sys.argv[1])
before = kilobytes("VmRSS")
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the largest resident size starts anew
start = time.perf_counter()
count = len(load(sys.argv[2]))
seconds = time.perf_counter() - start
print('{"count": %d, "before": %d, "peak": %d, "seconds": %f}' % (count, before, kilobytes("VmHWM"), seconds))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="Gaussians in the files that are timed")
    parser.add_argument(
        "--large", type=int, default=10_000_000, help="Gaussians in the files whose memory is measured; 0: none"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the files are written; by default a temporary folder")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, {time.strftime('%Y-%m-%d')}\n{' '.join(['python', *sys.argv])}\n")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        for degree in (3, 0):
            ply(folder, arguments.count, degree, arguments.repeats)
        others(folder, min(arguments.count, 200_000), arguments.repeats)
        for degree in (0, 3) if arguments.large else ():
            memory(folder, arguments.large, degree)


def make_gaussians(count: int, degree: int) -> Gaussians:
    random = torch.Generator().manual_seed(0)
    return Gaussians(
        torch.randn(count, 3, generator=random),
        torch.nn.functional.normalize(torch.randn(count, 4, generator=random), dim=1),
        torch.rand(count, 3, generator=random) * 0.1 + 1e-4,
        torch.rand(count, generator=random),
        torch.randn(count, (degree + 1) ** 2, 3, generator=random) * 0.3,
    )


def ply(folder: Path, count: int, degree: int, repeats: int) -> None:
    path, gaussians = folder / "a.ply", make_gaussians(count, degree)
    write_ply(gaussians, path)
    size = path.stat().st_size
    print(f"PLY, SH degree {degree}, {count:,} Gaussians, {size / 1e6:.0f} MB")
    jobs: dict[str, Callable[[], object]] = {"read_ply": lambda: read_ply(path)}
    if importlib.util.find_spec("plyfile"):
        jobs["plyfile"] = lambda: with_plyfile(path)
    if importlib.util.find_spec("meshio"):
        jobs["meshio"] = lambda: with_meshio(path)
    jobs["write_ply"] = lambda: write_ply(gaussians, folder / "b.ply")
    rates = report(jobs, size, repeats)
    print(judged("  read_ply, median", rates["read_ply"], "MB/s", READ_TARGET, at_least=True) + "\n")


def with_plyfile(path: Path) -> list[np.ndarray]:
    from plyfile import PlyData

    return activated(PlyData.read(path)["vertex"].data)


def with_meshio(path: Path) -> list[np.ndarray]:
    import meshio

    mesh = meshio.read(path)
    return activated(mesh.point_data | dict(zip("xyz", mesh.points.T, strict=True)))


def activated(columns) -> list[np.ndarray]:
    """What `read_ply` returns, from columns by name."""
    names = columns.dtype.names if isinstance(columns, np.ndarray) else list(columns)
    terms = sum(name.startswith("f_rest_") for name in names) // 3
    rest = [f"f_rest_{channel * terms + term}" for term in range(terms) for channel in range(3)]

    def stack(*names: str) -> np.ndarray:
        return np.stack([columns[name] for name in names], 1)

    quats = stack("rot_0", "rot_1", "rot_2", "rot_3")
    return [
        stack("x", "y", "z"),
        quats / np.linalg.norm(quats, axis=1, keepdims=True),
        np.exp(stack("scale_0", "scale_1", "scale_2")),
        1 / (1 + np.exp(-columns["opacity"])),
        stack("f_dc_0", "f_dc_1", "f_dc_2", *rest),
    ]


def others(folder: Path, count: int, repeats: int) -> None:
    """Write and read every format that is not plain PLY, through `save` and `load`."""
    gaussians = make_gaussians(count, 0)
    for suffix in WRITERS:
        path = folder / f"other{suffix}"
        if suffix == ".ply":
            continue
        save(gaussians, path)
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")))
        print(f"{suffix}, SH degree 0, {count:,} Gaussians, {size / 1e6:.1f} MB")
        report({"load": lambda path=path: load(path), "save": lambda path=path: save(gaussians, path)}, size, repeats)


def report(jobs: dict[str, Callable[[], object]], size: int, repeats: int) -> dict[str, float]:
    """Run the jobs in turn, `repeats` times after one that does not count, and print MB a second: median, least and most.

    Rates by processor time stand beside those by the clock: on a machine that is busy otherwise only they say much. Returns
    the medians by the clock.
    """
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            clock, processor = time.perf_counter(), time.process_time()
            job()
            if repeat:
                seconds = time.perf_counter() - clock, time.process_time() - processor
                rates[name].append((size / 1e6 / seconds[0], size / 1e6 / max(seconds[1], 1e-9)))
    for name, both in rates.items():
        wall, busy = zip(*both, strict=True)
        print(
            f"  {name:12} {statistics.median(wall):7,.0f} MB/s  ({min(wall):,.0f} to {max(wall):,.0f})   "
            f"{statistics.median(busy):7,.0f} MB per processor second"
        )
    print()
    return {name: statistics.median(wall for wall, _ in both) for name, both in rates.items()}


def memory(folder: Path, count: int, degree: int) -> None:
    """Peak memory of `load` in a new process; the file repeats the rows of a smaller one."""
    piece = math.gcd(count, 1_000_000)
    small, large = folder / "small.ply", folder / "large.ply"
    write_ply(make_gaussians(piece, degree), small)
    header, body = small.read_bytes().split(b"end_header\n", 1)
    with large.open("wb") as handle:
        handle.write(header.replace(b"element vertex %d" % piece, b"element vertex %d" % count) + b"end_header\n")
        for _ in range(count // piece):
            handle.write(body)
    write_ply(make_gaussians(10, degree), small)
    command = [sys.executable, "-c", MEMORY_CODE, str(small), str(large)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    size = large.stat().st_size
    print(
        f"{found['count']:,} Gaussians of SH degree {degree}, {size / 1e6:,.0f} MB of PLY: {found['seconds']:.1f} s, "
        f"{found['before'] / 1e6:.2f} GB in memory before"
    )
    print(judged("  memory it takes, of the file's size", (found["peak"] - found["before"]) * 1024 / size, "x", MEMORY_TARGET))
    print(judged("  largest memory", found["peak"] * 1024 / 1e9, "GB", LARGE_TARGET))
    large.unlink()


if __name__ == "__main__":
    main()
