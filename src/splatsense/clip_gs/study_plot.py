"""The study as a picture: top-1 of every run as a dot, the mean of its row as a line, drawn with Pillow."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from splatsense.clip_gs.study_results import Measured, mean_and_deviation
from splatsense.errors import DataError
from splatsense.files import atomic_write
from splatsense.training.plot import ticks

WIDTH, ROW, TITLES, MARGIN = 860, 26, 330, 44  # pixels: picture, a row, room for titles, above and below
SCALE = 2  # drawn so much larger and then reduced, for smooth lines


def plot_study(measured: Mapping[str, Measured], path: Path) -> None:
    """Draw zero-shot top-1 of the rows that were measured into a PNG. Raises DataError when none was."""
    rows = {one.row.title: one.values("top1") for one in measured.values() if one.values("top1")}
    if not rows:
        raise DataError(f"{path}: no row was measured yet.")
    values = [100 * value for row in rows.values() for value in row.values()]
    marks = ticks(max(0.0, min(values) - 1), max(values) + 1, 8)
    height = 2 * MARGIN + ROW * len(rows)
    image = Image.new("RGB", (WIDTH * SCALE, height * SCALE), "white")
    draw = ImageDraw.Draw(image)

    def place(value: float) -> float:
        return (TITLES + (value - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - TITLES - MARGIN)) * SCALE

    for mark in marks:
        draw.line([(place(mark), MARGIN * SCALE), (place(mark), (height - MARGIN) * SCALE)], "#e6e6e6", SCALE)
        draw.text((place(mark), (height - MARGIN + 6) * SCALE), f"{mark:g} %", "#444444", _font(11), "mt")
    draw.text(
        (place(marks[0]), (MARGIN - 10) * SCALE),
        "zero-shot top-1; a dot is a seed, the line their mean",
        "black",
        _font(12),
        "lb",
    )
    for index, (title, row) in enumerate(rows.items()):
        middle, mean = (MARGIN + (index + 0.5) * ROW) * SCALE, place(100 * mean_and_deviation(row)[0])
        draw.text(((TITLES - 14) * SCALE, middle), title, "black", _font(12), "rm")
        draw.line([(mean, middle - 9 * SCALE), (mean, middle + 9 * SCALE)], "#d62728", 2 * SCALE)
        for value in set(row.values()):
            x, radius = place(100 * value), 4 * SCALE
            draw.ellipse([x - radius, middle - radius, x + radius, middle + radius], "#1f77b4")
    image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    with atomic_write(path) as temporary:
        image.save(temporary, "PNG")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SCALE)
