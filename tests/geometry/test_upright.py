"""Which axis of a room points up, told by its floor."""

import numpy as np
import pytest

from segmentation_scenes import room
from splatsense.geometry.upright import AXES, detect_up, is_room, turn_to_z

ROOMS = [room(seed=seed) for seed in range(3)]


def turned(scene, up):
    """Points and normals of a room whose z axis was turned to another."""
    back = turn_to_z(up)
    return (scene.coord @ back).astype(np.float32), (scene.normal @ back).astype(np.float32)


@pytest.mark.parametrize("up", AXES)
def test_the_axis_that_points_up_becomes_z(up):
    axis, sign = AXES[up]
    turn = turn_to_z(up)
    assert (turn @ (sign * np.eye(3)[axis])).tolist() == [0, 0, 1]
    assert np.linalg.det(turn) == pytest.approx(1)
    assert (turn @ turn.T == np.eye(3)).all()


@pytest.mark.parametrize("up", AXES)
@pytest.mark.parametrize("scene", ROOMS)
def test_the_floor_is_found_across_any_axis(scene, up):
    coord, normal = turned(scene, up)
    for usual in ("y", "z"):
        assert detect_up(coord, normal, usual) == up
    assert detect_up(coord, -normal) == up, "normals may look either way"
    assert is_room(coord, normal, up)


def test_what_shows_no_floor_has_the_usual_axis_up():
    points = np.random.default_rng(0).normal(size=(5_000, 3)).astype(np.float32)
    normal = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert detect_up(points, normal, "y") == "y"
    assert detect_up(points, normal) == "z"
    assert not is_room(10 * points, normal, "y")
    assert detect_up(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)) == "z"


@pytest.mark.parametrize("scale", [0.25, 5.0])
def test_what_has_not_the_size_of_a_room_is_none(scale):
    assert not is_room(scale * ROOMS[0].coord, ROOMS[0].normal, "z")


def test_an_empty_box_is_no_room():
    coord, normal = ROOMS[0].coord, ROOMS[0].normal
    low, high = coord.min(0), coord.max(0)
    empty = ((coord - low < 0.05) | (high - coord < 0.05)).any(1)
    assert empty.mean() > 0.5
    assert not is_room(coord[empty], normal[empty], "z")
