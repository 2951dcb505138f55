"""What a furnished room must be, for every kind, both splits and several seeds."""

import math

import numpy as np
import pytest

from splatsense.corpora.rooms.boxes import Box
from splatsense.corpora.rooms.furnish import furnish
from splatsense.corpora.rooms.layout import make_layout
from splatsense.corpora.rooms.pieces import TOP_CELL, Pieces
from splatsense.corpora.rooms.placement import FLAT_ON_FLOOR, Arrangement, Placed
from splatsense.corpora.rooms.priors import KINDS, LABELS
from splatsense.errors import DataError

SEEDS = range(4)


@pytest.fixture(scope="module", params=["train", "test"])
def rooms(request: pytest.FixtureRequest, train_pieces: Pieces, test_pieces: Pieces) -> list[Arrangement]:
    pieces = train_pieces if request.param == "train" else test_pieces
    return [furnish(kind, pieces, np.random.default_rng(seed)) for kind in KINDS for seed in SEEDS]


def of_role(room: Arrangement, *roles: str) -> list[Placed]:
    return [placed for placed in room.placed if placed.piece.role in roles]


def test_nothing_stands_in_anything_else(rooms: list[Arrangement]) -> None:
    for room in rooms:
        solid = [(i, placed) for i, placed in enumerate(room.placed) if placed.piece.role not in FLAT_ON_FLOOR]
        for at, (i, a) in enumerate(solid):
            for j, b in solid[at + 1 :]:
                if a.support != j and b.support != i:
                    assert not a.box.overlaps(b.box), (room.layout.kind, a.piece.key, b.piece.key)


def test_everything_is_within_walls_floor_and_ceiling(rooms: list[Arrangement]) -> None:
    for room in rooms:
        for placed in room.placed:
            assert room.layout.contains(placed.box), (room.layout.kind, placed)


def test_what_stands_on_something_stands_on_its_surface(rooms: list[Arrangement]) -> None:
    carried = 0
    for room in rooms:
        for placed in room.placed:
            if placed.support == -1:
                assert placed.box.bottom == 0
            elif placed.support >= 0:
                support = room.placed[placed.support]
                right, back = support.box.axes @ (np.array([placed.box.x, placed.box.y]) - [support.box.x, support.box.y])
                top = room.pieces.top(support.piece)
                row = min(int((back + support.box.depth / 2) / TOP_CELL), len(top) - 1)
                column = min(int((right + support.box.width / 2) / TOP_CELL), top.shape[1] - 1)
                if placed.piece.role == "counter":  # one plate over several cabinets
                    assert placed.box.bottom == pytest.approx(support.box.top)
                    continue
                assert abs(right) <= support.box.width / 2
                assert abs(back) <= support.box.depth / 2
                assert placed.box.bottom == pytest.approx(support.box.bottom + top[row, column], abs=0.02)
                carried += 1
    assert carried > len(rooms)


def test_doors_open_and_windows_are_not_blocked(rooms: list[Arrangement]) -> None:
    for room in rooms:
        assert sum(opening.is_door for opening in room.layout.openings) == 1
        for opening in room.layout.openings:
            space = room.layout.keep_clear(opening)
            for placed in room.placed:
                hangs_there = placed.piece.role in ("curtain", "blind") and not opening.is_door
                if placed.piece.role not in FLAT_ON_FLOOR and not hangs_there:
                    assert not space.overlaps(placed.box), (opening, placed)


def test_chairs_face_tables_and_desks(rooms: list[Arrangement]) -> None:
    seats = 0
    for room in rooms:
        for table in of_role(room, "dining_table"):
            for chair in of_role(room, "chair"):
                to = np.array([table.box.x - chair.box.x, table.box.y - chair.box.y])
                reach = math.hypot(table.box.width, table.box.depth) / 2 + 0.6
                if np.linalg.norm(to) < reach:
                    local = table.box.axes @ to
                    nearest = np.clip(-local, -np.array([table.box.width, table.box.depth]) / 2, np.inf)
                    edge = np.minimum(nearest, np.array([table.box.width, table.box.depth]) / 2) @ table.box.axes
                    ahead = np.array([table.box.x, table.box.y]) + edge - [chair.box.x, chair.box.y]
                    if np.linalg.norm(ahead) < chair.box.depth / 2 + 0.2:
                        assert chair.box.front @ ahead / np.linalg.norm(ahead) > 0.6, (room.layout.kind, chair)
                        seats += 1
    assert seats >= 8


def test_beds_have_their_head_and_televisions_their_back_to_a_wall(rooms: list[Arrangement]) -> None:
    beds = 0
    for room in rooms:
        for bed in of_role(room, "double_bed", "single_bed", "bunk_bed"):
            head = np.array(bed.box.at(0, bed.box.depth / 2))
            facing = [wall for wall in room.layout.walls if np.dot(wall.normal, bed.box.front) > 0.99]
            assert min(abs(np.dot(head - wall.start, wall.normal)) for wall in facing) < 0.05
            beds += 1
        for sofa in of_role(room, "sofa", "corner_sofa")[:1]:
            for screen in of_role(room, "television"):
                if room.layout.kind == "living room":
                    assert screen.box.front @ sofa.box.front < -0.9
    assert beds >= 4


def test_each_kind_has_what_makes_it_that_kind(rooms: list[Arrangement]) -> None:
    needed = {
        "bedroom": ("double_bed", "single_bed", "bunk_bed"), "living room": ("sofa", "corner_sofa"),
        "office": ("desk", "dining_table"), "kitchen": ("sink_cabinet",), "bathroom": ("toilet",),
        "dining room": ("dining_table", "small_table"),
    }  # fmt: skip
    for room in rooms:
        assert of_role(room, *needed[room.layout.kind]), room.layout.kind
    assert set(needed) == set(KINDS)


def test_all_roles_have_labels(train_pieces: Pieces, test_pieces: Pieces) -> None:
    assert set(train_pieces.by_role) | set(test_pieces.by_role) <= set(LABELS)


def test_layouts_are_closed_and_their_rectangles_are_the_floor(train_pieces: Pieces) -> None:
    shapes = set()
    for seed in range(40):
        layout = make_layout("living room", train_pieces.by_role, np.random.default_rng(seed))
        area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in layout.rectangles)
        assert area == pytest.approx(layout.floor_area)
        x, y = np.array([wall.start for wall in layout.walls]).T
        assert 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) == pytest.approx(layout.floor_area)
        for wall, following in zip(layout.walls, (*layout.walls[1:], layout.walls[0]), strict=True):
            np.testing.assert_allclose(wall.at(wall.length), following.start, atol=1e-9)
            middle = wall.at(wall.length / 2, 0.1)
            assert layout.contains(Box(*middle, 0.05, 0.05, 0.0, 1.0)), "normals point inwards"
        shapes.add(len(layout.walls))
    assert shapes == {4, 6}


def test_a_kind_that_cannot_be_furnished_is_an_error(train_pieces: Pieces) -> None:
    bare = Pieces.__new__(Pieces)
    bare.__dict__.update(train_pieces.__dict__, by_role={"door": train_pieces.by_role["door"]})
    with pytest.raises(DataError, match="no bedroom could be furnished"):
        furnish("bedroom", bare, np.random.default_rng(0))
