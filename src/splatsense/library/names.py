"""Names people can read: words out of file names."""

import re
from pathlib import PurePath

GENERIC = frozenset({
    "asset", "cloud", "export", "file", "gaussians", "material", "mesh", "model", "object", "output", "point", "pointcloud",
    "scan", "scene", "source", "splat", "textured", "untitled",
})  # fmt: skip
"""Words that say nothing about an object; a file named only by them is called by its folder."""


def words_of(stem: str) -> str:
    """The lower-case words of a file name: "OakChair_02-final" gives "oak chair final"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d+$)", " ", stem)
    words = re.sub(r"[\W_]+", " ", spaced).lower().split()
    named = [word for word in words if not word.isdigit()]
    return " ".join(named or words)


def asset_name(path: str | PurePath) -> str:
    """What to call the asset in a file: its words, or its folder's where the file is just "scene.gltf" or "point_cloud.ply"."""
    path = PurePath(path)
    if path.name.lower().endswith(".compressed.ply"):
        path = path.with_name(path.name[: -len(".compressed.ply")] + ".ply")
    for part in (path.stem, *(parent.name for parent in path.parents)):
        words = [word for word in words_of(part).split() if word not in GENERIC and not re.fullmatch(r"iteration|\d+", word)]
        if words:
            return words_of(part)
    return words_of(path.stem) or path.name
