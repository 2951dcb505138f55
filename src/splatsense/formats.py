"""File formats by their extensions: said once, for the readers, the library and the command line."""

from pathlib import Path

SPLATS = (".ply", ".splat", ".spz", ".ksplat", ".sog", ".glb", ".gltf", ".npz", ".safetensors")
"""What may hold Gaussians; `.ply`, `.glb` and `.gltf` may hold a mesh instead, `.ply` also points."""
MESHES = (".obj", ".stl")
POINT_CLOUDS = (".pcd", ".las", ".laz", ".e57")
TEXT_CLOUDS = (".xyz", ".xyzrgb", ".xyzn", ".pts", ".txt", ".csv", ".asc")
READABLE = (*SPLATS, *MESHES, *POINT_CLOUDS, *TEXT_CLOUDS)

WRITABLE = (".compressed.ply", ".ply", ".splat", ".spz", ".sog", ".glb", ".gltf", ".npz", ".safetensors")
"""By the end of a name; the first that fits."""

ASSET_SUFFIXES = frozenset(READABLE) - {".txt", ".csv", ".asc"}
"""What is taken from a folder. Any text may be a point cloud, but only when it is named outright."""

ARCHIVE_SUFFIXES = frozenset({".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst"})
"""What assets are often downloaded in. They are not looked into; a `.sog`, a zip archive too, is an asset itself."""


def writable_suffix(path: Path) -> str | None:
    """The entry of `WRITABLE` that the name of a file ends in, or None."""
    return next((suffix for suffix in WRITABLE if path.name.lower().endswith(suffix)), None)


def without_suffix(path: Path) -> Path:
    """`path` without its extension, both parts of `.compressed.ply` included."""
    stem = path.with_suffix("")
    return stem.with_suffix("") if stem.suffix.lower() == ".compressed" else stem
