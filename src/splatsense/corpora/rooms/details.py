"""What any room may have: curtains and radiators at windows, pictures, lamps, plants, and small things on tops."""

from splatsense.corpora.rooms import procedural
from splatsense.corpora.rooms.boxes import Box
from splatsense.corpora.rooms.groups import chance
from splatsense.corpora.rooms.pieces import Piece
from splatsense.corpora.rooms.placement import Arrangement, Placed
from splatsense.corpora.rooms.priors import NO_PICTURE_ABOVE, ON_TOP, PICTURES_PER_ROOM

BUSY = 1.3  # factor on how often small things stand about
TABLEWARE = ("cup", "plate", "bottle")
MOST_TABLEWARE, MOST_ALIKE = 4, 2  # of one model in a room
FACING_USER = ("computer", "printer", "photo_frame", "microwave", "toaster", "clock", "coffee_maker", "audio")
"""What stands at the back of its support and faces whoever sits or stands before it."""


def scatter(room: Arrangement, chances: dict[str, float]) -> None:
    """Puts things on the floor near walls, each role with its own probability."""
    for role, probability in chances.items():
        if chance(room, probability):
            piece = room.pick(role)
            if role == "trash_bin" and (piece is None or chance(room, 0.3)):
                piece = procedural.trash_bin(room.rng)
            room.on_floor(piece)


def dress(room: Arrangement) -> None:
    """Adds plants, pictures, lamps, what belongs at windows, and small things on whatever carries some."""
    if room.layout.kind not in ("bathroom", "kitchen"):
        for _ in range(int(room.rng.integers(0, 3))):
            room.against_wall(room.pick("plant"), clear=0.0, corner=True)
        if chance(room, 0.3):
            room.against_wall(room.pick("floor_lamp"), clear=0.0, corner=True)
    _at_windows(room)
    _pictures(room)
    _lamps(room)
    for support in list(room.placed):
        for role, probability in ON_TOP.get(support.piece.role, {}).items():
            if chance(room, BUSY * probability):
                _small(room, support, role)


def _small(room: Arrangement, support: Placed, role: str) -> None:
    """Puts a thing of a role on a support, unless the room has enough of the like."""
    piece = room.pick(role, height=0.75)
    alike = sum(placed.piece == piece for placed in room.placed)
    if piece is None or alike >= (MOST_TABLEWARE if role in TABLEWARE else MOST_ALIKE):
        return
    if role in FACING_USER:
        room.on_top(support, piece, "back", turn=0.0)
        return
    where = "centre" if role in ("vase", "bowl", "small_plant", "food") else "anywhere"
    if room.on_top(support, piece, where) and role in TABLEWARE and chance(room, 0.5):
        room.on_top(support, piece)


def _at_windows(room: Arrangement) -> None:
    """Curtains or a blind at windows, a radiator below them."""
    for opening in room.layout.openings:
        if opening.is_door:
            continue
        wall, (width, _, height) = room.layout.walls[opening.wall], opening.piece.size
        if room.layout.kind not in ("bathroom", "kitchen") and chance(room, 0.55):
            top = min(opening.bottom + height + 0.12, room.layout.size[2] - 0.03)
            low = 0.03 if chance(room, 0.6) else max(opening.bottom - 0.15, 0.03)
            color = procedural.cloth_color(room.rng)
            for side in (-1, 1):
                cloth = procedural.curtain(room.rng, max(0.28, 0.3 * width), top - low, color)
                along = opening.along + side * (width / 2 + 0.02)
                reach = max(0.0, opening.piece.size[1] - opening.piece.wall_depth)  # of handles into the room
                box = room.layout.wall_box(opening.wall, along, cloth, low, 0.02 + reach)
                _hang(room, cloth, box)
        if opening.bottom > 0.6 and room.layout.kind != "kitchen" and chance(room, 0.6):
            piece = room.pick("radiator", width=1.5, height=opening.bottom - 0.1, depth=0.3)
            if piece and abs(opening.along - wall.length / 2) <= (wall.length - piece.size[0]) / 2:
                room.against_wall(piece, clear=0.0, walls=[opening.wall], along=opening.along, bottom=0.1)


def _hang(room: Arrangement, piece: Piece, box: Box) -> None:
    """Hangs something at a window, where the space is kept free of everything else."""
    taken = any(box.overlaps(other.box) for other in room.placed)
    doors = any(box.overlaps(room.layout.keep_clear(opening)) for opening in room.layout.openings if opening.is_door)
    if room.layout.contains(box) and not taken and not doors:
        room.add(piece, box, -2)


def _pictures(room: Arrangement) -> None:
    counts, weights = PICTURES_PER_ROOM
    wanted = int(room.rng.choice(counts, p=weights)) if room.layout.kind != "bathroom" else int(room.rng.integers(2))
    high = [p for p in room.placed if p.box.top > NO_PICTURE_ABOVE and p.support == -1]
    for _ in range(wanted):
        width, height = (float(room.rng.uniform(*bounds)) for bounds in ((0.3, 1.1), (0.3, 0.8)))
        piece = procedural.picture(room.rng, width, height)
        frame = room.pick("picture")
        if frame and chance(room, 0.15):
            piece = frame
        before = len(room.placed)
        done = room.against_wall(piece, clear=0.0, bottom=float(room.rng.uniform(1.35, 1.6)))
        if done:
            x, y = done.box.at(0.0, -0.25)
            reach = Box(x, y, done.box.width, 0.5, 0.0, done.box.top, done.box.yaw)
            if any(reach.overlaps(other.box) for other in high):
                del room.placed[before]
    if chance(room, 0.25):
        room.against_wall(room.pick("wall_clock"), clear=0.0, bottom=1.6)
    if room.layout.kind == "living room" and not any(p.piece.role == "television" for p in room.placed):
        room.against_wall(room.pick("wall_television"), clear=0.0, bottom=1.0)


def _lamps(room: Arrangement) -> None:
    x0, y0, x1, y1 = max(room.layout.rectangles, key=lambda r: (r[2] - r[0]) * (r[3] - r[1]))
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    table = next((p for p in room.placed if p.piece.role == "dining_table"), None)
    if table is not None:
        x, y = table.box.x, table.box.y
    lamp = room.pick("pendant_lamp" if table is not None or chance(room, 0.4) else "ceiling_lamp", "ceiling_lamp")
    if not room.on_ceiling(lamp, x, y):
        room.on_ceiling(room.pick("ceiling_lamp"), x, y)
    if chance(room, 0.2):
        room.against_wall(room.pick("wall_lamp"), clear=0.0, bottom=1.7)
