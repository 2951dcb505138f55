"""Time of the rasteriser against the number of blended pairs, which it should be linear in; a table and a plot.

    python benchmarks/rasterise_scaling.py [--threads 2] [--repeats 15] [--plot build/rasterise_scaling.png]

A pair is of a pixel and a Gaussian with a weight in it. There come to be more of them in two ways: the image grows, and with it
the number of Gaussians, or 20,000 faint Gaussians grow in an image of 256 x 256. The table gives milliseconds
(of the fastest run: what neighbours add is not the rasteriser's cost) and how far each lies from the straight line of least
squares. Judged is the power of the pairs that time grows with: 1 is linear, and what does not depend on pairs makes it less.
That 1.1 is taken for linear is our choice.
"""

import datetime
import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from PIL import Image, ImageDraw
from rasteriser.contestants import cpu_name, images_with, measure
from rasteriser.scene import Scene, blended_pairs
from shared.targets import judged

from splatsense.native import native_level
from splatsense.render import native

COUNT, SIDE = 20_000, 256  # of Gaussians, and of pixels along a side of the image they fill
SIDES = (96, 128, 192, 256, 384, 512)
GROWTHS, FAINT = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8), 0.1  # of sizes, and of opacities, which keep all Gaussians in view
WANTED = 1.1  # times as many pairs to this power
PASSES = {"fwd": False, "fwd+bwd": True}
COLORS = ((40, 90, 160), (200, 60, 40), (120, 170, 230), (240, 150, 120))
WIDTH, HEIGHT, MARGIN = 720, 480, 60

Points = list[tuple[float, float]]  # millions of pairs, milliseconds


@dataclass(frozen=True)
class Arguments:
    """Benchmark of the rasteriser at growing numbers of pairs."""

    threads: int = 2
    """Threads."""
    repeats: int = 15
    """Timed runs of each, after two to warm up."""
    plot: Path = Path("build/rasterise_scaling.png")
    """Where the plot goes."""


def growing_image() -> list[Scene]:
    """As many Gaussians to a pixel in each, of the same size in pixels."""
    return [Scene.random(COUNT * side**2 // SIDE**2, side, side, 0) for side in SIDES]


def growing_gaussians() -> list[Scene]:
    """The same Gaussians at several sizes."""
    scene = Scene.random(COUNT, SIDE, SIDE, 0)
    return [replace(scene, scales=scene.scales * growth, opacities=scene.opacities * FAINT) for growth in GROWTHS]


def draw_plot(points: dict[str, Points], title: str) -> Image.Image:
    """Milliseconds over millions of blended pairs, a line for each series."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    most_x, most_y = (1.1 * max(point[axis] for line in points.values() for point in line) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return MARGIN + x / most_x * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - y / most_y * (HEIGHT - 2 * MARGIN)

    draw.line([place(0, most_y), place(0, 0), place(most_x, 0)], "black")
    for share in range(1, 6):
        x, y = most_x * share / 6, most_y * share / 6
        draw.text(place(x, 0), f"{x:.2f}", "black", anchor="mt")
        draw.text(place(0, y), f"{y:.1f} ", "black", anchor="rm")
    draw.text((WIDTH / 2, HEIGHT - MARGIN / 2), "millions of blended pairs", "black", anchor="mm")
    draw.text((MARGIN, MARGIN / 2), f"milliseconds; {title}", "black", anchor="lm")
    for row, ((name, line), color) in enumerate(zip(points.items(), COLORS, strict=True)):
        draw.line([place(*point) for point in line], color, 2)
        for point in line:
            x, y = place(*point)
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), color)
        draw.text((MARGIN + 12, MARGIN + 16 * row), name, color, anchor="lm")
    return image


def power(points: Points) -> float:
    """p, where time grows with the number of pairs to the p: the slope of the line of least squares between logarithms."""
    return statistics.linear_regression(*zip(*((math.log(x), math.log(y)) for x, y in points), strict=True)).slope


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    title = f"{cpu_name()}, native build {native_level()}, {datetime.date.today()}"
    print(title)
    print(f"{'series':27} {'Gaussians':>9} {'Mpairs':>7} {'least ms':>9} {'Mpairs/s':>8} {'off the line':>12}")
    contestant, points = {"native": images_with(native.rasterise)}, {}
    for what, scenes in {"growing image": growing_image(), "growing Gaussians": growing_gaussians()}.items():
        pairs = [blended_pairs(scene) / 1e6 for scene in scenes]
        for name, backward in PASSES.items():
            times = [min(measure(contestant, each, arguments.repeats, backward)["native"]) for each in scenes]
            slope, start = statistics.linear_regression(pairs, times)
            for scene, x, y in zip(scenes, pairs, times, strict=True):
                off = y / (start + slope * x) - 1
                print(f"{what + ', ' + name:27} {len(scene.means):9,} {x:7.2f} {y:9.2f} {x / y * 1e3:8.1f} {off:12.0%}")
            points[f"{what}, {name}"] = list(zip(pairs, times, strict=True))
    print()
    for name, line in points.items():
        print(judged(f"{name}: time grows with pairs to the power", power(line), "", WANTED))
    arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    draw_plot(points, title).save(arguments.plot)
    print(f"plot: {arguments.plot}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
