"""Meshes with materials, textures and colours from .obj, .glb, .gltf, .ply and .stl, read by trimesh.

Design
- trimesh parses, after `_mesh_limits` has checked what the file declares; this module flattens its scene into one
  `Mesh`, with one instance id per part.
- OBJ material colours are sRGB as everybody writes them; glTF factors and vertex colours are linear and converted.
- A texture that cannot be found or decoded does not fail the mesh: its faces keep the material colour, its name
  goes to `Mesh.missing_textures`, and a warning is logged. Texture names are matched without case, and by their
  last part when an absolute path of the author's machine was left in the file.
"""

import io
import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from splatsense.errors import DataError, FormatError, SplatSenseError
from splatsense.files import open_to_read
from splatsense.io._decompression import gzip_bound
from splatsense.io._mesh_limits import TEXTURE_PIXELS, check_faces, check_gltf
from splatsense.io._ply_container import check_counts, read_header
from splatsense.io.compressed_ply import is_compressed
from splatsense.io.ply import is_mesh, is_splat
from splatsense.mesh import Material, Mesh

log = logging.getLogger("splatsense")

MESH_SUFFIXES = (".obj", ".glb", ".gltf", ".ply", ".stl")
GREY = np.array([0.7, 0.7, 0.7, 1.0], np.float32)
PNG_BITS = {"LA": 16, "RGB": 24, "RGBA": 32}
"""Bits of a pixel by Pillow's modes; others may have as little as one."""
ReadFile = Callable[[str], bytes]


def load_mesh(path: str | Path, file_type: str | None = None) -> Mesh:
    """Read a mesh file with its materials and textures, axes and units as in the file.

    Args:
        path: the file; what it refers to (materials, textures) is looked for beside it.
        file_type: "obj", "glb", "gltf", "ply" or "stl" if the extension does not say.

    Raises:
        FormatError: the file is missing, damaged or not a mesh format this reader knows.
        LimitError: it declares far more than its bytes can hold.
        DataError: it holds no faces, or vertices that are not finite.
    """
    path = Path(path)
    suffix = f".{file_type}" if file_type else path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise FormatError(f"{path}: not a mesh file this version reads; it reads {' '.join(MESH_SUFFIXES)}.")
    with open_to_read(path) as handle:
        data = handle.read()
    if suffix == ".ply":
        header = read_header(path)
        if not is_mesh(header) and (is_splat(header) or is_compressed(header)):
            raise DataError(f"{path}: is a splat, without faces: read it with splatsense.load, or take the corpus splats:PATH.")
        check_counts(header)
    return parse_mesh(data, suffix[1:], lambda name: _read_beside(path.parent, name), str(path))


def parse_mesh(data: bytes, file_type: str, read_file: ReadFile, name: str) -> Mesh:
    """Parse a mesh held in memory.

    Args:
        data: the bytes of the file.
        file_type: "obj", "glb", "gltf", "ply" or "stl".
        read_file: returns the bytes of a file the mesh refers to (materials, textures) or raises OSError.
        name: what error messages call the mesh.
    """
    import trimesh

    if not data:
        raise FormatError(f"{name}: the file is empty; export it again.")
    resolver = _resolver(read_file)
    options: dict[str, Any] = {"process": False}
    if file_type == "obj":
        options |= {"split_object": False, "group_material": True}
    if file_type in ("glb", "gltf"):
        check_gltf(data, name)
    try:
        with np.errstate(all="ignore"):
            scene = trimesh.load_scene(io.BytesIO(data), file_type=file_type, resolver=resolver, **options)
            check_faces(scene, name)
            _prepare_textures(scene, resolver.missing)
            parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    except SplatSenseError:
        raise
    except Exception as error:  # trimesh parsers raise almost anything on damaged files
        raise FormatError(f"{name}: cannot be read as {file_type} ({type(error).__name__}: {error}).") from error
    if not parts:
        raise DataError(
            f"{name}: holds no faces. Is its extension right? A splat needs that of its format; a point cloud is read from a "
            ".ply with x, y, z."
        )
    for part in parts:
        if part.vertices.ndim != 2 or part.vertices.shape[1] != 3 or part.faces.shape[1] != 3:
            raise FormatError(f"{name}: damaged: a vertex has not three coordinates; export it again.")
        if part.faces.min() < 0 or part.faces.max() >= len(part.vertices):
            raise FormatError(f"{name}: damaged: a face points outside its {len(part.vertices)} vertices; export it again.")
    with np.errstate(over="ignore", invalid="ignore"):  # a value beyond float32 becomes infinite and is told below
        mesh = _merge(parts, linear=file_type in ("glb", "gltf"), missing=tuple(dict.fromkeys(resolver.missing)))
    if not np.isfinite(mesh.vertices).all():
        bad = int(np.flatnonzero(~np.isfinite(mesh.vertices).all(1))[0])
        raise DataError(f"{name}: vertex {bad} is not finite; repair the mesh and export it again.")
    if not mesh.face_areas.sum() > 0:
        raise DataError(f"{name}: all {len(mesh.faces)} faces have zero area.")
    if mesh.missing_textures:
        log.warning(
            "%s: textures not found or not usable: %s; the material colours serve.", name, ", ".join(mesh.missing_textures)
        )
    return mesh


def _resolver(read_file: ReadFile) -> Any:
    """A trimesh resolver over `read_file` that remembers what was asked for and not there."""
    from trimesh.resolvers import Resolver

    class RecordingResolver(Resolver):
        def __init__(self) -> None:
            self.missing: list[str] = []

        def get(self, key: str) -> bytes:
            try:
                return read_file(key.strip())
            except OSError:
                self.missing.append(key.strip())
                raise

        def keys(self) -> list[str]:
            return []

        def namespaced(self, namespace: str) -> "RecordingResolver":
            return self

        def write(self, name: str, data: bytes) -> None:
            raise io.UnsupportedOperation("meshes are only read")

    return RecordingResolver()


def match_name(wanted: str, available: list[str]) -> str | None:
    """The entry of `available` that `wanted` means: exact, then without case, then by its last part."""
    wanted = wanted.replace("\\", "/").removeprefix("./")
    if wanted in available:
        return wanted
    folded = {name.casefold(): name for name in available}
    if wanted.casefold() in folded:
        return folded[wanted.casefold()]
    return folded.get(PurePosixPath(wanted).name.casefold())


def _read_beside(folder: Path, name: str) -> bytes:
    path = folder / PureWindowsPath(name).as_posix()
    if not (path.is_file() and _is_inside(path, folder)):
        found = match_name(name, [entry.name for entry in folder.iterdir() if entry.is_file()])
        if not (found and _is_inside(folder / found, folder)):
            raise FileNotFoundError(f"{name}: no regular file in the folder of the mesh")
        path = folder / found
    return path.read_bytes()


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _merge(parts: list[Any], linear: bool, missing: tuple[str, ...]) -> Mesh:
    vertices, faces, face_materials, face_instances, corner_uvs, corner_colors = [], [], [], [], [], []
    materials: list[Material] = []
    offset = 0
    for instance, part in enumerate(parts):
        material, uvs, colors = _appearance(part, linear)
        part_faces = np.asarray(part.faces, np.int32)
        vertices.append(np.asarray(part.vertices, np.float32))
        faces.append(part_faces + offset)
        face_materials.append(np.full(len(part_faces), len(materials), np.int32))
        face_instances.append(np.full(len(part_faces), instance, np.int32))
        corner_uvs.append(np.zeros((len(part_faces), 3, 2), np.float32) if uvs is None else uvs)
        corner_colors.append(np.ones((len(part_faces), 3, 3), np.float32) if colors is None else colors)
        materials.append(material)
        offset += len(vertices[-1])
    textured = any(material.texture is not None for material in materials)
    colored = any((colors != 1).any() for colors in corner_colors)
    return Mesh(
        np.concatenate(vertices),
        np.concatenate(faces),
        np.concatenate(face_materials),
        np.concatenate(face_instances),
        tuple(materials),
        np.concatenate(corner_uvs) if textured else None,
        np.concatenate(corner_colors) if colored else None,
        missing,
    )


def _appearance(part: Any, linear: bool) -> tuple[Material, np.ndarray | None, np.ndarray | None]:
    """The material of a trimesh part, its (F, 3, 2) corner uvs and its (F, 3, 3) corner colours."""
    visual = part.visual
    if visual.kind in ("vertex", "face"):
        rgba = np.asarray(visual.vertex_colors if visual.kind == "vertex" else visual.face_colors, np.float32) / 255
        rgb = linear_to_srgb(rgba[:, :3]) if linear else rgba[:, :3]
        corners = rgb[part.faces] if visual.kind == "vertex" else np.repeat(rgb[:, None], 3, axis=1)
        return Material(np.ones(4, np.float32)), None, corners.astype(np.float32)
    if visual.kind != "texture":
        return Material(GREY), None, None
    color, image = _color_and_image(visual.material)
    if linear:
        color[:3] = linear_to_srgb(color[:3])
    uv = np.zeros((0, 0), np.float32) if visual.uv is None else np.asarray(visual.uv, np.float32)
    if image is None or uv.ndim != 2 or len(uv) != len(part.vertices) or uv.shape[1] < 2:
        return Material(color), None, None
    uvs = np.nan_to_num(uv[:, :2], nan=0.0, posinf=0.0, neginf=0.0)[part.faces]
    return Material(color, np.asarray(image.convert("RGBA"), np.uint8)), uvs, None


def _prepare_textures(scene: Any, missing: list[str]) -> None:
    """Decode the colour textures of a trimesh scene, and take from it the images that are not used or cannot be.

    The names of those that are damaged or too large are added to `missing`.
    """
    for geometry in scene.geometry.values():
        material = getattr(getattr(geometry, "visual", None), "material", None)
        for slot in ("metallicRoughnessTexture", "normalTexture", "occlusionTexture", "emissiveTexture"):
            if getattr(material, slot, None) is not None:
                setattr(material, slot, None)
        slot = "baseColorTexture" if hasattr(material, "baseColorTexture") else "image"
        image = getattr(material, slot, None)
        if image is not None and (fault := _texture_fault(image)):
            missing.append(f"{getattr(image, 'filename', '') or 'a texture without a name'} ({fault})")
            setattr(material, slot, None)


def _texture_fault(image: Any) -> str:
    """Why a texture cannot be used, or an empty string and it is decoded."""
    try:
        if image.width * image.height > TEXTURE_PIXELS:
            return f"{image.width} x {image.height} pixels: too large"
        if image.format == "PNG" and image.width * image.height * PNG_BITS.get(image.mode, 1) // 8 > _most_bytes(image):
            return f"damaged: too short for {image.width} x {image.height} pixels"
        image.load()
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        return f"damaged: {error}"
    return ""


def _most_bytes(image: Any) -> int:
    """What the compressed pixels of an image that is not decoded yet can hold."""
    position = image.fp.tell()
    size = image.fp.seek(0, io.SEEK_END)
    image.fp.seek(position)
    return gzip_bound(size)


def _color_and_image(material: Any) -> tuple[np.ndarray, Any]:
    if hasattr(material, "baseColorFactor"):
        factor = material.baseColorFactor
        color = np.ones(4, np.float32) if factor is None else np.asarray(factor, np.float32) / 255
        return color, material.baseColorTexture
    color = np.asarray(material.diffuse, np.float32) / 255
    color[3] = _obj_opacity(material.kwargs)
    # An OBJ texture replaces a black Kd, which many exporters write beside map_Kd.
    return (np.append(np.ones(3, np.float32), color[3]) if material.image is not None else color), material.image


def _obj_opacity(properties: dict[str, Any]) -> float:
    """`d` of an OBJ material, 1 when absent or unreadable; trimesh leaves it as a number, a string or a list."""
    value = properties.get("d", 1.0)
    try:
        return float(np.clip(float(value[-1] if isinstance(value, list) else value), 0, 1))
    except (ValueError, IndexError):
        return 1.0


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """sRGB transfer function (IEC 61966-2-1) of values in [0, 1]."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)
