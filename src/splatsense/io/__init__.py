"""Reading and writing files of Gaussians: `load` takes any supported file, `save` writes a splat.

Design
- `load` looks at the first bytes of a file, then at the extension; a wrong name is no obstacle, a wrong content is an
  error that says what the file seems to be. Meshes and point clouds become Gaussians on the way in.
- One module per format holds its `read_x` and `write_x`, long writers apart; `_ply_container` and `_gltf_container` know
  their formats without knowing what they mean, `_archive` opens zip files that cannot be trusted, `_sniffing` tells formats
  apart, `_cleaning` drops Gaussians that are not numbers.
- A file keeps its own axes and units; `Gaussians.normalized()` brings an object to the common frame.
"""

import os
from collections.abc import Callable
from pathlib import Path

from splatsense.errors import DataError, FormatError
from splatsense.gaussians import Gaussians
from splatsense.io import _sniffing
from splatsense.io._gltf_writer import write_gltf
from splatsense.io._ply_container import read_header
from splatsense.io._sog_writer import write_sog
from splatsense.io.compressed_ply import is_compressed, read_compressed_ply, write_compressed_ply
from splatsense.io.gltf_splat import is_gltf_splat, read_gltf
from splatsense.io.ksplat import read_ksplat
from splatsense.io.mesh import load_mesh
from splatsense.io.ply import is_mesh, is_splat, read_ply, read_point_cloud, write_ply
from splatsense.io.point_cloud import PointCloud, point_cloud_to_gaussians
from splatsense.io.sog import read_sog
from splatsense.io.splat import read_splat, write_splat
from splatsense.io.spz import read_spz, write_spz
from splatsense.io.surface import mesh_to_gaussians
from splatsense.io.tensors import read_npz, read_safetensors, write_npz, write_safetensors

__all__ = [
    "PointCloud",
    "load",
    "load_mesh",
    "mesh_to_gaussians",
    "point_cloud_to_gaussians",
    "read_compressed_ply",
    "read_gltf",
    "read_ksplat",
    "read_npz",
    "read_ply",
    "read_point_cloud",
    "read_safetensors",
    "read_sog",
    "read_splat",
    "read_spz",
    "save",
    "write_compressed_ply",
    "write_gltf",
    "write_npz",
    "write_ply",
    "write_safetensors",
    "write_sog",
    "write_splat",
    "write_spz",
]

READERS: dict[str, Callable[[Path], Gaussians]] = {
    "ksplat": read_ksplat,
    "npz": read_npz,
    "safetensors": read_safetensors,
    "sog": read_sog,
    "splat": read_splat,
    "spz": read_spz,
}
"""By the kind that `_sniffing.sniff` gives. PLY may hold a splat, plain or compressed, points or a mesh: see `load`."""

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
"""By the end of the name; the first that fits."""


def load(path: str | os.PathLike[str]) -> Gaussians:
    """Read a splat, mesh or point cloud as Gaussians.

    Splats: `.ply`, plain or compressed, `.splat`, `.spz`, `.ksplat`, `.sog` (also as a folder or its `meta.json`), `.glb` and
    `.gltf` with KHR_gaussian_splatting, and our own `.npz` and `.safetensors`. Meshes, sampled on their surface: `.obj`,
    `.glb`, `.gltf`, `.stl`, `.ply` with faces. Point clouds: `.ply` with vertices alone. Gaussians with values that are not
    finite or a quaternion of zeros are left out with a warning in the log that gives their number.

    Raises:
        FormatError: the file is missing, empty, cut off, damaged, or of a format that is not supported.
        LimitError: it claims, or would inflate to, more than a file of its size can mean.
        DataError: nothing in it is usable.
    """
    path = Path(path)
    kind = _sniffing.sniff(path)
    if kind in READERS:
        return READERS[kind](path)
    if kind == "ply":
        header = read_header(path)
        if is_compressed(header):
            return read_compressed_ply(path)
        # A splat may carry faces, and an incomplete one deserves read_ply's account of what it lacks.
        if is_splat(header) or not is_mesh(header):
            return read_ply(path) if is_splat(header) else point_cloud_to_gaussians(read_point_cloud(path))
    if kind in ("glb", "gltf") and is_gltf_splat(path):
        return read_gltf(path)
    mesh = load_mesh(path, kind)
    try:
        return mesh_to_gaussians(mesh)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


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
    writer = next((writer for end, writer in WRITERS.items() if path.name.lower().endswith(end)), None)
    if writer is None:
        raise FormatError(f"{path}: cannot write {path.suffix or 'a file without extension'}; use one of {', '.join(WRITERS)}.")
    writer(gaussians, path)
