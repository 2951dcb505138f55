"""What a step of GaussianCross pre-training costs, stage by stage, and how it grows with voxels, views and anchors.

python benchmarks/gaussian_cross.py [SCENE] [--size tiny] [--voxels 30000] [--repeats 3] [--scaling OUT.webp]

Each stage is differentiated on its own (its input is cut off from what came before), so that its share of the backward pass is
seen.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from PIL import Image, ImageDraw, ImageFont
from shared.furniture import furniture_libraries
from shared.targets import judged

from splatsense.corpora.furniture import furniture, furniture_archives
from splatsense.corpora.rooms import RoomSettings, make_room, record_room
from splatsense.corpora.rooms.pieces import Pieces
from splatsense.corpora.rooms.textures import read_textures
from splatsense.gaussian_cross.dataset import TrainingBatch
from splatsense.gaussian_cross.distillation import render_views
from splatsense.gaussian_cross.pretrain import PretrainRun, open_scenes
from splatsense.gaussian_cross.pretrain_config import PretrainConfig
from splatsense.gaussian_cross.pretrain_model import Prediction
from splatsense.native import native_level
from splatsense.sparse import SparseTensor

WANTED_SECONDS, WANTED_GB = 1.5, 6.0  # a step of tiny: 30,000 voxels, 5 views of 160 x 120, on 2 cores


def timed_step(run: PretrainRun, batch: TrainingBatch) -> dict[str, float]:
    """Seconds of every stage of one step, forward and backward together."""
    model, seconds = run.model, {}
    mark = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal mark
        if batch.features.is_cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds[name] = seconds.get(name, 0.0) + now - mark
        mark = now

    run.optimizer.zero_grad(set_to_none=True)
    inputs = model.mask_token(batch.features, batch.hidden)
    backbone = model.backbone(SparseTensor(batch.coordinates, inputs))
    lap("backbone")
    cut = backbone.detach().requires_grad_()
    decoded = model.decoder(cut, batch.positions, batch.coordinates[:, 0].long(), len(batch.views))
    lap("volume and Gaussians")
    leaves = []
    for one in decoded:
        parts = {name: getattr(one.gaussians, name) for name in ("means", "quats", "scales", "opacities", "sh")}
        parts = {name: (value, value.detach().requires_grad_()) for name, value in parts.items()}
        parts["features"] = (one.features, one.features.detach().requires_grad_())
        leaves.append(parts)
    apart = [
        one._replace(
            gaussians=replace(one.gaussians, **{name: pair[1] for name, pair in parts.items() if name != "features"}),
            features=parts["features"][1],
        )
        for one, parts in zip(decoded, leaves, strict=True)
    ]
    rendering = render_views(apart, batch.scene_cameras(), model.background.sigmoid())
    lap("rasteriser")
    lifted = None
    if model.projection is not None and batch.targets.features is not None:
        height, width = batch.targets.features.shape[1:3]
        lifted = model.projection(rendering.features, (height, width))
    images = [rendering.color, rendering.depth, rendering.alpha, rendering.features]
    losses = model.losses(batch, Prediction(backbone, decoded, rendering, lifted))
    gradients = torch.autograd.grad(losses["loss"], images, retain_graph=True, allow_unused=True)
    lap("losses")
    present = [(image, gradient) for image, gradient in zip(images, gradients, strict=True) if gradient is not None]
    torch.autograd.backward([image for image, _ in present], [gradient for _, gradient in present])
    lap("rasteriser")
    pairs = [pair for parts in leaves for pair in parts.values() if pair[1].grad is not None]
    torch.autograd.backward([value for value, _ in pairs], [leaf.grad for _, leaf in pairs])
    lap("volume and Gaussians")
    assert cut.grad is not None
    backbone.backward(cut.grad)
    lap("backbone")
    run.optimizer.step()
    lap("optimiser")
    return seconds


def measure(config: PretrainConfig, repeats: int) -> tuple[dict[str, float], TrainingBatch, int, int]:
    """Median seconds of the stages, the batch, its anchors and Gaussians."""
    data, _ = open_scenes(config)
    run = PretrainRun(config, data)
    run.load(0)  # reads the scene and fills the cache
    start = time.perf_counter()
    batch = run.load(0)
    loading = time.perf_counter() - start
    batch = batch.to(run.device)
    laps = [timed_step(run, batch) for _ in range(repeats + 1)][1:]
    seconds = {"data": loading} | {name: statistics.median(lap[name] for lap in laps) for name in laps[0]}
    with torch.no_grad():
        decoded = run.model.predict(batch).decoded
    return seconds, batch, sum(one.anchors for one in decoded), sum(len(one.gaussians) for one in decoded)


Pairs = list[tuple[float, float]]
AXES: dict[str, tuple[dict, ...]] = {  # to which values each is changed
    "voxels": tuple({"voxel": side, "most_voxels": 10**6} for side in (0.1, 0.07, 0.05, 0.04, 0.034)),
    "views": tuple({"views": count} for count in (1, 2, 4, 6, 8)),
    "anchors": (*({"levels": 3, "reach": cells} for cells in (0, 1, 2, 3)), {"levels": 3, "anchors": "all"}),
}
PANEL = (400, 320)  # pixels


def scaling(config: PretrainConfig, repeats: int, path: Path, axes: list[str]) -> None:
    """Print seconds per step against voxels, views or anchors, with the stages' shares, and plot every axis measured so far."""
    kept = Path(config.out) / "scaling.json"
    measured: dict[str, Pairs] = json.loads(kept.read_text()) if kept.exists() else {}
    measure(config, 1)  # warms up
    for axis in axes:
        measured[axis] = []
        for changes in AXES[axis]:
            seconds, batch, anchors, _ = measure(replace(config, **changes), repeats)
            del seconds["data"]
            size = {"voxels": len(batch.coordinates), "views": sum(batch.views), "anchors": anchors}[axis]
            step = sum(seconds.values())
            shares = ", ".join(f"{name} {value / step:.0%}" for name, value in seconds.items())
            print(f"{axis:>8} {size:>8,}  {step:.3f} s a step: {shares}", flush=True)
            measured[axis].append((size, step))
    kept.write_text(json.dumps(measured))
    for axis, pairs in measured.items():
        slope, start = line_through(pairs)
        worst = max(abs(step / (start + slope * size) - 1) for size, step in pairs)
        print(f"{axis:>8}: {start:.3f} s + {slope * 1e6:.2f} us each; at most {worst:.0%} from that line")
    draw(measured, path)


def line_through(pairs: Pairs) -> tuple[float, float]:
    """Slope and start of the straight line through (size, seconds)."""
    return tuple(statistics.linear_regression(*zip(*pairs, strict=True)))


def draw(measured: dict[str, Pairs], path: Path) -> None:
    """A panel for each axis: points, and the line through them; both axes begin at 0."""
    image = Image.new("RGB", (PANEL[0] * len(measured), PANEL[1]), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    highest = 1.1 * max(step for pairs in measured.values() for _, step in pairs)
    for index, (axis, pairs) in enumerate(measured.items()):
        left, bottom, wide, tall = index * PANEL[0] + 50, PANEL[1] - 50, PANEL[0] - 80, PANEL[1] - 70
        most = max(size for size, _ in pairs)

        def place(size: float, step: float, corner=(left, bottom), scale=(wide / most, tall / highest)) -> tuple[float, float]:
            return corner[0] + size * scale[0], corner[1] - step * scale[1]

        pen.rectangle((left, bottom - tall, left + wide, bottom), outline="#888888")
        for tick in range(5):
            size, step = most * tick / 4, highest * tick / 4
            pen.text((place(size, 0)[0], bottom + 6), f"{size:,.0f}", "black", font, "ma")
            pen.text((left - 6, place(0, step)[1]), f"{step:.2f}", "black", font, "rm")
        pen.text((left + wide / 2, PANEL[1] - 8), axis, "black", font, "ms")
        pen.text((left + 8, bottom - tall + 6), "seconds a step", "black", font)
        slope, start = line_through(pairs)
        pen.line((*place(0, start), *place(most, start + slope * most)), "#d62728", 2)
        for pair in pairs:
            x, y = place(*pair)
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), "#1f77b4")
    image.save(path, lossless=True)


def made_room(folder: Path) -> str:
    """A synthetic room."""
    scene, settings = folder / "train_0000", RoomSettings()
    if scene.exists():
        return str(scene)
    with furniture_libraries(None) as libraries:
        pieces, textures = Pieces(furniture(libraries), "train"), read_textures(furniture_archives(libraries), "train")
        record_room(make_room("train", 0, pieces, textures, settings), settings, scene)
    return str(scene)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", nargs="?", help="by default a synthetic room, made for this")
    parser.add_argument("--size", default="tiny", choices=("tiny", "small", "base"))
    parser.add_argument("--voxels", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--anchors", default="occupied", choices=("occupied", "all"))
    parser.add_argument("--teacher", default="mini")
    parser.add_argument("--voxel", type=float)
    parser.add_argument("--out", type=Path, help="folder for what is made; by default a temporary one")
    parser.add_argument("--scaling", type=Path, help="picture of the cost against voxels, views and anchors")
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=AXES, help="of --scaling; others are kept in --out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(options, options.out or Path(temporary))


def run(options: argparse.Namespace, out: Path) -> None:
    scene = options.scene or made_room(out)
    config = PretrainConfig(
        scenes=(scene,), out=str(out), size=options.size, most_voxels=options.voxels, teacher=options.teacher,
        anchors=options.anchors, voxel=options.voxel, rotate=0.0,
    )  # fmt: skip
    print(
        f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"native {native_level()}"
    )
    if options.scaling:
        scaling(config, options.repeats, options.scaling, options.axes)
        return
    seconds, batch, anchors, gaussians = measure(config, options.repeats)
    step = sum(seconds.values()) - seconds["data"]
    height, width = batch.targets.depth.shape[1:]
    print(
        f"{options.size}: {len(batch.coordinates):,} voxels, {sum(batch.views)} views of {width} x {height}, {anchors:,} "
        f"anchors, {gaussians:,} Gaussians: {step:.3f} s a step"
    )
    for name, value in seconds.items():
        print(f"  {name:<24}{value * 1e3:>8,.0f} ms" + ("  (in the background)" if name == "data" else f"{value / step:>8.0%}"))
    print(judged(f"a step of {options.size}, median", step, "s", WANTED_SECONDS))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(judged("largest memory, the making of a room included", memory, "GB", WANTED_GB))


if __name__ == "__main__":
    main()
