"""Where things stand: against walls, beside and in front of each other, on top, on walls; never through one another.

Design
- `Arrangement` holds a room and what stands in it. Every way to place something draws positions until one fits, and returns
  None when none did, so that a room is never made wrong to get it full.
- Something fits when its box lies in the room, overlaps no other box, and neither it nor the space that must stay free in
  front of it is in another's way. Rugs lie under other things; those stand on the floor through them.
- Things on top stand on the surface that the support's own mesh has there, not on its box.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from splatsense.corpora.rooms.boxes import Box
from splatsense.corpora.rooms.layout import Layout
from splatsense.corpora.rooms.pieces import TOP_CELL, Piece, Pieces, standing_places

TRIES = 40
HEADROOM = 1.9  # metres; what hangs higher is in nobody's way
FLAT_ON_FLOOR = ("rug", "bath_mat")
GAP = 0.01  # metres between things side by side
STAND_MARGIN = 0.004  # metres a thing keeps from the edge of what it stands on, on each side


@dataclass(frozen=True)
class Placed:
    """A piece in the room.

    Attributes:
        piece: what it is.
        box: where it stands.
        support: row in `Arrangement.placed` of what it stands on; -1 the floor, -2 it hangs on a wall or from the ceiling.
    """

    piece: Piece
    box: Box
    support: int = -1


class Arrangement:
    """A room while it is furnished."""

    def __init__(self, layout: Layout, pieces: Pieces, rng: np.random.Generator) -> None:
        self.layout, self.pieces, self.rng = layout, pieces, rng
        self.placed: list[Placed] = []
        self.clearances: list[tuple[Placed | None, Box]] = [(None, layout.keep_clear(x)) for x in layout.openings]

    def pick(self, *roles: str, width: float = math.inf, depth: float = math.inf, height: float = math.inf) -> Piece | None:
        """A random piece of the first role that has one of at most that size."""
        for role in roles:
            limits = (width, depth, height)
            choices = [p for p in self.pieces.by_role.get(role, []) if all(a <= b for a, b in zip(p.size, limits, strict=True))]
            if choices:
                return choices[int(self.rng.integers(len(choices)))]
        return None

    def fits(
        self, piece: Piece, box: Box, clearance: Box | None = None, margin: float = 0.0, anchor: "Placed | None" = None
    ) -> bool:
        """Whether a piece may stand there, `margin` metres from others; it may stand in the space in front of `anchor`."""
        if not self.layout.contains(box) or (clearance is not None and not self.layout.contains(clearance)):
            return False
        flat = piece.role in FLAT_ON_FLOOR
        for other in self.placed:
            if flat and other.piece.role not in FLAT_ON_FLOOR:
                continue
            if other.piece.role in FLAT_ON_FLOOR and not flat:
                continue
            if box.overlaps(other.box, margin) or (clearance is not None and clearance.overlaps(other.box)):
                return False
        return flat or not any(box.overlaps(space) for owner, space in self.clearances if owner is not anchor or owner is None)

    def add(self, piece: Piece, box: Box, support: int = -1, clearance: Box | None = None) -> Placed:
        """Puts a piece there, unconditionally."""
        self.placed.append(Placed(piece, box, support))
        if clearance is not None:
            self.clearances.append((self.placed[-1], clearance))
        return self.placed[-1]

    def place(
        self, piece: Piece | None, box: Box, clear: float = 0.0, support: int = -1, margin: float = GAP,
        anchor: Placed | None = None,
    ) -> Placed | None:  # fmt: skip
        """Puts a piece there with `clear` metres free in front of it, if it fits."""
        clearance = front_of(box, clear) if clear > 0 else None
        if piece is None or not self.fits(piece, box, clearance, margin, anchor):
            return None
        return self.add(piece, box, support, clearance)

    def against_wall(
        self, piece: Piece | None, clear: float = 0.5, bottom: float = 0.0, corner: bool = False,
        walls: Sequence[int] | None = None, along: float | None = None,
    ) -> Placed | None:  # fmt: skip
        """Puts a piece with its back to a wall.

        Args:
            clear: metres in front of it that stay free.
            bottom: height of its base; what is above 0 hangs on the wall.
            corner: prefer the ends of walls.
            walls: those to choose from, all by default.
            along: where on the wall; drawn by default.
        """
        if piece is None:
            return None
        choices = list(range(len(self.layout.walls))) if walls is None else list(walls)
        lengths = np.array([self.layout.walls[i].length for i in choices])
        choices = [i for i, length in zip(choices, lengths, strict=True) if length >= piece.size[0]]
        if not choices:
            return None
        for _ in range(TRIES):
            wall = choices[int(self.rng.integers(len(choices)))]
            room_for = self.layout.walls[wall].length - piece.size[0]
            share = float(self.rng.random()) if not corner else float(self.rng.integers(2)) + float(self.rng.normal(0, 0.02))
            gap = float(self.rng.uniform(0.005, 0.03)) if bottom == 0 else 0.003
            position = piece.size[0] / 2 + min(max(share, 0.005), 0.995) * room_for if along is None else along
            box = self.layout.wall_box(wall, position, piece, bottom, gap)
            done = self.place(piece, box, clear if bottom < HEADROOM else 0.0, -1 if bottom == 0 else -2, 0.0)
            if done:
                return done
        return None

    def beside(self, anchor: Placed, piece: Piece | None, side: int, gap: float = 0.05, back: bool = True) -> Placed | None:
        """Puts a piece to the left (side -1) or right (1) of another, backs in line, facing the same way."""
        if piece is None:
            return None
        right = side * (anchor.box.width / 2 + gap + piece.size[0] / 2)
        x, y = anchor.box.at(right, (anchor.box.depth - piece.size[1]) / 2 if back else 0.0)
        box = Box(x, y, piece.size[0], piece.size[1], 0.0, piece.size[2], anchor.box.yaw)
        return self.place(piece, box, margin=0.0)

    def in_front(
        self, anchor: Placed, piece: Piece | None, gap: float, turn: float = math.pi, right: float = 0.0, clear: float = 0.0
    ) -> Placed | None:
        """Puts a piece in front of another, `turn` radians off its direction: pi faces it, 0 looks away from it."""
        if piece is None:
            return None
        x, y = anchor.box.at(right, -(anchor.box.depth / 2 + gap + piece.size[1] / 2))
        box = Box(x, y, piece.size[0], piece.size[1], 0.0, piece.size[2], anchor.box.yaw + turn)
        return self.place(piece, box, clear, margin=0.0, anchor=anchor)

    def in_middle(self, piece: Piece | None, around: float) -> Placed | None:
        """Puts a piece away from walls with `around` metres free on all sides, parallel to the walls."""
        if piece is None:
            return None
        for _ in range(TRIES):
            x0, y0, x1, y1 = self.layout.rectangles[int(self.rng.integers(len(self.layout.rectangles)))]
            x, y = (float(a + (b - a) * self.rng.uniform(0.3, 0.7)) for a, b in ((x0, x1), (y0, y1)))
            yaw = float(self.rng.integers(4)) * math.pi / 2
            box = Box(x, y, piece.size[0], piece.size[1], 0.0, piece.size[2], yaw)
            grown = replace(box, width=box.width + 2 * around, depth=box.depth + 2 * around)
            if self.fits(piece, grown):
                return self.add(piece, box)
        return None

    def on_floor(self, piece: Piece | None, tries: int = TRIES) -> Placed | None:
        """Puts a small thing anywhere on the floor near a wall, turned at random."""
        for _ in range(tries if piece else 0):
            assert piece is not None
            wall = self.layout.walls[int(self.rng.integers(len(self.layout.walls)))]
            reach = max(piece.size[:2]) / 2
            x, y = wall.at(float(self.rng.uniform(0, wall.length)), reach + float(self.rng.uniform(0.03, 0.35)))
            box = Box(x, y, piece.size[0], piece.size[1], 0.0, piece.size[2], float(self.rng.uniform(0, 2 * math.pi)))
            done = self.place(piece, box)
            if done:
                return done
        return None

    def on_top(self, support: Placed, piece: Piece | None, where: str = "anywhere", turn: float | None = None) -> Placed | None:
        """Puts a piece on a surface of another.

        Args:
            where: "anywhere", "back" or "centre" of the support.
            turn: radians off the support's direction; drawn by default.
        """
        if piece is None:
            return None
        turn = float(self.rng.normal(0, 0.25)) if turn is None else turn
        cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
        reach = (piece.size[0] * cos + piece.size[1] * sin, piece.size[0] * sin + piece.size[1] * cos)
        places = standing_places(self.pieces.top(support.piece), reach[0] + 2 * STAND_MARGIN, reach[1] + 2 * STAND_MARGIN)
        rows, columns = np.nonzero(~np.isnan(places))
        if not len(rows):
            return None
        right = (columns + 0.5) * TOP_CELL - support.box.width / 2
        back = (rows + 0.5) * TOP_CELL - support.box.depth / 2
        cost = {"anywhere": np.zeros(len(rows)), "back": -back + 0.3 * abs(right), "centre": np.hypot(right, back)}[where]
        order = np.argsort(cost + self.rng.uniform(0, 0.2 if where != "anywhere" else 1.0, len(rows)), kind="stable")
        row_of = next(i for i, other in enumerate(self.placed) if other is support)
        for i in order[:TRIES]:
            x, y = support.box.at(float(right[i]), float(back[i]))
            bottom = support.box.bottom + float(places[rows[i], columns[i]])
            box = Box(x, y, piece.size[0], piece.size[1], bottom, bottom + piece.size[2], support.box.yaw + turn)
            if self._fits_on(row_of, piece, box):
                return self.add(piece, box, row_of)
        return None

    def _fits_on(self, support: int, piece: Piece, box: Box) -> bool:
        """`fits`, but for the support itself, whose box may reach above the surface."""
        others = [other for i, other in enumerate(self.placed) if i != support]
        return self.layout.contains(box) and not any(
            box.overlaps(other.box, 0.005) for other in others if other.piece.role not in FLAT_ON_FLOOR
        ) and not any(box.overlaps(space) for owner, space in self.clearances if owner is None)  # fmt: skip

    def on_ceiling(self, piece: Piece | None, x: float, y: float) -> Placed | None:
        """Hangs a piece from the ceiling, shortened by nothing: it must leave headroom."""
        if piece is None or self.layout.size[2] - piece.size[2] < HEADROOM - 0.25:
            return None
        top = self.layout.size[2] - 0.002
        return self.place(piece, Box(x, y, piece.size[0], piece.size[1], top - piece.size[2], top), support=-2)


def front_of(box: Box, reach: float) -> Box:
    """The space in front of a box, `reach` metres deep, up to head height."""
    x, y = box.at(0.0, -(box.depth + reach) / 2)
    return Box(x, y, box.width, reach, box.bottom, max(box.top, min(HEADROOM, box.bottom + HEADROOM)), box.yaw)
