"""Shards of triplets on disk: WebDataset tar files, one sample after another, and the teacher's embeddings beside them.

Design
- A sample is `<key>.gaussians.safetensors` (half precision, colours instead of SH), `<key>.view00.webp` ... (RGBA, straight
  alpha) and `<key>.json`, which comes last. Any tool that reads WebDataset reads them.
- A sample's bytes depend on the object and the settings alone: no times, no owners. A shard is its samples one after the
  other and the two empty blocks that end a tar file, so whoever builds it in whatever order makes the same file.
- Reading checks that the end is there and each sample whole; an error names the shard and the sample.
- Shards of earlier versions, whose views are RGB on white, are read as views that cover every pixel.
"""

import functools
import hashlib
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.errors import FormatError
from splatsense.files import atomic_write, sha256_of
from splatsense.gaussians import Gaussians
from splatsense.teachers import FeatureTeacher, Teacher

QUALITY, EFFORT = 90, 2  # of WebP; effort 2 takes half the time of the default 4 for 7 % more bytes
END = bytes(2 * tarfile.BLOCKSIZE)
EMBED_TOGETHER = 16  # objects whose views are held in memory at once


@dataclass(frozen=True)
class Triplet:
    """One object.

    Attributes:
        key: unique in its corpus.
        gaussians: normalised, SH degree 0.
        views: (V, H, W, 4) uint8 sRGB with straight alpha.
        info: what is known about it, as docs/triplets.md lists it.
    """

    key: str
    gaussians: Gaussians
    views: np.ndarray
    info: dict[str, Any]

    def pictures(self) -> list[Image.Image]:
        """The views as RGB images on white."""
        return [on_white(Image.fromarray(view)) for view in self.views]

    def cameras(self) -> Cameras:
        """The V cameras of the views. Raises FormatError when the sample holds none, as those of earlier versions."""
        stored = self.info.get("cameras")
        if stored is None:
            raise FormatError(f"{self.key}: holds no cameras; build the triplets again.")
        world_to_camera, K = (torch.tensor(stored[name], dtype=torch.float32) for name in ("world_to_camera", "K"))
        return Cameras(world_to_camera, K.repeat(len(world_to_camera), 1, 1), stored["width"], stored["height"])


def on_white(image: Image.Image) -> Image.Image:
    """An RGBA image as RGB over white."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def encode_sample(triplet: Triplet) -> bytes:
    """The entries of one sample in a tar file, without its end: what `write_shard` joins."""
    g = triplet.gaussians
    tensors = {"means": g.means, "quats": g.quats, "scales": g.scales, "opacities": g.opacities, "rgb": g.rgb}
    files = {"gaussians.safetensors": save({k: v.half().contiguous() for k, v in tensors.items()})}
    for index, view in enumerate(triplet.views):
        buffer = io.BytesIO()
        Image.fromarray(view).save(buffer, "WEBP", quality=QUALITY, method=EFFORT)
        files[f"view{index:02d}.webp"] = buffer.getvalue()
    files["json"] = json.dumps(triplet.info).encode()
    entries = io.BytesIO()
    with tarfile.open(fileobj=entries, mode="w") as tar:
        for extension, data in files.items():
            entry = tarfile.TarInfo(f"{triplet.key}.{extension}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        size = tar.offset
    return entries.getvalue()[:size]


def write_shard(path: Path, samples: Iterable[bytes]) -> tuple[int, str]:
    """Join encoded samples to a shard that appears when it is complete; returns its bytes and their sha256."""
    digest, size = hashlib.sha256(), 0
    with atomic_write(path, fsync=True) as temporary, temporary.open("wb") as shard:
        for part in samples:
            shard.write(part)
            digest.update(part)
            size += len(part)
        end = END + bytes(-(size + len(END)) % tarfile.RECORDSIZE)
        shard.write(end)
        digest.update(end)
    return size + len(end), digest.hexdigest()


def split_shard(path: Path) -> Iterator[tuple[str, bytes]]:
    """The keys and encoded samples of a shard: what `write_shard` joined."""
    with path.open("rb") as shard:
        for key, start, stop in _sample_ranges(path):
            shard.seek(start)
            yield key, shard.read(stop - start)


def _sample_ranges(path: Path) -> list[tuple[str, int, int]]:
    ranges: list[tuple[str, int, int]] = []
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key = member.name.partition(".")[0]
            start = ranges.pop()[1] if ranges and ranges[-1][0] == key else member.offset
            ranges.append((key, start, member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE))
    return ranges


def read_shard(path: str | Path, with_views: bool = True) -> Iterator[Triplet]:
    """The samples of one shard in order. Raises FormatError, naming the sample, when the shard is damaged or cut short."""
    path, key = Path(path), ""
    groups: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                if extension.endswith("webp") and not with_views:
                    continue
                opened = tar.extractfile(member)
                if opened is None:
                    continue
                groups.setdefault(key, {})[extension] = opened.read()
                if extension == "json":
                    yield _parse_sample(path, key, groups.pop(key))
    except (tarfile.TarError, OSError) as error:
        raise FormatError(f"{path}: {_place(key)}: cut short or damaged ({error}); {REBUILD}") from error
    if groups:
        raise FormatError(f"{path}: sample {next(iter(groups))!r} has no .json: cut short; {REBUILD}")
    if not _ends_well(path):
        raise FormatError(f"{path}: {_place(key)}: the end of the tar file is missing: cut short; {REBUILD}")


REBUILD = "remove the shard and run `splatsense triplets build` again."


def _place(key: str) -> str:
    return f"at sample {key!r}" if key else "at its beginning"


def _ends_well(path: Path) -> bool:
    with path.open("rb") as shard:
        size = shard.seek(0, io.SEEK_END)
        shard.seek(max(0, size - len(END)))
        return size % tarfile.BLOCKSIZE == 0 and shard.read() == END


def _parse_sample(path: Path, key: str, files: dict[str, bytes]) -> Triplet:
    try:
        tensors = {name: value.float() for name, value in load_safetensors(files["gaussians.safetensors"]).items()}
        names = sorted((name for name in files if name.endswith("webp")), key=lambda name: (len(name), name))  # 99 before 100
        views = [np.asarray(Image.open(io.BytesIO(files[name])).convert("RGBA")) for name in names]
        stacked = np.stack(views) if views else np.zeros((0, 1, 1, 4), np.uint8)
        return Triplet(key, Gaussians.from_rgb(**tensors), stacked, json.loads(files["json"]))
    except (
        KeyError,
        TypeError,
        ValueError,
        OSError,
        SafetensorError,
    ) as error:  # a part is missing, or is not what it should be
        raise FormatError(f"{path}: sample {key!r} is damaged ({type(error).__name__}: {error}); {REBUILD}") from error


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"triplets-{number:05d}.tar"


def shard_paths(folders: Iterable[str | Path]) -> list[Path]:
    """All shards of some folders, in order. Raises FormatError for a folder without any."""
    found = []
    for folder in folders:
        shards = sorted(Path(folder).glob("triplets-*.tar"))
        if not shards:
            raise FormatError(f"{folder}: no triplets-*.tar; make them with `splatsense triplets build`.")
        found += shards
    return found


def shard_hash(path: Path) -> str:
    """SHA-256 of a shard, which a process reads once for it, and again only where the shard was written anew."""
    found = path.stat()
    return _hash(path, found.st_size, found.st_mtime_ns)


@functools.cache
def _hash(path: Path, size: int, written: int) -> str:
    return sha256_of(path)


def fingerprint(folders: Iterable[str | Path]) -> str:
    """Changes when triplets were built anew or edited: hex digest of the names and contents of the shards."""
    shards = [f"{path.name} {shard_hash(path)}" for path in shard_paths(folders)]
    return hashlib.sha256("\n".join(shards).encode()).hexdigest()[:16]


def embed_shard(path: Path, teacher: Teacher) -> dict[str, Tensor]:
    """Teacher embeddings of a shard's views and captions, computed once and kept beside it.

    Returns:
        "images" (n, V, d), "captions" (m, d) of all captions one after the other, "caption_counts" (n,); and "features"
        (n, V, f) in half precision when the teacher has pooled image features.

    Raises:
        FormatError: the shard is damaged, or the embeddings beside it belong to another shard or teacher.
    """
    cached = path.with_suffix(f".{teacher.hash[:12]}.safetensors")
    made_from = {"teacher": teacher.hash, "shard_sha256": shard_hash(path)}
    with_features = isinstance(teacher, FeatureTeacher)
    if cached.exists() and _is_made_from(cached, made_from):
        embedded = load_file(cached)
        if with_features == ("features" in embedded):
            return embedded
    embedded = _embed(path, teacher)
    with atomic_write(cached) as temporary:
        save_file(embedded, temporary, metadata=made_from)
    return embedded


def _is_made_from(cached: Path, made_from: dict[str, str]) -> bool:
    """Whether embeddings say what they were made from; those of earlier versions do not, and are computed again.

    Raises:
        FormatError: they are damaged, or were made from something else.
    """
    try:
        with safe_open(cached, "pt") as opened:
            stored = opened.metadata() or {}
    except SafetensorError as error:
        raise FormatError(f"{cached}: damaged ({error}); remove it, and the embeddings are computed again.") from error
    differing = [name for name in made_from if name in stored and stored[name] != made_from[name]]
    if differing:
        raise FormatError(f"{cached}: was made from another {' and '.join(differing)}; remove it to compute it again.")
    return made_from.keys() <= stored.keys()


def _embed(path: Path, teacher: Teacher) -> dict[str, Tensor]:
    images: list[Tensor] = []
    features: list[Tensor] = []
    captions: list[list[str]] = []
    triplets: list[Triplet] = []

    def embed_views() -> None:
        pictures = [picture for triplet in triplets for picture in triplet.pictures()]
        if pictures and isinstance(teacher, FeatureTeacher):
            pooled = teacher.encode_image_features(pictures)
            features.append(pooled.half().unflatten(0, (len(triplets), -1)))
            images.append(teacher.embed_features(pooled).unflatten(0, (len(triplets), -1)))
        elif pictures:
            images.append(teacher.encode_images(pictures).unflatten(0, (len(triplets), -1)))
        triplets.clear()

    for triplet in read_shard(path):
        triplets.append(triplet)
        captions.append(triplet.info["captions"])
        if len(triplets) == EMBED_TOGETHER:
            embed_views()
    embed_views()
    if not images:
        raise FormatError(f"{path}: holds no views to embed; {REBUILD}")
    embedded = {
        "images": torch.cat(images).contiguous(),
        "captions": teacher.encode_text([text for texts in captions for text in texts]).contiguous(),
        "caption_counts": torch.tensor([len(texts) for texts in captions]),
    }
    return embedded | ({"features": torch.cat(features).contiguous()} if features else {})
