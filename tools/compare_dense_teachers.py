"""Which dense teacher knows most of what a place shows: a linear classifier of ScanNet20 on single locations of its features.

python tools/compare_dense_teachers.py ROOMS/train --teachers mini:block:16 mini:block:8

Scenes are labelled folders with frames; three of four are fitted to, the others measured. A location's label is that of the
scene's point nearest to where the depth at its centre lies. All teachers see the same frames. Prints the mean accuracy of
classes, and the seconds that a frame takes.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from splatsense.errors import DataError
from splatsense.labels import SCANNET20
from splatsense.scenes import Scene, load_scene
from splatsense.teachers.dense import DenseTeacher, load_dense_teacher

FARTHEST = 0.05  # metres from a location's depth to the point that labels it
SHARE = 4  # one of so many scenes is measured on
STEPS, DECAY = 60, 1e-3  # of the classifier


def location_labels(scene: Scene, tree: KDTree, frame: int, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) of ScanNet20, -1 where a location has no depth or no labelled point."""
    assert scene.frames is not None
    assert scene.semantic20 is not None
    depth = scene.frames.frame(frame)[1]
    height, width = depth.shape
    v = ((np.arange(rows) + 0.5) * height / rows).astype(int)[:, None]
    u = ((np.arange(columns) + 0.5) * width / columns).astype(int)[None]
    z = depth[v, u].astype(np.float64)
    K = scene.frames.cameras.K[frame].double().numpy()
    to_camera = scene.frames.cameras.world_to_camera[frame].double().numpy()
    camera = np.stack([(u + 0.5 - K[0, 2]) / K[0, 0] * z, (v + 0.5 - K[1, 2]) / K[1, 1] * z, z], axis=-1)
    distance, point = tree.query((camera - to_camera[:3, 3]) @ to_camera[:3, :3])
    known = (z > 0) & (distance < FARTHEST)
    return np.where(known, scene.semantic20[np.minimum(point, len(scene) - 1)], -1)


def read_locations(folders: list[Path], teachers: list[DenseTeacher], frames: int, locations: int) -> list[list[tuple]]:
    """For each teacher, (features, labels, seconds) of every frame looked at."""
    found: list[list[tuple]] = [[] for _ in teachers]
    for number, folder in enumerate(folders):
        scene = load_scene(folder)
        if scene.frames is None or scene.semantic20 is None:
            raise DataError(f"{folder}: has no frames or no labels.")
        tree = KDTree(scene.coord)
        for frame in np.linspace(0, len(scene.frames) - 1, frames).astype(int).tolist():
            color = torch.from_numpy(scene.frames.frame(frame)[0])[None]
            for teacher, kept in zip(teachers, found, strict=True):
                start = time.perf_counter()
                features = teacher.encode_dense(color)[0]
                seconds = time.perf_counter() - start
                labels = torch.from_numpy(location_labels(scene, tree, frame, *features.shape[:2])).flatten()
                rows = (labels >= 0).nonzero()[:, 0]
                chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(frame))[:locations]
                kept.append((features.flatten(0, 1)[rows[chosen]], labels[rows[chosen]].long(), seconds))
        print(f"{number + 1} of {len(folders)} scenes", end="\r", flush=True)
    return found


def class_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> tuple[float, int]:
    """Mean over classes of the share that a linear classifier, fitted with balanced classes, gets right; number of classes."""
    (x, y), (x_test, y_test) = train, test
    mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
    x, x_test = (x - mean) / std, (x_test - mean) / std
    count = torch.bincount(y, minlength=len(SCANNET20.names))
    layer = torch.nn.Linear(x.shape[1], len(count))
    torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    loss_of = torch.nn.CrossEntropyLoss(weight=torch.where(count > 0, 1 / count.clamp_min(1), 0.0))
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(layer(x), y) + DECAY * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    right = layer(x_test).argmax(1) == y_test
    classes = [label for label in y_test.unique().tolist() if count[label]]
    return statistics.mean(float(right[y_test == label].float().mean()) for label in classes), len(classes)


def main() -> None:
    """Print a line for each teacher."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", type=Path, help="folder of scenes")
    parser.add_argument("--teachers", nargs="+", default=["mini:block:16", "mini:block:8"])
    parser.add_argument("--count", type=int, default=60, help="scenes")
    parser.add_argument("--frames", type=int, default=4, help="of each scene")
    parser.add_argument("--locations", type=int, default=150, help="of each frame, at most")
    options = parser.parse_args()
    folders = sorted(path.parent for path in options.scenes.glob("*/coord.npy"))[: options.count]
    if len(folders) < SHARE:
        raise SystemExit(f"{options.scenes}: holds {len(folders)} scenes; at least {SHARE} are needed.")
    measured = [index % SHARE == SHARE - 1 for index in range(len(folders)) for _ in range(options.frames)]
    teachers = [load_dense_teacher(name) for name in options.teachers]
    for teacher, kept in zip(teachers, read_locations(folders, teachers, options.frames, options.locations), strict=True):
        parts = []
        for wanted in (False, True):
            chosen = [one for one, test in zip(kept, measured, strict=True) if test == wanted]
            parts.append((torch.cat([one[0] for one in chosen]), torch.cat([one[1] for one in chosen])))
        accuracy, classes = class_accuracy(*parts)
        seconds = statistics.median(one[2] for one in kept)
        print(
            f"{teacher.name:<20} {teacher.dim:>5} numbers  class accuracy {accuracy:.1%} of {classes} classes  "
            f"{seconds:.2f} s a frame  ({len(parts[0][0]):,} locations fitted, {len(parts[1][0]):,} measured)"
        )


if __name__ == "__main__":
    main()
