"""Shards of triplets on disk: WebDataset tar files, one sample after another, and the teacher's embeddings beside them.

A sample is `<key>.gaussians.safetensors` (half precision), `<key>.view00.webp` ... and `<key>.json`.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from splatsense.errors import FormatError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.teachers import FeatureTeacher, Teacher


@dataclass(frozen=True)
class Triplet:
    """One object: Gaussians (normalised), views (V, H, W, 3) uint8 on white, and what is known about it."""

    key: str
    gaussians: Gaussians
    views: np.ndarray
    info: dict[str, Any]


def add_sample(tar: tarfile.TarFile, triplet: Triplet) -> None:
    """Append one sample to an open shard."""
    g = triplet.gaussians
    tensors = {"means": g.means, "quats": g.quats, "scales": g.scales, "opacities": g.opacities, "rgb": g.rgb}
    _add_file(tar, f"{triplet.key}.gaussians.safetensors", save({k: v.half().contiguous() for k, v in tensors.items()}))
    for index, view in enumerate(triplet.views):
        buffer = io.BytesIO()
        Image.fromarray(view).save(buffer, "WEBP", quality=90)
        _add_file(tar, f"{triplet.key}.view{index:02d}.webp", buffer.getvalue())
    _add_file(tar, f"{triplet.key}.json", json.dumps(triplet.info).encode())


def _add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def read_shard(path: str | Path, with_views: bool = True) -> Iterator[Triplet]:
    """The samples of one shard in order. Raises FormatError when the shard is damaged."""
    try:
        with tarfile.open(path) as tar:
            groups: dict[str, dict[str, bytes]] = {}
            for member in tar:
                key, _, extension = member.name.partition(".")
                if extension.endswith("webp") and not with_views:
                    continue
                opened = tar.extractfile(member)
                if opened is None:
                    continue
                groups.setdefault(key, {})[extension] = opened.read()
                if extension == "json":
                    yield _parse_sample(key, groups.pop(key))
    except (tarfile.TarError, OSError, KeyError) as error:
        raise FormatError(f"{path}: damaged shard ({error}); remove it and build the triplets again.") from error


def _parse_sample(key: str, files: dict[str, bytes]) -> Triplet:
    tensors = {name: value.float() for name, value in load_safetensors(files["gaussians.safetensors"]).items()}
    names = sorted(name for name in files if name.endswith("webp"))
    views = [np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB")) for name in names]
    stacked = np.stack(views) if views else np.zeros((0, 1, 1, 3), np.uint8)
    return Triplet(key, Gaussians.from_rgb(**tensors), stacked, json.loads(files["json"]))


def shard_paths(folders: Iterable[str | Path]) -> list[Path]:
    """All shards of some folders, in order. Raises FormatError for a folder without any."""
    found = []
    for folder in folders:
        shards = sorted(Path(folder).glob("triplets-*.tar"))
        if not shards:
            raise FormatError(f"{folder}: no triplets-*.tar; make them with `splatsense triplets`.")
        found += shards
    return found


def embed_shard(path: Path, teacher: Teacher) -> dict[str, Tensor]:
    """Teacher embeddings of a shard's views and captions, computed once and kept beside it.

    Returns:
        "images" (n, V, d), "captions" (m, d) of all captions one after the other, "caption_counts" (n,); and "features"
        (n, V, f) in half precision when the teacher has pooled image features.
    """
    cached = path.with_suffix(f".{teacher.hash[:12]}.safetensors")
    with_features = isinstance(teacher, FeatureTeacher)
    if cached.exists():
        embedded = load_file(cached)
        if with_features == ("features" in embedded):
            return embedded
    triplets = list(read_shard(path))
    texts = [caption for triplet in triplets for caption in triplet.info["captions"]]
    pictures = [Image.fromarray(view) for triplet in triplets for view in triplet.views]
    if isinstance(teacher, FeatureTeacher):
        features = teacher.encode_image_features(pictures)
        pooled, images = {"features": features.half().unflatten(0, (len(triplets), -1))}, teacher.embed_features(features)
    else:
        pooled, images = {}, teacher.encode_images(pictures)
    embedded = {
        "images": images.unflatten(0, (len(triplets), -1)).contiguous(),
        "captions": teacher.encode_text(texts).contiguous(),
        "caption_counts": torch.tensor([len(triplet.info["captions"]) for triplet in triplets]),
        **pooled,
    }
    with atomic_write(cached) as temporary:
        save_file(embedded, temporary)
    return embedded
