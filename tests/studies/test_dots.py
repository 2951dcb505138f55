"""The picture of a study."""

import numpy as np
import pytest
from PIL import Image

from splatsense.errors import DataError
from splatsense.studies.dots import PLOT, TITLES, plot_dots


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_a_dot_for_every_run_and_a_line_at_their_mean(tmp_path):
    plot_dots({"one": {0: 0.1, 1: 0.3}, "two": {0: 0.2}, "nothing": {}}, tmp_path / "plot.png", "top-1")
    pixels = pixels_of(tmp_path / "plot.png")
    assert pixels.shape[1] == TITLES + PLOT
    blue = (pixels[..., 2] - pixels[..., 0] > 100).any(0)
    red = (pixels[..., 0] - pixels[..., 2] > 100).any(0)
    dots = [int(part.mean()) for part in np.split(blue.nonzero()[0], np.flatnonzero(np.diff(blue.nonzero()[0]) > 1) + 1)]
    assert len(dots) == 3 or len(dots) == 4  # the line of the second row lies in its dot
    assert abs(red.nonzero()[0].mean() - (dots[0] + dots[-1]) / 2) < 2


def test_long_titles_are_shown_in_full(tmp_path):
    title = "probe: a backbone whose name is so long that there is hardly room for it beside the plot"
    plot_dots({title: {0: 0.1}}, tmp_path / "plot.png", "top-1")
    pixels = pixels_of(tmp_path / "plot.png")
    assert (pixels[:, :8] == 255).all()
    assert pixels.shape[1] > TITLES + PLOT


def test_nothing_to_draw(tmp_path):
    with pytest.raises(DataError, match="no row was measured yet"):
        plot_dots({"one": {}}, tmp_path / "plot.png", "top-1")
