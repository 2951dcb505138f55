"""Features of a frozen backbone, computed once for each scene: what makes a linear probe cheap.

Design
- A scene is seen as predictions see it: whole, unaugmented, the mean of the points in each voxel. So its features never change,
  and a step of the probe is that of a linear layer.
- A voxel's class is the most frequent one of its points, the lowest of several.
- Of a scene only the voxels with a class are kept. One with fewer than two keeps all: it adds nothing to the loss, or next to
  nothing, as where features are not cached, and still has what a normalisation needs.
- What is kept in memory only saves time: scenes beyond `KEPT_BYTES` are run again.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from splatsense.errors import DataError
from splatsense.segmentation.dataset import SeedOf, TrainingScenes
from splatsense.segmentation.network import Segmenter
from splatsense.segmentation.points import NONE, voxel_classes
from splatsense.segmentation.predict import voxel_features

KEPT_BYTES = 4 << 30


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """Voxels of several scenes.

    Attributes:
        features: (M, F) of the backbone.
        semantic: (M,) class, -1 for none.
    """

    features: Float32[Tensor, "m f"]
    semantic: Int64[Tensor, " m"]

    def to(self, device: torch.device) -> "FeatureBatch":
        """The same batch on another device."""
        return FeatureBatch(self.features.to(device), self.semantic.to(device))


class CachedFeatures:
    """Voxels of training scenes with their features and labels.

    Args:
        scenes: of the run.
        network: whose backbone is frozen.
    """

    def __init__(self, scenes: TrainingScenes, network: Segmenter) -> None:
        self.scenes, self.network = scenes, network
        self.classes = len(scenes.config.label_set)
        self._kept: OrderedDict[int, FeatureBatch] = OrderedDict()
        self._bytes = 0

    def scene(self, row: int) -> FeatureBatch:
        """Features of the voxels that have a class; of all where fewer than two have. Raises DataError for a single voxel."""
        if row not in self._kept:
            self._kept[row] = found = self._compute(row)
            self._bytes += found.features.nbytes
            while len(self._kept) > 1 and self._bytes > KEPT_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].features.nbytes
        self._kept.move_to_end(row)
        return self._kept[row]

    def batch(self, rows: Sequence[int], step: int, own: range, generator_of: SeedOf) -> FeatureBatch:
        """One process's part of a batch: of each scene, random voxels.

        Args:
            rows: of all processes' scenes of the step.
            step: whose batch it is.
            own: places in `rows` of this process.
            generator_of: random numbers of a place.
        """
        most, parts = self.scenes.config.crop_points, []
        for place in own:
            whole = self.scene(rows[place])
            chosen = torch.randperm(len(whole.semantic), generator=generator_of(step, place))[: most or None]
            parts.append((whole.features[chosen], whole.semantic[chosen]))
        features, semantic = (torch.cat(column) for column in zip(*parts, strict=True))
        return FeatureBatch(features, semantic)

    def _compute(self, row: int) -> FeatureBatch:
        points = self.scenes.points(row)
        features, voxel = voxel_features(self.network.backbone, points, self.scenes.config.voxel)
        semantic = voxel_classes(points.semantic, voxel, len(features), self.classes)
        if len(features) < 2:
            raise DataError(f"{self.scenes.folders[row]}: lies in a single voxel; leave the scene out.")
        labelled = semantic != NONE
        return FeatureBatch(features[labelled], semantic[labelled]) if labelled.sum() > 1 else FeatureBatch(features, semantic)
