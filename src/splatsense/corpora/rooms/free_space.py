"""Where in a furnished room a person can walk, and where a camera in the hand can be."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import binary_dilation, label

from splatsense.corpora.rooms.boxes import Box
from splatsense.corpora.rooms.placement import FLAT_ON_FLOOR, HEADROOM, Arrangement, Placed

WALK_CELL = 0.05  # metres, of the grids
BODY_RADIUS = 0.18  # metres a person keeps from furniture
CAMERA_RADIUS = 0.3  # metres a camera keeps from walls and from what is as high as it is
ARM = 0.4  # metres
CAMERA_HEIGHTS = (1.2, 1.7)  # metres


def walkable(room: Arrangement) -> np.ndarray:
    """(rows, columns) cells, x along columns, that a person who came through the door can stand on."""
    free = _free(room, BODY_RADIUS, BODY_RADIUS, lambda p: p.piece.role not in FLAT_ON_FLOOR and p.box.bottom < HEADROOM - 0.3)
    return _connected_to_door(room, free)


def camera_cells(room: Arrangement) -> np.ndarray:
    """(rows, columns) cells a camera can be in: within reach of where people walk, clear of all that is high, in one piece."""
    high = CAMERA_HEIGHTS[0] - 0.25
    clear = _free(room, CAMERA_RADIUS, CAMERA_RADIUS, lambda p: p.box.top > high and p.box.bottom < HEADROOM)
    reach = binary_dilation(walkable(room), iterations=round(ARM / WALK_CELL))
    groups = _pieces(clear & reach)
    sizes = np.bincount(groups.ravel())
    sizes[0] = 0
    return (groups == sizes.argmax()) & (groups > 0)


def cell_centers(room: Arrangement) -> np.ndarray:
    """(rows, columns, 2) x and y of the grid's cells."""
    columns, rows = (int(np.ceil(side / WALK_CELL)) for side in room.layout.size[:2])
    x, y = np.meshgrid((np.arange(columns) + 0.5) * WALK_CELL, (np.arange(rows) + 0.5) * WALK_CELL)
    return np.stack([x, y], -1)


def inside(points: np.ndarray, box: Box, margin: float) -> np.ndarray:
    """Which (..., 2) points lie over a box's footprint grown by `margin` metres."""
    local = (points - [box.x, box.y]) @ box.axes.T
    return np.asarray((abs(local) < np.array([box.width, box.depth]) / 2 + margin).all(-1))


def _free(room: Arrangement, from_walls: float, from_boxes: float, counts: Callable[[Placed], bool]) -> np.ndarray:
    points = cell_centers(room)
    width, depth, height = room.layout.size
    free = np.asarray(((points > from_walls) & (points < np.array([width, depth]) - from_walls)).all(-1))
    if room.layout.notch is not None:
        x0, y0, x1, y1 = room.layout.notch
        free &= ~inside(points, Box((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0, height), from_walls)
    for placed in room.placed:
        if counts(placed):
            free &= ~inside(points, placed.box, from_boxes)
    return free


def _pieces(free: np.ndarray) -> np.ndarray:
    """The number of the connected piece of free cells each cell belongs to, from 1; 0 for those that are not free."""
    groups = np.zeros(free.shape, np.int32)
    label(free, output=groups)
    return groups


def _connected_to_door(room: Arrangement, free: np.ndarray) -> np.ndarray:
    groups = _pieces(free)
    doors = [opening for opening in room.layout.openings if opening.is_door]
    if not free.any() or not doors:
        return np.zeros_like(free)
    wall = room.layout.walls[doors[0].wall]
    distance = np.linalg.norm(cell_centers(room) - wall.at(doors[0].along, 0.5), axis=-1)
    nearest = np.unravel_index(np.where(free, distance, np.inf).argmin(), free.shape)
    return groups == groups[nearest]
