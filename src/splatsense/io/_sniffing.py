"""Which format a file has: by its first bytes, then by its extension, with an error that says what it is instead."""

import re
from pathlib import Path

from splatsense.errors import FormatError
from splatsense.files import open_to_read

MESHES = (".obj", ".glb", ".gltf", ".stl")
TEXT_CLOUDS = (".xyz", ".xyzrgb", ".xyzn", ".pts", ".txt", ".csv", ".asc")
POINT_CLOUDS = (".pcd", ".las", ".laz", ".e57", *TEXT_CLOUDS)
SUPPORTED = (".ply", ".splat", *MESHES, *POINT_CLOUDS)
LATER = (".spz", ".ksplat", ".sog", ".splatv", ".fbx", ".usdz")

FOREIGN = (
    (re.compile(rb"\x89PNG\r\n"), "a PNG image"),
    (re.compile(rb"\xff\xd8\xff[\xdb\xe0-\xef]"), "a JPEG image"),
    (re.compile(rb"GIF8[79]a"), "a GIF image"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "a WebP image"),
    (re.compile(rb"%PDF-"), "a PDF document"),
    (
        re.compile(rb"\xef?\xbb?\xbf?\s*<(!doctype html|html|head|body)\b", re.IGNORECASE),
        "a web page, perhaps the error page of a failed download",
    ),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer; fetch the real file with `git lfs pull`"),
    (re.compile(rb"PK\x03\x04"), "a zip archive; unpack it"),
    (re.compile(rb"\x1f\x8b\x08"), "a gzip archive; unpack it"),
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), "a 7z archive; unpack it"),
    (re.compile(rb"SQLite format 3\x00"), "an SQLite database"),
)


def sniff(path: Path) -> str:
    """The format of `path`: "ply", "splat", "obj", "glb", "gltf", "stl", "pcd", "las", "e57" or "text" (points as text).

    Raises:
        FormatError: it cannot be read, is empty, or is not of a supported format; says which it seems to be.
    """
    with open_to_read(path) as handle:
        start = handle.read(512)
    if not start:
        raise FormatError(f"{path}: is empty; copy or export it again.")
    suffix = path.suffix.lower()
    if re.match(rb"ply[ \t]*[\r\n]", start):
        return "ply"
    if start.startswith(b"glTF"):
        return "glb"
    if start.startswith(b"LASF"):
        return "las"
    if start.startswith(b"ASTM-E57"):
        return "e57"
    if re.match(rb"(#[^\n]*\n\s*)*(# ?\.PCD|VERSION[ \t]+0?\.[0-9])", start):
        return "pcd"
    if suffix in LATER:
        raise FormatError(
            f"{path}: {suffix} files are not supported yet; convert it to .ply, for example with SuperSplat or MeshLab."
        )
    for pattern, what in FOREIGN:
        if pattern.match(start):
            raise FormatError(f"{path}: is not a 3D file: its first bytes are those of {what}.")
    if suffix not in SUPPORTED:
        raise FormatError(
            f"{path}: unknown format {suffix or '(no extension)'}; supported are {', '.join(SUPPORTED)} "
            "(splats, point clouds and meshes)."
        )
    if suffix in TEXT_CLOUDS:
        return "text"
    if suffix in (".ply", ".glb", *POINT_CLOUDS):
        raise FormatError(f"{path}: is not a {suffix} file: it starts with {start[:12]!r}. Copy or export it again.")
    return suffix[1:]
