"""A folder of splats as a corpus: named and captioned as a folder of meshes, read by `splatsense.io.load`."""

from pathlib import Path

from splatsense.corpora import Corpus
from splatsense.corpora.folder import annotated_corpus
from splatsense.errors import DataError
from splatsense.formats import SPLATS
from splatsense.io import load
from splatsense.mesh import Mesh


def splats(path: str | Path, licence: str = "") -> Corpus:
    """All splats below a folder, sorted by path. They are taken as they lie: y is up, as in glTF.

    Args:
        path: the folder.
        licence: licence of everything in it that its caption file gives none for.

    Raises:
        FormatError: the folder is missing or holds no splat, or its caption file is damaged.
        DataError: two files have one id.
    """
    return annotated_corpus("splats", Path(path), SPLATS, "splat", licence, _no_mesh, load)


def _no_mesh(path: Path) -> Mesh:
    raise DataError(f"{path}: is a splat and has no mesh.")
