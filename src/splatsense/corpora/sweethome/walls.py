"""Walls as surfaces: thick lines and arcs, mitred where they join, with openings for doors and windows.

Design
- A wall is a row of segments, one for a straight wall; each has a left and a right line. Where walls join, the lines meet.
- A segment's sides are cut into cells along its length and height at the edges of the openings. Cells within an opening are
  left out, and the rims of the opening are closed between both sides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from splatsense.corpora.sweethome.home import Piece, Wall

ARC_STEP = math.radians(5)
PARALLEL = 1e-3  # sine of the angle below which joined walls run on straight
LONGEST_MITRE = 2.0  # thicknesses that a corner may reach out
SAME_DIRECTION = math.cos(math.radians(15))
REACH = 0.05  # metres between a door and a wall that it still cuts
SMALLEST = 1e-4


@dataclass(frozen=True)
class Opening:
    """What a door or window takes from walls: a rectangle about `center` in the plan, `half` its width along `direction`."""

    center: np.ndarray
    direction: np.ndarray
    half: float
    depth: float
    bottom: float
    top: float


@dataclass(frozen=True)
class Cut:
    """An opening in a segment: from s0 to s1 along it, from z0 to z1 in height."""

    s0: float
    s1: float
    z0: float
    z1: float

    def holds(self, s: float, z: float) -> bool:
        """Whether a place lies in the opening."""
        return bool(self.s0 < s < self.s1 and self.z0 < z < self.z1)


@dataclass(frozen=True)
class Patch:
    """Quads (Q, 4, 3) of one side of a wall and the metres along and up (Q, 4, 2) where a texture lies."""

    side: str
    quads: np.ndarray
    places: np.ndarray


def opening_of(piece: Piece) -> Opening:
    """What a door or window cuts from the walls it stands in."""
    left, width, top, height = piece.opening
    direction = np.array([math.cos(piece.angle), math.sin(piece.angle)])
    shift = (left + width / 2 - 0.5) * piece.size[0] * (-1 if piece.mirrored else 1)
    floor = piece.level.elevation + piece.bottom
    return Opening(
        piece.center + shift * direction,
        direction,
        width * piece.size[0] / 2,
        piece.size[1],
        floor + (1 - top - height) * piece.size[2],
        floor + (1 - top) * piece.size[2],
    )


def outline(wall: Wall, walls: Mapping[str, Wall]) -> tuple[np.ndarray, np.ndarray]:
    """Points along the left and the right side of a wall, (S + 1, 2) each for S segments, joined to its neighbours."""
    middle = _middle_line(wall)
    left, right = _sides(wall, middle)
    for at_start, other_id in ((True, wall.at_start), (False, wall.at_end)):
        other = walls.get(other_id)
        if other is None or other is wall:
            continue
        end = 0 if at_start else -1
        outwards = _unit(middle[0] - middle[1] if at_start else middle[-1] - middle[-2])
        away = _leaving_direction(other, middle[end])
        for side, sign in ((left, -1 if at_start else 1), (right, 1 if at_start else -1)):
            # going outwards, the side on the left stays on the left of the wall that goes on
            begin = middle[end] + sign * other.thickness / 2 * _left_of(away)
            side[end] = _meet(side[end], outwards, begin, away, LONGEST_MITRE * wall.thickness)
    return left, right


def _middle_line(wall: Wall) -> np.ndarray:
    along = wall.end - wall.start
    if abs(wall.arc) < SMALLEST or np.linalg.norm(along) < SMALLEST:
        return np.stack([wall.start, wall.end])
    center = (wall.start + wall.end) / 2 + 0.5 / math.tan(wall.arc / 2) * _left_of(along)
    angles = np.linspace(0, wall.arc, max(2, math.ceil(abs(wall.arc) / ARC_STEP)) + 1)
    x, y = wall.start - center
    return center + np.stack([x * np.cos(angles) - y * np.sin(angles), x * np.sin(angles) + y * np.cos(angles)], axis=1)


def _sides(wall: Wall, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle line moved by half the thickness to both sides; at the joints of an arc along their bisector."""
    directions = np.array([_unit(b - a) for a, b in pairwise(middle)])
    normals = np.stack([-directions[:, 1], directions[:, 0]], axis=1)
    at_points = np.concatenate([normals[:1], (normals[1:] + normals[:-1]) / 2, normals[-1:]])
    at_points /= (at_points**2).sum(1, keepdims=True)
    return middle + wall.thickness / 2 * at_points, middle - wall.thickness / 2 * at_points


def _leaving_direction(wall: Wall, joint: np.ndarray) -> np.ndarray:
    """The direction in which a wall leaves the joint at one of its ends."""
    middle = _middle_line(wall)
    if np.linalg.norm(middle[0] - joint) <= np.linalg.norm(middle[-1] - joint):
        return _unit(middle[1] - middle[0])
    return _unit(middle[-2] - middle[-1])


def _meet(point: np.ndarray, direction: np.ndarray, other: np.ndarray, away: np.ndarray, most: float) -> np.ndarray:
    """Where two lines cross, or `point` where they are parallel or cross further than `most` from it."""
    cross = direction[0] * away[1] - direction[1] * away[0]
    if abs(cross) < PARALLEL:
        return point
    between = other - point
    reach = (between[0] * away[1] - between[1] * away[0]) / cross
    return point + reach * direction if abs(reach) <= most else point


def wall_patches(wall: Wall, walls: Mapping[str, Wall], openings: Sequence[Opening]) -> list[Patch]:
    """The left and right sides, the top and ends, and the rims of the openings of a wall; nothing of one without length."""
    if np.linalg.norm(wall.end - wall.start) < SMALLEST:
        return []
    left, right = outline(wall, walls)
    floor = wall.level.elevation
    lengths = np.r_[0, np.cumsum(np.linalg.norm(np.diff((left + right) / 2, axis=0), axis=1))]
    tops = floor + np.interp(lengths, [0, max(lengths[-1], SMALLEST)], wall.heights)
    patches = []
    for i in range(len(left) - 1):
        segment = _Segment(left[i : i + 2], right[i : i + 2], floor, tops[i : i + 2], lengths[i])
        cuts = [cut for opening in openings if (cut := segment.cut(opening, wall.thickness)) is not None]
        patches += [segment.side(side, cuts) for side in ("left", "right")]
        patches += [segment.top(), segment.rims(cuts)]
    for i, (a, b) in ((0, (left, right)), (-1, (right, left))):
        end = [(*a[i], tops[i]), (*a[i], floor), (*b[i], floor), (*b[i], tops[i])]
        patches.append(_patch("end", [end]))
    return [patch for patch in patches if len(patch.quads)]


class _Segment:
    """A straight piece of a wall, measured by metres `s` along its middle line and height z."""

    def __init__(self, left: np.ndarray, right: np.ndarray, floor: float, tops: np.ndarray, before: float) -> None:
        self.begin = (left[0] + right[0]) / 2
        self.direction = _unit(left[1] - left[0] + right[1] - right[0])
        self.normal = _left_of(self.direction)
        self.span = {"left": (left - self.begin) @ self.direction, "right": (right - self.begin) @ self.direction}
        self.offset = {side: float((line[0] - self.begin) @ self.normal) for side, line in (("left", left), ("right", right))}
        self.floor, self.tops, self.before = floor, tops, before
        self.length = max(self.span["left"][1], self.span["right"][1], SMALLEST)

    def top_at(self, s: float) -> float:
        return float(np.interp(s, [0, self.length], self.tops))

    def place(self, side: str, s: float, z: float) -> tuple[float, float, float]:
        x, y = self.begin + s * self.direction + self.offset[side] * self.normal
        return float(x), float(y), z

    def cut(self, opening: Opening, thickness: float) -> Cut | None:
        """What an opening takes from this segment, or None when it stands in another wall."""
        x, y = opening.center - self.begin
        s, across = (x, y) @ self.direction, (x, y) @ self.normal
        if abs(opening.direction @ self.direction) < SAME_DIRECTION or abs(across) > (thickness + opening.depth) / 2 + REACH:
            return None
        low, high = min(self.span["left"][0], self.span["right"][0]), self.length
        cut = Cut(
            max(s - opening.half, low), min(s + opening.half, high), max(opening.bottom, self.floor),
            min(opening.top, float(self.tops.max())),
        )  # fmt: skip
        return cut if cut.s1 - cut.s0 > SMALLEST and cut.z1 - cut.z0 > SMALLEST else None

    def side(self, side: str, cuts: Sequence[Cut]) -> Patch:
        """The cells of a side that no opening takes."""
        low, high = self.span[side]
        columns = sorted({low, high, *(s for cut in cuts for s in (cut.s0, cut.s1) if low < s < high)})
        rows = sorted({self.floor, *(z for cut in cuts for z in (cut.z0, cut.z1)), float(self.tops.max())})
        quads, places = [], []
        for s0, s1 in pairwise(columns):
            for z0, z1 in pairwise(rows):
                if any(cut.holds((s0 + s1) / 2, (z0 + z1) / 2) for cut in cuts) or z0 >= max(self.top_at(s0), self.top_at(s1)):
                    continue
                corners = [(s, min(z, self.top_at(s))) for s, z in ((s0, z0), (s1, z0), (s1, z1), (s0, z1))]
                corners = corners[::-1] if side == "left" else corners  # seen from outside, counterclockwise
                quads.append([self.place(side, s, z) for s, z in corners])
                places.append([(self.before + s, z - self.floor) for s, z in corners])
        return _patch(side, quads, places)

    def top(self) -> Patch:
        ends = [("right", self.span["right"][0]), ("right", self.span["right"][1]),
                ("left", self.span["left"][1]), ("left", self.span["left"][0])]  # fmt: skip
        return _patch("top", [[self.place(side, s, self.top_at(s)) for side, s in ends]])

    def rims(self, cuts: Sequence[Cut]) -> Patch:
        """The faces between both sides around the openings."""
        quads = []
        for cut in cuts:
            for s, (a, b) in ((cut.s0, ("right", "left")), (cut.s1, ("left", "right"))):
                quads.append([self.place(a, s, cut.z0), self.place(b, s, cut.z0), self.place(b, s, cut.z1),
                              self.place(a, s, cut.z1)])  # fmt: skip
            for z, (a, b), open_end in (
                (cut.z0, ("right", "left"), self.floor),
                (cut.z1, ("left", "right"), float(self.tops.max())),
            ):
                if abs(z - open_end) > SMALLEST:
                    corners = ((a, cut.s0), (a, cut.s1), (b, cut.s1), (b, cut.s0))
                    quads.append([self.place(side, s, z) for side, s in corners])
        return _patch("end", quads)


def _patch(side: str, quads: list, places: list | None = None) -> Patch:
    count = len(quads)
    at = np.array(places) if places else np.zeros((count, 4, 2))
    return Patch(side, np.array(quads, np.float64).reshape(count, 4, 3), at.reshape(count, 4, 2))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _left_of(direction: np.ndarray) -> np.ndarray:
    return np.array([-direction[1], direction[0]])
