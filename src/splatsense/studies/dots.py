"""A study as a picture: a figure of every run as a dot, the mean of its row as a line, drawn with Pillow."""

import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from splatsense.errors import DataError
from splatsense.files import atomic_write
from splatsense.studies.page import mean_and_deviation
from splatsense.training.plot import ticks

PLOT, ROW, TITLES, MARGIN = 530, 26, 330, 44  # pixels: plot, a row, least room for titles, above and below
GAP = 14  # on both sides of a title
SCALE = 2  # drawn so much larger and then reduced, for smooth lines


def plot_dots(rows: Mapping[str, Mapping[int, float]], path: Path, title: str) -> None:
    """Draw figures in [0, 1] by row and seed into a PNG, in percent.

    Args:
        rows: figures of each seed by the title of the row; rows without any are left out.
        path: of the picture.
        title: over it.

    Raises:
        DataError: no row was measured yet.
    """
    rows = {name: row for name, row in rows.items() if row}
    if not rows:
        raise DataError(f"{path}: no row was measured yet.")
    values = [100 * value for row in rows.values() for value in row.values()]
    marks = ticks(max(0.0, min(values) - 1), max(values) + 1, 8)
    titles = max(TITLES, math.ceil(max(map(_font(12).getlength, rows)) / SCALE) + 2 * GAP)
    width, height = titles + PLOT, 2 * MARGIN + ROW * len(rows)
    image = Image.new("RGB", (width * SCALE, height * SCALE), "white")
    draw = ImageDraw.Draw(image)

    def place(value: float) -> float:
        return (titles + (value - marks[0]) / (marks[-1] - marks[0]) * (PLOT - MARGIN)) * SCALE

    for mark in marks:
        draw.line([(place(mark), MARGIN * SCALE), (place(mark), (height - MARGIN) * SCALE)], "#e6e6e6", SCALE)
        draw.text((place(mark), (height - MARGIN + 6) * SCALE), f"{mark:g} %", "#444444", _font(11), "mt")
    draw.text(
        (place(marks[0]), (MARGIN - 10) * SCALE),
        f"{title}; a dot is a seed, the line their mean",
        "black",
        _font(12),
        "lb",
    )
    for index, (name, row) in enumerate(rows.items()):
        middle, mean = (MARGIN + (index + 0.5) * ROW) * SCALE, place(100 * mean_and_deviation(row)[0])
        draw.text(((titles - GAP) * SCALE, middle), name, "black", _font(12), "rm")
        draw.line([(mean, middle - 9 * SCALE), (mean, middle + 9 * SCALE)], "#d62728", 2 * SCALE)
        for value in set(row.values()):
            x, radius = place(100 * value), 4 * SCALE
            draw.ellipse([x - radius, middle - radius, x + radius, middle + radius], "#1f77b4")
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    with atomic_write(path) as temporary:
        image.save(temporary, "PNG")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SCALE)
