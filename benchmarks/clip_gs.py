"""How fast the bundled model embeds objects, where the time goes, and how fast one of its size trains.

python benchmarks/clip_gs.py [--objects 64] [--gaussians 4096]
"""

import argparse
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import fields

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from shared.targets import judged

from splatsense.clip_gs.encoder import EncoderConfig, GaussianEncoder
from splatsense.clip_gs.loss import ClipGSLoss
from splatsense.clip_gs.model import load_model
from splatsense.clip_gs.patches import group_patches
from splatsense.clip_gs.tokenizer import GaussianBatch
from splatsense.gaussians import Gaussians
from splatsense.native import native_level

WANTED = 20  # objects/s of 4,096 Gaussians on 2 cores, embedded as well as trained on
JUDGED = {"embed": "embedding", "train, 75% of patches dropped, bfloat16": "training with the default settings"}


def random_object(count: int, seed: int) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    means = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1) * torch.rand(3, generator=g)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=-1)
    scales, opacities = torch.full((count, 3), 0.02), torch.full((count,), 0.9)
    return Gaussians.from_rgb(means, quats, scales, opacities, torch.rand(count, 3, generator=g))


def training_step(
    config: EncoderConfig, batch: GaussianBatch, patch_dropout: float, precision: torch.dtype
) -> Callable[[], None]:
    """Forward, loss of five views, backward and AdamW, on 32 objects."""
    torch.manual_seed(0)
    encoder, loss = GaussianEncoder(config, drop_path=0.1, patch_dropout=patch_dropout), ClipGSLoss()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *loss.parameters()])
    count = len(batch)
    targets = [torch.nn.functional.normalize(torch.randn(count, *k, config.embed_dim), dim=-1) for k in ((), (5,))]

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            embedded = encoder(batch)
        optimizer.zero_grad()
        loss(embedded, *targets, torch.arange(count))["loss"].backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=64)
    parser.add_argument("--gaussians", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    model = load_model("clip-gs-tiny")
    config = model.encoder.config
    objects = [random_object(options.gaussians, seed) for seed in range(options.objects)]
    batch = GaussianBatch.stack(objects, config.gaussians)
    few = GaussianBatch(**{f.name: getattr(batch, f.name)[:32] for f in fields(batch)})
    jobs: dict[str, tuple[int, Callable[[], object]]] = {
        "embed": (len(objects), lambda: model.encode_gaussians(objects)),
        "of which grouping": (
            len(objects),
            lambda: group_patches(batch.means, config.patches, config.patch_size, config.orders),
        ),
    }
    for dropout in (0.75, 0.5, 0.0):
        for precision in (torch.bfloat16, torch.float32):
            name = f"train, {dropout:.0%} of patches dropped, {str(precision).removeprefix('torch.')}"
            jobs[name] = (len(few), training_step(config, few, dropout, precision))
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(options.repeats + 1):
        for name, (_, job) in jobs.items():
            start = time.perf_counter()
            job()
            if repeat:
                times[name].append(time.perf_counter() - start)
    machine = platform.processor() or platform.machine()
    print(f"{datetime.date.today()}, {machine}, {os.cpu_count()} cores, native {native_level()}")
    print(f"{options.objects} objects of {options.gaussians:,} Gaussians in memory")
    for name, values in times.items():
        median = statistics.median(values)
        spread = f"{min(values) * 1e3:,.0f}-{max(values) * 1e3:,.0f}"
        print(f"{name:<44}{median * 1e3:>8,.0f} ms ({spread}){jobs[name][0] / median:>10,.1f} objects/s")
    print()
    for name, what in JUDGED.items():
        rate = jobs[name][0] / statistics.median(times[name])
        print(judged(f"{what}, {options.gaussians:,} Gaussians an object", rate, "objects/s", WANTED, at_least=True))


if __name__ == "__main__":
    main()
