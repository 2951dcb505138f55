"""SpUNet on a CPU: neighbour maps, forward and backward; native, plain PyTorch, and spconv (algo=Native) where it is installed.

python benchmarks/sparse.py [--size base] [--voxels 100000] [--threads 2] [--contestants native reference spconv] [--profile]
"""

import argparse
import datetime
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from splatsense.gaussian_cross.unet import UNET_SIZES, SpUNet
from splatsense.native import native_level
from splatsense.sparse import SparseTensor, convolution, kernel_map, normalization


def room(voxels: int) -> Tensor:
    """A floor, two walls and boxes on the floor, one voxel thick: cells (m, 4) in no order."""
    generator = torch.Generator().manual_seed(0)
    side = int((voxels / 4.2) ** 0.5)
    parts = []

    def sheet(corner: tuple[int, int, int], across: int, along: int, width: int, length: int) -> None:
        i, j = torch.meshgrid(torch.arange(width), torch.arange(length), indexing="ij")
        cells = torch.tensor(corner).repeat(width * length, 1)
        cells[:, across] += i.flatten()
        cells[:, along] += j.flatten()
        parts.append(cells)

    sheet((0, 0, 0), 0, 1, side, side)
    sheet((0, 0, 0), 0, 2, side, side // 2)
    sheet((0, 0, 0), 1, 2, side, side // 2)
    while len(cells := torch.cat(parts).unique(dim=0)) < voxels:
        w, d, h = torch.randint(side // 12, side // 4, (3,), generator=generator).tolist()
        x, y, z = torch.randint(0, side - side // 4, (3,), generator=generator).tolist()
        z //= 4
        sheet((x, y, z + h), 0, 1, w, d)
        for corner, across, length in (((x, y, z), 0, w), ((x, y + d, z), 0, w), ((x, y, z), 1, d), ((x + w, y, z), 1, d)):
            sheet(corner, across, 2, length, h)
    cells = cells[torch.randperm(len(cells), generator=generator)[:voxels]]
    return torch.cat([torch.zeros(voxels, 1, dtype=torch.int64), cells], dim=1).int()


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(name: str, forward: Callable[[], Tensor], repeats: int) -> None:
    """Maps are made anew in each call."""
    gradient = torch.randn_like(forward())
    only_forward, both = [], []
    for _ in range(repeats):
        with torch.no_grad():
            only_forward.append(seconds(forward))
        both.append(seconds(lambda: forward().backward(gradient)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"  {name:<10} forward {min(only_forward):6.2f} s   forward + backward {min(both):6.2f} s   (peak so far {peak:.1f} GB)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=UNET_SIZES, default="base")
    parser.add_argument("--voxels", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contestants", nargs="+", default=["native", "reference", "spconv"])
    parser.add_argument("--profile", action="store_true", help="what each operator takes of a native step")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cells = room(options.voxels)
    features = torch.randn(len(cells), 6)
    unet = SpUNet(UNET_SIZES[options.size])

    def ours() -> Tensor:
        return unet(SparseTensor(cells, features))

    machine = platform.processor() or platform.machine()
    print(f"{datetime.date.today()}, {machine}, {options.threads} threads, native {native_level()}")
    print(f"SpUNet {options.size}, {len(cells):,} voxels, training mode, best of {options.repeats}, maps included")
    if "native" in options.contestants:
        tensor = SparseTensor(cells, features)
        maps = seconds(lambda: (tensor.level.submanifold(5), tensor.level.submanifold(3), tensor.level.strided))
        print(f"  maps of the finest level (5 x 5 x 5, 3 x 3 x 3, strided): {maps * 1e3:.0f} ms")
        measure("native", ours, options.repeats)
    if options.profile:
        with torch.autograd.profiler.profile() as profile:
            ours().sum().backward()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))
    if "reference" in options.contestants:
        off = [patch.object(module, "load_native", lambda: None) for module in (convolution, kernel_map, normalization)]
        with off[0], off[1], off[2]:
            measure("reference", ours, options.repeats)
    if "spconv" in options.contestants:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        try:
            from gaussian_cross.spconv_unet import SpconvUNet
        except ImportError as error:
            print(f"  spconv is not measured: {error}")
            return
        theirs = SpconvUNet(UNET_SIZES[options.size])
        measure("spconv", lambda: theirs(cells, features), options.repeats)


if __name__ == "__main__":
    main()
