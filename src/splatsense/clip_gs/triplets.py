"""Triplets: an object of a corpus as Gaussians, rendered views and captions (paper, section 3.1).

Design
- Meshes are drawn from an orbit of cameras whose elevations are jittered, then Gaussians sampled on their surface are fitted
  to the views by optimisation (`method="fitted"`), or taken as they are (`method="surface"`, a thousand times faster).
- Splats are normalised without what is too faint to be seen, as the model does, and drawn by our rasteriser; nothing is fitted.
- All that is drawn at random about an object comes from a seed of its own, made from its key, so it does not matter who makes
  it and in what order.

Differs from the paper: views are shaded by a light fixed in the world, and some hundred steps of optimisation from surface
samples with a fixed budget of Gaussians replace 5,000 steps with densification, because most objects need no more.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from splatsense.cameras import Cameras
from splatsense.clip_gs.captions import Appearance, captions
from splatsense.clip_gs.color_words import dominant_colors
from splatsense.clip_gs.fit_scores import measure
from splatsense.clip_gs.fitting import FitConfig, fit_batch
from splatsense.clip_gs.model import visible
from splatsense.clip_gs.shards import Triplet
from splatsense.clip_gs.views import OUTLIERS, mesh_colors, mesh_radius, mesh_views, splat_radius, splat_views, view_cameras
from splatsense.corpora import CorpusObject
from splatsense.errors import DataError, LimitError, SplatSenseError
from splatsense.gaussians import Gaussians
from splatsense.io.surface import mesh_to_gaussians
from splatsense.mesh import Mesh


@dataclass(frozen=True)
class TripletConfig:
    """What triplets are like. All shards of a folder share one configuration."""

    method: Literal["fitted", "surface"] = "fitted"
    """Gaussians optimised to the views, or sampled on the surface and left so; splats are taken as they are"""
    gaussians: int = 4096
    """per object; a splat that has more gives a random subset"""
    steps: tuple[int, int] = FitConfig.steps
    """of the fit, with pictures of half and the full size"""
    views: int = 36
    """rendered pictures per object"""
    size: int = 256
    """of a picture in pixels"""
    elevations: tuple[float, ...] = (0.0, 20.0, 40.0)
    """of the orbit in degrees, taken in turn"""
    jitter: float = 10.0
    """degrees by which an elevation may differ, drawn for each view from the object's seed"""
    held_out: int = 2
    """views that the fit does not see and that its PSNR and SSIM are measured on"""
    shading: float = 0.5
    """strength of the light that makes shape visible, 0 to 1"""
    seed: int = 0
    """of everything random, together with the object's key"""
    max_faces: int = 5_000_000
    """a mesh of more faces is refused, not drawn"""
    max_megabytes: int = 1024
    """a source file larger than this is refused, not read"""
    shard_size: int = 128
    """objects per shard"""

    @property
    def fit(self) -> FitConfig:
        """The settings of the fit."""
        return FitConfig(gaussians=self.gaussians, steps=self.steps, seed=self.seed)

    def cameras(self, radius: float, seed: int) -> Cameras:
        """The cameras around an object of some radius."""
        return view_cameras(self.views, self.size, radius, self.elevations, self.jitter, seed)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.steps) < 0:
            raise DataError(f"--steps: must not be negative, got {self.steps}.")
        for flag in ("gaussians", "views", "size", "max_faces", "max_megabytes", "shard_size"):
            if getattr(self, flag) < 1:
                raise DataError(f"--{flag.replace('_', '-')}: must be at least 1, got {getattr(self, flag)}.")
        if not 0 <= self.shading <= 1:
            raise DataError(f"--shading: must lie in [0, 1], got {self.shading}.")
        if not self.elevations or max(map(abs, self.elevations)) + self.jitter > 89 or self.jitter < 0:
            raise DataError("--elevations, --jitter: needs elevations, and with their jitter none beyond 89 degrees.")
        if not 0 <= self.held_out < self.views:
            raise DataError(f"--held-out: must be at least 0 and less than --views {self.views}, got {self.held_out}.")


DEFAULT = TripletConfig()


@dataclass(frozen=True, eq=False)
class _Draft:
    """A triplet before its Gaussians are fitted: `start` is what the fit starts from, or the result where nothing is fitted."""

    key: str
    start: Gaussians
    views: np.ndarray
    cameras: Cameras
    info: dict[str, Any]
    fitted: bool


def make_triplet(item: CorpusObject, config: TripletConfig, device: str = "cpu") -> Triplet:
    """Read, picture and convert or fit one object. Raises SplatSenseError when it cannot be used."""
    made = make_triplets([item], config, device)[0]
    if isinstance(made, Exception):
        raise made
    return made


def make_triplets(items: Sequence[CorpusObject], config: TripletConfig, device: str = "cpu") -> list[Triplet | Exception]:
    """Triplets of some objects, fitted together, or the error of each that cannot be used.

    Args:
        items: on a GPU as many as are fitted at a time; on a CPU nothing is gained by more than one.
        config: how to make them.
        device: where the fit runs.
    """
    drafts: list[_Draft | Exception] = []
    for item in items:
        try:
            drafts.append(_draft(item, config))
        except Exception as error:  # parsers raise almost anything; the caller reports it, and the others go on
            drafts.append(error)
    waiting = [draft for draft in drafts if isinstance(draft, _Draft) and draft.fitted]
    done = dict(zip((draft.key for draft in waiting), _fit(waiting, config, device) if waiting else [], strict=True))
    return [
        draft
        if isinstance(draft, Exception)
        else done.get(draft.key) or Triplet(draft.key, draft.start, draft.views, draft.info)
        for draft in drafts
    ]


def _fit(drafts: Sequence[_Draft], config: TripletConfig, device: str) -> list[Triplet | Exception]:
    """The fitted triplets of some drafts; one that cannot be fitted does not stop the others."""
    try:
        fits = fit_batch(
            [draft.start.to(device) for draft in drafts],
            [draft.cameras.to(device) for draft in drafts],
            [_as_floats(draft.views, device) for draft in drafts],
            config.fit,
            [draft.info["held_out"] for draft in drafts],
        )
    except SplatSenseError as error:
        return [error] if len(drafts) == 1 else [_fit([draft], config, device)[0] for draft in drafts]
    return [
        Triplet(draft.key, fit.gaussians.to("cpu"), draft.views, draft.info | _scores(fit.psnr, fit.ssim, fit.foreground_psnr))
        for draft, fit in zip(drafts, fits, strict=True)
    ]


def _as_floats(views: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """RGBA in [0, 1], straight alpha."""
    return torch.from_numpy(views).to(device).float() / 255


def _measure(gaussians: Gaussians, views: np.ndarray, cameras: Cameras, held_out: list[int]) -> dict[str, float | None]:
    """The scores of Gaussians that were not fitted."""
    rgba = _as_floats(views[held_out])
    premultiplied = torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], dim=-1)
    found = measure(gaussians, cameras[torch.tensor(held_out, dtype=torch.long)], premultiplied)
    return _scores(found.psnr, found.ssim, found.foreground_psnr)


def _scores(psnr: float, ssim: float, foreground_psnr: float) -> dict[str, float | None]:
    """For the info; NaN, which JSON has not, becomes None."""
    scores = {"psnr": round(psnr, 3), "ssim": round(ssim, 4), "foreground_psnr": round(foreground_psnr, 3)}
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def object_seed(key: str, seed: int) -> int:
    """The seed of all that is drawn at random about an object."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:4], "big")


def _draft(item: CorpusObject, config: TripletConfig) -> _Draft:
    seed = object_seed(item.key, config.seed)
    source = _source_hash(item, config)
    missing: tuple[str, ...] = ()
    if item.load_gaussians is not None:
        splat = visible(item.load_gaussians(), item.key).normalized(OUTLIERS)
        cameras = config.cameras(splat_radius(splat), seed)
        views = splat_views(splat, cameras)
        gaussians, colors = splat.subsample(config.gaussians, seed), dominant_colors(views)
        method = "splat"
    else:
        mesh = load_checked(item, config)
        missing, method = mesh.missing_textures, config.method
        cameras = config.cameras(mesh_radius(mesh), seed)
        views = mesh_views(mesh, cameras, config.shading)
        gaussians = mesh_to_gaussians(mesh, config.gaussians, seed)
        colors = mesh_colors(mesh)
    low, high = gaussians.bounds.tolist()
    appearance = Appearance(colors, (high[0] - low[0], high[1] - low[1], high[2] - low[2]))
    held_out = sorted(np.random.default_rng(seed).choice(config.views, config.held_out, replace=False).tolist())
    fields = ("name", "category", "label", "split", "licence", "creator", "size_cm")
    info: dict[str, Any] = {field: getattr(item, field) for field in fields}
    info |= {"tags": list(item.tags), "captions": captions(item, appearance, seed), "colors": list(colors)}
    info |= {"missing_textures": list(missing), "source_sha256": source, "method": method, "seed": seed}
    info |= {"held_out": held_out, "cameras": _cameras_as_json(cameras)}
    info |= _measure(gaussians, views, cameras, held_out) if method == "surface" else _scores(math.nan, math.nan, math.nan)
    return _Draft(item.key, gaussians, views, cameras, info, fitted=method == "fitted")


def _source_hash(item: CorpusObject, config: TripletConfig) -> str | None:
    if item.open_source is None:
        return None
    with item.open_source() as source:
        size = source.seek(0, os.SEEK_END)
        if size > config.max_megabytes * 1_000_000:
            raise LimitError(
                f"{item.key}: has {size / 1e6:,.0f} MB, more than --max-megabytes {config.max_megabytes}; raise it."
            )
        source.seek(0)
        return hashlib.file_digest(source, "sha256").hexdigest()


def load_checked(item: CorpusObject, config: TripletConfig) -> Mesh:
    """The normalised mesh of an object. Raises LimitError when it has more faces than `config.max_faces`."""
    mesh = item.load_mesh()
    if len(mesh.faces) > config.max_faces:
        raise LimitError(
            f"{item.key}: {len(mesh.faces):,} faces, more than --max-faces {config.max_faces}; simplify the mesh or raise it."
        )
    return mesh.normalized()


def _cameras_as_json(cameras: Cameras) -> dict[str, Any]:
    """What `Triplet.cameras` reads."""
    matrices = [[[round(value, 7) for value in row] for row in matrix] for matrix in cameras.world_to_camera.tolist()]
    return {"world_to_camera": matrices, "K": cameras.K[0].tolist(), "width": cameras.width, "height": cameras.height}
