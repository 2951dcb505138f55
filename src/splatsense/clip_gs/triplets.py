"""Triplets: every object of a corpus as Gaussians, rendered views and captions, in WebDataset shards (paper, section 3.1).

Design
- A sample is `<key>.gaussians.safetensors`, `<key>.view00.webp` ..., `<key>.json` in a plain tar file.
- A shard is written under a temporary name and renamed when complete; a rerun skips shards that are there.
- Objects that fail are listed with the reason in `failures.json` and do not stop the others.
- Teacher embeddings lie beside a shard in a file named after the teacher's hash, so changing the teacher is safe.

Differs from the paper: Gaussians come from surface conversion, not from optimisation.
"""

import json
import math
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splatsense.cameras import Cameras
from splatsense.clip_gs.captions import captions
from splatsense.clip_gs.shards import Triplet, add_sample
from splatsense.corpora import CorpusObject
from splatsense.corpora.folder import folder
from splatsense.corpora.furniture import furniture
from splatsense.errors import FormatError, SplatSenseError
from splatsense.files import atomic_write
from splatsense.io.surface import MIN_OPACITY, mesh_to_gaussians
from splatsense.mesh import Material, Mesh
from splatsense.render.mesh import render_mesh
from splatsense.training.progress import Progress

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


DEFAULT = TripletConfig()


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


def build_triplets(corpus: Sequence[CorpusObject], out: str | Path, config: TripletConfig = DEFAULT) -> dict[str, str]:
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
    shards = Path(out)
    shards.mkdir(parents=True, exist_ok=True)
    _check_same_config(shards / "config.json", config)
    failures = _read_json(shards / "failures.json", {})
    progress = Progress("triplets", len(corpus))
    for start in range(0, len(corpus), config.shard_size):
        items = corpus[start : start + config.shard_size]
        path = shards / f"triplets-{start // config.shard_size:05d}.tar"
        if path.exists():
            progress.advance(len(items))
            continue
        with atomic_write(path) as temporary, tarfile.open(temporary, "w") as tar:
            for item in items:
                try:
                    add_sample(tar, make_triplet(item, config))
                    failures.pop(item.key, None)
                except SplatSenseError as error:
                    failures[item.key] = str(error)
                progress.advance(1)
        with atomic_write(shards / "failures.json") as temporary:
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


def triplets_furniture(out: Path, source: Path | None = None, config: TripletConfig = DEFAULT) -> int:
    """Make triplets of the Sweet Home 3D furniture libraries; a rerun goes on where one stopped.

    Args:
        out: Folder of the shards, made when missing.
        source: Folder of the libraries; by default installed ones, or the Debian packages fetched into `cache/`.
        config: How to make them.
    """
    return _report(build_triplets(furniture(source), out, config), out)


def triplets_folder(source: Path, out: Path, licence: str = "", config: TripletConfig = DEFAULT) -> int:
    """Make triplets of all meshes below a folder, named after their files or its captions.csv.

    Args:
        source: Folder of .obj, .glb, .gltf, .ply and .stl files.
        out: Folder of the shards, made when missing.
        licence: Of everything that captions.csv gives none for.
        config: How to make them.
    """
    return _report(build_triplets(folder(source, licence), out, config), out)


def _report(failures: dict[str, str], out: Path) -> int:
    print(f"{out}: {len(failures)} objects could not be used." if failures else f"{out}: complete.")
    for key, reason in failures.items():
        print(f"  {key}: {reason}")
    return 1 if failures else 0
