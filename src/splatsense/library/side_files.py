"""Side files: what belongs to an asset and lies beside it, so that an export takes it along.

- What it refers to: the materials and textures of an .obj, the buffers and images of a .gltf, the images of an unbundled SOG.
- What has its name and another suffix: notes and captions (.txt, .json) and previews (.png, .jpg, .webp).

Only files in the asset's folder or below it, of kinds that such files have: an asset that a stranger made must not make an
export take other files of this machine along.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

REFERRED = frozenset(
    {".mtl", ".bin", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tga", ".tif", ".tiff", ".ktx2", ".dds"}
)
OF_THE_SAME_NAME = frozenset({".txt", ".json", ".png", ".jpg", ".jpeg", ".webp"})
SIDE_SUFFIXES = REFERRED | OF_THE_SAME_NAME
LARGEST_TEXT = 64 << 20  # bytes of a .gltf, .json or .mtl that is looked into
MATERIALS = re.compile(rb"^[ \t]*mtllib[ \t]+(.+?)[ \t\r]*$", re.M)
TEXTURES = re.compile(rb"^[ \t]*(?:map_\w+|bump|disp|decal|refl|norm)[ \t]+(.+?)[ \t\r]*$", re.M | re.I)


def side_files(path: Path) -> list[PurePosixPath]:
    """The side files of an asset that exist, as paths from its folder, in order."""
    folder = path.parent
    names = {*_referred(path), *_of_the_same_name(path)}
    found = {PurePosixPath(name) for name in names if is_plain(name) and _is_inside(folder, name)}
    return sorted(found - {PurePosixPath(path.name)})


def is_plain(name: str) -> bool:
    """Whether a name is a relative path that stays below its folder, of a kind that side files have."""
    parts = name.split("/")
    return (
        all(part not in ("", ".", "..") and "\\" not in part and ":" not in part and part.isprintable() for part in parts)
        and PurePosixPath(name).suffix.lower() in SIDE_SUFFIXES
    )


def _is_inside(folder: Path, name: str) -> bool:
    try:
        real = Path(os.path.realpath(folder / name))
        return real.is_file() and real.is_relative_to(os.path.realpath(folder))
    except OSError:
        return False


def _of_the_same_name(path: Path) -> Iterator[str]:
    if path.name != "meta.json":
        yield from (path.stem + suffix for suffix in sorted(OF_THE_SAME_NAME))


def _referred(path: Path) -> Iterator[str]:
    suffix = path.suffix.lower()
    if suffix == ".obj":
        for material in _names(MATERIALS, path):
            yield material
            if is_plain(material) and _is_inside(path.parent, material):
                for texture in _names(TEXTURES, path.parent / material):
                    yield texture
                    yield texture.rpartition(" ")[2]  # after options
    elif suffix in (".gltf", ".json"):
        document = _json(path)
        for uri in _strings(document, ("uri",) if suffix == ".gltf" else ("files",)):
            yield unquote(uri)


def _names(pattern: re.Pattern[bytes], path: Path) -> Iterator[str]:
    """What a statement of an .obj or .mtl names."""
    try:
        with path.open("rb") as handle:
            text = handle.read(LARGEST_TEXT)
    except OSError:
        return
    for name in pattern.findall(text):
        yield os.fsdecode(name).replace("\\", "/").removeprefix("./")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size <= LARGEST_TEXT else None
    except (OSError, ValueError, RecursionError):
        return None


def _strings(document: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """Strings under these keys, at any depth, alone or in lists."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key, held in value.items():
                if key in keys:
                    yield from (one for one in (held if isinstance(held, list) else [held]) if isinstance(one, str))
            pending += value.values()
        elif isinstance(value, list):
            pending += value
