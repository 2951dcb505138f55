"""A camera carried through a room by hand: where it goes, what it looks at, how it shakes.

Design
- The camera is carried 1.2 to 1.7 m high through cells within an arm's length of where a person can walk, clear of walls and of
  whatever is as high as it is (`free_space.camera_cells`). It visits places spread over them, on shortest ways, smoothed.
- Every few frames it turns to what it has looked at least so far, pieces before walls, and not too far around; in between its
  direction follows a smooth curve (monotone cubics).
- On top comes smooth noise in all six degrees of freedom.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra

from splatsense.cameras import Cameras
from splatsense.corpora.rooms.free_space import CAMERA_HEIGHTS, camera_cells, cell_centers
from splatsense.corpora.rooms.placement import Arrangement

STEPS_PER_TURN = 5  # frames between two things looked at
SHAKE = {"position": 0.012, "height": 0.05, "yaw": 0.03, "pitch": 0.025, "roll": 0.035}  # metres and radians
PITCH = (-0.95, 0.2)  # radians: how far the camera looks down and up
NEAREST, FARTHEST = 0.8, 4.5  # metres to what is looked at
CONE = np.cos(np.radians(24))  # what is nearer to the middle of the image than this counts as looked at
STRIDE = 0.22  # metres from frame to frame, on average at most
MIN_CELLS = 40


@dataclass(frozen=True)
class CameraSettings:
    """The camera: size in pixels and focal length as a share of the width. 0.9 is that of ScanNet's structure sensor."""

    width: int = 320
    height: int = 240
    focal: float = 0.9


def camera_path(room: Arrangement, frames: int, settings: CameraSettings, rng: np.random.Generator) -> Cameras | None:
    """A path of `frames` cameras in the room's frame; None when there is no room to carry one."""
    cells = camera_cells(room)
    if cells.sum() < MIN_CELLS:
        return None
    xy = _walk(cells, cell_centers(room), frames, rng)
    low, high = CAMERA_HEIGHTS
    z = np.clip(rng.uniform(low + 0.1, high - 0.1) + SHAKE["height"] * smooth_noise(rng, frames, 1)[:, 0], low, high)
    centers = np.column_stack([xy + SHAKE["position"] * np.clip(smooth_noise(rng, frames, 2), -2, 2), z])
    yaw, pitch = _aim(room, centers, rng)
    shake = smooth_noise(rng, frames, 3) * [SHAKE["yaw"], SHAKE["pitch"], SHAKE["roll"]]
    return _cameras(centers, yaw + shake[:, 0], pitch + shake[:, 1], shake[:, 2], settings, rng)


def smooth_noise(rng: np.random.Generator, count: int, columns: int, sigma: float = 3.0) -> np.ndarray:
    """(count, columns) noise of about unit variance that changes over about `sigma` rows."""
    noise = gaussian_filter1d(rng.standard_normal((count + 40, columns)), sigma, axis=0)[20 : 20 + count]
    return noise * np.sqrt(2 * sigma * np.sqrt(np.pi))


def _walk(cells: np.ndarray, centers: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """(frames, 2) places on a smooth way through the cells that comes by as many parts of them as the frames allow."""
    points = centers[cells]
    stops = _spread(points, int(rng.integers(5, 9)), rng)
    distance, before = dijkstra(_graph(cells), indices=stops, return_predecessors=True)
    cell = float(centers[0, 1, 0] - centers[0, 0, 0])
    way, length = [stops[0]], 0.0
    at, left = 0, list(range(1, len(stops)))
    while left:  # always on to the nearest place not yet visited
        following = min(left, key=lambda i: distance[at, stops[i]])
        left.remove(following)
        leg = [stops[following]]
        while leg[-1] != stops[at]:
            leg.append(int(before[at, leg[-1]]))
        length += cell * distance[at, stops[following]]
        if length > STRIDE * frames and len(way) > 1:
            break
        way += leg[::-1][1:]
        at = following
    line = points[way]
    for sigma in (10.0, 6.0, 3.0, 0.0):
        smoothed = gaussian_filter1d(line, sigma, axis=0, mode="nearest") if sigma else line
        if _all_inside(smoothed, cells, cell):
            line = smoothed
            break
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    run = np.concatenate([[0.0], np.cumsum(steps)])
    pace = np.cumsum(np.exp(0.35 * smooth_noise(rng, frames, 1, 6.0)[:, 0]))
    when = run[-1] * (pace - pace[0]) / max(pace[-1] - pace[0], 1e-9)
    return np.column_stack([np.interp(when, run, line[:, axis]) for axis in (0, 1)])


def _spread(points: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Rows of `count` points far from each other."""
    rows = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(rows) < count:
        nearest = np.minimum(nearest, np.linalg.norm(points - points[rows[-1]], axis=1))
        rows.append(int(nearest.argmax()))
    return rows


def _graph(cells: np.ndarray) -> csr_array:
    """Neighbouring cells, with their distance; rows are those of `cells[cells]`."""
    index = np.full(cells.shape, -1)
    index[cells] = np.arange(cells.sum())
    sources, targets, costs = [], [], []
    for (a, b), cost in (((np.s_[:, :-1], np.s_[:, 1:]), 1.0), ((np.s_[:-1], np.s_[1:]), 1.0),
                         ((np.s_[:-1, :-1], np.s_[1:, 1:]), 2**0.5), ((np.s_[1:, :-1], np.s_[:-1, 1:]), 2**0.5)):  # fmt: skip
        both = (index[a] >= 0) & (index[b] >= 0)
        for start, end in ((a, b), (b, a)):
            sources.append(index[start][both])
            targets.append(index[end][both])
            costs.append(np.full(both.sum(), cost))
    rows = int(cells.sum())
    return coo_array((np.concatenate(costs), (np.concatenate(sources), np.concatenate(targets))), shape=(rows, rows)).tocsr()


def _all_inside(line: np.ndarray, cells: np.ndarray, cell: float) -> bool:
    column, row = (line / cell).astype(int).T
    return bool(cells[row, column].all())


def _targets(room: Arrangement) -> tuple[np.ndarray, np.ndarray]:
    """(T, 3) what there is to look at, and (T,) how much it is worth."""
    points = [(p.box.x, p.box.y, (p.box.bottom + p.box.top) / 2) for p in room.placed]
    worth = [0.3 if p.box.bottom > 1.6 else 1.5 if p.box.width * p.box.depth > 0.2 else 0.8 for p in room.placed]
    for wall in room.layout.walls:
        for along in np.arange(0.4, wall.length, 0.8):
            points += [(*wall.at(along), 1.2), (*wall.at(along), 0.3)]
            worth += [0.6, 0.5]
    for x0, y0, x1, y1 in room.layout.rectangles:
        for x, y in np.mgrid[x0 + 0.4 : x1 : 0.8, y0 + 0.4 : y1 : 0.8].reshape(2, -1).T:
            points.append((float(x), float(y), 0.0))
            worth.append(0.6)
    return np.array(points), np.array(worth)


def _aim(room: Arrangement, centers: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(V,) yaw and pitch of a camera at each place: yaw counter-clockwise from +x, pitch up."""
    targets, worth = _targets(room)
    seen = np.zeros(len(targets))
    keys = np.unique(np.append(np.arange(0, len(centers), STEPS_PER_TURN), len(centers) - 1))
    yaws, pitches = [], []
    for key in keys:
        to = targets - centers[key]
        distance = np.linalg.norm(to, axis=1)
        yaw, pitch = np.arctan2(to[:, 1], to[:, 0]), np.arctan2(to[:, 2], np.linalg.norm(to[:, :2], axis=1))
        turn = np.zeros(len(to)) if not yaws else (yaw - yaws[-1] + np.pi) % (2 * np.pi) - np.pi
        score = worth / (1 + 2 * seen) - 0.35 * np.maximum(abs(turn) - 0.3, 0) + 0.15 * rng.random(len(to))
        score -= 3.0 * ((distance < NEAREST) | (distance > FARTHEST)) + 0.6 * np.maximum(1.6 - distance, 0)
        best = int(score.argmax())
        yaws.append(yaw[best] if not yaws else yaws[-1] + turn[best])
        pitches.append(float(np.clip(pitch[best], *PITCH)))
        seen += (to @ _forward(yaws[-1], pitches[-1]) > CONE * distance) & (distance < FARTHEST)
    if len(keys) == 1:
        return np.array(yaws), np.array(pitches)
    frames = np.arange(len(centers))
    return PchipInterpolator(keys, yaws)(frames), PchipInterpolator(keys, pitches)(frames)


def _forward(yaw: np.ndarray | float, pitch: np.ndarray | float) -> np.ndarray:
    """(..., 3) unit vectors."""
    return np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], -1)


def _cameras(
    centers: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray, settings: CameraSettings,
    rng: np.random.Generator,
) -> Cameras:  # fmt: skip
    forward = _forward(yaw, pitch)
    level = np.column_stack([np.sin(yaw), -np.cos(yaw), np.zeros_like(yaw)])
    down = np.cross(forward, level)
    right = np.cos(roll)[:, None] * level + np.sin(roll)[:, None] * down
    rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
    world_to_camera = np.tile(np.eye(4), (len(centers), 1, 1))
    world_to_camera[:, :3, :3] = rotation
    world_to_camera[:, :3, 3] = -np.einsum("vij,vj->vi", rotation, centers)
    focal = settings.width * settings.focal * rng.uniform(0.97, 1.03)
    center = np.array([settings.width, settings.height]) / 2 + rng.uniform(-2, 2, 2) * settings.width / 320
    K = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]])
    return Cameras(
        torch.from_numpy(world_to_camera).float(), torch.from_numpy(np.tile(K, (len(centers), 1, 1))).float(),
        settings.width, settings.height,
    )  # fmt: skip
