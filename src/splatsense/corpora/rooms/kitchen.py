"""Kitchens: a run of cabinets with sink and stove along a wall, cabinets and a hood above it, a fridge, perhaps a table.

The modules of a run come from one library, so that their heights match. Where cabinets have no top of their own, a plate is
laid over them. Library cabinets that have one are divided by `parts`, so that the top is labelled counter and the basin sink.
"""

import numpy as np

from splatsense.corpora.rooms import procedural
from splatsense.corpora.rooms.details import scatter
from splatsense.corpora.rooms.groups import chance, dining_group
from splatsense.corpora.rooms.pieces import Piece
from splatsense.corpora.rooms.placement import Arrangement, Placed

TOP_THICKNESS = 0.06  # metres below a cabinet's surface that count as its top
BASIN_DEPTH = 0.25
BARE_TOPS = "SH3D-default"  # the library whose cabinets have no top of their own
MIN_MODULES = 3
WALL_GAP = 0.005  # metres between cabinets and the wall
JOINT = 0.01  # metres between cabinets that one plate covers
UPPER_HEIGHT = 1.45  # metres above the floor at which wall cabinets hang, as the catalogue has them


def furnish_kitchen(room: Arrangement) -> bool:
    """Furnishes a kitchen; False when no run with a sink fits."""
    lengths = np.array([wall.length for wall in room.layout.walls])
    for wall in np.argsort(-lengths, kind="stable"):
        before = len(room.placed), len(room.clearances)
        run = _run(room, int(wall))
        if len(run) >= MIN_MODULES and any(p.piece.role == "sink_cabinet" for p in run):
            break
        del room.placed[before[0] :], room.clearances[before[1] :]
    else:
        return False
    _tops(room, int(wall), run)
    _upper(room, int(wall), run)
    fridge = room.pick("fridge" if chance(room, 0.9) else "small_fridge", "fridge", "small_fridge")
    if not room.against_wall(fridge, clear=0.6, corner=True):
        return False
    for role, probability in (("high_cabinet", 0.4), ("small_fridge", 0.1), ("washing_machine", 0.25), ("shelf", 0.2)):
        if chance(room, probability):
            room.against_wall(room.pick(role), clear=0.4, corner=True)
    if chance(room, 0.75):
        dining_group(room, seats=4)
    scatter(room, {"trash_bin": 0.6, "stool": 0.2, "bar_stool": 0.15, "animal": 0.08, "box": 0.1})
    return True


def _run(room: Arrangement, wall: int) -> list[Placed]:
    """Cabinets along a wall, from its start to its end as far as they fit."""
    lower = room.pick("lower_cabinet")
    if lower is None:
        return []
    library = lower.key.split("_")[0]
    length = room.layout.walls[wall].length
    modules = _modules(room, library, lower, int(length / 0.55))
    run: list[Placed] = []
    along = float(room.rng.uniform(0.005, 0.05)) if chance(room, 0.7) else float(room.rng.uniform(0.005, 0.4 * length))
    for module in modules:
        for piece in (module, lower):
            box = room.layout.wall_box(wall, along + piece.size[0] / 2, piece, 0.0, WALL_GAP)
            placed = room.place(piece, box, 0.6 if piece.role != "high_cabinet" else 0.5, margin=0.0)
            if placed:
                run.append(placed)
                along += piece.size[0] + 0.001
                break
        else:
            along += 0.2
    if run and not any(p.piece.role == "stove" for p in run):
        plain = [p for p in run if p.piece.role == "lower_cabinet" and p.piece.size[0] > 0.57]
        for support in plain[:1]:
            room.on_top(support, room.pick("cooktop"), "centre", turn=0.0)
    return run


def _modules(room: Arrangement, library: str, lower: Piece, count: int) -> list[Piece]:
    """Sink and stove with cabinets between them, in an order that is drawn."""
    of_library = {role: [p for p in room.pieces.by_role.get(role, []) if p.key.startswith(library + "_")]
                  for role in ("lower_cabinet", "sink_cabinet", "stove", "dishwasher")}  # fmt: skip

    def one(role: str) -> list[Piece]:
        choices = of_library[role] or (room.pieces.by_role.get(role, []) if role == "sink_cabinet" else [])
        return [choices[int(room.rng.integers(len(choices)))]] if choices else []

    plain = [one("lower_cabinet")[0] for _ in range(max(2, count - 2))]
    modules = plain[:1] + one("sink_cabinet") + (one("dishwasher") if chance(room, 0.5) else []) + plain[1:2] + one("stove")
    modules += plain[2:] if chance(room, 0.7) else plain[2:3]
    return modules if chance(room, 0.5) else modules[::-1]


def _tops(room: Arrangement, wall: int, run: list[Placed]) -> None:
    """Lays a plate over cabinets without a top of their own, one for neighbours of the same height."""
    color_seed = int(room.rng.integers(2**32))
    spans: list[list[Placed]] = []
    for placed in sorted(run, key=lambda placed: _along(room, wall, placed)):
        bare = placed.piece.role in ("lower_cabinet", "dishwasher") and placed.piece.key.startswith(BARE_TOPS)
        if not bare or any(p.support == room.placed.index(placed) for p in room.placed):
            continue
        start, end = _extent(room, wall, placed)
        last = spans[-1][-1] if spans else None
        if last and start - _extent(room, wall, last)[1] < JOINT and abs(placed.box.top - last.box.top) < 1e-3:
            spans[-1].append(placed)
        else:
            spans.append([placed])
    for span in spans:
        start, end = _extent(room, wall, span[0])[0], _extent(room, wall, span[-1])[1]
        plate = procedural.counter_top(np.random.default_rng(color_seed), end - start, max(p.box.depth for p in span))
        box = room.layout.wall_box(wall, (start + end) / 2, plate, span[0].box.top, WALL_GAP)
        room.place(plate, box, support=room.placed.index(span[0]), margin=0.0)


def _extent(room: Arrangement, wall: int, placed: Placed) -> tuple[float, float]:
    """Where along a wall something begins and ends."""
    middle = _along(room, wall, placed)
    return middle - placed.box.width / 2, middle + placed.box.width / 2


def _upper(room: Arrangement, wall: int, run: list[Placed]) -> None:
    """Wall cabinets above the run, a hood above the stove."""
    hood, library = room.pick("range_hood"), run[0].piece.key.split("_")[0]
    choices = [p for p in room.pieces.by_role.get("upper_cabinet", []) if p.key.startswith(library + "_")]
    cooks = [p for p in room.placed if p.piece.role in ("stove", "cooktop")]
    for stove in cooks[:1]:
        if hood:
            bottom = min(1.6, room.layout.size[2] - hood.size[2] - 0.02)
            along = _along(room, wall, stove)
            room.place(hood, room.layout.wall_box(wall, along, hood, bottom, 0.003), support=-2, margin=0.0)
    for placed in run:
        fitting = [p for p in choices if p.size[0] <= placed.piece.size[0] + 0.02] or choices
        if fitting and chance(room, 0.85):
            piece = fitting[int(room.rng.integers(len(fitting)))]
            box = room.layout.wall_box(wall, _along(room, wall, placed), piece, UPPER_HEIGHT, 0.003)
            room.place(piece, box, support=-2, margin=0.0)


def _along(room: Arrangement, wall: int, placed: Placed) -> float:
    facing = room.layout.walls[wall]
    return float(np.dot(np.subtract((placed.box.x, placed.box.y), facing.start), facing.direction))


def parts(piece: Piece, centroids: np.ndarray) -> np.ndarray:
    """Which role each face of a piece has: its own, "counter" or "sink".

    Args:
        centroids: (F, 3) of its faces, in the piece's frame.
    """
    roles = np.full(len(centroids), piece.role, object)
    bare = piece.role == "lower_cabinet" and piece.key.startswith(BARE_TOPS)
    if bare or piece.role not in ("lower_cabinet", "sink_cabinet"):
        return roles
    below = piece.surface - centroids[:, 2]
    roles[below < TOP_THICKNESS] = "counter"
    if piece.role == "sink_cabinet":
        inner = (abs(centroids[:, 0]) < 0.46 * piece.size[0]) & (abs(centroids[:, 1]) < 0.44 * piece.size[1])
        roles[(below < BASIN_DEPTH) & inner] = "sink"
    return roles
