"""SpUNet on a CPU: neighbour maps, forward and backward; native, plain PyTorch, and spconv (algo=Native) where it is installed.

python benchmarks/sparse.py [--size base] [--voxels 100000] [--threads 2] [--contestants native reference spconv] [--profile]

Contestants take turns, forward and backward; figures are medians. spconv's CPU build is `pip install spconv`.
"""

import argparse
import datetime
import importlib
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, chdir, nullcontext
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from shared.targets import judged
from torch import Tensor

from splatsense.gaussian_cross.unet import UNET_SIZES, SpUNet
from splatsense.native import native_level
from splatsense.sparse import SparseTensor, convolution, kernel_map, normalization

WANTED = {"spconv": 1.5, "prototype, C++": 1.0}  # times as long as ours, of size base


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


class Contestant(NamedTuple):
    """A network: its features of all voxels, neighbour maps made anew in each call."""

    name: str
    forward: Callable[[], Tensor]
    around: Callable[[], AbstractContextManager[object]] = nullcontext

    def lap(self, gradient: Tensor) -> tuple[float, float]:
        """Seconds of a forward pass, and of it with the backward pass."""
        with self.around():
            start = time.perf_counter()
            output = self.forward()
            middle = time.perf_counter()
            output.backward(gradient)
            return middle - start, time.perf_counter() - start


def compare(contestants: list[Contestant], gradient: Tensor, repeats: int) -> None:
    """Laps taken in turn, so that a busy neighbour slows all alike; medians, and ratios to the first, beside what is wanted."""
    laps: dict[str, list[tuple[float, float]]] = {one.name: [] for one in contestants}
    for lap in range(repeats + 1):
        for one in contestants:
            taken = one.lap(gradient)
            if lap:  # the first one warms up
                laps[one.name].append(taken)
    first = statistics.median(both for _, both in laps[contestants[0].name])
    print(f"  {'':<28}{'forward':>10}{'with backward':>16}{'fastest':>10}{'of the first':>14}")
    for name, taken in laps.items():
        forward, both = (statistics.median(column) for column in zip(*taken, strict=True))
        fastest = min(total for _, total in taken)
        print(f"  {name:<28}{forward:>8.2f} s{both:>14.2f} s{fastest:>8.2f} s{both / first:>13.2f}x")
    for name in WANTED.keys() & laps.keys() - {contestants[0].name}:
        ratio = statistics.median(both for _, both in laps[name]) / first
        print(judged(f"  {name} / {contestants[0].name}, with backward", ratio, "x", WANTED[name], at_least=True))


def plain() -> AbstractContextManager[object]:
    """Without the native library."""
    stack = ExitStack()
    for module in (convolution, kernel_map, normalization):
        stack.enter_context(patch.object(module, "load_native", lambda: None))
    return stack


def spconv_unet(size: str, cells: Tensor, features: Tensor) -> list[Contestant]:
    """Of spconv's layers, where it is installed."""
    here = Path(__file__).resolve().parent  # whose gaussian_cross.py would hide that of the tests
    sys.path[:] = [str(here.parent / "tests"), *(entry for entry in sys.path if Path(entry).resolve() != here)]
    try:
        from gaussian_cross.spconv_unet import SpconvUNet
    except ImportError as error:
        print(f"  spconv is not measured: {error}")
        return []
    unet = SpconvUNet(UNET_SIZES[size])
    return [Contestant("spconv", lambda: unet(cells, features))]


def prototype_unet(folder: Path, cells: Tensor, features: Tensor) -> list[Contestant]:
    """Of a folder with `spunet.py` and, for its C++, `sconv_op.py` and a compiled `libsconv.so`; always size base."""
    sys.path.insert(0, str(folder))
    module = importlib.import_module("spunet")
    unet, cells = module.SpUNet(), cells.long()

    def forward(implementation: object) -> Tensor:
        module.IMPL = implementation
        return unet(features, unet.maps(cells))

    found = [Contestant("prototype, torch", lambda: forward(module.GGS))]
    if (folder / "libsconv.so").exists():
        with chdir(folder):  # from where it loads its library
            operator = importlib.import_module("sconv_op")
        found.append(Contestant("prototype, C++", lambda: forward(operator.CF)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=UNET_SIZES, default="base")
    parser.add_argument("--voxels", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contestants", nargs="+", default=["native", "reference", "spconv"])
    parser.add_argument("--prototype", type=Path, help="folder of another implementation, for --size base")
    parser.add_argument("--profile", action="store_true", help="what each operator takes of a native step")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cells = room(options.voxels)
    features = torch.randn(len(cells), 6)
    unet = SpUNet(UNET_SIZES[options.size])
    machine = platform.processor() or platform.machine()
    print(f"{datetime.date.today()}, {machine}, {options.threads} threads, native {native_level()}")
    print(f"SpUNet {options.size}, {len(cells):,} voxels, training mode, medians of {options.repeats}, maps included")

    def ours() -> Tensor:
        return unet(SparseTensor(cells, features))

    contestants = [Contestant("native", ours)] if "native" in options.contestants else []
    if options.prototype:
        contestants += prototype_unet(options.prototype, cells, features)
    if "spconv" in options.contestants:
        contestants += spconv_unet(options.size, cells, features)
    if "reference" in options.contestants:
        contestants.append(Contestant("reference (plain PyTorch)", ours, plain))
    compare(contestants, torch.randn(len(cells), unet.out_channels), options.repeats)
    print(f"  largest memory of all {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.1f} GB")
    if options.profile:
        with torch.autograd.profiler.profile() as profile:
            ours().sum().backward()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


if __name__ == "__main__":
    main()
