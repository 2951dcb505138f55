"""Making triplets: milliseconds per object by step, and objects per second of a whole build with 1 and 2 workers.

    python benchmarks/triplets.py [--corpus furniture:FOLDER] [--objects 16] [--fits 2] [--device cuda]

Steps are timed in this process on one thread; on a GPU, the fits are one batch. Builds use `method="surface"` and include
starting the workers. Objects are spread evenly over the corpus; those that cannot be read are left out.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from shared.furniture import furniture_libraries
from shared.targets import judged

from splatsense.clip_gs.build import RunConfig, build_triplets
from splatsense.clip_gs.shards import EFFORT, QUALITY, encode_sample
from splatsense.clip_gs.triplets import TripletConfig, load_checked, make_triplet, make_triplets
from splatsense.clip_gs.views import mesh_radius, mesh_views
from splatsense.corpora import CorpusObject
from splatsense.corpora.sources import open_corpus
from splatsense.errors import SplatSenseError
from splatsense.io.surface import mesh_to_gaussians
from splatsense.mesh import Mesh

SURFACE = TripletConfig(method="surface")
WANTED = 150  # ms for 24 views of an object, loaded already, on 2 cores


def readable(corpus: Sequence[CorpusObject], count: int) -> list[tuple[CorpusObject, Mesh]]:
    """About `count` objects of a corpus, and their meshes."""
    found = []
    for item in corpus[:: max(1, len(corpus) // count)]:
        try:
            found.append((item, load_checked(item, SURFACE)))
        except SplatSenseError:
            continue
    return found[:count]


def report(step: str, function: Callable[..., object], arguments: Sequence[tuple]) -> float:
    """Print mean and median milliseconds of a step over the objects, the better of two passes each; the median."""
    times = []
    for given in arguments:
        passes = []
        for _ in range(2):
            start = time.perf_counter()
            function(*given)
            passes.append(time.perf_counter() - start)
        times.append(min(passes) * 1e3)
    print(f"{step:<44} mean {np.mean(times):8.1f} ms   median {np.median(times):8.1f} ms", flush=True)
    return float(np.median(times))


def webp(views: np.ndarray) -> None:
    """Encode views as `encode_sample` does."""
    for view in views:
        Image.fromarray(view).save(io.BytesIO(), "WEBP", quality=QUALITY, method=EFFORT)


def fitted(items: list[CorpusObject], device: str) -> tuple[float, float]:
    """Seconds an object for all of making fitted triplets, and their PSNR: medians of one by one, or a GPU's batch."""
    if device != "cpu":
        make_triplet(items[0], TripletConfig(), device)  # compiles
    groups = [items] if device != "cpu" else [[item] for item in items]
    seconds, found = [], []
    for group in groups:
        start = time.perf_counter()
        made = make_triplets(group, TripletConfig(), device)
        seconds.append((time.perf_counter() - start) / len(group))
        found += [each.info["psnr"] for each in made if not isinstance(each, Exception)]
    return float(np.median(seconds)), float(np.median(found))


def steps(items: list[tuple[CorpusObject, Mesh]], fits: int, device: str) -> None:
    """Time every step of making a triplet."""
    torch.set_num_threads(1)
    meshes = [mesh for _, mesh in items]
    draw = [(mesh, replace(SURFACE, views=24).cameras(mesh_radius(mesh), 0), 0.5) for mesh in meshes]
    print(f"{len(items)} objects, median {int(np.median([len(mesh.faces) for mesh in meshes])):,} faces")
    report("read and normalise the mesh", load_checked, [(item, SURFACE) for item, _ in items])
    drawn = report("24 views, 256 x 256, RGBA, 4 samples a pixel", mesh_views, draw)
    report("4,096 Gaussians from the surface", mesh_to_gaussians, [(mesh, 4096) for mesh in meshes])
    triplets = [make_triplet(item, SURFACE) for item, _ in items]
    report("36 views as WebP", webp, [(triplet.views,) for triplet in triplets])
    report("sample as tar entries, WebP included", encode_sample, [(triplet,) for triplet in triplets])
    report("all of it, surface conversion", make_triplet, [(item, SURFACE) for item, _ in items])
    chosen = [item for item, _ in items[:: max(1, len(items) // max(fits, 1))][:fits]]
    if chosen:
        seconds, psnr = fitted(chosen, device)
        print(f"all of it, fitted on {device}, {len(chosen)} objects: {seconds:.2f} s an object, {psnr:.1f} dB")
    print(judged("24 views of an object, median, one thread", drawn, "ms", WANTED))


def builds(objects: Sequence[CorpusObject], workers: Sequence[int]) -> None:
    """Time whole builds."""
    for count in workers:
        with tempfile.TemporaryDirectory() as folder:
            made = build_triplets(objects, Path(folder), SURFACE, RunConfig(workers=count))
            size = sum(path.stat().st_size for path in Path(folder).glob("*.tar")) / len(objects)
        print(f"build, {count} workers: {len(objects) / made.seconds:.2f} objects/s, {size / 1e3:,.0f} kB each", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="as `splatsense triplets build` takes it; by default the furniture that is at hand")
    parser.add_argument("--objects", type=int, default=16)
    parser.add_argument("--fits", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where fits run")
    parser.add_argument("--part", choices=("steps", "builds", "all"), default="all")
    arguments = parser.parse_args()
    with nullcontext() if arguments.corpus else furniture_libraries(None) as libraries:
        items = readable(open_corpus(arguments.corpus or f"furniture:{libraries}"), arguments.objects)
        if arguments.part != "builds":
            steps(items, arguments.fits, arguments.device)
        if arguments.part != "steps":
            builds([item for item, _ in items], (1, 2))


if __name__ == "__main__":
    main()
