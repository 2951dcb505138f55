"""Simple polygons in the plane: area, triangles, and which points lie inside and how far from the edge."""

import numpy as np

from splatsense.errors import DataError

SMALLEST_AREA = 1e-6  # square metres


def signed_area(points: np.ndarray) -> float:
    """Of a polygon (N, 2), positive when it runs counterclockwise."""
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def triangulate(points: np.ndarray) -> np.ndarray:
    """(N - 2, 3) indices of counterclockwise triangles that cover a simple polygon (N, 2), by clipping ears (Meisters 1975).

    A polygon that crosses itself is covered as far as it has ears.

    Raises:
        DataError: it has no area.
    """
    area = signed_area(points)
    if abs(area) < SMALLEST_AREA:
        raise DataError("triangulate: the polygon has no area.")
    left = list(range(len(points))) if area > 0 else list(range(len(points)))[::-1]
    triangles = []
    while len(left) > 3:
        ear = next((i for i in range(len(left)) if _is_ear(points, left, i)), None)
        if ear is None:
            break
        triangles.append((left[ear - 1], left[ear], left[(ear + 1) % len(left)]))
        del left[ear]
    if len(left) == 3:
        triangles.append((left[0], left[1], left[2]))
    return np.array(triangles, np.int64)


def _is_ear(points: np.ndarray, left: list[int], i: int) -> bool:
    corners = (left[i - 1], left[i], left[(i + 1) % len(left)])
    a, b, c = points[list(corners)]
    if _cross(b - a, c - b) < 0:
        return False
    others = points[[index for index in left if index not in corners]]
    if _cross(b - a, c - b) == 0 or not len(others):
        return True
    sides = [_cross(end - begin, others - begin) for begin, end in ((a, b), (b, c), (c, a))]
    corner = (others[:, None] == np.stack([a, b, c])).all(2).any(1)  # a corner that occurs twice does not bar an ear
    return not ((np.min(sides, axis=0) >= 0) & ~corner).any()


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def distance_inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(M,) distance of points (M, 2) to the edge of a polygon (N, 2), negative outside of it."""
    begin, end = polygon, np.roll(polygon, -1, axis=0)
    along = end - begin
    length = np.maximum((along**2).sum(1), 1e-12)
    share = np.clip(((points[:, None] - begin) * along).sum(2) / length, 0, 1)
    distance = np.linalg.norm(points[:, None] - begin - share[..., None] * along, axis=2).min(1)
    above, above_next = begin[:, 1] > points[:, 1:2], end[:, 1] > points[:, 1:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = begin[:, 0] + (points[:, 1:2] - begin[:, 1]) / along[:, 1] * along[:, 0]
    inside = ((above != above_next) & (points[:, :1] < crossing)).sum(1) % 2 == 1
    return np.where(inside, distance, -distance)
