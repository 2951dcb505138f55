"""Where cameras stand in a home: at eye height in its rooms, clear of walls and tall furniture, looking all round.

Each room gets up to three places, the first in the middle and the others as far as can be from those before. From each, cameras
look a little downwards in the three of six headings in which the room reaches furthest, so that few of them face a bare wall. A
home without rooms is taken for one room as large as all its walls and furniture.
"""

import math

import numpy as np
import torch

from splatsense.cameras import Cameras
from splatsense.corpora.scannet import evenly
from splatsense.corpora.sweethome.home import Home, Level, Piece, Room, Wall
from splatsense.corpora.sweethome.polygons import distance_inside, signed_area

EYE_HEIGHT, DOWNWARDS = 1.5, math.radians(12)
FROM_EDGES, FROM_THINGS = 0.4, 0.2  # metres that a camera keeps, where there is room
OBSTACLE_HEIGHT = 1.2  # furniture that reaches above this bars a camera
GRID = 0.1
PLACES_PER_ROOM, HEADINGS, HEADINGS_KEPT = 3, 6, 3
SMALLEST_ROOM = 1.0  # square metres
APART = 1.0  # metres between the places of a room


def home_cameras(home: Home, count: int, width: int, height: int, fov: float) -> Cameras | None:
    """At most `count` cameras in the rooms of a home, evenly over its places; None where no camera can stand.

    Args:
        width: of the images, in pixels.
        height: of the images, in pixels.
        fov: vertical field of view in degrees.
    """
    eyes, targets = [], []
    for room in home.rooms or _whole_home(home):
        if abs(signed_area(room.points)) < SMALLEST_ROOM:
            continue
        for index, place in enumerate(camera_places(room, home)):
            eye = np.array([*place, room.level.elevation + EYE_HEIGHT])
            angles = (np.arange(HEADINGS) + 0.5 * (index % 2)) * (2 * math.pi / HEADINGS)
            ahead = np.stack([np.cos(angles), np.sin(angles), np.full(HEADINGS, -math.tan(DOWNWARDS))], axis=1)
            sight = _sight(room.points, place, ahead[:, :2])
            kept = np.sort(np.argsort(-sight, kind="stable")[:HEADINGS_KEPT])
            eyes += [eye] * len(kept)
            targets += list(eye + ahead[kept])
    chosen = evenly(len(eyes), count)
    if not chosen:
        return None
    eye, target = (torch.from_numpy(np.array(rows)[chosen]).float() for rows in (eyes, targets))
    return Cameras.look_at(eye, target, torch.tensor([0.0, 0.0, 1.0]), width, height, fov)


def camera_places(room: Room, home: Home) -> np.ndarray:
    """(P, 2) places in the plan of a room, none where everything is barred."""
    low, high = room.points.min(0), room.points.max(0)
    axes = [np.arange(low[i] + GRID / 2, high[i], GRID) for i in (0, 1)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    clearance = distance_inside(room.points, grid)
    for wall in home.walls:
        if wall.level == room.level:
            clearance = np.minimum(clearance, _distance_to_wall(wall, grid))
    for piece in home.pieces:
        if piece.level == room.level and not piece.is_door_or_window and piece.bottom + piece.size[2] > OBSTACLE_HEIGHT:
            clearance[_is_at(piece, grid)] = -np.inf
    free = clearance >= min(FROM_EDGES, float(clearance.max(initial=0)))
    grid, clearance = grid[free & (clearance > 0)], clearance[free & (clearance > 0)]
    if not len(grid):
        return grid
    chosen = [int(clearance.argmax())]
    distance = np.linalg.norm(grid - grid[chosen[0]], axis=1)
    while len(chosen) < PLACES_PER_ROOM and distance.max() >= APART:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(grid - grid[chosen[-1]], axis=1))
    return grid[chosen]


def _sight(polygon: np.ndarray, place: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(D,) distance from a place to the edge of a polygon in directions (D, 2)."""
    begin, along = polygon - place, np.roll(polygon, -1, axis=0) - polygon
    across = directions[:, None, 0] * along[:, 1] - directions[:, None, 1] * along[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (begin[:, 0] * along[:, 1] - begin[:, 1] * along[:, 0]) / across
        share = (begin[:, 0] * directions[:, None, 1] - begin[:, 1] * directions[:, None, 0]) / across
    hits = (distance > 0) & (share >= 0) & (share <= 1)
    return np.where(hits, distance, np.inf).min(1)


def _distance_to_wall(wall: Wall, points: np.ndarray) -> np.ndarray:
    along = wall.end - wall.start
    share = np.clip((points - wall.start) @ along / max(float(along @ along), 1e-12), 0, 1)
    return np.linalg.norm(points - wall.start - share[:, None] * along, axis=1) - wall.thickness / 2


def _is_at(piece: Piece, points: np.ndarray) -> np.ndarray:
    """Whether points are over a piece, or so near that it would fill the image."""
    direction = np.array([math.cos(piece.angle), math.sin(piece.angle)])
    away = points - piece.center
    along, across = away @ direction, away @ np.array([-direction[1], direction[0]])
    return (np.abs(along) < piece.size[0] / 2 + FROM_THINGS) & (np.abs(across) < piece.size[1] / 2 + FROM_THINGS)


def _whole_home(home: Home) -> list[Room]:
    """One room as large as the walls and furniture of the first level that has some."""
    levels: list[Level] = [thing.level for thing in (*home.walls, *home.pieces)]
    if not levels:
        return []
    level = levels[0]
    points = [point for wall in home.walls if wall.level == level for point in (wall.start, wall.end)]
    points += [piece.center for piece in home.pieces if piece.level == level]
    (x0, y0), (x1, y1) = np.min(points, axis=0), np.max(points, axis=0)
    return [Room("", level, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), None, None)]
