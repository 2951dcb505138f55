"""Segmentation of a scan of a million points, clustering of 200,000 points, and scoring of 60 scenes. The network has random
weights: `--size` alone decides how long it takes.

    python benchmarks/segmentation.py [--size tiny] [--points 1000000]
"""

import argparse
import resource
import time

import numpy as np
import torch
from shared.targets import judged

from splatsense.gaussian_cross.unet import UNET_SIZES
from splatsense.labels import SCANNET20
from splatsense.native import native_level
from splatsense.segmentation.average_precision import InstanceEvaluation, Proposals
from splatsense.segmentation.clustering import cluster_points
from splatsense.segmentation.config import ClusterConfig
from splatsense.segmentation.confusion import confusion_matrix
from splatsense.segmentation.model import SegmentationModel
from splatsense.segmentation.network import Segmenter
from splatsense.segmentation.points import Points
from splatsense.segmentation.predict import predict

ROOM = (5.0, 4.0, 2.5)
SPACING = 0.02
SEGMENTED, MEMORY, CLUSTERED, SCORED = 60, 6, 1, 120  # wanted of tiny on 2 cores: s, GB, s, s


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Segmentation of scans: seconds and memory.")
    parser.add_argument("--size", choices=UNET_SIZES, default="tiny")
    parser.add_argument("--points", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = Segmenter(UNET_SIZES[options.size], len(SCANNET20), instances=True).eval()
    model = SegmentationModel(network, "scannet20", 0.02, ClusterConfig(), ("wall", "floor"), {})
    scan = rooms(options.points)
    start = time.perf_counter()
    predict(model, scan)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"native: {native_level()}, {torch.get_num_threads()} threads, size {options.size}")
    print(judged(f"{len(scan):,} points segmented", seconds, "s", SEGMENTED))
    print(judged("largest memory until then", peak, "GB", MEMORY))

    rng = np.random.default_rng(0)
    centers, spread = rng.normal(size=(60, 3)) * 40, rng.choice([0.3, 1.0, 4.0], (200_000, 1))
    moved = (centers[rng.integers(60, size=200_000)] + rng.normal(size=(200_000, 3)) * spread).astype(np.float32)
    start = time.perf_counter()
    cluster_points(moved, rng.integers(3, size=200_000).astype(np.int32), 1.5, 50)
    print(judged("200,000 points clustered", time.perf_counter() - start, "s", CLUSTERED))

    semantic, instance = rng.integers(20, size=150_000).astype(np.int16), rng.integers(40, size=150_000).astype(np.int32)
    semantic = semantic[np.argsort(instance, kind="stable")] // 2
    found = Proposals(
        np.arange(60)[:, None] == np.sort(rng.integers(60, size=150_000)), rng.integers(20, size=60), rng.random(60)
    )
    start, evaluation = time.perf_counter(), InstanceEvaluation(SCANNET20, ("wall", "floor"))
    for _ in range(60):
        confusion_matrix(semantic, semantic[::-1], 20)
        evaluation.add(found, semantic, np.sort(instance))
    evaluation.report()
    print(judged("60 scenes of 150,000 points and 60 proposals scored", time.perf_counter() - start, "s", SCORED))


if __name__ == "__main__":
    main()
