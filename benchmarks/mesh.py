"""Mesh renderer: native against reference in one run, milliseconds per 256 x 256 view of 46,000 textured faces.

    python benchmarks/mesh.py [--views 24] [--prototype path/to/library.so]

`--prototype` times another renderer with the C signature in `prototype_views` on the same mesh and cameras.
"""

import argparse
import ctypes
import math
import time
from collections.abc import Callable

import numpy as np
import torch
import trimesh

from splatsense.cameras import Cameras
from splatsense.mesh import Material, Mesh
from splatsense.native import native_level, pointer
from splatsense.render.mesh import render_mesh

SIZE = 256


def chair() -> Mesh:
    """A seat, a back, four legs and a ball, finely triangulated, under one 1024 x 1024 texture."""
    parts = []
    for extents, center in (((1, 0.12, 1), (0, 0, 0)), ((1, 0.9, 0.12), (0, 0.5, -0.45))):
        parts.append(trimesh.creation.box(extents=extents).apply_translation(center))
        for _ in range(5):
            parts[-1] = parts[-1].subdivide()
    for x, z in ((-0.42, -0.42), (-0.42, 0.42), (0.42, -0.42), (0.42, 0.42)):
        leg = trimesh.creation.cylinder(radius=0.05, segment=[(x, -0.5, z), (x, 0, z)], sections=64)
        parts.append(leg.subdivide().subdivide())
    parts.append(trimesh.creation.icosphere(subdivisions=4, radius=0.2).apply_translation((0, 0.25, 0.1)))
    whole = trimesh.util.concatenate(parts)
    vertices, faces = np.asarray(whole.vertices, np.float32), np.asarray(whole.faces, np.int32)
    y, x = np.mgrid[0:1024, 0:1024]
    texture = np.stack([128 + 100 * np.sin(x / 23), 128 + 100 * np.cos(y / 31), (x ^ y) & 255, 0 * x + 255], -1).astype(
        np.uint8
    )
    uvs = np.stack([vertices[:, 0] * 0.4 + 0.1 * vertices[:, 1] + 0.5, vertices[:, 1] * 0.4 + 0.1 * vertices[:, 2]], 1)
    instances = np.repeat(np.arange(len(parts)), [len(part.faces) for part in parts]).astype(np.int32)
    material = Material(np.ones(4, np.float32), texture)
    return Mesh(vertices, faces, np.zeros(len(faces), np.int32), instances, (material,), uvs[faces].astype(np.float32))


def best_of(repeats: int, function: Callable[[], object]) -> float:
    """Shortest time in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def prototype_views(path: str, mesh: Mesh, cameras: Cameras) -> Callable[[], object]:
    """Draws all views with `mesh_render` of another library: RGB texture, per-vertex uvs, depth, rgb, normals, ids."""
    library = ctypes.CDLL(path)
    uvs = np.zeros((len(mesh.vertices), 2), np.float32)
    uvs[mesh.faces] = mesh.corner_uvs
    texture = np.ascontiguousarray(mesh.materials[0].texture[..., :3])
    matrices = cameras.world_to_camera.contiguous()
    views, focal = len(cameras), float(cameras.K[0, 0, 0])

    def draw() -> list[np.ndarray]:
        pixels = (views, SIZE, SIZE)
        out = [np.empty(pixels, np.float32), np.empty((*pixels, 3), np.uint8), np.empty((*pixels, 3), np.float32)]
        out.append(np.empty(pixels, np.int32))
        library.mesh_render(
            pointer(mesh.vertices), len(mesh.vertices), pointer(mesh.faces), len(mesh.faces), pointer(uvs),
            pointer(mesh.face_instances), pointer(texture), texture.shape[1], texture.shape[0], pointer(matrices), views,
            ctypes.c_float(focal), SIZE, *(pointer(image) for image in out),
        )  # fmt: skip
        return out

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--prototype", help="shared library to compare with")
    arguments = parser.parse_args()
    mesh, cameras = (
        chair(),
        Cameras.orbit(arguments.views, size=SIZE, distance=2.4, fov=2 * math.degrees(math.atan(SIZE / 560))),
    )
    print(f"{len(mesh.faces)} faces, {len(cameras)} views of {SIZE} x {SIZE}, {torch.get_num_threads()} threads")
    reference = best_of(1, lambda: render_mesh(mesh, cameras[:1], backend="reference"))
    print(f"reference (NumPy)          {reference:8.2f} ms a view")
    if native_level() == "off":
        return
    native = best_of(7, lambda: render_mesh(mesh, cameras, backend="native")) / len(cameras)
    smooth = best_of(3, lambda: render_mesh(mesh, cameras, supersample=2, shading=0.7, backend="native")) / len(cameras)
    print(f"native ({native_level()})            {native:8.2f} ms a view, {reference / native:.0f} times as fast")
    print(f"native, 2 x 2 supersampled {smooth:8.2f} ms a view")
    if arguments.prototype:
        other = best_of(7, prototype_views(arguments.prototype, mesh, cameras)) / len(cameras)
        print(f"prototype                  {other:8.2f} ms a view, native takes {native / other:.2f} of that")


if __name__ == "__main__":
    main()
