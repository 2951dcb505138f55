"""Reading and writing files of Gaussians: `load` takes any supported file, `save` writes a splat.

Design
- `load` looks at the first bytes of a file, then at the extension; a wrong name is no obstacle, a wrong content is an
  error that says what the file seems to be. Meshes and point clouds become Gaussians on the way in.
- One module per format holds its `read_x` and `write_x`; `_ply_container` knows PLY without knowing what it means,
  `_sniffing` tells formats apart, `_cleaning` drops Gaussians that are not numbers.
- A file keeps its own axes and units; `Gaussians.normalized()` brings an object to the common frame.
"""

import os
from collections.abc import Callable
from pathlib import Path

from splatsense.cameras import Cameras
from splatsense.errors import FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import _sniffing
from splatsense.io._ply_container import read_header
from splatsense.io.colmap import read_colmap, read_colmap_points
from splatsense.io.e57 import read_e57
from splatsense.io.las import read_las
from splatsense.io.mesh import load_mesh
from splatsense.io.pcd import read_pcd
from splatsense.io.ply import is_mesh, is_splat, read_ply, read_point_cloud, write_ply
from splatsense.io.point_cloud import PointCloud, point_cloud_to_gaussians
from splatsense.io.splat import read_splat, write_splat
from splatsense.io.surface import mesh_to_gaussians
from splatsense.io.text_cloud import read_text_cloud
from splatsense.io.transforms_json import read_transforms_json, write_transforms_json

__all__ = [
    "PointCloud",
    "load",
    "load_cameras",
    "load_mesh",
    "load_point_cloud",
    "mesh_to_gaussians",
    "point_cloud_to_gaussians",
    "read_colmap",
    "read_colmap_points",
    "read_e57",
    "read_las",
    "read_pcd",
    "read_ply",
    "read_point_cloud",
    "read_splat",
    "read_text_cloud",
    "read_transforms_json",
    "save",
    "write_ply",
    "write_splat",
    "write_transforms_json",
]

READERS: dict[str, Callable[[Path], Gaussians]] = {
    "splat": read_splat,
}
"""By the kind that `_sniffing.sniff` gives. PLY may hold a splat, points or a mesh and is told apart in `load`."""

POINT_CLOUD_READERS: dict[str, Callable[[Path], PointCloud]] = {
    "e57": read_e57,
    "las": read_las,
    "pcd": read_pcd,
    "text": read_text_cloud,
}
"""By the kind that `_sniffing.sniff` gives."""

WRITERS: dict[str, Callable[[Gaussians, Path], None]] = {
    ".ply": write_ply,
    ".splat": write_splat,
}
"""By extension."""


def load(path: str | os.PathLike[str]) -> Gaussians:
    """Read a splat, mesh or point cloud as Gaussians.

    Splats: `.ply`, `.splat`. Meshes, sampled on their surface: `.obj`, `.glb`, `.gltf`, `.stl`, `.ply` with faces. Point
    clouds: `.ply` with vertices alone, `.pcd`, `.las`, `.laz`, `.e57`, and text (`.xyz`, `.pts`, `.txt`, `.csv`); one far
    from the origin is moved to it, which the log says and `load_point_cloud` tells. Gaussians with values that are not finite
    or a quaternion of zeros are left out with a warning in the log that gives their number.

    Raises:
        FormatError: the file is missing, empty, cut off, damaged, or of a format that is not supported.
        DataError: nothing in it is usable.
    """
    path = Path(path)
    kind = _sniffing.sniff(path)
    if kind in READERS:
        return READERS[kind](path)
    if kind in POINT_CLOUD_READERS:
        return point_cloud_to_gaussians(POINT_CLOUD_READERS[kind](path))
    if kind == "ply":
        header = read_header(path)
        # A splat may carry faces, and an incomplete one deserves read_ply's account of what it lacks.
        if is_splat(header) or not is_mesh(header):
            return read_ply(path) if is_splat(header) else point_cloud_to_gaussians(read_point_cloud(path))
    return mesh_to_gaussians(load_mesh(path, kind))


def load_point_cloud(path: str | os.PathLike[str]) -> PointCloud:
    """Read the points of a `.ply`, `.pcd`, `.las`, `.laz`, `.e57` or text file, with their colours and normals.

    Raises:
        FormatError: as `load`; or the file holds no point cloud.
        DataError: no point in it is usable.
    """
    path = Path(path)
    kind = _sniffing.sniff(path)
    if kind != "ply" and kind not in POINT_CLOUD_READERS:
        raise FormatError(f"{path}: is a {kind} file, not a point cloud.")
    return read_point_cloud(path) if kind == "ply" else POINT_CLOUD_READERS[kind](path)


def load_cameras(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> tuple[Cameras, list[str]]:
    """Read the cameras of a COLMAP model (a folder) or a transforms.json, and the names of their images.

    Args:
        size: (width, height) of the images to take, needed when they differ.

    Raises:
        FormatError: the file or folder is missing or damaged, sizes differ, or a camera has lens distortion.
        DataError: no image has the size asked for.
    """
    path = Path(path)
    return read_colmap(path, size) if path.is_dir() else read_transforms_json(path, size)


def save(gaussians: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write Gaussians to `.ply` (exact) or `.splat` (8-bit colours and rotations), as the extension says.

    The file appears under its name only when it is complete.

    Raises:
        FormatError: the extension is not one of these, or the folder cannot be written.
        DataError: there are no Gaussians, or some value is not finite.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise FormatError(f"{path}: cannot write {path.suffix or 'a file without extension'}; use one of {', '.join(WRITERS)}.")
    writer(gaussians, path)
