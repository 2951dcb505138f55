"""Curves of a run as a picture, drawn with Pillow, so that a plain install has them.

One panel for each kind of metric: losses, then the learning rate, the gradient norm and whatever else was logged; metrics
that share the part of their name before the first underscore share a panel.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from splatsense.errors import DataError
from splatsense.files import atomic_write

PANEL = (560, 300)  # pixels
MARGIN = (64, 40, 16, 36)  # left, top, right, bottom
SCALE = 2  # drawn so much larger and then reduced, for smooth lines
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
OWN_PANEL = ("learning_rate", "gradient_norm")


def plot_metrics(lines: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw metrics over steps into a PNG.

    Args:
        lines: "step" and metrics each, as `read_metrics` gives them.
        path: of the picture.
        title: over it.

    Raises:
        DataError: there is nothing to draw.
    """
    panels = group_metrics(lines)
    if not panels:
        raise DataError(f"{path}: no metrics to draw.")
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    width, height = columns * PANEL[0] * SCALE, (rows * PANEL[1] + 28) * SCALE
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.text((width / 2, 16 * SCALE), title, "black", _font(16), "mm")
    for index, (name, curves) in enumerate(panels.items()):
        left, top = index % columns * PANEL[0], index // columns * PANEL[1] + 28
        _draw_panel(draw, (left * SCALE, top * SCALE), name, curves)
    image = image.resize((width // SCALE, height // SCALE), Image.Resampling.LANCZOS)
    with atomic_write(path) as temporary:
        image.save(temporary, "PNG")


Curve = list[tuple[float, float]]


def group_metrics(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Curves by panel and name; values that are not finite are left out."""
    panels: dict[str, dict[str, Curve]] = {"loss": {}}
    for line in lines:
        for name, value in line.items():
            if name != "step" and math.isfinite(value):
                prefix = name if name in OWN_PANEL else name.partition("_")[0] if "_" in name else "loss"
                panels.setdefault(prefix, {}).setdefault(name, []).append((line["step"], value))
    return {prefix: curves for prefix, curves in panels.items() if curves}


def _draw_panel(draw: ImageDraw.ImageDraw, corner: tuple[int, int], name: str, curves: dict[str, Curve]) -> None:
    left, top, right, bottom = (value * SCALE for value in MARGIN)
    x0, y0 = corner[0] + left, corner[1] + top
    x1, y1 = corner[0] + PANEL[0] * SCALE - right, corner[1] + PANEL[1] * SCALE - bottom
    points = [point for curve in curves.values() for point in curve]
    xs, ys = ticks(*_range([x for x, _ in points])), ticks(*_range([y for _, y in points]))

    def place(x: float, y: float) -> tuple[float, float]:
        return x0 + (x - xs[0]) / (xs[-1] - xs[0]) * (x1 - x0), y1 - (y - ys[0]) / (ys[-1] - ys[0]) * (y1 - y0)

    for x in xs:
        draw.line([place(x, ys[0]), place(x, ys[-1])], "#e6e6e6", SCALE)
        draw.text((place(x, ys[0])[0], y1 + 6 * SCALE), f"{x:g}", "#444444", _font(11), "mt")
    for y in ys:
        draw.line([place(xs[0], y), place(xs[-1], y)], "#e6e6e6", SCALE)
        draw.text((x0 - 6 * SCALE, place(xs[0], y)[1]), f"{y:.4g}", "#444444", _font(11), "rm")
    draw.rectangle([x0, y0, x1, y1], None, "#888888", SCALE)
    draw.text((x1, y1 + 20 * SCALE), "step", "#444444", _font(11), "rt")
    legend = float(x0)
    for (label, curve), color in zip(curves.items(), COLORS * (1 + len(curves) // len(COLORS)), strict=False):
        placed = [place(x, y) for x, y in curve]
        if len(placed) > 1:
            draw.line(placed, color, 2 * SCALE, "curve")
        for x, y in placed if len(placed) < 20 else []:
            draw.ellipse([x - 3 * SCALE, y - 3 * SCALE, x + 3 * SCALE, y + 3 * SCALE], color)
        draw.text((legend, y0 - 8 * SCALE), label, color, _font(12), "lb")
        legend += draw.textlength(label + "   ", _font(12))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, that enclose [low, high]; about `count` of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * count >= (high - low) * (1 - 1e-9))
    return [index * step for index in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - abs(low) * 0.1 - 0.5, high + abs(high) * 0.1 + 0.5)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SCALE)
