"""`Mesh`: triangles with materials, as the mesh reader fills them and the mesh renderer and surface sampler use them."""

from dataclasses import dataclass, replace

import numpy as np

from splatsense.errors import DataError


@dataclass(frozen=True)
class Material:
    """How one group of faces looks.

    Attributes:
        color: (4,) float32 sRGB + opacity in [0, 1]; multiplies the texture when there is one.
        texture: (H, W, 4) uint8 sRGB + opacity, first row at v = 1 (the image's top), or None.
    """

    color: np.ndarray
    texture: np.ndarray | None = None


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (N, 3) float32.
        faces: (F, 3) int32 vertex indices.
        face_materials: (F,) int32 indices into `materials`.
        face_instances: (F,) int32 id >= 0 of the part or object each face belongs to.
        materials: at least one.
        corner_uvs: (F, 3, 2) float32 texture coordinates (v up), or None when no material has a texture.
        corner_colors: (F, 3, 3) float32 sRGB that multiply the material, or None.
        missing_textures: names of texture files the source asked for and that were not there.
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_materials: np.ndarray
    face_instances: np.ndarray
    materials: tuple[Material, ...]
    corner_uvs: np.ndarray | None = None
    corner_colors: np.ndarray | None = None
    missing_textures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.faces)
        expected = {
            "vertices": (len(self.vertices), 3), "faces": (count, 3),
            "face_materials": (count,), "face_instances": (count,),
            "corner_uvs": (count, 3, 2), "corner_colors": (count, 3, 3),
        }  # fmt: skip
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise DataError(f"Mesh.{name} has shape {value.shape}, expected {shape}.")
        if not self.materials:
            raise DataError("Mesh.materials is empty; pass at least one Material.")
        if count and (self.faces.min() < 0 or self.faces.max() >= len(self.vertices)):
            raise DataError(f"Mesh.faces points outside the {len(self.vertices)} vertices.")
        if count and (self.face_materials.min() < 0 or self.face_materials.max() >= len(self.materials)):
            raise DataError(f"Mesh.face_materials points outside the {len(self.materials)} materials.")

    @property
    def face_areas(self) -> np.ndarray:
        """(F,) float64 areas."""
        a, b, c = self.vertices[self.faces].astype(np.float64).transpose(1, 0, 2)
        return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2

    def normalized(self) -> "Mesh":
        """Centred on the bounding box of the used vertices, longest half-extent 1."""
        used = self.vertices[np.unique(self.faces)] if len(self.faces) else self.vertices
        if not len(used):
            raise DataError("Mesh has no vertices.")
        low, high = used.min(0), used.max(0)
        half_extent = float((high - low).max()) / 2 or 1.0
        vertices = ((self.vertices - (low + high) / 2) / half_extent).astype(np.float32)
        return replace(self, vertices=vertices)
