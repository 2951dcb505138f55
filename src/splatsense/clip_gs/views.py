"""Pictures of normalised objects for triplets (paper, section 3.1): where the cameras stand, and how they see.

Design
- Cameras stand on an orbit around a ball that holds the object; elevations alternate and are jittered, azimuths are even.
- Pictures are RGBA with straight alpha, so that they can be laid over any background and fitted to.
- Meshes are shaded by a light that is fixed in the world, so that Gaussians without view dependence can fit every view.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from splatsense.cameras import Cameras
from splatsense.clip_gs.color_words import dominant_colors
from splatsense.gaussians import Gaussians
from splatsense.io.mesh import GREY
from splatsense.io.surface import MIN_OPACITY
from splatsense.mesh import Material, Mesh
from splatsense.render import render
from splatsense.render.mesh import render_mesh

FIELD_OF_VIEW = 30.0  # degrees
MARGIN = 1.02  # room around the object's bounding ball
FIRST_AZIMUTH = 30.0  # degrees from the front
OUTLIERS = 0.002  # of a splat's Gaussians, which do not count for its size
COLOR_VIEWS, COLOR_SIZE = 6, 96  # pictures without light that say what colours a mesh has


def view_cameras(
    views: int, size: int, radius: float, elevations: Sequence[float], jitter: float = 0.0, seed: int = 0
) -> Cameras:
    """Cameras on an orbit around a ball at the origin that fills their pictures.

    Args:
        views: how many, at even azimuths.
        size: of the square pictures, in pixels.
        radius: of the ball.
        elevations: in degrees, taken in turn from view to view.
        jitter: degrees by which an elevation may differ, either way.
        seed: of the jitter.
    """
    index = torch.arange(views)
    random = torch.rand(views, generator=torch.Generator().manual_seed(seed))
    elevation = torch.deg2rad(torch.tensor(elevations)[index % len(elevations)] + jitter * (2 * random - 1))
    azimuth = torch.deg2rad(FIRST_AZIMUTH + index * (360.0 / views))
    directions = torch.stack([elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], dim=-1)
    distance = MARGIN * radius / math.sin(math.radians(FIELD_OF_VIEW / 2))
    return Cameras.look_at(directions * distance, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]), size, size, FIELD_OF_VIEW)


def mesh_radius(mesh: Mesh) -> float:
    """Of the smallest ball around the origin that holds the mesh."""
    return float(np.linalg.norm(mesh.vertices[np.unique(mesh.faces)], axis=1).max())


def splat_radius(splat: Gaussians) -> float:
    """Of a ball around the origin that holds nearly all Gaussians out to two standard deviations."""
    reach = splat.means.norm(dim=1) + 2 * splat.scales.amax(1)
    return float(reach.sort().values[max(0, math.ceil((1 - OUTLIERS) * len(reach)) - 1)])


def mesh_views(mesh: Mesh, cameras: Cameras, shading: float) -> np.ndarray:
    """(V, H, W, 4) uint8 pictures of a normalised mesh, sRGB with straight alpha."""
    mesh = replace(mesh, materials=tuple(_opaque(material) for material in mesh.materials))
    images = render_mesh(mesh, cameras, supersample=2, shading=shading)
    return _to_rgba(images.color, images.alpha)


def splat_views(splat: Gaussians, cameras: Cameras) -> np.ndarray:
    """(V, H, W, 4) uint8 pictures of a normalised splat, sRGB with straight alpha."""
    with torch.no_grad():
        images = render(splat, cameras)
    return _to_rgba(images.color, images.alpha)


def _to_rgba(color: torch.Tensor, alpha: torch.Tensor) -> np.ndarray:
    """From colours over black, which are premultiplied; view by view, so that what is worked on stays in the cache."""
    rgba = torch.empty(*alpha.shape, 4, dtype=torch.uint8)
    for view, (rgb, coverage) in enumerate(zip(color, alpha, strict=True)):
        rgba[view, ..., :3] = (rgb * (255 / coverage.clamp(min=1e-6))[..., None]).round_().clamp_(0, 255)
        rgba[view, ..., 3] = (coverage * 255).round_()
    return rgba.numpy()


def mesh_colors(mesh: Mesh) -> tuple[str, ...]:
    """The colours of a normalised mesh in words, as they are without light; () where its source says nothing about them."""
    if not has_colors(mesh):
        return ()
    cameras = view_cameras(COLOR_VIEWS, COLOR_SIZE, mesh_radius(mesh), (0.0, 30.0))
    return dominant_colors(mesh_views(mesh, cameras, shading=0))


def has_colors(mesh: Mesh) -> bool:
    """Whether the source says anything about colours; a mesh without gets one grey."""
    plain = all(material.texture is None and np.array_equal(material.color, GREY) for material in mesh.materials)
    return not plain or mesh.corner_colors is not None


def _opaque(material: Material) -> Material:
    """Glass as a z-buffer can draw it: opaque, lightened as it would look over white."""
    opacity = float(material.color[3])
    if opacity < MIN_OPACITY or opacity == 1:
        return material
    return replace(material, color=np.append(material.color[:3] * opacity + 1 - opacity, 1).astype(np.float32))
