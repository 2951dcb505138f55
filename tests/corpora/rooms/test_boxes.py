import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatsense.corpora.rooms.boxes import Box

sides, places, turns = st.floats(0.2, 2.0), st.floats(-2.0, 2.0), st.floats(-math.pi, math.pi)
boxes = st.builds(Box, places, places, sides, sides, st.just(0.0), st.just(1.0), turns)


def inside(box: Box, points: np.ndarray, grown: float) -> np.ndarray:
    local = (points - [box.x, box.y]) @ box.axes.T
    return np.asarray((abs(local) <= np.array([box.width, box.depth]) / 2 + grown).all(1))


@given(boxes, boxes)
def test_overlap_is_what_a_grid_of_points_says(a: Box, b: Box) -> None:
    steps = np.linspace(-0.5, 0.5, 41)
    grid = np.stack(np.meshgrid(steps * a.width, steps * a.depth), -1).reshape(-1, 2) @ a.axes + [a.x, a.y]
    if inside(b, grid, -0.02).any():
        assert a.overlaps(b)
    if not a.overlaps(b):
        assert not inside(b, grid, -1e-3).any()
    assert a.overlaps(b) == b.overlaps(a)


def test_boxes_that_touch_or_are_stacked_do_not_overlap() -> None:
    box = Box(0, 0, 1, 1, 0, 1)
    assert not box.overlaps(Box(1, 0, 1, 1, 0, 1))
    assert box.overlaps(Box(1, 0, 1, 1, 0, 1), margin=0.01)
    assert not box.overlaps(replace(box, bottom=1.0, top=2.0))
    assert box.overlaps(replace(box, bottom=0.99, top=2.0))


@pytest.mark.parametrize("yaw", [0.0, 0.7, math.pi])
def test_front_and_local_points(yaw: float) -> None:
    box = Box(3, 4, 2, 1, 0, 1, yaw)
    np.testing.assert_allclose(box.front, [math.sin(yaw), -math.cos(yaw)], atol=1e-12)
    np.testing.assert_allclose(box.at(0, -0.5), np.array([3, 4]) + 0.5 * box.front, atol=1e-12)
