"""Furnishing: one function per kind of room, from the pieces that make it that kind to the small things on top.

`furnish` draws layouts and arrangements until one has what its kind needs and people can still walk through it.
"""

from collections.abc import Callable

import numpy as np

from splatsense.corpora.rooms import procedural
from splatsense.corpora.rooms.details import dress, scatter
from splatsense.corpora.rooms.free_space import WALK_CELL, walkable
from splatsense.corpora.rooms.groups import (
    chance,
    desk_group,
    dining_group,
    hang_above,
    rug_before,
    seating_group,
    shower_curtain,
)  # fmt: skip
from splatsense.corpora.rooms.kitchen import furnish_kitchen
from splatsense.corpora.rooms.layout import make_layout
from splatsense.corpora.rooms.pieces import Piece, Pieces
from splatsense.corpora.rooms.placement import Arrangement
from splatsense.errors import DataError

ATTEMPTS = 60
MIN_WALKABLE = 0.22  # of the floor area that must be one connected piece a person can walk on


def furnish(kind: str, pieces: Pieces, rng: np.random.Generator) -> Arrangement:
    """A furnished room of a kind.

    Raises:
        DataError: none of many attempts came out right, as happens when `pieces` lacks what the kind needs.
    """
    for _ in range(ATTEMPTS):
        room = Arrangement(make_layout(kind, pieces.by_role, rng), pieces, rng)
        if not any(opening.is_door for opening in room.layout.openings):
            continue
        if not FURNISH[kind](room):
            continue
        dress(room)
        if walkable(room).sum() * WALK_CELL**2 >= MIN_WALKABLE * room.layout.floor_area:
            return room
    raise DataError(f"no {kind} could be furnished from the {pieces.split} pieces; is the furniture corpus complete?")


def _bedroom(room: Arrangement) -> bool:
    for bed in _beds(room):
        placed = room.against_wall(bed, clear=0.5)
        if placed:
            break
    else:
        return False
    for side in (-1, 1):
        if chance(room, 0.8):
            stand = room.beside(placed, room.pick("nightstand"), side, gap=float(room.rng.uniform(0.03, 0.1)))
            if stand and chance(room, 0.65):
                room.on_top(stand, room.pick("table_lamp", height=0.75), "centre")
    room.against_wall(room.pick("wardrobe", "cabinet", height=room.layout.size[2] - 0.05), clear=0.6, corner=True)
    if chance(room, 0.6):
        room.against_wall(room.pick("dresser", "tv_stand"), clear=0.5)
    if chance(room, 0.45):
        desk_group(room)
    if chance(room, 0.3):
        room.against_wall(room.pick("bookcase", "shelf", width=1.2), clear=0.4)
    if chance(room, 0.25):
        room.against_wall(room.pick("armchair"), clear=0.4, corner=True)
    if chance(room, 0.1):
        room.against_wall(room.pick("crib"), clear=0.4)
    if chance(room, 0.1):
        room.against_wall(room.pick("dressing_table"), clear=0.6)
    rug_before(room, placed, 0.5)
    scatter(room, {"suitcase": 0.06, "shoes": 0.3, "bag": 0.2, "box": 0.15, "toy": 0.15, "guitar": 0.1, "ball": 0.1,
                     "clothes_rack": 0.1, "laundry_basket": 0.2, "animal": 0.06, "trash_bin": 0.2})  # fmt: skip
    return True


def _beds(room: Arrangement) -> list[Piece]:
    """Beds to try, those that suit the room first."""
    small = room.layout.floor_area < 11 or chance(room, 0.25)
    roles = ["single_bed", "double_bed"] if small else ["double_bed", "single_bed"]
    if chance(room, 0.12):
        roles.insert(0, "bunk_bed")
    return [bed for role in roles for bed in (room.pick(role), room.pick(role)) if bed]


def _living_room(room: Arrangement) -> bool:
    sofa = room.against_wall(room.pick("corner_sofa" if chance(room, 0.25) else "sofa", "sofa"), clear=0.9)
    if sofa is None:
        return False
    seating_group(room, sofa)
    for role, probability in (("bookcase", 0.65), ("shelf", 0.3), ("dresser", 0.25), ("floor_lamp", 0.3), ("bench", 0.15)):
        if chance(room, probability):
            room.against_wall(room.pick(role), clear=0.4)
    if room.layout.floor_area > 17 and chance(room, 0.6):
        dining_group(room, seats=4)
    if chance(room, 0.35):
        room.against_wall(room.pick("cabinet", "dresser"), clear=0.5)
    if chance(room, 0.12):
        room.against_wall(room.pick("fireplace"), clear=0.8)
    if chance(room, 0.15):
        room.against_wall(room.pick("piano"), clear=0.7)
    if chance(room, 0.25):
        desk_group(room)
    scatter(room, {"floor_vase": 0.15, "toy": 0.15, "guitar": 0.15, "ottoman": 0.2, "bag": 0.15, "box": 0.1, "animal": 0.1,
                     "stool": 0.15, "trash_bin": 0.15})  # fmt: skip
    return True


def _dining_room(room: Arrangement) -> bool:
    table = dining_group(room, seats=6)
    if table is None:
        return False
    for role, probability in (("cabinet", 0.6), ("dresser", 0.6), ("bookcase", 0.3), ("piano", 0.15), ("sofa", 0.2)):
        if chance(room, probability):
            room.against_wall(room.pick(role), clear=0.4)
    scatter(room, {"floor_vase": 0.2, "animal": 0.1, "toy": 0.1, "box": 0.1})
    return True


def _office(room: Arrangement) -> bool:
    wanted = 1 + int(room.layout.floor_area > 11) + int(room.layout.floor_area > 17)
    desks = [desk_group(room, free=True) for _ in range(wanted)]
    if not any(desks):
        return False
    for role, probability in (("bookcase", 0.75), ("shelf", 0.4), ("cabinet", 0.4), ("file_cabinet", 0.5), ("sofa", 0.15),
                              ("armchair", 0.25), ("whiteboard", 0.4), ("water_cooler", 0.25), ("safe", 0.15)):  # fmt: skip
        if chance(room, probability):
            room.against_wall(room.pick(role), clear=0.4)
    if room.layout.floor_area > 14 and chance(room, 0.35):
        dining_group(room, seats=4)
    scatter(room, {"box": 0.35, "bag": 0.25, "suitcase": 0.06, "trash_bin": 0.6, "guitar": 0.05})
    return True


def _bathroom(room: Arrangement) -> bool:
    rng = room.rng
    if chance(room, 0.7):
        tub = room.against_wall(room.pick("bathtub") if chance(room, 0.6) else procedural.bathtub(rng), clear=0.35, corner=True)
        tub = tub or room.against_wall(procedural.bathtub(rng), clear=0.35, corner=True)
    else:
        tub = room.against_wall(room.pick("shower"), clear=0.5, corner=True)
    toilet = room.against_wall(room.pick("toilet"), clear=0.4)
    basin_piece = room.pick("washbasin")
    basin = room.against_wall(basin_piece, clear=0.5, bottom=0.0)
    if toilet is None or basin is None or tub is None:
        return False
    if basin.piece.size[2] < 1.2:
        hang_above(room, basin, procedural.mirror(rng, float(rng.uniform(0.45, 0.8)), float(rng.uniform(0.6, 0.9))), 1.15)
    if tub.piece.role == "bathtub" and chance(room, 0.6):
        shower_curtain(room, tub)
    for role, probability in (("washing_machine", 0.45), ("towel_radiator", 0.4), ("dresser", 0.1), ("shelf", 0.25)):
        if chance(room, probability):
            room.against_wall(room.pick(role, width=0.9), clear=0.35)
    for role, bottom in (("towel", 1.1), ("toilet_paper", 0.65)):
        if chance(room, 0.7):
            room.against_wall(room.pick(role), clear=0.0, bottom=bottom)
    scatter(room, {"laundry_basket": 0.35, "trash_bin": 0.4, "shoes": 0.1})
    if chance(room, 0.6):
        anchor = tub if chance(room, 0.5) else basin
        mat = procedural.bath_mat(rng) if chance(room, 0.5) else (room.pick("bath_mat") or procedural.bath_mat(rng))
        room.in_front(anchor, mat, 0.05, turn=0.0)
    return True


FURNISH: dict[str, Callable[[Arrangement], bool]] = {
    "living room": _living_room, "bedroom": _bedroom, "office": _office, "kitchen": furnish_kitchen, "bathroom": _bathroom,
    "dining room": _dining_room,
}  # fmt: skip
