"""The empty room: its outline, walls, door and windows.

Design
- A room is a rectangle, or an L: a rectangle without one of its corners (the notch). x and y start at its corner, the floor
  is z = 0. Sizes are drawn per kind of room from `priors.KINDS`.
- Doors and windows are pieces set into walls. In front of a door the floor stays free for its swing; in front of a window
  nothing may stand that is higher than its sill.
"""

import math
from dataclasses import dataclass

import numpy as np

from splatsense.corpora.rooms.boxes import Box
from splatsense.corpora.rooms.pieces import Piece
from splatsense.corpora.rooms.priors import KINDS, WINDOWS_PER_ROOM, KindPrior

CORNER_GAP = 0.12  # metres a door or window keeps from the ends of its wall
DOOR_SWING = 0.15  # metres beyond the door leaf's own width that stay free
WINDOW_REACH = 0.3  # metres in front of a window in which nothing stands above its sill


@dataclass(frozen=True)
class Wall:
    """One straight wall: from `start`, `length` metres along `direction`; `normal` points into the room."""

    start: tuple[float, float]
    direction: tuple[float, float]
    length: float

    @property
    def normal(self) -> tuple[float, float]:
        """Unit vector into the room."""
        return -self.direction[1], self.direction[0]

    @property
    def yaw(self) -> float:
        """The turn of a box that stands with its back to the wall."""
        return math.atan2(self.normal[0], -self.normal[1])

    def at(self, along: float, inwards: float = 0.0) -> tuple[float, float]:
        """The room's (x, y) of a point so far along the wall and so far into the room."""
        (x, y), (dx, dy), (nx, ny) = self.start, self.direction, self.normal
        return x + along * dx + inwards * nx, y + along * dy + inwards * ny


@dataclass(frozen=True)
class Opening:
    """A door or window in a wall: `along` is its centre, `bottom` the height of its lower edge."""

    piece: Piece
    wall: int
    along: float
    bottom: float

    @property
    def is_door(self) -> bool:
        """Whether people go through it."""
        return self.piece.role == "door"


@dataclass(frozen=True)
class Layout:
    """An empty room.

    Attributes:
        kind: "bedroom" and so on, a key of `priors.KINDS`.
        size: width (x), depth (y), height in metres.
        notch: the missing corner as (x0, y0, x1, y1), or None.
        walls: counter-clockwise.
        openings: doors and windows.
    """

    kind: str
    size: tuple[float, float, float]
    notch: tuple[float, float, float, float] | None
    walls: tuple[Wall, ...]
    openings: tuple[Opening, ...] = ()

    @property
    def floor_area(self) -> float:
        """Square metres."""
        x0, y0, x1, y1 = self.notch or (0.0, 0.0, 0.0, 0.0)
        return self.size[0] * self.size[1] - (x1 - x0) * (y1 - y0)

    @property
    def rectangles(self) -> list[tuple[float, float, float, float]]:
        """One or two rectangles (x0, y0, x1, y1) that make up the floor."""
        width, depth, _ = self.size
        if self.notch is None:
            return [(0.0, 0.0, width, depth)]
        x0, y0, x1, y1 = self.notch
        across = (0.0, y1, width, depth) if y0 == 0 else (0.0, 0.0, width, y0)
        beside = (x1, y0, width, y1) if x0 == 0 else (0.0, y0, x0, y1)
        return [across, beside]

    def contains(self, box: Box) -> bool:
        """Whether a box lies within the walls, the floor and the ceiling."""
        (x0, y0), (x1, y1) = box.corners.min(0), box.corners.max(0)
        slack = 1e-6
        inside = x0 >= -slack and y0 >= -slack and x1 <= self.size[0] + slack and y1 <= self.size[1] + slack
        inside = inside and box.bottom >= -slack and box.top <= self.size[2] + slack
        return bool(inside) and not (self.notch and box.overlaps(_box_of(self.notch, self.size[2])))

    def wall_box(self, wall: int, along: float, piece: Piece, bottom: float, gap: float = 0.0) -> Box:
        """The box of a piece with its back to a wall, `gap` metres from it."""
        facing = self.walls[wall]
        x, y = facing.at(along, gap + piece.size[1] / 2)
        return Box(x, y, piece.size[0], piece.size[1], bottom, bottom + piece.size[2], facing.yaw)

    def keep_clear(self, opening: Opening) -> Box:
        """The space that stays free for a door's swing, or in front of a window above its sill."""
        wall, (width, _, height) = self.walls[opening.wall], opening.piece.size
        reach = width + DOOR_SWING if opening.is_door else WINDOW_REACH
        x, y = wall.at(opening.along, reach / 2)
        return Box(x, y, width, reach, opening.bottom, min(opening.bottom + height, self.size[2]), wall.yaw)


def _box_of(rectangle: tuple[float, float, float, float], height: float) -> Box:
    x0, y0, x1, y1 = rectangle
    return Box((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0.0, height)


def make_layout(kind: str, pieces: dict[str, list[Piece]], rng: np.random.Generator) -> Layout:
    """Draws an empty room of a kind, with a door and windows out of `pieces`."""
    prior = KINDS[kind]
    width, depth = (float(rng.uniform(*bounds)) for bounds in (prior.long_side, prior.short_side))
    if rng.random() < 0.5:
        width, depth = depth, width
    height = float(rng.uniform(*prior.height))
    notch = _notch(width, depth, prior, rng)
    layout = Layout(kind, (width, depth, height), notch, _walls(width, depth, notch))
    return _with_openings(layout, prior, pieces, rng)


def _notch(width: float, depth: float, prior: KindPrior, rng: np.random.Generator) -> tuple[float, float, float, float] | None:
    if rng.random() >= prior.l_shaped:
        return None
    cut_x, cut_y = width * float(rng.uniform(0.25, 0.42)), depth * float(rng.uniform(0.25, 0.42))
    x0 = 0.0 if rng.random() < 0.5 else width - cut_x
    y0 = 0.0 if rng.random() < 0.5 else depth - cut_y
    return x0, y0, x0 + cut_x, y0 + cut_y


def _walls(width: float, depth: float, notch: tuple[float, float, float, float] | None) -> tuple[Wall, ...]:
    corners = [(0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth)]
    if notch is not None:
        x0, y0, x1, y1 = notch
        at = (0 if x0 == 0 else 1) if y0 == 0 else (3 if x0 == 0 else 2)
        inner = {0: [(x0, y1), (x1, y1), (x1, y0)], 1: [(x0, y0), (x0, y1), (x1, y1)],
                 2: [(x1, y0), (x0, y0), (x0, y1)], 3: [(x1, y1), (x1, y0), (x0, y0)]}[at]  # fmt: skip
        corners = corners[:at] + inner + corners[at + 1 :]
    walls = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = math.hypot(x1 - x0, y1 - y0)
        walls.append(Wall((x0, y0), ((x1 - x0) / length, (y1 - y0) / length), length))
    return tuple(walls)


def _with_openings(layout: Layout, prior: KindPrior, pieces: dict[str, list[Piece]], rng: np.random.Generator) -> Layout:
    wanted = ["door"]
    if prior.windows:
        counts, weights = WINDOWS_PER_ROOM
        wanted += ["window"] * int(rng.choice(counts, p=weights))
    found: list[Opening] = []
    for role in wanted:
        if role == "window" and not any(x.piece.role == "french_window" for x in found) and rng.random() < prior.french_window:
            role = "french_window"
        choices = [piece for piece in pieces.get(role, []) if piece.size[2] + piece.elevation < layout.size[2] - 0.1]
        if choices:
            opening = _place_opening(layout, choices[int(rng.integers(len(choices)))], found, rng)
            found += [opening] if opening else []
    return Layout(layout.kind, layout.size, layout.notch, layout.walls, tuple(found))


def _place_opening(layout: Layout, piece: Piece, found: list[Opening], rng: np.random.Generator) -> Opening | None:
    bottom = 0.0 if piece.role == "door" else piece.elevation
    if piece.role == "french_window":
        bottom = min(bottom, 0.05)
    for _ in range(30):
        wall = int(rng.integers(len(layout.walls)))
        if piece.role != "door" and any(x.wall == wall and x.is_door for x in found):
            continue  # daylight comes from another side than people
        room_for = layout.walls[wall].length / 2 - piece.size[0] / 2 - CORNER_GAP
        if room_for < 0:
            continue
        shift = rng.uniform(-room_for, room_for) * (1.0 if piece.role == "door" else 0.5)
        opening = Opening(piece, wall, layout.walls[wall].length / 2 + float(shift), bottom)
        clear = layout.keep_clear(opening)
        if layout.contains(clear) and not any(clear.overlaps(layout.keep_clear(other), 0.1) for other in found):
            return opening
    return None
