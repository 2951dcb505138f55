"""Where the objects of an evaluation come from: `CorpusSource` and `ShardSource`.

A corpus gives Gaussians from the surfaces of its objects, and pictures that are rendered here. Shards of triplets give
Gaussians as they are stored, and embeddings of pictures made when the shards were.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from splatsense.clip_gs.shards import Triplet, embed_shard, read_shard, shard_paths
from splatsense.clip_gs.triplets import TripletConfig, make_triplets
from splatsense.corpora import CorpusObject
from splatsense.gaussians import Gaussians
from splatsense.teachers import Teacher
from splatsense.training.progress import Progress

BATCH = 16


@dataclass(frozen=True)
class Sample:
    """What is known about one object: its key, name, label ("" for none), split, and captions."""

    key: str
    name: str
    label: str
    split: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """A few objects: what is known of them, their Gaussians, and (n, V, d) embeddings of their pictures by a teacher."""

    samples: list[Sample]
    gaussians: list[Gaussians]
    embed_views: Callable[[Teacher], Tensor]


Keep = Callable[[str, str], bool]
"""Decides by key and split whether an object is wanted."""


class CorpusSource:
    """Objects of a corpus.

    Args:
        objects: of the corpus.
        config: how many Gaussians and pictures are made of each.

    Attributes:
        failed: reason by key of the objects that could not be used so far.
    """

    def __init__(self, objects: Sequence[CorpusObject], config: TripletConfig) -> None:
        self._objects, self._config = objects, config
        self.failed: dict[str, str] = {}

    def batches(self, keep: Keep) -> Iterator[Batch]:
        """The wanted objects, a few at a time."""
        wanted = [item for item in self._objects if keep(item.key, item.split)]
        progress = Progress("objects", len(wanted))
        for start in range(0, len(wanted), BATCH):
            items = wanted[start : start + BATCH]
            triplets: list[Triplet] = []
            for item, made in zip(items, make_triplets(items, self._config), strict=True):
                if isinstance(made, Triplet):
                    triplets.append(made)
                else:
                    self.failed[item.key] = str(made) or type(made).__name__
            if triplets:
                pictures = [picture for triplet in triplets for picture in triplet.pictures()]
                samples = [_sample_of(triplet) for triplet in triplets]
                yield Batch(samples, [triplet.gaussians for triplet in triplets], _PictureTower(pictures, len(triplets)))
            progress.advance(len(items))
        progress.close()


@dataclass(frozen=True)
class _PictureTower:
    pictures: list[Image.Image]
    objects: int

    def __call__(self, teacher: Teacher) -> Tensor:
        return teacher.encode_images(self.pictures).unflatten(0, (self.objects, -1))


class ShardSource:
    """Objects of triplet shards. Raises FormatError for a folder without any."""

    def __init__(self, folder: str | Path) -> None:
        self._paths = shard_paths([folder])
        self.failed: dict[str, str] = {}

    def batches(self, keep: Keep) -> Iterator[Batch]:
        """The wanted objects, a shard at a time."""
        progress = Progress("shards", len(self._paths))
        for path in self._paths:
            triplets = list(read_shard(path, with_views=False))
            rows = [row for row, triplet in enumerate(triplets) if keep(triplet.key, triplet.info["split"])]
            if rows:
                kept = [triplets[row] for row in rows]
                yield Batch([_sample_of(triplet) for triplet in kept], [t.gaussians for t in kept], _ShardTower(path, rows))
            progress.advance()
        progress.close()


@dataclass(frozen=True)
class _ShardTower:
    path: Path
    rows: list[int]

    def __call__(self, teacher: Teacher) -> Tensor:
        return embed_shard(self.path, teacher)["images"][self.rows].float()


def _sample_of(triplet: Triplet) -> Sample:
    info = triplet.info
    return Sample(triplet.key, info["name"], info["label"], info["split"], tuple(info["captions"]))
