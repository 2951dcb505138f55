"""Mesh to Gaussians by surface conversion: no optimisation, a few tenths of a second an object.

Design
- Samples are drawn area-weighted and stratified: jittered equal steps along the cumulated area, and barycentric coordinates of
  a randomly shifted low-discrepancy sequence, so that `count` samples cover the surface evenly.
- Each becomes one flat Gaussian: two axes in the surface, as wide as the spacing between samples, and a thin one
  along the normal. Colour and opacity come from material, texture and corner colours at the sample.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from splatsense.errors import DataError
from splatsense.gaussians import Gaussians, matrix_to_quaternion
from splatsense.mesh import Mesh

WIDTH = 0.6  # standard deviation within the surface, in units of the mean spacing between samples
FLATNESS = 0.1  # thickness relative to the width
GREY = 0.5
MIN_OPACITY = 0.05  # samples more transparent than this show nothing and are not drawn


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """Points spread evenly over a mesh.

    Attributes:
        points: (N, 3) float64.
        face: (N,) rows of `Mesh.faces`.
        rgba: (N, 4) float32 sRGB and opacity in [0, 1]; textures may hide points of faces that are not transparent as such.
        area: of the faces sampled, times their weights.
    """

    points: np.ndarray
    face: np.ndarray
    rgba: np.ndarray
    area: float


def sample_surface(mesh: Mesh, count: int, rng: np.random.Generator, face_weights: np.ndarray | None = None) -> SurfaceSamples:
    """`count` points on the faces of a mesh that are not transparent, area-weighted and stratified.

    Args:
        mesh: with at least one face of positive area.
        count: how many points, at least 1.
        rng: draws them.
        face_weights: (F,) factors >= 0 on the faces' areas.

    Raises:
        DataError: no face has a positive area and weight, or everything is transparent.
    """
    weights = mesh.face_areas if face_weights is None else mesh.face_areas * face_weights
    weights = weights * (_face_opacity(mesh) >= MIN_OPACITY)
    total = weights.sum()
    if not total > 0:
        raise DataError("sample_surface: no visible face has a positive area.")
    steps = (np.arange(count) + rng.random(count)) / count
    face = np.minimum(np.searchsorted(np.cumsum(weights) / total, steps, side="right"), len(weights) - 1)
    bary = _barycentric(count, rng)
    points = np.einsum("nk,nkc->nc", bary, mesh.vertices[mesh.faces[face]].astype(np.float64))
    return SurfaceSamples(points, face, _color_at(mesh, face, bary), float(total))


def mesh_to_gaussians(mesh: Mesh, count: int = 4096, seed: int = 0, face_weights: np.ndarray | None = None) -> Gaussians:
    """Cover the surface of a mesh with `count` flat Gaussians of SH degree 0.

    Args:
        mesh: with at least one face of positive area.
        count: how many Gaussians.
        seed: of the sampling; the same seed gives the same Gaussians.
        face_weights: (F,) factors >= 0 on the faces' areas, for example 0 for faces nobody can see.

    Raises:
        DataError: no face has a positive area and weight, or everything is transparent.
    """
    if count < 1:
        raise DataError(f"mesh_to_gaussians: count must be at least 1, got {count}.")
    samples = sample_surface(mesh, count, np.random.default_rng(seed), face_weights)
    rgba = samples.rgba
    corners = mesh.vertices[mesh.faces[samples.face]].astype(np.float64)
    width = WIDTH * np.sqrt(samples.area / count)
    scales = np.tile(np.array([width, width, FLATNESS * width], np.float32), (count, 1))
    quats = matrix_to_quaternion(torch.from_numpy(_surface_frames(corners)))
    keep = torch.from_numpy(rgba[:, 3] >= MIN_OPACITY)
    if not bool(keep.any()):
        raise DataError("mesh_to_gaussians: the whole surface is transparent.")
    return Gaussians.from_rgb(
        torch.from_numpy(samples.points).float(),
        quats.float(),
        torch.from_numpy(scales),
        torch.from_numpy(np.minimum(rgba[:, 3], 0.99)),
        torch.from_numpy(rgba[:, :3]),
    )[keep]


def vertex_colors(mesh: Mesh) -> Float32[np.ndarray, "n 3"] | None:
    """sRGB in [0, 1] of each vertex, where a face has it; None for a mesh of one plain colour. Vertices of no face are grey."""
    is_plain = all(entry.texture is None for entry in mesh.materials) and len({tuple(m.color) for m in mesh.materials}) == 1
    if is_plain and mesh.corner_colors is None:
        return None
    used, first = np.unique(mesh.faces, return_index=True)
    face, corner = np.divmod(first, 3)
    colors = np.full((len(mesh.vertices), 3), GREY, np.float32)
    colors[used] = _color_at(mesh, face, np.eye(3)[corner])[:, :3]
    return colors


def _barycentric(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) coordinates spread evenly over the triangle: the R2 sequence (Roberts 2018), shifted and folded into it."""
    plastic = 1.32471795724474602596  # x^3 = x + 1
    index = np.arange(count)[:, None] + 1
    uv = (rng.random(2) + index / np.array([plastic, plastic * plastic])) % 1
    uv = np.where(uv.sum(1, keepdims=True) > 1, 1 - uv, uv)
    return np.column_stack([1 - uv.sum(1), uv])


def _surface_frames(corners: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations whose columns are two surface directions and the normal of triangles (N, 3, 3)."""
    edges = np.roll(corners, -1, axis=1) - corners
    longest = np.take_along_axis(edges, np.linalg.norm(edges, axis=2).argmax(1)[:, None, None], axis=1)[:, 0]
    normal = np.cross(edges[:, 0], edges[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    along = longest / np.maximum(np.linalg.norm(longest, axis=1, keepdims=True), 1e-30)
    return np.stack([along, np.cross(normal, along), normal], axis=2)


def _face_opacity(mesh: Mesh) -> np.ndarray:
    return np.array([material.color[3] for material in mesh.materials])[mesh.face_materials]


def _color_at(mesh: Mesh, face: np.ndarray, bary: np.ndarray) -> np.ndarray:
    """(N, 4) float32 sRGB + opacity at barycentric points of faces."""
    material = mesh.face_materials[face]
    rgba = np.stack([m.color for m in mesh.materials])[material].astype(np.float32)
    if mesh.corner_colors is not None:
        rgba[:, :3] *= np.einsum("nk,nkc->nc", bary, mesh.corner_colors[face])
    if mesh.corner_uvs is not None:
        uv = np.einsum("nk,nkc->nc", bary, mesh.corner_uvs[face])
        for index, entry in enumerate(mesh.materials):
            chosen = material == index
            if entry.texture is not None and chosen.any():
                rgba[chosen] *= sample_texture(entry.texture, uv[chosen])
    return rgba.clip(0, 1).astype(np.float32)


def sample_texture(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N, 4) float32 values in [0, 1] of an (H, W, 4) uint8 texture at uv (N, 2): bilinear, repeating, v up."""
    height, width = texture.shape[:2]
    x = (uv[:, 0] % 1) * width - 0.5
    y = (1 - uv[:, 1] % 1) * height - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]

    def texel(column: np.ndarray, row: np.ndarray) -> np.ndarray:
        return texture[row % height, column % width].astype(np.float32) / 255

    top = texel(x0, y0) * (1 - fx) + texel(x0 + 1, y0) * fx
    bottom = texel(x0, y0 + 1) * (1 - fx) + texel(x0 + 1, y0 + 1) * fx
    return top * (1 - fy) + bottom * fy
