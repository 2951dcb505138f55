"""Things that belong together: seats round a television, chairs round a table, a chair at a desk, a curtain at a bath."""

import math

import numpy as np

from splatsense.corpora.rooms import procedural
from splatsense.corpora.rooms.boxes import Box
from splatsense.corpora.rooms.pieces import Piece
from splatsense.corpora.rooms.placement import Arrangement, Placed
from splatsense.corpora.rooms.priors import SEATS_FACING_TABLE

PULLED_OUT = 0.02  # metres at least between a table's edge and a chair


def chance(room: Arrangement, probability: float) -> bool:
    """True with that probability."""
    return bool(room.rng.random() < probability)


def seating_group(room: Arrangement, sofa: Placed) -> None:
    """Coffee table, armchairs, television and lamps around a sofa, and a rug under the table."""
    rng = room.rng
    corner_sofa = sofa.piece.role == "corner_sofa"
    gap = 0.35 if not corner_sofa else 0.25
    table = room.pick("coffee_table", "bench", "small_table", width=sofa.piece.size[0])
    low = room.in_front(sofa, table, gap, clear=0.0) if chance(room, 0.85) else None
    reach = sofa.box.depth / 2 + gap + (low.box.depth / 2 if low else 0.35)
    if chance(room, 0.6):
        rug(room, sofa.box.at(0, -reach), (1.7, 1.2), sofa.box.yaw)
    for side in (-1, 1):
        chair = room.pick("armchair")
        if chair is None or not chance(room, 0.65):
            continue
        x, y = sofa.box.at(side * ((low.box.width if low else 1.0) / 2 + 0.4 + chair.size[1] / 2), -reach - 0.1)
        turn = -side * (math.pi / 2 - 0.35)  # faces the table, turned a little towards the sofa's view
        box = Box(x, y, chair.size[0], chair.size[1], 0, chair.size[2], sofa.box.yaw + turn + float(rng.normal(0, 0.12)))
        room.place(chair, box, anchor=sofa)
    television(room, sofa)
    for side in (-1, 1):
        if chance(room, 0.3):
            room.beside(sofa, room.pick("floor_lamp", "plant"), side, gap=0.08)
        elif chance(room, 0.25):
            stand = room.beside(sofa, room.pick("nightstand", "small_table", width=0.6), side, gap=0.06)
            if stand:
                room.on_top(stand, room.pick("table_lamp"), "centre")


def television(room: Arrangement, seat: Placed) -> None:
    """A television on a stand at the wall that the seat faces, as near to straight ahead as fits."""
    layout = room.layout
    stand_piece, screen = room.pick("tv_stand", "dresser"), room.pick("television")
    if stand_piece is None or screen is None:
        return
    for wall_index, wall in enumerate(layout.walls):
        if np.dot(wall.normal, seat.box.front) > -0.99:
            continue
        ahead = float(np.dot(np.subtract((seat.box.x, seat.box.y), wall.start), wall.direction))
        for shift in (0.0, 0.25, -0.25, 0.5, -0.5, 0.8, -0.8):
            along = ahead + shift
            if not stand_piece.size[0] / 2 < along < wall.length - stand_piece.size[0] / 2:
                continue
            stand = room.against_wall(stand_piece, clear=0.6, walls=[wall_index], along=along)
            if stand:
                if not room.on_top(stand, screen, "back", turn=0.0):
                    room.on_top(stand, room.pick("television", width=0.8), "back", turn=0.0)
                return


def dining_group(room: Arrangement, seats: int) -> Placed | None:
    """A table with chairs that face it. Seats go to both long sides first, then to the ends."""
    chair = room.pick("chair")
    limit = 2.4 if seats > 4 else 1.75
    table = room.in_middle(room.pick("dining_table", "small_table", width=limit, depth=limit), around=0.75) if chair else None
    if table is None or chair is None:
        return None
    if chance(room, 0.35):
        rug(room, (table.box.x, table.box.y), (table.box.width + 1.2, table.box.depth + 1.2), table.box.yaw)
    width, depth = table.box.width, table.box.depth
    per_side = max(1, int(width // 0.68))
    places = [(0.0, (i - (per_side - 1) / 2) * width / per_side) for i in range(per_side)]
    places = [(turn, right) for turn in (0.0, math.pi) for _, right in places]
    if depth > 0.7:
        places += [(math.pi / 2, 0.0), (-math.pi / 2, 0.0)]
    for turn, along in places:
        if not chance(room, SEATS_FACING_TABLE):
            continue
        askew = float(room.rng.normal(0, 0.1))
        pulled = float(room.rng.uniform(PULLED_OUT, PULLED_OUT + 0.08)) + abs(math.sin(askew)) * chair.size[0] / 2
        out = ((depth if turn in (0.0, math.pi) else width) + chair.size[1]) / 2 + pulled
        yaw = table.box.yaw + turn
        # seen from the table's centre the chair stands at the back of its own yaw, so that its front faces the table
        x = table.box.x - math.sin(yaw) * out + math.cos(yaw) * along
        y = table.box.y + math.cos(yaw) * out + math.sin(yaw) * along
        room.place(chair, Box(x, y, chair.size[0], chair.size[1], 0, chair.size[2], yaw + askew), margin=0.0)
    return table


def desk_group(room: Arrangement, free: bool = False) -> Placed | None:
    """A desk with a chair at it, a computer on it, and what else is on desks."""
    piece = room.pick("desk", "dining_table", width=2.0)
    desk = room.in_middle(piece, around=0.8) if free and chance(room, 0.5) else None
    desk = desk or room.against_wall(piece, clear=0.75)
    if desk is None:
        return None
    chair = room.pick("office_chair" if chance(room, 0.75) else "chair", "chair")
    if chair is not None:
        turn = float(room.rng.normal(0, 0.15))
        gap = PULLED_OUT + abs(math.sin(turn)) * chair.size[0] / 2
        x, y = desk.box.at(float(room.rng.normal(0, 0.1)), -(desk.box.depth / 2 + gap + chair.size[1] / 2))
        yaw = desk.box.yaw + math.pi + turn  # someone who sits at a desk looks the way its back does
        box = Box(x, y, chair.size[0], chair.size[1], 0, chair.size[2], yaw)
        room.place(chair, box, margin=0.0, anchor=desk)
    return desk


def shower_curtain(room: Arrangement, tub: Placed) -> None:
    """A curtain along part of the tub's front edge, inside it."""
    library = room.pick("shower_curtain")
    width = tub.box.width * float(room.rng.uniform(0.3, 0.55))
    piece = (
        library
        if library and chance(room, 0.5)
        else procedural.curtain(room.rng, width, 1.75, procedural.cloth_color(room.rng), "shower_curtain")
    )
    side = 1 if chance(room, 0.5) else -1
    bottom = tub.box.top + 0.01
    if bottom + piece.size[2] > room.layout.size[2] - 0.05:
        return
    x, y = tub.box.at(side * (tub.box.width - piece.size[0]) / 2, -(tub.box.depth / 2 - piece.size[1] / 2 - 0.02))
    box = Box(x, y, piece.size[0], piece.size[1], bottom, bottom + piece.size[2], tub.box.yaw)
    room.place(piece, box, support=-2, margin=0.0)


def hang_above(room: Arrangement, anchor: Placed, piece: Piece, bottom: float) -> Placed | None:
    """Hangs a piece on the wall behind another, centred over it."""
    x, y = anchor.box.at(0.0, anchor.box.depth / 2 + _wall_gap(room, anchor) - piece.size[1] / 2 - 0.003)
    box = Box(x, y, piece.size[0], piece.size[1], bottom, bottom + piece.size[2], anchor.box.yaw)
    return room.place(piece, box, support=-2, margin=0.0)


def _wall_gap(room: Arrangement, anchor: Placed) -> float:
    """Metres between the back of what stands against a wall and that wall."""
    back = np.array(anchor.box.at(0.0, anchor.box.depth / 2))
    walls = [wall for wall in room.layout.walls if np.dot(wall.normal, anchor.box.front) > 0.99]
    return min((abs(float(np.dot(back - wall.start, wall.normal))) for wall in walls), default=0.0)


def rug(room: Arrangement, center: tuple[float, float], size: tuple[float, float], yaw: float) -> None:
    """A rug under a group, from the library or woven, as large as fits."""
    for scale in (1.0, 0.85, 0.7):
        piece = procedural.rug(room.rng, size[0] * scale, size[1] * scale)
        if room.place(piece, Box(*center, piece.size[0], piece.size[1], 0.0, piece.size[2], yaw)):
            return


def rug_before(room: Arrangement, anchor: Placed, probability: float) -> None:
    """Perhaps a rug at the front of something, such as the foot of a bed."""
    if chance(room, probability):
        piece = room.pick("rug") if chance(room, 0.25) else None
        piece = piece or procedural.rug(room.rng, 1.4, 0.9)
        room.in_front(anchor, piece, 0.1, turn=0.0)
