"""Which format a file has: by its first bytes, then by its extension, with an error that says what it is instead."""

import os
import re
import zlib
from pathlib import Path

from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.formats import POINT_CLOUDS, READABLE, TEXT_CLOUDS
from splatsense.io._archive import open_archive
from splatsense.io.sog import META

WITH_SIGNATURE = (".ply", ".glb", ".spz", ".sog", ".npz", *POINT_CLOUDS)
"""Formats that their first bytes tell; what has the name alone is damaged."""
LATER = (".splatv", ".fbx", ".usdz")

GZIP = b"\x1f\x8b"

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
    """The format of `path`, named by its extension without the dot; .laz is "las", and points as text are "text".

    A folder with a `meta.json`, and that file, are "sog"; zip and gzip archives are told apart by what they hold.

    Raises:
        FormatError: it cannot be read, is empty, or is not of a supported format; says which it seems to be.
    """
    if os.path.isfile(path / META) or path.name.casefold() == META:
        return "sog"
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
    if start.startswith(b"PK") and (kind := _archive_kind(path, suffix)):
        return kind
    if start.startswith(b"NGSP") or (start.startswith(GZIP) and (suffix == ".spz" or _inflated(start, 4) == b"NGSP")):
        return "spz"
    if start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") <= path.stat().st_size - 8:
        return "safetensors"
    if suffix in LATER:
        raise FormatError(
            f"{path}: {suffix} files are not supported yet; convert it to .ply, for example with SuperSplat or MeshLab."
        )
    for pattern, what in FOREIGN:
        if pattern.match(start):
            raise FormatError(f"{path}: is not a 3D file: its first bytes are those of {what}.")
    if suffix not in READABLE:
        raise FormatError(
            f"{path}: unknown format {suffix or '(no extension)'}; supported are {', '.join(READABLE)} "
            "(splats, meshes and point clouds)."
        )
    if suffix in TEXT_CLOUDS:
        return "text"
    if suffix in WITH_SIGNATURE:
        raise FormatError(f"{path}: is not a {suffix} file: it starts with {start[:12]!r}. Copy or export it again.")
    return suffix[1:]


def _archive_kind(path: Path, suffix: str) -> str | None:
    """What a zip archive holds, "sog" or "npz", or None; a name of either kind decides, so that its reader explains."""
    if suffix in (".sog", ".npz"):
        return suffix[1:]
    try:
        with open_archive(path) as archive:
            names = [name.rsplit("/", 1)[-1] for name in archive.names]
    except FormatError:
        return None
    return "sog" if META in names else "npz" if "means.npy" in names else None


def _inflated(start: bytes, size: int) -> bytes:
    """The first `size` bytes of a gzip stream of which `start` is the beginning; fewer if it is damaged or too short."""
    try:
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(start, size)
    except zlib.error:
        return b""
