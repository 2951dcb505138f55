"""Small rooms of points whose classes and instances are known: floor, two walls, and boxes of two colours."""

import numpy as np

from splatsense.gaussian_cross.unet import UNetConfig
from splatsense.labels import SCANNET20
from splatsense.scenes import Scene, save_scene

WALL, FLOOR, CHAIR, TABLE = (SCANNET20.index(name) for name in ("wall", "floor", "chair", "table"))
SPACING = 0.05
SMALL = UNetConfig(stem_channels=8, stem_kernel=3, channels=(12, 12), layers=(1, 1))


def plane(u, v, origin, normal):
    a, b = np.meshgrid(np.arange(0, u, SPACING), np.arange(0, v, SPACING), indexing="ij")
    axes = [axis for axis in range(3) if normal[axis] == 0]
    points = np.tile(np.asarray(origin, float), (a.size, 1))
    points[:, axes[0]] += a.ravel()
    points[:, axes[1]] += b.ravel()
    return points, np.tile(np.asarray(normal, float), (a.size, 1))


def box(low, size):
    low, size = np.asarray(low, float), np.asarray(size, float)
    parts = []
    for axis in range(3):
        others = [k for k in range(3) if k != axis]
        for side in (0, 1):
            origin, normal = low.copy(), np.zeros(3)
            origin[axis] += side * size[axis]
            normal[axis] = 2 * side - 1
            parts.append(plane(size[others[0]], size[others[1]], origin, normal))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def room(name="room", seed=0):
    """About 10,000 points in 3.2 x 3.0 x 2.2 m; chairs are red, tables blue."""
    rng = np.random.default_rng(seed)
    parts = [(*plane(3.2, 3.0, (0, 0, 0), (0, 0, 1)), FLOOR, -1, (120, 110, 100)),
             (*plane(3.2, 2.2, (0, 0, 0), (0, 1, 0)), WALL, -1, (220, 220, 210)),
             (*plane(3.0, 2.2, (0, 0, 0), (1, 0, 0)), WALL, -1, (220, 220, 210))]  # fmt: skip
    for number, (label, color) in enumerate([(CHAIR, (200, 30, 30)), (CHAIR, (200, 30, 30)), (TABLE, (30, 30, 200))]):
        corner = (0.5 + number * 0.9 + rng.uniform(0, 0.2), rng.uniform(0.5, 1.4), 0.05)
        parts.append((*box(corner, (0.5, 0.5, 0.6 if label == CHAIR else 0.8)), label, number, color))
    sizes = [len(part[0]) for part in parts]
    semantic = np.repeat([part[2] for part in parts], sizes).astype(np.int16)
    return Scene(
        name,
        np.concatenate([part[0] for part in parts]).astype(np.float32) + np.float32(0.011),
        np.repeat([part[4] for part in parts], sizes, axis=0).astype(np.uint8),
        np.concatenate([part[1] for part in parts]).astype(np.float32),
        semantic20=semantic,
        instance=np.repeat([part[3] for part in parts], sizes).astype(np.int32),
    )


def write_rooms(root, counts=(("train", 2), ("val", 1))):
    for split, count in counts:
        for number in range(count):
            name = f"{split}_{number:04d}"
            save_scene(room(name, number if split == "train" else 100 + number), root / split / name)
    return root
