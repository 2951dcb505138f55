"""Time of the rasteriser against the number of blended pairs, which it should be linear in; a table and a plot.

    python benchmarks/rasterise_scaling.py [--threads 2] [--repeats 15] [--plot build/rasterise_scaling.png]

From 2,500 to 80,000 Gaussians of ever smaller size fill 256 x 256 pixels. A pair is of a pixel and a Gaussian with a weight in
it. The table gives milliseconds (medians) and how far each lies from the straight line through the first and the last.
"""

import datetime
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image, ImageDraw
from rasteriser.contestants import cpu_name, images_with, measure
from rasteriser.scene import Scene, blended_pairs

from splatsense.native import native_level
from splatsense.render import native

COUNTS, SIDE = (2500, 5000, 10_000, 20_000, 40_000, 80_000), 256
PASSES = {"fwd": (40, 90, 160), "fwd+bwd": (200, 60, 40)}  # their colours in the plot
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


def draw_plot(points: dict[str, Points], title: str) -> Image.Image:
    """Milliseconds over millions of blended pairs: a line for each pass."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    most_x, most_y = (1.1 * max(point[axis] for line in points.values() for point in line) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return MARGIN + x / most_x * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - y / most_y * (HEIGHT - 2 * MARGIN)

    draw.line([place(0, most_y), place(0, 0), place(most_x, 0)], "black")
    for share in range(1, 6):
        x, y = most_x * share / 6, most_y * share / 6
        draw.text(place(x, 0), f"{x:.2g}", "black", anchor="mt")
        draw.text(place(0, y), f"{y:.2g} ", "black", anchor="rm")
    draw.text((WIDTH / 2, HEIGHT - MARGIN / 2), "millions of blended pairs", "black", anchor="mm")
    draw.text((MARGIN, MARGIN / 2), f"milliseconds; {title}", "black", anchor="lm")
    for name, line in points.items():
        draw.line([place(*point) for point in line], PASSES[name], 2)
        for point in line:
            x, y = place(*point)
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), PASSES[name])
        draw.text(place(*line[-1]), f" {name}", PASSES[name], anchor="lb")
    return image


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    title = f"{cpu_name()}, native build {native_level()}, {datetime.date.today()}"
    print(title)
    points: dict[str, Points] = {name: [] for name in PASSES}
    contestant = {"native": images_with(native.rasterise)}
    for count in COUNTS:
        scene = Scene.random(count, SIDE, SIDE, 0)
        pairs = blended_pairs(scene) / 1e6
        for name in PASSES:
            times = measure(contestant, scene, arguments.repeats, name == "fwd+bwd")["native"]
            points[name].append((pairs, statistics.median(times)))
    print(f"{'Gaussians':>10} {'pass':8} {'Mpairs':>7} {'median ms':>9} {'Mpairs/s':>8} {'off the line':>12}")
    for name, line in points.items():
        (x0, y0), (x1, y1) = line[0], line[-1]
        for count, (x, y) in zip(COUNTS, line, strict=True):
            straight = y0 + (x - x0) * (y1 - y0) / (x1 - x0)
            print(f"{count:10} {name:8} {x:7.2f} {y:9.2f} {x / y * 1e3:8.1f} {y / straight - 1:12.0%}")
    arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    draw_plot(points, title).save(arguments.plot)
    print(f"plot: {arguments.plot}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
