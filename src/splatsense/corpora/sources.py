"""Corpora by a short name: `furniture`, `furniture:PATH`, `folder:PATH`, `modelnet40:PATH`, `splats:PATH`."""

from pathlib import Path

from splatsense.corpora import Corpus
from splatsense.corpora.folder import folder
from splatsense.corpora.furniture import furniture
from splatsense.corpora.modelnet import modelnet40
from splatsense.corpora.splats import splats
from splatsense.errors import DataError

FOLDERS = {"folder": folder, "modelnet40": modelnet40, "splats": splats}
USAGE = "furniture, furniture:PATH, folder:PATH, modelnet40:PATH or splats:PATH"


def open_corpus(source: str, licence: str = "") -> Corpus:
    """A corpus by its short name.

    Args:
        source: `KIND` or `KIND:PATH`.
        licence: of everything its caption file gives none for.

    Raises:
        DataError: there is no such kind, its path is missing, or two objects have one id.
        FormatError: the path is not what the kind says, or a caption file is damaged.
    """
    kind, _, path = source.partition(":")
    if kind == "furniture":
        return furniture(Path(path) if path else None)
    if kind not in FOLDERS:
        raise DataError(f"CORPUS {source!r}: use {USAGE}.")
    if not path:
        raise DataError(f"CORPUS {source!r}: needs a folder, as in {kind}:PATH.")
    return FOLDERS[kind](Path(path), licence)
