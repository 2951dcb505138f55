"""Reading and writing files of Gaussians: `load` takes any supported file, `save` writes a splat.

Design
- `load` looks at the first bytes of a file, then at the extension; a wrong name is no obstacle, a wrong content is an
  error that says what the file seems to be. Meshes and point clouds become Gaussians on the way in.
- One module per format holds its `read_x` and `write_x`, long writers apart. `_sniffing` tells formats apart; `_cleaning`
  drops Gaussians that are not numbers on the way in, `_writing` refuses them on the way out.
- Files are not trusted: `_ply_container`, `_gltf_container`, `_json`, `_archive`, `_decompression` and `_mesh_limits` check
  what a file declares against what it holds before memory is taken, and `_isolated` runs decoders of other packages.
- A file keeps its own axes and units; `Gaussians.normalized()` brings an object to the common frame.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from splatsense.cameras import Cameras
from splatsense.errors import DataError, FormatError
from splatsense.formats import WRITABLE, writable_suffix
from splatsense.gaussians import Gaussians
from splatsense.io import _sniffing
from splatsense.io._gltf_writer import write_gltf
from splatsense.io._ply_container import read_header
from splatsense.io._sog_writer import write_sog
from splatsense.io._spz_writer import write_spz
from splatsense.io.colmap import read_colmap, read_colmap_points
from splatsense.io.compressed_ply import is_compressed, read_compressed_ply, write_compressed_ply
from splatsense.io.e57 import read_e57
from splatsense.io.gltf_splat import is_gltf_splat, read_gltf
from splatsense.io.ksplat import read_ksplat
from splatsense.io.las import read_las
from splatsense.io.mesh import load_mesh
from splatsense.io.pcd import read_pcd
from splatsense.io.ply import is_mesh, is_splat, read_ply, read_point_cloud, write_ply
from splatsense.io.point_cloud import PointCloud, point_cloud_to_gaussians
from splatsense.io.sog import read_sog
from splatsense.io.splat import read_splat, write_splat
from splatsense.io.spz import read_spz
from splatsense.io.surface import mesh_to_gaussians
from splatsense.io.tensors import read_npz, read_safetensors, write_npz, write_safetensors
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
    "read_compressed_ply",
    "read_e57",
    "read_gltf",
    "read_ksplat",
    "read_las",
    "read_npz",
    "read_pcd",
    "read_ply",
    "read_point_cloud",
    "read_safetensors",
    "read_sog",
    "read_splat",
    "read_spz",
    "read_text_cloud",
    "read_transforms_json",
    "save",
    "write_compressed_ply",
    "write_gltf",
    "write_npz",
    "write_ply",
    "write_safetensors",
    "write_sog",
    "write_splat",
    "write_spz",
    "write_transforms_json",
]

log = logging.getLogger("splatsense")

READERS: dict[str, Callable[[Path], Gaussians]] = {
    "ksplat": read_ksplat,
    "npz": read_npz,
    "safetensors": read_safetensors,
    "sog": read_sog,
    "splat": read_splat,
    "spz": read_spz,
}
"""By the kind that `_sniffing.sniff` gives. PLY may hold a splat, plain or compressed, points or a mesh: see `load`."""

POINT_CLOUD_READERS: dict[str, Callable[[Path], PointCloud]] = {
    "e57": read_e57,
    "las": read_las,
    "pcd": read_pcd,
    "text": read_text_cloud,
}
"""By the kind that `_sniffing.sniff` gives."""

WRITERS: dict[str, Callable[[Gaussians, Path], object]] = {
    ".compressed.ply": write_compressed_ply,
    ".ply": write_ply,
    ".splat": write_splat,
    ".spz": write_spz,
    ".sog": write_sog,
    ".glb": write_gltf,
    ".gltf": write_gltf,
    ".npz": write_npz,
    ".safetensors": write_safetensors,
}
"""By the entries of `formats.WRITABLE`."""


def load(path: str | os.PathLike[str]) -> Gaussians:
    """Read a splat, mesh or point cloud as Gaussians.

    Splats: `.ply`, plain or compressed, `.splat`, `.spz`, `.ksplat`, `.sog` (also as a folder or its `meta.json`), `.glb` and
    `.gltf` with KHR_gaussian_splatting, and our own `.npz` and `.safetensors`. Meshes, sampled on their surface: `.obj`,
    `.glb`, `.gltf`, `.stl`, `.ply` with faces. Point clouds: `.ply` with vertices alone, `.pcd`, `.las`, `.laz`, `.e57` and
    text (`.xyz`, `.pts`, `.txt`, `.csv`); one far from the origin is moved to it, which the log says and `load_point_cloud`
    tells. Gaussians with values that are not finite or a quaternion of zeros are left out with a warning in the log that
    gives their number.

    Raises:
        FormatError: the file is missing, empty, cut off, damaged, or of a format that is not supported.
        LimitError: it claims, or would inflate to, more than a file of its size can mean.
        DataError: nothing in it is usable.
    """
    path = Path(path)
    kind = _sniffing.sniff(path)
    if kind in READERS:
        return READERS[kind](path)
    if kind in POINT_CLOUD_READERS:
        return _gaussians_of_points(POINT_CLOUD_READERS[kind](path), path)
    if kind == "ply":
        header = read_header(path)
        if is_compressed(header):
            return read_compressed_ply(path)
        # A splat may carry faces, and an incomplete one deserves read_ply's account of what it lacks.
        if is_splat(header) or not is_mesh(header):
            return read_ply(path) if is_splat(header) else _gaussians_of_points(read_point_cloud(path), path)
    if kind in ("glb", "gltf") and is_gltf_splat(path):
        return read_gltf(path)
    mesh = load_mesh(path, kind)
    log.info("%s: is a mesh of %s faces, which is covered with Gaussians.", path, f"{len(mesh.faces):,}")
    try:
        return mesh_to_gaussians(mesh)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _gaussians_of_points(cloud: PointCloud, path: Path) -> Gaussians:
    log.info("%s: is a cloud of %s points, each of which becomes a Gaussian.", path, f"{len(cloud.points):,}")
    return point_cloud_to_gaussians(cloud)


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
    """Write Gaussians in the format that the end of the name says.

    `.ply`, `.glb`, `.gltf`, `.npz` and `.safetensors` keep every value, `.compressed.ply`, `.spz`, `.sog` and `.splat` are
    small; docs/formats.md has the precision of each. `.compressed.ply` and `.sog` change the order: `write_sog` returns it,
    `write_compressed_ply` can keep it. `.splat` has no view-dependent colour. The file appears under its name only when it
    is complete.

    Raises:
        FormatError: the extension is not one of these, or the folder cannot be written.
        DataError: there are no Gaussians, or some value is not finite.
    """
    path = Path(path)
    suffix = writable_suffix(path)
    if suffix is None:
        raise FormatError(
            f"{path}: cannot write {path.suffix or 'a file without extension'}; use one of {', '.join(WRITABLE)}."
        )
    WRITERS[suffix](gaussians, path)
