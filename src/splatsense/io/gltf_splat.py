"""Gaussians in glTF: the extension KHR_gaussian_splatting that Khronos ratified in 2026, in `.glb` and `.gltf`.

Design
- A primitive with the extension is a set of Gaussians: scales are linear, opacities in [0, 1], rotations xyzw, and SH
  coefficients those of 3DGS, one attribute for each term. `_gltf_container` gets the numbers, this module their meaning.
- Nodes place their meshes; translation, rotation and uniform scale are applied, with the SH bands rotated along. The result
  is in the axes of the glTF, y up.
- Drafts of the extension are read too: attributes `_SCALE` and `_ROTATION`, colour and opacity in `COLOR_0`, and the log
  scales of late 2025, which are told by being negative.
- Colour space `lin_rec709_display` is converted to the sRGB of `Gaussians`: exactly for the DC band, to first order for the
  higher bands. Other meshes of the file are left out, which the log says.
- Writing is in `_gltf_writer`.
- Primitives compressed with SPZ (KHR_gaussian_splatting_compression_spz_2 and its forerunners) go to `spz.parse_spz`. The
  drafts have glTF's axes called left, up, front, so that what SPZ calls right, up, back takes half a turn about y.

Precision of a round trip: exact for means, scales, opacities and SH of degree 0 to 3; rotations to float32 rounding. SH
degree 4 is not kept. Reading takes the size of the file and twice that of the Gaussians.
"""

import io
import logging
import math
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splatsense.errors import FormatError, LimitError
from splatsense.files import open_to_read
from splatsense.gaussians import Gaussians, quaternion_to_matrix
from splatsense.io._cleaning import clean_gaussians
from splatsense.io._gltf_container import Document, read_document
from splatsense.io._json import Json, member, numbers, objects
from splatsense.io.mesh import linear_to_srgb
from splatsense.io.spz import parse_spz
from splatsense.spherical_harmonics import SH_C0

log = logging.getLogger("splatsense")

EXTENSION = "KHR_gaussian_splatting"
SPZ_EXTENSION = re.compile(r"KHR_(gaussian_splatting_compression_spz(_\d+)?|spz_gaussian_splats_compression)")
SPZ_TO_GLTF = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
SRGB, LINEAR = "srgb_rec709_display", "lin_rec709_display"
SH_TERMS = [f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{term}" for degree in range(4) for term in range(2 * degree + 1)]
POINTS = 0
INTEGERS = {"i1": 127, "u1": 255, "i2": 32767, "u2": 65535}
FREE_COUNT = 1 << 18
"""Gaussians that instances of one mesh may add up to in any file; beyond it, one for every byte of the file."""


def is_gltf_splat(path: Path) -> bool:
    """Whether a glTF file has a primitive of Gaussians. Files that do not mention any are not parsed."""
    with open_to_read(path) as handle:
        if path.stat().st_size == 0:
            return False
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(b"gaussian_splat") < 0:
                return False
    meshes = read_document(path).entries("meshes")
    return any(_is_splat(primitive) for mesh in meshes for primitive in _primitives(mesh, str(path)))


def read_gltf(path: str | os.PathLike[str]) -> Gaussians:
    """Read the Gaussians of a `.glb` or `.gltf` file, as the nodes of its scene place them.

    Raises:
        FormatError: it is missing, cut off, damaged, holds no Gaussians, or a node shears them.
        LimitError: its nodes repeat Gaussians without measure, or they would decompress to far more than its size.
        DataError: no Gaussian in it is usable.
    """
    path = Path(path)
    document = read_document(path)
    parts, count, others = [], 0, 0
    for mesh_index, transform, node in _placed_meshes(document):
        mesh, where = document.get("meshes", mesh_index, node)
        for index, primitive in enumerate(_primitives(mesh, where)):
            if not _is_splat(primitive):
                others += 1
                continue
            part = _read_primitive(document, primitive, f"{where}.primitives[{index}]")
            count += len(part)
            if count > FREE_COUNT + document.size:
                raise LimitError(f"{path}: its nodes place {count} Gaussians from {document.size} bytes; it is hostile.")
            parts.append(_place(part, transform, node))
    if not parts:
        raise FormatError(f"{path}: holds no Gaussians ({EXTENSION}) in its scene; read it with load_mesh if it is a mesh.")
    if others:
        log.warning("%s: %d meshes beside the Gaussians are left out.", path, others)
    return Gaussians.cat(parts) if len(parts) > 1 else parts[0]


def _primitives(mesh: Json, where: str) -> list[Json]:
    return objects(mesh, "primitives", where)


def _is_splat(primitive: Json) -> bool:
    extensions = primitive.get("extensions")
    return isinstance(extensions, dict) and any(name == EXTENSION or SPZ_EXTENSION.fullmatch(name) for name in extensions)


def _placed_meshes(document: Document) -> Iterator[tuple[object, np.ndarray, str]]:
    """For each mesh that a node of the scene places: its index, the (4, 4) float64 world matrix, and the node's name."""
    path, scene = document.path, document.json.get("scene", 0)
    if not document.entries("nodes"):
        for index in range(len(document.entries("meshes"))):
            yield index, np.eye(4), str(path)
        return
    if document.entries("scenes"):
        roots = document.get("scenes", scene, str(path))[0].get("nodes", [])
    else:
        children = {child for node in document.entries("nodes") for child in _children(node, str(path))}
        roots = [index for index in range(len(document.entries("nodes"))) if index not in children]
    waiting = [(index, np.eye(4)) for index in reversed(_children({"children": roots}, f"{path}: scene"))]
    visited: set[int] = set()
    while waiting:
        index, parent = waiting.pop()
        node, where = document.get("nodes", index, str(path))
        if index in visited:
            raise FormatError(f"{where}: is the child of two nodes or of itself; export the file again.")
        visited.add(index)
        world = parent @ _local_matrix(node, where)
        if "mesh" in node:
            yield node["mesh"], world, where
        waiting += [(child, world) for child in reversed(_children(node, where))]


def _children(node: Json, where: str) -> list[int]:
    children = node.get("children", [])
    if not isinstance(children, list) or not all(isinstance(child, int) for child in children):
        raise FormatError(f"{where}: its children are not a list of node numbers; export the file again.")
    return children


def _local_matrix(node: Json, where: str) -> np.ndarray:
    """(4, 4) of a node: `matrix`, column by column, or translation, rotation (xyzw) and scale."""
    if "matrix" in node:
        return np.array(numbers(node, "matrix", where, 16)).reshape(4, 4).T
    matrix = np.eye(4)
    if "rotation" in node:
        x, y, z, w = numbers(node, "rotation", where, 4)
        matrix[:3, :3] = quaternion_to_matrix(torch.tensor([w, x, y, z], dtype=torch.float64)).numpy()
    if "scale" in node:
        matrix[:3, :3] *= numbers(node, "scale", where, 3)
    if "translation" in node:
        matrix[:3, 3] = numbers(node, "translation", where, 3)
    return matrix


def _place(gaussians: Gaussians, world: np.ndarray, where: str) -> Gaussians:
    """Gaussians where a node puts them; only similarities keep Gaussians of their kind with colours that can follow."""
    if np.array_equal(world, np.eye(4)):
        return gaussians
    with np.errstate(all="ignore"):
        scale = np.cbrt(np.linalg.det(world[:3, :3]))
        rotation = world[:3, :3] / scale
        shift = world[:3, 3].astype(np.float32)
        is_similarity = 0 < scale < np.inf and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
    if not is_similarity:
        raise FormatError(
            f"{where}: its transform shears, mirrors, flattens or stretches the Gaussians in it. "
            "Apply a uniform scale, or bake the transform into them, and export the file again."
        )
    left, _, right = np.linalg.svd(rotation)
    turn = None if np.array_equal(rotation, np.eye(3)) else torch.from_numpy(left @ right).float()
    placed = gaussians.transform(turn, float(scale), torch.from_numpy(shift)) if np.isfinite(shift).all() else None
    if placed is None or not (placed.means.isfinite().all() and placed.scales.isfinite().all()):
        raise FormatError(f"{where}: its transform takes Gaussians beyond the range of float32; export it at a smaller scale.")
    return placed


@np.errstate(all="ignore")  # what is not finite then is for clean_gaussians to see
def _read_primitive(document: Document, primitive: Json, where: str) -> Gaussians:
    extensions = member(primitive, "extensions", where)
    extension = member(extensions, EXTENSION, where)
    inner = member(extension, "extensions", where)
    for name in (*extensions, *inner):
        if SPZ_EXTENSION.fullmatch(name):
            view = member(inner if name in inner else extensions, name, where).get("bufferView")
            gaussians = parse_spz(io.BytesIO(document.view(view, where)[0]), f"{where}: {name}")
            return gaussians.transform(SPZ_TO_GLTF)
    if primitive.get("mode", 4) != POINTS:
        raise FormatError(f"{where}: has mode {primitive.get('mode', 4)}; Gaussians are points, mode 0. Export the file again.")
    space = extension.get("colorSpace", SRGB)
    if space not in (SRGB, LINEAR):
        raise FormatError(f"{where}: has colour space {str(space)[:60]!r}; {SRGB} and {LINEAR} are known. Convert its colours.")
    if extension.get("kernel", "ellipse") != "ellipse":
        log.warning("%s: kernel %.60r is not known; read as ellipses.", where, extension["kernel"])

    means = _attribute(document, primitive, where, ("POSITION",), "VEC3")
    quats = _attribute(document, primitive, where, (f"{EXTENSION}:ROTATION", "_ROTATION"), "VEC4")
    if means is None or quats is None:
        raise FormatError(f"{where}: lacks POSITION or {EXTENSION}:ROTATION; export the file again.")
    scales = _scales(document, primitive, where)
    opacities = _attribute(document, primitive, where, (f"{EXTENSION}:OPACITY",), "SCALAR")
    dc = _attribute(document, primitive, where, (SH_TERMS[0],), "VEC3")
    if opacities is None or dc is None:  # a draft had both in COLOR_0
        colour = _attribute(document, primitive, where, ("COLOR_0",), "VEC4")
        if colour is None:
            raise FormatError(f"{where}: lacks {EXTENSION}:OPACITY or {SH_TERMS[0]}; export the file again.")
        opacities = colour[:, 3:] if opacities is None else opacities
        dc = (colour[:, :3] - np.float32(0.5)) / np.float32(SH_C0) if dc is None else dc
    sh = torch.from_numpy(np.stack([dc, *_higher_bands(document, primitive, where)], axis=1))
    wrong = int(((opacities < 0) | (opacities > 1)).sum())
    if wrong:
        log.warning("%s: %d opacities outside 0 to 1 are clamped.", where, wrong)
    xyzw = torch.from_numpy(quats)
    return clean_gaussians(
        where,
        torch.from_numpy(means),
        xyzw[:, [3, 0, 1, 2]],
        torch.from_numpy(scales),
        torch.from_numpy(opacities[:, 0]).clamp(0, 1),
        _linear_to_srgb(sh) if space == LINEAR else sh,
    )


def _attribute(document: Document, primitive: Json, where: str, names: tuple[str, ...], kind: str) -> np.ndarray | None:
    """(N, width) float32 of the first attribute of these names, N as POSITION has it; None when there is none."""
    attributes = member(primitive, "attributes", where)
    name = next((name for name in names if name in attributes), None)
    if name is None:
        return None
    array, component = document.array(attributes[name], f"{where}.{name}", kind)
    if len(array) != document.count(attributes.get("POSITION"), where):
        raise FormatError(f"{where}: {name} has {len(array)} elements, POSITION another number; export the file again.")
    base, is_normalized = component[:2], component.endswith("normalized")
    if base == "f4":
        return np.array(array, np.float32)
    if base not in INTEGERS or not (is_normalized or kind == "VEC3"):
        raise FormatError(f"{where}: {name} has components of type {component}; export it as float.")
    values = array.astype(np.float32)
    return np.maximum(values / INTEGERS[base], -1) if is_normalized else values


def _scales(document: Document, primitive: Json, where: str) -> np.ndarray:
    """(N, 3) linear scales. Those of drafts are logarithms: most of them negative, which no linear scale may be."""
    scales = _attribute(document, primitive, where, (f"{EXTENSION}:SCALE", "_SCALE"), "VEC3")
    if scales is None:
        raise FormatError(f"{where}: lacks {EXTENSION}:SCALE; export the file again.")
    if 2 * (scales < 0).sum() > scales.size:
        log.warning("%s: its scales are negative, so logarithms, as a draft of %s had them.", where, EXTENSION)
        return np.exp(scales)
    return scales


def _higher_bands(document: Document, primitive: Json, where: str) -> list[np.ndarray]:
    """The SH terms after the DC one in order, each (N, 3), of complete degrees."""
    attributes = member(primitive, "attributes", where)
    last = max((place for place, name in enumerate(SH_TERMS) if name in attributes), default=0)
    used = SH_TERMS[1 : (math.isqrt(last) + 1) ** 2]
    terms = [_attribute(document, primitive, where, (name,), "VEC3") for name in used]
    missing = [name for name, term in zip(used, terms, strict=True) if term is None]
    if missing:
        raise FormatError(f"{where}: lacks {', '.join(missing)}; degrees must be complete. Export the file again.")
    return [term for term in terms if term is not None]


def _linear_to_srgb(sh: Tensor) -> Tensor:
    """(N, K, 3) SH of linear colours as SH of sRGB colours: the DC band exactly, the others scaled by the slope there."""
    linear = (sh[:, 0] * SH_C0 + 0.5).clamp(0, 1)
    dc = (torch.from_numpy(linear_to_srgb(linear.numpy())) - 0.5) / SH_C0
    slope = torch.where(linear <= 0.0031308, 12.92, 1.055 / 2.4 * linear.clamp_min(0.0031308) ** (1 / 2.4 - 1))
    return torch.cat([dc[:, None], sh[:, 1:] * slope[:, None]], dim=1)
