"""A folder of meshes as a corpus: every file is an object named after its file name or a line of captions.

`captions.csv` (columns `file,name` and optionally `tags,label,split,licence,creator`; tags separated by `;`) in the
folder overrides what the file names say; files it does not list keep their own names.
"""

import csv
from functools import partial
from pathlib import Path

from splatsense.corpora import CorpusObject, safe_key, words_from_identifier
from splatsense.errors import FormatError
from splatsense.io.mesh import MESH_SUFFIXES, load_mesh

NOISE_WORDS = frozenset({"mat", "transformed", "sm", "mesh", "model", "final", "lod", "low", "poly", "lowpoly", "copy"})


def folder(path: str | Path, licence: str = "") -> list[CorpusObject]:
    """All meshes below a folder, sorted by path.

    Args:
        path: the folder.
        licence: licence of everything in it that `captions.csv` gives none for.

    Raises:
        FormatError: the folder is missing or holds no mesh, or `captions.csv` lacks the column `file`.
    """
    root = Path(path)
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in MESH_SUFFIXES and file.is_file())
    if not files:
        raise FormatError(f"{root}: no mesh below it; expected files ending in {' '.join(MESH_SUFFIXES)}.")
    captions = _read_captions(root / "captions.csv")
    return [_object(root, file, captions.get(file.relative_to(root).as_posix(), {}), licence) for file in files]


def _read_captions(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    if rows and "file" not in rows[0]:
        raise FormatError(f"{path}: line 1 lacks the column `file` (paths relative to the folder).")
    return {row["file"]: row for row in rows}


def _object(root: Path, file: Path, row: dict[str, str], licence: str) -> CorpusObject:
    relative = file.relative_to(root)
    words = [word for word in words_from_identifier(file.stem).split() if word not in NOISE_WORDS]
    return CorpusObject(
        key=safe_key(relative.with_suffix("").as_posix()),
        name=row.get("name") or " ".join(words) or "object",
        load_mesh=partial(load_mesh, file),
        tags=tuple(tag.strip() for tag in row.get("tags", "").split(";") if tag.strip()),
        label=row.get("label", ""),
        split=row.get("split") or "train",
        licence=row.get("licence") or licence,
        creator=row.get("creator", ""),
    )
