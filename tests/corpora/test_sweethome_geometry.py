"""Surfaces of Sweet Home 3D homes against geometry worked out by hand: walls, openings, placed models, polygons."""

import math

import numpy as np
import pytest

from splatsense.corpora.sweethome.build import place_model
from splatsense.corpora.sweethome.home import Finish, Level, Piece, Wall, parse_home
from splatsense.corpora.sweethome.polygons import distance_inside, signed_area, triangulate
from splatsense.corpora.sweethome.scene import piece_class
from splatsense.corpora.sweethome.walls import opening_of, outline, wall_patches
from splatsense.errors import DataError


def wall(start, end, arc=0.0, name="a", at_start="", at_end="", thickness=0.2, heights=(2.5, 2.5)) -> Wall:
    return Wall(name, Level(), np.array(start, float), np.array(end, float), thickness, heights, arc, at_start, at_end,
                Finish(), Finish(), Finish())  # fmt: skip


def test_joined_walls_are_mitred():
    a, b = wall((0, 0), (4, 0), at_end="b"), wall((4, 0), (4, 3), name="b", at_start="a")
    walls = {"a": a, "b": b}
    left, right = outline(a, walls)
    np.testing.assert_allclose(left, [[0, 0.1], [3.9, 0.1]], atol=1e-12)
    np.testing.assert_allclose(right, [[0, -0.1], [4.1, -0.1]], atol=1e-12)
    left, right = outline(b, walls)
    np.testing.assert_allclose(left, [[3.9, 0.1], [3.9, 3]], atol=1e-12)
    np.testing.assert_allclose(right, [[4.1, -0.1], [4.1, 3]], atol=1e-12)
    # joined end to end, and walls in one line stay as they are
    c = wall((4, 3), (4, 0), name="b", at_end="a")
    left, right = outline(c, {"a": a, "b": c})
    np.testing.assert_allclose([left[1], right[1]], [[4.1, -0.1], [3.9, 0.1]], atol=1e-12)
    d = wall((4, 0), (9, 0), name="b", at_start="a")
    np.testing.assert_allclose(outline(a, {"a": a, "b": d})[0][1], [4, 0.1], atol=1e-12)


def test_very_sharp_corners_do_not_reach_out_far():
    a = wall((0, 0), (4, 0), at_end="b")
    left, right = outline(a, {"a": a, "b": wall((4, 0), (0, 0.1), name="b", at_start="a")})
    assert np.abs(np.concatenate([left, right])).max() <= 4 + 2 * 0.2


@pytest.mark.parametrize("arc", [math.pi / 2, -math.pi / 2, math.pi, 1.5 * math.pi, -0.3])
def test_round_walls_are_arcs_of_their_extent(arc):
    left, right = outline(wall((0, 0), (2, 0), arc), {})
    middle = (left + right) / 2
    np.testing.assert_allclose(middle[[0, -1]], [[0, 0], [2, 0]], atol=1e-2)
    turned = np.diff(np.unwrap(np.arctan2(*np.diff(middle, axis=0).T[::-1])))
    assert turned.sum() == pytest.approx(arc * (1 - 1 / (len(middle) - 1)), abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(left[1:-1] - right[1:-1], axis=1), 0.2, atol=1e-3)


def test_an_arc_bulges_to_the_side_the_program_says():
    """Sweet Home 3D draws a wall from (0, 0) to (100, 0) of arcExtent pi/2 above the line on the screen, at y = -20.7."""
    xml = "<home><wall id='w' xStart='0' yStart='0' xEnd='100' yEnd='0' thickness='10' arcExtent='1.5707964'/></home>"
    left, right = outline(parse_home(xml.encode(), "x").walls[0], {})
    middle = (left + right) / 2
    assert middle[:, 1].max() == pytest.approx(0.207, abs=2e-3)
    assert middle[:, 1].min() == pytest.approx(0, abs=2e-3)


def patch_area(patches, side):
    quads = np.concatenate([patch.quads for patch in patches if patch.side == side])
    a, b, c, d = quads.transpose(1, 0, 2)
    halves = (np.cross(b - a, c - a), np.cross(c - a, d - a))
    return sum(np.linalg.norm(half, axis=1).sum() / 2 for half in halves)


def piece(**changes) -> Piece:
    values = {
        "name": "x", "catalog_id": "", "level": Level(1.0), "is_door_or_window": False, "center": np.array([5.0, 6.0]),
        "bottom": 0.5, "size": (2.0, 1.0, 3.0), "angle": 0.0, "pitch": 0.0, "roll": 0.0, "model": "",
        "rotation": np.eye(3), "centered": True, "mirrored": False, "color": None, "opening": (0.0, 1.0, 0.0, 1.0),
    }  # fmt: skip
    return Piece(**(values | changes))


def test_sloping_walls_with_windows_have_the_area_they_should():
    sloping = wall((0, 0), (4, 0), heights=(3.0, 1.0))
    assert patch_area(wall_patches(sloping, {}, []), "left") == pytest.approx(8.0)
    window = piece(level=Level(), center=np.array([1.0, 0.0]), bottom=0.9, size=(1.0, 0.3, 1.2))
    patches = wall_patches(sloping, {}, [opening_of(window)])
    assert patch_area(patches, "left") == pytest.approx(8.0 - 1.0 * 1.2)
    assert patch_area(patches, "right") == pytest.approx(8.0 - 1.0 * 1.2)
    rims = patch_area(patches, "end") - patch_area(wall_patches(sloping, {}, []), "end")
    assert rims == pytest.approx(0.2 * 2 * (1.0 + 1.2))


def test_openings_may_be_smaller_than_their_window_and_spare_other_walls():
    window = piece(level=Level(), center=np.array([1.0, 0.0]), bottom=0.9, size=(1.0, 0.3, 1.0), opening=(0.1, 0.5, 0.2, 0.4))
    opening = opening_of(window)
    assert opening.center.tolist() == pytest.approx([0.85, 0])
    assert (opening.half, opening.bottom, opening.top) == pytest.approx((0.25, 1.3, 1.7))
    for spared in (wall((0, 1), (4, 1)), wall((1, -2), (1, 2)), wall((2, 0), (4, 0))):
        whole = 2.5 * np.linalg.norm(spared.end - spared.start)
        assert patch_area(wall_patches(spared, {}, [opening]), "left") == pytest.approx(whole)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # the model's corner at its right, top and front: x to the right, front towards -y
        ({}, [6, 5.5, 4.5]),
        ({"mirrored": True}, [4, 5.5, 4.5]),
        ({"angle": math.pi / 2}, [5.5, 7, 4.5]),
        # tipped over by a quarter about the vertical: the front becomes the right
        ({"rotation": np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])}, [6, 6.5, 4.5]),
        # pitch lays it on its back or face: 1 m high now, standing on the same floor
        ({"pitch": math.pi / 2}, [6, 7.5, 1.5 + 1.0]),
        ({"roll": math.pi / 2}, [5 + 1.5, 5.5, 1.5 + 0.0]),
    ],
)
def test_models_stand_where_and_as_large_as_their_piece_says(changes, expected):
    box = np.array([[x, y, z] for x in (-3, 7) for y in (0, 1) for z in (10, 12)], float)
    placed = place_model(box, piece(**changes))
    assert placed[:, 2].min() == pytest.approx(1.5)
    corner = placed[(box == [7, 1, 12]).all(1)][0]
    assert corner.tolist() == pytest.approx(expected)


def test_pieces_are_named_by_catalogue_then_by_words():
    assert piece_class(piece(catalog_id="Blend Swap CC-0#bed1", name="Letto")) == "bed"
    assert piece_class(piece(name="Comfortable office chair")) == "office chair"
    assert piece_class(piece(catalog_id="eTeks#coffeeTable", name="Table basse")) == "coffee table"
    assert piece_class(piece(name="Kitchen cabinets")) == "kitchen cabinet"
    assert piece_class(piece(name="Tableau")) == ""
    assert piece_class(piece(name="Porta", is_door_or_window=True)) == "door"
    assert piece_class(piece(name="Small window", is_door_or_window=True)) == "window"


def test_concave_polygons_are_covered_once():
    polygon = np.array([[0, 0], [4, 0], [4, 3], [3, 3], [3, 1], [1, 1], [1, 3], [0, 3.0]])
    for points in (polygon, polygon[::-1]):
        triangles = points[triangulate(points)]
        areas = [signed_area(triangle) for triangle in triangles]
        assert min(areas) >= 0
        assert sum(areas) == pytest.approx(8)
    inside = distance_inside(polygon, np.array([[0.5, 0.5], [2, 2], [3.5, 2.9], [-1, 0]]))
    assert inside.tolist() == pytest.approx([0.5, -1, 0.1, -1])
    with pytest.raises(DataError, match="no area"):
        triangulate(np.array([[0, 0], [1, 1], [2, 2.0]]))
