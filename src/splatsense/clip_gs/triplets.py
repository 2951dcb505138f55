"""Triplets: every object of a corpus as Gaussians, rendered views and captions, in WebDataset shards (paper, section 3.1).

Design
- A sample is `<key>.gaussians.safetensors`, `<key>.view00.webp` ..., `<key>.json` in a plain tar file.
- A shard is written under a temporary name and renamed when complete; a rerun skips shards that are there.
- Objects that fail are listed with the reason in `failures.json` and do not stop the others.
- Teacher embeddings lie beside a shard in a file named after the teacher's hash, so changing the teacher is safe.

Differs from the paper: Gaussians come from surface conversion, not from optimisation.
"""

import io
import json
import logging
import math
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.clip_gs.captions import captions
from splatsense.corpora import CorpusObject
from splatsense.errors import FormatError, SplatSenseError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.io.surface import MIN_OPACITY, mesh_to_gaussians
from splatsense.mesh import Material, Mesh
from splatsense.render.mesh import render_mesh
from splatsense.teachers import Teacher
from splatsense.training.progress import Progress

log = logging.getLogger("splatsense")

FIELD_OF_VIEW = 30.0  # degrees
MARGIN = 1.02  # room around the object's bounding ball


@dataclass(frozen=True)
class TripletConfig:
    """How triplets are made.

    Attributes:
        gaussians: per object.
        views: rendered pictures per object.
        size: of a picture in pixels.
        elevations: of the orbit in degrees, taken in turn.
        shading: strength of the light that makes shape visible, 0 to 1.
        shard_size: objects per shard.
    """

    gaussians: int = 8192
    views: int = 8
    size: int = 256
    elevations: tuple[float, ...] = (10.0, 30.0)
    shading: float = 0.5
    shard_size: int = 128


@dataclass(frozen=True)
class Triplet:
    """One object: Gaussians (normalised), views (V, H, W, 3) uint8 on white, and what is known about it."""

    key: str
    gaussians: Gaussians
    views: np.ndarray
    info: dict[str, Any]


def view_cameras(config: TripletConfig, radius: float) -> Cameras:
    """An orbit around a ball of some radius that fills the picture; the elevations alternate from view to view."""
    distance = MARGIN * radius / math.sin(math.radians(FIELD_OF_VIEW / 2))
    orbits = [Cameras.orbit(config.views, config.size, up, fov=FIELD_OF_VIEW, distance=distance) for up in config.elevations]
    which = torch.arange(config.views) % len(orbits)
    stacked = torch.stack([orbit.world_to_camera for orbit in orbits])[which, torch.arange(config.views)]
    return Cameras(stacked, orbits[0].K, config.size, config.size)


def make_triplet(item: CorpusObject, config: TripletConfig) -> Triplet:
    """Read, convert and picture one object. Raises SplatSenseError when its mesh cannot be used."""
    mesh = item.load_mesh().normalized()
    info = {field: getattr(item, field) for field in ("name", "category", "label", "split", "licence", "creator", "size_cm")}
    info |= {"captions": captions(item), "tags": list(item.tags), "missing_textures": list(mesh.missing_textures)}
    gaussians = mesh_to_gaussians(mesh, config.gaussians)
    return Triplet(item.key, gaussians, render_views(mesh, config), info)


def render_views(mesh: Mesh, config: TripletConfig) -> np.ndarray:
    """(V, H, W, 3) uint8 pictures of a normalised mesh on white."""
    mesh = replace(mesh, materials=tuple(_opaque(material) for material in mesh.materials))
    radius = float(np.linalg.norm(mesh.vertices[np.unique(mesh.faces)], axis=1).max())
    images = render_mesh(mesh, view_cameras(config, radius), background=(1.0, 1.0, 1.0), supersample=2, shading=config.shading)
    return (images.color * 255).round().to(torch.uint8).numpy()


def _opaque(material: Material) -> Material:
    """Glass as a z-buffer can draw it: opaque, lightened as it would look over white."""
    opacity = float(material.color[3])
    if opacity < MIN_OPACITY or opacity == 1:
        return material
    return replace(material, color=np.append(material.color[:3] * opacity + 1 - opacity, 1).astype(np.float32))


def build_triplets(corpus: Sequence[CorpusObject], out: str | Path, config: TripletConfig | None = None) -> dict[str, str]:
    """Write the shards of a corpus that are not there yet.

    Args:
        corpus: objects in a fixed order.
        out: folder of the shards, made when missing.
        config: how to make them; shards of a folder must share one, which is checked.

    Returns:
        The reason of failure by key of every object that could not be used.

    Raises:
        FormatError: the folder holds shards made with another configuration.
    """
    config = config or TripletConfig()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _check_same_config(folder / "config.json", config)
    failures = _read_json(folder / "failures.json", {})
    progress = Progress("triplets", len(corpus))
    for start in range(0, len(corpus), config.shard_size):
        items = corpus[start : start + config.shard_size]
        path = folder / f"triplets-{start // config.shard_size:05d}.tar"
        if path.exists():
            progress.advance(len(items))
            continue
        with atomic_write(path) as temporary, tarfile.open(temporary, "w") as tar:
            for item in items:
                try:
                    _add_sample(tar, make_triplet(item, config))
                    failures.pop(item.key, None)
                except SplatSenseError as error:
                    failures[item.key] = str(error)
                progress.advance(1)
        with atomic_write(folder / "failures.json") as temporary:
            Path(temporary).write_text(json.dumps(failures, indent=1, sort_keys=True))
    progress.close()
    return failures


def _check_same_config(path: Path, config: TripletConfig) -> None:
    wanted = json.loads(json.dumps(asdict(config)))
    if path.exists():
        if _read_json(path, None) != wanted:
            raise FormatError(f"{path}: the shards here were made with other settings; use another folder or remove this one.")
        return
    with atomic_write(path) as temporary:
        Path(temporary).write_text(json.dumps(wanted, indent=1))


def _read_json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else default


def _add_sample(tar: tarfile.TarFile, triplet: Triplet) -> None:
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
        "images" (n, V, d), "captions" (m, d) of all captions one after the other, "caption_counts" (n,).
    """
    cached = path.with_suffix(f".{teacher.hash[:12]}.safetensors")
    if cached.exists():
        return load_file(cached)
    triplets = list(read_shard(path))
    texts = [caption for triplet in triplets for caption in triplet.info["captions"]]
    pictures = [Image.fromarray(view) for triplet in triplets for view in triplet.views]
    embedded = {
        "images": teacher.encode_images(pictures).unflatten(0, (len(triplets), -1)).contiguous(),
        "captions": teacher.encode_text(texts).contiguous(),
        "caption_counts": torch.tensor([len(triplet.info["captions"]) for triplet in triplets]),
    }
    with atomic_write(cached) as temporary:
        save_file(embedded, temporary)
    return embedded
