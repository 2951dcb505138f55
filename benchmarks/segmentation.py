"""Segmentation of scans of up to a million points, clustering of 200,000 points, and evaluation of 60 rooms apart from
inference, each beside its target. The network has random weights: `--size` alone decides how long it takes.

    python benchmarks/segmentation.py [--size tiny]
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from shared.targets import judged

from splatsense.gaussian_cross.unet import UNET_SIZES
from splatsense.labels import SCANNET20
from splatsense.native import native_level
from splatsense.scenes import Scene, load_scene, save_scene
from splatsense.segmentation.clustering import cluster_points
from splatsense.segmentation.config import ClusterConfig
from splatsense.segmentation.evaluate import Scores
from splatsense.segmentation.export import write_points
from splatsense.segmentation.model import SegmentationModel
from splatsense.segmentation.network import Segmenter
from splatsense.segmentation.points import Points
from splatsense.segmentation.predict import Prediction, predict
from splatsense.segmentation.segment import segment

ROOM = (5.0, 4.0, 2.5)
SPACING = VOXEL = 0.02
SEGMENTED, MEMORY, CLUSTERED, SCORED = 60, 6, 1, 120  # wanted of tiny on 2 cores: s, GB for a million points, s, s


def rooms(count: int) -> Points:
    """Points on the floors, walls and boxes of rooms side by side, one in about every voxel of their surfaces."""
    rng = np.random.default_rng(0)
    coord, normal = [], []
    total = 0
    while total < count:
        room, piece = divmod(len(coord) // 6, 9)
        size = rng.uniform(0.4, 1.2, 3) if piece else np.array(ROOM)
        at = np.array([6.0 * room, 0, 0]) + (rng.uniform(0, 1, 3) * (3.8, 2.8, 0) if piece else 0)
        for axis in range(3):
            others = [k for k in range(3) if k != axis]
            n = int(size[others[0]] * size[others[1]] / SPACING**2)
            for side in (0, 1):
                points = rng.uniform(0, size, (n, 3))
                points[:, axis] = side * size[axis]
                coord.append(points + at)
                normal.append(np.tile(np.eye(3)[axis] * (2 * side - 1), (n, 1)))
                total += n
    rows = slice(0, count)
    xyz = torch.from_numpy(np.concatenate(coord)[rows]).float()
    none = torch.full((count,), -1)
    return Points(xyz, torch.rand(count, 3), torch.from_numpy(np.concatenate(normal)[rows]).float(), none, none)


def peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def segment_scans(model: SegmentationModel, most: int) -> None:
    """A quarter, half and all of the points: the time is linear in them."""
    for count in (most // 4, most // 2, most):
        scan = rooms(count)
        start = time.perf_counter()
        predict(model, scan)
        seconds = time.perf_counter() - start
        print(judged(f"{count:,} points segmented, {1e6 * seconds / count:.1f} us each", seconds, "s", SEGMENTED))
    print(judged("largest memory until then", peak_gigabytes(), "GB", MEMORY))


def segment_file(count: int) -> None:
    """The command with the bundled model, on a file without normals; reading and writing count."""
    scan = rooms(count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.ply"
        write_points(path, scan.coord.numpy(), (255 * scan.color).byte().numpy())
        start = time.perf_counter()
        segment(path, Path(folder) / "out")
        seconds = time.perf_counter() - start
    print(judged(f"{count:,} points of a file by `splatsense segment`", seconds, "s", SEGMENTED))
    print(judged("largest memory until then", peak_gigabytes(), "GB", MEMORY))


def cluster(rng: np.random.Generator) -> None:
    centers, spread = rng.normal(size=(60, 3)) * 40, rng.choice([0.3, 1.0, 4.0], (200_000, 1))
    moved = (centers[rng.integers(60, size=200_000)] + rng.normal(size=(200_000, 3)) * spread).astype(np.float32)
    start = time.perf_counter()
    cluster_points(moved, rng.integers(3, size=200_000).astype(np.int32), 1.5, 50)
    print(judged("200,000 points clustered", time.perf_counter() - start, "s", CLUSTERED))


def evaluate(rng: np.random.Generator) -> None:
    """A room of 150,000 points, 40 things and 60 proposals is read and scored 60 times."""
    points = rooms(150_000)
    instance = np.sort(rng.integers(40, size=len(points))).astype(np.int32)
    scene = Scene("room", points.coord.numpy(), semantic20=(instance // 2).astype(np.int16), instance=instance)
    found = Prediction(
        rng.integers(20, size=len(points)).astype(np.int16), rng.random(len(points), np.float32),
        np.sort(rng.integers(60, size=len(points))).astype(np.int32), rng.integers(20, size=60).astype(np.int16),
        rng.random(60, np.float32),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        save_scene(scene, Path(folder) / "room")
        start, scores = time.perf_counter(), Scores.empty(SCANNET20, instances=True)
        for _ in range(60):
            scores.add(load_scene(Path(folder) / "room"), found)
        scores.headline()
    print(judged("60 rooms of 150,000 points read and scored", time.perf_counter() - start, "s", SCORED))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=UNET_SIZES, default="tiny")
    parser.add_argument("--points", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = Segmenter(UNET_SIZES[options.size], len(SCANNET20), instances=True).eval()
    model = SegmentationModel(network, SCANNET20, VOXEL, ClusterConfig(), {})
    print(f"native: {native_level()}, {torch.get_num_threads()} threads, size {options.size}, voxels of {100 * VOXEL:g} cm")
    segment_scans(model, options.points)
    segment_file(options.points)
    rng = np.random.default_rng(0)
    cluster(rng)
    evaluate(rng)


if __name__ == "__main__":
    main()
