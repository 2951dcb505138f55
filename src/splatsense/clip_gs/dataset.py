"""The training set of CLIP-GS: triplets and their teacher embeddings, mapped into memory, and batches drawn from them.

8,192 Gaussians an object are 230 kB in half precision, of which a batch reads what it draws.
A batch depends on nothing but (seed, step), which is what makes a resumed run equal an uninterrupted one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.clip_gs.captions import clean_name
from splatsense.clip_gs.image_targets import cross_fitted_targets
from splatsense.clip_gs.mapped_shards import FIELDS, StoredGaussians, map_shard
from splatsense.clip_gs.shards import embed_shard, shard_paths
from splatsense.clip_gs.tokenizer import GaussianBatch
from splatsense.errors import DataError
from splatsense.gaussians import quaternion_to_matrix
from splatsense.teachers import Teacher
from splatsense.training.progress import Progress

KEPT_INFO = ("name", "label", "split")


@dataclass(frozen=True)
class TrainingBatch:
    """Gaussians and targets of N objects.

    Attributes:
        gaussians: N objects before augmentation.
        text: (N, d) embedding of one caption each.
        images: (N, K, d) embeddings of K views each.
        names: (N,) equal for objects of the same name.
    """

    gaussians: GaussianBatch
    text: Tensor
    images: Tensor
    names: Tensor


class TripletSet:
    """Objects of triplet folders that `keep` accepts.

    Args:
        folders: with shards.
        teacher: whose embeddings are the targets; computed once and cached beside the shards.
        keep: decides by key and info which objects are used.

    Attributes:
        keys: of the N objects.
        infos: name, label and split of each.
        folders: (N,) index of the folder each comes from.

    Raises:
        DataError: nothing is left.
    """

    def __init__(self, folders: Sequence[str | Path], teacher: Teacher, keep: Callable[[str, dict[str, Any]], bool]) -> None:
        self.keys: list[str] = []
        self.infos: list[dict[str, Any]] = []
        self._gaussians: list[StoredGaussians] = []
        self._images: list[Tensor] = []
        self._captions: list[Tensor] = []
        self._features: list[Tensor] = []
        paths = [(index, path) for index, folder in enumerate(folders) for path in shard_paths([folder])]
        progress = Progress("loading shards", len(paths))
        numbers: list[int] = []
        for folder, path in paths:
            embedded = embed_shard(path, teacher)
            texts = embedded["captions"].split(embedded["caption_counts"].tolist())
            for index, (key, gaussians, info) in enumerate(map_shard(path)):
                if not keep(key, info):
                    continue
                numbers.append(folder)
                self.keys.append(key)
                self.infos.append({name: info[name] for name in KEPT_INFO})
                self._gaussians.append(gaussians)
                self._images.append(embedded["images"][index])
                self._captions.append(texts[index])
                if "features" in embedded:
                    self._features.append(embedded["features"][index])
            progress.advance()
        progress.close()
        if not self.keys:
            raise DataError(f"{', '.join(map(str, folders))}: no object is left to use; check the splits and --holdout.")
        self.folders = torch.tensor(numbers)
        self._available = max(stored.count for stored in self._gaussians)
        self._views = min(len(views) for views in self._images)
        numbering = {name: i for i, name in enumerate(dict.fromkeys(clean_name(info["name"]) for info in self.infos))}
        self._names = torch.tensor([numbering[clean_name(info["name"])] for info in self.infos])

    def __len__(self) -> int:
        return len(self.keys)

    def mean_captions(self) -> Tensor:
        """(N, d) mean of each object's captions, unit length."""
        return torch.stack([normalize(texts.mean(0), dim=0) for texts in self._captions])

    def map_images(self, weight: float, chances: Tensor) -> None:
        """Add `weight` times the targets of `cross_fitted_targets` to the views' embeddings, and make them unit length again.

        Args:
            weight: of the fitted targets; the teacher's own embeddings weigh 1.
            chances: (N,) weights of the objects in the fit.

        Raises:
            DataError: the teacher has no pooled features, or all objects have one name.
        """
        if len(self._features) != len(self) or len(self._names.unique()) < 2:
            raise DataError("--image-map: needs a teacher with pooled image features and objects of several names; use 0.")
        fitted = cross_fitted_targets(self._features, self.mean_captions(), self._names, chances)
        self._images = [normalize(own + weight * other, dim=-1) for own, other in zip(self._images, fitted, strict=True)]
        self._features = []

    def batch(
        self,
        rows: Tensor,
        gaussians: int,
        views: int,
        generator: torch.Generator,
        own: Tensor | None = None,
    ) -> TrainingBatch:
        """Objects with a fresh random subset of Gaussians, one random caption and random views each.

        Args:
            rows: (N,) objects of the batch.
            gaussians: per object.
            views: per object, at most; as many as every object has.
            generator: of all choices, which are made for the whole batch.
            own: (n,) positions in `rows` of the objects to give; by default all.

        Raises:
            DataError: the triplets hold fewer Gaussians.
        """
        available = self._available
        if gaussians > available:
            raise DataError(f"the triplets hold {available} Gaussians an object, the model takes {gaussians}.")
        picks = torch.stack([torch.randperm(available, generator=generator)[:gaussians] for _ in rows])
        captions = [int(torch.randint(len(self._captions[row]), (), generator=generator)) for row in rows.tolist()]
        shown = [
            torch.randperm(len(self._images[row]), generator=generator)[: min(views, self._views)] for row in rows.tolist()
        ]
        own = torch.arange(len(rows)) if own is None else own
        chosen = [(int(rows[position]), position) for position in own.tolist()]
        drawn = [self._draw(row, picks[position]) for row, position in chosen]
        columns = {name: torch.stack([one[name] for one in drawn]).float() for name in FIELDS}
        return TrainingBatch(
            GaussianBatch(rotations=quaternion_to_matrix(columns.pop("quats")), **columns),
            text=torch.stack([self._captions[row][captions[position]] for row, position in chosen]),
            images=torch.stack([self._images[row][shown[position]] for row, position in chosen]),
            names=self._names[rows[own]],
        )

    def _draw(self, row: int, picks: Tensor) -> dict[str, Tensor]:
        """Gaussians `picks` of an object; transparent samples are dropped, so an object with fewer repeats them in order."""
        stored = self._gaussians[row]
        return {name: column.index_select(0, picks % stored.count) for name, column in stored.columns().items()}
