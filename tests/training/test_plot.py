import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from splatsense.errors import DataError
from splatsense.training.plot import COLORS, PANEL, group_metrics, plot_metrics, ticks

LINES = [
    {"step": step, "loss": 5 / step, "text": 3 / step, "learning_rate": 1e-3 / step, "gradient_norm": 2.0,
     **({"holdout_top1": 0.1 * step, "holdout_class_mean": 0.05 * step} if step % 3 == 0 else {})}
    for step in range(1, 11)
]  # fmt: skip


def test_metrics_are_grouped_into_panels():
    panels = group_metrics([*LINES, {"step": 11, "loss": math.nan}])
    assert {name: list(curves) for name, curves in panels.items()} == {
        "loss": ["loss", "text"],
        "learning_rate": ["learning_rate"],
        "gradient_norm": ["gradient_norm"],
        "holdout": ["holdout_top1", "holdout_class_mean"],
    }
    assert [step for step, _ in panels["holdout"]["holdout_top1"]] == [3, 6, 9]
    assert len(panels["loss"]["loss"]) == 10


def test_the_picture_shows_every_curve(tmp_path):
    plot_metrics(LINES, tmp_path / "metrics.png", "a run")
    with Image.open(tmp_path / "metrics.png") as image:
        assert image.size == (2 * PANEL[0], 2 * PANEL[1] + 28)
        pixels = image.convert("RGB")
        panels = [(x, 28 + y, x + PANEL[0], 28 + y + PANEL[1]) for y in (0, PANEL[1]) for x in (0, PANEL[0])]
        for box, curves in zip(panels, (2, 1, 1, 2), strict=True):
            found = {color for _, color in pixels.crop(box).getcolors(1 << 24)}
            for color in COLORS[:curves]:
                assert tuple(bytes.fromhex(color[1:])) in found
    with pytest.raises(DataError, match="no metrics"):
        plot_metrics([{"step": 1}], tmp_path / "none.png", "")


def test_one_line_is_enough(tmp_path):
    plot_metrics([{"step": 1, "loss": 0.0}], tmp_path / "metrics.png", "a run")
    assert (tmp_path / "metrics.png").exists()


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_enclose_the_values_in_round_steps(low, span):
    found = ticks(low, low + span)
    step = found[1] - found[0]
    assert 3 <= len(found) <= 12
    assert found[0] <= low + 1e-6 * span
    assert found[-1] >= low + span * (1 - 1e-6)
    assert low - found[0] <= step * 1.001
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - value) for value in (1, 2, 5)) < 0.01 + 1e-9 * abs(low) / step
