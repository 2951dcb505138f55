"""Fitting Gaussians to 36 views of furniture: PSNR against seconds, over schedules and budgets, and over many objects.

    python benchmarks/fitting.py [--furniture FOLDER] [--objects 6] [--curve-objects 1] [--plot curve.png] [--sheet views.png]

PSNR and SSIM are means over two held-out views of 256 x 256, RGB over white, background included; "foreground" counts covered
pixels only. Seconds are CPU seconds of one thread, so that busy neighbours do not count; views are drawn before.
"""

import argparse
import datetime
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from shared.furniture import furniture_libraries, is_furniture
from shared.targets import judged

from splatsense.cameras import Cameras
from splatsense.clip_gs.fit_scores import Scores, measure
from splatsense.clip_gs.fitting import Fit, FitConfig, default_held_out, fit_gaussians
from splatsense.corpora.furniture import furniture
from splatsense.errors import SplatSenseError
from splatsense.io.surface import mesh_to_gaussians
from splatsense.mesh import Mesh
from splatsense.native import native_level
from splatsense.render import render
from splatsense.render.mesh import render_mesh
from splatsense.tables import table

VIEWS, SIZE, FOV = 36, 256, 30.0
BUDGETS = (1024, 4096, 10_000)
SCHEDULES = (0.25, 0.5, 1.0, 2.0)  # of the default number of steps
WANTED_PSNR, WANTED_SECONDS = 30, 8  # dB in the mean, median seconds an object; of furniture


@dataclass(frozen=True)
class Task:
    """An object to fit."""

    key: str
    mesh: Mesh
    cameras: Cameras
    images: torch.Tensor


def make_task(key: str, mesh: Mesh) -> Task:
    """36 views on an orbit at elevations of 10 and 30 degrees in turn."""
    mesh = mesh.normalized()
    radius = float(np.linalg.norm(mesh.vertices[np.unique(mesh.faces)], axis=1).max())
    angle, elevation = torch.arange(VIEWS) * (2 * math.pi / VIEWS), torch.deg2rad(10.0 + 20.0 * (torch.arange(VIEWS) % 2))
    eyes = torch.stack([elevation.cos() * angle.sin(), elevation.sin(), elevation.cos() * angle.cos()], dim=-1)
    eyes = eyes * (1.02 * radius / math.sin(math.radians(FOV / 2)))
    cameras = Cameras.look_at(eyes, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]), SIZE, SIZE, FOV)
    images = render_mesh(mesh, cameras, supersample=2, shading=0.5)
    color = (images.color / images.alpha[..., None].clamp_min(1e-6)).clamp(0, 1)
    return Task(key, mesh, cameras, torch.cat([color, images.alpha[..., None]], dim=-1))


def sample(source: Path, count: int, seed: int) -> list[Task]:
    """Objects of the furniture libraries in random order, without those that cannot be drawn."""
    items, tasks = furniture(source), []
    for index in np.random.default_rng(seed).permutation(len(items)):
        if len(tasks) == count:
            break
        try:
            tasks.append(make_task(items[index].key, items[index].load_mesh()))
        except SplatSenseError as error:
            print(f"left out: {error}")
    return tasks


def scheduled(config: FitConfig, factor: float) -> FitConfig:
    """The same with another number of steps."""
    first, second = (round(steps * factor) for steps in config.steps)
    return replace(config, steps=(first, second), relocate_every=max(1, round(config.relocate_every * factor)))


def run(task: Task, config: FitConfig) -> tuple[Fit, float]:
    """The fit, and the CPU seconds it took with its measuring."""
    start = mesh_to_gaussians(task.mesh, config.gaussians)
    begin = time.process_time()
    fit = fit_gaussians(start, task.cameras, task.images, config)
    return fit, time.process_time() - begin


def surface(task: Task, count: int) -> Scores:
    """The start, as it is."""
    held_out = list(default_held_out(VIEWS))
    targets = task.images[held_out]
    targets = torch.cat([targets[..., :3] * targets[..., 3:], targets[..., 3:]], dim=-1)
    return measure(mesh_to_gaussians(task.mesh, count), task.cameras[torch.tensor(held_out)], targets)


def print_histogram(values: Sequence[float]) -> None:
    """How many objects lie in each range of 2 dB."""
    low = 2 * math.floor(min(values) / 2)
    for edge in range(low, math.ceil(max(values)) + 1, 2):
        count = sum(edge <= value < edge + 2 for value in values)
        print(f"{edge:>4} dB {count:>4} {'#' * count}")


def print_curve(tasks: Sequence[Task], plot: Path | None) -> None:
    """The surface conversion, and what schedules make of it, for several budgets: means, and median seconds."""
    rows: list[list[str]] = [["Gaussians", "steps", "seconds", "PSNR", "foreground", "SSIM", "PSNR fitted views"]]
    curves: dict[str, list[tuple[float, float]]] = {}
    for count in BUDGETS:
        starts = [surface(task, count) for task in tasks]
        psnr, foreground, ssim = (statistics.mean(values) for values in zip(*starts, strict=True))
        rows.append([f"{count:,}", "surface", "", f"{psnr:.2f}", f"{foreground:.2f}", f"{ssim:.4f}", ""])
        for factor in SCHEDULES:
            config = scheduled(FitConfig(gaussians=count), factor)
            fits = [run(task, config) for task in tasks]
            seconds = statistics.median(seconds for _, seconds in fits)
            values = zip(*((fit.psnr, fit.foreground_psnr, fit.ssim, fit.train_psnr) for fit, _ in fits), strict=True)
            psnr, foreground, ssim, train = map(statistics.mean, values)
            measured = [f"{seconds:.2f}", f"{psnr:.2f}", f"{foreground:.2f}", f"{ssim:.4f}", f"{train:.2f}"]
            rows.append([f"{count:,}", str(sum(config.steps)), *measured])
            curves.setdefault(f"{count:,} Gaussians", []).append((seconds, psnr))
    print(table(rows, ">>>>>>>"))
    if plot:
        draw_plot(curves, plot)


def draw_plot(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """PSNR over the logarithm of seconds."""
    width, height, margin = 560, 340, 46
    points = [point for curve in curves.values() for point in curve]
    x_low, x_high = (math.log2(f(x for x, _ in points)) for f in (min, max))
    y_low, y_high = math.floor(min(y for _, y in points)), math.ceil(max(y for _, y in points))

    def at(seconds: float, psnr: float) -> tuple[float, float]:
        x = (math.log2(seconds) - x_low) / (x_high - x_low)
        return margin + x * (width - 2 * margin), height - margin - (psnr - y_low) / (y_high - y_low) * (height - 2 * margin)

    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for psnr in range(y_low, y_high + 1):
        x, y = at(2**x_low, psnr)
        draw.line([(x, y), (width - margin, y)], fill="#dddddd")
        draw.text((x - 24, y - 6), str(psnr), fill="black")
    for power in range(math.ceil(x_low), math.floor(x_high) + 1):
        x, y = at(2**power, y_low)
        draw.line([(x, y), (x, margin)], fill="#dddddd")
        draw.text((x - 8, y + 6), f"{2**power:g}", fill="black")
    draw.text((margin, 8), "PSNR of held-out views (dB) over CPU seconds of one thread", fill="black")
    for row, ((name, curve), color) in enumerate(zip(curves.items(), ("#1b9e77", "#d95f02", "#7570b3"), strict=True)):
        draw.line([at(*point) for point in curve], fill=color, width=2)
        draw.text((width - margin - 110, height - margin - 20 * (len(curves) - row)), name, fill=color)
    image.save(path)


def draw_sheet(tasks: Sequence[Task], fits: Sequence[Fit], path: Path) -> None:
    """A held-out view of each object: mesh, surface conversion, fit."""
    cells = []
    view, white = torch.tensor(default_held_out(VIEWS)[:1]), torch.ones(3)
    for task, fit in zip(tasks, fits, strict=True):
        target, start = task.images[view][0], mesh_to_gaussians(task.mesh, FitConfig().gaussians)
        drawn = [render(each, task.cameras[view], background=white).color[0].clamp(0, 1) for each in (start, fit.gaussians)]
        cells.append(torch.cat([target[..., :3] * target[..., 3:] + 1 - target[..., 3:], *drawn], dim=1))
    columns = 2
    cells += [torch.ones_like(cells[0])] * (-len(cells) % columns)
    rows = [torch.cat(cells[first : first + columns], dim=1) for first in range(0, len(cells), columns)]
    Image.fromarray((torch.cat(rows) * 255).round().byte().numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--furniture", type=Path, help="folder of its libraries; by default what is at hand")
    parser.add_argument("--objects", type=int, default=6)
    parser.add_argument("--curve-objects", type=int, default=1, help="0 leaves the curve out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="write the curve as a picture")
    parser.add_argument("--sheet", type=Path, help="write mesh, surface conversion and fit side by side as a picture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with furniture_libraries(options.furniture) as libraries:
        tasks = sample(libraries, options.objects, options.seed)
    machine = platform.processor() or platform.machine()
    print(f"{datetime.date.today()}, {machine}, {os.cpu_count()} cores, native {native_level()}")
    run(tasks[0], scheduled(FitConfig(), 0.1))  # imports and memory
    fits = [run(task, FitConfig()) for task in tasks]
    values, seconds = [fit.psnr for fit, _ in fits], [seconds for _, seconds in fits]
    print(f"{len(tasks)} objects: PSNR {statistics.mean(values):.2f} dB, median {statistics.median(values):.2f}, ", end="")
    print(f"foreground {statistics.mean(fit.foreground_psnr for fit, _ in fits):.2f}; ", end="")
    print(f"{statistics.median(seconds):.2f} s (median), {max(seconds):.2f} s (longest)")
    print_histogram(values)
    if is_furniture(libraries):  # boxes are harder: their patches have edges everywhere
        print(judged("held-out PSNR, mean", statistics.mean(values), "dB", WANTED_PSNR, at_least=True))
    print(judged("fitting an object, median", statistics.median(seconds), "s", WANTED_SECONDS))
    if options.curve_objects:
        print_curve(tasks[: options.curve_objects], options.plot)
    if options.sheet:
        draw_sheet(tasks, [fit for fit, _ in fits], options.sheet)


if __name__ == "__main__":
    main()
