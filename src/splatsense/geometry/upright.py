"""Which axis of a room points up, from its points and their normals.

Design
- Three things tell the floor from the walls and the ceiling: it is seen whole, while the ceiling often is not; what stands in
  the room stands on it; and rooms are wider than high. `_scores` adds them up for either end of every axis; on 81
  synthetic rooms the floor had the highest sum every time.
- The axis that is usual wins unless another is clearly better, so a shape that is no room stays as it is.
- `is_room` is for assets of any kind: it asks for the size of a room in metres, a floor, and things that stand on it.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
AXES: dict[Axis, tuple[int, float]] = {
    "x": (0, 1.0), "y": (1, 1.0), "z": (2, 1.0), "-x": (0, -1.0), "-y": (1, -1.0), "-z": (2, -1.0),
}  # fmt: skip
"""Axis and sign of what points up."""
Up = Literal["auto", "x", "y", "z", "-x", "-y", "-z"]
"""What users say: an axis, or that it is to be found out."""
MOST_POINTS = 100_000  # that are looked at
OUTLIERS = 0.005  # of the points at both ends of an axis do not count for the size
PLANE, ALIGNED = 0.05, 0.9  # thickness of a floor in sides of the box; cosine of a normal along an axis
CELLS = 12  # along each side of the grid by which it is measured how much of a side of the box is seen
CLEARLY = 0.5  # how much better than the usual axis another must score
LEAST_SIDE, MOST_HEIGHT = 2.0, 10.0  # metres of rooms and halls
LEAST_FLOOR, LEAST_INSIDE = 0.5, 0.02  # seen share of the floor; share of the points that lie at no side of the box


def detect_up(coord: Float[np.ndarray, "n 3"], normal: Float[np.ndarray, "n 3"], usual: Axis = "z") -> Axis:
    """Which axis of a scan points up: the usual one, unless the floor is clearly across another.

    Args:
        coord: points.
        normal: of unit length, with either sign; zero where unknown.
        usual: what to say in doubt.
    """
    scores = _scores(*_measured(coord, normal))
    best = max(scores, key=lambda axis: scores[axis])
    return best if scores[best] > scores[usual] + CLEARLY else usual


def turn_to_z(up: Axis) -> Float64[np.ndarray, "3 3"]:
    """The quarter turns that bring the axis that points up to z: `coord @ turn.T`. The other axes follow in cyclic order."""
    axis, sign = AXES[up]
    turn = np.zeros((3, 3))
    turn[2, axis] = sign
    turn[0, (axis + 1) % 3] = sign  # turned round with the axis up, so that the turn is no reflection
    turn[1, (axis + 2) % 3] = 1
    return turn


def is_room(coord: Float[np.ndarray, "n 3"], normal: Float[np.ndarray, "n 3"], up: Axis) -> bool:
    """Whether points in metres are a room with this axis up: its size, a floor, and things that stand on it."""
    side, covered, inside = _measured(coord, normal)
    axis, sign = AXES[up]
    return bool(
        side.min() >= LEAST_SIDE
        and side[axis] <= MOST_HEIGHT
        and covered[axis, 0 if sign > 0 else 1] >= LEAST_FLOOR
        and len(inside) >= LEAST_INSIDE * min(len(coord), MOST_POINTS)
    )


def _measured(coord: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sides of the box (3,); seen share of its low and high side across each axis (3, 2); places (m, 3) inside it in [0, 1]."""
    rows = slice(None, None, -(-len(coord) // MOST_POINTS))
    coord, normal = coord[rows].astype(np.float64), normal[rows]
    low, high = np.quantile(coord, [OUTLIERS, 1 - OUTLIERS], axis=0)
    side = np.maximum(high - low, 1e-9)
    place = (coord - low) / side
    at_end = np.stack([place < PLANE, place > 1 - PLANE], axis=-1)
    covered = np.zeros((3, 2))
    for axis in range(3):
        cell = np.clip((np.delete(place, axis, 1) * CELLS).astype(int), 0, CELLS - 1) @ (CELLS, 1)
        for end in (0, 1):
            plane = at_end[:, axis, end] & (np.abs(normal[:, axis]) > ALIGNED)
            covered[axis, end] = len(np.unique(cell[plane])) / CELLS**2
    return side, covered, place[~at_end.any((1, 2))]


def _scores(side: np.ndarray, covered: np.ndarray, inside: np.ndarray) -> dict[Axis, float]:
    middle = np.median(inside, axis=0) if len(inside) else np.full(3, 0.5)
    scores: dict[Axis, float] = {}
    for name, (axis, sign) in AXES.items():
        floor, ceiling = covered[axis] if sign > 0 else covered[axis, ::-1]
        scores[name] = float(floor - ceiling + sign * (1 - 2 * middle[axis]) - np.log(side[axis] / side.min()))
    return scores
