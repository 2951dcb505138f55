"""`render_mesh`: draws a `Mesh` to colour, coverage, depth, normals and ids with a z-buffer.

Design
- Pinhole cameras, perspective-correct, flat normals; triangles that cross the near plane are clipped, back faces are drawn.
- Transparency is cut-out only: where texture times material opacity is below 0.5 there is a hole.
- Depth, normals and ids are those of the ray through the pixel's centre; supersampling smooths colour and coverage only.
- Light, when asked for, is fixed in the world and the same from every view, so a splat of SH degree 0 can fit the views.
- `native/mesh.cpp` draws; `mesh_reference.py` is the same in NumPy and serves when the native library is missing.
"""

import ctypes
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from splatsense.cameras import Cameras
from splatsense.errors import DataError, LimitError, SplatSenseError
from splatsense.mesh import Mesh
from splatsense.native import load_native, pointer
from splatsense.render.mesh_reference import render_view

MAX_SUPERSAMPLE = 16
MeshBackend = Literal["auto", "native", "reference"]


@dataclass(frozen=True, eq=False)
class MeshImages:
    """V views of a mesh, on the CPU.

    Attributes:
        color: (V, H, W, 3) float32 sRGB in [0, 1], over the background.
        alpha: (V, H, W) float32 share of the pixel that the mesh covers.
        depth: (V, H, W) float32 along the camera's z axis, 0 where there is nothing.
        normal: (V, H, W, 3) float32 unit face normals in world axes, on the camera's side; 0 where there is nothing.
        instance_id: (V, H, W) int32 of `Mesh.face_instances`, -1 where there is nothing.
        face_id: (V, H, W) int32 row of `Mesh.faces`, -1 where there is nothing.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    normal: Tensor
    instance_id: Tensor
    face_id: Tensor


def render_mesh(
    mesh: Mesh,
    cameras: Cameras,
    *,
    background: tuple[float, float, float] | None = None,
    supersample: int = 1,
    shading: float = 0.0,
    near: float = 0.01,
    backend: MeshBackend = "auto",
) -> MeshImages:
    """Draws `mesh` from every camera.

    Args:
        mesh: what to draw; faces are visible from both sides.
        cameras: V cameras.
        background: sRGB in [0, 1] behind the mesh; black if None.
        supersample: samples per pixel along each axis for colour and alpha, 1 to 16.
        shading: 0 shows the plain colours, 1 a world-fixed hemisphere light, in between a mix of both.
        near: nothing closer than this along the camera's z axis is drawn, in world units.
        backend: "auto" takes the native library if it is installed.

    Raises:
        DataError: values that are not finite, textures of another form, or arguments out of range.
        LimitError: the images do not fit into memory.
    """
    _check_mesh(mesh)
    if not 1 <= supersample <= MAX_SUPERSAMPLE:
        raise DataError(f"render_mesh: supersample must be 1 to {MAX_SUPERSAMPLE}, got {supersample}.")
    if not 0 <= shading <= 1:
        raise DataError(f"render_mesh: shading must be in [0, 1], got {shading}.")
    if not 0 < near < float("inf"):
        raise DataError(f"render_mesh: near must be positive and finite, got {near}.")
    if backend not in get_args(MeshBackend):
        raise DataError(f"render_mesh: backend must be one of {', '.join(get_args(MeshBackend))}, got {backend!r}.")
    behind = np.array((0.0, 0.0, 0.0) if background is None else background, dtype=np.float32)
    if behind.shape != (3,) or not ((behind >= 0) & (behind <= 1)).all():
        raise DataError(f"render_mesh: background must be three values in [0, 1], got {background}.")
    world_to_camera, K = (t.detach().cpu().numpy().astype(np.float32) for t in (cameras.world_to_camera, cameras.K))
    if not (np.isfinite(world_to_camera).all() and np.isfinite(K).all()):
        raise DataError("render_mesh: cameras hold NaN or infinite values.")
    native = load_native() if backend != "reference" else None
    if native is None and backend == "native":
        raise SplatSenseError("render_mesh: backend 'native' needs the native library; install with a compiler or use 'auto'.")

    size = (len(cameras), cameras.height, cameras.width)
    try:
        images = MeshImages(
            color=torch.empty(*size, 3),
            alpha=torch.empty(size),
            depth=torch.empty(size),
            normal=torch.empty(*size, 3),
            instance_id=torch.empty(size, dtype=torch.int32),
            face_id=torch.empty(size, dtype=torch.int32),
        )
    except RuntimeError as error:  # as PyTorch says that memory ran out
        raise _too_large(size, supersample) from error
    if native is not None:
        _render_native(native, mesh, world_to_camera, K, near, supersample, shading, behind, images)
        return images
    for view in range(len(cameras)):
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # faces too large for float32 are left out
            drawn = render_view(
                mesh, world_to_camera[view], K[view], cameras.width, cameras.height, near, supersample, shading, behind
            )
        for name, image in drawn.items():
            getattr(images, name)[view] = torch.from_numpy(image)
    return images


def _check_mesh(mesh: Mesh) -> None:
    for name in ("vertices", "corner_uvs", "corner_colors"):
        values = getattr(mesh, name)
        if values is not None and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DataError(f"Mesh.{name}[{row}] is not finite; clean the mesh before drawing it.")
    for i, material in enumerate(mesh.materials):
        if np.shape(material.color) != (4,) or not np.isfinite(material.color).all():
            raise DataError(f"Mesh.materials[{i}].color must be four finite values, got {material.color}.")
        texture = material.texture
        if texture is None:
            continue
        if texture.ndim != 3 or texture.shape[2] != 4 or texture.dtype != np.uint8 or texture.size == 0:
            raise DataError(
                f"Mesh.materials[{i}].texture is {texture.dtype} {texture.shape}, expected uint8 (H, W, 4), not empty."
            )
        if mesh.corner_uvs is None:
            raise DataError(f"Mesh.materials[{i}] has a texture, but Mesh.corner_uvs is None.")


_MESH_ARRAYS = (
    "vertices", "faces", "face_materials", "face_instances", "corner_uvs", "corner_colors",
    "material_colors", "textures", "texture_sizes",
)  # fmt: skip
_IMAGES = ("color", "alpha", "depth", "normal", "instance_id", "face_id")


class _NativeMesh(ctypes.Structure):
    """`SsMesh` of native/splatsense.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _MESH_ARRAYS),
        *((name, ctypes.c_int32) for name in ("vertex_count", "face_count", "material_count")),
    )


class _NativeImages(ctypes.Structure):
    """`SsMeshImages` of native/splatsense.h."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _IMAGES)


def _render_native(
    library: ctypes.CDLL, mesh: Mesh, world_to_camera: np.ndarray, K: np.ndarray, near: float, supersample: int,
    shading: float, background: np.ndarray, images: MeshImages,
) -> None:  # fmt: skip
    def dense(array: np.ndarray | None, dtype: type) -> np.ndarray | None:
        return None if array is None else np.ascontiguousarray(array, dtype)

    textures = [dense(material.texture, np.uint8) for material in mesh.materials]
    arrays = {
        "vertices": dense(mesh.vertices, np.float32),
        "faces": dense(mesh.faces, np.int32),
        "face_materials": dense(mesh.face_materials, np.int32),
        "face_instances": dense(mesh.face_instances, np.int32),
        "corner_uvs": dense(mesh.corner_uvs, np.float32),
        "corner_colors": dense(mesh.corner_colors, np.float32),
        "material_colors": np.array([material.color for material in mesh.materials], np.float32),
        "textures": np.array([0 if t is None else t.ctypes.data for t in textures], np.uintp),
        "texture_sizes": np.array([(0, 0) if t is None else t.shape[:2] for t in textures], np.int32),
    }
    native_mesh = _NativeMesh(
        **{name: pointer(array) for name, array in arrays.items()},
        vertex_count=len(mesh.vertices), face_count=len(mesh.faces), material_count=len(mesh.materials),
    )  # fmt: skip
    native_images = _NativeImages(*(pointer(getattr(images, name)) for name in _IMAGES))
    views, height, width = images.depth.shape
    world_to_camera, K = np.ascontiguousarray(world_to_camera), np.ascontiguousarray(K)
    function = library.ss_render_mesh
    address, int32, float32 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
    function.argtypes = [
        ctypes.POINTER(_NativeMesh), address, address, int32, int32, int32, float32, int32, float32, address,
        ctypes.POINTER(_NativeImages),
    ]  # fmt: skip
    failed = function(
        ctypes.byref(native_mesh), pointer(world_to_camera), pointer(K), views, width, height, near, supersample, shading,
        pointer(background), ctypes.byref(native_images),
    )  # fmt: skip
    if failed:
        raise _too_large((views, height, width), supersample)


def _too_large(size: tuple[int, int, int], supersample: int) -> LimitError:
    views, height, width = size
    return LimitError(
        f"render_mesh: out of memory at {views} images of {width} x {height} with supersample={supersample}; draw fewer or "
        "smaller ones."
    )
