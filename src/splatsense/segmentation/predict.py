"""Predictions for the points of a scene: one pass or many augmented ones whose votes are averaged, in tiles that fit memory.

Design
- The network sees the mean of the points in each voxel; every point of a voxel gets its prediction. Votes are mean
  probabilities on the points that were given, over four turns x scales {1, 0.95, 1.05} and a mirrored view (arXiv 2508.02172).
- A scene of many voxels is cut in tiles, each run with a margin around it, so memory does not grow with the scene and
  time grows with it linearly.
- Instances come from one pass: voxels that are no wall or floor move by their offset and are clustered by class and
  distance; a cluster's score is the mean probability of its class (the released PointGroup).

Differs from the released test: it runs the network once for each point of the fullest voxel, so that every point is seen
itself; here voxels are averaged, which costs one run. Fused scans have little more than one point in a voxel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int16, Int32, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from splatsense.gaussian_cross.unet import SpUNet
from splatsense.segmentation.augment import rotation
from splatsense.segmentation.clustering import cluster_points
from splatsense.segmentation.model import SegmentationModel
from splatsense.segmentation.points import Points
from splatsense.sparse import SparseTensor, voxelize

NONE = -1
TILE_VOXELS = 200_000  # that are run at once
MARGIN = 32  # voxels around a tile that are run with it


@dataclass(frozen=True)
class View:
    """How a scene is seen: turned about the vertical, scaled, mirrored."""

    degrees: float = 0.0
    scale: float = 1.0
    mirrored: bool = False

    def matrix(self) -> Float32[Tensor, "3 3"]:
        """What coordinates are multiplied by."""
        mirror = torch.diag(torch.tensor([-1.0, -1.0, 1.0])) if self.mirrored else torch.eye(3)
        return self.scale * mirror @ rotation(2, self.degrees)


Views = Literal["one", "all"]
VIEWS: dict[str, tuple[View, ...]] = {
    "one": (View(),),
    "all": (*(View(degrees, scale) for scale in (1, 0.95, 1.05) for degrees in (0, 90, 180, 270)), View(mirrored=True)),
}
"""Test-time augmentation. The released configs mirror x and y together, which is a half turn; it counts that turn twice."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of N points.

    Attributes:
        semantic: class of each.
        confidence: probability of that class.
        instance: instance of each, -1 for none.
        instance_labels: class of each of P instances.
        instance_scores: confidence of each.
    """

    semantic: Int16[np.ndarray, " n"]
    confidence: Float32[np.ndarray, " n"]
    instance: Int32[np.ndarray, " n"]
    instance_labels: Int16[np.ndarray, " p"]
    instance_scores: Float32[np.ndarray, " p"]

    def masks(self) -> np.ndarray:
        """(P, N) which points belong to each instance."""
        return self.instance == np.arange(len(self.instance_labels))[:, None]


@dataclass(frozen=True, eq=False)
class _Pass:
    """Outputs of one run, by voxel."""

    coord: Tensor
    probabilities: Tensor
    offsets: Tensor | None
    inverse: Tensor


def predict(model: SegmentationModel, points: Points, views: Views = "one", tile_voxels: int = TILE_VOXELS) -> Prediction:
    """Classes of points, and instances where the model has them.

    Args:
        model: in evaluation mode.
        points: of a scene, z up, metres; their labels do not matter.
        views: "one" pass, or the mean of "all" test-time augmentations.
        tile_voxels: run at once, at most.
    """
    total = torch.zeros(len(points), len(model.labels))
    first: _Pass | None = None
    for view in VIEWS[views]:
        run = _run(model, points, view, tile_voxels)
        first = first or run
        total += run.probabilities[run.inverse]
    confidence, semantic = total.max(1)
    assert first is not None
    instance, labels, scores = _instances(model, first) if first.offsets is not None else _no_instances(len(points))
    return Prediction(semantic.numpy().astype(np.int16), (confidence / len(VIEWS[views])).numpy(), instance, labels, scores)


def voxel_features(backbone: SpUNet, points: Points, voxel: float, tile_voxels: int = TILE_VOXELS) -> tuple[Tensor, Tensor]:
    """A backbone's features of each voxel (M, F), and the voxel of each point (N,)."""
    voxels, inverse, _ = _voxels(points, View(), voxel)
    parts = torch.empty(len(voxels), backbone.out_channels)
    for rows, core in tiles(voxels.coordinates, tile_voxels):
        with torch.inference_mode():
            parts[rows[core]] = backbone(_select(voxels, rows, backbone))[core].float().cpu()
    return parts, inverse


def _run(model: SegmentationModel, points: Points, view: View, tile_voxels: int) -> _Pass:
    voxels, inverse, coord = _voxels(points, view, model.voxel)
    probabilities = torch.empty(len(voxels), len(model.labels))
    offsets = torch.empty(len(voxels), 3) if model.has_instances else None
    for rows, core in tiles(voxels.coordinates, tile_voxels):
        with torch.inference_mode():
            output = model.network(_select(voxels, rows, model.network))
            probabilities[rows[core]] = output.logits[core].float().softmax(1).cpu()
            if offsets is not None:
                offsets[rows[core]] = output.offsets[core].float().cpu()
    return _Pass(coord, probabilities, offsets, inverse)


def _voxels(points: Points, view: View, voxel: float) -> tuple[SparseTensor, Tensor, Tensor]:
    """The network's input, the voxel of each point, and the mean coordinates of each voxel."""
    matrix = view.matrix()
    coord = points.coord @ matrix.T
    coord = coord - coord.amin(0)
    normal = points.normal @ (matrix / view.scale).T
    voxels, inverse = voxelize(coord, voxel, torch.cat([points.color * 2 - 1, normal, coord], dim=1))
    color, normal, center = voxels.features.split(3, dim=1)
    return voxels.with_features(torch.cat([color, normalize(normal, dim=1)], dim=1)), inverse, center


def _select(voxels: SparseTensor, rows: Tensor, network: nn.Module) -> SparseTensor:
    device = next(network.parameters()).device
    if len(rows) == len(voxels):
        return voxels.to(device)
    return SparseTensor(voxels.coordinates[rows].to(device), voxels.features[rows].to(device))


def tiles(
    coordinates: Int32[Tensor, "m 4"], most: int, margin: int = MARGIN
) -> Iterator[tuple[Int64[Tensor, " k"], Int64[Tensor, " c"]]]:
    """Tiles of a scene: rows to run together, and which of them count.

    Each voxel counts in one tile. A tile that is not the whole has the voxels around it up to `margin` away too.

    Args:
        coordinates: of one scene.
        most: voxels that count in a tile.
        margin: in voxels.
    """
    everything = torch.arange(len(coordinates))
    if len(coordinates) <= most:
        yield everything, everything
        return
    for core in _halved(coordinates[:, 1:], everything, most):
        low, high = coordinates[core, 1:].amin(0) - margin, coordinates[core, 1:].amax(0) + margin
        rows = ((coordinates[:, 1:] >= low) & (coordinates[:, 1:] <= high)).all(1).nonzero()[:, 0]
        yield rows, torch.searchsorted(rows, core)


def _halved(cells: Tensor, rows: Tensor, most: int) -> Iterator[Tensor]:
    """Rows cut at the median of their longest side until there are at most `most` in a part."""
    if len(rows) <= most:
        yield rows
        return
    part = cells[rows]
    axis = int((part.amax(0) - part.amin(0)).argmax())
    order = part[:, axis].argsort(stable=True)
    half = len(rows) // 2
    for piece in (order[:half], order[half:]):
        yield from _halved(cells, rows[piece.sort().values], most)


def _instances(model: SegmentationModel, run: _Pass) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Instance of each point, and class and score of each instance."""
    assert run.offsets is not None
    classes = run.probabilities.argmax(1).numpy()
    counted = np.array([name not in model.labels.leave_out for name in model.labels.names])[classes]
    rows = np.flatnonzero(counted)
    if not len(rows):
        return _no_instances(len(run.inverse))
    cluster = model.cluster
    moved = ((run.coord + run.offsets) / model.voxel).numpy()[rows].astype(np.float32)
    found = cluster_points(moved, classes[rows].astype(np.int32), cluster.radius, cluster.least)
    sizes = np.bincount(found[found >= 0], minlength=1)
    kept = np.flatnonzero(sizes > cluster.least_proposal)
    number = np.full(len(sizes) + 1, NONE, np.int32)  # the last is for -1
    number[kept] = np.arange(len(kept))
    voxels = np.full(len(classes), NONE, np.int32)
    voxels[rows] = number[found]
    members = voxels >= 0
    own = run.probabilities.numpy()[np.flatnonzero(members), classes[members]]
    scores = np.bincount(voxels[members], own, minlength=len(kept)) / np.maximum(sizes[kept], 1)
    labels = np.zeros(len(kept), np.int16)
    labels[voxels[members]] = classes[members]
    return voxels[run.inverse.numpy()], labels, scores.astype(np.float32)


def _no_instances(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.full(count, NONE, np.int32), np.zeros(0, np.int16), np.zeros(0, np.float32)
